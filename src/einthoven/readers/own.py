"""Your own recordings: any files that a reader knows, and a ``labels.csv`` beside them.

Columns: ``path`` (relative to the folder) and ``labels`` (several with ``;``, empty for none);
optionally ``patient_id``, ``age``, ``sex``, ``device``, ``site``, ``fold`` and, for files that do
not say so themselves (CSV, NumPy, HDF5, plain MATLAB), ``fs`` in hertz, ``units`` (mV unless given)
and ``leads`` (with ``;`` or blanks between). Files that labels.csv does not name are passed by: a
row without labels is the way to keep an unlabelled recording.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import numpy as np
import pandas as pd

from einthoven.console import log, plural
from einthoven.errors import RecordError
from einthoven.readers.cpsc2018 import read_cpsc2018_signal
from einthoven.readers.fields import (
    FolderNames,
    as_float32,
    parse_age,
    parse_id,
    parse_sex,
    path_problem,
)
from einthoven.readers.sph import read_hdf5_array
from einthoven.readers.tables import ROW_PROBLEM, read_archive_table
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.readers.wfdb_header import millivolts_per_unit
from einthoven.records import LEADS, RecordInfo

OWN_TABLE = "labels.csv"
OWN_COLUMNS = ("path", "labels")
# What a path may end in; without an ending it is a WFDB record.
OWN_SUFFIXES = (".hea", ".dat", ".mat", ".csv", ".npy", ".h5")

# What people write where they do not know.
OWN_NOTHING = frozenset({"", "-", "?", "na", "n/a", "nan", "none", "null", "unknown"})


def detect_own(folder: Path) -> bool:
    """Does the folder hold a labels.csv?"""
    return (folder / OWN_TABLE).is_file()


def name_own(folder: Path) -> str:
    """The folder's name."""
    return folder.resolve().name or "own"


# Listing ---------------------------------------------------------------------------------------


