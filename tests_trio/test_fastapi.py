"""How tasks meet FastAPI: WebSockets, dependencies, middlewares, mounts, front ends, OpenTelemetry."""

import contextlib

import anyio
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.staticfiles import StaticFiles
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.middleware.gzip import GZipMiddleware

from fastapi_tasks import RequestTasks, Tasks, add_tasks, get_tasks
from tests_trio.support import Journal, make_app, middleware, serving, settle


async def call_websocket(server, messages):
    """One WebSocket call; returns what the app sent."""
    incoming = [{"type": "websocket.connect"}, *messages]

    async def receive():
        await anyio.sleep(1)
        return incoming.pop(0)

    return await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])


@pytest.mark.parametrize("ending", ["returns", "disconnects", "fails"])
async def test_websocket(ending):
    """*After* tasks start when the endpoint has ended; a disconnect counts as a return."""
    app, journal = make_app(), Journal()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        tasks.schedule(journal.task("now"))
        tasks.after_response.schedule(journal.task("after response"))
        tasks.after_route.schedule(journal.task("after route"))
        await socket.accept()
        journal.append(await socket.receive_text())
        if ending == "disconnects":
            await socket.receive_text()
        if ending == "fails":
            raise ValueError

    disconnect = {"type": "websocket.disconnect", "code": 1001}
    async with serving(app) as server:
        messages = [{"type": "websocket.receive", "text": "hello"}, disconnect]
        try:
            sent = await call_websocket(server, messages)
        except (ValueError, WebSocketDisconnect):
            assert ending != "returns"
        else:
            assert [message["type"] for message in sent] == ["websocket.accept"]
        await settle()
    assert journal == ["now", "hello", *["after route", "after response"] * (ending != "fails")]


async def test_a_websocket_with_a_task_group():
    """A disconnect that arrives in an exception group is a return, too."""
    app, journal = make_app(), Journal()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        await socket.accept()
        tasks.after_route.schedule(journal.task("after route"))
        async with anyio.create_task_group() as group:
            group.start_soon(socket.receive_text)

    incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

    async def receive():
        return incoming.pop(0)

    async with serving(app) as server:
        with pytest.raises(ExceptionGroup) as caught:
            await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])
        assert caught.value.subgroup(WebSocketDisconnect)
    assert journal == ["after route"]


async def test_a_websocket_that_disconnects_and_fails():
    """G6: a group with another error in it is a failure, so the *after* tasks are dropped."""
    app, journal = make_app(), Journal()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket, tasks: Tasks):
        await socket.accept()
        tasks.after_route.schedule(journal.task("after route"))
        raise ExceptionGroup("", [WebSocketDisconnect(1001), ValueError()])

    async def receive():
        return {"type": "websocket.connect"}

    async with serving(app) as server:
        with pytest.raises(ExceptionGroup):
            await server.call_raw("/ws", type="websocket", receive=receive, subprotocols=[])
    assert journal == []


@pytest.mark.real_time
async def test_one_request_tasks_per_request():
    """However `Tasks` is asked for, it is one object: cached, uncached, in any scope."""
    app = make_app()
    seen = []

    async def yielding(tasks: Tasks):
        seen.append(tasks)
        yield tasks

    def sync(tasks: RequestTasks = Depends(get_tasks, use_cache=False)):
        seen.append(tasks)

    @app.get("/", dependencies=[Depends(sync)])
    async def endpoint(
        tasks: Tasks,
        other: RequestTasks = Depends(yielding),
        function: RequestTasks = Depends(get_tasks, scope="function"),
    ):
        seen.extend((tasks, other, function))

    async with serving(app) as server:
        assert (await server.get()).status_code == 200
        assert len(seen) == 5
        assert len(set(map(id, seen))) == 1


@pytest.mark.real_time
async def test_dependency_overrides():
    """Tests of an app can put anything in the place of `Tasks`."""
    app = make_app()
    scheduled = []

    class Fake:
        def schedule(self, func, *args):
            scheduled.append((func, args))

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(anyio.sleep, 7)

    app.dependency_overrides[get_tasks] = Fake
    async with serving(app) as server:
        assert (await server.get()).status_code == 200
    assert scheduled == [(anyio.sleep, (7,))]


async def test_fastapi_refuses_depends_beside_tasks():
    """`tasks: Tasks = Depends()` is FastAPI's error, in a dependency and in an endpoint."""
    app = make_app()

    async def audit_log(action: str, tasks: Tasks = Depends()) -> None: ...

    async def get_current_user(tasks: Tasks) -> dict: ...

    with pytest.raises(AssertionError, match="Cannot specify `Depends` in `Annotated` and default"):

        @app.post("/protected")
        async def protected_endpoint(audit: None = Depends(audit_log)) -> dict: ...

    with pytest.raises(AssertionError, match="Cannot specify `Depends` in `Annotated` and default"):

        @app.get("/profile")
        async def get_profile(
            user: dict = Depends(get_current_user), tasks: Tasks = Depends()
        ) -> dict: ...


async def test_fastapi_refuses_an_unannotated_parameter(capsys):
    """With `lambda tasks=Depends()`, FastAPI asks every client for two query parameters."""
    app = make_app()

    async def audit_log(action: str, tasks: Tasks = Depends()) -> None:
        print("never called")

    @app.post("/protected")
    async def protected_endpoint(
        audit: None = Depends(lambda tasks=Depends(): audit_log("access", tasks)),
    ) -> dict:
        return {"status": "ok"}

    async with serving(app) as server, server.client as client:
        response = await client.post("/protected")
        assert response.status_code == 422
        missing = [(error["type"], error["loc"]) for error in response.json()["detail"]]
        assert missing == [("missing", ["query", "args"]), ("missing", ["query", "kwargs"])]
    assert "never called" not in capsys.readouterr().out


