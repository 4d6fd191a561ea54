"""The three timing points of one request, and the order its tasks start in.

Theory of operation
-------------------

The request's exchange (`_exchange`) tells the tasks when the response starts and when it has ended;
`_fastapi` tells them when the route has.

*Order* (G4). Tasks that are spawned together do not start in that order on Trio, which reverses
every other batch. So a request keeps those of its tasks that have been spawned and have not started
in a queue, and each, when it runs first, yields until it is the queue's head. That is enough,
because all tasks spawned earlier get to run within the same round of the event loop: asyncio need
not yield, but for tasks on their way from threads, and Trio does so once per task on average. A
chain, in which each task starts the next one, would take a whole round for each.

It is also all that *responses* have to wait for (G3): until what stands in the queue has started.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from logging import INFO
from typing import Any
from weakref import WeakSet

from anyio import get_current_task
from anyio.lowlevel import cancel_shielded_checkpoint

from ._call import without_cancellations
from ._log import log, names
from ._registry import DRAINING
from ._runner import TaskRunner
from ._scheduler import DerivedScheduler, TaskScheduler
from ._task import PENDING, Task, Timing


class RequestTasks(TaskScheduler):
    """The scheduler of one request; as such it schedules tasks that start now.

    "Now" is when the endpoint first waits for something, and before the response starts.

    Attributes:
        runner: the app's runner, for work that belongs to no request.
    """

    runner: TaskRunner

    __slots__ = (
        "__weakref__",
        "_holding",
        "_queue",
        "_responded",
        "_route",
        "_route_task",
        "_waiting",
        "runner",
    )

    def __init__(self, runner: TaskRunner) -> None:
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
        self._route: object = None
        self._route_task = 0  # the id of the event-loop task that it runs in

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
            if task.config.hold_response and not self._responded:
                self._hold_response_for(task)
            waiting = self._waiting.get(task.timing)
            if waiting is None or self.runner._registry.phase is DRAINING:  # now, or passed (G7)
                self._queue.append(task)
                return True
            if task.state is PENDING:
                task._context = copy_context()
                waiting[task] = None
            return False

    def _hold_response_for(self, task: Task[..., Any]) -> None:
        if task.timing != "after_response":
            if self._holding is None:
                self._holding = WeakSet()
            self._holding.add(task)

    def _remove(self, task: Task[..., Any]) -> None:
        self._waiting.get(task.timing, {}).pop(task, None)

    def _begin_route(self, route: object) -> bool:
        """Note which route is running; return whether its end is to be reported.

        `route` is any object that only this run of the route has. There is more than one in a
        request when a middleware calls the app again.
        """
        if route is self._route or self._responded:  # known, or too late to matter
            return False
        with self.runner._registry.lock:
            self._waiting = {"after_route": {}, **self._waiting}
        self._route, self._route_task = route, get_current_task().id
        return True

    def _reach(self, timing: Timing) -> None:
        """A timing point has come: start the tasks that wait for it, once."""
        with self.runner._registry.lock:
            tasks = tuple(self._waiting.pop(timing, ()))
            self._queue.extend(tasks)
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

    def _holds_up(self, task: Task[..., Any]) -> bool:
        return (
            task in self._waiting.get(task.timing, ()) and get_current_task().id == self._route_task
        )

    async def _response_starts(self) -> None:
        """Start what comes before the response, and wait for what holds it."""
        self._reach("after_route")  # which the route's end has done, if the route made the response
        await self._all_started()
        while holding := self._unfinished_holding():
            for task in holding:
                await task.finished.wait()
            await self._all_started()
        self._responded = True

    def _unfinished_holding(self) -> list[Task[..., Any]]:
        with self.runner._registry.lock:  # threads may add to it
            return [task for task in self._holding or () if not task._is_finished]

    async def _all_started(self) -> None:
        """Wait until what was handed over has started; not what that hands over, without end."""
        for task in tuple(self._queue):
            while task.state is PENDING:
                await cancel_shielded_checkpoint()

    def _respond(self) -> None:
        """The response had started before the first use of tasks."""
        self._reach("after_route")
        self._responded = True
