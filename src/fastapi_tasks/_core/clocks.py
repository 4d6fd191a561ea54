"""The clocks of an app, and in which lifespans they run.

Those that are made while no lifespan runs begin with each lifespan anew, when the app has started;
the others begin at once, and end with the lifespan that they were made in. All end as `stopping` is
set.
"""

from __future__ import annotations

from collections.abc import Iterable
from logging import WARNING
from threading import RLock

from .clock import Clock
from .lifetime import Lifetime
from .log import log


class Clocks:
    """Those that run, and those that will."""

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may make one, too
        self._lasting: dict[Clock, None] = {}
        self._running: dict[Clock, None] = {}
        self._lifetime: Lifetime | None = None  # of the lifespan that runs
        self._are_stopped = False  # it has begun to end

    # From any thread.

    def add(self, clock: Clock) -> None:
        """Have a clock begin, now or with each lifespan."""
        with self._lock:
            if self._lifetime is None:
                self._lasting[clock] = None
                return
            if not (is_late := self._are_stopped):
                self._enter([clock], self._lifetime)
        if is_late:
            clock.drop()
            log(WARNING, "clock %r does not begin: the app is shutting down", clock.name)
        else:
            clock.begin()  # without the lock: it calls a user's function

    def remove(self, clock: Clock) -> None:
        """End a clock for good."""
        with self._lock:
            self._lasting.pop(clock, None)
            clock.drop()

    # On the event loop's thread.

    def open(self, lifetime: Lifetime) -> None:
        """A lifespan has begun."""
        with self._lock:
            self._lifetime, self._are_stopped = lifetime, False

    def begin(self) -> None:
        """The app has started."""
        with self._lock:
            clocks = [*self._lasting]
            if self._lifetime is not None and not self._are_stopped:
                self._enter(clocks, self._lifetime)
        for clock in clocks:
            clock.begin()

    def _enter(self, clocks: Iterable[Clock], lifetime: Lifetime) -> None:
        for clock in clocks:
            self._running[clock] = None
            clock.enter(lifetime, self._note_end)

    def _note_end(self, clock: Clock) -> None:
        with self._lock:
            self._running.pop(clock, None)
            if clock not in self._lasting:
                clock.drop()

    def stop(self) -> None:
        """The lifespan begins to end: all clocks do at once."""
        with self._lock:
            self._are_stopped = True
            running = [*self._running]
        for clock in running:
            clock.end()

    def close(self) -> None:
        """The lifespan has ended."""
        with self._lock:
            self._lifetime = None
