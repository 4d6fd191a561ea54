"""Instruments: told of every task, in its order, and harmless."""

import threading

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint

from fastapi_tasks import Instrument, TaskState
from tests_trio.support import (
    Journal,
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
)


class Recorder(Instrument):
    def __init__(self):
        self.events = []

    def task_scheduled(self, task):
        self.events.append(("scheduled", task.name, task.state.value, threading.get_ident()))

    def task_started(self, task):
        self.events.append(("started", task.name, task.state.value, threading.get_ident()))

    def task_finished(self, task):
        self.events.append(("finished", task.name, task.state.value, threading.get_ident()))

    def of(self, name):
        return [(what, state) for what, who, state, _ in self.events if who == name]


async def test_the_life_of_tasks():
    """Scheduled before started, finished exactly once, whatever happens in between."""
    recorder = Recorder()
    app = make_app(instruments=[recorder], grace_period=0)
    runner = app.state.runner

    async def schedule_late():
        try:
            await anyio.sleep_forever()
        finally:
            runner.task(name="refused").schedule(checkpoint)

    async with serving(app):
        runner.task(name="good").schedule(checkpoint)
        runner.task(name="bad").schedule(raises, ValueError())
        request_tasks(runner).after_route.task(name="waiting").schedule(checkpoint)
        runner.task(name="cancelled").schedule(checkpoint).cancel()
        runner.task(name="running").schedule(schedule_late)
        await settle()
    scheduled, started = ("scheduled", "pending"), ("started", "running")
    assert recorder.of("good") == [scheduled, started, ("finished", "succeeded")]
    assert recorder.of("bad") == [scheduled, started, ("finished", "failed")]
    assert recorder.of("waiting") == [scheduled, ("finished", "cancelled")]
    assert recorder.of("cancelled") == [scheduled, ("finished", "cancelled")]
    assert recorder.of("running") == [scheduled, started, ("finished", "cancelled")]
    assert recorder.of("refused") == [("scheduled", "cancelled"), ("finished", "cancelled")]


@pytest.mark.real_time
async def test_the_threads_of_the_calls():
    """`task_scheduled` in the caller's thread, the others on the event loop's."""
    recorder = Recorder()
    app = make_app(instruments=[recorder])

    def schedule():
        app.state.runner.task(name="t").schedule(checkpoint)
        return threading.get_ident()

    async with serving(app):
        worker = await to_thread.run_sync(schedule)
        while len(recorder.events) < 3:
            await anyio.sleep(0.001)
        here = threading.get_ident()
        assert [thread for *_, thread in recorder.events] == [worker, here, here]


@pytest.mark.parametrize("error", [ValueError(), SystemExit()], ids=repr)
@pytest.mark.parametrize("method", ["task_scheduled", "task_started", "task_finished"])
async def test_an_instrument_that_raises(method, error, caplog):
    """Logged once and switched off; the tasks and the other instruments go on."""

    class Broken(Instrument):
        def broken(self, task):
            raise error

    setattr(Broken, method, Broken.broken)
    recorder, journal = Recorder(), Journal()
    app = make_app(instruments=[Broken(), recorder])
    async with serving(app):
        for name in ("1", "2"):
            task = app.state.runner.task(name=name).schedule(journal.task(name))
            await task
            assert task.state is TaskState.SUCCEEDED
    assert journal == ["1", "2"]
    assert [what for what, *_ in recorder.events] == ["scheduled", "started", "finished"] * 2
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "ERROR",
            (
                "the instrument 'test_an_instrument_that_raises.<locals>.Broken' failed "
                "and is switched off"
            ),
        )
    ]


async def test_equal_instruments():
    """One that raises is switched off; one that is only equal to it is not."""

    class Equal(Recorder):
        def __eq__(self, other):
            return True

        __hash__ = Recorder.__hash__

    class Broken(Equal):
        def task_scheduled(self, task):
            raise ValueError

    recorder = Equal()
    app = make_app(instruments=[Broken(), recorder])
    async with serving(app):
        await app.state.runner.task(name="t").schedule(checkpoint)
    assert [what for what, _ in recorder.of("t")] == ["scheduled", "started", "finished"]


