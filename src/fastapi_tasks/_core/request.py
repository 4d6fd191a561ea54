"""The tasks of one run of a route: what users hold of its timing."""

from __future__ import annotations

from typing import final

from .runner import TaskRunner
from .scheduler import TaskScheduler
from .timing import RouteRun


@final
class RequestTasks(TaskScheduler):
    """The scheduler of one run of a route; as such it schedules tasks that start now.

    "Now" is when the endpoint first waits for something, and before the response starts.

    Attributes:
        runner: the app's runner, for work that belongs to no request.
    """

    __slots__ = ("runner",)

    def __init__(self, runner: TaskRunner, run: RouteRun) -> None:
        super().__init__(run.supervisor, run, "now", run.supervisor.config)
        self.runner: TaskRunner = runner

    @property
    def after_route(self) -> TaskScheduler:
        """For tasks that start when the endpoint has returned, before the response is sent.

        Function-scoped dependencies are closed by then. If the route fails, these are dropped.
        """
        return TaskScheduler(self._supervisor, self._route, "after_route", self._config)

    @property
    def after_response(self) -> TaskScheduler:
        """For tasks that start when the whole response has been handed to the server.

        If the route fails, these are dropped.
        """
        return TaskScheduler(self._supervisor, self._route, "after_response", self._config)
