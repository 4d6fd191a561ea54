"""The report: the budgets and whether they are met, then all figures of each topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from benchmarks import machine, servers
from benchmarks.budgets import BACKENDS, BUDGETS, Budget
from benchmarks.load import WRK
from benchmarks.markdown import table
from benchmarks.measure import CALM, Spread

Figures = Mapping[str, Spread]
"""By subject."""

OLDER = "the older project"
TOPICS = (
    "batches",
    "per_request",
    "dependencies",
    "history",
    "memory",
    "growth",
    "shutdown",
    "imports",
)
WITH_OLDER = ("batches", "per_request", "memory", "shutdown", "imports")


def report(
    topics: Mapping[tuple[str, str, str], Figures], served: Mapping[str, Figures], loads: str
) -> str:
    """The whole report, as Markdown."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`. Each figure is a ratio inside one run: the median over the rounds, "
        "and the quartiles around it where there were enough of them (`measure.py` says how).",
        f"{machine.describe()}. Load of the machine before and after: {loads}.",
        *budgets(topics),
    ]
    for topic in TOPICS:
        parts += [f"## {topic.replace('_', ' ').capitalize()}", docstring(topic)]
        parts += [table(topic_rows(topic, topics))]
    generator = "`wrk`" if WRK else "sockets"
    parts += ["## Servers", docstring("servers")]
    parts += [
        f"The load comes from {generator}. The first row tells how far to believe the others."
    ]
    for name, figures in served.items():
        parts += [f"### {name}", table(server_rows(figures)), last_row(figures)]
    return "\n\n".join(parts) + "\n"


def docstring(topic: str) -> str:
    text = import_module(f"benchmarks.{topic}").__doc__
    assert text is not None
    return text.strip()


def show(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    middle = f"{spread.middle:.2f}"
    quartiles = f" ({spread.low:.2f} to {spread.high:.2f})"
    return middle if spread.low == spread.high else middle + quartiles


def budgets(topics: Mapping[tuple[str, str, str], Figures]) -> Iterator[str]:
    yield "## Budgets"
    yield table(budget_rows(topics))
    again = {
        backend: [
            figures[subject].middle
            for (_, topic, where), figures in topics.items()
            for subject in figures
            if where == backend and "once more" in subject
        ]
        for backend in BACKENDS
    }
    off = max(abs(ratio - 1) for ratios in again.values() for ratio in ratios)
    verdict = "so the method holds" if off <= CALM else "**so the machine was not calm enough**"
    yield f"What was measured against itself came out within {off:.1%} of 1: {verdict}."


def budget_rows(topics: Mapping[tuple[str, str, str], Figures]) -> Iterator[tuple[str, ...]]:
    yield "what", "against", "at most", "asyncio", "Trio", "met"
    for budget in BUDGETS:
        seen = [topics["", budget.topic, backend][budget.subject] for backend in BACKENDS]
        yield (
            budget.what,
            budget.against,
            limits(budget),
            *map(show, seen),
            " ".join(
                "yes" if spread.middle <= limit else "**no**"
                for spread, limit in zip(seen, budget.at_most, strict=True)
            ),
        )


def limits(budget: Budget) -> str:
    return " / ".join(f"{limit:g}" for limit in dict.fromkeys(budget.at_most)) + budget.unit


def topic_rows(
    topic: str, topics: Mapping[tuple[str, str, str], Figures]
) -> Iterator[tuple[str, ...]]:
    """All subjects of a topic: this library's and the alternatives, then the older project's."""
    yield "", "asyncio", "Trio"
    for library in ("", OLDER):
        columns = [topics.get((library, topic, backend), {}) for backend in BACKENDS]
        for subject in dict.fromkeys(name for column in columns for name in column):
            name = f"{OLDER}: {subject}" if library else subject
            yield name, *(show(column.get(subject)) for column in columns)


def server_rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    yield "against the endpoint without tasks, unless it says otherwise", *servers.FIGURES
    for row in servers.ROWS:
        yield row, *(show(figures[f"{row}: {figure}"]) for figure in servers.FIGURES)


def last_row(figures: Figures) -> str:
    spread = show(figures[servers.UNTIL_DONE])
    return f"From a request to the end of its three naps, against Starlette's: {spread}."
