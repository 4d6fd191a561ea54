"""The handle: awaiting, cancelling, and every state a task goes through."""

import contextlib
import threading
import traceback

import anyio
import pytest
from anyio import TaskCancelled, TaskFailed, from_thread, to_thread
from anyio.lowlevel import checkpoint
from fastapi import HTTPException

from fastapi_tasks import FastAPITasksError, Tasks, TaskState
from tests_trio.support import (
    Journal,
    double,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
)


async def test_await_gives_the_result():
    """From the endpoint, for a task that runs beside it."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        task = tasks.schedule(double, 21, sleep=3)
        return [await task, await task, task.state.value, task.attempts]

    async with serving(app) as server:
        assert (await server.get()).json() == [42, 42, "succeeded", 1]


async def test_await_raises_the_tasks_own_exception():
    app, error = make_app(), ValueError("mine")
    async with serving(app):
        task = app.state.runner.schedule(raises, error)
        for _ in range(2):
            with pytest.raises(ValueError, match="mine") as caught:
                await task
            assert caught.value is error


async def test_await_any_other_outcome():
    """`TaskFailed` from what is no `Exception`; `TaskCancelled` for cancelled and dropped ones."""
    app, error = make_app(), SystemExit(3)
    async with serving(app):
        task = app.state.runner.task(name="t").schedule(raises, error)
        with pytest.raises(TaskFailed, match="task 't' failed") as caught:
            await task
        assert type(caught.value) is TaskFailed
        assert caught.value.__cause__ is error
        task = app.state.runner.task(name="t").schedule(anyio.sleep_forever)
        await task.started.wait()
        task.cancel()
        with pytest.raises(TaskCancelled, match="task 't' was cancelled"):
            await task
        dropped = request_tasks(app.state.runner).after_response.schedule(checkpoint)
        dropped.cancel()
        with pytest.raises(TaskCancelled):
            await dropped


async def test_the_exception_stays_as_it_was():
    """However many wait for it: its traceback does not grow, and its context is its own."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(raises, ValueError("why"))

        async def wait():
            try:
                raise KeyError("unrelated")
            except KeyError:
                await task

        lengths = set()
        for _ in range(10):
            with pytest.raises(ValueError, match="why") as caught:
                await wait()
            lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
            assert caught.value.__context__ is None
        assert len(lengths) == 1


async def test_several_waiters_and_cancelling_one():
    """Cancelling a waiter does not cancel the task."""
    app, journal = make_app(), Journal()
    async with serving(app):
        task = app.state.runner.schedule(double, 4, sleep=5)

        async def wait(name):
            journal.append(f"{name} {await task}")

        async with anyio.create_task_group() as group:
            group.start_soon(wait, "1")
            group.start_soon(wait, "2")
            with anyio.move_on_after(1):
                await task
            journal.append("gave up")
    assert journal[0] == "gave up"
    assert sorted(journal[1:]) == ["1 8", "2 8"]


async def test_waiting_from_another_request():
    """A task that waits for its timing point is awaited by whoever is not in its way."""
    app = make_app()
    tasks_by_name = {}

    @app.get("/schedule")
    async def schedule(tasks: Tasks):
        tasks_by_name["t"] = tasks.after_response.schedule(double, 5)
        await anyio.sleep(3)

    @app.get("/wait")
    async def wait():
        return await tasks_by_name["t"]

    async with serving(app) as server, anyio.create_task_group() as group:
        group.start_soon(server.get, "/schedule")
        await anyio.sleep(1)
        assert (await server.get("/wait")).json() == 10


async def test_a_task_of_the_request_waits_for_a_later_one():
    """Only the endpoint itself is in the way of its *after* tasks."""
    app, results = make_app(), []

    async def wait(task):
        results.append(await task)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(wait, tasks.after_response.schedule(double, 6))

    async with serving(app) as server:
        await server.get()
    assert results == [12]


@pytest.mark.parametrize("point", ["after_route", "after_response"])
async def test_awaiting_what_one_is_in_the_way_of(point):
    """An error at once, not a request that hangs."""
    app = make_app()
    words = point.replace("_", " ")

    @app.get("/")
    async def endpoint(tasks: Tasks):
        task = getattr(tasks, point).task(name="late").schedule(checkpoint)
        with pytest.raises(FastAPITasksError, match=f"'late' starts {words}.* in another task"):
            await task

    async with serving(app) as server:
        assert (await server.get()).status_code == 200


