"""Which archives are on disk, and the reader of each.

A reader is a module of plain functions, gathered here in a `Reader`. `find_archives` walks a data
folder, `index_archive` lists the records of one archive without opening a signal, `read_signal`
opens one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from einthoven.console import progress
from einthoven.errors import DataError, RecordError
from einthoven.readers.challenge import (
    detect_challenge_tranche,
    detect_chapman,
    index_challenge_tranche,
    index_chapman,
    name_challenge_tranche,
    read_challenge_signal,
)
from einthoven.readers.challenge2017 import (
    detect_challenge2017,
    index_challenge2017,
    read_challenge2017_signal,
)
from einthoven.readers.cpsc2018 import detect_cpsc2018, index_cpsc2018, read_cpsc2018_signal
from einthoven.readers.fields import path_problem
from einthoven.readers.own import detect_own, index_own, name_own, read_own_signal
from einthoven.readers.ptbdb import detect_ptbdb, index_ptbdb, read_ptbdb_signal
from einthoven.readers.ptbxl import detect_ptbxl, index_ptbxl, read_ptbxl_signal
from einthoven.readers.sph import detect_sph, index_sph, read_sph_signal
from einthoven.records import RecordInfo

# What a reader is ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """One archive found on disk.

    Attributes:
        name: unique among the archives found, e.g. ``"ptb-xl"``, ``"challenge-2021-georgia"``; the
            folder's name for the user's own.
        reader: a key of `READERS`.
        folder: where it lies.
    """

    name: str
    reader: str
    folder: Path


@dataclass(frozen=True)
class Reader:
    """The functions that know one archive's layout.

    Attributes:
        detect: is this folder such an archive? Looks at names, never at every file.
        index: (archive name, folder, target_fs) -> a `RecordInfo` per record found. One bad record
            never raises: its ``problem`` says what is wrong. A table that lists the records and
            cannot be used raises DataError.
        read: (archive folder, `RecordInfo.path`) -> ``(lead, sample)`` float32 millivolts in the
            file's own lead order, its rate in hertz, its lead names. Raises RecordError.
        name: the archive's name, from its folder.
    """

    detect: Callable[[Path], bool]
    index: Callable[[str, Path, int], Iterable[RecordInfo]]
    read: Callable[[Path, str], tuple[np.ndarray, float, tuple[str, ...]]]
    name: Callable[[Path], str]


def _always_named(name: str) -> Callable[[Path], str]:
    return lambda folder: name


# In the order in which they are asked; a user's labels.csv comes before the tranches of the
# Challenge, which are told by their headers alone.
READERS: dict[str, Reader] = {
    "ptb-xl": Reader(detect_ptbxl, index_ptbxl, read_ptbxl_signal, _always_named("ptb-xl")),
    "challenge-2017": Reader(
        detect_challenge2017,
        index_challenge2017,
        read_challenge2017_signal,
        _always_named("challenge-2017"),
    ),
    "ptbdb": Reader(detect_ptbdb, index_ptbdb, read_ptbdb_signal, _always_named("ptbdb")),
    "chapman": Reader(
        detect_chapman, index_chapman, read_challenge_signal, _always_named("chapman")
    ),
    "cpsc-2018": Reader(
        detect_cpsc2018, index_cpsc2018, read_cpsc2018_signal, _always_named("cpsc-2018")
    ),
    "sph": Reader(detect_sph, index_sph, read_sph_signal, _always_named("sph")),
    "own": Reader(detect_own, index_own, read_own_signal, name_own),
    "challenge": Reader(
        detect_challenge_tranche,
        index_challenge_tranche,
        read_challenge_signal,
        name_challenge_tranche,
    ),
}

# What lies in the data folder ------------------------------------------------------------------

# Dataset/physionet.org/files/challenge-2021/1.0.3/training/georgia is six folders down.
DEEPEST_ARCHIVE = 6


def find_archives(dataset_dir: Path) -> tuple[list[Archive], list[str]]:
    """The archives under a folder, which may itself be one.

    An archive found is not searched for others. Hidden folders are ignored.

    Returns:
        The archives sorted by name, and a remark for each folder that was passed by because no
        reader knows anything in it, it may not be opened or its name is no UTF-8, and for each zip
        file.

    Raises:
        DataError: the folder is not there.
    """
    if not dataset_dir.is_dir():
        raise DataError(
            f"the data folder {dataset_dir} is not there. Put the archives' folders in it, or "
            "set DATASET_DIR to where they lie."
        )
    reader = _reader_of_folder(dataset_dir)
    if reader:
        return _named_archives([(reader, dataset_dir)]), []
    found: list[tuple[str, Path]] = []
    remarks: list[str] = []
    folders, passed_by = _folders_and_others(dataset_dir)
    for folder in folders:
        inside, passed_by_inside = _archives_below(folder, DEEPEST_ARCHIVE - 1)
        found += inside
        passed_by += passed_by_inside
        if not inside and not passed_by_inside:
            remarks.append(f"{folder.name}: no archive that a reader knows; passed by")
    remarks += [_passed_by_remark(path, dataset_dir) for path in passed_by]
    return _named_archives(found), remarks


def _passed_by_remark(path: Path, dataset_dir: Path) -> str:
    name = _as_utf8(path.relative_to(dataset_dir).as_posix())
    if _as_utf8(path.name) != path.name:
        return f"{name}: its name is not UTF-8, passed by; rename it"
    if path.is_dir():
        return f"{name}: it cannot be opened, passed by; allow reading it"
    return f"{name}: an archive file, passed by; unzip it, only folders are read"


def _archives_below(folder: Path, depth: int) -> tuple[list[tuple[str, Path]], list[Path]]:
    reader = _reader_of_folder(folder)
    if reader:
        return [(reader, folder)], []
    if depth == 0:
        return [], []
    folders, passed_by = _folders_and_others(folder)
    found: list[tuple[str, Path]] = []
    for inner in folders:
        inside, passed_by_inside = _archives_below(inner, depth - 1)
        found += inside
        passed_by += passed_by_inside
    return found, passed_by


def _reader_of_folder(folder: Path) -> str:
    for name, reader in READERS.items():
        try:
            if reader.detect(folder):
                return name
        except OSError:  # a folder that may not be opened is no archive for us
            return ""
    return ""


def _folders_and_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders to look into, and what is passed by: itself where it cannot be opened."""
    folders, others = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir() and _as_utf8(entry.name) == entry.name:
                    folders.append(folder / entry.name)
                elif entry.is_dir() or entry.name.lower().endswith((".zip", ".tar.gz", ".tgz")):
                    others.append(folder / entry.name)
    except OSError:
        return [], [folder]
    return sorted(folders), sorted(others)


