"""How the dependencies of tasks are closed: what they see, what bounds them (G22)."""

import contextlib
import contextvars
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import (
    Depends,
    HTTPException,
)

from fastapi_tasks import (
    INJECTED,
    Tasks,
    TaskState,
)
from tests_trio.support import (
    Journal,
    make_app,
    opens,
    opens_in_thread,
    serving,
    takes,
    twice,
)

if TYPE_CHECKING:
    pass


# How it ends.


@pytest.mark.real_time
async def test_what_dependencies_see():
    """A generator sees the end of the call, and is closed once, in the reverse order."""
    app, journal = make_app(), Journal()
    runner = app.state.runner
    outer, inner = opens(journal, "outer"), opens_in_thread(journal, "inner")

    async def work(
        end,
        outer: Annotated[str, Depends(outer)] = INJECTED,
        inner: Annotated[str, Depends(inner)] = INJECTED,
    ):
        journal.append("call")
        await end()

    async def fail():
        raise HTTPException(404)

    async def swallow():
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()

    async def of(end, how, *, cancel=False, **options):
        journal.clear()
        task = runner.task(**options).schedule(work, end)
        if cancel:
            await task.started.wait()
            while "call" not in journal:
                await anyio.sleep(0.001)
            task.cancel()
        await task.finished.wait()
        sees = (
            [] if how is None else [f"inner sees {how}"],
            [] if how is None else [f"outer sees {how}"],
        )
        once = [
            "outer opens",
            "inner opens",
            "call",
            *sees[0],
            "inner closes",
            *sees[1],
            "outer closes",
        ]
        return task, once

    async with serving(app):
        task, once = await of(checkpoint, None)
        assert (task.state, journal) == (TaskState.SUCCEEDED, once)
        task, once = await of(fail, "HTTPException")
        assert (task.state, journal) == (TaskState.FAILED, once)
        task, once = await of(anyio.sleep_forever, "TimeoutError", timeout=0.02)
        assert (type(task.exception), journal) == (TimeoutError, once)
        task, once = await of(anyio.sleep_forever, "Cancelled", cancel=True)
        assert (task.state, journal) == (TaskState.CANCELLED, once)
        task, once = await of(swallow, None, cancel=True)
        assert (task.state, journal) == (TaskState.SUCCEEDED, once)
        task, once = await of(fail, "HTTPException", retry=twice)
        assert (task.attempts, journal) == (2, once * 2)
        with contextlib.suppress(HTTPException):
            journal.clear()
            await task()
        assert (task.attempts, journal) == (2, once)


async def test_scopes():
    """What is of function scope is closed first; each scope is closed in the reverse order."""
    app, journal = make_app(), Journal()

    async def work(
        a: Annotated[str, Depends(opens(journal, "a"), scope="function")] = INJECTED,
        b: Annotated[str, Depends(opens(journal, "b"))] = INJECTED,
        c: Annotated[str, Depends(opens(journal, "c"), scope="function")] = INJECTED,
        d: Annotated[str, Depends(opens(journal, "d"), scope="request")] = INJECTED,
    ): ...

    async with serving(app):
        await app.state.runner.schedule(work)
    assert journal == [
        *(f"{name} opens" for name in "abcd"),
        *(f"{name} closes" for name in "cadb"),
    ]


