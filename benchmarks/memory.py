"""Memory of 100,000 sleeping tasks, against the same on a bare task group.

It is what the process grows by, resident, each way in a fresh process.
"""

from __future__ import annotations

from benchmarks.child import ask
from benchmarks.crowd import BYTES, key
from benchmarks.crowds import ways
from benchmarks.measure import Spread
from benchmarks.work import BARE

SIZE = 100_000


async def run(backend: str) -> dict[str, Spread]:
    used = {
        way: ask("crowd", backend, way, "resident", str(SIZE))[key(BYTES, SIZE)].middle
        for way in ways(backend)
    }
    return {way: Spread.of([used[way] / used[BARE]]) for way in used if way != BARE}
