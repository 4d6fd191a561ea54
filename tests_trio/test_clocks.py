"""G24: clocks, whose rounds are tasks that come again."""

import gc
import threading
import weakref
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from fastapi import Depends, FastAPI

from fastapi_tasks import (
    INJECTED,
    FastAPITasksError,
    Instrument,
    PeriodicTask,
    TaskConfig,
    TaskState,
    add_tasks,
)
from fastapi_tasks._core import times as times_module
from fastapi_tasks.testing import client
from tests_trio.support import (
    Journal,
    gives,
    make_app,
    opens,
    raises,
    serving,
    settle,
    takes,
    user,
)
from tests_trio.test_references import shown_by_us


class Rounds(list):
    """When rounds began, in seconds since this was made."""

    def __init__(self, *, sleep=0):
        super().__init__()
        self.begin = anyio.current_time()
        self.sleep = sleep

    async def note(self, *_):
        self.append(round(anyio.current_time() - self.begin, 6))
        await anyio.sleep(self.sleep)


def said(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


# A fixed rate.


async def test_rounds():
    """One for each period, without drift, whatever they take."""
    app = make_app()
    async with serving(app):
        rounds = Rounds(sleep=3)
        clock = app.state.runner.every(10).schedule(rounds.note)
        assert type(clock) is PeriodicTask
        assert (clock.last, clock.rounds, clock.skipped) == (None, 0, 0)
        await anyio.sleep(45)
        assert rounds == [10, 20, 30, 40]
        assert (clock.rounds, clock.skipped, clock.last.state.value) == (4, 0, "succeeded")
        assert clock.name == clock.last.name == "Rounds.note"


@pytest.mark.parametrize("first", [0, 3, 25])
async def test_the_first_round(first):
    """It comes after so many seconds; the others follow from there."""
    app = make_app()
    async with serving(app):
        rounds = Rounds()
        app.state.runner.every(10, first=first).schedule(rounds.note)
        await anyio.sleep(50)
        assert rounds == [*range(first, 50, 10)]


async def test_next_at():
    """On the wall clock, in UTC; none after the end."""
    app = make_app()
    async with serving(app):
        clock = app.state.runner.every(10, first=5).schedule(Rounds().note)
        await settle()
        for seconds in (5, 10):
            until = (clock.next_at - datetime.now(UTC)).total_seconds()
            assert clock.next_at.tzinfo is UTC
            assert seconds - 1 < until <= seconds
            await anyio.sleep(5)
            await settle()
        clock.cancel()
        assert clock.next_at is None


async def test_what_a_round_is():
    """A task with its options and arguments, in a fresh copy of the context of the call."""
    app, seen, errors = make_app(config=TaskConfig(labels={"app": "shop"})), [], []
    every = app.state.runner.every(10)

    async def note_error(task, exc):
        errors.append(task)

    async def work(number, *, name):
        seen.append((number, name, user.get()))
        user.set("round")
        raise ValueError

    async with serving(app):
        user.set("ann")
        scheduler = every.task(name="work", labels={"kind": "x"}, on_error=note_error)
        scheduler = scheduler.task(shield=True)
        clock = scheduler.schedule(work, 7, name="seven")
        user.set("bob")
        other = scheduler.task(name="other").schedule(work, 8, name="eight")
        await anyio.sleep(25)
    assert sorted(seen) == [(7, "seven", "ann")] * 2 + [(8, "eight", "bob")] * 2
    assert (clock.last.args, clock.last.kwargs) == ((7,), {"name": "seven"})
    assert clock.last.config.labels == {"app": "shop", "kind": "x"}
    assert clock.last.config.shield
    assert (clock.name, other.name, clock.last.timing) == ("work", "other", "now")
    assert clock.last in errors
    assert other.last in errors


async def test_each_kind_of_option():
    """They mean what they mean: a timeout, a limiter, a retry."""
    app, entered = make_app(), []

    @asynccontextmanager
    async def limit():
        entered.append("limiter")
        yield

    class Limiter:
        async def __aenter__(self):
            entered.append("limiter")

        async def __aexit__(self, *_):
            pass

    async def twice(attempt):
        try:
            return await attempt()
        except TimeoutError:
            return await attempt()

    async with serving(app):
        clock = (
            app.state.runner.every(10)
            .task(timeout=2, limiter=Limiter(), retry=twice, on_error=False)
            .schedule(anyio.sleep, 5)
        )
        await anyio.sleep(15)
        assert type(clock.last.exception) is TimeoutError
        assert clock.last.attempts == 2
    assert entered == ["limiter"] * 2


@pytest.mark.real_time
async def test_a_sync_function():
    """It runs in a thread of the runner."""
    app, threads = make_app(), []
    async with serving(app):
        clock = app.state.runner.every(60, first=0).schedule(
            lambda: threads.append(threading.current_thread())
        )
        while clock.last is None:
            await anyio.sleep(0.001)
        await clock.last
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_dependencies():
    """Each round gets them anew; what a task cannot have is refused at the call."""
    app, journal = make_app(), Journal()

    async with serving(app):
        clock = app.state.runner.every(10).schedule(takes(opens(journal, "session")))
        await anyio.sleep(25)
        assert await clock.last == "session"
        assert journal == ["session opens", "session closes"] * 2
        with pytest.raises(TypeError, match="request"):
            app.state.runner.every(10).schedule(takes(lambda q: q))
        await app.state.runner.schedule(takes(gives(1)))


async def test_a_failed_round(caplog):
    """It is logged once, and the next one comes."""
    app = make_app()
    async with serving(app):
        clock = app.state.runner.every(10).task(name="work").schedule(raises, ValueError("why"))
        await anyio.sleep(35)
        assert (clock.rounds, clock.skipped) == (3, 0)
    assert said(caplog) == [("ERROR", "task 'work' failed")] * 3


async def test_never_two_at_once(caplog):
    """A round that comes while the one before runs is skipped; each row of them is said once."""
    app = make_app()
    async with serving(app):
        rounds = Rounds(sleep=25)
        clock = app.state.runner.every(10).task(name="slow").schedule(rounds.note)
        await anyio.sleep(75)
        assert rounds == [10, 40, 70]
        assert (clock.rounds, clock.skipped) == (3, 4)
        clock.last.cancel()
    line = ("WARNING", "clock 'slow' skips rounds: the one before still runs")
    assert said(caplog) == [line] * 2


async def test_an_error_handler_is_part_of_the_round():
    """The round lasts until it is done."""
    app = make_app()

    async def handle(task, exc):
        await anyio.sleep(15)

    async with serving(app):
        clock = app.state.runner.every(10).task(on_error=handle).schedule(raises, ValueError())
        await anyio.sleep(25)
        assert (clock.rounds, clock.skipped) == (1, 1)


async def test_a_full_app(caplog):
    """A round that `max_tasks` refuses is skipped."""
    app = make_app(max_tasks=1)
    async with serving(app):
        rounds = Rounds()
        clock = app.state.runner.every(10).schedule(rounds.note)
        app.state.runner.schedule(anyio.sleep, 25)
        await anyio.sleep(35)
        assert (rounds, clock.skipped) == ([30], 2)
        assert app.state.runner.statistics().refused == 2
    assert said(caplog) == [
        (
            "WARNING",
            "clock 'Rounds.note' skips rounds: 1 tasks are unfinished, which is max_tasks: "
            "schedule less, or answer 503 (Service Unavailable)",
        )
    ]


async def test_a_round_that_cannot_be_scheduled(caplog):
    """It is logged, and the next one comes."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        work = takes(gives(1))
        clock = runner.every(10).task(name="work").schedule(work)

        def needs_a_request(number: int): ...

        dependency = work.__annotations__["value"].__metadata__[0].dependency
        app.dependency_overrides[dependency] = needs_a_request
        await anyio.sleep(25)
        app.dependency_overrides.clear()
        await anyio.sleep(10)
        assert (clock.rounds, clock.skipped) == (1, 2)
    assert said(caplog) == [("ERROR", "a round of clock 'work' cannot be scheduled")] * 2
    assert caplog.records[0].exc_info[0] is TypeError


@pytest.mark.real_time
async def test_times_that_have_passed(caplog):
    """An event loop that was busy: the round comes late, those that it has missed do not."""
    app = make_app()
    async with serving(app):
        rounds = []
        clock = app.state.runner.every(0.05).task(name="work").schedule(rounds.append, 1)
        await checkpoint()
        threading.Event().wait(0.28)  # blocks the event loop
        while not rounds:
            await anyio.sleep(0.001)
        clock.cancel()
        assert clock.skipped >= 4
    assert said(caplog)[0] == ("WARNING", "clock 'work' skips rounds: their times have passed")


async def test_a_week_with_jitter():
    """10,080 rounds of a minute: each within its jitter, none twice, none lost."""
    app = make_app()
    async with serving(app):
        rounds = Rounds()
        clock = app.state.runner.every(60, jitter=20).schedule(rounds.note)
        await anyio.sleep(7 * 86_400 + 30)
        assert (clock.rounds, len(rounds), clock.skipped) == (10_080, 10_080, 0)
        late = [moment - 60 * number for number, moment in enumerate(rounds, 1)]
        assert 0 <= min(late) < 1
        assert 19 < max(late) <= 20


# The end.


async def test_cancelling():
    """It ends the clock at once and for good, and leaves the round under way alone."""
    app, ended = make_app(), []

    async def wait():
        ended.append(await clock)

    async with serving(app):
        rounds = Rounds(sleep=5)
        clock = app.state.runner.every(10).schedule(rounds.note)
        await anyio.sleep(12)
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await settle()
            assert ended == []
            clock.cancel()
        assert ended == [None]
        assert clock.next_at is None
        assert clock.last.state is TaskState.RUNNING
        clock.cancel()
        await clock
        await anyio.sleep(60)
        assert (rounds, clock.last.state) == ([10], TaskState.SUCCEEDED)
        never = app.state.runner.every(10).schedule(rounds.note)
        never.cancel()
        await never
        await anyio.sleep(20)
        assert never.rounds == 0


async def test_a_round_that_ends_its_clock():
    app = make_app()
    async with serving(app):

        async def work():
            clock.cancel()
            await clock
            await anyio.sleep(5)

        clock = app.state.runner.every(10).schedule(work)
        await anyio.sleep(60)
        assert (clock.rounds, clock.last.state) == (1, TaskState.SUCCEEDED)


async def test_shutdown(caplog):
    """Clocks end as `stopping` is set; a round under way is drained as any task."""
    app, waited = make_app(grace_period=30), []
    runner = app.state.runner

    async def wait():
        await clock
        waited.append((runner.stopping.is_set(), clock.next_at, clock.last.state))

    async with serving(app):
        rounds = Rounds(sleep=15)
        clock = runner.every(20).schedule(rounds.note)
        cut_off = runner.every(20).task(name="cut off").schedule(anyio.sleep, 100)
        shielded = runner.every(20).task(shield=True).schedule(anyio.sleep, 100)
        await anyio.sleep(21)
        runner.schedule(wait)
        await settle()
    assert waited == [(True, None, TaskState.RUNNING)]
    assert rounds == [20]
    ends = [each.last.state.value for each in (clock, cut_off, shielded)]
    assert ends == ["succeeded", "cancelled", "succeeded"]
    assert ("WARNING", "shutdown cancels 1 task(s): 'cut off'") in said(caplog)


async def test_clocks_made_in_the_shutdown(caplog):
    """They do not begin, and it is said."""
    app, clocks = make_app(grace_period=5), []
    runner = app.state.runner

    async def work():
        await runner.stopping.wait()
        clocks.append(runner.every(1).task(name="late").schedule(anyio.sleep, 0))
        await clocks[0]

    async with serving(app):
        task = runner.schedule(work)
        await settle()
    assert task.state is TaskState.SUCCEEDED
    assert (clocks[0].rounds, clocks[0].next_at) == (0, None)
    line = ("WARNING", "clock 'late' does not begin: the app is shutting down")
    assert said(caplog) == [line]


async def test_join_does_not_wait_for_clocks():
    """Between rounds they are no unfinished task; `http.join()` tests an app that has some."""
    app = make_app()
    runner = app.state.runner
    rounds = Rounds(sleep=5)
    runner.every(10).schedule(rounds.note)
    async with client(app) as http:
        await http.join()
        assert anyio.current_time() - rounds.begin < 1
        assert (rounds, runner.tasks) == ([], ())
        await anyio.sleep(11)
        assert len(runner.tasks) == 1
        await http.join()
        assert anyio.current_time() - rounds.begin < 16


async def test_lifespans():
    """What is made at import time begins with each anew; what is made in one ends with it."""
    app = make_app()
    rounds = Rounds()
    lasting = app.state.runner.every(10).schedule(rounds.note, "lasting")
    cancelled = app.state.runner.every(10).schedule(rounds.note, "cancelled")
    with pytest.raises(FastAPITasksError, match=r"clock 'Rounds.note' has not begun"):
        await lasting
    cancelled.cancel()
    await cancelled
    assert (lasting.next_at, lasting.rounds) == (None, 0)
    for number in (1, 2):
        begin = anyio.current_time() - rounds.begin
        async with serving(app):
            once = app.state.runner.every(10).schedule(anyio.sleep, 0)
            await anyio.sleep(25)
            assert lasting.next_at is not None
            assert rounds == [begin + 10, begin + 20]
        await lasting
        await once
        assert (once.rounds, once.next_at) == (2, None)
        assert (lasting.rounds, lasting.next_at, cancelled.rounds) == (2 * number, None, 0)
        rounds.clear()
        await anyio.sleep(100)
    assert rounds == []
    between = app.state.runner.every(10).schedule(rounds.note)
    async with serving(app):
        lasting.cancel()
        await lasting
        await anyio.sleep(15)
    assert (lasting.rounds, between.rounds) == (4, 1)


def with_lifespan(app, *, startup=None, shutdown=None):
    @asynccontextmanager
    async def lifespan(_):
        if startup is not None:
            await startup()
        yield
        if shutdown is not None:
            await shutdown()

    app.router.lifespan_context = lifespan
    return app


async def test_a_lifespan_that_fails():
    """Clocks end with it, too; those that wait for the app to have started do not begin."""
    clocks = []

    async def startup():
        clocks.append(app.state.runner.every(10).schedule(anyio.sleep, 0))
        await anyio.sleep(15)
        raise ValueError

    app = with_lifespan(make_app(), startup=startup)
    lasting = app.state.runner.every(10).schedule(anyio.sleep, 0)
    with pytest.raises(ValueError):
        async with serving(app):
            pass
    await clocks[0]
    assert (clocks[0].rounds, clocks[0].next_at, lasting.rounds) == (1, None, 0)
    with pytest.raises(FastAPITasksError, match="has not begun"):
        await lasting


async def test_clocks_begin_when_the_app_has_started():
    """What their rounds use is open; those of the startup code itself begin at once."""
    app, journal = make_app(), Journal()

    async def startup():
        app.state.runner.every(10, first=0).schedule(journal.task("of the startup"))
        await anyio.sleep(5)
        journal.append("started")

    with_lifespan(app, startup=startup)
    app.state.runner.every(10, first=0).schedule(journal.task("lasting"))
    async with serving(app):
        await anyio.sleep(1)
    assert journal == ["of the startup", "started", "lasting"]


async def test_an_app_that_starts_after_its_shutdown_has_begun():
    """Its clocks do not begin."""

    async def startup():
        app.state.runner._supervisor.stop()

    app = with_lifespan(make_app(), startup=startup)
    clock = app.state.runner.every(10).schedule(anyio.sleep, 0)
    async with serving(app):
        await anyio.sleep(15)
    assert (clock.rounds, clock.next_at) == (0, None)


async def test_clocks_made_in_the_shutdown_code(caplog):
    """They do not begin, neither then nor with a later lifespan, and it is said."""
    app, clocks = make_app(), []

    async def shutdown():
        clocks.append(app.state.runner.every(10).task(name="late").schedule(anyio.sleep, 0))

    with_lifespan(app, shutdown=shutdown)
    for _ in range(2):
        async with serving(app):
            await anyio.sleep(15)
    assert [clock.rounds for clock in clocks] == [0, 0]
    line = ("WARNING", "clock 'late' does not begin: the app is shutting down")
    assert said(caplog) == [line] * 2


async def test_clocks_made_in_another_event_loop(backend_name):
    """Between two lifespans: rounds run in the event loop of theirs."""
    app, other = make_app(), {"trio": "asyncio", "asyncio": "trio"}[backend_name]
    clocks = []

    async def make():
        clocks.append(app.state.runner.every(10).schedule(anyio.sleep, 1))

    in_thread(lambda: anyio.run(make, backend=other))
    async with serving(app):
        await anyio.sleep(15)
        assert clocks[0].last.state is TaskState.SUCCEEDED


def in_thread(func):
    """Call it in another thread, while this one waits."""
    thread = threading.Thread(target=func)
    thread.start()
    thread.join()


@pytest.mark.real_time
async def test_threads():
    """A clock can be made and cancelled in any thread; it is awaited on the event loop."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        rounds, refused = [], []

        def make():
            return runner.every(0.01).schedule(rounds.append, threading.get_ident())

        def wait_elsewhere():
            try:
                anyio.run(wait)
            except FastAPITasksError as exc:
                refused.append(str(exc))

        async def wait():
            await clock

        clock = await to_thread.run_sync(make)
        while len(rounds) < 3:
            await anyio.sleep(0.001)
        in_thread(wait_elsewhere)
        assert refused == ["clock 'list.append' runs in another event loop: await it there"]
        await to_thread.run_sync(clock.cancel)
        await clock
        assert clock.next_at is None
        count = clock.rounds
        await anyio.sleep(0.05)
        assert clock.rounds == count


@pytest.mark.parametrize("where", [lambda func: func(), in_thread])
async def test_clocks_that_end_others(wall, where):
    """Of two whose time has come, one ends the other."""
    app = make_app()
    runner = app.state.runner
    rounds, others = Rounds(), []

    def end_others(last):
        if last is not None:
            where(others[0].cancel)
        return (last or wall.now()) + timedelta(seconds=10)

    async with serving(app):
        wall.set(NOON)
        runner.every(end_others).schedule(anyio.sleep, 0)
        others.append(runner.every(10).schedule(rounds.note))
        await anyio.sleep(25)
        await others[0]
        assert (rounds, others[0].rounds, others[0].skipped) == ([], 0, 0)


async def test_an_instrument_that_ends_the_clock():
    """As its round is scheduled."""

    class Ends(Instrument):
        def task_scheduled(self, task):
            clock.cancel()

    app = make_app(instruments=[Ends()])
    async with serving(app):
        clock = app.state.runner.every(10).schedule(anyio.sleep, 1)
        await anyio.sleep(60)
        assert (clock.rounds, clock.next_at, clock.last.state) == (1, None, TaskState.SUCCEEDED)


async def test_a_clock_that_ends_before_it_begins():
    """It was made in a thread, and cancelled before the event loop heard of it."""
    app, clocks = make_app(), []
    async with serving(app):
        in_thread(lambda: clocks.append(app.state.runner.every(10).schedule(anyio.sleep, 1)))
        clocks[0].cancel()
        await clocks[0]
        await anyio.sleep(60)
        assert (clocks[0].rounds, clocks[0].next_at) == (0, None)


async def test_a_clock_that_is_begun_twice():
    """As the mailbox does with a call that was broken off."""
    app = make_app()
    async with serving(app):
        rounds = Rounds()
        clock = app.state.runner.every(10).schedule(rounds.note)
        await anyio.sleep(5)
        clock._clock.begin()
        await anyio.sleep(20)
        assert rounds == [10, 20]


async def test_a_cancellation_by_a_thread_while_the_clock_ends(monkeypatch):
    """Those who wait for the end go on."""
    app = make_app()
    clocks = app.state.runner._supervisor.clocks
    note_end = clocks._note_end

    def cancel_as_well(ended):
        in_thread(clock.cancel)
        note_end(ended)

    async def wait():
        await clock

    async with serving(app):
        monkeypatch.setattr(clocks, "_note_end", cancel_as_well)
        clock = app.state.runner.every(10).schedule(anyio.sleep, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await settle()
            clocks.stop()
        assert clock.next_at is None


async def test_a_clock_that_is_ended_twice():
    """By a thread, and by the shutdown before the event loop hears of that."""
    app = make_app()
    async with serving(app):
        clock = app.state.runner.every(10).schedule(anyio.sleep, 1)
        await settle()
        in_thread(clock.cancel)
        app.state.runner._supervisor.clocks.stop()
        await clock
        await anyio.sleep(60)
        assert (clock.rounds, clock.next_at) == (0, None)


@pytest.mark.real_time
async def test_a_period_function_that_waits_for_a_thread(wall):
    """That one may make clocks as well."""
    app, made = make_app(), []
    runner = app.state.runner

    def ask(last):
        in_thread(lambda: made.append(runner.every(60).schedule(anyio.sleep, 0)))
        return wall.now() + timedelta(seconds=60)

    wall.set(datetime.now(UTC))
    lasting = runner.every(ask).schedule(anyio.sleep, 0)
    async with serving(app):
        runner.every(ask).schedule(anyio.sleep, 0)
        assert len(made) == 2
        assert lasting.next_at is not None


async def test_a_wake_up_that_fails(monkeypatch, caplog):
    """The clock ends, and it is said."""
    app = make_app()

    def fail():
        raise RecursionError

    async with serving(app):
        rounds = Rounds()
        monkeypatch.setattr(app.state.runner._supervisor.lifetime.timers, "_wake", fail)
        await app.state.runner.every(10).task(name="work").schedule(rounds.note)
        monkeypatch.undo()
        app.state.runner.every(15).schedule(anyio.sleep, 0)
        await anyio.sleep(50)
        assert rounds == []
    assert said(caplog) == [("ERROR", "clock 'work' ends: its next round cannot be planned")]


async def test_many_clocks():
    """Each has its own times."""
    app = make_app()
    async with serving(app):
        begin, seen = anyio.current_time(), []

        async def note(number):
            seen.append((round(anyio.current_time() - begin, 6), number))

        for number in range(1, 6):
            app.state.runner.every(number).schedule(note, number)
        await anyio.sleep(6.5)
    assert sorted(seen) == sorted(
        (float(moment), number) for number in range(1, 6) for moment in range(number, 7, number)
    )


async def test_what_is_kept(wall):
    """Of a clock that has ended, nothing but its handle; its functions go."""
    app = make_app()
    wall.set(NOON)
    runner = app.state.runner

    async def make():
        async def work(): ...

        def period(last):
            return times_module.wall_clock() + timedelta(seconds=10)

        references = weakref.ref(work), weakref.ref(period)
        return references, runner.every(period).schedule(work)

    before, before_clock = await make()
    async with serving(app):
        during, during_clock = await make()
        ended, ended_clock = await make()
        await anyio.sleep(5)
        ended_clock.cancel()
        gc.collect()
        assert [each() for each in ended] == [None, None]
        assert None not in [each() for each in before]
        await anyio.sleep(10)
    del before_clock, ended_clock
    assert during_clock.rounds == 1
    del during_clock
    gc.collect()
    assert [each() for each in during] == [None, None]
    assert None not in [each() for each in before]  # it begins anew


async def test_arguments_are_not_shown(caplog):
    app = make_app(max_tasks=1)
    async with serving(app):
        app.state.runner.schedule(anyio.sleep, 12)
        clock = app.state.runner.every(10).schedule(raises, ValueError("secret-7f3a"))
        await anyio.sleep(11)
        assert repr(clock) == "<PeriodicTask 'raises', 0 rounds>"
        clock.cancel()
    assert "secret-7f3a" not in caplog.text


async def test_no_frame_shows_arguments(caplog):
    """G13: neither of a call that is refused, nor of a round that cannot be scheduled."""
    app = make_app()
    runner = app.state.runner
    secret = "secret-7f3a"

    async def needs_a_request(
        token, *, word, value: Annotated[int, Depends(lambda q: q)] = INJECTED
    ): ...

    for func in (7, needs_a_request):
        with pytest.raises(TypeError) as caught:
            runner.every(10).schedule(func, secret, word=secret)
        assert shown_by_us(caught.value, secret) == []

    async def needs(*, word, value: Annotated[int, Depends(gives_one)] = INJECTED): ...

    async with serving(app):
        clock = runner.every(10).task(name="work").schedule(needs, word=secret)
        app.dependency_overrides[gives_one] = lambda q: q
        await anyio.sleep(25)
        assert (clock.rounds, clock.skipped) == (0, 2)
    assert said(caplog) == [("ERROR", "a round of clock 'work' cannot be scheduled")] * 2
    for record in caplog.records:
        assert shown_by_us(record.exc_info[1], secret) == []


def gives_one():
    return 1


async def test_a_function_that_cannot_be_asked_any_more(caplog):
    """Whatever that raises, the next round comes, and nothing else is harmed."""
    app = make_app()
    runner = app.state.runner

    class Proxy:
        is_strange = False

        async def __call__(self): ...

        @property
        def __class__(self):
            if self.is_strange:
                raise SystemExit
            return Proxy

    async with serving(app):
        proxy = Proxy()
        clock = runner.every(10).task(name="work").schedule(proxy)
        proxy.is_strange = True
        await anyio.sleep(25)
        proxy.is_strange = False
        await anyio.sleep(10)
        assert (clock.rounds, clock.skipped, runner.running) == (1, 2, True)
    assert said(caplog) == [("ERROR", "a round of clock 'work' cannot be scheduled")] * 2


# A function of the last planned time.


@pytest.fixture
def wall(monkeypatch):
    """The wall clock goes as virtual time does, from a moment that the test sets."""

    class Wall:
        def set(self, now):
            self.begin, self.offset = now.astimezone(UTC), anyio.current_time()

        def now(self):
            return self.begin + timedelta(seconds=anyio.current_time() - self.offset)

    wall = Wall()
    monkeypatch.setattr(times_module, "wall_clock", wall.now)
    return wall


class WallRounds(list):
    """What the wall clock says as rounds begin."""

    def __init__(self, wall, zone=UTC, *, sleep=0):
        super().__init__()
        self.wall, self.zone, self.sleep = wall, zone, sleep

    async def note(self):
        now = self.wall.now() + timedelta(microseconds=500)
        self.append(f"{now.astimezone(self.zone):%d %H:%M:%S}")
        await anyio.sleep(self.sleep)


NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


async def test_a_function(wall):
    """It gets the last planned time, `None` at first, and says what the next one is."""
    app, asked = make_app(), []

    def each_hour(last):
        asked.append(last)
        return NOON + timedelta(minutes=30) if last is None else last + timedelta(hours=1)

    async with serving(app):
        wall.set(NOON)
        rounds = WallRounds(wall, sleep=100)
        clock = app.state.runner.every(each_hour).schedule(rounds.note)
        await settle()
        assert clock.next_at == NOON + timedelta(minutes=30)
        await anyio.sleep(3 * 3600)
    assert rounds == ["27 12:30:00", "27 13:30:00", "27 14:30:00"]
    assert asked == [None, *(NOON + timedelta(hours=hours) for hours in (0.5, 1.5, 2.5))]
    assert clock.skipped == 0


def by_croniter(last):
    return croniter("30 2 * * *", last or times_module.wall_clock().astimezone(BERLIN)).get_next(
        datetime
    )


TRIGGER = CronTrigger.from_crontab("30 2 * * *", timezone=BERLIN)


def by_apscheduler(last):
    return TRIGGER.get_next_fire_time(last, times_module.wall_clock())


@pytest.mark.parametrize("period", [by_croniter, by_apscheduler])
async def test_days_on_which_clocks_are_set(wall, period):
    """Half past two does not come on the day that summer begins, and comes twice as it ends.

    What libraries make of that is theirs; in between the rounds are 24 hours apart.
    """
    app = make_app()
    for begin, expected in (
        (datetime(2026, 3, 27, 12, tzinfo=BERLIN), {"28 02:30:00", "30 02:30:00"}),
        (datetime(2026, 10, 23, 12, tzinfo=BERLIN), {"24 02:30:00", "26 02:30:00"}),
    ):
        async with serving(app):
            wall.set(begin)
            rounds = WallRounds(wall, BERLIN)
            clock = app.state.runner.every(period).schedule(rounds.note)
            await anyio.sleep(3 * 86_400)
            assert expected <= {*rounds}
            assert len(rounds) in (3, 4)
            assert clock.next_at.tzinfo is not UTC
            assert (clock.rounds, clock.skipped) == (len(rounds), 0)


async def test_a_function_that_ends_the_clock(wall, caplog):
    """By `None`: without a word, also at once. A lasting clock begins anew with the next lifespan."""
    app = make_app()

    def twice(last):
        if last is None:
            return NOON + timedelta(hours=1)
        return last + timedelta(hours=1) if last.hour == 13 else None

    lasting = app.state.runner.every(twice).schedule(anyio.sleep, 0)
    for count in (2, 4):
        wall.set(NOON)
        async with serving(app):
            never = app.state.runner.every(lambda last: None).schedule(raises, ValueError())
            await never
            await lasting
            assert (never.rounds, never.next_at) == (0, None)
            await app.state.runner.join()
        assert (lasting.rounds, lasting.next_at) == (count, None)
    assert said(caplog) == []


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda last: last + timedelta(1), "TypeError: unsupported operand"),
        (lambda last: NOON.replace(tzinfo=None), "ValueError: a period function returns an aware"),
        (lambda last: 60, "TypeError: a period function returns an aware datetime, or None to end"),
        (lambda last: NOON + timedelta(1), "ValueError: a period function returns a later time"),
    ],
)
async def test_a_function_that_fails(wall, caplog, function, error):
    """It ends the clock, with one ERROR."""
    app = make_app()
    async with serving(app):
        wall.set(NOON)
        clock = app.state.runner.every(function).task(name="work").schedule(anyio.sleep, 0)
        await clock
        await app.state.runner.join()
        assert clock.next_at is None
    assert said(caplog) == [("ERROR", "clock 'work' ends: its next round cannot be planned")]
    assert error in caplog.text


