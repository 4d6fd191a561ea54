"""`make bench-scaling`: what a task costs, by how many there are; drawn as a chart.

Cost per task of the time to spawn sleeping tasks, of the memory they take (by Python's allocators)
and of the time to shut down, for 100 to 200,000 unfinished tasks, on the runner and on a bare task
group. Each way's crowds have processes of their own; both backends are measured at the same time.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.budgets import BACKENDS
from benchmarks.child import ask
from benchmarks.crowd import BYTES, SHUTDOWN, SPAWN, key
from benchmarks.markdown import table
from benchmarks.measure import Spread
from benchmarks.scaling_chart import draw
from benchmarks.work import BARE, RUNNER

SIZES = (100, 1_000, 10_000, 100_000, 200_000)
UNITS = {SPAWN: ("to spawn, µs", 1e6), BYTES: ("memory, KiB", 1 / 1024), SHUTDOWN: ("to shut down, µs", 1e6)}  # fmt: skip

Lines = Mapping[tuple[str, str], Mapping[str, Spread]]
"""By way and backend."""


def measure_backend(backend: str) -> dict[tuple[str, str], dict[str, Spread]]:
    figures: dict[tuple[str, str], dict[str, Spread]] = {}
    for way in (RUNNER, BARE):
        traced = ask("crowd", backend, way, "traced", *map(str, SIZES))
        figures[way, backend] = traced
        for size in SIZES:
            figures[way, backend] |= ask("crowd", backend, way, "timed", str(size))
    return figures


def panels(lines: Lines) -> dict[str, dict[tuple[str, str], list[float]]]:
    """For each thing measured, the figures of each line by size."""
    return {
        label: {
            line: [figures[key(what, size)].middle * factor for size in SIZES]
            for line, figures in lines.items()
        }
        for what, (label, factor) in UNITS.items()
    }


def rows(lines: Lines) -> list[tuple[str, ...]]:
    head = ("per task", *(f"{size:,}" for size in SIZES))
    body = [
        (f"{label}: {way}, {backend}", *(f"{figure:.1f}" for figure in figures))
        for label, panel in panels(lines).items()
        for (way, backend), figures in panel.items()
    ]
    return [head, *body]


def main() -> None:
    parser = argparse.ArgumentParser(description="What does a task cost, by how many there are?")
    parser.add_argument("--chart", type=Path, required=True, help="the PNG file to write")
    chart = parser.parse_args().chart
    lines: dict[tuple[str, str], dict[str, Spread]] = {}
    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        for figures in pool.map(measure_backend, BACKENDS):
            lines |= figures
    print(table(rows(lines)))
    draw(SIZES, panels(lines), chart)


if __name__ == "__main__":
    main()
