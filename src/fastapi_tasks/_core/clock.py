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
from random import uniform
from typing import Any, NamedTuple

from ..errors import FastAPITasksError, TooManyTasksError
from .event import TaskEvent
from .interrupt import pass_interrupt
from .lifetime import Lifetime
from .log import log
from .owner import Owner
from .task import Task
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
        jitter: float,
        schedule: Callable[[], Task[..., Any]],
        owner: Owner,
    ) -> None:
        """`schedule` schedules a round.

        Args:
            times: when the rounds are planned.
            jitter: seconds, up to which each comes later than that.
        """
        self.name = name
        self.last: Task[..., Any] | None = None
        self.next_at: datetime | None = None
        self.rounds: int = 0
        self.skipped: int = 0
        self._jitter = jitter
        self._delay = 0.0  # of the round that is planned
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
            self._go_on(lambda times: times.begin())

    def end(self) -> None:
        """Have no more rounds in this lifespan."""
        if (lifetime := self._lifetime) is not None:
            for call in (self._tick, self._catch_up):
                lifetime.timers.unset(call)
            self._ended.set()  # before others see that it does not run
            self._lifetime = self.next_at = None
            self._on_end(self)

    def _tick(self) -> None:
        """A planned time may have come."""
        self._go_on(None)

    def _catch_up(self) -> None:
        self._go_on(lambda times: times.advance(0))

    def _go_on(self, plan: Callable[[Times], Planned] | None) -> None:
        """Plan a round; or, if one is planned, begin it and plan the next one."""
        work, lifetime = self._work, self._lifetime
        if work is None or lifetime is None:  # another thread has cancelled it, which ends it soon
            return
        try:
            if plan is None:
                if not self._has_come(work.times, lifetime):
                    return
                self._begin_round(work.schedule)
                delay = self._delay
                plan = lambda times: times.advance(delay)  # noqa: E731
            self._plan(work.times, plan)
        except BaseException as exc:
            pass_interrupt(exc)
            log(ERROR, "clock %r ends: its next round cannot be planned", self.name, error=exc)
            self.end()

    def _has_come(self, times: Times, lifetime: Lifetime) -> bool:
        """Whether it is time; if not, look again then."""
        when = times.wake_at(self._delay)
        if when is not None:
            lifetime.timers.set(self._tick, when)
        return when is None

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

    def _plan(self, times: Times, plan: Callable[[Times], Planned]) -> None:
        try:
            planned = plan(times)
        finally:
            if times.missed:
                self._skip(times.missed, "their times have passed")
        lifetime = self._lifetime
        if lifetime is None:  # ended meanwhile, by the round or the user's function, say
            return
        if planned is NEVER:
            self.end()
        elif planned is NOT_YET:
            lifetime.timers.set(self._catch_up, -math.inf)
        else:
            self._delay = uniform(0, self._jitter)
            self.next_at = times.at(self._delay)
            if self._has_come(times, lifetime):
                lifetime.timers.set(self._tick, -math.inf)
