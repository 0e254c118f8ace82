"""PhysioNet/CinC Challenge 2017: 8,528 recordings of one lead from a hand-held AliveCor device.

https://physionet.org/content/challenge-2017/. ``training2017/`` (or ``training/A00/`` as browsed
online) holds the records, ``REFERENCE-v3.csv``, the last correction of the labels, or
``REFERENCE.csv`` their letters: N normal rhythm, A atrial fibrillation, O other rhythm, ~ noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from einthoven.console import log
from einthoven.readers.fields import FolderNames, files_below
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.readers.wfdb_header import WfdbHeader, missing_signal_file, read_wfdb_headers
from einthoven.records import RecordInfo

# Later versions correct labels; v3 is the one that the final scores were computed with.
CHALLENGE2017_REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv")
CHALLENGE2017_FOLDERS = (
    "training2017", "training", "sample2017/validation", "validation", ""
)  # fmt: skip


def detect_challenge2017(folder: Path) -> bool:
    """Does the folder hold ``training2017`` or the Challenge's reference beside its headers?"""
    if (folder / "training2017").is_dir() or (folder / "REFERENCE-v3.csv").is_file():
        return True
    if not (folder / "REFERENCE.csv").is_file():
        return False
    # CPSC-2018 has a REFERENCE.csv too, with four-digit names and no headers.
    return next(folder.glob(f"A{'[0-9]' * 5}.hea"), None) is not None


def index_challenge2017(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per record on disk or in the reference.

    A record of ``validation/`` or ``sample2017/`` whose id ``training`` has too is the same
    recording (the Challenge's validation set repeats 300 of them) and has a ``problem``.
    """
    letters = _challenge2017_letters(archive, folder)
    headers, orphans = _challenge2017_files(folder)
    names = FolderNames(folder)
    first_paths: dict[str, str] = {}
    for path, header, problem in read_wfdb_headers(folder, headers):
        place = PurePosixPath(path)
        if header is not None:
            problem = missing_signal_file(header, names.names(_header_parent(path)))
        if place.stem in first_paths:
            problem = f"the same recording as {first_paths[place.stem]}, which counts instead"
        first = first_paths.setdefault(place.stem, path)
        record_id = place.stem if first == path else path.removesuffix(".hea")
        yield RecordInfo(
            archive,
            record_id,
            path.removesuffix(".hea"),
            codes=letters.get(place.stem, ()),
            problem=problem or _challenge2017_leads_problem(header),
        )
    for path, record_id in orphans.items():
        if record_id not in first_paths:
            first_paths[record_id] = path
            problem = f"the header {record_id}.hea is not there"
            yield RecordInfo(
                archive, record_id, path, codes=letters.get(record_id, ()), problem=problem
            )
    for record_id in sorted(letters.keys() - first_paths.keys()):
        problem = "named by the reference; its files are not there"
        yield RecordInfo(archive, record_id, record_id, codes=letters[record_id], problem=problem)


def _header_parent(path: str) -> str:
    return path.rpartition("/")[0]


def _challenge2017_leads_problem(header: WfdbHeader | None) -> str:
    if header is None or len(header.signals) == 1:
        return ""
    return f"{len(header.signals)} leads where the Challenge's records have one"


def _challenge2017_files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Headers, those of training first, and signal files without one (path -> record id)."""
    paths = files_below(folder, (".hea", ".mat"))
    paths.sort(key=lambda path: ("validation" in path or "sample2017" in path, path))
    headers = [path for path in paths if path.endswith(".hea")]
    with_header = {path.removesuffix(".hea") for path in headers}
    stems = [path.removesuffix(".mat") for path in paths if path.endswith(".mat")]
    return headers, {stem: PurePosixPath(stem).name for stem in stems if stem not in with_header}


def _challenge2017_letters(archive: str, folder: Path) -> dict[str, tuple[str, ...]]:
    """``{"A00001": ("cinc2017:N",)}``; the best reference found wins, record by record."""
    letters: dict[str, tuple[str, ...]] = {}
    for name in CHALLENGE2017_REFERENCES:
        for inner in CHALLENGE2017_FOLDERS:
            path = folder / inner / name
            if path.is_file():
                for record_id, letter in _challenge2017_rows(path):
                    letters.setdefault(record_id, (f"cinc2017:{letter}",))
    if not letters:
        log.warning("%s: no REFERENCE.csv in %s; its records have no labels", archive, folder)
    return letters


def _challenge2017_rows(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        record_id, _, letter = line.partition(",")
        if record_id.strip() and letter.strip():
            yield record_id.strip(), letter.strip().strip('"')


def read_challenge2017_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record; its lead, written ``ECG``, is lead I (left arm to right arm)."""
    signal, fs, leads = read_wfdb(folder / f"{path}.hea")
    return signal, fs, tuple("I" if lead.upper() == "ECG" else lead for lead in leads)
