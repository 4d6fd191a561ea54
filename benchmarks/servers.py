"""Real servers under real load: endpoints with tasks, against the same without, and Starlette's.

Each block is a fraction of a second of load over kept-alive connections (`load`), on wall time,
followed by the wait for the tasks that are left, which does not count. There are eight connections,
or one. A nap is a task that sleeps for 50 ms. The line below the table is another thing: the time
from one request to the end of its tasks.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.measure import Block, Rounds, Spread, measure
from tests_trio.servers import RealServer, real_server

APP = "benchmarks.served_app:app"
SERVERS = {
    "Hypercorn on Trio": "hypercorn-trio",
    "Hypercorn on asyncio": "hypercorn-asyncio",
    "Uvicorn": "uvicorn",
}
SECONDS, ROUNDS = 0.3, 3
MANY = 8  # connections, unless it is one
ONE = "?one"  # the query of those, which the app does not look at
WARM_UP = 30  # requests to each endpoint, before
FIGURES = ("requests/s", "p50", "p99")
UNTIL_DONE = "until done"

ROWS = {
    "no tasks, once more": ("/plain?again", "/plain"),
    "one task, now": ("/now", "/plain"),
    "one task, after the route": ("/after-route", "/plain"),
    "one task, after the response": ("/after-response", "/plain"),
    "one of Starlette's BackgroundTasks": ("/background", "/plain"),
    "20 sync tasks": ("/sync", "/plain"),
    "20 sync tasks, Starlette's": ("/background-sync", "/plain"),
    "`def` endpoint, ten tasks": ("/def", "/def-plain"),
    "`def` endpoint, ten of Starlette's": ("/background-def", "/def-plain"),
    "three naps, one connection": ("/naps?one", "/plain?one"),
    "three naps, one connection, Starlette's": ("/background-naps?one", "/plain?one"),
    "one task, after the response, against Starlette's": ("/after-response", "/background"),
    "20 sync tasks, against Starlette's": ("/sync", "/background-sync"),
    "`def` endpoint, ten tasks, against Starlette's": ("/def", "/background-def"),
    "three naps, one connection, against Starlette's": ("/naps?one", "/background-naps?one"),
}
PATHS = list(dict.fromkeys(path for pair in ROWS.values() for path in pair))


def under_load(server: RealServer, path: str, latencies: dict[str, Rounds]) -> Block:
    """A block that puts load on a path and gives the requests per second."""
    connections = 1 if path.endswith(ONE) else MANY

    async def block() -> float:
        result = load.put(server.url + path, connections, SECONDS)
        latencies["p50"].costs[path].append(result.p50)
        latencies["p99"].costs[path].append(result.p99)
        server.get("/idle")
        return result.rate

    return block


def until_done(server: RealServer, path: str) -> Block:
    """A block that gives the time from a request to the end of its tasks."""

    async def block() -> float:
        with server.client() as client:
            client.get("/plain")
            begin = time.perf_counter()
            client.get(path)
            client.get("/idle")
            return time.perf_counter() - begin

    return block


def warm_up(server: RealServer) -> None:
    with server.client() as client:
        for path in PATHS * WARM_UP:
            client.get(path)
        client.get("/idle")


async def measure_server(server: RealServer) -> dict[str, Spread]:
    warm_up(server)
    latencies = {"p50": Rounds(PATHS), "p99": Rounds(PATHS)}
    blocks = {path: under_load(server, path, latencies) for path in PATHS}
    rates = await measure(blocks, ROUNDS, warm_up=False)
    tables = {"requests/s": rates, **latencies}
    figures = {
        f"{row}: {figure}": tables[figure].ratio(path, to)
        for row, (path, to) in ROWS.items()
        for figure in FIGURES
    }
    naps = {path: until_done(server, path) for path in ("/naps", "/background-naps")}
    done = await measure(naps, ROUNDS)
    return figures | {UNTIL_DONE: done.ratio("/naps", "/background-naps")}


async def run(backend: str, kind: str) -> dict[str, Spread]:
    options = ["--no-access-log"] if kind == "uvicorn" else []
    with (
        TemporaryDirectory() as directory,
        real_server(kind, Path(directory), APP, *options) as server,
    ):
        figures = await measure_server(server)
        server.stop()
    return figures
