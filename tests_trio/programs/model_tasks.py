"""The reference for tasks: how they are handed over, and how they run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .program import Await, Call, Cancel, Handler, Options, Program, Schedule, Step
from .trace import TaskFacts, Trace
from .world import Body, Cancelled, Limiter, Process, Scope, UndeterminedError, World


class ProgramError(Exception):
    """An error of the program's, by its name."""

    @property
    def is_exception(self) -> bool:
        return str(self) != "SystemExit"


@dataclass(eq=False)
class Line:
    """A request: what waits for its timing points, and what its response waits for."""

    number: int
    process: Process | None = None
    waiting: dict[str, list[ModelTask]] = field(
        default_factory=lambda: {"after_route": [], "after_response": []}
    )
    spawned: list[ModelTask] = field(default_factory=list)
    held: list[ModelTask] = field(default_factory=list)
    has_responded: bool = False  # the response has started
    before_response: list[int] = field(default_factory=list)  # tasks that start before it (G3)
    after_response: list[int] = field(default_factory=list)  # and behind its last message


@dataclass(eq=False)
class ModelTask:
    call: Call
    options: Options
    scene: Line  # the request that its body acts in
    facts: TaskFacts
    scope: Scope = field(default_factory=Scope)  # what `cancel()` cancels

    @property
    def line(self) -> Line | None:
        """The request that it belongs to."""
        return None if self.call.point == "runner" else self.scene

    @property
    def is_pending(self) -> bool:
        return self.facts.state == "PENDING"

    @property
    def is_finished(self) -> bool:
        return self.facts.finished is not None


class TasksModel:
    """The tasks of one run of one program, from `schedule()` to their end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.world = World()
        self.trace = Trace()
        self.lines = [Line(number) for number in range(len(program.requests))]
        self.tasks: dict[int, ModelTask] = {}
        self.unfinished: list[ModelTask] = []
        self.phase = "open"
        self.is_stopping = False
        self.turned, self.scheduled = -1.0, -2.0  # when the drain could go on; when a task came
        self.shielded, self.unshielded = Scope(), Scope()
        self.threads = Limiter(self.world, program.max_threads)
        self.limiters = [Limiter(self.world, tokens) for tokens in program.limiters]

    def log(self, line: str) -> None:
        self.trace.log.append((self.world.now, line))

    # Handing over.

    def schedule(self, call: Call, line: Line) -> None:
        if call.id in self.tasks or call.id in self.trace.refused:  # by an earlier attempt
            return
        self.scheduled = self.world.now
        self.check_race()
        if self.phase == "closed":  # G16 (5)
            self.refuse(call, "TasksClosedError")
        if len(self.unfinished) >= (self.program.max_tasks or math.inf):  # G19
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

    def check_race(self) -> None:
        """When the last task ends, the drain goes on; who waited for that task may schedule."""
        if self.scheduled == self.turned:
            raise UndeterminedError

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
            self.turned = self.world.now
            self.check_race()

    # A task.

    def task(self, task: ModelTask) -> Body:
        if not task.is_pending:
            return
        facts, options = task.facts, task.options
        facts.state, facts.started = "RUNNING", self.world.now
        if task.line is not None:
            self.trace.exchanges[task.line.number].start(task.call.id, self.world.now)
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
            yield from self.in_thread(self.timed(task), task, is_sync=task.call.is_sync)
        finally:
            if limiter is not None:
                self.limiters[limiter].release()

    def in_thread(self, body: Body, task: ModelTask, *, is_sync: bool) -> Body:
        """A sync function needs a thread (G9); the loop's functions do not."""
        if is_sync:  # who has come through a limiter has no place among the others of its line
            line = None if task.options.limiter is not None else task.line
            yield from self.threads.acquire(line)
        try:
            yield from body
        finally:
            if is_sync:
                self.threads.release()

    def timed(self, task: ModelTask) -> Body:
        timeout = task.options.timeout
        try:
            with self.world.scope(math.inf if timeout is None else timeout) as scope:
                yield from self.body(task)
        except Cancelled:
            if self.world.now < scope.deadline or self.world.is_cancelled(self.world.current):
                raise
            raise ProgramError("TimeoutError") from None

    def body(self, task: ModelTask) -> Body:
        call = task.call
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

    def handle(self, task: ModelTask, handler: Handler) -> Body:
        yield from self.in_thread(self.handler(task, handler), task, is_sync=handler.is_sync)

    def handler(self, task: ModelTask, handler: Handler) -> Body:
        task.facts.handler_calls += 1
        if handler.delay:
            yield from self.world.sleep(handler.delay)
        if handler.fails:
            self.log(f"ERROR the error handler of task {names([task])} failed")

    # Any body.

    def perform(self, steps: Sequence[Step], scene: Line) -> Body:
        for step in steps:
            if step.delay:
                yield from self.world.sleep(step.delay)
            match step.action:
                case Schedule(call):
                    self.schedule(call, scene)
                case Cancel(id):
                    self.cancel(id)
                case Await(id) if id in self.tasks:
                    yield from self.wait_for(self.tasks[id], scene)

    def wait_for(self, task: ModelTask, scene: Line) -> Body:
        is_waiting = any(task in waiting for waiting in scene.waiting.values())
        if is_waiting and self.world.current is scene.process:
            result = "FastAPITasksError"  # they would wait for each other
        else:
            yield from self.world.until(lambda: task.is_finished)
            result = {
                "SUCCEEDED": "a result",
                "CANCELLED": "TaskCancelled",
                "FAILED": task.facts.exception.replace("SystemExit", "TaskFailed"),
            }[task.facts.state]
        self.trace.awaited.append((self.world.now, f"#{task.call.id}: {result}"))


def outcome(body: Body) -> Body:
    """Run a body; return what it raised, or None."""
    try:
        yield from body
    except (ProgramError, Cancelled) as error:
        return error
    return None


def names(tasks: Sequence[ModelTask], at_most: int = 10) -> str:
    shown = ", ".join(f"'#{task.call.id}'" for task in tasks[:at_most])
    return shown + (f" and {len(tasks) - at_most} more" if len(tasks) > at_most else "")
