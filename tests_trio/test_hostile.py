"""What a hostile user found: each of these broke something once."""

import contextlib
import gc
import logging
import threading
import time
import traceback
import weakref

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

from fastapi_tasks import (
    FastAPITasksError,
    Instrument,
    Task,
    TaskConfig,
    Tasks,
    TasksClosedError,
    TaskState,
    add_tasks,
)
from fastapi_tasks._fastapi.exchange import Exchange
from tests_trio.support import (
    Journal,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
)


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_recursion_error_inside_schedule():
    """G7, G12: the call fails; no task is left that nobody starts, and the request is answered."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        def walk():
            tasks.schedule(checkpoint)
            walk()

        walk()

    async with serving(app) as server:
        assert (await server.get()).status_code == 500
        await app.state.runner.join()


async def test_a_task_that_schedules_itself_again():
    """G5: the response waits for what was handed over before it, not for what that hands over."""
    app = make_app(grace_period=0)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        async def again():
            tasks.schedule(again)
            await checkpoint()

        tasks.schedule(again)

    async with serving(app) as server:
        with anyio.fail_after(1):
            assert (await server.get()).status_code == 200


@pytest.fixture
def failing_log():
    class Failing(logging.Handler):
        def emit(self, record):
            raise OSError("disk full")

    logger, handler = logging.getLogger("fastapi_tasks"), Failing()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


async def test_a_logging_handler_that_raises(failing_log):
    """G12: neither in a task's failure nor in the drain."""
    app, journal = make_app(grace_period=0), Journal()
    async with serving(app):
        other = app.state.runner.task(shield=True).schedule(journal.ends("other"))
        failed = app.state.runner.schedule(raises, ValueError())
        await failed.finished.wait()
        app.state.runner.schedule(anyio.sleep_forever)
        await settle()
    assert (other.state, failed.state) == (TaskState.SUCCEEDED, TaskState.FAILED)


async def test_an_exception_group_that_cannot_be_split(caplog):
    """G12: it is a failure as a whole."""

    class Picky(ExceptionGroup):
        def __new__(cls, message, errors, extra):
            return super().__new__(cls, message, errors)

        def derive(self, errors):
            return Picky(self.message, errors)

    app = make_app()
    async with serving(app):
        task = app.state.runner.task(name="bad").schedule(
            raises, Picky("picky", [ValueError("a"), ExceptionGroup("b", [ValueError()])], 7)
        )
        await task.finished.wait()
        assert task.state is TaskState.FAILED
        assert isinstance(task.exception, Picky)
    assert [r.getMessage() for r in caplog.records] == ["task 'bad' failed"]


async def test_a_request_leaves_no_cycle():
    """Reference counting alone frees a request, with tasks or without."""
    app = make_app()

    @app.get("/plain")
    async def plain(): ...

    @app.get("/tasks")
    async def with_tasks(tasks: Tasks):
        tasks.after_response.task(name="x").schedule(checkpoint)

    class Connection:
        """As a server has it: it knows the scope, and its methods are `receive` and `send`."""

        async def call(self, path):
            self.scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "headers": [],
                "query_string": b"",
                "root_path": "",
                "raw_path": path.encode(),
            }
            await app(self.scope, self.receive, self.send)

        async def receive(self):
            await anyio.sleep_forever()

        async def send(self, message): ...

    async with serving(app):
        for path in ("/plain", "/tasks"):
            connection = Connection()
            await connection.call(path)
            await settle()
            gc.collect()
            exchange = weakref.ref(connection.scope["fastapi_tasks"].__class__)
            assert exchange() is Exchange
            reference = weakref.ref(connection)
            gc.disable()
            try:
                del connection
                assert reference() is None
            finally:
                gc.enable()


async def test_a_middleware_that_calls_the_app_again():
    """Each run of the route has its own end: its tasks are dropped or started there."""
    app, journal = make_app(), Journal()
    attempts = []

    class Again:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            for _ in range(3 if scope["type"] == "http" else 1):
                with contextlib.suppress(ValueError):
                    await self.app(scope, receive, send)

    app.add_middleware(Again)

    @app.exception_handler(LookupError)
    async def unused(request, error): ...

    @app.get("/")
    async def endpoint(tasks: Tasks):
        attempts.append(1)
        number = len(attempts)
        tasks.schedule(journal.task(f"now {number}"))
        tasks.after_route.schedule(journal.task(f"after route {number}"))
        tasks.after_response.schedule(journal.task(f"after response {number}"))
        await anyio.sleep(1)
        journal.append(f"endpoint {number}")
        if number < 3:
            raise ValueError

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
    assert journal == [
        *("now 1", "endpoint 1", "now 2", "endpoint 2", "now 3", "endpoint 3"),
        *("after route 3", "after response 3"),
    ]


