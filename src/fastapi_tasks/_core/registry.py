"""The registry: which tasks there are, and who may become one.

Each task is in it from its admission to its end, wherever it is meanwhile: waiting for its timing
point, on its way from another thread, running, in its error handler. Joining, draining and counting
look at nothing else.

Admission takes its lock, and so does a change of phase (G16): a task is either in the registry
before a phase ends, and meets that end there, or it meets the next phase.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from threading import RLock
from typing import Any

from anyio import Event

from ..errors import (
    FastAPITasksUninitializedAppError,
    TasksClosedError,
    TooManyTasksError,
)
from .identity import new_id
from .lifetime import CLOSED, NEW, OPEN, Lifetime
from .state import FAILED, SUCCEEDED
from .statistics import TaskStatistics
from .supervised import SupervisedTask

_REMEDY = (
    "servers run it (uvicorn: without --lifespan off), but not that of a mounted app: call "
    "add_tasks() on the outer app; tests write `with TestClient(app)`, or take "
    "fastapi_tasks.testing.client(app) or fastapi_tasks.testing.lifespan(app), not "
    "app.router.lifespan_context(app), which bypasses what stands around the app"
)


class Registry:
    """The unfinished tasks of an app.

    Attributes:
        lock: held for some instructions, by any thread.
        tasks: a set that keeps its order; `list_tasks()` is for other threads.
        not_run: tasks that did not run, since the app is shutting down; they have finished, but for
            what the event loop has to tell of that.
    """

    def __init__(self, max_tasks: int | None) -> None:
        # A signal handler may schedule, too, wherever it interrupts us.
        self.lock: AbstractContextManager[bool] = RLock()
        self.tasks: dict[SupervisedTask[..., Any], None] = {}
        self.not_run: dict[SupervisedTask[..., Any], None] = {}
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self._succeeded = self._failed = self._cancelled = self._refused = 0  # as in `statistics()`
        self._running = 0  # how many of the tasks have begun
        # Those whose id somebody has asked for.
        self._ids: dict[SupervisedTask[..., Any], str] = {}
        self._by_id: dict[str, SupervisedTask[..., Any]] = {}
        self._idle = Event()  # set when both get empty; replaced by who waits for that

    def admit(self, task: SupervisedTask[..., Any], lifetime: Lifetime) -> bool:
        """Take a task in, or raise; return whether it runs."""
        with self.lock:
            is_open = lifetime.phase is OPEN
            if not is_open:
                self._check_phase(lifetime)
            if len(self.tasks) >= self._max_tasks:
                self._refused += 1
                raise TooManyTasksError(
                    f"{self._max_tasks} tasks are unfinished, which is max_tasks: "
                    "schedule less, or answer 503 (Service Unavailable)"
                )
            if is_open or task.config.shielded:
                self.tasks[task] = None
                return True
            self._cancelled += 1
            self.not_run[task] = None
            return False

    def _check_phase(self, lifetime: Lifetime) -> None:
        lifetime.refuse_if_forked()
        if lifetime.phase is NEW:
            raise FastAPITasksUninitializedAppError(
                f"the app's lifespan has not been run, so no task can be scheduled: {_REMEDY}"
            )
        if lifetime.phase is CLOSED:
            self._refused += 1
            raise TasksClosedError(
                "the app has shut down and accepts no more tasks: schedule before the code "
                "behind the lifespan's yield, or call the function instead; and if its lifespan "
                f"was to run once more: {_REMEDY}"
            )

    def begin(self, task: SupervisedTask[..., Any]) -> None:
        """Note that a task runs, its error handler included, until it is removed."""
        task.has_begun, self._running = True, self._running + 1

    def has(self, task: SupervisedTask[..., Any]) -> bool:
        """Whether it has not finished."""
        return task in self.tasks or task in self.not_run

    def remove(self, task: SupervisedTask[..., Any]) -> None:
        """Count a task as finished, once."""
        with self.lock:
            if self._ids and (id_ := self._ids.pop(task, None)) is not None:
                del self._by_id[id_]
            try:
                del self.tasks[task]
            except KeyError:
                self.not_run.pop(task, None)  # which is counted already
                return
            self._running -= task.has_begun
            if task.state is SUCCEEDED:
                self._succeeded += 1
            elif task.state is FAILED:
                self._failed += 1
            else:
                self._cancelled += 1

    def identify(self, task: SupervisedTask[..., Any]) -> str:
        """Make the id of a task, by which it is found until it is removed."""
        id_ = new_id()
        with self.lock:
            if self.has(task):
                self._ids[task], self._by_id[id_] = id_, task
        return id_

    def find(self, id_: str) -> SupervisedTask[..., Any] | None:
        return self._by_id.get(id_)

    @property
    def is_idle(self) -> bool:
        return not (self.tasks or self.not_run)

    def note_idle(self) -> None:
        if not self.tasks and not self.not_run:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        while not self.is_idle:
            if self._idle.is_set():
                self._idle = Event()
            await self._idle.wait()

    def list_unfinished(self) -> tuple[SupervisedTask[..., Any], ...]:
        """The tasks that the shutdown waits for, those that did not run included."""
        with self.lock:
            tasks = [*self.tasks, *self.not_run]
        return tuple(tasks)

    def list_tasks(self) -> tuple[SupervisedTask[..., Any], ...]:
        with self.lock:
            tasks = [*self.tasks]  # at once, where `tuple()` may have to collect garbage meanwhile
        return tuple(tasks)

    def statistics(self) -> TaskStatistics:
        with self.lock:
            unfinished = len(self.tasks)
            finished = self._succeeded + self._failed + self._cancelled
            return TaskStatistics(
                scheduled=unfinished + finished,
                waiting=unfinished - self._running,
                running=self._running,
                succeeded=self._succeeded,
                failed=self._failed,
                cancelled=self._cancelled,
                refused=self._refused,
            )
