"""How tasks run: G8 to G11."""

import _thread
import asyncio
import contextlib
import contextvars
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections import deque

import anyio
import pytest
import trio
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint
from fastapi import Depends

from fastapi_tasks import Tasks, TasksClosedError, TaskState
from tests_trio.support import (
    Journal,
    make_app,
    serving,
    settle,
    unsubmitted,
    user,
)


async def test_context_of_the_schedule_call():
    """G8: each task runs in a copy of the context that its own `schedule()` call had."""
    app, journal = make_app(), Journal()

    async def note(point):
        journal.append(f"{point}: {user.get()}")
        user.set("changed by a task")

    async def dependency(tasks: Tasks):
        user.set("dependency")
        tasks.after_response.schedule(note, "after response")

    @app.get("/", dependencies=[Depends(dependency)])
    async def endpoint(tasks: Tasks):
        for i in range(2):
            user.set(f"endpoint {i}")
            tasks.schedule(note, "now")
            tasks.after_route.schedule(note, "after route")
        user.set("changed later")
        tasks.after_route.schedule(note, "after route")

    async with serving(app) as server:
        await server.get()
    assert journal == [
        "now: endpoint 0",
        "now: endpoint 1",
        "after route: endpoint 0",
        "after route: endpoint 1",
        "after route: changed later",
        "after response: dependency",
    ]


@pytest.mark.real_time
async def test_context_of_worker_threads():
    """G8, G11: from a `def` endpoint and a `def` dependency, for async and sync tasks."""
    app = make_app(grace_period=5)
    journal: Journal = Journal()

    async def note(point):
        journal.append(f"{point}: {user.get()}")
        await checkpoint()  # the event loop can be used from in there

    def note_in_thread(point):
        journal.append(f"{point}: {user.get()}")

    def dependency(tasks: Tasks):
        user.set("dependency")
        tasks.schedule(note, "now")

    @app.get("/", dependencies=[Depends(dependency)])
    def endpoint(tasks: Tasks):
        user.set("endpoint")
        tasks.schedule(note, "now")
        tasks.after_route.schedule(note, "after route")
        tasks.after_response.schedule(note_in_thread, "after response")

    async with serving(app) as server:
        await server.get()
    assert journal == [
        "now: dependency",
        "now: endpoint",
        "after route: endpoint",
        "after response: endpoint",
    ]


@pytest.mark.real_time
async def test_sync_functions_have_threads_of_their_own():
    """G9: with all of the runner's threads busy, `def` endpoints answer."""
    app = make_app(max_threads=3)
    release = threading.Event()
    threads = set()

    def block():
        threads.add(threading.get_ident())
        release.wait(5)

    @app.get("/schedule")
    async def schedule(tasks: Tasks):
        for _ in range(50):
            tasks.schedule(block)

    @app.get("/")
    def endpoint():
        return threading.get_ident()

    async with serving(app) as server:
        await server.get("/schedule")
        while len(threads) < 3:
            await anyio.sleep(0.001)
        for _ in range(50):
            assert (await server.get()).json() not in threads
        assert len(threads) == 3
        release.set()


@pytest.mark.real_time
async def test_sync_functions_leave_all_other_threads():
    """G9: a task takes none of those that AnyIO has for `def` endpoints, not even the only one."""
    app = make_app(grace_period=5)
    holding, release = threading.Event(), threading.Event()

    def hold():
        holding.set()
        return release.wait(4)

    @app.get("/")
    def endpoint():
        release.set()

    async with serving(app) as server:
        to_thread.current_default_thread_limiter().total_tokens = 1
        task = app.state.runner.schedule(hold)
        while not holding.is_set():
            await anyio.sleep(0.001)
        assert (await server.get()).status_code == 200
        assert await task is True


@pytest.mark.real_time
async def test_a_handler_that_calls_its_task_again_uses_the_runners_threads():
    """G9: not those of `def` endpoints."""
    app = make_app(max_threads=1)
    available = []
    runner = app.state.runner

    def work():
        available.append(runner._supervisor.lifetime.threads.available_tokens)
        raise ValueError

    async def again(task, error):
        with contextlib.suppress(ValueError):
            await task()

    async with serving(app):
        task = runner.task(on_error=again).schedule(work)
        await task.finished.wait()
        assert available == [0, 0]


