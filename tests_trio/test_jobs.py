"""What becomes of a task: its id, its progress, its labels, waiting for it."""

import os
import threading
from dataclasses import FrozenInstanceError

import anyio
import pytest
from anyio import TaskCancelled, TaskFailed, TaskNotFinished, from_thread, to_thread
from pydantic import BaseModel

from fastapi_tasks import FastAPITasksError, Instrument, TaskConfig, Tasks, TaskState, track
from fastapi_tasks._core import progress as progress_module
from fastapi_tasks._core.identity import is_of_this_process, new_id
from fastapi_tasks.jobs import History, create_router
from tests_trio.support import double, make_app, raises, serving, settle


async def test_ids():
    """Each task has one of its own, by which it is found as long as it is unfinished."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        first, second = (runner.schedule(double, number, sleep=1) for number in (1, 2))
        assert first.id == first.id != second.id
        assert runner.get_task(first.id) is first
        assert runner.get_task(second.id) is second
        assert runner.get_task("") is runner.get_task(f"{first.id}0") is None
        await runner.join()
        assert runner.get_task(first.id) is None
        late = runner.schedule(double, 1)
        await late
        assert runner.get_task(late.id) is None  # asked for when it had finished
        assert is_of_this_process(late.id)
        assert runner._supervisor.registry._ids == runner._supervisor.registry._by_id == {}


async def test_ids_cannot_be_guessed():
    """Not from others: neither the signature nor the process can be told."""
    one, two = new_id(), new_id()
    epoch, number, signature = one.split("-")
    assert is_of_this_process(one)
    assert is_of_this_process(two)
    assert two.split("-")[0] == epoch
    assert int(two.split("-")[1], 16) == int(number, 16) + 1
    assert len(signature) == 32
    forged = f"{epoch}-{int(number, 16) + 9:x}-{signature}"
    for other in (
        forged,
        "",
        "-",
        "--",
        f"{epoch}-{number}",
        f"{epoch}-{number}-",
        "é-1-é",
        f"x{one}",
    ):
        assert not is_of_this_process(other)


def ids_of_a_child():
    """The first id of a forked process."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        os.close(writer)
        return file.read()


def test_ids_of_forked_processes():
    """They have another key: two workers never give one id to different tasks."""
    ours = new_id()
    theirs = {ids_of_a_child() for _ in range(3)}
    assert len({each.split("-")[0] for each in (ours, *theirs)}) == 4
    assert not any(is_of_this_process(each) for each in theirs)


async def test_ids_from_threads():
    """Many threads that ask for the first time get the same."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(anyio.sleep, 1)
        barrier, ids = threading.Barrier(8), []

        def ask():
            barrier.wait()
            ids.append(task.id)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ids == [task.id] * 8


class Heard(Instrument):
    """Writes down what an instrument hears."""

    def __init__(self):
        self.heard = []

    def attached(self, runner):
        self.heard.append(("attached", runner))

    def task_scheduled(self, task):
        self.heard.append("scheduled")

    def task_progressed(self, task):
        self.heard.append((task.progress.done, threading.current_thread().name))

    def task_finished(self, task):
        self.heard.append("finished")


@pytest.fixture
def clock(monkeypatch):
    """The clock that progress looks at."""
    now = [100.0]
    monkeypatch.setattr(progress_module, "monotonic", lambda: now[0])
    return now


@pytest.mark.real_time
async def test_progress(clock):
    """It is told in the setter's thread, at most each 0.1 s; the last value before the end."""
    heard = Heard()
    app = make_app(instruments=[heard])
    runner = app.state.runner

    def work():
        name = threading.current_thread().name
        progress = task.progress
        for done in range(1, 7):
            progress.done = done
            clock[0] += 0.04
        return name

    async with serving(app):
        task = runner.schedule(work)
        assert (task.progress.done, task.progress.total, task.progress.message) == (0, None, "")
        name = await task
        loop = threading.current_thread().name
    assert heard.heard == [
        ("attached", runner),
        "scheduled",
        (1, name),
        (4, name),
        (6, loop),
        "finished",
    ]
    task.progress.total, task.progress.message = 12, "secret"
    assert repr(task.progress) == "<Progress 6 of 12>"


