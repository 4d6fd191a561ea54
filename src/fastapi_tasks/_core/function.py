"""What can be a task: its name, and how it is to be called.

Users also hand over proxies and mocks, which raise when they are asked, or say that they are
something else. All that is asked of them is asked here, once, at the `schedule()` call; and it is
their types that answer, wherever that is enough.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any, cast

_COROUTINE = inspect.CO_COROUTINE
_ITERABLE_COROUTINE = inspect.CO_ITERABLE_COROUTINE
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

_QUALNAME: Any = vars(type)["__qualname__"]
_MRO: Any = vars(type)["__mro__"]
_DICT: Any = vars(type)["__dict__"]
WRAPPERS = (staticmethod, type(lru_cache(len)))  # whose call is that of what they wrap


class Uncallable:
    """What only looks callable, since it says what to write instead."""

    __slots__ = ()


class Handle:
    """An awaitable that a task's function may return without its being awaited: a task."""

    __slots__ = ()


def exact(text: str) -> str:
    """The text without what a subclass of `str` may add."""
    return text if type(text) is str else str.__str__(text)


def type_name(value: object) -> str:
    """The qualified name of its type, for messages: it never shows the value."""
    return exact(_QUALNAME.__get__(type(value)))


def function_name(func: Callable[..., Any]) -> str:
    """The qualified name: of a partial the wrapped function's, of an object its class's."""
    if type(func) is FunctionType:
        return exact(func.__qualname__)
    with suppress(Exception):  # a proxy of something that is not there, say
        func = unwrap(func)
        name: Any = getattr(func, "__qualname__", None)
        if issubclass(type(name), str):
            return exact(name)
    return type_name(func)


def is_async(func: object) -> bool | None:
    """Whether calling it gives a coroutine: if not, it is for a worker thread.

    `None` if it cannot be a task at all (G10); `why_not()` says why.
    """
    if type(func) is FunctionType:  # most are; `inspect` takes longer to find out
        flags = func.__code__.co_flags
        if flags & (_COROUTINE | _ITERABLE_COROUTINE):
            return True
        if flags & _GENERATOR:
            return None
        if not func.__dict__:  # nor is there a mark on it
            return False
    elif not callable(func) or issubclass(type(func), Uncallable):
        return None
    return _is(_is_coroutine_function, func) or (None if is_generator(func) else False)


def _is_coroutine_function(func: Any) -> bool:
    if inspect.iscoroutinefunction(func):
        return True
    function = getattr(func, "__func__", func)
    return type(function) is FunctionType and bool(
        function.__code__.co_flags & _ITERABLE_COROUTINE  # by `types.coroutine`
    )


def is_generator(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator of either kind, and so runs nothing."""
    return _is(inspect.isgeneratorfunction, func) or _is(inspect.isasyncgenfunction, func)


def why_not(func: Any) -> str:
    """Say what to write instead of something that cannot be a task."""
    kind = type_name(func)
    if callable(func) and not issubclass(type(func), Uncallable):
        return (
            f"schedule() cannot run the generator function {function_name(func)!r}: nobody would "
            "iterate over it; write a function without yield that does the iterating"
        )
    _close(func)
    if is_awaitable(func):
        return (
            f"schedule() takes a function and its arguments, not the {kind} that calling it "
            "returns: write schedule(func, arg), not schedule(func(arg))"
        )
    return f"schedule() takes a function and its arguments, not {kind}: write schedule(func, arg)"


def _close(value: Any) -> None:
    """Close a coroutine that will not be awaited; its author hears of it here."""
    is_coroutine = type(value) is CoroutineType
    coro: Any = value
    if is_coroutine and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        coro.close()


def is_awaitable(value: object) -> bool:
    """As `await` finds it: by the classes, of which a metaclass may say something else."""
    if type(value) is GeneratorType:
        return bool(value.gi_code.co_flags & _ITERABLE_COROUTINE)
    for kind in _MRO.__get__(type(value)):
        if "__await__" in (members := _DICT.__get__(kind)):
            return members["__await__"] is not None
    return False


def is_unrun(value: object) -> bool:
    """Whether what a function returned is a generator, of which nothing has run."""
    return type(value) in (GeneratorType, AsyncGeneratorType)


def _is(predicate: Callable[[Any], bool], func: Callable[..., Any]) -> bool:
    """Whether that holds for the function, or for its class's `__call__`.

    What claims another class than it has (a mock with a spec, a proxy) is not asked: it will be
    called, and what it returns tells.
    """
    try:
        func = unwrap(func)
        called = func, type(func).__call__
        return any(each.__class__ is type(each) and predicate(each) for each in called)
    except Exception:
        return False


def unwrap(func: Any) -> Callable[..., Any]:
    """The function that is called in the end. Other decorators run code of their own."""
    if issubclass(type(func), partial):
        return unwrap(func.func)
    if issubclass(type(func), WRAPPERS):
        return unwrap(func.__wrapped__)
    return cast("Callable[..., Any]", func)


def code_of(func: object) -> CodeType | None:
    """The code of a function, a method, an object that is called, or a partial of those."""
    try:
        func = unwrap(func)
        if not isinstance(func, (FunctionType, MethodType)):
            func = type(func).__call__
        code = getattr(func, "__code__", None)
    except Exception:
        return None
    return code if isinstance(code, CodeType) else None
