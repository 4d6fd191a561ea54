"""A request may run several routes: each run has timing points of its own (G3, G4, G6, G7)."""

import contextlib
import gc
import weakref

import anyio
import pytest
from fastapi import FastAPI, HTTPException, Request
from starlette.routing import Mount

from fastapi_tasks import RequestTasks, Tasks
from fastapi_tasks._core.waits import routes
from tests_trio.support import Journal, call_again, ignore, make_app, middleware, serving, settle


def make_batch(journal: Journal, *, concurrently: bool = False) -> FastAPI:
    app = make_app()

    @app.get("/good")
    async def good(tasks: Tasks):
        tasks.schedule(journal.task("good: now"))
        tasks.after_route.schedule(journal.task("good: after route"))
        tasks.after_response.schedule(journal.task("good: after response"))
        await anyio.sleep(1)
        journal.append("good returns")

    @app.get("/bad")
    async def bad(tasks: Tasks):
        tasks.schedule(journal.task("bad: now"))
        tasks.after_route.schedule(journal.task("bad: after route"))
        tasks.after_response.schedule(journal.task("bad: after response"))
        tasks.after_response.task(even_if_failed=True).schedule(journal.task("bad: all the same"))
        await anyio.sleep(1.5)
        journal.append("bad fails")
        raise HTTPException(404)

    @app.get("/batch")
    async def batch(request: Request, tasks: Tasks):
        tasks.after_route.schedule(journal.task("batch: after route"))
        tasks.after_response.schedule(journal.task("batch: after response"))
        async with anyio.create_task_group() as group:
            for path in ("/good", "/bad"):
                if concurrently:
                    group.start_soon(call_again, app, request, path)
                else:
                    await call_again(app, request, path)
                    await settle()
        journal.append("batch returns")

    return app


async def test_a_batch():
    """G6, G7: one run's failure drops its own tasks, one run's end starts its own."""
    journal = Journal()
    async with serving(make_batch(journal)) as server:
        assert (await server.get("/batch")).status_code == 200
    assert journal[:7] == [
        *("good: now", "good returns", "good: after route"),
        *("bad: now", "bad fails"),
        *("batch returns", "batch: after route"),
    ]
    assert sorted(journal[7:]) == [
        "bad: all the same",
        "batch: after response",
        "good: after response",
    ]


async def test_a_concurrent_batch():
    """G6, G7: and also if the runs overlap."""
    journal = Journal()
    async with serving(make_batch(journal, concurrently=True)) as server:
        assert (await server.get("/batch")).status_code == 200
    assert sorted(journal[:2]) == ["bad: now", "good: now"]
    assert journal[2:7] == [
        *("good returns", "good: after route", "bad fails"),
        *("batch returns", "batch: after route"),
    ]
    assert len(journal) == 10


async def test_a_route_that_fails_beside_one_that_does_not(caplog):
    """G6: the line counts the tasks of the run that failed."""
    caplog.set_level("INFO", "fastapi_tasks")
    async with serving(make_batch(Journal())) as server:
        await server.get("/batch")
    assert [record.getMessage()[:71] for record in caplog.records] == [
        "the route failed: dropped 2 task(s) that were to run after it: 'Journal"
    ]


async def test_each_run_has_tasks_of_its_own():
    """One `RequestTasks` for all dependencies of a run, another one for each run."""
    app = make_app()
    seen: list[RequestTasks] = []

    @app.get("/inner")
    async def inner(tasks: Tasks):
        seen.append(tasks)

    @app.get("/outer")
    async def outer(request: Request, tasks: Tasks):
        seen.append(tasks)
        for _ in range(2):
            await call_again(app, request, "/inner")

    async with serving(app) as server:
        await server.get("/outer")
    assert len(seen) == len(set(map(id, seen))) == 3


async def test_tasks_of_an_inner_run_hold_the_outermost_response():
    """`hold_response` is about the response that the client gets."""
    app, journal = make_app(), Journal()

    @app.get("/inner")
    async def inner(tasks: Tasks):
        tasks.task(hold_response=True).schedule(journal.ends("held", sleep=3))

    @app.get("/outer")
    async def outer(request: Request):
        await call_again(app, request, "/inner")
        journal.append("outer returns")

    async with serving(app) as server:
        await server.call_raw("/outer", send=journal.send)
    assert journal == [
        *("outer returns", "held starts", "held ends"),
        *("http.response.start", "http.response.body"),
    ]


async def test_the_response_starts_while_an_inner_run_goes_on():
    """G3: that counts as each route's end, and what was handed over before has started."""
    app, journal = make_app(), Journal()

    @app.get("/inner")
    async def inner(tasks: Tasks):
        tasks.after_route.schedule(journal.task("inner: after route"))
        tasks.after_response.schedule(journal.task("inner: after response"))
        await anyio.sleep(1)
        tasks.after_route.schedule(journal.task("inner: late"))
        tasks.task(hold_response=True).schedule(journal.task("inner: holds nothing", sleep=9))
        await anyio.sleep(1)
        journal.append("inner returns")

    async with anyio.create_task_group() as group:

        @app.get("/outer")
        async def outer(request: Request):
            group.start_soon(call_again, app, request, "/inner")
            await settle()
            journal.append("outer returns")

        async with serving(app) as server:
            await server.call_raw("/outer", send=journal.send)
            await anyio.sleep(3)
    assert journal == [
        *("outer returns", "inner: after route"),
        *("http.response.start", "http.response.body", "inner: after response"),
        *("inner: late", "inner: holds nothing", "inner returns"),
    ]


