"""Scheduling from dependencies: a plain one, and one with `yield` that commits.

    hypercorn -k trio examples.dependencies:app
    uvicorn examples.dependencies:app

Change a name; the cache is cleared once the change is committed, and never if it is not:

    curl -X PUT 'localhost:8000/users/1?name=Alice'
    curl -X PUT 'localhost:8000/users/1?name='
"""

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, HTTPException

from fastapi_tasks import Tasks, add_tasks

app = FastAPI()
add_tasks(app)
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


async def audit(user_id: int, tasks: Tasks) -> None:
    """Starts now, so it is written down whether the change succeeds or not."""
    tasks.schedule(write_audit, user_id)


async def transaction(user_id: int, tasks: Tasks) -> AsyncIterator[str]:
    """Commits when the endpoint has returned; tasks after the route see what it committed."""
    tasks.after_route.schedule(clear_cache, user_id)
    yield f"transaction on user {user_id}"
    await anyio.sleep(0.01)
    note(f"user {user_id}: committed")


# The scope "function" ends before the response is sent, and before tasks after the route start.
Transaction = Annotated[str, Depends(transaction, scope="function")]


@app.put("/users/{user_id}", dependencies=[Depends(audit)])
async def rename(user_id: int, name: str, transaction: Transaction) -> dict[str, str]:
    if not name:
        raise HTTPException(400, "a user needs a name")
    note(f"user {user_id}: renamed")
    return {"name": name}


async def write_audit(user_id: int) -> None:
    note(f"user {user_id}: audit written")


async def clear_cache(user_id: int) -> None:
    note(f"user {user_id}: cache cleared")
