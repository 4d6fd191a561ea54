"""One request and its response, as the server sees them.

The exchange watches a request as ASGI, from the outermost place: what it sees the app send is what
the server gets, whoever made the response. It tells each run of a route when the response starts,
and when it has ended. The route's end is the one thing it cannot see.
"""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from starlette.types import Message, Send

from .._core.supervised import SupervisedTask
from .._core.supervisor import Supervisor
from .._core.timing import RouteRun

_Runs: TypeAlias = MutableMapping[int, RouteRun]  # by their `id()`
_NONE: _Runs = {}


class Exchange:
    """One request and its response.

    There is one for each request, with tasks or without: it does next to nothing until the first.
    """

    __slots__ = ("__weakref__", "_has_response", "_is_responding", "_runs", "_trailers", "ended")

    def __init__(self) -> None:
        # The runs of routes that have tasks; one as a rule. More are kept only as long as somebody
        # else keeps them, for there may be any number: their endpoint, a task that waits.
        self._runs = _NONE
        self._is_responding = False  # the response has started
        self.ended: bool = False  # its last message has been handed over
        self._trailers = False  # the last message will be trailers
        self._has_response = False  # there is a response: a WebSocket has none

    def begin(self, supervisor: Supervisor, endpoint: object) -> RouteRun:
        """A run of a route has tasks from now on."""
        run = RouteRun(supervisor, self, endpoint)
        if not self._runs:
            self._runs = {id(run): run}
        else:
            if isinstance(self._runs, dict):
                self._runs = WeakValueDictionary(self._runs)
            self._runs[id(run)] = run
        if self._is_responding:
            run.response_starts()
        if self.ended:
            run.reach_all()
        return run

    def watch(self, send: Send) -> Send:
        """A `send` that passes the app's messages on to the server, timing points around them.

        The exchange does not keep it: it stands in the ASGI scope, which the server's `send` knows.
        Most messages have nothing to wait for, and get no coroutine around the server's.
        """

        self._has_response = True

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
        while True:
            is_held = False
            for run in tuple(self._runs.values()):
                run.reach("after_route")  # the start of the response counts as each route's end
                await run.all_started()
                for task in run.holding():
                    is_held = True
                    await task.finished.wait()
            if not is_held:  # nor anything that was handed over meanwhile
                break
        self._is_responding = True
        for run in tuple(self._runs.values()):
            run.response_starts()
        await send(message)

    def holding(self) -> list[SupervisedTask[..., Any]]:
        """The tasks that the response still waits for."""
        if self._is_responding or not self._has_response:
            return []
        runs = tuple(self._runs.values())
        return [task for run in runs for task in run.holding()]

    async def _send_last(self, send: Send, message: Message) -> None:
        await send(message)
        self.end()

    def end(self) -> None:
        """The last message was sent, or there will be none."""
        self.ended = True
        for run in tuple(self._runs.values()):
            run.reach_all()
