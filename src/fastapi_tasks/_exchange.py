"""One request and its response, as the server sees them.

The exchange watches a request as ASGI, from the outermost place: what it sees the app send is what
the server gets, whoever made the response. It tells the request's tasks when the response starts,
and when it has ended. The route's end is the one thing it cannot see.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ._lifespan import Message, Send
from ._request import RequestTasks
from ._runner import TaskRunner

_NONE: dict[TaskRunner, RequestTasks] = {}


class Exchange:
    """One request and its response, as the server sees them.

    There is one for each request, with tasks or without: it does next to nothing until the first.
    """

    __slots__ = ("_responding", "_tasks", "_trailers", "ended", "runner")

    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner  # of the innermost app on the request's way whose runner is running
        self._tasks = _NONE  # replaced, never changed
        self._responding = False  # the response has started
        self.ended = False  # its last message has been handed over
        self._trailers = False  # the last message will be trailers

    def tasks(self) -> RequestTasks:
        """The request's tasks, which exist from the first call on."""
        tasks = self._tasks.get(self.runner)
        if tasks is None:
            tasks = RequestTasks(self.runner)
            self._tasks = {**self._tasks, self.runner: tasks}
            if self._responding:
                tasks._respond()
            if self.ended:
                tasks._release()
        return tasks

    def watch(self, send: Send) -> Send:
        """A `send` that passes the app's messages on to the server, timing points around them.

        The exchange does not keep it: it stands in the ASGI scope, which the server's `send` knows.
        Most messages have nothing to wait for, and get no coroutine around the server's.
        """

        def send_and_watch(message: Message) -> Awaitable[None]:
            match message["type"]:
                case "http.response.start":
                    self._responding = True
                    self._trailers = message.get("trailers", False)
                    return self._send_first(send, message) if self._tasks else send(message)
                case "http.response.body":
                    is_last = not (self._trailers or message.get("more_body", False))
                case "http.response.pathsend":
                    is_last = not self._trailers
                case "http.response.trailers":
                    is_last = not message.get("more_trailers", False)
                case _:
                    is_last = False
            if is_last:
                if self._tasks:
                    return self._send_last(send, message)
                self.ended = True
            return send(message)

        return send_and_watch

    async def _send_first(self, send: Send, message: Message) -> None:
        for tasks in self._tasks.values():
            await tasks._response_starts()
        await send(message)

    async def _send_last(self, send: Send, message: Message) -> None:
        await send(message)
        self.end()

    def end(self) -> None:
        """The last message was sent, or there will be none."""
        self.ended = True
        for tasks in self._tasks.values():
            tasks._release()
