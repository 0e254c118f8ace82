"""One file over HTTP: it goes on where it was left off, and is whole and verified or not there.

A file arrives in a part beside an ``.etag`` that says of which version it is; the part takes the
file's name when its checksum is right. The part of a killed program is gone on with by a byte
range, on condition that the server still has the same version.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einthoven import __version__
from einthoven.console import log
from einthoven.download.patience import (
    DEFAULT_PATIENCE,
    HostWatch,
    PassingFailure,
    Patience,
    Politeness,
    disk_error,
    retry_after_seconds,
)
from einthoven.errors import DownloadError
from einthoven.files import sync_file, write_text

USER_AGENT = f"einthoven/{__version__} (ECG archive download; python-requests)"
CHUNK_BYTES = 64 * 1024
# What a server says when it may do better later.
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: where it goes (below the archive's folder), and what its bytes must give."""

    path: str
    url: str
    algorithm: str = ""
    checksum: str = ""


class Fetcher:
    """Fetches files over connections that are kept open, one per thread."""

    def __init__(self, politeness: Politeness, patience: Patience | None = None) -> None:
        self.politeness = politeness
        self.patience = patience or DEFAULT_PATIENCE
        self.watch = HostWatch(self.patience)
        self._local = threading.local()
        self._sessions: list[Any] = []

    def close(self) -> None:
        """Close the connections that no thread is waiting at."""
        for session in self._sessions:
            session.close()

    def fetch(self, file: RemoteFile, target: Path, part: Path) -> None:
        """Bring a file to ``target``, whole and with the right checksum.

        A file whose checksum is wrong is fetched once more from its start.

        Raises:
            DownloadError: it cannot be had, with the reason.
            DownloadStopped: somebody has asked for the end.
            OSError: it cannot be written.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        problem = ""
        for _ in range(2):
            self._fetch_part(file, part)
            problem = checksum_problem(part, file)
            if not problem:
                break
            discard_part(part)
        if problem:
            raise DownloadError(f"{file.path}: {problem}, twice")
        sync_file(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        _etag_path(part).unlink(missing_ok=True)

    def _fetch_part(self, file: RemoteFile, part: Path) -> None:
        """Ask until all bytes are there; a try that has brought new ones counts for nothing."""
        most, failures, unasked, since = _size(part), 0, 0, time.monotonic()
        while True:
            try:
                self.politeness.wait_for_turn()
                return self._ask(file, part)
            except PassingFailure as failure:
                if _size(part) > most and not failure.is_slow:
                    failures, unasked, since = 0, 0, time.monotonic()
                most = max(most, _size(part))
                failures, unasked = failures + 1, unasked + (not failure.asked_wait)
                # Who asks for time will answer; who says nothing may be gone.
                is_long = time.monotonic() - since >= self.patience.busy
                if is_long if failure.asked_wait else unasked >= self.patience.tries:
                    raise DownloadError(f"{file.path}: {failure}, {failures} times") from failure
                self._wait_after(failure, failures)

    def _wait_after(self, failure: PassingFailure, failures: int) -> None:
        longest = min(self.patience.longest_wait, self.patience.first_wait * 2 ** (failures - 1))
        # Connections that failed together do not come back together.
        wait = longest * random.uniform(0.5, 1.0)
        if failure.asked_wait:
            asked = min(failure.asked_wait, self.patience.longest_asked_for)
            log.info("%s and asks for %.0f seconds of quiet", failure, asked)
            self.politeness.be_quiet(asked)
            wait = max(asked, longest) + longest * random.uniform(0.0, 0.5)
        self.politeness.sleep(wait)

    def _ask(self, file: RemoteFile, part: Path) -> None:
        have = _size(part)
        etag = _etag_path(part).read_text("utf-8") if _etag_path(part).exists() else ""
        headers = {}
        # Without a version to hold the server to, only a checksum can tell that two halves match.
        if have and (etag or file.checksum):
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": etag} if etag else {}
        with self._response(file.url, headers) as response:
            # A thread that was left behind must not touch what its successor writes.
            self.politeness.sleep(0)
            if response.status_code == 416:
                return self._all_there_or_again(response, part, have)
            self._check_status(response)
            start = _first_byte(response) if response.status_code == 206 else 0
            if start not in (0, have) or (response.status_code == 206 and not headers):
                discard_part(part)
                raise PassingFailure(f"the server sent bytes from {start} and not from {have}")
            total = _whole_length(response, file)
            if start == 0:
                discard_part(part)
                write_text(_etag_path(part), _version(response))
            self._write_body(response, part, total)

    def _all_there_or_again(self, response: Any, part: Path, have: int) -> None:
        if response.headers.get("Content-Range", "").rpartition("/")[2] != str(have):
            discard_part(part)
            raise PassingFailure("the file has another length than before")

    def _check_status(self, response: Any) -> None:
        status, host = response.status_code, host_of(response.url)
        if status in (401, 403):
            said = f"{host} refuses {response.url} (status {status}); is it open to all?"
            self.watch.refused(said)
            raise DownloadError(said)
        if status in PASSING_STATUSES:
            asked = retry_after_seconds(response.headers.get("Retry-After", ""))
            said = f"{host} answers with status {status}"
            self.watch.failed(said, is_busy=asked > 0)
            raise PassingFailure(said, asked)
        self.watch.answered()
        if status not in (200, 206):
            raise DownloadError(f"{host} does not have {response.url} (status {status})")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"{host} sends {response.url} as {encoding}, unasked")

    def _write_body(self, response: Any, part: Path, total: int | None) -> None:
        try:
            with part.open("ab", buffering=0) as written:
                for chunk in self._chunks(response):
                    written.write(chunk)
                    self.watch.answered()
                    self.politeness.count(len(chunk))
        except OSError as error:
            raise disk_error(part.parent, error) from error
        if total is not None and _size(part) > total:
            discard_part(part)
            raise PassingFailure(f"more than its {total:,} bytes came")
        if total is not None and _size(part) < total:
            raise PassingFailure(f"{_size(part):,} of {total:,} bytes came")

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """What comes, as it comes; the time that is waited for it is held against the server."""
        import urllib3

        waited, came = 0.0, 0
        while True:
            began = time.monotonic()
            try:
                chunk = _some_bytes(response.raw)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise PassingFailure(f"the connection broke ({_short(error)})") from error
            if not chunk:
                return
            waited, came = waited + time.monotonic() - began, came + len(chunk)
            yield chunk
            if waited >= self.patience.read:
                if came < self.patience.slowest * waited:
                    said = f"only {came:,} bytes came in {waited:.0f} seconds"
                    raise PassingFailure(said, is_slow=True)
                waited, came = 0.0, 0

    @contextmanager
    def _response(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        import requests

        session = self._session()
        limits = (self.patience.connect, self.patience.read)
        try:
            response = session.get(url, headers=headers, stream=True, timeout=limits)
        except requests.exceptions.InvalidURL as error:
            raise DownloadError(f"{url} is no address") from error
        except (requests.exceptions.RequestException, OSError) as error:
            said = f"{host_of(url)} cannot be reached ({_short(error)})"
            self.watch.failed(said, is_busy=False)
            raise PassingFailure(said) from error
        try:
            yield response
        finally:
            response.close()

    def _session(self) -> Any:
        """This thread's open connections."""
        if not hasattr(self._local, "session"):
            import requests

            session = requests.Session()
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            # A password that a .netrc has for a host is not ours to send; proxies are heeded.
            session.auth = lambda request: request
            setattr(session, "rebuild_auth", lambda prepared, response: None)  # noqa: B010
            self._local.session = session
            self._sessions.append(session)
        return self._local.session


