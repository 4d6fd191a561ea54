"""What a history costs: a task with it, against one without; and what a million of them leave.

Batches of no-op tasks on the runner, as in *Batches*: of an app with a history, against one
without. An asked one is a task whose `id` was asked for, against the same without a history, and a
failed one raises. Memory is what the process has grown by, resident, in MB, from 100,000 finished
tasks to a million, half of which were asked for their id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from fastapi import FastAPI

from benchmarks.asgi import serving
from benchmarks.crowd import resident
from benchmarks.measure import Spread, measure, timed
from benchmarks.work import noop
from fastapi_tasks import TaskRunner, add_tasks
from fastapi_tasks.jobs import History

SIZE = 400
NOOP, ASKED, FAILED = "a no-op task", "an asked task", "a failed task"
ONCE_MORE = "without a history, once more"
MEMORY = "MB more after a million tasks than after 100,000"


async def fail() -> None:
    raise ValueError("x")


async def schedule(runner: TaskRunner, func: Callable[[], Awaitable[None]]) -> None:
    for _ in range(SIZE):
        runner.schedule(func)
    await runner.join()


async def schedule_and_ask(runner: TaskRunner) -> None:
    for _ in range(SIZE):
        _ = runner.schedule(noop).id
    await runner.join()


async def megabytes(runner: TaskRunner) -> float:
    """What a million tasks leave, beyond what 100,000 do."""
    before = 0
    for batch in range(1_000_000 // SIZE):
        if batch == 100_000 // SIZE:
            before = resident()
        await (schedule_and_ask(runner) if batch % 2 else schedule(runner, noop))
    return (resident() - before) / 1e6


def make_app(*, history: bool) -> FastAPI:
    app = FastAPI()
    app.state.runner = add_tasks(app, instruments=[History(keep_results=True)] if history else [])
    return app


async def run(backend: str) -> dict[str, Spread]:
    async with AsyncExitStack() as stack:
        apps = {name: make_app(history=name == "with") for name in ("without", "with")}
        runners = {
            name: (await stack.enter_async_context(serving(app))).app.state.runner
            for name, app in apps.items()
        }
        grown = await megabytes(runners["with"])
        blocks = {"once more": timed(schedule, runners["without"], noop)}
        for name, runner in runners.items():
            blocks[f"{NOOP} {name}"] = timed(schedule, runner, noop)
            blocks[f"{ASKED} {name}"] = timed(schedule_and_ask, runner)
            blocks[f"{FAILED} {name}"] = timed(schedule, runner, fail)
        rounds = await measure(blocks, rounds=100)
    ratios = {
        what: rounds.ratio(f"{what} with", f"{what} without") for what in (NOOP, ASKED, FAILED)
    }
    return {
        ONCE_MORE: rounds.ratio("once more", f"{NOOP} without"),
        **ratios,
        MEMORY: Spread.of([grown]),
    }
