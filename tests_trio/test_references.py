"""G20, G13: nothing of a finished task is kept, and no frame of the library shows its arguments."""

import gc
import logging
import weakref
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from itertools import chain
from pathlib import Path
from traceback import walk_tb

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

import fastapi_tasks
from fastapi_tasks import Instrument, Task, Tasks, TasksClosedError, TaskState
from fastapi_tasks._fastapi.exchange import Exchange
from tests_trio.support import (
    make_app,
    request_tasks,
    serving,
    settle,
    twice,
)

HOME = str(Path(fastapi_tasks.__file__).parent)
session: ContextVar["Session"] = ContextVar("session")


class Order: ...


class Session: ...


@contextmanager
def without_collections():
    """Reference counting alone has to free what is not needed; pytest would keep log records."""
    logger = logging.getLogger("fastapi_tasks")
    gc.collect()
    gc.disable()
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False
        gc.enable()


async def ship(order, *, where):
    raise RuntimeError(where)


async def stall(order, *, where):
    await anyio.sleep(1000)


def pack(order, *, where):
    raise KeyError(where)


async def wrong_signature(): ...


async def group(order, *, where):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ship_in_context, order)


async def ship_in_context(order):
    try:
        raise KeyError
    except KeyError:
        raise RuntimeError from ValueError()


def returns_coroutine(order, *, where):
    return ship(order, where=where)


async def tell(task, error):
    raise error


def tell_in_thread(task, error):
    raise error


FAILURES = {
    "async": (ship, {}),
    "sync": (pack, {}),
    "awaitable of a sync function": (returns_coroutine, {}),
    "wrong signature": (wrong_signature, {}),
    "wrong signature with options": (wrong_signature, {"timeout": 5}),
    "chained, in a group": (group, {}),
    "timeout": (stall, {"timeout": 0.02}),
    "sync within a timeout": (pack, {"timeout": 30}),
    "limiter": (ship, {"limiter": anyio.Semaphore(2)}),
    "retry": (ship, {"retry": twice}),
    "sync retry": (pack, {"retry": twice, "timeout": 30}),
    "handler": (pack, {"on_error": tell}),
    "sync handler": (ship, {"on_error": tell_in_thread}),
}


@pytest.mark.real_time
@pytest.mark.parametrize(("func", "options"), FAILURES.values(), ids=FAILURES)
async def test_a_failed_task_is_freed(func, options):
    """G20: with its arguments, when nobody has its handle any more; also one that was awaited."""
    app = make_app()
    scheduler = app.state.runner.task(**options)

    async def fail(*, awaited):
        order = Order()
        handles = [scheduler.schedule(func, order, where="x")]
        if awaited:
            with suppress(Exception):
                await handles.pop()
        return weakref.ref(order)

    async with serving(app):
        with without_collections():
            references = [await fail(awaited=awaited) for awaited in (False, True)]
            await app.state.runner.join()
            await to_thread.run_sync(int)  # which frees what a worker thread had last
            await settle()
            assert [reference() for reference in references] == [None, None]


async def test_a_cancelled_task_is_freed():
    """G20: before it started, while it ran, while it ran with options, and in its clean-up."""
    app = make_app()
    runner = app.state.runner
    references = []

    async def untidy(order, *, where):
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    def begin(scheduler, func):
        order = Order()
        references.append(weakref.ref(order))
        return scheduler.schedule(func, order, where="x")

    async with serving(app):
        with without_collections():
            begin(runner, stall).cancel()
            tasks = [
                begin(scheduler, func)
                for scheduler in (runner, runner.task(timeout=50, retry=twice))
                for func in (stall, untidy)
            ]
            await settle()
            while tasks:
                tasks.pop().cancel()
            await runner.join()
            await settle()
            assert [reference() for reference in references] == [None] * 5


@pytest.mark.real_time
async def test_a_log_record_keeps_no_task(caplog):
    """G20: neither that of its failure, nor that of its error handler's."""
    app = make_app()
    async with serving(app):
        gc.collect()
        gc.disable()
        try:
            task = app.state.runner.task(on_error=int).schedule(ship, 1, where="x")
            await task.finished.wait()
            reference = weakref.ref(task)
            del task
            await to_thread.run_sync(int)
            await settle()
            assert reference() is None
        finally:
            gc.enable()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_a_finished_task_lets_go_of_its_request(caplog):
    """G20: of the request's tasks, its event-loop task and its context variables."""
    app = make_app()
    kept: list[Task] = []
    references = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        mine = Session()
        session.set(mine)
        references.extend([weakref.ref(tasks), weakref.ref(mine)])
        kept.append(tasks.schedule(anyio.sleep, 1))
        kept.append(tasks.after_route.task(retry=twice).schedule(wrong_signature, 1))
        kept.append(tasks.after_response.schedule(ship, 1, where="x"))
        kept.append(tasks.after_response.schedule(anyio.sleep, 1))
        kept[-1].cancel()

    async with serving(app) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(server.get)  # in a context of its own
        await app.state.runner.join()
        await settle()
        caplog.clear()
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        handles = {task.handle for task in kept} | {task.route for task in kept}
        assert handles == {None}


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
            with without_collections():
                del connection
                assert reference() is None


