"""A task: one call of one function, the states it goes through, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import Context
from enum import Enum
from inspect import CORO_RUNNING, getcoroutinestate
from threading import RLock
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast
from weakref import ref

from anyio import Event, TaskCancelled, TaskFailed, TaskHandle

from ..errors import FastAPITasksError
from .call import Call, thread_slot
from .config import TaskConfig
from .event import TaskEvent
from .exception import forget_cancellations, is_a, raise_again, traceback_of
from .function import Handle, function_name, is_async
from .owner import Line, Runner
from .waits import Recorded, Waiter, is_call_of_thread, running, waiters_here, way

P = ParamSpec("P")
T = TypeVar("T")

Timing: TypeAlias = Literal["now", "after_route", "after_response"]

_NO_OPTIONS = TaskConfig()

# Held while a task's event is made, which any thread may ask for first. It is held for so short a
# time that one lock serves all tasks.
_lock = RLock()


class TaskState(Enum):
    """Where a task stands. It never leaves one of the last three."""

    _leads_to: tuple[TaskState, ...]

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

# The table of states (G21): which may follow which.
PENDING._leads_to = (RUNNING, CANCELLED)
RUNNING._leads_to = (SUCCEEDED, FAILED, CANCELLED)
SUCCEEDED._leads_to = FAILED._leads_to = CANCELLED._leads_to = ()


class Task(Handle, Generic[P, T]):
    """One call of one function, handed over with `schedule()`, which returns it.

    Attributes:
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        config: its options, merged from the app's, the scheduler's and the call's.
        name: the configured one, or the function's qualified name. It never shows arguments.
        timing: `"now"`, `"after_route"` or `"after_response"`.
        attempts: how many attempts were begun; more than one with `retry`. An attempt whose time
            was up before its thread began counts, too.
        state: final before `on_error` runs.
        exception: why it failed; `None` unless `state` is `FAILED`. Final with `state`.
    """

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_context",
        "_finished",
        "_handle",
        "_has_begun",
        "_has_ended",
        "_is_async",
        "_is_finished",
        "_is_handed_over",
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
        "name",
        "state",
        "timing",
    )

    func: Callable[P, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    config: TaskConfig
    name: str
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
        self.name = config.name or function_name(func)
        self.timing = timing
        self.state = PENDING
        self.exception = None
        # Events are made when somebody asks for them: most tasks are never waited for.
        self._started: TaskEvent | None = None
        self._finished: TaskEvent | None = None
        self._is_finished = False
        self._has_begun = False  # its first step is taken
        self._has_ended = False  # nothing of it runs any more, or will: it is about to be finished
        self._is_handed_over = False  # the `schedule()` call is past all that it does
        self._is_async = is_async(func)  # `None`: it cannot be called
        # The `schedule()` call's context, while the task has to wait for its start.
        self._context: Context | None = None
        self.attempts = 0
        self._awaited: Iterable[Waiter] = ()
        self._result: Any = None
        self._traceback: TracebackType | None = None  # of `exception`, as it was when it failed
        # Whom the task belongs to, from its `schedule()` call on, and its event-loop task; but for
        # the runner, until it has finished.
        self._runner: Runner | None = None
        self._line: Line | None = None
        self._handle: TaskHandle[None] | None = None

    @property
    def started(self) -> Event:
        """Set at the task's first step; also set if it ends without one (`state` tells)."""
        with _lock:
            if self._started is None:
                self._started = TaskEvent(self._runner)
                if self.state is not PENDING:  # see `_enter()`
                    self._started.set()
            return self._started

    @property
    def finished(self) -> Event:
        """Set when nothing of the task runs any more, its error handler included."""
        with _lock:
            if self._finished is None:
                self._finished = TaskEvent(self._runner)
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
        with Recorded(self._check_wait(), (self,)):
            yield from self.finished.wait().__await__()
        try:
            if self.state is CANCELLED:
                raise TaskCancelled(f"task {self.name!r} was cancelled")
            if self.exception is None:
                return cast("T", self._result)
            if is_a(self.exception, Exception):
                raise_again(self.exception, self._traceback)
            raise TaskFailed(f"task {self.name!r} failed") from self.exception
        finally:
            del self  # what is raised has this frame in its traceback

    def _check_wait(self) -> list[Waiter]:
        """Return those whose code this is, if it may wait."""
        if self._is_finished:
            return []
        if self._runner is not None and not self._runner._is_here:
            raise FastAPITasksError(
                f"task {self.name!r} runs in another event loop: await it there"
            )
        waiters = waiters_here()
        for waiter in waiters:
            steps = way([self], waiter)
            if len(steps) == 1:
                raise FastAPITasksError(f"task {self.name!r} cannot wait for itself")
            if steps:
                waits = f"starts {self.timing.replace('_', ' ')}, so"
                chain = ", and that after ".join(step._title for step in steps[1:])
                raise FastAPITasksError(
                    f"task {self.name!r} {waits if self.state is PENDING else 'ends'} after "
                    f"{chain}, whose own code would wait for it here: await it in another task"
                )
        return waiters

    async def __call__(self) -> T:
        """Call the function once more, here and now, with the same arguments.

        For an error handler that tries again. It changes nothing of the task; what the function
        returns or raises is passed on.
        """
        threads = self._runner._threads if self._runner is not None else None
        call = Call(
            self.func, self.args, self.kwargs, is_async=self._is_async is True, threads=threads
        )
        del self  # as in `__await__()`
        try:
            result: T = await call.start()
        finally:
            call.clear()
        return result

    # Whom it waits for, and who waits for it: see `_waits`.

    @property
    def _title(self) -> str:
        return f"task {self.name!r}"

    def _needs(self) -> Iterable[Waiter]:
        if self.state is PENDING and self._line is not None:
            return self._line._needed_by(self)
        return self._awaited

    def _is_here(self) -> bool:
        if self._handle is None:
            return False
        if getcoroutinestate(self._handle.coro) == CORO_RUNNING:
            return True
        return thread_slot.get() is not None and is_call_of_thread()

    # The rest is the runner's, on the event loop's thread.

    @property
    def _is_cancelling(self) -> bool:
        """Whether `cancel()` was called while it ran."""
        return self._handle is not None and self._handle.status is TaskHandle.Status.CANCELLING

    def _enter(self, state: TaskState, exception: BaseException | None = None) -> None:
        """Change the state, and set `exception` with it. Nothing else does (G21)."""
        if state not in self.state._leads_to:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        if exception is not None:
            self._traceback = traceback_of(exception)
            self.exception = exception
        # Without the lock: whoever makes the event first stores it and then looks at the state,
        # which is changed here before the look at the event. So one of the two sets it, or both do.
        self.state = state
        if self._started is not None:
            self._started.set()

    def _restore_traceback(self) -> None:
        """Take out of its exception's traceback what was added since it failed."""
        if self.exception is not None:
            BaseException.with_traceback(self.exception, self._traceback)

    def _run_here(self) -> None:
        """Note that it is this task that runs in the current context."""
        running.set(ref(self))

    def _finish(self) -> None:
        self._is_finished = True
        if self._finished is not None:
            self._finished.set()
        if self.exception is not None:
            forget_cancellations(self.exception)
        self._context = self._line = self._handle = None