async def test_what_dependencies_raise():
    """A failure as they open or close is the task's, the latest one; swallowing one is no success."""
    app, journal, errors = make_app(), Journal(), []
    runner = app.state.runner

    async def fails_to_open(before: Annotated[str, Depends(opens(journal, "before"))]):
        raise HTTPException(401)
        yield

    async def fails_to_close(before: Annotated[str, Depends(opens(journal, "before"))]):
        try:
            yield
        finally:
            raise OSError("no commit")

    async def swallows():
        with contextlib.suppress(ValueError):
            yield
        journal.append("swallowed")

    async def yields_not():
        if journal is None:
            yield

    async def yields_twice():
        yield
        yield

    async def swallows_and_yields():
        with contextlib.suppress(ValueError):
            yield
        yield

    async def swallows_and_fails():
        with contextlib.suppress(ValueError):
            yield
        raise OSError

    first = KeyError()

    async def raises_the_first():
        with contextlib.suppress(ValueError):
            yield
        raise first

    async def fail_after_another(value: Any):
        try:
            raise first
        except KeyError:
            raise ValueError  # noqa: B904

    async def stops():
        raise StopAsyncIteration
        yield

    async def fail(value: Any):
        raise ValueError

    async def note(task, error):
        errors.append(error)

    async def of(dependency, func=None):
        journal.clear()

        async def work(value: Annotated[Any, Depends(dependency)] = INJECTED):
            journal.append("call")
            if func is not None:
                await func(value)

        task = runner.task(on_error=note).schedule(work)
        await task.finished.wait()
        return task.exception

    async with serving(app):
        assert isinstance(await of(fails_to_open), HTTPException)
        assert journal == ["before opens", "before sees HTTPException", "before closes"]
        assert isinstance(await of(fails_to_close), OSError)
        assert journal == ["before opens", "call", "before sees OSError", "before closes"]
        assert isinstance(error := await of(fails_to_close, fail), OSError)
        assert isinstance(error.__context__, ValueError)
        assert isinstance(await of(swallows, fail), ValueError)
        assert journal == ["call", "swallowed"]
        assert str(await of(yields_not)).endswith("yields_not' has not yielded")
        assert str(await of(yields_twice)).endswith("yields_twice' yields twice")
        assert isinstance((await of(swallows_and_yields, fail)).__cause__, ValueError)
        assert isinstance((await of(swallows_and_fails, fail)).__context__, ValueError)
        assert await of(raises_the_first, fail_after_another) is first
        assert first.__context__ is None  # which comes after it, not before
        assert str(await of(stops)) == "async generator raised StopAsyncIteration"
    assert len(errors) == 10


@pytest.mark.real_time
async def test_what_dependencies_in_threads_raise():
    """The same of those that are no coroutines."""
    app = make_app()

    def fails_to_open():
        raise HTTPException(401)
        yield

    def fails_to_close():
        yield
        raise OSError("no commit")

    def yields_not():
        if app is None:
            yield

    def yields_twice():
        yield
        yield

    def fails():
        raise HTTPException(401)

    async def of(dependency):
        task = app.state.runner.schedule(takes(dependency))
        await task.finished.wait()
        return task.exception

    async with serving(app):
        assert isinstance(await of(fails_to_open), HTTPException)
        assert isinstance(await of(fails), HTTPException)
        assert isinstance(await of(fails_to_close), OSError)
        assert str(await of(yields_not)).endswith("yields_not' has not yielded")
        assert str(await of(yields_twice)).endswith("yields_twice' yields twice")


