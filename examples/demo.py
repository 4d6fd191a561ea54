"""The shop, served for real on Trio and on asyncio, with a timeline of what happens when.

`make demo` runs it, and it ends by itself. Each server is a process of its own, called over HTTP;
it is told to shut down while a shielded task still runs.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any

import httpx

from examples import shop

shop.PAYMENT_TIME = 0.5  # long enough to shut down meanwhile

SERVERS = {
    "Hypercorn on Trio": [
        "hypercorn",
        "--worker-class",
        "trio",
        "--log-level",
        "warning",
        "--bind",
        "127.0.0.1:{port}",
    ],
    "Uvicorn on asyncio": ["uvicorn", "--log-level", "warning", "--port", "{port}"],
}
STARTUP_PATIENCE = 20.0  # seconds


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The shop, with a line for each end of a response, as the server gets it."""

    async def send_and_tell(message: Any) -> None:
        await send(message)
        if message["type"] == "http.response.start":
            print(f"-- response starts: {message['status']}")
        elif message["type"] == "http.response.body":
            print("-- response sent")
        elif message["type"] == "lifespan.shutdown.complete":
            print("-- shutdown complete")

    await shop.app(scope, receive, send_and_tell)


def main() -> None:
    for title, command in SERVERS.items():
        print(f"\n{title}\n{'-' * len(title)}")
        show(command)


def show(command: list[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command), "examples.demo:app"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    timeline = threading.Thread(target=print_timeline, args=(server.stdout,))
    timeline.start()
    try:
        wait_for(port)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            client.post("/orders", json={"item": "tea", "amount": 5})
            time.sleep(2 * shop.PAYMENT_TIME)
            client.post("/orders", json={"item": "book", "amount": 20})
        print(f"{'':>7} == SIGTERM ==\n", end="", flush=True)  # at once: the timeline prints, too
        server.send_signal(signal.SIGTERM)
        server.wait(STARTUP_PATIENCE)
    finally:
        server.kill()
        timeline.join()


def print_timeline(lines: IO[str]) -> None:
    """Print what the server process prints, with the seconds since its first line."""
    begin = None
    for line in lines:
        begin = begin or time.monotonic()
        print(f"{time.monotonic() - begin:7.3f} {line}", end="", flush=True)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + STARTUP_PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError("the server did not start")


if __name__ == "__main__":
    main()
