"""A small shop: one order sets four tasks going, each at its own moment.

    hypercorn -k trio examples.shop:app
    uvicorn examples.shop:app

Order something, and something that is too expensive for the audit:

    curl localhost:8000/orders --json '{"item": "tea", "amount": 5}'
    curl localhost:8000/orders --json '{"item": "gold", "amount": 5000}'
    curl localhost:8000/log

Then order once more and stop the server at once: the payment is made before the pool closes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_tasks import Task, Tasks, add_tasks

PAYMENT_TIME = 0.05  # seconds
AUDIT_LIMIT = 1000

log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


class Pool:
    """Stands for a database's connection pool, which is of no use before and after its time."""

    is_open = False

    async def execute(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        if not self.is_open:
            raise RuntimeError("the pool is closed")


pool = Pool()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    pool.is_open = True
    note("pool opens")
    yield
    pool.is_open = False
    note("pool closes")


app = FastAPI(lifespan=lifespan)
add_tasks(app)


class Order(BaseModel):
    item: str
    amount: int


@app.post("/orders", status_code=202)
async def create_order(order: Order, tasks: Tasks) -> Order:
    tasks.task(name="payment", shield=True).schedule(take_payment, order)
    tasks.task(name="audit", on_error=report).schedule(audit, order)
    tasks.after_route.schedule(update_inventory, order)
    tasks.after_response.schedule(send_confirmation, order)
    note(f"{order.item}: order accepted")
    return order


@app.get("/log")
async def get_log() -> list[str]:
    return log


async def take_payment(order: Order) -> None:
    """Shielded: once begun, it is not cut off by a shutdown."""
    note(f"{order.item}: payment starts")
    await pool.execute(PAYMENT_TIME)
    note(f"{order.item}: payment made")


async def audit(order: Order) -> None:
    note(f"{order.item}: audit")
    if order.amount > AUDIT_LIMIT:
        raise ValueError(f"more than {AUDIT_LIMIT}")


async def report(task: Task[..., object], error: Exception) -> None:
    note(f"{task.name} failed: {error}")


async def update_inventory(order: Order) -> None:
    note(f"{order.item}: inventory updated")


async def send_confirmation(order: Order) -> None:
    note(f"{order.item}: confirmation starts")
    await anyio.sleep(0.02)
    note(f"{order.item}: confirmation sent")
