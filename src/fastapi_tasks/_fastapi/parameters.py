"""What a function asks FastAPI for: the parameters of its signature, as FastAPI reads them.

FastAPI's own analysis makes query parameters of a task's arguments, and keeps what it finds in
classes that change between versions. What is read here is public: `fastapi.params.Depends` and
`Security`, and the `FieldInfo` that `Query()`, `Header()` and the like are. Tested with FastAPI
0.134 to 0.165.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import Parameter
from types import FunctionType, MethodType
from typing import Annotated, Any, NamedTuple, TypeAlias, cast, get_args, get_origin

from fastapi import Response, UploadFile, WebSocket, params
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTasks

from .._core.function import WRAPPERS, type_name
from .injected import INJECTED

_EMPTY = Parameter.empty
_UNKNOWN = object()  # an annotation that cannot be evaluated
_MARKS = (params.Depends, params.Param, params.Body)  # in an annotation


class Dependency(NamedTuple):
    """A parameter that a dependency fills."""

    mark: params.Depends
    call: Callable[..., Any]


class Refusal(NamedTuple):
    """A parameter that nothing can fill in a task."""

    what: str


class Connection:
    """A parameter for the `Request`, or the `HTTPConnection`."""


class Scopes:
    """A parameter for the `SecurityScopes`."""


Wish: TypeAlias = Dependency | Refusal | type[Connection] | type[Scopes]


_WISHES: dict[type, Wish | None] = {
    WebSocket: None,  # which is an HTTPConnection, too
    HTTPConnection: Connection,
    SecurityScopes: Scopes,
    Response: None,
    BackgroundTasks: None,
    UploadFile: None,
}


class Wanted(NamedTuple):
    """A parameter that a function does not expect from its caller.

    Attributes:
        position: its place among those that can be passed by position, -1 if it is not one.
    """

    name: str
    wish: Wish
    position: int
    is_positional_only: bool


class Answer(NamedTuple):
    """What a function wants of FastAPI.

    Attributes:
        names: how many there were in its module, if one was missing that may come later.
    """

    wanted: tuple[Wanted, ...]
    names: int | None


def wanted_by(func: Callable[..., Any], *, is_task: bool) -> Answer:
    """The parameters that FastAPI fills; of a task's own function, most are its caller's business.

    Raises:
        Exception: whatever the function's `__signature__` and the like raise.
    """
    try:
        parameters = inspect.signature(func).parameters.values()
    except ValueError:
        if type(func) is FunctionType:
            raise
        return Answer((), None)  # it is written in C, and has none
    names = _globals_of(func)
    annotations = [_evaluate(each.annotation, names) for each in parameters]
    wanted = [
        Wanted(
            each.name,
            wish,
            -1 if each.kind is Parameter.KEYWORD_ONLY else position,
            each.kind is Parameter.POSITIONAL_ONLY,
        )
        for position, (each, annotation) in enumerate(zip(parameters, annotations, strict=True))
        if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        and (wish := _wish_of(each, annotation, is_task)) is not None
    ]
    is_certain = all(each is not _UNKNOWN for each in annotations)
    return Answer(tuple(wanted), None if is_certain else len(names))


def _wish_of(parameter: Parameter, annotation: Any, is_task: bool) -> Wish | None:
    name, default = parameter.name, parameter.default
    kind, mark = _kind_and_mark(annotation)
    if is_mark(default):
        mark = default
    if isinstance(mark, params.Depends):
        return _depends(name, kind, mark)
    if default is not INJECTED and is_task:  # its caller's business; but a mark is no value
        return _of_request(name, mark) if is_mark(default) else None
    for each, wish in _WISHES.items():
        if isinstance(kind, type) and issubclass(kind, each):
            return wish or Refusal(f"{name!r} is the {each.__name__} of a request")
    if mark is not None:
        return _of_request(name, mark)
    if default is INJECTED:
        problem = "names no dependency" if _is_known(kind) else "is missing, or cannot be evaluated"
        return Refusal(f"the annotation of {name!r} {problem}")
    return Refusal(f"{name!r} is a parameter of a request") if default is _EMPTY else None


def _depends(name: str, kind: Any, mark: params.Depends) -> Wish:
    if mark.dependency is not None:
        return Dependency(mark, mark.dependency)
    if _is_known(kind):
        return Dependency(mark, kind)
    return Refusal(f"the annotation of {name!r} is missing, or cannot be evaluated")


def _is_known(kind: object) -> bool:
    return kind is not _EMPTY and kind is not _UNKNOWN


def _kind_and_mark(annotation: Any) -> tuple[Any, Any]:
    """The type, and the last of what FastAPI has to know of it."""
    while type_name(annotation) == "TypeAliasType":  # there are two, and one needs Python 3.12
        annotation = annotation.__value__
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *metadata = get_args(annotation)
    marks = [each for each in metadata if issubclass(type(each), _MARKS)]
    return kind, marks[-1] if marks else None


def _of_request(name: str, mark: object) -> Refusal:
    return Refusal(f"{name!r} is {type_name(mark)}() of a request")


def is_mark(default: object) -> bool:
    """Whether a default is no value, but says where that comes from."""
    return issubclass(type(default), (params.Depends, FieldInfo))


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    """Each by itself: a task may have others with types that are there for type checkers only."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # as `typing.get_type_hints()` does
    except RecursionError:  # which says nothing of the annotation
        raise
    except Exception:
        return _UNKNOWN


def has_new_names(func: Callable[..., Any], before: int | None) -> bool:
    """Whether what was missing (see `Answer.names`) may have come to its module since."""
    return before is not None and before != len(_globals_of(func))


def _globals_of(func: Callable[..., Any]) -> dict[str, Any]:
    """The names that its annotations are about."""
    func = innermost(func)
    if inspect.isclass(func):
        func = func.__init__
    names: dict[str, Any] = getattr(inspect.unwrap(func), "__globals__", {})
    return names


# What a callable calls in the end.


class Layer(NamedTuple):
    """What a callable calls, and what it passes to that: how many arguments, and which by name."""

    inner: Any
    arguments: int = 0
    names: Iterable[str] = ()


def layers(func: Any) -> Iterator[Layer]:
    """From a callable down to a function or a class, as far as that is known."""
    while not issubclass(type(func), (FunctionType, type)):
        layer = _layer(func)
        if layer is None:
            return
        yield layer
        func = layer.inner


def innermost(func: Any) -> Any:
    for layer in layers(func):
        func = layer.inner
    return func


def _layer(func: Any) -> Layer | None:
    if issubclass(type(func), partial):
        return Layer(func.func, len(func.args), tuple(func.keywords))
    if issubclass(type(func), MethodType):
        return Layer(func.__func__, 1)
    if issubclass(type(func), WRAPPERS):
        return Layer(func.__wrapped__)
    call: Any = inspect.getattr_static(cast("object", type(func)), "__call__", None)
    if issubclass(type(call), (staticmethod, classmethod)):
        return Layer(call.__func__, issubclass(type(call), classmethod))
    return Layer(call, 1) if issubclass(type(call), FunctionType) else None
