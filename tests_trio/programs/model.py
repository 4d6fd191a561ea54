"""The reference: what the guarantees say must come of a program, as plainly as it can be said.

It knows nothing of AnyIO, FastAPI or the library. The guarantees' numbers stand in the comments.
"""

from __future__ import annotations

import math

from .model_tasks import Line, ProgramError, TasksModel, names, outcome
from .program import Request
from .trace import Trace
from .world import Body, Cancelled

REPORT_INTERVAL = 5  # seconds between two lines of a drain that waits


class Model(TasksModel):
    """One run of one program: its requests, and its shutdown."""

    def run(self) -> Trace:
        for line, request in zip(self.lines, self.program.requests, strict=True):
            self.world.spawn(self.request(line, request))
        self.world.spawn(self.drain())
        self.world.run()
        return self.trace

    # A request.

    def request(self, line: Line, request: Request) -> Body:
        yield from self.world.sleep(request.at)
        line.process = self.world.current
        cut_off = math.inf if request.cut_off is None else request.cut_off
        with self.world.scope(cut_off):
            error = yield from outcome(self.exchange(line, request))
        self.reach(line, "after_route")  # the ASGI call has ended
        self.reach(line, "after_response")
        if isinstance(error, ProgramError) and str(error) != "HTTPException":
            self.message(line, str(error))

    def exchange(self, line: Line, request: Request) -> Body:
        is_http = request.kind != "websocket"
        if not is_http:
            self.message(line, "accept")
        error = yield from outcome(self.route(line, request))
        if error is not None:
            self.route_failed(line, cut_off=isinstance(error, Cancelled))
        self.reach(line, "after_route")
        if error is None and is_http:
            error = yield from outcome(self.respond(line, request))
        later = yield from outcome(self.perform(request.request_teardown, line))
        error = later or error
        if isinstance(error, ProgramError) and is_http and not line.has_responded:
            status = 401 if str(error) == "HTTPException" else 500
            yield from self.start_response(line, status)
            self.end_response(line)
        if error is not None:
            raise error

    def route(self, line: Line, request: Request) -> Body:
        error = yield from outcome(self.perform(request.endpoint, line))
        if error is None and request.fails:
            error = ProgramError(request.fails)
        yield from self.perform(request.function_teardown, line)
        if request.teardown_fails:
            raise ProgramError("ValueError")
        if error is not None:
            raise error

    def respond(self, line: Line, request: Request) -> Body:
        yield from self.start_response(line, 200)
        for step in request.stream:
            yield from self.perform([step], line)
            self.message(line, "chunk")
        if request.stream_fails:
            raise ProgramError("ValueError")
        self.end_response(line)

    def start_response(self, line: Line, status: int) -> Body:
        line.before_response += [task.call.id for task in line.spawned]
        with self.world.scope(shield=True):  # G3
            yield from self.world.until(lambda: not any(task.is_pending for task in line.spawned))
        yield from self.world.until(lambda: all(task.is_finished for task in line.held))
        line.has_responded = True
        self.message(line, f"start {status}")

    def end_response(self, line: Line) -> None:
        self.message(line, "last chunk")
        line.after_response += [task.call.id for task in line.waiting.get("after_response", ())]
        self.reach(line, "after_response")

    def message(self, line: Line, kind: str) -> None:
        self.trace.exchanges[line.number].message(kind, self.world.now)

    def reach(self, line: Line, point: str) -> None:
        for task in line.waiting.pop(point, ()):
            self.start(task)

    def route_failed(self, line: Line, *, cut_off: bool) -> None:
        """Drop the *after* tasks (G6); what is shielded survives the server's cut-off (G17)."""
        dropped = [
            task
            for waiting in line.waiting.values()
            for task in waiting
            if not task.options.even_if_failed and not (cut_off and task.options.shield)
        ]
        for task in dropped:
            self.drop(task)
        if dropped:
            what = f"dropped {len(dropped)} task(s) that were to run after it"
            self.log(f"INFO the route failed: {what}: {names(dropped)}")

    # The drain: G16, step by step.

    def drain(self) -> Body:
        yield from self.world.sleep(self.program.shutdown)
        self.is_stopping = True
        grace_period = 0 if self.program.lifespan_is_cancelled else self.program.grace_period
        yield from self.wait_for_all(self.world.now + grace_period)
        self.phase = "draining"
        self.cut_off()
        shield_timeout = self.program.shield_timeout
        deadline = self.world.now + (math.inf if shield_timeout is None else shield_timeout)
        yield from self.wait_for_all(deadline)
        self.phase = "closed"
        self.turned = self.world.now
        self.check_race()
        if left := [task for task in self.unfinished if task.options.shield]:
            what = f"shutdown cancels shielded tasks, {shield_timeout} s after the others"
            self.log(f"CRITICAL {what}: {names(left, at_most=len(left))}")
            self.shielded.is_cancelled = True
        yield from self.wait_for_all(math.inf)
        self.trace.ended = self.world.now

    def cut_off(self) -> None:
        unshielded = [task for task in self.unfinished if not task.options.shield]
        if unshielded:
            self.log(f"WARNING shutdown cancels {len(unshielded)} task(s): {names(unshielded)}")
        for task in unshielded:
            if task.is_pending:
                self.drop(task)
        self.unshielded.is_cancelled = True
        for line in self.lines:
            self.reach(line, "after_route")
            self.reach(line, "after_response")

    def wait_for_all(self, deadline: float) -> Body:
        while self.unfinished and self.world.now < deadline:
            yield min(deadline, self.world.now + REPORT_INTERVAL), lambda: not self.unfinished
            if self.unfinished and self.world.now < deadline:
                self.log(f"WARNING shutdown waits for {names(self.unfinished)}")
