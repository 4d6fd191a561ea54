"""Virtual time on both backends: when every task is asleep, jump to the next deadline.

Worker threads are no tasks. While one of them is at work, time stands still: `is_busy` says so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import trio


def _never() -> bool:
    return False


class JumpingClock(trio.abc.Clock):
    """Trio's clock. Trio asks it how long to sleep, only when no task can run."""

    def __init__(self) -> None:
        self.is_busy: Callable[[], bool] = _never
        self._now = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self.is_busy() or math.isinf(deadline):
            return math.inf
        self._now = max(self._now, deadline)
        return 0


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, which asks its selector to sleep."""

    def __init__(self) -> None:
        self.is_busy: Callable[[], bool] = _never
        self._now = 0.0
        super().__init__()
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def _jump(self, timeout: float | None) -> Any:
        if timeout is None or self.is_busy():
            return self._select(None if timeout != 0 else 0)
        events = self._select(0)
        if not events:
            self._now += timeout
        return events

    def time(self) -> float:
        return self._now
