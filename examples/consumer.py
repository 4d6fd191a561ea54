"""A loop that runs as long as the app: it starts with the lifespan, and ends by `stopping`.

hypercorn -k trio examples.consumer:app
uvicorn examples.consumer:app

curl -X POST localhost:8000/queue/tea
curl localhost:8000/consumed
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from fastapi import FastAPI, Request

from fastapi_tasks import add_tasks

consumed: list[str] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    send, receive = anyio.create_memory_object_stream[str](math.inf)
    async with send, receive:
        runner.task(name="consumer").schedule(consume, receive)
        yield {"queue": send}


app = FastAPI(lifespan=lifespan)
runner = add_tasks(app, grace_period=5)  # seconds in which the consumer may end by itself


@app.post("/queue/{item}", status_code=202)
async def put(item: str, request: Request) -> None:
    await request.state.queue.send(item)


@app.get("/consumed")
async def get_consumed() -> list[str]:
    return consumed


async def consume(receive: MemoryObjectReceiveStream[str]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(consume_each, receive)
        await runner.stopping.wait()
        print("consumer: stops", flush=True)
        group.cancel_scope.cancel()


async def consume_each(receive: MemoryObjectReceiveStream[str]) -> None:
    async for item in receive:
        print(f"consumer: {item}", flush=True)
        consumed.append(item)
