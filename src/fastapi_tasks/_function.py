"""What can be a task: its name, its kind, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import FunctionType
from typing import Any

from anyio import CapacityLimiter, current_time, fail_after, to_thread

# The slot of the worker thread that runs in this context.
thread_slot: ContextVar[_Slot | None] = ContextVar("thread_slot", default=None)

_COROUTINE = inspect.CO_COROUTINE
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def function_name(func: Callable[..., Any]) -> str:
    """The qualified name: of a partial the wrapped function's, of an object its class's."""
    if type(func) is FunctionType:
        return func.__qualname__
    func = _unwrap(func)
    try:
        name = getattr(func, "__qualname__", None)
    except Exception:  # a proxy of something that is not there, say
        name = None
    return name if isinstance(name, str) else type(func).__qualname__


def is_generator(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator of either kind, and so runs nothing."""
    return _is(inspect.isgeneratorfunction, func) or _is(inspect.isasyncgenfunction, func)


def check_callable(func: object) -> None:
    """Raise a TypeError that says what to write instead, if it cannot be a task (G10)."""
    if type(func) is FunctionType and not func.__code__.co_flags & _GENERATOR:
        return  # most are; to ask `inspect` would take as long as a tenth of the whole task
    if not callable(func):
        if inspect.iscoroutine(func):
            func.close()  # it will not be awaited, and its author hears of that here
        kind = type(func).__qualname__
        if inspect.isawaitable(func):
            raise TypeError(
                f"schedule() takes a function and its arguments, not the {kind} that calling it "
                "returns: write schedule(func, arg), not schedule(func(arg))"
            )
        raise TypeError(
            f"schedule() takes a function and its arguments, not {kind}: write schedule(func, arg)"
        )
    if is_generator(func):
        raise TypeError(
            f"schedule() cannot run the generator function {function_name(func)!r}: nobody would "
            "iterate over it; write a function without yield that does the iterating"
        )


def call(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    threads: CapacityLimiter | None = None,
    timeout: float | None = None,
) -> Awaitable[Any]:
    """Call an async function; run any other callable in a worker thread, of `threads` if given.

    Args:
        timeout: seconds for the call itself, not for the wait for a thread. A running thread cannot
            be cancelled: if its function returns late, that is a result.
    """
    if (  # most are plain functions; `inspect` takes longer to find out
        type(func) is FunctionType and func.__code__.co_flags & _COROUTINE
    ) or _is(inspect.iscoroutinefunction, func):
        if timeout is None:
            result: Awaitable[Any] = func(*args, **kwargs)  # without a coroutine of ours around it
            return result
        return _run_in_time(partial(func, *args, **kwargs), timeout)
    return _run_in_thread(partial(func, *args, **kwargs), threads, timeout)


async def _run_in_time(func: Callable[[], Awaitable[Any]], timeout: float) -> Any:  # noqa: ASYNC109
    with fail_after(timeout):
        return await func()


async def _run_in_thread(
    func: Callable[[], Any],
    threads: CapacityLimiter | None,
    timeout: float | None,  # noqa: ASYNC109
) -> Any:
    async with nullcontext() if threads is None else _Slot(threads):
        deadline = None if timeout is None else current_time() + timeout
        with _fail_at(deadline):
            result = await _call_in_thread(func)
    if inspect.iscoroutine(result):
        with _fail_at(deadline):
            return await result
    return result


def _fail_at(deadline: float | None) -> AbstractContextManager[object]:
    return nullcontext() if deadline is None else fail_after(deadline - current_time())


class _Slot:
    """One of the threads, for the time of a call.

    A thread may wait for other calls, as a sync error handler does that calls its task again. Those
    have its slot, one at a time: if each thread took a second one, all would wait for the others'.

    Taken here, not by `run_sync()`, which on asyncio lets others pass before it queues; and not for
    the event loop's task, since on Trio a thread's `from_thread.run()` runs in the one that took
    the first.
    """

    __slots__ = ("_is_taken", "_limiter", "_loans", "_threads", "_token")

    def __init__(self, threads: CapacityLimiter) -> None:
        self._threads = threads
        self._is_taken: bool = False
        self._loans: CapacityLimiter | None = None
        lender = thread_slot.get()
        if lender is not None and lender._is_taken and lender._threads is threads:
            self._limiter = lender._loans = lender._loans or CapacityLimiter(1)
        else:
            self._limiter = threads

    async def __aenter__(self) -> None:
        await self._limiter.acquire_on_behalf_of(self)
        self._is_taken = True
        self._token = thread_slot.set(self)

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False
        self._limiter.release_on_behalf_of(self)
        thread_slot.reset(self._token)


async def _call_in_thread(func: Callable[[], Any]) -> Any:
    # What the function returns or raises is carried out in a box: Trio refuses a coroutine as what
    # a thread returns, and asyncio throws an exception into the waiting task, where `GeneratorExit`
    # would close every coroutine up to AnyIO's instead of being caught by ours.
    results: list[Any] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(func())
        except BaseException as exc:
            errors.append(exc)

    await to_thread.run_sync(call, limiter=CapacityLimiter(1))
    for error in errors:
        raise error
    return results[0]


def _is(predicate: Callable[[Any], bool], func: Callable[..., Any]) -> bool:
    func = _unwrap(func)
    return predicate(func) or predicate(type(func).__call__)


def _unwrap(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, partial):
        func = func.func
    return func
