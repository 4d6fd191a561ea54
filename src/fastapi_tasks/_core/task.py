"""A task, as users hold it. Each one is a `SupervisedTask`, as which the core alone knows it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from threading import Event as ThreadEvent
from threading import RLock
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast

from anyio import Event, TaskCancelled, TaskFailed, TaskNotFinished

from .config import TaskConfig
from .event import TaskEvent
from .exception import is_a, raise_again
from .function import Handle
from .owner import Owner
from .progress import Progress
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
        "_ended_in_threads",
        "_exception",
        "_finished",
        "_id",
        "_is_finished",
        "_owner",
        "_progress",
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
    _ended_in_threads: ThreadEvent | None
    _finished: TaskEvent | None
    _id: str | None
    _is_finished: bool
    _owner: Owner
    _progress: Progress | None
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
    def id(self) -> str:
        """A string that nobody can guess; made when it is first asked for.

        `runner.get_task(id)` gives the task as long as it is unfinished. Another process has other
        ids.
        """
        with _lock:
            if self._id is None:
                self._id = self._owner.identify(self)
            return self._id

    @property
    def has_id(self) -> bool:
        """Whether somebody has asked for its `id`."""
        return self._id is not None

    @property
    def progress(self) -> Progress:
        """How far it is, as it says itself."""
        with _lock:
            if self._progress is None:
                self._progress = Progress(self._tell_progress)
            return self._progress

    @property
    def return_value(self) -> T:
        """What its function has returned.

        Raises:
            anyio.TaskNotFinished: it has not finished.
            Exception: what `await task` would raise.
        """
        try:
            if not self._is_finished:
                raise TaskNotFinished(f"task {self.name!r} has not finished: await it, or wait()")
            return self._outcome()
        finally:
            del self  # what is raised has this frame in its traceback

    def _end_for_threads(self) -> ThreadEvent:
        """What is set when it has finished, for threads to wait for."""
        with _lock:
            if self._ended_in_threads is None:
                self._ended_in_threads = ThreadEvent()
                if self._is_finished:  # see `SupervisedTask.finish()`
                    self._ended_in_threads.set()
            return self._ended_in_threads

    @property
    @abstractmethod
    def cancelling(self) -> bool:
        """Whether it was cancelled, by `cancel()` or the drain, and still runs."""

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
        try:
            yield from self._wait()
            return self._outcome()
        finally:
            del self  # what is raised has this frame in its traceback

    def _outcome(self) -> T:
        """Return its result, or raise what `await task` raises; it has finished."""
        try:
            if self._state is CANCELLED:
                raise TaskCancelled(f"task {self.name!r} was cancelled")
            if self._exception is None:
                return cast("T", self._result)
            if is_a(self._exception, Exception):
                raise_again(self._exception, self._traceback)
            raise TaskFailed(f"task {self.name!r} failed") from self._exception
        finally:
            del self

    async def wait(self) -> None:
        """Wait until the task has finished, whatever its outcome.

        Cancelling this leaves it running.

        Raises:
            FastAPITasksError: this would wait for ever, as `await task` would.
        """
        await _Wait(self._wait)

    @abstractmethod
    def wait_from_thread(self, timeout: float | None = None) -> None:
        """Block this thread until the task has finished, whatever its outcome.

        For `def` endpoints and other code in threads; `return_value` is the result then.

        Args:
            timeout: seconds; `None` for no limit.

        Raises:
            TimeoutError: it has not finished within that time; it goes on.
            FastAPITasksError: this is the event loop's thread, or the task waits for this one.
        """

    @abstractmethod
    def _wait(self) -> Generator[Any, Any, None]:
        """Wait until it has finished, or refuse to."""

    @abstractmethod
    def _tell_progress(self) -> None:
        """Have instruments know of its progress."""

    @abstractmethod
    async def __call__(self) -> T:
        """Call the function once more, here and now, with the same arguments.

        For an error handler that tries again. It changes nothing of the task; what the function
        returns or raises is passed on. Its dependencies are resolved anew, and closed again.
        """


class _Wait:
    """Awaitable, by a generator."""

    def __init__(self, wait: Callable[[], Generator[Any, Any, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait()
