"""The samples of the soak test, and the rules by which they are flat or not.

The first third of the time is warm-up, and not judged: threads start, caches fill, the allocator
takes what it then keeps.

*Memory.* It has grown if its slope is too steep, or its median at the end too high. The slope is
the median of those between all pairs of samples (Theil and Sen), which no single step moves. Of the
two parts of its bound, the first is for leaks: divided by the tasks of a minute, it is less than
the smallest Python object. The second is for the allocator: whenever more visits than ever before
are under way at a time, it takes some pages, and keeps them. It counts most when the time is short.

*Open files and threads* go up and down with the visits that are under way, so their maximum in the
last third is held against the one in the middle third. They may differ by what piles up while a
busy machine stops for a tenth of a second.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

WARM_UP = 1 / 3  # of the time

SLOPE_AT_MOST = 128  # KiB per minute
SETTLING = 1024  # KiB, in all the time after the warm-up
GROWTH_AT_MOST = 0.03  # from the first sixth after the warm-up to the last sixth
ALLOWANCE = 12  # open files, threads

PAGE = os.sysconf("SC_PAGESIZE") // 1024  # KiB


@dataclass(frozen=True)
class Sample:
    """What a process has in use at one moment."""

    minute: float  # since the beginning
    memory: int  # resident, in KiB
    files: int
    threads: int

    def __str__(self) -> str:
        memory = f"{self.memory / 1024:.1f} MiB"
        return f"{self.minute:3.0f} min: {memory}, {self.files} files, {self.threads} threads"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    seen: str
    allowed: str
    is_good: bool

    def __str__(self) -> str:
        mark = "ok" if self.is_good else "NOT OK"
        return f"  {self.what:32}{self.seen:>16}   {self.allowed:<16}{mark}"


def must_be(what: str, seen: object, expected: object) -> Finding:
    """Find that something is as expected, or not."""
    return Finding(what, str(seen), str(expected), seen == expected)


def take_sample(pid: int, minute: float) -> Sample:
    """Look at a process; Linux only."""
    process = Path("/proc") / str(pid)
    return Sample(
        minute,
        memory=int((process / "statm").read_text().split()[1]) * PAGE,
        files=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
    )


def judge(samples: Sequence[Sample]) -> list[Finding]:
    """Apply the rules."""
    return [
        _judge_slope(samples),
        _judge_growth(samples),
        _judge_maximum("open files", samples, lambda each: each.files),
        _judge_maximum("threads", samples, lambda each: each.threads),
    ]


def part(samples: Sequence[Sample], begin: float, end: float) -> list[Sample]:
    """The samples between two fractions of the time."""
    minutes = samples[-1].minute
    return [each for each in samples if begin * minutes <= each.minute <= end * minutes]


def slope(samples: Sequence[Sample]) -> float:
    """KiB per minute after the warm-up, by Theil and Sen: the median over all pairs of samples."""
    return median(
        (b.memory - a.memory) / (b.minute - a.minute)
        for a, b in combinations(part(samples, WARM_UP, 1), 2)
    )


def _judge_slope(samples: Sequence[Sample]) -> Finding:
    seen = slope(samples)
    allowed = SLOPE_AT_MOST + SETTLING / ((1 - WARM_UP) * samples[-1].minute)
    return Finding(
        "memory, slope in KiB/min", f"{seen:+.0f}", f"at most {allowed:.0f}", seen <= allowed
    )


def _judge_growth(samples: Sequence[Sample]) -> Finding:
    first, last = (
        median(each.memory for each in part(samples, begin, begin + 1 / 6))
        for begin in (WARM_UP, 5 / 6)
    )
    seen = last / first - 1
    return Finding(
        "memory, growth", f"{seen:+.2%}", f"at most {GROWTH_AT_MOST:.0%}", seen <= GROWTH_AT_MOST
    )


def _judge_maximum(what: str, samples: Sequence[Sample], value: Callable[[Sample], int]) -> Finding:
    middle = max(map(value, part(samples, 1 / 3, 2 / 3)))
    last = max(map(value, part(samples, 2 / 3, 1)))
    allowed = middle + ALLOWANCE
    return Finding(
        f"{what}, maximum", f"{middle}, then {last}", f"at most {allowed}", last <= allowed
    )
