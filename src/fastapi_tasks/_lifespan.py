"""The runner's life inside the app's: from before the app starts to before it shuts down (G15).

It stands around the app as ASGI, where every lifespan passes, however the app was put together. The
app asks for its next message by `receive()`: while it waits there, it has started and has not begun
to shut down. So that call is where the drain belongs, whether the message comes or an exception.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from threading import Lock
from typing import Any, TypeAlias

from anyio import create_task_group

from ._runner import TaskRunner
from .errors import FastAPITasksError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Lifespan:
    """Runs the lifespans of one app, one at a time, each with the runner inside."""

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner
        self._only_one = Lock()

    async def run(
        self, app: Callable[[Receive, Send], Awaitable[None]], receive: Receive, send: Send
    ) -> None:
        if not self._only_one.acquire(blocking=False):
            raise FastAPITasksError(
                "this app's lifespan is running already: one runner cannot own the tasks of two "
                "at the same time; make an app for each, in a function that returns it"
            )
        try:
            await self._run(app, receive, send)
        finally:
            self._only_one.release()

    async def _run(
        self, app: Callable[[Receive, Send], Awaitable[None]], receive: Receive, send: Send
    ) -> None:
        runner = self._runner
        last_message: Message | None = None
        error: BaseException | None = None

        async def receive_and_drain() -> Message:
            try:
                message = await receive()
            except BaseException:
                await self._drain(0)
                raise
            if message["type"] == "lifespan.shutdown":
                await self._drain(runner._grace_period)
            return message

        async def send_or_hold_back(message: Message) -> None:
            nonlocal last_message
            if message["type"] == "lifespan.startup.complete":
                await send(message)
            else:  # the server may end everything once it has this
                last_message = message

        runner._renew()
        async with create_task_group() as group:
            group.start_soon(runner._host)
            try:
                await runner._opened.wait()
                await app(receive_and_drain, send_or_hold_back)
            except BaseException as exc:
                error = exc  # raised outside of the group, which would wrap it
            await self._drain(0)
        try:
            if last_message is not None:
                await send(last_message)
            if error is not None:
                raise error
        finally:
            del error  # it holds this frame by its traceback

    async def _drain(self, grace_period: float) -> None:
        # A task group, because it waits for its child even when asyncio's Task.cancel() hits this
        # task: shielding by a cancel scope does not keep that out.
        async with create_task_group() as group:
            group.start_soon(self._runner._drain, grace_period)
