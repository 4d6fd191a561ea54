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

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock
from time import time
from traceback import TracebackException
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from . import Instrument, Task, TaskRunner, TaskState

__all__ = ("History", "TaskRecord")

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class RecordedProgress(NamedTuple):
    """How far a task was, as it said itself."""

    done: float
    total: float | None
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """What is remembered of a task: no arguments, and not the task.

    Attributes:
        id: its `Task.id`; `None` if nobody has asked for that.
        name: its name.
        timing: `"now"`, `"after_route"` or `"after_response"`.
        state: where it stood.
        attempts: how many were begun.
        labels: those of its config.
        progress: `None` if it has said nothing.
        scheduled_at: when it was handed over, in UTC, as all times here.
        started_at: when it took its first step, if it did.
        finished_at: when it had finished; `None` before.
        error_type: the qualified name of the exception's class, of a failed task.
        error_message: what the exception says. It may quote arguments.
        error_traceback: the formatted traceback, without local variables. Its last line has the
            message.
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
    error_type: str | None = None
    error_message: str | None = None
    error_traceback: str | None = None
    result: Any = None

    def __repr__(self) -> str:
        return f"<TaskRecord {self.name!r} {self.state.value}>"


class _Times(NamedTuple):
    """When an unfinished task was handed over, and when it started; seconds of `time()`."""

    scheduled: float
    started: float | None = None


class History(Instrument):
    """Remembers what became of the tasks of one app, over all its lifespans.

    Tasks whose `id` was asked for, failed ones, and all others are remembered apart, `max_tasks` of
    each, so that a flood of one kind never evicts the others.

    Args:
        max_tasks: how many finished tasks of each kind.
        max_age: seconds that one is remembered.
        keep_results: whether to remember what functions have returned.

    Raises:
        FastAPITasksError: as an instrument of a second app.
    """

    def __init__(
        self, max_tasks: int = 1000, max_age: float = 3600, *, keep_results: bool = False
    ) -> None:
        self._max_tasks = max_tasks
        self._max_age = max_age
        self._keep_results = keep_results
        self._runner: TaskRunner | None = None
        self._lock = RLock()
        self._times: dict[Task[..., Any], _Times] = {}
        self._jobs: OrderedDict[str, TaskRecord] = OrderedDict()  # the oldest first, as the others
        self._failed: OrderedDict[int, TaskRecord] = OrderedDict()
        self._others: OrderedDict[int, TaskRecord] = OrderedDict()
        # Of tasks that somebody still holds, who may ask for the id only now.
        self._held: WeakKeyDictionary[Task[..., Any], TaskRecord] = WeakKeyDictionary()

    def attached(self, runner: TaskRunner) -> None:
        self._runner = runner

    def task_scheduled(self, task: Task[..., Any]) -> None:
        self._times[task] = _Times(time())

    def task_started(self, task: Task[..., Any]) -> None:
        self._times[task] = self._times[task]._replace(started=time())
