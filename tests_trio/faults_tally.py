"""The books of one run: what became of every task, and whether all witnesses say the same.

There are four: the endpoints (what `schedule()` said), the runner by its instrument, the tasks
themselves, and the log. A fifth is outside: the clients, and what they were answered.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

LOG_LINE = re.compile(r"^(\d+) (INFO|WARNING|ERROR|CRITICAL) fastapi_tasks: (.*)$", re.MULTILINE)
NOT_OF_TASKS = ("opens", "closes", "loses", "reads")  # events
LEVELS = ("INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of all tasks, as numbers."""

    handed_over: int = 0  # `schedule()` returned
    refused: int = 0  # it raised
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    killed: int = 0  # the process ended before they did

    # What the log announced: each is the sum over its lines.
    dropped: int = 0  # "the route failed: dropped N task(s)"
    cut_off: int = 0  # "shutdown cancels N task(s)"
    not_run: int = 0  # "does not run: the app is shutting down"
    given_up: int = 0  # named by "shutdown cancels shielded tasks"
    stray: int = 0  # "was cancelled, but not by this library"; "the runner was ended: N task(s)"
    survived: int = 0  # announced, and ended by themselves all the same: threads, say

    failures: int = field(default=0, compare=False)  # "task ... failed"
    lines: str = field(default="", compare=False)  # how many log lines of each level
    wrong: tuple[str, ...] = ()  # tasks of which two witnesses say different things

    def check(self) -> None:
        """The books balance, to the last task.

        Raises:
            AssertionError: they do not; it says where.
        """
        ends = self.completed + self.failed + self.cancelled + self.killed
        announced = self.dropped + self.cut_off + self.not_run + self.given_up + self.stray
        sums = {
            "handed over = completed + failed + cancelled + killed": (self.handed_over, ends),
            "failed = ERROR lines": (self.failed, self.failures),
            "cancelled + survived = announced": (self.cancelled + self.survived, announced),
        }
        wrong = [f"{what}: {a} is not {b}" for what, (a, b) in sums.items() if a != b]
        wrong += self.wrong
        assert not wrong, "\n  ".join(["the books do not balance:", *wrong[:20], repr(self)])


class End(NamedTuple):
    """How a task finished, as the instrument saw it."""

    state: str
    attempts: int
    shielded: bool
    in_the_drain: bool


class Account:
    """All that the journal says of one name."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.ends: list[End] = []

    def add(self, event: str, details: list[str]) -> None:
        self.events[event] += 1
        if event == "finished":
            state, attempts, shield, when = details
            self.ends.append(
                End(state, int(attempts), shield == "shielded", when == "in-the-drain")
            )

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        count = self.events
        if count["handed-over"] + count["refused"] != 1:
            yield "handed over or refused more than once, or never"
        if count["scheduled"] != count["handed-over"]:
            yield "the endpoint says one thing of the hand-over, the instrument another"
        if len(self.ends) > 1 or count["started"] > 1:
            yield "started or finished more than once"
        for end in self.ends:
            if count["begins"] > end.attempts:
                yield "ran more often than the runner knows"
            if end.state != "cancelled" and count["begins"] != end.attempts:
                yield "an attempt that did not run"
            if count["ends"] != (end.state == "succeeded"):
                yield f"{end.state}, and its function ended {count['ends']} times"
            if end.state == "failed" and not count["fails"]:
                yield "failed, and its function did not"


class Books:
    """What a journal and the log say.

    Args:
        journal: its lines.
        output: what the server printed, with the log in it.
        answered: names of tasks that clients were told of.
    """

    def __init__(self, journal: Iterable[str], output: str, answered: Iterable[str] = ()) -> None:
        self.entries = [line.split(" ") for line in journal]
        self.log = [tuple(found) for found in LOG_LINE.findall(output)]
        self.answered = set(answered)

    @property
    def events(self) -> list[str]:
        """`event name` of each line."""
        return [f"{event} {name}" for _, event, name, *_ in self.entries]

    @property
    def messages(self) -> list[str]:
        """`LEVEL message` of each log line."""
        return [f"{level} {message}" for _, level, message in self.log]

    @property
    def pids(self) -> list[str]:
        """The worker processes, in the order of their start."""
        return list(dict.fromkeys(pid for pid, *_ in self.entries))

    def of(self, pid: str) -> "Books":
        """The books of one worker process."""
        books = Books([], "")
        books.entries = [entry for entry in self.entries if entry[0] == pid]
        books.log = [line for line in self.log if line[0] == pid]
        return books

    @property
    def ends(self) -> dict[str, End]:
        """How each task finished, by its name."""
        return {name: end for name, account in self.accounts().items() for end in account.ends}

    def accounts(self) -> dict[str, Account]:
        accounts: defaultdict[str, Account] = defaultdict(Account)
        for _, event, name, *details in self.entries:
            if event not in NOT_OF_TASKS:
                accounts[name].add(event, details)
        return accounts

    def tally(self) -> Tally:
        accounts, ends = self.accounts(), self.ends
        count = sum((account.events for account in accounts.values()), Counter())
        states = Counter(end.state for end in ends.values())
        return Tally(
            handed_over=count["handed-over"],
            refused=count["refused"],
            completed=states["succeeded"],
            failed=states["failed"],
            cancelled=states["cancelled"],
            killed=count["handed-over"] - len(ends),
            **self._announced(ends),
            failures=self._lines_with("task .* failed$"),
            lines=self._levels(),
            wrong=tuple(self._problems(accounts)),
        )

    def _announced(self, ends: dict[str, End]) -> dict[str, int]:
        given_up = self._names_in("shutdown cancels shielded tasks, .* after the others: (.*)")
        return {
            "dropped": self._sum_of(r"the route failed: dropped (\d+) task"),
            "cut_off": self._sum_of(r"shutdown cancels (\d+) task"),
            "not_run": self._lines_with("task .* does not run: the app is shutting down"),
            "given_up": len(given_up),
            "stray": self._lines_with("task .* was cancelled, but not by this library")
            + self._sum_of(r"the runner was ended: (\d+) task"),
            "survived": sum(
                end.state != "cancelled"
                and end.in_the_drain
                and (name in given_up or not end.shielded)
                for name, end in ends.items()
            ),
        }

    def _problems(self, accounts: dict[str, Account]) -> Iterator[str]:
        for name, account in accounts.items():
            yield from (f"{name}: {problem}" for problem in account.problems())
        for name in self.answered - accounts.keys():
            yield f"{name}: a client was told of it, and it is not in the books"

    def _sum_of(self, pattern: str) -> int:
        found = (re.match(pattern, message) for _, _, message in self.log)
        return sum(int(match[1]) for match in found if match)

    def _lines_with(self, pattern: str) -> int:
        return sum(re.match(pattern, message) is not None for _, _, message in self.log)

    def _names_in(self, pattern: str) -> set[str]:
        names: set[str] = set()
        for _, _, message in self.log:
            if found := re.match(pattern, message):
                names |= set(re.findall("'([^']*)'", found[1]))
        return names

    def _levels(self) -> str:
        count = Counter(level for _, level, _ in self.log)
        return ", ".join(f"{count[level]} {level}" for level in LEVELS if count[level])
