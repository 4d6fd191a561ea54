"""The runner: the one owner of all tasks of an app.

Theory of operation
-------------------

*Two groups.* Shielded tasks live in one AnyIO task group and the others in a second one, which the
drain cancels. Both are hosted by a task of the runner's own, not by the lifespan's: cancelling a
group cancels its host too, and the user's shutdown code must not be cancelled. No exception but
`KeyboardInterrupt` leaves a task (`_call.run`), so no group is ever cancelled by a failure.

*One registry.* `_tasks` holds each task from its admission to its end, wherever it is meanwhile:
waiting for its timing point, on its way from another thread, running, in its error handler. Joining
and draining look at nothing else.

*The state is the truth.* A task may be cancelled while it waits, while it travels, and while its
coroutine is spawned and has not run. None of these places is searched: whoever comes to start a
task that is no longer `PENDING` passes over it.

*Phases* (G16) change on the event loop's thread, under the lock: `NEW`, then for each lifespan
`OPEN`, `DRAINING` (admits shielded tasks only) and `CLOSED`. Admission takes the same lock: a task
is either in the registry before a phase ends, and meets that end there, or it meets the next phase.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextvars import copy_context
from enum import Enum, auto
from threading import RLock, get_ident
from typing import Any, Protocol

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    NoEventLoopError,
    create_task_group,
    current_time,
    sleep_forever,
)
from anyio.abc import TaskGroup, TaskStatus

from ._call import run
from ._config import TaskConfig
from ._mailbox import Mailbox
from ._scheduler import TaskScheduler
from ._task import Task, TaskState
from .errors import FastAPITasksUninitializedAppError, TasksClosedError

logger = logging.getLogger("fastapi_tasks")

REPORT_INTERVAL = 5.0  # seconds between two log lines of a drain that waits


class _Phase(Enum):
    NEW = auto()  # no lifespan has begun
    OPEN = auto()  # everything is admitted; the grace period is part of this
    DRAINING = auto()  # shielded tasks are admitted, and start at once
    CLOSED = auto()  # nothing is admitted


class Line(Protocol):
    """The tasks of one request: when they may start, and in which order."""

    def add(self, task: Task[..., Any], *, draining: bool) -> bool:
        """Take a task in; return whether it starts now. The runner's lock is held."""
        ...

    def release(self) -> None:
        """Start what waits for a timing point, as if all of them had come."""
        ...

    async def turn(self, task: Task[..., Any]) -> None:
        """Return when each task before this one has started, or will not."""
        ...


