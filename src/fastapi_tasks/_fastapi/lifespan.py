"""The app's lifespans, each with a lifetime of tasks inside of it (G15).

It stands around the app as ASGI, where every lifespan passes, however the app was put together. The
app asks for its next message by `receive()`: while it waits there, it has started and has not begun
to shut down. So that call is where the drain belongs, whether the message comes or an exception.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Lock

from anyio import Event, create_task_group
from starlette.types import Message, Receive, Send

from .._core.drain import Drain
from .._core.supervisor import Supervisor
from ..errors import FastAPITasksError
from .sigterm import Sigterm


class Lifespans:
    """Runs the lifespans of one app, one at a time, each with a lifetime of tasks inside.

    Args:
        grace_period: seconds for all tasks in the drain.
        shield_timeout: seconds for shielded tasks after that; `None` for no limit.
    """

    def __init__(
        self, supervisor: Supervisor, *, grace_period: float, shield_timeout: float | None
    ) -> None:
        self._supervisor = supervisor
        self._grace_period = grace_period
        self._shield_timeout = math.inf if shield_timeout is None else shield_timeout
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
        self._supervisor.begin_lifetime()
        drain = Drain(self._supervisor, self._grace_period, self._shield_timeout)
        life = _OneLifespan(self._supervisor, drain, receive, send)
        error = None
        try:
            error = await life.run(app)
            await life.pass_on()
            if error is not None:
                raise error
        finally:
            self._supervisor.clocks.close()
            life.sigterm.put_back()
            del error  # it holds this frame by its traceback


class _OneLifespan:
    """One lifespan: the app's messages, and the lifetime of tasks between them."""

    def __init__(self, supervisor: Supervisor, drain: Drain, receive: Receive, send: Send) -> None:
        self._supervisor = supervisor
        self._drain = drain
        self._receive = receive
        self._send = send
        self._held_back: list[Message] = []
        self._lifetime_is_over = Event()  # set when no task is left
        self.sigterm = Sigterm()

    async def run(self, app: Callable[[Receive, Send], Awaitable[None]]) -> BaseException | None:
        """Run the app's lifespan with the tasks' lifetime inside, from open to closed.

        Return what the app raised: the task group here would wrap it.
        """
        lifetime = self._supervisor.lifetime
        error = None
        async with create_task_group() as group:
            group.start_soon(self._run_tasks)
            try:
                await lifetime.opened.wait()
                await app(self._receive_and_drain, self._send_or_hold_back)
            except BaseException as exc:
                error = exc
            if lifetime.opened.is_set():
                try:
                    await self._drain_whatever_happens()
                finally:
                    lifetime.end()  # which the drain has done, whatever was wrong with that
            else:
                lifetime.abandon()
        return error

    async def _receive_and_drain(self) -> Message:
        if self._held_back:  # an app that asks for one more has ended its lifespan as well
            await self._drain_whatever_happens()
            await self._lifetime_is_over.wait()
            await self.pass_on()
        try:
            message = await self._receive()
        except BaseException:
            await self._drain_whatever_happens()
            raise
        if message["type"] == "lifespan.shutdown":
            await self._drain_whatever_happens(with_grace=True)
        return message

    async def _send_or_hold_back(self, message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            self._held_back.append(message)  # the server may end everything once it has this
            return
        if message["type"] == "lifespan.startup.failed":
            await self._drain_whatever_happens()
        else:
            self._supervisor.clocks.begin()  # the startup is complete
        try:
            await self._send(message)
        except BaseException:
            await self._drain_whatever_happens()
            raise

    async def pass_on(self) -> None:
        """Send what was held back until no task was left."""
        while self._held_back:
            await self._send(self._held_back.pop(0))

    async def _drain_whatever_happens(self, *, with_grace: bool = False) -> None:
        self.sigterm.take()
        # In a task group, because that waits for its child even when asyncio's Task.cancel() hits
        # this task: shielding by a cancel scope does not keep that out.
        async with create_task_group() as group:
            group.start_soon(partial(self._drain.run, with_grace=with_grace))

    async def _run_tasks(self) -> None:
        try:
            await self._supervisor.run_lifetime()
        finally:
            self._lifetime_is_over.set()
