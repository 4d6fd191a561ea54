"""What is remembered of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, final

from .. import TaskState
from .traces import Trace


@final
class RecordedProgress(NamedTuple):
    """How far a task was, as it said itself."""

    done: float
    total: float | None
    message: str


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedError:
    """Why a task failed. The exception itself is not kept.

    Attributes:
        type: the qualified name of its class.
        message: what it says, which may quote arguments; no more than 4,000 characters of it.
    """

    type: str
    message: str
    _trace: Trace

    @property
    def traceback(self) -> str:
        """As Python prints it, without local variables; it has the message, too.

        Of each exception there are the innermost hundred frames, and of all that led to it, or are
        in a group, thirty.
        """
        return self._trace.format()

    def __repr__(self) -> str:
        return f"<RecordedError {self.type}>"


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
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
        scheduled_at: when it was handed over; in UTC, as all times here. Of a task that was under
            way when the history came, when that first heard of it.
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
