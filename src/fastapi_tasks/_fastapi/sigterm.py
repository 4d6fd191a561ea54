"""SIGTERM while the app shuts down, where nobody handles it.

Hypercorn's main process, when one of its workers has ended, sends SIGTERM to the others, which have
no handler for it: they would die in the middle of their shutdown. So from the shutdown's beginning
to its end the signal is taken, if nobody else has it. The shutdown has limits of its own.
"""

from __future__ import annotations

import signal
from logging import WARNING
from threading import current_thread, main_thread

from .._core.log import log


class Sigterm:
    """Taken for the time of one shutdown. Signals' handlers are the main thread's business."""

    def __init__(self) -> None:
        self._has_come = False

    def take(self) -> None:
        is_ours = current_thread() is main_thread()
        if is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        if not self._has_come:
            self._has_come = True
            log(WARNING, "SIGTERM came while the app shuts down, which goes on within its limits")

    def put_back(self) -> None:
        """Leave it as it was, unless somebody has changed that since."""
        if signal.getsignal(signal.SIGTERM) == self._note and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
