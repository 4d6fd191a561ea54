"""What dependencies add to a task, against what they add to an endpoint.

An endpoint's are opened and closed by FastAPI, a task's by this library. An item is a request, or a
task on the runner, each followed by a turn of the event loop; what a dependency adds is that item
with it minus the same without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated

from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI

from benchmarks.asgi import Driver, serving
from benchmarks.measure import Rounds, Spread, measure, timed
from fastapi_tasks import INJECTED, TaskRunner, add_tasks

SIZE = 80
ASYNC, GENERATOR = "one async dependency", "one async generator"
KINDS = {ASYNC: "async", GENERATOR: "generator"}


async def get_number() -> int:
    return 1


async def get_session() -> AsyncIterator[int]:
    yield 1


async def plain() -> None: ...


async def with_async(number: Annotated[int, Depends(get_number)] = INJECTED) -> None: ...


async def with_generator(session: Annotated[int, Depends(get_session)] = INJECTED) -> None: ...


FUNCTIONS: dict[str, Callable[[], Awaitable[None]]] = {
    "plain": plain,
    "async": with_async,
    "generator": with_generator,
}


def make_app() -> FastAPI:
    app = FastAPI()
    app.state.runner = add_tasks(app)
    for name, func in FUNCTIONS.items():
        app.get(f"/{name}")(func)
    return app


async def requests(driver: Driver, path: str) -> None:
    for _ in range(SIZE):
        await driver.get(path)
        await checkpoint()


async def tasks(runner: TaskRunner, func: Callable[[], Awaitable[None]]) -> None:
    for _ in range(SIZE):
        await runner.schedule(func)
        await checkpoint()


async def run(backend: str) -> dict[str, Spread]:
    """What a dependency adds to a task, as a ratio to what it adds to an endpoint."""
    async with serving(make_app()) as driver:
        runner = driver.app.state.runner
        endpoints = {f"endpoint {name}": timed(requests, driver, f"/{name}") for name in FUNCTIONS}
        of_tasks = {f"task {name}": timed(tasks, runner, func) for name, func in FUNCTIONS.items()}
        rounds = await measure(endpoints | of_tasks, rounds=150)
    return {kind: _ratio(rounds, name) for kind, name in KINDS.items()}


def _ratio(rounds: Rounds, name: str) -> Spread:
    added = partial(_added, rounds)
    pairs = zip(
        added(f"task {name}", "task plain"),
        added(f"endpoint {name}", "endpoint plain"),
        strict=True,
    )
    return Spread.of(task / endpoint for task, endpoint in pairs)


def _added(rounds: Rounds, subject: str, to: str) -> list[float]:
    pairs = zip(rounds.costs[subject], rounds.costs[to], strict=True)
    return [cost - less for cost, less in pairs]
