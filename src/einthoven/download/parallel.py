"""Many files at once, with what failed told at the end and everything kept when it is stopped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator

from einthoven.console import progress
from einthoven.download.fetching import Fetcher, RemoteFile
from einthoven.download.ledger import Ledger
from einthoven.download.patience import DiskFull, HostLost, Politeness, disk_error, is_disk_full
from einthoven.errors import DownloadError
from einthoven.settings import Settings

# Few files are large ones, of which people want to see the megabytes.
FEW_FILES = 20
SECONDS_BETWEEN_TICKS = 0.5
# A thread that waits for a server's answer cannot be woken; it ends with the program.
SECONDS_TO_STOP = 3.0


def fetch_all(
    files: list[RemoteFile], ledger: Ledger, connections: int, rate: float, desc: str
) -> dict[str, str]:
    """Fetch files into the ledger's folder; one that cannot be had does not stop the others.

    Args:
        files: which.
        ledger: of the archive's folder.
        connections: files at the same time.
        rate: megabytes per second at most; 0 for no limit.
        desc: what progress is called.

    Returns:
        ``{path: reason}`` of those that are not there.

    Raises:
        DownloadError: no file can be written any more, or the host gives nothing.
    """
    stop = threading.Event()
    politeness = Politeness(rate, stop)
    fetcher = Fetcher(politeness)
    failed: dict[str, str] = {}
    done: queue.Queue[Finished | BaseException] = queue.Queue()
    threads = _start_threads(fetcher, files, ledger, connections, done)
    try:
        finished = _finished(done, len(files))
        for path, reason in _shown(finished, politeness, len(files), desc):
            if reason:
                failed[path] = reason
    finally:
        # Also for Ctrl-C: threads end at their next bytes, and what they have stays as a part.
        stop.set()
        until = time.monotonic() + SECONDS_TO_STOP
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        fetcher.close()
    return failed


def fetch_as_set(
    settings: Settings, files: list[RemoteFile], ledger: Ledger, desc: str
) -> dict[str, str]:
    """Fetch files with as many connections and as fast as the settings say; see `fetch_all`."""
    return fetch_all(files, ledger, settings.download_connections, settings.download_rate, desc)


Finished = tuple[str, str]


def _shown(
    done: Iterable[Finished | None], politeness: Politeness, n_files: int, desc: str
) -> Iterator[Finished]:
    """The finished files, counted on the way as files, or as megabytes where they are few."""
    began, megabytes = time.monotonic(), [0]

    def status() -> str:
        came = politeness.n_bytes / 1e6
        return f"{came:,.0f} MB, {came / max(time.monotonic() - began, 0.1):.1f} MB/s"

    if n_files > FEW_FILES:
        finished = (item for item in done if item is not None)
        yield from progress(finished, desc=desc, total=n_files, unit="files", status=status)
        return

    def ticks() -> Iterator[Finished | None]:
        for item in done:
            while politeness.n_bytes >= 1e6 * (megabytes[0] + 1):
                megabytes[0] += 1
                yield None
            if item is not None:
                held.append(item)

    held: list[Finished] = []
    for _ in progress(ticks(), desc=desc, unit="MB", status=status):
        pass
    yield from held


def _start_threads(
    fetcher: Fetcher,
    files: list[RemoteFile],
    ledger: Ledger,
    connections: int,
    done: queue.Queue[Finished | BaseException],
) -> list[threading.Thread]:
    """Threads that fetch one file after the other and say of each how it ended."""
    waiting, lock = iter(files), threading.Lock()

    def take() -> RemoteFile | None:
        with lock:
            return next(waiting, None)

    def work() -> None:
        try:
            while (file := take()) is not None:
                done.put(_fetch_one(fetcher, file, ledger))
        except BaseException as error:
            done.put(error)

    threads = [
        threading.Thread(target=work, name=f"download-{number}", daemon=True)
        for number in range(min(connections, len(files)))
    ]
    for thread in threads:
        thread.start()
    return threads


def _finished(
    done: queue.Queue[Finished | BaseException], n_files: int
) -> Iterator[Finished | None]:
    """Each file's path and why it failed (empty: it did not); None every now and then."""
    left = n_files
    while left:
        try:
            item = done.get(timeout=SECONDS_BETWEEN_TICKS)
        except queue.Empty:
            yield None
            continue
        if isinstance(item, BaseException):
            raise item
        left -= 1
        yield item


def _fetch_one(fetcher: Fetcher, file: RemoteFile, ledger: Ledger) -> Finished:
    try:
        fetcher.fetch(file, ledger.folder / file.path, ledger.part_path(file.path))
        ledger.add(file.path, file.checksum)
    except (DiskFull, HostLost):
        raise
    except DownloadError as error:
        return file.path, str(error)
    except OSError as error:
        if is_disk_full(error):
            raise disk_error(ledger.folder, error) from error
        return file.path, f"{file.path} cannot be written: {error.strerror or error}"
    return file.path, ""
