"""What fails harms nobody: G12 to G14."""

import functools

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_tasks import Task, TaskConfig, Tasks, TaskState
from fastapi_tasks._core.group import LastingGroup
from fastapi_tasks._core.lost import find_broken_off
from tests_trio.support import (
    Journal,
    double,
    failing_log,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
    unsubmitted,
    user,
)

ERRORS = [
    ValueError("a"),
    SystemExit(3),
    GeneratorExit(),
    BaseExceptionGroup("g", [SystemExit(3), ValueError("b")]),
    ExceptionGroup("g", [ValueError("c")]),
    StopIteration(),
    StopAsyncIteration(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_no_exception_harms_anybody(error, caplog):
    """G12, G13: other tasks go on, later requests schedule, one ERROR line with the traceback."""
    app, journal = make_app(grace_period=5), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.ends("other"))
        tasks.task(name="bad").schedule(raises, error)
        tasks.task(name="bad", shield=True).schedule(raises, error)

    async with serving(app) as server:
        for _ in range(2):
            assert (await server.get()).status_code == 200
    assert journal == ["other starts"] * 2 + ["other ends"] * 2
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("fastapi_tasks", "ERROR", "task 'bad' failed")
    ] * 4
    for record in caplog.records:
        logged = record.exc_info[1]
        assert logged is error or logged.__cause__ is error or repr(logged) == repr(error)


async def test_outcome_of_a_failure():
    """G13: the task shows its exception, and ends `FAILED`."""
    app, error = make_app(), ValueError("why")
    async with serving(app):
        task = app.state.runner.schedule(raises, error)
        await task.finished.wait()
        assert (task.state, task.exception) == (TaskState.FAILED, error)
        task = app.state.runner.schedule(raises, error)
        assert (task.state, task.exception) == (TaskState.PENDING, None)


@pytest.mark.real_time
@pytest.mark.parametrize("error", [*ERRORS, None], ids=repr)
async def test_sync_tasks_and_handlers(error, caplog):
    """G12: the same from a worker thread; its error handler runs in one too."""
    app, journal = make_app(), Journal()

    def work():
        if error is not None:
            raise error

    def handle(task: Task, exc: Exception):
        journal.append(f"{task.name} {task.state.value}")

    async with serving(app):
        app.state.runner.task(name="bad", on_error=handle).schedule(work)
        await app.state.runner.join()
    handled = isinstance(error, Exception)
    assert journal == ["bad failed"] * handled
    assert [r.getMessage() for r in caplog.records] == ["task 'bad' failed"] * (error is not None)


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


async def test_error_handler():
    """`on_error` gets the task and its error, after `state` and before `finished`."""
    app, seen = make_app(), []
    error = ValueError("why")

    async def handle(task: Task, exc: Exception):
        seen.append((task, exc, task.state, task.exception, task.finished.is_set()))
        await anyio.sleep(1)

    async with serving(app):
        task = app.state.runner.task(on_error=handle).schedule(raises, error)
        await task.finished.wait()
        assert seen == [(task, error, TaskState.FAILED, error, False)]
        app.state.runner.task(on_error=handle).schedule(checkpoint)
        app.state.runner.task(on_error=handle).schedule(raises, SystemExit())
        await app.state.runner.join()
        assert len(seen) == 1


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_raising_error_handler(error, caplog):
    """G12: it is logged, and more requests follow."""
    app, journal = make_app(), Journal()

    async def handle(task, exc):
        raise error

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.task("other"))
        tasks.task(name="bad", on_error=handle).schedule(raises, ValueError())

    async with serving(app) as server:
        for _ in range(2):
            assert (await server.get()).status_code == 200
            await settle()
    assert journal == ["other"] * 2
    assert [r.getMessage() for r in caplog.records] == [
        "task 'bad' failed",
        "the error handler of task 'bad' failed",
    ] * 2


