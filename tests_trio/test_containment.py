"""G12, G21: whatever is wrong, wherever it comes: tasks end, in order, and so does the shutdown."""

import linecache
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from trio.testing import MockClock

import fastapi_tasks
from fastapi_tasks import Instrument, Task, Tasks, TaskState
from fastapi_tasks._core.mailbox import Mailbox
from fastapi_tasks._core.waits import running_task
from tests_asyncio.conftest import AutojumpLoop
from tests_trio.servers import until
from tests_trio.support import (
    Server,
    double,
    make_app,
    raises,
    serving,
    unsubmitted,
)

HOME = Path(fastapi_tasks.__file__).parent

# A RuntimeError at each line.

# Whose lines are not the runner's or the drain's: they run in the caller's frame, where what they
# raise is the caller's.
NOT_HERE = ("__init__.py", "config.py", "function.py", "log.py", "scheduler.py", "testing.py")
# Between a `with` and its block, and before a `finally`, nothing can be contained: the interpreter
# has not entered the block, or has left it.
BETWEEN = ("with ", "async with ", "try:", "finally:", "else:")
# The outermost handlers: what is wrong there is said, and may cost running tasks their lives.
OUTERMOST = {
    ("supervisor.py", "_end"),
    ("supervisor.py", "_finish"),
    ("supervised.py", "finish"),
    ("lifetime.py", "run"),
    ("lifetime.py", "_receive"),
    ("group.py", "_hold_open"),
}
LAST_LINES = {
    "self._end(task)",
    "del task, route  # an exception of the task's may hold this frame",
}


class Line(NamedTuple):
    file: str
    number: int


class Fault:
    """Raises a RuntimeError when a line of the library is about to run for the first time."""

    def __init__(self, at: Line | None) -> None:
        self.at = at
        self.seen: dict[Line, str] = {}  # the functions' names
        self.hit: list[tuple[str, str]] = []  # the library's frames at the fault
        self.victim: str | None = None  # the task that it hit
        self.is_outermost = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = sys.gettrace()  # that of a measurement of the coverage, say
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame, event, arg):
        file = Path(frame.f_code.co_filename)
        return self._line if HOME in file.parents and file.name not in NOT_HERE else None

    def _line(self, frame, event, arg):
        code = frame.f_code
        text = linecache.getline(code.co_filename, frame.f_lineno).strip()
        if event == "line" and not text.startswith(BETWEEN):
            line = Line(Path(code.co_filename).name, frame.f_lineno)
            self.seen.setdefault(line, code.co_name)
            if line == self.at:
                self._note(frame)
                self.is_outermost |= text in LAST_LINES
                raise RuntimeError("a fault")  # which ends the tracing
        return self._line

    def _note(self, frame) -> None:
        task = running_task.get() and running_task.get()()
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if HOME in file.parents:
                self.hit.append((file.name, frame.f_code.co_name))
                task = task or frame.f_locals.get("task")
            frame = frame.f_back
        self.victim = task and task.name
        self.is_outermost = not OUTERMOST.isdisjoint(self.hit)


class Outcome(NamedTuple):
    started: bool
    statuses: list[int | str]
    bystanders: dict[str, TaskState]
    unfinished: int
    error: BaseException | None


def schedule(scheduler, *call) -> Task:
    """Once more if the fault hits the call itself."""
    try:
        return scheduler.schedule(*call)
    except RuntimeError:
        return scheduler.schedule(*call)


async def once(attempt):
    return await attempt()


async def handle(task, error): ...


