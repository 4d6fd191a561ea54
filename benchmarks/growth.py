"""Growth of the cost per task from 2,000 to 200,000 at a time, against the bare group's own growth.

The tasks are no-op ones that are all unfinished at once: scheduled first, and run then.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from benchmarks.asgi import serving
from benchmarks.batches import make_app, on_bare_group, on_runner
from benchmarks.measure import Block, Spread, measure
from benchmarks.work import BARE, RUNNER

SMALL, LARGE = 2_000, 200_000
OWN = f"{BARE}, its own growth"


def per_task(work: Callable[[int], Awaitable[None]], size: int) -> Block:
    times = max(1, 20_000 // size)  # a small crowd is short: often, then

    async def block() -> float:
        begin = time.thread_time()
        for _ in range(times):
            await work(size)
        return (time.thread_time() - begin) / times / size

    return block


async def run(backend: str) -> dict[str, Spread]:
    async with serving(make_app()) as driver:
        works = {BARE: on_bare_group, RUNNER: on_runner(driver)}
        blocks = {
            f"{name}, {size}": per_task(work, size)
            for name, work in works.items()
            for size in (SMALL, LARGE)
        }
        rounds = await measure(blocks, rounds=1, warm_up=False)
    growth = {name: rounds.ratio(f"{name}, {LARGE}", f"{name}, {SMALL}") for name in works}
    return {OWN: growth[BARE], RUNNER: Spread.of([growth[RUNNER].middle / growth[BARE].middle])}
