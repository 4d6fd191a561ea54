"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("anyio", "trio", "fastapi", "starlette", "hypercorn", "uvicorn")


def cpu() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


def load() -> str:
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


def describe() -> str:
    """A sentence."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores of {cpu()}, "
        f"Python {platform.python_version()}, {packages}"
    )
