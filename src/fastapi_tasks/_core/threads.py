"""Calls in worker threads, and the slots that bound how many there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    from_thread,
    get_cancelled_exc_class,
    to_thread,
)

# The slot of the worker thread that runs in this context.
thread_slot: ContextVar[ThreadSlot | None] = ContextVar("thread_slot", default=None)


async def call_in_thread(func: Callable[[], Any]) -> Any:
    """Call a function in a worker thread; return what it returns, awaitable or not.

    It is waited for, whatever is cancelled. It takes no slot: see `ThreadSlot`.
    """
    thread = _Thread(func)
    try:
        try:
            await to_thread.run_sync(thread.run, limiter=CapacityLimiter(1))  # it has its slot
        except get_cancelled_exc_class():
            if not thread.begin():
                await thread.wait()
            if thread.error is None:
                raise
        return thread.outcome()
    finally:
        del func, thread  # what is raised has this frame in its traceback


class _Thread:
    """A call in a thread, to be waited for when asyncio's `Task.cancel()` has torn it off.

    What the function returns or raises is carried out by hand: Trio refuses a coroutine as what a
    thread returns, and asyncio throws an exception into the waiting task, where `GeneratorExit`
    would close every coroutine up to AnyIO's instead of being caught by ours.
    """

    __slots__ = ("_begun", "_func", "_has_ended", "_result", "_to_be_told", "error")

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func
        self._result: Any = None
        self.error: BaseException | None = None
        self._begun = [False]  # empty when it has; a list, since that takes one step
        self._has_ended = False
        self._to_be_told: Event | None = None

    def run(self) -> None:
        if not self.begin():
            return
        slot = thread_slot.get()
        if slot is not None:
            slot.thread_id = get_ident()
        try:
            self._result = self._func()
        except BaseException as exc:
            self.error = exc
        if slot is not None:
            slot.thread_id = 0
        self._has_ended = True
        if self._to_be_told is not None:
            from_thread.run_sync(self._to_be_told.set)

    def begin(self) -> bool:
        """Claim it, in the thread or for its never beginning there; return whether that worked."""
        try:
            self._begun.pop()
        except IndexError:
            return False
        return True

    async def wait(self) -> None:
        """Wait for the end, whatever else is cancelled."""
        self._to_be_told = Event()
        while not self._has_ended:
            with suppress(get_cancelled_exc_class()), CancelScope(shield=True):
                await self._to_be_told.wait()

    def outcome(self) -> Any:
        """Return its result, or raise its error and keep it no longer."""
        error, self.error = self.error, None  # which would hold itself in here, by its traceback
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error, self


class ThreadSlot:
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
