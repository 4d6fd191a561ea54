"""Bad input gets a clear error, at the call, in the user's own frame."""

import functools
import math
import traceback

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request

from fastapi_tasks import (
    FastAPITasksError,
    FastAPITasksUninitializedAppError,
    Instrument,
    TaskConfig,
    Tasks,
    TasksClosedError,
    add_tasks,
    get_tasks,
)
from tests_trio.support import (
    Server,
    make_app,
    serving,
    unsubmitted,
)


async def coroutine_function(): ...


def generator():
    yield


async def async_generator():
    yield


class GeneratorObject:
    def __call__(self):
        yield


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            coroutine_function,
            r"not the coroutine .* write schedule\(func, arg\), not schedule\(func",
        ),
        (lambda: None, r"not NoneType: write schedule\(func, arg\)"),
        (lambda: 7, "not int"),
        (lambda: generator, "generator function 'generator'.*without yield"),
        (lambda: async_generator, "generator function 'async_generator'"),
        (lambda: functools.partial(generator), "generator function 'generator'"),
        (lambda: GeneratorObject(), "generator function 'GeneratorObject'"),
        (lambda: functools.partial(GeneratorObject()), "generator function 'GeneratorObject'"),
    ],
)
async def test_what_is_no_function(bad, message):
    """G10: a TypeError that says what to write; the coroutine object causes no warning."""
    app = make_app()
    async with serving(app):
        with pytest.raises(TypeError, match=message) as caught:
            app.state.runner.schedule(bad())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[:2] == ["test_what_is_no_function", "schedule"]


async def test_awaitables_that_are_no_coroutines():
    """G10: a future, say."""

    class Future:
        def __await__(self):
            yield

    app = make_app()
    async with serving(app):
        with pytest.raises(TypeError, match=r"not the .*Future that"):
            app.state.runner.schedule(Future())


@pytest.mark.parametrize(
    "options", [{"name": 7}, {"shield": 1}, {"shield": "yes"}, {"on_error": "log"}]
)
def test_options_of_another_type(options):
    """At `TaskConfig(...)`, and at `task(...)`."""
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        TaskConfig(**options)
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        make_app().state.runner.task(**options)


def test_an_error_handler_that_would_do_nothing():
    """A generator function is refused as a handler, as it is as a task."""

    def handler(task, error):
        yield

    with pytest.raises(TypeError, match="on_error must be a function without yield"):
        TaskConfig(on_error=handler)


@pytest.mark.parametrize("bad", [object(), Instrument], ids=["object", "class"])
def test_what_is_no_instrument(bad):
    """A TypeError at `add_tasks(...)`."""
    with pytest.raises(TypeError, match="instruments must be objects of Instrument's subclasses"):
        make_app(instruments=[bad])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"grace_period": -1}, "grace_period must be a number of seconds from 0 up, not -1"),
        ({"grace_period": math.nan}, "grace_period .* not nan"),
        ({"grace_period": "1"}, "grace_period .* not '1'"),
        ({"grace_period": None}, "grace_period .* not None"),
        ({"grace_period": True}, "grace_period .* not True"),
        ({"grace_period": 10**400}, "grace_period .* not 1000000"),
        ({"shield_timeout": False}, "shield_timeout .* not False"),
        ({"shield_timeout": 10**400}, "shield_timeout .* not 1000000"),
        ({"shield_timeout": -0.5}, "shield_timeout .* not -0.5"),
        ({"max_threads": 0}, "max_threads must be a whole number from 1 up, not 0"),
        ({"max_threads": 1.5}, "max_threads .* not 1.5"),
        ({"max_threads": True}, "max_threads .* not True"),
    ],
)
def test_numbers_that_make_no_sense(options, error):
    """At `add_tasks(...)`, which leaves the app as it was."""
    app = FastAPI()
    with pytest.raises(ValueError, match=error):
        add_tasks(app, **options)
    add_tasks(app, grace_period=math.inf)