async def test_a_middleware_that_calls_the_app_after_the_response():
    """G7: the timing points of the request have passed by then, whatever runs once more."""
    app, journal = make_app(), Journal()
    runs = []

    class Twice:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def ignore(message): ...

            await self.app(scope, receive, send)
            if scope["type"] == "http":
                await self.app(scope, receive, ignore)

    app.add_middleware(Twice)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        runs.append(tasks)
        number = len(runs)
        tasks.after_response.schedule(journal.task(f"after response {number}"))
        tasks.after_route.schedule(journal.task(f"after route {number}"))
        await anyio.sleep(1)
        journal.append(f"endpoint {number}")

    async with serving(app) as server:
        await server.get()
    first, second = ([each for each in journal if number in each] for number in "12")
    assert first == ["endpoint 1", "after route 1", "after response 1"]
    assert second == ["after response 2", "after route 2", "endpoint 2"]


async def test_an_endpoint_that_calls_another_one():
    """G7: a second route in the same request leaves what waits for the first one's end."""
    app, journal = make_app(), Journal()

    async def ignore(message): ...

    @app.get("/inner")
    async def inner(tasks: Tasks):
        tasks.after_route.schedule(journal.task("inner"))

    @app.get("/outer")
    async def outer(request: Request, tasks: Tasks):
        tasks.after_route.schedule(journal.task("outer"))
        await app({**request.scope, "path": "/inner"}, request.receive, ignore)

    async with serving(app) as server:
        assert (await server.get("/outer")).status_code == 200
    assert sorted(journal) == ["inner", "outer"]


@pytest.mark.real_time
async def test_the_last_task_of_a_thread_is_freed(monkeypatch):
    """Neither the hand-over between threads nor a dropped task keeps anything alive."""
    app = make_app()
    references = []

    class Argument: ...

    async def use(argument): ...

    @app.get("/")
    def endpoint(tasks: Tasks):
        argument = Argument()
        references.append(weakref.ref(argument))
        tasks.schedule(use, argument)

    async with serving(app) as server:
        await server.get()
        await app.state.runner.join()
        await anyio.sleep(0.01)
        gc.collect()
        assert references[0]() is None


async def test_a_dropped_task_keeps_no_context():
    """The copy of the context is freed with the task's hope to start."""
    app = make_app()
    dropped: list[Task] = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        dropped.append(tasks.after_route.schedule(checkpoint))
        raise ValueError

    async with serving(app) as server:
        await server.get()
    assert dropped[0].context is None


@pytest.mark.real_time
async def test_a_handler_that_calls_its_task_again_uses_the_runners_threads():
    """G9: not those of `def` endpoints."""
    app = make_app(max_threads=1)
    available = []
    runner = app.state.runner

    def work():
        available.append(runner._supervisor.threads.available_tokens)
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
        journal.append(f"handled, {runner._supervisor.threads.available_tokens} left")

    async with serving(app):
        task = runner.task(on_error=again, timeout=60).schedule(work)
        await task.finished.wait()
        assert journal == ["work", "work", "handled, 1 left"]
        assert runner._supervisor.threads.available_tokens == 2


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
        assert app.state.runner._supervisor.threads.available_tokens == 2


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
    assert (len(journal), most) == (9, 1)


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


async def test_a_task_that_cannot_be_started(caplog, monkeypatch):
    """G12: those after it start, and the request is answered; at the call itself it is an error."""
    app, journal = make_app(), Journal()
    tasks_of_app = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        host = app.state.runner._supervisor.lifetime
        spawn = host.spawn

        def spawn_unless_bad(run, task, **options):
            if task.name == "bad":
                raise RuntimeError
            return spawn(run, task, **options)

        monkeypatch.setattr(host, "spawn", spawn_unless_bad)
        with pytest.raises(RuntimeError):
            tasks.task(name="bad").schedule(journal.task("bad"))
        bad = tasks.after_route.task(name="bad").schedule(journal.task("bad"))
        tasks.after_route.schedule(journal.task("good"))
        tasks_of_app.append(bad)

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        await app.state.runner.join()
    assert journal == ["good"]
    assert tasks_of_app[0].state is TaskState.CANCELLED
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "task 'bad' cannot be started")
    ]


async def test_an_exception_whose_class_cannot_be_asked(caplog):
    """G12, G13: it is judged by its type."""

    class OddError(Exception):
        @property
        def __class__(self):
            raise ValueError

    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(raises, OddError())
        await task.finished.wait()
        assert task.state is TaskState.FAILED
        assert await app.state.runner.schedule(anyio.sleep, 0) is None


