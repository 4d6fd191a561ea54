"""A task, as users hold it. Each one is a `SupervisedTask`, as which the core alone knows it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from threading import RLock
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast

from anyio import Event, TaskCancelled, TaskFailed

from .config import TaskConfig
from .event import TaskEvent
from .exception import is_a, raise_again
from .function import Handle
from .owner import Owner
from .state import CANCELLED, PENDING, TaskState

P = ParamSpec("P")
T = TypeVar("T")

Timing: TypeAlias = Literal["now", "after_route", "after_response"]

# Held while a task's event is made, which any thread may ask for first. It is held for so short a
# time that one lock serves all tasks.
_lock = RLock()


class Task(Handle, Generic[P, T]):
    """One call of one function, handed over with `schedule()`, which returns it.

    Attributes:
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        config: its options, merged from the app's, the scheduler's and the call's.
        name: the configured one, or the function's qualified name. It never shows arguments.
        timing: `"now"`, `"after_route"` or `"after_response"`.
    """

    __slots__ = (
        "__weakref__",
        "_attempts",
        "_exception",
        "_finished",
        "_is_finished",
        "_owner",
        "_result",
        "_started",
        "_state",
        "_traceback",
        "args",
        "config",
        "func",
        "kwargs",
        "name",
        "timing",
    )

    func: Callable[P, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    config: TaskConfig
    name: str
    timing: Timing
    # Set by `SupervisedTask` alone.
    _attempts: int
    _exception: BaseException | None
    _finished: TaskEvent | None
    _is_finished: bool
    _owner: Owner
    _result: Any
    _started: TaskEvent | None
    _state: TaskState
    _traceback: TracebackType | None

    @property
    def state(self) -> TaskState:
        """Where it stands; final before `on_error` runs."""
        return self._state

    @property
    def exception(self) -> BaseException | None:
        """Why it failed; `None` unless `state` is `FAILED`. Final with `state`."""
        return self._exception

    @property
    def attempts(self) -> int:
        """How many attempts were begun; more than one with `retry`.

        An attempt whose time was up before its thread began counts, too.
        """
        return self._attempts

    @property
    def started(self) -> Event:
        """Set at the task's first step; also set if it ends without one (`state` tells)."""
        with _lock:
            if self._started is None:
                self._started = TaskEvent(self._owner)
                if self._state is not PENDING:  # see `SupervisedTask.enter()`
                    self._started.set()
            return self._started

    @property
    def finished(self) -> Event:
        """Set when nothing of the task runs any more, its error handler included."""
        with _lock:
            if self._finished is None:
                self._finished = TaskEvent(self._owner)
                if self._is_finished:
                    self._finished.set()
            return self._finished

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {self._state.value}>"

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the task, also a shielded one; from any thread.

        One that has not started will not run a line. One that runs gets the cancellation at its
        next checkpoint, in its wait for a limiter, a retry or a thread, or in its error handler; a
        function that runs in a thread sees it by `anyio.from_thread.check_cancelled()`. On a
        finished task it does nothing.
        """

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait until the task has finished; return its result. Cancelling this leaves it running.

        Raises:
            Exception: the task's own, if it failed.
            anyio.TaskCancelled: it was cancelled, or dropped before it started.
            anyio.TaskFailed: it failed with something that is no `Exception`, its cause.
            FastAPITasksError: this would wait for ever: a task for itself, or an endpoint for one
                that starts when the endpoint has returned.
        """
        yield from self._wait()
        try:
            if self._state is CANCELLED:
                raise TaskCancelled(f"task {self.name!r} was cancelled")
            if self._exception is None:
                return cast("T", self._result)
            if is_a(self._exception, Exception):
                raise_again(self._exception, self._traceback)
            raise TaskFailed(f"task {self.name!r} failed") from self._exception
        finally:
            del self  # what is raised has this frame in its traceback

    @abstractmethod
    def _wait(self) -> Generator[Any, Any, None]:
        """Wait until it has finished, or refuse to."""

    @abstractmethod
    async def __call__(self) -> T:
        """Call the function once more, here and now, with the same arguments.

        For an error handler that tries again. It changes nothing of the task; what the function
        returns or raises is passed on. Its dependencies are resolved anew, and closed again.
        """
