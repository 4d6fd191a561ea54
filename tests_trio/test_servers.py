"""The guarantees from the outside: real servers, sockets and signals."""

import contextlib
import http.client
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests_trio.servers import RealServer, real_server, until

APP = "tests_trio.app_for_servers:app"
GRACEFUL = {  # the option by which a server cuts off requests, this many seconds after SIGTERM
    "uvicorn": "--timeout-graceful-shutdown",
    "hypercorn-trio": "--graceful-timeout",
    "hypercorn-asyncio": "--graceful-timeout",
}


@pytest.fixture
def server(server_kind, tmp_path):
    with real_server(server_kind, tmp_path, APP) as server:
        yield server


@pytest.mark.parametrize("middlewares", [False, True])
def test_timing_points(server_kind, tmp_path, middlewares):
    """G3, G4: in order, also behind `BaseHTTPMiddleware` and `GZipMiddleware`."""
    env = {"MIDDLEWARES": "1"} if middlewares else {}
    with real_server(server_kind, tmp_path, APP, **env) as server:
        assert server.get("/points/1").json() == {"number": "1"}
        server.wait_for("1 after response")
        assert server.journal == ["pool opens", "1 now", "1 after route", "1 after response"]
        server.stop()
        assert server.journal[-1] == "pool closes"


def test_no_task_lost_and_none_twice(server):
    """Ten thousand requests over forty connections, a task at each timing point."""
    connections, each = 40, 250

    def load(connection: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for number in range(each):
            client.request("GET", f"/points/{connection}-{number}")
            response = client.getresponse()
            assert (response.status, len(response.read()) > 0) == (200, True)
        client.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(load, range(connections)))
    expected = {
        f"{connection}-{number} {point}"
        for connection in range(connections)
        for number in range(each)
        for point in ("now", "after route", "after response")
    }
    until(lambda: len(server.journal) > len(expected), "the last tasks")
    server.stop()
    counted = Counter(server.journal[1:-1])
    assert set(counted) == expected
    assert set(counted.values()) == {1}


def test_keep_alive_is_not_held_up(server):
    """G5: the next request on the same connection is answered while tasks run."""
    with server.client() as client:
        for name in ("first", "second"):
            assert client.get(f"/sleep/{name}?seconds=60").json() == {"scheduled": name}
            server.wait_for(f"{name} starts")
    assert [entry for entry in server.journal if "ends" in entry] == []
    server.stop()
    assert sorted(server.journal[3:5]) == ["first cancelled", "second cancelled"]


def test_def_endpoints(server):
    """G8, G11: tasks that worker threads schedule."""
    for number in range(20):
        assert server.get(f"/sync/{number}").status_code == 200
        server.wait_for(f"sync {number}")
    server.stop()


@pytest.mark.parametrize("ending", ["returns", "client leaves"])
def test_websocket(server, ending):
    """*Now* tasks run during a WebSocket; *after* tasks when it has ended, however it ends."""
    with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        assert server.journal == ["pool opens", "now"]
        socket.send("wait" if ending == "client leaves" else "end")
        if ending == "returns":  # wait for the server's close: Hypercorn on Trio fails if both send
            with pytest.raises(ConnectionClosed):
                socket.recv()
    server.wait_for("after response")
    assert server.journal[2:] == [
        *["endpoint ends"] * (ending == "returns"),
        "after route",
        "after response",
    ]
    if ending == "returns":
        server.stop()  # else servers print the `WebSocketDisconnect`


@pytest.mark.parametrize("middlewares", [False, True])
def test_stream(server_kind, tmp_path, middlewares):
    """G3: the task runs after the last byte."""
    env = {"MIDDLEWARES": "1"} if middlewares else {}
    with real_server(server_kind, tmp_path, APP, **env) as server:
        assert server.get("/stream?count=5").text.split() == ["0", "1", "2", "3", "4"]
        server.wait_for("after response")
        assert server.journal == ["pool opens", "last byte", "after response"]
        server.stop()


@pytest.mark.parametrize("middlewares", [False, True])
def test_client_leaves_in_mid_stream(server_kind, tmp_path, middlewares):
    """G6: the response was cut short by the client; the task runs."""
    env = {"MIDDLEWARES": "1"} if middlewares else {}
    with real_server(server_kind, tmp_path, APP, **env) as server:
        with server.client() as client, client.stream("GET", "/stream?count=100000") as response:
            assert next(response.iter_raw())
        server.wait_for("after response")
        assert server.journal == ["pool opens", "after response"]


