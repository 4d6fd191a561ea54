"""A clock: work that comes again, each round a task of its own.

Theory of operation
-------------------

A clock has no task of the event loop: it is a timer (`timers`). When a planned time has come, its
`_tick()` schedules a round, as anybody would, unless the one before still runs; and it plans the
next one. So between rounds there is nothing that a shutdown, or `join()`, would wait for.

A user's function may plan, and it may do anything: raise, end the clock, make others. So whatever
is raised on the way from one round to the next ends the clock, and is logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from datetime import datetime
from logging import ERROR, WARNING
from typing import Any, NamedTuple

from ..errors import FastAPITasksError, TooManyTasksError
from .event import TaskEvent
from .interrupt import pass_interrupt
from .lifetime import Lifetime
from .log import log
from .owner import Owner
from .task import Task
from .timers import Timers
from .times import NEVER, NOT_YET, Planned, Times


class _Work(NamedTuple):
    """What a clock needs for its rounds."""

    times: Times
    schedule: Callable[[], Task[..., Any]]


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
        schedule: Callable[[], Task[..., Any]],
        owner: Owner,
    ) -> None:
        """`schedule` schedules a round."""
        self.name = name
        self.last: Task[..., Any] | None = None
        self.next_at: datetime | None = None
        self.rounds: int = 0
        self.skipped: int = 0
        self._work: _Work | None = _Work(times, schedule)
        self._owner = owner
        self._ended = TaskEvent(owner)
        self._lifetime: Lifetime | None = None  # of the lifespan that it runs in
        self._on_end: Callable[[Clock], None]
        self._is_skipping = False  # the latest round was skipped, which was said

    # From any thread; the first two with the lock of all clocks.

    def enter(self, lifetime: Lifetime, on_end: Callable[[Clock], None]) -> None:
        """Belong to that lifespan; `on_end` is called at the clock's end there."""
        self._on_end, self._ended = on_end, TaskEvent(self._owner)
        self._lifetime = lifetime

    def drop(self) -> None:
        """Have no more rounds, ever, and keep nothing that only those need."""
        self._work = None
        if (lifetime := self._lifetime) is not None:
            lifetime.call(self.end)
        else:
            self._ended.set()  # nobody waits for that

    def begin(self) -> None:
        """Begin in the lifespan that it has entered, now or soon."""
        if (lifetime := self._lifetime) is not None:
            lifetime.call(self._begin_here)

    def wait(self) -> Generator[Any, Any, None]:
        """Wait until it has ended.

        Raises:
            FastAPITasksError: it has not begun; or this is another event loop.
        """
        if not self._ended.is_set():
            if self._lifetime is None:
                raise FastAPITasksError(
                    f"clock {self.name!r} has not begun: it does so when the app has started"
                )
            if not self._owner.is_on_loop_thread:
                raise FastAPITasksError(
                    f"clock {self.name!r} runs in another event loop: await it there"
                )
        yield from self._ended.wait().__await__()

    # On the event loop's thread.

    def _begin_here(self) -> None:
        if self.next_at is None:
            self._is_skipping = False
            self._go_on(self._plan_first)

    def end(self) -> None:
        """Have no more rounds in this lifespan."""
        if (lifetime := self._lifetime) is not None:
            for call in (self._tick, self._catch_up):
                lifetime.timers.unset(call)
            self._ended.set()  # before others see that it does not run
            self._lifetime = self.next_at = None
            self._on_end(self)

    def _tick(self) -> None:
        self._go_on(self._look)

    def _catch_up(self) -> None:
        self._go_on(self._plan_next)

    def _go_on(self, step: Callable[[_Work, Timers], None]) -> None:
        """Take the next step, unless the clock has ended, or is about to."""
        work, lifetime = self._work, self._lifetime
        if work is None or lifetime is None:
            return
        try:
            step(work, lifetime.timers)
        except BaseException as exc:
            pass_interrupt(exc)
            log(ERROR, "clock %r ends: its next round cannot be planned", self.name, error=exc)
            self.end()

    def _look(self, work: _Work, timers: Timers) -> None:
        """Begin a round if its time has come, and plan the next one; else look again then."""
        if (when := work.times.wake_at()) is None:
            self._begin_round(work.schedule)
            self._plan_next(work, timers)
        else:
            timers.set(self._tick, when)

    def _begin_round(self, schedule: Callable[[], Task[..., Any]]) -> None:
        if self.last is not None and not self.last.finished.is_set():
            self._skip(1, "the one before still runs")
            return
        try:
            self.last = schedule()
        except TooManyTasksError as exc:
            self._skip(1, str(exc))
        except BaseException as exc:
            pass_interrupt(exc)
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

    def _plan_first(self, work: _Work, timers: Timers) -> None:
        self._plan(work.times.begin, work.times, timers)

    def _plan_next(self, work: _Work, timers: Timers) -> None:
        self._plan(work.times.advance, work.times, timers)

    def _plan(self, plan: Callable[[], Planned], times: Times, timers: Timers) -> None:
        try:
            planned = plan()
        finally:
            if times.missed:
                self._skip(times.missed, "their times have passed")
        if self._lifetime is None:  # ended meanwhile, by the round or the user's function, say
            return
        self.next_at = None
        if planned is NEVER:
            self.end()
        elif planned is NOT_YET:
            timers.set(self._catch_up, -math.inf)
        else:
            self.next_at = times.at()
            when = times.wake_at()
            timers.set(self._tick, -math.inf if when is None else when)
