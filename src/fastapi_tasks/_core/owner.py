"""What a task needs of those it belongs to: its runner, and the line of its run of a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from anyio import CapacityLimiter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .task import Task
    from .waits import Waiter


class Runner(Protocol):
    """What a task needs of its runner."""

    @property
    def _threads(self) -> CapacityLimiter:
        """What sync tasks take their threads from."""
        ...

    @property
    def _is_here(self) -> bool:
        """Whether this is the thread of its event loop."""
        ...

    def _cancel(self, task: Task[..., Any]) -> None:
        """Cancel a task, from any thread."""
        ...

    def _withdraw(self, task: Task[..., Any]) -> None:
        """End a task whose `schedule()` call fails, unless it runs already."""
        ...


class Line(Protocol):
    """The tasks of one run of a route: when they may start, and in which order."""

    def _add(self, task: Task[..., Any]) -> bool:
        """Take a task in; return whether it starts now."""
        ...

    def _release(self) -> None:
        """Start what waits for a timing point, as if all of them had come."""
        ...

    def _remove(self, task: Task[..., Any]) -> None:
        """Forget a task that will not start."""
        ...

    def _take_turn(self, task: Task[..., Any]) -> bool:
        """Take a task out, if each one before it has started, or will not; return whether so."""
        ...

    def _needed_by(self, task: Task[..., Any]) -> Iterable[Waiter]:
        """What has to end before a task can start."""
        ...
