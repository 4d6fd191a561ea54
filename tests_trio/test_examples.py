"""The examples do what their docstrings say, and the listings of "Scheduling Tasks" what it says."""

from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest
from fastapi import Depends, FastAPI

from examples import (
    concurrent_processing,
    dependencies,
    dynamic,
    error_handling,
    fire_and_forget,
    shop,
    staged_execution,
    tracking,
)
from fastapi_tasks import Task, TaskConfig, Tasks, add_tasks
from tests_trio.support import serving

EXAMPLES = [
    concurrent_processing,
    dependencies,
    dynamic,
    error_handling,
    fire_and_forget,
    shop,
    staged_execution,
    tracking,
]
TEA = {"item": "tea", "amount": 5}


@asynccontextmanager
async def telling(app, tell):
    """The app, served; what its server gets of a response is told among what its tasks tell."""

    async def listening(scope, receive, send):
        async def tell_and_send(message):
            if message["type"] == "http.response.start":
                tell(f"response {message['status']} starts")
            await send(message)
            if message["type"] == "http.response.body":
                tell("response sent")

        await app(scope, receive, tell_and_send)

    async with serving(listening) as server, server.client as client:
        yield client


@asynccontextmanager
async def serving_example(example):
    """The example, served, with an empty log; the responses that the server gets are in it too."""
    example.log.clear()
    async with telling(example.app, example.log.append) as client:
        yield client


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_docstrings_say_how_to_serve(example):
    """Each names the two commands for its own file."""
    lines = example.__doc__.splitlines()
    assert f"    hypercorn -k trio {example.__name__}:app" in lines
    assert f"    uvicorn {example.__name__}:app" in lines


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_what_happens_is_printed(example, capsys):
    """A person who serves it sees what the log says."""
    example.log.clear()
    example.note("this happens")
    assert example.log == ["this happens"]
    assert capsys.readouterr().out == "this happens\n"


async def test_shop():
    """G3, G4: payment and audit now, inventory before the response, confirmation after it."""
    async with serving_example(shop) as client:
        assert (await client.post("/orders", json=TEA)).json() == TEA
        await anyio.sleep(1)
        expected = [
            "pool opens",
            "tea: order accepted",
            "tea: payment starts",
            "tea: audit",
            "tea: inventory updated",
            "response 202 starts",
            "response sent",
            "tea: confirmation starts",
            "tea: confirmation sent",
            "tea: payment made",
        ]
        assert shop.log == expected
        assert (await client.get("/log")).json() == expected
    assert shop.log[-1] == "pool closes"


async def test_shop_shuts_down():
    """G15, G17: the payment is made before the pool closes, the confirmation is cut off."""
    async with serving_example(shop) as client:
        await client.post("/orders", json=TEA)
        await anyio.sleep(0.01)
    assert shop.log[-3:] == ["tea: confirmation starts", "tea: payment made", "pool closes"]
    assert "tea: confirmation sent" not in shop.log


async def test_shop_hears_of_a_failed_audit(caplog):
    """G12, G13: the error handler is called, one line is logged, nothing else is touched."""
    async with serving_example(shop) as client:
        response = await client.post("/orders", json={"item": "gold", "amount": 5000})
        assert response.status_code == 202
        await anyio.sleep(1)
    assert shop.log == [
        "pool opens",
        "gold: order accepted",
        "gold: payment starts",
        "gold: audit",
        "audit failed: more than 1000",
        "gold: inventory updated",
        "response 202 starts",
        "response sent",
        "gold: confirmation starts",
        "gold: confirmation sent",
        "gold: payment made",
        "pool closes",
    ]
    assert [record.getMessage() for record in caplog.records] == ["task 'audit' failed"]