def test_the_base_class_does_nothing():
    """Every method has a default."""
    instrument = Instrument()
    assert instrument.task_scheduled(None) is None
    assert instrument.task_started(None) is None
    assert instrument.task_finished(None) is None


async def test_an_instrument_that_cancels():
    """A task that is pending, and one that was refused already."""

    class Cancel(Instrument):
        def task_scheduled(self, task):
            if task.name != "parent":
                task.cancel()

    app, journal = make_app(instruments=[Cancel()], grace_period=0), Journal()
    runner = app.state.runner
    tasks = []

    async def parent():
        tasks.append(runner.task(name="pending").schedule(journal.task("pending")))
        await runner.stopping.wait()
        await anyio.sleep(1)
        tasks.append(runner.task(name="refused").schedule(journal.task("refused")))

    async with serving(app):
        runner.task(name="parent", shield=True).schedule(parent)
        await settle()
    assert journal == []
    assert [task.state for task in tasks] == [TaskState.CANCELLED] * 2
    assert runner.statistics().cancelled == 2


@pytest.mark.real_time
@pytest.mark.parametrize("drained", [True, False])
async def test_each_instrument_hears_of_the_beginning_before_the_end(drained):
    """Also when the task ends, or the drain cancels it, while one before it takes its time."""
    scheduling, go_on = threading.Event(), threading.Event()

    class Slow(Instrument):
        def task_scheduled(self, task):
            scheduling.set()
            go_on.wait(10)

    first, last = Recorder(), Recorder()
    app = make_app(instruments=[first, Slow(), last], grace_period=0)
    runner = app.state.runner
    handles = []

    def schedule():
        handles.append(runner.task(name="slow").schedule(anyio.sleep_forever))

    thread = threading.Thread(target=schedule)
    async with serving(app):
        thread.start()
        await to_thread.run_sync(scheduling.wait, 10)
        if not drained:
            runner.tasks[0].cancel()
            await settle()
            go_on.set()
            await runner.join()
        threading.Timer(0.05, go_on.set).start()
    thread.join()
    wanted = [("scheduled", "pending"), ("finished", "cancelled")]
    assert first.of("slow") == wanted
    assert [what for what, _ in last.of("slow")] == ["scheduled", "finished"]


@pytest.mark.real_time
async def test_a_task_that_ends_before_its_schedule_call_has():
    """As it may, when a thread is slow to return: it is finished then, and told of once."""
    recorder = Recorder()
    app = make_app(instruments=[recorder])
    runner = app.state.runner
    host_post = []

    def schedule_slowly():
        post = runner._supervisor.lifetime.post

        def post_and_wait(call):
            post(call)
            if not host_post:
                host_post.append(call)
                from_thread.run(anyio.sleep, 0.05)  # in which the task ends

        runner._supervisor.lifetime.post = post_and_wait
        return runner.task(name="quick").schedule(checkpoint)

    async with serving(app):
        task = await to_thread.run_sync(schedule_slowly)
        with anyio.fail_after(5):
            await task.finished.wait()
    assert [what for what, _ in recorder.of("quick")] == ["scheduled", "started", "finished"]


@pytest.mark.real_time
async def test_a_task_that_fails_before_its_schedule_call_has_ended():
    """It has finished when its error handler has, whoever comes by meanwhile."""
    recorder = Recorder()
    app = make_app(instruments=[recorder])
    runner = app.state.runner
    handling, go_on = threading.Event(), anyio.Event()

    async def handle(task, error):
        handling.set()
        await go_on.wait()

    def schedule_slowly():
        post = runner._supervisor.lifetime.post

        def post_and_wait(call):
            post(call)
            handling.wait(10)

        runner._supervisor.lifetime.post = post_and_wait
        try:
            return runner.task(name="bad", on_error=handle).schedule(raises, ValueError())
        finally:
            runner._supervisor.lifetime.post = post

    async with serving(app):
        task = await to_thread.run_sync(schedule_slowly)
        await settle()
        assert (task.state, task.finished.is_set()) == (TaskState.FAILED, False)
        assert runner.tasks == (task,)
        go_on.set()
        await task.finished.wait()
    assert [what for what, _ in recorder.of("bad")] == ["scheduled", "started", "finished"]


