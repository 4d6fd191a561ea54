"""FastAPI dependencies of tasks: what a task gets, when it is opened and closed, and what is refused."""

import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import pytest
from anyio import from_thread
from anyio.lowlevel import checkpoint
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    Path,
    Query,
    Request,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from pydantic import Field
from starlette.background import BackgroundTasks as StarletteTasks
from typing_extensions import TypeAliasType

from fastapi_tasks import (
    INJECTED,
    FastAPITasksError,
    Instrument,
    RequestTasks,
    Task,
    Tasks,
    add_tasks,
    current_task,
    get_tasks,
)
from tests_trio.support import (
    Journal,
    gives,
    make_app,
    opens,
    serving,
    takes,
    twice,
)
from tests_trio.test_references import shown_by_us

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


# What a task gets.


@pytest.mark.real_time
async def test_kinds_of_dependencies():
    """Whatever can be a dependency of an endpoint can be one of a task."""
    app = make_app()

    async def of_async():
        return "async"

    def of_sync():
        return f"sync {threading.current_thread() is not threading.main_thread()}"

    async def of_async_generator():
        yield "async generator"

    def of_generator():
        yield "generator"

    class Settings:
        def __init__(self, name: Annotated[str, Depends(of_async)], size: int = 3):
            self.name, self.size = name, size

    class Callable:
        async def __call__(self, name: Annotated[str, Depends(of_async)]):
            return f"callable {name}"

        def method(self):
            return "method"

        async def yields(self):
            yield "method that yields"

    def wrapped(func):
        @functools.wraps(func)
        def wrapper(*args, **kwargs):
            return func(*args, **kwargs)

        return wrapper

    async def with_arguments(prefix, *args, name: Annotated[str, Depends(of_async)], **kwargs):
        return prefix + name

    async def work(
        settings: Annotated[Settings, Depends()] = INJECTED,
        plain: str = Depends(of_async),
        **rest: Any,
    ):
        return settings.name, settings.size, plain

    kinds = {
        "async": of_async,
        "sync True": of_sync,
        "async generator": of_async_generator,
        "generator": of_generator,
        "callable async": Callable(),
        "method": Callable().method,
        "method that yields": Callable().yields,
        "partial async": functools.partial(with_arguments, "partial "),
    }
    async with serving(app):
        for value, dependency in kinds.items():
            assert await app.state.runner.schedule(takes(dependency)) == value
        assert await app.state.runner.schedule(takes(wrapped(of_async))) == "async"
        assert (
            await app.state.runner.schedule(takes(wrapped(of_async_generator))) == "async generator"
        )
        assert await app.state.runner.schedule(work) == ("async", 3, "async")
        assert await app.state.runner.schedule(takes(dict)) == {}  # which has no signature


@pytest.mark.real_time
async def test_kinds_of_tasks():
    """Async functions and others, methods, partials, objects, classes and decorated ones get them."""
    app = make_app()
    runner = app.state.runner

    async def get_name():
        return "name"

    Name = Annotated[str, Depends(get_name)]

    async def of_async(number: int, name: Name = INJECTED):
        return number, name

    def of_sync(number: int, name: Name = INJECTED):
        return number, name

    async def without_default(number: int, name: Name):
        return number, name

    async def positional_only(number: int, name: Name = INJECTED, /, other: Name = INJECTED):
        return number, name + other

    async def keyword_only(number: int, *, name: Name = INJECTED):
        return number, name

    class Sender:
        async def method(self, number: int, name: Name = INJECTED):
            return number, name

        @classmethod
        async def of_class(cls, number: int, name: Name = INJECTED):
            return number, name

        @staticmethod
        async def static(number: int, name: Name = INJECTED):
            return number, name

        async def __call__(self, number: int, name: Name = INJECTED):
            return number, name

    class Pair(tuple):  # noqa: SLOT001
        def __new__(cls, number: int, name: Name = INJECTED):
            return super().__new__(cls, (number, name))

        def __init__(self, number: int, name: Name = INJECTED):
            pass

    @functools.wraps(of_async)
    async def decorated(*args, **kwargs):
        return await of_async(*args, **kwargs)

    @functools.wraps(of_async)
    async def with_its_own(number: int):
        return await of_async(number, "its own")

    del with_its_own.__wrapped__  # what else was copied says nothing of it

    sender = Sender()
    tasks = [of_async, of_sync, without_default, keyword_only, decorated, Pair]
    tasks += [sender.method, sender.of_class, sender.static, sender, functools.lru_cache(of_sync)]
    async with serving(app):
        for func in tasks:
            for _ in range(2):  # the second time it is known
                assert await runner.schedule(func, 1) == (1, "name"), func
            assert await runner.schedule(functools.partial(func, 2)) == (2, "name"), func
            assert await runner.schedule(functools.partial(func, number=2)) == (2, "name"), func
        assert await runner.schedule(with_its_own, 1) == (1, "its own")
        assert await runner.schedule(positional_only, 1) == (1, "namename")
        assert await runner.schedule(functools.partial(positional_only, 1)) == (1, "namename")