async def test_a_task_that_awaits_itself():
    app = make_app()
    async with serving(app):

        async def narcissus():
            with pytest.raises(FastAPITasksError, match="'n' cannot wait for itself"):
                await task

        task = app.state.runner.task(name="n").schedule(narcissus)
        await task
        assert await task is None


@pytest.mark.real_time
async def test_await_a_finished_task_anywhere(backend_name):
    """Its result is there for every event loop, and for what the task itself left running."""
    app = make_app()

    async def result():
        return await task

    async def parent(group):
        async def wait_and_look():
            await task.finished.wait()
            assert await task is None

        group.start_soon(wait_and_look)

    async with serving(app), anyio.create_task_group() as group:
        task = app.state.runner.schedule(parent, group)
        await task
        await to_thread.run_sync(lambda: anyio.run(result, backend=backend_name))


@pytest.mark.parametrize("shield", [True, False])
async def test_cancel_a_running_task(shield, caplog):
    """Also a shielded one; it is no news, so no log line."""
    app, journal = make_app(), Journal()
    async with serving(app):
        task = app.state.runner.task(shield=shield).schedule(journal.ends("task"))
        await task.started.wait()
        task.cancel()
        await task.finished.wait()
        assert (task.state, task.exception) == (TaskState.CANCELLED, None)
        task.cancel()
    assert journal == ["task starts", "task cancelled"]
    assert caplog.records == []


