"""A server with the app of the faults, and what is seen of it from outside."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests_trio.faults_clients import Answer, get
from tests_trio.faults_tally import Books, Tally
from tests_trio.servers import RealServer, real_server, until

APP = "tests_trio.app_for_faults:app"


@dataclass(frozen=True)
class Outcome:
    """A run that has ended."""

    books: Books
    tally: Tally
    answers: tuple[Answer, ...]
    output: str  # of the server, the log included
    exit_code: int
    seconds: float  # from the first signal to the end of the process


class Scene:
    """A server with the app of the faults, and what its clients were told."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.port = server.port
        self.answers: list[Answer] = []
        self._begin = 0.0

    def do(
        self, work: str, name: str, arg: str = "", *, how: str = "", shield: bool = False
    ) -> None:
        """Have a *now* task scheduled."""
        answer = get(self.port, f"/do/{work}/{name}?arg={arg}&how={how}&shield={shield}")
        assert answer.tasks == [name], answer
        self.answers.append(answer)

    def count(self, event: str, name: str = r"\S+") -> int:
        """How many such lines the journal has; the name may be a pattern."""
        lines = re.findall(rf"^\d+ {event} {name}(?= |$)", self._journal, re.MULTILINE)
        return len(lines)

    @property
    def _journal(self) -> str:
        file = self.server.journal_file
        return file.read_text() if file.exists() else ""

    def wait_for(self, event: str, name: str = r"\S+", count: int = 1) -> None:
        until(lambda: self.count(event, name) >= count, f"{count} x {event} {name}")

    def pids(self, event: str) -> list[str]:
        """The processes that have written such a line, in that order."""
        return list(dict.fromkeys(re.findall(rf"^(\d+) {event} ", self._journal, re.MULTILINE)))

    def hand_over_to_both(self) -> list[str]:
        """Have each of two workers wait for a shielded task of its own; return their pids."""
        for number in range(500):
            self.do("hold", f"held-{number}", "end-{pid}", shield=True)
            until(lambda name=f"held-{number}": self.count("waits", name), "the task")
            if len(pids := self.pids("waits")) == 2:
                return pids
        raise AssertionError("one worker gets all requests")

    def is_replaced(self, workers: int) -> bool:
        """Whether one of the first workers has ended, and one that came later has tasks."""
        later = self.pids("opens")[workers:]
        return bool(self.pids("closes") and set(later) & set(self.pids("handed-over")))

    def open(self, gate: str) -> None:
        """Let those tasks go on that wait there."""
        Path(f"{self.server.journal_file}-{gate}").touch()

    def signal(self, number: signal.Signals) -> None:
        """SIGTERM to the main process, as an orchestrator does; SIGINT to all, as Ctrl+C does."""
        self._begin = self._begin or time.monotonic()
        if number == signal.SIGINT:
            self.server.interrupt()
        else:
            self.server.terminate()

    def end(self) -> Outcome:
        """Wait until the server has ended."""
        self.server.wait()
        seconds = time.monotonic() - self._begin
        answers, output = tuple(self.answers), self.server.output
        told = [name for answer in answers for name in answer.tasks]
        books = Books(self.server.journal, output, told)
        code = self.server.process.returncode
        return Outcome(books, books.tally(), answers, output, code, seconds)


@contextmanager
def scene(kind: str, directory: Path, *options: str, **env: str) -> Iterator[Scene]:
    with real_server(kind, directory, APP, *options, **env) as server:
        yield Scene(server)
