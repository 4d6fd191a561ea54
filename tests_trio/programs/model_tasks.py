"""The reference for tasks: how they are handed over, and how they run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .model_data import (
    EXITS,
    Line,
    ModelExchange,
    ModelTask,
    ProgramError,
    names,
    needed_for,
    outcome,
)
from .program import Await, Call, Cancel, Handler, Part, Program, Schedule, Step, Visit
from .trace import Trace
from .world import Body, Limiter, Scope, UndeterminedError, World

OF_THREADS = 1  # their patience


class TasksModel:
    """The tasks of one run of one program, from `schedule()` to their end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.world = World()
        self.trace = Trace()
        self.exchanges: list[ModelExchange] = []
        self.tasks: dict[int, ModelTask] = {}
        self.unfinished: list[ModelTask] = []
        self.phase = "open"
        self.is_stopping = False
        self.cancelled = -1.0  # when the cut-off was
        self.idle = -1.0  # when the last task ended, in the drain
        self.is_resumed = False  # more was scheduled in that moment
        self.late = -1.0  # when a thread could be slower than the drain
        self.shielded, self.unshielded = Scope(), Scope()
        self.time_is_up: set[bool] = set()  # to leave in, for tasks that are shielded, or not
        self.threads = Limiter(self.world, program.max_threads)
        self.limiters = [Limiter(self.world, tokens) for tokens in program.limiters]

    def log(self, line: str) -> None:
        self.trace.log.append((self.world.now, line))

    # Handing over.

    def schedule(self, call: Call, line: Line) -> None:
        if call.id in self.tasks or call.id in self.trace.refused:  # by an earlier attempt
            return
        self.is_resumed |= self.idle == self.world.now
        if self.late == self.world.now:
            raise UndeterminedError
        if self.phase == "closed":  # G16 (5)
            self.refuse(call, "TasksClosedError")
        max_tasks = self.program.max_tasks or math.inf
        if max_tasks in self.doubtful_counts(line):
            raise UndeterminedError
        if len(self.unfinished) >= max_tasks:  # G19
            self.refuse(call, "TooManyTasksError")
        options = self.program.options.merge(call.options)
        task = ModelTask(call, options, line, self.trace.tasks[call.id])
        self.tasks[call.id] = task
        self.unfinished.append(task)
        if self.phase == "draining" and not options.shield:  # G16 (3)
            why = "the app is shutting down and the task is not shielded"
            self.log(f"WARNING task {names([task])} does not run: {why}")
            self.drop(task)
        else:
            self.place(task)

    def doubtful_counts(self, line: Line) -> range:
        """What the cut-off cancels ends in that moment: it may, or may not, count until then."""
        if self.world.now != self.cancelled:
            return range(0)
        count = len(self.unfinished)
        going = sum(not task.options.shield for task in self.unfinished)
        gone = sum(
            task.facts.started is not None and task.facts.finished == self.cancelled
            for task in self.tasks.values()
            if task not in line.held
        )
        return range(count - going + 1, count + gone + 1)

    def refuse(self, call: Call, error: str) -> None:
        self.trace.refused[call.id] = error
        raise ProgramError(error)

    def place(self, task: ModelTask) -> None:
        line, point = task.line, task.call.point
        if line is not None:
            if task.options.hold_response and point != "after_response":
                line.held.append(task)
            if point in line.waiting and self.phase == "open":
                line.waiting[point].append(task)
                return
        self.start(task)  # now; or its point has passed (G7)

    def start(self, task: ModelTask) -> None:
        if task.line is not None:
            task.line.spawned.append(task)
        group = self.shielded if task.options.shield else self.unshielded
        self.world.spawn(self.task(task), group, task.scope)

    def cancel(self, number: int) -> None:
        if (task := self.tasks.get(number)) is not None:
            if task.is_pending:
                self.drop(task)
            task.scope.is_cancelled = True

    def drop(self, task: ModelTask) -> None:
        """It will not run a line."""
        task.facts.state = "CANCELLED"
        if task.line is not None:
            for waiting in task.line.waiting.values():
                if task in waiting:
                    waiting.remove(task)
        self.finish(task)

    def finish(self, task: ModelTask) -> None:
        task.facts.finished = self.world.now
        self.unfinished.remove(task)
        if self.is_stopping and not self.unfinished:
            self.idle = self.world.now

    # A task.

    def task(self, task: ModelTask) -> Body:
        if not task.is_pending:
            return
        facts, options = task.facts, task.options
        facts.state, facts.started = "RUNNING", self.world.now
        task.process = self.world.current
        if task.line is not None:
            number = task.line.exchange.number
            self.trace.start(task.call.id, task.line.name, number, self.world.now)
        error = yield from outcome(self.attempts(task))
        if isinstance(error, ProgramError):
            facts.state, facts.exception = "FAILED", str(error)
            self.log(f"ERROR task {names([task])} failed")  # G13
            if error.is_exception and options.on_error is not None:
                yield from outcome(self.handle(task, options.on_error))
        else:
            facts.state = "SUCCEEDED" if error is None else "CANCELLED"  # G14
        self.finish(task)

    def attempts(self, task: ModelTask) -> Body:
        raise NotImplementedError

    def in_thread(self, body: Body, line: Line | None, *, is_sync: bool) -> Body:
        """A sync function needs a thread (G9); the loop's functions do not."""
        if is_sync:
            yield from self.threads.acquire(line)
        try:
            yield from body
        finally:
            if is_sync:
                self.threads.release()

    def line_of(self, task: ModelTask) -> Line | None:
        """Who has come through a limiter has no place among the others of its line."""
        return None if task.options.limiter is not None else task.line

    def handle(self, task: ModelTask, handler: Handler) -> Body:
        # Its task may have failed before those behind it in its line have started, or after that.
        yield from self.in_thread(self.handler(task, handler), None, is_sync=handler.is_sync)

    def handler(self, task: ModelTask, handler: Handler) -> Body:
        task.facts.handler_calls += 1
        if handler.delay:
            yield from self.world.sleep(handler.delay)
        if handler.fails:
            self.log(f"ERROR the error handler of task {names([task])} failed")

    # Any body.

    def perform(self, steps: Sequence[Step], scene: Line, *, is_sync: bool = False) -> Body:
        for step in steps:
            if step.delay:
                yield from self.world.sleep(step.delay)
            if is_sync:
                yield from self.wait_for_thread()
            match step.action:
                case Schedule(call):
                    self.schedule(call, scene)
                case Cancel(id):
                    self.cancel(id)
                case Await(id) if id in self.tasks:
                    yield from self.wait_for(self.tasks[id], scene)
                case Visit(part):
                    yield from self.visit(part, scene)
        if is_sync:
            yield from self.wait_for_thread()

    def wait_for_thread(self) -> Body:
        """A thread of a request's takes its time; the drain goes on when the last task has ended."""
        yield from self.world.let_others_go_on(OF_THREADS)
        if self.is_stopping and not self.unfinished and self.phase != "closed":
            self.late = self.world.now

    def visit(self, part: Part, scene: Line) -> Body:
        raise NotImplementedError

    def wait_for(self, task: ModelTask, scene: Line) -> Body:
        here = [each for each in self.unfinished if each.process is self.world.current]
        waiter = here[0] if here else scene
        if waiter in needed_for(task) and not task.is_finished:  # it would wait for ever
            result = "FastAPITasksError"
        else:
            waiter.awaited.append(task)
            try:
                yield from self.world.until(lambda: task.is_finished)
            finally:
                waiter.awaited.remove(task)
            result = {
                "SUCCEEDED": "a result",
                "CANCELLED": "TaskCancelled",
                "FAILED": "TaskFailed" if task.facts.exception in EXITS else task.facts.exception,
            }[task.facts.state]
        self.see(f"#{task.call.id}: {result}")

    def see(self, what: str) -> None:
        self.trace.seen.append((self.world.now, what))
