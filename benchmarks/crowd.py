"""One way's crowds in a fresh process: what each of their tasks costs in memory or in time.

`resident` is what the process grows by, `traced` what Python's allocators say, which is slow, and
exact for small crowds too; both look at one crowd as it grows from size to size, until all sleep.
`timed` is CPU time, of a crowd of each size.
"""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.child import answer
from benchmarks.crowds import Way, ways
from benchmarks.measure import Spread

BYTES, SPAWN, SHUTDOWN = "bytes", "seconds to spawn", "seconds to shut down"
PAGE = os.sysconf("SC_PAGESIZE")
AT_LEAST = 20_000  # tasks that are timed: a small crowd is short, so it is timed often


def key(what: str, size: int) -> str:
    return f"{what} per task of {size}"


def resident() -> int:
    """Linux only."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def watch_memory(way: Way, sizes: Sequence[int], memory: Callable[[], int]) -> None:
    """Answer, and end the process, which spares the time of the shutdown."""
    figures = {}
    async with way() as spawn:
        before, there = memory(), 0
        for size in sizes:
            await spawn(size - there)
            there = size
            figures[key(BYTES, size)] = Spread.of([(memory() - before) / size])
        answer(figures)
        os._exit(0)


async def watch_time(way: Way, size: int) -> dict[str, Spread]:
    spawning = shutting_down = 0.0
    times = max(1, AT_LEAST // size)
    for _ in range(times):
        async with way() as spawn:
            gc.collect()
            begin = time.thread_time()
            await spawn(size)
            spawned = time.thread_time()
        spawning += spawned - begin
        shutting_down += time.thread_time() - spawned
    return {
        key(SPAWN, size): Spread.of([spawning / times / size]),
        key(SHUTDOWN, size): Spread.of([shutting_down / times / size]),
    }


async def run(backend: str, name: str, how: str, *sizes: str) -> dict[str, Spread]:
    way, numbers = ways(backend)[name], list(map(int, sizes))
    if how == "timed":
        figures: dict[str, Spread] = {}
        for size in numbers:
            figures |= await watch_time(way, size)
        return figures
    if how == "traced":
        tracemalloc.start()
    await watch_memory(way, numbers, traced if how == "traced" else resident)
    return {}
