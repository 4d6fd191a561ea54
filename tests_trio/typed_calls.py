# mypy: disable-error-code=ignore-without-code
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of users' call sites; mypy and pyright read this, and nothing runs it.

Each `expect-error` line must be an error to both: they complain of an unused `ignore`.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any, assert_type, overload

from fastapi import APIRouter, Depends

from fastapi_tasks import (
    INJECTED,
    PeriodicScheduler,
    Progress,
    RequestTasks,
    Task,
    TaskConfig,
    TaskRunner,
    Tasks,
    TaskScheduler,
    current_task,
    track,
)
from fastapi_tasks.jobs import History, RecordedError, TaskRecord, create_router


async def async_function(number: int, *, word: str = "") -> float:
    return number * len(word)


def sync_function(number: int, *, word: str = "") -> float:
    return number * len(word)


class Service:
    async def method(self, number: int) -> bytes:
        return bytes(number)

    def sync_method(self, number: int) -> bytes:
        return bytes(number)

    async def __call__(self, number: int) -> bytes:
        return bytes(number)

    @classmethod
    async def class_method(cls, number: int) -> bytes:
        return bytes(number)


@overload
def overloaded(value: int) -> int: ...
@overload
def overloaded(value: str) -> str: ...
def overloaded(value: int | str) -> int | str:
    return value


async def get_number() -> int:
    return 1


Number = Annotated[int, Depends(get_number)]


async def injected(word: str, number: Number = INJECTED, *, tasks: Tasks = INJECTED) -> float:
    return number


def sync_injected(word: str, number: Number = INJECTED) -> float:
    return number


async def results(tasks: RequestTasks, runner: TaskRunner, task: Task[[int], str]) -> None:
    """`await task` has the function's return type."""
    assert_type(await tasks.schedule(async_function, 1), float)
    assert_type(await tasks.schedule(sync_function, 1, word="w"), float)
    assert_type(await tasks.after_route.schedule(async_function, 1), float)
    assert_type(await tasks.after_response.schedule(sync_function, number=1), float)
    assert_type(await tasks.task(name="n").schedule(async_function, 1, word="w"), float)
    assert_type(await tasks.after_route.task(shield=True).schedule(async_function, 1), float)
    assert_type(await runner.schedule(async_function, 1), float)
    assert_type(await runner.task(timeout=1).schedule(sync_function, 1), float)
    service = Service()
    assert_type(await runner.schedule(service.method, 1), bytes)
    assert_type(await runner.schedule(service.sync_method, 1), bytes)
    assert_type(await runner.schedule(Service.class_method, 1), bytes)
    assert_type(await runner.schedule(service, 1), bytes)
    assert_type(await runner.schedule(partial(async_function, 1)), float)
    assert_type(await runner.schedule(partial(sync_function, 1), word="w"), float)
    assert_type(await runner.schedule(lambda: 7), int)
    assert_type(await runner.schedule(Service), Service)
    assert_type(await runner.schedule(overloaded, 1), int)
    assert_type(await runner.schedule(injected, "w"), float)
    assert_type(await runner.schedule(injected, "w", 3), float)
    assert_type(await tasks.task(name="n").schedule(sync_injected, "w", number=3), float)
    assert_type(await injected("w", 3), float)
    assert_type(current_task(), Task[..., Any])
    clock = runner.every(60).task(name="n").schedule(async_function, 1)
    assert_type(clock.last.return_value if clock.last else 0.0, float)
    assert_type(await clock, None)
    assert_type(runner.every(60), PeriodicScheduler)
    assert_type(await task, str)
    assert_type(await task(), str)


def handles(tasks: RequestTasks) -> None:
    task = tasks.schedule(async_function, 1)
    assert_type(task.exception, BaseException | None)
    assert_type(task.return_value, float)
    assert_type(task.wait_from_thread(timeout=1), None)
    assert_type(task.id, str)
    assert_type(task.cancelling, bool)
    assert_type(task.progress, Progress)
    task.progress.done, task.progress.total, task.progress.message = 1, 2.5, "half"
    task.progress.total = None
    assert_type(tasks.runner.get_task("id"), Task[..., Any] | None)
    assert_type(tasks.task(labels={"user": "ann"}).schedule(sync_function, 1).return_value, float)
    assert_type(tasks.after_route, TaskScheduler)
    assert_type(tasks.task(), TaskScheduler)
    assert_type(tasks.runner, TaskRunner)
    assert_type(TaskConfig().merge(TaskConfig()), TaskConfig)


