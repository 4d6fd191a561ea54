"""The options of a task, and how two sets of them merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ._task import Task

TaskErrorHandler: TypeAlias = Callable[["Task[..., Any]", Exception], Any]
"""What `on_error` takes: called with the task and its error; sync (in a worker thread) or async."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """The options of a task. `None` means: inherit from the scheduler, the request, the app.

    Args:
        name: shown in log lines and as the event loop's task name; else the function's
            qualified name.
        shield: whether the task survives the drain, that is: runs to its end, within
            `shield_timeout`, when the app shuts down. Its error handler does so too.
        on_error: called with `(task, error)` once the task has failed with an `Exception`.
            Other `BaseException`s are logged only. What it raises is logged.

    Raises:
        TypeError: for a value of another type.
    """

    name: str | None = None
    shield: bool | None = None
    on_error: TaskErrorHandler | None = None

    def __post_init__(self) -> None:
        _check(self.name, "name", "a string", valid=isinstance(self.name, str))
        _check(self.shield, "shield", "True, False or None", valid=isinstance(self.shield, bool))
        _check(self.on_error, "on_error", "a function", valid=callable(self.on_error))

    @property
    def shielded(self) -> bool:
        """Whether the task survives the drain: `shield`, with `None` as False."""
        return self.shield is True

    def merge(self, other: TaskConfig) -> TaskConfig:
        """Return a config with `other`'s fields, and this one's wherever `other`'s are `None`."""
        values = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def _check(value: object, name: str, wanted: str, *, valid: bool) -> None:
    if value is not None and not valid:
        raise TypeError(f"{name} must be {wanted}, not {type(value).__qualname__}")