async def test_a_task_without_progress_tells_of_none():
    heard = Heard()
    app = make_app()
    async with serving(app):
        with app.state.runner.watching(heard):
            await app.state.runner.schedule(double, 1)
    assert heard.heard == [("attached", app.state.runner), "scheduled", "finished"]


async def test_track():
    """Over iterables of both kinds; outside of a task it only goes through them."""
    app = make_app()
    runner = app.state.runner

    async def numbers():
        for number in range(2):
            yield number

    async def work():
        task, seen = runner.tasks[0], []
        for _ in track("abc"):
            seen.append((task.progress.done, task.progress.total))
        seen.append(task.progress.done)
        for _ in track(iter("ab")):
            seen.append((task.progress.done, task.progress.total))
        async for _ in track(numbers(), total=2):
            seen.append((task.progress.done, task.progress.total))
        return [*seen, task.progress.done]

    async with serving(app):
        assert await runner.schedule(work) == [
            *((0, 3), (1, 3), (2, 3), 3),
            *((0, None), (1, None)),
            *((0, 2), (1, 2), 2),
        ]
    assert [*track("abc")] == ["a", "b", "c"]
    assert [number async for number in track(numbers())] == [0, 1]
    with pytest.raises(TypeError, match="not iterable"):
        track(7)


async def test_return_value():
    """It is what `await task` gives or raises, once the task has finished."""
    app = make_app()
    runner = app.state.runner
    error = ValueError()
    async with serving(app):
        task = runner.schedule(double, 1, sleep=1)
        with pytest.raises(TaskNotFinished, match="'double' has not finished"):
            _ = task.return_value
        await task.wait()
        assert task.return_value == 2
        failed = runner.schedule(raises, error)
        await failed.wait()
        with pytest.raises(ValueError) as caught:
            _ = failed.return_value
        assert caught.value is error
        ended = runner.schedule(raises, SystemExit())
        cancelled = runner.schedule(anyio.sleep_forever)
        await settle()
        cancelled.cancel()
        await runner.join()
        for kind, each in ((TaskFailed, ended), (TaskCancelled, cancelled)):
            with pytest.raises(kind):
                _ = each.return_value


async def test_wait():
    """It raises nothing of the outcome, and refuses what `await task` refuses."""
    app, refused = make_app(), []

    async def wait_for_itself():
        with pytest.raises(FastAPITasksError, match="cannot wait for itself") as caught:
            await task.wait()
        refused.append(caught.value)

    async with serving(app):
        task = app.state.runner.schedule(wait_for_itself)
        assert await task.wait() is None
        assert len(refused) == 1
        failed = app.state.runner.schedule(raises, ValueError())
        assert await failed.wait() is None
        assert failed.state is TaskState.FAILED
        with anyio.move_on_after(1):
            sleeping = app.state.runner.schedule(anyio.sleep, 5)
            await sleeping.wait()
        assert sleeping.state is TaskState.RUNNING  # cancelling the waiter leaves it alone


