"""The timing points of one run of a route, and the order its tasks start in.

Theory of operation
-------------------

A request runs one route, as a rule; a middleware that tries again or a batch endpoint runs more,
and each run has tasks and timing points of its own. It is told when its route has ended, when the
response starts, and when that has ended.

*Order* (G4). Tasks that are spawned together do not start in that order on Trio, which reverses
every other batch. So a run keeps those of its tasks that have been spawned and have not started
in a queue, and each, when it runs first, yields until it is the queue's head. That is enough,
because all tasks spawned earlier get to run within the same round of the event loop: asyncio need
not yield, but for tasks on their way from threads, and Trio does so once per task on average. A
chain, in which each task starts the next one, would take a whole round for each.

It is also all that *responses* have to wait for (G3): until what stands in the queue has started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from logging import INFO
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet, ref

from anyio import get_current_task
from anyio.lowlevel import cancel_shielded_checkpoint

from .exception import without_cancellations
from .function import code_of
from .lifetime import OPEN
from .log import log, names
from .state import PENDING
from .supervised import SupervisedTask
from .supervisor import Supervisor
from .task import Timing
from .waits import Waiter, enter_route

_ROUNDS = 100  # of the event loop, within which what was handed over starts: it takes a few


class Response(Protocol):
    """What a run of a route has to know of its request's response."""

    def holding(self) -> list[SupervisedTask[..., Any]]:
        """The tasks that it still waits for."""
        ...


