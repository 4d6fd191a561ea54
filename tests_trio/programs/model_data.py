"""What the reference keeps of requests and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .program import Call, Options
from .trace import TaskFacts
from .world import Body, Cancelled, Process, Scope

EXITS = ("SystemExit", "HostileExit")  # no `Exception`s


class ProgramError(Exception):
    """An error of the program's, by its name."""

    @property
    def is_exception(self) -> bool:
        return str(self) not in EXITS


@dataclass(eq=False)
class ModelExchange:
    """A request as the server sees it: the runs of routes in it, and how far its response is."""

    number: int
    process: Process
    is_seen: bool = True  # else nobody gets what it sends
    is_http: bool = True  # else it has no response
    lines: list[Line] = field(default_factory=list)
    is_responding: bool = False
    has_ended: bool = False
    before_response: list[int] = field(default_factory=list)  # tasks that start before it (G3)
    after_response: list[int] = field(default_factory=list)  # and behind its last message


@dataclass(eq=False)
class Line:
    """A run of a route: what waits for its timing points, and what the response waits for."""

    name: str
    exchange: ModelExchange
    waiting: dict[str, list[ModelTask]] = field(
        default_factory=lambda: {"after_route": [], "after_response": []}
    )
    spawned: list[ModelTask] = field(default_factory=list)
    held: list[ModelTask] = field(default_factory=list)
    awaited: list[ModelTask] = field(default_factory=list)  # by its own code, now

    def needs(self) -> list[Line | ModelTask]:
        """What has to end before the timing points that are still to come."""
        return [*self.awaited] if self.waiting else []


@dataclass(eq=False)
class ModelTask:
    call: Call
    options: Options
    scene: Line  # the run that its body acts in
    facts: TaskFacts
    scope: Scope = field(default_factory=Scope)  # what `cancel()` cancels
    process: Process | None = None  # it runs there
    limit: Scope = field(default_factory=Scope)  # has the deadline of its attempt
    leaving: Scope | None = None  # what shields it while its dependencies are closed
    awaited: list[ModelTask] = field(default_factory=list)  # by it, now

    def needs(self) -> list[Line | ModelTask]:
        """What has to end before it can start, or end."""
        if self.line is None or self not in self.line.waiting.get(self.call.point, ()):
            return [*self.awaited]
        exchange = self.line.exchange
        held = [task for line in exchange.lines for task in line.held if not task.is_finished]
        is_held = exchange.is_http and not exchange.is_responding
        return [self.line, *(held if is_held and self.call.point == "after_response" else ())]

    @property
    def line(self) -> Line | None:
        """The run that it belongs to."""
        return None if self.call.point == "runner" else self.scene

    @property
    def is_pending(self) -> bool:
        return self.facts.state == "PENDING"

    @property
    def is_finished(self) -> bool:
        return self.facts.finished is not None


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


def needed_for(task: ModelTask) -> list[Line | ModelTask]:
    """Itself, and whatever has to end before it can."""
    found: list[Line | ModelTask] = [task]
    for each in found:  # which grows
        found += [other for other in each.needs() if other not in found]
    return found
