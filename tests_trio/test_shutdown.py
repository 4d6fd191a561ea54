"""The drain: G15 to G18."""

import gc
import logging
import math
import os
import signal
import threading
import time
import weakref
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse

from fastapi_tasks import (
    FastAPITasksError,
    FastAPITasksUninitializedAppError,
    Instrument,
    Task,
    Tasks,
    TasksClosedError,
    TaskState,
    add_tasks,
)
from fastapi_tasks._core.drain import Drain
from fastapi_tasks._core.lifetime import Phase, _close_in_child
from fastapi_tasks._fastapi.sigterm import Sigterm
from tests_trio.support import (
    Journal,
    Server,
    double,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
    unsubmitted,
)


async def settle_rounds():
    for _ in range(10):
        await checkpoint()


def lifespan(journal, name="app", *, startup=None, shutdown=None):
    @asynccontextmanager
    async def lifespan(app):
        if startup is not None:
            await startup()
        try:
            yield
        finally:
            await checkpoint()
            journal.append(f"{name} shuts down")
        if shutdown is not None:
            raise shutdown

    return lifespan


@pytest.mark.parametrize("first", ["add_tasks", "router"])
async def test_drain_comes_before_all_shutdown_code(first):
    """G15: the app's lifespan and its routers', whichever is declared first."""
    journal = Journal()
    app = FastAPI(lifespan=lifespan(journal))
    router = APIRouter(lifespan=lifespan(journal, "router"))
    if first == "router":
        app.include_router(router)
    runner = add_tasks(app)
    if first == "add_tasks":
        app.include_router(router)
    async with serving(app) as server:
        runner.task(shield=True).schedule(journal.ends("shielded", sleep=30))
        runner.schedule(journal.ends("unshielded", sleep=30))
        await settle()
        journal.sort()
        await server.shutdown()
    assert journal[:2] == ["shielded starts", "unshielded starts"]
    assert journal[2:4] == ["unshielded cancelled", "shielded ends"]
    assert sorted(journal[4:]) == ["app shuts down", "router shuts down"]


async def test_shutdown_complete_is_the_very_last():
    """G15: nothing of ours runs or awaits once the server knows: Hypercorn cancels us then."""
    app = make_app()

    class Strict(Server):
        async def send(self, message):
            await super().send(message)
            if message["type"] == "lifespan.shutdown.complete":
                assert not app.state.runner.running
                self.call.cancel()  # what is awaited from here on is cancelled

        async def run(self):
            await super().run()
            self.cancelled = self.call.cancelled_caught

    server = Strict(app)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await server.answered.wait()
        app.state.runner.task(shield=True).schedule(anyio.sleep, 1)
        await server.shutdown()
    assert server.sent == ["startup.complete", "shutdown.complete"]
    assert server.cancelled is False


@pytest.mark.parametrize("where", ["startup", "shutdown"])
async def test_the_lifespans_own_exception(where):
    """G15: it reaches the server as itself, after the `failed` message, not in a group."""
    journal, error = Journal(), ValueError("mine")

    async def fail():
        raise error

    failing = {"startup": fail} if where == "startup" else {"shutdown": error}
    app = FastAPI(lifespan=lifespan(journal, **failing))
    add_tasks(app)
    with pytest.raises(ValueError, match="mine") as caught:
        async with serving(app) as server:
            pass
    assert caught.value is error
    assert server.sent[-1] == f"{where}.failed"


async def test_failing_startup_with_a_shielded_task(caplog):
    """G16: steps 1 and 3 to 5, before the server hears of it."""
    journal = Journal()

    async def startup():
        runner.task(shield=True).schedule(journal.ends("shielded", sleep=5))
        runner.task(name="u").schedule(journal.ends("unshielded", sleep=5))
        await settle()
        raise ValueError("no database")

    app = FastAPI(lifespan=lifespan(journal, startup=startup))
    runner = add_tasks(app, grace_period=100)
    server = Server(app)
    begin = anyio.current_time()
    await server.run()
    assert anyio.current_time() - begin == 5
    assert str(server.error) == "no database"
    assert server.sent == ["startup.failed"]
    assert sorted(journal[:2]) == ["shielded starts", "unshielded starts"]
    assert journal[2:] == ["unshielded cancelled", "shielded ends"]
    assert runner.stopping.is_set()


