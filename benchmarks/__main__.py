"""`make bench`: measure everything, print the report and write it to RESULTS.md.

The two backends are measured at the same time, each on a core of its own: the figures are ratios of
CPU times of the same process, and a thing against itself tells how much that costs in precision.
Whatever takes wall time, the servers, has the machine for itself.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import machine
from benchmarks.budgets import BACKENDS
from benchmarks.child import OLDER as OLDER_PYTHON
from benchmarks.child import ask
from benchmarks.report import OLDER, TOPICS, WITH_OLDER, Figures, report
from benchmarks.servers import SERVERS

RESULTS = Path(__file__).with_name("RESULTS.md")


def measure_backend(backend: str) -> dict[tuple[str, str, str], Figures]:
    """All topics in process on one backend, by library, topic and backend."""
    jobs = [("", topic, Path(sys.executable)) for topic in TOPICS]
    jobs += [(OLDER, topic, OLDER_PYTHON) for topic in WITH_OLDER]
    figures = {}
    for library, topic, python in jobs:
        figures[library, topic, backend] = ask(topic, backend, python=python)
        print(f"measured: {library or 'this library'}, {topic}, {backend}", file=sys.stderr)
    return figures


def main() -> None:
    before = machine.load()
    topics = {}
    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        for figures in pool.map(measure_backend, BACKENDS):
            topics |= figures
    served = {name: ask("servers", "asyncio", kind) for name, kind in SERVERS.items()}
    text = report(topics, served, f"{before}; {machine.load()}")
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
