"""A clock: work that comes again, each round a task of its own.

Theory of operation
-------------------

A clock has no task of the event loop: it is a timer (`timers`). When a planned time has come, its
`tick()` schedules a round, as anybody would, unless the one before still runs; and it plans the
next one. So between rounds there is nothing that a shutdown, or `join()`, would wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextvars import Context
from datetime import datetime
from functools import partial
from logging import ERROR, WARNING
from random import uniform
from typing import Any

from ..errors import FastAPITasksError, TooManyTasksError
from .event import TaskEvent
from .interrupt import pass_interrupt
from .lifetime import Lifetime
from .log import log
from .owner import Owner
from .task import Task
from .times import Times


class Clock:
    """One clock, which runs in one lifespan after the other, or in one only.

    Attributes:
        name: of its rounds.
        last: the latest round.
        next_at: when the next one is planned; `None` if the clock does not run.
        rounds: how many it has begun.
        skipped: how many it has not.
    """

    def __init__(
        self,
        name: str,
        times: Times,
        jitter: float,
        schedule: Callable[[], Task[..., Any]],
        context: Context,
        owner: Owner,
    ) -> None:
        """`schedule` schedules a round, in a copy of `context`.

        Args:
            times: when the rounds are planned.
            jitter: seconds, up to which each comes later than that.
        """
        self.name = name
        self.last: Task[..., Any] | None = None
        self.next_at: datetime | None = None
        self.rounds: int = 0
        self.skipped: int = 0
        self._times = times
        self._jitter = jitter
        self._delay = 0.0  # of the round that is planned
        self._schedule: Callable[[], Task[..., Any]] | None = schedule
        self._context: Context | None = context
        self._owner = owner
        self._ended = TaskEvent(owner)
        self._lifetime: Lifetime | None = None  # of the lifespan that it runs in
        self._on_end: Callable[[Clock], None]
        self._is_skipping = False  # the latest round was skipped, which was said

    # From any thread.

    def enter(self, lifetime: Lifetime, on_end: Callable[[Clock], None]) -> None:
        """Belong to that lifespan; `on_end` is called at the clock's end there."""
        self._lifetime, self._on_end, self._ended = lifetime, on_end, TaskEvent(self._owner)

    def begin(self) -> None:
        """Begin in the lifespan that it has entered, now or soon."""
        if self._lifetime is not None:
            self._lifetime.call(self._begin_here)

    def drop(self) -> None:
        """Have no more rounds, ever, and keep nothing that only those need."""
        self._schedule = self._context = None
        if self._lifetime is None:
            self._ended.set()
        else:
            self._lifetime.call(self.end)

    def wait(self) -> Generator[Any, Any, None]:
        """Wait until it has ended.

        Raises:
            FastAPITasksError: it has not begun.
        """
        if self._lifetime is None and not self._ended.is_set():
            raise FastAPITasksError(
                f"clock {self.name!r} has not begun: it does so when the app's lifespan does"
            )
        yield from self._ended.wait().__await__()

    # On the event loop's thread.

    def _begin_here(self) -> None:
        if self._lifetime is not None and self.next_at is None:
            self._is_skipping = False
            self._plan(self._times.begin)

    def end(self) -> None:
        """Have no more rounds in this lifespan."""
        if self._lifetime is not None:
            self._lifetime.timers.unset(self._tick)
            self._lifetime = self.next_at = None
            self._on_end(self)
            self._ended.set()

    def _tick(self) -> None:
        if not self._has_come():
            return
        if self.last is None or self.last.finished.is_set():
            self._begin_round()
        else:
            self._skip(1, "the one before still runs")
        self._plan(partial(self._times.advance, self._delay))

    def _begin_round(self) -> None:
        schedule, context = self._schedule, self._context
        if schedule is None or context is None:  # another thread has just cancelled the clock
            return
        try:
            self.last = context.copy().run(schedule)
        except TooManyTasksError as exc:
            self._skip(1, str(exc))
        except Exception as exc:
            self.skipped += 1
            log(ERROR, "a round of clock %r cannot be scheduled", self.name, error=exc)
        else:
            self.rounds += 1
            self._is_skipping = False

    def _skip(self, number: int, why: str) -> None:
        self.skipped += number
        if not self._is_skipping:
            self._is_skipping = True
            log(WARNING, "clock %r skips rounds: %s", self.name, why)

    def _plan(self, plan: Callable[[], int | None]) -> None:
        """Plan a round; or end, if there is none."""
        if self._lifetime is None:  # the round before has ended the clock, as soon as it was there
            return
        try:
            missed = plan()
        except BaseException as exc:
            pass_interrupt(exc)
            log(ERROR, "clock %r ends: its period function failed", self.name, error=exc)
            missed = None
        if missed is None:
            self.end()
            return
        if missed:
            self._skip(missed, "their times have passed")
        self._delay = uniform(0, self._jitter)
        self.next_at = self._times.at(self._delay)
        if self._has_come():
            self._lifetime.timers.set(self._tick, -math.inf)

    def _has_come(self) -> bool:
        """Whether it is time; if not, look again then."""
        when = self._times.wake_at(self._delay)
        if when is not None and self._lifetime is not None:
            self._lifetime.timers.set(self._tick, when)
        return when is None
