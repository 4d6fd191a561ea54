"""When tasks start: G1 to G7."""

from itertools import pairwise
from typing import Annotated

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from fastapi_tasks import Task, Tasks, TaskState, get_tasks
from tests_trio.support import (
    Journal,
    ignore,
    make_app,
    middleware,
    serving,
    settle,
    unsubmitted,
)


async def test_schedule_does_not_wait():
    """G1: `schedule()` runs nothing of the task, and hands it back."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        task = tasks.schedule(journal.task("task"))
        journal.append(f"scheduled, {task.state.value}")

    async with serving(app) as server:
        await server.get()
    assert journal == ["scheduled, pending", "task"]


async def test_now_starts_while_the_endpoint_waits():
    """G2: a task runs beside an endpoint that waits, for it or for anything else."""
    app, journal = make_app(), Journal()

    @app.get("/{wait}")
    async def endpoint(wait: str, tasks: Tasks):
        task = tasks.schedule(journal.task("task"))
        await (task.started.wait() if wait == "started" else anyio.sleep(1))
        journal.append("endpoint")
        return task.started.is_set()

    async with serving(app) as server:
        assert (await server.get("/started")).json() is True
        assert (await server.get("/sleep")).json() is True
    assert journal == ["task", "endpoint"] * 2


@pytest.mark.real_time
async def test_now_starts_while_a_sync_endpoint_runs():
    """G2, G11: from a `def` endpoint, in a worker thread, the task starts before it returns."""
    app, journal = make_app(), Journal()

    @app.get("/")
    def endpoint(tasks: Tasks):
        task = tasks.schedule(journal.task("task"))
        anyio.from_thread.run(task.started.wait)
        journal.append("endpoint")

    async with serving(app) as server:
        await server.get()
    assert journal == ["task", "endpoint"]


async def test_order_of_all_timing_points():
    """G3, G4: 1,000 of 1,000 requests of an endpoint that never awaits have this order."""
    app = make_app()
    journal = Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        tasks.after_route.schedule(journal.task("after route"))
        tasks.schedule(journal.task("now"))
        journal.append("endpoint's end")
        return {}

    expected = [
        "endpoint's end",
        "now",
        "after route",
        "http.response.start",
        "http.response.body",
        "after response",
    ]
    async with serving(app) as server:
        for _ in range(1000):
            await server.call_raw(send=journal.send)
            await settle()
            assert journal == expected
            journal.clear()


async def test_call_order_inside_each_point():
    """G4: six tasks at each point, scheduled in a mix, start in call order; 200 requests."""
    app = make_app()
    journal = Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for i in range(6):
            tasks.after_response.task(shield=i % 2 == 0).schedule(journal.task(f"response {i}"))
            tasks.schedule(journal.task(f"now {i}"))
            tasks.after_route.task(shield=i % 3 == 0).schedule(journal.task(f"route {i}"))

    expected = [f"{point} {i}" for point in ("now", "route", "response") for i in range(6)]
    async with serving(app) as server:
        for _ in range(200):
            await server.call_raw()
            await settle()
            assert journal == expected
            journal.clear()


async def test_many_tasks_of_a_request_keep_their_order():
    """G4: three thousand, on Trio too, which reverses every other batch of new tasks."""
    app = make_app()
    numbers = []

    async def note(number):
        numbers.append(number)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for number in range(3000):
            tasks.schedule(note, number)

    async with serving(app) as server:
        await server.get()
        assert numbers == list(range(3000))


async def test_a_refused_task_leaves_no_trace_in_the_order():
    """G4: neither a TypeError nor a dropped task holds up those behind it."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.task("first"))
        with pytest.raises(TypeError):
            tasks.schedule(None)
        tasks.after_route.schedule(journal.task("dropped"))
        tasks.schedule(journal.task("second"))
        raise HTTPException(418)

    async with serving(app) as server:
        assert (await server.get()).status_code == 418
        assert journal == ["first", "second"]


async def test_response_starts_after_now_and_after_route_tasks():
    """G3: whoever sends the response, here an exception handler for a 401."""
    app, journal = make_app(), Journal()

    async def authenticate(tasks: Tasks):
        tasks.schedule(journal.task("now"))
        raise HTTPException(401)

    @app.get("/", dependencies=[Depends(authenticate)])
    async def endpoint(): ...

    async def send(message):
        journal.append(f"{message['type']} {message.get('status', '')}")

    async with serving(app) as server:
        await server.call_raw(send=send)
    assert journal == ["now", "http.response.start 401", "http.response.body "]


