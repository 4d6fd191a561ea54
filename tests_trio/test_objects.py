"""What users hand over may raise when it is asked, or say that it is something else (G9, G10, G12)."""

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import logging
import types
import weakref
from contextvars import ContextVar
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import anyio
import pytest
import stamina
import tenacity
from anyio.lowlevel import checkpoint

from fastapi_tasks import Instrument, Task, TaskConfig, Tasks, TaskState
from tests_trio.support import Journal, double, failing_log, make_app, raises, serving, settle

# Functions.

current: ContextVar = ContextVar("current")


class StandIn:
    """As Flask's and Werkzeug's proxies are made: it is what the context has."""

    __class__ = property(lambda self: type(current.get()))

    def __getattr__(self, name):
        return getattr(current.get(), name)

    def __call__(self, *args):
        return current.get()(*args)


class Nameless:
    """It raises whatever it is asked for."""

    @property
    def __class__(self):
        raise ValueError

    def __getattr__(self, name):
        raise ValueError

    def __bool__(self):
        raise ValueError

    def __eq__(self, other):
        raise ValueError

    __hash__ = None

    def __call__(self):
        return 7


def weakly(func):
    return weakref.proxy(func)


@pytest.mark.real_time
async def test_a_name_that_can_be_told_in_one_context_only(caplog):
    """G12: it is told at `schedule()`; log lines, the drain and whoever asks later get that."""
    app, journal = make_app(grace_period=0), Journal()
    runner = app.state.runner

    def pack():
        journal.append("packed")
        raise KeyError

    @app.get("/")
    def endpoint(tasks: Tasks):
        current.set(pack)
        made.append(tasks.schedule(StandIn()))
        current.set(anyio.sleep_forever)
        made.append(tasks.schedule(StandIn()))

    made: list[Task] = []
    async with serving(app) as server:
        bystander = runner.task(shield=True, name="bystander").schedule(anyio.sleep, 0.05)
        assert (await server.get()).status_code == 200
        await made[0].finished.wait()
        await made[1].started.wait()
        assert runner.running
    name = "test_a_name_that_can_be_told_in_one_context_only.<locals>.pack"
    assert [task.name for task in made] == [name, "sleep_forever"]
    assert (journal, bystander.state) == (["packed"], TaskState.SUCCEEDED)
    assert [record.getMessage() for record in caplog.records] == [
        f"task {name!r} failed",
        "shutdown cancels 1 task(s): 'sleep_forever'",
    ]


@pytest.mark.real_time
async def test_functions_that_raise_when_they_are_asked():
    """G9: they are called, in a thread, under the name of their class."""
    app = make_app()

    def target():
        return 5

    async with serving(app):
        task = app.state.runner.schedule(Nameless())
        assert (task.name, await task) == ("Nameless", 7)
        task = app.state.runner.schedule(weakly(target))
        assert task.name in (
            "ReferenceType",
            "weakproxy",
            "weakref.CallableProxyType",
            "target",
        ) or ("target" in task.name)
        assert await task == 5
        task = app.state.runner.schedule(functools.partial(Nameless()))
        assert (task.name, await task) == ("Nameless", 7)


@pytest.mark.real_time
async def test_a_function_that_has_gone():
    """G12: a weak reference may die between the call and the start; that is the task's failure."""
    app = make_app()

    class Service:
        async def work(self): ...

    service = Service()
    async with serving(app):
        proxy = weakref.proxy(service)
        task = app.state.runner.task(name="gone").schedule(lambda: proxy.work())
        del service
        await task.finished.wait()
        assert isinstance(task.exception, ReferenceError)
        assert repr(task) == "<Task 'gone' failed>"


class Unprintable(str):
    __slots__ = ()

    def __str__(self):
        raise ValueError

    def __repr__(self):
        raise ValueError


