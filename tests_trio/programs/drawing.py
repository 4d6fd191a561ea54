"""How a random program is drawn: numbers that shrink, and delays of which no two are alike."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

from hypothesis import strategies as st

EVENTS_AT_MOST = 1000
NUMBERS = [st.integers(0, at_most) for at_most in range(21)]
FRACTIONS = [Random(number).getrandbits(26) / 2**26 for number in range(EVENTS_AT_MOST)]


class Drawing:
    """One program in the making."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._delays = count()

    def up_to(self, number: int) -> int:
        return self._draw(NUMBERS[number])

    def one_of(self, *values: Any) -> Any:
        return values[self.up_to(len(values) - 1)]

    def is_(self, likelihood: int) -> bool:
        """True in so many cases of ten; shrinks to False."""
        return self.up_to(9) >= 10 - likelihood

    def delay(self, at_most: int = 5) -> float:
        return self.up_to(at_most) + FRACTIONS[next(self._delays)]