async def test_explicit_arguments():
    """What the caller passes is taken, and its dependency is not opened."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    class Sender:
        async def send(
            self, number: int, name: Annotated[str, Depends(opens(journal, "name"))] = INJECTED
        ):
            return number, name

    async def two(
        a: Annotated[str, Depends(gives("name"))] = INJECTED,
        b: Annotated[str, Depends(gives("name"))] = INJECTED,
    ):
        return a, b

    send = Sender().send
    async with serving(app):
        assert await runner.schedule(send, 1, "mine") == (1, "mine")
        assert await runner.schedule(send, 1, name="mine") == (1, "mine")
        assert await runner.schedule(send, number=1, name="mine") == (1, "mine")
        assert await runner.schedule(functools.partial(send, 1), "mine") == (1, "mine")
        assert await runner.schedule(functools.partial(send, 1, "mine")) == (1, "mine")
        assert await runner.schedule(functools.partial(send, name="mine"), 1) == (1, "mine")
        assert await send(1, "mine") == (1, "mine")
        assert journal == []
        assert await runner.schedule(send, 1) == (1, "name")
        assert await runner.schedule(two) == ("name", "name")
        assert await runner.schedule(two, b="mine") == ("name", "mine")
        assert await runner.schedule(two, "mine") == ("mine", "name")


async def test_nested_and_cached():
    """Once for each attempt, in FastAPI's order; `use_cache=False` opens one more."""
    app, journal = make_app(), Journal()

    async def config():
        journal.append("config")
        return len(journal)

    async def session(config: Annotated[int, Depends(config)]):
        journal.append("session")
        return config

    async def user(
        session: Annotated[int, Depends(session)],
        config: Annotated[int, Depends(config)],
        fresh: Annotated[int, Depends(config, use_cache=False)],
    ):
        journal.append("user")
        return session, config, fresh

    async def work(
        session: Annotated[int, Depends(session)] = INJECTED,
        user: Annotated[tuple[int, ...], Depends(user)] = INJECTED,
        once_more: Annotated[int, Depends(config, use_cache=False)] = INJECTED,
    ):
        return session, user, once_more

    async with serving(app):
        for _ in range(2):
            assert await app.state.runner.schedule(work) == (1, (1, 1, 3), 5)
            assert journal == ["config", "session", "config", "user", "config"]
            journal.clear()


async def test_security_scopes():
    """`Security()` scopes add up on the way, and make a difference to what is cached."""
    app = make_app()

    async def user(scopes: SecurityScopes):
        return scopes.scopes

    async def admin(user: Annotated[list[str], Security(user, scopes=["admin", "me"])]):
        return user

    async def scopeless():
        return object()

    async def work(
        one: Annotated[list[str], Security(user, scopes=["me"])] = INJECTED,
        two: Annotated[list[str], Security(admin, scopes=["me"])] = INJECTED,
        none: Annotated[list[str], Depends(user)] = INJECTED,
        own: SecurityScopes = INJECTED,
        first: Annotated[object, Depends(scopeless)] = INJECTED,
        second: Annotated[object, Depends(scopeless)] = INJECTED,
    ):
        assert first is second
        return one, two, none, own.scopes

    async with serving(app):
        assert await app.state.runner.schedule(work) == (["me"], ["me", "admin"], [], [])


