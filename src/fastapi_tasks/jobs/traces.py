"""What is kept of an exception: all that Python would print of it, and no more.

That is no frame, no local variable and not the exception itself, all of which lead to arguments.
When a task fails only what is quick is noted, the code and the line of each frame: the standard
library's `TracebackException` would look for more. That is done for whoever wants to read it.

Nothing is asked of an instance that its class could make raise: `vars(BaseException)` knows.
"""

from __future__ import annotations

from collections import deque
from traceback import FrameSummary, StackSummary, TracebackException
from types import CodeType, TracebackType
from typing import Any, NamedTuple

MAX_TEXT = 4000  # characters of a message
MAX_FRAMES = 100  # of a traceback: the innermost ones
MAX_EXCEPTIONS = 30  # with all that lead to it, and all in a group

_TRACEBACK: Any = vars(BaseException)["__traceback__"]
_CONTEXT: Any = vars(BaseException)["__context__"]
_CAUSE: Any = vars(BaseException)["__cause__"]
_SUPPRESS: Any = vars(BaseException)["__suppress_context__"]
_EXCEPTIONS: Any = vars(BaseExceptionGroup)["exceptions"]
_QUALNAME: Any = vars(type)["__qualname__"]


class Trace(NamedTuple):
    """What is noted of an exception."""

    module: str
    qualname: str
    message: str
    notes: list[str]
    frames: list[tuple[CodeType, int, int]]  # the code, the line and the last instruction
    cause: Trace | None
    context: Trace | None
    hides_context: bool
    parts: list[Trace] | None  # of a group

    def format(self) -> str:
        """As Python prints it."""
        return "".join(_rebuilt(self).format())


def trace_of(exc: BaseException) -> Trace:
    """Note what can be printed of an exception."""
    return _trace_of(exc, {id(exc)})


def _trace_of(exc: BaseException, seen: set[int]) -> Trace:
    kind = type(exc)
    module = getattr(kind, "__module__", None)
    return Trace(
        module=module if type(module) is str else "?",
        qualname=_QUALNAME.__get__(kind),
        message=_text(exc),
        notes=_notes_of(exc),
        frames=_frames_of(_TRACEBACK.__get__(exc)),
        cause=_other(_CAUSE.__get__(exc), seen),
        context=_other(_CONTEXT.__get__(exc), seen),
        hides_context=_SUPPRESS.__get__(exc),
        parts=_parts_of(exc, seen) if issubclass(kind, BaseExceptionGroup) else None,
    )


def _other(exc: BaseException | None, seen: set[int]) -> Trace | None:
    if exc is None or id(exc) in seen or len(seen) >= MAX_EXCEPTIONS:
        return None
    seen.add(id(exc))
    return _trace_of(exc, seen)


def _parts_of(group: BaseException, seen: set[int]) -> list[Trace]:
    traces = [_other(part, seen) for part in _EXCEPTIONS.__get__(group)]
    return [trace for trace in traces if trace is not None]


def _notes_of(exc: BaseException) -> list[str]:
    try:
        notes = exc.__notes__
    except KeyboardInterrupt:
        raise
    except BaseException:  # there are none, as a rule
        return []
    return [_text(note) for note in notes] if type(notes) is list else []


def _text(value: object) -> str:
    try:
        return str.__getitem__(str(value), slice(MAX_TEXT))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "(what it says cannot be shown)"


def _frames_of(traceback: TracebackType | None) -> list[tuple[CodeType, int, int]]:
    frames: deque[tuple[CodeType, int, int]] = deque(maxlen=MAX_FRAMES)
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code, traceback.tb_lineno, traceback.tb_lasti))
        traceback = traceback.tb_next
    return [*frames]


def _rebuilt(trace: Trace) -> TracebackException:
    """As the standard library's, made of an exception that only says the same."""
    kind = type("StandIn", (Exception,), {"__module__": trace.module})
    kind.__qualname__ = trace.qualname
    exc = kind(trace.message)
    for note in trace.notes:
        exc.add_note(note)
    result = TracebackException(kind, exc, None)
    result.stack = StackSummary.from_list([_summary(*frame) for frame in trace.frames])
    result.__cause__ = None if trace.cause is None else _rebuilt(trace.cause)
    result.__context__ = None if trace.context is None else _rebuilt(trace.context)
    result.__suppress_context__ = trace.hides_context
    result.exceptions = None if trace.parts is None else [*map(_rebuilt, trace.parts)]
    return result


def _summary(code: CodeType, line: int, instruction: int) -> FrameSummary:
    positions = [*code.co_positions()][instruction // 2]
    _, end_line, column, end_column = positions
    return FrameSummary(
        code.co_filename,
        line,
        code.co_name,
        lookup_line=False,
        end_lineno=end_line,
        colno=column,
        end_colno=end_column,
    )
