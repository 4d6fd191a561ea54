"""Every error this library raises on purpose; each message says what to do instead."""

__all__ = (
    "FastAPITasksError",
    "FastAPITasksUninitializedAppError",
    "TasksClosedError",
    "TooManyTasksError",
)


class FastAPITasksError(Exception):
    """Base of this library's errors; raised itself when it is set up or used wrongly."""


class FastAPITasksUninitializedAppError(FastAPITasksError):
    """There is no running runner: `add_tasks(app)` is missing, or the app's lifespan is not run."""


class TasksClosedError(FastAPITasksError):
    """The app's shutdown is past the point up to which tasks are accepted."""


class TooManyTasksError(FastAPITasksError):
    """As many tasks are unfinished as `add_tasks(max_tasks=)` allows."""
