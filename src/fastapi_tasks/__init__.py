"""Background tasks for FastAPI: now, after the route, after the response; on Trio and asyncio."""

from ._core.config import TaskConfig, TaskErrorHandler
from ._core.instrument import Instrument
from ._core.request import RequestTasks
from ._core.runner import TaskRunner
from ._core.scheduler import TaskScheduler
from ._core.state import TaskState
from ._core.statistics import TaskStatistics
from ._core.task import Task
from ._fastapi.app import Tasks, add_tasks, get_runner, get_tasks
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
