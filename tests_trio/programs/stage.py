"""Runs a program for real: an app, its requests and its shutdown, on the backend it is run by."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import anyio
from anyio import to_thread
from fastapi import FastAPI

from fastapi_tasks import Instrument, Task, TaskConfig, add_tasks
from tests_trio.support import Message, Server

from .actors import Actors
from .program import Program, Request
from .routes import add_routes
from .trace import Trace

PATIENCE = 1  # seconds of real time, for what another thread does at once


class Stage(Instrument):
    """One run of one program."""

    def __init__(self, program: Program, now: Callable[[], float]) -> None:
        self.program = program
        self.now = now  # from any thread
        self.trace = Trace()
        self.thread_limiters: list[anyio.CapacityLimiter] = []

    def is_busy(self) -> bool:
        """Whether a worker thread does anything else than to sleep on the event loop."""
        borrowed = sum(limiter.borrowed_tokens for limiter in self.thread_limiters)
        return borrowed > 0 and borrowed > self.actors.sleeping_threads

    async def run(self) -> Trace:
        self.actors = Actors(self.program, self.trace, self.now)
        app = self.make_app()
        server = Server(app)
        files = open_files()
        with listening(self.note_log):
            async with anyio.create_task_group() as group:
                group.start_soon(server.run)
                await server.answered.wait()
                default = to_thread.current_default_thread_limiter()
                lifetime = self.runner._supervisor.lifetime
                self.thread_limiters = [lifetime.threads, lifetime.closing_threads, default]
                for number, request in enumerate(self.program.requests):
                    group.start_soon(self.send_request, server, number, request)
                group.start_soon(self.shut_down, server)
        self.check_invariants()
        assert open_files() == files
        return self.trace

    async def send_request(self, server: Server, number: int, request: Request) -> None:
        await anyio.sleep(request.at)
        exchange = self.trace.exchanges[number]

        async def send(message: Message) -> None:
            exchange.message(describe(message), self.now())

        scope: dict[str, Any] = {"asgi": {"version": "3.0", "spec_version": "2.4"}}
        if request.kind == "websocket":
            scope |= {"type": "websocket", "receive": connect}
        with anyio.move_on_after(request.cut_off):
            try:
                await server.call_raw(f"/{number}", send=send, **scope)
            except Exception as exc:
                exchange.message(type(exc).__name__, self.now())

    async def shut_down(self, server: Server) -> None:
        await anyio.sleep(self.program.shutdown)
        if self.program.lifespan_is_cancelled:
            server.call.cancel()
            await server.ended.wait()
        else:
            await server.shutdown()
        self.trace.ended = self.now()

    # The app.

    def make_app(self) -> FastAPI:
        program = self.program
        app = FastAPI(openapi_url=None)
        self.runner = add_tasks(
            app,
            config=TaskConfig(**self.actors.options(program.options)),
            grace_period=program.grace_period,
            shield_timeout=program.shield_timeout,
            max_tasks=program.max_tasks,
            max_threads=program.max_threads,
            instruments=[self],
        )
        self.actors.app = app
        add_routes(app, program, self.actors)
        return app

    # What is noted.

    def task_scheduled(self, task: Task[..., Any]) -> None:
        call, _ = task.args
        assert call.id not in self.trace.tasks
        self.trace.tasks[call.id].state = task.state.name

    def task_started(self, task: Task[..., Any]) -> None:
        call, scene = task.args
        facts = self.trace.tasks[call.id]
        assert facts.started is None
        assert task.started.is_set()
        facts.started = self.now()
        if call.point != "runner":
            self.trace.start(call.id, scene.run, scene.number, facts.started)

    def task_finished(self, task: Task[..., Any]) -> None:
        facts = self.trace.tasks[task.args[0].id]
        assert facts.finished is None
        assert task.finished.is_set()
        facts.finished = self.now()
        facts.state = task.state.name
        facts.exception = type(task.exception).__name__
        facts.attempts = task.attempts
        self.check_attempts(task)

    def note_log(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.getMessage()}"
        if "clean-ups" in text:  # which begin in any order, at the cut-off
            what, _, names = text.rpartition(": ")
            text = f"{what}: {', '.join(sorted(names.split(', ')))}"
        self.trace.log.append((self.now(), text))

    def check_attempts(self, task: Task[..., Any]) -> None:
        """One whose time was up before its thread, or its call, began counts, too."""
        call, _ = task.args
        ran = self.actors.attempts[call.id]
        begins_later = call.is_sync or call.guise == "proxy" or call.dependencies
        assert ran <= task.attempts if begins_later else ran == task.attempts

    # What must hold of the runner when all is over.

    def check_invariants(self) -> None:
        self.check_statistics()
        self.check_tokens()
        self.check_references()

    def check_statistics(self) -> None:
        counts = self.runner.statistics()
        states = [facts.state for facts in self.trace.tasks.values()]
        assert self.runner.tasks == ()
        assert (counts.waiting, counts.running) == (0, 0)
        assert counts.scheduled == len(states)
        assert counts.succeeded == states.count("SUCCEEDED")
        assert counts.failed == states.count("FAILED")
        assert counts.cancelled == states.count("CANCELLED")
        assert counts.succeeded + counts.failed + counts.cancelled == counts.scheduled
        assert counts.refused == len(self.trace.refused)

    def check_tokens(self) -> None:
        tokens = [
            limiter.available_tokens
            if isinstance(limiter, anyio.CapacityLimiter)
            else limiter.value
            for limiter in self.actors.limiters
        ]
        assert tokens == list(self.program.limiters)
        assert [limiter.borrowed_tokens for limiter in self.thread_limiters] == [0, 0, 0]
        assert self.actors.sleeping_threads == 0

    def check_references(self) -> None:
        """Nothing of the library keeps a finished task."""
        references = [ref(task) for task in self.actors.tasks.values()]
        self.actors.tasks.clear()
        deadline = time.monotonic() + PATIENCE
        while kept := [reference for reference in references if reference() is not None]:
            assert time.monotonic() < deadline, kept
            gc.collect()  # a failed task is in its traceback's frames
            time.sleep(0)  # a worker thread may be on its way out of the function


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def describe(message: Message) -> str:
    kind = message["type"].rpartition(".")[2]
    if kind == "body":
        return "chunk" if message.get("more_body") else "last chunk"
    return f"{kind} {message['status']}" if "status" in message else kind


async def connect() -> Message:
    return {"type": "websocket.connect"}


@contextmanager
def listening(note: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Have log records noted, and printed nowhere."""
    handler = logging.Handler()
    handler.emit = note  # type: ignore[method-assign]
    logger = logging.getLogger("fastapi_tasks")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
