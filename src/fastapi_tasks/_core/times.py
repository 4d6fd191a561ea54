"""When the rounds of a clock are planned: at a fixed rate, or as a function says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

from anyio import current_time

PeriodFunction: TypeAlias = Callable[[datetime | None], datetime | None]

LOOK_AT_MOST = 60.0  # seconds between two looks at the wall clock, which may be set meanwhile
CATCH_UP_AT_MOST = 1000  # times that have passed, past which a function is asked for what is next


def wall_clock() -> datetime:
    return datetime.now(UTC)


class Times(Protocol):
    """The planned times, one after the other. `delay` is what the clock adds to this one."""

    def begin(self) -> int | None:
        """Plan the first one; return how many were skipped, since they have passed.

        `None` if there is none. It may raise whatever a user's function does.
        """
        ...

    def advance(self, delay: float) -> int | None:
        """Plan the next one, likewise."""
        ...

    def wake_at(self, delay: float) -> float | None:
        """When to look again, on the event loop's clock; `None` if the time has come."""
        ...

    def at(self, delay: float) -> datetime:
        """When that will be, on the wall clock."""
        ...


class FixedRate:
    """Each `period` seconds of the event loop's clock, whatever the rounds take: without drift."""

    def __init__(self, period: float, first: float) -> None:
        self._period = period
        self._first = first
        self._begin = 0.0
        self._number = 0

    def begin(self) -> int:
        self._begin, self._number = current_time() + self._first, 0
        return 0

    def advance(self, delay: float) -> int:
        missed = int((current_time() - self._due(delay)) // self._period)
        self._number += missed + 1
        return missed

    def _due(self, delay: float) -> float:
        return self._begin + self._number * self._period + delay

    def wake_at(self, delay: float) -> float | None:
        due = self._due(delay)
        return None if current_time() >= due else due

    def at(self, delay: float) -> datetime:
        return wall_clock() + timedelta(seconds=self._due(delay) - current_time())


_RETURNS = "a period function returns an aware datetime, or None to end"


class FunctionOfTime:
    """As a function of the last planned time says, on the wall clock.

    Attributes:
        last: what the function returned last. It gets that back, in its own time zone; all else is
            reckoned in UTC, since the same zone's times are compared as if no clock was ever set.
    """

    def __init__(self, function: PeriodFunction) -> None:
        self._function = function
        self.last: datetime | None = None
        self._planned = datetime.min.replace(tzinfo=UTC)

    def begin(self) -> int | None:
        self.last = None
        self._planned = datetime.min.replace(tzinfo=UTC)
        return self.advance(0)

    def advance(self, delay: float) -> int | None:  # noqa: ARG002
        for number in range(CATCH_UP_AT_MOST):
            if not self._ask(self.last):
                return None
            if self._planned > wall_clock():
                return int(number > 0)
        assert self.last is not None
        return 1 if self._ask(wall_clock().astimezone(self.last.tzinfo)) else None

    def _ask(self, last: datetime | None) -> bool:
        following: object = self._function(last)
        if following is None:
            return False
        if not isinstance(following, datetime):
            raise TypeError(f"{_RETURNS}, not {type(following).__qualname__}")
        if following.utcoffset() is None:
            raise ValueError(f"{_RETURNS}, not one without a time zone")
        planned = following.astimezone(UTC)
        if planned <= self._planned:
            raise ValueError("a period function returns a later time than the one it gets")
        self.last, self._planned = following, planned
        return True

    def wake_at(self, delay: float) -> float | None:
        left = (self._planned - wall_clock()).total_seconds() + delay
        return None if left <= 0 else current_time() + min(left, LOOK_AT_MOST)

    def at(self, delay: float) -> datetime:
        assert self.last is not None
        return (self._planned + timedelta(seconds=delay)).astimezone(self.last.tzinfo)
