"""Dynamic scheduling: which tasks, and when, is decided at run time.

    hypercorn -k trio examples.dynamic:app
    uvicorn examples.dynamic:app

Notify two users; what is urgent starts now, the rest after the response:

    curl -X POST 'localhost:8000/notify/alice?message=hello'
    curl -X POST 'localhost:8000/notify/bob?message=fire&urgent=true'
"""

from collections.abc import Awaitable, Callable

import anyio
from fastapi import FastAPI, HTTPException

from fastapi_tasks import Tasks, TaskScheduler, add_tasks

app = FastAPI()
add_tasks(app)
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


async def send_email(user: str, message: str) -> None:
    await anyio.sleep(0.02)
    note(f"email to {user}: {message}")


async def send_sms(user: str, message: str) -> None:
    await anyio.sleep(0.01)
    note(f"SMS to {user}: {message}")


Channel = Callable[[str, str], Awaitable[None]]
USERS: dict[str, list[Channel]] = {
    "alice": [send_email],
    "bob": [send_email, send_sms],
    "carol": [],
}


@app.post("/notify/{user}")
async def notify_user(
    user: str, message: str, tasks: Tasks, urgent: bool = False
) -> dict[str, list[str]]:
    if user not in USERS:
        raise HTTPException(404)
    scheduler: TaskScheduler = tasks if urgent else tasks.after_response
    scheduled = [scheduler.schedule(send, user, message) for send in USERS[user]]
    return {"scheduled": [f"{task.name} {task.timing}" for task in scheduled]}