async def test_names_that_raise(caplog):
    """G12: a string is a string, whatever its class makes of it."""
    app = make_app()

    async def work(): ...

    work.__qualname__ = Unprintable("work")
    async with serving(app):
        task = app.state.runner.task(name=Unprintable("bad")).schedule(raises, ValueError())
        await task.finished.wait()
        assert (type(task.name), repr(task)) == (str, "<Task 'bad' failed>")
        assert app.state.runner.schedule(work).name == "work"
    assert TaskConfig(name=Unprintable("x")).merge(TaskConfig()).name == "x"
    assert [record.getMessage() for record in caplog.records] == ["task 'bad' failed"]


async def test_control_characters_in_names(caplog):
    """G13: nobody forges a log line by a task's name, a function's or an instrument's class."""
    app = make_app(grace_period=0)
    forged = "x\nERROR\x1b[2J\u202e"

    class Broken(Instrument):
        def task_started(self, task):
            raise ValueError

    Broken.__qualname__ = forged
    app = make_app(grace_period=0, instruments=[Broken()])

    async def work():
        await anyio.sleep_forever()

    work.__qualname__ = forged
    async with serving(app):
        app.state.runner.schedule(work)
        app.state.runner.task(name=forged).schedule(raises, ValueError())
        await settle()
    messages = [record.getMessage() for record in caplog.records]
    assert sorted(messages) == [
        r"shutdown cancels 1 task(s): 'x\nERROR\x1b[2J\u202e'",
        r"task 'x\nERROR\x1b[2J\u202e' failed",
        r"the instrument 'x\nERROR\x1b[2J\u202e' failed and is switched off",
    ]


def send(to): ...


async def send_later(to): ...


MOCKS = {
    "Mock": Mock,
    "Mock(spec=function)": functools.partial(Mock, spec=send),
    "MagicMock(spec=function)": functools.partial(MagicMock, spec=send),
    "MagicMock(spec=async function)": functools.partial(MagicMock, spec=send_later),
    "AsyncMock": AsyncMock,
    "AsyncMock(spec=function)": functools.partial(AsyncMock, spec=send),
    "create_autospec(function)": functools.partial(create_autospec, send),
    "create_autospec(async function)": functools.partial(create_autospec, send_later),
}


@pytest.mark.real_time
@pytest.mark.parametrize("make", MOCKS.values(), ids=MOCKS)
async def test_mocks(make):
    """G9: mocks of functions are functions, with a spec as without one."""
    app = make_app()
    async with serving(app):
        mock = make(return_value=7)
        assert await app.state.runner.schedule(mock, "anna") == 7
        mock.assert_called_once_with("anna")
        if isinstance(mock, AsyncMock) or hasattr(mock, "assert_awaited_once_with"):
            mock.assert_awaited_once_with("anna")
        task = app.state.runner.schedule(make(side_effect=KeyError), "anna")
        await task.finished.wait()
        assert isinstance(task.exception, KeyError)


def steps():
    yield


async def async_steps():
    yield


def decorated(func):
    """An honest decorator: it iterates."""

    @functools.wraps(func)
    def iterate():
        return len(list(func()))

    return iterate


class StepsOfAClass:
    __call__ = staticmethod(steps)


@pytest.mark.parametrize("kind", [steps, async_steps])
def test_wrapped_generator_functions(kind):
    """G10: a TypeError at the call, whatever wrapper that only passes the call on is around them."""
    runner = make_app().state.runner
    cached = functools.lru_cache(kind)
    for func in (staticmethod(kind), cached, staticmethod(cached)):
        for wrapped in (func, functools.partial(func), staticmethod(functools.partial(func))):
            with pytest.raises(
                TypeError, match=f"cannot run the generator function '{kind.__name__}'"
            ):
                runner.schedule(wrapped)


@pytest.mark.real_time
async def test_functions_that_return_generators():
    """G9: nobody would iterate over one: the task fails, and says what to write."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        assert await runner.schedule(decorated(steps)) == 1
        with pytest.raises(TypeError, match="'StepsOfAClass'"):
            runner.schedule(StepsOfAClass())
        for func in (lambda: steps(), lambda: async_steps()):
            task = runner.schedule(func)
            await task.finished.wait()
            assert isinstance(task.exception, TypeError)
            assert "write a function without yield" in str(task.exception)


class LazyCoroutine(collections.abc.Coroutine):
    """As aiohttp's `session.post()` returns."""

    def __init__(self, inner):
        self.inner = inner

    def __await__(self):
        return self.inner.__await__()

    send = throw = close = None


