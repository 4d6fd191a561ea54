"""Running one task: the call, how it ended, its error handler. Nothing gets out of here (G12)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class

from ._function import call
from ._task import Task, TaskState

logger = logging.getLogger("fastapi_tasks")


async def run(task: Task[..., Any], threads: CapacityLimiter, scope: CancelScope) -> None:
    """Run a task and its error handler to their end; raise nothing but `KeyboardInterrupt`.

    `scope` is the one that the runner cancels the task by: a cancellation from elsewhere is worth
    a warning.
    """
    task._enter(TaskState.RUNNING)
    try:
        await call(task.func, task.args, task.kwargs, threads)
    except BaseException as exc:
        failure = without_cancellations(exc)
        task._enter(TaskState.FAILED if failure else TaskState.CANCELLED, failure)
        _contain(exc, failure, f"task {task.name!r}", scope)
    else:
        task._enter(TaskState.SUCCEEDED)
    if task.config.on_error is not None and isinstance(task.exception, Exception):
        await _handle_error(task, task.config.on_error, threads, scope)


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
        _contain(exc, without_cancellations(exc), what, scope)


def without_cancellations(exc: BaseException) -> BaseException | None:
    """What of an exception is a failure; `None` if it is nothing but cancellation (G14).

    The same clean-up error of a cancelled task arrives alone on asyncio and in a group with the
    cancellation on Trio, so groups are taken apart.
    """
    cancelled = get_cancelled_exc_class()
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).split(cancelled)[1]
    return None if isinstance(exc, cancelled) else exc


def is_interrupt(exc: BaseException) -> bool:
    """Whether it is a `KeyboardInterrupt`, or has one in it."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return group.subgroup(KeyboardInterrupt) is not None
    return isinstance(exc, KeyboardInterrupt)


def _contain(
    exc: BaseException, failure: BaseException | None, what: str, scope: CancelScope
) -> None:
    """Say in the log what deserves to be said; let `KeyboardInterrupt` pass, and nothing else."""
    if is_interrupt(exc):
        raise exc
    if failure is not None:
        logger.error("%s failed", what, exc_info=failure)
    elif not scope.cancel_called:
        logger.warning("%s was cancelled, but not by this library: it ended here", what)
