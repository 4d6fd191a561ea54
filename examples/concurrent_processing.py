"""Concurrent processing: independent work on one upload, all of it at the same time.

    hypercorn -k trio examples.concurrent_processing:app
    uvicorn examples.concurrent_processing:app

Upload a file; the four tasks take as long as the longest of them:

    curl -X POST 'localhost:8000/process?file_id=1'
"""

import anyio
from fastapi import FastAPI

from fastapi_tasks import Tasks, add_tasks

app = FastAPI()
add_tasks(app)
log: list[str] = []


def note(entry: str) -> None:
    print(entry, flush=True)
    log.append(entry)


@app.post("/process", status_code=202)
async def process_upload(file_id: int, tasks: Tasks) -> dict[str, str]:
    tasks.schedule(generate_thumbnail, file_id)
    tasks.schedule(scan_for_viruses, file_id)
    tasks.schedule(extract_metadata, file_id)
    tasks.schedule(update_search_index, file_id)
    return {"status": "processing"}


async def generate_thumbnail(file_id: int) -> None:
    await work(f"thumbnail of {file_id}", 0.05)


async def scan_for_viruses(file_id: int) -> None:
    await work(f"virus scan of {file_id}", 0.03)


async def extract_metadata(file_id: int) -> None:
    await work(f"metadata of {file_id}", 0.01)


async def update_search_index(file_id: int) -> None:
    await work(f"search index of {file_id}", 0.02)


async def work(what: str, seconds: float) -> None:
    note(f"{what}: starts")
    await anyio.sleep(seconds)
    note(f"{what}: done")