@pytest.mark.real_time
async def test_a_sync_handler_that_calls_its_task_again_from_its_thread():
    """G9: each of the two has a thread, although the event loop may run both for one task."""
    app, journal = make_app(max_threads=2), Journal()
    runner = app.state.runner

    def work():
        journal.append("work")
        raise ValueError

    def again(task, error):
        with contextlib.suppress(ValueError):
            from_thread.run(task)
        journal.append(f"handled, {runner._supervisor.lifetime.threads.available_tokens} left")

    async with serving(app):
        task = runner.task(on_error=again, timeout=60).schedule(work)
        await task.finished.wait()
        assert journal == ["work", "work", "handled, 1 left"]
        assert runner._supervisor.lifetime.threads.available_tokens == 2


@pytest.mark.real_time
async def test_all_threads_call_their_tasks_again():
    """G9: each holds a thread while it waits for one more, which none of them would get."""
    app = make_app(max_threads=2)
    barrier = threading.Barrier(2)

    def work():
        barrier.wait(timeout=10)
        raise ValueError

    def again(task, error):
        with contextlib.suppress(ValueError):
            from_thread.run(task)

    async with serving(app):
        for _ in range(2):
            app.state.runner.task(on_error=again).schedule(work)
        await app.state.runner.join()
        assert app.state.runner._supervisor.lifetime.threads.available_tokens == 2


@pytest.mark.real_time
async def test_a_thread_lends_its_slot_once_at_a_time():
    """G9: however many calls it waits for at once, and only while it waits."""
    app, journal = make_app(max_threads=1), Journal()
    runner = app.state.runner
    running, most = set(), 0

    def work():
        nonlocal most
        running.add(threading.get_ident())
        most = max(most, len(running))
        time.sleep(0.01)  # time in which others would run
        running.remove(threading.get_ident())
        journal.append("work")

    async with serving(app), anyio.create_task_group() as group:
        task = runner.schedule(work)
        await task
        ended = anyio.Event()

        async def call_many():
            async with anyio.create_task_group() as calls:
                for _ in range(4):
                    calls.start_soon(task)

        async def call_many_later():
            await ended.wait()
            await call_many()

        def wait_for_calls():
            from_thread.run(call_many)
            from_thread.run_sync(group.start_soon, call_many_later)

        await runner.schedule(wait_for_calls)
        ended.set()
        for _ in range(4):
            runner.schedule(work)
    assert (len(journal), most) == (13, 1)


@pytest.mark.real_time
async def test_a_task_from_a_thread_needs_a_thread_of_its_own():
    """G9: it does not run in the place of the one that scheduled it."""
    app, journal = make_app(max_threads=1), Journal()
    runner = app.state.runner

    def work():
        runner.schedule(journal.sync("other"))
        from_thread.run(anyio.sleep, 0.05)  # time in which it would run
        journal.append("work")

    async with serving(app):
        runner.schedule(work)
        await runner.join()
    assert journal == ["work", "other"]


class Callables:
    """Every kind of callable that can be a task."""

    def __init__(self):
        self.calls = []

    async def method(self, *args, **kwargs):
        await checkpoint()
        self.calls.append(("method", args, kwargs))

    def sync_method(self, *args, **kwargs):
        self.calls.append(("sync_method", args, kwargs))

    def returns_coroutine(self, *args, **kwargs):
        return self.method(*args, **kwargs)


class AsyncCallable:
    def __init__(self, target):
        self.target = target

    async def __call__(self, *args, **kwargs):
        await self.target(*args, **kwargs)


class SyncCallable(AsyncCallable):
    def __call__(self, *args, **kwargs):
        self.target(*args, **kwargs)


@pytest.mark.real_time
async def test_every_kind_of_callable():
    """G9: methods, partials, callable objects, and a coroutine that a sync callable returns."""
    app, it = make_app(), Callables()
    runner = app.state.runner
    kinds = {
        it.method: "Callables.method",
        it.sync_method: "Callables.sync_method",
        it.returns_coroutine: "Callables.returns_coroutine",
        functools.partial(it.method, 1): "Callables.method",
        functools.partial(functools.partial(it.sync_method, 1), 2): "Callables.sync_method",
        AsyncCallable(it.method): "AsyncCallable",
        SyncCallable(it.sync_method): "SyncCallable",
        functools.partial(AsyncCallable(it.method)): "AsyncCallable",
        functools.partial(lambda f, *a, **k: f(*a, **k), it.method): (
            "test_every_kind_of_callable.<locals>.<lambda>"
        ),
    }
    async with serving(app):
        for func, name in kinds.items():
            task = runner.schedule(func, 7, key="value")
            assert task.name == name
            await runner.join()
            assert task.state is TaskState.SUCCEEDED
    assert [name for name, _, _ in it.calls] == [
        *("method", "sync_method", "method", "method", "sync_method"),
        *("method", "sync_method", "method", "method"),
    ]
    assert [args for _, args, _ in it.calls] == [*[(7,)] * 3, (1, 7), (1, 2, 7), *[(7,)] * 4]
    assert all(kwargs == {"key": "value"} for _, _, kwargs in it.calls)


