"""G12: a Ctrl+C passes, and nothing else that looks like one. What passes is a real signal."""

import asyncio
import concurrent.futures
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import anyio
import pytest
from anyio import to_process, to_thread

from fastapi_tasks import Instrument, TaskState
from fastapi_tasks._core.function import code_of
from fastapi_tasks._core.interrupt import is_interrupt
from tests_trio.support import (
    Journal,
    make_app,
    raises,
    request_tasks,
    serving,
)


def run_with_pythons_handler(main: Callable, backend: str) -> None:
    """Run on asyncio while SIGINT has the handler that is written in C, as Trio has it never."""
    if backend == "trio":
        anyio.run(main, backend=backend)
    else:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            for task in left:  # or asyncio logs it, some time, in another test
                if not task.cancelled():
                    task.exception()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


@contextmanager
def handler_of_sigint(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def pythons_handler():
    """What changes the handler while an event loop has its own leaves that behind."""
    with handler_of_sigint(signal.default_int_handler):
        yield


async def interrupt(*_):
    signal.raise_signal(signal.SIGINT)
    await anyio.sleep(1)


def interrupts_of(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [part for each in error.exceptions for part in interrupts_of(each)]
    return [error] if isinstance(error, KeyboardInterrupt) else []


def test_ctrl_c_in_a_task_passes(backend_name):
    """Nothing hangs, and no task is left unfinished."""
    app = make_app()
    tasks = []

    async def main():
        async with serving(app):
            runner = app.state.runner
            tasks.append(runner.schedule(anyio.sleep_forever))
            tasks.append(runner.task(shield=True).schedule(anyio.sleep_forever))
            tasks.append(request_tasks(runner).after_response.schedule(anyio.sleep_forever))
            tasks.append(runner.schedule(interrupt))
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as caught:
        run_with_pythons_handler(main, backend_name)
    assert interrupts_of(caught.value)
    assert [task.state.value for task in tasks] == ["cancelled"] * 3 + ["failed"]
    assert not app.state.runner.running


@pytest.mark.parametrize("shield", [True, False])
def test_ctrl_c_ends_a_plain_program(backend_name, shield):
    """With `asyncio.run()` and `trio.run()`, wherever it arrives; shielded tasks do not keep it."""
    app = make_app()

    async def main():
        async with serving(app):
            app.state.runner.task(shield=shield).schedule(interrupt)
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend=backend_name)
    assert interrupts_of(caught.value)
    assert app.state.runner.tasks == ()


def test_ctrl_c_in_an_error_handler_and_in_an_instrument_passes(backend_name):
    """It is nobody's failure there either."""

    class Interrupting(Instrument):
        def task_started(self, task):
            if task.name == "interrupts":
                signal.raise_signal(signal.SIGINT)

    for options in ({"name": "interrupts"}, {"on_error": interrupt}):
        app = make_app(instruments=[Interrupting()])

        async def main(app=app, options=options):
            async with serving(app):
                app.state.runner.task(**options).schedule(raises, ValueError())
                await anyio.sleep_forever()

        with pytest.raises(BaseException) as caught:
            run_with_pythons_handler(main, backend_name)
        assert interrupts_of(caught.value)
        counts = app.state.runner.statistics()
        assert (counts.failed, counts.succeeded, counts.running) == (1, 0, 0)


def test_ctrl_c_by_a_handler_of_ones_own(backend_name):
    """A function, a method, an object or a partial: what it raises is a Ctrl+C."""

    class Handler:
        def method(self, number, frame):
            raise KeyboardInterrupt

        def __call__(self, number, frame):
            raise KeyboardInterrupt

    def function(number, frame):
        raise KeyboardInterrupt

    for handler in (function, Handler().method, Handler(), partial(function)):
        app = make_app()

        async def main(app=app, handler=handler):
            async with serving(app):
                with handler_of_sigint(handler):
                    task = app.state.runner.schedule(interrupt)
                    await task.finished.wait()
                    await anyio.sleep_forever()

        with pytest.raises(BaseException) as caught:
            anyio.run(main, backend=backend_name)
        assert interrupts_of(caught.value)


@pytest.mark.parametrize("calls", ["the one before it", "a helper"])
def test_ctrl_c_by_a_handler_that_calls(calls, backend_name, caplog):
    """Whichever function of them raises it: the handler stands in the traceback."""
    app = make_app()

    def stop():
        raise KeyboardInterrupt

    async def main():
        before = signal.getsignal(signal.SIGINT)

        def handler(number, frame):
            if calls == "a helper":
                stop()
            for _ in range(2):  # asyncio's raises for the second time
                before(number, frame)

        async with serving(app):
            with handler_of_sigint(handler):
                task = app.state.runner.schedule(interrupt)
                await task.finished.wait()
                await anyio.sleep(5)

    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend=backend_name)
    assert interrupts_of(caught.value)
    assert "interrupt' failed" not in caplog.text