@pytest.mark.real_time
async def test_wait_from_thread():
    """For `def` endpoints and threads; not on the event loop, nor where it would wait for itself."""
    app, refused = make_app(), []
    runner = app.state.runner

    def wait_for(task, *args):
        try:
            task.wait_from_thread(*args)
        except FastAPITasksError as exc:
            refused.append(str(exc))

    @app.get("/now")
    def now(tasks: Tasks) -> int:
        task = tasks.schedule(double, 4)
        wait_for(task)
        return task.return_value

    @app.get("/after")
    def after(tasks: Tasks) -> str:
        task = tasks.after_route.task(name="later").schedule(double, 4)
        wait_for(task)
        return task.state.value

    def wait_for_itself():
        wait_for(runner.tasks[0])

    async def wait_for_the_waiter():
        await waiting
        return "never"

    def wait_in_a_circle():
        other.append(runner.task(name="other").schedule(wait_for_the_waiter))
        while not other[0].awaited:
            threading.Event().wait(0.001)
        wait_for(other[0])

    other = []
    async with serving(app) as server:
        assert (await server.get("/now")).json() == 8
        assert (await server.get("/after")).json() == "pending"
        await runner.schedule(wait_for_itself)
        waiting = runner.task(name="waiting").schedule(wait_in_a_circle)
        await waiting
        await runner.join()
        sleeping = runner.task(name="sleeping").schedule(anyio.sleep_forever)
        wait_for(sleeping)
        with pytest.raises(TimeoutError, match=r"'sleeping' has not finished within 0\.01 s"):
            await to_thread.run_sync(sleeping.wait_from_thread, 0.01)
        sleeping.cancel()
        await to_thread.run_sync(sleeping.wait_from_thread)
        assert sleeping.state is TaskState.CANCELLED
        sleeping.wait_from_thread()  # it has finished: nothing blocks
    assert [each.partition(":")[0] for each in refused] == [
        "task 'later' starts after route, so after the route, whose own code would wait for it here",
        "task 'test_wait_from_thread.<locals>.wait_for_itself' cannot wait for itself",
        "task 'other' ends after task 'waiting', whose own code would wait for it here",
        "this would block the event loop, on which task 'sleeping' runs",
    ]


async def test_labels():
    """They are merged key by key, and are strings."""
    app = make_app(config=TaskConfig(labels={"app": "shop", "user": "nobody"}))
    scheduler = app.state.runner.task(labels={"user": "ann"})
    async with serving(app):
        task = scheduler.task(labels={"kind": "export"}, name="export").schedule(double, 1)
        assert task.config.labels == {"app": "shop", "user": "ann", "kind": "export"}
        assert app.state.runner.schedule(double, 1).config.labels == {
            "app": "shop",
            "user": "nobody",
        }
        with pytest.raises(TypeError):
            task.config.labels["user"] = "bob"
    labels = {"user": "ann"}
    config = TaskConfig(labels=labels)
    labels["user"] = "bob"
    assert config.labels == {"user": "ann"}
    assert hash(config) == hash(TaskConfig())
    for wrong in ({"user": 7}, {7: "user"}, "user", [("user", "ann")]):
        with pytest.raises(TypeError, match="labels must be a mapping of strings to strings"):
            TaskConfig(labels=wrong)


@pytest.mark.real_time
async def test_progress_from_anywhere():
    """Also from a thread of the task's own that waits, and by whoever has the handle."""
    app = make_app()

    async def work():
        task.progress.total = 2

        def in_thread():
            task.progress.done += 1
            from_thread.run_sync(setattr, task.progress, "message", "half")

        await to_thread.run_sync(in_thread)

    async with serving(app):
        task = app.state.runner.schedule(work)
        await task
    assert (task.progress.done, task.progress.total, task.progress.message) == (1, 2, "half")


# What is remembered.


async def make_tasks(runner, *funcs):
    """Run tasks one after the other."""
    tasks = []
    for func in funcs:
        tasks.append(runner.schedule(func))
        await tasks[-1].wait()
    return tasks


