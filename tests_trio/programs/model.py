"""The reference: what the guarantees say must come of a program, as plainly as it can be said.

It knows nothing of AnyIO, FastAPI or the library. The guarantees' numbers stand in the comments.
"""

from __future__ import annotations

import math

from .model_data import ModelTask, names
from .model_requests import RequestsModel
from .trace import Trace
from .world import Body

WAITS = "WARNING shutdown waits for"
OF_THE_DRAIN = 2  # its patience; that of threads is less
REPORT_INTERVAL = 5  # seconds between two lines of a drain that waits
CLEAN_UP_TIME = 30.0  # seconds for clean-ups, where shielded tasks have no limit


class Model(RequestsModel):
    """One run of one program: its requests, and its shutdown."""

    def run(self) -> Trace:
        for number, request in enumerate(self.program.requests):
            self.world.spawn(self.request(number, request))
        self.world.spawn(self.drain())
        self.world.run()
        return self.trace

    def is_certain(self, line: str) -> bool:
        """The drain may, or may not, notice that it was idle for less than a moment.

        It begins anew to count the time between its reports then.
        """
        return not (self.is_resumed and WAITS in line)

    # The drain: G16, step by step.

    def drain(self) -> Body:
        yield from self.world.sleep(self.program.shutdown)
        self.is_stopping = True
        grace_period = 0 if self.program.lifespan_is_cancelled else self.program.grace_period
        yield from self.wait_for_all(self.world.now + grace_period)
        self.phase = "draining"
        self.cut_off()
        yield from self.world.let_others_go_on(OF_THE_DRAIN)
        shield_timeout = self.program.shield_timeout
        deadline = self.world.now + (math.inf if shield_timeout is None else shield_timeout)
        if shield_timeout is None:
            yield from self.wait_for_all(self.world.now + CLEAN_UP_TIME)
            left = self.cut_off_clean_ups(shielded=False)
            self.say_what_is_cancelled([], left, CLEAN_UP_TIME)
        yield from self.wait_for_all(deadline)
        self.phase = "closed"
        shielded = [task for task in self.unfinished if task.options.shield]
        left = self.cut_off_clean_ups(shielded=False)
        self.say_what_is_cancelled(shielded, left, shield_timeout)
        self.shielded.is_cancelled = True
        self.cut_off_clean_ups(shielded=True)
        yield from self.wait_for_all(math.inf)
        self.trace.ended = self.world.now

    def cut_off(self) -> None:
        unshielded = [task for task in self.unfinished if not task.options.shield]
        if unshielded:
            self.log(f"WARNING shutdown cancels {len(unshielded)} task(s): {names(unshielded)}")
        for task in unshielded:
            if task.is_pending:
                self.drop(task)
        self.unshielded.is_cancelled = True
        self.cancelled = self.world.now
        for exchange in self.exchanges:
            self.release(exchange)

    def cut_off_clean_ups(self, *, shielded: bool) -> list[ModelTask]:
        """Let what closes the dependencies of cancelled tasks be cancelled; return these tasks."""
        self.time_is_up.add(shielded)
        self.cancelled = self.world.now
        left: list[ModelTask] = []
        for task in self.unfinished:
            if task.leaving is not None and bool(task.options.shield) is shielded:
                task.leaving.shield = False
                left.append(task)
        return left

    def say_what_is_cancelled(
        self, shielded: list[ModelTask], leaving: list[ModelTask], after: float | None
    ) -> None:
        what = ["shielded tasks"] * bool(shielded) + ["clean-ups of tasks"] * bool(leaving)
        left = [*shielded, *leaving]
        if leaving:
            left.sort(key=lambda task: f"#{task.call.id}'")
        if left:
            said = f"shutdown cancels {' and '.join(what)}, {after} s after the others"
            self.log(f"CRITICAL {said}: {names(left, at_most=len(left))}")

    def wait_for_all(self, deadline: float) -> Body:
        while self.unfinished and self.world.now < deadline:
            yield min(deadline, self.world.now + REPORT_INTERVAL), lambda: not self.unfinished
            if not self.unfinished:  # who waited for the last of them may schedule more
                yield from self.world.let_others_go_on(OF_THE_DRAIN)
            elif self.world.now < deadline:
                self.log(f"{WAITS} {names(self.unfinished)}")