async def test_fire_and_forget(caplog):
    """G1, G13: the response waits for neither event; the one that fails is logged."""
    async with serving_example(fire_and_forget) as client:
        for event in ("login", "nonsense"):
            response = await client.post("/track", params={"event": event})
            assert response.json() == {"status": "ok"}
            await anyio.sleep(1)
    assert fire_and_forget.log == [
        "login: scheduled",
        "login: sending",
        "response 202 starts",
        "response sent",
        "login: sent",
        "nonsense: scheduled",
        "nonsense: sending",
        "response 202 starts",
        "response sent",
    ]
    assert [record.getMessage() for record in caplog.records] == ["task 'send_to_analytics' failed"]


async def test_concurrent_processing():
    """G4: the four start in call order, and together take as long as the longest."""
    async with serving_example(concurrent_processing) as client:
        await client.post("/process", params={"file_id": 1})
        await anyio.sleep(0.049)
        assert concurrent_processing.log[-1] == "virus scan of 1: done"
        await anyio.sleep(0.002)
    assert concurrent_processing.log == [
        "thumbnail of 1: starts",
        "virus scan of 1: starts",
        "metadata of 1: starts",
        "search index of 1: starts",
        "response 202 starts",
        "response sent",
        "metadata of 1: done",
        "search index of 1: done",
        "virus scan of 1: done",
        "thumbnail of 1: done",
    ]


async def test_staged_execution(monkeypatch):
    """G2, G3, G4: the payment beside the endpoint, then the stages in their order."""
    monkeypatch.setattr(staged_execution, "numbers", count(7))
    async with serving_example(staged_execution) as client:
        response = await client.post("/order", params={"item": "tea"})
        assert response.json() == {"order_id": 7}
        await anyio.sleep(1)
    assert staged_execution.log == [
        "tea: payment starts",
        "tea: payment made",
        "tea: order saved",
        "tea: inventory updated",
        "response 200 starts",
        "response sent",
        "tea: email sent",
        "tea: warehouse notified",
    ]


async def test_dynamic():
    """Each user's channels, at the timing point that fits the message."""
    async with serving_example(dynamic) as client:

        async def notify(user, **params):
            response = await client.post(f"/notify/{user}", params=params)
            await anyio.sleep(1)
            return response.json()

        assert await notify("alice", message="hello") == {
            "scheduled": ["send_email after_response"]
        }
        assert await notify("bob", message="fire", urgent=True) == {
            "scheduled": ["send_email now", "send_sms now"]
        }
        assert await notify("carol", message="hello") == {"scheduled": []}
        assert await notify("dave", message="hello") == {"detail": "Not Found"}
    assert [entry for entry in dynamic.log if "response" not in entry] == [
        "email to alice: hello",
        "SMS to bob: fire",
        "email to bob: fire",
    ]


async def test_dependencies():
    """The task of the `yield` dependency starts between its commit and the response."""
    async with serving_example(dependencies) as client:
        response = await client.put("/users/1", params={"name": "Alice"})
        assert response.json() == {"name": "Alice"}
    assert dependencies.log == [
        "user 1: renamed",
        "user 1: audit written",
        "user 1: committed",
        "user 1: cache cleared",
        "response 200 starts",
        "response sent",
    ]


async def test_dependencies_of_a_failed_route():
    """G6: what was to run after the route is dropped; what runs now goes on."""
    async with serving_example(dependencies) as client:
        response = await client.put("/users/1", params={"name": ""})
        assert response.json() == {"detail": "a user needs a name"}
    assert dependencies.log == [
        "user 1: audit written",
        "response 400 starts",
        "response sent",
    ]


async def test_tracking():
    """A job is `RUNNING` once it has started, and its end can be waited for."""
    tracking.jobs.clear()
    async with serving_example(tracking) as client:
        response = await client.post("/jobs", params={"rows": 3})
        assert response.json() == {"name": "job 0", "before": "pending", "state": "running"}
        running = {"name": "job 0", "state": "running", "error": None}
        assert (await client.get("/jobs/0")).json() == running
        begin = anyio.current_time()
        succeeded = {"name": "job 0", "state": "succeeded", "error": None}
        assert (await client.get("/jobs/0/end")).json() == succeeded
        assert anyio.current_time() - begin == pytest.approx(0.03)
        assert (await client.get("/jobs/1")).status_code == 404
    assert [entry for entry in tracking.log if "response" not in entry] == [
        "counting 3 rows",
        "counted 3 rows",
    ]