async def test_a_cancelled_response_still_starts_after_its_tasks():
    """G3: a middleware answers in a cancel scope whose time is up, and gets the answer out."""
    app, journal = make_app(), Journal()

    @middleware(app)
    async def late(wrapped, scope, receive, send):
        async def send_in_cancelled_scope(message):
            with anyio.CancelScope() as late:
                late.cancel()
                await send(message)

        await wrapped(scope, receive, send_in_cancelled_scope)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.task("now"))

    async with serving(app) as server:
        await server.call_raw(send=journal.send)
    assert journal == ["now", "http.response.start", "http.response.body"]


async def test_other_messages_pass():
    """G3: what is neither the response's start nor its last message is no timing point."""
    app, journal = make_app(), Journal()

    @middleware(app)
    async def hinting(wrapped, scope, receive, send):
        async def send_with_hints(message):
            await send({"type": "http.response.early_hint", "links": []})
            await send(message)

        await wrapped(scope, receive, send_with_hints)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))

    async def send(message):
        journal.append(message["type"].rpartition(".")[2])

    async with serving(app) as server:
        await server.call_raw(send=send)
    assert journal == ["early_hint", "start", "early_hint", "body", "after response"]


async def test_started_means_its_first_step():
    """G3: at the response's start the async function is at its first await, and `RUNNING`."""
    app = make_app()
    task: Task = None

    @app.get("/")
    async def endpoint(tasks: Tasks):
        nonlocal task
        task = tasks.after_route.schedule(anyio.sleep, 1)
        assert (task.state, task.timing) == (TaskState.PENDING, "after_route")

    async def send(message):
        assert task.state is TaskState.RUNNING
        assert task.started.is_set()
        assert not task.finished.is_set()

    async with serving(app) as server:
        assert len(await server.call_raw(send=send)) == 2


async def test_after_response_waits_for_the_last_byte():
    """G3: a streamed body with a slow client, to the end of the last `send`."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))

        async def body():
            yield b"1"
            await anyio.sleep(1)
            yield b"2"

        return StreamingResponse(body())

    async def send(message):
        await anyio.sleep(2)
        journal.append(f"{message['type']} {message.get('body')}")

    async with serving(app) as server:
        await server.call_raw(send=send)
        await settle()
    assert journal == [
        "http.response.start None",
        "http.response.body b'1'",
        "http.response.body b'2'",
        "http.response.body b''",
        "after response",
    ]


async def test_after_response_waits_for_nothing_else():
    """G3: not for the response's own background tasks, nor for request-scoped teardown."""
    app, journal = make_app(), Journal()

    async def teardown():
        yield
        await anyio.sleep(1)
        journal.append("teardown")

    @app.get("/", dependencies=[Depends(teardown)])
    async def endpoint(tasks: Tasks, background: BackgroundTasks):
        background.add_task(journal.task("background", sleep=10))
        tasks.after_response.schedule(journal.task("after response"))

    async with serving(app) as server, anyio.create_task_group() as group:
        group.start_soon(server.call_raw)
        await anyio.sleep(5)
        assert sorted(journal) == ["after response", "background"]
    assert journal[-1] == "teardown"


@pytest.mark.real_time
@pytest.mark.parametrize("ending", ["pathsend", "trailers", "nothing"])
async def test_other_last_messages(ending, tmp_path):
    """G3: the last message may be a file path, trailers, or missing."""
    app, journal = make_app(), Journal()
    file = tmp_path / "file"
    file.write_bytes(b"content")

    class Trailers(Response):
        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "trailers": True})
            await send({"type": "http.response.body", "body": b""})
            await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": []})

    class Nothing(Response):
        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            journal.append("ASGI call ends")

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        return {"pathsend": FileResponse(file), "trailers": Trailers(), "nothing": Nothing()}[
            ending
        ]

    async def send(message):
        journal.append(message["type"].removeprefix("http.response."))
        await settle()

    async with serving(app) as server:
        await server.call_raw(send=send, extensions={"http.response.pathsend": {}})
        await settle()
    assert (
        journal
        == {
            "pathsend": ["start", "pathsend", "after response"],
            "trailers": ["start", "body", "trailers", "trailers", "after response"],
            "nothing": ["start", "body", "ASGI call ends", "after response"],
        }[ending]
    )


