"""What a random program is: requests, what they schedule, and when the app shuts down.

A program is plain data. `stage` runs it on a real backend and `model` says what must come of it.
Times are seconds of a virtual clock, in multiples of 2**-26: sums of them are exact, and no two
events coincide unless one causes the other, for else their order would be nobody's promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

Point: TypeAlias = Literal["now", "after_route", "after_response", "runner"]


class Plain:
    """A dataclass shown by the fields that differ from their defaults, so that it can be pasted."""

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{field.name}={value!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) != field.default
        )
        return f"{type(self).__name__}({shown})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # for Hypothesis, which would show all fields


@dataclass(frozen=True, repr=False)
class Retry(Plain):
    """Up to so many attempts, a sleep in between."""

    attempts: int
    delay: float


@dataclass(frozen=True, repr=False)
class Handler(Plain):
    """What `on_error` does: sleep, then perhaps raise."""

    delay: float = 0
    fails: bool = False
    is_sync: bool = False


@dataclass(frozen=True, repr=False)
class Options(Plain):
    """The options of a task, or of the app; `None` is inherited."""

    shield: bool | None = None
    on_error: Handler | None = None
    timeout: float | None = None
    retry: Retry | None = None
    limiter: int | None = None  # an index into `Program.limiters`
    hold_response: bool | None = None
    even_if_failed: bool | None = None

    def merge(self, other: Options) -> Options:
        names = [field.name for field in fields(self)]
        inner = {name: getattr(other, name) for name in names}
        return Options(
            **{name: getattr(self, name) if inner[name] is None else inner[name] for name in names}
        )


@dataclass(frozen=True, repr=False)
class Schedule(Plain):
    call: Call


@dataclass(frozen=True, repr=False)
class Cancel(Plain):
    """Cancel a task, if it has been scheduled by then."""

    id: int


@dataclass(frozen=True, repr=False)
class Await(Plain):
    """Await a task that the same body has scheduled, and go on whatever comes of it."""

    id: int


Action: TypeAlias = Schedule | Cancel | Await


@dataclass(frozen=True, repr=False)
class Step(Plain):
    """Sleep, unless the delay is 0, then act."""

    delay: float
    action: Action | None = None


OnCancel: TypeAlias = Literal["raise", "swallow", "fail", "linger"]


@dataclass(frozen=True, repr=False)
class Call(Plain):
    """What a task does: its steps, then its failure, in the first so many attempts."""

    id: int
    point: Point
    steps: tuple[Step, ...] = ()
    options: Options = Options()
    is_sync: bool = False
    failing_attempts: int = 0
    error: Literal["ValueError", "SystemExit", "ExceptionGroup"] = "ValueError"
    on_cancel: OnCancel = "raise"
    linger: float = 0  # how long its clean-up sleeps, shielded


@dataclass(frozen=True, repr=False)
class Request(Plain):
    """A request: an endpoint between two teardowns, a response, and perhaps an untimely end."""

    at: float
    kind: Literal["async", "def", "stream", "websocket"] = "async"
    endpoint: tuple[Step, ...] = ()
    fails: Literal["ValueError", "HTTPException"] | None = None
    function_teardown: tuple[Step, ...] = ()
    teardown_fails: bool = False
    stream: tuple[Step, ...] = ()  # a chunk after each
    stream_fails: bool = False
    request_teardown: tuple[Step, ...] = ()
    cut_off: float | None = None  # the server cancels it, so many seconds after its start


@dataclass(frozen=True, repr=False)
class Program(Plain):
    requests: tuple[Request, ...]
    shutdown: float
    lifespan_is_cancelled: bool = False  # instead of told to shut down
    grace_period: float = 0
    shield_timeout: float | None = None
    max_tasks: int | None = None
    max_threads: int = 40
    limiters: tuple[
        int, ...
    ] = ()  # tokens; even ones are `CapacityLimiter`s, odd ones `Semaphore`s
    options: Options = Options()  # app-wide


def calls_of(steps: tuple[Step, ...]) -> Iterator[Call]:
    """All calls in some steps, those that their tasks schedule included."""
    for step in steps:
        if isinstance(step.action, Schedule):
            yield step.action.call
            yield from calls_of(step.action.call.steps)


def bodies_of(request: Request) -> tuple[tuple[Step, ...], ...]:
    """The parts of a request that have steps."""
    return (
        request.endpoint,
        request.function_teardown,
        request.stream,
        request.request_teardown,
    )


def script(program: Program) -> str:
    """The program as a text to read."""
    return "\n".join(_lines(program))


def _lines(program: Program) -> Iterator[str]:
    yield f"app: {_changed(program, skip=('requests',))}"
    for number, request in enumerate(program.requests):
        yield f"request {number}: {_changed(request)}"
        for name in ("endpoint", "function_teardown", "stream", "request_teardown"):
            if steps := getattr(request, name):
                yield f"    {name}:"
                yield from _step_lines(steps, "        ")


def _step_lines(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    for step in steps:
        sleep = f"sleep {step.delay:.3f}, " if step.delay else ""
        match step.action:
            case Schedule(call):
                yield f"{indent}{sleep}schedule #{call.id} {call.point}: {_changed(call)}"
                yield from _step_lines(call.steps, indent + "    ")
            case Cancel(id) | Await(id):
                yield f"{indent}{sleep}{type(step.action).__name__.lower()} #{id}"
            case None:
                yield f"{indent}{sleep}"


def _changed(value: object, *, skip: tuple[str, ...] = ()) -> str:
    """The fields that differ from their defaults, but those that have lines of their own."""
    hidden = {"id", "point", "steps", "endpoint", "function_teardown", "stream", "request_teardown"}
    shown = [
        f"{field.name}={_value(getattr(value, field.name))}"
        for field in fields(value)  # type: ignore[arg-type]
        if field.name not in {*skip, *hidden} and getattr(value, field.name) != field.default
    ]
    return ", ".join(shown)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (Options, Retry, Handler)):
        return f"{type(value).__name__}({_changed(value)})"
    return repr(value)
