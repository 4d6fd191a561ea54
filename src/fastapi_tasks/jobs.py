"""What became of a task, to be asked for by its id: after it has finished, and over HTTP.

    history = History()
    runner = add_tasks(app, instruments=[history])
    app.include_router(create_router(history), prefix="/jobs", dependencies=[Depends(require_user)])

    @app.post("/exports", status_code=202)
    async def export(tasks: Tasks, response: Response) -> None:
        task = tasks.after_response.schedule(write_export)
        response.headers["Location"] = f"/jobs/{task.id}"

A history is of one process, and lives as long as that. What is remembered of a task is a record:
neither the task, nor its arguments.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import merge
from threading import RLock
from time import time
from traceback import TracebackException
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from anyio import move_on_after
from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel

from . import Instrument, Task, TaskRunner, TaskState

__all__ = ("History", "TaskRecord", "create_router")

logger = logging.getLogger("fastapi_tasks")


class RecordedProgress(NamedTuple):
    """How far a task was, as it said itself."""

    done: float
    total: float | None
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedError:
    """Why a task failed. The exception itself is not kept.

    Attributes:
        type: the qualified name of its class.
        message: what it says, which may quote arguments.
    """

    type: str
    message: str
    _trace: TracebackException

    @property
    def traceback(self) -> str:
        """The formatted traceback, without local variables; it ends with the message."""
        return "".join(self._trace.format())

    def __repr__(self) -> str:
        return f"<RecordedError {self.type}>"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TaskRecord:
    """What is remembered of a task: no arguments, and not the task.

    Attributes:
        id: its `Task.id`; `None` if nobody has asked for that.
        name: its name.
        timing: `"now"`, `"after_route"` or `"after_response"`.
        state: where it stands, or stood when it had finished.
        attempts: how many were begun.
        labels: those of its config.
        progress: `None` if it has said nothing.
        scheduled_at: when it was handed over; in UTC, as all times here.
        started_at: when it took its first step, if it did.
        finished_at: when it had finished; `None` before.
        error: of a failed task.
        result: what its function has returned, with `keep_results=True`.
    """

    id: str | None
    name: str
    timing: str
    state: TaskState
    attempts: int
    labels: Mapping[str, str]
    progress: RecordedProgress | None
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: RecordedError | None
    result: Any = None

    def __repr__(self) -> str:
        return f"<TaskRecord {self.name!r} {self.state.value}>"


@dataclass
class _Times:
    """When an unfinished task was handed over, and when it started."""

    scheduled: float
    started: float | None = None


class History(Instrument):
    """Remembers what became of the tasks of one app, over all its lifespans.

    Tasks whose `id` was asked for, failed ones and all others are remembered apart, `max_tasks` of
    each, so that a flood of one kind never evicts the others.

    Args:
        max_tasks: how many finished tasks of each kind.
        max_age: seconds that a finished task is remembered.
        keep_results: whether to remember what functions have returned.
    """

    def __init__(
        self, max_tasks: int = 1000, max_age: float = 3600, *, keep_results: bool = False
    ) -> None:
        if type(max_tasks) is not int or max_tasks < 1:
            raise ValueError(f"max_tasks must be a whole number from 1 up, not {max_tasks!r}")
        if not 0 < max_age <= math.inf:
            raise ValueError(f"max_age must be a number of seconds, not {max_age!r}")
        self.keeps_results: bool = keep_results
        self._max_tasks = max_tasks
        self._max_age = max_age
        self._runner: TaskRunner | None = None
        self._lock = RLock()
        self._times: dict[Task[..., Any], _Times] = {}
        # The oldest first.
        self._jobs: OrderedDict[str, TaskRecord] = OrderedDict()
        self._failed: deque[TaskRecord] = deque(maxlen=max_tasks)
        self._others: deque[TaskRecord] = deque(maxlen=max_tasks)
        # Of those that somebody still holds, who may ask for the id only now.
        self._held: WeakKeyDictionary[Task[..., Any], TaskRecord] = WeakKeyDictionary()

    @property
    def runner(self) -> TaskRunner:
        """The runner whose tasks it remembers."""
        if self._runner is None:
            raise RuntimeError("pass the history to add_tasks(app, instruments=[history])")
        return self._runner

    def attached(self, runner: TaskRunner) -> None:
        if self._runner is not None and self._runner is not runner:
            raise RuntimeError("a history is of one app: make another one for each")
        self._runner = runner

    def task_scheduled(self, task: Task[..., Any]) -> None:
        self._times[task] = _Times(time())

    def task_started(self, task: Task[..., Any]) -> None:
        if (times := self._times.get(task)) is not None:
            times.started = time()

    def task_finished(self, task: Task[..., Any]) -> None:
        record = self._record(task, finished=time())
        with self._lock:
            self._times.pop(task, None)
            if record.id is not None:
                self._keep_job(record.id, record)
                return
            (self._failed if record.error is not None else self._others).append(record)
            self._held[task] = record

    def _keep_job(self, id_: str, record: TaskRecord) -> None:
        self._jobs[id_] = record
        if len(self._jobs) > self._max_tasks:
            self._jobs.popitem(last=False)

    def get(self, id_: str, /) -> TaskRecord | None:
        """Return what is known of the task of that id, finished or not; or `None`."""
        task = self.runner.get_task(id_)
        if task is not None:
            return self._record(task)
        with self._lock:
            self._forget_old()
            if (record := self._jobs.get(id_)) is not None:
                return record
            for held, without_id in [*self._held.items()]:
                if held.has_id and held.id == id_ and self._is_young(without_id):
                    return self._promote(held, without_id)
        return None

    def _promote(self, task: Task[..., Any], without_id: TaskRecord) -> TaskRecord:
        """Keep what was recorded before somebody asked for the id as a job."""
        del self._held[task]
        for ring in (self._failed, self._others):
            if without_id in ring:
                ring.remove(without_id)
        record = replace(without_id, id=task.id)
        self._keep_job(task.id, record)
        return record

    @property
    def records(self) -> list[TaskRecord]:
        """What is remembered of finished tasks, the newest first."""
        with self._lock:
            self._forget_old()
            rings = [[*self._jobs.values()], [*self._failed], [*self._others]]
        return [*merge(*(ring[::-1] for ring in rings), key=_when_finished, reverse=True)]

    def _forget_old(self) -> None:
        while self._jobs and not self._is_young(next(iter(self._jobs.values()))):
            self._jobs.popitem(last=False)
        for ring in (self._failed, self._others):
            while ring and not self._is_young(ring[0]):
                ring.popleft()

    def _is_young(self, record: TaskRecord) -> bool:
        return time() - _when_finished(record).timestamp() <= self._max_age

    def _record(self, task: Task[..., Any], *, finished: float | None = None) -> TaskRecord:
        times = self._times.get(task) or _Times(time())
        is_over = finished is not None and task.state is TaskState.SUCCEEDED
        return TaskRecord(
            id=task.id if task.has_id else None,
            name=task.name,
            timing=task.timing,
            state=task.state,
            attempts=task.attempts,
            labels=task.config.labels or {},
            progress=_progress_of(task),
            scheduled_at=_utc(times.scheduled),
            started_at=None if times.started is None else _utc(times.started),
            finished_at=None if finished is None else _utc(finished),
            error=None if task.exception is None else _error_of(task.exception),
            result=task.return_value if is_over and self.keeps_results else None,
        )


def _when_finished(record: TaskRecord) -> datetime:
    assert record.finished_at is not None
    return record.finished_at


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _progress_of(task: Task[..., Any]) -> RecordedProgress | None:
    progress = task.progress
    values = RecordedProgress(progress.done, progress.total, progress.message)
    return None if values == (0, None, "") else values


def _error_of(exc: BaseException) -> RecordedError:
    kind = type(exc)
    try:
        message = str(exc)
    except Exception:
        message = ""
    trace = TracebackException(kind, exc, exc.__traceback__, lookup_lines=False, compact=True)
    return RecordedError(
        type=f"{kind.__module__}.{kind.__qualname__}", message=message, _trace=trace
    )


class JobProgress(BaseModel):
    done: float
    total: float | None
    message: str


class JobError(BaseModel):
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


MAX_WAIT = 0.9  # seconds: more would hold the shutdown of some servers


def create_router(
    history: History, *, cancel: bool = False, error_messages: bool = False
) -> APIRouter:
    """A router to include, with the app's own dependencies for who may look.

    Whoever has the id of a job sees it, unless those dependencies say otherwise.

    Args:
        cancel: whether `DELETE` cancels a job.
        error_messages: whether what exceptions say is shown: it may quote arguments.
    """
    router = APIRouter(tags=["jobs"])
    unknown: dict[int | str, dict[str, Any]] = {
        404: {"description": "unknown here; another worker may know it"},
        410: {"description": "it is too long ago"},
    }

    @router.get("/{id}", responses=unknown)
    async def get_job(
        id: str,  # noqa: A002
        response: Response,
        wait: float = Query(0, ge=0, le=MAX_WAIT, description="seconds for the job to finish in"),
    ) -> Job:
        """Get what became of a job."""
        task = history.runner.get_task(id)
        if task is not None and wait:
            with move_on_after(wait):
                await task.wait()
        record = _find(history, id)
        response.headers["Cache-Control"] = "no-store"
        if record.finished_at is None:
            response.headers["Retry-After"] = "1"
        return _show(record, id, error_messages=error_messages)

    if cancel:

        @router.delete(
            "/{id}", status_code=202, responses=unknown | {409: {"description": "it has finished"}}
        )
        async def cancel_job(id: str) -> None:  # noqa: A002
            """Cancel a job."""
            if _find(history, id).finished_at is not None:
                raise HTTPException(409, "the job has finished", _NO_STORE)
            task = history.runner.get_task(id)
            if task is not None:
                task.cancel()

    return router


_NO_STORE = {"Cache-Control": "no-store"}


def _find(history: History, id_: str) -> TaskRecord:
    record = history.get(id_)
    if record is not None:
        return record
    if history.runner.has_made(id_):
        raise HTTPException(410, "the job is too long ago, and forgotten", _NO_STORE)
    raise HTTPException(404, "there is no such job here; another worker may have it", _NO_STORE)


def _show(record: TaskRecord, id_: str, *, error_messages: bool) -> Job:
    error = record.error
    shown = None
    if error is not None:
        shown = JobError(type=error.type, message=error.message if error_messages else None)
    progress = record.progress
    try:
        result = jsonable_encoder(record.result)
    except Exception:
        logger.warning("the result of task %r cannot be shown as JSON", record.name)
        result = None
    return Job(
        id=id_,
        name=record.name,
        timing=record.timing,
        state=record.state.value,
        attempts=record.attempts,
        labels=dict(record.labels),
        progress=None if progress is None else JobProgress(**progress._asdict()),
        scheduled_at=record.scheduled_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        error=shown,
        result=result,
    )