async def test_the_steps_of_the_drain(caplog):
    """G16: 1 `stopping`; 2 grace; 3 cancel, release; 4 shield; 5 closed. On the virtual clock."""
    app, journal = make_app(grace_period=10, shield_timeout=20), Journal()
    runner = app.state.runner
    begin = anyio.current_time()

    def note(what):
        journal.append(f"{anyio.current_time() - begin:g}: {what}")

    async def lives(what, seconds):
        try:
            await anyio.sleep(seconds)
            note(f"{what} ends")
        except BaseException:
            note(f"{what} cancelled")
            raise

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.task(shield=True, name="late").schedule(lives, "late", 1)
        dropped = tasks.after_response.task(name="dropped").schedule(lives, "dropped", 1)
        await runner.stopping.wait()
        note("stopping")
        await anyio.sleep(16)
        note(f"dropped is {dropped.state.value}")
        tasks.task(shield=True, name="shielded child").schedule(lives, "shielded child", 1)
        refused = tasks.task(name="refused").schedule(lives, "refused", 1)
        note(f"refused is {refused.state.value}")
        assert refused.started.is_set()
        assert refused.finished.is_set()
        await anyio.sleep(20)
        with pytest.raises(TasksClosedError, match="shut down"):
            tasks.task(shield=True).schedule(lives, "", 1)
        note("closed")

    async with serving(app) as server, anyio.create_task_group() as group:
        runner.task(name="short").schedule(lives, "short", 9)
        runner.task(name="long").schedule(lives, "long", 11)
        runner.task(name="shielded", shield=True).schedule(lives, "shielded", 29)
        runner.task(name="endless", shield=True).schedule(lives, "endless", 1000)
        group.start_soon(server.call_raw)
        await settle()
        begin = anyio.current_time()
        await server.shutdown()
    assert journal == [
        "0: stopping",
        "9: short ends",
        "10: long cancelled",
        "11: late ends",
        "16: dropped is cancelled",
        "16: refused is cancelled",
        "17: shielded child ends",
        "29: shielded ends",
        "30: endless cancelled",
        "36: closed",
    ]
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert said == [
        (
            "WARNING",
            "shutdown waits for 'short', 'long', 'shielded', 'endless', 'late', 'dropped'",
        ),
        ("WARNING", "shutdown cancels 2 task(s): 'long', 'dropped'"),
        ("WARNING", "shutdown waits for 'shielded', 'endless'"),
        (
            "WARNING",
            "task 'refused' does not run: the app is shutting down and the task is not shielded",
        ),
        ("WARNING", "shutdown waits for 'shielded', 'endless'"),
        ("WARNING", "shutdown waits for 'shielded', 'endless'"),
        ("CRITICAL", "shutdown cancels shielded tasks, 20 s after the others: 'endless'"),
    ]


async def test_the_grace_period_ends_early():
    """G16: when no task is left."""
    app = make_app(grace_period=100)
    async with serving(app) as server:
        app.state.runner.schedule(anyio.sleep, 3)
        begin = anyio.current_time()
        await server.shutdown()
        assert anyio.current_time() - begin == 3


async def test_everything_works_in_the_grace_period():
    """G16: unshielded tasks are accepted and start at their timing points."""
    app, journal = make_app(grace_period=100), Journal()
    runner = app.state.runner

    async def parent():
        await runner.stopping.wait()
        runner.schedule(journal.task("child", sleep=1))

    async with serving(app):
        runner.schedule(parent)
        await settle()
    assert journal == ["child"]


async def test_cancelled_while_waiting_for_its_turn():
    """G4, G16: on Trio a task may have to wait for those before it; then the drain cancels it."""
    app, journal = make_app(grace_period=0), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        blocker = unsubmitted(checkpoint)
        tasks._route._queue.append(blocker)
        task = tasks.schedule(journal.task("task"))
        await settle_rounds()
        assert (task.state, task.finished.is_set()) == (TaskState.PENDING, False)
        await Drain(tasks.runner._supervisor, grace_period=0, shield_timeout=math.inf)._cut_off()
        assert task.finished.is_set()
        await settle_rounds()
        blocker.enter(TaskState.CANCELLED)

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        assert journal == []


@pytest.mark.real_time
async def test_not_yet_started_tasks_do_not_run_a_line():
    """G16: handed over by a thread, in the instant in which the drain begins."""
    app, journal = make_app(grace_period=0), Journal()
    runner = app.state.runner
    tasks = []

    def schedule():
        tasks.extend(runner.schedule(journal.task("task")) for _ in range(2))

    class Late(Server):
        async def receive(self):
            message = await super().receive()
            if message["type"] == "lifespan.shutdown":
                thread = threading.Thread(target=schedule)
                thread.start()
                thread.join()  # while the event loop stands still
            return message

    async with anyio.create_task_group() as group:
        server = Late(app)
        group.start_soon(server.run)
        await server.answered.wait()
        runner.task(shield=True).schedule(anyio.sleep, 0.01)  # the drain goes on for a while
        await server.shutdown()
    assert [task.state for task in tasks] == [TaskState.CANCELLED] * 2
    assert journal == []