class RouteRun:
    """One run of a route, made in its task of the event loop.

    Args:
        response: the request's, if the run belongs to one.
        endpoint: the route's function.
    """

    __slots__ = (
        "__weakref__",
        "_coro",
        "_endpoint",
        "_holding",
        "_queue",
        "_responded",
        "_response",
        "_waiting",
        "awaited",
        "supervisor",
    )

    def __init__(
        self, supervisor: Supervisor, response: Response | None = None, endpoint: object = None
    ) -> None:
        self.supervisor: Supervisor = supervisor
        # The timing points still to come, in their order, and what waits for them; the queue is of
        # those that were spawned. Both are added to under the registry's lock.
        self._waiting: dict[Timing, dict[SupervisedTask[..., Any], None]] = {
            "after_route": {},
            "after_response": {},
        }
        self._queue: deque[SupervisedTask[..., Any]] = deque()
        # What the response waits for: weak, since a WebSocket may have any number, and no response.
        self._holding: WeakSet[SupervisedTask[..., Any]] | None = None
        self._responded = False
        # Whose code it is that runs in the route, as far as waits are concerned.
        self._coro = _current_coro()
        self._endpoint = endpoint
        self.awaited: Iterable[Waiter] = ()
        self._response = None if response is None else ref(response)  # which holds this run
        enter_route(self)

    # Its tasks, as the supervisor sees them.

    def add(self, task: SupervisedTask[..., Any]) -> bool:
        """Take a task in; return whether it starts now."""
        supervisor = self.supervisor
        with supervisor.registry.lock:
            if task.state is not PENDING:
                return False
            if task.config.hold_response and not self._responded:
                self._hold_response_for(task)
            waiting = self._waiting.get(task.timing)
            # Now, or its timing point has come (G7), as all have in a shutdown (G16).
            if waiting is None or supervisor.lifetime.phase is not OPEN:
                self._queue.append(task)
                return True
            task.context = supervisor.lifetime.copy_context()
            waiting[task] = None
            return False

    def _hold_response_for(self, task: SupervisedTask[..., Any]) -> None:
        if task.timing != "after_response":
            if self._holding is None:
                self._holding = WeakSet()
            self._holding.add(task)

    def remove(self, task: SupervisedTask[..., Any]) -> None:
        """Take a task out that will not start."""
        with self.supervisor.registry.lock:
            self._waiting.get(task.timing, {}).pop(task, None)
            queue = self._queue  # what stands between others is taken out when their turn comes
            while queue and queue[-1].state is not PENDING:
                queue.pop()
            while queue and queue[0].state is not PENDING:
                queue.popleft()

    def take_turn(self, task: SupervisedTask[..., Any]) -> bool:
        """Take a task out, if each one before it has started, or will not; return whether so."""
        queue = self._queue
        while queue[0] is not task:
            if queue[0].state is PENDING:
                return False
            queue.popleft()  # it was cancelled, and has no turn
        queue.popleft()
        return True

    # The timing points.

    def _has_come(self, timing: Timing) -> bool:
        """Whether tasks for that timing point start at once."""
        return timing not in self._waiting

    def reach(self, timing: Timing) -> None:
        """A timing point has come: start the tasks that wait for it, once."""
        if self._has_come(timing):
            return
        waiting = self._waiting[timing]
        try:
            with self.supervisor.registry.lock:
                # First: what garbage schedules meanwhile comes after that.
                del self._waiting[timing]
                self._queue.extend(waiting)
            self._spawn_all(waiting)
        except BaseException:
            self.supervisor.lifetime.post(partial(self._reach_again, timing, waiting))
            raise

    def _reach_again(self, timing: Timing, tasks: Iterable[SupervisedTask[..., Any]]) -> None:
        with self.supervisor.registry.lock:
            self._waiting.pop(timing, None)
            left = [task for task in tasks if task.state is PENDING and task not in self._queue]
            self._queue.extend(left)
        self._spawn_all(tasks)

    def _spawn_all(self, tasks: Iterable[SupervisedTask[..., Any]]) -> None:
        for task in tasks:
            self.supervisor.spawn_late(task)

    def reach_all(self) -> None:
        """Start what waits for a timing point, as if all of them had come."""
        self.reach("after_route")
        self.reach("after_response")

    def route_failed(self, error: BaseException) -> None:
        """Drop what waits for a timing point (G6), unless the response is under way already.

        A route that was cancelled did not fail by itself: the server cut it off, as it does in a
        shutdown. What is shielded survives that (G17).
        """
        cut_off = without_cancellations(error) is None
        with self.supervisor.registry.lock:
            waiting = () if self._has_come("after_route") else self._waiting.values()
            dropped = [
                task
                for tasks in waiting
                for task in [*tasks]  # a copy: collected garbage may schedule meanwhile
                if task.state is PENDING
                and not task.config.even_if_failed
                and not (cut_off and task.config.shielded)
            ]
        for task in dropped:
            self.supervisor.cancel_unstarted(task)
        if dropped:
            log(
                INFO,
                "the route failed: dropped %d task(s) that were to run after it: %s",
                len(dropped),
                names(dropped),
            )
        self.reach("after_route")

    def response_starts(self) -> None:
        """The response starts now, or has started before this run of the route began."""
        self.reach("after_route")  # which the route's end has done, if the route made the response
        self._responded = True

    # What the response waits for.

    def holding(self) -> list[SupervisedTask[..., Any]]:
        """The unfinished tasks that hold it."""
        if self._holding is None:
            return []
        with self.supervisor.registry.lock:  # threads may add to it
            return [task for task in self._holding if not task.is_finished]

    async def all_started(self) -> None:
        """Wait until what was handed over has started; not what that hands over, without end."""
        with self.supervisor.registry.lock:  # threads may add to it
            queue = [*self._queue]
        for task in queue:
            for _ in range(_ROUNDS):
                if task.state is not PENDING:
                    break
                await cancel_shielded_checkpoint()
            else:
                await task.started.wait()

    # Whom it waits for, and who waits for it: see `waits`.

    @property
    def title(self) -> str:
        return "the route"

    def needs(self) -> Iterable[Waiter]:
        return self.awaited

    def needs_of(self, task: SupervisedTask[..., Any]) -> Iterable[Waiter]:
        """What has to end before a task can start."""
        if task not in self._waiting.get(task.timing, ()):
            return ()
        response = None if self._response is None else self._response()
        if task.timing == "after_route" or response is None:
            return (self,)
        return (self, *response.holding())

    def runs_in_this_task(self) -> bool:
        coro = self._coro()  # also behind the route, where a middleware may be: the response waits
        return coro is not None and coro is get_current_task().coro

    def runs_in_thread(self, thread: int, stack: Sequence[FrameType]) -> bool:  # noqa: ARG002
        if self._has_come("after_route"):
            return False
        code = code_of(self._endpoint)
        return code is not None and any(frame.f_code is code for frame in stack)


def _current_coro() -> Callable[[], object]:
    """A weak reference to the coroutine of the current task of the event loop.

    AnyIO's id of that task may be another one's when it has ended.
    """
    try:
        return ref(get_current_task().coro)
    except TypeError:  # one that is written in C, maybe
        return lambda: None
