"""What raises when somebody asks what it is: callables to hand over, and exceptions to fail with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

from .program import Guise

stood_for: ContextVar[Callable[..., Any]] = ContextVar("stood_for")


def _raise(*_: object) -> NoReturn:
    raise RuntimeError("do not ask")


class HostileName(str):
    __slots__ = ()
    __str__ = __repr__ = __format__ = __eq__ = __hash__ = __bool__ = __len__ = __add__ = _raise


class Named:
    """A callable with such a name."""

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        self.func = func
        self.__qualname__ = HostileName(name)

    def __call__(self, *args: Any) -> Any:
        return self.func(*args)


class AsyncNamed(Named):
    async def __call__(self, *args: Any) -> Any:
        return await self.func(*args)


class Nameless(Named):
    """A callable whose name raises."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class AsyncNameless(Nameless, AsyncNamed):
    pass


class Proxy:
    """Stands for another function, which it can find only in the context it was handed over in."""

    __class__ = property(lambda self: type(stood_for.get()))  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(stood_for.get(), name)

    def __call__(self, *args: Any) -> Any:
        return stood_for.get()(*args)


@contextmanager
def disguised(
    func: Callable[..., Any], guise: Guise, name: str, *, is_sync: bool
) -> Iterator[Callable[..., Any]]:
    """What to hand over for a function in this block; the library should find that name."""
    if guise == "proxy":

        def function(*args: Any) -> Any:
            return func(*args)

        function.__qualname__ = name
        token = stood_for.set(function)
        try:
            yield Proxy()
        finally:
            stood_for.reset(token)
    elif guise == "named":
        yield (Named if is_sync else AsyncNamed)(func, name)
    else:
        kind = Nameless if is_sync else AsyncNameless
        yield type(name, (kind,), {})(func, "")


class HostileError(Exception):
    __class__ = __traceback__ = property(_raise)  # type: ignore[assignment]
    __bool__ = __eq__ = __hash__ = __str__ = __repr__ = _raise  # type: ignore[assignment]


class HostileExit(BaseException):
    __class__ = __traceback__ = property(_raise)  # type: ignore[assignment]
    __bool__ = __eq__ = __hash__ = _raise  # type: ignore[assignment]


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int