async def jobs(words: list[str], pages: AsyncIterator[bytes], history: History) -> None:
    assert_type(track(words), Iterator[str])
    assert_type(track(pages, total=3), AsyncIterator[bytes])
    for word in track(words):
        assert_type(word, str)
    async for page in track(pages):
        assert_type(page, bytes)
    assert_type(history.get("id"), TaskRecord | None)
    assert_type(history.records, tuple[TaskRecord, ...])
    assert_type(history.records[0].error, RecordedError | None)
    assert_type(create_router(history, cancel=True), APIRouter)


def mistakes_with_jobs(tasks: RequestTasks, record: TaskRecord, history: History) -> None:
    tasks.task(labels={"user": 7})  # type: ignore  # expect-error
    tasks.task(labels=["user"])  # type: ignore  # expect-error
    TaskConfig(labels="ann")  # type: ignore  # expect-error
    task = tasks.schedule(async_function, 1)
    task.progress.done = "7"  # type: ignore  # expect-error
    task.progress.message = 7  # type: ignore  # expect-error
    task.cancelling = True  # type: ignore  # expect-error
    task.id = "mine"  # type: ignore  # expect-error
    record.state = None  # type: ignore  # expect-error
    track(7)  # type: ignore  # expect-error
    History(1000, 3600, True)  # type: ignore  # expect-error
    create_router()  # type: ignore  # expect-error
    history.get(7)  # type: ignore  # expect-error


def mistakes(tasks: RequestTasks, runner: TaskRunner) -> None:
    """Argument mistakes are errors, wherever a task is scheduled."""
    tasks.schedule(async_function, "1")  # type: ignore  # expect-error
    tasks.schedule(async_function)  # type: ignore  # expect-error
    tasks.schedule(async_function, 1, wrod="w")  # type: ignore  # expect-error
    tasks.schedule(sync_function, "1")  # type: ignore  # expect-error
    tasks.after_route.schedule(async_function, "1")  # type: ignore  # expect-error
    tasks.after_response.schedule(sync_function, 1, 2)  # type: ignore  # expect-error
    tasks.task(name="n").schedule(async_function, "1")  # type: ignore  # expect-error
    tasks.after_route.task().schedule(sync_function, word=1)  # type: ignore  # expect-error
    runner.schedule(async_function, "1")  # type: ignore  # expect-error
    runner.task(shield=True).schedule(sync_function, "1")  # type: ignore  # expect-error
    runner.schedule(Service().method, "1")  # type: ignore  # expect-error
    runner.schedule(partial(async_function, "1"))  # type: ignore  # expect-error
    runner.schedule(injected)  # type: ignore  # expect-error
    runner.schedule(injected, 1)  # type: ignore  # expect-error
    runner.schedule(injected, "w", "3")  # type: ignore  # expect-error
    runner.task(shield=True).schedule(sync_injected, 1)  # type: ignore  # expect-error
    runner.schedule(async_function(1))  # type: ignore  # expect-error
    runner.every(60).schedule(async_function, "1")  # type: ignore  # expect-error
    runner.every(60).task(timeout=1).schedule(sync_function, "1")  # type: ignore  # expect-error
    runner.every(60).schedule(injected)  # type: ignore  # expect-error
    runner.every("60")  # type: ignore  # expect-error
    runner.every(lambda last: 60)  # type: ignore  # expect-error
    runner.schedule(None)  # type: ignore  # expect-error
    tasks.task(nmae="n")  # type: ignore  # expect-error
    tasks.task(shield="yes")  # type: ignore  # expect-error
    TaskConfig("n")  # type: ignore  # expect-error
