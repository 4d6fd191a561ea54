"""The options: timeout, retry, limiter, hold_response, even_if_failed."""

import contextlib
import gc
import math
import threading
from contextvars import copy_context
from functools import partial

import anyio
import pytest
import stamina
import tenacity
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint
from fastapi import HTTPException

from fastapi_tasks import TaskConfig, Tasks, TaskState
from tests_trio.support import (
    Journal,
    double,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
    twice,
)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "timeout must be a number of seconds from 0 up, not -1"),
        ({"timeout": math.nan}, ValueError, "timeout .* not nan"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not str"),
        ({"timeout": True}, TypeError, "timeout must be .* not bool"),
        ({"timeout": 10**400}, ValueError, "timeout must be .* not 1000000"),
        ({"on_error": True}, TypeError, "on_error must be .* not bool"),
        ({"retry": True}, TypeError, "retry must be .* not bool"),
        ({"limiter": True}, TypeError, "limiter must be .* not bool"),
        ({"name": False}, TypeError, "name must be a string, not bool"),
        ({"retry": 3}, TypeError, "retry must be an async caller, not int"),
        ({"limiter": 5}, TypeError, "limiter must be an async context manager, not int"),
        ({"limiter": threading.Lock()}, TypeError, "limiter must be .* not lock"),
        ({"hold_response": 1}, TypeError, "hold_response must be True, False or None, not int"),
        ({"even_if_failed": "no"}, TypeError, "even_if_failed must be .* not str"),
    ],
)
def test_wrong_values(options, error, message):
    """At `TaskConfig(...)` and at `task(...)`."""
    with pytest.raises(error, match=message):
        TaskConfig(**options)
    with pytest.raises(error, match=message):
        make_app().state.runner.task(**options)


def test_every_option_merges():
    """Per task, per scheduler and app-wide: the innermost that is set counts."""
    limiter = anyio.Semaphore(1)
    app = make_app(config=TaskConfig(timeout=1, hold_response=True))
    outer = app.state.runner.task(retry=checkpoint, even_if_failed=True)
    inner = outer.task(timeout=2, limiter=limiter)
    assert inner._config == TaskConfig(
        timeout=2, hold_response=True, retry=checkpoint, even_if_failed=True, limiter=limiter
    )


async def test_timeout(caplog):
    """Past it the attempt is cancelled, and fails with `TimeoutError`."""
    app, journal = make_app(), Journal()
    async with serving(app):
        begin = anyio.current_time()
        slow = app.state.runner.task(name="slow", timeout=2).schedule(journal.ends("slow", sleep=9))
        quick = app.state.runner.task(timeout=2).schedule(journal.ends("quick", sleep=1))
        with pytest.raises(TimeoutError):
            await slow
        assert anyio.current_time() - begin == 2
        await quick
    assert sorted(journal) == ["quick ends", "quick starts", "slow cancelled", "slow starts"]
    assert [r.getMessage() for r in caplog.records] == ["task 'slow' failed"]


@pytest.mark.real_time
async def test_timeout_of_a_thread():
    """It can only be asked: one that looks fails, one that returns late has succeeded."""
    app = make_app()

    def looks():
        while True:
            from_thread.check_cancelled()
            threading.Event().wait(0.001)

    def is_late():
        threading.Event().wait(0.05)
        return "late"

    def gives_a_coroutine():
        return anyio.sleep_forever()

    async with serving(app):
        scheduler = app.state.runner.task(timeout=0.01)
        with pytest.raises(TimeoutError):
            await scheduler.schedule(looks)
        assert await scheduler.schedule(is_late) == "late"
        with pytest.raises(TimeoutError):
            await scheduler.schedule(gives_a_coroutine)


class Flaky:
    """Fails twice, then succeeds; as an async function and as a sync one."""

    def __init__(self):
        self.calls = 0

    async def run(self, argument):
        return self.run_sync(argument)

    def run_sync(self, argument):
        self.calls += 1
        if self.calls < 3:
            raise ConnectionError(f"call {self.calls}")
        return argument


