"""The dependencies of a program's tasks: generators, and functions that get what these yield."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from fastapi import Depends

from fastapi_tasks import INJECTED, current_task
from tests_trio.support import name_of

from .errors import fail
from .program import Call, Dependency

if TYPE_CHECKING:
    from .actors import Actors, Scene


def injected(func: Callable[..., Any], call: Call, actors: Actors) -> Callable[..., Any]:
    """The function of a task that gets its dependencies; each must be of the same attempt."""
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("call", "scene")]
    mark: Any = None
    for index, dependency in enumerate(call.dependencies):
        generator = _Generator(f"{index}", dependency, call, actors)
        kind = generator.in_thread if dependency.is_sync else generator.on_loop
        needed = mark if dependency.needs_previous else None
        mark = Depends(kind(needed), scope="function" if dependency.closes_first else None)
        parameters.append(
            Parameter(
                f"dependency_{index}",
                Parameter.KEYWORD_ONLY,
                default=INJECTED,
                annotation=Annotated[int, mark],
            )
        )

    def check(attempts: dict[str, int]) -> None:
        assert [*attempts.values()] == [current_task().attempts] * len(call.dependencies)

    async def on_loop(call: Call, scene: Scene, **attempts: int) -> None:
        check(attempts)
        await func(call, scene)

    def in_thread(call: Call, scene: Scene, **attempts: int) -> None:
        check(attempts)
        func(call, scene)

    function = in_thread if call.is_sync else on_loop
    setattr(function, "__signature__", Signature(parameters))
    return function


class _Generator:
    """One dependency. It yields the number of the attempt that it was opened for."""

    def __init__(self, name: str, dependency: Dependency, call: Call, actors: Actors) -> None:
        self.name = name
        self.dependency = dependency
        self.call = call
        self.actors = actors

    def on_loop(self, needed: Any) -> Callable[..., AsyncIterator[int]]:
        async def generator(previous: Any = needed) -> AsyncIterator[int]:
            self.note("opens")
            await self.sleep(self.dependency.opening)
            attempt = self.opened(previous)
            try:
                with _Noting(self):
                    yield attempt
            finally:
                try:
                    await self.sleep(self.dependency.closing)
                except anyio.get_cancelled_exc_class():
                    self.note("is cut off")
                    raise
                self.closed(attempt)

        return generator

    def in_thread(self, needed: Any) -> Callable[..., Iterator[int]]:
        def generator(previous: Any = needed) -> Iterator[int]:
            self.note("opens")
            self.actors.sleep_in_thread(self.dependency.opening, shield=True)
            attempt = self.opened(previous)
            try:
                with _Noting(self):
                    yield attempt
            finally:
                self.actors.sleep_in_thread(self.dependency.closing)
                self.closed(attempt)

        return generator

    async def sleep(self, delay: float) -> None:
        if delay:
            with self.actors.thread_sleeps() if self.call.is_sync else nullcontext():
                await anyio.sleep(delay)

    def opened(self, previous: int | None) -> int:
        attempt = current_task().attempts
        assert previous in (None, attempt)
        if attempt <= self.dependency.fails_to_open:
            fail(self.dependency.error)
        return attempt

    def closed(self, attempt: int) -> None:
        assert attempt == current_task().attempts
        self.note("closes")
        if attempt <= self.dependency.fails_to_close:
            fail(self.dependency.error)

    def note(self, what: str) -> None:
        self.actors.note(self.call, f"{self.name} {what}")


class _Noting(AbstractContextManager[None, bool]):
    """Around a `yield`: writes what the dependency sees there, and swallows that if it is to."""

    def __init__(self, generator: _Generator) -> None:
        self.generator = generator

    def __exit__(self, *error: object) -> bool:
        seen = "a result" if error[1] is None else name_of(error[1])
        self.generator.note(f"sees {seen}")
        return self.generator.dependency.swallows
