"""Items handed to an event loop from any thread, without waiting for it.

AnyIO's own ways into the loop (`from_thread.run_sync`, portals) wait for the loop's answer. From a
thread that AnyIO did not start, that answer may never come: a loop that ends between the call and
its execution leaves the caller hanging for ever. So this is the self-pipe trick instead: append,
write one byte to a socket that the loop watches, go on. One byte is enough until it was read.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Made and received from on the event loop's thread; `post()` is for any thread."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._is_woken = False  # a byte is on its way

    def post(self, item: T) -> None:
        """Append `item` and wake the receiver."""
        self._items.append(item)
        if not self._is_woken:
            self._is_woken = True
            with suppress(OSError):  # closed: there is no receiver
                self._writer.send(b"\0")

    async def receive(self) -> list[T]:
        """Wait for items; return them in the order they were posted in."""
        await anyio.wait_readable(self._reader)  # `from anyio import` is slow: it loads streams
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        # First this, then the items: what is posted from here on sends a byte of its own, what was
        # posted before is among the items.
        self._is_woken = False
        return [self._items.popleft() for _ in range(len(self._items))]

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