def stamina_caller(attempts):
    return stamina.AsyncRetryingCaller(attempts=attempts, wait_initial=0.01, wait_jitter=0).on(
        ConnectionError
    )


def tenacity_caller(attempts):
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_fixed(0.01), reraise=True
    )


@pytest.mark.real_time
@pytest.mark.parametrize("kind", ["run", "run_sync"])
@pytest.mark.parametrize("caller", [stamina_caller, tenacity_caller])
async def test_retry(kind, caller, caplog):
    """With stamina and with tenacity, real ones, for async and sync functions."""
    app, handled = make_app(), []

    async def handle(task, error):
        handled.append(str(error))

    async with serving(app):
        runner = app.state.runner
        task = runner.task(retry=caller(5), on_error=handle).schedule(getattr(Flaky(), kind), 7)
        assert (await task, task.attempts) == (7, 3)
        task = runner.task(retry=caller(2), on_error=handle).schedule(getattr(Flaky(), kind), 7)
        with pytest.raises(ConnectionError, match="call 2"):
            await task
        assert (task.attempts, task.state) == (2, TaskState.FAILED)
    assert handled == ["call 2"]
    assert sum("failed" in r.getMessage() for r in caplog.records) == 1


async def test_retry_survives_the_drain_if_shielded():
    """G17: a shielded task finishes its retries, an unshielded one is cancelled in its back-off."""
    app, journal = make_app(grace_period=0), Journal()

    async def again(attempt):
        with contextlib.suppress(ValueError):
            return await attempt()
        await anyio.sleep(5)
        return await attempt()

    async def work(name):
        journal.append(name)
        raise ValueError

    async with serving(app):
        for shield in (True, False):
            app.state.runner.task(shield=shield, retry=again).schedule(work, f"{shield=}")
        await settle()
    assert sorted(journal[:2]) == ["shield=False", "shield=True"]
    assert journal[2:] == ["shield=True"]


class Counting(contextlib.AbstractAsyncContextManager):
    """A limiter of the test's own."""

    def __init__(self, total):
        self.semaphore = anyio.Semaphore(total)
        self.inside = self.most = 0

    async def __aenter__(self):
        await self.semaphore.acquire()
        self.inside += 1
        self.most = max(self.most, self.inside)

    async def __aexit__(self, *error):
        self.inside -= 1
        self.semaphore.release()


@pytest.mark.parametrize("make", [anyio.CapacityLimiter, anyio.Semaphore, Counting])
async def test_limiter(make):
    """A thousand tasks: never more than five inside, all done."""
    app, inside, most = make_app(), [], []

    async def work():
        inside.append(1)
        most.append(len(inside))
        await anyio.sleep(1)
        inside.pop()

    async with serving(app):
        limited = app.state.runner.task(limiter=make(5))
        begin = anyio.current_time()
        tasks = [limited.schedule(work) for _ in range(1000)]
        await app.state.runner.join()
        assert anyio.current_time() - begin == pytest.approx(200)
        assert {task.state for task in tasks} == {TaskState.SUCCEEDED}
    assert (max(most), inside) == (5, [])


async def test_a_limiter_that_is_falsy():
    """Only `None` means that there is none."""

    class Pool(contextlib.AbstractAsyncContextManager):
        entered = 0

        def __len__(self):
            return 0

        async def __aenter__(self):
            self.entered += 1

        async def __aexit__(self, *error): ...

    app, pool = make_app(), Pool()
    async with serving(app):
        await app.state.runner.task(limiter=pool).schedule(checkpoint)
    assert pool.entered == 1


