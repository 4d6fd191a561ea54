"""Batches of no-op tasks: schedule and run 400 of them, against the same on a bare task group.

*On the runner*: `runner.schedule()` for each, then `runner.join()`. *In a request*: an endpoint
schedules all of them; the block ends when the response is sent and all have run. The bare group is
a fresh one for each block, with `create_task()`, which this library is built on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from fastapi import BackgroundTasks, FastAPI

from benchmarks.asgi import Driver, serving
from benchmarks.library import IS_OLDER
from benchmarks.measure import Block, Spread, measure, timed
from benchmarks.work import (
    AGAIN,
    AIOJOBS,
    BACKGROUND,
    BARE,
    CREATE_TASK,
    NURSERY,
    RUNNER,
    START_SOON,
    noop,
    until,
)
from fastapi_tasks import Tasks, add_tasks

SIZE = 400
NOW, AFTER_RESPONSE = "in a request, now", "in a request, after the response"


async def on_bare_group(size: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.create_task(noop())
    await until(size)


async def with_start_soon(size: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.start_soon(noop)
    await until(size)


async def with_create_task(size: int) -> None:
    """As asyncio's documentation says: the set keeps the tasks alive."""
    tasks: set[asyncio.Task[None]] = set()
    for _ in range(size):
        task = asyncio.create_task(noop())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await until(size)


async def with_aiojobs(size: int) -> None:
    import aiojobs

    async with aiojobs.Scheduler(limit=None) as scheduler:
        for _ in range(size):
            await scheduler.spawn(noop())
    await until(size)


async def in_nursery(size: int) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        for _ in range(size):
            nursery.start_soon(noop)
    await until(size)


def on_runner(driver: Driver) -> Callable[[int], Awaitable[None]]:
    runner = driver.app.state.runner

    async def schedule(size: int) -> None:
        for _ in range(size):
            runner.schedule(noop)
        await runner.join()
        await until(size)

    return schedule


async def in_request(driver: Driver, path: str) -> None:
    await driver.get(path)
    await until(SIZE)


def make_app() -> FastAPI:
    app = FastAPI()
    app.state.runner = add_tasks(app)

    @app.get("/now")
    async def now(tasks: Tasks) -> None:
        for _ in range(SIZE):
            tasks.schedule(noop)

    @app.get("/after-response")
    async def after_response(tasks: Tasks) -> None:
        for _ in range(SIZE):
            tasks.after_response.schedule(noop)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        for _ in range(SIZE):
            tasks.add_task(noop)

    return app


def blocks(backend: str, driver: Driver) -> dict[str, Block]:
    """The blocks that can be run here."""
    result = {
        BARE: timed(on_bare_group, SIZE),
        AGAIN: timed(on_bare_group, SIZE),
        NOW: timed(in_request, driver, "/now"),
        AFTER_RESPONSE: timed(in_request, driver, "/after-response"),
    }
    if IS_OLDER:
        return result
    result |= {
        RUNNER: timed(on_runner(driver), SIZE),
        START_SOON: timed(with_start_soon, SIZE),
        BACKGROUND: timed(in_request, driver, "/background"),
    }
    if backend == "trio":
        return result | {NURSERY: timed(in_nursery, SIZE)}
    return result | {
        CREATE_TASK: timed(with_create_task, SIZE),
        AIOJOBS: timed(with_aiojobs, SIZE),
    }


async def run(backend: str) -> dict[str, Spread]:
    async with serving(make_app()) as driver:
        rounds = await measure(blocks(backend, driver), rounds=200)
    return {subject: rounds.ratio(subject, BARE) for subject in rounds.costs if subject != BARE}
