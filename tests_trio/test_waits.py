"""Nobody waits for ever: what certainly would is refused, and nothing else is."""

import contextvars
import gc
import threading

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import current_token
from fastapi import Depends, Request, WebSocket

from fastapi_tasks import FastAPITasksError, Task, Tasks, TaskState
from tests_trio.support import (
    Journal,
    call_again,
    double,
    make_app,
    request_tasks,
    serving,
    settle,
)


async def result_of(task):
    return await task


async def test_a_task_that_holds_the_response_and_awaits_what_comes_after_it():
    """The response waits for the one, the other for the response."""
    app, held = make_app(), []

    async def total(tasks):
        return await tasks.after_response.task(name="late").schedule(double, 2)

    async def prepare(tasks: Tasks):
        held.append(tasks.task(hold_response=True, name="total").schedule(total, tasks))

    @app.get("/", dependencies=[Depends(prepare)])
    async def endpoint(): ...

    async with serving(app) as server:
        with anyio.fail_after(5):
            assert (await server.get()).status_code == 200
    assert isinstance(held[0].exception, FastAPITasksError)
    assert str(held[0].exception) == (
        "task 'late' starts after response, so after task 'total', whose own code would wait for "
        "it here: await it in another task"
    )


async def test_a_task_that_no_longer_holds_the_response():
    """It awaits what comes after that as anybody may."""
    app = make_app()
    tasks_of_app = []

    async def total(tasks, late):
        return await late

    @app.get("/")
    async def endpoint(tasks: Tasks):
        late = tasks.after_response.schedule(double, 3)
        tasks_of_app.append(tasks.after_route.schedule(total, tasks, late))

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        assert await tasks_of_app[0] == 6


async def test_waits_that_go_by_way_of_others():
    """The endpoint awaits a task, which awaits one, which starts when the endpoint has returned."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    @app.get("/")
    async def endpoint(tasks: Tasks):
        late = tasks.after_route.task(name="late").schedule(double, 1)
        third = runner.task(name="third").schedule(result_of, late)
        second = runner.task(name="second").schedule(result_of, third)
        await settle()  # they wait for each other, and as yet for nobody else
        try:
            await second
        except FastAPITasksError as error:
            journal.append(str(error))

    @app.get("/later")
    async def later(tasks: Tasks):
        ready = anyio.Event()

        async def last():
            await ready.wait()
            late = tasks.after_route.task(name="late").schedule(double, 1)
            await late

        task = runner.task(name="last").schedule(last)

        async def make_ready():
            await anyio.sleep(1)
            ready.set()

        runner.schedule(make_ready)
        await task  # of which nothing is wrong yet

    async with serving(app) as server:
        with anyio.fail_after(50):
            assert (await server.get()).status_code == 200
            assert (await server.get("/later")).status_code == 500
        await runner.join()
    assert journal == [
        "task 'second' ends after task 'third', and that after task 'late', and that after the "
        "route, whose own code would wait for it here: await it in another task"
    ]


async def test_two_tasks_that_await_each_other():
    """The second to do so is refused."""
    app = make_app()
    runner = app.state.runner
    tasks: list[Task] = []

    async def await_the_other(number):
        await settle()
        return await tasks[1 - number]

    async with serving(app):
        tasks += [runner.schedule(await_the_other, number) for number in range(2)]
        await runner.join()
    refused = [task for task in tasks if isinstance(task.exception, FastAPITasksError)]
    assert len(refused) == 2  # the other one gets the first one's error
    assert tasks[0].exception is tasks[1].exception


async def test_a_wait_that_was_given_up_is_none():
    """Only waits that go on count."""
    app = make_app()
    runner = app.state.runner

    async def impatient(box):
        await anyio.sleep(0.5)
        with anyio.move_on_after(1):
            await box[0]
        await anyio.sleep(1)
        return 5

    async with serving(app):
        box: list[Task] = []
        other = runner.schedule(impatient, box)
        await settle()

        async def wait_for_other():
            await anyio.sleep(2)
            return await other

        box.append(runner.schedule(wait_for_other))
        assert await box[0] == 5


@pytest.mark.real_time
@pytest.mark.parametrize("point", ["after_route", "after_response"])
async def test_a_def_endpoint_that_waits_for_what_comes_after_it(point):
    """In its thread, by `anyio.from_thread.run()`: it is refused as in an `async def` endpoint."""
    app = make_app()

    @app.get("/")
    def endpoint(tasks: Tasks):
        task = getattr(tasks, point).task(name="late").schedule(double, 3)
        with pytest.raises(FastAPITasksError, match=f"'late' starts {point.replace('_', ' ')}"):
            from_thread.run(result_of, task)
        return from_thread.run(result_of, tasks.schedule(double, 2))

    async with serving(app) as server:
        with anyio.fail_after(5):
            assert (await server.get()).json() == 4


@pytest.mark.real_time
async def test_a_sync_task_that_waits_for_itself():
    """In its thread, and in the thread of its error handler."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    def wait_for(task):
        with pytest.raises(FastAPITasksError, match="cannot wait for itself"):
            from_thread.run(result_of, task)
        with pytest.raises(FastAPITasksError, match="task 'narcissus' would wait for itself: join"):
            from_thread.run(runner.join)
        journal.append("refused")

    def narcissus(box):
        wait_for(box[0])
        raise ValueError

    async def start(box):
        box.append(runner.task(name="narcissus", on_error=handle).schedule(narcissus, box))

    def handle(task, error):
        wait_for(task)

    async with serving(app):
        await start([])
        await runner.join()
    assert journal == ["refused", "refused"]