async def test_passed_times_of_a_function(wall, caplog):
    """All that have passed are one skip; so is a row of a thousand and more."""
    app = make_app()

    def each_hour(last):
        return (last or NOON) + timedelta(hours=1)

    async with serving(app):
        wall.set(NOON + timedelta(hours=5.5))
        rounds = WallRounds(wall)
        clock = app.state.runner.every(each_hour).task(name="work").schedule(rounds.note)
        await anyio.sleep(3601)
        assert (rounds, clock.skipped) == (["27 18:00:00"], 1)
        wall.set(wall.now() + timedelta(hours=9.5))  # it was set
        await anyio.sleep(60 * 61)
        assert (rounds[1:], clock.skipped) == (["28 04:01:00", "28 05:00:00"], 2)
        wall.set(NOON + timedelta(days=1000))
        await anyio.sleep(2 * 3600)
        assert (len(rounds), clock.skipped) == (5, 3)
    line = ("WARNING", "clock 'work' skips rounds: their times have passed")
    assert said(caplog) == [line] * 3


async def test_many_times_that_have_passed(wall):
    """The event loop goes on meanwhile; no time is made up, and all are one skip."""
    app, asked = make_app(), []

    def each_minute(last):
        asked.append(last)
        return NOON if last is None else last + timedelta(minutes=1)

    async with serving(app):
        wall.set(NOON + timedelta(days=3, seconds=30))
        rounds = WallRounds(wall)
        clock = app.state.runner.every(each_minute).schedule(rounds.note)
        assert len(asked) == 1000
        await anyio.sleep(60)
        assert rounds == ["30 12:01:00"]
        assert asked[-1] == NOON + timedelta(days=3, minutes=1)
        assert clock.skipped == 1
        assert clock.next_at == NOON + timedelta(days=3, minutes=2)
        wall.set(NOON + timedelta(days=6))
        await anyio.sleep(61)
        assert clock.skipped == 2


