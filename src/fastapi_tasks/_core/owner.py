"""What a task needs of others: of its supervisor, its run of a route, its dependencies.

As protocols, since all of them know tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from .attempt import Attempt
    from .supervised import SupervisedTask
    from .task import Task
    from .waits import Waiter


class Owner(Protocol):
    """What a task needs of its supervisor."""

    @property
    def is_on_loop_thread(self) -> bool:
        """Whether this is the thread of its event loop."""
        ...

    def identify(self, task: Task[..., Any]) -> str:
        """Make the id of a task, by which it is found as long as it is unfinished."""
        ...

    def tell_progress(self, task: SupervisedTask[..., Any]) -> None:
        """Tell instruments that a task has changed its progress."""
        ...

    def cancel(self, task: SupervisedTask[..., Any]) -> None:
        """Cancel a task, from any thread."""
        ...

    def has_cancelled(self, task: SupervisedTask[..., Any]) -> bool:
        """Whether the drain has cancelled it, or would have: it was spawned."""
        ...

    def call_again(self, task: SupervisedTask[..., Any]) -> Awaitable[Any]:
        """Call a task's function once more."""
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


class Dependencies(Protocol):
    """What a task's function gets beside its arguments.

    Attributes:
        are_only_awaited: whether all are only awaited: none is to be closed, or needs a thread.
    """

    are_only_awaited: bool

    def open(self, attempt: Attempt) -> Awaitable[None]:
        """Open them for one attempt: add their values to its arguments, and what closes them."""
        ...