async def test_unstarted_shielded_tasks_run():
    """G17: also one whose request waits, streams or is cut off while the drain runs."""
    app, journal = make_app(grace_period=0), Journal()

    @app.get("/wait")
    async def wait(tasks: Tasks):
        tasks.after_response.task(shield=True).schedule(journal.task("wait: response"))
        tasks.after_route.task(shield=True).schedule(journal.task("wait: route"))
        await anyio.sleep(100)

    @app.get("/stream")
    async def stream(tasks: Tasks):
        tasks.after_response.task(shield=True).schedule(journal.task("stream: response"))

        async def body():
            yield b""
            await anyio.sleep(100)

        return StreamingResponse(body())

    async with serving(app) as server, anyio.create_task_group() as group:
        group.start_soon(server.call_raw, "/wait")
        await settle()
        group.start_soon(server.call_raw, "/stream")
        await settle()
        assert journal == []
        await server.shutdown()
        assert [entry for entry in journal if "wait" in entry] == ["wait: route", "wait: response"]
        assert "stream: response" in journal
        group.cancel_scope.cancel()
    assert len(journal) == 3


async def test_requests_that_begin_in_the_drain():
    """G16: their timing points count as come."""
    app, journal = make_app(grace_period=0), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        task = tasks.after_response.task(shield=True).schedule(journal.task("task"))
        await task.started.wait()
        journal.append("endpoint")

    async with serving(app) as server, anyio.create_task_group() as group:
        app.state.runner.task(shield=True).schedule(anyio.sleep, 5)
        group.start_soon(server.shutdown)
        await settle()
        await server.get()
    assert journal == ["task", "endpoint"]


async def test_a_shielded_task_from_the_last_moment(monkeypatch):
    """G11, G17: what a thread hands over just before the runner closes runs to its end."""
    app, journal = make_app(grace_period=0), Journal()
    runner = app.state.runner
    enter = runner._supervisor.enter

    def hand_over_and_enter(phase):
        if phase is Phase.CLOSED and runner.running:
            runner.task(shield=True).schedule(journal.ends("late", sleep=5))
        enter(phase)

    monkeypatch.setattr(runner._supervisor, "enter", hand_over_and_enter)
    async with serving(app):
        pass
    assert journal == ["late starts", "late ends"]


async def test_names_in_log_lines(caplog):
    """G16: ten fit in a line; the one about shielded tasks that are cancelled names each."""
    app = make_app(grace_period=0, shield_timeout=1)
    async with serving(app):
        for number in range(24):
            scheduler = app.state.runner.task(shield=number >= 10, name=f"t{number}")
            scheduler.schedule(anyio.sleep_forever)
        await settle()
    names = [f"'t{number}'" for number in range(24)]
    assert [r.getMessage() for r in caplog.records] == [
        f"shutdown cancels 10 task(s): {', '.join(names[:10])}",
        f"shutdown cancels shielded tasks, 1 s after the others: {', '.join(names[10:])}",
    ]


async def test_long_lists_of_names_are_cut(caplog):
    """A shutdown with thousands of tasks says so in a line that one can read."""
    app = make_app(grace_period=0)
    async with serving(app):
        for _ in range(1000):
            app.state.runner.task(name="n").schedule(anyio.sleep_forever)
        await settle()
    assert [r.getMessage() for r in caplog.records] == [
        "shutdown cancels 1000 task(s): " + "'n', " * 9 + "'n' and 990 more"
    ]


@pytest.mark.real_time
async def test_threads_are_waited_for(caplog, monkeypatch):
    """G17: a running one past every timeout, by name; one that waits for a thread is cancelled."""
    monkeypatch.setattr("fastapi_tasks._core.drain.REPORT_INTERVAL", 0.05)
    app, journal = make_app(grace_period=0, max_threads=1, shield_timeout=0.02), Journal()
    running, release = threading.Event(), threading.Event()

    def block():
        running.set()
        release.wait(5)
        journal.append("thread ends")

    async with serving(app) as server:
        runner = app.state.runner
        first = runner.task(name="running").schedule(block)
        await to_thread.run_sync(running.wait, 10)
        second = runner.task(name="waiting", shield=True).schedule(block)
        await second.started.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(server.shutdown)
            await anyio.sleep(0.2)
            assert not server.ended.is_set()
            release.set()
    assert journal == ["thread ends"]
    assert (first.state, second.state) == (TaskState.SUCCEEDED, TaskState.CANCELLED)
    assert [r.getMessage() for r in caplog.records][:2] == [
        "shutdown cancels 1 task(s): 'running'",
        "shutdown cancels shielded tasks, 0.02 s after the others: 'waiting'",
    ]
    assert {r.getMessage() for r in caplog.records[2:]} == {"shutdown waits for 'running'"}