@pytest.mark.parametrize(
    "messages",
    ["body", "body body", "pathsend", "body trailers trailers", "pathsend trailers"],
)
async def test_the_last_message_of_an_asgi_call_that_goes_on(messages):
    """G3: the task waits for that message, whatever its kind, and not for the call's end."""
    app, journal = make_app(), Journal()

    class Lingering(Response):
        async def __call__(self, scope, receive, send):
            start = {"status": 200, "trailers": "trailers" in messages}
            await send({"type": "http.response.start", **start})
            for kind, following in pairwise([*messages.split(), ""]):
                await send({"type": f"http.response.{kind}", f"more_{kind}": following == kind})
            await anyio.sleep(1)
            journal.append("ASGI call ends")

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        return Lingering()

    async def send(message):
        await settle()
        journal.append(message["type"].removeprefix("http.response."))

    async with serving(app) as server:
        await server.call_raw(send=send)
    assert journal == ["start", *messages.split(), "after response", "ASGI call ends"]


async def test_tasks_do_not_delay_the_response():
    """G5: neither long ones nor a hundred sync ones: the response is there at time zero."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for scheduler in (tasks, tasks.after_route, tasks.after_response):
            scheduler.schedule(anyio.sleep, 10)

    async with serving(app) as server:
        begin = anyio.current_time()
        await server.get()
        assert anyio.current_time() == begin


@pytest.mark.real_time
async def test_sync_tasks_do_not_delay_the_response():
    """G5, G9: a hundred sync tasks for two threads, none of which ends before the response."""
    app = make_app(max_threads=2, grace_period=5)
    responded, done = anyio.Event(), []

    def work():
        anyio.from_thread.run(responded.wait)
        done.append(1)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        scheduled = [tasks.schedule(work) for _ in range(100)]
        await checkpoint()
        return [task.state.value for task in scheduled]

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        assert done == []
        responded.set()
        await app.state.runner.join()
        assert len(done) == 100


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


async def test_failed_route_drops_its_after_tasks(caplog):
    """G6: `CANCELLED`, with one INFO line that counts them; *now* tasks go on."""
    caplog.set_level("INFO", "fastapi_tasks")
    app, journal = make_app(grace_period=5), Journal()
    dropped: list[Task] = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.ends("now"))
        dropped.append(tasks.after_route.schedule(journal.task("after route")))
        dropped.append(tasks.after_response.task(shield=True).schedule(journal.task("response")))
        raise ValueError

    async with serving(app) as server:
        assert (await server.get()).status_code == 500
        assert [task.state for task in dropped] == [TaskState.CANCELLED] * 2
        assert all(task.started.is_set() and task.finished.is_set() for task in dropped)
    assert journal == ["now starts", "now ends"]
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "INFO",
            "the route failed: dropped 2 task(s) that were to run after it: "
            "'Journal.task.<locals>.write', 'Journal.task.<locals>.write'",
        )
    ]


@pytest.mark.filterwarnings(  # older Starlettes leave a generator behind when a middleware fails
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_after_tasks_survive_what_comes_after_the_route(caplog):
    """G6: a stream that fails, a client that went away, a middleware that fails: nothing drops."""
    caplog.set_level("INFO", "fastapi_tasks")
    app, journal = make_app(), Journal()

    @app.get("/{case}")
    async def endpoint(case: str, tasks: Tasks):
        tasks.after_response.schedule(journal.task(f"after {case}"))

        async def body():
            yield b""
            raise ValueError

        return StreamingResponse(body()) if case == "stream" else {}

    @app.middleware("http")
    async def fail(request, call_next):
        response = await call_next(request)
        if request.url.path == "/middleware":
            raise ValueError
        return response

    async def send(message):
        if message["type"] == "http.response.body":
            raise OSError("the client went away")

    async with serving(app) as server:
        await server.get("/stream")
        await server.get("/middleware")
        with pytest.raises(BaseException):
            await server.call_raw("/client", send=send)
    assert journal == ["after stream", "after middleware", "after client"]
    assert caplog.records == []


async def test_after_tasks_survive_a_cancelled_response():
    """G6: the request is cancelled while its body streams."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))

        async def body():
            while True:
                yield b"."
                await anyio.sleep(1)

        return StreamingResponse(body())

    async with serving(app) as server:
        with anyio.move_on_after(10):
            await server.call_raw()
        await settle()
        assert journal == ["after response"]


