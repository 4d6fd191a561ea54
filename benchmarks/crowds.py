"""Crowds: any number of tasks that sleep at the same time, in any way to run them.

A way is a context manager that gives a function, which spawns a sleeper. Leaving it cancels them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from fastapi import FastAPI

from benchmarks.asgi import serving
from benchmarks.library import IS_OLDER
from benchmarks.work import AIOJOBS, BARE, CREATE_TASK, NURSERY, RUNNER, sleeper, until
from fastapi_tasks import Tasks, add_tasks

Spawn = Callable[[int], Awaitable[None]]
"""Spawns so many sleepers, and waits until they sleep."""

Way = Callable[[], AbstractAsyncContextManager[Spawn]]


@asynccontextmanager
async def bare_group() -> AsyncIterator[Spawn]:
    async with anyio.create_task_group() as group:

        async def spawn(size: int) -> None:
            for _ in range(size):
                group.create_task(sleeper())
            await until(size)

        yield spawn
        group.cancel_scope.cancel()


@asynccontextmanager
async def create_task() -> AsyncIterator[Spawn]:
    tasks: set[asyncio.Task[None]] = set()

    async def spawn(size: int) -> None:
        for _ in range(size):
            task = asyncio.create_task(sleeper())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await until(size)

    yield spawn
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@asynccontextmanager
async def aiojobs_scheduler() -> AsyncIterator[Spawn]:
    import aiojobs

    scheduler = aiojobs.Scheduler(limit=None, close_timeout=60)

    async def spawn(size: int) -> None:
        for _ in range(size):
            await scheduler.spawn(sleeper())
        await until(size)

    yield spawn
    await scheduler.close()


@asynccontextmanager
async def nursery() -> AsyncIterator[Spawn]:
    import trio

    async with trio.open_nursery() as group:

        async def spawn(size: int) -> None:
            for _ in range(size):
                group.start_soon(sleeper)
            await until(size)

        yield spawn
        group.cancel_scope.cancel()


@asynccontextmanager
async def runner() -> AsyncIterator[Spawn]:
    app = FastAPI()
    tasks = add_tasks(app)
    async with serving(app):

        async def spawn(size: int) -> None:
            for _ in range(size):
                tasks.schedule(sleeper)
            await until(size)

        yield spawn


@asynccontextmanager
async def requests() -> AsyncIterator[Spawn]:
    """For the older project, which has no runner: all are scheduled in one request."""
    app = FastAPI()
    add_tasks(app)
    size = 0

    @app.get("/")
    async def endpoint(tasks: Tasks) -> None:
        for _ in range(size):
            tasks.schedule(sleeper)

    async with serving(app) as driver:

        async def spawn(count: int) -> None:
            nonlocal size
            size = count
            await driver.get("/")
            await until(count)

        yield spawn


def ways(backend: str) -> dict[str, Way]:
    """The ways that there are here."""
    if IS_OLDER:
        return {BARE: bare_group, "in a request": requests}
    if backend == "trio":
        return {BARE: bare_group, RUNNER: runner, NURSERY: nursery}
    return {
        BARE: bare_group,
        RUNNER: runner,
        CREATE_TASK: create_task,
        AIOJOBS: aiojobs_scheduler,
    }
