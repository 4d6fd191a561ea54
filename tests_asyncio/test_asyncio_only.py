"""What only asyncio can do to us: native cancellation, bare callbacks."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import multiprocessing
import signal
import threading
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated

import anyio
import pytest
from fastapi import Depends, FastAPI

from fastapi_tasks import INJECTED, Task, Tasks, TaskScheduler, TaskState, add_tasks
from fastapi_tasks.testing import client, lifespan
from tests_trio.support import (
    Journal,
    Server,
    make_app,
    request_tasks,
    serving,
    settle,
    user,
)
from tests_trio.test_interrupt import handler_of_sigint, run_with_pythons_handler

needs_anyio_4_16 = pytest.mark.skipif(
    tuple(map(int, version("anyio").split(".")[:2])) < (4, 16),
    reason="older versions raise a RuntimeError of their own where a thread is about to begin",
)


@pytest.mark.parametrize("shield", [True, False])
async def test_a_stray_cancellation_is_contained(shield, caplog):
    """G12, G14: a cancelled future ends one task, `CANCELLED`, with one WARNING."""
    app, journal = make_app(grace_period=5), Journal()

    async def stray():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(shield=shield).schedule(journal.ends("other"))
        task = tasks.task(name="stray", shield=shield).schedule(stray)
        await task.finished.wait()
        return task.state.value

    async with serving(app) as server:
        for _ in range(2):
            assert (await server.get()).json() == "cancelled"
    assert journal == ["other starts"] * 2 + ["other ends"] * 2
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "task 'stray' was cancelled, but not by this library: it ended here")
    ] * 2


async def test_a_natively_cancelled_task_is_contained(caplog):
    """G12: `Task.cancel()` on a task, and in an error handler."""
    app, journal = make_app(), Journal()

    async def cancel_myself(*args):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def fail():
        raise ValueError

    async with serving(app):
        runner = app.state.runner
        task = runner.schedule(cancel_myself)
        runner.task(on_error=cancel_myself).schedule(fail)
        await runner.join()
        assert task.state is TaskState.CANCELLED
        runner.schedule(journal.task("other"))
        await runner.join()
    assert journal == ["other"]
    assert sorted(r.levelname for r in caplog.records) == ["ERROR", "WARNING", "WARNING"]


async def cancel_my_last_step():
    asyncio.current_task().cancel()


async def wait_for_an_odd_future():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_exception, GeneratorExit())  # it is thrown past every coroutine
    await future


async def do_not_even_begin():
    pass


def cancel_natively(name):
    for task in asyncio.all_tasks():
        if task.get_name() == name:
            task.cancel()


@pytest.mark.parametrize("shield", [True, False])
@pytest.mark.parametrize(
    "culprit", [cancel_my_last_step, wait_for_an_odd_future, do_not_even_begin]
)
async def test_a_broken_event_loop_task(culprit, shield, caplog):
    """G12: it takes the running tasks of its kind along; the other kind and new ones run."""
    app, journal = make_app(grace_period=5), Journal()
    async with serving(app):
        same = app.state.runner.task(name="same", shield=shield)
        running = same.schedule(journal.ends("same"))
        app.state.runner.task(shield=not shield).schedule(journal.ends("other"))
        await settle()
        same.task(name="culprit").schedule(culprit)
        if culprit is do_not_even_begin:
            cancel_natively("culprit")
        await running.finished.wait()
        await settle()
        same.schedule(journal.ends("later", sleep=2))
    assert journal == [
        "same starts",
        "other starts",
        "same cancelled",
        "later starts",
        "other ends",
        "later ends",
    ]
    kind = "shielded" if shield else "unshielded"
    assert [r.levelname for r in caplog.records if f"all {kind} tasks" in r.getMessage()] == [
        "ERROR"
    ]
    statistics = app.state.runner.statistics()
    assert (statistics.scheduled, statistics.running, statistics.waiting) == (4, 0, 0)


async def test_a_request_whose_task_is_lost():
    """G3, G4: neither its response waits for that, nor the task behind it."""
    app, journal = make_app(grace_period=5), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(name="culprit").schedule(do_not_even_begin)
        cancel_natively("culprit")
        tasks.task(shield=True).schedule(journal.task("behind it"))

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        await app.state.runner.join()
    assert journal == ["behind it"]


@pytest.mark.parametrize("in_the_drain", [True, False])
async def test_a_task_that_is_closed_while_its_handler_waits(in_the_drain, caplog):
    """G12: it finishes, and the app shuts down."""
    app = make_app(grace_period=0 if in_the_drain else 5)

    async def fail_strangely():
        if in_the_drain:
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
        with anyio.CancelScope(shield=True):
            try:
                await wait_for_an_odd_future()
            except BaseException as exc:
                raise ValueError from exc

    async def handle(task, error):
        await anyio.sleep(1)

    async with serving(app):
        task = app.state.runner.task(on_error=handle).schedule(fail_strangely)
        await settle()
        if not in_the_drain:
            await app.state.runner.join()
    assert task.finished.is_set()
    assert task.state is TaskState.FAILED
    assert "the error handler of task" in caplog.text  # closed now, not some time
    statistics = app.state.runner.statistics()
    assert (statistics.failed, statistics.running) == (1, 0)


async def test_schedule_in_a_bare_callback():
    """A callback of the event loop runs in no task; what it schedules runs all the same."""
    app, journal = make_app(), Journal()

    async def note():
        journal.append(user.get())

    def callback():
        user.set("callback")
        app.state.runner.schedule(note)

    async with serving(app):
        asyncio.get_running_loop().call_soon(callback)
        await settle()
    assert journal == ["callback"]


async def test_schedule_in_a_coroutine_that_no_task_runs():
    """One that a callback of the event loop takes a step of."""
    app, journal = make_app(), Journal()

    async def step():
        app.state.runner.schedule(journal.task("task"))

    def callback():
        with pytest.raises(StopIteration):
            step().send(None)

    async with serving(app):
        asyncio.get_running_loop().call_soon(callback)
        asyncio.get_running_loop().call_soon(callback, context=contextvars.Context())
        await settle()
    assert journal == ["task", "task"]


async def test_a_thread_that_begins_too_late(monkeypatch):
    """Its task was cancelled by then: the function is not called."""
    app, journal, calls = make_app(), [], []

    async def run_sync(call, limiter):
        calls.append(call)
        raise asyncio.CancelledError

    async with serving(app):
        monkeypatch.setattr("fastapi_tasks._core.threads.to_thread.run_sync", run_sync)
        task = app.state.runner.schedule(journal.append, 1)
        await task.finished.wait()
        calls[0]()
    assert (task.state, journal) == (TaskState.CANCELLED, [])


class Slotted(Coroutine):
    """A coroutine that weak references cannot lead to, as one that is written in C may be."""

    __slots__ = ("_coro",)

    def __init__(self, coro):
        self._coro = coro

    def send(self, value):
        return self._coro.send(value)

    def throw(self, *args):
        return self._coro.throw(*args)

    def __await__(self):
        return self._coro.__await__()


async def test_a_route_in_an_odd_coroutine():
    """It is not known again: its waits are not refused."""
    app = make_app()

    async def route():
        run = request_tasks(app.state.runner)._route
        return run.runs_in_this_task()

    async with serving(app):
        assert await asyncio.get_running_loop().create_task(Slotted(route())) is False


async def test_schedule_in_a_bare_callback_without_a_trace_of_anyio():
    """As under Uvicorn, where nothing has told AnyIO by a context variable which loop this is."""
    import contextvars

    app, journal = make_app(), Journal()
    async with serving(app):
        asyncio.get_running_loop().call_soon(
            app.state.runner.schedule, journal.task("task"), context=contextvars.Context()
        )
        await asyncio.sleep(0)
        await app.state.runner.join()
    assert journal == ["task"]


@pytest.mark.parametrize("times", [1, 2])
async def test_native_cancellation_of_the_lifespan(times):
    """G16: `Task.cancel()`, even twice, does not interrupt the drain."""
    journal = Journal()

    @asynccontextmanager
    async def lifespan(app):
        try:
            yield
        finally:
            journal.append("app shuts down")

    app = FastAPI(lifespan=lifespan)
    runner = add_tasks(app, grace_period=100)
    server = Server(app)
    task = asyncio.create_task(server.run())
    await server.answered.wait()
    runner.task(shield=True).schedule(journal.ends("shielded", sleep=5))
    runner.schedule(journal.ends("unshielded", sleep=5))
    await settle()
    for _ in range(times):
        task.cancel()
        await anyio.sleep(1)
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal[2:] == ["unshielded cancelled", "shielded ends", "app shuts down"]


async def test_native_cancellation_of_the_lifespan_at_its_start():
    """G16: even before the runner is open."""
    app = make_app()
    for ticks in range(8):
        server = Server(app)
        task = asyncio.create_task(server.run())
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done()
    async with serving(app):
        task = app.state.runner.schedule(anyio.sleep, 0)
        await task.finished.wait()


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_ends_while_the_lifespan_begins():
    """G16: `asyncio.run()` cancels everything then, also what has not run a line."""
    for ticks in range(12):

        async def main(ticks=ticks):
            server = Server(make_app())
            task = asyncio.create_task(server.run())
            for _ in range(ticks):
                await asyncio.sleep(0)
            return task

        assert asyncio.run(main()).done()


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_ends_by_force(caplog):
    """G7, G16: `asyncio.run()` cancels what is left; each task's end is counted and named."""
    runner = add_tasks(app := FastAPI())
    tasks: list[Task] = []

    def schedule(scheduler: TaskScheduler, name: str, *, shield: bool = True) -> None:
        tasks.append(scheduler.task(name=name, shield=shield).schedule(anyio.sleep, 60))

    async def main() -> None:
        server = Server(app)
        lifespan = asyncio.create_task(server.run())
        await server.answered.wait()
        schedule(runner, "shielded")
        schedule(runner, "unshielded", shield=False)
        schedule(request_tasks(runner).after_response, "waiting")
        line = request_tasks(runner)
        await asyncio.sleep(0)
        thread = threading.Thread(target=schedule, args=[line, "from a thread"])
        thread.start()
        thread.join()
        schedule(line, "behind it")
        await asyncio.sleep(0)  # it runs, and waits for its turn
        assert not lifespan.done()
        raise SystemExit

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert {task.state for task in tasks} == {TaskState.CANCELLED}
    assert runner.tasks == ()
    assert runner.statistics().cancelled == runner.statistics().scheduled == 5
    stray = "was cancelled, but not by this library"
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"task 'behind it' {stray}",
        f"task 'shielded' {stray}: it ended here",
        f"task 'unshielded' {stray}: it ended here",
        "the runner was ended: 2 task(s) do not run: 'waiting', 'from a thread'",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.real_time
