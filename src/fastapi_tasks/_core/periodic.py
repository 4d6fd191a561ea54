"""`every()`: work that comes again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    final,
    overload,
)

from .clock import Clock
from .config import TaskConfig, TaskErrorHandler, TaskRetry
from .function import Handle, Uncallable, why_not
from .lifetime import neutral_context
from .scheduler import TaskScheduler
from .supervised import SupervisedTask
from .supervisor import Supervisor
from .task import Task
from .times import Times

P = ParamSpec("P")
T = TypeVar("T")


@final
class PeriodicTask(Handle, Generic[P, T]):
    """A clock: what `every(...).schedule()` returns. Each of its rounds is a task of its own.

    `await` it to wait until it has ended: by `cancel()`, with the lifespan, or since its period
    function says so. It raises nothing of the rounds' outcomes.
    """

    __slots__ = ("__weakref__", "_clock", "_supervisor")

    def __init__(self, clock: Clock, supervisor: Supervisor) -> None:
        self._clock = clock
        self._supervisor = supervisor

    @property
    def name(self) -> str:
        """The name of its rounds."""
        return self._clock.name

    @property
    def last(self) -> Task[P, T] | None:
        """The latest round; `None` before the first one."""
        return cast("Task[P, T] | None", self._clock.last)

    @property
    def next_at(self) -> datetime | None:
        """When the next round is planned, as an aware datetime; `None` if the clock has ended.

        Or if it has not begun. Of a fixed rate it is in UTC.
        """
        return self._clock.next_at

    @property
    def rounds(self) -> int:
        """How many rounds have begun, in all lifespans."""
        return self._clock.rounds

    @property
    def skipped(self) -> int:
        """How many rounds were skipped."""
        return self._clock.skipped

    def cancel(self) -> None:
        """End the clock for good, from any thread. A round under way goes on (see `last`)."""
        self._supervisor.clocks.remove(self._clock)

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until the clock has ended.

        Raises:
            FastAPITasksError: it has not begun, since the app's lifespan does not run.
        """
        return self._clock.wait()

    def __repr__(self) -> str:
        return f"<PeriodicTask {self.name!r}, {self.rounds} rounds>"


@final
class PeriodicScheduler(Uncallable):
    """Schedules periodic work, with one set of options. It can be kept, and used many times."""

    __slots__ = ("__weakref__", "_config", "_supervisor", "_times")

    def __init__(
        self, supervisor: Supervisor, config: TaskConfig, times: Callable[[], Times]
    ) -> None:
        self._supervisor = supervisor
        self._config = config
        self._times = times

    @overload
    def schedule(
        self, func: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PeriodicTask[P, T]: ...

    @overload
    def schedule(
        self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> PeriodicTask[P, T]: ...

    def schedule(
        self, func: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> PeriodicTask[..., Any]:
        """Have `func` called again and again, each time as a task.

        Each round runs in a fresh copy of the context of this call. There are never two at once: a
        round that comes while the one before still runs is skipped, as is one that `max_tasks`
        refuses. A round that fails is logged, and the next one comes.

        Raises:
            TypeError: as `TaskScheduler.schedule()`.
            TasksClosedError: in a process that was forked from the app's.
        """
        supervisor = self._supervisor
        model: SupervisedTask[..., Any] = SupervisedTask(
            func, args, kwargs, self._config, "now", supervisor, None
        )
        schedule = _Round(TaskScheduler(supervisor, None, "now", self._config), func, args, kwargs)
        del func, args, kwargs  # no traceback of what follows shows them (G13)
        if model.is_async is None:
            raise TypeError(why_not(model.func))
        supervisor.find_dependencies(model)
        supervisor.lifetime.refuse_if_forked()
        clock = Clock(model.name, self._times(), schedule, supervisor)
        supervisor.clocks.add(clock)
        return PeriodicTask(clock, supervisor)

    def task(
        self,
        *,
        name: str | None = None,
        shield: bool | None = None,
        on_error: TaskErrorHandler | Literal[False] | None = None,
        timeout: float | Literal[False] | None = None,
        retry: TaskRetry | Literal[False] | None = None,
        limiter: AbstractAsyncContextManager[Any] | Literal[False] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> PeriodicScheduler:
        """Return a scheduler whose rounds have these options (see `TaskConfig`).

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
            labels=labels,
        )
        return PeriodicScheduler(self._supervisor, self._config.merge(options), self._times)

    if not TYPE_CHECKING:  # pragma: no branch: it says the same of this

        def __call__(self, *_: object, **__: object) -> NoReturn:
            raise TypeError(
                "every() returns a scheduler, not a decorator: write "
                "runner.every(60).schedule(func, arg)"
            )


class _Round:
    """What schedules the rounds of a clock. It shows nobody what it holds (G13)."""

    __slots__ = ("_args", "_context", "_func", "_kwargs", "_scheduler")

    def __init__(
        self,
        scheduler: TaskScheduler,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._scheduler = scheduler
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._context = neutral_context()  # a later lifespan may have another event loop

    def __call__(self) -> Task[..., Any]:
        return self._context.copy().run(self._schedule)

    def _schedule(self) -> Task[..., Any]:
        return self._scheduler.schedule(self._func, *self._args, **self._kwargs)
