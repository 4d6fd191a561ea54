"""A task group that lasts: what takes one down makes room for a new one.

No exception of a task's function gets past `outcome.contain`, but there is a task of the event loop
around it, and a function can break that one: by a cancel scope that it leaves open (PEP 789), by
the last step of its life that is cancelled by asyncio's `Task.cancel()`, by a `GeneratorExit` that
asyncio throws past it. Each cancels the task group. A cancel scope around each call would contain
the first of them only, and make tasks slower by a sixth or more; so they are let happen, and the
app goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from logging import ERROR

from anyio import CancelScope, Event, create_task_group, sleep_forever
from anyio.abc import TaskGroup

from .exception import without_cancellations
from .interrupt import is_interrupt
from .log import log

_BROKEN = (
    "a task broke the task of the event loop that it ran in, which cancels all %s tasks that are "
    "running now. Did it break off an async generator that yields inside of a cancel scope or a "
    "task group? Close that with contextlib.aclosing(). Or was it cancelled by asyncio's "
    "Task.cancel() as it began or ended?"
)


class LastingGroup:
    """Tasks of one kind, in one task group at a time.

    Attributes:
        current: the task group for new tasks; there once `open()` has returned.
        scope: what `cancel()` cancels its tasks by. The group's own scope is cancelled, too, when a
            task takes it down; a task that ends by that deserves a warning.
    """

    current: TaskGroup
    scope: CancelScope

    def __init__(self, kind: str, outer: TaskGroup, on_loss: Callable[[], Awaitable[None]]) -> None:
        """`outer` is where the tasks run that hold groups open; `on_loss` is awaited after a loss.

        That is for tasks that the event loop will not run any more, and that do not know.
        """
        self._kind = kind
        self._outer = outer
        self._on_loss = on_loss
        self._opened = Event()

    async def open(self) -> None:
        """Have a task group held open, from now on the one for new tasks."""
        self._opened = Event()
        self._outer.start_soon(self._hold_open)
        await self._opened.wait()

    def cancel(self) -> None:
        """Cancel all tasks, and what holds their group open; those of a lost group are cancelled.

        There are no new ones after that, so a replacement that is just about to open stays empty.
        """
        self.scope.cancel()

    async def _hold_open(self) -> None:
        """Hold a task group open; whatever ends it but `cancel()`, another one takes its place."""
        while True:
            scope = CancelScope()
            try:
                await self._hold_open_one(scope)
            except Exception as exc:
                log(ERROR, "a group of tasks failed", error=exc)
            is_replaced = self._opened.is_set() and self.scope is not scope
            if scope.cancel_called or is_replaced:
                return

    async def _hold_open_one(self, scope: CancelScope) -> None:
        """Hold one task group open; when it is lost, have another one take its place at once."""
        is_lost, error = False, None
        with scope:
            try:
                async with create_task_group() as group:
                    self.current, self.scope = group, scope
                    self._opened.set()
                    try:
                        await sleep_forever()
                    finally:
                        is_lost = group.cancel_scope.cancel_called and not scope.cancel_called
                        if is_lost:
                            log(ERROR, _BROKEN, self._kind)
                            with CancelScope(shield=True):
                                await self.open()
                                await self._on_loss()
            except BaseException as exc:
                error = without_cancellations(exc)
                if is_interrupt(exc) or not (is_lost or error):
                    raise
            if error is not None:
                log(ERROR, "this broke a task of the event loop", error=error)
                with CancelScope(shield=True):
                    await self._on_loss()
