"""Which `KeyboardInterrupt` is a Ctrl+C, and so nobody's failure.

A real one is raised by the handler of SIGINT, in the main thread, inside of whatever runs there. So
its traceback has the handler in it: asyncio's, Trio's or a user's own, which may call another one.
Python's own one is written in C and has no frame; where that is installed, any `KeyboardInterrupt`
counts that was raised in the main thread, unless it was carried over from a worker process.

What else raises one has failed: a task's function, a thread, a process that got the Ctrl+C as well.
"""

from __future__ import annotations

import signal
from threading import current_thread, main_thread
from traceback import walk_tb
from types import FrameType

from .exception import cause_of, is_a, parts_of, traceback_of
from .function import code_of

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


def pass_interrupt(exc: BaseException) -> None:
    """Raise it again if it is a Ctrl+C, or has one in it."""
    if is_interrupt(exc):
        raise exc


def _is_real(exc: BaseException) -> bool:
    frames = [frame for frame, _ in walk_tb(traceback_of(exc))]
    if not frames:
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:
        code = code_of(handler)
        return any(frame.f_code is code for frame in frames)
    is_carried = frames[-1].f_code.co_filename.replace("\\", "/").endswith(_CARRIERS)
    is_carried |= cause_of(exc) is not None  # a process pool's, where no frame tells
    return current_thread() is main_thread() and not is_carried and not _is_of_thread(frames[-1])


def _is_of_thread(frame: FrameType) -> bool:
    """Whether a thread of Python's ran it."""
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename.replace("\\", "/").endswith("/threading.py")
