"""What is known of a downloaded archive: which files are verified, and how much of it is there.

All of it lies in the archive's folder in ``.download``, which readers pass by: ``verified.txt``, a
line per verified file; a JSON file per source; parts of files that are on their way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.files import digest, read_json, write_json, write_text

HIDDEN = ".download"
VERIFIED_NAME = "verified.txt"


class Ledger:
    """Which files of a folder were found right, and have not been touched since.

    Threads may use it at the same time. A line is added as soon as a file is there, so that a
    program that is killed knows them when it runs again; a line cut short is no line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hidden = folder / HIDDEN
        self._path = self.hidden / VERIFIED_NAME
        self._lock = threading.Lock()
        self._known = dict(_read_lines(self._path))

    def has(self, path: str, checksum: str = "") -> bool:
        """Is this file as it was when it was verified, by this checksum?"""
        return self._known.get(path) == (checksum or "-", *_stamp(self.folder / path))

    def add(self, path: str, checksum: str = "") -> None:
        """Note that a file has been verified."""
        entry = (checksum or "-", *_stamp(self.folder / path))
        with self._lock:
            self._known[path] = entry
            self.hidden.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", newline="\n") as log:
                log.write(_line(path, entry))

    def tidy(self) -> None:
        """Rewrite the list, a line per file that is still there."""
        with self._lock:
            lines = [
                _line(path, entry)
                for path, entry in sorted(self._known.items())
                if (self.folder / path).is_file()
            ]
            write_text(self._path, "".join(lines))

    def part_path(self, path: str) -> Path:
        """Where a file arrives."""
        name = path.rpartition("/")[2][-40:]
        return self.hidden / "parts" / f"{digest(path)}-{name}.part"

    def forget_parts(self, paths: Iterable[str]) -> None:
        """Delete what is left of the parts of these files, which are there by now."""
        folder = self.hidden / "parts"
        if not folder.is_dir():
            return
        own = {self.part_path(path).name for path in paths}
        for part in folder.glob("*.part*"):
            if part.name.removesuffix(".etag") in own:
                part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _line(path: str, entry: tuple[str, str, str]) -> str:
    return f"{' '.join(entry)} {path}\n"


def _stamp(path: Path) -> tuple[str, str]:
    """Size and time of change, as text; dashes where a file is not there."""
    try:
        found = path.stat()
    except OSError:
        return "absent", "absent"
    return str(found.st_size), str(found.st_mtime_ns)


def _read_lines(path: Path) -> list[tuple[str, tuple[str, str, str]]]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    for line in text.split("\n")[:-1]:
        words = line.split(" ", 3)
        if len(words) == 4:
            found.append((words[3], (words[0], words[1], words[2])))
    return found


# How much of a source is there -----------------------------------------------------------------


@dataclass(frozen=True)
class SourceState:
    """How far the download of a source has come.

    Attributes:
        source, version: which, as `Source` has them.
        came_from: the address, or the name of the zip file.
        records: asked for: the size of a subset, or 0 for all.
        rate: hertz, where one of several rates was asked for; 0 for all.
        n_files: that should be there.
        n_failed: of them, that are not.
        is_done: whether the last run came to its end.
        is_verified: whether the files were held against the archive's list, where it has one.
    """

    source: str
    version: str
    came_from: str
    records: int
    rate: int
    n_files: int
    n_failed: int
    is_done: bool
    is_verified: bool = True

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is there."""
        return self.is_done and self.is_verified and not self.n_failed

    @property
    def is_whole(self) -> bool:
        """Whether every file of the archive is there."""
        return self.is_complete and not (self.records or self.rate)

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        words = ["einthoven download", self.source]
        words += [f"--subset {self.records}"] if self.records else []
        words += [f"--rate {self.rate}"] if self.rate else []
        return " ".join(words)


def read_state(folder: Path, source: str) -> SourceState | None:
    """How far a source is; None where its download has never been begun."""
    path = folder / HIDDEN / f"{source}.json"
    return _state_at(path, read_json(path)) if path.exists() else None


def _state_at(path: Path, values: dict[str, Any]) -> SourceState:
    try:
        return SourceState(**values)
    except TypeError as error:
        raise DataError(f"{path} is not of this version ({error}); delete it") from error


def write_state(folder: Path, state: SourceState) -> None:
    """Keep how far a source is."""
    write_json(folder / HIDDEN / f"{state.source}.json", asdict(state))


def state_words(state: SourceState | None) -> str:
    """``there``, ``not there``, or ``partial`` and why.

    >>> state_words(None)
    'not there'
    """
    if state is None:
        return "not there"
    if state.is_whole:
        return "there"
    reasons = [f"{state.records:,} records" if state.records else ""]
    reasons += [f"{state.rate} Hz" if state.rate else ""]
    reasons += [f"{plural(state.n_failed, 'file')} missing" if state.n_failed else ""]
    reasons += ["" if state.is_done else "not finished"]
    reasons += ["" if state.is_verified else "not verified"]
    return f"partial: {', '.join(filter(None, reasons))}"


def unfinished_download(archive: str, folder: Path, top: Path) -> str:
    """What to say of an archive whose download lacks something; empty where nothing is known of it.

    Args:
        archive: its name, as its reader has it.
        folder: where it lies.
        top: the folder of all archives; a tranche's download is noted in a folder between.
    """
    states = [state for state in _states_above(folder, top) if _concerns(state, archive)]
    lacking = [state for state in states if not (state.is_done and not state.n_failed)]
    if not lacking or any(state.is_complete and not state.records for state in states):
        return ""
    state = lacking[0]
    what = "is not finished" if not state.is_done else f"lacks {plural(state.n_failed, 'file')}"
    return f"{archive}: its download {what}; `{state.command}` goes on with it"


def _states_above(folder: Path, top: Path) -> list[SourceState]:
    for place in (folder, *folder.parents):
        if (place / HIDDEN).is_dir():
            found = [(path, read_json(path)) for path in sorted((place / HIDDEN).glob("*.json"))]
            # The other files there say what a zip held.
            return [_state_at(path, values) for path, values in found if "is_done" in values]
        if place == top:
            break
    return []


def _concerns(state: SourceState, archive: str) -> bool:
    """The whole Challenge has all of its tranches."""
    return archive == state.source or archive.startswith(f"{state.source}-")