def test_file(server):
    """G3: a file, sent by the server's `pathsend` where it has one."""
    assert "def file(" in server.get("/file").text
    server.wait_for("after response")
    server.stop()


def test_failures_harm_nobody(server):
    """G12: what a task raises is logged; other tasks, requests and the server go on."""
    kinds = ["handler", "exit", "group", "generator"]
    if server.kind != "hypercorn-trio":
        kinds.append("future")
    for round_ in (1, 2):
        for kind in kinds:
            assert server.get(f"/fail/{kind}").status_code == 200
            server.wait_for(f"beside {kind} ends", round_)
    assert server.journal.count("handler of handler") == 2
    for kind in kinds:
        how = "failed" if kind != "future" else "was cancelled, but not by this library"
        assert server.output.count(f"\ntask '{kind}' {how}") == 2, server.output
    assert server.process.poll() is None
    server.terminate()
    server.wait()
    assert server.journal[-1] == "pool closes"


def test_sigterm(server):
    """G15, G16: unshielded tasks are cancelled, shielded ones end; then the pool closes."""
    server.get("/sleep/unshielded?seconds=60")
    server.get("/sleep/shielded?seconds=0.5&shield=true")
    server.wait_for("shielded starts")
    server.stop()
    assert server.journal == [
        "pool opens",
        "unshielded starts",
        "shielded starts",
        "unshielded cancelled",
        "shielded ends",
        "pool closes",
    ]
    assert "shutdown cancels 1 task(s): 'unshielded'" in server.output


def test_ctrl_c_reaches_a_worker_process(server):
    """G12, G15: its `KeyboardInterrupt` is its task's failure; the rest shuts down in order.

    Hypercorn ignores SIGINT where it serves, and so do the processes that are started there.
    """
    server.get("/process/computation")
    server.get("/sleep/payment?seconds=1&shield=true")
    server.wait_for("payment starts")
    server.wait_for("computation starts")
    until(lambda: children_of(server.process.pid, "anyio.to_process"), "the worker process")
    server.interrupt()
    server.wait()
    assert server.journal[-2:] == ["payment ends", "pool closes"]
    failures = server.output.count("task 'computation' failed")
    assert failures == (1 if server.kind == "uvicorn" else 0)


def children_of(pid: int, command: str) -> list[int]:
    """The processes below one whose command line has that."""
    found, todo = [], [pid]
    for parent in todo:  # which grows
        children = Path(f"/proc/{parent}/task/{parent}/children")
        for child in map(int, children.read_text().split()):
            todo.append(child)
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if command in line:
                found.append(child)
    return found


def hold_a_task_in_each_worker(server, workers: int) -> None:
    """Schedule a shielded task in each of some workers, which end one after the other."""
    pids: set[int] = set()

    def find_worker() -> bool:
        with server.client() as client:  # a connection of its own
            pid = client.get("/pid").json()
            if pid not in pids:
                seconds = 0.5 + len(pids)
                client.get(f"/sleep/task-{len(pids)}?seconds={seconds}&shield=true")
                pids.add(pid)
        return len(pids) == workers

    until(find_worker, "an answer of each worker")


def test_hypercorns_workers(server_kind, tmp_path):
    """G17: its main process sends SIGTERM to those that drain longer than the first; they go on."""
    if server_kind == "uvicorn":
        pytest.skip("it waits for each of its workers")
    with real_server(server_kind, tmp_path, APP, "--workers", "2") as server:
        hold_a_task_in_each_worker(server, 2)
        server.terminate()
        server.wait()
        assert {"task-0 ends", "task-1 ends"} <= set(server.journal)
        assert server.journal.count("pool closes") == 2
        assert "SIGTERM came while the app shuts down" in server.output


def test_workers_on_a_shared_socket(server_kind, tmp_path):
    """G17: `examples/workers.py`: none of them ends another one."""
    if server_kind == "uvicorn":
        pytest.skip("the example serves with Hypercorn")
    kind = server_kind.removeprefix("hypercorn-")
    with real_server("workers", tmp_path, APP, "2", "--worker-class", kind) as server:
        hold_a_task_in_each_worker(server, 2)
        server.terminate()
        server.wait()
        assert {"task-0 ends", "task-1 ends"} <= set(server.journal)
        assert server.journal.count("pool closes") == 2
        assert server.process.returncode == 0
        assert "SIGTERM came" not in server.output


