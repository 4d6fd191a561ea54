"""What is noted of a task, and the record that is made of it when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from .. import Task, TaskState
from .records import RecordedError, RecordedProgress, TaskRecord
from .traces import Trace, trace_of

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Facts(NamedTuple):
    """What a task says of itself."""

    id: str | None
    name: str
    timing: str
    state: TaskState
    attempts: int
    labels: Mapping[str, str] | None
    progress: RecordedProgress | None
    trace: Trace | None
    result: Any


class Notes:
    """What is noted of a task.

    Attributes:
        scheduled: when it was handed over, in seconds since the epoch, as the next two.
        started: when it took its first step.
        finished: when it had finished.
        has_progress: whether it has said something of that.
        facts: the last ones, once it has finished.
        record: what was made of those, so that it is made once.
    """

    __slots__ = ("facts", "finished", "has_progress", "record", "scheduled", "started")

    def __init__(self, scheduled: float) -> None:
        self.scheduled: float = scheduled
        self.started: float | None = None
        self.finished: float = math.inf
        self.has_progress: bool = False
        self.facts: Facts | None = None
        self.record: TaskRecord | None = None


def facts_of(task: Task[..., Any], notes: Notes) -> Facts:
    exc = task.exception
    return Facts(
        task.id if task.has_id else None,
        task.name,
        task.timing,
        task.state,
        task.attempts,
        task.config.labels,
        _progress_of(task) if notes.has_progress else None,
        None if exc is None else trace_of(exc),
        None,
    )


def _progress_of(task: Task[..., Any]) -> RecordedProgress:
    progress = task.progress
    return RecordedProgress(progress.done, progress.total, progress.message)


def record_of(notes: Notes) -> TaskRecord:
    """That of a task that has finished."""
    if notes.record is None:
        assert notes.facts is not None
        notes.record = make_record(notes, notes.facts)
    return notes.record


def make_record(notes: Notes, facts: Facts) -> TaskRecord:
    return TaskRecord(
        id=facts.id,
        name=facts.name,
        timing=facts.timing,
        state=facts.state,
        attempts=facts.attempts,
        labels=_NO_LABELS if facts.labels is None else facts.labels,
        progress=facts.progress,
        scheduled_at=_utc(notes.scheduled),
        started_at=None if notes.started is None else _utc(notes.started),
        finished_at=None if notes.facts is None else _utc(notes.finished),
        error=None if facts.trace is None else _error_of(facts.trace),
        result=facts.result,
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _error_of(trace: Trace) -> RecordedError:
    return RecordedError(
        type=f"{trace.module}.{trace.qualname}", message=trace.message, _trace=trace
    )
