"""The load of the soak test: a mix of visits to the app's routes, and what each of them must cause.

The load comes in rounds. In a round all kinds of visits are made, in random turn and at a steady
rate. When all are answered, a burst exceeds `max_tasks`, alone, so that nothing else is refused. So
every round is the same amount of work, and all counts are known.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from websockets.asyncio.client import connect

from benchmarks.soak_verdict import Finding, must_be
from benchmarks.soak_work import MAX_TASKS

RATE = 120  # visits per second to each server, at most
LIMITS = httpx.Limits(max_connections=16, keepalive_expiry=2)  # the servers close theirs after 5 s
PATIENCE = 30  # seconds for one visit
ERRORS_AT_MOST = 20  # that are kept


async def get(load: Load, visit: Visit) -> None:
    # Uvicorn closes the connection behind an error, too late for a next request to know.
    headers = {"Connection": "close"} if visit.status == 500 else {}
    response = await load.client.get(visit.path, headers=headers)
    assert response.status_code == visit.status, response


async def read_stream(load: Load, visit: Visit) -> None:
    response = await load.client.get(f"{visit.path}?chunks=5")
    assert len(response.content) == 5000, response


async def leave_stream(load: Load, visit: Visit) -> None:
    async with load.client.stream("GET", f"{visit.path}?chunks=500") as response:
        async for _ in response.aiter_raw():
            return


async def use_socket(load: Load, visit: Visit) -> None:
    async with connect(load.url.replace("http", "ws") + visit.path, proxy=None) as socket:
        for text in "abc":
            await socket.send(text)
            assert await socket.recv() == text


async def drop_socket(load: Load, visit: Visit) -> None:
    async with connect(load.url.replace("http", "ws") + visit.path, proxy=None) as socket:
        await socket.send("a")
        await socket.recv()
        socket.transport.abort()  # no closing handshake


@dataclass(frozen=True)
class Visit:
    """One kind of visit: how it is made, how often in a round, and what it causes each time."""

    path: str
    share: int
    causes: dict[str, int] = field(default_factory=dict)
    status: int = 200
    make: Callable[[Load, Visit], Awaitable[None]] = get


VISITS = [
    Visit("/plain", 80),
    Visit("/points", 80, {"succeeded": 6}),
    Visit("/def-points", 40, {"succeeded": 6}),
    Visit("/failures", 40, {"failed": 6, "handled": 3, "failed handlers": 1}),
    Visit("/timeouts", 20, {"succeeded": 1, "failed": 2}),
    Visit("/retries", 40, {"succeeded": 2, "failed": 2, "handled": 1}),
    Visit("/limiters", 20, {"succeeded": 8}),
    Visit("/held", 40, {"succeeded": 2, "failed": 1}),
    Visit("/fails", 40, {"succeeded": 3, "cancelled": 2, "failed routes": 1}, 409),
    Visit("/breaks", 20, {"succeeded": 1, "cancelled": 1, "failed routes": 1}, 500),
    Visit("/cancels", 20, {"cancelled": 4}),
    Visit("/def-cancels", 20, {"cancelled": 2}),
    Visit("/awaits", 40, {"succeeded": 2, "failed": 1, "cancelled": 1}),
    Visit("/children", 20, {"succeeded": 12}),
    Visit("/foreign-thread", 20, {"succeeded": 2, "cancelled": 1}),
    Visit("/stream", 20, {"succeeded": 2}, make=read_stream),
    Visit("/stream", 20, {"succeeded": 2}, make=leave_stream),
    Visit("/socket", 10, {"succeeded": 5}, make=use_socket),
    Visit("/socket", 10, {"succeeded": 3}, make=drop_socket),
]
SHARES = [visit.share for visit in VISITS]
BURST = Visit("/burst", 1, {"succeeded": MAX_TASKS, "refused": 1}, 503)


class Load:
    """The load on one server, and the counts that it must lead to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.AsyncClient(
            base_url=url, timeout=PATIENCE, limits=LIMITS, trust_env=False
        )
        self.visits = 0
        self.caused: Counter[str] = Counter()
        self.errors: list[str] = []

    async def run(self, seconds: float) -> None:
        """Make visits for so long."""
        end = anyio.current_time() + seconds
        while anyio.current_time() < end:
            async with anyio.create_task_group() as group:
                for visit in random.sample(VISITS, k=sum(SHARES), counts=SHARES):
                    group.start_soon(self.pay, visit)
                    await anyio.sleep(random.expovariate(RATE))
                    if anyio.current_time() > end:
                        break
            await self.pay(BURST)
            await self.idle()

    async def pay(self, visit: Visit) -> None:
        """Make one visit, and note what it must cause."""
        self.visits += 1
        self.caused.update(visit.causes)
        try:
            await visit.make(self, visit)
        except Exception as exc:
            if len(self.errors) < ERRORS_AT_MOST:
                self.errors.append(f"{visit.path}: {exc!r}")

    async def idle(self) -> dict[str, Any]:
        """Wait until no task is unfinished; return the server's counts."""
        counts: dict[str, Any] = (await self.client.get("/idle")).json()
        return counts

    def judge(self, counts: dict[str, int]) -> Iterator[Finding]:
        """Compare the server's counts with those that the visits must have led to."""
        caused = self.caused
        tasks = caused["succeeded"] + caused["failed"] + caused["cancelled"]
        expected = {
            "scheduled": tasks,
            "waiting": 0,
            "running": 0,
            "succeeded": caused["succeeded"],
            "failed": caused["failed"],
            "cancelled": caused["cancelled"],
            "refused": caused["refused"],
            "instrument told of the end": tasks,
            "error handler called": caused["handled"],
            "fastapi_tasks ERROR lines": caused["failed"] + caused["failed handlers"],
            "fastapi_tasks WARNING lines": 0,
            "fastapi_tasks INFO lines": caused["failed routes"],
            "unexpected lines": 0,
        }
        for what, count in expected.items():
            yield must_be(what, counts.get(what, 0), count)
        yield must_be("failed visits", "; ".join(self.errors), "")
