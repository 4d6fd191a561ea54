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


@dataclass(frozen=True, repr=False)
class Visit(Plain):
    """Call the app from inside of a request, drop what it sends, and go on whatever comes of it."""

    part: Part


Action: TypeAlias = Schedule | Cancel | Await | Visit


@dataclass(frozen=True, repr=False)
class Step(Plain):
    """Sleep, unless the delay is 0, then act."""

    delay: float
    action: Action | None = None


OnCancel: TypeAlias = Literal["raise", "swallow", "fail", "linger"]
Error: TypeAlias = Literal[
    "ValueError",
    "SystemExit",
    "ExceptionGroup",
    "HTTPException",
    "HostileError",
    "HostileExit",
    "FrozenError",
]  # `guises` has those that are not Python's own
Guise: TypeAlias = Literal["named", "nameless", "proxy"]


@dataclass(frozen=True, repr=False)
class Dependency(Plain):
    """A generator that a task's function depends on: it opens, sees how the call ends, closes."""

    opening: float = 0  # how long it sleeps, each time
    closing: float = 0
    fails_to_open: int = 0  # in the first so many attempts
    fails_to_close: int = 0
    error: Error = "ValueError"  # what it fails with
    swallows: bool = False  # what it sees, if that is an error
    is_sync: bool = False  # while its thread opens it, nothing is cancelled
    closes_first: bool = False  # it is of function scope
    needs_previous: bool = False  # the one before it, which the function gets as well


@dataclass(frozen=True, repr=False)
class Call(Plain):
    """What a task does: its steps, then its failure, in the first so many attempts."""

    id: int
    point: Point
    steps: tuple[Step, ...] = ()
    options: Options = Options()
    is_sync: bool = False
    failing_attempts: int = 0
    error: Error = "ValueError"
    on_cancel: OnCancel = "raise"
    linger: float = 0  # how long its clean-up sleeps, shielded
    guise: Guise | None = None  # what its function is handed over as; see `guises`
    dependencies: tuple[Dependency, ...] = ()  # opened in this order


@dataclass(frozen=True, repr=False, kw_only=True)
class Run(Plain):
    """A run of a route: an endpoint between two teardowns, and a response.

    `again` is what a middleware calls the app for, once more, if this fails before its response
    starts, or answers with an error; which it drops.
    """

    kind: Literal["async", "def", "stream", "websocket"] = "async"
    endpoint: tuple[Step, ...] = ()
    fails: Literal["ValueError", "HTTPException"] | None = None
    function_teardown: tuple[Step, ...] = ()
    teardown_fails: bool = False
    stream: tuple[Step, ...] = ()  # a chunk after each
    stream_fails: bool = False
    request_teardown: tuple[Step, ...] = ()
    again: Part | None = None


@dataclass(frozen=True, repr=False, kw_only=True)
class Part(Run):
    """A run of a route within a request, beside that of the request itself."""

    id: int


@dataclass(frozen=True, repr=False, kw_only=True)
class Request(Run):
    """A request, and perhaps its untimely end."""

    at: float
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


BODIES = ("endpoint", "function_teardown", "stream", "request_teardown")


def bodies_of(run: Run) -> dict[str, tuple[Step, ...]]:
    """The parts of a run that have steps, by their names."""
    return {name: getattr(run, name) for name in BODIES if getattr(run, name)}


def parts_of(run: Run) -> Iterator[Part]:
    """All other runs in the request of a run."""
    visits = (step.action for steps in bodies_of(run).values() for step in steps)
    parts = [visit.part for visit in visits if isinstance(visit, Visit)]
    for part in (*parts, *(() if run.again is None else (run.again,))):
        yield part
        yield from parts_of(part)