def compute():
    raise KeyboardInterrupt


async def compute_in_pool():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(compute)
        while not future.done():
            await anyio.sleep(0.001)
        future.result()


async def compute_in_a_group():
    try:
        await to_thread.run_sync(compute)
    except KeyboardInterrupt as error:  # a child's would end asyncio's loop, as asyncio says
        raise BaseExceptionGroup("group", [ValueError(), error]) from None


async def compute_apart():
    await to_process.run_sync(compute)


FAKES = {
    "sync task": compute,
    "thread": partial(to_thread.run_sync, compute),
    "thread of a pool": compute_in_pool,
    "in a group": compute_in_a_group,
    "process": compute_apart,
}


@pytest.mark.parametrize("handler", ["the event loop's", "Python's", "none"])
@pytest.mark.parametrize("func", FAKES.values(), ids=FAKES)
def test_what_threads_and_processes_raise_is_a_failure(func, handler, backend_name, caplog):
    """The task has failed, with one ERROR line; the others and the shutdown go on."""
    app, journal = make_app(), Journal()
    tasks = []

    async def main():
        async with serving(app):
            app.state.runner.task(shield=True).schedule(journal.task("shielded", sleep=0.05))
            tasks.append(app.state.runner.schedule(func))
            await tasks[0].finished.wait()
            with pytest.raises(anyio.TaskFailed):
                await tasks[0]
            assert app.state.runner.running
        journal.append("shut down")

    if handler == "Python's":
        run_with_pythons_handler(main, backend_name)
    else:
        with handler_of_sigint(signal.SIG_IGN if handler == "none" else signal.default_int_handler):
            anyio.run(main, backend=backend_name)
    assert tasks[0].state is TaskState.FAILED
    assert interrupts_of(tasks[0].exception)
    assert journal == ["shielded", "shut down"]
    ours = [record.levelname for record in caplog.records if record.name == "fastapi_tasks"]
    assert ours == ["ERROR"]  # asyncio logs what the other tests have broken


def test_what_a_task_raises_by_itself_is_a_failure(backend_name):
    """Where the event loop has a handler of SIGINT, as it does in programs."""
    app = make_app()

    async def main():
        async with serving(app):
            task = app.state.runner.schedule(raises, KeyboardInterrupt())
            await task.finished.wait()
            assert task.state is TaskState.FAILED

    anyio.run(main, backend=backend_name)


def test_an_app_in_another_thread(backend_name):
    """Signals arrive in the main thread, so no `KeyboardInterrupt` there is one."""
    app = make_app()

    async def main():
        async with serving(app):
            task = app.state.runner.schedule(raises, KeyboardInterrupt())
            await task.finished.wait()
            return task.state

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(anyio.run, main, backend=backend_name)
        assert future.result(10) is TaskState.FAILED


def caught(func) -> BaseException:
    try:
        func()
    except BaseException as error:
        return error
    raise AssertionError


def test_a_ctrl_c_among_other_errors():
    """It passes however deep in groups it is, and whatever is beside it."""
    real = caught(partial(signal.raise_signal, signal.SIGINT))
    group = BaseExceptionGroup("g", [real, ValueError()])
    assert is_interrupt(BaseExceptionGroup("g", [ValueError(), group]))
    assert not is_interrupt(BaseExceptionGroup("g", [ValueError(), SystemExit()]))
    assert not is_interrupt(BaseExceptionGroup("g", [KeyboardInterrupt()]))  # never raised
    with handler_of_sigint(signal.SIG_IGN):
        assert not is_interrupt(real)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_handler_that_is_not_pythons():
    """As an embedding program may install one: it raises nothing of Python's."""
    error = caught(compute)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        assert not is_interrupt(error)


def test_what_has_no_code():
    """A handler that is none, say, or one that cannot be asked."""

    class Raising(type):
        def __getattribute__(cls, name):
            raise RuntimeError

    class Odd(metaclass=Raising): ...

    assert [code_of(None), code_of(object.__new__(Odd))] == [None, None]
