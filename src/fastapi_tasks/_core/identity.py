"""Ids of tasks: made for those that somebody asks about, and not to be guessed.

An id is derived, not stored: from a number, by a key that never leaves the process. So it is known
of any id whether it was made here, long after its task has gone. A forked process has a key of its
own, or two workers would give the same id to different tasks.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from hmac import compare_digest
from itertools import count
from secrets import token_bytes, token_hex
from threading import Lock


class _Process:
    """The key of one process, with the number of ids that it has made."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.epoch = token_hex(4)  # tells the ids of different processes apart
        self.key = token_bytes(32)
        self.numbers = count(1)


_process = _Process()
_lock = Lock()


def new_id() -> str:
    """Make an id, from any thread."""
    global _process  # noqa: PLW0603
    with _lock:
        if _process.pid != os.getpid():
            _process = _Process()
        process, number = _process, next(_process.numbers)
    return f"{process.epoch}-{number:x}-{_sign(process, f'{number:x}')}"


def is_of_this_process(id_: str) -> bool:
    """Whether `new_id()` has made it, in this process."""
    epoch, _, rest = id_.partition("-")
    number, _, signature = rest.partition("-")
    process = _process
    return epoch == process.epoch and compare_digest(
        signature.encode(), _sign(process, number).encode()
    )


def _sign(process: _Process, number: str) -> str:
    return blake2b(number.encode(), key=process.key, digest_size=16).hexdigest()
