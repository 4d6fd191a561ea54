"""The fault scenarios, on real servers. Each returns the books of its run.

Nothing here waits for a time: a scenario goes on when the journal says that the app is where it is
to be hit, and tasks that are to be hit there wait at a gate that the scenario opens.
"""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from tests_trio.faults_clients import Load, broken_off, get, get_all
from tests_trio.faults_scene import Outcome, scene
from tests_trio.servers import until

# Hypercorn gives requests 3 s when it shuts down, and on Trio it often takes them: make it one.
GRACEFUL = {
    "hypercorn-trio": ("--graceful-timeout", "1"),
    "hypercorn-asyncio": ("--graceful-timeout", "1"),
    "uvicorn": (),
}
MAX_REQUESTS = {
    "hypercorn-trio": ("--max-requests", "100"),
    "hypercorn-asyncio": ("--max-requests", "100"),
    "uvicorn": (
        *("--limit-max-requests", "100", "--workers", "2"),
        *("--timeout-worker-healthcheck", "3"),  # it looks for dead workers with this patience
    ),
}


def sigterm_under_load(kind: str, directory: Path) -> Outcome:
    with scene(kind, directory, *GRACEFUL[kind]) as it, Load(it.port) as load:
        it.answers = load.answers
        until(lambda: len(load.answers) >= 300, "load")
        it.signal(signal.SIGTERM)
        load.end_after(200)
        return it.end()


def sigint_twice(kind: str, directory: Path) -> Outcome:
    """The second while the drain waits for a shielded task."""
    with scene(kind, directory) as it:
        it.do("hold", "shielded", "end", shield=True)
        it.do("sleep", "unshielded", "60")
        it.signal(signal.SIGINT)
        it.wait_for("breaks", "unshielded")
        it.signal(signal.SIGINT)
        it.wait_for("waits", "shielded", it.count("waits", "shielded") + 5)
        it.open("end")
        return it.end()


def sigint_twice_during_a_request(kind: str, directory: Path) -> Outcome:
    """The second while the server waits for a request."""
    with scene(kind, directory, *GRACEFUL[kind]) as it:
        request = threading.Thread(target=hopeless_request, args=(it.port, "/wait"))
        request.start()
        it.wait_for("reads", "wait")
        it.signal(signal.SIGINT)
        if kind == "uvicorn":
            until(lambda: "Waiting for connections to close" in it.server.output, "Uvicorn")
        it.signal(signal.SIGINT)
        outcome = it.end()
        request.join()
        return outcome


def hopeless_request(port: int, path: str) -> None:
    with contextlib.suppress(OSError, HTTPException):
        get(port, path)


def sigterm_during_a_blocked_endpoint(kind: str, directory: Path) -> Outcome:
    """It blocks in a thread, and goes on when the server has cut it off."""
    limit = GRACEFUL[kind] or ("--timeout-graceful-shutdown", "1")
    with scene(kind, directory, *limit) as it:
        it.do("hold", "keeper", "end", shield=True)
        it.do("sleep", "canary", "60")
        request = threading.Thread(target=hopeless_request, args=(it.port, "/blocked"))
        request.start()
        it.wait_for("reads", "blocked")
        it.signal(signal.SIGTERM)
        if kind == "hypercorn-trio":  # well past the limit: a line stands for 20 ms at least
            it.wait_for("waits", "keeper", it.count("waits", "keeper") + 75)
            assert it.count("finished") == 0
        else:
            it.wait_for("breaks", "canary")
        it.open("endpoint")
        it.wait_for("ends", "late-shielded")
        it.wait_for("finished", count=5)
        it.open("end")
        request.join()
        return it.end()


def sigterm_in_a_backoff(kind: str, directory: Path) -> Outcome:
    """Of three tasks that wait to be tried again: one will succeed, one fail, one is unshielded."""
    with scene(kind, directory) as it:
        it.do("try_again", "succeeds", "end", how="retried", shield=True)
        it.do("try_again", "gives-up", "never", how="retried", shield=True)
        it.do("try_again", "unshielded", "end", how="retried")
        it.do("sleep", "canary", "60")
        it.wait_for("fails", "unshielded")
        it.signal(signal.SIGTERM)
        it.wait_for("breaks", "canary")
        for name in ("succeeds", "gives-up"):
            it.wait_for("fails", name, it.count("fails", name) + 2)
        it.open("end")
        it.wait_for("ends", "succeeds")
        it.open("enough")
        return it.end()


CLIENTS = 10  # that break off, of each kind


def clients_reset(kind: str, directory: Path) -> Outcome:
    """In the middle of an upload, and of a stream."""
    with scene(kind, directory) as it, ExitStack() as connections:
        for number in range(CLIENTS):
            upload = (
                f"POST /upload/u{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n..."
            )
            connections.enter_context(broken_off(it.port, upload.encode()))
            it.wait_for("reads", f"u{number}")
            stream = f"GET /stream/s{number} HTTP/1.1\r\nHost: x\r\n\r\n"
            connection = connections.enter_context(broken_off(it.port, stream.encode()))
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert it.count("finished", "s0-response") == 0
        connections.close()
        it.wait_for("finished", count=7 * CLIENTS)
        it.signal(signal.SIGTERM)
        return it.end()


