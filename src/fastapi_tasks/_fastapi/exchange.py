"""One request and its response, as the server sees them.

The exchange watches a request as ASGI, from the outermost place: what it sees the app send is what
the server gets, whoever made the response. It tells the request's tasks when the response starts,
and when it has ended. The route's end is the one thing it cannot see.
"""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from .._core.supervisor import TaskRunner
from .._core.task import Task
from .._core.timing import RequestTasks
from .lifespan import Message, Send

_Runs: TypeAlias = MutableMapping[object, RequestTasks]
_NONE: _Runs = {}


class Exchange:
    """One request and its response, as the server sees them.

    There is one for each request, with tasks or without: it does next to nothing until the first.
    """

    __slots__ = ("__weakref__", "_is_responding", "_runs", "_trailers", "_watches", "ended")

    def __init__(self) -> None:
        # The tasks of each run of a route; of one as a rule. More are kept only as long as somebody
        # else keeps them, for there may be any number: their endpoint, a task that waits.
        self._runs = _NONE
        self._is_responding = False  # the response has started
        self.ended: bool = False  # its last message has been handed over
        self._trailers = False  # the last message will be trailers
        self._watches = False  # there is a response: a WebSocket has none

    def tasks_of(self, run: object) -> RequestTasks | None:
        """The tasks of a run of a route, if there are any; `run` is an object only it has."""
        return self._runs.get(run)

    def begin(self, run: object, runner: TaskRunner, endpoint: object) -> RequestTasks:
        """Make the tasks of a run of a route."""
        tasks = RequestTasks(runner, self, endpoint)
        if not self._runs:
            self._runs = {run: tasks}
        else:
            if isinstance(self._runs, dict):
                self._runs = WeakValueDictionary(self._runs)
            self._runs[run] = tasks
        if self._is_responding:
            tasks._response_starts()
        if self.ended:
            tasks._release()
        return tasks

    def watch(self, send: Send) -> Send:
        """A `send` that passes the app's messages on to the server, timing points around them.

        The exchange does not keep it: it stands in the ASGI scope, which the server's `send` knows.
        Most messages have nothing to wait for, and get no coroutine around the server's.
        """

        self._watches = True

        def send_and_watch(message: Message) -> Awaitable[None]:
            match message["type"]:
                case "http.response.start":
                    is_last = False
                    self._trailers = message.get("trailers", False)
                    if self._runs:
                        return self._send_first(send, message)
                    self._is_responding = True
                case "http.response.body":
                    is_last = not (self._trailers or message.get("more_body", False))
                case "http.response.pathsend":
                    is_last = not self._trailers
                case "http.response.trailers":
                    is_last = not message.get("more_trailers", False)
                case _:
                    is_last = False
            return self._send_last(send, message) if is_last else send(message)

        return send_and_watch

    async def _send_first(self, send: Send, message: Message) -> None:
        """Start what comes before the response, wait for what holds it, and send its start."""
        is_held = True
        while is_held:
            is_held = False
            for tasks in tuple(self._runs.values()):
                tasks._reach("after_route")  # the start of the response counts as each route's end
                await tasks._all_started()
                for task in tasks._unfinished_holding():
                    is_held = True
                    await task.finished.wait()
        self._is_responding = True
        for tasks in tuple(self._runs.values()):
            tasks._response_starts()
        await send(message)

    def holding(self) -> list[Task[..., Any]]:
        """The tasks that the response still waits for."""
        if self._is_responding or not self._watches:
            return []
        runs = tuple(self._runs.values())
        return [task for tasks in runs for task in tasks._unfinished_holding()]

    async def _send_last(self, send: Send, message: Message) -> None:
        await send(message)
        self.end()

    def end(self) -> None:
        """The last message was sent, or there will be none."""
        self.ended = True
        for tasks in tuple(self._runs.values()):
            tasks._release()
