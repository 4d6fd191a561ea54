"""The clocks of an app, and in which lifespans they run.

Those that are made while no lifespan runs begin with each lifespan anew; the others end with the
one that they were made in. All of them end as `stopping` is set.
"""

from __future__ import annotations

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
        self._are_stopped = False  # that has begun to end

    def add(self, clock: Clock) -> None:
        """Have a clock begin soon, or with each lifespan; from any thread."""
        with self._lock:
            if self._lifetime is None:
                self._lasting[clock] = None
                return
            is_late = self._are_stopped
            if not is_late:
                self._enter(clock, self._lifetime)
        if is_late:
            clock.drop()
            log(WARNING, "clock %r does not begin: the app is shutting down", clock.name)
        else:
            clock.begin()  # without the lock: it calls a user's function

    def remove(self, clock: Clock) -> None:
        """End a clock for good; from any thread."""
        with self._lock:
            self._lasting.pop(clock, None)
        clock.drop()

    def begin(self, lifetime: Lifetime) -> None:
        """A lifespan has begun."""
        with self._lock:
            self._lifetime, self._are_stopped = lifetime, False
            clocks = [*self._lasting]
            for clock in clocks:
                self._enter(clock, lifetime)
        for clock in clocks:
            clock.begin()

    def _enter(self, clock: Clock, lifetime: Lifetime) -> None:
        self._running[clock] = None
        clock.enter(lifetime, self._note_end)

    def _note_end(self, clock: Clock) -> None:
        with self._lock:
            self._running.pop(clock, None)
            lasts = clock in self._lasting
        if not lasts:
            clock.drop()

    def stop(self) -> None:
        """The lifespan ends: so do all clocks."""
        with self._lock:
            self._are_stopped = True
            running = [*self._running]
        for clock in running:
            clock.end()

    def close(self) -> None:
        """The lifespan has ended."""
        self.stop()
        with self._lock:
            self._lifetime = None
