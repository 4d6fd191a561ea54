"""The history: what a process remembers of its tasks.

Of each task there are notes, found by the task as long as that is there. While it is unfinished
they say what the task cannot say itself: when it was handed over and started, whether it has told
of its progress. When it has finished they get the facts, and stand in one of three rings. A record
is made of them when somebody asks: most tasks are never asked about.

An id that is asked for after that turns the task into a job. Nobody tells of it, so the notes
of those tasks that somebody still holds are looked through; for ids that this process has made,
and that are not found otherwise.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from threading import RLock
from time import time
from typing import Any, final
from weakref import WeakKeyDictionary

from .. import FastAPITasksError, Instrument, Task, TaskRunner, TaskState
from .notes import Notes, facts_of, make_record, record_of
from .records import TaskRecord


@final
class History(Instrument):
    """Remembers what became of the tasks of one app, over all its lifespans.

    Tasks whose `id` was asked for, failed ones and all others are remembered apart, `max_tasks` of
    each, so that a flood of one kind never evicts the others.

    Args:
        max_tasks: how many finished tasks of each kind.
        max_age: seconds that a finished task is remembered.
        keep_results: whether to remember what functions have returned.
    """

    def __init__(
        self, max_tasks: int = 1000, max_age: float = 3600, *, keep_results: bool = False
    ) -> None:
        if type(max_tasks) is not int or max_tasks < 1:
            raise ValueError(f"max_tasks must be a whole number from 1 up, not {max_tasks!r}")
        if not isinstance(max_age, (int, float)) or not max_age > 0:
            raise ValueError(f"max_age must be a number of seconds above 0, not {max_age!r}")
        self.keeps_results: bool = keep_results
        self._max_tasks = max_tasks
        self._max_age = max_age
        self._runner: TaskRunner | None = None
        self._lock = RLock()
        self._notes: WeakKeyDictionary[Task[..., Any], Notes] = WeakKeyDictionary()
        # The oldest first.
        self._jobs: OrderedDict[str, Notes] = OrderedDict()
        self._failed: deque[Notes] = deque(maxlen=max_tasks)
        self._others: deque[Notes] = deque(maxlen=max_tasks)

    @property
    def runner(self) -> TaskRunner:
        """The runner whose tasks it remembers."""
        if self._runner is None:
            raise FastAPITasksError(
                "this history hears of no tasks: add_tasks(app, instruments=[history])"
            )
        return self._runner

    # As an instrument.

    def attached(self, runner: TaskRunner) -> None:
        if self._runner is not None and self._runner is not runner:
            raise FastAPITasksError("a history is of one app: make another one for each")
        self._runner = runner

    def task_scheduled(self, task: Task[..., Any]) -> None:
        self._notes[task] = Notes(time())

    def task_started(self, task: Task[..., Any]) -> None:
        self._notes_of(task).started = time()

    def task_progressed(self, task: Task[..., Any]) -> None:
        self._notes_of(task).has_progress = True

    def task_finished(self, task: Task[..., Any]) -> None:
        notes = self._notes_of(task)
        if notes.facts is not None:  # it is told twice: by add_tasks() and watching()
            return
        facts = facts_of(task, notes)
        if self.keeps_results and facts.state is TaskState.SUCCEEDED:
            facts = facts._replace(result=task.return_value)
        with self._lock:
            notes.facts, notes.finished = facts, time()
            if facts.id is not None:
                self._keep_job(facts.id, notes)
            else:
                (self._others if facts.trace is None else self._failed).append(notes)
            self._drop_old()

    def _notes_of(self, task: Task[..., Any]) -> Notes:
        notes = self._notes.get(task)
        if notes is None:  # it was under way when this was attached
            notes = self._notes[task] = Notes(time())
        return notes

    def _keep_job(self, id_: str, notes: Notes) -> None:
        self._jobs[id_] = notes
        if len(self._jobs) > self._max_tasks:
            self._jobs.popitem(last=False)

    def _drop_old(self) -> None:
        limit = time() - self._max_age
        for ring in (self._failed, self._others):
            while ring and ring[0].finished < limit:
                ring.popleft()
        while self._jobs and next(iter(self._jobs.values())).finished < limit:
            self._jobs.popitem(last=False)

    # For those who ask; from any thread.

    def get(self, id_: str, /) -> TaskRecord | None:
        """Return what is known of the task of that id, finished or not; or `None`."""
        task = self.runner.get_task(id_)
        if task is not None:
            return self._describe(task)
        with self._lock:
            notes = self._jobs.get(id_)
            if notes is None:
                return self._find_late(id_)
            return record_of(notes) if self._is_young(notes) else None

    @property
    def records(self) -> tuple[TaskRecord, ...]:
        """What is remembered of finished tasks, the newest first."""
        with self._lock:
            rings = [*self._jobs.values(), *self._failed, *self._others]
        rings.sort(key=_when_finished)
        return tuple(record_of(notes) for notes in reversed(rings) if self._is_young(notes))

    def _is_young(self, notes: Notes) -> bool:
        return time() - notes.finished <= self._max_age

    def _find_late(self, id_: str) -> TaskRecord | None:
        """Find a task whose id was asked for when it had finished, or that just finishes."""
        if not self.runner.has_made(id_):
            return None
        for reference in self._notes.keyrefs():
            task = reference()
            if task is not None and task.has_id and task.id == id_:
                notes = self._notes_of(task)
                return self._describe(task) if notes.facts is None else self._promote(id_, notes)
        return None

    def _promote(self, id_: str, notes: Notes) -> TaskRecord | None:
        """Keep what was noted before somebody asked for the id as a job."""
        assert notes.facts is not None
        if notes.facts.id is not None or not self._is_young(notes):  # it was one, and is forgotten
            return None
        for ring in (self._failed, self._others):
            if notes in ring:
                ring.remove(notes)
        notes.facts, notes.record = notes.facts._replace(id=id_), None
        self._keep_job(id_, notes)
        return record_of(notes)

    def _describe(self, task: Task[..., Any]) -> TaskRecord:
        """Of one that is unfinished."""
        notes = self._notes_of(task)
        return make_record(notes, facts_of(task, notes))


def _when_finished(notes: Notes) -> float:
    return notes.finished