async def test_annotations():
    """Each annotation is looked at by itself: others may be there for type checkers alone."""
    app = make_app()

    Alias = TypeAliasType("Alias", Annotated[str, Depends(gives("name"))])

    async def fine(
        amount: "OnlyForTypeCheckers", request: "Request" = INJECTED, name: Alias = INJECTED
    ):
        assert name == "name"
        return amount, request.app

    async def without(amount: "OnlyForTypeCheckers", *, request: Request | None = None):
        return amount, request

    async def unknown(session: "OnlyForTypeCheckers" = INJECTED): ...

    async def missing(session=INJECTED): ...

    async def ordinary(session: int = INJECTED): ...

    async def unknown_dependency(session: "OnlyForTypeCheckers" = Depends()): ...

    async with serving(app):
        assert await app.state.runner.schedule(fine, 3) == (3, app)
        assert await app.state.runner.schedule(without, 3) == (3, None)
        for func in (unknown, missing, unknown_dependency):
            with pytest.raises(TypeError, match=r"'session' is missing, or cannot be evaluated"):
                app.state.runner.schedule(func)
        with pytest.raises(TypeError, match="the annotation of 'session' names no dependency"):
            app.state.runner.schedule(ordinary)
        assert app.state.runner.statistics().scheduled == 2