class TaskRunner(TaskScheduler):
    """Owns the tasks of an app, and schedules those that belong to no request.

    `add_tasks()` makes it. It works while the app's lifespan runs, from any thread, for the
    lifespan's own code and for tasks as well.

    Attributes:
        stopping: set when the app begins to shut down: the moment for endless loops to end. A new
            event for each lifespan.
    """

    def __init__(
        self,
        config: TaskConfig,
        *,
        grace_period: float,
        shield_timeout: float | None,
        max_threads: int,
    ) -> None:
        super().__init__("now", config)
        _check_seconds("grace_period", grace_period)
        if shield_timeout is not None:
            _check_seconds("shield_timeout", shield_timeout)
        if type(max_threads) is not int or max_threads < 1:
            raise ValueError(
                f"max_threads must be a number of threads from 1 up, not {max_threads!r}"
            )
        self._grace_period = grace_period
        self._shield_timeout = math.inf if shield_timeout is None else shield_timeout
        self._max_threads = max_threads
        self._lock = RLock()  # a signal handler may schedule too, wherever it interrupts us
        self._phase = _Phase.NEW
        self._tasks: dict[Task[..., Any], Line | None] = {}
        self._idle = Event()  # set when `_tasks` gets empty; replaced by who waits for that
        self.stopping = Event()
        # These belong to one lifespan: `_renew` makes them, `_host` the groups.
        self._opened: Event
        self._thread: int
        self._threads: CapacityLimiter
        self._mailbox: Mailbox[Task[..., Any]]
        self._shielded: TaskGroup
        self._unshielded: TaskGroup

    @property
    def running(self) -> bool:
        """Whether tasks are admitted: from the lifespan's start to the end of the drain."""
        return self._phase in (_Phase.OPEN, _Phase.DRAINING)

    async def join(self) -> None:
        """Wait until no task is unfinished; tasks that wait for their timing point count."""
        while self._tasks:
            if self._idle.is_set():
                self._idle = Event()
            await self._idle.wait()

    # Admission and start: from any thread.

    def _submit(self, task: Task[..., Any]) -> None:
        self._submit_to(None, task)

    def _submit_to(self, line: Line | None, task: Task[..., Any]) -> None:
        with self._lock:
            admitted = self._admit(task, line)
            starts_now = admitted and (
                line is None or line.add(task, draining=self._phase is _Phase.DRAINING)
            )
        if not admitted:
            task._enter(TaskState.CANCELLED)
            task._finish()
            logger.warning(
                "task %r does not run: the app is shutting down and the task is not shielded",
                task.name,
            )
        elif starts_now:
            self._start(task)
        # else the line starts it

    def _admit(self, task: Task[..., Any], line: Line | None) -> bool:
        match self._phase:
            case _Phase.NEW:
                raise FastAPITasksUninitializedAppError(
                    "the app's lifespan has not been run, so no task can be scheduled: serve the "
                    "app with a server that runs lifespans (uvicorn: without --lifespan off), or "
                    "in a test enter its lifespan first"
                )
            case _Phase.CLOSED:
                raise TasksClosedError(
                    "the app has shut down and accepts no more tasks: schedule before the code "
                    "behind the lifespan's yield, or call the function instead"
                )
            case _Phase.DRAINING if not task.config.shielded:
                return False
            case _:
                self._tasks[task] = line
                return True

    def _start(self, task: Task[..., Any]) -> None:
        if get_ident() != self._thread or not self._spawn(task):
            task._context = task._context or copy_context()
            self._mailbox.post(task)

    def _spawn(self, task: Task[..., Any]) -> bool:
        """Have the task run on the event loop; return whether that was possible from here."""
        if task.state is not TaskState.PENDING:  # cancelled on its way here
            return True
        group = self._shielded if task.config.shielded else self._unshielded
        coro = self._run(task, group.cancel_scope)
        try:
            group.create_task(coro, name=task.name, context=task._context)
        except NoEventLoopError:  # in a bare callback of asyncio's event loop
            coro.close()
            return False
        task._context = None
        return True

    # Running: on the event loop's thread.

    async def _run(self, task: Task[..., Any], scope: CancelScope) -> None:
        try:
            if line := self._tasks.get(task):
                await line.turn(task)
            if task.state is TaskState.PENDING:
                await run(task, self._threads, scope)
        finally:
            self._forget(task)

    def _forget(self, task: Task[..., Any]) -> None:
        self._tasks.pop(task, None)
        task._finish()
        if not self._tasks:
            self._idle.set()

    def _discard(self, task: Task[..., Any]) -> None:
        """Cancel a task that has not started."""
        task._enter(TaskState.CANCELLED)
        self._forget(task)

    # The life of the runner: one lifespan.

    def _renew(self) -> None:
        """Make ready for a lifespan, on its event loop."""
        self.stopping = Event()
        self._opened = Event()
        self._thread = get_ident()
        self._threads = CapacityLimiter(self._max_threads)
        self._mailbox = Mailbox()

    async def _host(self) -> None:
        """Host the tasks until the drain (or a `KeyboardInterrupt`) has ended them."""
        try:
            with CancelScope(shield=True):
                async with create_task_group() as self._shielded:
                    await self._shielded.start(self._host_unshielded)
                    self._enter(_Phase.OPEN)
                    self._opened.set()
                    while True:
                        for task in await self._mailbox.receive():
                            self._spawn(task)
        finally:
            self._close()

    async def _host_unshielded(self, *, task_status: TaskStatus[None]) -> None:
        async with create_task_group() as self._unshielded:
            task_status.started()
            await sleep_forever()

    def _enter(self, phase: _Phase) -> None:
        with self._lock:
            self._phase = phase

    def _close(self) -> None:
        self._enter(_Phase.CLOSED)
        self._opened.set()
        self._mailbox.close()
        for task in tuple(self._tasks):  # none, but after a KeyboardInterrupt
            self._discard(task)

    async def _drain(self, grace_period: float) -> None:
        """Steps 1 to 5 of G16, whatever cancels the caller."""
        with CancelScope(shield=True):
            if not self._opened.is_set():  # the lifespan's call was cancelled at once
                await self._opened.wait()
            if self._phase is _Phase.CLOSED:
                return
            self.stopping.set()
            await self._wait_for_tasks(current_time() + grace_period)
            self._cut_off()
            deadline = current_time() + self._shield_timeout
            await self._wait_for_tasks(deadline)
            self._enter(_Phase.CLOSED)
            await self._wait_for_tasks(deadline)  # what was admitted a moment before
            self._give_up()
            await self._wait_for_tasks(math.inf)  # threads
            self._shielded.cancel_scope.cancel()  # this ends `_host`

    def _cut_off(self) -> None:
        """Step 3: the timing points count as come, the unshielded tasks are cancelled."""
        with self._lock:
            self._phase = _Phase.DRAINING
            tasks = tuple(self._tasks)
            lines = [line for line in self._tasks.values() if line is not None]
        if unshielded := [task for task in tasks if not task.config.shielded]:
            logger.warning("shutdown cancels %d task(s): %s", len(unshielded), names(unshielded))
        for task in unshielded:
            if task.state is TaskState.PENDING:
                self._discard(task)
        self._unshielded.cancel_scope.cancel()
        for line in dict.fromkeys(lines):
            line.release()

    async def _wait_for_tasks(self, deadline: float) -> None:
        while self._tasks and current_time() < deadline:
            with CancelScope(deadline=min(deadline, current_time() + REPORT_INTERVAL)):
                await self.join()
            if self._tasks and current_time() < deadline:
                logger.warning("shutdown waits for %s", names(tuple(self._tasks)))

    def _give_up(self) -> None:
        """The end of step 4: cancel the shielded tasks that are still there."""
        if shielded := [task for task in tuple(self._tasks) if task.config.shielded]:
            logger.critical(
                "shutdown cancels shielded tasks, %s s after the others: %s",
                self._shield_timeout,
                names(shielded),
            )
            self._shielded.cancel_scope.cancel()


def names(tasks: Iterable[Task[..., Any]]) -> str:
    return ", ".join(repr(task.name) for task in tasks)


def _check_seconds(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} must be a number of seconds from 0 up, not {value!r}")
