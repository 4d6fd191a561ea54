"""What the bodies of a program do: those of endpoints, tasks, error handlers and retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import anyio
from anyio import from_thread
from fastapi import FastAPI, Request

from fastapi_tasks import FastAPITasksError, RequestTasks, Task, current_task
from tests_trio.support import Message

from .errors import fail, make_error
from .guises import disguised
from .injected import injected
from .program import (
    Action,
    Await,
    Call,
    Cancel,
    Handler,
    Options,
    Part,
    Program,
    Retry,
    Schedule,
    Step,
    Visit,
)
from .trace import Trace

current_call = ContextVar("current_call", default=-1)


class Scene(NamedTuple):
    """Where a body acts: its run of a route, and the request that is in."""

    run: str
    number: int
    request: Request
    tasks: RequestTasks


class Actors:
    """The bodies of one run of a program, and what they share."""

    app: FastAPI

    def __init__(self, program: Program, trace: Trace, now: Callable[[], float]) -> None:
        self.trace = trace
        self.now = now  # from any thread
        self.tasks: dict[int, Task[..., Any]] = {}
        self.attempts: Counter[int] = Counter()
        self.sleeping_threads = 0
        self.limiters = [
            anyio.Semaphore(tokens) if index % 2 else anyio.CapacityLimiter(tokens)
            for index, tokens in enumerate(program.limiters)
        ]

    # Steps, of any body.

    async def perform(self, steps: tuple[Step, ...], scene: Scene) -> None:
        for step in steps:
            if step.delay:
                await anyio.sleep(step.delay)
            match step.action:
                case Await(id) if id in self.tasks:
                    await self.wait_for(id)
                case Visit(part):
                    await self.visit(part, scene)
                case action:
                    self.act(action, scene)

    def perform_in_thread(self, steps: tuple[Step, ...], scene: Scene) -> None:
        for step in steps:
            self.sleep_in_thread(step.delay)
            self.act(step.action, scene)

    def sleep_in_thread(self, delay: float, *, shield: bool = False) -> None:
        async def sleep() -> None:
            with self.thread_sleeps(), anyio.CancelScope(shield=shield):
                await anyio.sleep(delay)

        if delay:
            from_thread.run(sleep)

    @contextmanager
    def thread_sleeps(self) -> Iterator[None]:
        """A worker thread, or a task that has the slot of one, sleeps on the event loop."""
        self.sleeping_threads += 1
        try:
            yield
        finally:
            self.sleeping_threads -= 1

    async def wait_for(self, number: int) -> None:
        try:
            await self.tasks[number]
        except Exception as exc:
            outcome = type(exc).__name__
        else:
            outcome = "a result"
        self.see(f"#{number}: {outcome}")

    async def visit(self, part: Part, scene: Scene) -> None:
        status = error = None

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        path = f"/part/{part.id}"
        scope = {**scene.request.scope, "path": path, "raw_path": path.encode()}
        try:
            await self.app(scope, scene.request.receive, send)
        except Exception as exc:
            error = type(exc).__name__
        self.see(f"part {part.id}: {status} {error}")

    def see(self, what: str) -> None:
        self.trace.seen.append((self.now(), what))

    def act(self, action: Action | None, scene: Scene) -> None:
        match action:
            case Schedule(call):
                self.schedule(call, scene)
            case Cancel(id) if id in self.tasks:
                self.tasks[id].cancel()

    def schedule(self, call: Call, scene: Scene) -> None:
        if call.id in self.tasks or call.id in self.trace.refused:  # by an earlier attempt
            return
        tasks = scene.tasks
        scheduler = {
            "now": tasks,
            "after_route": tasks.after_route,
            "after_response": tasks.after_response,
            "runner": tasks.runner,
        }[call.point]
        func = self.call_in_thread if call.is_sync else self.call
        if call.dependencies:
            func = injected(func, call, self)
        options = self.options(call.options)
        name = f"#{call.id}"
        token = current_call.set(call.id)
        try:
            if call.guise is None:
                task = scheduler.task(name=name, **options).schedule(func, call, scene)
            else:
                with disguised(func, call.guise, name, is_sync=call.is_sync) as guise:
                    task = scheduler.task(**options).schedule(guise, call, scene)
        except FastAPITasksError as exc:
            self.trace.refused[call.id] = type(exc).__name__
            raise
        finally:
            current_call.reset(token)
        assert task.name == name
        self.tasks[call.id] = task

    # Tasks.

    async def call(self, call: Call, scene: Scene) -> None:
        self.enter(call)
        try:
            await self.perform(call.steps, scene)
        except anyio.get_cancelled_exc_class():
            if self.clean_up(call):
                return
            if call.linger:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(call.linger)
            raise
        self.fail_attempt(call)

    def call_in_thread(self, call: Call, scene: Scene) -> None:
        self.enter(call)
        try:
            self.perform_in_thread(call.steps, scene)
        except FastAPITasksError:
            raise
        except BaseException:  # a cancellation; AnyIO has no name for its class in threads
            if self.clean_up(call):
                return
            raise
        self.fail_attempt(call)

    def enter(self, call: Call) -> None:
        assert current_call.get() == call.id, "it runs in another call's context"
        self.attempts[call.id] += 1
        if call.dependencies:
            self.note(call, "the call begins")

    def clean_up(self, call: Call) -> bool:
        """What a cancelled task does; return whether it swallows the cancellation."""
        if call.on_cancel == "fail":
            raise make_error("ValueError") from None
        return call.on_cancel == "swallow"

    def fail_attempt(self, call: Call) -> None:
        if current_task().attempts <= call.failing_attempts:
            fail(call.error)

    def note(self, call: Call, what: str) -> None:
        """What a task with dependencies does, and what these do."""
        assert current_call.get() == call.id, "it runs in another call's context"
        self.trace.note(call.id, what, self.now())

    # Options.

    def options(self, options: Options) -> dict[str, Any]:
        """As the library takes them."""
        real = dict(vars(options))
        if options.limiter is not None:
            real["limiter"] = self.limiters[options.limiter]
        if options.retry is not None:
            real["retry"] = partial(self.retry, options.retry)
        if options.on_error is not None:
            kind = self.handle_in_thread if options.on_error.is_sync else self.handle
            real["on_error"] = partial(kind, options.on_error)
        return real

    async def retry(self, retry: Retry, attempt: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(retry.attempts - 1):
            try:
                return await attempt()
            except Exception:
                await anyio.sleep(retry.delay)
        return await attempt()

    async def handle(self, handler: Handler, task: Task[..., Any], error: Exception) -> None:
        self.note_handler(task, error)
        if handler.delay:
            await anyio.sleep(handler.delay)
        fail("ValueError" if handler.fails else None)

    def handle_in_thread(self, handler: Handler, task: Task[..., Any], error: Exception) -> None:
        self.note_handler(task, error)
        self.sleep_in_thread(handler.delay)
        fail("ValueError" if handler.fails else None)

    def note_handler(self, task: Task[..., Any], error: Exception) -> None:
        assert task.exception is error
        assert not task.finished.is_set()
        self.trace.tasks[task.args[0].id].handler_calls += 1
