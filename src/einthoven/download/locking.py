"""One download at a time in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from einthoven.download.ledger import HIDDEN
from einthoven.errors import DownloadError

LOCK_NAME = "lock"


@contextmanager
def only_download(folder: Path) -> Iterator[None]:
    """Keep other downloads out of a folder; the system lets go when this process ends, anyhow.

    Raises:
        DownloadError: another process is at work there.
    """
    path = folder / HIDDEN / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as opened:
        if not _take_lock(opened):
            raise DownloadError(
                f"another download is at work in {folder}; wait until it is over, or stop it"
            )
        yield


def _take_lock(opened: IO[bytes]) -> bool:
    """Take the lock that closing the file gives back; false where somebody else has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            opened.seek(0)
            msvcrt.locking(opened.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some disks of a network have no locks
        return True
    return True
