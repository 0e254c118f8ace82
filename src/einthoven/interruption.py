"""Ctrl-C and SIGTERM, held back until the step in hand is done and the state is saved."""

from __future__ import annotations

import os
import signal as os_signals
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

# What clusters, containers and terminals send to end a program.
STOP_SIGNALS = (os_signals.SIGINT, os_signals.SIGTERM)
STANDARD_ERROR = 2
STOPPING = b"Stopping as soon as this is saved (once more Ctrl-C: at once, unsaved)\n"


@dataclass
class StopRequest:
    """Whether somebody has asked this process to stop.

    Attributes:
        signal_number: of the first signal that came, or 0.
    """

    signal_number: int = 0

    def receive(self, signal_number: int, frame: FrameType | None) -> None:
        """Note the signal; a second Ctrl-C does not wait for the step any more."""
        if self.signal_number and signal_number == os_signals.SIGINT:
            raise KeyboardInterrupt
        if not self.signal_number:
            self.signal_number = signal_number
            # Not by the log, which may be in the middle of a line, and not by `sys.stderr`, which
            # may be a buffer without a file: an error here would end the step.
            with suppress(OSError):
                os.write(STANDARD_ERROR, STOPPING)


# Those of this process that `held_signals` has given out.
_OPEN_REQUESTS: list[StopRequest] = []


@contextmanager
def held_signals() -> Iterator[StopRequest]:
    """Within, signals that would end the process only leave a note.

    Outside the main thread, where Python takes no signals, only `ask_to_stop` leaves one.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        _OPEN_REQUESTS.append(request)
        try:
            yield request
        finally:
            _OPEN_REQUESTS.remove(request)
        return
    before = {number: os_signals.signal(number, request.receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            os_signals.signal(number, handler)


def ask_to_stop(signal_number: int) -> None:
    """Leave the note of a signal that has come to another process, for this one's other threads."""
    for request in list(_OPEN_REQUESTS):
        request.signal_number = request.signal_number or signal_number


def ignore_termination() -> None:
    """Let SIGTERM no longer end this process, which is about to end by itself."""
    if threading.current_thread() is threading.main_thread():
        os_signals.signal(os_signals.SIGTERM, os_signals.SIG_IGN)
