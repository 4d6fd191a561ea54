"""The examples do what their docstrings say."""

from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest

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
async def serving_example(example):
    """The example, served, with an empty log; the responses that the server gets are in it too."""

    async def app(scope, receive, send):
        async def log_and_send(message):
            if message["type"] == "http.response.start":
                example.log.append(f"response {message['status']} starts")
            await send(message)
            if message["type"] == "http.response.body":
                example.log.append("response sent")

        await example.app(scope, receive, log_and_send)

    example.log.clear()
    async with serving(app) as server, server.client as client:
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
