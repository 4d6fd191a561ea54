"""What an exception is, whatever it says of itself.

Tasks may raise exceptions whose attributes raise when somebody looks, and ones that cannot be
changed (a frozen dataclass). So nothing here asks an instance: its type and the slots that it has
as a `BaseException` say the same.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn, cast

from anyio import get_cancelled_exc_class

_TRACEBACK: Any = vars(BaseException)["__traceback__"]
_CONTEXT: Any = vars(BaseException)["__context__"]
_CAUSE: Any = vars(BaseException)["__cause__"]
_EXCEPTIONS: Any = vars(BaseExceptionGroup)["exceptions"]


def is_a(exc: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether it is of that kind; `isinstance()` also asks `__class__`, which may raise."""
    return issubclass(type(exc), kind)


def traceback_of(exc: BaseException) -> TracebackType | None:
    traceback: TracebackType | None = _TRACEBACK.__get__(exc)
    return traceback


def cause_of(exc: BaseException) -> BaseException | None:
    cause: BaseException | None = _CAUSE.__get__(exc)
    return cause


def parts_of(exc: BaseException) -> list[BaseException]:
    """The exception itself, and all that are in it if it is a group."""
    parts = [exc]
    for part in parts:  # which grows, and recurses no deeper for groups in groups
        if is_a(part, BaseExceptionGroup):
            parts += _EXCEPTIONS.__get__(part)
    return parts


def add_context(exc: BaseException, context: BaseException | None) -> None:
    """Have an exception lead to the one it came after, if it leads to none, nor that one to it."""
    if _CONTEXT.__get__(exc) is not None:
        return
    before, seen = context, {id(exc)}
    while before is not None:
        if id(before) in seen:
            return
        seen.add(id(before))
        before = _CONTEXT.__get__(before)
    _CONTEXT.__set__(exc, context)


def forget_cancellations(exc: BaseException) -> None:
    """Have an exception not lead to those who cancelled what raised it.

    Trio raises its `Cancelled` in the `cancel()` call, so its traceback holds that call's frames.
    """
    cancelled = get_cancelled_exc_class()
    chain, seen = [exc], {id(exc)}
    for each in chain:  # which grows
        if is_a(each, cancelled):
            BaseException.with_traceback(each, None)
        inside = _EXCEPTIONS.__get__(each) if is_a(each, BaseExceptionGroup) else ()
        for other in (_CONTEXT.__get__(each), _CAUSE.__get__(each), *inside):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                chain.append(other)


def without_cancellations(exc: BaseException) -> BaseException | None:
    """What of an exception is a failure; `None` if it is nothing but cancellation (G14).

    The same clean-up error of a cancelled task arrives alone on asyncio and in a group with the
    cancellation on Trio, so groups are taken apart. One that cannot be is a failure as a whole.
    """
    cancelled = get_cancelled_exc_class()
    if not is_a(exc, BaseExceptionGroup):
        return None if is_a(exc, cancelled) else exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    try:
        return BaseExceptionGroup.split(group, cancelled)[1]
    except Exception:  # a subclass whose `derive()` fails
        return group


def raise_again(exc: BaseException, traceback: TracebackType | None) -> NoReturn:
    """Raise an exception as it was when it had that traceback, however often, and wherever."""
    context = _CONTEXT.__get__(exc)
    try:
        raise BaseException.with_traceback(exc, traceback)
    finally:
        _CONTEXT.__set__(exc, context)
        del exc, traceback, context  # its new traceback has this frame