async def test_history():
    """Finished tasks as records, the newest first: with neither arguments nor the task."""
    history = History(keep_results=True)
    app = make_app(instruments=[history])
    runner = app.state.runner

    async def work():
        for _ in track("ab"):
            await anyio.sleep(1)
        return "done"

    async def fail():
        raise ValueError("why")

    async with serving(app):
        task = runner.task(labels={"user": "ann"}).schedule(work)
        id_ = task.id
        waiting = history.get(id_)
        assert (waiting.state, waiting.started_at, waiting.finished_at) == (
            TaskState.PENDING,
            None,
            None,
        )
        await settle()
        running = history.get(id_)
        assert (running.state, running.progress) == (TaskState.RUNNING, (0, 2, ""))
        await make_tasks(runner, fail)
        cancelled = runner.schedule(anyio.sleep_forever)
        cancelled.cancel()
        await task
        await runner.join()
    assert history.get("nothing") is None
    done = history.get(id_)
    newest, second, oldest = history.records
    assert newest is done
    assert (done.id, done.name, done.timing) == (id_, task.name, "now")
    assert (done.state, done.attempts, done.labels) == (TaskState.SUCCEEDED, 1, {"user": "ann"})
    assert (done.progress, done.result, done.error) == ((2, 2, ""), "done", None)
    assert done.scheduled_at <= done.started_at <= done.finished_at
    assert str(done.finished_at.tzinfo) == "UTC"
    assert {second.state, oldest.state} == {TaskState.FAILED, TaskState.CANCELLED}
    failed = second if second.error else oldest
    assert (failed.error.type, failed.error.message) == ("builtins.ValueError", "why")
    assert failed.error.traceback.endswith('raise ValueError("why")\nValueError: why\n')
    assert "why" not in repr(failed) + repr(failed.error)
    with pytest.raises(FrozenInstanceError):
        done.state = None


async def test_a_flood_evicts_no_job():
    """Jobs, failures and the others have a ring each."""
    history = History(max_tasks=2)
    app = make_app(instruments=[history])
    runner = app.state.runner

    async def fail():
        raise ValueError

    async with serving(app):
        ids = []
        for number in range(3):
            job = runner.schedule(double, number)
            ids.append(job.id)
            await job
        await make_tasks(runner, *[fail] * 3)
        await make_tasks(runner, *[anyio.lowlevel.checkpoint] * 10)
    assert history.get(ids[0]) is None
    assert [history.get(id_).id for id_ in ids[1:]] == ids[1:]
    names = [record.name for record in history.records]
    assert sorted(names) == sorted(["double"] * 2 + [fail.__qualname__] * 2 + ["checkpoint"] * 2)


async def test_an_id_that_is_asked_for_late():
    """Of a task that has finished, as long as somebody holds it."""
    history = History()
    app = make_app(instruments=[history])
    async with serving(app):
        (task,) = await make_tasks(app.state.runner, anyio.lowlevel.checkpoint)
        assert [record.id for record in history.records] == [None]
        assert history.get(task.id).id == task.id
        assert history.get(task.id) is history.get(task.id)
        assert [record.id for record in history.records] == [task.id]


async def test_records_grow_old(monkeypatch):
    """Past `max_age` seconds they are forgotten."""
    now = [1000.0]
    monkeypatch.setattr("fastapi_tasks.jobs.history.time", lambda: now[0])
    history = History(max_age=10)
    app = make_app(instruments=[history])

    async def fail():
        raise ValueError

    async with serving(app):
        runner = app.state.runner
        job = runner.schedule(double, 1)
        id_ = job.id
        held = await make_tasks(runner, fail, anyio.lowlevel.checkpoint)
        await runner.join()
        now[0] += 10
        assert len(history.records) == 3
        assert history.get(id_) is not None
        now[0] += 1
        assert history.records == ()
        assert history.get(id_) is history.get(held[0].id) is None


async def test_what_a_history_cannot_be():
    """Clear errors."""
    for options in ({"max_tasks": 0}, {"max_tasks": 1.5}, {"max_age": 0}, {"max_age": -1}):
        with pytest.raises(ValueError, match="must be a"):
            History(**options)
    history = History()
    with pytest.raises(FastAPITasksError, match=r"add_tasks\(app, instruments=\[history\]\)"):
        history.get("id")
    make_app(instruments=[history])
    make_app(instruments=[history])  # is logged, and the history stays with the first app


async def test_a_history_that_comes_late():
    """It remembers tasks of whose beginning it has not heard."""
    history = History()
    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(anyio.sleep, 1)
        await settle()
        with app.state.runner.watching(history):
            await task
        assert [record.started_at for record in history.records] == [None]


# Over HTTP.


