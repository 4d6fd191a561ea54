"""The options of a task, and how two sets of them merge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from .function import exact, is_generator, type_name

if TYPE_CHECKING:
    from .task import Task

T = TypeVar("T")

TaskErrorHandler: TypeAlias = Callable[["Task[..., Any]", Exception], Any]
"""What `on_error` takes: called with the task and its error; sync (in a worker thread) or async."""

TaskRetry: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What `retry` takes: an async caller of one async function without arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """The options of a task. `None` means: inherit from the scheduler, the request, the app.

    `False` switches off what they have: an `on_error`, `timeout`, `retry` or `limiter`.

    Args:
        name: shown in log lines and as the event loop's task name; else the function's
            qualified name.
        shield: whether the task survives the drain, that is: runs to its end, within
            `shield_timeout`, when the app shuts down. Its error handler does so too.
        on_error: called with `(task, error)` once the task has finally failed, after the last
            retry, with an `Exception`. Other `BaseException`s are logged only. What it raises is
            logged.
        timeout: seconds for one attempt; past it the attempt is cancelled, and fails with
            `TimeoutError`. App-wide, it ends endless loops, too. A function in a thread can only be
            asked, by `anyio.from_thread.check_cancelled()`; one that returns late has succeeded.
        retry: an async caller that is given one async function without arguments, such as
            `stamina.AsyncRetryingCaller(...).on(...)` or `tenacity.AsyncRetrying(...)`.
        limiter: an async context manager that is entered around each attempt, such as
            `anyio.CapacityLimiter` or `anyio.Semaphore`; shared by whoever shares the object.
        hold_response: whether the response waits until the task has finished (*now* and *after
            route* tasks). A failure still does not touch the response.
        even_if_failed: whether an *after* task also starts when the route failed.
        labels: what the app finds the task by later, as strings: its owner, say. Labels of the app,
            the scheduler and the call are merged, key by key. They are shown: nothing secret.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a negative `timeout`.
    """

    name: str | None = None
    shield: bool | None = None
    on_error: TaskErrorHandler | Literal[False] | None = None
    timeout: float | Literal[False] | None = None
    retry: TaskRetry | Literal[False] | None = None
    limiter: AbstractAsyncContextManager[Any] | Literal[False] | None = None
    hold_response: bool | None = None
    even_if_failed: bool | None = None
    labels: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.name is not None and type(self.name) is not str:
            _check("name", self.name, "a string", _is_string)
            object.__setattr__(self, "name", exact(self.name))
        for option in ("shield", "hold_response", "even_if_failed"):
            _check(option, getattr(self, option), "True, False or None", _is_bool)
        _check("on_error", chosen(self.on_error), "a function without yield", _is_function)
        _check("retry", chosen(self.retry), "an async caller", callable)
        _check("timeout", chosen(self.timeout), "a number of seconds", _is_number)
        _check("limiter", chosen(self.limiter), "an async context manager", _is_context_manager)
        if self.labels is not None:
            _check("labels", self.labels, "a mapping of strings to strings", _is_labels)
            object.__setattr__(self, "labels", MappingProxyType({**self.labels}))
        if chosen(self.timeout) is not None and not is_seconds(self.timeout):
            raise ValueError(f"timeout must be a number of seconds from 0 up, not {self.timeout!r}")

    @property
    def shielded(self) -> bool:
        """Whether the task survives the drain: `shield`, with `None` as False."""
        return self.shield is True

    def merge(self, other: TaskConfig) -> TaskConfig:
        """Return a config with `other`'s fields, and this one's wherever `other`'s are `None`."""
        merged = object.__new__(TaskConfig)  # both are checked
        for name in _OPTIONS:
            value = getattr(other, name)
            object.__setattr__(merged, name, getattr(self, name) if value is None else value)
        if self.labels is not None and other.labels is not None:
            labels = MappingProxyType({**self.labels, **other.labels})
            object.__setattr__(merged, "labels", labels)
        return merged


_OPTIONS = tuple(each.name for each in fields(TaskConfig))


def chosen(option: T | Literal[False]) -> T | None:
    """What an option is in the end: `False` switches off what the app or a scheduler has."""
    return None if option is False else option


def is_seconds(value: object) -> bool:
    """Whether it is a number of seconds that a clock can reckon with; infinity is one."""
    try:
        return _is_number(value) and float(cast("float", value)) >= 0
    except OverflowError:
        return False


def _check(name: str, value: object, wanted: str, is_valid: Callable[[Any], bool]) -> None:
    if value is not None and not is_valid(value):
        raise TypeError(f"{name} must be {wanted}, not {type_name(value)}")


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_string(value: object) -> bool:
    return issubclass(type(value), str)


def _is_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        type(text) is str
        for item in cast("Mapping[object, object]", value).items()
        for text in item
    )


def _is_number(value: object) -> bool:
    return issubclass(type(value), (int, float)) and type(value) is not bool


def _is_context_manager(value: object) -> bool:
    return hasattr(type(value), "__aenter__") and hasattr(type(value), "__aexit__")


def _is_function(value: object) -> bool:
    return callable(value) and not is_generator(value)
