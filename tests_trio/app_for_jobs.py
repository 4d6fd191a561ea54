"""The app that real servers serve where clients ask about jobs."""

import os

import anyio
from fastapi import FastAPI

from fastapi_tasks import Tasks, add_tasks, current_task
from fastapi_tasks.jobs import History, create_router

history = History()
app = FastAPI()
add_tasks(app, instruments=[history])
app.include_router(create_router(history), prefix="/jobs")


async def sleep(seconds: float) -> None:
    current_task().progress.message = "asleep"
    await anyio.sleep(seconds)


@app.post("/begin")
async def begin(tasks: Tasks, seconds: float) -> str:
    return tasks.schedule(sleep, seconds).id


@app.get("/pid")
async def pid() -> int:
    return os.getpid()
