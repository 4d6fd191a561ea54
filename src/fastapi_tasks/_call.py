"""Running one task: the call, how it ended, its error handler. Nothing gets out of here (G12)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class, to_thread

from ._task import Task, TaskState, is_async

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


async def call(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    threads: CapacityLimiter,
) -> Any:
    """Await an async function; run any other callable in a worker thread."""
    if is_async(func):
        return await func(*args, **kwargs)

    # What the function returns or raises is carried out in a box: Trio refuses a coroutine as what
    # a thread returns, and asyncio throws an exception into the waiting task, where `GeneratorExit`
    # would close all coroutines up to AnyIO's instead of being caught by `run()`.
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
