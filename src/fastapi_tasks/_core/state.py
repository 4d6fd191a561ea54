"""The states of a task, and which of them may follow which."""

from __future__ import annotations

from enum import Enum


class TaskState(Enum):
    """Where a task stands. It never leaves one of the last three."""

    PENDING = "pending"
    """Handed over; its timing point or its first step is still to come."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It raised; `Task.exception` says what."""
    CANCELLED = "cancelled"
    """It was cancelled, or dropped before it started."""

    def leads_to(self, other: TaskState) -> bool:
        """Whether the other one may follow."""
        return other._value_ in _TABLE[self._value_]

    @property
    def is_final(self) -> bool:
        """Whether none follows."""
        return not _TABLE[self._value_]


# G21, by the members' values: enums are slow to hash.
_TABLE = {
    "pending": ("running", "cancelled"),
    "running": ("succeeded", "failed", "cancelled"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}

# On Python 3.11 it takes four times as long to look a member up on its class.
PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = TaskState
