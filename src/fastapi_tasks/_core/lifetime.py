"""One lifespan of the app, as tasks see it: where they run, and until when.

*Two groups.* Shielded tasks live in one task group and the others in a second one, which the drain
cancels. Each is held open by a task of its own, not by the lifespan's: cancelling a group cancels
that task too, and the user's shutdown code must not be cancelled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from enum import Enum, auto
from logging import ERROR
from threading import get_ident
from typing import Any, TypeVar
from weakref import WeakSet

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    NoEventLoopError,
    TaskHandle,
    create_task_group,
    get_current_task,
    sleep,
)

from ..errors import TasksClosedError
from .cleanups import CleanUps
from .group import LastingGroup
from .log import log
from .mailbox import Mailbox
from .timers import Timers

T = TypeVar("T")


class Phase(Enum):
    """They follow one another (G16); the supervisor changes them, under the registry's lock."""

    NEW = auto()  # no lifespan has begun
    OPEN = auto()  # everything is admitted; the grace period is part of this
    DRAINING = auto()  # shielded tasks are admitted, and start at once
    CLOSED = auto()  # nothing is admitted


NEW, OPEN, DRAINING, CLOSED = Phase  # quicker than to look them up on their class


class Lifetime:
    """Made anew for each lifespan; what it needs of the event loop is there once it runs.

    Attributes:
        phase: what is admitted now.
        is_forked: this process is a fork of the one that it belongs to, which runs no task.
        stopping: set when the app begins to shut down.
        opened: set when tasks can be spawned.
        threads: what sync tasks take their threads from.
        closing_threads: what closings of sync dependencies take theirs from, without limit.
        clean_ups: what closes the dependencies of tasks.
        mailbox: what other threads have to say.
        timers: what is to be done later, beside all tasks.
    """

    threads: CapacityLimiter
    closing_threads: CapacityLimiter
    mailbox: Mailbox
    timers: Timers

    def __init__(self, phase: Phase = NEW) -> None:
        self.phase = phase
        self.is_forked: bool = False
        self.stopping: Event = Event()
        self.opened: Event = Event()
        self.clean_ups: CleanUps = CleanUps()
        self._abandoned = False  # nobody waits for that any more
        self._thread = 0
        self._shielded: LastingGroup  # there once `opened`
        self._unshielded: LastingGroup
        self._ending: CancelScope

    async def run(
        self,
        max_threads: int,
        on_open: Callable[[], None],
        on_loss: Callable[[], Awaitable[None]],
        on_close: Callable[[], None],
    ) -> None:
        """Have tasks running until `end()`, or a `KeyboardInterrupt`.

        `on_loss` is awaited when a group of tasks was lost, `on_close` is called when no task can
        be spawned from other threads any more.
        """
        _lifetimes.add(self)
        self._thread = get_ident()
        self.threads = CapacityLimiter(max_threads)
        self.closing_threads = CapacityLimiter(math.inf)
        self.mailbox = Mailbox()
        self.timers = Timers(self.mailbox.wake)
        self._ending = CancelScope(shield=True)
        try:
            with self._ending:
                async with create_task_group() as outer:
                    self._shielded = LastingGroup("shielded", outer, on_loss)
                    self._unshielded = LastingGroup("unshielded", outer, on_loss)
                    await self._shielded.open()
                    await self._unshielded.open()
                    if self._abandoned:
                        self._ending.cancel()
                    else:
                        on_open()
                        self.opened.set()
                    try:
                        await self._receive()
                    finally:
                        on_close()
        finally:
            self.mailbox.close()

    async def _receive(self) -> None:
        while True:
            try:
                while True:
                    with self.timers.until_next():
                        await self.mailbox.wait()
                    self.mailbox.make_calls()
                    self.timers.make_calls()
            except Exception as exc:
                log(ERROR, "a call from another thread failed", error=exc)
                self.mailbox.wake()
                await sleep(0.1)  # seconds, should this go on

    @property
    def is_on_loop_thread(self) -> bool:
        """Whether this is the event loop's thread."""
        return get_ident() == self._thread

    def refuse_if_forked(self) -> None:
        """Raise where no task will ever run."""
        if self.is_forked:
            raise TasksClosedError(
                "this process was forked from the one that runs the app, and runs no tasks: "
                "schedule there, or call the function instead"
            )

    def spawn(
        self,
        run: Callable[[T, CancelScope], Coroutine[Any, Any, None]],
        item: T,
        *,
        shielded: bool,
        name: str,
        context: Context | None,
        in_task: bool,
    ) -> TaskHandle[None] | None:
        """Spawn a task for an item, which gets the scope that the drain cancels it by.

        Return `None` where that cannot be done: in another thread, and outside of all tasks of the
        event loop. `in_task` says that this is certainly in one.
        """
        if get_ident() != self._thread or not (in_task or _is_in_task()):
            return None
        group = self._shielded if shielded else self._unshielded
        coro = run(item, group.scope)
        try:
            return group.current.create_task(coro, name=name, context=context)
        except BaseException as exc:
            coro.close()
            if isinstance(exc, NoEventLoopError):
                return None
            raise

    def copy_context(self) -> Context:
        """Copy the current context, of any thread, for a task here."""
        return copy_context() if get_ident() == self._thread else neutral_context()

    def call(self, func: Callable[[], object]) -> None:
        """Call `func` on the event loop's thread: here and now, or soon."""
        if self.is_on_loop_thread and _is_in_task():
            func()
        else:
            self.post(func)

    def post(self, func: Callable[[], object]) -> None:
        """Have a task of the event loop call `func`, soon. It does not wait, from any thread."""
        self.mailbox.post(func)

    def abandon(self) -> None:
        """Do not open: the lifespan was cancelled before."""
        self._abandoned = True

    def has_cancelled(self, *, shielded: bool) -> bool:
        """Whether the drain has cancelled the tasks of that kind."""
        return (self._shielded if shielded else self._unshielded).scope.cancel_called

    def cancel_unshielded(self) -> None:
        self._unshielded.cancel()

    def cancel_shielded(self) -> None:
        self._shielded.cancel()

    def end(self) -> None:
        """Cancel what is left, and `run()`."""
        for shielded in (True, False):
            self.clean_ups.unshield(shielded=shielded)
        self._shielded.cancel()
        self._ending.cancel()


_lifetimes: WeakSet[Lifetime] = WeakSet()  # all of this process


def _close_in_child() -> None:
    for lifetime in [*_lifetimes]:
        lifetime.phase, lifetime.is_forked = CLOSED, True


if hasattr(os, "register_at_fork"):  # pragma: no branch: not on Windows
    os.register_at_fork(after_in_child=_close_in_child)


def _is_in_task() -> bool:
    """Whether a task of the event loop runs this.

    If not, it is a callback of asyncio's, or the handler of a signal that came while the event loop
    was at work itself: Trio's loses what is then spawned.
    """
    try:
        get_current_task()
    except (RuntimeError, TypeError):  # as AnyIO says it from 4.16 on, and before
        return False
    return True


def neutral_context() -> Context:
    """Copy the current context, for tasks of any event loop.

    The thread of one may have told AnyIO so, which would believe it in another.
    """
    context = copy_context()
    for variable in context:
        if variable.name == "current_async_library_cvar" and context[variable] is not None:
            context.run(variable.set, None)
    return context
