"""Soak test: two real servers under a mixed load, watched for what grows.

`make soak MINUTES=10` runs it. It serves one app by Hypercorn on Trio and by Uvicorn on asyncio,
each in a process of its own, visits both from this one, and samples their memory, open files and
threads each second. In the end it stops them, draws a chart and says whether all of it is flat.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from benchmarks.soak_chart import draw
from benchmarks.soak_load import Load
from benchmarks.soak_verdict import Finding, Sample, judge, must_be, take_sample
from tests_trio.servers import RealServer, real_server

APP = "benchmarks.soak_app:app"
SERVERS = {"Hypercorn on Trio": "hypercorn-trio", "Uvicorn on asyncio": "uvicorn"}
OPTIONS = {"hypercorn-trio": [], "uvicorn": ["--no-access-log"]}
EXIT_CODES = {"hypercorn-trio": 0, "uvicorn": -signal.SIGTERM}  # Uvicorn passes the signal on
INTERVAL = 1  # seconds between two samples
PATIENCE = 120  # seconds for all that comes before the load and after it


class Subject:
    """A server, the load on it, and what was seen of both."""

    def __init__(self, name: str, server: RealServer) -> None:
        self.name = name
        self.load = Load(server.url)
        self.samples: list[Sample] = []
        self.findings: list[Finding] = []
        self._server = server

    async def watch(self, seconds: int) -> None:
        """Take samples for so long."""
        pid = (await self.load.idle())["pid"]
        begin = anyio.current_time()
        for moment in range(0, seconds + 1, INTERVAL):
            await anyio.sleep_until(begin + moment)
            self.samples.append(take_sample(pid, (anyio.current_time() - begin) / 60))
            if moment % 60 == 0:
                print(f"{self.name:18}  {self.samples[-1]}", flush=True)

    async def stop(self) -> None:
        """Wait until the app is idle, stop the server, and judge what was seen."""
        counts = await self.load.idle()
        await self.load.client.aclose()
        self._server.terminate()
        await anyio.to_thread.run_sync(self._server.wait)
        code, kind = self._server.process.returncode, self._server.kind
        self.findings = [
            *judge(self.samples),
            *self.load.judge(counts),
            must_be("exit code", code, EXIT_CODES[kind]),
            must_be("unexpected output", self._server.output, ""),
        ]


async def soak(seconds: int) -> list[Subject]:
    """Serve, visit and watch for so long."""
    with TemporaryDirectory() as directory, ExitStack() as servers:
        subjects = []
        for name, kind in SERVERS.items():
            server = real_server(kind, Path(directory), APP, *OPTIONS[kind])
            subjects.append(Subject(name, servers.enter_context(server)))
        with anyio.fail_after(seconds + PATIENCE):
            async with anyio.create_task_group() as group:
                for subject in subjects:
                    group.start_soon(subject.load.run, seconds)
                    group.start_soon(subject.watch, seconds)
            for subject in subjects:
                await subject.stop()
    return subjects


def report(subjects: Sequence[Subject]) -> str:
    """Print what was found; return the verdict."""
    for subject in subjects:
        print(f"\n{subject.name}: {subject.load.visits} visits")
        for finding in subject.findings:
            print(finding)
    is_good = all(finding.is_good for subject in subjects for finding in subject.findings)
    return "flat" if is_good else "NOT flat"


def main() -> int:
    parser = argparse.ArgumentParser(description="Is an app with tasks flat under load?")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--chart", type=Path, required=True, help="the PNG file to write")
    options = parser.parse_args()
    subjects = anyio.run(soak, options.minutes * 60)
    verdict = report(subjects)
    title = f"Soak test, {options.minutes} min of mixed load: {verdict}"
    draw(title, {subject.name: subject.samples for subject in subjects}, options.chart)
    print(f"\n{verdict}; the chart is {options.chart}")
    return 0 if verdict == "flat" else 1


if __name__ == "__main__":
    sys.exit(main())
