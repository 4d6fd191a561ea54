"""Background tasks for FastAPI: now, after the route, after the response; on Trio and asyncio."""

from ._config import TaskConfig, TaskErrorHandler
from ._fastapi import Tasks, add_tasks, get_runner, get_tasks
from ._instrument import Instrument
from ._request import RequestTasks
from ._runner import TaskRunner
from ._scheduler import TaskScheduler
from ._statistics import TaskStatistics
from ._task import Task, TaskState
from .errors import (
    FastAPITasksError,
    FastAPITasksUninitializedAppError,
    TasksClosedError,
    TooManyTasksError,
)

__all__ = (
    "FastAPITasksError",
    "FastAPITasksUninitializedAppError",
    "Instrument",
    "RequestTasks",
    "Task",
    "TaskConfig",
    "TaskErrorHandler",
    "TaskRunner",
    "TaskScheduler",
    "TaskState",
    "TaskStatistics",
    "Tasks",
    "TasksClosedError",
    "TooManyTasksError",
    "add_tasks",
    "get_runner",
    "get_tasks",
)

for _object in [globals()[name] for name in __all__]:
    if getattr(_object, "__module__", "").startswith(f"{__name__}."):
        _object.__module__ = __name__  # where users find it
