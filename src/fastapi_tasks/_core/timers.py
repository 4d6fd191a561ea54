"""Calls at times of the event loop's clock, made by the task that makes the mailbox's calls too.

There are as many as clocks, which are few: so a look at all of them finds the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from anyio import CancelScope, current_time


class Timers:
    """On the event loop's thread only. `wake` ends what runs inside of `until_next()`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._times: dict[Callable[[], object], float] = {}
        self._wake = wake
        self._next = -math.inf  # the time that is waited for

    def set(self, call: Callable[[], object], when: float) -> None:
        """Have `call` made once, at that time at the earliest."""
        self._times[call] = when
        if when < self._next:
            self._wake()

    def unset(self, call: Callable[[], object]) -> None:
        self._times.pop(call, None)

    def until_next(self) -> AbstractContextManager[object]:
        """Cancel what runs inside when the next call is due."""
        self._next = min(self._times.values(), default=math.inf)
        return nullcontext() if self._next == math.inf else CancelScope(deadline=self._next)

    def make_calls(self) -> None:
        """Make the calls that are due."""
        self._next = -math.inf
        now = current_time()
        for call in [call for call, when in self._times.items() if when <= now]:
            if self._times.pop(call, None) is not None:  # unless one before has unset it
                call()