async def test_odd_names():
    """A name is a string, whatever the callable pretends."""

    class Odd:
        def __getattr__(self, name):
            return 7

        def __call__(self): ...

    class Proxy:
        def __getattr__(self, name):
            raise RuntimeError("there is nothing behind it")

        def __call__(self): ...

    assert unsubmitted(Odd()).name == "test_odd_names.<locals>.Odd"
    assert unsubmitted(Proxy()).name == "test_odd_names.<locals>.Proxy"


@pytest.mark.real_time
async def test_from_any_thread():
    """G11: a thread that AnyIO did not start schedules, in its own order and context."""
    app, journal = make_app(grace_period=5), Journal()
    runner = app.state.runner
    tasks = []

    async def note(number):
        journal.append(f"{number}: {user.get()}")

    def foreign():
        user.set("thread")
        for number in range(100):
            tasks.append(runner.schedule(note, number))

    async with serving(app):
        thread = threading.Thread(target=foreign)
        thread.start()
        await to_thread.run_sync(thread.join)
        for task in tasks:
            await task.started.wait()
    assert sorted(journal) == sorted(f"{number}: thread" for number in range(100))


@pytest.mark.real_time
async def test_from_a_thread_that_has_no_other_frame():
    """G11: `schedule()` may be what a thread begins with."""
    app = make_app(grace_period=5)
    runner = app.state.runner
    has_run = anyio.Event()

    async def note():
        has_run.set()

    async with serving(app):
        _thread.start_new_thread(runner.schedule, (note,))
        with anyio.fail_after(5):
            await has_run.wait()
    assert runner.statistics().succeeded == 1


@pytest.mark.real_time
async def test_a_busy_event_loop_holds_no_thread_up():
    """G1, G11: `schedule()` leaves a task for the event loop, however many lie there already."""
    app = make_app(grace_period=5)
    tasks = []

    def foreign():
        for _ in range(600):
            tasks.append(app.state.runner.schedule(checkpoint))

    async with serving(app):
        thread = threading.Thread(target=foreign)
        thread.start()
        thread.join(3)  # while the event loop stands still
        assert len(tasks) == 600
    assert {task.state for task in tasks} == {TaskState.SUCCEEDED}


