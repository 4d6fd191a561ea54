"""What is remembered of tasks, and what is shown of that over HTTP."""

import gc
import logging
import math
import threading
import traceback
import weakref
from dataclasses import FrozenInstanceError, fields

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import Depends, Header, HTTPException
from pydantic import BaseModel

from fastapi_tasks import FastAPITasksError, Instrument, TaskState, current_task, track
from fastapi_tasks.jobs import History, TaskRecord, create_router
from fastapi_tasks.jobs.traces import trace_of
from tests_trio.support import double, make_app, raises, request_tasks, serving, settle


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
        await make_tasks(runner, *[checkpoint] * 10)
    assert history.get(ids[0]) is None
    assert [history.get(id_).id for id_ in ids[1:]] == ids[1:]
    names = [record.name for record in history.records]
    assert sorted(names) == sorted(["double"] * 2 + [fail.__qualname__] * 2 + ["checkpoint"] * 2)


async def test_an_id_that_is_asked_for_late():
    """Of a task that has finished, as long as somebody holds it."""
    history = History()
    app = make_app(instruments=[history])
    async with serving(app):
        (task,) = await make_tasks(app.state.runner, checkpoint)
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
        held = await make_tasks(runner, fail, checkpoint)
        await runner.join()
        now[0] += 10
        assert len(history.records) == 3
        assert history.get(id_) is not None
        now[0] += 1
        assert history.records == ()
        assert history.get(id_) is history.get(held[0].id) is None
        await make_tasks(runner, checkpoint)
        assert len(history.records) == 1
        kept = [history._jobs, history._failed, history._others]
        assert [len(ring) for ring in kept] == [0, 0, 1]  # the old ones leave for good


async def test_what_a_history_cannot_be():
    """Clear errors."""
    for options in ({"max_tasks": 0}, {"max_tasks": 1.5}, {"max_age": 0}, {"max_age": -1}):
        with pytest.raises(ValueError, match="must be a"):
            History(**options)
    history = History()
    with pytest.raises(FastAPITasksError, match=r"add_tasks\(app, instruments=\[history\]\)"):
        history.get("id")
    for max_age in ("1", math.nan, None):
        with pytest.raises(ValueError, match="max_age must be a number of seconds above 0"):
            History(max_age=max_age)
    assert History(max_age=math.inf).keeps_results is False


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


async def test_a_job_that_finished_is_no_job_of_the_flood():
    """An id that was asked for late makes a job of it, which no flood evicts."""
    history = History(max_tasks=2)
    app = make_app(instruments=[history])
    runner = app.state.runner
    async with serving(app):
        held, failed = runner.schedule(double, 1), runner.schedule(raises, ValueError())
        await make_tasks(runner, *[checkpoint] * 5)  # by which the record of `held` is evicted
        await runner.join()
        ids = [held.id, failed.id]
        assert [history.get(id_).id for id_ in ids] == ids
        await make_tasks(runner, *[checkpoint] * 5)
        assert [history.get(id_).id for id_ in ids] == ids
        assert [record.id for record in history.records].count(None) == 2
        for _ in range(2):
            job = runner.schedule(double, 1)
            ids.append(job.id)
            await job
        assert [history.get(id_) is None for id_ in ids] == [True, True, False, False]


async def test_records_keep_nothing():
    """G20: neither arguments, nor the task, its exception or a frame; without a collection."""
    history = History()
    app = make_app(instruments=[history])
    references = []

    class Order: ...

    async def fail(order):
        mine = Order()
        references.append(weakref.ref(mine))
        raise ValueError(1) from KeyError(2)

    async def sleep(order):
        await anyio.sleep(1)

    def begin(func, *, asked):
        order = Order()
        task = app.state.runner.schedule(func, order)
        references.extend([weakref.ref(order), weakref.ref(task)])
        return task.id if asked else None

    async with serving(app):
        gc.collect()
        gc.disable()
        logging.getLogger("fastapi_tasks").disabled = True
        try:
            ids = [begin(func, asked=asked) for func in (fail, sleep) for asked in (True, False)]
            await app.state.runner.join()
            await settle()
            assert [reference() for reference in references] == [None] * 10
        finally:
            gc.enable()
            logging.getLogger("fastapi_tasks").disabled = False
    assert len(history.records) == 4
    assert history.get(ids[0]).error.type == "builtins.ValueError"
    names = {field.name for field in fields(TaskRecord)}
    assert not names & {"args", "kwargs", "task", "func", "exception"}


