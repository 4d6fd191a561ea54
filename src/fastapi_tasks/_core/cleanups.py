"""The clean-ups of tasks: what closes their dependencies, whatever has ended the call.

They are shielded from that, so that a rollback may await. The drain bounds them.
"""

from __future__ import annotations

from logging import CRITICAL
from typing import Any

from anyio import CancelScope

from .log import log
from .supervised import SupervisedTask


class CleanUps:
    """Those of one lifespan that are under way; on the event loop's thread."""

    def __init__(self) -> None:
        self._under_way: dict[CancelScope, SupervisedTask[..., Any]] = {}
        self._are_shielded = {True: True, False: True}  # those of tasks that are, or are not

    def begin(self, scope: CancelScope, task: SupervisedTask[..., Any]) -> None:
        """Shield a scope that a clean-up of a task begins in."""
        scope.shield = self._are_shielded[task.config.shielded]
        self._under_way[scope] = task
        if not scope.shield:
            what = "shutdown cancels the clean-up of task %r, which begins when its time is over"
            log(CRITICAL, what, task.name)

    def end(self, scope: CancelScope) -> None:
        """A clean-up has ended."""
        self._under_way.pop(scope, None)

    def unshield(self, *, shielded: bool) -> list[SupervisedTask[..., Any]]:
        """Have those clean-ups cancelled that run in cancelled tasks; return these tasks.

        From now on none is shielded, of tasks that are `shielded`, or that are not.

        Their scopes are not cancelled: those would keep the cancellation from the tasks.
        """
        self._are_shielded[shielded] = False
        left = {
            scope: task
            for scope, task in self._under_way.items()
            if task.config.shielded is shielded
        }
        for scope in left:
            scope.shield = False
        return [*dict.fromkeys(left.values())]
