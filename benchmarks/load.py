"""Load on a server over kept-alive connections: by `wrk` where there is one, else by sockets.

`python -m benchmarks.load URL CONNECTIONS SECONDS` is the second one: a process with a thread for
each connection, which sends a request when it has the answer to the one before.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE = 10
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
WRK = shutil.which("wrk")


@dataclass(frozen=True)
class Load:
    """What came of it: requests per second, and the latency that so many of them stay within."""

    rate: float
    p50: float
    p99: float


def put(url: str, connections: int, seconds: float) -> Load:
    """Put load on a URL."""
    return by_wrk(url, connections, seconds) if WRK else by_sockets(url, connections, seconds)


def by_wrk(url: str, connections: int, seconds: float) -> Load:
    command = [WRK, "--threads", "1", "--connections", str(connections), "--latency", url]
    process = subprocess.Popen([*command, "--duration", "60s"], stdout=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)  # it counts in whole seconds, else
    output, _ = process.communicate(timeout=PATIENCE)
    assert "Non-2xx" not in output, output
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    latency = dict(re.findall(r"(50|99)%\s+([\d.]+[a-z]+)", output))
    assert rate, output
    return Load(float(rate[1]), in_seconds(latency["50"]), in_seconds(latency["99"]))


def in_seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


def by_sockets(url: str, connections: int, seconds: float) -> Load:
    command = [sys.executable, "-m", "benchmarks.load", url, str(connections), str(seconds)]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return Load(**json.loads(output))


def visit(url: str, seconds: float) -> list[float]:
    """The latencies of one connection's requests, one after the other, for so long."""
    where = urlsplit(url)
    request = f"GET {where.path}?{where.query} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode()
    latencies = []
    end = time.perf_counter() + seconds
    with socket.create_connection((where.hostname, where.port), PATIENCE) as connection:
        while (begin := time.perf_counter()) < end:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\nnull"):  # all answers are that
                answer += (part := connection.recv(65536))
                assert part, "the server closed the connection"
            assert b" 200 " in answer[:16], answer
            latencies.append(time.perf_counter() - begin)
    return latencies


def main(url: str, connections: str, seconds: str) -> None:
    count, begin = int(connections), time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        columns = pool.map(visit, [url] * count, [float(seconds)] * count)
        latencies = sorted(latency for column in columns for latency in column)
    rate = len(latencies) / (time.perf_counter() - begin)
    p50, p99 = (latencies[int(len(latencies) * part)] for part in (0.5, 0.99))
    print(json.dumps({"rate": rate, "p50": p50, "p99": p99}))


if __name__ == "__main__":
    main(*sys.argv[1:])