async def test_tracking_a_failure():
    """The job's state and exception tell of it."""
    tracking.jobs.clear()
    async with serving_example(tracking) as client:
        await client.post("/jobs", params={"rows": -1})
        failed = {"name": "job 0", "state": "failed", "error": "fewer rows than none"}
        assert (await client.get("/jobs/0/end")).json() == failed


async def test_error_handling(caplog):
    """The task's own handler stands in for the app's; both failures are logged once."""
    error_handling.undelivered.clear()
    async with serving_example(error_handling) as client:
        for to in ("alice", "nobody"):
            response = await client.post("/deliver", params={"to": to})
            assert response.json() == {"status": "on its way"}
            await anyio.sleep(1)
    assert [entry for entry in error_handling.log if "response" not in entry] == [
        "email to alice",
        "letter to alice",
        "reported: email: no such address",
        "kept: letter: moved away",
    ]
    assert error_handling.undelivered == ["nobody"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["task 'email' failed", "task 'letter' failed"]


# The listings of the page "Scheduling Tasks", as they stand there. What they leave out ("assume this
# exists") prints that it was called.


def new_app():
    """An app whose routes take a while to end: only tasks of *now* start before that."""

    async def route_ends():
        yield
        await anyio.sleep(0.1)
        print("route ends")

    app = FastAPI(dependencies=[Depends(route_ends, scope="function")])
    add_tasks(app)
    return app


@asynccontextmanager
async def client_of(app):
    """Serve the app until its tasks have ended; print when the server gets a response."""
    async with telling(app, print) as client:
        yield client
        await anyio.sleep(10)


async def my_task() -> None:
    print("Task started")
    await anyio.sleep(1)
    print("Task completed")


async def test_basic_usage(capsys):
    """A task is scheduled with its argument, and runs."""
    app = FastAPI()
    add_tasks(app)

    async def process_data(data: dict) -> None:
        # Your task logic here
        print(f"Processing: {data}")

    @app.post("/process")
    async def process_endpoint(data: dict, tasks: Tasks) -> dict:
        # Schedule the task
        tasks.schedule(process_data, data)

        return {"status": "processing started"}

    async with client_of(app) as client:
        response = await client.post("/process", json={"a": 1})
        assert response.json() == {"status": "processing started"}
    assert capsys.readouterr().out.splitlines() == [
        "Processing: {'a': 1}",
        "response 200 starts",
        "response sent",
    ]


async def test_passing_arguments(capsys):
    """Arguments may be positional, by keyword, and both."""
    app = new_app()

    async def send_email(to: str, subject: str, body: str, cc: list[str] | None = None) -> None:
        print(f"Sending email to {to}")
        print(f"Subject: {subject}")
        print(f"CC: {cc}")

    @app.post("/send")
    async def send_message(tasks: Tasks) -> dict:
        # Positional arguments
        tasks.schedule(send_email, "user@example.com", "Hello", "Welcome!")

        # Keyword arguments
        tasks.schedule(
            send_email,
            to="user@example.com",
            subject="Hello",
            body="Welcome!",
            cc=["admin@example.com"],
        )

        # Mix of both
        tasks.schedule(
            send_email,
            "user@example.com",
            "Hello",
            body="Welcome!",
            cc=["admin@example.com"],
        )

        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/send")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "Sending email to user@example.com",
        "Subject: Hello",
        "CC: None",
        *[
            "Sending email to user@example.com",
            "Subject: Hello",
            "CC: ['admin@example.com']",
        ]
        * 2,
        "route ends",
        "response 200 starts",
        "response sent",
    ]


