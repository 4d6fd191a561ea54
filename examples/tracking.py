"""Tracking: the `Task` that `schedule()` returns tells how the work goes on.

    hypercorn -k trio examples.tracking:app
    uvicorn examples.tracking:app

Start a job, look at it, and wait for its end:

    curl -X POST 'localhost:8000/jobs?rows=3'
    curl localhost:8000/jobs/0
    curl localhost:8000/jobs/0/end
"""

import anyio
from fastapi import FastAPI, HTTPException

from fastapi_tasks import Task, Tasks, add_tasks

app = FastAPI()
add_tasks(app)
jobs: list[Task[..., None]] = []
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


@app.post("/jobs", status_code=202)
async def start_job(rows: int, tasks: Tasks) -> dict[str, str]:
    task = tasks.task(name=f"job {len(jobs)}").schedule(count_rows, rows)
    jobs.append(task)
    before = task.state.value
    await task.started.wait()  # an `anyio.Event`; without it the job starts with the response
    return {"name": task.name, "before": before, "state": task.state.value}


@app.get("/jobs/{number}")
async def look_at_job(number: int) -> dict[str, str | None]:
    task = find(number)
    error = None if task.exception is None else str(task.exception)
    return {"name": task.name, "state": task.state.value, "error": error}


@app.get("/jobs/{number}/end")
async def wait_for_job(number: int) -> dict[str, str | None]:
    await find(number).finished.wait()
    return await look_at_job(number)


def find(number: int) -> Task[..., None]:
    if not 0 <= number < len(jobs):
        raise HTTPException(404)
    return jobs[number]


async def count_rows(rows: int) -> None:
    note(f"counting {rows} rows")
    await anyio.sleep(0.03)
    if rows < 0:
        raise ValueError("fewer rows than none")
    note(f"counted {rows} rows")
