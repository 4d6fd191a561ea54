"""Fire and forget: work that nobody waits for, and whose failure is only logged.

    hypercorn -k trio examples.fire_and_forget:app
    uvicorn examples.fire_and_forget:app

Track an event, and one that cannot be sent:

    curl -X POST 'localhost:8000/track?event=login'
    curl -X POST 'localhost:8000/track?event=nonsense'
"""

import anyio
from fastapi import FastAPI

from fastapi_tasks import Tasks, add_tasks

EVENTS = {"login", "logout"}

app = FastAPI()
add_tasks(app)
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


@app.post("/track", status_code=202)
async def track_event(event: str, tasks: Tasks) -> dict[str, str]:
    tasks.schedule(send_to_analytics, event)
    note(f"{event}: scheduled")
    return {"status": "ok"}


async def send_to_analytics(event: str) -> None:
    """A failure is logged with its traceback, and harms neither the response nor other tasks."""
    note(f"{event}: sending")
    await anyio.sleep(0.02)
    if event not in EVENTS:
        raise LookupError("unknown event")
    note(f"{event}: sent")