async def test_cancelled_route_drops_all_but_the_shielded(caplog):
    """G6, G17: a route that the server cut off has not failed for what is shielded."""
    caplog.set_level("INFO", "fastapi_tasks")
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("unshielded"))
        tasks.after_response.task(shield=True).schedule(journal.task("after response"))
        tasks.after_route.task(shield=True).schedule(journal.task("after route"))
        await anyio.sleep_forever()

    async with serving(app) as server:
        with anyio.move_on_after(1):
            await server.call_raw()
        await settle()
        assert journal == ["after route", "after response"]
    assert "dropped 1 task(s)" in caplog.text


async def test_late_tasks_start_at_once():
    """G7: from a stream's body, a teardown, a background task, a task of an ended request."""
    app, journal = make_app(), Journal()

    async def teardown(tasks: Tasks):
        yield
        tasks.after_route.schedule(journal.task("teardown: after route"))
        tasks.after_response.schedule(journal.task("teardown: after response"))

    async def child(tasks):
        await anyio.sleep(1)
        tasks.after_response.schedule(journal.task("child"))

    @app.get("/", dependencies=[Depends(teardown)])
    async def endpoint(tasks: Tasks):
        tasks.schedule(child, tasks)

        async def body():
            tasks.after_route.schedule(journal.task("body: after route"))
            tasks.after_response.schedule(journal.task("body: after response"))
            yield b""

        return StreamingResponse(body())

    async with serving(app) as server:
        await server.call_raw()
        await anyio.sleep(2)
    assert journal == [
        "body: after route",
        "body: after response",
        "teardown: after route",
        "teardown: after response",
        "child",
    ]