def test_grace_period(server_kind, tmp_path):
    """G16: within it unshielded tasks end too, and the shutdown does not wait for its end."""
    with real_server(server_kind, tmp_path, APP, GRACE_PERIOD="15") as server:
        server.get("/sleep/task?seconds=0.5")
        server.terminate()
        assert server.wait() < 10
        assert server.journal[-2:] == ["task ends", "pool closes"]
        assert "Traceback" not in server.output


def test_shield_timeout(server_kind, tmp_path):
    """G16: a shielded task that never ends is cancelled then, and the log names it."""
    with real_server(server_kind, tmp_path, APP, SHIELD_TIMEOUT="0.5") as server:
        server.get("/sleep/endless?seconds=10000&shield=true")
        server.wait_for("endless starts")
        server.stop()
        assert server.journal[-2:] == ["endless cancelled", "pool closes"]
        assert "shutdown cancels shielded tasks, 0.5 s after the others: 'endless'" in server.output


def test_threads_at_shutdown(server):
    """G17: a thread that runs is waited for."""
    server.get("/block/thread?seconds=0.5")
    server.wait_for("thread starts")
    server.stop()
    assert server.journal[-2:] == ["thread ends", "pool closes"]


def cut_off(server: RealServer, path: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        server.get(path)


@pytest.mark.parametrize(
    ("path", "sign"),
    [("/cut-off", "endpoint waits"), ("/stream?count=100000", "pool opens")],
)
def test_server_cuts_a_request_off(server_kind, tmp_path, path, sign):
    """G17: its shielded *after response* task runs, with the pool still open."""
    with real_server(server_kind, tmp_path, APP, GRACEFUL[server_kind], "1") as server:
        thread = threading.Thread(target=cut_off, args=(server, path))
        thread.start()
        server.wait_for(sign)
        if "stream" in path:
            server.get("/points/1")  # the stream, sent before, is under way by now
        server.terminate()
        server.wait()
        thread.join()
        assert server.journal[-1] == "pool closes"
        expected = "shielded after response" if path == "/cut-off" else "after response"
        assert server.journal.count(expected) == 1
        assert "unshielded after response" not in server.journal


def test_sigterm_under_load(server):
    """G17: every shielded task that was handed over ends before the pool closes."""
    scheduled: list[str] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        with server.client() as client, contextlib.suppress(httpx.HTTPError):
            for number in range(10_000):
                if stop.is_set():
                    return
                name = f"{worker}-{number}"
                url = f"/sleep/{name}?seconds=0.2&shield=true"
                if client.get(url, headers={"connection": "close"}).status_code == 200:
                    scheduled.append(name)

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(scheduled) > 200, "load")
    server.terminate()
    server.wait()
    stop.set()
    for thread in threads:
        thread.join()
    assert "Traceback" not in server.output
    assert server.journal[-1] == "pool closes"
    journal = Counter(server.journal)
    assert {name: journal[f"{name} ends"] for name in scheduled} == dict.fromkeys(scheduled, 1)
    started = [entry for entry in journal if entry.endswith(" starts")]
    assert len(started) == sum(entry.endswith(" ends") for entry in journal)


def test_overload(server_kind, tmp_path):
    """G19: far more requests than `max_tasks` get a 503, nothing accepted is lost."""
    with real_server(server_kind, tmp_path, "examples.overload:app") as server:

        def load(_: int) -> Counter[int]:
            with server.client() as client:
                return Counter(client.post("/work").status_code for _ in range(50))

        with ThreadPoolExecutor(10) as pool:
            statuses = sum(pool.map(load, range(10)), Counter())
        assert set(statuses) == {202, 503}
        assert statuses.total() == 500
        counts = until(lambda: idle(server), "the tasks to finish")
        assert counts["succeeded"] == counts["scheduled"] == statuses[202]
        assert counts["refused"] == statuses[503]
        server.stop()


def idle(server: RealServer) -> dict[str, int] | None:
    counts = server.get("/statistics").json()
    return counts if counts["waiting"] == counts["running"] == 0 else None


def test_consumer(server_kind, tmp_path):
    """A loop outside of all requests runs beside them, and ends when the app begins to stop."""
    with real_server(server_kind, tmp_path, "examples.consumer:app") as server:
        for number in range(3):
            assert server.post(f"/queue/{number}").status_code == 202
        until(lambda: server.get("/consumed").json() == ["0", "1", "2"], "the consumer")
        server.stop()
        assert "consumer: stops" in server.output
        assert "cancels" not in server.output


