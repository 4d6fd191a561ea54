"""The app that the real servers serve in tests. It appends what happens to the file `$JOURNAL`."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio import to_process
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from starlette.middleware.gzip import GZipMiddleware

from fastapi_tasks import Tasks, add_tasks

JOURNAL = Path(os.environ["JOURNAL"])
OPTIONS = {
    name.lower(): float(os.environ[name])
    for name in ("GRACE_PERIOD", "SHIELD_TIMEOUT")
    if name in os.environ
}
_file = JOURNAL.open("a", buffering=1)  # a line at a time, so that nothing is lost when killed


def write(entry: str) -> None:
    _file.write(f"{entry}\n")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    write("pool opens")
    yield
    write("pool closes")


app = FastAPI(lifespan=lifespan)
runner = add_tasks(app, **OPTIONS)
if "MIDDLEWARES" in os.environ:
    app.add_middleware(GZipMiddleware, minimum_size=1)

    @app.middleware("http")
    async def pass_through(request: Request, call_next: Callable[[Request], Any]) -> Response:
        return await call_next(request)


async def note(entry: str) -> None:
    write(entry)


async def sleep(name: str, seconds: float) -> None:
    write(f"{name} starts")
    try:
        await anyio.sleep(seconds)
    except BaseException:
        write(f"{name} cancelled")
        raise
    write(f"{name} ends")


async def fail(error: BaseException) -> None:
    raise error


async def failing_handler(task: Any, error: Exception) -> None:
    write(f"handler of {task.name}")
    raise RuntimeError("the handler fails too")


@app.get("/points/{number}")
async def points(number: str, tasks: Tasks) -> dict[str, str]:
    tasks.after_response.schedule(note, f"{number} after response")
    tasks.after_route.schedule(note, f"{number} after route")
    tasks.schedule(note, f"{number} now")
    return {"number": number}


@app.get("/sleep/{name}")
async def schedule_sleep(
    name: str, tasks: Tasks, seconds: float = 1, shield: bool = False
) -> dict[str, str]:
    tasks.task(name=name, shield=shield).schedule(sleep, name, seconds)
    return {"scheduled": name}


@app.get("/block/{name}")
async def schedule_thread(name: str, tasks: Tasks, seconds: float = 1) -> None:
    def block() -> None:
        write(f"{name} starts")
        time.sleep(seconds)
        write(f"{name} ends")

    tasks.task(name=name).schedule(block)


@app.get("/process/{name}")
async def schedule_process(name: str, tasks: Tasks) -> None:
    async def compute() -> None:
        write(f"{name} starts")
        await to_process.run_sync(time.sleep, 60, cancellable=True)

    tasks.task(name=name).schedule(compute)


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/cut-off")
async def cut_off(tasks: Tasks) -> None:
    tasks.after_response.task(shield=True).schedule(note, "shielded after response")
    tasks.after_response.schedule(note, "unshielded after response")
    write("endpoint waits")
    await anyio.sleep(60)


@app.get("/stream")
async def stream(tasks: Tasks, count: int, pause: float = 0.01) -> StreamingResponse:
    tasks.after_response.task(shield=True).schedule(note, "after response")

    async def body() -> AsyncIterator[bytes]:
        for number in range(count):
            yield b"%d\n" % number
            await anyio.sleep(pause)
        write("last byte")

    return StreamingResponse(body())


@app.get("/file")
async def file(tasks: Tasks) -> FileResponse:
    tasks.after_response.schedule(note, "after response")
    return FileResponse(__file__)


@app.get("/fail/{kind}")
async def schedule_failures(kind: str, tasks: Tasks) -> None:
    errors = {
        "handler": ValueError("a"),
        "exit": SystemExit(3),
        "group": BaseExceptionGroup("g", [SystemExit(3), ValueError("b")]),
        "generator": GeneratorExit(),
    }
    if kind == "future":
        tasks.task(name=kind).schedule(await_cancelled_future)
    else:
        tasks.task(name=kind, on_error=failing_handler).schedule(fail, errors[kind])
    tasks.schedule(sleep, f"beside {kind}", 0.1)


async def await_cancelled_future() -> None:
    """What a cancelled asyncio future does; on Trio nothing can do this."""
    import asyncio

    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@app.get("/sync/{number}")
def sync_endpoint(number: int, tasks: Tasks) -> None:
    tasks.schedule(note, f"sync {number}")


@app.websocket("/ws")
async def websocket(socket: WebSocket, tasks: Tasks) -> None:
    tasks.schedule(note, "now")
    tasks.after_route.schedule(note, "after route")
    tasks.after_response.schedule(note, "after response")
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    if await socket.receive_text() == "wait":
        await socket.receive_text()
    write("endpoint ends")
