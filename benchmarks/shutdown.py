"""Shutdown with 20,000 sleeping tasks, against cancelling a bare task group of 20,000.

Timed are, of the library, the whole shutdown of the app's lifespan, and of the others, the
cancellation, both to the end of the last task. Spawning is not.
"""

from __future__ import annotations

import gc
import time
from functools import partial

from benchmarks.crowds import Way, ways
from benchmarks.measure import Spread, measure
from benchmarks.work import BARE

SIZE = 20_000


async def shut_down(way: Way) -> float:
    async with way() as spawn:
        await spawn(SIZE)
        gc.collect()  # what spawning left is not the shutdown's
        begin = time.thread_time()
    return time.thread_time() - begin


async def run(backend: str) -> dict[str, Spread]:
    blocks = {name: partial(shut_down, way) for name, way in ways(backend).items()}
    rounds = await measure(blocks, rounds=2, warm_up=False)
    return {subject: rounds.ratio(subject, BARE) for subject in blocks if subject != BARE}
