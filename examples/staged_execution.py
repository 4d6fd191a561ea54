"""Staged execution: one request, and work at each of the three timing points.

    hypercorn -k trio examples.staged_execution:app
    uvicorn examples.staged_execution:app

Order something:

    curl -X POST 'localhost:8000/order?item=tea'
"""

from itertools import count

import anyio
from fastapi import FastAPI

from fastapi_tasks import Tasks, add_tasks

app = FastAPI()
add_tasks(app)
numbers = count(1)
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


@app.post("/order")
async def create_order(item: str, tasks: Tasks) -> dict[str, int]:
    order_id = next(numbers)

    # Now: beside the endpoint
    tasks.schedule(process_payment, item)

    # After the route: the endpoint has returned, the response is not sent yet
    tasks.after_route.schedule(update_inventory, item)

    # After the response: the client has it
    tasks.after_response.schedule(send_order_email, item)
    tasks.after_response.schedule(notify_warehouse, item)

    await save_order(item)
    return {"order_id": order_id}


async def save_order(item: str) -> None:
    await anyio.sleep(0.02)
    note(f"{item}: order saved")


async def process_payment(item: str) -> None:
    note(f"{item}: payment starts")
    await anyio.sleep(0.01)
    note(f"{item}: payment made")


async def update_inventory(item: str) -> None:
    note(f"{item}: inventory updated")


async def send_order_email(item: str) -> None:
    note(f"{item}: email sent")


async def notify_warehouse(item: str) -> None:
    note(f"{item}: warehouse notified")