@pytest.mark.parametrize("point", ["now", "after_route", "after_response"])
async def test_cancel_before_the_start(point):
    """It does not run a line, and leaves no trace in the order."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        scheduler = tasks if point == "now" else getattr(tasks, point)
        scheduler.schedule(journal.task("first"))
        task = scheduler.schedule(journal.task("cancelled"))
        scheduler.schedule(journal.task("last"))
        task.cancel()
        assert (task.state, task.finished.is_set()) == (TaskState.CANCELLED, True)
        assert task.started.is_set()

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
    assert journal == ["first", "last"]


@pytest.mark.real_time
async def test_cancel_from_threads():
    """G11: waiting, running, and from a thread that AnyIO did not start."""
    app = make_app()
    runner = app.state.runner

    def cancel(task):
        task.cancel()

    async with serving(app):
        for shield in (True, False):
            running = runner.task(shield=shield).schedule(anyio.sleep_forever)
            await running.started.wait()
            waiting = request_tasks(runner).after_route.schedule(checkpoint)
            await to_thread.run_sync(cancel, waiting)
            thread = threading.Thread(target=cancel, args=[running])
            thread.start()
            for task in (running, waiting):
                with pytest.raises(TaskCancelled):
                    await task


@pytest.mark.real_time
async def test_a_def_endpoint_cancels_what_waits_for_its_end():
    """G11: what had not started when `cancel()` was called does not run a line, from threads too."""
    app, journal = make_app(), Journal()

    @app.get("/")
    def endpoint(tasks: Tasks):
        after_route = tasks.after_route.task(even_if_failed=True)
        after_route.schedule(journal.task("not cancelled"))
        after_route.schedule(journal.task("cancelled")).cancel()
        raise HTTPException(418)

    async with serving(app) as server:
        for _ in range(50):
            assert (await server.get()).status_code == 418
        await app.state.runner.join()
        assert journal == ["not cancelled"] * 50
        assert app.state.runner.statistics().cancelled == 50


@pytest.mark.real_time
async def test_a_thread_is_asked():
    """A sync function sees its cancellation by `check_cancelled()`, or is not cancelled at all."""
    app = make_app()
    running, go_on = threading.Event(), threading.Event()

    def polite():
        running.set()
        while True:
            from_thread.check_cancelled()
            go_on.wait(0.001)

    def deaf():
        running.set()
        go_on.wait(5)
        return "done"

    async with serving(app):
        for func, state in ((polite, TaskState.CANCELLED), (deaf, TaskState.SUCCEEDED)):
            task = app.state.runner.schedule(func)
            await to_thread.run_sync(running.wait, 10)
            running.clear()
            task.cancel()
            if func is deaf:
                go_on.set()
            await task.finished.wait()
            assert task.state is state


async def test_cancel_in_the_error_handler():
    """The task has failed and stays so; its handler ends."""
    app, journal = make_app(), Journal()

    async def handle(task, error):
        await journal.ends("handler")()

    async with serving(app):
        task = app.state.runner.task(on_error=handle).schedule(raises, ValueError("why"))
        await settle()
        assert journal == ["handler starts"]
        task.cancel()
        with pytest.raises(ValueError, match="why"):
            await task
    assert journal == ["handler starts", "handler cancelled"]


async def test_a_task_cancels_itself():
    app, journal = make_app(), Journal()
    async with serving(app):

        async def work():
            task.cancel()
            journal.append("goes on to its next checkpoint")
            await checkpoint()
            journal.append("never")

        task = app.state.runner.schedule(work)
        await task.finished.wait()
    assert journal == ["goes on to its next checkpoint"]
    assert task.state is TaskState.CANCELLED


async def test_every_state():
    """The edges of the states' diagram, one after the other."""
    app = make_app()
    runner = app.state.runner
    edges = {}

    class Refusing(contextlib.AbstractAsyncContextManager):
        async def __aenter__(self):
            await anyio.sleep_forever()

        async def __aexit__(self, *error): ...

    async def backing_off(attempt):
        with contextlib.suppress(ValueError):
            await attempt()
        await anyio.sleep_forever()

    async def twice(attempt):
        with contextlib.suppress(ValueError):
            return await attempt()
        return await attempt()

    failures = [ValueError("first")]

    async def fails_once():
        for error in failures:
            failures.clear()
            raise error
        return "second"

    async def waits(*args):
        await anyio.sleep_forever()

    async def follow(name, task, *, cancel=False):
        states = [task.state.value]
        await settle()
        if cancel:
            states.append(task.state.value)
            task.cancel()
        await task.finished.wait()
        edges[name] = [*states, task.state.value, task.attempts]

    async with serving(app):
        request = request_tasks(runner)
        await follow("success", runner.schedule(checkpoint))
        await follow("failure", runner.schedule(raises, ValueError()))
        await follow("cancelled", runner.schedule(anyio.sleep_forever), cancel=True)
        await follow("before the start", request.after_route.schedule(checkpoint), cancel=True)
        dropped = request.after_response.schedule(checkpoint)
        request._route.route_failed(ValueError())
        await follow("dropped", dropped)
        await follow("timed out", runner.task(timeout=1).schedule(anyio.sleep_forever))
        await follow("retried", runner.task(retry=twice).schedule(fails_once))
        limited = runner.task(limiter=Refusing()).schedule(checkpoint)
        await follow("in the limiter", limited, cancel=True)
        retrying = runner.task(retry=backing_off).schedule(raises, ValueError())
        await follow("in the retry", retrying, cancel=True)
        handled = runner.task(on_error=waits).schedule(raises, ValueError())
        await follow("in the handler", handled, cancel=True)
    assert edges == {
        "success": ["pending", "succeeded", 1],
        "failure": ["pending", "failed", 1],
        "cancelled": ["pending", "running", "cancelled", 1],
        "before the start": ["pending", "pending", "cancelled", 0],
        "dropped": ["cancelled", "cancelled", 0],
        "timed out": ["pending", "failed", 1],
        "retried": ["pending", "succeeded", 2],
        "in the limiter": ["pending", "running", "cancelled", 0],
        "in the retry": ["pending", "running", "cancelled", 1],
        "in the handler": ["pending", "failed", "failed", 1],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", TaskState.CANCELLED), ("exception", ValueError()), ("attempts", 7)],
)
async def test_what_only_the_library_changes(name, value):
    """G21: neither before a task has run nor after; it is read only."""
    app = make_app()
    async with serving(app):
        for func, *args in ([double, 4], [raises, KeyError("mine")]):
            task = app.state.runner.schedule(func, *args)
            for _ in range(2):
                before = getattr(task, name)
                with pytest.raises(AttributeError):
                    setattr(task, name, value)
                with pytest.raises(AttributeError):
                    delattr(task, name)
                assert getattr(task, name) is before
                await task.finished.wait()
            succeeded = func is double
            assert task.state is (TaskState.SUCCEEDED if succeeded else TaskState.FAILED)
            assert (task.exception, task.attempts) == (None if succeeded else args[0], 1)
