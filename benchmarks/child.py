"""Topics are measured in processes of their own: `python -m benchmarks.child batches trio`."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path

import anyio

from benchmarks.measure import Spread

ROOT = Path(__file__).parent.parent
OLDER = ROOT / ".venv/older/bin/python"  # where the older project is installed


def ask(
    topic: str, backend: str, *args: str, python: str | Path = sys.executable
) -> dict[str, Spread]:
    """Measure a topic in a fresh process; return its figures by subject."""
    command = [python, "-m", "benchmarks.child", topic, backend, *args]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return {subject: Spread(**figures) for subject, figures in json.loads(output).items()}


def main(topic: str, backend: str, *args: str) -> None:
    logging.getLogger("fastapi_tasks").addHandler(logging.NullHandler())
    run = import_module(f"benchmarks.{topic}").run
    answer(anyio.run(partial(run, backend, *args), backend=backend))


def answer(figures: Mapping[str, Spread]) -> None:
    """Print a topic's figures for the process that asked."""
    print(json.dumps({subject: asdict(each) for subject, each in figures.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
