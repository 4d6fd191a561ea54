"""The budgets that the library is held to, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.batches import AFTER_RESPONSE, NOW
from benchmarks.dependencies import ASYNC, GENERATOR
from benchmarks.imports import ADDED as IMPORT_ADDED
from benchmarks.imports import FORBIDDEN
from benchmarks.per_request import ADDED, RESPONSE, added
from benchmarks.work import RUNNER

BACKENDS = ("asyncio", "trio")


@dataclass(frozen=True)
class Budget:
    """What is measured, against what, and how much it may be on asyncio and on Trio."""

    what: str
    against: str
    topic: str
    subject: str
    at_most: tuple[float, float]
    unit: str = " x"


def both(at_most: float) -> tuple[float, float]:
    return at_most, at_most


GROUP = "the same on a bare AnyIO task group"
BUDGETS = [
    Budget("400 no-op tasks on the runner", GROUP, "batches", RUNNER, both(1.25)),
    Budget("400 no-op tasks in a request, now", GROUP, "batches", NOW, (1.25, 1.6)),
    Budget(
        "400 no-op tasks in a request, after the response",
        GROUP,
        "batches",
        AFTER_RESPONSE,
        (1.25, 1.6),
    ),
    Budget(
        "a request with one task after the response, minus the plain request",
        "a request that spawns by hand, minus the plain request",
        "per_request",
        added(RESPONSE),
        both(3),
    ),
    Budget(
        "a request without tasks, app with `add_tasks`",
        "the same, app without",
        "per_request",
        ADDED,
        both(1.05),
    ),
    *(
        Budget(f"{kind} of a task", "the same of an endpoint", "dependencies", kind, both(1.5))
        for kind in (ASYNC, GENERATOR)
    ),
    Budget("memory of 100,000 sleeping tasks, resident", GROUP, "memory", RUNNER, both(1.3)),
    Budget(
        "growth of the cost per task from 2,000 to 200,000",
        "the bare group's own growth",
        "growth",
        RUNNER,
        both(1.2),
    ),
    Budget(
        "shutdown with 20,000 sleeping tasks",
        "cancelling a bare group of as many",
        "shutdown",
        RUNNER,
        both(1.5),
    ),
    Budget(
        "`import fastapi_tasks`",
        "`import fastapi, anyio`",
        "imports",
        IMPORT_ADDED,
        both(20),
        " ms more",
    ),
    Budget(
        "trio and opentelemetry, imported by it", "none", "imports", FORBIDDEN, both(0), " of them"
    ),
]
