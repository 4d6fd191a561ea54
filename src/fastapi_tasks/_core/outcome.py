"""Running one task: its call with its options, how it ended, its error handler.

No failure gets out (G12).
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from logging import ERROR, WARNING
from types import CoroutineType
from typing import Any

from anyio import CancelScope

from .attempt import Attempt, Place
from .call import Call
from .config import chosen
from .exception import is_a, without_cancellations
from .function import is_async, is_awaitable, type_name
from .interrupt import is_interrupt
from .log import log
from .supervised import SupervisedTask


def is_plain(task: SupervisedTask[..., Any]) -> bool:
    """Whether it is to be called as it is, without dependencies, or options that matter there."""
    config = task.config
    has_options = (
        config.timeout is not None or config.limiter is not None or config.retry is not None
    )
    return task.is_async is True and task.dependencies is None and not has_options


async def call_with_options(
    task: SupervisedTask[..., Any], place: Place, scope: CancelScope
) -> Any:
    """Call a task's function as its options say: `retry(limiter(thread slot(timeout(call))))`.

    No token is held while a retry backs off, and waiting does not use up the timeout. Where the
    dependencies come in: see `attempt`.
    """
    call = _TaskCall(task, place, chosen(task.config.timeout), scope)
    retry = chosen(task.config.retry)
    del task
    try:
        if retry is None:
            return await call.attempt()
        result: Any = retry(call.attempt)
        kind = type_name(retry)
        del retry  # which may show what it was made of
        if not _is_attempt(result):
            if not is_awaitable(result):
                raise TypeError(f"{_RETRY}, whose call can be awaited, not {kind}")
            result = await result
        if _is_attempt(result):
            result.close()
            raise TypeError(f"{_RETRY}, which awaits each attempt, not {kind}")
        return result
    finally:
        call.clear()


class _TaskCall(Call):
    """A task's call, of which there may be several attempts."""

    __slots__ = ("_place", "_scope", "_task")

    def __init__(
        self,
        task: SupervisedTask[..., Any],
        place: Place,
        timeout: float | None = None,
        scope: CancelScope | None = None,
    ) -> None:
        super().__init__(
            task.func,
            task.args,
            task.kwargs,
            is_async=task.is_async is True,
            threads=place.threads,
            timeout=timeout,
            name=task.name,
        )
        self._task = task
        self._place = place
        self._scope = scope

    def clear(self) -> None:
        super().clear()
        del self._task

    def start(self) -> Awaitable[Any]:
        if self._task.dependencies is None:
            return Call.start(self)  # which `super()` would take longer to find
        attempt = Attempt(self._task, self._place, timeout=self._timeout, scope=self._scope)
        return attempt.run()

    async def attempt(self) -> Any:
        if chosen(self._task.config.limiter) is None:
            self._task.begin_attempt()
            return await self.start()
        async with self._limiter():  # not as a variable, which may show what it was made of
            self._task.begin_attempt()
            return await self.start()

    def _limiter(self) -> AbstractAsyncContextManager[Any]:
        limiter = chosen(self._task.config.limiter)
        assert limiter is not None
        return limiter


async def call_again(task: SupervisedTask[..., Any], place: Place) -> Any:
    """Call a task's function once more, without its options."""
    call = _TaskCall(task, place)
    del task
    try:
        return await call.start()
    finally:
        call.clear()


_RETRY = (
    "retry must be an async caller, such as stamina.AsyncRetryingCaller(...).on(...) or "
    "tenacity.AsyncRetrying(...)"
)
_ATTEMPT = _TaskCall.attempt.__code__


def _is_attempt(result: object) -> bool:
    """Whether it is what an attempt gives before it is awaited: so it was not."""
    return type(result) is CoroutineType and result.cr_code is _ATTEMPT


async def handle_error(task: SupervisedTask[..., Any], place: Place, scope: CancelScope) -> None:
    """Run the error handler of a task that has failed, if it has one for that."""
    handler = chosen(task.config.on_error)
    if handler is None or not is_a(task.exception, Exception):
        return
    call = Call(
        handler,
        (task, task.exception),
        {},
        is_async=is_async(handler) is True,
        threads=place.threads,
    )
    del handler  # which may show what it was made of
    try:
        await call.start()
    except BaseException as exc:
        contain(exc, without_cancellations(exc), "the error handler of task %r", task, scope)
    finally:
        call.clear()
        task.restore_traceback()  # which it has changed if it raised the error again
        del task  # what the handler has raised may be kept, and has this frame in its traceback


def contain(
    exc: BaseException,
    failure: BaseException | None,
    what: str,
    task: SupervisedTask[..., Any],
    scope: CancelScope,
) -> None:
    """Say in the log what deserves to be said; let a Ctrl+C pass, and nothing else.

    `scope` is the one that the drain cancels the task by: a cancellation from elsewhere is worth a
    warning.
    """
    if failure is None:
        if not task.is_cancelled_by_us(scope):
            what += " was cancelled, but not by this library: it ended here"
            log(WARNING, what, task.name)
    elif is_interrupt(failure):
        raise exc
    else:
        log(ERROR, what + " failed", task.name, error=failure)
