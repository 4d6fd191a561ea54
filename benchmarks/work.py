"""What the tasks of the benchmarks do: nothing, or sleep."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

BARE = "bare group"
AGAIN = "bare group, once more"
START_SOON = "bare group, start_soon()"
NURSERY = "Trio nursery"
CREATE_TASK = "asyncio.create_task()"
AIOJOBS = "aiojobs"
BACKGROUND = "Starlette's BackgroundTasks"
RUNNER = "runner"


class Ran:
    """How many tasks have run their first line."""

    count = 0


async def noop() -> None:
    """Do nothing but count."""
    Ran.count += 1


async def sleeper() -> None:
    Ran.count += 1
    await anyio.sleep(3600)


async def until(count: int) -> None:
    """Wait until so many tasks have run since the last call, and no more."""
    while Ran.count < count:
        await checkpoint()
    assert Ran.count == count, f"{Ran.count} tasks ran, not {count}"
    Ran.count = 0
