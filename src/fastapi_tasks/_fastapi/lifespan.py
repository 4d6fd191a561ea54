"""The runner's life inside the app's, from before the app starts to before it shuts down (G15).

It stands around the app as ASGI, where every lifespan passes, however the app was put together. The
app asks for its next message by `receive()`: while it waits there, it has started and has not begun
to shut down. So that call is where the drain belongs, whether the message comes or an exception.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from logging import WARNING
from threading import Lock
from typing import Any, TypeAlias

from anyio import Event, create_task_group

from .._core.drain import Drain
from .._core.lifetime import Host
from .._core.log import log, names
from .._core.registry import CLOSED, OPEN
from .._core.sigterm import Sigterm
from .._core.supervisor import TaskRunner
from .._core.task import PENDING, Task
from ..errors import FastAPITasksError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Lifespan:
    """Runs the lifespans of one app, one at a time, each with the runner inside.

    Args:
        grace_period: seconds for all tasks in the drain.
        shield_timeout: seconds for shielded tasks after that; `None` for no limit.
    """

    def __init__(
        self, runner: TaskRunner, *, grace_period: float, shield_timeout: float | None
    ) -> None:
        self._runner = runner
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
        runner = self._runner
        runner.stopping = Event()
        runner._host = Host(runner._max_threads, runner._clear_up)
        life = _Life(runner, Drain(runner, self._grace_period, self._shield_timeout), receive, send)
        error = None
        try:
            error = await life.run(app)
            await life.pass_on()
            if error is not None:
                raise error
        finally:
            life.sigterm.put_back()
            del error  # it holds this frame by its traceback


class _Life:
    """One lifespan: the app's messages, and the runner's life between them."""

    def __init__(self, runner: TaskRunner, drain: Drain, receive: Receive, send: Send) -> None:
        self._runner = runner
        self._drain = drain
        self._receive = receive
        self._send = send
        self._held_back: list[Message] = []
        self._ended = Event()  # set when the runner has ended
        self.sigterm = Sigterm()

    async def run(self, app: Callable[[Receive, Send], Awaitable[None]]) -> BaseException | None:
        """Run the app's lifespan with the runner inside, from open to closed.

        Return what the app raised: the task group here would wrap it.
        """
        host = self._runner._host
        error = None
        async with create_task_group() as group:
            group.start_soon(self._host)
            try:
                await host.opened.wait()
                await app(self._receive_and_drain, self._send_or_hold_back)
            except BaseException as exc:
                error = exc
            if host.opened.is_set():
                try:
                    await self._drain_whatever_happens()
                finally:
                    host.end()  # which the drain has done, whatever was wrong with that
            else:
                host.abandon()
        return error

    async def _receive_and_drain(self) -> Message:
        if self._held_back:  # an app that asks for one more has ended its lifespan as well
            await self._drain_whatever_happens()
            await self._ended.wait()
            await self.pass_on()
        try:
            message = await self._receive()
        except BaseException:
            await self._drain_whatever_happens()
            raise
        if message["type"] == "lifespan.shutdown":
            self.sigterm.take()
            await self._drain_whatever_happens(with_grace=True)
        return message

    async def _send_or_hold_back(self, message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            self._held_back.append(message)  # the server may end everything once it has this
            return
        if message["type"] == "lifespan.startup.failed":
            await self._drain_whatever_happens()
        try:
            await self._send(message)
        except BaseException:
            await self._drain_whatever_happens()
            raise

    async def pass_on(self) -> None:
        """Send what was held back until the runner had ended."""
        while self._held_back:
            await self._send(self._held_back.pop(0))

    async def _drain_whatever_happens(self, *, with_grace: bool = False) -> None:
        # In a task group, because that waits for its child even when asyncio's Task.cancel() hits
        # this task: shielding by a cancel scope does not keep that out.
        async with create_task_group() as group:
            group.start_soon(partial(self._drain.run, with_grace=with_grace))

    async def _host(self) -> None:
        """The runner's life: from the start of a lifespan to the end of the drain."""
        runner = self._runner
        try:
            await runner._host.run(partial(runner._registry.enter, OPEN), self._close)
        finally:
            self._close()
            self._end(runner._registry.list_unfinished())
            self._ended.set()

    def _close(self) -> None:
        self._runner._registry.enter(CLOSED)
        self._end([task for task in self._runner.tasks if task.state is PENDING])

    def _end(self, left: Sequence[Task[..., Any]]) -> None:
        """Only a `KeyboardInterrupt` or a forced end of the event loop leaves any."""
        if left:
            what = f"{len(left)} task(s) do not run: {names(left)}"
            log(WARNING, "the runner was ended: %s", what)
        for task in left:
            self._runner._give_up(task)