async def test_a_context_that_outlives_a_task():
    """G20: as that of an event loop's timer does, it does not lead to the task."""
    app = make_app()
    contexts = []

    async def keep_context(order):
        contexts.append(copy_context())

    async with serving(app):
        with without_collections():
            order = Order()
            app.state.runner.schedule(keep_context, order)
            await app.state.runner.join()
            reference = weakref.ref(order)
            del order
            await settle()
            assert reference() is None


async def test_what_is_cancelled_leaves_its_requests_queue():
    """G20: however long the request goes on."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for _ in range(3):
            tasks.schedule(anyio.sleep_forever).cancel()
        assert not tasks._route._queue
        first = tasks.schedule(checkpoint)
        for _ in range(3):
            tasks.schedule(anyio.sleep_forever).cancel()
        assert [*tasks._route._queue] == [first]

    async with serving(app) as server:
        assert (await server.get()).status_code == 200


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


def tracebacks_of(error):
    """The tracebacks of an exception, and of all that it is chained to or made of."""
    errors = [error]
    for each in errors:
        if each is not None:
            yield each.__traceback__
            errors += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
            assert len(errors) < 1000


def shown_by_us(error, secret):
    """The local variables of the library's frames whose repr has the secret."""
    return [
        (frame.f_code.co_name, name)
        for traceback in tracebacks_of(error)
        for frame, _ in walk_tb(traceback)
        if frame.f_code.co_filename.startswith(HOME)
        for name, value in frame.f_locals.items()
        if secret in repr(value)
    ]


SECRET = "tok-98765"


class Lazy:
    """An awaitable that shows what it was made of."""

    def __init__(self, token, **_):
        self.token = token

    def __repr__(self):
        return f"Lazy({self.token})"

    def __await__(self):
        yield from checkpoint().__await__()
        raise ValueError


SHOWN = FAILURES | {
    "an awaitable": (Lazy, {}),
    "an awaitable within a timeout": (Lazy, {"timeout": 5}),
    "a sync retry caller": (ship, {"retry": lambda attempt: attempt()}),
}


@pytest.mark.real_time
@pytest.mark.parametrize(("func", "options"), SHOWN.values(), ids=SHOWN)
async def test_no_frame_shows_arguments(func, options, caplog):
    """G13: error trackers print the local variables of each frame of a traceback."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.task(**options).schedule(func, SECRET, where=SECRET)
        await task.finished.wait()
        errors = [task.exception, *(record.exc_info[1] for record in caplog.records)]
        with suppress(Exception):
            await task
        with suppress(Exception), anyio.move_on_after(0.05):
            await task()
        shown = chain.from_iterable(shown_by_us(error, SECRET) for error in errors)
        assert (task.state, list(shown)) == (TaskState.FAILED, [])


async def test_no_frame_of_a_refused_call_shows_arguments():
    """G13: nor that of `schedule()` itself, when it raises."""
    app = make_app(max_tasks=1)
    runner = app.state.runner

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for scheduler in (tasks, tasks.task(timeout=5), tasks.after_route, runner):
            with pytest.raises(fastapi_tasks.TooManyTasksError) as caught:
                scheduler.schedule(stall, SECRET, where=SECRET)
            assert shown_by_us(caught.value, SECRET) == []
        for not_callable in (SECRET, [SECRET]):
            with pytest.raises(TypeError) as error:
                tasks.schedule(not_callable, SECRET)
            assert shown_by_us(error.value, SECRET) == []

    async with serving(app) as server:
        blocker = runner.schedule(anyio.sleep_forever)
        assert (await server.get()).status_code == 200
        blocker.cancel()
    with pytest.raises(TasksClosedError) as closed:
        runner.schedule(stall, SECRET, where=SECRET)
    assert shown_by_us(closed.value, SECRET) == []


async def test_log_records_show_no_arguments(caplog):
    """G13: neither the message nor what it is made of."""
    app = make_app(grace_period=0)
    caplog.set_level(logging.DEBUG)
    async with serving(app):
        app.state.runner.schedule(ship, SECRET, where="x")
        app.state.runner.schedule(stall, SECRET, where="x")
        request_tasks(app.state.runner).after_response.schedule(stall, SECRET, where="x")
        await settle()
    ours = [record for record in caplog.records if record.name == "fastapi_tasks"]
    assert len(ours) == 2
    assert SECRET not in repr([(record.getMessage(), record.args) for record in ours])
