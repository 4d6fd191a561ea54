"""The plan of a task's dependencies: which are opened, in which order, from what.

It is made at the `schedule()` call, where what a task cannot have is refused, and used by each
attempt. FastAPI's caching is decided here: each dependency is one step, however often it is asked
for, unless it says `use_cache=False`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

from fastapi import params
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from .._core.function import function_name, type_name, unwrap
from .._core.supervised import current_task
from .parameters import Connection, Dependency, Refusal, Scopes, Wanted, wanted_by
from .resolution import (
    Async,
    AsyncYield,
    Called,
    Given,
    Limited,
    Resolution,
    Step,
    Sync,
    SyncYield,
)
from .tasks import get_tasks

Overrides: TypeAlias = Mapping[Callable[..., Any], Callable[..., Any]]

_GIVEN: dict[Callable[..., Any], Given] = {  # without the thread that a sync one would take
    get_tasks: Given(lambda resolution: resolution.tasks),
    current_task: Given(lambda resolution: resolution.attempt.task),
}
_CONNECTION = Given(lambda resolution: resolution.connection)


class Plan:
    """What fills the parameters of a task's function that its caller leaves out.

    Attributes:
        are_only_awaited: whether all dependencies are only awaited.
    """

    def __init__(self, name: str, wanted: Iterable[Wanted], overrides: Overrides) -> None:
        """Make the plan for the function of that name.

        Raises:
            TypeError: a task cannot have something of it.
        """
        planner = _Planner(overrides)
        by_name: dict[str, int] = {}
        by_position: list[int] = []
        for each in wanted:
            index = planner.plan(each, _Chain((name,), (), each.name)).step
            if each.is_positional_only:
                by_position.append(index)
            else:
                by_name[each.name] = index
        self._steps = tuple(planner.steps)
        self.are_only_awaited: bool = all(step.is_only_awaited for step in self._steps)
        self._by_position = tuple(by_position)
        self._by_name = tuple(by_name.items())

    async def open(self, resolution: Resolution) -> None:
        """Open all, and add their values to the arguments of the attempt."""
        try:
            for step in self._steps:
                resolution.values.append(await step.open(resolution))
            attempt = resolution.attempt
            attempt.args += tuple([resolution.values[index] for index in self._by_position])
            attempt.kwargs = {
                **attempt.kwargs,
                **{name: resolution.values[index] for name, index in self._by_name},
            }
        finally:
            resolution.clear()


class _Chain(NamedTuple):
    """The way from the task to a dependency.

    Attributes:
        names: of the functions, the task's own one first.
        funcs: the dependencies.
        argument: the task's argument that it began with.
        scopes: what `Security()` has asked for on the way.
    """

    names: tuple[str, ...]
    funcs: tuple[Callable[..., Any], ...]
    argument: str
    scopes: tuple[str, ...] = ()

    def longer(self, func: Callable[..., Any], scopes: Iterable[str]) -> _Chain:
        return _Chain(
            (*self.names, function_name(func)),
            (*self.funcs, func),
            self.argument,
            tuple(dict.fromkeys((*self.scopes, *scopes))),
        )

    def refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"a task cannot have what {' -> '.join(self.names)} asks for: {what}; pass "
            f"{self.argument}= to schedule(), override the dependency, or write one without that"
        )


class _Planned(NamedTuple):
    """What gives a value: the index of a step, and whether `Security()` makes a difference."""

    step: int
    uses_scopes: bool


class _Planner:
    """Makes the steps of one function."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._known: dict[Hashable, int] = {}
        self.steps: list[Step] = []

    def plan(self, wanted: Wanted, chain: _Chain) -> _Planned:
        """Plan what fills a parameter of the last function of the chain."""
        wish = wanted.wish
        if isinstance(wish, Dependency):
            return self._plan_dependency(wish, chain)
        if isinstance(wish, Refusal):
            chain.refuse(wish.what)
        if wish is Connection:
            return _Planned(self._add(Connection, _CONNECTION), uses_scopes=False)
        scopes = chain.scopes
        step = Given(lambda _: SecurityScopes([*scopes]))
        return _Planned(self._add((Scopes, scopes), step), uses_scopes=True)

    def _plan_dependency(self, wish: Dependency, chain: _Chain) -> _Planned:
        mark, original = wish
        try:
            func = self._overrides.get(original, original)
        except TypeError:
            chain.refuse(f"Depends() of something that has no hash, a {type_name(original)}")
        for each, given in _GIVEN.items():
            if func is each:
                return _Planned(self._add(func, given), uses_scopes=False)
        own_scopes = tuple(getattr(mark, "scopes", None) or ())
        deeper = chain.longer(func, own_scopes)
        kind, wanted = _read(func, deeper)
        parts = {each.name: self.plan(each, deeper) for each in wanted}
        uses_scopes = bool(own_scopes) or any(part.uses_scopes for part in parts.values())
        if func is not original:  # whose cache it is in
            uses_scopes = bool(own_scopes) or _asks_for_scopes(original, ())
        key = (
            original,
            tuple(sorted(deeper.scopes)) if uses_scopes else (),
            mark.scope or (_makes_generators(original) and "request"),
        )
        arguments = {name: part.step for name, part in parts.items()}
        step = kind(func, arguments, closes_first=mark.scope == "function")
        return _Planned(self._add(key, _limited(step, mark), again=not mark.use_cache), uses_scopes)

    def _add(self, key: Hashable, step: Step, *, again: bool = False) -> int:
        """Add a step, if there is none with that key, or `again`; return its index."""
        if key in self._known and not again:
            return self._known[key]
        self.steps.append(step)
        index = len(self.steps) - 1
        self._known.setdefault(key, index)
        return index