async def test_a_watcher_that_a_task_starts_elsewhere():
    """It may await its own starter, and `join()`: neither is in the way."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async def watch(box):
        journal.append(f"the result is {await box[0]}")

    async def watch_all():
        await runner.join()
        journal.append("all have ended")

    async with serving(app), anyio.create_task_group() as monitors:
        box: list[Task] = []

        async def work():
            monitors.start_soon(watch, box)
            monitors.start_soon(watch_all)
            await anyio.sleep(1)
            return 42

        box.append(runner.schedule(work))
        await settle()
    assert sorted(journal) == ["all have ended", "the result is 42"]


async def test_what_an_endpoint_starts_may_wait_for_what_comes_after_it():
    """It may belong to a task group that outlives the request."""
    app, results = make_app(), []

    async with anyio.create_task_group() as group:

        async def wait(task):
            results.append(await task)

        @app.get("/")
        async def endpoint(tasks: Tasks):
            group.start_soon(wait, tasks.after_response.schedule(double, 4))
            await settle()

        async with serving(app) as server:
            assert (await server.get()).status_code == 200
    assert results == [8]


@pytest.mark.real_time
async def test_threads_of_others_are_not_refused():
    """A thread that a task starts for somebody else is not the task's own."""
    app, results = make_app(), []
    runner = app.state.runner
    box: list[Task] = []

    async with anyio.create_task_group() as group:

        def in_thread():
            results.append(from_thread.run(result_of, box[0]))

        async def work():
            group.start_soon(to_thread.run_sync, in_thread)
            await anyio.sleep(0.05)
            return 42

        async with serving(app):
            box.append(runner.schedule(work))
            await runner.join()
    assert results == [42]


async def test_an_endpoint_that_joins():
    """Its own *after* tasks would wait for it; without any, it waits for all others."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    @app.get("/{late}")
    async def endpoint(late: bool, tasks: Tasks):
        runner.schedule(journal.ends("task"))
        if late:
            tasks.after_response.schedule(double, 1)
        await runner.join()
        journal.append("joined")

    async with serving(app) as server:
        assert (await server.get("/false")).status_code == 200
        assert journal == ["task starts", "task ends", "joined"]
        with pytest.raises(FastAPITasksError, match="the route would wait for itself: join"):
            await server.call_raw("/true")


async def test_a_task_cannot_join():
    """It would wait for itself."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.task(name="t").schedule(app.state.runner.join)
        await task.finished.wait()
        assert isinstance(task.exception, FastAPITasksError)
        assert str(task.exception) == "task 't' would wait for itself: join() elsewhere"


async def test_a_task_that_runs_a_request():
    """The task and the route are both there: either may be in the way."""
    app, journal = make_app(), Journal()
    runner = app.state.runner
    box: list[Task] = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        for task in (box[0], tasks.after_route.schedule(double, 1)):
            with pytest.raises(FastAPITasksError):
                await task
            journal.append("refused")
        return await tasks.schedule(double, 2)

    async with serving(app) as server:
        box.append(runner.schedule(server.get))
        response = await box[0]
        assert response.json() == 4
    assert journal == ["refused", "refused"]


async def test_a_websocket_holds_nothing():
    """There is no response, so `hold_response` is in nobody's way."""
    app, results = make_app(), []

    async def total(tasks):
        results.append(await tasks.after_response.schedule(double, 5))

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        await socket.accept()
        tasks.task(hold_response=True).schedule(total, tasks)
        await anyio.sleep(1)

    async def receive():
        return {"type": "websocket.connect"}

    async with serving(app) as server:
        await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])
        await app.state.runner.join()
    assert results == [10]


