"""An attempt of a task whose function gets dependencies: opened before the call, closed after it.

Theory of operation
-------------------

The order is `thread slot(timeout(dependencies(call)))`, and the dependencies are closed outside of
the deadline, whatever has ended the call: a result, an error, the timeout, a cancellation. So a
dependency learns of that end, and a slow commit is no timeout; what commits has succeeded, and what
fails to has failed.

Both cancel scopes, that of the deadline and the one that shields the clean-up, are opened before
the first dependency: a generator may hold a scope or a task group of its own open over its `yield`,
and they have to be closed in the reverse order.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeAlias

from anyio import CancelScope, CapacityLimiter, current_time, get_current_task
from anyio.lowlevel import checkpoint_if_cancelled

from .call import Call, late
from .cleanups import CleanUps
from .exception import add_context, is_a, traceback_of, without_cancellations
from .supervised import SupervisedTask
from .threads import ThreadSlot, call_in_thread

Exit: TypeAlias = Callable[[BaseException | None], Awaitable[None]]
"""Closes a dependency, which gets the error that the call has ended with."""


class Place(Protocol):
    """What a call needs of the lifespan that it runs in."""

    threads: CapacityLimiter
    closing_threads: CapacityLimiter
    clean_ups: CleanUps


class Attempt:
    """One attempt. Like a `Call`, it shows nobody what it holds, and it is emptied at its end.

    Attributes:
        task: whose attempt it is.
        args: what the function gets; its dependencies are added to that.
        kwargs: likewise.
    """

    __slots__ = (
        "_error",
        "_exits",
        "_limit",
        "_loop_task",
        "_place",
        "_result",
        "_scope",
        "_timeout",
        "args",
        "kwargs",
        "task",
    )

    def __init__(
        self,
        task: SupervisedTask[..., Any],
        place: Place,
        *,
        timeout: float | None = None,
        scope: CancelScope | None = None,
    ) -> None:
        """`timeout` is in seconds; `scope` is the one that the drain cancels the task by."""
        self.task: SupervisedTask[..., Any] = task
        self.args: tuple[Any, ...] = task.args
        self.kwargs: Mapping[str, Any] = task.kwargs
        self._place = place
        self._timeout = timeout
        self._scope = scope
        self._result: Any = None
        self._error: BaseException | None = None
        # What is closed first stands last: dependencies of function scope, then the others.
        self._exits: tuple[list[Exit], list[Exit]] = ([], [])
        self._limit: CancelScope  # has the deadline; there in `_run()`, as what follows
        self._loop_task: int  # the id of the event loop's task that runs this

    # For what opens the dependencies.

    def add_exit(self, exit_: Exit, *, first: bool) -> None:
        """Have a dependency closed, before all those that are not to be closed `first`."""
        self._exits[first].append(exit_)

    async def call_in_thread(self, func: Callable[[], Any]) -> Any:
        """Call `func` in one of the runner's threads."""
        left = self._limit.deadline - current_time()
        self._limit.deadline = math.inf  # waiting does not use up the timeout
        async with ThreadSlot(self._place.threads):
            self._limit.deadline = current_time() + left
            return await call_in_thread(func)

    async def close_in_thread(self, func: Callable[[], Any]) -> None:
        """Call `func` in the sync task's own thread, or in one beyond their number.

        Those who have the others may wait for what it gives back: a connection of a pool, say.
        """
        place = self._place
        async with ThreadSlot(place.closing_threads if self.task.is_async else place.threads):
            await call_in_thread(func)

    # For what runs the task.

    async def run(self) -> Any:
        """Open the dependencies, call the function, close them; return its result."""
        task = self.task
        is_async, dependencies = task.is_async is True, task.dependencies
        assert dependencies is not None
        try:
            if is_async and self._timeout is None and dependencies.are_only_awaited:
                await dependencies.open(self)
                return await task.func(*self.args, **self.kwargs)
            async with nullcontext() if is_async else ThreadSlot(self._place.threads):
                return await self._run()
        finally:
            self._clear()
            del task

    def _clear(self) -> None:
        del self.task, self.args, self.kwargs, self._result, self._error, self._exits, self._place

    async def _run(self) -> Any:
        self._loop_task = get_current_task().id
        timeout = math.inf if self._timeout is None else self._timeout
        limit = self._limit = CancelScope(deadline=current_time() + timeout)
        with limit, CancelScope() as clean_up:
            try:
                self._result = await self._open_and_call()
            except BaseException as exc:
                if self._is_being_closed(exc):
                    raise
                self._error = self._judged(exc)
            if not limit.cancel_called:
                limit.deadline = math.inf
            if any(self._exits):
                await self._close(clean_up)
            if self._error is not None:
                raise self._error
            return self._result
        raise late(self.task.name, timeout)  # and the task was cancelled in the same moment

    async def _open_and_call(self) -> Any:
        assert self.task.dependencies is not None
        await self.task.dependencies.open(self)
        if current_time() >= self._limit.deadline:  # a thread may have been late
            self._limit.cancel()
        await checkpoint_if_cancelled()
        is_async = self.task.is_async is True
        call = Call(self.task.func, self.args, self.kwargs, is_async=is_async)
        try:
            return await call.start()
        finally:
            call.clear()

    def _judged(self, exc: BaseException) -> BaseException:
        """What it has failed with: a timeout is one, and no cancellation any more."""
        if (
            self._limit.cancel_called
            and not self.task.is_cancelled_by_us(self._scope)
            and without_cancellations(exc) is None
        ):
            assert self._timeout is not None
            return late(self.task.name, self._timeout)
        return exc

    async def _close(self, scope: CancelScope) -> None:
        """Close what was opened, in the reverse order; each learns of the error, the latest one.

        Where the task was called again after its end, they are cancelled with whoever did that.
        """
        if not self.task.is_finished:
            self._place.clean_ups.begin(scope, self.task)
        try:
            for exits in reversed(self._exits):
                while exits:
                    await self._close_one(exits.pop())
        finally:
            self._place.clean_ups.end(scope)

    async def _close_one(self, exit_: Exit) -> None:
        error = self._error
        traceback = None if error is None else traceback_of(error)
        try:
            await exit_(error)
        except BaseException as exc:
            if self._is_being_closed(exc):
                raise
            if exc is error:
                BaseException.with_traceback(exc, traceback)
            else:
                add_context(exc, error)
            self._error = exc
        finally:
            del error, traceback

    def _is_being_closed(self, exc: BaseException) -> bool:
        """Whether it is the end of the coroutine that runs this, which must not wait any more."""
        if not is_a(exc, GeneratorExit):
            return False
        try:
            return get_current_task().id != self._loop_task
        except RuntimeError:  # none runs this
            return True
