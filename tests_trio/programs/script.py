"""A program as a text to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from .program import (
    BODIES,
    Await,
    Cancel,
    Handler,
    Options,
    Program,
    Retry,
    Run,
    Schedule,
    Step,
    Visit,
    bodies_of,
)


def script(program: Program) -> str:
    """The program as a text to read."""
    return "\n".join(_lines(program))


def _lines(program: Program) -> Iterator[str]:
    yield f"app: {_changed(program)}"
    for number, request in enumerate(program.requests):
        yield f"request {number}: {_changed(request)}"
        yield from _run_lines(request, "    ")


def _run_lines(run: Run, indent: str) -> Iterator[str]:
    for name, steps in bodies_of(run).items():
        yield f"{indent}{name}:"
        yield from _step_lines(steps, indent + "    ")
    if run.again is not None:
        yield f"{indent}again, part {run.again.id}: {_changed(run.again)}"
        yield from _run_lines(run.again, indent + "    ")


def _step_lines(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    for step in steps:
        sleep = f"sleep {step.delay:.3f}, " if step.delay else ""
        match step.action:
            case Schedule(call):
                yield f"{indent}{sleep}schedule #{call.id} {call.point}: {_changed(call)}"
                for index, dependency in enumerate(call.dependencies):
                    yield f"{indent}    dependency {index}: {_changed(dependency)}"
                yield from _step_lines(call.steps, indent + "    ")
            case Visit(part):
                yield f"{indent}{sleep}visit part {part.id}: {_changed(part)}"
                yield from _run_lines(part, indent + "    ")
            case Cancel(id) | Await(id):
                yield f"{indent}{sleep}{type(step.action).__name__.lower()} #{id}"
            case None:
                yield f"{indent}{sleep}"


_SHOWN_APART = {  # in lines of their own
    *("requests", "id", "point", "steps", "dependencies", "again"),
    *BODIES,
}


def _changed(value: object) -> str:
    """The fields that differ from their defaults."""
    shown = [
        f"{field.name}={_value(getattr(value, field.name))}"
        for field in fields(value)  # type: ignore[arg-type]
        if field.name not in _SHOWN_APART and getattr(value, field.name) != field.default
    ]
    return ", ".join(shown)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (Options, Retry, Handler)):
        return f"{type(value).__name__}({_changed(value)})"
    return repr(value)
