"""Draws random programs and compares what comes of them: on Trio, on asyncio, and by the model."""

from __future__ import annotations

import gc
from collections import Counter
from difflib import unified_diff

import pytest_trio.plugin  # noqa: F401  # Hypothesis decides what Trio leaves to chance
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import UnsatisfiedAssumption

from .backends import run_on_asyncio, run_on_trio
from .model import Model
from .program import Program
from .script import script
from .strategies import programs
from .trace import Trace
from .world import UndeterminedError

BACKENDS = {"trio": run_on_trio, "asyncio": run_on_asyncio}


def explore(count: int, seed: int) -> Counter[str]:
    """Check so many programs; return how many, and how many tasks of which kind they had.

    Raises:
        AssertionError: at the first divergence, shrunk, with the program as a script.
    """
    counts: Counter[str] = Counter()

    @seeded(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
        report_multiple_bugs=False,  # it takes long to shrink each
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def run(program: Program) -> None:
        if counts["programs"] % 100 == 0:
            gc.collect()
            gc.freeze()  # each program collects garbage, which should be its own only
        try:
            counts.update(check(program))
        except UndeterminedError:
            counts["racy"] += 1
            raise UnsatisfiedAssumption from None

    run()
    return counts


def check(program: Program) -> Counter[str]:
    """Check one program; return what it had to do.

    Raises:
        AssertionError: a backend does not do what the model says.
        UndeterminedError: what must come of the program is not determined.
    """
    model = Model(program)
    wanted = model.run()
    for backend, run in BACKENDS.items():
        try:
            trace = run(program)
            compare(model, trace, backend)
        except BaseException as error:
            error.add_note(f"on {backend}, by this program:\n{script(program)}")
            raise
    return Counter(["programs", *(facts.state for facts in wanted.tasks.values())])


def compare(model: Model, trace: Trace, backend: str) -> None:
    """The facts are those that the model says, and each start stands where G3 wants it."""
    wanted, found = ([*filter(model.is_certain, each.lines())] for each in (model.trace, trace))
    assert wanted == found, "\n".join(
        unified_diff(wanted, found, "model", backend, n=0, lineterm="")
    )
    for request in model.exchanges:
        if not request.is_seen:
            continue
        exchange = trace.exchanges[request.number]
        start, end = exchange.position("start"), exchange.position("last chunk")
        for number in request.before_response:
            assert exchange.position(f"#{number}") < start, (
                f"#{number} starts late: {exchange.events}"
            )
        for number in request.after_response:
            assert exchange.position(f"#{number}") > end, (
                f"#{number} starts early: {exchange.events}"
            )