class UntellableError(Exception):
    """Raises whatever it is asked."""

    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    def __getattribute__(self, name):
        if name in ("error", "__class__", "__dict__"):
            return super().__getattribute__(name)
        raise super().__getattribute__("error")


UntellableError.__module__ = 7


async def test_exceptions_that_cannot_be_told():
    """Are recorded all the same, and the history goes on."""
    history = History()
    app = make_app(instruments=[history])
    async with serving(app):
        for error in (ValueError(), SystemExit()):
            task = app.state.runner.schedule(raises, UntellableError(error))
            await task.wait()
        await make_tasks(app.state.runner, checkpoint)
    last, *failed = history.records
    assert last.state is TaskState.SUCCEEDED
    for record in failed:
        assert (record.error.type, record.error.message) == (
            "?.UntellableError",
            "(what it says cannot be shown)",
        )
        assert record.error.traceback.endswith(
            "?.UntellableError: (what it says cannot be shown)\n"
        )


def test_a_ctrl_c_while_an_exception_is_told():
    """It passes."""

    class SilentError(UntellableError):
        def __str__(self):
            return "told"

    for kind in (UntellableError, SilentError):
        with pytest.raises(KeyboardInterrupt):
            trace_of(kind(KeyboardInterrupt()))


def failures():
    """Exceptions of all shapes, raised."""

    def chained():
        try:
            raise KeyError("a")
        except KeyError as error:
            raise ValueError("b") from error

    def after_another():
        try:
            chained()
        except ValueError:
            raise TypeError("c\nd")  # noqa: B904

    def hidden():
        try:
            chained()
        except ValueError:
            raise TypeError from None

    def group():
        errors = []
        for raise_one in (chained, after_another):
            try:
                raise_one()
            except Exception as error:
                errors.append(error)
        raise ExceptionGroup("several", [*errors, ExceptionGroup("more", [ValueError(1)])])

    def with_notes():
        error = LookupError("x")
        error.add_note("first\nline")
        error.add_note("second")
        raise error

    def circle():
        error = ValueError("a")
        try:
            raise error
        except ValueError as exc:
            other = TypeError("b")
            other.__context__ = exc
            exc.__context__ = other
            raise

    for fail in (chained, after_another, hidden, group, with_notes, circle):
        try:
            fail()
        except Exception as error:
            yield error


def test_tracebacks():
    """They are Python's own, character by character."""
    shown = 0
    for error in failures():
        assert trace_of(error).format() == "".join(traceback.format_exception(error))
        shown += 1
    assert shown == 6


def test_tracebacks_have_an_end():
    """However deep the recursion was, however much is said, however many exceptions there are."""

    def fail(depth):
        if depth:
            fail(depth - 1)
        raise ValueError("x" * 9999)

    try:
        fail(300)
    except ValueError as error:
        trace = trace_of(error)
    assert (len(trace.frames), len(trace.message)) == (100, 4000)
    assert trace.frames[-1][0].co_name == "fail"
    assert trace.frames[0][0].co_name == "fail"  # the outermost ones are left out
    many = ExceptionGroup("many", [ValueError(number) for number in range(100)])
    assert len(trace_of(many).parts) == 29
    assert trace_of(many).parts[0].message == "0"
    many.__notes__ = "no list"
    assert trace_of(many).notes == []


