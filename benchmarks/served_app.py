"""The app of the benchmarks on real servers: the same work with our tasks, and with Starlette's.

It runs with this library and with the older project alike. `/idle` answers when all tasks have run.
"""

from __future__ import annotations

import time
from threading import Lock

import anyio
from fastapi import BackgroundTasks, FastAPI

from fastapi_tasks import Tasks, add_tasks

app = FastAPI()
add_tasks(app)


class Unfinished:
    """How many tasks were handed over and have not ended; in threads, too."""

    count = 0
    lock = Lock()

    @classmethod
    def add(cls, number: int) -> None:
        with cls.lock:
            cls.count += number


async def noop() -> None:
    Unfinished.add(-1)


async def nap() -> None:
    await anyio.sleep(0.05)
    Unfinished.add(-1)


def work() -> None:
    time.sleep(0.0001)
    Unfinished.add(-1)


@app.get("/idle")
async def idle() -> None:
    while Unfinished.count > 0:
        await anyio.sleep(0.005)


@app.get("/plain")
async def plain() -> None:
    pass


@app.get("/def-plain")
def def_plain() -> None:
    pass


@app.get("/now")
async def now(tasks: Tasks) -> None:
    Unfinished.add(1)
    tasks.schedule(noop)


@app.get("/after-route")
async def after_route(tasks: Tasks) -> None:
    Unfinished.add(1)
    tasks.after_route.schedule(noop)


@app.get("/after-response")
async def after_response(tasks: Tasks) -> None:
    Unfinished.add(1)
    tasks.after_response.schedule(noop)


@app.get("/background")
async def background(tasks: BackgroundTasks) -> None:
    Unfinished.add(1)
    tasks.add_task(noop)


@app.get("/naps")
async def naps(tasks: Tasks) -> None:
    Unfinished.add(3)
    for _ in range(3):
        tasks.after_response.schedule(nap)


@app.get("/background-naps")
async def background_naps(tasks: BackgroundTasks) -> None:
    Unfinished.add(3)
    for _ in range(3):
        tasks.add_task(nap)


@app.get("/sync")
async def sync(tasks: Tasks) -> None:
    Unfinished.add(20)
    for _ in range(20):
        tasks.after_response.schedule(work)


@app.get("/background-sync")
async def background_sync(tasks: BackgroundTasks) -> None:
    Unfinished.add(20)
    for _ in range(20):
        tasks.add_task(work)


@app.get("/def")
def from_def(tasks: Tasks) -> None:
    Unfinished.add(10)
    for _ in range(10):
        tasks.schedule(noop)


@app.get("/background-def")
def background_def(tasks: BackgroundTasks) -> None:
    Unfinished.add(10)
    for _ in range(10):
        tasks.add_task(noop)