@pytest.mark.real_time
async def test_a_hand_over_while_the_event_loop_takes_another_one():
    """G11: it wakes the event loop once more, although a thread has done so just before."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    class Items(deque):
        def popleft(self):
            item = super().popleft()
            if not journal:  # the first one
                journal.append("taken")
                run_in_thread(lambda: runner.schedule(journal.task("second")))
            return item

    def run_in_thread(func):
        thread = threading.Thread(target=func)
        thread.start()
        thread.join()

    async with serving(app):
        runner._supervisor.lifetime.mailbox._calls = Items()
        run_in_thread(lambda: runner.schedule(journal.task("first")))
        with anyio.fail_after(5):
            await runner.join()
    assert journal == ["taken", "first", "second"]


async def test_a_hand_over_that_comes_too_late():
    """G11: a call that was under way when the lifetime ended meets closed sockets, and no error."""
    app, calls = make_app(), []
    async with serving(app):
        lifetime = app.state.runner._supervisor.lifetime
    lifetime.post(functools.partial(calls.append, 1))
    await settle()
    assert calls == []


@pytest.mark.real_time
async def test_hand_over_while_the_runner_closes(caplog):
    """G11: with threads that schedule all the time, each call is accepted or raises."""
    caplog.set_level("CRITICAL", "fastapi_tasks")
    for round_ in range(10):
        app = make_app()
        runner = app.state.runner
        scheduled, closed, go = [], [], threading.Event()

        def hammer(scheduler, go=go, scheduled=scheduled, closed=closed):
            go.wait(5)
            try:
                while len(scheduled) < 300:
                    scheduled.append(scheduler.schedule(checkpoint))
                    time.sleep(0)
            except TasksClosedError:
                closed.append(1)

        schedulers = [runner, runner.task(shield=True)] * 2
        threads = [threading.Thread(target=hammer, args=[s]) for s in schedulers]
        for thread in threads:
            thread.start()
        async with serving(app):
            go.set()
            await anyio.sleep(round_ / 2000)
        for thread in threads:
            await to_thread.run_sync(thread.join)
        assert closed or len(scheduled) >= 300
        assert all(task.finished.is_set() for task in scheduled)
        unshielded = [task for task in scheduled if not task.config.shielded]
        assert {task.state for task in unshielded} <= {TaskState.SUCCEEDED, TaskState.CANCELLED}
        shielded = [task for task in scheduled if task.config.shielded]
        assert {task.state for task in shielded} <= {TaskState.SUCCEEDED}


@pytest.mark.real_time
async def test_events_of_a_task_from_threads():
    """G11: `started` and `finished` may first be asked for anywhere, at any time."""
    app = make_app()
    runner = app.state.runner

    async def check(task):
        await task.started.wait()
        await task.finished.wait()

    def foreign():
        task = runner.schedule(anyio.sleep, 0)
        from_thread.run(check, task)
        assert task.started.is_set()
        assert task.finished.is_set()

    async with serving(app):
        await to_thread.run_sync(foreign)


async def test_runner_schedules_without_a_request():
    """The runner is a scheduler too: from the lifespan and from tasks."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async def parent():
        journal.append("parent")
        runner.task(name="child").schedule(journal.task("child"))

    async with serving(app) as server:
        assert runner.running
        runner.schedule(parent)
        await runner.join()
        await runner.join()
        assert journal == ["parent", "child"]
        await server.shutdown()
        assert not runner.running


async def test_several_join():
    """Each returns when no task is left."""
    app, ends = make_app(), []

    async def join():
        await app.state.runner.join()
        ends.append(anyio.current_time() - begin)

    async with serving(app):
        begin = anyio.current_time()
        app.state.runner.schedule(anyio.sleep, 3)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(join)
    assert ends == [3] * 3


async def test_join_waits_for_tasks_at_their_timing_points():
    """A task that waits for its timing point is unfinished."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.ends("task", sleep=1))
        await anyio.sleep(5)

    async with serving(app) as server, anyio.create_task_group() as group:
        group.start_soon(server.get)
        await settle()
        begin = anyio.current_time()
        await runner.join()
        assert anyio.current_time() - begin == pytest.approx(6)
    assert journal == ["task starts", "task ends"]


async def test_a_scheduler_is_kept_and_nested():
    """`task()` gives a scheduler: used many times, refined by another `task()`."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        audit = tasks.after_response.task(name="audit")
        shielded = audit.task(shield=True)
        scheduled = [audit.schedule(journal.task("1")), shielded.schedule(journal.task("2"))]
        scheduled.append(shielded.task(name="other", shield=False).schedule(journal.task("3")))
        return [(t.name, t.config.shielded, t.timing) for t in scheduled]

    async with serving(app) as server:
        assert (await server.get()).json() == [
            ["audit", False, "after_response"],
            ["audit", True, "after_response"],
            ["other", False, "after_response"],
        ]
    assert journal == ["1", "2", "3"]


async def test_the_event_loop_knows_the_name():
    """The event loop's task carries the task's name."""
    app = make_app()
    found = []

    async def work():
        found.append(anyio.get_current_task().name)

    async with serving(app):
        app.state.runner.schedule(work)
        app.state.runner.task(name="mine").schedule(work)
        await app.state.runner.join()
    assert sorted(found) == ["mine", "test_the_event_loop_knows_the_name.<locals>.work"]


async def test_context_is_a_copy():
    """G8: what a task sets stays in the task."""
    app = make_app()
    variable = contextvars.ContextVar("variable", default=0)

    async def change():
        variable.set(1)

    async with serving(app):
        app.state.runner.schedule(change)
        await app.state.runner.join()
        assert variable.get() == 0


