"""The app that the fault scenarios are run on. It keeps the books in its journal.

The endpoints write what they have handed over, the instrument what the runner says of it, and the
tasks what has really run. The log lines of the runner are the fourth witness.
"""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from fastapi_tasks import (
    FastAPITasksError,
    Instrument,
    Tasks,
    TaskScheduler,
    TooManyTasksError,
    add_tasks,
)
from tests_trio.faults_works import WORKS, is_open, options, write

LIMITS = {
    name.lower(): number(os.environ[name])
    for name, number in (("SHIELD_TIMEOUT", float), ("MAX_TASKS", int), ("MAX_THREADS", int))
    if name in os.environ
}


class Bookkeeper(Instrument):
    """Writes what the runner says of its tasks."""

    def task_scheduled(self, task: Any) -> None:
        write("scheduled", task.name)

    def task_started(self, task: Any) -> None:
        write("started", task.name)

    def task_finished(self, task: Any) -> None:
        shield = "shielded" if task.config.shielded else "unshielded"
        when = "in-the-drain" if runner.stopping.is_set() else "before-it"
        write("finished", task.name, task.state.value, task.attempts, shield, when)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    write("opens", "pool")
    try:
        yield
    except BaseException:
        write("loses", "pool")  # the server has not asked the lifespan to shut down
        raise
    write("closes", "pool")


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(process)d %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fastapi_tasks")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


log_to_stderr()
app = FastAPI(lifespan=lifespan)
runner = add_tasks(app, instruments=[Bookkeeper()], **LIMITS)


@app.exception_handler(TooManyTasksError)
async def answer_503(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "busy"}, status_code=503)


def hand_over(
    scheduler: TaskScheduler, name: str, work: str, argument: str = "", **options: Any
) -> str:
    try:
        scheduler.task(name=name, **options).schedule(WORKS[work], name, argument)
    except FastAPITasksError:
        write("refused", name)
        raise
    write("handed-over", name)
    return name


# The endpoints answer with the names of the tasks that they have handed over.


@app.get("/do/{work}/{name}")
async def do(
    work: str, name: str, tasks: Tasks, arg: str = "", how: str = "", shield: bool = False
) -> list[str]:
    return [hand_over(tasks, name, work, arg, shield=shield, **options(how))]


@app.get("/points/{number}")
async def points(number: int, tasks: Tasks) -> list[str]:
    """A task for each timing point; which of them are shielded, bits of the number say.

    Those sleep for a moment, after the response for longer; the others until they are cancelled.
    One in 60 fails.
    """
    schedulers = {"response": tasks.after_response, "route": tasks.after_route, "now": tasks}
    names = []
    for bit, (point, scheduler) in enumerate(schedulers.items()):
        shield = bool(number >> bit & 1)
        work = "fail" if point == "route" and number % 20 == 0 else "sleep"
        seconds = ("1.5" if point == "response" else "0.2") if shield else "60"
        names.append(hand_over(scheduler, f"{number}-{point}", work, seconds, shield=shield))
    return names


@app.get("/burst/{number}")
async def burst(number: int, tasks: Tasks) -> list[str]:
    """Two tasks, of which the second may be one too many."""
    return [
        hand_over(tasks, f"{number}-first", "hold", "burst"),
        hand_over(tasks.after_response, f"{number}-second", "hold", "burst"),
    ]


@app.get("/wait")
async def wait(tasks: Tasks) -> None:
    """An endpoint that does not return by itself."""
    hand_over(tasks, "unshielded", "sleep", "60")
    hand_over(tasks, "shielded", "sleep", "2", shield=True)
    hand_over(tasks.after_response, "waiting", "sleep", "0")
    hand_over(tasks.after_response, "waiting-shielded", "sleep", "0", shield=True)
    write("reads", "wait")  # the test may go on
    await anyio.sleep(60)


@app.get("/blocked")
def blocked(tasks: Tasks) -> None:
    """An endpoint in a thread, which no server can cut off. It schedules early and late."""
    hand_over(tasks.after_response, "early", "sleep", "0")
    hand_over(tasks.after_response, "early-shielded", "sleep", "0", shield=True)
    write("reads", "blocked")
    while not is_open("endpoint"):
        time.sleep(0.01)
    hand_over(tasks, "late-shielded", "sleep", "0", shield=True)
    hand_over(tasks, "late", "sleep", "60")


@app.post("/upload/{name}")
async def upload(name: str, request: Request, tasks: Tasks) -> None:
    hand_over(tasks, f"{name}-now", "sleep", "0.1")
    hand_over(tasks.after_route, f"{name}-route", "sleep", "0")
    hand_over(tasks.after_response, f"{name}-response", "sleep", "0", shield=True)
    hand_over(tasks.after_response, f"{name}-always", "sleep", "0", even_if_failed=True)
    async for _ in request.stream():
        write("reads", name)


@app.get("/stream/{name}")
async def stream(name: str, tasks: Tasks) -> StreamingResponse:
    hand_over(tasks, f"{name}-now", "sleep", "0.1")
    hand_over(tasks.after_route, f"{name}-route", "sleep", "0")
    hand_over(tasks.after_response, f"{name}-response", "sleep", "0")

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"." * 1000
            await anyio.sleep(0.005)

    return StreamingResponse(body())


@app.get("/thread")
def thread() -> int:
    return os.getpid()


@app.get("/pid")
async def pid() -> int:
    return os.getpid()
