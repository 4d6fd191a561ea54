"""The server's side of ASGI, in process, and small tools that the scenarios share."""

import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any

import anyio
import httpx
from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI, Request

from fastapi_tasks import INJECTED, RequestTasks, TaskConfig, TaskRunner, add_tasks
from fastapi_tasks._core.supervised import SupervisedTask
from fastapi_tasks._core.timing import RouteRun

Message = MutableMapping[str, Any]

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def request_tasks(runner: TaskRunner) -> RequestTasks:
    """Those of a route that has no request around it, and runs here."""
    return RequestTasks(runner, RouteRun(runner._supervisor))


def unsubmitted(func: Callable[..., Any], *args: Any) -> SupervisedTask[..., Any]:
    """A task that nobody runs."""
    return SupervisedTask(func, args, {}, TaskConfig(), "now", None, None)


class Server:
    """Runs an app's lifespan as servers do, and sends it requests."""

    def __init__(self, app: Callable[..., Any], *, state: bool = True) -> None:
        self.app = app
        self.scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if state:
            self.scope["state"] = {}
        self.sent: list[str] = []  # the types of the app's lifespan messages
        self.error: BaseException | None = None  # what the lifespan call raised
        self.answered = anyio.Event()  # startup is complete, or has failed
        self.ended = anyio.Event()  # the lifespan call has ended
        self.call = anyio.CancelScope()  # around the lifespan call
        self._shutdown = anyio.Event()
        self._received = 0

    async def run(self) -> None:
        with self.call:
            try:
                await self.app(self.scope, self.receive, self.send)
            except Exception as exc:
                self.error = exc
            finally:
                self.answered.set()
                self.ended.set()

    async def receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        await self._shutdown.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"].removeprefix("lifespan."))
        self.answered.set()

    async def shutdown(self) -> None:
        self._shutdown.set()
        await self.ended.wait()

    @property
    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    async def get(self, path: str = "/", **options: Any) -> httpx.Response:
        async with self.client as client:
            return await client.get(path, **options)

    async def call_raw(
        self,
        path: str = "/",
        *,
        send: Callable[[Message], Any] | None = None,
        receive: Callable[[], Any] | None = None,
        **scope: Any,
    ) -> list[Message]:
        """One ASGI call, seen message by message; `send` is called with each before it counts."""
        messages: list[Message] = []

        async def record(message: Message) -> None:
            if send is not None:
                await send(message)
            messages.append(message)

        requests = [{"type": "http.request", "body": b"", "more_body": False}]

        async def request() -> Message:
            if not requests:
                await anyio.sleep_forever()
            return requests.pop()

        whole = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "scheme": "http",
            "client": ("test", 1),
            "server": ("test", 80),
            **scope,
        }
        await self.app(whole, receive or request, record)
        return messages


@asynccontextmanager
async def serving(app: FastAPI, **options: Any) -> AsyncIterator[Server]:
    """The app, started; it is shut down at the end."""
    server = Server(app, **options)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await server.answered.wait()
        try:
            yield server
        finally:
            with anyio.CancelScope(shield=True):
                await server.shutdown()
    if server.error is not None:
        raise server.error


async def call_again(app: FastAPI, request: Request, path: str) -> list[int]:
    """Call the app for a part of a batch, as an endpoint may do; return the status."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app({**request.scope, "path": path, "raw_path": path.encode()}, request.receive, send)
    return statuses


def make_app(*, grace_period: float = 1, **options: Any) -> FastAPI:
    """An app with tasks; the short grace period lets what was scheduled last come to its start."""
    app = FastAPI()
    app.state.runner = add_tasks(app, grace_period=grace_period, **options)
    return app


def middleware(app: FastAPI) -> Callable[[Callable[..., Any]], None]:
    """A decorator: the function is called in the place of what it wraps, with each request."""

    def add(func: Callable[..., Any]) -> None:
        class Middleware:
            def __init__(self, app: Callable[..., Any]) -> None:
                self.app = app

            async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    await func(self.app, scope, receive, send)
                else:
                    await self.app(scope, receive, send)

        app.add_middleware(Middleware)

    return add


async def ignore(message: Message) -> None:
    """The `send` of a call whose response nobody gets."""


def name_of(error: BaseException) -> str:
    """Its type's; both backends have one for cancellations."""
    return type(error).__name__.replace("CancelledError", "Cancelled")


class _Seen(AbstractContextManager[None]):
    """Of contextlib's kind it is not: that one writes to exceptions, which may be frozen."""

    def __init__(self, journal: list[str], name: str) -> None:
        self.journal = journal
        self.name = name

    def __exit__(self, *error: object) -> None:
        if error[1] is not None:
            self.journal.append(f"{self.name} sees {name_of(error[1])}")


class Journal(list[str]):
    """What happened, in order; hands out functions that write into it."""

    def task(self, entry: str, *, sleep: float = 0) -> Callable[[], Any]:
        async def write() -> None:
            self.append(entry)
            await anyio.sleep(sleep)

        return write

    def sync(self, entry: str) -> Callable[[], None]:
        return lambda: self.append(entry)

    async def send(self, message: Message) -> None:
        """As the `send` of an ASGI call."""
        self.append(message["type"])

    def seen_by(self, name: str) -> AbstractContextManager[None]:
        """Write the error that passes, if one does."""
        return _Seen(self, name)

    def ends(self, entry: str, *, sleep: float = 1) -> Callable[[], Any]:
        """A task that writes when it starts, when it ends and when it is cancelled."""

        async def write() -> None:
            self.append(f"{entry} starts")
            try:
                await anyio.sleep(sleep)
            except BaseException:
                self.append(f"{entry} cancelled")
                raise
            self.append(f"{entry} ends")

        return write


def opens(
    journal: Journal,
    name: str,
    *,
    before: Callable[[], Any] | None = None,
    after: Callable[[], Any] | None = None,
) -> Callable[[], AsyncIterator[str]]:
    """A dependency that writes when it is opened, what it sees, and when it is closed."""

    async def dependency() -> AsyncIterator[str]:
        journal.append(f"{name} opens")
        try:
            with journal.seen_by(name):
                if before is not None:
                    await before()
                yield name
        finally:
            if after is not None:
                await after()
            journal.append(f"{name} closes")

    return dependency


def opens_in_thread(journal: Journal, name: str) -> Callable[[], Iterator[str]]:
    """The same in worker threads."""

    def dependency() -> Iterator[str]:
        journal.append(f"{name} opens")
        try:
            with journal.seen_by(name):
                yield name
        finally:
            journal.append(f"{name} closes")

    return dependency


def gives(value: object) -> Callable[[], Any]:
    """A dependency that is a value."""

    async def dependency() -> object:
        return value

    return dependency


def takes(dependency: Callable[..., Any]) -> Callable[..., Any]:
    """A task's function that gets a dependency and returns it."""

    async def work(value: Annotated[Any, Depends(dependency)] = INJECTED) -> Any:
        return value

    return work


@contextmanager
def failing_log(error: BaseException) -> Iterator[None]:
    """Whatever the library logs meanwhile, one of the logging handlers raises."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    logger, handler = logging.getLogger("fastapi_tasks"), Failing()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


async def double(number: int, *, sleep: float = 0) -> int:
    await anyio.sleep(sleep)
    return 2 * number


async def twice(attempt: Callable[[], Any]) -> Any:
    """A `retry` caller."""
    try:
        return await attempt()
    except Exception:
        return await attempt()


async def raises(error: BaseException) -> None:
    await checkpoint()
    raise error


async def settle() -> None:
    """Let everything that can run do so."""
    await anyio.wait_all_tasks_blocked()
