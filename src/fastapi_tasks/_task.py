"""A task: one call of one function, the states it goes through, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from contextvars import Context, ContextVar
from enum import Enum
from threading import RLock
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeAlias, TypeVar, cast

from anyio import Event, TaskCancelled, TaskFailed, TaskHandle

from ._config import TaskConfig
from ._function import call, function_name
from ._owner import Line, Runner
from .errors import FastAPITasksError

P = ParamSpec("P")
T = TypeVar("T")

Timing: TypeAlias = Literal["now", "after_route", "after_response"]

_NO_OPTIONS = TaskConfig()

# Held while a task's event is made, which any thread may ask for first. It is held for so short a
# time that one lock serves all tasks.
_lock = RLock()


# The task whose function runs in this context.
running_task: ContextVar[Task[..., Any] | None] = ContextVar("running_task", default=None)


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


# On Python 3.11 it takes four times as long to look a member up on its class.
PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = TaskState


class Task(Generic[P, T]):
    """One call of one function, handed over with `schedule()`, which returns it.

    Attributes:
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        config: its options, merged from the app's, the scheduler's and the call's.
        timing: `"now"`, `"after_route"` or `"after_response"`.
        attempts: how many attempts were begun; more than one with `retry`. An attempt whose time
            was up before its thread began counts, too.
        state: final before `on_error` runs.
        exception: why it failed; `None` unless `state` is `FAILED`. Final with `state`.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_finished",
        "_handle",
        "_is_finished",
        "_line",
        "_result",
        "_runner",
        "_started",
        "_traceback",
        "args",
        "attempts",
        "config",
        "exception",
        "func",
        "kwargs",
        "state",
        "timing",
    )

    func: Callable[P, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    config: TaskConfig
    timing: Timing
    attempts: int
    state: TaskState
    exception: BaseException | None

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
        self.timing = timing
        self.state = PENDING
        self.exception = None
        # Events are made when somebody asks for them: most tasks are never waited for.
        self._started: Event | None = None
        self._finished: Event | None = None
        self._is_finished = False
        # The `schedule()` call's context, while the task has to wait for its start.
        self._context: Context | None = None
        self.attempts = 0
        self._result: Any = None
        self._traceback: TracebackType | None = None  # of `exception`, as it was when it failed
        # Whom the task belongs to, from its `schedule()` call on, and its event-loop task.
        self._runner: Runner | None = None
        self._line: Line | None = None
        self._handle: TaskHandle[None] | None = None

    @property
    def name(self) -> str:
        """The configured name, or the function's qualified name. It never shows arguments."""
        return self.config.name or function_name(self.func)

    @property
    def started(self) -> Event:
        """Set at the task's first step; also set if it ends without one (`state` tells)."""
        with _lock:
            if self._started is None:
                self._started = Event()
                if self.state is not PENDING:  # see `_enter()`
                    self._started.set()
            return self._started

    @property
    def finished(self) -> Event:
        """Set when nothing of the task runs any more, its error handler included."""
        with _lock:
            if self._finished is None:
                self._finished = Event()
                if self._is_finished:
                    self._finished.set()
            return self._finished

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {self.state.value}>"

    def cancel(self) -> None:
        """Cancel the task, also a shielded one; from any thread.

        One that has not started will not run a line. One that runs gets the cancellation at its
        next checkpoint, in its wait for a limiter, a retry or a thread, or in its error handler; a
        function that runs in a thread sees it by `anyio.from_thread.check_cancelled()`. On a
        finished task it does nothing.
        """
        if self._runner is not None and not self._is_finished:
            self._runner._cancel(self)

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait until the task has finished; return its result. Cancelling this leaves it running.

        Raises:
            Exception: the task's own, if it failed.
            anyio.TaskCancelled: it was cancelled, or dropped before it started.
            anyio.TaskFailed: it failed with something that is no `Exception`, its cause.
            FastAPITasksError: this would wait for ever: a task for itself, or an endpoint for one
                that starts when the endpoint has returned.
        """
        self._check_wait()
        yield from self.finished.wait().__await__()
        if self.state is CANCELLED:
            raise TaskCancelled(f"task {self.name!r} was cancelled")
        if isinstance(self.exception, Exception):
            self._raise(self.exception)
        if self.exception is not None:
            raise TaskFailed(f"task {self.name!r} failed") from self.exception
        return cast("T", self._result)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise the task's exception as it was, however many wait for it, and where."""
        context = error.__context__
        try:
            raise error.with_traceback(self._traceback)
        finally:
            error.__context__ = context

    def _check_wait(self) -> None:
        if self._is_finished:
            return
        if self._runner is not None and not self._runner._is_here:
            raise FastAPITasksError(
                f"task {self.name!r} runs in another event loop: await it there"
            )
        if running_task.get() is self:
            raise FastAPITasksError(f"task {self.name!r} cannot wait for itself")
        if self._line is not None and self._line._holds_up(self):
            raise FastAPITasksError(
                f"task {self.name!r} starts {self.timing.replace('_', ' ')}, and this code, which "
                "would wait for it, comes before that: await it in another task"
            )

    async def __call__(self) -> T:
        """Call the function once more, here and now, with the same arguments.

        For an error handler that tries again. It changes nothing of the task; what the function
        returns or raises is passed on.
        """
        threads = self._runner._threads if self._runner is not None else None
        result: T = await call(self.func, self.args, self.kwargs, threads)
        return result

    # The rest is the runner's, on the event loop's thread.

    @property
    def _is_cancelling(self) -> bool:
        """Whether `cancel()` was called while it ran."""
        return self._handle is not None and self._handle.status is TaskHandle.Status.CANCELLING

    def _enter(self, state: TaskState) -> None:
        """Leave `PENDING`."""
        # Without the lock: whoever makes the event first stores it and then looks at the state,
        # which is changed here before the look at the event. So one of the two sets it, or both do.
        self.state = state
        if self._started is not None:
            _set(self._started)

    def _fail(self, exception: BaseException) -> None:
        self._traceback = exception.__traceback__
        self.exception = exception
        self.state = FAILED

    def _finish(self) -> None:
        self._is_finished = True
        if self._finished is not None:
            _set(self._finished)


def _set(event: Event) -> None:
    # Whoever waits for it in another event loop, which is wrong, must not harm the task's.
    with suppress(Exception):
        event.set()
