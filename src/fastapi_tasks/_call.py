"""Running one task: the call, how it ended, its error handler. No failure gets out (G12)."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import nullcontext
from logging import ERROR, WARNING
from typing import Any, cast

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class

from ._function import call
from ._log import log
from ._task import CANCELLED, Task


def call_task(task: Task[..., Any], threads: CapacityLimiter) -> Awaitable[Any]:
    """Call the function, as its options say: `retry(limiter(thread slot(timeout(call))))`.

    No token is held while a retry backs off, and waiting does not use up the timeout.
    """
    config = task.config
    if config.retry is None and config.limiter is None:  # most: no coroutine of ours is around it
        task.attempts += 1
        return call(task.func, task.args, task.kwargs, threads, config.timeout)
    return _call_with_options(task, threads)


def _call_with_options(task: Task[..., Any], threads: CapacityLimiter) -> Awaitable[Any]:
    config = task.config

    async def attempt() -> Any:
        async with nullcontext() if config.limiter is None else config.limiter:
            task.attempts += 1
            return await call(task.func, task.args, task.kwargs, threads, config.timeout)

    return attempt() if config.retry is None else config.retry(attempt)


def judge(task: Task[..., Any], exc: BaseException, scope: CancelScope) -> None:
    """Note what a task's call has raised; raise it only if it is a `KeyboardInterrupt`.

    `scope` is the one that the runner cancels the task by: a cancellation from elsewhere is worth
    a warning.
    """
    failure = without_cancellations(exc)
    if failure is None:
        task.state = CANCELLED
    else:
        task._fail(failure)
    _contain(exc, failure, "task %r", task, scope)


async def handle_error(task: Task[..., Any], threads: CapacityLimiter, scope: CancelScope) -> None:
    """Run the error handler of a task that has failed, if it has one for that."""
    handler = task.config.on_error
    if handler is None or not isinstance(task.exception, Exception):
        return
    try:
        await call(handler, (task, task.exception), {}, threads)
    except BaseException as exc:
        _contain(exc, without_cancellations(exc), "the error handler of task %r", task, scope)


def without_cancellations(exc: BaseException) -> BaseException | None:
    """What of an exception is a failure; `None` if it is nothing but cancellation (G14).

    The same clean-up error of a cancelled task arrives alone on asyncio and in a group with the
    cancellation on Trio, so groups are taken apart. One that cannot be is a failure as a whole.
    """
    cancelled = get_cancelled_exc_class()
    if not _is(exc, BaseExceptionGroup):
        return None if _is(exc, cancelled) else exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    try:
        return group.split(cancelled)[1]
    except Exception:  # a subclass whose `derive()` fails
        return group


def is_interrupt(exc: BaseException) -> bool:
    """Whether it is a `KeyboardInterrupt`, or has one in it."""
    parts: list[BaseException] = [exc]
    for part in parts:  # which grows, and recurses no deeper for groups in groups
        if _is(part, BaseExceptionGroup):
            parts += cast("BaseExceptionGroup[BaseException]", part).exceptions
    return any(_is(part, KeyboardInterrupt) for part in parts)


def _is(exc: BaseException, kind: type[BaseException]) -> bool:
    return issubclass(type(exc), kind)  # `isinstance()` also asks `__class__`, which may raise


def _contain(
    exc: BaseException,
    failure: BaseException | None,
    what: str,
    task: Task[..., Any],
    scope: CancelScope,
) -> None:
    """Say in the log what deserves to be said; let `KeyboardInterrupt` pass, and nothing else."""
    if failure is None:
        if not (scope.cancel_called or task._is_cancelling):
            what += " was cancelled, but not by this library: it ended here"
            log(WARNING, what, task.name)
    elif is_interrupt(failure):
        raise exc
    else:
        log(ERROR, what + " failed", task.name, error=failure)
