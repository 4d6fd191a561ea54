"""Where the library meets FastAPI: `add_tasks`.

Some things here lean on others' insides, for want of a public way:

* `Starlette.build_middleware_stack` (public, called once, at the first message) is replaced, since
  what it returns is the outermost place an app can be wrapped at. `add_middleware` is not: later
  middlewares go outside of earlier ones.
* OpenTelemetry's instrumentation, if it came first, keeps the function that it has replaced under a
  private name, and puts it back when it is taken off. So that one is replaced, too.

Tested with FastAPI 0.134 to 0.165, and OpenTelemetry's instrumentation 0.66.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .._core.config import TaskConfig, is_seconds
from .._core.function import type_name
from .._core.instrument import Instrument
from .._core.runner import TaskRunner
from .._core.supervisor import Supervisor
from ..errors import FastAPITasksError, FastAPITasksUninitializedAppError
from .dependencies import Injector
from .exchange import Exchange
from .lifespan import Lifespans
from .tasks import APP_TASKS, EXCHANGE, NO_TASKS, AppTasks

_STATE = "fastapi_tasks"  # the runner's name in `app.state`
_ORIGINAL_BUILD = "_original_build_middleware_stack"  # what OpenTelemetry puts back


def add_tasks(
    app: FastAPI,
    *,
    config: TaskConfig | None = None,
    grace_period: float = 0,
    shield_timeout: float | None = None,
    max_tasks: int | None = None,
    max_threads: int = 40,
    instruments: Iterable[Instrument] = (),
) -> TaskRunner:
    """Switch background tasks on for an app; call it once, before the app starts.

    Where it stands among middlewares, routers and lifespans makes no difference. An app that is
    mounted inside another one uses the outer app's runner, since servers do not run the lifespans
    of mounted apps.

    Args:
        config: the default options of all tasks.
        grace_period: seconds that tasks have to finish when the app shuts down, before those that
            are not shielded are cancelled.
        shield_timeout: seconds that shielded tasks have after that, before they are cancelled too;
            `None` waits for them without limit. A function that runs in a thread cannot be
            cancelled and is always waited for.
        max_tasks: how many tasks may be unfinished at a time, past which `schedule()` raises
            `TooManyTasksError`; `None` for no limit.
        max_threads: how many sync functions run at a time. They do not take the threads of `def`
            endpoints.
        instruments: objects that are told of every task.

    Returns:
        The app's runner, for work that belongs to no request.

    Raises:
        FastAPITasksError: on a second call for the same app, or after the app has started.
        TypeError, ValueError: for arguments that make no sense.
    """
    if not isinstance(app, FastAPI):
        raise TypeError(f"add_tasks() takes a FastAPI app, not {type_name(app)}")
    if config is not None and not issubclass(type(config), TaskConfig):
        raise TypeError(f"config must be a TaskConfig, not {type_name(config)}")
    if hasattr(app.state, _STATE):
        raise FastAPITasksError("add_tasks() was called for this app already: call it once")
    if app.middleware_stack is not None:
        raise FastAPITasksError("the app has started already: call add_tasks(app) where it is made")
    _check_seconds("grace_period", grace_period)
    if shield_timeout is not None:
        _check_seconds("shield_timeout", shield_timeout)
    if max_tasks is not None:
        _check_count("max_tasks", max_tasks)
    _check_count("max_threads", max_threads)
    injector = Injector(app)
    supervisor = Supervisor(
        config or TaskConfig(),
        max_tasks=max_tasks,
        max_threads=max_threads,
        instruments=instruments,
        find_dependencies=injector.find,
    )
    tasks = injector.tasks = AppTasks(TaskRunner(supervisor), supervisor)
    setattr(app.state, _STATE, tasks.runner)
    lifespans = Lifespans(supervisor, grace_period=grace_period, shield_timeout=shield_timeout)
    for name in ("build_middleware_stack", _ORIGINAL_BUILD):
        if (build := getattr(app, name, None)) is not None:
            setattr(app, name, partial(_build, build, injector, lifespans))
    return tasks.runner


def _build(build: Callable[[], ASGIApp], injector: Injector, lifespans: Lifespans) -> ASGIApp:
    return _Outermost(build(), injector, lifespans)


def get_runner(app: FastAPI) -> TaskRunner:
    """The runner that `add_tasks(app)` has made.

    Raises:
        FastAPITasksUninitializedAppError: it was not called.
    """
    runner: TaskRunner | None = getattr(app.state, _STATE, None)
    if runner is None:
        raise FastAPITasksUninitializedAppError(NO_TASKS)
    return runner


def _check_seconds(name: str, value: float) -> None:
    if not is_seconds(value):
        raise ValueError(f"{name} must be a number of seconds from 0 up, not {value!r}")


def _check_count(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")


class _Outermost(ServerErrorMiddleware):
    """Starlette's whole middleware stack, with the timing points of requests around it.

    It has the class that Starlette gives the outermost middleware, and the wrapping in `app`,
    because there OpenTelemetry's instrumentation looks for both: it takes `app` out and puts layers
    of its own around it. It handles no errors: the one inside does.
    """

    def __init__(self, stack: ASGIApp, injector: Injector, lifespans: Lifespans) -> None:
        super().__init__(_wrap(stack, injector, lifespans))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        return self.app(scope, receive, send)  # without a coroutine around it


def _wrap(stack: ASGIApp, injector: Injector, lifespans: Lifespans) -> ASGIApp:
    tasks = injector.tasks

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            injector.state = scope.get("state")
            await lifespans.run(partial(stack, scope), receive, send)
        elif (outer := scope.get(EXCHANGE)) is not None and not outer.ended:
            await _serve_mounted(stack, tasks, scope, receive, send)
        else:
            if tasks.supervisor.admits_tasks or APP_TASKS not in scope:
                scope[APP_TASKS] = tasks
            exchange = scope[EXCHANGE] = Exchange()
            if scope["type"] == "http":
                send = exchange.watch(send)
            try:
                await stack(scope, receive, send)
            finally:
                if not exchange.ended:
                    exchange.end()

    return serve


async def _serve_mounted(
    stack: ASGIApp, tasks: AppTasks, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve from inside an app with tasks, which watches the response."""
    outer = scope[APP_TASKS]  # of the innermost app on the request's way whose tasks may run
    if tasks.supervisor.admits_tasks:
        scope[APP_TASKS] = tasks
    try:
        await stack(scope, receive, send)
    finally:
        scope[APP_TASKS] = outer  # a middleware may try another app