def test_an_error_handler_that_would_do_nothing():
    """A generator function is refused as a handler, as it is as a task."""

    def handler(task, error):
        yield

    with pytest.raises(TypeError, match="on_error must be a function without yield"):
        TaskConfig(on_error=handler)


async def test_a_websocket_with_a_task_group():
    """A disconnect that arrives in an exception group is a return, too."""
    app, journal = make_app(), Journal()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        await socket.accept()
        tasks.after_route.schedule(journal.task("after route"))
        async with anyio.create_task_group() as group:
            group.start_soon(socket.receive_text)

    incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

    async def receive():
        return incoming.pop(0)

    async with serving(app) as server:
        with pytest.raises(ExceptionGroup) as caught:
            await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])
        assert caught.value.subgroup(WebSocketDisconnect)
    assert journal == ["after route"]


async def test_a_websocket_that_disconnects_and_fails():
    """G6: a group with another error in it is a failure, so the *after* tasks are dropped."""
    app, journal = make_app(), Journal()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        await socket.accept()
        tasks.after_route.schedule(journal.task("after route"))
        raise ExceptionGroup("", [WebSocketDisconnect(1001), ValueError()])

    async def receive():
        return {"type": "websocket.connect"}

    async with serving(app) as server:
        with pytest.raises(ExceptionGroup):
            await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])
    assert journal == []


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


async def test_a_task_cannot_join():
    """It would wait for itself."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.task(name="t").schedule(app.state.runner.join)
        await task.finished.wait()
        assert isinstance(task.exception, FastAPITasksError)
        assert str(task.exception) == "task 't' would wait for itself: join() elsewhere"


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


async def test_a_middleware_that_answers_by_itself():
    """G3: its response counts: what waited for the route's end starts before it."""
    app, journal = FastAPI(), Journal()

    class Impatient:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                with anyio.move_on_after(1):
                    await self.app(scope, receive, send)
                await Response(status_code=504)(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    app.add_middleware(Impatient)
    add_tasks(app)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.task("now"))
        tasks.after_response.schedule(journal.task("dropped"))
        await anyio.sleep_forever()

    async with serving(app) as server:
        assert (await server.get()).status_code == 504
    assert journal == ["now"]


@pytest.mark.real_time
async def test_awaiting_in_another_event_loop(backend_name):
    """An error at once, instead of a wait that only luck ends."""
    app = make_app()

    def other_loop(task):
        async def main():
            with pytest.raises(FastAPITasksError, match="runs in another event loop"):
                await task
            return "refused"

        return anyio.run(main, backend=backend_name)

    async with serving(app):
        task = app.state.runner.schedule(anyio.sleep_forever)
        assert await to_thread.run_sync(other_loop, task) == "refused"
        task.cancel()


async def test_an_event_that_cannot_be_set():
    """Trio's cannot, if somebody waits for it in another event loop; the runner goes on."""

    class Foreign:
        def set(self):
            raise AssertionError("not my loop")

    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(checkpoint)
        task.started._event = task.finished._event = Foreign()
        await app.state.runner.join()
        assert task.state is TaskState.SUCCEEDED
        assert await app.state.runner.schedule(double, 2) == 4


async def double(number):
    return 2 * number


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


async def test_cancelled_tasks_do_not_pile_up():
    """One that waited for its timing point is forgotten, also if it was cancelled at once."""
    app = make_app()
    alive = []

    class Argument: ...

    class CancelOdd(Instrument):
        def task_scheduled(self, task):
            if task.args[0].number % 2:
                task.cancel()

    app = make_app(instruments=[CancelOdd()])

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for number in range(100):
            argument = Argument()
            argument.number = number
            alive.append(weakref.ref(argument))
            tasks.after_response.schedule(checkpoint, argument).cancel()
        del argument
        gc.collect()
        return sum(reference() is not None for reference in alive)

    async with serving(app) as server:
        assert (await server.get()).json() == 0


@pytest.mark.parametrize("bad", [object(), Instrument], ids=["object", "class"])
def test_what_is_no_instrument(bad):
    """A TypeError at `add_tasks(...)`."""
    with pytest.raises(TypeError, match="instruments must be objects of Instrument's subclasses"):
        make_app(instruments=[bad])


