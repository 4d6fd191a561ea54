"""A task, as the core knows it: on its way from the `schedule()` call to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextvars import Context
from inspect import CORO_RUNNING, getcoroutinestate
from types import FrameType
from typing import Any, ParamSpec, TypeVar, cast
from weakref import ref

from anyio import CancelScope, TaskHandle

from ..errors import FastAPITasksError
from .config import TaskConfig
from .exception import forget_cancellations, traceback_of
from .function import function_name, is_async
from .owner import Dependencies, Owner, Route
from .state import PENDING, SUCCEEDED, TaskState
from .task import Task, Timing
from .threads import thread_slot
from .waits import (
    RecordedWait,
    Waiter,
    path,
    running_task,
    waiters_here,
    waiters_in_this_thread,
)

P = ParamSpec("P")
T = TypeVar("T")


def current_task() -> Task[..., Any]:
    """The running task, from anywhere in it: its threads, its dependencies, its error handler too.

    Raises:
        FastAPITasksError: no task runs this.
    """
    reference = running_task.get()
    task = None if reference is None else cast("SupervisedTask[..., Any] | None", reference())
    if task is None or task.is_finished:
        raise FastAPITasksError(
            "no task runs this: call current_task() in a function that was handed to schedule(), "
            "or in what that one calls"
        )
    return task


class SupervisedTask(Task[P, T]):
    """A task, with what its supervisor needs.

    Its way, and who notes it: the registry has it (`admit()`), `handle` is set when it is spawned,
    `has_begun` at its first step, `state` becomes final when its function has ended, `has_ended` is
    set when its error handler has, too, and `is_finished` when that may be told, which is not
    before `schedule_is_over`.

    Attributes:
        route: the run of a route that it belongs to, if it belongs to one; until it has finished.
        is_async: whether it runs on the event loop, not in a thread; `None`: it cannot be called.
        context: the `schedule()` call's, while the task has to wait for its start.
        handle: its task of the event loop, once it is spawned.
        has_begun: its first step is taken, of one that was not cancelled before.
        has_ended: nothing of it runs any more, or will: it is about to be finished.
        schedule_is_over: the `schedule()` call has done all that it does, or has failed.
        awaited: what its own code waits for.
        dependencies: what its function gets beside its arguments, if that is anything.
    """

    __slots__ = (
        "awaited",
        "context",
        "dependencies",
        "handle",
        "has_begun",
        "has_ended",
        "is_async",
        "route",
        "schedule_is_over",
    )

    def __init__(
        self,
        func: Callable[P, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        config: TaskConfig,
        timing: Timing,
        owner: Owner,
        route: Route | None,
    ) -> None:
        self.func: Callable[P, Any] = func
        self.args: tuple[Any, ...] = args
        self.kwargs = kwargs
        self.config = config
        self.name: str = config.name or function_name(func)
        self.timing: Timing = timing
        self._attempts = 0
        self._state = PENDING
        self._exception = None
        self._traceback = None  # of the exception, as it was when the task failed
        self._result = None
        # Events are made when somebody asks for them: most tasks are never waited for.
        self._started = None
        self._finished = None
        self._is_finished = False
        self._ended_in_threads = None
        self._id = None
        self._progress = None
        self._owner = owner
        self.route = route
        self.is_async: bool | None = is_async(func)
        self.context: Context | None = None
        self.handle: TaskHandle[None] | None = None
        self.has_begun: bool = False
        self.has_ended: bool = False
        self.schedule_is_over: bool = False
        self.awaited: Iterable[Waiter] = ()
        self.dependencies: Dependencies | None = None

    def cancel(self) -> None:
        if not self._is_finished:
            self._owner.cancel(self)

    @property
    def cancelling(self) -> bool:
        handle = self.handle  # which it has from its spawning to its end
        if handle is None:
            return False
        return handle.status is TaskHandle.Status.CANCELLING or self._owner.has_cancelled(self)

    async def __call__(self) -> T:
        call = self._owner.call_again(self)
        del self  # as in `__await__()`
        result: T = await call
        return result

    # What the supervisor does to it.

    def enter(self, state: TaskState, exception: BaseException | None = None) -> None:
        """Change the state, and set the exception with it. Nothing else does (G21)."""
        if not self._state.leads_to(state):
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        if exception is not None:
            self._traceback = traceback_of(exception)
            self._exception = exception
        # Without the lock: whoever makes the event first stores it and then looks at the state,
        # which is changed here before the look at the event. So one of the two sets it, or both do.
        self._state = state
        if self._started is not None:
            self._started.set()

    def run_here(self) -> None:
        """Note that it is this task that runs in the current context."""
        running_task.set(ref(self))

    def begin_attempt(self) -> None:
        self._attempts += 1

    def succeed(self, result: Any) -> None:
        self._result = result
        self.enter(SUCCEEDED)

    def restore_traceback(self) -> None:
        """Take out of its exception's traceback what was added since it failed."""
        assert self._exception is not None
        BaseException.with_traceback(self._exception, self._traceback)

    def finish(self) -> None:
        """Let those go on who wait for its end, and keep nothing that it needs no more (G20)."""
        if self._progress is not None:
            self._progress.flush()
        self._is_finished = True
        if self._finished is not None:
            self._finished.set()
        if self._ended_in_threads is not None:
            self._ended_in_threads.set()
        if self._exception is not None:
            forget_cancellations(self._exception)
        self.context = self.route = self.handle = None

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    def is_cancelled_by_us(self, scope: CancelScope | None) -> bool:
        """Whether `cancel()` was called while it ran, or the drain has cancelled that scope."""
        if scope is not None and scope.cancel_called:
            return True
        return self.handle is not None and self.handle.status is TaskHandle.Status.CANCELLING

    # Whom it waits for, and who waits for it: see `waits`.

    @property
    def title(self) -> str:
        return f"task {self.name!r}"

    def needs(self) -> Iterable[Waiter]:
        if self._state is PENDING and self.route is not None:
            return self.route.needs_of(self)
        return self.awaited

    def runs_in_this_task(self) -> bool:
        return self.handle is not None and getcoroutinestate(self.handle.coro) == CORO_RUNNING

    def runs_in_thread(self, thread: int, stack: Sequence[FrameType]) -> bool:  # noqa: ARG002
        slot = thread_slot.get()
        if self.handle is None or slot is None:
            return False
        return slot.thread_id != 0 and slot.thread_id == thread

    def _wait(self) -> Generator[Any, Any, None]:
        with RecordedWait(self._check_wait(), (self,)):
            yield from self.finished.wait().__await__()

    def wait_from_thread(self, timeout: float | None = None) -> None:
        if self._is_finished:
            return
        if self._owner.is_on_loop_thread:
            raise FastAPITasksError(
                f"this would block the event loop, on which task {self.name!r} runs: await "
                "task.wait()"
            )
        waiters = waiters_in_this_thread()
        self._check_waiters(waiters)
        with RecordedWait(waiters, (self,)):
            if not self._end_for_threads().wait(timeout):
                raise TimeoutError(f"task {self.name!r} has not finished within {timeout:g} s")

    def _check_wait(self) -> list[Waiter]:
        """Return those whose code this is, if it may wait."""
        if self._is_finished:
            return []
        if not self._owner.is_on_loop_thread:
            raise FastAPITasksError(
                f"task {self.name!r} runs in another event loop: await it there"
            )
        waiters = waiters_here()
        self._check_waiters(waiters)
        return waiters

    def _check_waiters(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            steps = path([self], waiter)
            if len(steps) == 1:
                raise FastAPITasksError(f"task {self.name!r} cannot wait for itself")
            if steps:
                waits = f"starts {self.timing.replace('_', ' ')}, so"
                chain = ", and that after ".join(step.title for step in steps[1:])
                raise FastAPITasksError(
                    f"task {self.name!r} {waits if self._state is PENDING else 'ends'} after "
                    f"{chain}, whose own code would wait for it here: await it in another task"
                )

    def _tell_progress(self) -> None:
        if not self._is_finished:
            self._owner.tell_progress(self)