async def test_scheduling_multiple_tasks(capsys):
    """All start before the response, in the order of the calls."""
    app = new_app()

    async def task_1() -> None:
        print("Task 1")

    async def task_2() -> None:
        print("Task 2")

    async def task_3() -> None:
        print("Task 3")

    @app.post("/multiple")
    async def schedule_multiple(tasks: Tasks) -> dict:
        # All these tasks start immediately and run concurrently
        tasks.schedule(task_1)
        tasks.schedule(task_2)
        tasks.schedule(task_3)

        return {"scheduled": 3}

    async with client_of(app) as client:
        assert (await client.post("/multiple")).json() == {"scheduled": 3}
    assert capsys.readouterr().out.splitlines() == [
        "Task 1",
        "Task 2",
        "Task 3",
        "route ends",
        "response 200 starts",
        "response sent",
    ]


async def test_the_task_object(capsys):
    """`started` is set while the endpoint sleeps and the task runs."""
    app = new_app()

    async def my_task() -> None:
        await anyio.sleep(1)
        print("Task completed")

    @app.post("/track")
    async def track_task(tasks: Tasks) -> dict:
        # Get the task object
        task = tasks.schedule(my_task)

        # Check if the task has started
        await anyio.sleep(0.1)

        if task.started.is_set():
            return {"status": "task started"}
        else:  # noqa: RET505
            return {"status": "task pending"}

    async with client_of(app) as client:
        assert (await client.post("/track")).json() == {"status": "task started"}
    assert capsys.readouterr().out.splitlines() == [
        "route ends",
        "response 200 starts",
        "response sent",
        "Task completed",
    ]


async def test_the_task_object_of_a_pending_task():
    """`started` is not set while the timing point is still to come."""
    app = new_app()

    @app.post("/track")
    async def track_task(tasks: Tasks) -> dict:
        task = tasks.after_route.schedule(my_task)
        await anyio.sleep(0.1)
        return {"status": "task started" if task.started.is_set() else "task pending"}

    async with client_of(app) as client:
        assert (await client.post("/track")).json() == {"status": "task pending"}


async def test_what_the_task_object_has():
    """`started`, `config`, `func`, `args` and `kwargs`."""
    app = new_app()
    scheduled: list[Task] = []

    async def func(*args, **kwargs): ...

    async def handle_error(task, error): ...

    @app.post("/track")
    async def track_task(tasks: Tasks) -> None:
        options = tasks.task(name="name", shield=True, on_error=handle_error)
        scheduled.append(options.schedule(func, 1, 2, key=3))

    async with client_of(app) as client:
        await client.post("/track")
    [task] = scheduled
    assert isinstance(task.started, anyio.Event)
    assert task.config == TaskConfig(name="name", shield=True, on_error=handle_error)
    assert (task.func, task.args, task.kwargs) == (func, (1, 2), {"key": 3})


async def test_waiting_for_task_start(capsys):
    """`await task.started.wait()` returns when the task has begun, not when it has ended."""
    app = new_app()

    @app.post("/track")
    async def track_task(tasks: Tasks) -> None:
        task = tasks.schedule(my_task)
        await task.started.wait()
        print("endpoint returns")

    async with client_of(app) as client:
        await client.post("/track")
    assert capsys.readouterr().out.splitlines() == [
        "Task started",
        "endpoint returns",
        "route ends",
        "response 200 starts",
        "response sent",
        "Task completed",
    ]


async def test_immediate_execution(capsys):
    """The task starts while the route has not ended."""
    app = new_app()

    @app.post("/immediate")
    async def immediate_task(tasks: Tasks) -> dict:
        # Starts right now, runs concurrently
        tasks.schedule(my_task)
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/immediate")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "Task started",
        "route ends",
        "response 200 starts",
        "response sent",
        "Task completed",
    ]


