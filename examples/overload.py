"""No more tasks than the app can bear: the rest of the requests are told to come back later.

hypercorn -k trio examples.overload:app
uvicorn examples.overload:app

for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code} ' -X POST localhost:8000/work; done
curl localhost:8000/statistics
"""

from dataclasses import asdict

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fastapi_tasks import Tasks, TooManyTasksError, add_tasks

app = FastAPI()
runner = add_tasks(app, max_tasks=10)


@app.exception_handler(TooManyTasksError)
async def answer_503(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "busy"}, status_code=503, headers={"Retry-After": "1"})


@app.post("/work", status_code=202)
async def start_work(tasks: Tasks) -> None:
    tasks.schedule(work)


@app.get("/statistics")
async def get_statistics() -> dict[str, int]:
    return asdict(runner.statistics())


async def work() -> None:
    await anyio.sleep(0.05)