@pytest.mark.parametrize("end", [None, ValueError()])
async def test_passed_times_of_a_function_that_ends(wall, caplog, end):
    """They are counted."""
    app = make_app()

    def once(last):
        if last is None:
            return NOON
        if end is not None:
            raise end
        return None

    async with serving(app):
        wall.set(NOON + timedelta(hours=1))
        clock = app.state.runner.every(once).task(name="work").schedule(anyio.sleep, 0)
        await clock
        assert (clock.rounds, clock.skipped) == (0, 1)
    line = ("WARNING", "clock 'work' skips rounds: their times have passed")
    assert said(caplog)[0] == line
    assert len(said(caplog)) == 1 + (end is not None)


@pytest.mark.parametrize("minutes", [60, 15])
async def test_hours_that_a_zone_leaves_out(wall, minutes):
    """A step from half past one on the night that summer begins leads to a later time."""
    app = make_app()

    def step(last):
        return (
            datetime(2026, 3, 29, 0, tzinfo=BERLIN)
            if last is None
            else last + timedelta(minutes=minutes)
        )

    async with serving(app):
        wall.set(datetime(2026, 3, 28, 23, 59, tzinfo=BERLIN))
        rounds = WallRounds(wall)
        clock = app.state.runner.every(step).schedule(rounds.note)
        await anyio.sleep(6 * 3600 + 90)
        assert len(rounds) == 6 * 60 / minutes + 1
        assert clock.skipped == 0


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("where", ["import time", "lifespan", "thread"])
async def test_times_beyond_the_calendar(wall, caplog, where, when):
    """They end the clock, with one ERROR, and nothing else."""
    app, clocks = make_app(), []
    runner = app.state.runner

    def never(last):
        if when == "later" and last is None:
            return wall.now() + timedelta(seconds=5)
        return datetime.max.replace(tzinfo=UTC)

    def make():
        clocks.append(runner.every(never, jitter=10).task(name="work").schedule(anyio.sleep, 0))

    wall.set(NOON)
    if where == "import time":
        make()
    async with serving(app):
        if where != "import time":
            {"lifespan": lambda func: func(), "thread": in_thread}[where](make)
        await anyio.sleep(20)
        await clocks[0]
        assert (clocks[0].rounds, clocks[0].next_at) == (int(when == "later"), None)
        assert await runner.schedule(gives(1)) == 1
    assert said(caplog) == [("ERROR", "clock 'work' ends: its next round cannot be planned")]


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_function_that_cancels_its_clock(wall, when):
    app = make_app()

    def step(last):
        if when == "at once" or last is not None:
            clocks[0].cancel()
        return wall.now() + timedelta(seconds=5)

    clocks = [app.state.runner.every(step).schedule(anyio.sleep, 0)]
    wall.set(NOON)
    async with serving(app):
        await anyio.sleep(20)
        await clocks[0]
        assert (clocks[0].rounds, clocks[0].next_at) == (int(when == "later"), None)


