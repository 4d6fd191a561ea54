"""Runs a program on a backend, in virtual time, and looks for what it leaves behind there."""

from __future__ import annotations

import asyncio

import anyio
import trio

from .clocks import JumpingClock, JumpingLoop
from .program import Program
from .stage import Stage
from .trace import Trace

LONG = 86_400  # seconds of virtual time; past it a program hangs


def run_on_trio(program: Program) -> Trace:
    clock = JumpingClock()
    stage = Stage(program, clock.current_time)
    clock.is_busy = stage.is_busy

    async def main() -> Trace:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(LONG):
            trace = await stage.run()
        assert trio.lowlevel.current_statistics().tasks_living == before
        return trace

    return trio.run(main, clock=clock)


def run_on_asyncio(program: Program) -> Trace:
    loop = JumpingLoop()
    stage = Stage(program, loop.time)
    loop.is_busy = stage.is_busy

    async def main() -> Trace:
        with anyio.fail_after(LONG):
            trace = await stage.run()
        for _ in range(5):  # for wake-ups that their tasks were too quick for
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert callbacks_of(loop) == []
        return trace

    return anyio.run(main, backend_options={"loop_factory": lambda: loop})


def callbacks_of(loop: asyncio.AbstractEventLoop) -> list[asyncio.Handle]:
    """What the event loop is to call, now or later."""
    callbacks = [*loop._ready, *loop._scheduled]  # type: ignore[attr-defined]
    return [callback for callback in callbacks if not callback.cancelled()]
