"""Random programs: both backends do what the model says, and so the same."""

import pytest

from tests_trio.programs.explore import BACKENDS, check, explore
from tests_trio.programs.model import Model
from tests_trio.programs.program import (
    Await,
    Call,
    Cancel,
    Dependency,
    Handler,
    Options,
    Part,
    Program,
    Request,
    Retry,
    Schedule,
    Step,
    Visit,
)
from tests_trio.programs.trace import Trace
from tests_trio.programs.world import UndeterminedError

PROGRAMS = 500  # on each backend's turn; `make fuzz` runs as many as wanted
SEEDS = {"trio": 1, "asyncio": 2}  # the twin runs others


def test_random_programs(backend_name):
    """What comes of a program is what the guarantees say, to the moment, on both backends."""
    counts = explore(PROGRAMS, SEEDS[backend_name])
    assert counts["programs"] + counts["racy"] >= PROGRAMS * 0.9
    assert counts["programs"] > 15 * counts["racy"]
    assert min(counts["SUCCEEDED"], counts["FAILED"], counts["CANCELLED"]) > PROGRAMS / 10


def now(number: int, *steps: Step, **options) -> Schedule:
    return Schedule(Call(number, "now", steps, Options(**options)))


def failing(number: int, **options) -> Schedule:
    return Schedule(Call(number, "now", options=Options(**options), failing_attempts=1))


FAILURE = Program(
    requests=(
        Request(
            at=1,
            fails="ValueError",
            endpoint=(
                Step(0, now(0, Step(3), shield=True)),
                Step(0, Schedule(Call(1, "after_route"))),
                Step(0, Schedule(Call(2, "after_response", options=Options(even_if_failed=True)))),
                Step(0.5),
            ),
        ),
    ),
    shutdown=2,
)
RETRY = Program(
    requests=(
        Request(
            at=0.25,
            endpoint=(
                Step(
                    0,
                    Schedule(
                        Call(
                            0,
                            "now",
                            (Step(1),),
                            Options(
                                retry=Retry(3, 2), on_error=Handler(delay=0.5), hold_response=True
                            ),
                            failing_attempts=3,
                        )
                    ),
                ),
                Step(0.125, now(1)),
            ),
        ),
    ),
    shutdown=100,
)
RUNS = Program(
    requests=(
        Request(
            at=1,
            endpoint=(
                Step(0, Schedule(Call(0, "after_response"))),
                Step(
                    0.5,
                    Visit(
                        Part(
                            id=0,
                            endpoint=(
                                Step(0, now(1, Step(4), hold_response=True)),
                                Step(0, Schedule(Call(2, "after_route"))),
                                Step(0, Schedule(Call(3, "after_response"))),
                                Step(0.5),
                            ),
                        )
                    ),
                ),
            ),
            fails="ValueError",
            again=Part(
                id=1,
                endpoint=(
                    Step(0.5, Schedule(Call(4, "after_route"))),
                    Step(
                        0,
                        Visit(
                            Part(
                                id=2,
                                endpoint=(Step(0, Schedule(Call(5, "after_route"))),),
                                fails="HTTPException",
                            )
                        ),
                    ),
                    Step(0.5),
                ),
            ),
        ),
    ),
    shutdown=100,
)

DEPENDENCIES = Program(
    requests=(
        Request(
            at=1,
            endpoint=(
                Step(
                    0,
                    Schedule(
                        Call(
                            0,
                            "now",
                            (Step(4),),
                            Options(timeout=2, retry=Retry(2, 1)),
                            dependencies=(
                                Dependency(opening=0.5, closing=0.25, swallows=True),
                                Dependency(closing=1, fails_to_close=1),
                            ),
                        )
                    ),
                ),
                Step(
                    0,
                    Schedule(
                        Call(
                            1,
                            "now",
                            (Step(9),),
                            dependencies=(Dependency(), Dependency(closing=99)),
                        )
                    ),
                ),
            ),
        ),
    ),
    shutdown=5.5,
    shield_timeout=2,
)


def run_model(program: Program) -> Trace:
    return Model(program).run()


