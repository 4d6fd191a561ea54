"""What came of a program: the same kind of record from each backend and from the model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class TaskFacts:
    """What came of one task."""

    state: str = "PENDING"
    exception: str = "NoneType"
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    handler_calls: int = 0

    def __str__(self) -> str:
        started, finished = (
            "never" if time is None else f"at {time:.6f}" for time in (self.started, self.finished)
        )
        return (
            f"{self.state} {self.exception}, started {started}, finished {finished}, "
            f"{self.attempts} attempts, {self.handler_calls} handler calls"
        )


@dataclass
class Exchange:
    """What a request's tasks and its response did, in this order."""

    events: list[tuple[str, float]] = field(default_factory=list)

    def start(self, task: int, time: float) -> None:
        self.events.append((f"#{task}", time))

    def message(self, kind: str, time: float) -> None:
        self.events.append((kind, time))

    @property
    def messages(self) -> list[str]:
        return [f"{what} at {time:.6f}" for what, time in self.events if not what.startswith("#")]

    def position(self, kind: str) -> float:
        """Where the message stands among the events; past the end if it was never sent."""
        places = (n for n, (what, _) in enumerate(self.events) if f"{what} ".startswith(f"{kind} "))
        return next(places, float("inf"))


@dataclass
class Trace:
    """All that can be seen of a program's run."""

    tasks: defaultdict[int, TaskFacts] = field(default_factory=lambda: defaultdict(TaskFacts))
    exchanges: defaultdict[int, Exchange] = field(default_factory=lambda: defaultdict(Exchange))
    starts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by run
    attempts: defaultdict[int, list[str]] = field(  # of tasks with dependencies
        default_factory=lambda: defaultdict(list)
    )
    refused: dict[int, str] = field(default_factory=dict)
    seen: list[tuple[float, str]] = field(default_factory=list)  # by who awaited or visited it
    log: list[tuple[float, str]] = field(default_factory=list)
    ended: float = -1  # when the lifespan's shutdown was complete

    def start(self, task: int, run: str, request: int, time: float) -> None:
        """A task of a run of a route in that request has started."""
        self.starts[run].append(f"#{task}")
        self.exchanges[request].start(task, time)

    def note(self, task: int, what: str, time: float) -> None:
        """A task's call, or one of its dependencies, begins or ends something."""
        self.attempts[task].append(f"{what} at {time:.6f}")

    def lines(self) -> list[str]:
        """The facts, as lines to compare. What one moment holds is sorted by its text."""
        exchanges = [(n, x) for n, x in sorted(self.exchanges.items()) if x.events]
        return [
            *(f"task #{number}: {facts}" for number, facts in sorted(self.tasks.items())),
            *(f"attempts of #{n}: {events}" for n, events in sorted(self.attempts.items())),
            *(f"refused #{number}: {error}" for number, error in sorted(self.refused.items())),
            *(f"{run} starts {tasks}" for run, tasks in sorted(self.starts.items())),
            *(f"request {n} sends {x.messages}" for n, x in exchanges),
            *(f"{time:.6f} see {what}" for time, what in sorted(self.seen)),
            *(f"{time:.6f} log {text}" for time, text in sorted(self.log)),
            f"the lifespan ended at {self.ended:.6f}",
        ]
