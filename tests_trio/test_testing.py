"""`fastapi_tasks.testing`, as users use it."""

from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from fastapi_tasks import (
    FastAPITasksUninitializedAppError,
    Tasks,
    TaskState,
    add_tasks,
    get_runner,
)
from fastapi_tasks.testing import client, lifespan, record_tasks, scheduled_tasks  # noqa: F401
from tests_trio.support import raises


async def send_mail(address):
    await checkpoint()


def send_in_thread(address): ...


def make_signup():
    app = FastAPI()
    add_tasks(app)

    @app.post("/signup")
    async def signup(address: str, tasks: Tasks):
        tasks.after_response.schedule(send_mail, address)

    @app.post("/sync")
    def sync(address: str, tasks: Tasks):
        tasks.schedule(send_in_thread, address)

    @app.post("/fails")
    async def fails(tasks: Tasks):
        tasks.task(name="slow").schedule(anyio.sleep, 3)
        tasks.schedule(raises, ValueError("why"))
        tasks.after_response.schedule(send_mail, "dropped")
        raise LookupError("from the endpoint")

    return app


@pytest.fixture
def app():
    return make_signup()


async def test_three_lines(app):
    """The endpoint sends the mail after the response."""
    async with client(app) as http:
        await http.post("/signup?address=a@example.org")
        assert http.tasks.one(send_mail).timing == "after_response"


async def test_what_a_request_scheduled(app):
    """Function, arguments, timing point and outcome; `join()` waits until all is done."""
    async with client(app) as http:
        assert list(http.tasks) == []
        with pytest.raises(LookupError, match="from the endpoint"):
            await http.post("/fails")
        await http.join()
        assert [(t.func, t.args, t.timing, t.state) for t in http.tasks] == [
            (anyio.sleep, (3,), "now", TaskState.SUCCEEDED),
            (raises, http.tasks[1].args, "now", TaskState.FAILED),
            (send_mail, ("dropped",), "after_response", TaskState.CANCELLED),
        ]
        assert len(http.tasks) == 3
        assert http.tasks.of(raises) == [http.tasks[1]]
        with pytest.raises(
            AssertionError, match=r"0 tasks of send_in_thread .*<Task 'slow' succeeded>"
        ):
            http.tasks.one(send_in_thread)


async def test_the_lifespan_is_run(app):
    """Tasks of the lifespan are seen, its exceptions arrive as themselves, and so do the test's."""

    async def look(*args): ...

    @asynccontextmanager
    async def lifespan(app):
        runner.schedule(look)
        yield
        if fail:
            raise OSError("at shutdown")

    app, fail = FastAPI(lifespan=lifespan), False
    runner = add_tasks(app)
    async with client(app, base_url="http://other") as http:
        assert http.tasks.one(look)
        assert str(http.base_url) == "http://other"
    with pytest.raises(KeyError, match="in the test"):
        async with client(app):
            raise KeyError("in the test")
    fail = True
    with pytest.raises(OSError, match="at shutdown"):
        async with client(app):
            pass


async def test_a_lifespan_that_does_not_start():
    @asynccontextmanager
    async def lifespan(app):
        raise OSError("no database")
        yield

    app = FastAPI(lifespan=lifespan)
    add_tasks(app)
    with pytest.raises(OSError, match="no database"):
        async with client(app):
            pass