async def test_what_a_function_gets_back(wall):
    """An object of the class that it returns, which may have more methods."""
    app = make_app()

    class Moment(datetime):
        def tomorrow(self):
            return self + timedelta(days=1)

    async with serving(app):
        wall.set(NOON)
        clock = app.state.runner.every(
            lambda last: Moment(2026, 3, 27, 15, tzinfo=BERLIN) if last is None else last.tomorrow()
        ).schedule(anyio.sleep, 0)
        await anyio.sleep(4 * 86_400)
        assert (clock.rounds, clock.skipped) == (4, 0)
        assert clock.next_at == datetime(2026, 3, 31, 15, tzinfo=BERLIN)
        assert type(clock.next_at) is datetime


@pytest.mark.real_time
async def test_a_clock_that_is_always_due():
    """Threads are heard all the same."""
    app = make_app()
    runner = app.state.runner

    def step(last):
        return (last or datetime.now(UTC)) + timedelta(microseconds=1)

    async with serving(app):
        clock = runner.every(step).schedule(anyio.sleep, 0)
        task = await to_thread.run_sync(runner.schedule, gives(7))
        assert await task == 7
        await to_thread.run_sync(clock.cancel)
        await clock


async def test_a_wall_clock_that_is_set_back(wall):
    """The round waits for its time."""
    app = make_app()
    async with serving(app):
        wall.set(NOON)
        rounds = WallRounds(wall)
        app.state.runner.every(lambda last: NOON + timedelta(days=bool(last), hours=1)).schedule(
            rounds.note
        )
        await anyio.sleep(1800)
        wall.set(NOON)
        await anyio.sleep(3590)
        assert rounds == []
        await anyio.sleep(20)
        assert rounds == ["27 13:00:00"]


