"""A world in which generators live: time, cancellation and limiters, in their plainest form.

Each body is a generator that yields what it waits for. The world steps the bodies one by one, the
oldest and least patient first, and lets time pass when none of them can go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

Wait: TypeAlias = tuple[float, Callable[[], bool]]  # go on at that time, or when that is true
Body: TypeAlias = Generator[Wait, None, Any]


class Cancelled(BaseException):
    """What a cancelled body gets wherever it waits, again and again."""


class UndeterminedError(Exception):
    """What must come of the program is not determined, so it proves nothing."""


@dataclass(eq=False)
class Scope:
    """Cancels what is inside, by a call or at its deadline; a shield keeps out what is outside."""

    deadline: float = math.inf
    is_cancelled: bool = False
    shield: bool = False


@dataclass(eq=False)
class Process:
    body: Body
    scopes: list[Scope]
    wait: Wait | None = None  # None: it has not begun
    patience: int = 0  # it goes on when nobody with less can


class World:
    """Time, and the processes in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: list[Process] = []

    def spawn(self, body: Body, *scopes: Scope) -> Process:
        process = Process(body, list(scopes))
        self.processes.append(process)
        return process

    def run(self) -> None:
        while self.processes:
            able = filter(self._is_ready, self.processes)
            ready = min(able, key=lambda process: process.patience, default=None)
            if ready is None:
                self.now = min(map(self._next_event, self.processes))
                assert self.now < math.inf, "the program hangs"
            else:
                self._step(ready)

    def _is_ready(self, process: Process) -> bool:
        if process.wait is None or self.is_cancelled(process):
            return True
        time, condition = process.wait
        return self.now >= time or condition()

    def _next_event(self, process: Process) -> float:
        assert process.wait is not None
        times = [process.wait[0], *(scope.deadline for scope in process.scopes)]
        return min((time for time in times if time > self.now), default=math.inf)

    def _step(self, process: Process) -> None:
        self.current = process
        try:
            if process.wait is not None and self.is_cancelled(process):
                process.wait = process.body.throw(Cancelled())
            else:
                process.wait = next(process.body)
        except StopIteration:
            self.processes.remove(process)

    def is_cancelled(self, process: Process) -> bool:
        for scope in reversed(process.scopes):
            if scope.is_cancelled or self.now >= scope.deadline:
                return True
            if scope.shield:
                return False
        return False

    # For bodies.

    def sleep(self, delay: float) -> Body:
        yield self.now + delay, lambda: False

    def until(self, condition: Callable[[], bool]) -> Body:
        if not condition():
            yield math.inf, condition

    def checkpoint(self) -> Body:
        yield self.now, lambda: True

    def let_others_go_on(self, patience: int) -> Body:
        """Go on in this moment, but when nobody with less patience can."""
        process = self.current
        process.patience = patience
        try:
            yield self.now, lambda: True
        finally:
            process.patience = 0

    @contextmanager
    def scope(self, delay: float = math.inf, *, shield: bool = False) -> Iterator[Scope]:
        scopes = self.current.scopes
        scope = Scope(self.now + delay, shield=shield)
        scopes.append(scope)
        try:
            yield scope
        finally:
            scopes.remove(scope)


class Limiter:
    """Tokens, for whoever came first."""

    def __init__(self, world: World, tokens: int) -> None:
        self.world = world
        self.tokens = tokens
        self.queue: list[object] = []
        self.moment = -1.0  # of the latest arrivals,
        self.arrivals = 0  # how many they are,
        self.lines: set[object] = set()  # the lines that all of them came from,
        self.free = 0  # and how many were free before

    def acquire(self, *lines: object) -> Body:
        self.arrive({*lines} - {None})
        place = object()
        self.queue.append(place)
        try:
            yield from self.world.checkpoint()
            yield from self.world.until(lambda: self.tokens > 0 and self.queue[0] is place)
            self.tokens -= 1
        finally:
            self.queue.remove(place)

    def arrive(self, lines: set[object]) -> None:
        """Who comes first is undetermined, unless they stand in one line, or none has to wait."""
        if self.moment != self.world.now:
            self.moment, self.arrivals, self.lines = self.world.now, 0, lines
            self.free = self.tokens - len(self.queue)
        self.arrivals += 1
        self.lines = self.lines & lines
        if 1 < self.arrivals > self.free and not self.lines:
            raise UndeterminedError

    def release(self) -> None:
        self.tokens += 1