def index_own(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per row of labels.csv.

    Raises:
        DataError: labels.csv cannot be used.
    """
    table = read_archive_table(folder / OWN_TABLE, OWN_COLUMNS)
    names = FolderNames(folder)
    odd_ages = []
    for row in table.to_dict("records"):
        cells = {str(key): str(value).strip() for key, value in row.items()}
        info = _own_info(archive, cells, names)
        if info.age is None and cells.get("age", "").lower() not in OWN_NOTHING:
            odd_ages.append(cells["age"])
        yield info
    if odd_ages:
        log.warning(
            "%s: %s of %s left empty, being no number of years (first: %r)",
            archive, plural(len(odd_ages), "age"), OWN_TABLE, odd_ages[0],
        )  # fmt: skip


def _own_info(archive: str, row: Mapping[str, str], names: FolderNames) -> RecordInfo:
    file, problem = _own_file(row["path"].replace("\\", "/"), names)
    problem = row[ROW_PROBLEM] or problem
    labels = [] if row[ROW_PROBLEM] else [label.strip() for label in row["labels"].split(";")]
    fold = parse_id(row.get("fold", ""))
    return RecordInfo(
        archive=archive,
        record_id=re.sub(r"\.(hea|dat|mat|csv|npy|h5)$", "", file) or "(no path)",
        path=file + _own_query(row),
        patient_id=parse_id(row.get("patient_id", "")),
        codes=tuple(dict.fromkeys(f"own:{label}" for label in labels if label)),
        age=parse_age(row.get("age", "")),
        sex=parse_sex(row.get("sex", "")),
        device=_known_text(row, "device"),
        site=parse_id(_known_text(row, "site")),
        fold=int(fold) if fold.isdecimal() and 1 <= int(fold) <= 10 else None,
        problem=problem,
    )


def _known_text(row: Mapping[str, str], column: str) -> str:
    text = row.get(column, "")
    return "" if text.lower() in OWN_NOTHING else text


def _own_file(written: str, names: FolderNames) -> tuple[str, str]:
    """The file to open, and why it cannot be."""
    problem = path_problem(written)
    if problem or "?" in written:
        return written, problem or f"the path {written!r} has a question mark; rename the file"
    if not written.endswith(OWN_SUFFIXES):
        if names.has(f"{written}.hea"):
            return f"{written}.hea", ""
        if names.has(written):
            return written, f"no reader knows the ending of {written!r} ({', '.join(OWN_SUFFIXES)})"
        return written, names.missing(f"{written}.hea")
    # A signal file that has a header is a WFDB record, whichever of the two is named.
    header = str(Path(written).with_suffix(".hea").as_posix())
    if written.endswith((".dat", ".mat")) and names.has(header):
        return header, names.missing(written)
    if written.endswith(".dat"):
        return written, f"the header {header} is not there"
    return written, names.missing(written)


def _own_query(row: Mapping[str, str]) -> str:
    """What labels.csv says of a signal travels with its path, so that a worker needs no table."""
    said = {name: row[name] for name in ("fs", "units", "leads") if row.get(name)}
    return f"?{urlencode(said)}" if said else ""


# Reading ---------------------------------------------------------------------------------------


class OwnFile(NamedTuple):
    """A file with what labels.csv says of it; empty where it says nothing."""

    path: Path
    fs: str
    units: str
    leads: tuple[str, ...]


def read_own_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record.

    Args:
        folder: of labels.csv.
        path: the file, then ``?fs=500&units=uV&leads=I;II`` as far as labels.csv says so.

    Raises:
        RecordError: the file, its rate, its unit or its leads cannot be used.
    """
    name, _, query = path.partition("?")
    said = {key: values[0] for key, values in parse_qs(query).items()}
    leads = tuple(re.split(r"[;,\s]+", said["leads"].strip())) if "leads" in said else ()
    file = OwnFile(folder / name, said.get("fs", ""), said.get("units", ""), leads)
    if name.endswith(".hea"):
        return read_wfdb(file.path)
    if not file.path.is_file():
        raise RecordError(f"{name} is not there")
    if name.endswith(".csv"):
        return _read_own_csv(file)
    if name.endswith(".npy"):
        return _finish_own(file, np.load(file.path, allow_pickle=False))
    if name.endswith(".h5"):
        return _finish_own(file, read_hdf5_array(file.path, "ecg"))
    return _read_own_mat(file)


def _read_own_csv(file: OwnFile) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """One column per lead, its name on top."""
    try:
        table = pd.read_csv(file.path, encoding="utf-8-sig", skipinitialspace=True)
        signal = as_float32(table.to_numpy(np.float64)).T
    except ValueError as error:
        raise RecordError(
            f"{file.path.name} is no table of numbers with lead names on top ({error})"
        ) from error
    leads = file.leads or tuple(str(column).strip() for column in table.columns)
    return _finish_own(file._replace(leads=leads), signal)


def _read_own_mat(file: OwnFile) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """CPSC-2018's struct ``ECG``, or a matrix ``val`` (or the file's only one)."""
    arrays = _mat_arrays(file.path)
    if "ECG" in arrays:
        return read_cpsc2018_signal(file.path.parent, file.path.name)
    if len(arrays) == 1 or "val" in arrays:
        return _finish_own(file, arrays.get("val", next(iter(arrays.values()))))
    raise RecordError(f"{file.path.name} holds no matrix val (found: {', '.join(arrays)})")


def _mat_arrays(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        variables = loadmat(path)
    # A damaged file fails wherever scipy's parser happens to stumble.
    except Exception as error:
        raise RecordError(f"{path.name} is no readable MATLAB file ({error})") from error
    return {name: value for name, value in variables.items() if not name.startswith("__")}


def _finish_own(file: OwnFile, signal: np.ndarray) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """Check an array against what labels.csv says of it; ``(lead, sample)`` in millivolts."""
    if signal.dtype.kind not in "fiu" or signal.ndim not in (1, 2):
        raise RecordError(f"{file.path.name} holds no signal ({signal.dtype}, {signal.shape})")
    signal = np.atleast_2d(signal)
    leads = file.leads or (LEADS if len(LEADS) in signal.shape else ())
    if not leads:
        raise RecordError(f"{file.path.name} names no leads; give labels.csv a column leads")
    if len(signal) != len(leads) and signal.shape[1] == len(leads):
        signal = signal.T
    if len(signal) != len(leads):
        raise RecordError(f"{file.path.name}: {len(leads)} leads named, shape {signal.shape}")
    with np.errstate(over="ignore"):  # as `as_float32` does
        scaled = as_float32(signal) * np.float32(_own_factor(file.units))
    return scaled, _own_fs(file), leads


@lru_cache(maxsize=64)
def _own_factor(units: str) -> float:
    return millivolts_per_unit(units or "mV")


def _own_fs(file: OwnFile) -> float:
    try:
        fs = float(file.fs)
    except ValueError:
        fs = 0.0
    if not (math.isfinite(fs) and fs > 0):
        found = f"fs is {file.fs!r}" if file.fs else "no fs is given"
        raise RecordError(f"{file.path.name}: {found}; labels.csv needs its rate in hertz, above 0")
    return fs
