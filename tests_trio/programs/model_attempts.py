"""The reference for attempts of tasks: the call, after its dependencies open, before they close."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from .model_data import Line, ModelTask, ProgramError, names, outcome
from .model_tasks import TasksModel
from .program import Dependency
from .world import Body, Cancelled


class AttemptsModel(TasksModel):
    """The attempts of one run of one program: `retry(limiter(slot(timeout(call))))`."""

    def attempts(self, task: ModelTask) -> Body:
        retry = task.options.retry
        for _ in range(retry.attempts - 1 if retry else 0):
            try:
                return (yield from self.attempt(task))
            except ProgramError as error:
                if not error.is_exception:
                    raise
                assert retry is not None
                yield from self.world.sleep(retry.delay)
        yield from self.attempt(task)

    def attempt(self, task: ModelTask) -> Body:
        limiter = task.options.limiter
        if limiter is not None:
            yield from self.limiters[limiter].acquire(task.line)
        try:
            task.facts.attempts += 1
            line = self.line_of(task)
            if task.call.guise == "proxy":  # what the call in a thread returns will be awaited
                yield from self.in_thread(
                    self.world.checkpoint(), line, is_sync=not task.call.is_sync
                )
            yield from self.in_thread(self.call(task), line, is_sync=task.call.is_sync)
        finally:
            if limiter is not None:
                self.limiters[limiter].release()

    def call(self, task: ModelTask) -> Body:
        """What was opened is closed outside of the deadline, whatever has ended the call."""
        opened: list[int] = []
        error = yield from outcome(self.timed(task, opened))
        opened.sort(key=lambda index: task.call.dependencies[index].closes_first)
        if opened:
            with self.leaving(task):
                while opened:
                    later = yield from outcome(self.close(task, opened.pop(), error))
                    error = later or error  # it fails all the same if that was swallowed
        if error is not None:
            raise error

    def timed(self, task: ModelTask, opened: list[int]) -> Body:
        timeout = task.options.timeout
        try:
            with self.world.scope(math.inf if timeout is None else timeout) as task.limit:
                yield from self.open_all(task, opened)
                yield from self.body(task)
        except Cancelled:
            if self.world.now < task.limit.deadline or self.world.is_cancelled(self.world.current):
                raise
            raise ProgramError("TimeoutError") from None

    def body(self, task: ModelTask) -> Body:
        call = task.call
        if call.dependencies:
            self.note(task, "the call begins")
        try:
            yield from self.perform(call.steps, task.scene)
        except Cancelled:
            if call.on_cancel == "swallow":
                return
            if call.on_cancel == "fail":
                raise ProgramError("ValueError") from None
            with self.world.scope(shield=True):
                yield from self.world.sleep(call.linger)
            raise
        if task.facts.attempts <= call.failing_attempts:
            raise ProgramError(call.error)

    # Dependencies.

    def open_all(self, task: ModelTask, opened: list[int]) -> Body:
        for index, dependency in enumerate(task.call.dependencies):
            line = None if index else self.line_of(task)
            yield from self.in_its_thread(self.open(task, index), task, dependency, line)
            opened.append(index)
        if opened and self.world.is_cancelled(self.world.current):  # a thread has taken so long
            raise Cancelled

    def open(self, task: ModelTask, index: int) -> Body:
        dependency = task.call.dependencies[index]
        self.note(task, f"{index} opens")
        with self.world.scope(shield=dependency.is_sync):
            if dependency.opening:
                yield from self.world.sleep(dependency.opening)
        if task.facts.attempts <= dependency.fails_to_open:
            raise ProgramError(dependency.error)

    def close(self, task: ModelTask, index: int, error: BaseException | None) -> Body:
        dependency = task.call.dependencies[index]
        with self.world.scope(shield=dependency.is_sync):
            if dependency.is_sync:  # in a thread beyond their number
                yield from self.world.checkpoint()
            yield from self.see_and_close(task, index, error)

    def see_and_close(self, task: ModelTask, index: int, error: BaseException | None) -> Body:
        dependency = task.call.dependencies[index]
        seen = "Cancelled" if isinstance(error, Cancelled) else error or "a result"
        self.note(task, f"{index} sees {seen}")
        try:
            if dependency.closing:
                yield from self.world.sleep(dependency.closing)
        except Cancelled:
            self.note(task, f"{index} is cut off")
            raise
        self.note(task, f"{index} closes")
        if task.facts.attempts <= dependency.fails_to_close:
            raise ProgramError(dependency.error)

    def in_its_thread(
        self, body: Body, task: ModelTask, dependency: Dependency, line: Line | None = None
    ) -> Body:
        """A sync one needs a thread; a sync task lends its own."""
        if not dependency.is_sync:
            yield from body
        elif task.call.is_sync:
            yield from self.world.checkpoint()
            yield from body
        else:
            yield from self.wait_for_slot(task, line)
            try:
                yield from body
            finally:
                self.threads.release()

    def wait_for_slot(self, task: ModelTask, line: Line | None) -> Body:
        """It does not use up the timeout."""
        left = task.limit.deadline - self.world.now
        if left > 0:
            task.limit.deadline = math.inf
        yield from self.threads.acquire(task, line)
        if left > 0:
            task.limit.deadline = self.world.now + left

    @contextmanager
    def leaving(self, task: ModelTask) -> Iterator[None]:
        """Nothing but the drain cancels what is closed here."""
        has_time = bool(task.options.shield) not in self.time_is_up
        if not has_time:
            what = f"shutdown cancels the clean-up of task {names([task])}"
            self.log(f"CRITICAL {what}, which begins when its time is over")
        with self.world.scope(shield=has_time) as task.leaving:
            yield
        task.leaving = None

    def note(self, task: ModelTask, what: str) -> None:
        self.trace.note(task.call.id, what, self.world.now)