async def live(fault: Fault) -> Outcome:
    """An app's life with a task of every kind in it, and two that nothing may harm."""
    app = make_app(grace_period=1, instruments=[Instrument()])
    runner, server = app.state.runner, Server(app)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(hold_response=True).schedule(anyio.sleep, 0.1)
        tasks.schedule(raises, ValueError())
        tasks.after_route.schedule(anyio.sleep, 0.1)
        tasks.after_route.schedule(anyio.sleep, 0.1).cancel()
        tasks.after_response.task(timeout=5).schedule(anyio.sleep, 0.1)
        last = tasks.after_response.task(retry=once, limiter=anyio.Semaphore(1), on_error=handle)
        last.schedule(raises, ValueError())
        await anyio.sleep(0.05)

    @app.get("/failing")
    async def failing(tasks: Tasks):
        tasks.after_route.schedule(anyio.sleep, 0.1)
        raise ValueError

    statuses: list[int | str] = []
    bystanders: dict[str, Task] = {}
    with fault.watching():
        async with anyio.create_task_group() as group:
            group.start_soon(server.run)
            await server.answered.wait()
            started = "startup.complete" in server.sent
            if started and not fault.is_outermost:
                for name, shield in (("shielded", True), ("unshielded", False)):
                    scheduler = runner.task(name=name, shield=shield)
                    bystanders[name] = schedule(scheduler, anyio.sleep, 50)
                await anyio.sleep(0.01)
                for path in ("/", "/failing"):
                    try:
                        statuses.append((await server.get(path)).status_code)
                    except Exception as exc:
                        statuses.append(type(exc).__name__)
                await anyio.sleep(100 - 50)
                schedule(runner, anyio.sleep, 60)
                schedule(runner.task(shield=True), anyio.sleep, 2)
            await server.shutdown()
    states = {name: task.state for name, task in bystanders.items()}
    return Outcome(started, statuses, states, len(runner.tasks), server.error)


def run(backend: str, fault: Fault) -> tuple[Outcome, list[str]]:
    """Live with a fault; return what came of it, and what the log says."""
    lines: list[str] = []
    logger = logging.getLogger("fastapi_tasks")

    def listen(record) -> bool:
        lines.append(record.levelname)
        return False

    async def main() -> Outcome:
        with anyio.fail_after(3600):  # a hang
            return await live(fault)

    logger.addFilter(listen)
    try:
        if backend == "trio":
            return trio.run(main, clock=MockClock(autojump_threshold=0)), lines
        options = {"loop_factory": AutojumpLoop}
        return anyio.run(main, backend_options=options), lines
    finally:
        logger.removeFilter(listen)


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("file", sorted(file.name for file in HOME.glob("_*/[a-z]*.py")))
def test_a_fault_at_each_line(file, backend_name):
    """G12: no hang, no unfinished task, nobody else harmed; in the outermost handlers: loudly."""
    whole = Fault(None)
    outcome, log = run(backend_name, whole)
    both = {"shielded": TaskState.SUCCEEDED, "unshielded": TaskState.SUCCEEDED}
    assert outcome == Outcome(True, [200, 500], both, 0, None)
    assert log == ["ERROR", "ERROR", "WARNING"]
    for line in sorted(line for line in whole.seen if line.file == file):
        fault = Fault(line)
        outcome, log = run(backend_name, fault)
        where = f"{line.file}:{line.number} {fault.hit}: {outcome} {log}"
        if not fault.hit:  # on Trio, whose scheduler throws dice, not each run comes by
            continue
        assert outcome.unfinished == 0, where
        is_said = outcome.error is not None or "ERROR" in log
        assert is_said or outcome.statuses != [200, 500], where
        if not fault.is_outermost:
            harmed = {name for name, state in outcome.bystanders.items() if state is not both[name]}
            assert harmed <= {fault.victim}, where


# States.


def test_the_table_of_states():
    """G21: an edge that is not in it raises, and changes nothing."""
    ways = {
        "pending": ["running", "cancelled"],
        "running": ["succeeded", "failed", "cancelled"],
        "succeeded": [],
        "failed": [],
        "cancelled": [],
    }
    for state in TaskState:
        for other in TaskState:
            task = unsubmitted(anyio.sleep, 0)
            task._state = state
            if other.value in ways[state.value]:
                task.enter(other)
                assert task.state is other
            else:
                with pytest.raises(
                    RuntimeError, match=rf"{state.value}> cannot become {other.value}"
                ):
                    task.enter(other, ValueError())
                assert (task.state, task.exception) == (state, None)


class AlarmError(BaseException):
    """What a signal handler may raise, anywhere."""