@pytest.mark.parametrize("run", [run_model, *BACKENDS.values()], ids=["model", *BACKENDS])
def test_a_failing_route(run):
    """G6, G16: by hand, what the model and the backends say of a route that fails."""
    assert run(FAILURE).lines() == [
        "task #0: SUCCEEDED NoneType, started at 1.000000, finished at 4.000000, "
        "1 attempts, 0 handler calls",
        "task #1: CANCELLED NoneType, started never, finished at 1.500000, "
        "0 attempts, 0 handler calls",
        "task #2: SUCCEEDED NoneType, started at 1.500000, finished at 1.500000, "
        "1 attempts, 0 handler calls",
        "request 0 starts ['#0', '#2']",
        "request 0 sends ['start 500 at 1.500000', 'last chunk at 1.500000', "
        "'ValueError at 1.500000']",
        "1.500000 log INFO the route failed: dropped 1 task(s) that were to run after it: '#1'",
        "the lifespan ended at 4.000000",
    ]


@pytest.mark.parametrize("run", [run_model, *BACKENDS.values()], ids=["model", *BACKENDS])
def test_a_held_response(run):
    """G13: by hand, of a task that fails thrice and holds the response until its handler ends."""
    assert run(RETRY).lines() == [
        "task #0: FAILED ValueError, started at 0.250000, finished at 7.750000, "
        "3 attempts, 1 handler calls",
        "task #1: SUCCEEDED NoneType, started at 0.375000, finished at 0.375000, "
        "1 attempts, 0 handler calls",
        "request 0 starts ['#0', '#1']",
        "request 0 sends ['start 200 at 7.750000', 'last chunk at 7.750000']",
        "7.250000 log ERROR task '#0' failed",
        "the lifespan ended at 100.000000",
    ]


@pytest.mark.parametrize("run", [run_model, *BACKENDS.values()], ids=["model", *BACKENDS])
def test_several_runs_in_a_request(run):
    """G3, G6: by hand, of a route that calls another one, fails, and is called again."""
    assert [line for line in run(RUNS).lines() if not line.startswith("task")] == [
        "part 0 starts ['#1', '#2', '#3']",
        "part 1 starts ['#4']",
        "request 0 sends ['start 200 at 5.500000', 'last chunk at 5.500000']",
        "2.000000 see part 0: 200 None",
        "2.500000 see part 2: 401 None",
        "2.000000 log INFO the route failed: dropped 1 task(s) that were to run after it: '#0'",
        "2.500000 log INFO the route failed: dropped 1 task(s) that were to run after it: '#5'",
        "the lifespan ended at 100.000000",
    ]


@pytest.mark.parametrize("run", [run_model, *BACKENDS.values()], ids=["model", *BACKENDS])
def test_dependencies(run):
    """By hand, of dependencies that see a timeout, an error, and the end of a shutdown's patience."""
    assert [line for line in run(DEPENDENCIES).lines() if not line.startswith("request")] == [
        "task #0: CANCELLED NoneType, started at 1.000000, finished at 5.500000, "
        "2 attempts, 0 handler calls",
        "task #1: CANCELLED NoneType, started at 1.000000, finished at 7.500000, "
        "1 attempts, 0 handler calls",
        "attempts of #0: ['0 opens at 1.000000', '1 opens at 1.500000', "
        "'the call begins at 1.500000', '1 sees TimeoutError at 3.000000', "
        "'1 closes at 4.000000', '0 sees ValueError at 4.000000', '0 closes at 4.250000', "
        "'0 opens at 5.250000']",
        "attempts of #1: ['0 opens at 1.000000', '1 opens at 1.000000', "
        "'the call begins at 1.000000', '1 sees Cancelled at 5.500000', "
        "'1 is cut off at 7.500000', '0 sees Cancelled at 7.500000', '0 closes at 7.500000']",
        "5.500000 log WARNING shutdown cancels 2 task(s): '#0', '#1'",
        "7.500000 log CRITICAL shutdown cancels clean-ups of tasks, 2 s after the others: '#1'",
        "the lifespan ended at 7.500000",
    ]


