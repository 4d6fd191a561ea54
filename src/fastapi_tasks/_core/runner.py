"""The runner: what users hold of an app's supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, final

from anyio import Event

from ..errors import FastAPITasksError
from .identity import is_of_this_process
from .instrument import GuardedInstrument, Instrument
from .period import Period, times_of
from .periodic import PeriodicScheduler
from .registry import Registry
from .scheduler import TaskScheduler
from .statistics import TaskStatistics
from .supervisor import Supervisor
from .task import Task
from .waits import RecordedWait, Waiter, path, waiters_here


@final
class TaskRunner(TaskScheduler):
    """Owns the tasks of an app, and schedules those that belong to no request.

    `add_tasks()` makes it. It works while the app's lifespan runs, from any thread, for the
    lifespan's own code and for tasks as well.
    """

    __slots__ = ()

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(supervisor, None, "now", supervisor.config)
        for instrument in supervisor.instruments:
            instrument.attached(self)

    @property
    def running(self) -> bool:
        """Whether tasks are admitted: from the lifespan's start to the end of the drain."""
        return self._supervisor.admits_tasks

    @property
    def stopping(self) -> Event:
        """Set when the app begins to shut down: the moment for endless loops to end.

        A new event for each lifespan.
        """
        return self._supervisor.lifetime.stopping

    @property
    def tasks(self) -> tuple[Task[..., Any], ...]:
        """The unfinished tasks; those that wait for their timing point are among them."""
        return self._supervisor.registry.list_tasks()

    def get_task(self, id_: str, /) -> Task[..., Any] | None:
        """Return the unfinished task of that `Task.id`; `None` if there is none (any more)."""
        return self._supervisor.registry.find(id_)

    def has_made(self, id_: str, /) -> bool:
        """Whether that is the `Task.id` of a task of this process, of whatever age."""
        return is_of_this_process(id_)

    def every(
        self, period: Period, *, jitter: float = 0, first: float | None = None
    ) -> PeriodicScheduler:
        """Return a scheduler for work that comes again: `runner.every(60).schedule(clean_up)`.

        Made while no lifespan runs, at import time say, it begins with each lifespan anew, when the
        app has started; made while one runs, it begins at once and ends with that, as `stopping` is
        set. Each worker process has its own.

        Args:
            period: seconds from one round to the next, on the event loop's clock, without drift. Or
                a function on the wall clock: it gets the last planned time, as an aware `datetime`
                (`None` at first), and returns the next one, or `None` to end.
            jitter: seconds, up to which each round comes later than planned, by chance.
            first: seconds until the first round; one period if it is `None`.

        Raises:
            TypeError, ValueError: for values that make no sense.
        """
        times = times_of(period, jitter, first)
        return PeriodicScheduler(self._supervisor, self._config, times)

    def statistics(self) -> TaskStatistics:
        """Return the counts of this moment."""
        return self._supervisor.registry.statistics()

    def watching(self, instrument: Instrument) -> AbstractContextManager[None]:
        """Tell an instrument, too, of what happens to tasks while the `with` block lasts.

        Raises:
            TypeError: it is not an object of `Instrument` or of a class derived from that.
        """
        guarded = GuardedInstrument(instrument)
        guarded.attached(self)
        return self._supervisor.watching(guarded)

    async def join(self) -> None:
        """Wait until no task is unfinished; tasks that wait for their timing point count.

        Raises:
            FastAPITasksError: in a task of this runner, or in a route that one of them waits for:
                they would wait for themselves; or in another event loop than the app's.
        """
        registry = self._supervisor.registry
        if not registry.is_idle and not self._supervisor.is_on_loop_thread:
            raise FastAPITasksError(
                "the app runs in another event loop: join() there; a test in another thread "
                "has the wait() of its recorded tasks"
            )
        waiters = waiters_here()
        for waiter in waiters:
            if path(registry.list_tasks(), waiter):
                raise FastAPITasksError(f"{waiter.title} would wait for itself: join() elsewhere")
        with RecordedWait(waiters, _Unfinished(registry)):
            await registry.wait_until_idle()


class _Unfinished:
    """The tasks that `join()` waits for: also those that come later."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._registry.list_tasks())
