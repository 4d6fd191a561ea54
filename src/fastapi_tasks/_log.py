"""Log lines that harm nobody: a logging handler or filter that raises is not the tasks' fault."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ._task import Task

logger = logging.getLogger("fastapi_tasks")

NAMES_AT_MOST = 10


def log(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a line, with the traceback of `error` if there is one."""
    with suppress(Exception):
        logger.log(level, message, *args, exc_info=error, stacklevel=2)


def names(tasks: Sequence[Task[..., Any]], at_most: int = NAMES_AT_MOST) -> str:
    """The tasks' names for a log line, which never shows their arguments."""
    shown = ", ".join(repr(task.name) for task in tasks[:at_most])
    more = len(tasks) - at_most
    return shown if more <= 0 else f"{shown} and {more} more"