async def test_a_lifespan_that_says_that_it_has_failed():
    """And does no more than that, as an ASGI app may: the block is not entered."""

    class Failing:
        def __init__(self, app): ...

        async def __call__(self, scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

    app, entered = FastAPI(), []
    app.add_middleware(Failing)
    add_tasks(app)
    for enter in (lifespan, client):
        with pytest.raises(RuntimeError, match=r"^the app's lifespan has failed: no database$"):
            async with enter(app):
                entered.append(enter)
    assert entered == []


def test_no_add_tasks():
    with (
        pytest.raises(FastAPITasksUninitializedAppError, match=r"call add_tasks\(app\)"),
        record_tasks(FastAPI()),
    ):
        pass


@pytest.mark.parametrize("path", ["/signup", "/sync"])
def test_with_the_sync_test_client(app, scheduled_tasks, path, backend_name):  # noqa: F811
    """Starlette's `TestClient`, the imported fixture, and `wait()`."""
    with TestClient(app, backend=backend_name) as http:
        assert http.post(f"{path}?address=a@example.org").status_code == 200
        scheduled_tasks.wait()
        [task] = scheduled_tasks
        assert (task.args, task.state) == (("a@example.org",), TaskState.SUCCEEDED)


def test_waiting_too_long(app, scheduled_tasks, backend_name):  # noqa: F811
    """It says what it waited for."""
    with TestClient(app, backend=backend_name) as http:
        with pytest.raises(LookupError):
            http.post("/fails")
        with pytest.raises(TimeoutError, match=r"after 0.01 s: .*<Task 'slow' running>"):
            scheduled_tasks.wait(0.01)


def test_recording_ends(app, backend_name):
    """What is scheduled outside of the block is not seen."""
    with TestClient(app, backend=backend_name) as http:
        with record_tasks(app) as tasks:
            http.post("/signup?address=1")
        http.post("/signup?address=2")
        assert [task.args for task in tasks] == [("1",)]


async def test_lifespan_state():
    """Requests see what the lifespan yields, each a copy of its own."""

    @asynccontextmanager
    async def lifespan(app):
        yield {"pool": 42}

    app = FastAPI(lifespan=lifespan)
    add_tasks(app)

    @app.get("/")
    async def endpoint(request: Request):
        request.state.other = hasattr(request.state, "other")
        return [request.state.pool, request.state.other]

    async with client(app) as http:
        for _ in range(2):
            assert (await http.get("/")).json() == [42, False]


async def test_a_500_instead_of_the_exception(app):
    async with client(app, raise_app_exceptions=False) as http:
        assert (await http.post("/fails")).status_code == 500


async def test_a_test_and_a_lifespan_that_fail():
    """The test's failure arrives, with a note of the other."""

    @asynccontextmanager
    async def lifespan(app):
        yield
        raise OSError("at shutdown")

    app = FastAPI(lifespan=lifespan)
    add_tasks(app)
    with pytest.raises(KeyError) as caught:
        async with client(app):
            raise KeyError("in the test")
    assert caught.value.__notes__ == [
        "after that the app's lifespan failed: OSError('at shutdown')"
    ]


def test_tasks_from_before_the_recording(app, backend_name):
    """They do not count, whether they end or go on."""
    with TestClient(app, backend=backend_name) as http:
        with pytest.raises(LookupError):
            http.post("/fails")
        with record_tasks(app) as tasks:
            http.post("/signup?address=1")
            tasks.wait()
            assert len(tasks) == 1


async def test_a_lifespan_without_a_client(app):
    """It is run around the block, and gives the state that it leaves for requests."""
    done = []

    async def work():
        await anyio.sleep(1)
        done.append("worked")

    async with lifespan(app) as state:
        get_runner(app).task(shield=True).schedule(work)
        assert state == {}
    assert done == ["worked"]


async def test_a_test_that_is_cancelled(app):
    """The app is shut down, and the cancellation goes on."""
    states = []
    with anyio.move_on_after(1) as scope:
        async with client(app) as http:
            states.append(get_runner(app).schedule(anyio.sleep_forever))
            await http.join()
    assert scope.cancelled_caught
    assert states[0].state is TaskState.CANCELLED
    assert not get_runner(app).running


@pytest.mark.parametrize("enter", [lifespan, client])
async def test_a_test_that_is_cancelled_while_it_leaves_the_app(app, enter):
    """The shutdown goes on to its end, and the cancellation after it."""
    done = []

    async def work():
        await anyio.sleep(2)
        done.append("worked")

    with anyio.move_on_after(1) as scope:
        async with enter(app):
            get_runner(app).task(shield=True).schedule(work)
        await checkpoint()
        done.append("goes on")
    assert scope.cancelled_caught
    assert done == ["worked"]


async def test_joining_for_a_time(app):
    """A TimeoutError names who is unfinished."""
    async with client(app) as http:
        get_runner(app).task(name="endless").schedule(anyio.sleep_forever)
        with pytest.raises(TimeoutError) as caught:
            await http.join(timeout=3)
        assert str(caught.value) == "unfinished tasks after 3 s: [<Task 'endless' running>]"
        get_runner(app).tasks[0].cancel()
        await http.join(timeout=3)


def test_one_task_without_assertions(app):
    """`one()` tells the truth under `python -O`, too."""
    with record_tasks(app) as tasks, pytest.raises(AssertionError, match="0 tasks of send_mail in"):
        tasks.one(send_mail)


def test_the_runner_of_an_app(app):
    """The one that `add_tasks(app)` has made."""
    other = FastAPI()
    assert get_runner(other_app := make_signup()) is not get_runner(app)
    assert get_runner(other_app) is get_runner(other_app)
    with pytest.raises(FastAPITasksUninitializedAppError, match="call add_tasks"):
        get_runner(other)
