"""SIGTERM while the app shuts down, where nobody handles it.

Hypercorn's main process, when one of its workers has ended, sends SIGTERM to the others, which have
no handler for it: they would die in the middle of their shutdown. So from the shutdown's beginning
to its end the signal is taken, if nobody else has it. The shutdown has limits of its own.
"""

from __future__ import annotations

import os
import signal
from logging import WARNING
from threading import current_thread, main_thread
from weakref import WeakSet

from .._core.log import log

_holders: WeakSet[Sigterm] = WeakSet()  # those of all apps in this process


class Sigterm:
    """Taken for the time of one shutdown. Signals' handlers are the main thread's business."""

    def __init__(self) -> None:
        self._has_come = False
        self._process = os.getpid()

    def take(self) -> None:
        if current_thread() is main_thread():
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _note)
            _holders.add(self)

    def come(self) -> None:
        if os.getpid() != self._process:  # a child's, forked meanwhile: it has no shutdown
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        elif not self._has_come:
            self._has_come = True
            log(WARNING, "SIGTERM came while the app shuts down, which goes on within its limits")

    def put_back(self) -> None:
        """Leave it as it was, unless another app needs it, or somebody has changed that since."""
        _holders.discard(self)
        is_ours = current_thread() is main_thread() and signal.getsignal(signal.SIGTERM) is _note
        if is_ours and not _holders:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _note(*_: object) -> None:
    for holder in [*_holders]:
        holder.come()
