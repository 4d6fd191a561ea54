"""The runner's life inside the app's, from before the app starts to before it shuts down (G15).

It stands around the app as ASGI, where every lifespan passes, however the app was put together. The
app asks for its next message by `receive()`: while it waits there, it has started and has not begun
to shut down. So that call is where the drain belongs, whether the message comes or an exception.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from logging import CRITICAL, WARNING
from threading import Lock
from typing import Any, TypeAlias

from anyio import CancelScope, Event, create_task_group, current_time

from ._host import Host
from ._log import log, names
from ._registry import CLOSED, DRAINING, OPEN
from ._runner import TaskRunner
from ._task import PENDING, Task
from .errors import FastAPITasksError

REPORT_INTERVAL = 5.0  # seconds between two log lines of a drain that waits

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
        held_back: list[Message] = []

        async def receive_and_drain() -> Message:
            try:
                message = await receive()
            except BaseException:
                await self._drain_whatever_happens(0)
                raise
            if message["type"] == "lifespan.shutdown":
                await self._drain_whatever_happens(self._grace_period)
            return message

        async def send_or_hold_back(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await send(message)
            else:  # the server may end everything once it has this
                held_back.append(message)

        error = await self._run_hosted(partial(app, receive_and_drain, send_or_hold_back))
        try:
            for message in held_back:
                await send(message)
            if error is not None:
                raise error
        finally:
            del error  # it holds this frame by its traceback

    async def _run_hosted(self, app: Callable[[], Awaitable[None]]) -> BaseException | None:
        """Run the app's lifespan with the runner inside, from open to closed.

        Return what the app raised: the task group here would wrap it.
        """
        runner = self._runner
        runner.stopping = Event()
        host = runner._host = Host(runner._max_threads, runner._clear_up)
        error = None
        async with create_task_group() as group:
            group.start_soon(self._live)
            try:
                await host.opened.wait()
                await app()
            except BaseException as exc:
                error = exc
            if host.opened.is_set():
                await self._drain_whatever_happens(0)
            else:
                host.abandon()
        return error

    async def _live(self) -> None:
        """The runner's life: from the start of a lifespan to the end of the drain."""
        runner = self._runner
        try:
            await runner._host.run(partial(runner._registry.enter, OPEN), self._close)
        finally:
            self._close()
            self._discard(runner.tasks)

    def _close(self) -> None:
        self._runner._registry.enter(CLOSED)
        self._discard([task for task in self._runner.tasks if task.state is PENDING])

    def _discard(self, left: Sequence[Task[..., Any]]) -> None:
        """Only a `KeyboardInterrupt` or a forced end of the event loop leaves any."""
        if left:
            what = f"{len(left)} task(s) do not run: {names(left)}"
            log(WARNING, "the runner was ended: %s", what)
        for task in left:
            self._runner._discard(task)

    async def _drain_whatever_happens(self, grace_period: float) -> None:
        # In a task group, because that waits for its child even when asyncio's Task.cancel() hits
        # this task: shielding by a cancel scope does not keep that out.
        async with create_task_group() as group:
            group.start_soon(self._drain, grace_period)

    async def _drain(self, grace_period: float) -> None:
        """Steps 1 to 5 of G16, once."""
        runner = self._runner
        with CancelScope(shield=True):
            if not runner.running:
                return
            runner.stopping.set()
            await self._wait_for_tasks(current_time() + grace_period)
            self._cut_off()
            deadline = current_time() + self._shield_timeout
            await self._wait_for_tasks(deadline)
            runner._registry.enter(CLOSED)
            await self._wait_for_tasks(deadline)  # what was admitted a moment before
            self._give_up()
            await self._wait_for_tasks(math.inf)  # threads
            runner._host.end()

    def _cut_off(self) -> None:
        """Step 3: the timing points count as come, the unshielded tasks are cancelled."""
        runner = self._runner
        with runner._registry.lock:
            runner._registry.enter(DRAINING)
            tasks = runner.tasks
        unshielded = [task for task in tasks if not task.config.shielded]
        if unshielded:
            log(WARNING, "shutdown cancels %d task(s): %s", len(unshielded), names(unshielded))
        runner._host.cancel_unshielded()  # first, so that none sees another one's end before
        for task in unshielded:
            if task.state is PENDING:
                runner._discard(task)
        for line in dict.fromkeys(task._line for task in tasks if task._line is not None):
            line._release()

    async def _wait_for_tasks(self, deadline: float) -> None:
        runner = self._runner
        while runner._registry.tasks and current_time() < deadline:
            with CancelScope(deadline=min(deadline, current_time() + REPORT_INTERVAL)):
                await runner.join()
            if runner._registry.tasks and current_time() < deadline:
                log(WARNING, "shutdown waits for %s", names(runner.tasks))

    def _give_up(self) -> None:
        """The end of step 4: cancel the shielded tasks that are still there."""
        if shielded := [task for task in self._runner.tasks if task.config.shielded]:
            log(
                CRITICAL,
                "shutdown cancels shielded tasks, %s s after the others: %s",
                self._shield_timeout,
                names(shielded, at_most=len(shielded)),
            )
            self._runner._host.end()
