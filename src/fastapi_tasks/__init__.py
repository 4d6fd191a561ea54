"""Background tasks for FastAPI: now, after the route, after the response; on Trio and asyncio."""

from ._core.config import TaskConfig, TaskErrorHandler
from ._core.instrument import Instrument
from ._core.periodic import PeriodicScheduler, PeriodicTask
from ._core.progress import Progress
from ._core.request import RequestTasks
from ._core.runner import TaskRunner
from ._core.scheduler import TaskScheduler
from ._core.state import TaskState
from ._core.statistics import TaskStatistics
from ._core.supervised import current_task
from ._core.task import Task
from ._core.track import track
from ._fastapi.app import add_tasks, get_runner
from ._fastapi.injected import INJECTED
from ._fastapi.tasks import Tasks, get_tasks
from .errors import (
    FastAPITasksError,
    FastAPITasksUninitializedAppError,
    TasksClosedError,
    TooManyTasksError,
)

__all__ = (
    "INJECTED",
    "FastAPITasksError",
    "FastAPITasksUninitializedAppError",
    "Instrument",
    "PeriodicScheduler",
    "PeriodicTask",
    "Progress",
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
    "current_task",
    "get_runner",
    "get_tasks",
    "track",
)

for _object in [globals()[name] for name in __all__]:
    if getattr(_object, "__module__", "").startswith(f"{__name__}."):
        _object.__module__ = __name__  # where users find it
