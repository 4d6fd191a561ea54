"""What can be a task: its name, its kind, and how it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread


def function_name(func: Callable[..., Any]) -> str:
    """The qualified name: of a partial the wrapped function's, of an object its class's."""
    func = _unwrap(func)
    name = getattr(func, "__qualname__", None)
    return name if isinstance(name, str) else type(func).__qualname__


def is_async(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an async function, method or callable object."""
    return _is(inspect.iscoroutinefunction, func)


def check_callable(func: object) -> None:
    """Raise a TypeError that says what to write instead, if it cannot be a task (G10)."""
    if inspect.isawaitable(func):
        if inspect.iscoroutine(func):
            func.close()  # it will not be awaited, and its author hears of that here
        raise TypeError(
            f"schedule() takes a function and its arguments, not the {type(func).__qualname__} "
            "that calling it returns: write schedule(func, arg), not schedule(func(arg))"
        )
    if not callable(func):
        raise TypeError(
            f"schedule() takes a function and its arguments, not {type(func).__qualname__}: "
            "write schedule(func, arg)"
        )
    if _is(inspect.isgeneratorfunction, func) or _is(inspect.isasyncgenfunction, func):
        raise TypeError(
            f"schedule() cannot run the generator function {function_name(func)!r}: nobody would "
            "iterate over it; write a function without yield that does the iterating"
        )


async def call(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    threads: CapacityLimiter | None = None,
) -> Any:
    """Await an async function; run any other callable in a worker thread, of `threads` if given."""
    if is_async(func):
        return await func(*args, **kwargs)

    # What the function returns or raises is carried out in a box: Trio refuses a coroutine as what
    # a thread returns, and asyncio throws an exception into the waiting task, where `GeneratorExit`
    # would close every coroutine up to AnyIO's instead of being caught by ours.
    box: list[Any] = []
    error: list[BaseException] = []

    def call_in_thread() -> None:
        try:
            box.append(func(*args, **kwargs))
        except BaseException as exc:
            error.append(exc)

    await to_thread.run_sync(call_in_thread, limiter=threads)
    for exc in error:
        raise exc
    result: Any = box.pop()
    return await result if inspect.iscoroutine(result) else result


def _is(predicate: Callable[[Any], bool], func: Callable[..., Any]) -> bool:
    func = _unwrap(func)
    return predicate(func) or predicate(type(func).__call__)


def _unwrap(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, functools.partial):
        func = func.func
    return func
