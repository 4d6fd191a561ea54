"""The drain: what a shutdown does to the tasks, in five steps (G16).

1. `stopping` is set.
2. All tasks have the grace period to finish in.
3. The timing points count as come, and the tasks that are not shielded are cancelled.
4. The shielded ones have `shield_timeout` to finish in, and so have the clean-ups of the others (30
   seconds, if that is `None`); then they are cancelled as well.
5. What cannot be cancelled is waited for: functions in threads, `schedule()` calls in some.
"""

from __future__ import annotations

import math
from logging import CRITICAL, ERROR, WARNING
from typing import Any

from anyio import CancelScope, current_time
from anyio.lowlevel import cancel_shielded_checkpoint

from .lifetime import CLOSED, DRAINING
from .log import log, names
from .supervised import SupervisedTask
from .supervisor import Supervisor

CLEAN_UP_TIME = 30.0  # seconds for clean-ups of cancelled tasks, where shielded tasks have no limit
REPORT_INTERVAL = 5.0  # seconds between two log lines of a drain that waits
ROUNDS = 50  # of the event loop, in which those who waited for the last tasks may schedule more


class Drain:
    """The drain of one lifespan.

    Args:
        grace_period: seconds for all tasks, if the server announces the shutdown.
        shield_timeout: seconds for shielded tasks after that.
    """

    def __init__(self, supervisor: Supervisor, grace_period: float, shield_timeout: float) -> None:
        self._supervisor = supervisor
        self._registry = supervisor.registry
        self._grace_period = grace_period
        self._shield_timeout = shield_timeout
        self._deadline = math.inf  # of the shielded tasks; set when their time begins

    async def run(self, *, with_grace: bool = False) -> None:
        """Take the five steps, unless they were taken already."""
        if not self._supervisor.admits_tasks:
            return
        grace = current_time() + (self._grace_period if with_grace else 0)
        with CancelScope(shield=True):
            try:
                await self._take_steps(grace)
            except Exception as exc:
                log(ERROR, "the shutdown failed half-way, and begins anew", error=exc)
                await self._take_steps(grace)
            finally:
                try:
                    self._supervisor.enter(CLOSED)
                finally:
                    self._supervisor.lifetime.end()

    async def _take_steps(self, grace: float) -> None:
        """Each of them may be taken twice."""
        self._supervisor.stop()  # 1
        await self._wait_for_tasks(grace)  # 2
        await self._cut_off()  # 3
        if self._deadline == math.inf:
            await self._wait_for_tasks(current_time() + CLEAN_UP_TIME)
            self._cancel_clean_ups()
        await self._wait_for_tasks(self._deadline)  # 4
        self._supervisor.enter(CLOSED)
        await self._wait_for_tasks(self._deadline)  # what was admitted a moment before
        self._cancel_shielded()
        await self._wait_for_tasks(math.inf)  # 5

    async def _cut_off(self) -> None:
        supervisor = self._supervisor
        with self._registry.lock:
            supervisor.enter(DRAINING)
            tasks = self._registry.list_tasks()
        if self._deadline == math.inf:
            self._deadline = current_time() + self._shield_timeout
        unshielded = [task for task in tasks if not task.config.shielded]
        if unshielded:
            log(WARNING, "shutdown cancels %d task(s): %s", len(unshielded), names(unshielded))
        supervisor.lifetime.cancel_unshielded()  # first, so that none sees another one's end before
        for task in unshielded:
            if not task.has_begun:
                supervisor.cancel_unstarted(task)
        for route in dict.fromkeys(task.route for task in tasks if task.route is not None):
            route.reach_all()
        if tasks:
            await self._settle()

    async def _wait_for_tasks(self, deadline: float) -> None:
        while not self._registry.is_idle and current_time() < deadline:
            with CancelScope(deadline=min(deadline, current_time() + REPORT_INTERVAL)):
                await self._registry.wait_until_idle()
            if self._registry.is_idle:
                await self._settle()
            elif current_time() < deadline:
                log(WARNING, "shutdown waits for %s", names(self._registry.list_unfinished()))

    async def _settle(self) -> None:
        """Let those go on who waited for a task: a request whose response it held, say."""
        if self._supervisor.admits_tasks:
            for _ in range(ROUNDS):
                await cancel_shielded_checkpoint()

    def _cancel_clean_ups(self) -> None:
        """Cancel what still closes the dependencies of tasks that are not shielded."""
        if left := self._supervisor.lifetime.clean_ups.unshield(shielded=False):
            self._say_what_is_cancelled("clean-ups of tasks", CLEAN_UP_TIME, left)

    def _cancel_shielded(self) -> None:
        """Cancel the shielded tasks that are still there, and all clean-ups."""
        lifetime = self._supervisor.lifetime
        shielded = [task for task in self._registry.list_tasks() if task.config.shielded]
        cleaning = lifetime.clean_ups.unshield(shielded=False)
        if shielded or cleaning:
            what = ["shielded tasks"] * bool(shielded) + ["clean-ups of tasks"] * bool(cleaning)
            left = [*shielded, *cleaning]
            self._say_what_is_cancelled(" and ".join(what), self._shield_timeout, left)
        lifetime.cancel_shielded()
        lifetime.clean_ups.unshield(shielded=True)
        for task in shielded:
            self._supervisor.cancel_unstarted(task)

    def _say_what_is_cancelled(
        self, what: str, after: float, tasks: list[SupervisedTask[..., Any]]
    ) -> None:
        said = "shutdown cancels %s, %s s after the others: %s"
        log(CRITICAL, said, what, after, names(tasks, at_most=len(tasks)))
