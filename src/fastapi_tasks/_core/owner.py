"""What a task needs of those it belongs to: its supervisor, and the run of a route.

As protocols, since both of them know tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from anyio import CapacityLimiter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .supervised import SupervisedTask
    from .waits import Waiter


class Owner(Protocol):
    """What a task needs of its supervisor."""

    @property
    def threads(self) -> CapacityLimiter:
        """What sync tasks take their threads from."""
        ...

    @property
    def is_on_loop_thread(self) -> bool:
        """Whether this is the thread of its event loop."""
        ...

    def cancel(self, task: SupervisedTask[..., Any]) -> None:
        """Cancel a task, from any thread."""
        ...


class Route(Protocol):
    """What a task needs of its run of a route: when it may start, and after which others."""

    def add(self, task: SupervisedTask[..., Any]) -> bool:
        """Take a task in; return whether it starts now."""
        ...

    def reach_all(self) -> None:
        """Start what waits for a timing point, as if all of them had come."""
        ...

    def remove(self, task: SupervisedTask[..., Any]) -> None:
        """Take a task out that will not start."""
        ...

    def take_turn(self, task: SupervisedTask[..., Any]) -> bool:
        """Take a task out, if each one before it has started, or will not; return whether so."""
        ...

    def needs_of(self, task: SupervisedTask[..., Any]) -> Iterable[Waiter]:
        """What has to end before this task can start."""
        ...
