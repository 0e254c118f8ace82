"""How long a server is waited for, how fast it is asked, and when it is taken for lost."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from einthoven.errors import DownloadError


@dataclass(frozen=True)
class Patience:
    """How often and how long a server that fails is waited for.

    Attributes:
        tries: of one file, that bring nothing new.
        first_wait, longest_wait: seconds after the first failure, doubled after each, and at most.
        longest_asked_for: seconds that a ``Retry-After`` is heeded for.
        busy: seconds that a server that keeps asking for time is borne with.
        connect, read: seconds until a connection, and until the next bytes.
        slowest: bytes per second; what comes slower is asked for again.
        host_failures, host_seconds: so many failures in a row for so long, and the host is lost.
    """

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked_for: float = 900.0
    busy: float = 1800.0
    connect: float = 15.0
    read: float = 60.0
    slowest: float = 100.0
    host_failures: int = 20
    host_seconds: float = 30.0


DEFAULT_PATIENCE = Patience()


# What ends a download --------------------------------------------------------------------------


class DiskFull(DownloadError):
    """No file can be written any more."""


class HostLost(DownloadError):
    """No file can be had from this host for now."""


class DownloadStopped(Exception):
    """Somebody has asked for the end; what has come is kept."""


class PassingFailure(Exception):
    """A failure that may be gone when it is tried again.

    Attributes:
        asked_wait: seconds that the server asks for.
        is_slow: whether bytes came, too slowly to count as a success.
    """

    def __init__(self, said: str, asked_wait: float = 0.0, is_slow: bool = False) -> None:
        super().__init__(said)
        self.asked_wait = asked_wait
        self.is_slow = is_slow


def is_disk_full(error: OSError) -> bool:
    """Is there no room, on the disk or in a person's share of it?"""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def disk_error(folder: Path, error: OSError) -> DownloadError:
    """What a person is told of a file that could not be written."""
    if is_disk_full(error):
        return DiskFull(
            f"the disk of {folder} is full; make room, and the same command goes on from here"
        )
    return DownloadError(f"{folder} cannot be written to: {error.strerror or error}")


@contextmanager
def disk_explained(folder: Path) -> Iterator[None]:
    """Turn what the system says of a disk into our errors; one that names its file stays.

    Raises:
        DownloadError: the disk is full, or a file in the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error) or error.filename is None:
            raise disk_error(folder, error) from error
        raise


# What all connections share --------------------------------------------------------------------


class Politeness:
    """What all connections share: a limit of bytes per second, and a time to be quiet until."""

    def __init__(self, megabytes_per_second: float, stop: threading.Event) -> None:
        self.stop = stop
        self.n_bytes = 0
        self._rate = megabytes_per_second * 1e6
        self._lock = threading.Lock()
        self._quiet_until = self._next = time.monotonic()

    def count(self, n_bytes: int) -> None:
        """Count bytes that came, and wait as long as the limit asks for.

        Raises:
            DownloadStopped: somebody has asked for the end.
        """
        wait = 0.0
        with self._lock:
            self.n_bytes += n_bytes
            if self._rate:
                now = time.monotonic()
                self._next = max(self._next, now) + n_bytes / self._rate
                wait = self._next - now
        self.sleep(wait)

    def be_quiet(self, seconds: float) -> None:
        """Let no connection ask for anything for a while, as the server wants."""
        with self._lock:
            self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def wait_for_turn(self) -> None:
        """Return when the server may be asked again."""
        while (left := self._quiet_until - time.monotonic()) > 0:
            self.sleep(left)
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            DownloadStopped: somebody has asked for the end meanwhile.
        """
        if self.stop.wait(max(0.0, seconds)) if seconds > 0 else self.stop.is_set():
            raise DownloadStopped


class HostWatch:
    """Whether the host gives anything at all, as all connections together see it.

    Without it a host that is gone would be asked for each of a hundred thousand files in turn.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._failures = 0
        self._last_answer = time.monotonic()

    def answered(self) -> None:
        """Bytes have come."""
        with self._lock:
            self._failures = 0
            self._last_answer = time.monotonic()

    def failed(self, said: str, is_busy: bool) -> None:
        """Count an answer that may be better later.

        Raises:
            HostLost: there were many in a row, for long enough.
        """
        self._count(said, self._patience.busy if is_busy else self._patience.host_seconds)

    def refused(self, said: str) -> None:
        """Count an answer that will be the same later.

        Raises:
            HostLost: there were many in a row.
        """
        self._count(said, 0.0)

    def _count(self, said: str, borne_seconds: float) -> None:
        with self._lock:
            self._failures += 1
            failures, seconds = self._failures, time.monotonic() - self._last_answer
        if failures >= self._patience.host_failures and seconds >= borne_seconds:
            raise HostLost(
                f"{said}, {failures} times in a row; no more is asked for. The same command goes "
                "on from here later"
            )


def retry_after_seconds(written: str) -> float:
    """The seconds that a ``Retry-After`` asks for, a number or a date; 0 where it says nothing.

    >>> retry_after_seconds("120"), retry_after_seconds("soon"), retry_after_seconds("")
    (120.0, 0.0, 0.0)
    """
    if re.fullmatch(r"\d{1,9}", written.strip()):
        return float(written)
    try:
        return max(0.0, parsedate_to_datetime(written).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