@pytest.mark.parametrize("how", ["server", "task of the lifespan"])
async def test_other_ends_of_the_lifespan(how):
    """G16: the server cancels it, or a task in it dies: no grace, but before the shutdown code."""
    journal, die = Journal(), anyio.Event()

    @asynccontextmanager
    async def lifespan(app):
        async def child():
            await die.wait()
            raise ValueError("child died")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            try:
                yield
            finally:
                journal.append("app shuts down")

    app = FastAPI(lifespan=lifespan)
    runner = add_tasks(app, grace_period=100)
    server = Server(app)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await server.answered.wait()
        runner.task(shield=True).schedule(journal.ends("shielded", sleep=5))
        runner.schedule(journal.ends("unshielded", sleep=5))
        await settle()
        journal.clear()
        begin = anyio.current_time()
        if how == "server":
            server.call.cancel()
        else:
            die.set()
        await server.ended.wait()
    assert journal == ["unshielded cancelled", "shielded ends", "app shuts down"]
    assert anyio.current_time() - begin == 5
    if how != "server":
        assert isinstance(server.error, ExceptionGroup)
        assert [str(e) for e in server.error.exceptions] == ["child died"]


async def test_the_runner_is_closed_as_soon_as_it_is_ended(caplog):
    """G11: not only when what does not let itself be cancelled has ended."""
    app = make_app()
    runner = app.state.runner

    async def stubborn():
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)

    async with serving(app):
        running = runner.schedule(stubborn)
        waiting = request_tasks(runner).after_response.task(name="waiting").schedule(checkpoint)
        await settle()
        runner._supervisor.lifetime.end()  # as a KeyboardInterrupt does
        await settle()
        assert (running.state, runner.running) == (TaskState.RUNNING, False)
        assert waiting.state is TaskState.CANCELLED
        with pytest.raises(TasksClosedError):
            runner.schedule(checkpoint)
    assert [record.getMessage() for record in caplog.records] == [
        "the runner was ended: 1 task(s) do not run: 'waiting'",
    ]


async def test_a_server_that_fails_in_receive():
    """G16: an exception of the server's passes through the drain as itself."""
    app, journal = make_app(grace_period=0), Journal()

    class Failing(Server):
        async def receive(self):
            if self._received:
                app.state.runner.task(shield=True).schedule(journal.ends("shielded"))
                raise OSError("server broke")
            return await super().receive()

    server = Failing(app)
    await server.run()
    assert str(server.error) == "server broke"
    assert journal == ["shielded starts", "shielded ends"]


async def test_lifespan_runs_again():
    """G18: with a new `stopping`, and no trace of the first run."""
    app, journal = make_app(grace_period=0), Journal()
    runner = app.state.runner
    events = set()
    for _ in range(3):
        async with serving(app):
            assert not runner.stopping.is_set()
            events.add(runner.stopping)
            runner.schedule(journal.task("task"))
            await runner.join()
        with pytest.raises(TasksClosedError):
            runner.schedule(checkpoint)
    assert journal == ["task"] * 3
    assert len(events) == 3


async def test_two_lifespans_at_once():
    """G18: the second one is refused, and the first goes on."""
    app, journal = make_app(grace_period=0), Journal()
    async with serving(app) as server:
        with pytest.raises(FastAPITasksError, match="running already"):
            await app({"type": "lifespan"}, server.receive, server.send)
        app.state.runner.schedule(journal.task("task"))
        await app.state.runner.join()
    assert journal == ["task"]


@pytest.mark.parametrize("state", [True, False])
async def test_lifespan_state(state):
    """G18: servers with and without lifespan state."""

    @asynccontextmanager
    async def lifespan(app):
        yield {"key": "value"} if state else None

    app = FastAPI(lifespan=lifespan)
    runner = add_tasks(app)
    async with serving(app, state=state) as server:
        task = runner.schedule(checkpoint)
        await task.finished.wait()
        assert server.scope.get("state") == ({"key": "value"} if state else None)


