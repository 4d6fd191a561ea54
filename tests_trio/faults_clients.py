"""Clients: single requests, bursts, a steady load, and connections that break off."""

import contextlib
import http.client
import json
import math
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple, Self

from tests_trio.servers import PATIENCE


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that it tells of."""
        return json.loads(self.body) if self.status == 200 else []


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)


def get(port: int, path: str) -> Answer:
    with contextlib.closing(connect(port)) as client:
        return ask(client, path)


def ask(client: http.client.HTTPConnection, path: str) -> Answer:
    client.request("GET", path)
    response = client.getresponse()
    return Answer(response.status, response.read())


def get_all(port: int, paths: Iterable[str], connections: int = 12) -> list[Answer]:
    """As many requests at a time as there are connections."""
    with ThreadPoolExecutor(connections) as pool:
        return list(pool.map(lambda path: get(port, path), paths))


class Load:
    """Requests for `/points/{number}` at a steady rate, until told to stop or the server has gone.

    Attributes:
        answers: what the requests were answered.
        broken: why those were not that got no answer.
    """

    def __init__(
        self, port: int, *, rate: int = 500, connections: int = 12, at_most: float = math.inf
    ) -> None:
        self.answers: list[Answer] = []
        self.broken: list[Exception] = []
        self._port, self._rate, self._at_most = port, rate, at_most
        self._numbers = count()  # shared by the threads: `next()` is atomic
        self._stop = threading.Event()
        self._begin = time.monotonic()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def end_after(self, requests: int) -> None:
        """So many more."""
        self._at_most = len(self.answers) + len(self.broken) + requests

    def _run(self) -> None:
        client = connect(self._port)
        with contextlib.closing(client), contextlib.suppress(ConnectionRefusedError):
            for number in self._numbers:
                pause = self._begin + number / self._rate - time.monotonic()
                if number >= self._at_most or self._stop.wait(max(0, pause)):
                    return
                self._request(client, number)

    def _request(self, client: http.client.HTTPConnection, number: int) -> None:
        try:
            self.answers.append(ask(client, f"/points/{number}"))
        except ConnectionRefusedError:
            raise  # nobody listens any more
        except (http.client.HTTPException, OSError) as exc:
            self.broken.append(exc)
            client.close()


@contextmanager
def broken_off(port: int, request: bytes) -> Iterator[socket.socket]:
    """A connection with a request under way; at the end of the block it is reset."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request)
        yield connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
