"""Log lines that harm nobody: a logging handler or filter that raises is not the tasks' fault."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from traceback import format_exception_only
from typing import Any

from .exception import traceback_of
from .function import type_name
from .interrupt import pass_interrupt
from .task import Task

logger = logging.getLogger("fastapi_tasks")

NAMES_AT_MOST = 10


def log(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a line, with the traceback of `error` if there is one."""
    try:
        if logger.isEnabledFor(level):
            logger.log(level, message, *args, exc_info=_exc_info(error), stacklevel=2)
    except BaseException as exc:
        pass_interrupt(exc)


def _exc_info(error: BaseException | None) -> tuple[Any, Any, Any] | None:
    """As `logging` takes it, which would ask the error whether it is true."""
    if error is None:
        return None
    traceback = traceback_of(error)
    try:
        format_exception_only(error)  # some microseconds, of the hundreds that a handler takes
    except BaseException as exc:  # no handler could format it either
        pass_interrupt(exc)
        error = RuntimeError(f"{type_name(error)}, which cannot be shown: {type_name(exc)}")
    return type(error), error, traceback


def names(tasks: Sequence[Task[..., Any]], at_most: int = NAMES_AT_MOST) -> str:
    """The tasks' names for a log line, which never shows their arguments."""
    shown = ", ".join(repr(task.name) for task in tasks[:at_most])
    more = len(tasks) - at_most
    return shown if more <= 0 else f"{shown} and {more} more"