class FrozenError(Exception):
    """It does not let itself be changed."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@pytest.mark.real_time
@pytest.mark.parametrize(
    "error",
    [FrozenError(), StopAsyncIteration(), GeneratorExit(), SystemExit(), RuntimeError()],
    ids=lambda error: type(error).__name__,
)
async def test_errors_that_pass_through_generators(error):
    """The task fails with its own error, whichever it is, and all are closed."""
    app, journal = make_app(), Journal()

    def work(
        a: Annotated[str, Depends(opens(journal, "a"))] = INJECTED,
        b: Annotated[str, Depends(opens_in_thread(journal, "b"))] = INJECTED,
    ):
        raise error

    async with serving(app):
        task = app.state.runner.schedule(work)
        await task.finished.wait()
    assert task.exception is error
    name = type(error).__name__
    closing = ["b closes", f"a sees {name}", "a closes"]
    assert journal == ["a opens", "b opens", f"b sees {name}", *closing]


# Limits: time, threads, the shutdown.


@pytest.mark.real_time
async def test_the_timeout():
    """It bounds the opening and the call, not the wait for a thread, nor the clean-up."""
    app, journal = make_app(max_threads=1), Journal()
    runner = app.state.runner
    scheduler = runner.task(timeout=0.05)
    has_thread, released = threading.Event(), threading.Event()

    async def slow():
        await anyio.sleep(0.2)

    def late():
        has_thread.set()
        released.wait(5)
        try:
            yield
        finally:
            journal.append("late closes")

    async def call(value: Annotated[Any, Depends(late)] = INJECTED):
        journal.append("call")

    def late_task(value: Annotated[str, Depends(opens(journal, "of late task"))] = INJECTED):
        released.wait(5)
        return value

    async with serving(app):
        assert (
            await scheduler.schedule(takes(opens(journal, "slow to close", after=slow)))
            == "slow to close"
        )
        assert journal == ["slow to close opens", "slow to close closes"]
        journal.clear()
        task = scheduler.schedule(takes(opens(journal, "slow", before=slow)))
        with pytest.raises(TimeoutError, match=r"work' took longer than its timeout of 0.05 s"):
            await task
        assert journal == ["slow opens", "slow sees Cancelled", "slow closes"]
        journal.clear()

        # A thread cannot be cancelled: what comes after it is.
        task = scheduler.schedule(call)
        while not has_thread.is_set():
            await anyio.sleep(0.001)
        waiting = scheduler.schedule(late_task)
        await anyio.sleep(0.1)
        released.set()
        with pytest.raises(TimeoutError):
            await task
        assert await waiting == "of late task"  # its time began with its thread
        await task.finished.wait()
        assert "late closes" in journal
        assert "call" not in journal

        released.clear()
        task = scheduler.schedule(late_task)
        await task.started.wait()
        await anyio.sleep(0.1)
        released.set()
        assert await task == "of late task"  # and one that returns late has succeeded


@pytest.mark.real_time
async def test_the_wait_for_a_thread_is_no_part_of_the_timeout():
    """Of a dependency neither."""
    app = make_app(max_threads=1)
    runner = app.state.runner
    has_thread, released = threading.Event(), threading.Event()

    def block():
        has_thread.set()
        released.wait(5)

    def dependency():
        return "value"

    async with serving(app):
        runner.schedule(block)
        while not has_thread.is_set():
            await anyio.sleep(0.001)
        task = runner.task(timeout=0.05).schedule(takes(dependency))
        await anyio.sleep(0.2)
        released.set()
        assert await task == "value"


@pytest.mark.real_time
async def test_a_dependency_that_blocks_past_the_deadline():
    """The call does not begin, although the event loop had no time to notice that."""
    app, journal = make_app(), Journal()

    async def blocks():
        time.sleep(0.1)  # noqa: ASYNC251
        return "value"

    async def work(value: Annotated[str, Depends(blocks)] = INJECTED):
        journal.append("call")

    async with serving(app):
        task = app.state.runner.task(timeout=0.05).schedule(work)
        await task.finished.wait()
    assert isinstance(task.exception, TimeoutError)
    assert journal == []


@pytest.mark.real_time
async def test_cancelled_while_a_dependency_is_in_its_thread():
    """The call does not begin."""
    app, journal = make_app(), Journal()
    has_thread, released = threading.Event(), threading.Event()

    def dependency():
        has_thread.set()
        released.wait(5)

    async def work(value: Annotated[None, Depends(dependency)] = INJECTED):
        journal.append("call")

    async with serving(app):
        task = app.state.runner.schedule(work)
        while not has_thread.is_set():
            await anyio.sleep(0.001)
        task.cancel()
        released.set()
        await task.finished.wait()
    assert (task.state, journal) == (TaskState.CANCELLED, [])


async def test_a_cancelled_task_has_not_timed_out():
    """Nor when its time is up while it is being cancelled."""
    app, journal = make_app(), Journal()

    async def work(name: Annotated[str, Depends(opens(journal, "session"))] = INJECTED):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)

    async with serving(app):
        task = app.state.runner.task(timeout=5).schedule(work)
        await anyio.sleep(1)
        task.cancel()
        await task.finished.wait()
    assert task.state is TaskState.CANCELLED
    assert journal == ["session opens", "session sees Cancelled", "session closes"]


async def test_a_cancellation_that_a_retry_keeps_out():
    """Then the time limit ends the attempt, and the task has failed by that."""
    app, journal = make_app(), Journal()

    async def work(name: Annotated[str, Depends(opens(journal, "session"))] = INJECTED):
        await anyio.sleep_forever()

    async def shielded(attempt):
        with anyio.CancelScope(shield=True):
            return await attempt()

    async with serving(app):
        task = app.state.runner.task(timeout=5, retry=shielded).schedule(work)
        await anyio.sleep(1)
        task.cancel()
        await task.finished.wait()
    assert isinstance(task.exception, TimeoutError)
    assert journal == ["session opens", "session sees Cancelled", "session closes"]


@pytest.mark.real_time
async def test_threads_of_dependencies():
    """They are the runner's; a sync task lends its own to its dependencies."""
    app = make_app(max_threads=1)
    runner = app.state.runner
    running, most = 0, 0

    def count():
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.01)  # time in which others would run
        running -= 1

    def generator():
        count()
        yield threading.get_ident()

    def sync_work(value: Annotated[int, Depends(generator)] = INJECTED):
        count()
        return value

    async def work(value: Annotated[int, Depends(generator)] = INJECTED):
        return value

    async with serving(app):
        tasks = [runner.schedule(func) for func in (work, sync_work) * 5]
        for task in tasks:
            assert await task != threading.get_ident()
        assert runner._supervisor.lifetime.threads.available_tokens == 1
    assert most == 1