async def test_a_history_outlives_lifespans():
    """It has what was before the restart, and finds it by the same id."""
    history = History()
    app = make_app(instruments=[history])
    ids = []
    for _ in range(2):
        async with serving(app):
            job = app.state.runner.schedule(double, 1)
            ids.append(job.id)
            await job
            assert [history.get(id_).id for id_ in ids] == ids
    assert [record.id for record in history.records] == ids[::-1]


async def test_a_history_that_is_attached_twice(caplog):
    """To one app it makes no difference; another one's tasks it does not get, which is logged."""
    history = History()
    app, other = make_app(instruments=[history]), make_app(instruments=[history])
    assert [record.getMessage() for record in caplog.records] == [
        "the instrument 'History' failed and is switched off"
    ]
    assert "a history is of one app: make another one for each" in caplog.text
    async with serving(app), serving(other):
        with app.state.runner.watching(history):
            await make_tasks(app.state.runner, checkpoint)
            await make_tasks(other.state.runner, checkpoint)
    assert len(history.records) == 1
    assert history.runner is app.state.runner


async def test_results_are_kept_on_request():
    """And then those of tasks that have succeeded."""
    for keep in (False, True):
        history = History(keep_results=keep)
        app = make_app(instruments=[history])
        async with serving(app):
            await app.state.runner.schedule(double, 2)
            await make_tasks(app.state.runner, checkpoint)
            await app.state.runner.schedule(raises, ValueError()).wait()
        assert [record.result for record in history.records] == [None, None, 4 if keep else None]


async def test_progress_in_records():
    """Only of tasks that have said something; a late history hears of what is said to it."""
    late = History()
    history = History()
    app = make_app(instruments=[history])
    runner = app.state.runner

    async def work():
        for _ in track("ab"):
            await anyio.sleep(1)

    async with serving(app):
        task = runner.schedule(work)
        id_ = task.id
        assert history.get(id_).progress is None
        await anyio.sleep(0.5)
        with runner.watching(late):
            await task
        await make_tasks(runner, checkpoint)
    assert [record.progress for record in history.records] == [None, (2, 2, "")]
    (record,) = late.records
    assert record.progress == (2, 2, "")
    assert record.progress.done == 2
    assert record.started_at is None
    assert record.scheduled_at <= record.finished_at


@pytest.mark.real_time
async def test_a_history_from_threads():
    """Tasks are scheduled, report and are asked about in many threads at a time."""
    history = History(max_tasks=200)
    app = make_app(instruments=[history])
    runner = app.state.runner

    def work():
        for _ in track("ab"):
            pass
        return current_task().id

    def schedule_and_look():
        for _ in range(25):
            task = runner.schedule(work)
            id_ = task.id
            assert history.get(id_).id == id_
            task.wait_from_thread(10)
            assert history.get(id_).progress == (2, 2, "")
            assert len(history.records) <= 200
            assert history.get(f"{id_}0") is None

    async with serving(app), anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(to_thread.run_sync, schedule_and_look)
    assert len(history.records) == 200


@pytest.mark.real_time
async def test_a_task_that_just_finishes():
    """It is found also when the registry has it no more, and the history has not heard."""
    found = []

    class Asks(Instrument):
        def task_finished(self, task):
            assert app.state.runner.get_task(id_) is None
            found.append(history.get(id_))

    history = History()
    app = make_app(instruments=[Asks(), history])
    async with serving(app):
        task = app.state.runner.schedule(double, 1)
        id_ = task.id
        await task
        await settle()
    assert [(record.id, record.finished_at) for record in found] == [(id_, None)]
    assert history.get(id_).finished_at is not None


