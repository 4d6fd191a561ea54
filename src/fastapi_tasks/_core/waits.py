"""Waits that would never end, which are refused.

Theory of operation
-------------------

Whoever waits for a task and is in that task's way waits for ever. Two kinds of code can be in a
task's way: tasks, and runs of routes. It is known what each of them needs before it can start or
end:

* a task that waits for its timing point needs the end of its route, and the one after the response
  also needs the tasks that hold the response;
* a task, or a route, that waits for a task needs that one; such waits are recorded while they last.

So a wait is refused if what is waited for needs, by any number of steps, the one who would wait.
Only what is certain is refused. Code is a task's or a route's own if it runs inside of that one's
task of the event loop, or in a call by which that one's thread waits (`anyio.from_thread.run()`).
What else was started by them is not refused: it may belong to a task group that outlives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from sys import _current_frames  # pyright: ignore[reportPrivateUsage]
from threading import get_ident
from traceback import walk_stack
from types import FrameType
from typing import Protocol
from weakref import ref

from anyio import get_current_task


class Waiter(Protocol):
    """A task, or a run of a route."""

    awaited: Iterable[Waiter]  # what it waits for now, as far as that is recorded

    @property
    def title(self) -> str:
        """What an error message calls it."""
        ...

    def needs(self) -> Iterable[Waiter]:
        """What has to end before this can start, or end."""
        ...

    def runs_in_this_task(self) -> bool:
        """Whether the running code of the event loop is certainly its own."""
        ...

    def runs_in_thread(self, thread: int, stack: Sequence[FrameType]) -> bool:
        """Whether that thread, which waits, certainly runs its code."""
        ...


# The task, and the runs of routes, whose context this is: an endpoint may have called others. Weak
# references, since contexts outlive tasks: the timers of asyncio keep theirs until their time has
# come, also when they were cancelled.
running_task: ContextVar[ref[Waiter] | None] = ContextVar("running_task", default=None)
routes: ContextVar[tuple[ref[Waiter], ...]] = ContextVar("routes", default=())


def enter_route(run: Waiter) -> None:
    """Note that the current context is that of a run of a route, too."""
    alive = [each for each in routes.get() if each() is not None]
    routes.set((*alive, ref(run)))


def waiters_here() -> list[Waiter]:
    """Those whose own code is running, on the event loop or in a thread that waits for it."""
    waiters = _waiters_of_this_context()
    here = [each for each in waiters if each.runs_in_this_task()]
    if len(here) == len(waiters):  # as a rule
        return here
    in_thread = thread_that_waits()
    return [each for each in waiters if each in here or each.runs_in_thread(*in_thread)]


def waiters_in_this_thread() -> list[Waiter]:
    """Those whose own code is running in this thread, which is not the event loop's."""
    stack = [frame for frame, _ in walk_stack(None)]
    thread = get_ident()
    return [each for each in _waiters_of_this_context() if each.runs_in_thread(thread, stack)]


def _waiters_of_this_context() -> list[Waiter]:
    task = running_task.get()
    references = routes.get() if task is None else (task, *routes.get())
    waiters = [reference() for reference in references]
    return [waiter for waiter in waiters if waiter is not None]


class RecordedWait:
    """A wait of theirs, while the block lasts."""

    __slots__ = ("_awaited", "_before", "_waiters")

    def __init__(self, waiters: Sequence[Waiter], awaited: Iterable[Waiter]) -> None:
        self._waiters = waiters
        self._awaited = awaited
        self._before = [waiter.awaited for waiter in waiters]

    def __enter__(self) -> None:
        for waiter in self._waiters:
            waiter.awaited = self._awaited

    def __exit__(self, *_: object) -> None:
        for waiter, before in zip(self._waiters, self._before, strict=True):
            waiter.awaited = before


def path(starts: Iterable[Waiter], end: Waiter) -> list[Waiter]:
    """The steps by which one of those needs the last one, both included; empty if none does."""
    found = list(starts)
    seen = {id(waiter) for waiter in found}
    came_from: dict[int, Waiter] = {}
    for waiter in found:  # which grows
        if waiter is end:
            steps = [waiter]
            while (before := came_from.get(id(steps[-1]))) is not None:
                steps.append(before)
            return steps[::-1]
        for needed in waiter.needs():
            if id(needed) not in seen:
                seen.add(id(needed))
                came_from[id(needed)] = waiter
                found.append(needed)
    return []


def thread_that_waits() -> tuple[int, list[FrameType]]:
    """The thread that waits in `anyio.from_thread.run()` for what runs here, and its stack.

    There may be none: `(0, [])`. On asyncio such a call has an event loop's task of its own, to be
    told by AnyIO's coroutine in it, which the thread's stack leads to; what is started there has
    another one. On Trio it runs in the task that waits for the thread.
    """
    coro = get_current_task().coro
    code, frame = getattr(coro, "cr_code", None), getattr(coro, "cr_frame", None)
    if code is None or frame is None or "anyio" not in code.co_filename:
        return 0, []
    for thread, innermost in _current_frames().items():
        stack = [each for each, _ in walk_stack(innermost)]
        for each in stack:
            if code in each.f_code.co_consts and all(
                each.f_locals.get(name) is frame.f_locals.get(name) for name in code.co_freevars
            ):
                return thread, stack
    return 0, []
