"""A local server of archives, with the faults of real ones, and small archives to serve.

It stands at 127.0.0.1 and counts what it was asked and how many bytes it gave.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_ecgs import fake_ecg
from wfdb_samples import write_record

from einthoven.download import fetching, patience
from einthoven.sources import SOURCES

Fault = Callable[["ArchiveHandler", bytes, int], bool]


HURRIED = patience.Patience(
    tries=3, first_wait=0.01, longest_wait=0.02, connect=2, read=5, host_seconds=0
)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask this server itself, and wait for nothing longer than a test may."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "DEFAULT_PATIENCE", HURRIED)


class ArchiveServer(ThreadingHTTPServer):
    """Serves a folder; ``faults[path]`` are what goes wrong, one after the other."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), ArchiveHandler)
        self.folder = folder
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.agents: set[str] = set()
        self.ranges: list[str] = []
        self.given: dict[str, int] = {}
        self.knows_ranges = True
        self.version = "1"
        self.chunk_pause = 0.0
        self.n_open = self.most_open = self.n_connections = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.n_connections += 1
        super().process_request(request, client_address)

    def fail(self, path: str, *faults: Fault) -> None:
        self.faults[path] = list(faults)


class ArchiveHandler(BaseHTTPRequestHandler):
    server: ArchiveServer
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; waiting for the client between them costs 40 ms each.
    disable_nagle_algorithm = True

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server, path = self.server, self.path.lstrip("/")
        self.is_open = True
        with server.lock:
            server.asked.append(path)
            server.asked_at.append(time.monotonic())
            server.agents.add(self.headers.get("User-Agent", ""))
            server.n_open += 1
            server.most_open = max(server.most_open, server.n_open)
            fault = next(iter(server.faults.get(path, ())), None)
            if fault is not None:
                server.faults[path].pop(0)
        try:
            self._answer(path, fault)
        finally:
            self._is_answered()

    def _is_answered(self) -> None:
        with self.server.lock:
            self.server.n_open -= self.is_open
            self.is_open = False

    def _answer(self, path: str, fault: Fault | None) -> None:
        file = self.server.folder / path
        if not file.is_file():
            self.say(404)
            return
        content, start = file.read_bytes(), self._start()
        if fault is not None and fault(self, content, start):
            return
        if start >= len(content) > 0:
            self.say(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.begin(len(content), start)
        self.give(content[start:])

    def _start(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.ranges += [match[1]] if match else []
        is_same = self.headers.get("If-Range", self.etag) == self.etag
        return int(match[1]) if match and self.server.knows_ranges and is_same else 0

    @property
    def etag(self) -> str:
        return f'"{self.server.version}-{hashlib.md5(self.path.encode()).hexdigest()[:8]}"'

    def say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | (headers or {})).items():
            self.send_header(name, value)
        self._is_answered()
        self.end_headers()

    def begin(self, length: int, start: int = 0) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(length - start))
        self.send_header("ETag", self.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
        self.end_headers()

    def give(self, content: bytes) -> None:
        for at in range(0, len(content), 65536):
            chunk = content[at : at + 65536]
            time.sleep(self.server.chunk_pause)
            if at + len(chunk) >= len(content):
                # Before the last bytes: with them the client may ask again, elsewhere, at once.
                self._is_answered()
            try:
                self.wfile.write(chunk)
            except OSError:  # the client is gone
                self.close_connection = True
                return
            with self.server.lock:
                path = self.path.lstrip("/")
                self.server.given[path] = self.server.given.get(path, 0) + len(chunk)


# Faults ----------------------------------------------------------------------------------------


def drops_after(n_bytes: int) -> Fault:
    """The connection breaks in the middle of the body."""

    def fault(handler: ArchiveHandler, content: bytes, start: int) -> bool:
        handler.begin(len(content), start)
        handler.give(content[start : start + n_bytes])
        handler.close_connection = True
        return True

    return fault


def answers(status: int, **headers: str) -> Fault:
    """A status instead of the file; ``Retry_After="1"`` is a header."""

    def fault(handler: ArchiveHandler, content: bytes, start: int) -> bool:
        handler.say(status, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def corrupts(handler: ArchiveHandler, content: bytes, start: int) -> bool:
    """One byte is another."""
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 0xFF
    handler.begin(len(damaged), start)
    handler.give(bytes(damaged[start:]))
    return True


def truncates(handler: ArchiveHandler, content: bytes, start: int) -> bool:
    """Half of the file, and a length that says that it is all."""
    half = content[: len(content) // 2]
    handler.begin(len(half))
    handler.give(half)
    return True


@contextmanager
def serving(folder: Path) -> Iterator[ArchiveServer]:
    server = ArchiveServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Archives to serve -----------------------------------------------------------------------------


def write_sums(folder: Path) -> None:
    """SHA256SUMS.txt of all that is in a folder, as PhysioNet writes it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder).as_posix()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS.txt"
    ]
    (folder / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def publish_sums(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Let an archive's publisher give the sums of the files that lie in a folder."""
    files = tuple(
        replace(file, md5=hashlib.md5((folder / file.name).read_bytes()).hexdigest())
        for file in SOURCES[name].files
    )
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], files=files))


