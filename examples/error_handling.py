"""Error handling: a handler for the whole app, and one for a task that needs its own.

    hypercorn -k trio examples.error_handling:app
    uvicorn examples.error_handling:app

The client gets its answer either way; failures are logged, and the handlers hear of them:

    curl -X POST 'localhost:8000/deliver?to=alice'
    curl -X POST 'localhost:8000/deliver?to=nobody'
"""

import anyio
from fastapi import FastAPI

from fastapi_tasks import Task, TaskConfig, Tasks, add_tasks

USERS = {"alice", "bob"}

log: list[str] = []
undelivered: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


async def report(task: Task[..., object], error: Exception) -> None:
    """The default of all tasks: it could tell a monitoring service."""
    note(f"reported: {task.name}: {error}")


app = FastAPI()
add_tasks(app, config=TaskConfig(on_error=report))


@app.post("/deliver", status_code=202)
async def deliver(to: str, tasks: Tasks) -> dict[str, str]:
    tasks.task(name="letter", on_error=keep).schedule(send_letter, to)
    tasks.task(name="email").schedule(send_email, to)
    return {"status": "on its way"}


async def keep(task: Task[..., object], error: Exception) -> None:
    """The letter's own, instead of the default: keep it, to try again tomorrow."""
    undelivered.extend(str(arg) for arg in task.args)
    note(f"kept: {task.name}: {error}")


async def send_letter(to: str) -> None:
    await anyio.sleep(0.02)
    if to not in USERS:
        raise LookupError("moved away")
    note(f"letter to {to}")


async def send_email(to: str) -> None:
    await anyio.sleep(0.01)
    if to not in USERS:
        raise LookupError("no such address")
    note(f"email to {to}")
