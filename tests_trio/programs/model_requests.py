"""The reference for requests: the runs of routes in them, and their responses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .model_attempts import AttemptsModel
from .model_data import Line, ModelExchange, ProgramError, names, outcome
from .program import Part, Request, Run
from .world import Body, Cancelled


@dataclass(eq=False)
class Response:
    """What one call of the app sends."""

    exchange: ModelExchange | None  # who gets it; None: it is dropped
    drops_errors: bool = False
    status: int | None = None  # None: it has not begun


class RequestsModel(AttemptsModel):
    """The requests of one run of one program, from the server's call to its end."""

    def request(self, number: int, request: Request) -> Body:
        yield from self.world.sleep(request.at)
        exchange = self.begin(number, is_http=request.kind != "websocket")
        cut_off = math.inf if request.cut_off is None else request.cut_off
        with self.world.scope(cut_off):
            response = Response(exchange)
            error = yield from outcome(
                self.call_app(request, f"request {number}", exchange, response)
            )
        self.end(exchange)
        if isinstance(error, ProgramError):
            self.message(exchange, str(error))

    def visit(self, part: Part, scene: Line) -> Body:
        """Once the response has ended, such a call is a request of its own."""
        exchange, outer = scene.exchange, scene.exchange
        if outer.has_ended:
            exchange = self.begin(outer.number, is_seen=False)
        response = Response(None if exchange is outer else exchange)
        name = f"part {part.id}"
        error = yield from outcome(self.call_app(part, name, exchange, response))
        if exchange is not outer:
            self.end(exchange)
        if isinstance(error, Cancelled):
            raise error
        self.see(f"{name}: {response.status} {error}")

    # The app, from the outside to the inside.

    def call_app(self, run: Run, name: str, exchange: ModelExchange, response: Response) -> Body:
        error = yield from outcome(self.try_twice(run, name, exchange, response))
        is_http = run.kind != "websocket"
        if isinstance(error, ProgramError) and is_http and response.status is None:
            yield from self.answer(response, 500)
        if error is not None:
            raise error

    def try_twice(self, run: Run, name: str, exchange: ModelExchange, response: Response) -> Body:
        if run.again is None:
            yield from self.run_route(run, name, exchange, response)
            return
        first = Response(response.exchange, drops_errors=True)
        error = yield from outcome(self.run_route(run, name, exchange, first))
        if first.status == 200 or isinstance(error, Cancelled):
            response.status = first.status
            if error is not None:
                raise error
        else:
            again = run.again
            yield from self.run_route(again, f"part {again.id}", exchange, response)

    def run_route(self, run: Run, name: str, exchange: ModelExchange, response: Response) -> Body:
        line = Line(name, exchange)
        exchange.lines.append(line)
        if exchange.is_responding:  # which counts as the end of each route
            self.reach(line, "after_route")
        is_http = run.kind != "websocket"
        if not is_http:
            self.message(exchange, "accept")
        error = yield from outcome(self.route(line, run))
        if error is not None:
            self.route_failed(line, cut_off=isinstance(error, Cancelled))
        self.reach(line, "after_route")
        if error is None and is_http:
            error = yield from outcome(self.respond(line, run, response))
        later = yield from outcome(self.perform(run.request_teardown, line))
        error = later or error
        if isinstance(error, ProgramError) and str(error) == "HTTPException":
            yield from self.answer(response, 401)  # by FastAPI's exception handler
        elif error is not None:
            raise error

    def route(self, line: Line, run: Run) -> Body:
        is_sync = run.kind == "def"
        error = yield from outcome(self.perform(run.endpoint, line, is_sync=is_sync))
        if error is None and run.fails:
            error = ProgramError(run.fails)
        yield from self.perform(run.function_teardown, line)
        if run.teardown_fails:
            raise ProgramError("ValueError")
        if error is not None:
            raise error

    def respond(self, line: Line, run: Run, response: Response) -> Body:
        yield from self.start_response(response, 200)
        for step in run.stream:
            yield from self.perform([step], line)
            if response.exchange is not None:
                self.message(response.exchange, "chunk")
        if run.stream_fails:
            raise ProgramError("ValueError")
        self.end_response(response)

    # Responses.

    def answer(self, response: Response, status: int) -> Body:
        yield from self.start_response(response, status)
        self.end_response(response)

    def start_response(self, response: Response, status: int) -> Body:
        response.status = status
        if response.drops_errors and status >= 400:
            response.exchange = None
        if (exchange := response.exchange) is None:
            return
        lines = exchange.lines
        for line in lines:
            self.reach(line, "after_route")
        exchange.before_response += [task.call.id for line in lines for task in line.spawned]
        with self.world.scope(shield=True):  # G3
            yield from self.world.until(
                lambda: not any(task.is_pending for line in lines for task in line.spawned)
            )
        yield from self.world.until(
            lambda: all(task.is_finished for line in lines for task in line.held)
        )
        exchange.is_responding = True
        self.message(exchange, f"start {status}")

    def end_response(self, response: Response) -> None:
        if (exchange := response.exchange) is not None:
            self.message(exchange, "last chunk")
            waiting = [line.waiting.get("after_response", ()) for line in exchange.lines]
            exchange.after_response += [task.call.id for tasks in waiting for task in tasks]
            self.end(exchange)

    def message(self, exchange: ModelExchange, kind: str) -> None:
        if exchange.is_seen:
            self.trace.exchanges[exchange.number].message(kind, self.world.now)

    # Timing points.

    def begin(self, number: int, *, is_seen: bool = True, is_http: bool = True) -> ModelExchange:
        exchange = ModelExchange(number, self.world.current, is_seen, is_http)
        self.exchanges.append(exchange)
        return exchange

    def end(self, exchange: ModelExchange) -> None:
        """The last message was sent, or the ASGI call has ended."""
        exchange.has_ended = True
        self.release(exchange)

    def release(self, exchange: ModelExchange) -> None:
        for line in exchange.lines:
            self.reach(line, "after_route")
            self.reach(line, "after_response")

    def reach(self, line: Line, point: str) -> None:
        for task in line.waiting.pop(point, ()):
            self.start(task)

    def route_failed(self, line: Line, *, cut_off: bool) -> None:
        """Drop the *after* tasks (G6); what is shielded survives the server's cut-off (G17)."""
        dropped = [
            task
            for waiting in (line.waiting.values() if "after_route" in line.waiting else ())
            for task in waiting
            if not task.options.even_if_failed and not (cut_off and task.options.shield)
        ]
        for task in dropped:
            self.drop(task)
        if dropped:
            what = f"dropped {len(dropped)} task(s) that were to run after it"
            self.log(f"INFO the route failed: {what}: {names(dropped)}")