def make_jobs_app(history=None, **options):
    history = history or History()
    app = make_app(instruments=[history])
    app.include_router(create_router(history, **options), prefix="/jobs")
    return app


async def test_a_job_over_http():
    """From its beginning to its end."""
    app = make_jobs_app(History(keep_results=True))

    async def export():
        task.progress.message = "half"
        await anyio.sleep(10)
        return {"rows": 3}

    async with serving(app) as server:
        task = app.state.runner.task(labels={"user": "ann"}).schedule(export)
        path = f"/jobs/{task.id}"
        await settle()
        response = await server.get(path)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["retry-after"] == "1"
        body = response.json()
        assert {key: body[key] for key in ("id", "state", "attempts", "labels", "error")} == {
            "id": task.id,
            "state": "running",
            "attempts": 1,
            "labels": {"user": "ann"},
            "error": None,
        }
        assert body["progress"] == {"done": 0, "total": None, "message": "half"}
        assert (body["finished_at"], body["result"]) == (None, None)
        begin = anyio.current_time()
        assert (await server.get(f"{path}?wait=0.5")).json()["state"] == "running"
        assert anyio.current_time() == begin + 0.5
        await anyio.sleep(9)
        assert (await server.get(f"{path}?wait=0.9")).json()["state"] == "succeeded"
        assert anyio.current_time() == begin + 10
        response = await server.get(path)
        assert "retry-after" not in response.headers
        assert (response.json()["result"], response.json()["finished_at"][-1]) == ({"rows": 3}, "Z")
        assert (await server.get(f"{path}?wait=1")).status_code == 422


async def test_jobs_that_are_not_there():
    """410 for one of this process that is forgotten, else 404; neither is cached."""
    app = make_jobs_app(History(max_tasks=1))
    async with serving(app) as server:
        ids = []
        for number in range(2):
            job = app.state.runner.schedule(double, number)
            ids.append(job.id)
            await job
        for id_, status in ((ids[0], 410), (ids[1], 200), ("0-1-2", 404), (f"{ids[0]}0", 404)):
            response = await server.get(f"/jobs/{id_}")
            assert (response.status_code, response.headers["cache-control"]) == (status, "no-store")
        assert "another worker" in (await server.get("/jobs/x")).json()["detail"]


async def test_messages_of_errors_over_http():
    """They may quote arguments, so they are shown only if that was asked for."""

    class Model(BaseModel):
        number: int

    async def validate():
        Model(number="secret-7f3a")

    for shown in (False, True):
        app = make_jobs_app(error_messages=shown)
        async with serving(app) as server:
            task = app.state.runner.schedule(validate)
            path = f"/jobs/{task.id}"
            await task.wait()
            response = await server.get(path)
        assert ("secret-7f3a" in response.text) is shown
        assert response.json()["error"]["type"].endswith("ValidationError")


async def test_results_that_are_no_json(caplog):
    """They are null, with one WARNING for each answer."""
    app = make_jobs_app(History(keep_results=True))

    async def work():
        return {"lock": threading.Lock()}

    async with serving(app) as server:
        task = app.state.runner.task(name="work").schedule(work)
        path = f"/jobs/{task.id}"
        await task
        assert (await server.get(path)).json()["result"] is None
    assert [record.getMessage() for record in caplog.records] == [
        "the result of task 'work' cannot be shown as JSON"
    ]


@pytest.mark.parametrize("cancel", [False, True])
async def test_cancelling_over_http(cancel):
    """Only if that was asked for; 409 when it has finished."""
    app = make_jobs_app(cancel=cancel)
    async with serving(app) as server, server.client as client:
        task = app.state.runner.schedule(anyio.sleep, 5)
        path = f"/jobs/{task.id}"
        await settle()
        assert (await client.delete(path)).status_code == (202 if cancel else 405)
        await task.wait()
        assert task.state is (TaskState.CANCELLED if cancel else TaskState.SUCCEEDED)
        assert (await client.delete(path)).status_code == (409 if cancel else 405)
        assert (await client.delete("/jobs/x")).status_code == (404 if cancel else 405)