@pytest.mark.parametrize("added", ["before", "after"])
async def test_buffering_middlewares(added):
    """G3: `BaseHTTPMiddleware` and `GZipMiddleware`, added before `add_tasks` or after it."""
    app, journal = FastAPI(), Journal()

    async def dispatch(request, call_next):
        response = await call_next(request)
        journal.append("middleware")
        return response

    def add_middlewares():
        app.add_middleware(GZipMiddleware, minimum_size=1)
        app.middleware("http")(dispatch)

    if added == "before":
        add_middlewares()
    add_tasks(app)
    if added == "after":
        add_middlewares()

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))
        return ["x" * 10] * 1000

    async def send(message):
        await settle()
        journal.append(message["type"] + " last" * (not message.get("more_body", False)))

    async with serving(app) as server:
        await server.call_raw(send=send, headers=[(b"accept-encoding", b"gzip")])
        await settle()
    assert journal[0] == "middleware"
    assert journal[-2:] == ["http.response.body last", "after response"]
    assert journal.count("after response") == 1


async def test_a_middleware_that_answers_by_itself():
    """G3: its response counts: what waited for the route's end starts before it."""
    app, journal = FastAPI(), Journal()

    @middleware(app)
    async def impatient(wrapped, scope, receive, send):
        with anyio.move_on_after(1):
            await wrapped(scope, receive, send)
        await Response(status_code=504)(scope, receive, send)

    add_tasks(app)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.schedule(journal.task("now"))
        tasks.after_response.schedule(journal.task("dropped"))
        await anyio.sleep_forever()

    async with serving(app) as server:
        assert (await server.get()).status_code == 504
    assert journal == ["now"]


@pytest.mark.real_time
@pytest.mark.parametrize("first", ["add_tasks", "instrument"])
async def test_opentelemetry(first):
    """The instrumentation applies in both orders, and a task runs in its request's trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    app, journal = FastAPI(), Journal()
    if first == "add_tasks":
        add_tasks(app)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    if first == "instrument":
        add_tasks(app)

    async def work():
        with tracer.start_as_current_span("task"):
            journal.append("task")

    @app.exception_handler(Exception)
    async def handle(request, error):
        journal.append("500 handler")

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(work)

    @app.get("/fails")
    async def fails():
        raise ValueError

    async with serving(app) as server:
        await server.get()
        await settle()
        spans = {span.name: span for span in exporter.get_finished_spans()}
        assert spans["task"].context.trace_id == spans["GET /"].context.trace_id
        assert journal == ["task"]
        await server.get("/fails")
        assert journal.count("500 handler") == 1
    FastAPIInstrumentor.uninstrument_app(app)


@pytest.mark.real_time
@pytest.mark.parametrize("failing", [False, True])
async def test_front_end_dependencies(tmp_path, failing):
    """G3, G6: a response that is sent inside the function scope ends the route by starting."""
    (tmp_path / "index.html").write_text("hello")
    app, journal = make_app(), Journal()

    async def dependency(tasks: Tasks):
        tasks.after_route.schedule(journal.task("after route"))
        tasks.after_response.schedule(journal.task("after response"))

    router = APIRouter(dependencies=[Depends(dependency)])
    if not hasattr(router, "frontend"):
        pytest.skip("this FastAPI has no front ends")
    router.frontend("/", directory=tmp_path)
    app.include_router(router)

    async def send(message):
        journal.append(message["type"].removeprefix("http.response."))
        if failing and message["type"] == "http.response.body":
            raise OSError("the client went away")

    async with serving(app) as server:
        with pytest.raises(BaseException) if failing else contextlib.nullcontext():
            await server.call_raw("/index.html", send=send)
        await settle()
    assert journal == ["after route", "start", "body", "after response"]


@pytest.mark.real_time
async def test_beside_static_files_and_background_tasks(tmp_path):
    """Apps without tasks, and requests without tasks, work as before."""
    (tmp_path / "file").write_text("content")
    app, journal = make_app(), Journal()
    app.mount("/static", StaticFiles(directory=tmp_path))

    @app.get("/")
    async def endpoint(background: BackgroundTasks):
        background.add_task(journal.task("background"))

    async with serving(app) as server:
        assert (await server.get("/static/file")).text == "content"
        assert (await server.get("/")).status_code == 200
        assert (await server.get("/missing")).status_code == 404
    assert journal == ["background"]


@pytest.mark.parametrize("instrumented", ["before add_tasks", "after add_tasks"])
@pytest.mark.parametrize("again", [False, True])
async def test_opentelemetry_taken_off(instrumented, again):
    """G3: the library stands around the app all the same."""
    app, journal = FastAPI(), Journal()
    provider = TracerProvider()
    if instrumented == "before add_tasks":
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        add_tasks(app)
    else:
        add_tasks(app)
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    @app.get("/")
    async def endpoint(tasks: Tasks):
        tasks.after_response.schedule(journal.task("after response"))

    FastAPIInstrumentor.uninstrument_app(app)
    if again:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        app.middleware_stack = None  # which instrumenting an app that has started needs
    async with serving(app) as server:
        assert (await server.get()).status_code == 200
    assert journal == ["after response"]
    if again:
        FastAPIInstrumentor.uninstrument_app(app)
