"""Which `KeyboardInterrupt` is a Ctrl+C, and so nobody's failure.

A real one is raised by the handler of SIGINT, in the main thread, inside of whatever runs there;
its traceback ends in the handler. That holds for asyncio's handler, for Trio's and for users' own.
Python's own one is written in C and has no frame; where that is installed, any `KeyboardInterrupt`
counts that was raised in the main thread, unless it was carried over from a worker process.

What else raises one has failed: a task's function, a thread, a process that got the Ctrl+C as well.
"""

from __future__ import annotations

import signal
from functools import partial
from threading import current_thread, main_thread
from traceback import walk_tb
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, cast

from .exception import is_a, parts_of, traceback_of

# Where what was raised in a process is raised again, by the ends of the files' names.
_CARRIERS = (
    "/anyio/to_interpreter.py",
    "/anyio/to_process.py",
    "/concurrent/futures/_base.py",
    "/multiprocessing/pool.py",
)


def is_interrupt(exc: BaseException) -> bool:
    """Whether it is a Ctrl+C, or has one in it."""
    return any(is_a(part, KeyboardInterrupt) and _is_real(part) for part in parts_of(exc))


def _is_real(exc: BaseException) -> bool:
    innermost = None
    for innermost, _ in walk_tb(traceback_of(exc)):  # noqa: B007
        pass
    if innermost is None:
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:
        return innermost.f_code is _code_of(handler)
    is_carried = innermost.f_code.co_filename.replace("\\", "/").endswith(_CARRIERS)
    return current_thread() is main_thread() and not is_carried and not _is_of_thread(innermost)


def _is_of_thread(frame: FrameType) -> bool:
    """Whether a thread of Python's ran it."""
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename.replace("\\", "/").endswith("/threading.py")


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = cast("Any", handler).func
    if not isinstance(handler, (FunctionType, MethodType)):
        handler = getattr(handler, "__call__", None)  # noqa: B004
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None