@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["", "timeout"])
async def test_a_thread_that_its_task_is_torn_away_from(options, caplog):
    """G17: it is waited for, and keeps its slot; so the next one, and the shutdown, come after."""
    app, journal = make_app(max_threads=1, grace_period=0), Journal()
    runner = app.state.runner
    go_on = [threading.Event() for _ in range(3)]

    def press(number):
        journal.append(f"press {number}")
        go_on[number].wait(10)
        journal.append(f"pressed {number}")

    def fail():
        go_on[2].wait(10)
        raise ValueError

    def tear_away(name):
        for task in asyncio.all_tasks():
            if task.get_name() == name:
                task.cancel()

    async with serving(app):
        first = runner.task(name="first", **options).schedule(press, 0)
        second = runner.schedule(press, 1)
        while not journal:
            await anyio.sleep(0.001)
        for _ in range(3):  # once more while it waits for the thread
            tear_away("first")
            await anyio.sleep(0.001)
        assert first.state is TaskState.RUNNING
        go_on[0].set()
        await first.finished.wait()
        assert first.state is TaskState.CANCELLED
        go_on[1].set()
        await second
        third = runner.task(name="third", shield=True, **options).schedule(fail)
        await third.started.wait()
        await anyio.sleep(0.01)
        tear_away("third")
        threading.Timer(0.05, go_on[2].set).start()
    assert third.state is TaskState.FAILED
    assert journal == ["press 0", "pressed 0", "press 1", "pressed 1"]
    ours = [record.getMessage() for record in caplog.records if record.name == "fastapi_tasks"]
    assert ours == [
        "task 'first' was cancelled, but not by this library: it ended here",
        "task 'third' failed",
    ]