@pytest.mark.real_time
async def test_a_pool_that_is_smaller_than_the_threads():
    """To close takes no slot: those who have one may wait for what that gives back."""
    app = make_app(max_threads=2)
    pool = threading.BoundedSemaphore(1)

    def connection():
        assert pool.acquire(timeout=5)
        yield
        pool.release()

    async with serving(app):
        tasks = [app.state.runner.schedule(takes(connection)) for _ in range(6)]
        for task in tasks:
            await task


async def test_the_limiter_and_the_context():
    """A limiter is held around it all; what a dependency sets in its context, the call sees."""
    app, journal = make_app(), Journal()
    limiter = anyio.CapacityLimiter(1)
    user = contextvars.ContextVar("user", default="nobody")

    async def sets_user():
        user.set("ann")
        journal.append(f"opens {limiter.borrowed_tokens}")
        yield
        journal.append(f"closes {limiter.borrowed_tokens} {user.get()}")

    async def work(value: Annotated[None, Depends(sets_user)] = INJECTED):
        return user.get()

    async with serving(app):
        assert await app.state.runner.task(limiter=limiter).schedule(work) == "ann"
        assert user.get() == "nobody"
    assert journal == ["opens 1", "closes 1 ann"]


async def test_generators_that_hold_a_task_group():
    """They may yield in one: it is closed in the right order, whatever ends the call."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async def group():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            try:
                yield group
            finally:
                group.cancel_scope.cancel()

    async def scope(group: Annotated[Any, Depends(group)]):
        with anyio.CancelScope():
            try:
                yield
            finally:
                journal.append("scope closes")

    async def work(end, group: Annotated[Any, Depends(group)] = INJECTED, s: None = Depends(scope)):
        group.start_soon(anyio.sleep_forever)
        await end()

    async def fail():
        raise ValueError

    async with serving(app):
        await runner.schedule(work, checkpoint)
        task = runner.schedule(work, fail)
        await task.finished.wait()
        assert [type(error) for error in task.exception.exceptions] == [ValueError]
        task = runner.task(timeout=1).schedule(work, anyio.sleep_forever)
        await task.finished.wait()
        assert [type(error) for error in task.exception.exceptions] == [TimeoutError]
        task = runner.schedule(work, anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        await task.finished.wait()
        assert task.state is TaskState.CANCELLED
    assert journal == ["scope closes"] * 4


@pytest.mark.parametrize("shield_timeout", [None, 5])
async def test_clean_ups_in_the_shutdown(shield_timeout, caplog):
    """They are waited for, but not for ever: a hanging commit must not block a shutdown."""
    app, journal = make_app(grace_period=0, shield_timeout=shield_timeout), Journal()
    runner = app.state.runner

    async def hang():
        try:
            await anyio.sleep_forever()
        finally:
            journal.append(f"cut off after {anyio.current_time() - start:g} s")

    async def roll_back():
        await anyio.sleep(3)
        journal.append(f"rolled back after {anyio.current_time() - start:g} s")

    async def work(name: Annotated[str, Depends(opens(journal, "a", after=roll_back))] = INJECTED):
        await anyio.sleep_forever()

    async def hanging(name: Annotated[str, Depends(opens(journal, "b", after=hang))] = INJECTED):
        await anyio.sleep_forever()

    async with serving(app):
        for func in (work, hanging):
            runner.task(name=func.__name__).schedule(func)
        shielded = runner.task(name="shielded", shield=True).schedule(anyio.sleep, 40)
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
    assert [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"] == [
        "shutdown cancels clean-ups of tasks, 30.0 s after the others: 'hanging'"
        if shield_timeout is None
        else "shutdown cancels shielded tasks and clean-ups of tasks, 5 s after the others: "
        "'shielded', 'hanging'"
    ]
    ends = TaskState.SUCCEEDED if shield_timeout is None else TaskState.CANCELLED
    assert shielded.state is ends
    assert sorted(journal[:4]) == ["a opens", "a sees Cancelled", "b opens", "b sees Cancelled"]
    after = 30 if shield_timeout is None else 5
    assert journal[4:] == [
        "rolled back after 3 s",
        "a closes",
        f"cut off after {after} s",
    ]
    assert anyio.current_time() - start == (40 if shield_timeout is None else 5)


async def test_clean_ups_of_shielded_tasks(caplog):
    """They have the time that shielded tasks have, and are cut off with those."""
    app, journal = make_app(grace_period=0, shield_timeout=5), Journal()

    async def hang():
        await anyio.sleep_forever()

    async with serving(app):
        work = takes(opens(journal, "session", after=hang))
        task = app.state.runner.task(name="work", shield=True).schedule(work)
        await anyio.wait_all_tasks_blocked()
    assert task.state is TaskState.CANCELLED
    assert journal == ["session opens"]
    assert [record.getMessage() for record in caplog.records] == [
        "shutdown cancels shielded tasks, 5 s after the others: 'work'"
    ]


@pytest.mark.real_time
async def test_clean_ups_after_their_time(caplog):
    """What ends later is cancelled at its first wait; a sync generator is closed all the same."""
    app, journal = make_app(grace_period=0, shield_timeout=0.05), Journal()
    released = threading.Event()

    async def hang():
        await anyio.sleep_forever()

    def work(
        a: Annotated[str, Depends(opens_in_thread(journal, "a"))] = INJECTED,
        b: Annotated[str, Depends(opens(journal, "b", after=hang))] = INJECTED,
    ):
        released.wait(5)

    async with serving(app) as server, anyio.create_task_group() as group:
        task = app.state.runner.task(name="late").schedule(work)
        await task.started.wait()
        while "b opens" not in journal:
            await anyio.sleep(0.001)
        group.start_soon(server.shutdown)
        await anyio.sleep(0.2)
        released.set()
    assert journal == ["a opens", "b opens", "a sees Cancelled", "a closes"]
    assert task.state is TaskState.CANCELLED
    assert [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"] == [
        "shutdown cancels the clean-up of task 'late', which begins when its time is over"
    ]


async def test_the_clean_up_of_a_call_after_the_end(caplog):
    """It is its caller's: cancelled with that, and nothing that the shutdown has to say."""
    app, journal = make_app(grace_period=0), Journal()

    async def hang():
        await anyio.sleep(100)

    async with anyio.create_task_group() as group:
        async with serving(app):
            opened = opens(journal, "session", after=None)
            task = app.state.runner.schedule(takes(opened))
            await task
            journal.clear()
            hanging = app.state.runner.schedule(takes(opens(journal, "again", after=hang)))
            await hanging
            journal.clear()
            group.start_soon(hanging)
            await anyio.wait_all_tasks_blocked()
        assert caplog.records == []
        group.cancel_scope.cancel()
    assert journal == ["again opens"]