@pytest.mark.real_time
@pytest.mark.parametrize("other", ["trio", "asyncio"])
async def test_from_the_thread_of_another_event_loop(other):
    """G8, G11: the task runs in the app's, with all that AnyIO has there, and harms nobody."""
    app, journal = make_app(), Journal()
    runner = app.state.runner
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")

    async def work(name):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        await to_thread.run_sync(journal.append, f"{name} {var.get()}")

    @app.get("/")
    async def endpoint(tasks: Tasks):
        await to_thread.run_sync(visit, tasks)

    def visit(tasks):
        async def main():
            var.set(other)
            for shield in (False, True):
                runner.task(shield=shield).schedule(work, f"shield={shield}")
            tasks.after_route.schedule(work, "after route")

        thread = threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": other})
        thread.start()
        thread.join()

    async with serving(app) as server:
        bystander = runner.schedule(anyio.sleep, 0.05)
        assert (await server.get()).status_code == 200
        await runner.join()
    assert sorted(journal) == [
        f"after route {other}",
        f"shield=False {other}",
        f"shield=True {other}",
    ]
    assert bystander.state is TaskState.SUCCEEDED


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_from_a_signals_handler(backend_name):
    """G11: the task starts at once, also if the event loop sleeps."""
    app, seen = make_app(), []

    def handle(*_):
        seen.append(time.monotonic())
        app.state.runner.schedule(start)

    async def start():
        seen.append(time.monotonic())

    async def main():
        async with serving(app):
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            await anyio.sleep(1.5)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        anyio.run(main, backend=backend_name)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 2
    assert seen[1] - seen[0] < 0.7
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
async def test_who_has_the_wake_up_of_signals_keeps_it():
    """Theirs is put back at once, and left alone at the end."""
    app = make_app()
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno())
    try:
        async with serving(app):
            assert signal.set_wakeup_fd(theirs.fileno()) == theirs.fileno()
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
        async with serving(app):
            signal.set_wakeup_fd(theirs.fileno())
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()


def call_outside_of_tasks(call, backend):
    """As the handler of a signal does that comes while the event loop itself is at work."""

    class Once(trio.abc.Instrument):
        def before_io_wait(self, timeout):
            if timeout > 0:  # nothing is left to do: only what wakes the loop will be noticed
                trio.lowlevel.remove_instrument(self)
                call()

    if backend == "trio":
        trio.lowlevel.add_instrument(Once())
    else:
        asyncio.get_running_loop().call_soon(call)


@pytest.mark.real_time
async def test_from_a_signals_handler_outside_of_all_tasks(backend_name):
    """G11: Trio would lose what is spawned there, or leave it until something else wakes it up."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async with serving(app):
        for shield in (False, True):
            scheduler = runner.task(shield=shield)
            endless = scheduler.schedule(anyio.sleep_forever)
            await endless.started.wait()
            started = anyio.Event()

            async def start(started=started):
                started.set()

            def handle(scheduler=scheduler, start=start):
                scheduler.schedule(start)
                journal.append("scheduled")

            call_outside_of_tasks(handle, backend_name)
            with anyio.fail_after(5):
                await started.wait()
            call_outside_of_tasks(endless.cancel, backend_name)
            with anyio.fail_after(5):
                await endless.finished.wait()
            assert endless.state is TaskState.CANCELLED
    assert journal == ["scheduled"] * 2
    assert runner.statistics().succeeded == 2


def wake_up_of_signals() -> int:
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)  # as Trio has it
    return fd


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
async def test_more_signals_than_wake_ups_fit(capfd):
    """Python says nothing of it, as it does not without the library; afterwards neither."""
    before = wake_up_of_signals()
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        async with serving(make_app()):
            for _ in range(1_000):
                signal.raise_signal(signal.SIGUSR1)
        for _ in range(1_000):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert wake_up_of_signals() == before
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("what", ["schedule", "cancel"])
def test_from_a_signals_handler_when_another_app_has_ended(what, backend_name):
    """G11: the wake-up serves all apps of the process, whichever of them began first."""
    first, second = make_app(), make_app()

    async def main():
        done = anyio.Event()

        async def finish():
            done.set()

        def handle(*_):
            if what == "cancel":
                endless.cancel()
            else:
                second.state.runner.schedule(finish)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            async with serving(first) as server, serving(second):
                endless = second.state.runner.schedule(anyio.sleep_forever)
                await server.shutdown()
                timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                begin = time.monotonic()
                with anyio.move_on_after(5):
                    await (endless.finished if what == "cancel" else done).wait()
                assert time.monotonic() - begin < 4
        finally:
            signal.signal(signal.SIGUSR1, before)

    anyio.run(main, backend=backend_name)
    assert signal.set_wakeup_fd(-1) == -1