@pytest.mark.parametrize("inner_runs", [True, False])
async def test_mounted_app(inner_runs):
    """G18: a mounted app uses its own runner if that runs, else the enclosing app's."""
    outer, inner, journal = make_app(), make_app(), Journal()
    outer.mount("/inner", inner)

    @outer.middleware("http")
    async def pad(request, call_next):
        response = await call_next(request)
        await anyio.sleep(1)
        return response

    @inner.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        tasks.schedule(journal.task("now"))
        return tasks.runner is inner.state.runner

    async def send(message):
        journal.append(message["type"])
        await anyio.sleep(1)

    async with serving(outer) as server:
        if inner_runs:
            async with serving(inner):
                assert (await server.get("/inner/")).json() is True
                await server.call_raw("/inner/", send=send)
        else:
            assert (await server.get("/inner/")).json() is False
            await server.call_raw("/inner/", send=send)
    assert journal[:2] == ["now", "after response"]
    assert journal[2:] == [
        "now",
        "http.response.start",
        "http.response.body",
        "http.response.body",
        "after response",
    ]


async def test_lifespan_not_run():
    """Bad input: the server runs no lifespan, so `schedule()` says so."""
    app = make_app()
    caught = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        with pytest.raises(FastAPITasksUninitializedAppError, match="lifespan") as error:
            tasks.schedule(checkpoint)
        caught.append(error)

    await Server(app).get()
    assert len(caught) == 1


async def test_nothing_is_left_behind(monkeypatch):
    """A finished task is not referenced by the runner or by the request."""
    monkeypatch.setattr(
        logging.getLogger("fastapi_tasks"), "disabled", True
    )  # pytest keeps records
    app = make_app()
    references = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for scheduler in (tasks, tasks.after_route, tasks.after_response):
            references.append(weakref.ref(scheduler.schedule(checkpoint)))
            references.append(weakref.ref(scheduler.schedule(raises, ValueError())))

    async with serving(app) as server:
        await server.get()
        await app.state.runner.join()
        await settle()
        gc.collect()
        assert [reference() for reference in references] == [None] * 6


async def test_startup_failed_is_passed_on_at_once():
    """G15: after a drain, to a server that waits for it, by an app that waits for one more."""
    app, journal = FastAPI(), Journal()

    class Pool:
        """A middleware that takes part in the lifespan by itself."""

        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await receive()
            runner.task(shield=True).schedule(journal.task("reported", sleep=1))
            runner.schedule(journal.ends("unshielded", sleep=5))
            await settle()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            journal.append("goes on")
            await receive()

    app.add_middleware(Pool)
    runner = add_tasks(app, grace_period=100)
    server = Server(app)
    begin = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await server.answered.wait()
        assert anyio.current_time() - begin == 1
        assert server.sent == ["startup.failed"]
        assert not runner.running
        await settle()
        group.cancel_scope.cancel()
    assert sorted(journal[:2]) == ["reported", "unshielded starts"]
    assert journal[2:] == ["unshielded cancelled", "goes on"]


async def test_an_app_that_asks_for_a_message_after_its_shutdown():
    """G15: it has ended its lifespan as well; the server hears of it when the runner has ended."""
    app, journal = FastAPI(), Journal()

    class Endless:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            while True:
                message = await receive()
                journal.append(message["type"].removeprefix("lifespan."))
                await send({"type": f"{message['type']}.complete"})

    app.add_middleware(Endless)
    runner = add_tasks(app)
    ended = []

    class Strict(Server):
        async def send(self, message):
            await super().send(message)
            ended.append((message["type"], runner.running, len(runner.tasks)))

        async def receive(self):
            if self._received == 2:
                await anyio.sleep_forever()
            return await super().receive()

    server = Strict(app)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await server.answered.wait()
        runner.task(shield=True).schedule(journal.task("shielded", sleep=3))
        server._shutdown.set()
        await anyio.sleep(10)
        group.cancel_scope.cancel()
    assert journal == ["startup", "shielded", "shutdown"]
    assert ended == [
        ("lifespan.startup.complete", True, 0),
        ("lifespan.shutdown.complete", False, 0),
    ]