async def test_tasks_that_start_in_the_drain():
    """G17: a shielded one gets its dependencies, as long as it may start."""
    app, journal = make_app(grace_period=0), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.task(shield=True).schedule(takes(opens(journal, "shielded")))
        tasks.after_response.schedule(takes(opens(journal, "other")))
        await anyio.sleep(10)

    async with serving(app) as server, anyio.create_task_group() as group:
        group.start_soon(server.get)
        await anyio.wait_all_tasks_blocked()
        await server.shutdown()
    assert journal == ["shielded opens", "shielded closes"]


@pytest.mark.parametrize("where", ["call", "clean-up"])
@pytest.mark.parametrize("closer", ["another task", "nobody"])
async def test_a_coroutine_that_is_closed(where, closer, monkeypatch):
    """As by a lost event loop: nothing is awaited any more."""
    app, journal = make_app(), Journal()

    async def close(error):
        journal.append("closing")
        await anyio.sleep_forever()

    class Opening:
        are_only_awaited = False

        async def open(self, attempt):
            attempt.add_exit(close, first=False)

    async def work():
        if where == "call" and task.state is TaskState.SUCCEEDED:
            await anyio.sleep_forever()

    def get_current_task():
        if closer == "nobody":
            raise RuntimeError("no running event loop")
        return anyio.TaskInfo(-1, None, "another", coro)

    async with serving(app):
        task = app.state.runner.schedule(work)
        await task
        task.dependencies = Opening()
        coro = task()
        coro.send(None)
        monkeypatch.setattr("fastapi_tasks._core.attempt.get_current_task", get_current_task)
        coro.close()
    assert journal == ([] if where == "call" else ["closing"])
