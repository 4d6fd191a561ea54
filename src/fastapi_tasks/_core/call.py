"""One call of a function: async, or in a worker thread with its slot, and within its time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    current_time,
    from_thread,
    get_cancelled_exc_class,
    to_thread,
)

from .function import Handle, is_awaitable, is_unrun

# The slot of the worker thread that runs in this context.
thread_slot: ContextVar[_Slot | None] = ContextVar("thread_slot", default=None)


class Call:
    """A function and its arguments, which this shows to nobody.

    Tracebacks show the local variables of frames to error trackers and log formatters, and keep
    them alive. So the frames of this library hold a call instead of arguments (G13), and whoever
    made it empties it by `clear()` when it has ended (G20).
    """

    __slots__ = (
        "_args",
        "_func",
        "_is_async",
        "_kwargs",
        "_name",
        "_result",
        "_threads",
        "_timeout",
    )

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        is_async: bool,
        threads: CapacityLimiter | None = None,
        timeout: float | None = None,
        name: str = "a call",
    ) -> None:
        """Make a call of an async function, or of any other callable in a thread of `threads`.

        Args:
            timeout: seconds for the call itself, not for the wait for a thread. A running thread
                cannot be cancelled: if its function returns late, that is a result.
        """
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._is_async = is_async
        self._threads = threads
        self._timeout = timeout
        self._name = name
        self._result: Any = None  # of the function itself: it may have to be awaited

    def clear(self) -> None:
        del self._func, self._args, self._kwargs, self._result

    def start(self) -> Awaitable[Any]:
        """Call the function; await the result for its own."""
        if not self._is_async:
            return self._run_in_thread()
        result: Awaitable[Any] = self._func(*self._args, **self._kwargs)
        if self._timeout is None:
            return result  # without a coroutine of ours around it
        return self._until(current_time() + self._timeout, result)

    async def _run_in_thread(self) -> Any:
        deadline = None
        async with nullcontext() if self._threads is None else _Slot(self._threads):
            if self._timeout is None:
                await self._call_in_thread()
            else:
                deadline = current_time() + self._timeout
                await self._until(deadline, self._call_in_thread())
        if self._result is None:  # as most do
            return None
        if not is_awaitable(self._result) or issubclass(type(self._result), Handle):
            if is_unrun(self._result):
                raise TypeError(
                    "the function returned a generator, and nobody would iterate over it: write a "
                    "function without yield that does the iterating"
                )
            return self._result
        if deadline is None:
            return await self._result
        return await self._until(deadline, self._await_result())

    async def _until(self, deadline: float, result: Awaitable[Any]) -> Any:
        with CancelScope(deadline=deadline):  # `fail_after()` writes to exceptions that pass it
            return await result
        raise TimeoutError(f"{self._name!r} took longer than its timeout of {self._timeout:g} s")

    async def _await_result(self) -> Any:
        return await self._result

    async def _call_in_thread(self) -> Any:
        # What the function returns or raises is carried out by hand: Trio refuses a coroutine as
        # what a thread returns, and asyncio throws an exception into the waiting task, where
        # `GeneratorExit` would close every coroutine up to AnyIO's instead of being caught by ours.
        errors: list[BaseException] = []
        thread = _Thread()

        def call() -> None:
            if not thread.begin():
                return
            slot = thread_slot.get()
            if slot is not None:
                slot.thread_id = get_ident()
            try:
                self._result = self._func(*self._args, **self._kwargs)
            except BaseException as exc:
                errors.append(exc)
            if slot is not None:
                slot.thread_id = 0
            thread.end()

        try:
            await to_thread.run_sync(call, limiter=CapacityLimiter(1))  # it has its slot
        except get_cancelled_exc_class():
            if not thread.begin():
                await thread.wait()
            if not errors:
                raise
        if errors:
            raise errors.pop()  # which would hold itself in there, by its traceback


class _Thread:
    """A call in a thread, to be waited for when asyncio's `Task.cancel()` has torn it off."""

    __slots__ = ("_begun", "_has_ended", "_to_be_told")

    def __init__(self) -> None:
        self._begun = [False]  # empty when it has; a list, since that takes one step
        self._has_ended = False
        self._to_be_told: Event | None = None

    def begin(self) -> bool:
        """Claim it, in the thread or for its never beginning there; return whether that worked."""
        try:
            self._begun.pop()
        except IndexError:
            return False
        return True

    def end(self) -> None:
        self._has_ended = True
        if self._to_be_told is not None:
            from_thread.run_sync(self._to_be_told.set)

    async def wait(self) -> None:
        """Wait for the end, whatever else is cancelled."""
        self._to_be_told = Event()
        while not self._has_ended:
            with suppress(get_cancelled_exc_class()), CancelScope(shield=True):
                await self._to_be_told.wait()


class _Slot:
    """One of the threads, for the time of a call.

    A thread may wait for other calls, as a sync error handler does that calls its task again. Those
    share its slot, one at a time: if each took one more, and all were taken, nobody would go on.

    Taken here, not by `run_sync()`, which on asyncio lets others pass before it queues; and not for
    the event loop's task, since on Trio a thread's `from_thread.run()` runs in the one that took
    the first.
    """

    __slots__ = ("_is_taken", "_limiter", "_loans", "_outer", "_threads", "thread_id")

    def __init__(self, threads: CapacityLimiter) -> None:
        self._threads = threads
        self._is_taken: bool = False
        self.thread_id = 0  # the identifier of the one that its call runs in now
        self._loans: CapacityLimiter | None = None
        lender = self._outer = thread_slot.get()
        if lender is not None and lender._is_taken and lender._threads is threads:
            self._limiter = lender._loans = lender._loans or CapacityLimiter(1)
        else:
            self._limiter = threads

    async def __aenter__(self) -> None:
        try:
            await self._limiter.acquire_on_behalf_of(self)
            self._is_taken = True
            thread_slot.set(self)
        except BaseException:  # a cancellation; or, with the token, what a signal's handler raises
            if self in self._limiter.statistics().borrowers:
                self._limiter.release_on_behalf_of(self)
            raise

    async def __aexit__(self, *_: object) -> None:
        try:
            self._is_taken = False
            thread_slot.set(self._outer)  # not `reset()`: a retry caller may change the context
        finally:
            self._limiter.release_on_behalf_of(self)