async def test_watching_for_a_time():
    """It hears what happens in the block: of tasks from before it, too, and not of their end after."""
    app, recorder = make_app(), Recorder()
    runner = app.state.runner
    before, across = anyio.Event(), anyio.Event()
    async with serving(app):
        first = runner.task(name="first").schedule(before.wait)
        await settle()
        with runner.watching(recorder):
            before.set()
            await first
            await runner.task(name="second").schedule(checkpoint)
            third = runner.task(name="third").schedule(across.wait)
            await settle()
        across.set()
        await third
        await runner.task(name="fourth").schedule(checkpoint)
    assert [(name, what, state) for what, name, state, _ in recorder.events] == [
        ("first", "finished", "succeeded"),
        ("second", "scheduled", "pending"),
        ("second", "started", "running"),
        ("second", "finished", "succeeded"),
        ("third", "scheduled", "pending"),
        ("third", "started", "running"),
    ]


async def test_watching_in_blocks_that_overlap():
    """Each block is told of by itself, whichever ends first; those of `add_tasks()` hear of all."""
    of_app, recorder = Recorder(), Recorder()
    app = make_app(instruments=[of_app])
    runner = app.state.runner
    blocks = [runner.watching(recorder) for _ in range(2)]
    async with serving(app):
        for number, change in enumerate(
            [
                lambda: None,
                blocks[0].__enter__,
                blocks[1].__enter__,
                lambda: blocks[0].__exit__(None, None, None),
                lambda: blocks[1].__exit__(None, None, None),
            ]
        ):
            change()
            await runner.task(name=str(number)).schedule(checkpoint)
    life = [("scheduled", "pending"), ("started", "running"), ("finished", "succeeded")]
    twice = [event for event in life for _ in range(2)]
    assert [recorder.of(str(number)) for number in range(5)] == [[], life, twice, life, []]
    assert [of_app.of(str(number)) for number in range(5)] == [life] * 5


async def test_watching_a_block_that_fails():
    """It is over then, too."""
    app, recorder = make_app(), Recorder()
    runner = app.state.runner
    async with serving(app):
        with pytest.raises(ValueError, match="mine"), runner.watching(recorder):
            raise ValueError("mine")
        await runner.schedule(checkpoint)
    assert recorder.events == []


@pytest.mark.parametrize(
    ("instrument", "kind"), [(Recorder, "type"), (object(), "object"), (None, "NoneType")]
)
def test_watching_with_no_instrument(instrument, kind):
    """At the call, before any block."""
    message = f"^instruments must be objects of Instrument's subclasses, not {kind}$"
    with pytest.raises(TypeError, match=message):
        make_app().state.runner.watching(instrument)


@pytest.mark.parametrize("error", [ValueError(), SystemExit()], ids=repr)
@pytest.mark.parametrize("method", ["task_scheduled", "task_started", "task_finished"])
async def test_watching_with_an_instrument_that_raises(method, error, caplog):
    """Logged once and switched off, as those of `add_tasks()`; the tasks and the block go on."""

    class Broken(Recorder):
        def broken(self, task):
            raise error

    setattr(Broken, method, Broken.broken)
    broken, recorder, journal = Broken(), Recorder(), Journal()
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        with runner.watching(broken), runner.watching(recorder):
            for name in ("1", "2"):
                assert await runner.task(name=name).schedule(journal.task(name)) is None
    assert journal == ["1", "2"]
    whole = ["scheduled", "started", "finished"]
    assert [what for what, *_ in recorder.events] == whole * 2
    heard = whole[: whole.index(method.removeprefix("task_"))]
    assert [(what, name) for what, name, *_ in broken.events] == [(what, "1") for what in heard]
    name = "test_watching_with_an_instrument_that_raises.<locals>.Broken"
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", f"the instrument '{name}' failed and is switched off")
    ]
    assert caplog.records[0].exc_info[1] is error
