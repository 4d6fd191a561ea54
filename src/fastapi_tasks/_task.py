"""A task: one call of one function, the states it goes through, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from enum import Enum
from threading import RLock
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from anyio import Event

from ._config import TaskConfig
from ._function import call, function_name

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

    async def __call__(self) -> Any:
        """Call the function once more, here and now, with the same arguments.

        For an error handler that tries again. It changes nothing of the task; what the function
        returns or raises is passed on.
        """
        return await call(self.func, self.args, self.kwargs)

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
