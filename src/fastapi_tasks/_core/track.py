"""`track()`: the progress of a task that goes through an iterable."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from contextlib import suppress
from typing import Self, TypeVar, overload

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
        progress.total = _length(iterable) if total is None else total
    if isinstance(iterable, AsyncIterable):
        return _AsyncTrack(aiter(iterable), progress)
    return _track(iter(iterable), progress)


def _length(iterable: object) -> int | None:
    with suppress(TypeError):  # as `tqdm` does: some have a length only at times
        return len(iterable) if isinstance(iterable, Sized) else None
    return None


def _track(iterator: Iterator[T], progress: Progress | None) -> Iterator[T]:
    for number, item in enumerate(iterator, 1):
        yield item
        if progress is not None:
            progress.done = number


class _AsyncTrack(AsyncIterator[T]):
    """No generator: one that is left half-way would have to be closed, and Trio says so."""

    def __init__(self, iterator: AsyncIterator[T], progress: Progress | None) -> None:
        self._iterator = iterator
        self._progress = progress
        self._number = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._progress is not None and self._number:
            self._progress.done = self._number
        item = await anext(self._iterator)
        self._number += 1
        return item