@pytest.mark.parametrize("waits", ["held response", "endpoint"])
async def test_who_waited_for_a_task_that_the_cut_off_cancels(waits, caplog):
    """G16: whom that releases may schedule shielded tasks in the same instant; they run."""

    async def shut_down() -> list[str]:
        app, journal = make_app(grace_period=0), Journal()
        waiting = anyio.Event()

        async def thumbnail():
            waiting.set()
            await anyio.sleep_forever()

        async def lock(tasks: Tasks):
            yield
            tasks.task(shield=True).schedule(journal.task("released", sleep=1))

        @app.get("/", dependencies=[Depends(lock)])
        async def picture(tasks: Tasks):
            task = tasks.task(hold_response=waits == "held response").schedule(thumbnail)
            if waits == "endpoint":
                await task.finished.wait()

        async with serving(app) as server, anyio.create_task_group() as group:
            group.start_soon(server.get)
            await waiting.wait()
            await server.shutdown()
        return journal

    for _ in range(20):  # on Trio things of one instant come in either order
        assert await shut_down() == ["released"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def test_who_waited_for_an_unstarted_task_that_the_cut_off_cancels():
    """G16: the same, when nothing else is left to wait for."""

    async def shut_down() -> list[str]:
        app, journal = make_app(grace_period=0), Journal()
        runner = app.state.runner

        async def wait(task):
            await task.finished.wait()
            runner.task(shield=True).schedule(journal.task("released"))

        async with serving(app) as server, anyio.create_task_group() as group:
            waiting = request_tasks(runner).after_response.schedule(journal.task("unstarted"))
            group.start_soon(wait, waiting)
            await settle()
            await server.shutdown()
        return journal

    for _ in range(20):
        assert await shut_down() == ["released"]


async def test_who_waited_for_the_last_task_of_the_grace_period():
    """G16: it ends when nothing comes of that either."""

    async def shut_down() -> list[str]:
        app, journal = make_app(grace_period=100), Journal()

        @app.get("/")
        async def endpoint(tasks: Tasks):
            await tasks.runner.schedule(anyio.sleep, 3)
            tasks.schedule(journal.ends("unshielded"))

        async with serving(app) as server, anyio.create_task_group() as group:
            group.start_soon(server.get)
            await settle()
            await server.shutdown()
        return journal

    for _ in range(20):
        assert await shut_down() == ["unshielded starts", "unshielded ends"]


@pytest.mark.real_time
async def test_a_schedule_call_under_way_in_a_thread(caplog, monkeypatch):
    """G17: it is waited for like a running thread, and named."""
    monkeypatch.setattr("fastapi_tasks._core.drain.REPORT_INTERVAL", 0.02)
    scheduling, go_on = threading.Event(), threading.Event()

    class Slow(Instrument):
        def task_scheduled(self, task):
            scheduling.set()
            go_on.wait(10)

    app = make_app(grace_period=0, instruments=[Slow()])
    runner = app.state.runner
    tasks: list[Task] = []

    def schedule():
        tasks.append(runner.task(name="slow").schedule(anyio.sleep_forever))

    class Patient(logging.Filter):
        def filter(self, record):
            if "waits for" in record.getMessage():
                go_on.set()
            return True

    listener = Patient()
    logging.getLogger("fastapi_tasks").addFilter(listener)
    try:
        async with serving(app):
            thread = threading.Thread(target=schedule)
            thread.start()
            await to_thread.run_sync(scheduling.wait, 10)
    finally:
        logging.getLogger("fastapi_tasks").removeFilter(listener)
    thread.join()
    assert (tasks[0].state, tasks[0].finished.is_set()) == (TaskState.CANCELLED, True)
    assert [record.getMessage() for record in caplog.records][:2] == [
        "shutdown cancels 1 task(s): 'slow'",
        "shutdown waits for 'slow'",
    ]
    assert runner.tasks == ()


@pytest.mark.parametrize("step", ["_cut_off", "_wait_for_tasks", "_cancel_shielded"])
async def test_a_drain_that_fails_half_way(step, caplog, monkeypatch):
    """G12, G16: it begins anew, and ends."""
    app, journal = make_app(grace_period=1, shield_timeout=30), Journal()
    original, calls = getattr(Drain, step), []

    def fail_once(*args):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        return original(*args)

    monkeypatch.setattr(Drain, step, fail_once)
    async with serving(app):
        app.state.runner.task(shield=True).schedule(journal.ends("shielded", sleep=5))
        app.state.runner.schedule(journal.ends("unshielded", sleep=5))
        await settle()
    assert sorted(journal[:2]) == ["shielded starts", "unshielded starts"]
    assert journal[2:] == ["unshielded cancelled", "shielded ends"]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["the shutdown failed half-way, and begins anew"]


@pytest.fixture
def sigterm():
    """What SIGTERM does to this process, which is nothing."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
async def test_sigterm_while_the_app_shuts_down(caplog):
    """G17: where nobody handles it, the shutdown goes on, and says so once; then it is as before."""
    journal = Journal()

    async def be_terminated():
        await anyio.sleep(1)
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(1)
        journal.append("shielded")

    app = FastAPI(lifespan=lifespan(journal))
    runner = add_tasks(app)
    async with serving(app):
        runner.task(shield=True).schedule(be_terminated)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert journal == ["shielded", "app shuts down"]
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "SIGTERM came while the app shuts down, which goes on within its limits")
    ]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def be_terminated():
    """By a signal that would end the tests, if it were nobody's."""
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("sigterm")
async def test_sigterm_while_another_app_has_shut_down():
    """G17: the shutdown that ends first leaves the other one's protection in place."""
    first, second = make_app(), make_app()

    async def shielded():
        await anyio.sleep(2)
        assert not first.state.runner.running
        be_terminated()

    async with serving(first) as server, serving(second) as other:
        task = second.state.runner.task(shield=True).schedule(shielded)
        async with anyio.create_task_group() as group:
            group.start_soon(server.shutdown)
            group.start_soon(other.shutdown)
    assert (task.state, task.exception) == (TaskState.SUCCEEDED, None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("sigterm")
async def test_sigterm_when_the_startup_has_failed(caplog):
    """G17: that drain is a shutdown as well."""
    journal = Journal()

    async def shielded():
        await runner.stopping.wait()
        be_terminated()
        journal.append("shielded")

    async def startup():
        runner.task(shield=True).schedule(shielded)
        raise ValueError("no database")

    runner = add_tasks(app := FastAPI(lifespan=lifespan(journal, startup=startup)))
    server = Server(app)
    await server.run()
    assert str(server.error) == "no database"
    assert journal == ["shielded"]
    assert [record.getMessage() for record in caplog.records] == [
        "SIGTERM came while the app shuts down, which goes on within its limits"
    ]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def fork(in_child):
    """Call a function in a child process, with how to say something; return where to read that."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            in_child(lambda text: os.write(writer, text.encode()))
        finally:
            os._exit(0)
    os.close(writer)
    return pid, os.fdopen(reader)


def exit_code_of(pid) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
# Python's own advice, from 3.12 on: threads of other tests may be there.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@needs_fork
@forks
@pytest.mark.usefixtures("sigterm")
async def test_sigterm_for_a_child_of_the_shutdown(caplog):
    """G17: a worker that is forked then can be terminated as at any other time."""
    app, exit_codes = make_app(), []

    def live(say):
        say("alive")
        time.sleep(5)

    async def shielded():
        await app.state.runner.stopping.wait()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        pid, said = fork(live)
        with said:
            assert said.read(5) == "alive"
            os.kill(pid, signal.SIGTERM)
            exit_codes.append(exit_code_of(pid))

    async with serving(app):
        app.state.runner.task(shield=True).schedule(shielded)
    assert exit_codes == [-signal.SIGTERM]
    assert [record for record in caplog.records if "SIGTERM" in record.getMessage()] == []


@needs_fork
@forks
@pytest.mark.real_time
@pytest.mark.parametrize("where", ["event loop", "thread"])
async def test_schedule_in_a_forked_child(where):
    """G7: nobody would run it there, so it raises; the app goes on."""
    app = make_app()
    runner = app.state.runner

    def fork_and_read() -> str:
        def schedule(say):
            try:
                runner.schedule(checkpoint)
            except BaseException as error:
                say(f"{type(error).__name__}: {error}")

        pid, said = fork(schedule)
        with said:
            try:
                return said.read()
            finally:
                assert exit_code_of(pid) == 0

    async with serving(app):
        said = await to_thread.run_sync(fork_and_read) if where == "thread" else fork_and_read()
        await runner.schedule(checkpoint)
    assert said == (
        "TasksClosedError: this process was forked from the one that runs the app, and runs no "
        "tasks: schedule there, or call the function instead"
    )
    assert runner.statistics().scheduled == 1


@pytest.mark.usefixtures("sigterm")
async def test_sigterm_that_somebody_handles():
    """It is theirs, before the shutdown and from then on."""
    got: list[str] = []

    def early(*_):
        got.append("early")

    def late(*_):
        got.append("late")

    async def take_it(handler):
        await anyio.sleep(1)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)

    for first, second in ((early, None), (signal.SIG_DFL, late)):
        signal.signal(signal.SIGTERM, first)
        app = make_app()
        async with serving(app):
            app.state.runner.task(shield=True).schedule(take_it, second)
        assert signal.getsignal(signal.SIGTERM) is (second or first)
    assert got == ["early", "late"]


@pytest.mark.real_time
@pytest.mark.parametrize("shield", [True, False])
async def test_a_schedule_call_under_way_at_the_shield_timeout(shield, monkeypatch):
    """G16, G17: the shutdown waits for it, and ends."""
    scheduling, go_on = threading.Event(), threading.Event()

    class Slow(Instrument):
        def task_scheduled(self, task):
            if task.name == "slow":
                scheduling.set()
                go_on.wait(10)

    class Book(Instrument):
        def __init__(self):
            self.lines = []

        def task_scheduled(self, task):
            self.lines.append(f"{task.name} scheduled")

        def task_finished(self, task):
            self.lines.append(f"{task.name} finished")

    book = Book()
    app = make_app(grace_period=0, shield_timeout=0.05, instruments=[Slow(), book])
    runner = app.state.runner
    tasks: list[Task] = []

    def schedule():
        tasks.append(runner.task(name="slow", shield=shield).schedule(anyio.sleep_forever))

    thread = threading.Thread(target=schedule)
    original = Drain._cut_off

    async def cut_off(self):
        await original(self)
        thread.start()
        assert await to_thread.run_sync(scheduling.wait, 10)

    monkeypatch.setattr(Drain, "_cut_off", cut_off)
    async with serving(app) as server, anyio.create_task_group() as group:
        stubborn = runner.task(name="stubborn", shield=True).schedule(anyio.sleep_forever)
        group.start_soon(server.shutdown)
        await stubborn.finished.wait()
        assert runner._supervisor.lifetime.phase is Phase.CLOSED
        await anyio.sleep(0.01)  # time in which the lifetime would end
        go_on.set()
    thread.join()
    assert (tasks[0].state, tasks[0].finished.is_set()) == (TaskState.CANCELLED, True)
    assert [line for line in book.lines if "slow" in line] == ["slow scheduled", "slow finished"]
    assert runner._supervisor.registry.list_unfinished() == ()


@pytest.mark.parametrize("end", ["cancel", "cut-off"])
async def test_an_error_handler_that_is_cancelled(end):
    """G14, G15, G16: the task has finished when its handler has, and only then."""
    app, journal = make_app(grace_period=0), Journal()
    runner = app.state.runner

    async def handle(task, error):
        journal.append("handler starts")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            journal.append(f"handler ends, {task.finished.is_set()}, {len(runner.tasks)} task")

    async with serving(app):
        task = runner.task(on_error=handle).schedule(raises, ValueError())
        await settle()
        assert (task.state, journal) == (TaskState.FAILED, ["handler starts"])
        if end == "cancel":
            task.cancel()
            await runner.join()
            journal.append("joined")
    journal.append("shut down")
    assert journal[:2] == ["handler starts", "handler ends, False, 1 task"]
    assert journal[2:] == ["joined"] * (end == "cancel") + ["shut down"]


async def test_a_startup_that_the_server_does_not_hear_of():
    """G15: the drain comes before the app's shutdown code, in this case, too."""
    journal = Journal()

    async def startup():
        runner.task(shield=True).schedule(journal.ends("shielded", sleep=2))
        await settle()

    class Deaf(Server):
        async def send(self, message):
            raise OSError("the pipe is broken")

    app = FastAPI(lifespan=lifespan(journal, startup=startup))
    runner = add_tasks(app)
    server = Deaf(app)
    await server.run()
    assert journal == ["shielded starts", "shielded ends", "app shuts down"]
    assert isinstance(server.error, OSError)


async def test_what_a_fork_finds():
    """G7, G17: no lifetime is open there, and SIGTERM does what it did."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        lifetime = runner._supervisor.lifetime
        _close_in_child()
        with pytest.raises(TasksClosedError, match="this process was forked from the one"):
            runner.schedule(checkpoint)
        assert not runner.running
        lifetime.phase, lifetime.is_forked = Phase.OPEN, False
        assert await runner.schedule(double, 2) == 4


@pytest.mark.usefixtures("sigterm")
def test_sigterm_that_comes_in_a_fork(monkeypatch):
    """It is sent once more, to whom it would have come."""
    raised = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    guard = Sigterm()
    guard.take()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    guard._process = -1
    guard.come()
    assert (signal.getsignal(signal.SIGTERM), raised) == (signal.SIG_DFL, [signal.SIGTERM])
    guard.put_back()
