"""Real servers, as subprocesses on loopback, for tests from the outside."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "hypercorn-trio": ["hypercorn", "--worker-class", "trio", "--bind", "{host}"],
    "hypercorn-asyncio": ["hypercorn", "--worker-class", "asyncio", "--bind", "{host}"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "{port}"],
    "workers": ["examples.workers", "127.0.0.1:{port}"],
}
BACKENDS = {"trio": ["hypercorn-trio"], "asyncio": ["hypercorn-asyncio", "uvicorn"]}
PATIENCE = 20.0  # seconds; past it a test fails


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what: str):
    """Poll another process, which has no other way to tell us; return what is then true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.005)
    return value


class RealServer:
    """A server process, its output and the journal that its app writes."""

    def __init__(self, kind: str, directory: Path, app: str, *options: str, **env: str) -> None:
        self.kind = kind
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.journal_file = directory / f"journal-{self.port}"
        self.output_file = directory / f"output-{self.port}"
        host = f"127.0.0.1:{self.port}"
        command = [part.format(host=host, port=self.port) for part in COMMANDS[kind]]
        env = {**os.environ, "JOURNAL": str(self.journal_file), "PYTHONUNBUFFERED": "1", **env}
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *self._arguments(app, options)],
                cwd=ROOT,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._listens, "the server to listen")

    def _arguments(self, app: str, options: tuple[str, ...]) -> tuple[str, ...]:
        return (app, *options) if self.kind == "workers" else (*options, app)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def journal(self) -> list[str]:
        return self.journal_file.read_text().splitlines() if self.journal_file.exists() else []

    def wait_for(self, entry: str, count: int = 1) -> None:
        until(lambda: self.journal.count(entry) >= count, f"{entry!r} in the journal")

    def get(self, path: str, **options) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE, trust_env=False, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return httpx.post(self.url + path, timeout=PATIENCE, trust_env=False, **options)

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """What Ctrl+C does: every process of the server gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> float:
        """Wait for the process to end; return the seconds that took."""
        begin = time.monotonic()
        self.process.wait(PATIENCE)
        return time.monotonic() - begin

    def stop(self) -> None:
        """A clean shutdown: it ends by itself, and prints no traceback."""
        self.terminate()
        self.wait()
        assert "Traceback" not in self.output, self.output


@contextmanager
def real_server(
    kind: str, directory: Path, app: str, *options: str, **env: str
) -> Iterator[RealServer]:
    server = RealServer(kind, directory, app, *options, **env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)  # its workers, too
            server.process.wait()
