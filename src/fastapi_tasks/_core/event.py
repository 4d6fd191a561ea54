"""The events of a task, which any thread may look at."""

from __future__ import annotations

from contextlib import suppress
from typing import Self

from anyio import Event, EventStatistics
from anyio.lowlevel import checkpoint

from ..errors import FastAPITasksError
from .owner import Owner


class TaskEvent(Event):
    """An event that belongs to the app's event loop, whoever looks at it first.

    AnyIO's events belong to the event loop that they are made in, or waited for in. So there is one
    behind this when somebody waits, which is on the app's event loop only.
    """

    __slots__ = ("_event", "_is_set", "_owner")

    def __new__(cls, owner: Owner) -> Self:  # noqa: ARG004
        return object.__new__(cls)

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._is_set = False
        self._event: Event | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """On the event loop's thread, as `wait()`."""
        self._is_set = True
        if self._event is not None:
            for _ in range(2):  # for those who wait, should an exception come in between
                with suppress(Exception):
                    self._event.set()

    async def wait(self) -> None:
        if self._is_set:
            await checkpoint()
            return
        if not self._owner.is_on_loop_thread:
            raise FastAPITasksError("the task runs in another event loop: wait for it there")
        if self._event is None:
            self._event = Event()
        await self._event.wait()

    def statistics(self) -> EventStatistics:
        return EventStatistics(0) if self._event is None else self._event.statistics()