@pytest.mark.parametrize("secret", ["argument", "keyword", "partial"])
async def test_arguments_are_never_shown(secret, caplog):
    """G13: not in a log line, nor in a `repr`, nor in an error."""
    caplog.set_level("DEBUG")
    app = make_app(grace_period=1)
    args = ("hunter2",) if secret == "argument" else ()
    kwargs = {"password": "hunter2"} if secret == "keyword" else {}

    class Work:
        def __repr__(self):
            return "hunter2"

        async def __call__(self, *args, **kwargs):
            raise ValueError

        async def sleep(self, *args, **kwargs):
            await anyio.sleep(100)

    failing, sleeping = Work(), Work().sleep
    if secret == "partial":
        failing, sleeping = (functools.partial(f, "hunter2") for f in (failing, sleeping))
    runner = app.state.runner
    shown = []
    async with serving(app):
        for func in (failing, sleeping, sleeping):
            shown.append(repr(runner.schedule(func, *args, **kwargs)))
        shown.append(repr(runner.task(shield=True)))
        await settle()
        shown.extend(map(repr, runner.tasks))
    assert caplog.records
    assert "hunter2" not in caplog.text
    assert "hunter2" not in "".join(shown)
    for bad in (failing(), (lambda: (yield)), "hunter2", 7):
        with pytest.raises(TypeError) as error:
            runner.schedule(bad)
        assert "hunter2" not in str(error.value)


async def test_names_stay_on_their_line(caplog):
    """A name that came from outside cannot forge a log line."""
    app = make_app()
    async with serving(app):
        app.state.runner.task(name="x\nERROR forged").schedule(raises, ValueError())
        await app.state.runner.join()
    assert caplog.records[0].getMessage() == r"task 'x\nERROR forged' failed"


async def test_a_logging_handler_that_raises():
    """G12: neither in a task's failure nor in the drain."""
    app, journal = make_app(grace_period=0), Journal()
    with failing_log(OSError("disk full")):
        async with serving(app):
            other = app.state.runner.task(shield=True).schedule(journal.ends("other"))
            failed = app.state.runner.schedule(raises, ValueError())
            await failed.finished.wait()
            app.state.runner.schedule(anyio.sleep_forever)
            await settle()
    assert (other.state, failed.state) == (TaskState.SUCCEEDED, TaskState.FAILED)


async def test_cancelled_is_not_failed(caplog):
    """G14: no ERROR line and no error handler for what the drain cancels."""
    app, journal = make_app(grace_period=0), Journal()
    async with serving(app):
        task = app.state.runner.task(on_error=journal.append).schedule(journal.ends("task"))
        await settle()
    assert journal == ["task starts", "task cancelled"]
    assert (task.state, task.exception) == (TaskState.CANCELLED, None)
    assert [r.levelname for r in caplog.records] == ["WARNING"]


async def test_failing_clean_up_of_a_cancelled_task(caplog):
    """G14: what remains after the cancellations is a failure, the same on both backends.

    It has its error handler, which is cancelled, too, where it waits.
    """
    app, handled = make_app(grace_period=0), {}

    async def child(error):
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def alone():
        await child(ValueError("alone"))

    async def grouped():
        async with anyio.create_task_group() as group:
            group.start_soon(child, ValueError("in a group"))
            group.start_soon(anyio.sleep_forever)

    async def beside():
        try:
            await anyio.sleep_forever()
        except BaseException as cancellation:
            raise BaseExceptionGroup("g", [cancellation, ValueError("beside it")]) from None

    async def handle(task, error):
        handled[task] = error
        await checkpoint()
        handled.clear()

    async with serving(app):
        runner = app.state.runner.task(on_error=handle)
        tasks = [runner.schedule(func) for func in (alone, grouped, beside)]
        await settle()
    assert [task.state for task in tasks] == [TaskState.FAILED] * 3
    assert isinstance(tasks[0].exception, ValueError)
    for task, message in zip(tasks[1:], ["in a group", "beside it"], strict=True):
        assert isinstance(task.exception, ExceptionGroup)
        assert [str(error) for error in task.exception.exceptions] == [message]
    assert handled == {task: task.exception for task in tasks}
    assert [r.levelname for r in caplog.records] == ["WARNING", *["ERROR"] * 3]


async def test_swallowed_cancellation_is_success():
    """G14: a task that swallows its cancellation has succeeded."""
    app = make_app(grace_period=0)

    async def swallow():
        with anyio.CancelScope() as scope:
            try:
                await anyio.sleep_forever()
            except BaseException:
                scope.cancel()
                return

    async with serving(app):
        task = app.state.runner.schedule(swallow)
        await settle()
    assert task.state is TaskState.SUCCEEDED


