"""What `make bench-against` measures, of any copy of the library.

An item is a request, and in rows that say "each" a task. A block of requests has 40 of them, each
followed by a turn of the event loop, in which its task runs. Where threads take part, the cost is
the CPU time of the process, else that of the event loop's thread.
"""

import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType

from anyio.lowlevel import checkpoint
from fastapi import FastAPI

from benchmarks.asgi import Driver, serving
from benchmarks.measure import Block, timed
from benchmarks.work import Ran, noop, sleeper, until

REQUESTS = 40
BATCH, SYNC_BATCH, DEF_BATCH, SLEEPERS = 400, 20, 10, 2_000


@dataclass(frozen=True)
class Row:
    """How one copy's block is made, of how many items it is, and how often it runs in a process."""

    block: Callable[[Driver], Block]
    items: int = REQUESTS
    rounds: int = 50


async def failing() -> None:
    Ran.count += 1
    raise ValueError


def sync_noop() -> None:
    pass


async def call_once(attempt: Callable[[], Awaitable[object]]) -> object:
    return await attempt()


def make_app(library: ModuleType) -> FastAPI:
    """An app with tasks by this copy of the library, whose endpoints' annotations are evaluated."""
    app = FastAPI()
    app.state.library = library
    app.state.runner = runner = library.add_tasks(app)
    Tasks = library.Tasks

    @app.get("/plain")
    async def plain() -> None:
        pass

    @app.get("/injected")
    async def injected(tasks: Tasks) -> None:
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

    @app.get("/named")
    async def named(tasks: Tasks) -> None:
        tasks.task(name="name").schedule(noop)

    @app.get("/on-runner")
    async def on_runner() -> None:
        runner.schedule(noop)

    @app.get("/batch-now")
    async def batch_now(tasks: Tasks) -> None:
        for _ in range(BATCH):
            tasks.schedule(noop)

    @app.get("/batch-after-response")
    async def batch_after_response(tasks: Tasks) -> None:
        for _ in range(BATCH):
            tasks.after_response.schedule(noop)

    @app.get("/batch-in-def")
    def batch_in_def(tasks: Tasks) -> None:
        for _ in range(DEF_BATCH):
            tasks.schedule(noop)

    @app.get("/batch-of-sync")
    async def batch_of_sync(tasks: Tasks) -> None:
        for _ in range(SYNC_BATCH):
            tasks.schedule(sync_noop)

    return app


def requests(
    driver: Driver,
    path: str,
    tasks: int = 1,
    *,
    number: int = REQUESTS,
    clock: Callable[[], float] = time.thread_time,
) -> Block:
    async def work() -> None:
        for _ in range(number):
            await driver.get(path)
            await checkpoint()
        await until(number * tasks)

    return timed(work, clock=clock)


def sync_tasks(driver: Driver) -> Block:
    async def work() -> None:
        for _ in range(5):
            await driver.get("/batch-of-sync")
            await driver.app.state.runner.join()  # `until()` would not let the threads work

    return timed(work, clock=time.process_time)


def on_runner(
    driver: Driver,
    size: int,
    func: Callable[[], Awaitable[None]] = noop,
    **options: object,
) -> Block:
    runner = driver.app.state.runner
    scheduler = runner.task(**options) if options else runner

    async def work() -> None:
        for _ in range(size):
            scheduler.schedule(func)
        await runner.join()
        await until(size)

    return timed(work)


def options_alone(driver: Driver) -> Block:
    async def work() -> None:
        for _ in range(BATCH):
            driver.app.state.runner.task(name="name")

    return timed(work)


def shutdown(driver: Driver) -> Block:
    async def block() -> float:
        app = FastAPI()
        runner = driver.app.state.library.add_tasks(app)
        async with serving(app) as sleeping:
            for _ in range(SLEEPERS):
                runner.schedule(sleeper)
            await until(SLEEPERS)
            gc.collect()  # what spawning left is not the shutdown's
            begin = time.thread_time()
            await sleeping.shut_down()
            return time.thread_time() - begin

    return block


ROWS = {
    "request, no tasks": Row(lambda driver: requests(driver, "/plain", 0)),
    "request, tasks injected": Row(lambda driver: requests(driver, "/injected", 0)),
    "request, one task now": Row(lambda driver: requests(driver, "/now")),
    "request, one after the route": Row(lambda driver: requests(driver, "/after-route")),
    "request, one after the response": Row(lambda driver: requests(driver, "/after-response")),
    "request, one with a name": Row(lambda driver: requests(driver, "/named")),
    "request, one on the runner": Row(lambda driver: requests(driver, "/on-runner")),
    "task(name=) alone, each": Row(options_alone, BATCH),
    "400 on the runner, each": Row(lambda driver: on_runner(driver, BATCH), BATCH),
    "400 in a request, now, each": Row(
        lambda driver: requests(driver, "/batch-now", BATCH, number=1), BATCH
    ),
    "400 in a request, after the response, each": Row(
        lambda driver: requests(driver, "/batch-after-response", BATCH, number=1), BATCH
    ),
    "10 in a `def` endpoint, each": Row(
        lambda driver: requests(
            driver, "/batch-in-def", DEF_BATCH, number=10, clock=time.process_time
        ),
        10 * DEF_BATCH,
        rounds=80,
    ),
    "20 sync tasks in a request, each": Row(sync_tasks, 5 * SYNC_BATCH, rounds=100),
    "failing, each": Row(lambda driver: on_runner(driver, 100, failing), 100, rounds=100),
    "with a timeout, each": Row(lambda driver: on_runner(driver, 100, timeout=60), 100, rounds=100),
    "with retry, each": Row(
        lambda driver: on_runner(driver, 100, retry=call_once), 100, rounds=100
    ),
    "shutdown with 2,000 sleeping, each": Row(shutdown, SLEEPERS, rounds=20),
}
