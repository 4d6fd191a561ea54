"""How far a task is, as it says itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Real
from time import monotonic
from typing import final

from .function import exact, type_name

INTERVAL = 0.1  # seconds between two reports of a task to instruments


@final
class Progress:
    """How far a task is: set by the task, from any of its threads, and read by anybody.

    Instruments hear of it at most ten times a second, and of the last value when the task ends.

    Raises:
        TypeError: when it is set to a value of another type.
        ValueError: when it is set to a number that is not finite.
    """

    __slots__ = ("_done", "_is_told", "_message", "_next", "_tell", "_total")

    def __init__(self, tell: Callable[[], None]) -> None:
        self._done: float = 0
        self._total: float | None = None
        self._message = ""
        self._tell = tell
        self._next = 0.0  # when instruments may hear of it again
        self._is_told = True

    @property
    def done(self) -> float:
        """How much is done, in whatever is counted."""
        return self._done

    @done.setter
    def done(self, value: float) -> None:
        self._done = _number("done", value)
        self._changed()

    @property
    def total(self) -> float | None:
        """How much there is to do; `None` if that is not known."""
        return self._total

    @total.setter
    def total(self, value: float | None) -> None:
        self._total = None if value is None else _number("total", value)
        self._changed()

    @property
    def message(self) -> str:
        """What the task is at."""
        return self._message

    @message.setter
    def message(self, value: str) -> None:
        if not issubclass(type(value), str):
            raise TypeError(f"progress.message must be a string, not {type_name(value)}")
        self._message = exact(value)
        self._changed()

    def __repr__(self) -> str:
        total = "?" if self._total is None else f"{self._total:g}"
        return f"<Progress {self._done:g} of {total}>"

    def _changed(self) -> None:
        now = monotonic()
        self._is_told = now >= self._next
        if self._is_told:
            self._next = now + INTERVAL
            self._tell()

    def flush(self) -> None:
        """Tell of the last value, if nobody has heard of it."""
        if not self._is_told:
            self._is_told = True
            self._tell()


def _number(name: str, value: float) -> float:
    kind = type(value)
    if kind is not int and kind is not float:
        if not issubclass(kind, Real):
            raise TypeError(f"progress.{name} must be a number, not {type_name(value)}")
        value = float(value)  # of NumPy's, say
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError(f"progress.{name} must be a finite number, not {value!r:.20}")
    return value