def _named_archives(found: list[tuple[str, Path]]) -> list[Archive]:
    """Give each archive its name; a second one of the same name gets ``-2``."""
    archives: dict[str, Archive] = {}
    for reader, folder in sorted(found, key=lambda item: item[1].as_posix()):
        first = name = _as_utf8(READERS[reader].name(folder))
        count = 1
        # The user's own folder may happen to be called ptb-xl-2.
        while name in archives:
            count += 1
            name = f"{first}-{count}"
        archives[name] = Archive(name, reader, folder)
    return [archives[name] for name in sorted(archives)]


# Records of an archive -------------------------------------------------------------------------


def index_archive(archive: Archive, target_fs: int) -> list[RecordInfo]:
    """Every record found in an archive, sound or not, in the archive's order.

    Ids are unique: a second record of the same id has its ``problem`` set and ``#2`` added. Names
    that are no UTF-8, which no table could hold, are problems too.

    Args:
        archive: from `find_archives`.
        target_fs: hertz; where an archive holds several rates, the nearest is listed.

    Raises:
        DataError: the table that lists the archive's records cannot be used.
    """
    records = READERS[archive.reader].index(archive.name, archive.folder, target_fs)
    try:
        infos = list(progress(records, desc=f"listing {archive.name}", unit="records"))
    except OSError as error:
        raise DataError(f"{archive.folder} cannot be listed: {error}") from error
    return _unique_record_ids(infos)


def _unique_record_ids(infos: list[RecordInfo]) -> list[RecordInfo]:
    counts: dict[str, int] = {}
    unique: dict[str, RecordInfo] = {}
    for info in map(_with_writable_names, infos):
        first, record_id = info.record_id, info.record_id
        while record_id in unique:
            counts[first] = counts.get(first, 1) + 1
            record_id = f"{first}#{counts[first]}"
        if record_id != first:
            problem = info.problem or f"the id {first} is met before; only the first counts"
            info = replace(info, record_id=record_id, problem=problem)
        unique[record_id] = info
    return list(unique.values())


def _with_writable_names(info: RecordInfo) -> RecordInfo:
    """A record whose names can stand in a line of the mapping table."""
    record_id, path = (_as_utf8(name) for name in (info.record_id, info.path))
    # A mapping has one line per record, so an id holds no line break.
    one_line = " ".join(record_id.split())
    if path != info.path:
        problem = info.problem or "its file's name is not UTF-8; rename the file"
        return replace(info, record_id=one_line, path=path, problem=problem)
    return info if one_line == info.record_id else replace(info, record_id=one_line)


def _as_utf8(name: str) -> str:
    """Linux hands over bytes that are no UTF-8 as lone surrogates; they become ``\\udcff``."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def read_signal(
    reader: str, folder: str | Path, path: str
) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record.

    Args:
        reader: a key of `READERS`.
        folder: the archive's folder.
        path: `RecordInfo.path`.

    Returns:
        ``(lead, sample)`` float32 millivolts in the file's own lead order, NaN where the file marks
        no value; the rate in hertz; a name per lead.

    Raises:
        RecordError: it cannot be read, with the reason.
    """
    problem = path_problem(path.partition("?")[0])
    if problem:
        raise RecordError(problem)
    try:
        signal, fs, leads = READERS[reader].read(Path(folder), path)
    except RecordError:
        raise
    except FileNotFoundError as error:
        raise RecordError(f"{Path(error.filename or path).name} is not there") from error
    except OSError as error:
        name, reason = Path(error.filename or path).name, error.strerror or _failure_text(error)
        raise RecordError(f"{name} cannot be read: {reason}") from error
    # A damaged file makes the libraries that parse it fail in any way they like.
    except Exception as error:
        raise RecordError(f"{path} cannot be read: {_failure_text(error)}") from error
    if signal.ndim != 2 or signal.size == 0:
        raise RecordError(f"{path} holds no samples (shape {signal.shape})")
    return signal, fs, leads


def _failure_text(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