@pytest.mark.real_time
@pytest.mark.parametrize("other", ["trio", "asyncio"])
async def test_events_that_another_event_loop_looks_at_first(other):
    """They belong to the app's: there one waits for them, from there they are set."""
    app, looks = make_app(), []
    runner = app.state.runner

    async def look(task):
        looks.append((task.started.is_set(), task.finished.is_set()))
        assert task.finished.statistics().tasks_waiting == 0
        with pytest.raises(FastAPITasksError, match="wait for it there"):
            await task.finished.wait()

    def look_from_there(task):
        anyio.run(look, task, backend=other)

    async with serving(app):
        go_on = anyio.Event()
        task = runner.schedule(go_on.wait)
        await to_thread.run_sync(look_from_there, task)
        async with anyio.create_task_group() as group:
            group.start_soon(task.finished.wait)
            await settle()
            assert task.finished.statistics().tasks_waiting == 1
            go_on.set()
        assert await task is None
        assert isinstance(task.started, anyio.Event)
        await task.finished.wait()
        await to_thread.run_sync(look_from_other_loop, task, other)
    assert looks in ([(False, False)], [(True, False)])
    assert task.state is TaskState.SUCCEEDED


def look_from_other_loop(task, other):
    anyio.run(task.finished.wait, backend=other)


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


async def test_a_teardown_that_the_response_waits_for():
    """When the route has failed, the response comes after the teardowns of request scope."""
    app, journal = make_app(), Journal()

    async def clean_up(tasks: Tasks):
        try:
            yield
        finally:
            late = tasks.after_response.task(name="late").schedule(double, 1)
            with pytest.raises(FastAPITasksError, match="starts after response, so after the rou"):
                await late
            journal.append("refused")

    @app.get("/", dependencies=[Depends(clean_up)])
    async def endpoint():
        raise ValueError

    async with serving(app) as server:
        assert (await server.get()).status_code == 500
    assert journal == ["refused"]


@pytest.mark.parametrize("point", ["after_route", "after_response"])
@pytest.mark.parametrize("paths", [[], ["/inner"], ["/inner", "/inner"], ["/middle"]], ids="-".join)
async def test_an_endpoint_that_has_called_others(point, paths):
    """Inside of its own task: it is still in the way of what comes after itself."""
    app, journal = make_app(), Journal()

    async def wait_for_late(tasks, name):
        late = getattr(tasks, point).task(name=name).schedule(double, 1)
        with pytest.raises(FastAPITasksError) as refused:
            await late
        journal.append(str(refused.value))

    @app.get("/inner")
    async def inner(tasks: Tasks):
        await wait_for_late(tasks, "inner")

    @app.get("/middle")
    async def middle(request: Request, tasks: Tasks):
        await call_again(app, request, "/inner")
        await wait_for_late(tasks, "middle")

    @app.get("/outer")
    async def outer(request: Request, tasks: Tasks):
        for path in paths:
            assert await call_again(app, request, path) == [200]
        await wait_for_late(tasks, "outer")

    async with serving(app) as server:
        with anyio.fail_after(50):
            assert (await server.get("/outer")).status_code == 200
    deeper = [path[1:] for path in paths]
    if "middle" in deeper:
        deeper.insert(0, "inner")
    assert journal == [
        f"task {name!r} starts {point.replace('_', ' ')}, so after the route, whose own code "
        "would wait for it here: await it in another task"
        for name in [*deeper, "outer"]
    ]


@pytest.mark.parametrize("who", ["outer", "inner"])
async def test_an_endpoint_that_calls_another(who):
    """Both routes are in the way of the outer one's tasks, as is the outer one when it goes on."""
    app, journal = make_app(), Journal()
    box: list[Task] = []

    async def wait_for(task):
        with anyio.fail_after(5):
            try:
                await task
            except FastAPITasksError as error:
                journal.append(str(error))

    @app.get("/inner")
    async def inner(tasks: Tasks):
        if who == "inner":
            await wait_for(box[0])

    @app.get("/outer")
    async def outer(request: Request, tasks: Tasks):
        box.append(tasks.after_route.task(name="late").schedule(double, 1))
        assert await call_again(app, request, "/inner") == [200]
        if who == "outer":
            await wait_for(box[0])

    async with serving(app) as server:
        assert (await server.get("/outer")).status_code == 200
    assert journal == [
        "task 'late' starts after route, so after the route, whose own code would wait for it "
        "here: await it in another task"
    ]