async def test_shutdown_leaves_no_token_taken():
    """In the middle of a thousand tasks."""
    app, limiter = make_app(grace_period=0), anyio.CapacityLimiter(5)
    async with serving(app):
        limited = app.state.runner.task(limiter=limiter)
        tasks = [limited.schedule(anyio.sleep, 1) for _ in range(1000)]
        await anyio.sleep(10.5)
        assert limiter.borrowed_tokens == 5
    assert limiter.borrowed_tokens == 0
    states = [task.state for task in tasks]
    assert states.count(TaskState.SUCCEEDED) == 50
    assert states.count(TaskState.CANCELLED) == 950


async def test_a_task_in_the_queue_of_its_limiter_has_started():
    """G3: it does not hold up the response, nor the tasks behind it."""
    app, journal = make_app(grace_period=0), Journal()
    limiter = anyio.CapacityLimiter(1)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        waiting = tasks.task(limiter=limiter).schedule(journal.task("limited"))
        tasks.schedule(journal.task("behind"))
        await settle()
        return waiting.state.value

    async with limiter, serving(app) as server:
        assert (await server.get()).json() == "running"
    assert journal == ["behind"]


@pytest.mark.real_time
async def test_the_nesting():
    """`retry(limiter(thread slot(timeout(call))))`: what is held when, and what time counts."""
    app = make_app(max_threads=1)
    runner, limiter = app.state.runner, anyio.CapacityLimiter(1)
    seen = []

    def work():
        seen.append(
            ("call", limiter.borrowed_tokens, runner._supervisor.lifetime.threads.borrowed_tokens)
        )
        if len(seen) == 1:
            raise ValueError

    async def retry(attempt):
        with contextlib.suppress(ValueError):
            return await attempt()
        seen.append(
            (
                "back-off",
                limiter.borrowed_tokens,
                runner._supervisor.lifetime.threads.borrowed_tokens,
            )
        )
        return await attempt()

    running, block = threading.Event(), threading.Event()

    def hold_the_thread():
        running.set()
        block.wait(5)

    async with serving(app):
        await runner.task(retry=retry, limiter=limiter, timeout=5).schedule(work)
        assert seen == [("call", 1, 1), ("back-off", 0, 0), ("call", 1, 1)]
        # Waiting for the thread does not use up the timeout.
        runner.schedule(hold_the_thread)
        await to_thread.run_sync(running.wait, 10)
        patient = runner.task(timeout=0.02).schedule(checkpoint_in_thread)
        await anyio.sleep(0.05)
        assert patient.state is TaskState.RUNNING
        block.set()
        assert await patient == "in time"


def checkpoint_in_thread():
    return "in time"


async def test_waiting_for_a_limiter_is_outside_the_timeout():
    app, limiter = make_app(), anyio.Semaphore(1)
    async with serving(app):
        scheduler = app.state.runner.task(limiter=limiter, timeout=2)
        tasks = [scheduler.schedule(anyio.sleep, 1.5) for _ in range(4)]
        await app.state.runner.join()
        assert {task.state for task in tasks} == {TaskState.SUCCEEDED}


