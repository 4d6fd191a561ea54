"""Random programs, drawn so that what must come of each is determined.

Bodies of tasks, and what is scheduled on the runner, sleep before they act: what several of them do
at one moment would be done in an order that nothing promises. A request's own bodies may act at
once: their order is what is promised.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, get_args

from hypothesis import strategies as st

from .drawing import Drawing
from .program import (
    Await,
    Call,
    Cancel,
    Dependency,
    Error,
    Handler,
    Options,
    Part,
    Point,
    Program,
    Request,
    Retry,
    Schedule,
    Step,
    Visit,
)

POINTS: tuple[Point, ...] = ("now", "after_route", "after_response", "runner")
ERRORS: tuple[Error, ...] = get_args(Error)
PLAIN_ERRORS = [  # cancel scopes ask what passes them when they are cancelled themselves
    error for error in ERRORS if not error.startswith("Hostile")
]
OPTIONS = sorted(vars(Options()))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    return _Drawing(draw).program()


class _Drawing(Drawing):
    """Its parts, and what the one may have because of the other."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self._ids = count()
        self._parts = count()
        self._limiters: tuple[int, ...] = ()
        self._awaits = False  # something awaits a task, so a deadlock is possible
        self._instant = True  # tasks may end at the moment of their start
        self._may_visit = False  # the request may call the app from inside
        self._is_cut_off = False  # the server cancels the request
        # Each program is fond of something, or the rare would never meet the rare.
        self._sync = self.one_of(1, 1, 7)
        self._favourites = [self.one_of(*OPTIONS) for _ in range(3)]
        self._holds = self.is_(4)  # responses are held until the cut-off, and much comes then
        self._is_held = False  # what is drawn comes behind that
        self._parts_left = self.one_of(0, 0, 1, 3)

    def program(self) -> Program:
        self._limiters = self.one_of((), (1,), (2,), (1, 1), (2, 1))
        max_tasks = self.one_of(None, None, None, None, 2, 4)
        self._instant = max_tasks is None
        options = self.options() if self.is_(2) else Options()
        requests = tuple(self.request() for _ in range(self.one_of(1, 1, 2, 2, 3)))
        shield_timeout = None if not self._awaits and self.is_(3) else self.delay(8)
        return Program(
            requests=requests,
            shutdown=self.delay(8) if self._holds else self.delay(20) + self.one_of(10, 10, 0),
            lifespan_is_cancelled=self.is_(1),
            grace_period=self.one_of(0, 0, 1) and self.delay(8),
            shield_timeout=shield_timeout,
            max_tasks=max_tasks,
            max_threads=self.one_of(40, 1, 2),
            limiters=self._limiters,
            options=options,
        )

    def request(self) -> Request:
        kind = self.one_of("async", "async", *["def", "stream"] * (1 + self._holds), "websocket")
        at = self.delay(1 if self._holds else 4)
        cut_off = self.delay(10) if kind != "def" and self.is_(2) else None
        self._may_visit = kind != "websocket"
        self._is_cut_off = cut_off is not None
        return Request(at=at, cut_off=cut_off, **self.run(kind))

    def part(self, *, is_second: bool = False) -> Part:
        """A run of a route within the request; the second of two is not tried again."""
        number = next(self._parts)
        kinds = "async", "async", "stream", *["def"] * (not self._is_cut_off)
        fields = self.run(self.one_of(*kinds), is_second=is_second)
        fields["teardown_fails"] &= not self._is_cut_off  # as below
        return Part(id=number, **fields)

    def run(self, kind: str, *, is_second: bool = False) -> dict[str, Any]:
        """The fields of a run of a route."""
        is_http = kind != "websocket"
        has_teardowns = not self._is_cut_off  # versions of FastAPI differ in what shields them
        fields = {
            "kind": kind,
            "endpoint": self.steps(4, is_sync=kind == "def"),
            "fails": self.one_of(None, None, None, "ValueError", *["HTTPException"] * is_http),
            "function_teardown": self.steps(2) if has_teardowns and self.is_(2) else (),
            "teardown_fails": self.is_(1),
            "stream_fails": kind == "stream" and self.is_(2),
        }
        is_held, self._is_held = self._is_held, self._holds
        if kind == "stream":
            fields["stream"] = self.steps(3)
        likelihood = 7 if self._holds else 2
        if has_teardowns and self.is_(likelihood):
            fields["request_teardown"] = self.steps(2)
        self._is_held = is_held
        may_fail = fields["fails"] or fields["teardown_fails"]
        if fields["teardown_fails"] and self._is_cut_off:
            may_fail = False  # the error would replace the cancellation, and what goes on meets it
        if is_http and may_fail and not is_second and self.may_have_part() and self.is_(5):
            fields["again"] = self.part(is_second=True)
        return fields

    def may_have_part(self) -> bool:
        self._parts_left -= 1
        return self._parts_left >= 0

    def steps(
        self, at_most: int, *, owner: int | None = None, depth: int = 0, is_sync: bool = False
    ) -> tuple[Step, ...]:
        """The steps of a request's body, or of the task `owner`."""
        steps: list[Step] = []
        scheduled: list[int] = []  # what this body can await
        may_act_at_once = owner is None
        for _ in range(self.one_of(*range(1, at_most + 1), 0)):
            action = self.action(scheduled, owner, depth, is_sync)
            if isinstance(action, Schedule):
                scheduled.append(action.call.id)
            is_in_order = owner is None and (
                isinstance(action, (Await, Visit))
                or (isinstance(action, Schedule) and action.call.point != "runner")
            )
            at_once = may_act_at_once and is_in_order and not self.is_(1 if self._holds else 4)
            longest = 1 if self._holds and owner is None else 5
            steps.append(Step(0 if at_once else self.delay(longest), action))
            may_act_at_once = is_in_order
        if is_sync and steps and isinstance(steps[-1].action, Cancel):
            steps.append(Step(self.delay()))  # from a thread, a cancellation is soon, not at once
        return tuple(steps)

    def action(
        self, scheduled: list[int], owner: int | None, depth: int, is_sync: bool
    ) -> Schedule | Cancel | Await | Visit | None:
        kinds = ["schedule"] * 6 if depth < 2 else []
        if owner is None and self._may_visit and not is_sync and self._parts_left > 0:
            kinds += ["visit"] * 2
        kind = self.one_of(*kinds, "sleep", "cancel", *["await"] * 2)
        if kind == "schedule":
            return Schedule(self.call(depth))
        if kind == "visit" and self.may_have_part():
            return Visit(self.part())
        if kind == "cancel":
            number = self.up_to(8)
            return None if is_sync and number == owner else Cancel(number)
        if kind == "await" and scheduled and not is_sync:
            self._awaits = True
            return Await(self.one_of(*scheduled))
        return None

    def call(self, depth: int) -> Call:
        number = next(self._ids)
        is_sync = self.is_(self._sync)
        steps = self.steps(2, owner=number, depth=depth + 1, is_sync=is_sync)
        if not (self._instant and self.is_(3)):
            steps += (Step(self.delay()),)
        options = self.options()
        if self._is_held and depth == 0 and self.is_(6):
            options = replace(options, shield=True)
        elif self._holds and depth == 0 and self.is_(5):
            options = replace(options, hold_response=True, shield=self.is_(4))
            steps += (Step(self.delay(20)),)
        guise = self.one_of("named", "nameless", "proxy") if self.is_(2) else None
        dependencies = self.dependencies() if guise is None else ()
        if dependencies and self.is_(3):
            options = replace(options, retry=self._retry())
        if dependencies and self.is_(3):
            options = replace(options, timeout=self._timeout())
        on_cancel = self.one_of(*["raise"] * 4, "swallow", "fail", *["linger"] * (not is_sync))
        return Call(
            id=number,
            point=self.one_of(*POINTS),
            steps=steps,
            options=options,
            is_sync=is_sync,
            failing_attempts=self.one_of(0, 0, 0, 1, 2, 9),
            error=self.one_of("ValueError", *ERRORS),
            on_cancel=on_cancel,
            linger=self.delay() if on_cancel == "linger" else 0,
            guise=guise,
            dependencies=dependencies,
        )

    def dependencies(self) -> tuple[Dependency, ...]:
        numbers = range(self.one_of(0, 0, 0, 1, 2, 3))
        return tuple(self.dependency(is_first=number == 0) for number in numbers)

    def dependency(self, *, is_first: bool) -> Dependency:
        sleeps = not self._instant or self.is_(4)
        return Dependency(
            opening=self.delay(1) if sleeps else 0,
            closing=self.one_of(0, 1, 1, 1, 40) * self.delay(3),
            fails_to_open=self.one_of(*[0] * 9, 1, 9),
            fails_to_close=self.one_of(*[0] * 9, 1, 9),
            error=self.one_of("ValueError", *PLAIN_ERRORS),
            swallows=self.is_(2),
            is_sync=self.is_(self._sync - self._sync // 2),
            closes_first=self.is_(2),
            needs_previous=not is_first and self.is_(3),
        )

    def options(self) -> Options:
        names = {self.one_of(*OPTIONS, *self._favourites * 3) for _ in range(self.up_to(3))}
        return Options(**{name: getattr(self, f"_{name}")() for name in sorted(names)})

    def _shield(self) -> bool:
        return not self.is_(2)

    def _on_error(self) -> Handler:
        return Handler(
            delay=self.one_of(0, 1) and self.delay(), fails=self.is_(3), is_sync=self.is_(3)
        )

    def _timeout(self) -> float:
        return self.delay()

    def _retry(self) -> Retry:
        return Retry(self.one_of(1, 2, 3), self.delay(3))

    def _limiter(self) -> int | None:
        return self.one_of(*range(len(self._limiters))) if self._limiters else None

    def _hold_response(self) -> bool:
        return not self.is_(2)

    def _even_if_failed(self) -> bool:
        return not self.is_(2)
