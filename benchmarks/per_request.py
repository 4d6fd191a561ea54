"""What one task adds to a request, and what `add_tasks` adds to one that uses no tasks.

The requests are raw ASGI calls in process. What a task adds is the request with it minus the plain
request, each in an app of its own kind: the plain request and the one that spawns by hand, on an
app-wide task group, in an app that has never heard of this library. So all that the library does
for a request counts. The event loop gets a turn after each request, in which its task runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint
from fastapi import BackgroundTasks, FastAPI

from benchmarks.asgi import Driver, serving
from benchmarks.measure import Block, Spread, measure, timed
from benchmarks.work import BACKGROUND, noop, until
from fastapi_tasks import Tasks, add_tasks

SIZE = 80
PLAIN, AGAIN, ADDED = "plain request", "plain request, once more", "no task, app with add_tasks"
BY_HAND = "spawned by hand"
NOW, ROUTE, RESPONSE = "one task, now", "one task, after the route", "one task, after the response"


def make_plain_app() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as app.state.group:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/plain")
    async def plain() -> None:
        pass

    @app.get("/by-hand")
    async def by_hand() -> None:
        app.state.group.start_soon(noop)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(noop)

    return app


def make_app() -> FastAPI:
    app = FastAPI()
    add_tasks(app)

    @app.get("/plain")
    async def plain() -> None:
        pass

    @app.get("/now")
    async def now(tasks: Tasks) -> None:
        tasks.schedule(noop)

    @app.get("/after-route")
    async def after_route(tasks: Tasks) -> None:
        tasks.after_route.schedule(noop)

    @app.get("/after-response")
    async def after_response(tasks: Tasks) -> None:
        tasks.after_response.schedule(noop)

    return app


async def requests(driver: Driver, path: str, tasks: int) -> None:
    for _ in range(SIZE):
        await driver.get(path)
        await checkpoint()
    await until(tasks * SIZE)


def blocks(plain: Driver, driver: Driver) -> dict[str, Block]:
    return {
        PLAIN: timed(requests, plain, "/plain", 0),
        AGAIN: timed(requests, plain, "/plain", 0),
        BY_HAND: timed(requests, plain, "/by-hand", 1),
        BACKGROUND: timed(requests, plain, "/background", 1),
        ADDED: timed(requests, driver, "/plain", 0),
        NOW: timed(requests, driver, "/now", 1),
        ROUTE: timed(requests, driver, "/after-route", 1),
        RESPONSE: timed(requests, driver, "/after-response", 1),
    }


def added(subject: str) -> str:
    """The name of what a subject adds to the plain request."""
    return f"{subject}, minus the plain request"


async def run(backend: str) -> dict[str, Spread]:
    """The whole requests as ratios to the plain one, and what is added as ratios to by hand."""
    async with serving(make_plain_app()) as plain, serving(make_app()) as driver:
        rounds = await measure(blocks(plain, driver), rounds=150)
    whole = {subject: rounds.ratio(subject, PLAIN) for subject in rounds.costs if subject != PLAIN}
    return whole | {
        added(subject): rounds.ratio(subject, BY_HAND, minus=PLAIN)
        for subject in (BACKGROUND, NOW, ROUTE, RESPONSE)
    }
