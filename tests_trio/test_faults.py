"""Faults on real servers: when all is over, the books balance to the last task."""

import pytest

from tests_trio import faults
from tests_trio.faults import BURST, CLIENTS
from tests_trio.faults_scene import Outcome
from tests_trio.faults_tally import Books, End, Tally


@pytest.fixture
def terminated(server_kind):
    """The exit code after SIGTERM: Uvicorn drains, and then sends the signal to itself again."""
    return -15 if server_kind == "uvicorn" else 0


def log_of(run: Outcome) -> list[str]:
    """The runner's log lines, but for those that depend on how long things take."""
    return [line for line in run.books.messages if "shutdown waits for" not in line]


def ends_well(run: Outcome, exit_code: int) -> None:
    """The books balance, and the pool was closed after the last task."""
    run.tally.check()
    assert run.books.events[-1] == "closes pool"
    assert run.books.events.count("closes pool") == 1
    assert run.exit_code == exit_code


def load_is_accounted_for(books: Books) -> None:
    """Of the load's tasks all shielded ones have ended, and no other one has."""
    for name, end in books.ends.items():
        if not name.startswith("held"):
            assert end.state in expected_states(name, end), name


def expected_states(name: str, end: End) -> set[str]:
    number, point = name.split("-")
    if point == "route" and int(number) % 20 == 0:
        return {"failed"} if end.shielded else {"failed", "cancelled"}
    return {"succeeded"} if end.shielded else {"cancelled"}


def test_sigterm_under_load(server_kind, tmp_path, terminated):
    """G15, G16, G17: shielded tasks end, the others are cancelled, and then the pool closes."""
    run = faults.sigterm_under_load(server_kind, tmp_path)
    ends_well(run, terminated)
    load_is_accounted_for(run.books)
    assert {answer.status for answer in run.answers} == {200}
    assert any(end.shielded and end.in_the_drain for end in run.books.ends.values())
    assert run.tally.handed_over >= 900
    assert (run.tally.refused, run.tally.given_up, run.tally.stray, run.tally.killed) == (0,) * 4
    assert sum("shutdown cancels" in line for line in log_of(run)) == 1


def test_sigint_twice(server_kind, tmp_path):
    """G16, G17: while the drain waits, a second Ctrl+C changes nothing, on any server."""
    run = faults.sigint_twice(server_kind, tmp_path)
    ends_well(run, 0)
    assert run.tally == Tally(handed_over=2, completed=1, cancelled=1, cut_off=1)
    assert log_of(run) == ["WARNING shutdown cancels 1 task(s): 'unshielded'"]
    assert run.books.events[-3:] == ["ends shielded", "finished shielded", "closes pool"]
    assert "Traceback" not in run.output


def test_sigint_twice_during_a_request(server_kind, tmp_path):
    """G16, G17: Hypercorn drains all the same; Uvicorn cancels everything in the event loop."""
    run = faults.sigint_twice_during_a_request(server_kind, tmp_path)
    dropped = "INFO the route failed: dropped 1 task(s) that were to run after it: 'waiting'"
    if server_kind != "uvicorn":
        ends_well(run, 0)
        assert run.tally == Tally(handed_over=4, completed=2, cancelled=2, dropped=1, cut_off=1)
        assert log_of(run) == [dropped, "WARNING shutdown cancels 1 task(s): 'unshielded'"]
        return
    run.tally.check()
    is_dropped = dropped in log_of(run)  # as it is if the request's end comes before the runner's
    assert run.tally == Tally(
        handed_over=4, cancelled=4, dropped=int(is_dropped), stray=4 - is_dropped
    )
    assert run.books.events[-1] == "loses pool"  # its shutdown code does not run
    assert "closes pool" not in run.books.events
    assert run.exit_code == 0


def test_sigterm_during_a_blocked_endpoint(server_kind, tmp_path, terminated):
    """G6, G16, G17: on asyncio it is cut off, and its thread goes on; on Trio it is waited for."""
    run = faults.sigterm_during_a_blocked_endpoint(server_kind, tmp_path)
    ends_well(run, terminated)
    completed = {name for name, end in run.books.ends.items() if end.state == "succeeded"}
    if server_kind == "hypercorn-trio":
        assert completed == {"keeper", "early", "early-shielded", "late-shielded"}
        assert run.tally == Tally(handed_over=6, completed=4, cancelled=2, cut_off=2)
        assert log_of(run) == ["WARNING shutdown cancels 2 task(s): 'canary', 'late'"]
        return
    assert completed == {"keeper", "early-shielded", "late-shielded"}
    assert run.tally == Tally(
        handed_over=6, completed=3, cancelled=3, dropped=1, cut_off=1, not_run=1
    )
    assert log_of(run) == [
        "INFO the route failed: dropped 1 task(s) that were to run after it: 'early'",
        "WARNING shutdown cancels 1 task(s): 'canary'",
        "WARNING task 'late' does not run: the app is shutting down and the task is not shielded",
    ]


def test_sigterm_in_a_backoff(server_kind, tmp_path, terminated):
    """G17: a shielded task keeps its retries, and its error handler; G13: one line, at the end."""
    run = faults.sigterm_in_a_backoff(server_kind, tmp_path)
    ends_well(run, terminated)
    assert run.tally == Tally(handed_over=4, completed=1, failed=1, cancelled=2, cut_off=2)
    assert log_of(run) == [
        "WARNING shutdown cancels 2 task(s): 'unshielded', 'canary'",
        "ERROR task 'gives-up' failed",
    ]
    assert [event for event in run.books.events if "handles" in event] == ["handles gives-up"]
    assert all(end.in_the_drain for end in run.books.ends.values())
    assert "breaks unshielded" not in run.books.events  # the backoff was cancelled, no attempt