def _first_byte(response: Any) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _whole_length(response: Any, file: RemoteFile) -> int | None:
    """How long the whole file is; None where the server need not say, as a chunk says the last.

    Raises:
        DownloadError: nothing would tell a whole file from a part of it.
    """
    field = "Content-Range" if response.status_code == 206 else "Content-Length"
    said = response.headers.get(field, "").rpartition("/")[2].strip()
    if said.isdigit():
        return int(said)
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if file.checksum or (is_chunked and response.status_code == 200):
        return None
    raise DownloadError(
        f"{file.path}: {host_of(file.url)} does not say how long it is and no checksum is known, "
        "so that a part of it would pass for the whole"
    )


def _some_bytes(raw: Any) -> bytes:
    """The next bytes of a body: those that are there, and not as many as fit."""
    if hasattr(raw, "read1"):
        return bytes(raw.read1(CHUNK_BYTES, decode_content=False))
    return bytes(raw.read(CHUNK_BYTES // 16, decode_content=False))  # urllib3 before 2.1


def _version(response: Any) -> str:
    """What names this version of a file: a strong ETag, or else the time of its last change."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def host_of(url: str) -> str:
    """The host of an address, for messages."""
    return url.partition("://")[2].partition("/")[0]


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    if isinstance(reason, BaseException) and reason is not error:
        return _short(reason)
    words = str(reason).split(">: ")[-1].split("\n")[0][:120]
    return words or type(error).__name__


# Parts and checksums ---------------------------------------------------------------------------


def checksum_problem(path: Path, file: RemoteFile) -> str:
    """What is wrong with a file's bytes; empty when they are right or nothing is known of them."""
    if not file.checksum:
        return ""
    # MD5 guards against damage here; machines that forbid it for secrets allow that.
    empty = functools.partial(hashlib.new, file.algorithm, usedforsecurity=False)
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, empty).hexdigest()
    if found == file.checksum:
        return ""
    return f"its {file.algorithm} is {found[:12]}... where the archive says {file.checksum[:12]}..."


def discard_part(part: Path) -> None:
    """Forget what has come of a file."""
    part.unlink(missing_ok=True)
    _etag_path(part).unlink(missing_ok=True)


def _etag_path(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