def write_tar(path: Path, n_records: int = 4) -> Path:
    """SPH's records, a hundred bytes each; enough for whoever does not read them."""
    with tarfile.open(path, "w") as opened:
        for number in range(n_records):
            member = tarfile.TarInfo(f"records/A0000{number}.h5")
            member.size = 100
            opened.addfile(member, io.BytesIO(bytes([number]) * 100))
    return path


def write_sph(folder: Path, n_records: int = 2) -> Path:
    """SPH's files: ``sph`` below the folder."""
    folder = folder / "sph"
    folder.mkdir(parents=True)
    write_tar(folder / "records.tar.gz", n_records)
    rows = "".join(f"A0000{number},1,S1,55,M\n" for number in range(n_records))
    (folder / "metadata.csv").write_text("ECG_ID,AHA_Code,Patient_ID,Age,Sex\n" + rows)
    (folder / "code.csv").write_text("Code,Description\n")
    return folder


def write_ecg(path: Path, seed: int, comments: Sequence[str] = (), fs: int = 100) -> None:
    """A WFDB record of ten seconds."""
    signal = fake_ecg(seed, seconds=10, fs=fs)
    values = np.round(1000 * signal.T).astype(np.int16)
    write_record(path, values, fs=fs, comments=comments)


def write_ptbxl(folder: Path, n_records: int = 40, rates: Sequence[int] = (100,)) -> Path:
    """PTB-XL's layout: ``ptb-xl/1.0.3`` below the folder."""
    folder = folder / "ptb-xl" / "1.0.3"
    header = "ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr"
    lines = [header]
    for number in range(1, n_records + 1):
        names = {100: f"records100/00000/{number:05d}_lr", 500: f"records500/00000/{number:05d}_hr"}
        for rate in rates:
            write_ecg(folder / names[rate], number, fs=rate)
        code = ("NORM", "IMI", "AFIB", "CLBBB")[number % 4]
        lines.append(
            f"{number},{number}.0,5{number % 10},{number % 2},\"sinus, '{number}'\","
            f"\"{{'{code}': 100.0}}\",{number % 10 + 1},{names[100]},{names[500]}"
        )
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "scp_statements.csv").write_text(",description\nNORM,normal\n", encoding="utf-8")
    (folder / "LICENSE.txt").write_text("CC BY 4.0\n", encoding="utf-8")
    write_sums(folder)
    return folder


def write_challenge(folder: Path, project: str = "challenge-2021/1.0.3") -> Path:
    """Two tranches of the Challenge."""
    folder = folder / project
    for number in range(1, 4):
        comments = ("Age: 56", "Sex: Female", "Dx: 426783006")
        write_ecg(folder / f"training/georgia/g1/E{number:05d}", number, comments)
        write_ecg(folder / f"training/ptb/g1/S{number:04d}", 10 + number, comments)
    (folder / "RECORDS").write_text("training/georgia/g1/\ntraining/ptb/g1/\n", encoding="utf-8")
    (folder / "LICENSE.txt").write_text("CC BY 4.0\n", encoding="utf-8")
    write_sums(folder)
    return folder


def write_zip(path: Path, folder: Path, top: str = "") -> Path:
    """A zip of a folder's files, below a folder ``top``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path
