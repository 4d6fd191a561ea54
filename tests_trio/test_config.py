"""Options and how they merge; what apps written for the older project rely on."""

import dataclasses

import anyio
import pytest

import fastapi_tasks
from fastapi_tasks import Task, TaskConfig, TaskErrorHandler, Tasks, add_tasks  # noqa: F401
from fastapi_tasks.errors import FastAPITasksError, FastAPITasksUninitializedAppError
from tests_trio.support import Journal, make_app, raises, serving


async def handler(task, error): ...


async def other_handler(task, error): ...


def test_merge():
    """The other's values win, where they are not `None`."""
    base = TaskConfig(name="base", shield=True, on_error=handler)
    assert base.merge(TaskConfig()) == base
    assert base.merge(TaskConfig(shield=False)) == TaskConfig(
        name="base", shield=False, on_error=handler
    )
    assert TaskConfig().merge(base) == base
    assert base.merge(TaskConfig(name="other", on_error=other_handler)) == TaskConfig(
        name="other", shield=True, on_error=other_handler
    )


def test_shielded():
    assert [TaskConfig(shield=value).shielded for value in (True, False, None)] == [
        True,
        False,
        False,
    ]


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskConfig().name = "x"
    with pytest.raises(TypeError):
        TaskConfig("x")


async def test_app_wide_config_and_overrides():
    """What a task does not set, it inherits from `add_tasks(app, config=...)`."""
    app = make_app(config=TaskConfig(shield=True, on_error=handler))

    @app.get("/")
    async def endpoint(tasks: Tasks):
        scheduled = [
            tasks.schedule(anyio.sleep, 0),
            tasks.after_route.task(shield=False).schedule(anyio.sleep, 0),
            tasks.task(name="n", on_error=other_handler).schedule(anyio.sleep, 0),
        ]
        assert [task.config for task in scheduled] == [
            TaskConfig(shield=True, on_error=handler),
            TaskConfig(shield=False, on_error=handler),
            TaskConfig(name="n", shield=True, on_error=other_handler),
        ]

    async with serving(app) as server:
        assert (await server.get()).status_code == 200


async def test_task_nested_without_end():
    """`task()` on a scheduler on a scheduler: as deep as one likes."""
    app, journal = make_app(), Journal()
    scheduler = app.state.runner
    for _ in range(2000):
        scheduler = scheduler.task(name="deep")
    async with serving(app):
        scheduler.schedule(journal.task("task"))
        await app.state.runner.join()
    assert journal == ["task"]


async def test_a_task_shows_its_call():
    """`func`, `args`, `kwargs`, `config`, `started`: all that the handle promised before, too."""
    seen = []

    async def handle(task: Task, error: Exception):
        seen.append((task.config.name, task.func, task.args, task.kwargs, task.config.shielded))
        seen.append((task.started.is_set(), str(error)))

    async def fail(*args, **kwargs):
        await raises(ValueError("why"))

    app = make_app()
    async with serving(app):
        app.state.runner.task(name="n", on_error=handle).schedule(fail, 1, 2, key="value")
        await app.state.runner.join()
    assert seen == [("n", fail, (1, 2), {"key": "value"}, False), (True, "why")]


async def test_an_error_handler_tries_again():
    """`await task()` calls the function once more; it raises what that raises."""
    attempts, seen = [], []

    async def flaky(value):
        attempts.append(value)
        if len(attempts) < 3:
            raise ValueError(f"attempt {len(attempts)}")
        return value

    async def retry(task: Task, error: Exception):
        with pytest.raises(ValueError, match="attempt 2"):
            await task()
        seen.append(await task())

    app = make_app()
    async with serving(app):
        task = app.state.runner.task(on_error=retry).schedule(flaky, "value")
        await task.finished.wait()
    assert (attempts, seen) == (["value"] * 3, ["value"])
    assert str(task.exception) == "attempt 1"


def test_errors_are_related():
    assert issubclass(FastAPITasksUninitializedAppError, FastAPITasksError)
    assert fastapi_tasks.FastAPITasksError is FastAPITasksError


def test_public_names_show_the_package_as_their_module():
    for name in fastapi_tasks.__all__:
        if name not in ("Tasks", "TaskErrorHandler") and not name.endswith("Error"):
            assert getattr(fastapi_tasks, name).__module__ == "fastapi_tasks", name