async def test_handler_of_a_cancelled_failure_is_cancelled_too(caplog):
    """G14: an error handler that the drain cuts off is cancelled, not failed."""
    app, journal = make_app(grace_period=0), Journal()

    async def handle(task, error):
        await journal.ends("handler", sleep=5)()

    async with serving(app):
        task = app.state.runner.task(name="bad", on_error=handle).schedule(raises, ValueError())
        await settle()
    assert journal == ["handler starts", "handler cancelled"]
    assert task.state is TaskState.FAILED
    assert [r.getMessage() for r in caplog.records] == [
        "task 'bad' failed",
        "shutdown cancels 1 task(s): 'bad'",
    ]


async def test_app_wide_handler():
    """The app's own config is the default of every task."""
    app_handled = []

    async def handle(task, error):
        app_handled.append(task.name)

    app = make_app(config=TaskConfig(on_error=handle))
    async with serving(app):
        app.state.runner.task(name="bad").schedule(raises, ValueError())
        await app.state.runner.join()
    assert app_handled == ["bad"]


async def test_groups_in_groups_without_end():
    """G12: however deep they are, they end one task, as a failure."""
    error: Exception = ValueError()
    for _ in range(3000):
        error = ExceptionGroup("g", [error])
    app, journal = make_app(), Journal()
    async with serving(app):
        task = app.state.runner.schedule(raises, error)
        await task.finished.wait()
        assert task.state is TaskState.FAILED
        assert isinstance(task.exception, ExceptionGroup)  # the same, or what split() made of it
        app.state.runner.schedule(journal.task("other"))
    assert journal == ["other"]


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


async def test_a_group_of_tasks_that_fails(monkeypatch, caplog):
    """G12: the last guard of those that hold task groups open opens another one."""
    original, calls = LastingGroup._hold_open_one, []

    async def fail_once(self, scope):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        await original(self, scope)

    monkeypatch.setattr(LastingGroup, "_hold_open_one", fail_once)
    app = make_app()
    async with serving(app):
        assert await app.state.runner.task(shield=True).schedule(double, 2) == 4
    assert [r.getMessage() for r in caplog.records] == ["a group of tasks failed"]


async def test_a_registry_that_fails(monkeypatch, caplog):
    """G12: what is wrong between a task's start and its function is the task's failure."""
    app = make_app()
    runner = app.state.runner

    def begin(task):
        raise RuntimeError

    async with serving(app):
        with monkeypatch.context() as patch:
            patch.setattr(runner._supervisor.registry, "begin", begin)
            task = runner.task(name="unlucky").schedule(double, 2)
            await task.finished.wait()
        assert await runner.schedule(double, 2) == 4
    assert (task.state, type(task.exception)) == (TaskState.FAILED, RuntimeError)
    assert [r.getMessage() for r in caplog.records] == ["task 'unlucky' failed"]


async def test_a_task_that_could_not_say_that_it_has_ended():
    """G12: when a task group is lost, it is found among those that are left."""
    app = make_app()
    registry = app.state.runner._supervisor.registry
    task = unsubmitted(double, 2)
    registry.tasks[task] = None
    assert list(find_broken_off(registry)) == []
    task.has_ended = True
    assert list(find_broken_off(registry)) == [task]


async def test_a_start_that_comes_too_early():
    """G8: a task whose timing point has come keeps its context if it cannot be spawned there."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async def note():
        journal.append(user.get())

    async with serving(app):
        lifetime = runner._supervisor.lifetime
        spawn, failures = lifetime.spawn, [None]
        lifetime.spawn = lambda *args, **kwargs: (
            failures.pop() if failures else spawn(*args, **kwargs)
        )
        tasks = request_tasks(runner)
        user.set("ann")
        tasks.after_route.schedule(note)
        user.set("bob")
        tasks._route.reach("after_route")
        await runner.join()
    assert (journal, failures) == (["ann"], [])


async def test_a_cancellation_that_comes_too_late():
    """G14: it does nothing, also when it was under way from another thread."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        task = runner.schedule(double, 2)
        await task.finished.wait()
        runner._supervisor.cancel(task)
        assert (task.state, task.runs_in_this_task()) == (TaskState.SUCCEEDED, False)