def test_add_tasks_to_something_else():
    with pytest.raises(TypeError, match="takes a FastAPI app, not Starlette"):
        add_tasks(Starlette())
    with pytest.raises(TypeError, match="config must be a TaskConfig, not dict"):
        add_tasks(FastAPI(), config={"shield": True})


def test_add_tasks_twice():
    app = make_app()
    with pytest.raises(FastAPITasksError, match="called for this app already"):
        add_tasks(app)


async def test_add_tasks_after_the_start():
    app = FastAPI()
    async with serving(app):
        with pytest.raises(FastAPITasksError, match="has started already"):
            add_tasks(app)


async def test_no_add_tasks():
    """The dependency itself raises: the request fails with the remedy in the log."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(tasks: Tasks): ...

    with pytest.raises(FastAPITasksUninitializedAppError, match=r"call add_tasks\(app\)"):
        await Server(app).call_raw()


async def test_scheduling_before_the_lifespan():
    with pytest.raises(FastAPITasksUninitializedAppError, match="has not been run"):
        make_app().state.runner.schedule(anyio.sleep, 0)


async def test_get_tasks_where_there_is_no_route():
    """A middleware and a Starlette route are told to use the runner."""
    app = make_app()
    caught = []

    @app.middleware("http")
    async def middleware(request, call_next):
        with pytest.raises(FastAPITasksError, match="use the runner") as error:
            await get_tasks(request)
        caught.append(error)
        return await call_next(request)

    async with serving(app) as server:
        await server.get()
    assert len(caught) == 1


async def test_get_tasks_outside_of_an_app():
    with pytest.raises(FastAPITasksUninitializedAppError):
        await get_tasks(Request({"type": "http"}))


def test_a_task_is_not_to_be_confused():
    """A task in a log shows its name and its state."""
    assert repr(unsubmitted(coroutine_function)) == "<Task 'coroutine_function' pending>"


async def test_what_a_newcomer_from_background_tasks_writes():
    """It says what to write instead, and is no task itself."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for call, message in (
            (lambda: tasks(print, 1), r"write tasks\.schedule\(func, arg\)"),
            (lambda: tasks.after_route(print, 1), r"write tasks\.after_route\.schedule\(func"),
            (lambda: tasks.after_response(print), r"write tasks\.after_response\.schedule\(func"),
            (lambda: tasks.runner.task(name="x")(print), r"write tasks\.schedule\(func, arg\)"),
            (
                lambda: tasks.schedule(tasks.after_route),
                "takes a function .*, not TaskScheduler",
            ),
        ):
            with pytest.raises(TypeError, match=message):
                call()
        with pytest.raises(AttributeError, match=r"write tasks\.after_response\.schedule\(func"):
            tasks.add_task(print, 1)
        with pytest.raises(AttributeError, match="has no attribute 'shedule'"):
            tasks.shedule(print, 1)

    async with serving(app) as server:
        assert (await server.get()).status_code == 200


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lifespan_that_is_forgotten(when):
    """The message says how to run it, and what bypasses it."""
    app = make_app()
    if when == "after":
        async with serving(app):
            pass
    async with app.router.lifespan_context(app):
        with pytest.raises(FastAPITasksError) as caught:
            app.state.runner.schedule(coroutine_function)
    kind = FastAPITasksUninitializedAppError if when == "before" else TasksClosedError
    assert type(caught.value) is kind
    for part in (
        "lifespan",
        "with TestClient(app)",
        "fastapi_tasks.testing.client(app)",
        "fastapi_tasks.testing.lifespan(app)",
        "not app.router.lifespan_context(app)",
        "call add_tasks() on the outer app",
    ):
        assert part in str(caught.value)


async def test_only_the_mounted_app_has_tasks():
    """Servers do not run its lifespan."""
    outer, inner = FastAPI(), make_app()
    outer.mount("/inner", inner)

    @inner.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(coroutine_function)

    async with serving(outer) as server:
        with pytest.raises(FastAPITasksUninitializedAppError, match="on the outer app"):
            await server.call_raw("/inner/")
