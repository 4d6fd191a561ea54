"""The library that is measured: this one, or the older project of the same name.

The benchmarks run in the virtual environment of either. The older one has no runner: tasks can be
scheduled in requests only.
"""

from __future__ import annotations

from importlib.metadata import version

import fastapi_tasks

IS_OLDER = not hasattr(fastapi_tasks, "TaskRunner")
LIBRARY = (
    f"fastapi-tasks {version('fastapi-tasks')}, the older project" if IS_OLDER else "this library"
)
