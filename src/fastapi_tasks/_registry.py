"""The registry: which tasks there are, and who may become one.

Each task is in it from its admission to its end, wherever it is meanwhile: waiting for its timing
point, on its way from another thread, running, in its error handler. Joining, draining and counting
look at nothing else.

Phases (G16) change on the event loop's thread, under the lock: `NEW`, then for each lifespan
`OPEN`, `DRAINING` (admits shielded tasks only) and `CLOSED`. Admission takes the same lock: a task
is either in the registry before a phase ends, and meets that end there, or it meets the next phase.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from threading import RLock
from typing import Any

from anyio import Event

from ._statistics import TaskStatistics
from ._task import CANCELLED, FAILED, PENDING, SUCCEEDED, Task
from .errors import (
    FastAPITasksUninitializedAppError,
    TasksClosedError,
    TooManyTasksError,
)


class Phase(Enum):
    NEW = auto()  # no lifespan has begun
    OPEN = auto()  # everything is admitted; the grace period is part of this
    DRAINING = auto()  # shielded tasks are admitted, and start at once
    CLOSED = auto()  # nothing is admitted


NEW, OPEN, DRAINING, CLOSED = Phase  # quicker than to look them up on their class


class Registry:
    """The unfinished tasks of an app.

    Attributes:
        lock: held for some instructions, by any thread.
        phase: changed by `enter()` only.
        tasks: a set that keeps its order; `list_tasks()` is for other threads.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self.lock = RLock()  # a signal handler may schedule too, wherever it interrupts us
        self.phase = NEW
        self.tasks: dict[Task[..., Any], None] = {}
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self._scheduled = self._failed = self._cancelled = self._refused = 0  # as in `statistics()`
        self._idle = Event()  # set when `tasks` gets empty; replaced by who waits for that

    def enter(self, phase: Phase) -> None:
        with self.lock:
            self.phase = phase

    def admit(self, task: Task[..., Any]) -> bool:
        """Take a task in, or raise; return whether it runs."""
        with self.lock:
            is_open = self.phase is OPEN
            if not is_open:
                self._check_phase()
            if len(self.tasks) >= self._max_tasks:
                self._refused += 1
                raise TooManyTasksError(
                    f"{self._max_tasks} tasks are unfinished, which is max_tasks: "
                    "schedule less, or answer 503 (Service Unavailable)"
                )
            self.tasks[task] = None
            self._scheduled += 1
            if is_open or task.config.shielded:
                return True
            task._enter(CANCELLED)
            return False

    def _check_phase(self) -> None:
        if self.phase is NEW:
            raise FastAPITasksUninitializedAppError(
                "the app's lifespan has not been run, so no task can be scheduled: serve the "
                "app with a server that runs lifespans (uvicorn: without --lifespan off); "
                "tests and outer apps run it by ASGI messages, not by lifespan_context()"
            )
        if self.phase is CLOSED:
            self._refused += 1
            raise TasksClosedError(
                "the app has shut down and accepts no more tasks: schedule before the code "
                "behind the lifespan's yield, or call the function instead"
            )

    def remove(self, task: Task[..., Any]) -> bool:
        """Count a task as finished; return whether it had not been yet."""
        with self.lock:
            try:
                del self.tasks[task]
            except KeyError:
                return False
            if task.state is not SUCCEEDED:
                self._failed += task.state is FAILED
                self._cancelled += task.state is CANCELLED
        return True

    def note_idle(self) -> None:
        if not self.tasks:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        while self.tasks:
            if self._idle.is_set():
                self._idle = Event()
            await self._idle.wait()

    def list_tasks(self) -> tuple[Task[..., Any], ...]:
        with self.lock:
            return tuple(self.tasks)

    def statistics(self) -> TaskStatistics:
        with self.lock:
            unfinished = len(self.tasks)
            waiting = sum(task.state is PENDING for task in self.tasks)
            return TaskStatistics(
                scheduled=self._scheduled,
                waiting=waiting,
                running=unfinished - waiting,
                succeeded=self._scheduled - unfinished - self._failed - self._cancelled,
                failed=self._failed,
                cancelled=self._cancelled,
                refused=self._refused,
            )
