"""One call of a function: async, or in a worker thread with its slot, and within its time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

from anyio import CancelScope, CapacityLimiter, current_time

from .function import Handle, is_awaitable, is_unrun
from .threads import ThreadSlot, call_in_thread


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
        async with nullcontext() if self._threads is None else ThreadSlot(self._threads):
            if self._timeout is None:
                self._result = await call_in_thread(self._call)
            else:
                deadline = current_time() + self._timeout
                self._result = await self._until(deadline, call_in_thread(self._call))
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

    def _call(self) -> Any:
        return self._func(*self._args, **self._kwargs)

    async def _until(self, deadline: float, result: Awaitable[Any]) -> Any:
        with CancelScope(deadline=deadline):  # `fail_after()` writes to exceptions that pass it
            return await result
        assert self._timeout is not None
        raise late(self._name, self._timeout)

    async def _await_result(self) -> Any:
        return await self._result


def late(name: str, timeout: float) -> TimeoutError:
    """The failure of a call that took longer than its time."""
    return TimeoutError(f"{name!r} took longer than its timeout of {timeout:g} s")
