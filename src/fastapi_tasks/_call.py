"""Running one task: the call, how it ended, its error handler. No failure gets out (G12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from logging import ERROR, WARNING
from typing import Any, cast

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class

from ._function import call
from ._log import log
from ._task import Task, TaskState, running_task


async def run(task: Task[..., Any], threads: CapacityLimiter, scope: CancelScope) -> None:
    """Run a task and its error handler to their end; raise nothing but `KeyboardInterrupt`.

    `scope` is the one that the runner cancels the task by: a cancellation from elsewhere is worth
    a warning.
    """
    running_task.set(task)
    try:
        task._result = await _call(task, threads)
    except BaseException as exc:
        failure = without_cancellations(exc)
        if failure is None:
            task.state = TaskState.CANCELLED
        else:
            task._fail(failure)
        _contain(exc, failure, f"task {task.name!r}", task, scope)
    else:
        task.state = TaskState.SUCCEEDED
    if task.config.on_error is not None and isinstance(task.exception, Exception):
        await _handle_error(task, task.config.on_error, threads, scope)


def _call(task: Task[..., Any], threads: CapacityLimiter) -> Awaitable[Any]:
    """Call the function, as its options say: `retry(limiter(thread slot(timeout(call))))`.

    No token is held while a retry backs off, and waiting does not use up the timeout.
    """
    retry, limiter = task.config.retry, task.config.limiter
    if retry is None and limiter is None:  # most: no coroutine stands around their function's
        task.attempts += 1
        return call(task.func, task.args, task.kwargs, threads, task.config.timeout)

    async def attempt() -> Any:
        async with nullcontext() if limiter is None else limiter:
            task.attempts += 1
            return await call(task.func, task.args, task.kwargs, threads, task.config.timeout)

    return attempt() if retry is None else retry(attempt)


async def _handle_error(
    task: Task[..., Any],
    handler: Callable[..., Any],
    threads: CapacityLimiter,
    scope: CancelScope,
) -> None:
    try:
        await call(handler, (task, task.exception), {}, threads)
    except BaseException as exc:
        what = f"the error handler of task {task.name!r}"
        _contain(exc, without_cancellations(exc), what, task, scope)


def without_cancellations(exc: BaseException) -> BaseException | None:
    """What of an exception is a failure; `None` if it is nothing but cancellation (G14).

    The same clean-up error of a cancelled task arrives alone on asyncio and in a group with the
    cancellation on Trio, so groups are taken apart. One that cannot be is a failure as a whole.
    """
    cancelled = get_cancelled_exc_class()
    if not isinstance(exc, BaseExceptionGroup):
        return None if isinstance(exc, cancelled) else exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    try:
        return group.split(cancelled)[1]
    except Exception:  # a subclass whose `derive()` fails
        return group


def is_interrupt(exc: BaseException) -> bool:
    """Whether it is a `KeyboardInterrupt`, or has one in it."""
    parts: list[BaseException] = [exc]
    for part in parts:  # which grows, and recurses no deeper for groups in groups
        if isinstance(part, BaseExceptionGroup):
            parts += cast("BaseExceptionGroup[BaseException]", part).exceptions
    return any(isinstance(part, KeyboardInterrupt) for part in parts)


def _contain(
    exc: BaseException,
    failure: BaseException | None,
    what: str,
    task: Task[..., Any],
    scope: CancelScope,
) -> None:
    """Say in the log what deserves to be said; let `KeyboardInterrupt` pass, and nothing else."""
    if is_interrupt(exc):
        raise exc
    if failure is not None:
        log(ERROR, "%s failed", what, error=failure)
    elif not (scope.cancel_called or task._is_cancelling):
        log(WARNING, "%s was cancelled, but not by this library: it ended here", what)