async def test_after_route_execution(capsys):
    """The task starts between the route's end and the response."""
    app = new_app()

    @app.post("/after-route")
    async def after_route_task(tasks: Tasks) -> dict:
        # Runs after this function returns, before response is sent
        tasks.after_route.schedule(my_task)
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/after-route")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "route ends",
        "Task started",
        "response 200 starts",
        "response sent",
        "Task completed",
    ]


async def test_after_response(capsys):
    """The task starts when the response has been sent."""
    app = new_app()

    @app.post("/after-response")
    async def after_response_task(tasks: Tasks) -> dict:
        # Runs after the response is sent to client
        tasks.after_response.schedule(my_task)
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/after-response")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "route ends",
        "response 200 starts",
        "response sent",
        "Task started",
        "Task completed",
    ]


async def test_combining_timing_modes(capsys):
    """The execution order that the page lists, step by step."""
    app = new_app()

    async def validate_data(data: dict) -> None:
        print("Validating data")

    async def log_request(endpoint: str) -> None:
        print(f"Request to {endpoint}")

    async def send_notification(message: str) -> None:
        print(f"Notification: {message}")

    @app.post("/combined")
    async def combined_example(data: dict, tasks: Tasks) -> dict:
        # Start validation immediately (parallel with endpoint)
        tasks.schedule(validate_data, data)

        # Log before response is sent
        tasks.after_route.schedule(log_request, "/combined")

        # Send notification after response
        tasks.after_response.schedule(send_notification, "Request processed")

        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/combined", json={})).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "Validating data",
        "route ends",
        "Request to /combined",
        "response 200 starts",
        "response sent",
        "Notification: Request processed",
    ]


async def test_scheduling_from_a_dependency(capsys):
    """What to write instead of the lambda: a function with `tasks: Tasks`."""
    app = new_app()

    async def log_action(action: str) -> None:
        print(f"Action: {action}")

    async def audit_log(action: str, tasks: Tasks) -> None:
        """Dependency that logs actions as a background task"""
        tasks.after_route.schedule(log_action, action)

    async def audit_access(tasks: Tasks) -> None:
        await audit_log("access", tasks)

    @app.post("/protected")
    async def protected_endpoint(audit: None = Depends(audit_access)) -> dict:
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/protected")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "route ends",
        "Action: access",
        "response 200 starts",
        "response sent",
    ]


async def test_scheduling_more_cleanly_from_a_dependency(capsys):
    """Dependency and endpoint share the request's tasks; `tasks: Tasks` stands first."""
    app = new_app()

    async def log_auth_attempt(user_id: int) -> None:
        print(f"Authenticated: {user_id}")

    async def track_profile_view(user_id: int) -> None:
        print(f"Profile viewed: {user_id}")

    async def get_current_user(tasks: Tasks) -> dict:
        """Example authentication dependency that logs access"""
        user = {"id": 123, "name": "Alice"}

        # Log authentication as a background task
        tasks.after_route.schedule(log_auth_attempt, user["id"])

        return user

    @app.get("/profile")
    async def get_profile(tasks: Tasks, user: dict = Depends(get_current_user)) -> dict:
        # Can still use tasks here too
        tasks.schedule(track_profile_view, user["id"])

        return user

    async with client_of(app) as client:
        assert (await client.get("/profile")).json() == {"id": 123, "name": "Alice"}
    assert capsys.readouterr().out.splitlines() == [
        "Profile viewed: 123",
        "route ends",
        "Authenticated: 123",
        "response 200 starts",
        "response sent",
    ]


async def test_scheduling_from_a_dependency_with_yield(capsys):
    """Before the `yield` like from any other; behind it, after the response, at once."""
    app = new_app()

    async def log_action(action: str) -> None:
        print(f"Action: {action}")

    async def audit_log(tasks: Tasks):
        tasks.schedule(log_action, "begin")
        tasks.after_route.schedule(log_action, "route")
        yield
        tasks.after_route.schedule(log_action, "end")

    @app.post("/protected")
    async def protected_endpoint(audit: None = Depends(audit_log)) -> dict:
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/protected")).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "Action: begin",
        "route ends",
        "Action: route",
        "response 200 starts",
        "response sent",
        "Action: end",
    ]


