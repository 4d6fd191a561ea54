"""Watching tasks: the base class of instruments, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable
from logging import ERROR
from typing import Any, Literal

from ._log import log
from ._task import Task


class Instrument:
    """Told of every task of an app; override what is of interest. After `trio.abc.Instrument`.

    Pass instances to `add_tasks(app, instruments=[...])`. The methods are called where things
    happen, so they must be quick. One that raises is logged once and not called again.
    """

    def task_scheduled(self, task: Task[..., Any]) -> None:
        """A task was handed over; in the thread of the `schedule()` call, before it starts."""

    def task_started(self, task: Task[..., Any]) -> None:
        """It takes its first step; on the event loop's thread."""

    def task_finished(self, task: Task[..., Any]) -> None:
        """It has ended, or was cancelled before it started; on the event loop's thread.

        Exactly once for each scheduled task.
        """


class Instruments:
    """The instruments of a runner, less those that failed."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = tuple(instruments)  # replaced, never changed: any thread may iterate

    def add(self, instrument: Instrument) -> None:
        self._instruments = (*self._instruments, instrument)

    def remove(self, instrument: Instrument) -> None:
        self._instruments = tuple(each for each in self._instruments if each is not instrument)

    def tell(
        self,
        what: Literal["task_scheduled", "task_started", "task_finished"],
        task: Task[..., Any],
    ) -> None:
        for instrument in self._instruments:
            try:
                getattr(instrument, what)(task)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                self.remove(instrument)
                name = type(instrument).__qualname__
                log(ERROR, "the instrument %s failed and is switched off", name, error=exc)
