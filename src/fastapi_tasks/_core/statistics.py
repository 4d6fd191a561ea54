"""The counts that `runner.statistics()` gives."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """How many tasks there are and have been, over all lifespans of the app.

    Each scheduled task counts in one of the five after it.
    """

    scheduled: int
    """Handed over, and not refused."""
    waiting: int
    """For their timing point or their first step."""
    running: int
    """Their error handlers included."""
    succeeded: int
    failed: int
    cancelled: int
    """Those dropped before they started included."""
    refused: int
    """`schedule()` raised: too many tasks, or the app had shut down."""
