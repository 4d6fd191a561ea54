"""Jobs over HTTP, for clients that poll.

No event streams: each would hold some server's shutdown up for seconds. A client that waits, by
`?wait=`, waits for less than one.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, TypeAlias
from weakref import WeakSet

from anyio import move_on_after
from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import Message, Receive, Scope, Send

from .. import FastAPITasksError
from .history import History
from .records import TaskRecord

logger: logging.Logger = logging.getLogger("fastapi_tasks")

MAX_WAIT = 0.9  # seconds: more would hold the shutdown of some servers

Responses: TypeAlias = dict[int | str, dict[str, Any]]
UNKNOWN: Responses = {
    404: {"description": "unknown to this process; another worker may know it"},
    410: {"description": "it has finished too long ago, and is forgotten"},
}
FINISHED: Responses = {409: {"description": "it has finished"}}


class JobProgress(BaseModel):
    """How far a task is, as it says itself."""

    done: float
    total: float | None
    message: str


class JobError(BaseModel):
    """Why a task failed."""

    type: str
    message: str | None = None


class Job(BaseModel):
    """What became of a task."""

    id: str
    name: str
    timing: str
    state: str
    attempts: int
    labels: dict[str, str]
    progress: JobProgress | None
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: JobError | None
    result: Any = None


def create_router(
    history: History, *, cancel: bool = False, error_messages: bool = False
) -> APIRouter:
    """A router to include, with the app's own dependencies for who may look.

    Whoever has the id of a job sees it, unless those dependencies say otherwise.

    Args:
        cancel: whether `DELETE` cancels a job.
        error_messages: whether what exceptions say is shown: it may quote arguments.

    Raises:
        TypeError: `history` is none.
    """
    if not isinstance(history, History):
        raise TypeError(f"create_router() takes a History, not {type(history).__qualname__}")
    jobs = _Jobs(history, error_messages=error_messages)
    router = APIRouter(tags=["jobs"], route_class=_JobRoute)
    router.get("/{id}", response_model_exclude_unset=True, responses=UNKNOWN)(jobs.get_job)
    if cancel:
        responses = UNKNOWN | FINISHED
        router.delete("/{id}", status_code=202, responses=responses)(jobs.cancel_job)
    return router


class _JobRoute(APIRoute):
    """Nobody keeps its answers, whoever has made them: the app's dependencies, its validation."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        try:
            await super().handle(scope, receive, send_uncached)
        except AnyHTTPException as exc:  # the method is not allowed
            exc.headers = {**(exc.headers or {}), "Cache-Control": "no-store"}
            raise


class _Jobs:
    """The endpoints."""

    def __init__(self, history: History, *, error_messages: bool) -> None:
        self._history = history
        self._error_messages = error_messages
        self._not_json: WeakSet[TaskRecord] = WeakSet()  # those of which that was said

    async def get_job(
        self,
        id: str,  # noqa: A002
        response: Response,
        wait: Annotated[
            float, Query(ge=0, le=MAX_WAIT, description="seconds for the job to finish in")
        ] = 0,
    ) -> Job:
        """Get what became of a job."""
        task = self._history.runner.get_task(id)
        if task is not None and wait:
            with move_on_after(wait), suppress(FastAPITasksError):  # should the job itself ask
                await task.wait()
        record = self._find(id)
        if record.finished_at is None:
            response.headers["Retry-After"] = "1"
        return self._show(record, id)

    async def cancel_job(self, id: str) -> None:  # noqa: A002
        """Cancel a job. It may still run for a while."""
        self._find(id)
        task = self._history.runner.get_task(id)
        if task is None:
            raise HTTPException(409, "the job has finished")
        task.cancel()

    def _find(self, id_: str) -> TaskRecord:
        record = self._history.get(id_)
        if record is not None:
            return record
        if self._history.runner.has_made(id_):
            raise HTTPException(410, "the job has finished too long ago, and is forgotten")
        raise HTTPException(404, "this process knows no such job; another worker may know it")

    def _show(self, record: TaskRecord, id_: str) -> Job:
        progress = record.progress
        job = Job(
            id=id_,
            name=_text(record.name),
            timing=record.timing,
            state=record.state.value,
            attempts=record.attempts,
            labels={_text(key): _text(value) for key, value in record.labels.items()},
            progress=None
            if progress is None
            else JobProgress(
                done=progress.done, total=progress.total, message=_text(progress.message)
            ),
            scheduled_at=record.scheduled_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            error=self._show_error(record),
        )
        if self._history.keeps_results:
            job.result = self._show_result(record)
        return job

    def _show_error(self, record: TaskRecord) -> JobError | None:
        if (error := record.error) is None:
            return None
        shown = JobError(type=_text(error.type))
        if self._error_messages:
            shown.message = _text(error.message)
        return shown

    def _show_result(self, record: TaskRecord) -> Any:
        """As JSON has it; what it cannot have is null, and said once."""
        try:
            result = jsonable_encoder(record.result)
            json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
        except Exception:
            if record not in self._not_json:
                self._not_json.add(record)
                logger.warning("the result of task %r cannot be shown as JSON", record.name)
            return None
        return result


def _text(text: str) -> str:
    """Without what UTF-8 cannot have: halves of surrogate pairs, of a file's name, say."""
    return text.encode("utf-8", "backslashreplace").decode()
