"""What becomes of a task: its id, its progress, its labels, waiting for it."""

import gc
import math
import os
import threading
from fractions import Fraction
from traceback import walk_tb

import anyio
import pytest
from anyio import TaskCancelled, TaskFailed, TaskNotFinished, from_thread, to_thread

from fastapi_tasks import (
    FastAPITasksError,
    Instrument,
    TaskConfig,
    Tasks,
    TaskState,
    current_task,
    track,
)
from fastapi_tasks._core import identity
from fastapi_tasks._core import progress as progress_module
from fastapi_tasks._core.identity import is_of_this_process, new_id
from tests_trio.support import double, make_app, raises, request_tasks, serving, settle


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


def test_ids_are_signed_by_a_key():
    """Which another process does not have, whatever else of an id is known."""
    one, other = identity._Process(), identity._Process()
    assert one.sign("1") == one.sign("1") != one.sign("2")
    assert one.sign("1") != other.sign("1")
    assert one.epoch != other.epoch


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


def test_ids_after_a_fork(monkeypatch):
    """As the child does it."""
    monkeypatch.setattr(identity, "_process", identity._process)
    before = new_id()
    identity._begin_in_child()
    assert not is_of_this_process(before)
    assert is_of_this_process(new_id())


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


async def test_a_progress_that_was_told():
    """Is not told again when the task ends."""
    heard = Heard()
    app = make_app(instruments=[heard])

    async def work():
        current_task().progress.done = 1

    async with serving(app):
        await app.state.runner.schedule(work)
    assert heard.heard[1:] == ["scheduled", (1, threading.current_thread().name), "finished"]


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


@pytest.mark.real_time
async def test_many_threads_that_wait():
    """For the same task; one that comes as it ends has nothing to wait for."""
    app = make_app()
    release = anyio.Event()
    async with serving(app):
        task = app.state.runner.schedule(release.wait)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(to_thread.run_sync, task.wait_from_thread, 10)
            while task._ended_in_threads is None:
                await anyio.sleep(0.001)
            await anyio.sleep(0.02)
            release.set()
        late = app.state.runner.schedule(double, 1)
        await late
        assert late._end_for_threads().is_set()


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


def test_ids_that_are_no_text():
    """Whatever a client writes into an address, it is looked at without an error."""
    epoch, number, signature = new_id().split("-")
    for odd in ("\ud800", "\0", "ü", "-" * 9, "9" * 10_000):
        for id_ in (
            odd,
            f"{odd}-{number}-{signature}",
            f"{epoch}-{odd}-{signature}",
            f"{epoch}-{number}-{odd}",
        ):
            assert not is_of_this_process(id_)


async def test_progress_of_another_type():
    """Is refused where it is set, and changes nothing."""
    app = make_app()
    async with serving(app):
        progress = app.state.runner.schedule(anyio.sleep, 1).progress
        progress.done, progress.total, progress.message = 1, 2.5, "a"
        for name, value, what in (
            ("done", "1", "a number, not str"),
            ("done", None, "a number, not NoneType"),
            ("total", [1], "a number, not list"),
            ("message", 1, "a string, not int"),
            ("message", None, "a string, not NoneType"),
        ):
            with pytest.raises(TypeError, match=f"^progress.{name} must be {what}$"):
                setattr(progress, name, value)
        for value in (math.nan, math.inf, -math.inf, 10**400):
            for name in ("done", "total"):
                with pytest.raises(ValueError, match=f"^progress.{name} must be a finite number"):
                    setattr(progress, name, value)
        assert (progress.done, progress.total, progress.message) == (1, 2.5, "a")
        progress.done = Fraction(1, 2)
        assert type(progress.done) is float
        assert progress.done == 0.5
        progress.message = type("Text", (str,), {})("b")
        assert type(progress.message) is str
        progress.total = None
        assert repr(progress) == "<Progress 0.5 of ?>"


async def test_progress_after_the_end():
    """Can be set, and nobody hears of it."""
    heard = Heard()
    app = make_app(instruments=[heard])
    async with serving(app):
        task = app.state.runner.schedule(double, 1)
        await task
        task.progress.done = 3
    assert task.progress.done == 3
    assert heard.heard[1:] == ["scheduled", "finished"]


async def test_track_of_what_has_no_length():
    """Some things have one only at times; none is asked if the total is given."""
    app = make_app()

    class Rows:
        def __len__(self):
            raise TypeError("streamed")

        def __iter__(self):
            return iter("ab")

    async def work():
        progress, seen = current_task().progress, []
        for total in (None, 2):
            for _ in track(Rows(), total=total):
                seen.append((progress.done, progress.total))
        return seen

    async with serving(app):
        assert await app.state.runner.schedule(work) == [(0, None), (1, None), (0, 2), (1, 2)]


async def test_a_track_that_is_left_half_way():
    """The progress stays where it was, and nothing is left to be closed."""
    app = make_app()

    class Numbers:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return 1

    async def work():
        async for _ in track(Numbers(), total=9):
            if current_task().progress.done == 2:
                break
        for _ in track("abc"):
            if current_task().progress.done == 1:
                break

    async with serving(app):
        task = app.state.runner.schedule(work)
        await task
        gc.collect()  # where a generator would warn, on Trio
        await settle()
    assert (task.progress.done, task.progress.total) == (1, 3)


async def test_cancelling():
    """While it was cancelled and still runs: by `cancel()`, by the drain."""
    app = make_app(grace_period=0, shield_timeout=3)
    runner, seen = app.state.runner, {}

    async def slow_to_end(name):
        seen[name] = [task_of[name].cancelling]
        try:
            await anyio.sleep_forever()
        finally:
            seen[name].append(task_of[name].cancelling)
            if name == "drained":
                seen["shielded"].append(task_of["shielded"].cancelling)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    task_of = {}
    async with serving(app):
        for name, shield in (("cancelled", False), ("drained", False), ("shielded", True)):
            task_of[name] = runner.task(shield=shield).schedule(slow_to_end, name)
        pending = request_tasks(runner).after_route.schedule(anyio.sleep, 1)
        await settle()
        task_of["cancelled"].cancel()
        pending.cancel()
        assert [task.cancelling for task in (*task_of.values(), pending)] == [True, *[False] * 3]
        task_of["cancelled"].cancel()
        await task_of["cancelled"].wait()
        assert not task_of["cancelled"].cancelling
    assert seen == {
        "cancelled": [False, True],
        "drained": [False, True],
        "shielded": [False, False, True],  # at the cut-off it is not
    }
    assert not any(task.cancelling for task in task_of.values())
    with pytest.raises(AttributeError):
        pending.cancelling = True


async def test_no_frame_of_an_outcome_shows_arguments():
    """G13: nor that of `return_value` and `wait()`."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(raises, ValueError())
        with pytest.raises(TaskNotFinished) as unfinished:
            _ = task.return_value
        await task.wait()
        with pytest.raises(ValueError) as failed:
            _ = task.return_value
        for error in (unfinished.value, failed.value):
            frames = [frame for frame, _ in walk_tb(error.__traceback__)]
            ours = [frame for frame in frames if "fastapi_tasks" in frame.f_code.co_filename]
            assert ours
            assert not any(value is task for frame in ours for value in frame.f_locals.values())
