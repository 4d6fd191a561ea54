"""The app of the soak test: a route for each thing that apps do with tasks.

Its counts are deterministic: the client knows, from the routes that it called, how many tasks have
succeeded, failed and been cancelled (`soak_load`).
"""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

import anyio
import stamina
import tenacity
from anyio import TaskCancelled
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

from benchmarks.soak_work import (
    MAX_TASKS,
    LogFilter,
    OnPurposeError,
    Watch,
    fail,
    fail_at_first,
    fail_in_thread,
    have_children,
    pause,
    sleep_long,
    work,
    work_until_cancelled,
)
from fastapi_tasks import Tasks, TooManyTasksError, add_tasks

logs = LogFilter()
watch = Watch()
by_tenacity = tenacity.AsyncRetrying(
    stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.002), reraise=True
)
by_stamina = stamina.AsyncRetryingCaller(attempts=3, wait_initial=0.002, wait_max=0.01)
limiter = anyio.CapacityLimiter(2)
semaphore = anyio.Semaphore(2)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    stamina.instrumentation.set_on_retry_hooks([])  # else it logs
    yield


app = FastAPI(lifespan=lifespan)
runner = add_tasks(app, max_tasks=MAX_TASKS, instruments=[watch])


class RouteError(Exception):
    """It has a handler, which makes it a response."""


@app.exception_handler(RouteError)
async def answer_409(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "on purpose"}, status_code=409)


@app.exception_handler(TooManyTasksError)
async def answer_503(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "busy"}, status_code=503)


@app.get("/idle")
async def idle() -> dict[str, Any]:
    """What has been counted, once no task is unfinished."""
    await runner.join()
    return {"pid": os.getpid(), **asdict(runner.statistics()), **watch.counts, **logs.counts}


@app.get("/plain")
async def plain(tasks: Tasks) -> None:
    pass


@app.get("/points")
async def points(tasks: Tasks) -> None:
    for point in (tasks, tasks.after_route, tasks.after_response):
        point.schedule(pause)
        point.task(name="sync", shield=True).schedule(work)


@app.get("/def-points")
def def_points(tasks: Tasks) -> None:
    for point in (tasks, tasks.after_route, tasks.after_response):
        point.schedule(pause)
        point.schedule(work)


@app.get("/failures")
async def failures(tasks: Tasks) -> None:
    tasks.schedule(fail)
    tasks.schedule(fail, SystemExit(3))
    tasks.after_route.schedule(fail_in_thread)
    tasks.task(on_error=watch.handle).schedule(fail_in_thread)
    tasks.after_route.task(on_error=watch.handle_in_thread).schedule(fail)
    tasks.after_response.task(on_error=watch.fail_to_handle).schedule(fail)


@app.get("/timeouts")
async def timeouts(tasks: Tasks) -> None:
    hasty = tasks.task(timeout=0.01)
    hasty.schedule(sleep_long)
    hasty.schedule(work_until_cancelled)
    # This one does not look, so it succeeds, if it begins in time: busy machines need a longer one.
    tasks.task(timeout=0.1).schedule(work, 0.12)


@app.get("/retries")
async def retries(tasks: Tasks) -> None:
    stubborn = by_stamina.on(OnPurposeError)
    tasks.task(retry=by_tenacity).schedule(fail_at_first, ["once", "twice"])
    tasks.task(retry=stubborn).schedule(fail_at_first, ["once", "twice"])
    tasks.after_route.task(retry=by_tenacity).schedule(fail_in_thread)
    tasks.after_response.task(retry=stubborn, on_error=watch.handle).schedule(fail)


@app.get("/limiters")
async def limiters(tasks: Tasks) -> None:
    for scheduler in (tasks.task(limiter=limiter), tasks.task(limiter=semaphore)):
        for _ in range(2):
            scheduler.schedule(pause, 0.002)
            scheduler.schedule(work)


@app.get("/held")
async def held(tasks: Tasks) -> None:
    tasks.task(hold_response=True).schedule(pause)
    tasks.task(hold_response=True).schedule(fail)
    tasks.after_route.task(hold_response=True).schedule(work)


@app.get("/fails")
async def fails(tasks: Tasks) -> None:
    tasks.schedule(pause)
    for point in (tasks.after_route, tasks.after_response):
        point.schedule(pause)
        point.task(even_if_failed=True).schedule(pause)
    raise RouteError


@app.get("/breaks")
def breaks(tasks: Tasks) -> None:
    tasks.after_response.schedule(work)
    tasks.after_response.task(even_if_failed=True).schedule(work)
    raise OnPurposeError


@app.get("/cancels")
async def cancels(tasks: Tasks) -> None:
    tasks.schedule(sleep_long).cancel()
    tasks.after_response.schedule(work).cancel()
    for func in (sleep_long, work_until_cancelled):
        task = tasks.task(shield=True).schedule(func)
        await task.started.wait()
        task.cancel()


@app.get("/def-cancels")
def def_cancels(tasks: Tasks) -> None:
    tasks.schedule(sleep_long).cancel()
    tasks.after_route.schedule(sleep_long).cancel()


@app.get("/awaits")
async def awaits(tasks: Tasks) -> int:
    with suppress(OnPurposeError):
        await tasks.schedule(fail)
    cancelled = tasks.schedule(sleep_long)
    cancelled.cancel()
    with suppress(TaskCancelled):
        await cancelled
    with anyio.move_on_after(0.001):
        await tasks.schedule(pause)
    return await tasks.schedule(fail_at_first, [])


@app.get("/children")
async def children(tasks: Tasks) -> None:
    for scheduler in (tasks, tasks.after_route, tasks.after_response, runner):
        scheduler.schedule(have_children, scheduler, 2)


@app.get("/foreign-thread")
def foreign_thread() -> None:
    def schedule() -> None:
        runner.schedule(pause)
        runner.schedule(work)
        runner.schedule(sleep_long).cancel()

    thread = threading.Thread(target=schedule)
    thread.start()
    thread.join()


@app.get("/stream")
async def stream(tasks: Tasks, chunks: int) -> StreamingResponse:
    tasks.after_response.schedule(pause)

    async def body() -> AsyncIterator[bytes]:
        tasks.after_route.schedule(pause)  # late: it starts at once
        for _ in range(chunks):
            yield b"x" * 1000
            await pause()

    return StreamingResponse(body())


@app.websocket("/socket")
async def socket(socket: WebSocket, tasks: Tasks) -> None:
    tasks.after_route.schedule(pause)
    tasks.after_response.schedule(work)
    await socket.accept()
    async for text in socket.iter_text():
        tasks.task(hold_response=True).schedule(pause)
        await socket.send_text(text)


@app.get("/burst")
async def burst(tasks: Tasks) -> None:
    """Schedule too much. The client sees to it that it is alone."""
    await runner.join()
    while True:
        tasks.schedule(pause)