async def test_a_function_with_jitter(wall, monkeypatch):
    monkeypatch.setattr(times_module, "uniform", lambda low, high: high)
    app = make_app()
    async with serving(app):
        wall.set(NOON)
        rounds = WallRounds(wall)
        clock = app.state.runner.every(
            lambda last: (last or NOON) + timedelta(hours=1), jitter=30
        ).schedule(rounds.note)
        await settle()
        assert clock.next_at == NOON + timedelta(hours=1, seconds=30)
        await anyio.sleep(7300)
    assert rounds == ["27 13:00:30", "27 14:00:30"]


# Bad input.


class Opens:
    """Callable, and async."""

    async def __call__(self, last): ...


@pytest.mark.parametrize(
    ("period", "options", "error", "message"),
    [
        (0, {}, ValueError, r"period must be at least 0\.001 s, not 0"),
        (5e-324, {}, ValueError, r"period must be at least 0\.001 s"),
        (1e11, {"first": 1e11}, ValueError, "period must be a finite number"),
        (-1, {}, ValueError, "period must be a finite number of seconds from 0 up, not -1"),
        (float("nan"), {}, ValueError, "period must be a finite number"),
        (float("inf"), {}, ValueError, "period must be a finite number"),
        (1e300, {}, ValueError, "period must be a finite number"),
        (True, {}, ValueError, "period must be a finite number"),
        ("*/5 * * * *", {}, TypeError, "not str; for cron expressions and triggers write lambda"),
        (TRIGGER, {}, TypeError, "not CronTrigger; for cron expressions and triggers"),
        (timedelta(1), {}, TypeError, r"write period\.total_seconds\(\)"),
        (60, {"first": timedelta(1)}, TypeError, r"write first\.total_seconds\(\)"),
        (60, {"jitter": timedelta(1)}, TypeError, r"write jitter\.total_seconds\(\)"),
        (Opens(), {}, TypeError, "write it without async and yield"),
        (opens([], ""), {}, TypeError, "write it without async and yield"),
        (60, {"jitter": -1}, ValueError, "jitter must be a finite number"),
        (60, {"jitter": 61}, ValueError, "jitter must be at most the period of 60 s, not 61"),
        (60, {"first": -1}, ValueError, "first must be a finite number"),
        (raises, {}, TypeError, "write it without async"),
        (by_croniter, {"first": 0}, ValueError, "first= is for a number of seconds"),
        (by_croniter, {"jitter": "1"}, ValueError, "jitter must be a finite number"),
    ],
)
def test_what_a_period_cannot_be(period, options, error, message):
    runner = add_tasks(FastAPI())
    with pytest.raises(error, match=message):
        runner.every(period, **options)


async def test_what_a_clock_cannot_call():
    """As `schedule()` says it of tasks; handles and schedulers are no functions either."""
    every = add_tasks(FastAPI()).every(60)
    coroutine = raises(ValueError())
    for func, message in (
        (coroutine, r"not the coroutine that calling it returns"),
        (7, "not int"),
        (every, "not PeriodicScheduler"),
        (every.schedule(raises, ValueError()), "not the PeriodicTask"),
    ):
        with pytest.raises(TypeError, match=message):
            every.schedule(func)
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        every.task(timeout="1")
    with pytest.raises(TypeError, match=r"write runner\.every\(60\)\.schedule\(func, arg\)"):
        every(raises)
    with pytest.raises(AttributeError, match=r"write runner\.every\(60\)\.task\(name=name\)"):
        add_tasks(FastAPI()).task(name="work").every(60)


def test_a_forked_process():
    """It runs no tasks, and so no clocks."""
    runner = add_tasks(FastAPI())
    runner._supervisor.lifetime.is_forked = True
    with pytest.raises(FastAPITasksError, match="forked"):
        runner.every(60).schedule(anyio.sleep, 0)
