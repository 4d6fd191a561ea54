"""What the tasks of the soak test do, and the counts of what the app saw of them."""

import logging
import time
from collections import Counter
from typing import Any

import anyio
from anyio import from_thread

from fastapi_tasks import Instrument, Task, TaskScheduler

MAX_TASKS = 400  # what a burst exceeds
LINES_AT_MOST = 50  # in a server's log: a long test must not fill the disk


class OnPurposeError(Exception):
    """What tasks and routes of the soak test fail with."""


class Watch(Instrument):
    """Counts what an instrument is told, and how often error handlers are called."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def task_finished(self, task: Task[..., Any]) -> None:
        self.counts["instrument told of the end"] += 1

    async def handle(self, task: Task[..., Any], error: Exception) -> None:
        await pause()
        self.counts["error handler called"] += 1

    def handle_in_thread(self, task: Task[..., Any], error: Exception) -> None:
        work()
        from_thread.run_sync(self.counts.update, ["error handler called"])

    async def fail_to_handle(self, task: Task[..., Any], error: Exception) -> None:
        self.counts["error handler called"] += 1
        raise OnPurposeError


class LogFilter:
    """Counts log records instead of letting them through, but for those that nobody provoked."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        logging.getLogger("fastapi_tasks").setLevel(logging.INFO)
        for name in ("fastapi_tasks", "hypercorn.error", "uvicorn.error"):
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        self.counts[f"{record.name} {record.levelname} lines"] += 1
        if record.levelno < logging.WARNING or self._is_on_purpose(record):
            return False
        self.counts["unexpected lines"] += 1
        return self.counts["unexpected lines"] <= LINES_AT_MOST

    @staticmethod
    def _is_on_purpose(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return isinstance(error, (OnPurposeError, TimeoutError, SystemExit))


async def pause(seconds: float = 0.005) -> None:
    await anyio.sleep(seconds)


async def sleep_long() -> None:
    await anyio.sleep(60)


def work(seconds: float = 0.002) -> None:
    time.sleep(seconds)


def work_until_cancelled() -> None:
    while True:
        from_thread.check_cancelled()
        work()


async def fail(error: BaseException | None = None) -> None:
    await pause(0.001)
    raise error or OnPurposeError


def fail_in_thread() -> None:
    work()
    raise OnPurposeError


async def fail_at_first(failures: list[str]) -> int:
    """Fail as often as the list is long."""
    if failures:
        raise OnPurposeError(failures.pop())
    return 42


async def have_children(scheduler: TaskScheduler, generations: int) -> None:
    await pause(0.001)
    if generations:
        scheduler.schedule(have_children, scheduler, generations - 1)
