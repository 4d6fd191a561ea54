"""What the tasks of the fault scenarios do, and the journal that they write.

A line of the file `$JOURNAL` is `pid event name ...`. Each is one write at the end of the file, so
that several worker processes can share it and nothing is lost when one is killed.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from tenacity import AsyncRetrying, wait_fixed

JOURNAL = os.environ["JOURNAL"]
_journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def write(event: str, name: str, *details: object) -> None:
    line = " ".join([str(os.getpid()), event, name, *map(str, details)])
    os.write(_journal, f"{line}\n".encode())


@contextmanager
def noted(name: str) -> Iterator[None]:
    write("begins", name)
    try:
        yield
    except Exception:
        write("fails", name)
        raise
    except BaseException:
        write("breaks", name)  # it is cancelled
        raise
    write("ends", name)


def is_open(gate: str) -> bool:
    """Whether the test lets those go on who wait at this gate; a gate may be one process's own."""
    gate = gate.format(pid=os.getpid())
    return Path(f"{JOURNAL}-{gate}").exists()


# Each takes the task's name, and an argument.


async def sleep(name: str, seconds: str) -> None:
    with noted(name):
        await anyio.sleep(float(seconds))


async def hold(name: str, gate: str) -> None:
    with noted(name):
        while not is_open(gate):
            write("waits", name)
            await anyio.sleep(0.02)


def block(name: str, gate: str) -> None:
    with noted(name):
        while not is_open(gate):
            time.sleep(0.01)


async def stall(name: str, seconds: str) -> None:
    with noted(name):
        time.sleep(float(seconds))  # noqa: ASYNC251  # the fault: nothing else runs meanwhile


async def fail(name: str, _: str) -> None:
    with noted(name):
        raise ValueError("a failure")


async def try_again(name: str, gate: str) -> None:
    with noted(name):
        if not is_open(gate):
            raise ConnectionError("not yet")


WORKS: dict[str, Callable[[str, str], Awaitable[None] | None]] = {
    work.__name__: work for work in (sleep, hold, block, stall, fail, try_again)
}


# Options that tasks have, and error handlers.


async def handle(task: Any, error: Exception) -> None:
    write("handles", task.name)


async def handle_for_ever(task: Any, error: Exception) -> None:
    write("handles", task.name)
    await anyio.sleep_forever()


def options(how: str) -> dict[str, Any]:
    match how:
        case "handled-for-ever":
            return {"on_error": handle_for_ever}
        case "retried":
            retry = AsyncRetrying(
                wait=wait_fixed(0.1), stop=lambda _: is_open("enough"), reraise=True
            )
            return {"on_error": handle, "retry": retry}
        case _:
            return {}
