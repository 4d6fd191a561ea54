"""Watching tasks: the base class of instruments, and how they are told."""

from __future__ import annotations

from logging import ERROR
from typing import TYPE_CHECKING, Any

from .function import type_name
from .interrupt import pass_interrupt
from .log import log
from .task import Task

if TYPE_CHECKING:
    from .runner import TaskRunner


class Instrument:
    """Told of every task of an app; override what is of interest. After `trio.abc.Instrument`.

    Pass instances to `add_tasks(app, instruments=[...])`, or for a time to `runner.watching()`. The
    methods are called where things happen, so they must be quick. One that raises is logged once
    and not called again.
    """

    def attached(self, runner: TaskRunner) -> None:
        """It will be told of the tasks of that runner; before all else."""

    def task_scheduled(self, task: Task[..., Any]) -> None:
        """A task was handed over; in the thread of the `schedule()` call, before it starts."""

    def task_started(self, task: Task[..., Any]) -> None:
        """It takes its first step; on the event loop's thread."""

    def task_progressed(self, task: Task[..., Any]) -> None:
        """It has changed its `progress`; in the thread of whoever did.

        At most ten times a second for each task; and of the last value just before it finishes.
        """

    def task_finished(self, task: Task[..., Any]) -> None:
        """It has ended, or was cancelled before it started; on the event loop's thread.

        Exactly once for each scheduled task.
        """


class GuardedInstrument(Instrument):
    """An instrument that can harm nobody: one that raises is logged, and switched off."""

    def __init__(self, instrument: Instrument) -> None:
        if not issubclass(type(instrument), Instrument):
            kind = type_name(instrument)
            raise TypeError(f"instruments must be objects of Instrument's subclasses, not {kind}")
        self._instrument = instrument

    def attached(self, runner: TaskRunner) -> None:
        self._tell("attached", runner)

    def task_scheduled(self, task: Task[..., Any]) -> None:
        self._tell("task_scheduled", task)

    def task_started(self, task: Task[..., Any]) -> None:
        self._tell("task_started", task)

    def task_progressed(self, task: Task[..., Any]) -> None:
        self._tell("task_progressed", task)

    def task_finished(self, task: Task[..., Any]) -> None:
        self._tell("task_finished", task)

    def _tell(self, what: str, of: Task[..., Any] | TaskRunner) -> None:
        try:
            getattr(self._instrument, what)(of)
        except BaseException as exc:
            pass_interrupt(exc)
            name = type_name(self._instrument)
            self._instrument = Instrument()
            log(ERROR, "the instrument %r failed and is switched off", name, error=exc)
