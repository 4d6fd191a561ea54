"""The runner: the one owner of all tasks of an app.

Theory of operation
-------------------

*One registry.* `_tasks` holds each task from its admission to its end, wherever it is meanwhile:
waiting for its timing point, on its way from another thread, running, in its error handler. Joining
and draining look at nothing else.

*The state is the truth.* A task may be cancelled while it waits, while it travels, and while its
coroutine is spawned and has not run. None of these places is searched: whoever comes to start a
task that is no longer `PENDING` passes over it.

*Phases* (G16) change on the event loop's thread, under the lock: `NEW`, then for each lifespan
`OPEN`, `DRAINING` (admits shielded tasks only) and `CLOSED`. Admission takes the same lock: a task
is either in the registry before a phase ends, and meets that end there, or it meets the next phase.

Where tasks run is the host's business (`_host`), in which order the line's (`_request`), and when
the phases change the lifespan's (`_lifespan`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Coroutine, Iterable
from contextvars import copy_context
from enum import Enum, auto
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from logging import ERROR, WARNING
from threading import RLock
from typing import Any

from anyio import CancelScope, CapacityLimiter, Event
from anyio.lowlevel import cancel_shielded_checkpoint

from ._call import call_task, handle_error, judge
from ._config import TaskConfig
from ._function import has_slot
from ._host import Host
from ._instrument import GuardedInstrument, Instrument
from ._log import log
from ._scheduler import TaskScheduler
from ._statistics import TaskStatistics
from ._task import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, Task, running_task
from .errors import (
    FastAPITasksError,
    FastAPITasksUninitializedAppError,
    TasksClosedError,
    TooManyTasksError,
)

_NOT_SHIELDED = "the app is shutting down and the task is not shielded"


class Phase(Enum):
    NEW = auto()  # no lifespan has begun
    OPEN = auto()  # everything is admitted; the grace period is part of this
    DRAINING = auto()  # shielded tasks are admitted, and start at once
    CLOSED = auto()  # nothing is admitted


NEW, OPEN, DRAINING, CLOSED = Phase  # quicker than to look them up on their class


class TaskRunner(TaskScheduler):
    """Owns the tasks of an app, and schedules those that belong to no request.

    `add_tasks()` makes it. It works while the app's lifespan runs, from any thread, for the
    lifespan's own code and for tasks as well.

    Attributes:
        stopping: set when the app begins to shut down: the moment for endless loops to end. A new
            event for each lifespan.
    """

    stopping: Event

    def __init__(
        self,
        config: TaskConfig,
        *,
        max_tasks: int | None,
        max_threads: int,
        instruments: Iterable[Instrument],
    ) -> None:
        super().__init__("now", config)
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self._max_threads = max_threads
        # Replaced, never changed: any thread may iterate.
        self._instruments = tuple(map(GuardedInstrument, instruments))
        self._lock = RLock()  # a signal handler may schedule too, wherever it interrupts us
        self._phase = NEW
        self._tasks: dict[Task[..., Any], None] = {}  # a set that keeps its order
        self._scheduled = self._failed = self._cancelled = self._refused = 0  # as in `statistics()`
        self._idle = Event()  # set when `_tasks` gets empty; replaced by who waits for that
        self.stopping = Event()
        self._host: Host  # of the latest lifespan

    @property
    def running(self) -> bool:
        """Whether tasks are admitted: from the lifespan's start to the end of the drain."""
        return self._phase in (OPEN, DRAINING)

    @property
    def tasks(self) -> tuple[Task[..., Any], ...]:
        """The unfinished tasks; those that wait for their timing point are among them."""
        with self._lock:
            return tuple(self._tasks)

    def statistics(self) -> TaskStatistics:
        """Return the counts of this moment."""
        with self._lock:
            unfinished = len(self._tasks)
            waiting = sum(task.state is PENDING for task in self._tasks)
            return TaskStatistics(
                scheduled=self._scheduled,
                waiting=waiting,
                running=unfinished - waiting,
                succeeded=self._scheduled - unfinished - self._failed - self._cancelled,
                failed=self._failed,
                cancelled=self._cancelled,
                refused=self._refused,
            )

    async def join(self) -> None:
        """Wait until no task is unfinished; tasks that wait for their timing point count.

        Raises:
            FastAPITasksError: in a task of this runner, which would wait for itself.
        """
        if (task := running_task.get()) in self._tasks:
            raise FastAPITasksError(f"task {task.name!r} would wait for itself: join() elsewhere")
        while self._tasks:
            if self._idle.is_set():
                self._idle = Event()
            await self._idle.wait()

    # Admission and start: from any thread.

    @property
    def _is_here(self) -> bool:
        return self._host.is_here

    @property
    def _threads(self) -> CapacityLimiter:
        return self._host.threads

    def _submit(self, task: Task[..., Any]) -> None:
        task._runner = self
        with self._lock:
            runs = self._admit(task)
        try:
            for instrument in self._instruments:
                instrument.task_scheduled(task)
            if not runs:
                log(WARNING, "task %r does not run: %s", task.name, _NOT_SHIELDED)
                self._host.call(partial(self._forget, task))
            elif task._line is None or task._line._add(task):
                self._start(task)
        except BaseException:  # a RecursionError, say: no task is left that nobody starts
            self._host.call(partial(self._discard, task))
            raise

    def _admit(self, task: Task[..., Any]) -> bool:
        """Take a task into the registry, or raise; return whether it runs."""
        is_open = self._phase is OPEN
        if not is_open:
            self._check_phase()
        if len(self._tasks) >= self._max_tasks:
            self._refused += 1
            raise TooManyTasksError(
                f"{self._max_tasks} tasks are unfinished, which is max_tasks: "
                "schedule less, or answer 503 (Service Unavailable)"
            )
        self._tasks[task] = None
        self._scheduled += 1
        if is_open or task.config.shielded:
            return True
        task._enter(CANCELLED)
        return False

    def _check_phase(self) -> None:
        if self._phase is NEW:
            raise FastAPITasksUninitializedAppError(
                "the app's lifespan has not been run, so no task can be scheduled: serve the "
                "app with a server that runs lifespans (uvicorn: without --lifespan off); "
                "tests and outer apps run it by ASGI messages, not by lifespan_context()"
            )
        if self._phase is CLOSED:
            self._refused += 1
            raise TasksClosedError(
                "the app has shut down and accepts no more tasks: schedule before the code "
                "behind the lifespan's yield, or call the function instead"
            )

    def _start(self, task: Task[..., Any]) -> None:
        """Have a task run on the event loop: spawn it, or leave that to the loop's thread."""
        if task.state is not PENDING:  # cancelled on its way here
            return
        context = task._context
        shielded = task.config.shield is True
        task._handle = self._host.spawn(
            self._run, task, shielded=shielded, name=task.name, context=context
        )
        if task._handle is not None:
            task._context = None
        else:
            task._context = copy_context() if context is None else context  # an empty one is falsy
            self._host.post(partial(self._start_late, task))

    def _start_late(self, task: Task[..., Any]) -> None:
        """Start a task whose `schedule()` call has returned, and cannot raise."""
        try:
            self._start(task)
        except Exception as exc:
            log(ERROR, "task %r cannot be started", task.name, error=exc)
            self._discard(task)

    def _cancel(self, task: Task[..., Any]) -> None:
        self._host.call(partial(self._cancel_here, task))

    def _cancel_here(self, task: Task[..., Any]) -> None:
        if task.state is PENDING:
            self._discard(task)
        elif task._handle is not None:
            task._handle.cancel()

    # Running: on the event loop's thread.

    async def _run(self, task: Task[..., Any], scope: CancelScope) -> None:
        """Run a task, from its turn to the end of its error handler."""
        try:
            if (line := task._line) is not None:
                while task.state is PENDING and not line._take_turn(task):
                    await cancel_shielded_checkpoint()
            if task.state is not PENDING:  # cancelled meanwhile
                return
            task._enter(RUNNING)
            for instrument in self._instruments:
                instrument.task_started(task)
            running_task.set(task)
            if has_slot.get():  # it was scheduled in a thread that had one
                has_slot.set(False)
            threads = self._host.threads
            try:
                task._result = await call_task(task, threads)
            except BaseException as exc:
                judge(task, exc, scope)
            else:
                task.state = SUCCEEDED
            if task.exception is not None:
                await handle_error(task, threads, scope)
        finally:
            if task.state is PENDING:  # hit in its turn
                self._lose(task)
            self._forget(task)

    def _unbegun(self) -> dict[Task[..., Any], Coroutine[Any, Any, None]]:
        """The tasks that are spawned and have not taken their first step."""
        coros = {task: task._handle.coro for task in self.tasks if task._handle is not None}
        return {
            task: coro for task, coro in coros.items() if getcoroutinestate(coro) == CORO_CREATED
        }

    def _lose_unbegun(self, before: Collection[Task[..., Any]]) -> None:
        """Lose those that were spawned into a lost group, and will not begin any more."""
        for task, coro in self._unbegun().items():
            if task in before:
                coro.close()
                self._lose(task)

    def _lose(self, task: Task[..., Any]) -> None:
        """It has not started, and its event-loop task was hit by asyncio's `Task.cancel()`."""
        log(WARNING, "task %r was cancelled, but not by this library", task.name)
        self._discard(task)

    def _discard(self, task: Task[..., Any]) -> None:
        """Cancel a task that has not started."""
        task._enter(CANCELLED)
        task._context = None
        if task._line is not None:
            with self._lock:
                task._line._remove(task)
        self._forget(task)

    def _forget(self, task: Task[..., Any]) -> None:
        """The task has finished; of a cancelled one its unused coroutine says so once more."""
        with self._lock:
            try:
                del self._tasks[task]
            except KeyError:
                return
            if task.state is not SUCCEEDED:
                self._failed += task.state is FAILED
                self._cancelled += task.state is CANCELLED
        task._finish()
        for instrument in self._instruments:
            instrument.task_finished(task)
        if not self._tasks:
            self._idle.set()

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            self._phase = phase
