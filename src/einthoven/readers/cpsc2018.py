"""China Physiological Signal Challenge 2018 as first published: 6,877 records, 12 leads, 500 Hz.

http://2018.icbeb.org/Challenge.html (Liu et al. 2018). ``TrainingSet1`` to ``TrainingSet3`` hold
MATLAB structs ``ECG`` with ``sex``, ``age`` and ``data`` (12 leads in standard order, millivolts);
``REFERENCE.csv`` gives each record one to three of nine labels. No patients are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.readers.fields import as_float32, files_below, parse_age, parse_id, parse_sex
from einthoven.readers.tables import ROW_PROBLEM, read_archive_table
from einthoven.records import LEADS, RecordInfo

CPSC2018_FS = 500.0
CPSC2018_COLUMNS = ("Recording", "First_label")
CPSC2018_LABELS = ("First_label", "Second_label", "Third_label")


def detect_cpsc2018(folder: Path) -> bool:
    """Does the folder hold ``TrainingSet1`` ... or the reference's own first line?"""
    if next(folder.glob("TrainingSet[0-9]"), None) is not None:
        return True
    path = folder / "REFERENCE.csv"
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return lines.readline(200).startswith("Recording,First_label")


def index_cpsc2018(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per ``.mat`` file on disk or row of a REFERENCE.csv.

    Age and sex are inside the files, so each is opened once; several threads do so.

    Raises:
        DataError: a REFERENCE.csv cannot be used.
    """
    codes, faults = _cpsc2018_codes(folder)
    paths = files_below(folder, (".mat",))
    with ThreadPoolExecutor() as threads:
        people = threads.map(lambda path: _cpsc2018_person(folder / path), paths)
        rows = zip(paths, people, strict=True)
        for path, (age, sex, problem) in rows:
            record_id = PurePosixPath(path).stem
            problem = faults.get(record_id, problem)
            yield RecordInfo(
                archive, record_id, path, "", codes.pop(record_id, ()), age, sex, problem=problem
            )
    for record_id, its_codes in codes.items():
        problem = faults.get(record_id) or (f"named by REFERENCE.csv; {record_id}.mat is not there")
        yield RecordInfo(archive, record_id, f"{record_id}.mat", codes=its_codes, problem=problem)


def _cpsc2018_codes(folder: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The codes of each record, and what is wrong with its row, where something is."""
    codes: dict[str, tuple[str, ...]] = {}
    faults: dict[str, str] = {}
    for path in files_below(folder, ("REFERENCE.csv",), on_error=str):
        table = read_archive_table(folder / path, CPSC2018_COLUMNS)
        columns = [table[name].tolist() for name in CPSC2018_LABELS if name in table.columns]
        names, problems = table["Recording"].tolist(), table[ROW_PROBLEM].tolist()
        for recording, fault, *labels in zip(names, problems, *columns, strict=True):
            kept = [] if fault else [parse_id(label) for label in labels if label.strip()]
            codes[recording.strip()] = tuple(f"cpsc2018:{label}" for label in dict.fromkeys(kept))
            if fault:
                faults[recording.strip()] = fault
    return codes, faults


def _cpsc2018_person(path: Path) -> tuple[float | None, str, str]:
    """Age, sex, and why the file cannot be read."""
    try:
        record = _load_cpsc2018(path)
    except RecordError as error:
        return None, "", str(error)
    return parse_age(_cpsc2018_text(record, "age")), parse_sex(_cpsc2018_text(record, "sex")), ""


def _cpsc2018_text(record: Any, field: str) -> str:
    if field not in (record.dtype.names or ()):
        return ""
    value = np.ravel(record[field])
    return str(value[0]) if value.size else ""


def _load_cpsc2018(path: Path) -> Any:
    from scipy.io import loadmat

    if not path.is_file():
        raise RecordError(f"{path.name} is not there")
    try:
        record = loadmat(path, variable_names=["ECG"])["ECG"][0, 0]
    except KeyError:
        raise RecordError(f"{path.name} holds no struct ECG") from None
    # A damaged file fails wherever scipy's parser happens to stumble.
    except Exception as error:
        raise RecordError(f"{path.name} is no readable MATLAB file ({error})") from error
    if "data" not in (record.dtype.names or ()):
        raise RecordError(f"the struct ECG of {path.name} has no field data")
    return record


def read_cpsc2018_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record: ``(12, sample)`` float32 millivolts, 500 Hz, standard leads.

    Raises:
        RecordError: the file cannot be read or has another shape.
    """
    signal = np.asarray(_load_cpsc2018(folder / path)["data"])
    if signal.ndim != 2 or len(signal) != len(LEADS):
        raise RecordError(f"{path}: {len(LEADS)} leads are needed, found shape {signal.shape}")
    if signal.dtype.kind not in "fiu":
        raise RecordError(f"{path}: real numbers are needed, found {signal.dtype}")
    return as_float32(signal), CPSC2018_FS, LEADS