def _read(func: Callable[..., Any], chain: _Chain) -> tuple[type[Called], tuple[Wanted, ...]]:
    """How a dependency is called, the last one of the chain, and what it wants itself."""
    if any(each is func for each in chain.funcs[:-1]):
        chain.refuse("it depends on itself")
    try:
        kind, wanted = _kind(func), wanted_by(func, is_task=False).wanted
        is_scheme = _is_scheme(func)
    except Exception as exc:
        names = " -> ".join(chain.names)
        raise TypeError(f"the signature of {names} cannot be read: {type_name(exc)}") from exc
    if is_scheme:
        chain.refuse("it reads a request, to tell who has sent it")
    return kind, wanted


def _is_scheme(func: Callable[..., Any]) -> bool:
    return any(isinstance(each, SecurityBase) for each in _guises(func))


def _asks_for_scopes(func: Callable[..., Any], seen: tuple[object, ...]) -> bool:
    """Whether what `Security()` asks for makes a difference to a dependency, or to one below it."""
    if _is_scheme(func):
        return True
    for _, wish, *_ in wanted_by(func, is_task=False).wanted:
        if wish is Scopes:
            return True
        if isinstance(wish, Dependency) and not any(wish.call is each for each in seen):
            deeper = (*seen, func)
            if getattr(wish.mark, "scopes", None) or _asks_for_scopes(wish.call, deeper):
                return True
    return False


def _limited(step: Called, mark: params.Depends) -> Step:
    return step if getattr(mark, "max_concurrency", None) is None else Limited(step, mark)


def _kind(func: Callable[..., Any]) -> type[Called]:
    """How it is called, as FastAPI finds out: decorators with `functools.wraps()` do not matter."""
    kinds = {
        inspect.isasyncgenfunction: AsyncYield,
        inspect.isgeneratorfunction: SyncYield,
        inspect.iscoroutinefunction: Async,
    }
    for predicate, kind in kinds.items():
        if any(predicate(each) for each in _guises(func)):
            return kind
    return Sync


def _makes_generators(func: Callable[..., Any]) -> bool:
    return _kind(func) in (AsyncYield, SyncYield)


def _guises(func: Any) -> Iterator[Any]:
    """A function without and with what is around it; of an object, its `__call__`."""
    func = unwrap(func)
    for each in (func, inspect.unwrap(func)):
        yield each
        if not inspect.isclass(each):
            yield inspect.unwrap(type(each).__call__)