async def test_a_generator_endpoint_has_returned_once_its_generator_exists():
    """G7: what the body of a generator endpoint schedules after the route starts at once."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_route.schedule(journal.task("in the body"))
        await anyio.sleep(1)
        journal.append("item")
        yield {}

    async with serving(app) as server:
        await server.get()
    assert journal == ["in the body", "item"]


async def test_an_exception_handler_schedules_for_later():
    """G7: it knows that the route failed, so what it schedules is not dropped."""
    app, journal = make_app(), Journal()

    @app.exception_handler(LookupError)
    async def handle(request, error):
        tasks = await get_tasks(request)
        tasks.after_route.schedule(journal.task("after route"))
        tasks.after_response.schedule(journal.task("after response"))
        return Response(status_code=404)

    @app.get("/unused")
    async def unused():
        raise LookupError

    @app.get("/used")
    async def used(tasks: Tasks):
        tasks.after_route.schedule(journal.task("dropped"))
        raise LookupError

    async with serving(app) as server:
        for path in ("/used", "/unused"):
            await server.call_raw(path, send=journal.send)
            await settle()
            assert journal == [
                "after route",
                "http.response.start",
                "http.response.body",
                "after response",
            ]
            journal.clear()


async def test_tasks_begun_after_the_response():
    """G7: the first use of tasks in a request may come when all its points have passed."""
    app, journal = make_app(), Journal()

    class Late(Response):
        async def __call__(self, scope, receive, send):
            from starlette.requests import Request

            await super().__call__(scope, receive, send)
            tasks = await get_tasks(Request(scope))
            tasks.after_response.schedule(journal.task("after response"))
            await settle()
            journal.append("end")

    @app.get("/")
    async def endpoint():
        return Late()

    async with serving(app) as server:
        await server.get()
    assert journal == ["after response", "end"]


@pytest.mark.parametrize("begun", [1, 2])
async def test_a_route_that_runs_when_the_response_has_begun(begun):
    """G7: what has passed by then has passed; a middleware has sent one message of two, or both."""
    app, journal = make_app(), Journal()
    response = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b""},
    ]

    @middleware(app)
    async def hasty(wrapped, scope, receive, send):
        for message in response[:begun]:
            await send(message)
        await wrapped(scope, receive, ignore)
        for message in response[begun:]:
            await send(message)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for scheduler, name in (
            (tasks, "now"),
            (tasks.after_route, "after route"),
            (tasks.after_response, "after response"),
        ):
            scheduler.schedule(journal.task(name))
        await anyio.sleep(1)
        journal.append("endpoint")

    async with serving(app) as server:
        await server.call_raw()
        await settle()
    expected = ["now", "after route", "after response"]
    expected.insert(begun + 1, "endpoint")
    assert journal == expected


async def test_function_scoped_dependencies_are_closed_before_after_route():
    """The commit is done, whether `Tasks` stands before or after it in the signature."""
    app, journal = make_app(), Journal()

    async def database():
        yield
        await checkpoint()
        journal.append("commit")

    Database = Annotated[None, Depends(database, scope="function")]

    @app.get("/before")
    async def before(tasks: Tasks, database: Database):
        tasks.after_route.schedule(journal.task("after route"))

    @app.get("/after")
    async def after(database: Database, tasks: Tasks):
        tasks.after_route.schedule(journal.task("after route"))

    async with serving(app) as server:
        await server.get("/before")
        await server.get("/after")
    assert journal == ["commit", "after route"] * 2


async def test_failed_commit_drops_after_tasks():
    """G6: a teardown that fails is a route that failed, in both orders."""
    app, journal = make_app(), Journal()

    async def database():
        yield
        raise ValueError("commit failed")

    Database = Annotated[None, Depends(database, scope="function")]

    @app.get("/before")
    async def before(tasks: Tasks, database: Database):
        tasks.after_route.schedule(journal.task("after route"))
        tasks.after_response.schedule(journal.task("after response"))

    @app.get("/after")
    async def after(database: Database, tasks: Tasks):
        tasks.after_route.schedule(journal.task("after route"))
        tasks.after_response.schedule(journal.task("after response"))

    async with serving(app) as server:
        assert (await server.get("/before")).status_code == 500
        assert (await server.get("/after")).status_code == 500
    assert journal == []


@pytest.mark.parametrize(("path", "status"), [("/422?number=x", 422), ("/418", 418), ("/500", 500)])
async def test_other_failed_routes(path, status):
    """G3, G6: validation, an HTTPException, an invalid response model."""
    app, journal = make_app(), Journal()

    async def dependency(tasks: Tasks):
        tasks.schedule(journal.task("now"))
        tasks.after_route.schedule(journal.task("after route"))
        tasks.after_response.schedule(journal.task("after response"))

    app.router.dependencies.append(Depends(dependency))
    routes = FastAPI(dependencies=[Depends(dependency)])
    app.include_router(routes.router)

    @app.get("/422", dependencies=[Depends(dependency)])
    async def invalid(number: int): ...

    @app.get("/418", dependencies=[Depends(dependency)])
    async def teapot():
        raise HTTPException(418)

    @app.get("/500", dependencies=[Depends(dependency)], response_model=int)
    async def unserialisable():
        return "no number"

    async def send(message):
        if message["type"] == "http.response.start":
            journal.append(message["status"])

    async with serving(app) as server:
        try:
            await server.call_raw(
                path.partition("?")[0], send=send, query_string=path.partition("?")[2].encode()
            )
        except Exception as exc:
            assert status == 500, exc
        await settle()
    assert journal == ["now", status]


async def test_a_first_use_of_tasks_during_the_last_message():
    """G3: its *after response* task starts when that was handed over, not while it is."""
    app, journal = make_app(), Journal()
    sending = anyio.Event()

    async def use_tasks(request):
        await sending.wait()
        tasks = await get_tasks(request)
        tasks.after_response.schedule(journal.task("after response"))
        tasks.after_route.schedule(journal.task("after route"))
        journal.append("scheduled")

    async def send(message):
        if message["type"] == "http.response.body":
            sending.set()
            await anyio.sleep(1)
            journal.append("last message")

    async with serving(app) as server, anyio.create_task_group() as group:

        @app.get("/")
        async def endpoint(request: Request):
            group.start_soon(use_tasks, request)

        await server.call_raw(send=send)
    assert journal == ["scheduled", "after route", "last message", "after response"]


async def test_a_first_use_of_tasks_after_the_last_message():
    """G3: there is nothing to wait for, whatever the app still does."""
    app, journal = make_app(), Journal()
    sent = anyio.Event()

    async def use_tasks(request):
        await sent.wait()
        tasks = await get_tasks(request)
        tasks.after_response.schedule(journal.task("after response"))

    @middleware(app)
    async def lingering(wrapped, scope, receive, send):
        await wrapped(scope, receive, send)
        sent.set()
        await anyio.sleep(1)
        journal.append("the app ends")

    async with serving(app) as server, anyio.create_task_group() as group:

        @app.get("/")
        async def endpoint(request: Request):
            group.start_soon(use_tasks, request)

        await server.call_raw()
    assert journal == ["after response", "the app ends"]


async def test_a_start_that_is_lost_holds_the_response_until_it_is_cancelled():
    """G3: nothing waits for ever without a way to end it, nor spins meanwhile."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        lost = unsubmitted(anyio.sleep, 0)
        lost._owner = tasks.runner._supervisor
        tasks._route._queue.append(lost)

    async with serving(app) as server:
        with anyio.move_on_after(5) as scope:
            await server.call_raw()
        assert scope.cancelled_caught