async def test_an_exception_that_is_falsy(caplog):
    """It is a failure like any other: `FAILED`, handled, logged."""

    class EmptyError(Exception):
        def __len__(self):
            return 0

    app, handled, error = make_app(), [], EmptyError()

    async def handle(task, exc):
        handled.append(exc)

    async with serving(app):
        task = app.state.runner.task(name="bad", on_error=handle).schedule(raises, error)
        await task.finished.wait()
        assert (task.state, task.exception) == (TaskState.FAILED, error)
        with pytest.raises(EmptyError):
            await task
    assert handled == [error]
    assert [r.getMessage() for r in caplog.records] == ["task 'bad' failed"]


async def leave_scope_open():
    """As a function does that breaks off an async generator which yields inside of one: PEP 789."""
    anyio.CancelScope().__enter__()
    await checkpoint()


@pytest.mark.parametrize("shield", [True, False])
async def test_a_cancel_scope_left_open(shield, caplog):
    """G12: the tasks of its kind that run are cancelled, which the log says; all others run."""
    app, journal = make_app(grace_period=5), Journal()
    async with serving(app):
        same = app.state.runner.task(name="same", shield=shield)
        other = app.state.runner.task(name="other", shield=not shield)
        running = [same.schedule(journal.ends("same"))]
        await settle()
        running.append(other.schedule(journal.ends("other")))
        await settle()
        culprit = same.schedule(leave_scope_open)
        await settle()
        same.schedule(journal.ends("later", sleep=2))
    states = [task.state.value for task in (culprit, *running)]
    assert states == ["succeeded", "cancelled", "succeeded"]
    assert journal == [
        "same starts",
        "other starts",
        "same cancelled",
        "later starts",
        "other ends",
        "later ends",
    ]
    kind = "shielded" if shield else "unshielded"
    assert sorted((r.levelname, r.getMessage()[:72]) for r in caplog.records) == [
        ("ERROR", "a task broke the task of the event loop that it ran in, which cancels al"),
        ("ERROR", "this broke a task of the event loop"),
        ("WARNING", "task 'same' was cancelled, but not by this library: it ended here"),
    ]
    assert f"cancels all {kind} tasks" in caplog.text
    assert "contextlib.aclosing()" in caplog.text
    assert "RuntimeError" in caplog.text


async def test_a_cancel_scope_left_open_in_the_drain(caplog):
    """G12, G16: it is too late for it to harm anybody, and no error of the lifespan."""
    app, journal = make_app(grace_period=0), Journal()

    async def leave_scope_open_at_the_end():
        try:
            await anyio.sleep_forever()
        finally:
            await leave_scope_open()

    async with serving(app):
        app.state.runner.task(shield=True).schedule(journal.ends("shielded"))
        app.state.runner.schedule(leave_scope_open_at_the_end)
        await settle()
    assert journal == ["shielded starts", "shielded ends"]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "ERROR"]


async def test_losses_while_others_are_scheduled():
    """G12, G17: what is scheduled at that very moment runs, and so does the other kind."""
    app = make_app(grace_period=5)
    runner = app.state.runner
    async with serving(app):
        other = runner.task(shield=True).schedule(anyio.sleep, 3)
        for _ in range(20):  # on Trio tasks may come in either order
            await settle()
            runner.schedule(leave_scope_open)
            shielded = []
            for _ in range(6):
                shielded.append(runner.task(shield=True).schedule(checkpoint))
                await checkpoint()
            for task in shielded:
                await task
        assert other.state is TaskState.RUNNING
        await other


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


async def test_a_scope_that_is_used_twice():
    """G3: by what stands around the app, and tries again when that fails."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        number = len(journal)
        tasks.schedule(journal.task(f"now {number}"))
        tasks.after_response.schedule(journal.task(f"after response {number}"))
        if number == 0:
            raise OSError

    async def try_twice(scope, receive, send):
        async def drop(message): ...

        with contextlib.suppress(OSError):
            await app(scope, receive, drop)
            return
        await app(scope, receive, send)

    async def send(message):
        journal.append(message["type"])

    async with serving(app) as server:
        server.app = try_twice
        await server.call_raw(send=send)
        await app.state.runner.join()
    assert journal == [
        "now 0",
        "now 1",
        "http.response.start",
        "http.response.body",
        "after response 1",
    ]


async def test_a_middleware_that_tries_another_app_first():
    """G18: the runner is that of the app around the endpoint."""
    outer, inner = make_app(), make_app()

    @outer.get("/")
    async def endpoint(tasks: Tasks):
        return tasks.runner is outer.state.runner

    class Fallback:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                messages = []

                async def hold(message):
                    messages.append(message)

                await inner(scope, receive, hold)
                assert messages[0]["status"] == 404
            await self.app(scope, receive, send)

    outer.add_middleware(Fallback)
    async with serving(inner), serving(outer) as server:
        assert (await server.get()).json() is True
