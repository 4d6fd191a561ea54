"""A task: one call of one function, the states it goes through, and its outcome."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import Context
from enum import Enum
from threading import RLock
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from anyio import Event

from ._config import TaskConfig

P = ParamSpec("P")
T = TypeVar("T")

Timing: TypeAlias = Literal["now", "after_route", "after_response"]

_NO_OPTIONS = TaskConfig()

# Guards the creation of events alone, which is rare and short: one lock serves all tasks.
_creating_event = RLock()


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


class Task(Generic[P, T]):
    """One call of one function, handed over with `schedule()`, which returns it.

    Attributes:
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        config: its options, merged from the app's, the scheduler's and the call's.
        timing: `"now"`, `"after_route"` or `"after_response"`.
        state: final before `on_error` runs.
        exception: why it failed; `None` unless `state` is `FAILED`. Final with `state`.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_finished",
        "_is_finished",
        "_started",
        "args",
        "config",
        "exception",
        "func",
        "kwargs",
        "state",
        "timing",
    )

    def __init__(
        self,
        func: Callable[P, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        config: TaskConfig = _NO_OPTIONS,
        timing: Timing = "now",
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.config = config
        self.timing: Timing = timing
        self.state = TaskState.PENDING
        self.exception: BaseException | None = None
        # Events are made when somebody asks for them: most tasks are never waited for.
        self._started: Event | None = None
        self._finished: Event | None = None
        self._is_finished = False
        # The `schedule()` call's context, while the task has to wait for its start.
        self._context: Context | None = None

    @property
    def name(self) -> str:
        """The configured name, or the function's qualified name. It never shows arguments."""
        return self.config.name or function_name(self.func)

    @property
    def started(self) -> Event:
        """Set at the task's first step; also set if it ends without one (`state` tells)."""
        with _creating_event:
            if self._started is None:
                self._started = Event()
        if self.state is not TaskState.PENDING:
            self._started.set()
        return self._started

    @property
    def finished(self) -> Event:
        """Set when nothing of the task runs any more, its error handler included."""
        with _creating_event:
            if self._finished is None:
                self._finished = Event()
        if self._is_finished:
            self._finished.set()
        return self._finished

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {self.state.value}>"

    # The rest is the runner's, on the event loop's thread.

    def _enter(self, state: TaskState, exception: BaseException | None = None) -> None:
        # State first, event second; the properties above do it the other way round, so that an
        # event that is being created meanwhile is set by one of the two.
        self.exception = exception
        self.state = state
        if self._started is not None:
            self._started.set()

    def _finish(self) -> None:
        self._is_finished = True
        if self._finished is not None:
            self._finished.set()


def function_name(func: Callable[..., Any]) -> str:
    """The qualified name: of a partial the wrapped function's, of an object its class's."""
    func = _unwrap(func)
    name = getattr(func, "__qualname__", None)
    return name if isinstance(name, str) else type(func).__qualname__


def is_async(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an async function, method or callable object."""
    return _is(inspect.iscoroutinefunction, func)


def check_callable(func: object) -> None:
    """Raise a TypeError that says what to write instead, if it cannot be a task (G10)."""
    if inspect.isawaitable(func):
        if inspect.iscoroutine(func):
            func.close()  # it will not be awaited, and its author hears of that here
        raise TypeError(
            f"schedule() takes a function and its arguments, not the {type(func).__qualname__} "
            "that calling it returns: write schedule(func, arg), not schedule(func(arg))"
        )
    if not callable(func):
        raise TypeError(
            f"schedule() takes a function and its arguments, not {type(func).__qualname__}: "
            "write schedule(func, arg)"
        )
    if _is(inspect.isgeneratorfunction, func) or _is(inspect.isasyncgenfunction, func):
        raise TypeError(
            f"schedule() cannot run the generator function {function_name(func)!r}: nobody would "
            "iterate over it; write a function without yield that does the iterating"
        )


def _is(predicate: Callable[[Any], bool], func: Callable[..., Any]) -> bool:
    func = _unwrap(func)
    return predicate(func) or predicate(type(func).__call__)


def _unwrap(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, functools.partial):
        func = func.func
    return func