@needs_anyio_4_16
@pytest.mark.real_time
async def test_a_task_that_is_torn_away_before_its_thread_begins():
    """It never does, then, and nobody waits for it."""
    app = make_app(max_threads=1)
    runner = app.state.runner
    go_on = threading.Event()
    called = []

    async with serving(app):
        first = runner.schedule(go_on.wait, 10)
        second = runner.task(name="second").schedule(called.append, 1)
        await second.started.wait()
        for task in asyncio.all_tasks():
            if task.get_name() == "second":
                task.cancel()
        await second.finished.wait()
        go_on.set()
        await first
        third = runner.task(name="third").schedule(called.append, 3)
        await third.started.wait()
        for task in asyncio.all_tasks():  # it has a slot, and AnyIO is about to find a thread
            if task.get_name() == "third":
                task.cancel()
        await third.finished.wait()
        assert third.state is TaskState.CANCELLED
    assert called == []


@needs_anyio_4_16
@pytest.mark.real_time
async def test_a_clean_up_that_is_torn_away_before_its_thread_begins():
    """G22: a generator is closed all the same, before those that it depends on."""
    app = make_app()
    begun, called = anyio.Event(), anyio.Event()
    journal = []

    async def outer():
        try:
            yield
        finally:
            journal.append("outer closes")

    def inner(outer: Annotated[None, Depends(outer)]):
        try:
            yield
        finally:
            journal.append("inner closes")

    async def work(value: Annotated[None, Depends(inner)] = INJECTED):
        begun.set()
        await called.wait()

    async with serving(app):
        task = app.state.runner.task(name="work").schedule(work)
        await begun.wait()
        called.set()
        await asyncio.sleep(0)
        for each in asyncio.all_tasks():  # AnyIO is about to find a thread
            if each.get_name() == "work":
                each.cancel()
        await task.finished.wait()
        assert task.state is TaskState.CANCELLED
    assert journal == ["inner closes", "outer closes"]