def break_off(call, at: int) -> bool:
    """Have a call broken off at the at-th return from a function, within the library."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        ours = frame.f_code.co_filename.startswith(str(HOME))
        if ours and event in ("return", "c_return") and "__exit__" not in str(arg):
            count += 1
            if count == at:
                sys.setprofile(None)
                raise AlarmError

    sys.setprofile(profile)
    try:
        with suppress(AlarmError):
            call()
    finally:
        sys.setprofile(None)
    return count >= at


@pytest.mark.real_time
async def test_a_call_that_is_broken_off_in_a_thread():
    """G21, G7: the call may be lost; its task ends once, and holds up no shutdown."""
    at, goes_on = 0, True
    while goes_on:
        at += 1
        app = make_app(grace_period=5)
        runner = app.state.runner
        states: dict[Task, list[TaskState]] = {}

        class Watch(Instrument):
            def task_scheduled(self, task, states=states):
                states[task] = [task.state]

            def task_started(self, task, states=states):
                states[task].append(task.state)

            def task_finished(self, task, states=states):
                states.setdefault(task, []).append(task.state)

        runner._supervisor.instruments = (Watch(),)
        async with serving(app):
            call = partial(break_off, partial(runner.schedule, anyio.sleep, 0), at)
            goes_on = await anyio.to_thread.run_sync(call)
            with anyio.fail_after(5):
                await runner.join()
            assert await runner.schedule(double, 2) == 4
        assert runner.statistics().scheduled - runner.statistics().succeeded in (0, 1)
        for seen in states.values():
            final = [state for state in seen if state.is_final]
            assert len(final) == 1, (at, seen)
            assert final == seen[-1:], (at, seen)
    assert at > 20


@pytest.mark.real_time
async def test_a_call_that_is_broken_off_when_its_task_has_ended():
    """G21: it cannot tell so any more, and the task has finished all the same."""
    app = make_app()
    runner = app.state.runner
    ended = []

    def schedule(lifetime):
        post = lifetime.post

        def post_and_wait(call):
            post(call)
            ended.extend(call.args)
            until(lambda: ended[0].has_ended, "the task's end")

        def break_off(call):
            raise AlarmError

        lifetime.post, lifetime.call = post_and_wait, break_off
        with pytest.raises(AlarmError):
            runner.schedule(double, 2)
        del lifetime.post, lifetime.call

    async with serving(app):
        await anyio.to_thread.run_sync(schedule, runner._supervisor.lifetime)
        with anyio.fail_after(5):
            await runner.join()
    assert (ended[0].state, ended[0].finished.is_set()) == (TaskState.SUCCEEDED, True)


def at_depth(levels, func):
    return func() if levels == 0 else at_depth(levels - 1, func)


def schedule_near_the_limit(scheduler, func, *args):
    """Schedule at every depth of the stack at which that may fail half-way."""
    here, frame = 0, sys._getframe()
    while frame is not None:
        here, frame = here + 1, frame.f_back
    tasks = []
    limit = sys.getrecursionlimit() - here
    for levels in range(limit - 60, limit):
        with suppress(RecursionError):
            tasks.append(at_depth(levels, partial(scheduler.schedule, func, *args)))
    return tasks


@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", [{}, {"timeout": 5}, {"name": "deep"}], ids=repr)
async def test_scheduling_near_the_recursion_limit(options):
    """G7: the call raises or is accepted; what it was is not half of either, and later ones run."""
    app = make_app(grace_period=5)
    runner = app.state.runner
    tasks: list[Task] = []

    @app.get("/")
    async def endpoint(tasks_: Tasks):
        for scheduler in (tasks_, tasks_.after_route, tasks_.after_response):
            tasks.extend(schedule_near_the_limit(scheduler.task(**options), anyio.sleep, 0))

    async with serving(app) as server:
        here = partial(schedule_near_the_limit, runner.task(**options), anyio.sleep, 0)
        tasks += here()
        thread = threading.Thread(target=lambda: tasks.extend(here()))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert (await server.get()).status_code == 200
        with anyio.fail_after(5):
            await runner.join()
        later = await anyio.to_thread.run_sync(runner.schedule, double, 2)
        with anyio.fail_after(5):
            assert await later == 4
    assert {task.state for task in tasks} == {TaskState.SUCCEEDED}
    counts = runner.statistics()
    assert counts.succeeded == len(tasks) + 1
    assert counts.failed == 0


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_recursion_error_inside_schedule():
    """G7, G12: the call fails; no task is left that nobody starts, and the request is answered."""
    app = make_app()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        def walk():
            tasks.schedule(checkpoint)
            walk()

        walk()

    async with serving(app) as server:
        assert (await server.get()).status_code == 500
        await app.state.runner.join()


@pytest.mark.real_time
async def test_a_wake_up_that_fails():
    """G11: the call raises, and what is handed over after it wakes the event loop again."""
    app = make_app()
    runner = app.state.runner

    class Writer:
        def __init__(self, writer):
            self.writer, self.calls = writer, 0

        def send(self, data):
            self.calls += 1
            if self.calls == 1:
                raise RecursionError
            return self.writer.send(data)

        def __getattr__(self, name):
            return getattr(self.writer, name)

    def hand_over():
        with pytest.raises(RecursionError):
            runner.schedule(double, 1)
        return runner.schedule(double, 2)

    async with serving(app):
        mailbox = runner._supervisor.lifetime.mailbox
        mailbox._writer = Writer(mailbox._writer)
        task = await anyio.to_thread.run_sync(hand_over)
        with anyio.fail_after(5):
            assert await task == 4
            await runner.join()
    assert runner.statistics().cancelled == 1


@pytest.mark.real_time
async def test_a_call_from_a_thread_that_fails(caplog):
    """G11, G12: it is said, and those behind it are made."""
    app = make_app()
    runner = app.state.runner
    made = anyio.Event()

    def fail():
        raise ValueError

    async with serving(app):
        for call in (fail, made.set):
            runner._supervisor.lifetime.post(call)
        with anyio.fail_after(5):
            await made.wait()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "a call from another thread failed")
    ] * 2  # it is made once more, since it may have been broken off


@pytest.mark.real_time
async def test_a_call_from_a_thread_that_is_broken_off():
    """G7, G11: it is made once more, for what it does may be done twice."""
    made = []

    def break_off():
        made.append("first")
        if len(made) == 1:
            raise AlarmError

    mailbox = Mailbox()
    mailbox.post(break_off)
    mailbox.post(partial(made.append, "second"))
    with pytest.raises(AlarmError):
        mailbox.make_calls()
    mailbox.wake()
    await mailbox.wait()
    mailbox.make_calls()
    mailbox.close()
    assert made == ["first", "first", "second"]


async def test_a_timing_point_that_comes_half():
    """G7: what an exception breaks off is done by the event loop."""
    app = make_app()
    runner = app.state.runner
    tasks_of_app = []

    class Once(dict):
        def __delitem__(self, key):
            super().__delitem__(key)
            raise AlarmError

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks_of_app.append(tasks.after_route.schedule(double, 3))
        tasks._route._waiting = Once(tasks._route._waiting)

    async with serving(app) as server:
        with pytest.raises(BaseException) as caught:
            await server.call_raw()
        assert isinstance(caught.value, (AlarmError, BaseExceptionGroup))
        assert await tasks_of_app[0] == 6
        await runner.join()


@pytest.mark.real_time
async def test_a_thread_whose_slot_is_broken_off():
    """G9: it is given back."""
    app = make_app(max_threads=1)
    runner = app.state.runner

    class Limiter:
        def __init__(self, limiter):
            self.limiter = limiter

        def __getattr__(self, name):
            return getattr(self.limiter, name)

        async def acquire_on_behalf_of(self, borrower):
            await self.limiter.acquire_on_behalf_of(borrower)
            raise AlarmError

    async with serving(app):
        limiter = runner._supervisor.lifetime.threads
        runner._supervisor.lifetime.threads = Limiter(limiter)
        task = runner.schedule(int)
        await task.finished.wait()
        assert isinstance(task.exception, AlarmError)
        runner._supervisor.lifetime.threads = limiter
        assert await runner.schedule(int) == 0
