"""G19, and how many tasks there are."""

import gc
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi.responses import JSONResponse

from fastapi_tasks import (
    Task,
    Tasks,
    TasksClosedError,
    TaskState,
    TaskStatistics,
    TooManyTasksError,
)
from tests_trio.support import (
    make_app,
    raises,
    request_tasks,
    serving,
    settle,
)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "9"])
def test_max_tasks_that_makes_no_sense(bad):
    with pytest.raises(ValueError, match="max_tasks must be a whole number from 1 up"):
        make_app(max_tasks=bad)


async def test_max_tasks():
    """G19: past that many unfinished tasks `schedule()` raises; waiting ones count."""
    app = make_app(max_tasks=3, grace_period=0)
    runner = app.state.runner
    async with serving(app):
        running = runner.schedule(anyio.sleep_forever)
        runner.task(shield=True).schedule(anyio.sleep, 5)
        request_tasks(runner).after_response.schedule(checkpoint)
        for scheduler in (runner, runner.task(shield=True), request_tasks(runner).after_route):
            with pytest.raises(TooManyTasksError, match="3 tasks are unfinished"):
                scheduler.schedule(checkpoint)
        running.cancel()
        await running.finished.wait()
        await runner.schedule(checkpoint)
        assert runner.statistics().refused == 3


async def test_the_503_handler():
    """The refused task leaves its request; the handler makes a 503 of it."""
    app = make_app(max_tasks=2, grace_period=0)

    @app.exception_handler(TooManyTasksError)
    async def too_many(request, error):
        return JSONResponse({"detail": "busy"}, status_code=503, headers={"Retry-After": "1"})

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(anyio.sleep, 10)

    async with serving(app) as server:
        statuses = [(await server.get()).status_code for _ in range(4)]
        assert statuses == [200, 200, 503, 503]
        await anyio.sleep(11)
        assert (await server.get()).status_code == 200


async def test_statistics_add_up():
    """Each scheduled task counts once; `tasks` are the unfinished ones."""
    app = make_app(grace_period=0)
    runner = app.state.runner
    assert runner.statistics() == TaskStatistics(*[0] * 7)
    async with serving(app):
        waiting = request_tasks(runner).after_route.schedule(checkpoint)
        running = runner.schedule(anyio.sleep_forever)
        runner.task(on_error=lambda task, error: anyio.sleep_forever()).schedule(checkpoint)
        runner.schedule(raises, ValueError())
        runner.schedule(anyio.sleep_forever).cancel()
        await settle()
        assert runner.tasks == (waiting, running)
        assert runner.statistics() == TaskStatistics(
            scheduled=5, waiting=1, running=1, succeeded=1, failed=1, cancelled=1, refused=0
        )
    with pytest.raises(TasksClosedError):
        runner.schedule(checkpoint)
    assert runner.tasks == ()
    assert runner.statistics() == TaskStatistics(
        scheduled=5, waiting=0, running=0, succeeded=1, failed=1, cancelled=3, refused=1
    )


async def test_a_refused_task_is_freed():
    """Memory stays bounded: what was refused is referenced by nobody."""
    import weakref

    app = make_app(max_tasks=1, grace_period=0)
    references = []

    class Argument: ...

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(anyio.sleep_forever)
        for _ in range(100):
            argument = Argument()
            references.append(weakref.ref(argument))
            with pytest.raises(TooManyTasksError):
                tasks.after_response.schedule(checkpoint, argument)

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        gc.collect()
        assert not any(reference() for reference in references)