def test_what_a_process_pool_raises_is_a_failure():
    """G12: also by a future of asyncio's, under Python's own handler: that is no Ctrl+C."""
    app = make_app()
    compute = partial(signal.default_int_handler, signal.SIGINT, None)

    async def main():
        async with serving(app):
            task = app.state.runner.schedule(compute_apart)
            await task.finished.wait()
            assert task.state is TaskState.FAILED
            assert isinstance(task.exception, KeyboardInterrupt)
            assert app.state.runner.running

    async def compute_apart():
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, compute)

    with handler_of_sigint(signal.default_int_handler):
        try:
            run_with_pythons_handler(main, "asyncio")
        except KeyboardInterrupt:  # which would end the tests
            pytest.fail("it has passed as a Ctrl+C")


@pytest.mark.parametrize("enter", [lifespan, client])
async def test_native_cancellation_of_a_test_that_leaves_its_app(enter):
    """It goes on, as itself, when the app has shut down."""
    app, journal = make_app(), Journal()

    async def use():
        async with enter(app):
            app.state.runner.task(shield=True).schedule(journal.ends("shielded", sleep=2))
        journal.append("goes on")

    task = asyncio.ensure_future(use())
    await anyio.sleep(1)
    task.cancel("too late")
    with pytest.raises(asyncio.CancelledError, match="too late"):
        await task
    assert journal == ["shielded starts", "shielded ends"]
    assert not app.state.runner.running


@pytest.mark.parametrize("where", ["start-up", "shutdown"])
async def test_a_lifespan_with_a_stray_cancellation(where):
    """A test does not take it for one that has succeeded."""
    journal = Journal()

    async def stray():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @asynccontextmanager
    async def lifespan_of_app(app):
        if where == "start-up":
            await stray()
        yield
        await stray()

    add_tasks(app := FastAPI(lifespan=lifespan_of_app))
    with pytest.raises(asyncio.CancelledError):
        async with lifespan(app):
            journal.append("started")
    assert journal == ["started"] * (where == "shutdown")
