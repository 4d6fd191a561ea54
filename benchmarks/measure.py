"""Ratios that survive a busy machine.

A block is a short piece of work of one subject. A round runs a block of each subject, in random
order; every second round in the reverse order of the one before it (A B B A), so that a drift meets
all of them alike. All figures are ratios of two costs of the same round; what is reported of them
is the median over the rounds and the quartiles around it.

A block's cost is the CPU time of its thread, unless it measures something else: what other
processes take of the machine meanwhile does not count.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import quantiles

CALM = 0.01  # what a thing against itself may be off

Block = Callable[[], Awaitable[float]]
"""Does its work, and returns what that cost."""


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the rounds, between its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        figures = list(figures)
        return cls(*quantiles(figures * 2 if len(figures) == 1 else figures, method="inclusive"))


class Rounds:
    """What the blocks of each subject cost, round by round."""

    def __init__(self, subjects: Iterable[str]) -> None:
        self.costs: dict[str, list[float]] = {subject: [] for subject in subjects}

    def ratio(self, subject: str, to: str, *, minus: str | None = None) -> Spread:
        """The cost of one subject to that of another; of what both exceed a third one by."""
        base = [0.0] * len(self.costs[to]) if minus is None else self.costs[minus]
        columns = zip(self.costs[subject], self.costs[to], base, strict=True)
        return Spread.of((cost - less) / (other - less) for cost, other, less in columns)


async def measure(blocks: Mapping[str, Block], rounds: int, *, warm_up: bool = True) -> Rounds:
    """Run so many rounds, after one that does not count."""
    for block in blocks.values() if warm_up else ():
        await block()
    gc.collect()
    gc.freeze()  # so that the collection before each block is short
    result = Rounds(blocks)
    order = list(blocks)
    for number in range(rounds):
        order = order[::-1] if number % 2 else random.sample(order, k=len(order))
        for subject in order:
            gc.collect()  # a block pays for its own garbage, and for no other's
            result.costs[subject].append(await blocks[subject]())
    return result


def timed(
    work: Callable[..., Awaitable[object]],
    *args: object,
    clock: Callable[[], float] = time.thread_time,
) -> Block:
    """A block that does `work(*args)` and costs the time that takes."""

    async def block() -> float:
        begin = clock()
        await work(*args)
        return clock() - begin

    return block
