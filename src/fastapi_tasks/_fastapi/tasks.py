"""The `Tasks` that FastAPI injects.

`_watch_route` pushes a callback onto the exit stack of FastAPI's function scope, which FastAPI
keeps in the ASGI scope under a private name. Tested with FastAPI 0.134 to 0.165.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, WebSocketDisconnect
from fastapi.requests import HTTPConnection

from .._core.exception import is_a, parts_of
from .._core.request import RequestTasks
from .._core.runner import TaskRunner
from .._core.supervisor import Supervisor
from .._core.timing import RouteRun
from ..errors import FastAPITasksError, FastAPITasksUninitializedAppError
from .exchange import Exchange

EXCHANGE = "fastapi_tasks"  # the keys in the ASGI scope
APP_TASKS = "fastapi_tasks.app"
_TASKS = "fastapi_tasks.tasks"
_FUNCTION_STACK = "fastapi_function_astack"  # FastAPI's
NO_TASKS = "this app has no tasks: call add_tasks(app) where the app is made"


class AppTasks(NamedTuple):
    """What `add_tasks()` has made for an app."""

    runner: TaskRunner
    supervisor: Supervisor


async def get_tasks(connection: HTTPConnection) -> RequestTasks:
    """The dependency behind `Tasks`: the one `RequestTasks` of a run of a route.

    Raises:
        FastAPITasksUninitializedAppError: `add_tasks(app)` is missing.
        FastAPITasksError: there is no route yet (in a middleware), or none of FastAPI's.
    """
    scope = connection.scope
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is None:
        raise FastAPITasksUninitializedAppError(NO_TASKS)
    stack: AsyncExitStack[bool | None] | None = scope.get(_FUNCTION_STACK)
    if stack is None:
        raise FastAPITasksError(
            "Tasks work in endpoints of FastAPI's routes and in their dependencies, and this is "
            "neither: elsewhere use the runner that add_tasks(app) returned"
        )
    known: tuple[object, RequestTasks] | None = scope.get(_TASKS)
    if known is not None and known[0] is stack:
        return known[1]
    app: AppTasks = scope[APP_TASKS]
    run = exchange.begin(app.supervisor, scope.get("endpoint"))
    _watch_route(stack, run)
    tasks = RequestTasks(app.runner, run)
    scope[_TASKS] = stack, tasks  # each run of a route has a stack of its own
    return tasks


Tasks = Annotated[RequestTasks, Depends(get_tasks)]
"""What an endpoint or a dependency declares to schedule tasks: `tasks: Tasks`."""


def _watch_route(stack: AsyncExitStack[bool | None], run: RouteRun) -> None:
    """Have the run told when FastAPI's function scope ends, after all its dependencies."""

    def route_ended(_: Any, error: BaseException | None, __: Any) -> None:
        if error is None or _is_disconnect(error):
            run.reach("after_route")
        else:
            run.route_failed(error)

    # Exit callbacks run last in, first out, and dependencies before this one in a signature have
    # put theirs there already: so slide ours in under them.
    earlier = stack.pop_all()
    stack.push(route_ended)
    stack.push_async_exit(earlier)


def _is_disconnect(error: BaseException) -> bool:
    """Whether it is one, or a group of nothing else."""
    return all(
        is_a(part, WebSocketDisconnect) or is_a(part, BaseExceptionGroup)
        for part in parts_of(error)
    )
