"""`track()`: the progress of a task that goes through an iterable."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from typing import TypeVar, overload

from ..errors import FastAPITasksError
from .progress import Progress
from .supervised import current_task

T = TypeVar("T")


@overload
def track(iterable: Iterable[T], *, total: float | None = None) -> Iterator[T]: ...


@overload
def track(iterable: AsyncIterable[T], *, total: float | None = None) -> AsyncIterator[T]: ...


def track(
    iterable: Iterable[T] | AsyncIterable[T], *, total: float | None = None
) -> Iterator[T] | AsyncIterator[T]:
    """Go through an iterable, and report to the running task's `progress` after each item.

        for page in track(pages):
            ...

    Outside of a task it only goes through it, so that the function can be called directly.

    Args:
        total: how many items there are; else the iterable's length, if it has one.

    Raises:
        TypeError: it is no iterable.
    """
    try:
        progress = current_task().progress
    except FastAPITasksError:
        progress = None
    if progress is not None:
        progress.done = 0
        progress.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
    if isinstance(iterable, AsyncIterable):
        return _track_async(iterable, progress)
    return _track(iter(iterable), progress)


def _track(iterator: Iterator[T], progress: Progress | None) -> Iterator[T]:
    for number, item in enumerate(iterator, 1):
        yield item
        if progress is not None:
            progress.done = number


async def _track_async(iterable: AsyncIterable[T], progress: Progress | None) -> AsyncIterator[T]:
    number = 0
    async for item in iterable:
        yield item
        number += 1
        if progress is not None:
            progress.done = number
