"""When the rounds of a clock are planned: at a fixed rate, or as a function says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum, auto
from random import uniform
from typing import Protocol, TypeAlias

from anyio import current_time

PeriodFunction: TypeAlias = Callable[[datetime | None], datetime | None]

LOOK_AT_MOST = 60.0  # seconds between two looks at the wall clock, which may be set meanwhile
CALLS_AT_MOST = 1000  # of a period function, in one turn of the event loop
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


def wall_clock() -> datetime:
    return datetime.now(UTC)


class Planned(Enum):
    """What has come of planning the next round."""

    YES = auto()
    NOT_YET = auto()  # there are so many times that have passed: `advance()` goes on later
    NEVER = auto()


YES, NOT_YET, NEVER = Planned


class Times(Protocol):
    """The planned times, one after the other; all may raise what a user's function does.

    Each is up to so many seconds of jitter later than it would be, by chance.

    Attributes:
        missed: how many have passed while the latest one was planned.
    """

    missed: int

    def begin(self) -> Planned:
        """Plan the first one."""
        ...

    def advance(self) -> Planned:
        """Plan the next one."""
        ...

    def wake_at(self) -> float | None:
        """When to look again, on the event loop's clock; `None` if the time has come."""
        ...

    def at(self) -> datetime:
        """When that will be, on the wall clock."""
        ...


class FixedRate:
    """Each `period` seconds of the event loop's clock, whatever the rounds take: without drift."""

    def __init__(self, period: float, first: float, jitter: float) -> None:
        self.missed: int = 0
        self._period = period
        self._first = first
        self._jitter = jitter
        self._begin = 0.0
        self._number = 0
        self._due = 0.0

    def begin(self) -> Planned:
        self._begin, self.missed = current_time() + self._first, 0
        return self._plan(0)

    def advance(self) -> Planned:
        self.missed = int((current_time() - self._due) // self._period)
        return self._plan(self._number + self.missed + 1)

    def _plan(self, number: int) -> Planned:
        self._number = number
        self._due = self._begin + number * self._period + uniform(0, self._jitter)
        return YES

    def wake_at(self) -> float | None:
        return None if current_time() >= self._due else self._due

    def at(self) -> datetime:
        return wall_clock() + timedelta(seconds=self._due - current_time())


_RETURNS = "a period function returns an aware datetime, or None to end"


class FunctionOfTime:
    """As a function of the last planned time says, on the wall clock.

    The function gets back what it has returned, in its own time zone. All else is reckoned in UTC:
    Python compares times of one zone as if its clocks were never set.
    """

    def __init__(self, function: PeriodFunction, jitter: float) -> None:
        self.missed: int = 0
        self._function = function
        self._jitter = jitter
        self._last: datetime | None = None
        self._zone: tzinfo | None = None
        self._planned = _BEFORE_ALL  # by the function
        self._due = _BEFORE_ALL
        self._is_behind = False

    def begin(self) -> Planned:
        self._last, self._planned, self._is_behind = None, _BEFORE_ALL, False
        return self.advance()

    def advance(self) -> Planned:
        self.missed = 0
        for _ in range(CALLS_AT_MOST):
            if not self._ask():
                return NEVER
            if self._planned > wall_clock():
                self._is_behind = False
                self._due = self._planned + timedelta(seconds=uniform(0, self._jitter))
                return YES
            if not self._is_behind:
                self.missed, self._is_behind = 1, True  # all together are one
        return NOT_YET

    def _ask(self) -> bool:
        following: object = self._function(self._last)
        if following is None:
            return False
        if not isinstance(following, datetime):
            raise TypeError(f"{_RETURNS}, not {type(following).__qualname__}")
        if following.utcoffset() is None:
            raise ValueError(f"{_RETURNS}, not one without a time zone")
        in_utc = following.astimezone(UTC)
        planned = _exact(in_utc)
        if planned <= self._planned:
            raise ValueError("a period function returns a later time than the one it gets")
        # An hour after half past one may be a time that the zone leaves out: back from UTC, it is
        # one that there is, so that the next hour is a later one.
        self._last, self._zone = in_utc.astimezone(following.tzinfo), following.tzinfo
        self._planned = planned
        return True

    def wake_at(self) -> float | None:
        left = (self._due - wall_clock()).total_seconds()
        return None if left <= 0 else current_time() + min(left, LOOK_AT_MOST)

    def at(self) -> datetime:
        return self._due.astimezone(self._zone)


def _exact(time: datetime) -> datetime:
    """A time in UTC, without what a subclass may add."""
    day = datetime(time.year, time.month, time.day, tzinfo=UTC)
    hour = timedelta(hours=time.hour, minutes=time.minute, seconds=time.second)
    return day + hour + timedelta(microseconds=time.microsecond)