@pytest.mark.parametrize("fails", [False, True])
async def test_hold_response(fails):
    """Two held tasks of half a second hold the response for half a second, errors too."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        held = tasks.task(hold_response=True)
        held.schedule(journal.ends("1", sleep=0.5))
        (tasks if fails else tasks.after_route).task(hold_response=True).schedule(
            journal.ends("2", sleep=0.5)
        )
        tasks.after_response.task(hold_response=True).schedule(journal.ends("late", sleep=9))
        tasks.task(hold_response=True).schedule(raises, ValueError())
        tasks.schedule(anyio.sleep, 100)
        if fails:
            raise HTTPException(418)

    async with serving(app) as server:
        begin = anyio.current_time()
        messages = await server.call_raw(send=journal.send)
        assert anyio.current_time() - begin == 0.5
        assert messages[0]["status"] == (418 if fails else 200)
        assert journal[:2] == ["1 starts", "2 starts"]
        assert sorted(journal[2:4]) == ["1 ends", "2 ends"]
        assert journal[4:6] == ["http.response.start", "http.response.body"]


async def test_a_client_that_leaves_does_not_cancel_held_tasks():
    app, journal = make_app(grace_period=5), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(hold_response=True).schedule(journal.ends("held", sleep=2))
        tasks.after_response.schedule(journal.task("after response"))

    async with serving(app) as server:
        with anyio.move_on_after(1):
            await server.call_raw()
        await settle()
        assert journal == ["held starts", "after response"]
    assert journal[-1] == "held ends"


async def test_held_tasks_of_a_task():
    """What a task of the request schedules before the response may hold it as well."""
    app = make_app()

    async def parent(tasks):
        await anyio.sleep(1)
        tasks.task(hold_response=True).schedule(anyio.sleep, 1)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(hold_response=True).schedule(parent, tasks)

    async with serving(app) as server:
        begin = anyio.current_time()
        await server.get()
        assert anyio.current_time() - begin == 2


async def test_what_is_handed_over_while_the_response_is_held():
    """G3: it has started, too, when the response starts."""
    app, journal = make_app(), Journal()

    async def parent(tasks):
        await anyio.sleep(1)
        for i in range(20):
            tasks.schedule(journal.task(f"child {i}"))

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(hold_response=True).schedule(parent, tasks)

    async with serving(app) as server:
        for _ in range(20):
            await server.call_raw(send=journal.send)
            assert journal[:21] == [*(f"child {i}" for i in range(20)), "http.response.start"]
            journal.clear()


@pytest.mark.real_time
async def test_threads_that_hold_the_response():
    """They may add to what holds it while it is held."""
    app, threads = make_app(), []

    async def slow():
        await anyio.sleep(0.001)

    @app.get("/")
    def endpoint(tasks: Tasks):
        def schedule():
            for _ in range(200):
                tasks.task(hold_response=True).schedule(slow)

        for _ in range(3):
            threads.append(threading.Thread(target=schedule))
            threads[-1].start()

    async with serving(app) as server:
        for _ in range(3):
            assert (await server.get()).status_code == 200
        for thread in threads:  # they may go on when the response has not
            await to_thread.run_sync(thread.join)
    assert app.state.runner.statistics().scheduled == 1800


async def test_even_if_failed(caplog):
    """At their timing points, though the route failed; the others are dropped."""
    caplog.set_level("INFO")
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for scheduler, name in (
            (tasks.after_response, "after response"),
            (tasks.after_route, "after route"),
        ):
            scheduler.schedule(journal.task("dropped"))
            scheduler.task(even_if_failed=True).schedule(journal.task(name))
        raise HTTPException(404)

    async with serving(app) as server:
        await server.call_raw(send=journal.send)
        await settle()
    assert journal == ["after route", "http.response.start", "http.response.body", "after response"]
    assert "dropped 2 task(s)" in caplog.text


async def test_options_where_they_mean_nothing_are_ignored():
    """So that any of them can be an app-wide default."""
    app = make_app(config=TaskConfig(hold_response=True, even_if_failed=True, timeout=5))
    async with serving(app):
        task = app.state.runner.schedule(checkpoint)
        await task


async def test_tasks_without_a_response_to_hold():
    """A WebSocket may last for ever: what would hold its response is not kept."""
    app = make_app(config=TaskConfig(hold_response=True))
    async with serving(app):
        tasks = request_tasks(app.state.runner)
        for _ in range(10):
            await tasks.schedule(checkpoint)
        await settle()
        gc.collect()
        assert len(tasks._route._holding) <= 1


@pytest.mark.real_time
async def test_a_coroutine_from_a_thread_has_the_rest_of_the_timeout():
    """The timeout is of the whole attempt: of the thread and of what its function returns."""
    app = make_app()

    def work():
        from_thread.run(anyio.sleep, 0.2)
        return anyio.sleep(0.2)

    async with serving(app):
        task = app.state.runner.task(timeout=0.3).schedule(work)
        await task.finished.wait()
        assert isinstance(task.exception, TimeoutError)


@pytest.mark.real_time
async def test_a_timeout_does_not_hold_the_thread():
    """A coroutine that a sync callable returns runs without its thread, but with its timeout."""
    app = make_app(max_threads=1)
    runner = app.state.runner
    async with serving(app):
        slow = runner.task(timeout=5).schedule(lambda: anyio.sleep_forever())
        await runner.schedule(lambda: None)
        assert slow.state is TaskState.RUNNING
        slow.cancel()
        assert await runner.task(timeout=5).schedule(lambda: double(3)) == 6


async def test_app_wide_options_that_are_switched_off():
    """By `False`, for one task or for a scheduler; `None` inherits."""
    handled = []
    whole = TaskConfig(
        on_error=lambda task, error: handled.append(task.name),
        timeout=5,
        retry=twice,
        limiter=anyio.Semaphore(0),
    )
    off = {"on_error": False, "timeout": False, "retry": False, "limiter": False}
    app = make_app(config=whole)
    runner = app.state.runner
    assert TaskConfig(**off) == TaskConfig().merge(TaskConfig(**off))
    assert whole.merge(TaskConfig(**off)).merge(TaskConfig()) == TaskConfig(**off)
    async with serving(app):
        begin = anyio.current_time()
        slow = runner.task(**off).schedule(anyio.sleep, 20)
        failing = runner.task(**off).task(name="failing").schedule(raises, ValueError())
        held = runner.schedule(anyio.sleep, 0)
        await slow
        assert anyio.current_time() - begin == 20
        await failing.finished.wait()
        assert (failing.attempts, handled) == (1, [])
        assert held.state is TaskState.RUNNING  # in the queue of a limiter that has no token
        held.cancel()
        for name in ("retry", "limiter"):
            single = runner.task(**{**off, name: None})
            task = single.schedule(raises, ValueError())
            await settle()
            assert task.attempts == {"retry": 2, "limiter": 0}[name]
            task.cancel()


async def test_a_timeout_that_is_zero_is_none_that_is_switched_off():
    """0 seconds are 0 seconds."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.task(timeout=0).schedule(anyio.sleep, 1)
        await task.finished.wait()
        assert isinstance(task.exception, TimeoutError)