async def test_dynamic_task_scheduling(capsys):
    """Tasks are chosen by what the request and the user want."""
    app = new_app()

    def get_user(user_id: int) -> dict:
        both = {"phone": "555", "sms_enabled": True, "email": "a@b", "email_enabled": True}
        return {1: both, 2: {}}[user_id]

    async def send_sms(phone: str, message: str) -> None:
        print(f"SMS to {phone}: {message}")

    async def send_email(email: str, subject: str, body: str) -> None:
        print(f"Email to {email}: {subject}")

    @app.post("/notify")
    async def notify_user(user_id: int, notification_type: str, tasks: Tasks) -> dict:
        # Get user preferences
        user = get_user(user_id)  # Assume this exists

        # Schedule tasks based on user preferences
        if user.get("sms_enabled") and notification_type in ["urgent", "all"]:
            tasks.schedule(send_sms, user["phone"], "You have a notification")

        if user.get("email_enabled"):
            tasks.schedule(
                send_email,
                user["email"],
                "Notification",
                "You have a new notification",
            )

        return {"status": "notifications scheduled"}

    async with client_of(app) as client:
        for user_id, notification_type in ((1, "urgent"), (1, "rare"), (2, "all")):
            params = {"user_id": user_id, "notification_type": notification_type}
            response = await client.post("/notify", params=params)
            assert response.json() == {"status": "notifications scheduled"}
    end = ["route ends", "response 200 starts", "response sent"]
    assert capsys.readouterr().out.splitlines() == [
        *["SMS to 555: You have a notification", "Email to a@b: Notification", *end],
        *["Email to a@b: Notification", *end],
        *end,
    ]


async def test_pattern_1_fire_and_forget(capsys):
    """The task runs without anybody holding on to it."""
    app = new_app()

    async def send_to_analytics(event: str) -> None:
        await anyio.sleep(5)
        print(f"sent: {event}")

    @app.post("/track")
    async def track_event(event: str, tasks: Tasks) -> dict:
        tasks.schedule(send_to_analytics, event)
        return {"status": "ok"}

    async with client_of(app) as client:
        assert (await client.post("/track", params={"event": "login"})).json() == {"status": "ok"}
    assert capsys.readouterr().out.splitlines() == [
        "route ends",
        "response 200 starts",
        "response sent",
        "sent: login",
    ]


async def test_pattern_2_concurrent_processing(capsys):
    """All four run at the same time: the longest, started first, ends last."""
    app = new_app()

    async def work(name: str, seconds: float) -> None:
        print(f"{name} starts")
        await anyio.sleep(seconds)
        print(f"{name} ends")

    async def generate_thumbnail(file_id: int) -> None:
        await work(f"thumbnail {file_id}", 4)

    async def scan_for_viruses(file_id: int) -> None:
        await work(f"scan {file_id}", 3)

    async def extract_metadata(file_id: int) -> None:
        await work(f"metadata {file_id}", 2)

    async def update_search_index(file_id: int) -> None:
        await work(f"index {file_id}", 1)

    @app.post("/process")
    async def process_upload(file_id: int, tasks: Tasks) -> dict:
        # All these happen concurrently
        tasks.schedule(generate_thumbnail, file_id)
        tasks.schedule(scan_for_viruses, file_id)
        tasks.schedule(extract_metadata, file_id)
        tasks.schedule(update_search_index, file_id)

        return {"status": "processing"}

    async with client_of(app) as client:
        response = await client.post("/process", params={"file_id": 7})
        assert response.json() == {"status": "processing"}
    names = ["thumbnail 7", "scan 7", "metadata 7", "index 7"]
    assert capsys.readouterr().out.splitlines() == [
        *[f"{name} starts" for name in names],
        "route ends",
        "response 200 starts",
        "response sent",
        *[f"{name} ends" for name in reversed(names)],
    ]