@pytest.mark.real_time
async def test_what_the_drain_refuses_does_not_count():
    """G19: it has finished, although the event loop has not heard of it yet."""
    app = make_app(max_tasks=2, grace_period=0)
    runner = app.state.runner
    seen = []

    def schedule():
        tasks = [runner.schedule(checkpoint) for _ in range(5)]
        seen.extend(task.state.value for task in tasks)
        seen.append(runner.statistics())
        seen.append(runner.tasks)

    async def in_the_drain():
        try:
            await anyio.sleep_forever()
        finally:
            thread = threading.Thread(target=schedule)
            thread.start()
            thread.join()  # while the event loop stands still

    async with serving(app):
        runner.task(name="last").schedule(in_the_drain)
        await settle()
    assert seen[:5] == ["cancelled"] * 5
    counts = seen[5]
    assert (counts.scheduled, counts.cancelled, counts.running, counts.refused) == (6, 5, 1, 0)
    assert [task.name for task in seen[6]] == ["last"]
    assert runner.statistics().cancelled == 6


async def test_statistics_do_not_look_at_each_task():
    """They count, so they cost the same however many tasks there are; a signal may interrupt."""
    app = make_app(grace_period=0)
    runner = app.state.runner

    class Counted(dict):
        def __iter__(self):
            raise AssertionError("it looks at each task")

    async with serving(app):
        runner._supervisor.registry.tasks = Counted()
        request_tasks(runner).after_route.schedule(checkpoint)
        running = [runner.schedule(anyio.sleep, 5) for _ in range(3)]
        counts = runner.statistics()
        assert (counts.waiting, counts.running) == (4, 0)
        await settle()
        counts = runner.statistics()
        assert (counts.waiting, counts.running) == (1, 3)
        for task in running:
            await task
        counts = runner.statistics()
        assert (counts.waiting, counts.running, counts.succeeded) == (1, 0, 3)
        runner._supervisor.registry.tasks = dict(
            zip(Counted.keys(runner._supervisor.registry.tasks), [None], strict=True)
        )


class Garbage:
    """It calls a function when it is collected, which is at some moment."""

    def __init__(self, func):
        self.func = func
        self.itself = self

    def __del__(self):
        self.func()


@contextmanager
def collecting_after(number):
    """Have the garbage collected in the block, after so many allocations."""
    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(gc.get_count()[0] + number)
        yield
    finally:
        gc.set_threshold(*thresholds)


async def test_garbage_that_schedules_while_tasks_are_listed():
    """G11: an object's `__del__` may, at whatever moment it is called."""
    app = make_app(grace_period=0)
    runner = app.state.runner
    scheduled: list[Task] = []

    def schedule():
        scheduled.append(runner.schedule(anyio.sleep_forever))

    async with serving(app):
        for _ in range(25):
            schedule()
        for moment in range(20):
            gc.collect(0)
            Garbage(schedule)
            with collecting_after(moment):
                listed = runner.tasks
            assert listed in (tuple(scheduled), tuple(scheduled[:-1]))
            gc.collect(0)  # while it may schedule


async def test_garbage_that_schedules_while_a_timing_point_comes():
    """G7, G11: it finds the timing point before it, or behind it."""
    app = make_app(grace_period=0)
    runner = app.state.runner

    def note(schedule, tasks):
        tasks.append(schedule())

    async with serving(app):
        for moment in range(20):
            tasks = request_tasks(runner)
            expected = [tasks.after_route.schedule(anyio.sleep, 1) for _ in range(25)]
            gc.collect(0)
            Garbage(partial(note, partial(tasks.after_route.schedule, checkpoint), expected))
            with collecting_after(moment):
                tasks._route.reach("after_route")
            gc.collect(0)
            await runner.join()
            assert len(expected) == 26
            assert {task.state for task in expected} == {TaskState.SUCCEEDED}


async def test_what_garbage_schedules_between_two_lines():
    """G7, G11: as a tracer may collect it, when those that wait are just going to be started."""
    app = make_app(grace_period=0)
    expected = []

    class Queue(deque):
        def extend(self, tasks):
            super().extend(tasks)
            expected.append(run.after_route.schedule(checkpoint))

    async with serving(app):
        run = request_tasks(app.state.runner)
        run._route._queue = Queue()
        expected.append(run.after_route.schedule(checkpoint))
        run._route.reach("after_route")
        with anyio.fail_after(5):
            await app.state.runner.join()
    assert [task.state for task in expected] == [TaskState.SUCCEEDED] * 2
