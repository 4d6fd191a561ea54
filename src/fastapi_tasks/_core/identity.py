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


class _Process:
    """The key of one process, with the number of ids that it has made."""

    def __init__(self) -> None:
        self.epoch = token_hex(4)  # tells the ids of different processes apart
        self.key = token_bytes(32)
        self.numbers = count(1)  # from which any thread may take the next one

    def sign(self, number: str) -> str:
        text = number.encode("utf-8", "replace")
        return blake2b(text, key=self.key, digest_size=16).hexdigest()


_process = _Process()


def new_id() -> str:
    """Make an id, from any thread."""
    process = _process
    number = f"{next(process.numbers):x}"
    return f"{process.epoch}-{number}-{process.sign(number)}"


def is_of_this_process(id_: str) -> bool:
    """Whether `new_id()` has made it, in this process."""
    process = _process
    epoch, _, rest = id_.partition("-")
    number, _, signature = rest.partition("-")
    is_ours = compare_digest(signature.encode("utf-8", "replace"), process.sign(number).encode())
    return is_ours and epoch == process.epoch


def _begin_in_child() -> None:
    global _process  # noqa: PLW0603
    _process = _Process()


if hasattr(os, "register_at_fork"):  # pragma: no branch: not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)