async def test_pattern_3_staged_execution(capsys):
    """Payment, inventory and confirmations run at their stages, those of one in call order."""
    app = new_app()

    def save_order(order_data: dict) -> int:
        print("saved")
        return order_data["id"]

    async def process_payment(order_id: int) -> None:
        print(f"payment {order_id}")

    async def update_inventory(order_id: int) -> None:
        print(f"inventory {order_id}")

    async def send_order_email(order_id: int) -> None:
        print(f"email {order_id}")

    async def notify_warehouse(order_id: int) -> None:
        print(f"warehouse {order_id}")

    @app.post("/order")
    async def create_order(order_data: dict, tasks: Tasks) -> dict:
        order_id = save_order(order_data)

        # Immediate: Start payment processing
        tasks.schedule(process_payment, order_id)

        # After route: Update inventory before confirming
        tasks.after_route.schedule(update_inventory, order_id)

        # After response: Send confirmations
        tasks.after_response.schedule(send_order_email, order_id)
        tasks.after_response.schedule(notify_warehouse, order_id)

        return {"order_id": order_id}

    async with client_of(app) as client:
        assert (await client.post("/order", json={"id": 7})).json() == {"order_id": 7}
    assert capsys.readouterr().out.splitlines() == [
        "saved",
        "payment 7",
        "route ends",
        "inventory 7",
        "response 200 starts",
        "response sent",
        "email 7",
        "warehouse 7",
    ]


@pytest.mark.parametrize("advice", ["don't", "do"])
async def test_pitfall_1_capturing_mutable_state(advice, capsys):
    """An argument is what it was at the call, when later requests have gone on counting."""
    app = new_app()
    data = {"count": 0}

    async def log_count(count: int) -> None:
        await anyio.sleep(5)
        print(f"count {count}")

    if advice == "don't":

        @app.post("/increment")
        async def increment(tasks: Tasks) -> dict:
            data["count"] += 1
            # This might not work as expected because the task
            # may run after data has been modified again
            tasks.schedule(log_count, data["count"])
            return {"count": data["count"]}

    else:

        @app.post("/increment")
        async def increment(tasks: Tasks) -> dict:
            count = data["count"] + 1
            data["count"] = count
            # Pass the value directly
            tasks.schedule(log_count, count)
            return {"count": count}

    async with client_of(app) as client:
        assert (await client.post("/increment")).json() == {"count": 1}
        assert (await client.post("/increment")).json() == {"count": 2}
    assert capsys.readouterr().out.splitlines() == [
        *["route ends", "response 200 starts", "response sent"] * 2,
        "count 1",
        "count 2",
    ]


async def test_pitfall_2_not_handling_task_failures(capsys, caplog):
    """Without an error handler a failure is logged; with one it is logged and handled."""
    app = new_app()

    async def might_fail() -> None:
        raise ValueError("it did")

    async def handle_error(task: Task, error: Exception) -> None:
        print(f"{task.func.__name__} failed: {error}")

    @app.post("/don't")
    async def unhandled(tasks: Tasks) -> None:
        # Without error handling, failures are just logged
        tasks.schedule(might_fail)

    @app.post("/do")
    async def handled(tasks: Tasks) -> None:
        # Better: Use error handlers (covered in advanced tutorial)
        tasks.task(on_error=handle_error).schedule(might_fail)

    async with client_of(app) as client:
        for path in ("/don't", "/do"):
            assert (await client.post(path)).status_code == 200
            [record] = caplog.records
            assert (record.name, record.levelname) == ("fastapi_tasks", "ERROR")
            assert str(record.exc_info[1]) == "it did"
            caplog.clear()
    end = ["route ends", "response 200 starts", "response sent"]
    assert capsys.readouterr().out.splitlines() == [*end, "might_fail failed: it did", *end]
