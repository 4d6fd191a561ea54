"""The routes of a program's app: one for each run of a route, and a middleware that tries again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_tasks import RequestTasks, Tasks
from tests_trio.support import Message

from .actors import Actors, Scene
from .errors import fail
from .program import Program, Run, parts_of


def add_routes(app: FastAPI, program: Program, actors: Actors) -> None:
    again: dict[str, str] = {}  # from path to path
    for number, request in enumerate(program.requests):
        runs: dict[str, Run] = {f"{number}": request}
        runs |= {f"part/{part.id}": part for part in parts_of(request)}
        for path, run in runs.items():
            add_route(app, path, number, run, actors)
            if run.again is not None:
                again[f"/{path}"] = f"/part/{run.again.id}"
    if again:
        app.add_middleware(TryAgain, again)


def add_route(app: FastAPI, path: str, number: int, run: Run, actors: Actors) -> None:
    name = path.replace("/", " ") if "/" in path else f"request {path}"

    def scene(connection: HTTPConnection, tasks: RequestTasks) -> Scene:
        return Scene(name, number, connection, tasks)

    async def request_scoped(connection: HTTPConnection, tasks: Tasks) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await actors.perform(run.request_teardown, scene(connection, tasks))

    async def function_scoped(connection: HTTPConnection, tasks: Tasks) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await actors.perform(run.function_teardown, scene(connection, tasks))
            fail("ValueError" if run.teardown_fails else None)

    async def endpoint(connection: HTTPConnection, tasks: Tasks) -> Any:
        here = scene(connection, tasks)
        await actors.perform(run.endpoint, here)
        fail(run.fails)
        return StreamingResponse(body(here)) if run.kind == "stream" else None

    async def body(here: Scene) -> AsyncIterator[bytes]:
        for step in run.stream:
            await actors.perform((step,), here)
            yield b"chunk"
        fail("ValueError" if run.stream_fails else None)

    def def_endpoint(connection: HTTPConnection, tasks: Tasks) -> None:
        actors.perform_in_thread(run.endpoint, scene(connection, tasks))
        fail(run.fails)

    async def websocket(socket: WebSocket, tasks: Tasks) -> None:
        await socket.accept()
        await endpoint(socket, tasks)

    dependencies = [
        Depends(request_scoped, scope="request"),
        Depends(function_scoped, scope="function"),
    ]
    if run.kind == "websocket":
        app.websocket(f"/{path}", dependencies=dependencies)(websocket)
    else:
        func = def_endpoint if run.kind == "def" else endpoint
        app.get(f"/{path}", dependencies=dependencies, response_model=None)(func)


class TryAgain:
    """A middleware that calls the app again, by another path, if it has failed.

    It has also failed if it answers with an error, which is dropped.
    """

    def __init__(self, app: ASGIApp, paths: dict[str, str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        other = self.paths.get(scope["path"]) if scope["type"] == "http" else None
        if other is None:
            await self.app(scope, receive, send)
        elif not await self.succeeds(scope, receive, send):
            scope["path"], scope["raw_path"] = other, other.encode()
            await self.app(scope, receive, send)

    async def succeeds(self, scope: Scope, receive: Receive, send: Send) -> bool:
        is_good = False

        async def send_if_good(message: Message) -> None:
            nonlocal is_good
            if message["type"] == "http.response.start":
                is_good = message["status"] < 400
            if is_good:
                await send(message)

        try:
            await self.app(scope, receive, send_if_good)
        except Exception:
            if is_good:
                raise
        return is_good