def busy_threads(kind: str, directory: Path) -> Outcome:
    """All of them: three tasks run, five wait for a thread, two of these shielded."""
    with scene(kind, directory, MAX_THREADS="3") as it:
        for number in range(3):
            it.do("block", f"running-{number}", "end")
            it.wait_for("begins", f"running-{number}")
        for number in range(3):
            it.do("block", f"waiting-{number}", "end")
        for number in range(2):
            it.do("block", f"shielded-{number}", "end", shield=True)
        assert {answer.status for answer in get_all(it.port, ["/thread"] * 20)} == {200}
        it.do("sleep", "canary", "60")
        it.signal(signal.SIGTERM)
        it.wait_for("breaks", "canary")
        it.wait_for("finished", count=4)
        assert it.count("begins") == 4
        it.open("end")
        return it.end()


def endless_error_handler(kind: str, directory: Path) -> Outcome:
    with scene(kind, directory, SHIELD_TIMEOUT="0.5") as it:
        it.do("fail", "shielded", how="handled-for-ever", shield=True)
        it.do("fail", "unshielded", how="handled-for-ever")
        it.wait_for("handles", count=2)
        it.signal(signal.SIGTERM)
        return it.end()


def stalled_event_loop(kind: str, directory: Path) -> Outcome:
    """A task blocks it: once under requests, once under SIGTERM."""
    with scene(kind, directory, *GRACEFUL[kind]) as it:
        it.do("sleep", "shielded", "1", shield=True)
        it.do("sleep", "unshielded", "60")
        stall = threading.Thread(target=it.do, args=("stall", "first", "1"))
        stall.start()
        it.wait_for("begins", "first")
        it.answers += get_all(it.port, [f"/do/sleep/late-{n}?arg=0" for n in range(20)])
        stall.join()
        stall = threading.Thread(target=it.do, args=("stall", "second", "1"))
        stall.start()
        it.wait_for("begins", "second")
        it.signal(signal.SIGTERM)
        stall.join()
        return it.end()


BURST = 150  # requests, of two tasks each


def burst(kind: str, directory: Path) -> Outcome:
    """Far over `max_tasks`: first while no task ends, then while they come and go."""
    with scene(kind, directory, MAX_TASKS="21") as it:
        it.answers += get_all(it.port, [f"/burst/{n}" for n in range(BURST)])
        assert Counter(answer.status for answer in it.answers) == {200: 10, 503: BURST - 10}
        it.open("burst")
        it.wait_for("finished", count=21)
        it.answers += get_all(it.port, [f"/burst/{n}" for n in range(BURST, 2 * BURST)])
        it.wait_for("finished", count=it.count("handed-over"))
        it.signal(signal.SIGTERM)
        return it.end()


def two_workers(kind: str, directory: Path) -> Outcome:
    """Both have shielded tasks to wait for; one ends its drain first."""
    with scene(kind, directory, "--workers", "2", *GRACEFUL[kind]) as it:
        it.wait_for("opens", "pool", 2)
        with Load(it.port, at_most=200) as load:
            until(lambda: len(load.answers) == 200, "load")
        it.answers += load.answers
        first, second = it.hand_over_to_both()
        it.signal(signal.SIGTERM)
        it.wait_for("finished", count=it.count("handed-over") - it.count("handed-over", "held-.*"))
        it.open(f"end-{first}")
        it.wait_for("closes", "pool")
        if kind != "uvicorn":  # whose main process has sent SIGTERM to the other worker by now
            until(lambda: "SIGTERM came" in it.server.output, "Hypercorn")
        it.open(f"end-{second}")
        return it.end()


def recycled_worker(kind: str, directory: Path) -> Outcome:
    """The server replaces a worker that has had its number of requests, under load."""
    options = (*GRACEFUL[kind], *MAX_REQUESTS[kind])
    with scene(kind, directory, *options) as it, Load(it.port, rate=200) as load:
        it.answers = load.answers
        until(lambda: it.is_replaced(workers=2 if kind == "uvicorn" else 1), "another worker")
        it.signal(signal.SIGTERM)
        load.end_after(100)
        return it.end()


SCENARIOS: dict[str, Callable[[str, Path], Outcome]] = {
    "SIGTERM under load": sigterm_under_load,
    "SIGINT twice, in the drain": sigint_twice,
    "SIGINT twice, in a request": sigint_twice_during_a_request,
    "SIGTERM, blocked endpoint": sigterm_during_a_blocked_endpoint,
    "SIGTERM during a backoff": sigterm_in_a_backoff,
    "clients reset": clients_reset,
    "all threads busy": busy_threads,
    "endless error handler": endless_error_handler,
    "stalled event loop": stalled_event_loop,
    "burst over `max_tasks`": burst,
    "two workers": two_workers,
    "recycled worker": recycled_worker,
}