async def test_memory_of_a_history():
    """However many tasks have finished, as much is kept as of the first ones."""
    history = History(max_tasks=50)
    app = make_app(instruments=[history])
    runner = app.state.runner
    counts = []
    async with serving(app):
        for _ in range(5):
            for number in range(400):
                task = runner.schedule(double, number)
                if number % 2:
                    _ = task.id
                    task.progress.done = 1
            del task
            await runner.join()
            await settle()
            gc.collect()
            counts.append(len(gc.get_objects()))
        assert len(history.records) == 100
        assert len(history._notes) == 0
    assert counts[-1] < counts[1] + 50, counts


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
        assert body["scheduled_at"] <= body["started_at"]
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
        assert (await server.get("/jobs/x")).json() == {
            "detail": "this process knows no such job; another worker may know it"
        }
        assert (await server.get(f"/jobs/{ids[0]}")).json() == {
            "detail": "the job has finished too long ago, and is forgotten"
        }


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
    """They are null, with one WARNING."""
    app = make_jobs_app(History(keep_results=True))

    async def work():
        return {"lock": threading.Lock()}

    async with serving(app) as server:
        task = app.state.runner.task(name="work").schedule(work)
        path = f"/jobs/{task.id}"
        await task
        for _ in range(3):
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


async def test_the_json_of_a_job():
    """All of it, of each state."""
    names = ["id", "name", "timing", "state", "attempts", "labels", "progress", "scheduled_at"]
    names += ["started_at", "finished_at", "error"]
    for keep in (False, True):
        app = make_jobs_app(History(keep_results=keep))
        runner = app.state.runner
        async with serving(app) as server:
            tasks = [
                runner.schedule(double, 3),
                runner.task(name="fails").schedule(raises, KeyError("k")),
                request_tasks(runner).after_response.schedule(double, 3, sleep=1),
            ]
            paths = [f"/jobs/{task.id}" for task in tasks]
            await settle()
            bodies = [(await server.get(path)).json() for path in paths]
        assert [[*body] for body in bodies] == [names + ["result"] * keep] * 3
        assert [body["state"] for body in bodies] == ["succeeded", "failed", "pending"]
        assert [body["timing"] for body in bodies] == ["now", "now", "after_response"]
        assert [body["error"] for body in bodies] == [None, {"type": "builtins.KeyError"}, None]
        assert [body.get("result") for body in bodies] == [6 if keep else None, None, None]
        assert [body["started_at"] is None for body in bodies] == [False, False, True]
        assert [body["progress"] for body in bodies] == [None] * 3
        for name in ("scheduled_at", "finished_at"):
            assert bodies[0][name].endswith("Z")
            assert bodies[0][name][:2] == "20"


async def test_nobody_keeps_an_answer():
    """`no-store` on each, whoever makes it: the endpoint, the app's dependency, its validation."""
    history = History()
    app = make_app(instruments=[history])

    async def allowed(x_user: str = Header()) -> None:
        if x_user != "ann":
            raise HTTPException(403, headers={"Cache-Control": "max-age=60"})

    router = create_router(history, cancel=True)
    app.include_router(router, prefix="/jobs", dependencies=[Depends(allowed)])
    async with serving(app) as server, server.client as client:
        task = app.state.runner.schedule(anyio.sleep, 5)
        path = f"/jobs/{task.id}"
        for method, url, user, status in (
            ("GET", path, "ann", 200),
            ("GET", path, "bob", 403),
            ("GET", path, None, 422),
            ("GET", f"{path}?wait=1", "ann", 422),
            ("GET", f"{path}?wait=-1", "ann", 422),
            ("GET", f"{path}?wait=nan", "ann", 422),
            ("GET", "/jobs/x", "ann", 404),
            ("POST", path, "ann", 405),
            ("DELETE", path, "bob", 403),
            ("DELETE", path, "ann", 202),
            ("DELETE", path, "ann", 409),
        ):
            headers = {} if user is None else {"x-user": user}
            response = await client.request(method, url, headers=headers)
            assert (response.status_code, response.headers.get_list("cache-control")) == (
                status,
                ["no-store"],
            ), (method, url)
            await settle()


