"""What has `schedule()` and `task()`: the one way in for every task."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from inspect import CO_COROUTINE
from sys import _getframe  # pyright: ignore[reportPrivateUsage]
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from .config import TaskConfig, TaskErrorHandler, TaskRetry
from .function import Uncallable, why_not
from .owner import Route
from .supervised import SupervisedTask
from .supervisor import Supervisor
from .task import Task, Timing

P = ParamSpec("P")
T = TypeVar("T")


class TaskScheduler(Uncallable):
    """Schedules tasks for one timing point, with one set of options.

    It can be kept, and used any number of times, from any thread.
    """

    __slots__ = ("__weakref__", "_config", "_route", "_supervisor", "_timing")

    def __init__(
        self, supervisor: Supervisor, route: Route | None, timing: Timing, config: TaskConfig
    ) -> None:
        self._supervisor = supervisor
        self._route = route
        self._timing: Timing = timing
        self._config = config

    @overload
    def schedule(
        self, func: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[P, T]: ...

    @overload
    def schedule(
        self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[P, T]: ...

    def schedule(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[..., Any]:
        """Hand over one call of `func`, to run later in a copy of the current context.

        An async function runs on the event loop, any other callable in a worker thread. What it
        raises is logged and harms nothing else. `schedule()` itself does not wait.

        While the app shuts down, a task that is not shielded does not run any more: it comes back
        `CANCELLED`, and a log line says so.

        Raises:
            TypeError: `func` is not callable (a coroutine object, say), or a generator function;
                or one of its dependencies needs what a task cannot have.
            FastAPITasksUninitializedAppError: the app's lifespan has not been run.
            TasksClosedError: the app has shut down.
            TooManyTasksError: as many tasks are unfinished as `add_tasks(max_tasks=)` allows.
        """
        task: SupervisedTask[..., Any] = SupervisedTask(
            func, args, kwargs, self._config, self._timing, self._supervisor, self._route
        )
        del func, args, kwargs  # no traceback of what follows shows them (G13)
        if task.is_async is None:
            raise TypeError(why_not(task.func))
        task.dependencies = self._supervisor.find_dependencies(task)
        # To find out whether a task of the event loop runs this takes longer than all the rest.
        caller = _getframe().f_back  # there is none where C starts a thread with this
        in_task = caller is not None and bool(caller.f_code.co_flags & CO_COROUTINE)
        try:
            self._supervisor.submit(task, in_task=in_task)
        except BaseException:
            self._supervisor.withdraw(task)
            raise
        return task

    def task(
        self,
        *,
        name: str | None = None,
        shield: bool | None = None,
        on_error: TaskErrorHandler | Literal[False] | None = None,
        timeout: float | Literal[False] | None = None,
        retry: TaskRetry | Literal[False] | None = None,
        limiter: AbstractAsyncContextManager[Any] | Literal[False] | None = None,
        hold_response: bool | None = None,
        even_if_failed: bool | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> TaskScheduler:
        """Return a scheduler for the same timing point with these options (see `TaskConfig`).

        Raises:
            TypeError: for a value of another type.
            ValueError: for a negative `timeout`.
        """
        options = TaskConfig(
            name=name,
            shield=shield,
            on_error=on_error,
            timeout=timeout,
            retry=retry,
            limiter=limiter,
            hold_response=hold_response,
            even_if_failed=even_if_failed,
            labels=labels,
        )
        return TaskScheduler(
            self._supervisor, self._route, self._timing, self._config.merge(options)
        )

    if not TYPE_CHECKING:  # pragma: no branch: they say the same of these

        def __call__(self, *_: object, **__: object) -> NoReturn:
            where = {"now": "tasks"}.get(self._timing, f"tasks.{self._timing}")
            raise TypeError(
                f"{where} is a scheduler, not a function: write {where}.schedule(func, arg)"
            )

        def __getattr__(self, name: str) -> NoReturn:
            if name == "add_task":
                raise AttributeError(
                    "tasks are scheduled, at a timing point: where BackgroundTasks have "
                    "add_task(func, arg), write tasks.after_response.schedule(func, arg)"
                )
            if name == "every":
                raise AttributeError(
                    "clocks are the runner's, and take their options after the period: write "
                    "runner.every(60).task(name=name).schedule(func, arg)"
                )
            raise AttributeError(f"{type(self).__qualname__!r} object has no attribute {name!r}")
