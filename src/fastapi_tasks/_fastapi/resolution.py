"""How each kind of dependency is opened for an attempt of a task, and closed.

`Depends.max_concurrency` counts by a semaphore that FastAPI keeps under a private name, since
version 0.163. It is the same for endpoints and tasks, so it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from anyio import CancelScope, Semaphore, get_cancelled_exc_class
from fastapi import params

from .._core.attempt import Attempt
from .._core.exception import cause_of, is_a
from .._core.function import function_name
from .._core.request import RequestTasks
from .._core.timing import RouteRun
from ..errors import FastAPITasksError
from .injected import TaskConnection

if TYPE_CHECKING:
    from .dependencies import Injector


class Resolution:
    """The dependencies of one attempt, while they are opened; it shows nobody what it holds.

    Attributes:
        values: of the steps, in their order.
    """

    __slots__ = ("attempt", "injector", "values")

    def __init__(self, attempt: Attempt, injector: Injector) -> None:
        self.attempt: Attempt = attempt
        self.injector: Injector = injector
        self.values: list[Any] = []

    def clear(self) -> None:
        del self.attempt, self.values

    @property
    def connection(self) -> TaskConnection:
        return TaskConnection(self.injector.app, self.injector.state or {})

    @property
    def tasks(self) -> RequestTasks:
        """Those of the request that the task came from, or of one that has ended."""
        route = self.attempt.task.route
        runner, supervisor = self.injector.tasks
        if not isinstance(route, RouteRun):
            route = RouteRun(supervisor)
            route.reach_all()
        return RequestTasks(runner, route)


class Step(Protocol):
    """One dependency, or what stands for one."""

    is_only_awaited: bool = False  # whether it is only awaited: nothing to close, no thread

    def open(self, resolution: Resolution) -> Awaitable[Any]:
        """Give its value; have it closed at the end if there is something to close."""
        ...


class Given(Step):
    """Something of the resolution's: the connection, say."""

    is_only_awaited = True

    def __init__(self, give: Callable[[Resolution], Any]) -> None:
        self._give = give

    async def open(self, resolution: Resolution) -> Any:
        return self._give(resolution)


class Called(Step):
    """One that is called for its value.

    Args:
        func: the dependency.
        arguments: the names of its parameters, and which steps give their values.
        closes_first: before others that are not of function scope.
    """

    def __init__(
        self, func: Callable[..., Any], arguments: Mapping[str, int], *, closes_first: bool
    ) -> None:
        self._func = func
        self._arguments = tuple(arguments.items())
        self.name: str = function_name(func)
        self.closes_first: bool = closes_first

    def call(self, resolution: Resolution) -> Any:
        if not self._arguments:
            return self._func()
        return self._func(**{name: resolution.values[index] for name, index in self._arguments})


class Async(Called):
    is_only_awaited = True

    def open(self, resolution: Resolution) -> Awaitable[Any]:
        result: Awaitable[Any] = self.call(resolution)
        return result


class Sync(Called):
    async def open(self, resolution: Resolution) -> Any:
        return await resolution.attempt.call_in_thread(lambda: self.call(resolution))


class AsyncYield(Called):
    async def open(self, resolution: Resolution) -> Any:
        generator: AsyncGenerator[Any, None] = self.call(resolution)

        async def close(error: BaseException | None) -> None:
            await _close_async(generator, self.name, error)

        try:
            value = await anext(generator)
        except StopAsyncIteration:
            raise RuntimeError(f"the dependency {self.name!r} has not yielded") from None
        resolution.attempt.add_exit(close, first=self.closes_first)
        return value


class SyncYield(Called):
    async def open(self, resolution: Resolution) -> Any:
        attempt = resolution.attempt
        opened: list[Generator[Any]] = []

        def begin() -> Any:
            generator: Generator[Any] = self.call(resolution)
            try:
                value = next(generator)
            except StopIteration:
                raise RuntimeError(f"the dependency {self.name!r} has not yielded") from None
            opened.append(generator)
            return value

        async def close(error: BaseException | None) -> None:
            cancellation = None
            while opened:
                try:
                    with CancelScope(shield=True):
                        await attempt.close_in_thread(
                            lambda: _close(opened.pop(), self.name, error)
                        )
                except get_cancelled_exc_class() as exc:  # by asyncio's `Task.cancel()`
                    cancellation = exc
            if cancellation is not None:
                raise cancellation

        try:
            return await attempt.call_in_thread(begin)
        finally:
            if opened:  # also when asyncio's `Task.cancel()` has hit the wait for the thread
                attempt.add_exit(close, first=self.closes_first)


class Limited(Step):
    """A step of which so many may be open at a time, in all requests and tasks."""

    def __init__(self, step: Called, mark: params.Depends) -> None:
        self._step = step
        self._mark = mark

    async def open(self, resolution: Resolution) -> Any:
        semaphore = self._semaphore()
        if isinstance(self._step, (Async, Sync)):
            async with semaphore:
                return await self._step.open(resolution)

        async def release(_: BaseException | None) -> None:
            semaphore.release()

        await semaphore.acquire()
        resolution.attempt.add_exit(release, first=self._step.closes_first)
        return await self._step.open(resolution)  # whose exit comes before that one

    def _semaphore(self) -> Semaphore:
        concurrency: Any = getattr(self._mark, "_concurrency", None)
        try:
            semaphore: Semaphore = concurrency.get_semaphore()
        except AttributeError:
            raise FastAPITasksError(
                "this version of FastAPI counts for Depends(max_concurrency=) in another way than "
                "those that this library was tested with, 0.163 to 0.165"
            ) from None
        return semaphore


async def _close_async(
    generator: AsyncGenerator[Any, None], name: str, error: BaseException | None
) -> None:
    """Let a generator go on to its end, with the error if there is one; raise what it raises."""
    try:
        if error is None:
            await anext(generator)
        else:
            await generator.athrow(error)
    except StopAsyncIteration:
        return
    except RuntimeError as exc:
        if is_a(error, StopAsyncIteration) and cause_of(exc) is error:
            return  # Python has replaced it
        raise
    await generator.aclose()
    raise RuntimeError(f"the dependency {name!r} yields twice") from error


def _close(generator: Generator[Any], name: str, error: BaseException | None) -> None:
    """The same in a thread."""
    try:
        if error is None:
            next(generator)
        else:
            generator.throw(error)
    except StopIteration:
        return
    generator.close()
    raise RuntimeError(f"the dependency {name!r} yields twice") from error
