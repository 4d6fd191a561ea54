"""What stands in for something that a task gets from FastAPI, or cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from starlette.datastructures import State

from ..errors import FastAPITasksError

_FORGOTTEN = (
    "an argument was left out of a direct call: only a task gets it from FastAPI; pass it here, or "
    "hand the function to schedule()"
)


class _Injected:
    """The class of `INJECTED`: of no use where it gets into a function's body."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "INJECTED"

    def __reduce__(self) -> str:
        return "INJECTED"  # when it is copied, or pickled, it stays the same

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # as whoever looks for a protocol expects
        raise FastAPITasksError(_FORGOTTEN)


def _refuse(*_: object) -> NoReturn:
    raise FastAPITasksError(_FORGOTTEN)


for _name in (
    *("str", "format", "bool", "int", "float", "index", "len", "iter", "next", "contains", "call"),
    *("getitem", "setitem", "delitem", "enter", "exit", "aenter", "aexit", "await", "aiter"),
    *("setattr", "delattr", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"),
    *(
        side + name
        for side in ("", "r")
        for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "or", "and", "xor")
    ),
):
    setattr(_Injected, f"__{_name}__", _refuse)

_Injected.__module__ = "fastapi_tasks"  # where pickle finds it
INJECTED: Any = _Injected()
"""The default of a task's parameter that FastAPI's dependencies fill.

    async def send_mail(order_id: int, session: SessionDep = INJECTED) -> None: ...

    tasks.schedule(send_mail, order.id)
    await send_mail(7, session=fake)

A direct call that leaves the argument out raises `FastAPITasksError` where it is first used.
"""


class TaskConnection(Request):
    """The connection that dependencies of a task may ask for: the app's, since a task has none.

    It has `app` and `state`, with what the lifespan has yielded; whatever else a dependency reads
    of a request is not there, and raises `FastAPITasksError`.
    """

    def __init__(self, app: FastAPI, state: Mapping[str, Any]) -> None:
        self._app = app
        self._task_state = State(dict(state))  # a copy, as each request gets

    @property
    def app(self) -> Any:
        return self._app

    @property
    def state(self) -> State:
        return self._task_state

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        raise FastAPITasksError(
            "a task has no request: of a connection its dependencies can read .app and .state; "
            "what else it needs has to be passed to schedule()"
        )