async def test_text_that_is_no_utf8():
    """Half a surrogate pair, as names of files have them, does not end in a 500."""
    app = make_jobs_app(History(keep_results=True), error_messages=True)

    async def work():
        current_task().progress.message = "\udcff"
        raise ValueError("\udcfe")

    async def returns_odd():
        return "\udcff"

    async with serving(app) as server:
        scheduler = app.state.runner.task(name="n\udcff", labels={"\udc01": "\udc02"})
        bodies = []
        for func in (work, returns_odd):
            task = scheduler.schedule(func)
            path = f"/jobs/{task.id}"
            await task.wait()
            bodies.append((await server.get(path)).json())
    assert bodies[0]["labels"] == {"\\udc01": "\\udc02"}
    assert bodies[0]["progress"]["message"] == "\\udcff"
    assert bodies[0]["error"] == {"type": "builtins.ValueError", "message": "\\udcfe"}
    assert bodies[1]["result"] is None


async def test_numbers_that_are_no_json(caplog):
    """A result with them is null; other results are as FastAPI has them."""
    app = make_jobs_app(History(keep_results=True))

    class Row(BaseModel):
        number: float

    async with serving(app) as server:
        for value, shown in (
            (math.nan, None),
            ([math.inf], None),
            (Row(number=1), {"number": 1}),
            ({1, 2}, [1, 2]),
        ):

            async def work(value=value):
                return value

            task = app.state.runner.task(name="work").schedule(work)
            path = f"/jobs/{task.id}"
            await task
            assert (await server.get(path)).json()["result"] == shown
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


async def test_a_job_that_asks_about_itself():
    """It does not wait for itself."""
    app = make_jobs_app()
    async with serving(app) as server:

        async def work():
            begin = anyio.current_time()
            response = await server.get(f"/jobs/{current_task().id}?wait=0.5")
            return response.status_code, response.json()["state"], anyio.current_time() - begin

        assert await app.state.runner.schedule(work) == (200, "running", 0)


async def test_whose_job():
    """A dependency of the app's looks at the labels; who may not see it learns nothing."""
    history = History()
    app = make_app(instruments=[history])

    async def own_job(id: str, x_user: str = Header()) -> None:  # noqa: A002
        record = history.get(id)
        if record is not None and record.labels.get("user") != x_user:
            raise HTTPException(404)

    router = create_router(history, cancel=True)
    app.include_router(router, prefix="/jobs", dependencies=[Depends(own_job)])
    async with serving(app) as server, server.client as client:
        task = app.state.runner.task(labels={"user": "ann"}).schedule(anyio.sleep, 1)
        path = f"/jobs/{task.id}"
        for user, status in (("bob", 404), ("ann", 200)):
            assert (await client.get(path, headers={"x-user": user})).status_code == status
        assert (await client.delete(path, headers={"x-user": "bob"})).status_code == 404
        await settle()
        assert task.state is TaskState.RUNNING
        await task
        for user, status in (("bob", 404), ("ann", 200)):
            assert (await client.get(path, headers={"x-user": user})).status_code == status


async def test_the_schema():
    """The models stand in it, and what each answer means."""
    for cancel in (False, True):
        schema = make_jobs_app(cancel=cancel).openapi()
        assert {"Job", "JobError", "JobProgress"} <= {*schema["components"]["schemas"]}
        operations = schema["paths"]["/jobs/{id}"]
        assert [*operations] == ["get", "delete"] if cancel else ["get"]
        assert {"200", "404", "410", "422"} == {*operations["get"]["responses"]}
        if cancel:
            assert {"202", "404", "409", "410", "422"} == {*operations["delete"]["responses"]}


def test_a_router_of_something_else():
    """Clear errors."""
    with pytest.raises(TypeError, match=r"^create_router\(\) takes a History, not NoneType$"):
        create_router(None)
