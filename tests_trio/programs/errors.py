"""What the bodies of a program fail with."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import HTTPException

from .guises import FrozenError, HostileError, HostileExit

ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("an error"),
    "SystemExit": lambda: SystemExit(3),
    "ExceptionGroup": lambda: ExceptionGroup("errors", [ValueError("an error")]),
    "HTTPException": lambda: HTTPException(401),
    "HostileError": HostileError,
    "HostileExit": HostileExit,
    "FrozenError": lambda: FrozenError(51),
}


def make_error(name: str) -> BaseException:
    return ERRORS[name]()


def fail(error: str | None) -> None:
    if error is not None:
        raise make_error(error)
