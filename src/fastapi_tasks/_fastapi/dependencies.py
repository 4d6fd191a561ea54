"""FastAPI dependencies of tasks: what a task gets is found at `schedule()`, and opened in the task.

Theory of operation
-------------------

For each task the core asks `Injector.find()`, which looks at the task's function: which of its
parameters does FastAPI fill (`parameters`), and which of those has the caller left out? Of these a
plan is made (`plan`), and each attempt of the task carries it out (`resolution`).

Most functions have no dependencies, and each `schedule()` call pays for finding that out. So it is
remembered of functions, without keeping any alive: for those without dependencies by weak
references. The others bear what was found as an attribute, since it leads to dependencies, and
these may lead back to the function: as a value in a dictionary it would never go.

`app.dependency_overrides` are looked up at the `schedule()` call, too: a test that clears them
while tasks still run must not send those to the real database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any
from weakref import ref

from fastapi import FastAPI

from .._core.attempt import Attempt
from .._core.function import function_name, type_name
from .._core.supervised import SupervisedTask
from .injected import INJECTED
from .parameters import Wanted, has_new_names, innermost, is_mark, layers, wanted_by
from .plan import Plan
from .resolution import Resolution
from .tasks import AppTasks

_ATTRIBUTE = "__fastapi_tasks__"
# The functions without dependencies; and how many names there were when that was found, if names
# that come later may make a difference. A `WeakKeyDictionary` would do, if it were as fast.
_without_dependencies: dict[ref[Callable[..., Any]], int | None] = {}
_UNKNOWN = -1


class Injector:
    """Finds the dependencies of an app's tasks.

    Attributes:
        app: whose overrides and state they get.
        tasks: what `add_tasks()` has made for it; there before the first task.
        state: what the app's lifespan has yielded, if the server supports that.
    """

    tasks: AppTasks

    def __init__(self, app: FastAPI) -> None:
        self.app: FastAPI = app
        self.state: Mapping[str, Any] | None = None

    def find(self, task: SupervisedTask[..., Any]) -> Injection | None:
        """Find what a task's function gets from FastAPI, if that is anything.

        Raises:
            TypeError: a task cannot have it.
        """
        try:
            found = _look_at(task.func)
        except RecursionError:
            raise
        except Exception as exc:  # a proxy, or a mock, that raises when it is asked
            if _expects_something(task.func):
                name, kind = function_name(task.func), type_name(exc)
                raise TypeError(f"the signature of {name} cannot be read: {kind}") from exc
            return None
        if found is None or not (wanted := found.left_out_by(task)):
            return None
        if self.app.dependency_overrides:
            return Injection(Plan(found.name, wanted, {**self.app.dependency_overrides}), self)
        return Injection(found.plan(wanted), self)


class Injection:
    """The dependencies of one task."""

    __slots__ = ("_injector", "_plan", "are_only_awaited")

    def __init__(self, plan: Plan, injector: Injector) -> None:
        self._plan = plan
        self._injector = injector
        self.are_only_awaited: bool = plan.are_only_awaited

    def open(self, attempt: Attempt) -> Awaitable[None]:
        return self._plan.open(Resolution(attempt, self._injector))


class _Found:
    """What was found of a function, or a class, that has dependencies.

    Attributes:
        name: the function's.
    """

    def __init__(
        self, called: Callable[..., Any], wanted: tuple[Wanted, ...], names: int | None
    ) -> None:
        self.name: str = function_name(called)
        self._names = names  # how many there were, if later ones may make a difference
        self._called = ref(called)
        self._wanted = wanted
        self._plans: dict[tuple[str, ...], Plan] = {}  # by the parameters that are left to fill

    def is_of(self, called: Callable[..., Any]) -> bool:
        """Whether that is what it says of this one: decorators copy attributes, and names come."""
        return self._called() is called and not has_new_names(called, self._names)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # whoever pickles a function gets one without this

    def left_out_by(self, task: SupervisedTask[..., Any]) -> tuple[Wanted, ...]:
        """The parameters that are left to fill.

        Raises:
            TypeError: one of them can be passed by position only, and one before it is missing.
        """
        if not task.args and not task.kwargs and type(task.func) is FunctionType:
            count, left = 0, self._wanted
        else:
            count, names = len(task.args), {*task.kwargs}
            for layer in layers(task.func):
                count += layer.arguments
                names.update(layer.names)
            left = tuple(
                each
                for each in self._wanted
                if not 0 <= each.position < count
                and (each.is_positional_only or each.name not in names)
            )
        for each in left:
            if each.is_positional_only and each.position != count:
                raise TypeError(
                    f"{self.name} gets {each.name!r} by position only, so what stands before it "
                    "has to be passed to schedule() as well"
                )
            count += each.is_positional_only
        return left

    def plan(self, wanted: tuple[Wanted, ...]) -> Plan:
        """The plan for those parameters, without overrides."""
        names = tuple([each.name for each in wanted])
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = Plan(self.name, wanted, {})
        return plan


def _look_at(func: Any) -> _Found | None:
    """What there is to know of a callable; `None` if it has no dependencies."""
    if type(func) is not FunctionType:
        func = innermost(func)
    if is_function := type(func) is FunctionType:  # whose hash is its own
        names = _without_dependencies.get(ref(func), _UNKNOWN)
        if names is None or (names != _UNKNOWN and not has_new_names(func, names)):
            return None  # as of most
    elif not issubclass(type(func), type):
        return None  # written in C
    found: _Found | None = func.__dict__.get(_ATTRIBUTE)
    if found is not None and found.is_of(func):
        return found
    wanted, names = ((), None) if _has_classes_only(func) else wanted_by(func, is_task=True)
    if not wanted:
        if is_function:
            _without_dependencies[ref(func, _without_dependencies.pop)] = names
        return None
    found = _Found(func, wanted, names)
    with suppress(Exception):  # a class that lets nobody change it
        setattr(func, _ATTRIBUTE, found)
    return found


def _expects_something(func: Any) -> bool:
    """Whether a function says so by its defaults, although its signature cannot be read."""
    if type(func) is not FunctionType:
        return False
    return any(default is INJECTED for default in _defaults(func))


def _defaults(func: FunctionType) -> Iterator[Any]:
    yield from func.__defaults__ or ()
    yield from (func.__kwdefaults__ or {}).values()


def _has_classes_only(func: Any) -> bool:
    """Whether it certainly has none, which this finds out sooner than `inspect` would."""
    if type(func) is not FunctionType or func.__dict__:
        return False
    if (func.__defaults__ or func.__kwdefaults__) and any(
        default is INJECTED or is_mark(default) for default in _defaults(func)
    ):
        return False
    for annotation in func.__annotations__.values():
        if annotation is not None and not issubclass(type(annotation), type):
            return False
    return True
