"""The least that a server does: an app's lifespan and requests, in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI

Message = MutableMapping[str, Any]

HTTP = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "root_path": "",
    "query_string": b"",
    "headers": [],
    "scheme": "http",
    "client": ("test", 1),
    "server": ("test", 80),
}


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    assert message.get("status", 200) == 200, message


class Driver:
    """Sends requests to an app whose lifespan runs, and shuts it down."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.started = anyio.Event()
        self.stop = anyio.Event()
        self.ended = anyio.Event()

    async def get(self, path: str) -> None:
        scope = {**HTTP, "path": path, "raw_path": path.encode(), "state": self.state.copy()}
        await self.app(scope, receive, send)

    async def shut_down(self) -> None:
        self.stop.set()
        await self.ended.wait()

    async def live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        await self.app(scope, self._receive, self._send)
        self.ended.set()

    async def _receive(self) -> Message:
        if not self.started.is_set():
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        assert "failed" not in message["type"], message
        self.started.set()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[Driver]:
    """The app, started; it is shut down at the end."""
    driver = Driver(app)
    async with anyio.create_task_group() as group:
        group.start_soon(driver.live)
        await driver.started.wait()
        yield driver
        await driver.shut_down()
