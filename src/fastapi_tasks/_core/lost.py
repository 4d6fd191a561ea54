"""Tasks that the event loop will not run any more, and that do not know.

A lost task group (`group`) leaves some: the event loop has thrown its tasks away.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import suppress
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any

from anyio import TaskHandle
from anyio.lowlevel import cancel_shielded_checkpoint

from .registry import Registry
from .supervised import SupervisedTask

_ALIVE = (TaskHandle.Status.PENDING, TaskHandle.Status.CANCELLING)


async def find_unbegun(registry: Registry) -> list[SupervisedTask[..., Any]]:
    """Those that were spawned and will not take their first step; wait until that is certain."""
    before = _unbegun(registry)
    for _ in range(2):  # within which any other one begins, on Trio too
        await cancel_shielded_checkpoint()
    lost = [*(before.keys() & _unbegun(registry).keys())]
    for task in lost:
        before[task].close()
    return lost


def find_broken_off(registry: Registry) -> Iterator[SupervisedTask[..., Any]]:
    """Those that have begun, and were not let end, or have failed to say that they have."""
    for task in registry.list_tasks():
        handle = task.handle
        if handle is not None and handle.status not in _ALIVE:
            with suppress(RuntimeError):  # it goes on all the same
                handle.coro.close()  # now, not at some garbage collection
            yield task
        elif task.has_ended:
            yield task


def _unbegun(
    registry: Registry,
) -> dict[SupervisedTask[..., Any], Coroutine[Any, Any, None]]:
    coros = {task: task.handle.coro for task in registry.list_tasks() if task.handle is not None}
    return {task: coro for task, coro in coros.items() if getcoroutinestate(coro) == CORO_CREATED}
