"""`make bench-against REF=commit`: is anything slower than it was at another commit?

This tree's library and REF's are imported into one process, where each has an app; all apps live in
one event loop. For each row (`against_rows.py`) the copies' blocks are shuffled, and the figures
are medians of the differences within a round (`measure.py`). REF is imported twice: what its two
copies differ by is the noise.

Within a process noise is small, but where a copy lies in memory makes it faster or slower for the
process's whole life, by up to 1 %; the copy that is imported first tends to be the slowest. So there
are as many processes as orders to import the three copies in, and of their medians the median
counts. On Trio there is another source of noise: its scheduler throws dice, which decide how often
tasks have to wait for their turn; they are made to fall alike for all copies. And threads on two cores
pass the interpreter's lock as chance will have it; so each process keeps to one core. The backends
are measured at the same time.
"""

from __future__ import annotations

import argparse
import compileall
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from itertools import count, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from benchmarks.against_rows import ROWS, make_app
from benchmarks.asgi import serving
from benchmarks.child import ask
from benchmarks.markdown import table
from benchmarks.measure import CALM, Block, Spread, measure

BACKENDS = {"asyncio": "asyncio", "trio": "Trio"}
THIS, REF, AGAIN = "this tree", "REF", "REF once more"
ORDERS = list(permutations((THIS, REF, AGAIN)))
WORSE_BY, WORSE_BY_MICROSECONDS = 0.02, 0.5  # a row is worse if it is so by more than both

Figures = Mapping[tuple[str, str], Spread]
"""By row and subject: microseconds per item, of the others than REF more than REF's."""


def copy_sources(what: str, to: Path) -> None:
    """Copy the library from a directory or from a commit."""
    if Path(what).is_dir():
        shutil.copytree(what, to)
    else:
        command = ["git", "archive", f"{what}:src"]
        archive = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(to, filter="data")
    compileall.compile_dir(to, quiet=2)  # so that no import has to, which takes memory elsewhere


def load(directory: str) -> ModuleType:
    """Import another copy of the library."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastapi_tasks"]:
        del sys.modules[name]
    sys.path.insert(0, directory)
    try:
        library = import_module("fastapi_tasks")
    finally:
        sys.path.remove(directory)
    assert str(library.__file__).startswith(directory), library.__file__
    return library


def with_equal_dice(block: Block) -> Block:
    """The n-th run of each block that this is done to finds Trio's dice in the same state."""
    from trio._core._run import _r as dice

    numbers = count()

    async def run_block() -> float:
        dice.seed(next(numbers))
        return await block()

    return run_block


async def run(backend: str, this: str, ref: str, pattern: str, order: str) -> dict[str, Spread]:
    """One process's figures, by row and subject in JSON's only kind of key."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[list(BACKENDS).index(backend) % len(cores)]})
    logging.getLogger("fastapi_tasks").disabled = True  # there are tasks that fail
    directories = {THIS: this, REF: ref, AGAIN: ref}
    libraries = {subject: load(directories[subject]) for subject in ORDERS[int(order)]}
    figures = {}
    async with AsyncExitStack() as stack:
        drivers = {
            subject: await stack.enter_async_context(serving(make_app(library)))
            for subject, library in libraries.items()
        }
        for name in matching(pattern):
            row = ROWS[name]
            blocks = {subject: row.block(driver) for subject, driver in drivers.items()}
            if backend == "trio":
                blocks = {subject: with_equal_dice(block) for subject, block in blocks.items()}
            costs = (await measure(blocks, row.rounds)).costs
            for subject in drivers:
                base = [0.0] * row.rounds if subject == REF else costs[REF]
                differences = zip(costs[subject], base, strict=True)
                figures[f"{name}|{subject}"] = Spread.of(
                    (cost - less) / row.items * 1e6 for cost, less in differences
                )
    return figures


def matching(pattern: str) -> list[str]:
    return [name for name in ROWS if re.search(pattern, name, re.IGNORECASE)]


def measure_backend(this: Path, ref: Path, pattern: str, backend: str) -> Figures:
    """The medians of all processes, one after the other."""
    processes = []
    for number in range(len(ORDERS)):
        processes.append(ask("against", backend, str(this), str(ref), pattern, str(number)))
        print(f"measured: {number + 1} of {len(ORDERS)}, {backend}", file=sys.stderr)
    return {
        (name, subject): Spread.of(figures[f"{name}|{subject}"].middle for figures in processes)
        for name in matching(pattern)
        for subject in (REF, THIS, AGAIN)
    }


def is_worse(more: float, than: float) -> bool:
    return more > WORSE_BY_MICROSECONDS and more / than > WORSE_BY


def report(figures: Figures) -> Iterator[str]:
    """One backend's table, and what it says."""
    names = list(dict.fromkeys(name for name, _ in figures))
    cost, more, noise = (
        {name: figures[name, subject].middle for name in names} for subject in (REF, THIS, AGAIN)
    )
    rows = [("µs per item", REF, "difference", "in %", "noise", "in %", "")]
    for name in names:
        differences = [
            text
            for each in (more[name], noise[name])
            for text in (f"{each:+.2f}", f"{each / cost[name]:+.1%}")
        ]
        verdict = "**worse**" if is_worse(more[name], cost[name]) else ""
        rows.append((name, f"{cost[name]:.2f}", *differences, verdict))
    yield table(rows)
    worse = [name for name in names if is_worse(more[name], cost[name])]
    yield f"Worse by more than {WORSE_BY:.0%} and {WORSE_BY_MICROSECONDS} µs: {len(worse)} of {len(names)} rows."
    off = max(abs(noise[name]) / cost[name] for name in names)
    calm = "" if off <= CALM else ": **the machine was not calm enough**"
    yield f"{REF} against itself: within {off:.1%}{calm}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Is anything slower than at another commit?")
    parser.add_argument("--ref", required=True, help="the commit, or a directory like src")
    parser.add_argument("--this", default="src", help="likewise; what to measure (%(default)s)")
    parser.add_argument("--rows", default="", help="a regular expression for their names")
    options = parser.parse_args()
    if not matching(options.rows):
        parser.error(f"no row matches; there are: {'; '.join(ROWS)}")
    with TemporaryDirectory() as directory, ThreadPoolExecutor(len(BACKENDS)) as pool:
        this, ref = Path(directory, "this"), Path(directory, "ref")
        copy_sources(options.this, this)
        copy_sources(options.ref, ref)
        print(f"# {options.this} against {options.ref}\n")
        job = partial(measure_backend, this, ref, options.rows)
        for backend, figures in zip(BACKENDS, pool.map(job, BACKENDS), strict=True):
            print(f"## {BACKENDS[backend]}", *report(figures), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