HOLDS = Options(hold_response=True)
FOUND = {
    "a cancelled task saw that another one was": Program(
        requests=(
            Request(
                at=1,
                endpoint=(
                    Step(
                        0,
                        now(
                            0,
                            Step(0.25, Schedule(Call(1, "after_response"))),
                            Step(0.25, Await(1)),
                        ),
                    ),
                    Step(8),
                ),
            ),
        ),
        shutdown=4,
    ),
    "a sync task with a timeout overtook one without in the queue for threads": Program(
        requests=(
            Request(
                at=1,
                endpoint=(
                    Step(0, Schedule(Call(0, "now", (Step(0.25),), is_sync=True))),
                    Step(
                        0,
                        Schedule(Call(1, "now", (Step(0.5),), Options(timeout=9), is_sync=True)),
                    ),
                ),
            ),
        ),
        shutdown=4,
        max_threads=1,
    ),
    "what a request scheduled when the cut-off cancelled what held its response was refused": Program(
        requests=(
            Request(
                at=1,
                endpoint=(Step(0, now(0, Step(9), hold_response=True)),),
                request_teardown=(Step(0, now(1, Step(1), shield=True)),),
            ),
        ),
        shutdown=4,
    ),
    "a task that was dropped in the drain counted in max_tasks": Program(
        requests=(
            Request(
                at=1,
                kind="def",
                endpoint=(
                    Step(0, now(0, Step(9), shield=True)),
                    Step(5, now(1)),
                    Step(0, now(2, Step(1), shield=True)),
                ),
            ),
        ),
        shutdown=4,
        max_tasks=2,
    ),
    "a task that was cancelled in its error handler had finished, while that went on": Program(
        requests=(
            Request(
                at=1,
                endpoint=(
                    Step(0, failing(0, on_error=Handler(delay=4, fails=True))),
                    Step(2, Cancel(0)),
                ),
            ),
        ),
        shutdown=9,
    ),
    "a task that failed before schedule() returned in its thread did so, too": Program(
        requests=(
            Request(
                at=1,
                kind="def",
                endpoint=(Step(0, failing(0, on_error=Handler(delay=4))),),
            ),
        ),
        shutdown=9,
    ),
    "what waited for a thread that ended within the turn after the cut-off had no turn": Program(
        requests=(
            Request(
                at=1,
                endpoint=tuple(
                    Step(0, Schedule(Call(number, "now", (Step(9),), HOLDS, is_sync=True)))
                    for number in range(5)
                ),
                request_teardown=(Step(0, now(5, Step(1), shield=True)),),
            ),
        ),
        shutdown=4,
    ),
    "a task that a thread cancelled when the runner was closing was kept": Program(
        requests=(
            Request(
                at=1,
                endpoint=(
                    Step(
                        0,
                        Schedule(
                            Call(
                                0,
                                "now",
                                (Step(9),),
                                Options(shield=True),
                                on_cancel="linger",
                                linger=1,
                            )
                        ),
                    ),
                ),
            ),
            Request(at=1.5, kind="def", endpoint=(Step(2, Cancel(0)), Step(2))),
        ),
        shutdown=2,
        shield_timeout=1,
    ),
}


@pytest.mark.parametrize("program", FOUND.values(), ids=FOUND)
def test_programs_that_found_something(program):
    """Divergences of the past, each from the shrunk program that showed it."""
    check(program)


def test_what_is_not_determined_is_discarded():
    """Two requests that queue for one limiter at the same moment prove nothing."""
    request = Request(at=1, endpoint=(Step(0, now(0, Step(1), limiter=0)),))
    other = Request(at=1, endpoint=(Step(0, now(1, Step(1), limiter=0)),))
    with pytest.raises(UndeterminedError):
        check(Program((request, other), shutdown=9, limiters=(1,)))


def test_a_thread_may_be_slower_than_the_drain():
    """G16: a thread that the end of the last task brings about may schedule too late."""
    visit = Visit(Part(id=0, kind="def", endpoint=(Step(0, now(1, shield=True)),)))
    steps = (Step(0, now(0, Step(4), shield=True)), Step(0, Await(0)), Step(0, visit))
    with pytest.raises(UndeterminedError):
        check(Program((Request(at=1, endpoint=steps),), shutdown=2))
