"""The runner: the one owner of all tasks of an app.

Theory of operation
-------------------

*One registry* (`_registry`) holds each task from its admission to its end, wherever it is
meanwhile, and the phases of the lifespan, by which it admits them.

*The state is the truth.* A task may be cancelled while it waits, while it travels, and while its
coroutine is spawned and has not run. None of these places is searched: whoever comes to start a
task that is no longer `PENDING` passes over it.

Where tasks run is the host's business (`_host`), in which order the line's (`_request`), and when
the phases change the lifespan's (`_lifespan`).
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from logging import ERROR, WARNING
from typing import Any

from anyio import CancelScope, CapacityLimiter, Event, TaskHandle
from anyio.lowlevel import cancel_shielded_checkpoint

from ..errors import FastAPITasksError
from .call import thread_slot
from .config import TaskConfig
from .exception import without_cancellations
from .instrument import GuardedInstrument, Instrument
from .lifetime import Host
from .log import log
from .outcome import call_with_options, contain, handle_error, is_plain, judge
from .registry import DRAINING, OPEN, Registry
from .scheduler import TaskScheduler
from .statistics import TaskStatistics
from .task import CANCELLED, PENDING, RUNNING, SUCCEEDED, Task
from .waits import Recorded, waiters_here, way

_GOING_ON = (TaskHandle.Status.PENDING, TaskHandle.Status.CANCELLING)
_NOT_SHIELDED = "the app is shutting down and the task is not shielded"


class TaskRunner(TaskScheduler):
    """Owns the tasks of an app, and schedules those that belong to no request.

    `add_tasks()` makes it. It works while the app's lifespan runs, from any thread, for the
    lifespan's own code and for tasks as well.

    Attributes:
        stopping: set when the app begins to shut down: the moment for endless loops to end. A new
            event for each lifespan.
    """

    stopping: Event

    def __init__(
        self,
        config: TaskConfig,
        *,
        max_tasks: int | None,
        max_threads: int,
        instruments: Iterable[Instrument],
    ) -> None:
        super().__init__("now", config)
        self._registry = Registry(max_tasks)
        self._max_threads = max_threads
        # Replaced, never changed: any thread may iterate.
        self._instruments = tuple(map(GuardedInstrument, instruments))
        self.stopping = Event()
        self._host: Host  # of the latest lifespan

    @property
    def running(self) -> bool:
        """Whether tasks are admitted: from the lifespan's start to the end of the drain."""
        return self._registry.phase in (OPEN, DRAINING)

    @property
    def tasks(self) -> tuple[Task[..., Any], ...]:
        """The unfinished tasks; those that wait for their timing point are among them."""
        return self._registry.list_tasks()

    def statistics(self) -> TaskStatistics:
        """Return the counts of this moment."""
        return self._registry.statistics()

    async def join(self) -> None:
        """Wait until no task is unfinished; tasks that wait for their timing point count.

        Raises:
            FastAPITasksError: in a task of this runner, or in a route that one of them waits for:
                they would wait for themselves.
        """
        tasks, waiters = self.tasks, waiters_here()
        for waiter in waiters:
            if way(tasks, waiter):
                raise FastAPITasksError(f"{waiter._title} would wait for itself: join() elsewhere")
        with Recorded(waiters, tasks):
            await self._registry.wait_until_idle()

    # Admission and start: from any thread.

    @property
    def _is_here(self) -> bool:
        return self._host.is_here

    @property
    def _threads(self) -> CapacityLimiter:
        return self._host.threads

    def _submit(self, task: Task[..., Any]) -> None:
        task._runner = self
        runs = self._registry.admit(task)
        try:
            for instrument in self._instruments:
                instrument.task_scheduled(task)
            if not runs:
                task._has_ended = True
                log(WARNING, "task %r does not run: %s", task.name, _NOT_SHIELDED)
            elif task._line is None or task._line._add(task):
                self._start(task)
        finally:
            task._is_handed_over = True
            if task._has_ended:
                self._host.call(partial(self._finish, task))

    def _withdraw(self, task: Task[..., Any]) -> None:
        # An exception may come anywhere in `_submit()`, and the stack may be all but used up: so
        # this needs no more of it than the admission did. The loop does the rest.
        task._is_handed_over = True
        if task in self._registry.tasks or task in self._registry.dropped:
            self._host.mailbox.post(partial(self._discard, task))  # `_host.post()` is one call more

    def _start(self, task: Task[..., Any]) -> None:
        """Have a task run on the event loop: spawn it, or leave that to the loop's thread."""
        if task.state is not PENDING or task._handle is not None:  # cancelled, or started already
            return
        context = task._context
        shielded = task.config.shield is True
        task._handle = self._host.spawn(
            self._run, task, shielded=shielded, name=task.name, context=context
        )
        if task._handle is not None:
            task._context = None
        else:
            if context is None:  # an empty one is falsy
                task._context = self._host.copy_context()
            self._host.post(partial(self._start_late, task))

    def _start_late(self, task: Task[..., Any]) -> None:
        """Start a task whose `schedule()` call has returned, and cannot raise."""
        try:
            self._start(task)
        except Exception as exc:
            log(ERROR, "task %r cannot be started", task.name, error=exc)
            self._discard(task)

    def _cancel(self, task: Task[..., Any]) -> None:
        self._host.call(partial(self._cancel_here, task))

    def _cancel_here(self, task: Task[..., Any]) -> None:
        if not task._has_begun:
            self._discard(task)
        elif task._handle is not None:
            task._handle.cancel()

    # Running: on the event loop's thread.

    async def _run(self, task: Task[..., Any], scope: CancelScope) -> None:
        """Run a task, from its turn to the end of its error handler."""
        line, threads = task._line, self._host.threads
        try:
            while line is not None and task.state is PENDING and not line._take_turn(task):
                await cancel_shielded_checkpoint()
            if task.state is not PENDING:  # cancelled meanwhile
                return
            task._enter(RUNNING)
            task._run_here()
            self._registry.begin(task)
            if thread_slot.get() is not None:  # of the thread that scheduled it
                thread_slot.set(None)
            try:
                for instrument in self._instruments:
                    instrument.task_started(task)
                if is_plain(task):  # most: no coroutine of ours is around it
                    task.attempts = 1
                    task._result = await task.func(*task.args, **task.kwargs)
                else:
                    task._result = await call_with_options(task, threads)
            except BaseException as exc:
                judge(task, exc, scope)
            else:
                task._enter(SUCCEEDED)
            if task.exception is not None:
                await handle_error(task, threads, scope)
        except BaseException as exc:
            self._break_off(task, exc, scope)
        finally:
            self._end(task)
            del task, line  # an exception of the task's may hold this frame

    def _break_off(self, task: Task[..., Any], exc: BaseException, scope: CancelScope) -> None:
        """The last guard (G12): whatever else was wrong, the task ends, and it is said."""
        failure = without_cancellations(exc)
        if task.state is PENDING and failure is None:  # hit in its turn
            self._lose(task)
        elif task.state is RUNNING:
            judge(task, exc, scope)
        else:
            self._discard(task)
            contain(exc, failure, "the start or the end of task %r", task, scope)

    async def _clear_up(self) -> None:
        """End the tasks that a lost task group has left, which the event loop will not run."""
        before = self._unbegun()
        for _ in range(2):  # within which any other one begins, on Trio too
            await cancel_shielded_checkpoint()
        for task in before.keys() & self._unbegun().keys():
            before[task].close()
            self._lose(task)
        for task in self.tasks:
            handle = task._handle
            if handle is not None and handle.status not in _GOING_ON:  # it was not let end
                with suppress(RuntimeError):  # it goes on all the same
                    handle.coro.close()  # now, not at some garbage collection
                self._give_up(task)
            elif task._has_ended:  # it has failed to say so
                self._give_up(task)
        self._registry.note_idle()  # should a task have failed to do so

    def _unbegun(self) -> dict[Task[..., Any], Coroutine[Any, Any, None]]:
        """The tasks that are spawned and have not taken their first step."""
        coros = {task: task._handle.coro for task in self.tasks if task._handle is not None}
        return {
            task: coro for task, coro in coros.items() if getcoroutinestate(coro) == CORO_CREATED
        }

    def _lose(self, task: Task[..., Any]) -> None:
        """Discard a task whose event-loop task was hit by asyncio's `Task.cancel()`."""
        log(WARNING, "task %r was cancelled, but not by this library", task.name)
        self._discard(task)

    def _discard(self, task: Task[..., Any]) -> None:
        """Cancel a task, if it has not started."""
        if task.state is PENDING:
            task._enter(CANCELLED)
            if task._line is not None:
                with self._registry.lock:
                    task._line._remove(task)
        if not task._has_begun:
            self._end(task)

    def _give_up(self, task: Task[..., Any]) -> None:
        """End a task that the event loop does not run any more."""
        task._is_handed_over = True
        if task.state._leads_to:
            task._enter(CANCELLED)
        self._end(task)

    def _end(self, task: Task[..., Any]) -> None:
        """Nothing of the task runs any more, or will."""
        task._has_ended = True
        self._finish(task)

    def _finish(self, task: Task[..., Any]) -> None:
        """The task has finished, once; of a cancelled one its unused coroutine says so again.

        While its `schedule()` call is under way, in a thread, that is too early: instruments hear
        of its end after its beginning, and the shutdown waits for the thread.
        """
        registry = self._registry
        if not task._is_handed_over or not (task in registry.tasks or task in registry.dropped):
            return
        task._finish()
        registry.remove(task)
        for instrument in self._instruments:
            instrument.task_finished(task)
        registry.note_idle()
