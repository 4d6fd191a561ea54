"""The three timing points of one request, and the order its tasks start in.

Theory of operation
-------------------

The *exchange* watches one request as ASGI, from the outermost place: what it sees the app send is
what the server gets, whoever made the response. It tells the request's tasks which timing point has
come. The route's end is the one thing it cannot see; `_fastapi` reports that.

*Order* (G4). Tasks that are spawned together do not start in that order on Trio, which reverses
every other batch. So a request keeps those of its tasks that have been spawned and have not started
in a queue, and each, when it runs first, yields until it is the queue's head. That is enough,
because all tasks spawned earlier get to run within the same round of the event loop: asyncio never
yields here, and Trio does so once per task on average. A chain, in which each task starts the next
one, would take a whole round for each.

It is also all that *responses* have to wait for (G3): until the queue is empty.
"""

from __future__ import annotations

import logging
from collections import deque
from contextvars import copy_context
from typing import Any

from anyio.lowlevel import cancel_shielded_checkpoint

from ._call import without_cancellations
from ._lifespan import Message, Send
from ._runner import TaskRunner, names
from ._scheduler import DerivedScheduler, TaskScheduler
from ._task import Task, TaskState, Timing

logger = logging.getLogger("fastapi_tasks")


class RequestTasks(TaskScheduler):
    """The scheduler of one request; as such it schedules tasks that start now.

    "Now" is when the endpoint first waits for something, and before the response starts.

    Attributes:
        runner: the app's runner, for work that belongs to no request.
    """

    __slots__ = ("__weakref__", "_queue", "_waiting", "runner")

    def __init__(self, runner: TaskRunner) -> None:
        super().__init__("now", runner._config)
        self.runner = runner
        # The timing points still to come, in their order. The runner's lock guards both.
        self._waiting: dict[Timing, list[Task[..., Any]]] = {
            "after_route": [],
            "after_response": [],
        }
        self._queue: deque[Task[..., Any]] = deque()

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
        self.runner._submit_to(self, task)

    # What follows is called by the exchange and by the runner.

    def add(self, task: Task[..., Any], *, draining: bool) -> bool:
        waiting = self._waiting.get(task.timing)
        if waiting is None or draining:  # now, or its point has passed (G7)
            self._queue.append(task)
            return True
        task._context = copy_context()
        waiting.append(task)
        return False

    def reach(self, timing: Timing) -> None:
        """A timing point has come: start the tasks that wait for it, once."""
        with self.runner._lock:
            tasks = self._waiting.pop(timing, ())
            self._queue.extend(tasks)
        for task in tasks:
            self.runner._start(task)

    def release(self) -> None:
        self.reach("after_route")
        self.reach("after_response")

    def route_failed(self, error: BaseException) -> None:
        """Drop what waits for a timing point (G6), unless the response is under way already.

        A route that was cancelled did not fail by itself: the server cut it off, as it does in a
        shutdown. What is shielded survives that (G17).
        """
        cut_off = without_cancellations(error) is None
        with self.runner._lock:
            waiting = self._waiting.values() if "after_route" in self._waiting else ()
            dropped = [
                task
                for tasks in waiting
                for task in tasks
                if task.state is TaskState.PENDING and not (cut_off and task.config.shielded)
            ]
        for task in dropped:
            self.runner._discard(task)
        if dropped:
            logger.info(
                "the route failed: dropped %d task(s) that were to run after it: %s",
                len(dropped),
                names(dropped),
            )
        self.reach("after_route")

    async def turn(self, task: Task[..., Any]) -> None:
        while task.state is TaskState.PENDING and self._next() is not task:
            await cancel_shielded_checkpoint()
        if task.state is TaskState.PENDING:
            self._queue.popleft()

    async def all_started(self) -> None:
        """Wait until what has been spawned has started: a few rounds of the event loop."""
        while self._next() is not None:
            await cancel_shielded_checkpoint()

    def _next(self) -> Task[..., Any] | None:
        """The task whose turn to start it is; those that were cancelled have none."""
        while self._queue and self._queue[0].state is not TaskState.PENDING:
            self._queue.popleft()
        return self._queue[0] if self._queue else None


class Exchange:
    """One request and its response, as the server sees them.

    There is one for each request, with tasks or without: it does next to nothing until the first.
    """

    __slots__ = ("_ended", "_responding", "_send", "_tasks", "_trailers", "runner")

    def __init__(self, runner: TaskRunner, send: Send) -> None:
        self.runner = runner  # of the innermost app on the request's way whose runner is running
        self._send = send
        self._tasks: dict[TaskRunner, RequestTasks] = {}
        self._responding = False  # the response has started
        self._ended = False  # its last message has been sent
        self._trailers = False  # the last message will be trailers

    @property
    def tasks(self) -> RequestTasks | None:
        return self._tasks.get(self.runner)

    def begin(self) -> tuple[RequestTasks, bool]:
        """Make the request's tasks; also return whether the route's end is still to come."""
        tasks = self._tasks[self.runner] = RequestTasks(self.runner)
        if self._responding:
            tasks.reach("after_route")
        if self._ended:
            tasks.release()
        return tasks, not (self._responding or self._ended)

    async def send(self, message: Message) -> None:
        """Pass a message of the app's on to the server, with the timing points around it."""
        if message["type"] == "http.response.start":
            self._responding = True
            self._trailers = message.get("trailers", False)
            for tasks in tuple(self._tasks.values()):
                tasks.reach("after_route")  # which the route's end has done, if the route made this
                await tasks.all_started()
        await self._send(message)
        if self._is_last(message):
            self.end()

    def _is_last(self, message: Message) -> bool:
        match message["type"]:
            case "http.response.body":
                return not (self._trailers or message.get("more_body", False))
            case "http.response.pathsend":
                return not self._trailers
            case "http.response.trailers":
                return not message.get("more_trailers", False)
            case _:
                return False

    def end(self) -> None:
        """The last message was sent, or there will be none."""
        self._ended = True
        for tasks in self._tasks.values():
            tasks.release()