class Lazy:
    def __init__(self, number):
        self.number = number

    def __await__(self):
        return double(self.number).__await__()


AWAITABLES = {
    "coroutine": lambda number: double(number),
    "Coroutine": lambda number: LazyCoroutine(double(number)),
    "class": Lazy,
    "partial": functools.partial(lambda number: Lazy(number), 4),
}


@pytest.mark.real_time
@pytest.mark.parametrize("func", AWAITABLES.values(), ids=AWAITABLES)
@pytest.mark.parametrize("options", [{}, {"timeout": 5}], ids=["", "timeout"])
async def test_awaitables_of_sync_functions(func, options):
    """G9: whatever can be awaited is awaited."""
    app = make_app()
    args = () if isinstance(func, functools.partial) else (4,)
    async with serving(app):
        assert await app.state.runner.task(**options).schedule(func, *args) == 8


@pytest.mark.real_time
async def test_a_task_that_a_function_returns():
    """G9: it is not awaited: it is the result, and runs by itself."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        inner = await runner.schedule(lambda: runner.schedule(anyio.sleep, 0.05))
        assert isinstance(inner, Task)
        assert inner.state in (TaskState.PENDING, TaskState.RUNNING)


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="Python 3.12 and newer")
async def test_marked_coroutine_functions():
    """G9: they are called on the event loop."""
    app = make_app()

    @inspect.markcoroutinefunction
    def marked(number):
        assert anyio.get_current_task()
        return double(number)

    async with serving(app):
        assert await app.state.runner.schedule(marked, 4) == 8


# Exceptions.


class NoTracebackError(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError


class UndecidedError(Exception):
    def __bool__(self):
        raise RuntimeError


class ClasslessError(Exception):
    @property
    def __class__(self):
        raise RuntimeError


class IncomparableError(Exception):
    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None


class FixedError(Exception):
    def with_traceback(self, traceback):
        raise RuntimeError


class AnnotatedError(Exception):
    @property
    def __notes__(self):
        raise RuntimeError


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


class NoContextError(Exception):
    __context__ = __cause__ = property(lambda self: 1 / 0)


class ClasslessExit(BaseException):
    __class__ = property(lambda self: 1 / 0)


class GroupWithoutPartsError(ExceptionGroup):
    exceptions = property(lambda self: 1 / 0)
    split = subgroup = derive = None

    def __new__(cls):
        return super().__new__(cls, "group", [ValueError()])

    def __init__(self):
        pass


@dataclasses.dataclass(frozen=True)
class PaymentDeclinedError(Exception):
    code: int = 51


HOSTILE = [
    NoTracebackError,
    UndecidedError,
    ClasslessError,
    IncomparableError,
    FixedError,
    AnnotatedError,
    MuteError,
    NoContextError,
    ClasslessExit,
    GroupWithoutPartsError,
    PaymentDeclinedError,
]


async def raises_kind(kind):
    await checkpoint()
    raise kind()


def raises_in_thread(kind):
    raise kind()


async def twice(attempt):
    try:
        return await attempt()
    except BaseException:
        return await attempt()


OPTIONS = {
    "": {},
    "timeout": {"timeout": 60},
    "retry": {"retry": twice},
    "timeout, retry, limiter": {"timeout": 60, "retry": twice, "limiter": contextlib.nullcontext()},
}


@pytest.mark.real_time
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("func", [raises_kind, raises_in_thread])
@pytest.mark.parametrize("kind", HOSTILE)
async def test_exceptions_that_raise_or_cannot_be_changed(kind, func, options):
    """G12, G13: the task has failed with it, logged once; it is handled and raised as it is."""
    app, handled = make_app(), []
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("fastapi_tasks")
    listen = records.append

    async def handle(task, error):
        handled.append(type(error))

    logger.addFilter(listen)  # which pytest does not format
    logger.propagate = False
    try:
        async with serving(app):
            other = app.state.runner.schedule(anyio.sleep, 0.01)
            task = app.state.runner.task(on_error=handle, **options).schedule(func, kind)
            await task.finished.wait()
            raised = []
            for _ in range(2):
                try:
                    await task
                except BaseException as error:
                    raised.append(type(error))
            await other
    finally:
        logger.removeFilter(listen)
        logger.propagate = True
    is_error = issubclass(kind, Exception)
    assert (task.state, type(task.exception)) == (TaskState.FAILED, kind)
    assert raised == [kind if is_error else anyio.TaskFailed] * 2
    assert handled == [kind] * is_error
    assert task.attempts == (2 if "retry" in options else 1)
    assert [(r.levelname, r.args) for r in records] == [("ERROR", (task.name,))]
    counts = app.state.runner.statistics()
    assert (counts.failed, counts.succeeded) == (1, 1)


@pytest.mark.parametrize("kind", [AnnotatedError, MuteError, NoTracebackError])
async def test_what_cannot_be_shown_is_logged_all_the_same(kind, caplog):
    """G13: with its traceback; where Python cannot show it, its class stands for it."""
    app = make_app()
    async with serving(app):
        task = app.state.runner.task(name="bad").schedule(raises_kind, kind)
        await task.finished.wait()
    assert "task 'bad' failed" in caplog.text
    assert "in raises_kind" in caplog.text
    assert kind.__name__ in caplog.text


async def test_an_exception_group_that_cannot_be_split(caplog):
    """G12: it is a failure as a whole."""

    class Picky(ExceptionGroup):
        def __new__(cls, message, errors, extra):
            return super().__new__(cls, message, errors)

        def derive(self, errors):
            return Picky(self.message, errors)

    app = make_app()
    async with serving(app):
        task = app.state.runner.task(name="bad").schedule(
            raises, Picky("picky", [ValueError("a"), ExceptionGroup("b", [ValueError()])], 7)
        )
        await task.finished.wait()
        assert task.state is TaskState.FAILED
        assert isinstance(task.exception, Picky)
    assert [r.getMessage() for r in caplog.records] == ["task 'bad' failed"]


async def test_an_exception_whose_class_cannot_be_asked(caplog):
    """G12, G13: it is judged by its type."""

    class OddError(Exception):
        @property
        def __class__(self):
            raise ValueError

    app = make_app()
    async with serving(app):
        task = app.state.runner.schedule(raises, OddError())
        await task.finished.wait()
        assert task.state is TaskState.FAILED
        assert await app.state.runner.schedule(anyio.sleep, 0) is None


async def test_an_exception_that_is_falsy(caplog):
    """It is a failure like any other: `FAILED`, handled, logged."""

    class EmptyError(Exception):
        def __len__(self):
            return 0

    app, handled, error = make_app(), [], EmptyError()

    async def handle(task, exc):
        handled.append(exc)

    async with serving(app):
        task = app.state.runner.task(name="bad", on_error=handle).schedule(raises, error)
        await task.finished.wait()
        assert (task.state, task.exception) == (TaskState.FAILED, error)
        with pytest.raises(EmptyError):
            await task
    assert handled == [error]
    assert [r.getMessage() for r in caplog.records] == ["task 'bad' failed"]


async def test_a_frozen_exception_of_the_route():
    """G6: what the function scope ended in is asked for its type only."""
    app, journal = make_app(), Journal()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        raise IncomparableError

    async with serving(app) as server:
        assert (await server.get()).status_code == 500
    assert journal == []


# Retry callers.


class SyncRetrying:
    """As tenacity's and stamina's sync callers are made."""

    def __call__(self, func, *args, **kwargs):
        try:
            return func(*args, **kwargs)
        except ConnectionError:
            return func(*args, **kwargs)


async def passes_on(attempt):
    return attempt()  # and does not await it


SYNC_CALLERS = {
    "an object": SyncRetrying(),
    "tenacity.Retrying": tenacity.Retrying(stop=tenacity.stop_after_attempt(3)),
    "stamina.RetryingCaller": stamina.RetryingCaller(attempts=3).on(ConnectionError),
    "a decorator": stamina.retry(on=ConnectionError),
    "an async one that does not await": passes_on,
    "a function": lambda attempt: None,
}


@pytest.mark.real_time
@pytest.mark.parametrize("retry", SYNC_CALLERS.values(), ids=SYNC_CALLERS)
@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_a_sync_retry_caller(retry, is_sync):
    """It would never see a failure: the task fails with a TypeError that says what to write."""
    app, calls = make_app(), []

    async def pay():
        calls.append(1)
        raise ConnectionError

    def pay_in_thread():
        calls.append(1)
        raise ConnectionError

    async with serving(app):
        task = app.state.runner.task(retry=retry).schedule(pay_in_thread if is_sync else pay)
        await task.finished.wait()
        assert isinstance(task.exception, TypeError)
        assert str(task.exception).startswith("retry must be an async caller, such as stamina.")
    assert calls == []


async def test_a_retry_caller_that_returns_an_awaitable():
    """It need not be an async function itself."""
    app = make_app()

    def retry(attempt):
        return twice(attempt)

    async with serving(app):
        assert await app.state.runner.task(retry=retry).schedule(double, 3) == 6


class MetaError(type):
    """What it makes raises when it is asked for an attribute."""

    def __getattr__(cls, name):
        raise LookupError(name)


class Made(metaclass=MetaError):
    pass


class NotAwaitable:
    __await__ = None


@types.coroutine
def old_style(number):
    yield from checkpoint().__await__()
    return 2 * number


class OldStyle:
    @types.coroutine
    def method(self, number):
        yield from checkpoint().__await__()
        return 2 * number


@pytest.mark.real_time
async def test_results_that_cannot_be_asked():
    """G9: whether they can be awaited is told by their classes, as `await` does."""
    app = make_app()
    async with serving(app):
        for kind in (Made, NotAwaitable):
            assert type(await app.state.runner.schedule(kind)) is kind


@pytest.mark.real_time
async def test_generators_that_are_coroutines():
    """G9: those of `types.coroutine`, given as they are or returned."""
    app = make_app()
    runner = app.state.runner
    async with serving(app):
        for func in (old_style, OldStyle().method, functools.partial(old_style)):
            assert await runner.schedule(func, 4) == 8
        assert await runner.schedule(lambda: old_style(3)) == 6


def test_what_is_no_function_and_cannot_be_asked():
    """G10: a TypeError that names its type."""

    class Odd:
        @property
        def __class__(self):
            raise LookupError

    with pytest.raises(TypeError, match=r"not .*Odd: write schedule\(func, arg\)"):
        make_app().state.runner.schedule(Odd())


@pytest.mark.parametrize("argument", ["config", "instruments"])
def test_what_claims_to_be_a_config(argument):
    """It is found where it is given, not in each task."""
    fake = {"config": Mock(spec=TaskConfig), "instruments": [Mock(spec=Instrument)]}[argument]
    with pytest.raises(TypeError, match=f"{argument} must be"):
        make_app(**{argument: fake})


async def test_an_instrument_that_has_gone(caplog):
    """G12: what stands for another object, and has none, is switched off."""

    class Standing(Instrument):
        def __getattribute__(self, name):
            raise LookupError

    app = make_app(instruments=[Standing()])
    async with serving(app):
        other = app.state.runner.schedule(anyio.sleep, 1)
        await app.state.runner.schedule(checkpoint)
        await other
    assert [record.levelname for record in caplog.records] == ["ERROR"]


class NotesError(Exception):
    @property
    def __notes__(self):
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_logging_that_raises_more_than_exceptions():
    """G12: neither an exception that does so when it is shown, nor a handler."""
    app = make_app()
    with failing_log(SystemExit()):
        async with serving(app):
            other = app.state.runner.schedule(anyio.sleep, 1)
            task = app.state.runner.schedule(raises, NotesError())
            await task.finished.wait()
            assert isinstance(task.exception, NotesError)
            await other
