"""Calls handed to an event loop from any thread, without waiting for it.

AnyIO's own ways into the loop (`from_thread.run_sync`, portals) wait for the loop's answer. From a
thread that AnyIO did not start, that answer may never come: a loop that ends between the call and
its execution leaves the caller hanging for ever. So this is the self-pipe trick instead: append,
write one byte to a socket that the loop watches, go on. One byte is enough until it was read.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio


class Mailbox:
    """Made and received from on the event loop's thread; the rest is for any thread."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_woken = False  # a byte is on its way
        self._begun: Callable[[], object] | None = None  # a call that may have been broken off

    def post(self, call: Callable[[], object]) -> None:
        """Hand over a call, which must be one that may be made twice.

        If this raises, the call is made all the same, with the next one.
        """
        self._calls.append(call)
        if not self._is_woken:
            self.wake()

    def wake(self) -> None:
        """Have the receiver look for calls."""
        try:
            self._is_woken = True
            self._writer.send(b"\0")
        except OSError:
            pass  # closed: there is no receiver
        except BaseException:  # a RecursionError, or what a signal handler raises
            self._is_woken = False
            raise

    async def wait(self) -> None:
        """Wait for calls."""
        await anyio.wait_readable(self._reader)  # `from anyio import` is slow: it loads streams

    def make_calls(self) -> None:
        """Make the calls, in the order they were posted in.

        What one of them raises is raised here. Then it is made once more the next time, since it
        may have been broken off, and the others after it.
        """
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        # First this, then the calls: what is posted from here on sends a byte of its own, what was
        # posted before is among them.
        self._is_woken = False
        for _ in range(len(self._calls)):
            call = self._calls[0]
            is_second, self._begun = self._begun is call, call
            if is_second:
                self._calls.popleft()  # there is no third time
            call()
            if not is_second:
                self._calls.popleft()
            self._begun = None
            del call

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