async def test_a_task_that_comes_while_an_endpoint_joins():
    """`join()` waits for that, too, so it cannot wait for what comes after the endpoint."""
    app = make_app()
    runner = app.state.runner
    tasks_of_app: list[Task] = []

    @app.get("/")
    async def endpoint(tasks: Tasks):
        async def first():
            await settle()  # the endpoint is in `join()`
            late = tasks.after_route.task(name="late").schedule(double, 1)
            tasks_of_app.append(runner.task(name="later").schedule(result_of, late))
            await tasks_of_app[0].finished.wait()
            late.cancel()

        tasks.schedule(first)
        await runner.join()

    async with serving(app) as server:
        with anyio.fail_after(5):
            assert (await server.get()).status_code == 200
    assert isinstance(tasks_of_app[0].exception, FastAPITasksError)
    assert str(tasks_of_app[0].exception) == (
        "task 'late' starts after route, so after the route, and that after task 'later', whose "
        "own code would wait for it here: await it in another task"
    )


async def test_a_task_that_has_the_id_of_a_route_that_has_ended():
    """AnyIO's ids are used again: whoever has one now is in nobody's way."""
    app, results = make_app(), []
    runner = app.state.runner

    async def route():
        tasks = request_tasks(runner)
        late = tasks.after_response.schedule(double, 4)
        return tasks, late, anyio.get_current_task().id, contextvars.copy_context()

    async def wait(tasks, late, number):
        if anyio.get_current_task().id == number:
            results.append(await late)

    async with serving(app), anyio.create_task_group() as group:
        tasks, late, number, context = await runner.schedule(route)
        for _ in range(10):
            gc.collect()
            for _ in range(100):  # which have as many ids
                context.run(group.start_soon, wait, tasks, late, number)
            await settle()
            if late.finished.statistics().tasks_waiting:
                break
        tasks._route.reach("after_response")
        if not results:
            await late
    if not results:
        pytest.skip("no id came again")
    assert results == [8]


@pytest.mark.real_time
@pytest.mark.parametrize("starts", ["in a group", "by itself"])
@pytest.mark.parametrize("who", ["task", "endpoint"])
async def test_threads_that_a_thread_starts_are_not_refused(who, starts):
    """A sync task's, or a `def` endpoint's: it does not wait for them, whatever context they have."""
    app, results = make_app(grace_period=5), []
    runner, token = app.state.runner, current_token()
    is_waiting = threading.Event()
    threads = []

    async def wait_for(task):
        is_waiting.set()
        results.append(await task)

    def start(task):
        if starts == "in a group":
            call = (to_thread.run_sync, from_thread.run, wait_for, task)
            from_thread.run_sync(group.start_soon, *call)
        else:
            context = contextvars.copy_context()
            call = (context.run, lambda: from_thread.run(wait_for, task, token=token))
            threads.append(threading.Thread(target=call[0], args=call[1:]))
            threads[0].start()
        assert is_waiting.wait(10)
        from_thread.run_sync(int)  # the event loop has come so far that it waits, or does not

    def work(box):
        start(box[0])
        return 42

    @app.get("/")
    def endpoint(tasks: Tasks):
        start(tasks.after_response.schedule(double, 21))

    async with anyio.create_task_group() as group, serving(app) as server:
        if who == "task":
            box: list[Task] = []
            box.append(runner.schedule(work, box))
        else:
            assert (await server.get()).status_code == 200
        await runner.join()
        for thread in threads:
            await to_thread.run_sync(thread.join)
    assert results == [42]


@pytest.mark.real_time
@pytest.mark.parametrize("other", ["trio", "asyncio"])
async def test_join_in_another_event_loop(other, caplog):
    """It says what to do; the app's own shutdown, which joins as well, goes on."""
    app, refused = make_app(), []
    runner = app.state.runner

    async def join():
        with anyio.move_on_after(2):
            await runner.join()

    def join_there():
        try:
            anyio.run(join, backend=other)
        except FastAPITasksError as error:
            refused.append(str(error))

    async def shielded():
        await runner.stopping.wait()
        await to_thread.run_sync(join_there)

    async with serving(app):
        task = runner.task(shield=True).schedule(shielded)
    assert refused == [
        "the app runs in another event loop: join() there; a test in another thread has the "
        "wait() of its recorded tasks"
    ]
    assert task.state is TaskState.SUCCEEDED
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    await to_thread.run_sync(join_there)  # nothing is unfinished, so there is nothing to wait for
    assert len(refused) == 1
