"""What a period can be: a number of seconds, or a function of the last time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from .config import is_seconds
from .function import is_async, type_name
from .times import FixedRate, FunctionOfTime, PeriodFunction, Times, wall_clock

Period: TypeAlias = float | PeriodFunction

SHORTEST = 0.001  # seconds: the event loop has other things to do


def times_of(period: Period, jitter: float, first: float | None) -> Callable[[], Times]:
    """What makes the planned times of a clock.

    Raises:
        TypeError, ValueError: for what cannot be a period, a jitter, or the first one.
    """
    _check_seconds("jitter", jitter)
    if callable(period):
        if is_async(period) is not False:
            raise TypeError(
                "a period function is called on the event loop and returns a datetime: write it "
                "without async and yield"
            )
        if first is not None:
            raise ValueError("first= is for a number of seconds: a function says so by itself")
        return partial(FunctionOfTime, period, jitter)
    if not isinstance(period, (int, float, timedelta)):
        raise TypeError(
            "period must be a number of seconds, or a function from the last time to the next, not "
            f"{type_name(period)}; for cron expressions and triggers write "
            "lambda last: trigger.get_next_fire_time(last, datetime.now(UTC)), or the like"
        )
    _check_seconds("period", period)
    if period < SHORTEST:
        raise ValueError(f"period must be at least {SHORTEST} s, not {period:g}")
    if jitter > period:
        raise ValueError(f"jitter must be at most the period of {period:g} s, not {jitter:g}")
    first = period if first is None else first
    _check_seconds("first", first)
    return partial(FixedRate, period, first, jitter)


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, timedelta):
        raise TypeError(f"{name} must be a number of seconds: write {name}.total_seconds()")
    if not is_seconds(value) or not _is_in_the_calendar(value):
        raise ValueError(f"{name} must be a finite number of seconds from 0 up, not {value!r}")


def _is_in_the_calendar(seconds: float) -> bool:
    try:
        return bool(wall_clock() + 3 * timedelta(seconds=seconds))  # all three together
    except OverflowError:
        return False