async def test_the_connection():
    """`Request` and `HTTPConnection` have the app and the lifespan's state, and nothing else."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"pool": "the pool"}

    app = FastAPI(lifespan=lifespan)
    runner = add_tasks(app)

    async def get_pool(request: Request, connection: HTTPConnection):
        assert request is connection
        assert isinstance(request, Request)
        request.state.seen = getattr(request.state, "seen", 0) + 1  # goes to no other task
        return request.app, request.state.pool, request.state.seen, bool(request)

    async def read(what, request: Request = INJECTED):
        return what(request)

    async with serving(app):
        for _ in range(2):
            assert await runner.schedule(takes(get_pool)) == (app, "the pool", 1, True)
        for what in (
            lambda request: request.headers,
            lambda request: request["path"],
            lambda request: request.client,
            len,
        ):
            with pytest.raises(FastAPITasksError, match="a task has no request"):
                await runner.schedule(read, what)
        assert not hasattr(await runner.schedule(read, lambda request: request), "__html__")

    app = make_app()
    async with serving(app, state=False) as server:
        state = await app.state.runner.schedule(read, lambda request: request.state)
        assert not hasattr(state, "pool")
    assert "state" not in server.scope


async def test_tasks_and_the_runner_and_the_task():
    """A task gets the `Tasks` of its request, the runner by them, and itself."""
    app, journal = make_app(), Journal()
    runner = app.state.runner

    async def get_me(task: Annotated[Task[..., Any], Depends(current_task)]):
        return task, current_task()

    async def work(
        tasks: Tasks = INJECTED,
        me: Annotated[Any, Depends(get_me)] = INJECTED,
        by_name: RequestTasks = Depends(get_tasks),
    ):
        assert me == (current_task(), current_task())
        assert by_name is tasks
        assert tasks.runner is runner
        await anyio.sleep(1)
        tasks.schedule(journal.task("now"))
        tasks.after_response.schedule(journal.task("after response"))
        journal.append("end")
        return me[0]

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.task(hold_response=True).schedule(work)

    async with serving(app) as server:
        task = runner.schedule(work)
        assert await task is task
        await runner.join()
        assert journal == ["end", "now", "after response"]
        journal.clear()
        await server.call_raw(send=journal.send)
        await runner.join()
    assert journal == [
        "end",
        "now",
        "http.response.start",
        "http.response.body",
        "after response",
    ]


@pytest.mark.real_time
async def test_current_task():
    """From anywhere in a task: its threads, its groups, its error handler; nowhere else."""
    app, seen = make_app(), []
    runner = app.state.runner

    def here():
        try:
            seen.append(current_task())
        except FastAPITasksError:
            seen.append(None)

    async def ahere():
        here()

    def work():
        here()
        from_thread.run(ahere)
        raise ValueError

    async def child(*, task_status):
        task_status.started()
        await ended.wait()
        here()

    def handler(task, error):
        here()
        from_thread.run(group.start, child)

    with pytest.raises(FastAPITasksError, match="no task runs this: call current_task"):
        current_task()
    async with serving(app):
        ended = anyio.Event()
        async with anyio.create_task_group() as group:
            task = runner.task(on_error=handler).schedule(work)
            await task.finished.wait()
            ended.set()
        other = runner.schedule(ahere)
        await other.finished.wait()
        here()
    assert seen == [task, task, task, None, other, None]


@pytest.mark.parametrize("kind", ["generator", "function"])
async def test_max_concurrency(kind):
    """`Depends(max_concurrency=)` counts endpoints and tasks together."""
    if "max_concurrency" not in Depends.__annotations__:
        pytest.skip("this version of FastAPI has no max_concurrency")
    app = make_app()
    running, most = 0, 0

    async def function():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1

    async def generator():
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield
        await anyio.sleep(1)
        running -= 1

    Limited = Annotated[
        None, Depends({"generator": generator, "function": function}[kind], max_concurrency=2)
    ]

    async def work(value: Limited = INJECTED): ...

    @app.get("/")
    async def endpoint(value: Limited, tasks: Tasks): ...

    async with serving(app) as server, anyio.create_task_group() as group:
        for _ in range(3):
            app.state.runner.schedule(work)
            group.start_soon(server.get)
        await app.state.runner.join()
    assert (running, most) == (0, 2)


async def test_a_fastapi_that_counts_in_another_way():
    """Then a task that asks for a `max_concurrency` fails, and says so."""
    app, mark = make_app(), Depends(gives("name"))
    object.__setattr__(mark, "max_concurrency", 2)
    object.__setattr__(mark, "_concurrency", None)

    async def work(name: Annotated[str, mark] = INJECTED): ...

    async with serving(app):
        with pytest.raises(FastAPITasksError, match="this version of FastAPI counts"):
            await app.state.runner.schedule(work)


# Overrides, and what is refused.


async def test_overrides():
    """They serve tasks as they serve endpoints; those of the `schedule()` call count."""
    app = make_app()
    runner = app.state.runner

    async def real():
        return "real"

    async def user(session: Annotated[str, Depends(real)]):
        return f"user of {session}"

    async def fake(request: Request):
        return f"fake of {request.app is app}"

    def token(authorization: Annotated[str, Header()]): ...

    async def attempts(session: Annotated[str, Depends(user)] = INJECTED):
        seen.append(session)
        await checkpoints.wait()
        if len(seen) < 3:
            raise ValueError

    seen, checkpoints = [], anyio.Event()
    async with serving(app):
        work = takes(user)
        assert await runner.schedule(work) == "user of real"
        app.dependency_overrides[real] = fake
        assert await runner.schedule(work) == "user of fake of True"
        task = runner.task(retry=twice, on_error=False).schedule(attempts)
        await anyio.wait_all_tasks_blocked()
        app.dependency_overrides.clear()
        checkpoints.set()
        await task.finished.wait()
        await task()
        assert seen == ["user of fake of True"] * 3
        assert await runner.schedule(work) == "user of real"

        with pytest.raises(TypeError):
            runner.schedule(takes(token))
        app.dependency_overrides[token] = real  # and so a task can have it
        assert await runner.schedule(takes(token)) == "real"
        app.dependency_overrides[get_tasks] = real
        app.dependency_overrides[current_task] = real
        assert await runner.schedule(takes(get_tasks)) == "real"
        assert await runner.schedule(takes(current_task)) == "real"


def header(token: Annotated[str, Header()]): ...
def query(page: int = Query(10)): ...
def cookie(*, token: Annotated[str, Cookie()] = "none"): ...
def path(number: Annotated[int, Path()]): ...
def body(order: Annotated[dict[str, str], Body()]): ...
def form(name: Annotated[str, Form()]): ...
def file(content: Annotated[bytes, File()]): ...
def upload(upload: UploadFile): ...
def socket(socket: WebSocket): ...
def response(response: Response): ...
def background(background: BackgroundTasks): ...
def unmarked(name: str): ...
def unannotated(name): ...
def nested(value: Annotated[Any, Depends(unmarked)]): ...


REFUSED = {
    header: "header asks for: 'token' is Header() of a request",
    query: "query asks for: 'page' is Query() of a request",
    cookie: "cookie asks for: 'token' is Cookie() of a request",
    path: "path asks for: 'number' is Path() of a request",
    body: "body asks for: 'order' is Body() of a request",
    form: "form asks for: 'name' is Form() of a request",
    file: "file asks for: 'content' is File() of a request",
    upload: "upload asks for: 'upload' is the UploadFile of a request",
    socket: "socket asks for: 'socket' is the WebSocket of a request",
    response: "response asks for: 'response' is the Response of a request",
    background: "background asks for: 'background' is the BackgroundTasks of a request",
    unmarked: "unmarked asks for: 'name' is a parameter of a request",
    unannotated: "unannotated asks for: 'name' is a parameter of a request",
    nested: "nested -> unmarked asks for: 'name' is a parameter of a request",
    OAuth2PasswordBearer("token"): "OAuth2PasswordBearer asks for: it reads a request, to tell "
    "who has sent it",
    functools.partial(unmarked): "unmarked asks for: 'name' is a parameter of a request",
}


@pytest.mark.parametrize("dependency", REFUSED, ids=lambda each: type(each).__name__)
async def test_what_a_task_cannot_have(dependency):
    """It is refused at the call, with the chain and what to write instead; no task is left."""
    app, scheduled = make_app(), []

    class Scheduled(Instrument):
        def task_scheduled(self, task):
            scheduled.append(task)

    async def work(number: int, value: Annotated[Any, Depends(dependency)] = INJECTED):
        return value

    async with serving(app):
        with app.state.runner.watching(Scheduled()), pytest.raises(TypeError) as refused:
            app.state.runner.schedule(work, 7)
        message = f"a task cannot have what {work.__qualname__} -> {REFUSED[dependency]}; pass "
        assert str(refused.value) == (
            f"{message}value= to schedule(), override the dependency, or write one without that"
        )
        assert (scheduled, app.state.runner.tasks) == ([], ())
        assert app.state.runner.statistics().scheduled == 0
        assert await app.state.runner.schedule(work, 7, value="mine") == "mine"


class Named:
    """A dependency without a hash."""

    __hash__ = None

    async def __call__(self):
        return "named"


async def test_odd_marks_and_overrides():
    """What FastAPI takes in an annotation, as a type or as an override, a task takes as well."""
    app = make_app()
    runner = app.state.runner
    calls = []

    async def real(number: Annotated[int, Field(gt=0)] = 5):
        return number

    async def described(name: Annotated[int, Depends(real), Field(description="x")] = INJECTED):
        return name

    async def of_starlette(tasks: StarletteTasks | None = None, other: StarletteTasks = None): ...

    async def scoped(scopes: SecurityScopes):
        return scopes.scopes

    async def below(scoped: Annotated[Any, Depends(scoped)], mine: Annotated[Any, Depends(real)]):
        return scoped

    async def plain(mine: Annotated[Any, Depends(real)]): ...

    async def with_scheme(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]): ...

    async def override():
        calls.append("override")
        return len(calls)

    async def with_field(value: Annotated[int, Depends(real)] = INJECTED, *, n: int = Field(3)): ...

    async def twice_scoped(original):
        async def work(
            one: Annotated[int, Security(parent_of(original), scopes=["one"])] = INJECTED,
            two: Annotated[int, Security(parent_of(original), scopes=["two"])] = INJECTED,
        ):
            return one, two

        return await runner.schedule(work)

    def parent_of(original):
        async def parent(value: Annotated[int, Depends(original)]):
            return value

        return parent

    First, Last = Depends(gives("first")), Depends(gives("last"))

    async def marked_twice(name: Annotated[str, First, Last] = INJECTED):
        return name

    async with serving(app):
        assert await runner.schedule(described) == 5
        assert await runner.schedule(marked_twice) == "last"
        with pytest.raises(TypeError, match="'other' is the BackgroundTasks of a request"):
            runner.schedule(takes(of_starlette))
        with pytest.raises(TypeError, match=r"'n' is FieldInfo\(\) of a request"):
            runner.schedule(with_field)
        app.dependency_overrides[real] = Named()
        assert await runner.schedule(takes(real)) == "named"
        for original in (scoped, below, with_scheme, real, plain):  # does it ask for scopes?
            app.dependency_overrides[original] = override
            calls.clear()
            expected = (1, 1) if original in (real, plain) else (1, 2)
            assert await twice_scoped(original) == expected


async def test_what_a_tasks_own_parameters_cannot_be():
    """Marks of a request are no values; a parameter that is just left out fails in the task."""
    app = make_app()

    async def page(number: int = Query(10)):
        return number

    async def annotated(number: Annotated[int, Query()] = 10):
        return number

    async def background(background: BackgroundTasks = INJECTED): ...

    async def token(token: Annotated[str, Header()] = INJECTED): ...

    async def missing(number: int, request: Request = INJECTED): ...

    runner = app.state.runner
    async with serving(app):
        with pytest.raises(TypeError, match=r"page asks for: 'number' is Query\(\) of a request"):
            runner.schedule(page)
        with pytest.raises(TypeError, match="'background' is the BackgroundTasks of a request"):
            runner.schedule(background)
        with pytest.raises(TypeError, match=r"'token' is Header\(\) of a request"):
            runner.schedule(token)
        assert await runner.schedule(page, 3) == 3
        assert await runner.schedule(annotated) == 10
        task = runner.schedule(missing)
        await task.finished.wait()
        assert "missing 1 required positional argument: 'number'" in str(task.exception)


async def test_what_comes_later():
    """An annotation that cannot be evaluated yet is looked at again."""
    app = make_app()

    async def early(name: "Later" = INJECTED):  # noqa: F821
        return name

    async def without(name: "Later"):  # noqa: F821
        return name

    async with serving(app):
        with pytest.raises(TypeError, match="cannot be evaluated"):
            app.state.runner.schedule(early)
        task = app.state.runner.schedule(without)
        await task.finished.wait()
        assert "missing 1 required positional argument" in str(task.exception)
        globals()["Later"] = Annotated[str, Depends(gives("later"))]
        try:
            assert await app.state.runner.schedule(early) == "later"
            assert await app.state.runner.schedule(without) == "later"
        finally:
            del globals()["Later"]


@pytest.mark.real_time
async def test_odd_functions():
    """Ones that are hard to look at get what they ask for, or a clear refusal."""
    app = make_app()
    runner = app.state.runner
    Name = Annotated[str, Depends(gives("name"))]

    class Closed(type):
        __hash__ = None

        def __setattr__(cls, name, value):
            raise AttributeError(name)

    class Sender(metaclass=Closed):
        def __init__(self, number: int, name: Name = INJECTED):
            self.sent = number, name

    class Plain(metaclass=Closed):
        def __init__(self, number):
            self.sent = number, "plain"

    class Unreadable(type):
        @property
        def __signature__(cls):
            raise cls.error

    class Odd(metaclass=Unreadable):
        error = OSError()

    class Deep(metaclass=Unreadable):
        error = RecursionError()

    class Static:
        @staticmethod
        async def __call__(name: Name = INJECTED):
            return name

    class OfClass:
        @classmethod
        async def __call__(cls, name: Name = INJECTED):
            return name

    async def positional(number: int = 1, name: Name = INJECTED, /):
        return number, name

    async def both(name: Name = INJECTED, /, **others):
        return name, others

    async def of_another_module(self, *args, **kwargs):
        return await elsewhere["call"](self, *args, **kwargs)

    elsewhere = {"Name": Name, "INJECTED": INJECTED}
    exec("async def call(self, name: 'Name' = INJECTED): return name", elsewhere)

    class Decorated:
        __call__ = functools.wraps(elsewhere["call"])(of_another_module)

    exec("async def needs(self, name: 'Name'): return name", elsewhere)

    async def needs_of_another_module(self, *args, **kwargs):
        return await elsewhere["needs"](self, *args, **kwargs)

    class DecoratedDependency:
        __call__ = functools.wraps(elsewhere["needs"])(needs_of_another_module)

    async def loop(name: Name = INJECTED): ...

    async def unread(name: Name = INJECTED): ...

    async def unread_by_name(*, name: Name = INJECTED): ...

    async def unread_plain():
        return "plain"

    async def dependency(): ...

    loop.__wrapped__ = loop
    dependency.__wrapped__ = dependency
    for func in (unread, unread_by_name, unread_plain):
        func.__signature__ = "no signature"
    async with serving(app):
        for _ in range(2):
            assert (await runner.schedule(Sender, 1)).sent == (1, "name")
            assert (await runner.schedule(Plain, 1)).sent == (1, "plain")
            assert await runner.schedule(Static()) == "name"
            assert await runner.schedule(OfClass()) == "name"
        assert await runner.schedule(Decorated()) == "name"
        assert await runner.schedule(takes(DecoratedDependency())) == "name"
        assert await runner.schedule(both, name="other") == ("name", {"name": "other"})
        assert isinstance(await runner.schedule(Odd), Odd)
        with pytest.raises(RecursionError):
            runner.schedule(Deep)
        assert await runner.schedule(positional, 2) == (2, "name")
        with pytest.raises(TypeError, match="positional gets 'name' by position only"):
            runner.schedule(positional)
        for func in (loop, unread, unread_by_name):
            with pytest.raises(
                TypeError, match=f"the signature of .*{func.__name__} cannot be read"
            ):
                runner.schedule(func)
        assert await runner.schedule(unread_plain) == "plain"
        with pytest.raises(TypeError, match=r"the signature of .* -> .*dependency cannot be read"):
            runner.schedule(takes(dependency))
        assert runner.tasks == ()


async def test_a_function_that_was_scheduled_can_be_pickled():
    """By those who pickle what belongs to a function, as `cloudpickle` does."""
    app, work = make_app(), takes(gives("name"))
    async with serving(app):
        assert await app.state.runner.schedule(work) == "name"
        copied = pickle.loads(pickle.dumps(work.__dict__))
        other = takes(gives("other"))
        other.__dict__.update(copied)
        assert await app.state.runner.schedule(other) == "other"


def name_dependency(levels=60):
    """It takes much of the stack to say what a parameter gets."""
    return name_dependency(levels - 1) if levels else Depends(gives("name"))


async def test_schedule_calls_near_the_recursion_limit():
    """They are refused, or the task gets what it asks for: it is not overlooked there."""
    app, handles = make_app(), []
    refused = 0

    def make():
        async def work(name: "Annotated[str, name_dependency()]"):
            return name

        return work

    def descend(levels, func):
        if levels:
            descend(levels - 1, func)
        else:
            handles.append(app.state.runner.schedule(func))

    async with serving(app):
        levels = sys.getrecursionlimit() - len(inspect.stack(0))
        for left in range(1, 120):
            func = make()
            try:
                descend(levels - left, func)
            except (RecursionError, TypeError):  # which names it: a signature cannot be read
                refused += 1
                handles.append(app.state.runner.schedule(func))  # which is not remembered
        assert [await handle for handle in handles] == ["name"] * 119
    assert 10 < refused < 110


class Unhashable:
    __hash__ = None

    def __call__(self):
        return self


class Unreadable:
    @property
    def __signature__(self):
        raise OSError

    def __call__(self):
        return self


async def test_chains_that_cannot_be_resolved():
    """One that leads back to itself, and others, are refused with their names."""
    app = make_app()

    async def real():
        return "real"

    async def override(real: Annotated[str, Depends(real)]):
        return real

    app.dependency_overrides[real] = override
    async with serving(app):
        with pytest.raises(TypeError, match=r"work -> \S*override -> \S*override asks for: it dep"):
            app.state.runner.schedule(takes(real))
        with pytest.raises(TypeError, match="something that has no hash, a Unhashable"):
            app.state.runner.schedule(takes(Unhashable()))
        with pytest.raises(
            TypeError, match=r"the signature of .* -> Unreadable cannot be read: OSE"
        ):
            app.state.runner.schedule(takes(Unreadable()))
        assert app.state.runner.tasks == ()


async def test_a_mounted_app():
    """Overrides and state are those of the app whose runner it is."""
    app, inner = make_app(), FastAPI()
    add_tasks(inner)
    app.mount("/inner", inner)

    async def name():
        return "real"

    async def work(request: Request = INJECTED, name: Annotated[str, Depends(name)] = INJECTED):
        return request.app, name

    @inner.get("/")
    async def endpoint(tasks: Tasks):
        got.append(await tasks.schedule(work))

    got = []
    app.dependency_overrides[name] = gives("outer")
    inner.dependency_overrides[name] = gives("inner")
    async with serving(app) as server:
        await server.get("/inner/")
    assert got == [(app, "outer")]


# `INJECTED` itself.


async def test_injected_in_a_direct_call():
    """It raises at its first use, whichever that is, and says what to do."""
    uses = [
        lambda value: value.execute("select"),
        lambda value: value(),
        lambda value: value[0],
        bool,
        str,
        len,
        iter,
        list,
        int,
        lambda value: f"{value}",
        lambda value: value + 1,
        lambda value: 1 + value,
        lambda value: value < 1,
        lambda value: 1 in value,
        lambda value: value | 1,
        lambda value: 1 | value,
        lambda value: setattr(value, "autoflush", False),
        lambda value: delattr(value, "autoflush"),
    ]
    for use in uses:
        with pytest.raises(FastAPITasksError, match="an argument was left out of a direct call"):
            use(INJECTED)
    with pytest.raises(FastAPITasksError):
        async with INJECTED:
            pass
    with pytest.raises(FastAPITasksError):
        await INJECTED
    assert repr(INJECTED) == "INJECTED"
    assert copy.deepcopy([INJECTED])[0] is INJECTED
    assert pickle.loads(pickle.dumps(INJECTED)) is INJECTED
    assert not hasattr(INJECTED, "__html__")


async def test_one_function_for_an_endpoint_and_a_task():
    """FastAPI does not mind the default."""
    app = make_app()

    async def get_name():
        return "name"

    @app.get("/")
    async def both(number: int = 3, name: Annotated[str, Depends(get_name)] = INJECTED):
        return [number, name]

    async with serving(app) as server:
        assert (await server.get()).json() == [3, "name"]
        assert await app.state.runner.schedule(both) == [3, "name"]


# What is kept, and shown.


async def test_functions_are_not_kept():
    """What is known of a function goes with it, also when a dependency leads back to it."""
    app = make_app()

    async def make():
        async def get_work():
            return work

        async def work(number: int, me: Annotated[Any, Depends(get_work)] = INJECTED):
            assert me is work

        async def plain(number: "int"): ...

        for func in (work, plain):
            await app.state.runner.schedule(func, 1)
        return weakref.ref(work), weakref.ref(plain)

    async with serving(app):
        references = await make()
        await anyio.wait_all_tasks_blocked()
        clear_typing_caches()
        gc.collect()
        assert [reference() for reference in references] == [None, None]


async def test_functions_are_freed():
    """G20: without a garbage collection; what is known of them stands on them, and leads nowhere."""
    app = make_app()

    async def make():
        async def work(value: Annotated[int, Depends(gives(1))] = INJECTED):
            return value

        assert await app.state.runner.schedule(work) == 1
        return weakref.ref(work)

    async with serving(app):
        gc.collect()
        gc.disable()
        try:
            reference = await make()
            await anyio.wait_all_tasks_blocked()
            assert reference() is None
        finally:
            gc.enable()


async def test_references_to_functions_are_not_kept():
    """An app may schedule new functions for ever."""

    def dead_references():
        return sum(type(each) is weakref.ref and each() is None for each in gc.get_objects())

    app = make_app()
    async with serving(app):
        gc.collect()
        before = dead_references()
        for _ in range(100):

            async def work(): ...

            await app.state.runner.schedule(work)
        del work
        gc.collect()
        assert dead_references() < before + 10


def clear_typing_caches():
    """`typing` keeps what `Annotated[]` was made of."""
    import typing

    for cleanup in typing._cleanups:
        cleanup()


async def test_values_are_freed():
    """G20: what dependencies gave, with the handle at the latest; also when the task failed."""
    app, references = make_app(), []

    class Session: ...

    async def get_session():
        session = Session()
        references.append(weakref.ref(session))
        yield session

    async def work(session: Annotated[Session, Depends(get_session)] = INJECTED):
        return None

    async def fail(session: Annotated[Session, Depends(get_session)] = INJECTED):
        del session
        raise ValueError

    async def fails_to_open(session: Annotated[Session, Depends(get_session)]):
        del session
        raise ValueError

    async with serving(app):
        gc.collect()
        gc.disable()
        try:
            handles = [
                app.state.runner.schedule(func) for func in (work, fail, takes(fails_to_open))
            ]
            await app.state.runner.join()
            await anyio.wait_all_tasks_blocked()
            assert [reference() for reference in references] == [None] * 3
            assert [handle.state.value for handle in handles] == ["succeeded", "failed", "failed"]
            tasks = [weakref.ref(handle) for handle in handles]
            handles.clear()
            assert [task() for task in tasks] == [None] * 3
        finally:
            gc.enable()


SECRET = "secret-7f3a"


async def raises_secret(token: Annotated[str, Depends(gives(SECRET))]):
    await checkpoint()
    raise ValueError
    yield


async def test_no_frame_shows_values():
    """G13: neither a task's arguments nor what its dependencies gave stand in our frames."""
    app = make_app()

    async def work(
        secret, token: Annotated[str, Depends(gives(SECRET))] = INJECTED, value: str = ""
    ):
        raise ValueError

    async def opening(secret, value: Annotated[Any, Depends(raises_secret)] = INJECTED): ...

    def refused(secret, value: Annotated[Any, Depends(unmarked)] = INJECTED): ...

    async with serving(app):

        def by_position(
            number: int = 1, value: Annotated[Any, Depends(work)] = INJECTED, /, **_
        ): ...

        with pytest.raises(TypeError) as caught:
            app.state.runner.schedule(functools.partial(by_position, secret=SECRET))
        assert shown_by_us(caught.value, SECRET) == []
        for func in (work, opening):
            task = app.state.runner.task(timeout=5).schedule(func, SECRET)
            await task.finished.wait()
            assert shown_by_us(task.exception, SECRET) == []
        with pytest.raises(TypeError) as caught:
            app.state.runner.schedule(functools.partial(refused, secret=SECRET))
        assert shown_by_us(caught.value, SECRET) == []