def test_clients_reset(server_kind, tmp_path, terminated):
    """G6: an upload that breaks off fails its route; a stream that does has not failed it."""
    run = faults.clients_reset(server_kind, tmp_path)
    ends_well(run, terminated)
    assert run.tally == Tally(
        handed_over=7 * CLIENTS, completed=5 * CLIENTS, cancelled=2 * CLIENTS, dropped=2 * CLIENTS
    )
    assert sorted(log_of(run)) == [
        "INFO the route failed: dropped 2 task(s) that were to run after it: "
        f"'u{number}-route', 'u{number}-response'"
        for number in range(CLIENTS)
    ]
    dropped = {name for name, end in run.books.ends.items() if end.state == "cancelled"}
    points = ("route", "response")
    assert dropped == {f"u{number}-{point}" for number in range(CLIENTS) for point in points}


def test_busy_threads(server_kind, tmp_path, terminated):
    """G9, G17: a thread that runs is waited for; who waits for one is cancelled, if unshielded."""
    run = faults.busy_threads(server_kind, tmp_path)
    ends_well(run, terminated)
    assert run.tally == Tally(handed_over=9, completed=5, cancelled=4, cut_off=7, survived=3)
    assert log_of(run) == [
        "WARNING shutdown cancels 7 task(s): 'running-0', 'running-1', 'running-2', "
        "'waiting-0', 'waiting-1', 'waiting-2', 'canary'"
    ]
    begun = [event for event in run.books.events if event.startswith("begins")]
    assert begun[:4] == [
        "begins running-0",
        "begins running-1",
        "begins running-2",
        "begins canary",
    ]
    assert sorted(begun[4:]) == ["begins shielded-0", "begins shielded-1"]


def test_endless_error_handler(server_kind, tmp_path, terminated):
    """G16: `shield_timeout` bounds a shielded task's error handler, too, with one CRITICAL line."""
    run = faults.endless_error_handler(server_kind, tmp_path)
    ends_well(run, terminated)
    assert run.tally == Tally(handed_over=2, failed=2, cut_off=1, given_up=1, survived=2)
    assert log_of(run) == [
        "ERROR task 'shielded' failed",
        "ERROR task 'unshielded' failed",
        "WARNING shutdown cancels 1 task(s): 'unshielded'",
        "CRITICAL shutdown cancels shielded tasks, 0.5 s after the others: 'shielded'",
    ]
    assert run.books.events[-3:] == ["finished unshielded", "finished shielded", "closes pool"]
    assert run.seconds > 0.5


def test_stalled_event_loop(server_kind, tmp_path, terminated):
    """G12: a task that blocks the event loop makes all others late, and loses none."""
    run = faults.stalled_event_loop(server_kind, tmp_path)
    ends_well(run, terminated)
    assert run.tally == Tally(handed_over=24, completed=23, cancelled=1, cut_off=1)
    assert log_of(run) == ["WARNING shutdown cancels 1 task(s): 'unshielded'"]
    assert run.books.answered == set(run.books.ends)  # every request had its answer
    for name in ("first", "second"):
        begin = run.books.events.index(f"begins {name}")
        assert run.books.events[begin + 1] == f"ends {name}"


def test_burst(server_kind, tmp_path, terminated):
    """G19: who is answered 200 has two tasks, who is answered 503 was refused one."""
    run = faults.burst(server_kind, tmp_path)
    ends_well(run, terminated)
    statuses = [answer.status for answer in run.answers]
    assert (len(statuses), set(statuses)) == (2 * BURST, {200, 503})
    refused = {event for event in run.books.events if event.startswith("refused")}
    assert len(refused) == run.tally.refused == statuses.count(503) >= BURST - 10
    halves = sum(event.endswith("second") for event in refused)  # only their first was accepted
    assert run.tally.handed_over == 2 * statuses.count(200) + halves
    assert run.tally.completed == run.tally.handed_over
    assert log_of(run) == []


def test_two_workers(server_kind, tmp_path):
    """G17: neither the server nor the worker that has ended its drain first ends the other's."""
    run = faults.two_workers(server_kind, tmp_path)
    run.tally.check()
    assert len(run.books.pids) == 2
    for pid in run.books.pids:
        books = run.books.of(pid)
        books.tally().check()
        load_is_accounted_for(books)
        assert [event for event in books.events if event.startswith("handed-over held")]
        assert books.tally().killed == 0
        assert books.events[-1] == "closes pool"
    assert run.tally.handed_over == len(run.books.answered)
    assert run.exit_code == 0


def test_recycled_worker(server_kind, tmp_path):
    """G17: a worker that is replaced under load drains as one that is shut down."""
    run = faults.recycled_worker(server_kind, tmp_path)
    run.tally.check()
    assert len(run.books.pids) >= (3 if server_kind == "uvicorn" else 2)
    for pid in run.books.pids:
        books = run.books.of(pid)
        books.tally().check()
        load_is_accounted_for(books)
        assert books.tally().killed == 0
        assert books.events[-1] == "closes pool"
    assert {answer.status for answer in run.answers} == {200}
    assert run.exit_code == 0
