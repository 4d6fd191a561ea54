"""A task group that lasts: what takes one down makes room for a new one.

No exception leaves a task's function (`_call.judge`), but there is a task of the event loop around
it, and a function can break that one: by a cancel scope that it leaves open (PEP 789), by the last
step of its life that is cancelled by asyncio's `Task.cancel()`, by a `GeneratorExit` that asyncio
throws past it. Each cancels the task group. A cancel scope around each call would contain the first
of them only, and make tasks a fifth slower; so they are let happen, and the rest is kept from it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from logging import ERROR
from typing import Any, TypeAlias

from anyio import CancelScope, Event, TaskHandle, create_task_group, sleep_forever
from anyio.abc import TaskGroup

from ._call import is_interrupt, without_cancellations
from ._log import log

_BROKEN = (
    "a task broke the task of the event loop that it ran in, which cancels all %s tasks that are "
    "running now. Did it break off an async generator that yields inside of a cancel scope or a "
    "task group? Close that with contextlib.aclosing(). Or was it cancelled by asyncio's "
    "Task.cancel() as it began or ended?"
)

OnLoss: TypeAlias = Callable[[], Callable[[], None]]
"""Called when a task group is lost; what it returns is called when the group has ended."""


class LastingGroup:
    """Tasks of one kind, in one task group at a time, and the scope that cancels all of them.

    The groups' own scopes are cancelled, too, when a task or asyncio's `Task.cancel()` takes one
    down; a task that ends by that deserves a warning.
    """

    def __init__(self, kind: str, on_loss: OnLoss) -> None:
        self._kind = kind
        self._on_loss = on_loss
        self.scope = CancelScope()
        self.opened = Event()  # set while there is a group that is not lost
        self._group: TaskGroup
        self._hosts: TaskGroup  # of the groups

    def create_task(
        self, coro: Coroutine[Any, Any, None], *, name: str, context: Context | None
    ) -> TaskHandle[None]:
        return self._group.create_task(coro, name=name, context=context)

    async def run(self) -> None:
        """Host the tasks until `scope` is cancelled."""
        with self.scope:
            async with create_task_group() as self._hosts:
                self._hosts.start_soon(self._host)
                await sleep_forever()

    async def _host(self) -> None:
        """Host one task group; when it is lost, have another one take its place at once."""
        after_loss, error = None, None
        try:
            async with create_task_group() as self._group:
                group = self._group
                self.opened.set()
                try:
                    await sleep_forever()
                finally:
                    if group.cancel_scope.cancel_called:  # not by the drain: that cancels `scope`
                        after_loss = await self._replace()
        except BaseException as exc:
            error = without_cancellations(exc)
            if is_interrupt(exc) or not (after_loss or error):
                raise
        if after_loss or error:
            log(ERROR, _BROKEN, self._kind, error=error)
        if after_loss:
            after_loss()

    async def _replace(self) -> Callable[[], None]:
        self.opened = Event()
        self._hosts.start_soon(self._host)
        with CancelScope(shield=True):
            await self.opened.wait()  # so that there is always one
        return self._on_loss()
