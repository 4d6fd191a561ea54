"""`fastapi_tasks.testing` under each pytest plugin for async tests, in a pytest of its own."""

import subprocess
import sys

import pytest

APP = """
import pytest
from fastapi import FastAPI
from fastapi_tasks import Tasks, add_tasks
from fastapi_tasks.testing import client, scheduled_tasks

async def send_mail(address): ...

@pytest.fixture
def app():
    app = FastAPI()
    add_tasks(app)

    @app.post("/signup")
    async def signup(tasks: Tasks):
        tasks.after_response.schedule(send_mail, "a@example.org")

    return app
"""
TEST = """
{mark}
async def test_mail(app{fixtures}):
    async with client(app) as http:
        await http.post("/signup")
        await http.join()
        assert http.tasks.one(send_mail).state.value == "succeeded"

{mark}
async def test_fixture(app, scheduled_tasks{fixtures}):
    async with client(app) as http:
        await http.post("/signup")
    assert len(scheduled_tasks) == 1
"""
FIXTURE = """
{import_}

@{fixture}
async def http(app):
    async with client(app) as http:
        yield http

{mark}
async def test_client_as_a_fixture(http{fixtures}):
    await http.post("/signup")
    await http.join(timeout=5)
    assert http.tasks.one(send_mail).state.value == "succeeded"
"""
FIXTURES = {  # of async ones
    "pytest-trio": ("import pytest_trio", "pytest_trio.trio_fixture"),
    "anyio": ("", "pytest.fixture"),
    "pytest-asyncio": ("import pytest_asyncio", "pytest_asyncio.fixture"),
}
CLOCK = """
import anyio
import pytest
from fastapi import FastAPI
from fastapi_tasks import add_tasks
from fastapi_tasks.testing import client

app = FastAPI()
runner = add_tasks(app)

async def clean_up(): ...

clock = runner.every(60).schedule(clean_up)

@pytest.mark.trio
async def test_cleaning(autojump_clock):
    async with client(app) as http:
        await anyio.sleep(60 * 60 + 30)
        assert clock.rounds == 60
        await http.join()
"""
PLUGINS = {
    "pytest-trio": ("@pytest.mark.trio", "", ["-p", "no:asyncio", "-p", "no:anyio"]),
    "anyio": ("@pytest.mark.anyio", ", anyio_backend", ["-p", "no:asyncio", "-p", "no:trio"]),
    "pytest-asyncio": ("@pytest.mark.asyncio", "", ["-p", "no:trio", "-p", "no:anyio"]),
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugin(plugin, tmp_path):
    """The same three tests pass, whoever runs them; the AnyIO plugin runs them on both backends."""
    mark, fixtures, options = PLUGINS[plugin]
    import_, fixture = FIXTURES[plugin]
    tests = [
        text.format(mark=mark, fixtures=fixtures, import_=import_, fixture=fixture)
        for text in (TEST, FIXTURE)
    ]
    result = run_pytest(APP + "".join(tests), tmp_path, options)
    assert f"{6 if plugin == 'anyio' else 3} passed" in result.stdout, result.stdout


def test_clocks_in_virtual_time(tmp_path):
    """An hour of pytest-trio's takes no time, and clocks go by it."""
    result = run_pytest(CLOCK, tmp_path, PLUGINS["pytest-trio"][2])
    assert "1 passed" in result.stdout, result.stdout


def run_pytest(text, directory, options):
    (directory / "test_app.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", *options]
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
