"""The timing points of one run of a route, and the order its tasks start in.

Theory of operation
-------------------

A request runs one route, as a rule; a middleware that tries again or a batch endpoint runs more,
and each run has tasks and timing points of its own. The request's exchange (`_exchange`) tells them
when the response starts and when it has ended; `_fastapi` tells a run when its route has.

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
from collections.abc import Iterable
from functools import partial
from logging import INFO
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from anyio import get_current_task
from anyio.lowlevel import cancel_shielded_checkpoint

from .exception import without_cancellations
from .function import is_async
from .log import log, names
from .registry import OPEN
from .scheduler import DerivedScheduler, TaskScheduler
from .supervisor import TaskRunner
from .task import PENDING, Task, Timing
from .waits import Waiter, is_call_of_thread, route, running

if TYPE_CHECKING:
    from .._fastapi.exchange import Exchange

_ROUNDS = 100  # of the event loop, within which what was handed over starts: it takes a few


class RequestTasks(TaskScheduler):
    """The scheduler of one run of a route; as such it schedules tasks that start now.

    "Now" is when the endpoint first waits for something, and before the response starts.

    Attributes:
        runner: the app's runner, for work that belongs to no request.
    """

    runner: TaskRunner

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_endpoint",
        "_exchange",
        "_holding",
        "_outer",
        "_queue",
        "_responded",
        "_route_task",
        "_waiting",
        "runner",
    )

    def __init__(
        self, runner: TaskRunner, exchange: Exchange | None = None, endpoint: object = None
    ) -> None:
        super().__init__("now", runner._config)
        self.runner = runner
        # The timing points still to come, in their order, and what waits for them; the queue is of
        # those that were spawned. Both are added to under the runner's lock.
        self._waiting: dict[Timing, dict[Task[..., Any], None]] = {
            "after_route": {},
            "after_response": {},
        }
        self._queue: deque[Task[..., Any]] = deque()
        # What the response waits for: weak, since a WebSocket may have any number, and no response.
        self._holding: WeakSet[Task[..., Any]] | None = None
        self._responded = False
        # Whose code it is that runs in the route, as far as waits are concerned.
        self._route_task = get_current_task().id
        self._endpoint = endpoint
        self._outer = running.get()  # the task that the whole request runs in, if any
        self._awaited: Iterable[Waiter] = ()
        self._exchange = None if exchange is None else ref(exchange)  # it has this, and would stay
        route.set(ref(self))

    @property
    def after_route(self) -> TaskScheduler:
        """For tasks that start when the endpoint has returned, before the response is sent.

        Function-scoped dependencies are closed by then. If the route fails, these are dropped.
        """
        return DerivedScheduler(self, "after_route", self._config)

    @property
    def after_response(self) -> TaskScheduler:
        """For tasks that start when the whole response has been handed to the server.

        If the route fails, these are dropped.
        """
        return DerivedScheduler(self, "after_response", self._config)

    def _submit(self, task: Task[..., Any]) -> None:
        task._line = self
        self.runner._submit(task)

    # What follows is called by the exchange and by the runner.

    def _add(self, task: Task[..., Any]) -> bool:
        with self.runner._registry.lock:
            if task.state is not PENDING:
                return False
            if task.config.hold_response and not self._responded:
                self._hold_response_for(task)
            waiting = self._waiting.get(task.timing)
            if waiting is None or self.runner._registry.phase is not OPEN:  # now, or passed (G7)
                self._queue.append(task)
                return True
            task._context = self.runner._host.copy_context()
            waiting[task] = None
            return False

    def _hold_response_for(self, task: Task[..., Any]) -> None:
        if task.timing != "after_response":
            if self._holding is None:
                self._holding = WeakSet()
            self._holding.add(task)

    def _remove(self, task: Task[..., Any]) -> None:
        self._waiting.get(task.timing, {}).pop(task, None)
        queue = self._queue  # what stands between others is taken out when their turn comes
        while queue and queue[-1].state is not PENDING:
            queue.pop()
        while queue and queue[0].state is not PENDING:
            queue.popleft()

    def _reach(self, timing: Timing) -> None:
        """A timing point has come: start the tasks that wait for it, once."""
        if timing not in self._waiting:
            return
        tasks: tuple[Task[..., Any], ...] = ()
        try:
            with self.runner._registry.lock:
                tasks = tuple(self._waiting[timing])
                self._queue.extend(tasks)
                del self._waiting[timing]
            self._start_all(tasks)
        except BaseException:
            self.runner._host.post(partial(self._start_all, tasks))
            raise

    def _start_all(self, tasks: Iterable[Task[..., Any]]) -> None:
        for task in tasks:
            self.runner._start_late(task)

    def _release(self) -> None:
        self._reach("after_route")
        self._reach("after_response")

    def _route_failed(self, error: BaseException) -> None:
        """Drop what waits for a timing point (G6), unless the response is under way already.

        A route that was cancelled did not fail by itself: the server cut it off, as it does in a
        shutdown. What is shielded survives that (G17).
        """
        cut_off = without_cancellations(error) is None
        with self.runner._registry.lock:
            waiting = self._waiting.values() if "after_route" in self._waiting else ()
            dropped = [
                task
                for tasks in waiting
                for task in tasks
                if task.state is PENDING
                and not task.config.even_if_failed
                and not (cut_off and task.config.shielded)
            ]
        for task in dropped:
            self.runner._discard(task)
        if dropped:
            log(
                INFO,
                "the route failed: dropped %d task(s) that were to run after it: %s",
                len(dropped),
                names(dropped),
            )
        self._reach("after_route")

    def _take_turn(self, task: Task[..., Any]) -> bool:
        queue = self._queue
        while queue[0] is not task:
            if queue[0].state is PENDING:
                return False
            queue.popleft()  # it was cancelled, and has no turn
        queue.popleft()
        return True

    # Whom it waits for, and who waits for it: see `_waits`.

    @property
    def _title(self) -> str:
        return "the route"

    def _needs(self) -> Iterable[Waiter]:
        return self._awaited

    def _needed_by(self, task: Task[..., Any]) -> Iterable[Waiter]:
        if task not in self._waiting.get(task.timing, ()):
            return ()
        exchange = None if self._exchange is None else self._exchange()
        if task.timing == "after_route" or exchange is None:
            return (self,)
        return (self, *exchange.holding())

    def _is_here(self) -> bool:
        if get_current_task().id == self._route_task:  # also behind the route: the response waits
            return True
        is_in_thread = (
            "after_route" in self._waiting
            and is_async(self._endpoint) is False
            and running.get() is self._outer
        )
        return is_in_thread and is_call_of_thread()

    def _response_starts(self) -> None:
        """The response starts now, or has started before this run of the route began."""
        self._reach("after_route")  # which the route's end has done, if the route made the response
        self._responded = True

    def _unfinished_holding(self) -> list[Task[..., Any]]:
        if self._holding is None:
            return []
        with self.runner._registry.lock:  # threads may add to it
            return [task for task in self._holding if not task._is_finished]

    async def _all_started(self) -> None:
        """Wait until what was handed over has started; not what that hands over, without end."""
        with self.runner._registry.lock:  # threads may add to it
            queue = tuple(self._queue)
        for task in queue:
            for _ in range(_ROUNDS):
                if task.state is not PENDING:
                    break
                await cancel_shielded_checkpoint()
            else:
                await task.started.wait()
