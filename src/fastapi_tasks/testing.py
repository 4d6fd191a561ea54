"""Helpers for testing apps that schedule tasks: on both backends, with any pytest plugin, or none.

    async def test_signup_sends_a_mail():
        async with client(app) as http:
            await http.post("/signup", json={"mail": "a@example.org"})
            assert http.tasks.one(send_mail).timing == "after_response"

With Starlette's `TestClient`, which runs the app in a thread of its own, `record_tasks(app)` does
the same, or the fixture `scheduled_tasks`, for which a test module needs a fixture `app`. Without a
client, `lifespan(app)` runs the app.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    MutableMapping,
)
from contextlib import asynccontextmanager, contextmanager
from threading import Condition
from typing import Any, TypeAlias

import httpx
import pytest
from anyio import (
    CancelScope,
    Event,
    create_task_group,
    get_cancelled_exc_class,
    move_on_after,
)
from fastapi import FastAPI

from . import Instrument, Task, get_runner

__all__ = (
    "AppClient",
    "ScheduledTasks",
    "client",
    "lifespan",
    "record_tasks",
    "scheduled_tasks",
)

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class ScheduledTasks(Instrument):
    """The tasks that were scheduled since the recording began, in the order of the calls.

    Each is a `Task`: it shows its `func`, `args`, `kwargs`, `timing`, `state` and `exception`.
    """

    def __init__(self) -> None:
        self._tasks: list[Task[..., Any]] = []
        self._changed = Condition()

    def task_scheduled(self, task: Task[..., Any]) -> None:
        with self._changed:
            self._tasks.append(task)

    def task_finished(self, task: Task[..., Any]) -> None:  # noqa: ARG002
        with self._changed:
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(tuple(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> Task[..., Any]:
        return self._tasks[index]

    def __repr__(self) -> str:
        return f"<ScheduledTasks {self._tasks}>"

    def of(self, func: Callable[..., Any]) -> list[Task[..., Any]]:
        """Return the tasks of one function."""
        return [task for task in self if task.func == func]

    def one(self, func: Callable[..., Any]) -> Task[..., Any]:
        """Return the one task of a function.

        Raises:
            AssertionError: if there are none, or more; it shows which tasks there are.
        """
        tasks = self.of(func)
        if len(tasks) != 1:
            name = getattr(func, "__qualname__", type(func).__qualname__)
            raise AssertionError(f"{len(tasks)} tasks of {name} in {self!r}")
        return tasks[0]

    def wait(self, timeout: float = 5) -> None:
        """Block until the recorded tasks have finished; for tests that are not async.

        Raises:
            TimeoutError: after so many seconds; it shows the tasks.
        """
        with self._changed:
            if not self._changed.wait_for(self._all_finished, timeout):
                raise TimeoutError(f"unfinished tasks after {timeout} s: {self!r}")

    def _all_finished(self) -> bool:
        return all(task.finished.is_set() for task in self._tasks)


@contextmanager
def record_tasks(app: FastAPI) -> Generator[ScheduledTasks]:
    """Record the tasks that the app schedules, however it is run meanwhile."""
    tasks = ScheduledTasks()
    with get_runner(app).watching(tasks):
        yield tasks


@pytest.fixture
def scheduled_tasks(app: FastAPI) -> Generator[ScheduledTasks]:
    """`record_tasks(app)` for the fixture `app`, as a fixture to import."""
    with record_tasks(app) as tasks:
        yield tasks


class AppClient(httpx.AsyncClient):
    """An HTTP client of an app in the same event loop. Made by `client()`.

    Attributes:
        tasks: what was scheduled since the app's start, its lifespan included.
    """

    def __init__(
        self, app: FastAPI, tasks: ScheduledTasks, transport: httpx.ASGITransport, **options: Any
    ) -> None:
        super().__init__(transport=transport, **options)
        self.tasks = tasks
        self._runner = get_runner(app)

    async def join(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait until all tasks of the app have finished.

        Raises:
            TimeoutError: after so many seconds; it shows the unfinished tasks.
        """
        with move_on_after(timeout):
            await self._runner.join()
            return
        raise TimeoutError(f"unfinished tasks after {timeout} s: {list(self._runner.tasks)}")


@asynccontextmanager
async def client(
    app: FastAPI,
    *,
    base_url: str = "http://testserver",
    raise_app_exceptions: bool = True,
    **options: Any,
) -> AsyncGenerator[AppClient]:
    """Run the app's lifespan, and give a client for it; shut the app down at the end.

    Exceptions of the lifespan are raised here, and those that the app raises for a request by that
    request, as they are by Starlette's `TestClient`.

    Args:
        app: an app with `add_tasks(app)`.
        base_url: what the paths of requests are relative to.
        raise_app_exceptions: False gives the response, a 500, instead of the exception.
        **options: for `httpx.AsyncClient`.
    """
    with record_tasks(app) as tasks:
        async with lifespan(app) as state:

            async def app_with_state(scope: _Message, receive: _Receive, send: _Send) -> None:
                await app({**scope, "state": state.copy()}, receive, send)

            transport = httpx.ASGITransport(app_with_state, raise_app_exceptions)
            async with AppClient(app, tasks, transport, base_url=base_url, **options) as http:
                yield http


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    """Run the app's lifespan around the block, as a server does; give its state for requests.

    The block may be left in another task of the event loop than it was entered in, as fixtures of
    pytest-asyncio are. Exceptions of the lifespan are raised here.
    """
    running = _Lifespan(app)
    async with _beside(running.run):
        await running.started.wait()
        if not running.errors:
            try:
                yield running.state
            except BaseException as exc:
                running.errors.append(exc)
            running.stop.set()
    running.raise_errors()  # outside of the task group, which would wrap them


class _Lifespan:
    """A lifespan of an app, as its server sees it."""

    def __init__(self, app: FastAPI) -> None:
        self.state: dict[str, Any] = {}
        self.started = Event()  # or ended before that
        self.stop = Event()
        self.errors: list[BaseException] = []
        self._failures: list[str] = []  # as the app has told them, and may not raise them
        self._app = app
        self._messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:
            self.errors.append(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            if self._failures and not self.errors:
                error = RuntimeError(f"the app's lifespan has failed: {self._failures[0]}")
                self.errors.append(error)
            self.started.set()

    async def _receive(self) -> _Message:
        if self.started.is_set():
            await self.stop.wait()
        return {"type": next(self._messages)}

    async def _send(self, message: _Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self.started.set()
        elif message["type"].endswith(".failed"):
            self._failures.append(message.get("message", ""))

    def raise_errors(self) -> None:
        """Raise the first, with a note of those that came after it."""
        for later in self.errors[1:]:
            self.errors[0].add_note(f"after that the app's lifespan failed: {later!r}")
        if self.errors:
            raise self.errors[0]


@asynccontextmanager
async def _beside(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Run something in a task of its own, which has ended when the block is left."""
    if get_cancelled_exc_class().__module__.startswith("asyncio"):
        async with _beside_on_asyncio(run):
            yield
    else:
        async with create_task_group() as group:
            group.start_soon(run)
            yield


@asynccontextmanager
async def _beside_on_asyncio(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Without a task group: that would have to be left in the task that has entered it."""
    import asyncio  # noqa: PLC0415

    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        cancelled = None
        while not task.done():
            try:
                with CancelScope(shield=cancelled is not None):
                    await asyncio.wait([task])
            except asyncio.CancelledError as exc:  # as a task group, pass it on, and wait
                cancelled = exc
                task.cancel()
        if cancelled is not None:
            raise cancelled
