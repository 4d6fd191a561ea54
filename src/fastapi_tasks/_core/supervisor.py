"""The supervisor: a task's whole way, from its `schedule()` call to its end.

Theory of operation
-------------------

A task is *admitted* (`submit()`): the registry holds it from now until it has finished, wherever it
is meanwhile. It may have to *wait* for its timing point, which is the business of its run of a
route (`timing`), and for the event loop, if `schedule()` was called in another thread (`mailbox`).
Then it is *spawned*: it gets a task of the event loop, in one of the two task groups of the
lifespan (`lifetime`). It *starts* with that one's first step, and *runs* (`run()`): its function,
with its options (`outcome`), then its error handler. Then it *ends*, and it has *finished* when
everybody has been told.

It may be *cancelled* anywhere on this way. None of the places where it may be is searched: the
state is the truth (`state`), and whoever comes to start a task that is no longer `PENDING` passes
over it.

All calls that change a state are here, and so is what follows from them: `run()` and `_finish()`
have the events set, the counts changed and the instruments told.

A task ends in one of these ways, all of which lead to `_finish()`:

* `run()`: by itself, whatever its function raises; `_break_off()` is for what else may be wrong.
* `cancel_unstarted()`: before its first step, on request or because its route failed.
* `submit()`: at once, if the app is shutting down and it is not shielded.
* `_cancel_from_outside()`: asyncio's `Task.cancel()` hit its task of the event loop before that.
* `_end_by_force()`: the event loop does not run it any more: its task group was lost
  (`end_lost()`), or the lifespan was ended from outside (`_end_unfinished()`).

When a lifespan is over, and in which steps, is the drain's business (`drain`). G1 and so on are
the guarantees in `docs/design/guarantees.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from logging import ERROR, WARNING
from typing import Any, cast

from anyio import CancelScope
from anyio.lowlevel import cancel_shielded_checkpoint

from .clocks import Clocks
from .config import TaskConfig
from .exception import without_cancellations
from .instrument import GuardedInstrument, Instrument
from .lifetime import CLOSED, DRAINING, OPEN, Lifetime, Phase
from .log import log, names
from .lost import find_broken_off, find_unbegun
from .outcome import call_again, call_with_options, contain, handle_error, is_plain
from .owner import Dependencies
from .registry import Registry
from .state import CANCELLED, FAILED, PENDING, RUNNING
from .supervised import SupervisedTask
from .task import Task
from .threads import thread_slot

_NOT_SHIELDED = "the app is shutting down and the task is not shielded"


class Supervisor:
    """Has the tasks of one app, over all its lifespans.

    Attributes:
        config: the default options of all tasks.
        registry: the unfinished tasks.
        instruments: replaced, never changed: any thread may iterate.
        lifetime: of the latest lifespan.
        clocks: those of the app.
        find_dependencies: asked for each task before it is admitted, and may refuse it.
    """

    def __init__(
        self,
        config: TaskConfig,
        *,
        max_tasks: int | None,
        max_threads: int,
        instruments: Iterable[Instrument],
        find_dependencies: Callable[[SupervisedTask[..., Any]], Dependencies | None],
    ) -> None:
        self.config = config
        self.registry: Registry = Registry(max_tasks)
        self.instruments: tuple[GuardedInstrument, ...] = tuple(map(GuardedInstrument, instruments))
        self.lifetime: Lifetime = Lifetime()
        self.clocks: Clocks = Clocks()
        self.find_dependencies = find_dependencies
        self._max_threads = max_threads

    # The lifespan.

    @property
    def admits_tasks(self) -> bool:
        """Whether tasks are admitted."""
        return self.lifetime.phase in (OPEN, DRAINING)

    @property
    def is_on_loop_thread(self) -> bool:
        return self.lifetime.is_on_loop_thread

    def enter(self, phase: Phase) -> None:
        with self.registry.lock:
            self.lifetime.phase = phase

    def begin_lifetime(self) -> None:
        self.lifetime = Lifetime(self.lifetime.phase)  # until it opens, errors stay the same

    async def run_lifetime(self) -> None:
        """Have tasks running, from now to the end of the drain."""
        try:
            await self.lifetime.run(self._max_threads, self._open, self.end_lost, self._close)
        finally:
            self._close()
            self._end_unfinished(self.registry.list_unfinished())

    def _open(self) -> None:
        self.enter(OPEN)
        self.clocks.open(self.lifetime)

    def stop(self) -> None:
        """The app begins to shut down."""
        self.lifetime.stopping.set()
        self.clocks.stop()

    def _close(self) -> None:
        """Admit nothing, and end what waits: as the mailbox closes, or at the latest after it."""
        self.enter(CLOSED)
        self.clocks.stop()
        self._end_unfinished([task for task in self.registry.list_tasks() if task.state is PENDING])

    def _end_unfinished(self, left: Iterable[SupervisedTask[..., Any]]) -> None:
        """Only a `KeyboardInterrupt` or a forced end of the event loop leaves any."""
        if left := tuple(left):
            what = f"{len(left)} task(s) do not run: {names(left)}"
            log(WARNING, "the runner was ended: %s", what)
        for task in left:
            self._end_by_force(task)

    @contextmanager
    def watching(self, instrument: GuardedInstrument) -> Generator[None]:
        """Tell one more instrument."""
        with self.registry.lock:
            self.instruments += (instrument,)
        try:
            yield
        finally:
            with self.registry.lock:
                left = [each for each in self.instruments if each is not instrument]
                self.instruments = tuple(left)

    # Admission and start: from any thread.

    def submit(self, task: SupervisedTask[..., Any], *, in_task: bool) -> None:
        """Admit a task, and have it start when its time has come.

        `in_task`: whether this is certainly in a task of an event loop.
        """
        runs = self.registry.admit(task, self.lifetime)
        try:
            if not runs:
                task.enter(CANCELLED)
            for instrument in self.instruments:
                instrument.task_scheduled(task)
            if not runs:
                task.has_ended = True
                log(WARNING, "task %r does not run: %s", task.name, _NOT_SHIELDED)
            elif task.route is None or task.route.add(task):
                self._spawn(task, in_task=in_task)
        finally:
            task.schedule_is_over = True
            if task.has_ended:
                self.lifetime.call(partial(self._finish, task))

    def withdraw(self, task: SupervisedTask[..., Any]) -> None:
        """End a task whose `schedule()` call fails, unless it runs already."""
        # An exception may come anywhere in `submit()`, and the stack may be all but used up: so
        # this needs no more of it than the admission did. The loop does the rest.
        task.schedule_is_over = True
        if self.registry.has(task):
            self.lifetime.mailbox.post(partial(self.cancel_unstarted, task))

    def _spawn(self, task: SupervisedTask[..., Any], *, in_task: bool) -> None:
        """Have a task run on the event loop: spawn it, or leave that to the loop's thread."""
        if task.state is not PENDING or task.handle is not None:  # cancelled, or started already
            return
        context = task.context
        shielded = task.config.shield is True
        task.handle = self.lifetime.spawn(
            self.run, task, shielded=shielded, name=task.name, context=context, in_task=in_task
        )
        if task.handle is not None:
            task.context = None
        else:
            if context is None:  # an empty one is falsy
                task.context = self.lifetime.copy_context()
            self.lifetime.post(partial(self.spawn_late, task))

    def spawn_late(self, task: SupervisedTask[..., Any]) -> None:
        """Start a task whose `schedule()` call has returned, and cannot raise."""
        try:
            self._spawn(task, in_task=True)
        except Exception as exc:
            log(ERROR, "task %r cannot be started", task.name, error=exc)
            self.cancel_unstarted(task)

    def cancel(self, task: SupervisedTask[..., Any]) -> None:
        self.lifetime.call(partial(self._cancel_here, task))

    def identify(self, task: Task[..., Any]) -> str:
        return self.registry.identify(cast("SupervisedTask[..., Any]", task))

    def tell_progress(self, task: SupervisedTask[..., Any]) -> None:
        for instrument in self.instruments:
            instrument.task_progressed(task)

    def has_cancelled(self, task: SupervisedTask[..., Any]) -> bool:
        return self.lifetime.has_cancelled(shielded=task.config.shielded)

    def call_again(self, task: SupervisedTask[..., Any]) -> Awaitable[Any]:
        return call_again(task, self.lifetime)

    # On the event loop's thread.

    def _cancel_here(self, task: SupervisedTask[..., Any]) -> None:
        if not task.has_begun:
            self.cancel_unstarted(task)
        elif task.handle is not None:
            task.handle.cancel()

    async def run(self, task: SupervisedTask[..., Any], scope: CancelScope) -> None:
        """Run a task, from its turn to the end of its error handler."""
        route, lifetime = task.route, self.lifetime
        try:
            while route is not None and task.state is PENDING and not route.take_turn(task):
                await cancel_shielded_checkpoint()
            if task.state is not PENDING:  # cancelled meanwhile
                return
            task.enter(RUNNING)
            task.run_here()
            self.registry.begin(task)
            if thread_slot.get() is not None:  # of the thread that scheduled it
                thread_slot.set(None)
            try:
                for instrument in self.instruments:
                    instrument.task_started(task)
                if is_plain(task):  # most: no coroutine of ours is around it
                    task.begin_attempt()
                    task.succeed(await task.func(*task.args, **task.kwargs))
                else:
                    task.succeed(await call_with_options(task, lifetime, scope))
            except BaseException as exc:
                self._fail(task, exc, scope)
            if task.exception is not None:
                await handle_error(task, lifetime, scope)
        except BaseException as exc:
            self._break_off(task, exc, scope)
        finally:
            self._end(task)
            del task, route  # an exception of the task's may hold this frame

    def _fail(self, task: SupervisedTask[..., Any], exc: BaseException, scope: CancelScope) -> None:
        """Note what its call has raised; raise it only if it is a Ctrl+C."""
        failure = without_cancellations(exc)
        if failure is None:
            task.enter(CANCELLED)
        else:
            task.enter(FAILED, failure)
        contain(exc, failure, "task %r", task, scope)

    def _break_off(
        self, task: SupervisedTask[..., Any], exc: BaseException, scope: CancelScope
    ) -> None:
        """The last guard (G12): whatever else was wrong, the task ends, and it is said."""
        failure = without_cancellations(exc)
        if task.state is PENDING and failure is None:
            self._cancel_from_outside(task)
        elif task.state is RUNNING:
            self._fail(task, exc, scope)
        else:
            self.cancel_unstarted(task)
            contain(exc, failure, "the start or the end of task %r", task, scope)

    def _cancel_from_outside(self, task: SupervisedTask[..., Any]) -> None:
        """Its task of the event loop was hit by asyncio's `Task.cancel()` before it has begun."""
        log(WARNING, "task %r was cancelled, but not by this library", task.name)
        self.cancel_unstarted(task)

    def cancel_unstarted(self, task: SupervisedTask[..., Any]) -> None:
        """Cancel a task, if it has not started."""
        if task.state is PENDING:
            task.enter(CANCELLED)
            if task.route is not None:
                task.route.remove(task)
        if not task.has_begun or task.has_ended:  # which its broken-off call could not say
            self._end(task)

    async def end_lost(self) -> None:
        """End the tasks that a lost task group has left, which the event loop will not run."""
        for task in await find_unbegun(self.registry):
            self._cancel_from_outside(task)
        for task in find_broken_off(self.registry):
            self._end_by_force(task)
        self.registry.note_idle()  # should a task have failed to do so

    def _end_by_force(self, task: SupervisedTask[..., Any]) -> None:
        """End a task that the event loop does not run any more."""
        task.schedule_is_over = True
        if not task.state.is_final:
            task.enter(CANCELLED)
        self._end(task)

    def _end(self, task: SupervisedTask[..., Any]) -> None:
        """Nothing of the task runs any more, or will."""
        task.has_ended = True
        self._finish(task)

    def _finish(self, task: SupervisedTask[..., Any]) -> None:
        """The task has finished, once; of a cancelled one its unused coroutine says so again.

        While its `schedule()` call is under way, in a thread, that is too early: instruments hear
        of its end after its beginning, and the shutdown waits for the thread.
        """
        registry = self.registry
        if not task.schedule_is_over or not registry.has(task):
            return
        task.finish()
        registry.remove(task)
        for instrument in self.instruments:
            instrument.task_finished(task)
        registry.note_idle()