async def test_a_run_that_begins_while_the_response_is_held():
    """G3: its tasks have started when the response starts."""
    app, journal = make_app(), Journal()
    held = anyio.Event()

    async def hold():
        held.set()
        await anyio.sleep(2)

    @app.get("/inner")
    async def inner(tasks: Tasks):
        tasks.task(hold_response=True).schedule(journal.ends("inner: held", sleep=5))
        tasks.after_route.schedule(journal.task("inner: after route"))

    async with anyio.create_task_group() as group:

        @app.get("/outer")
        async def outer(request: Request, tasks: Tasks):
            tasks.task(hold_response=True).schedule(hold)

            async def later():
                await held.wait()
                await call_again(app, request, "/inner")

            group.start_soon(later)

        async with serving(app) as server:
            await server.call_raw("/outer", send=journal.send)
    assert journal == [
        *("inner: held starts", "inner: after route", "inner: held ends"),
        *("http.response.start", "http.response.body"),
    ]


async def test_mounted_apps_that_are_called_concurrently():
    """G18: each route has the runner of the innermost app around it that runs."""
    outer, inner = make_app(), make_app()
    outer.router.routes.append(Mount("/inner", inner))
    seen = {}

    @inner.get("/slow")
    async def slow(tasks: Tasks):
        await anyio.sleep(2)
        seen["/inner/slow"] = tasks.runner

    @outer.get("/quick")
    async def quick(request: Request):
        await anyio.sleep(1)
        await call_again(outer, request, "/late")

    @outer.get("/late")
    async def late(tasks: Tasks):
        seen["/late"] = tasks.runner

    @outer.get("/batch")
    async def batch(request: Request):
        async with anyio.create_task_group() as group:
            for path in ("/inner/slow", "/quick"):
                group.start_soon(call_again, outer, request, path)

    async with serving(inner), serving(outer) as server:
        assert (await server.get("/batch")).status_code == 200
    assert seen == {"/inner/slow": inner.state.runner, "/late": outer.state.runner}


@pytest.mark.parametrize("times", [1, 3])
async def test_many_runs_leave_nothing(times):
    """G20: what a run had is free when its request has ended."""
    app = make_app()
    references = []

    @app.get("/inner")
    async def inner(tasks: Tasks):
        references.append(weakref.ref(tasks))
        tasks.after_response.schedule(anyio.sleep, 1)

    @app.get("/outer")
    async def outer(request: Request):
        for _ in range(times):
            await call_again(app, request, "/inner")

    async with serving(app) as server:
        await server.get("/outer")
        await app.state.runner.join()
        await settle()
        gc.collect()
        assert [reference() for reference in references] == [None] * times


async def test_a_mounted_app_that_is_called_after_the_response():
    """G18: the outer app's runner is still that of the innermost app around it that runs."""
    outer, inner = make_app(), make_app()
    runners = []

    @outer.get("/")
    async def endpoint(): ...

    @inner.get("/inner")
    async def endpoint_of_inner(tasks: Tasks):
        runners.append(tasks.runner)

    @middleware(outer)
    async def call_inner_after(wrapped, scope, receive, send):
        await wrapped(scope, receive, send)
        await inner({**scope, "path": "/inner", "raw_path": b"/inner"}, receive, ignore)

    async with serving(outer) as server:
        assert (await server.get()).status_code == 200
    assert runners == [outer.state.runner]


async def test_a_middleware_that_calls_the_app_again():
    """Each run of the route has its own end: its tasks are dropped or started there."""
    app, journal = make_app(), Journal()
    attempts = []

    @middleware(app)
    async def again(wrapped, scope, receive, send):
        for _ in range(3):
            with contextlib.suppress(ValueError):
                await wrapped(scope, receive, send)

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

    @middleware(app)
    async def twice(wrapped, scope, receive, send):
        await wrapped(scope, receive, send)
        await wrapped(scope, receive, ignore)

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
        with contextlib.suppress(OSError):
            await app(scope, receive, ignore)
            return
        await app(scope, receive, send)

    async with serving(app) as server:
        server.app = try_twice
        await server.call_raw(send=journal.send)
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

    @middleware(outer)
    async def try_inner_first(wrapped, scope, receive, send):
        messages = []

        async def hold(message):
            messages.append(message)

        await inner(scope, receive, hold)
        assert messages[0]["status"] == 404
        await wrapped(scope, receive, send)

    async with serving(inner), serving(outer) as server:
        assert (await server.get()).json() is True


async def test_any_number_of_runs():
    """G20: those of which nobody needs anything more are not kept, however long a request goes on."""
    app = make_app()
    kept = []

    @app.get("/inner")
    async def inner(tasks: Tasks):
        kept.append(weakref.ref(tasks))
        tasks.after_route.schedule(anyio.sleep, 0)

    @app.get("/outer")
    async def outer(request: Request):
        for _ in range(20):
            await call_again(app, request, "/inner")
            await settle()
        gc.collect()
        return sum(reference() is not None for reference in kept)

    async with serving(app) as server:
        assert (await server.get("/outer")).json() <= 1


async def test_a_context_that_many_runs_have_passed_through():
    """G20: it knows of those that go on, and of the last one."""
    app = make_app()
    known = []

    @app.get("/inner")
    async def inner(tasks: Tasks): ...

    @app.get("/outer")
    async def outer(request: Request, tasks: Tasks):
        for _ in range(20):
            await call_again(app, request, "/inner")
            gc.collect()
        known.extend(routes.get())
        return known[0]() is tasks._route

    async with serving(app) as server:
        assert (await server.get("/outer")).json() is True
    assert len(known) == 2