@pytest.mark.real_time
async def test_the_message_of_a_timeout():
    """After how many seconds of what."""
    app = make_app()
    runner = app.state.runner.task(name="slow", timeout=0.02)

    def returns_awaitable():
        return anyio.sleep(5)

    async with serving(app):
        for func in (partial(anyio.sleep, 5), returns_awaitable):
            with pytest.raises(TimeoutError) as caught:
                await runner.schedule(func)
            assert str(caught.value) == "'slow' took longer than its timeout of 0.02 s"


class Isolated:
    """Awaits something step by step, each in a copy of the context."""

    def __init__(self, awaitable):
        self.awaitable = awaitable

    def __await__(self):
        steps = self.awaitable.__await__()
        try:
            wanted = copy_context().run(next, steps)
            while True:
                wanted = copy_context().run(steps.send, (yield wanted))
        except StopIteration as end:
            return end.value


@pytest.mark.real_time
async def test_attempts_in_copies_of_the_context():
    """A retry caller may run them as it likes; the threads' slots are free again."""
    app, calls = make_app(max_threads=1), []
    runner = app.state.runner

    async def isolated(attempt):
        try:
            return await Isolated(attempt())
        except LookupError:
            return await Isolated(attempt())

    def read(key):
        calls.append(key)
        if len(calls) == 1:
            raise LookupError(key)
        return key.upper()

    async with serving(app):
        assert await runner.task(retry=isolated, timeout=50).schedule(read, "key") == "KEY"
        assert runner._supervisor.lifetime.threads.available_tokens == 1