EXAMPLES = [
    "concurrent_processing",
    "consumer",
    "dependencies",
    "dynamic",
    "error_handling",
    "fire_and_forget",
    "overload",
    "shop",
    "staged_execution",
    "tracking",
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_served(server_kind, tmp_path, example):
    """Each example starts, shows its API, and shuts down without a traceback."""
    with real_server(server_kind, tmp_path, f"examples.{example}:app") as server:
        assert server.get("/openapi.json").json()["paths"]
        server.stop()


@pytest.mark.parametrize("sessions", ["sync", "async"])
def test_sessions_of_tasks(server_kind, tmp_path, sessions):
    """Of a pool of five, with a SIGTERM in the middle: none leaks, and what is committed is true."""
    if sessions == "async" and server_kind == "hypercorn-trio":
        pytest.skip("asyncio alone has those of SQLAlchemy")
    app = "tests_trio.app_for_sessions:app"

    def load(numbers: range) -> None:
        with server.client() as client, contextlib.suppress(httpx.TransportError):
            for number in numbers:
                client.post(f"/orders/{number}")

    with real_server(server_kind, tmp_path, app, SESSIONS=sessions) as server:
        with ThreadPoolExecutor(4) as pool:
            for first in range(4):
                pool.submit(load, range(first, 1000, 4))
            until(lambda: len(server.journal) >= 200, "tasks to end")
            server.terminate()
        server.wait()
        *ends, last = server.journal
        assert last == "checked out: 0"
    numbers = {state: set() for state in ("succeeded", "cancelled")}
    for end in ends:
        number, state = end.split()
        numbers[state].add(int(number))
    with contextlib.closing(
        sqlite3.connect(server.journal_file.with_suffix(".sqlite"))
    ) as database:
        rows = {number for (number,) in database.execute("select number from orders")}
    assert rows == numbers["succeeded"]
    assert len(rows) >= 190
    assert numbers["cancelled"]
    assert "Traceback" not in server.output, server.output


def poll(server: RealServer, path: str, states: list[str]) -> None:
    """As a client does, until the server has gone."""
    with server.client() as client, contextlib.suppress(httpx.HTTPError):
        while True:
            states.append(client.get(path).json()["state"])
            time.sleep(
                0.05
            )  # at once would at times cost Hypercorn's 3 s on Trio, whatever it asks


def test_clients_of_jobs_at_sigterm(server_kind, tmp_path):
    """G23: those that poll and those that wait hold the exit for no more than about a second."""
    with real_server(server_kind, tmp_path, "tests_trio.app_for_jobs:app") as server:
        path = f"/jobs/{server.post('/begin?seconds=1000').json()}"
        answers: list[list[str]] = [[] for _ in range(8)]
        with ThreadPoolExecutor(len(answers)) as pool:
            for number, states in enumerate(answers):
                pool.submit(poll, server, f"{path}?wait={0.9 * (number % 2)}", states)
            until(lambda: all(answers), "an answer for each")
            server.terminate()
            seconds = server.wait()
        assert seconds < 2.5, seconds
        assert {state for states in answers for state in states} == {"running"}
        assert "Traceback" not in server.output, server.output


def test_jobs_of_two_workers(server_kind, tmp_path):
    """G23: what one of them knows is a 404 in the other, which says why."""
    app = "tests_trio.app_for_jobs:app"
    with real_server(server_kind, tmp_path, app, "--workers", "2") as server:
        jobs: dict[int, str] = {}

        def begin_in_each() -> bool:
            with server.client() as client:  # a connection of its own
                pid = client.get("/pid").json()
                if pid not in jobs:
                    jobs[pid] = client.post("/begin?seconds=1000").json()
            return len(jobs) == 2

        def seen_by_each() -> bool:
            with server.client() as client:
                pid = client.get("/pid").json()
                for of, job in jobs.items():
                    response = client.get(f"/jobs/{job}")
                    seen.add((of == pid, response.status_code, response.json().get("detail")))
            pids.add(pid)
            return len(pids) == 2

        seen: set[tuple[bool, int, str | None]] = set()
        pids: set[int] = set()
        until(begin_in_each, "an answer of each worker")
        until(seen_by_each, "an answer of each worker")
        unknown = "this process knows no such job; another worker may know it"
        assert seen == {(True, 200, None), (False, 404, unknown)}
