"""Shandong Provincial Hospital: 25,770 records of 24,666 patients, 12 leads, 500 Hz, in HDF5.

https://doi.org/10.6084/m9.figshare.c.5779802 (Liu et al., Scientific Data 2022). ``metadata.csv``
lists the records, ``records/*.h5`` hold a dataset ``ecg``: 12 leads in standard order, millivolts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from einthoven.console import log, plural
from einthoven.errors import RecordError
from einthoven.readers.challenge import snomed_codes
from einthoven.readers.fields import (
    FolderNames,
    as_float32,
    parse_age,
    parse_id,
    parse_sex,
    path_problem,
)
from einthoven.readers.tables import ROW_PROBLEM, read_archive_table
from einthoven.records import LEADS, RecordInfo

SPH_TABLE = "metadata.csv"
SPH_COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex")
SPH_FS = 500.0


def detect_sph(folder: Path) -> bool:
    """Does the folder hold ``records/`` and a metadata.csv with AHA codes?"""
    path = folder / SPH_TABLE
    if not path.is_file() or not (folder / "records").is_dir():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return (
            "AHA_Code" in lines.readline(500) or next(folder.glob("records/*.h5"), None) is not None
        )


def index_sph(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per row of metadata.csv; files that it does not name are passed by.

    Raises:
        DataError: the table cannot be used.
    """
    table = read_archive_table(folder / SPH_TABLE, SPH_COLUMNS)
    snomed = table["SNOMEDCTCode"] if "SNOMEDCTCode" in table.columns else [""] * len(table)
    names = FolderNames(folder)
    columns = [table[name].tolist() for name in (*SPH_COLUMNS, ROW_PROBLEM)]
    for ecg_id, aha, patient_id, age, sex, fault, terms in zip(*columns, snomed, strict=True):
        record_id = ecg_id.strip().removesuffix(".h5")
        path = f"records/{record_id}.h5"
        problem = fault or path_problem(path) or names.missing(path)
        codes = () if fault else _aha_codes(aha) + snomed_codes(terms)
        yield RecordInfo(
            archive, record_id, path, parse_id(patient_id), codes, parse_age(age), parse_sex(sex),
            problem=problem,
        )  # fmt: skip
    unnamed = len(names.names("records") - {f"{i.removesuffix('.h5')}.h5" for i in table["ECG_ID"]})
    if unnamed:
        log.warning(
            "%s: %s in records that %s does not name; passed by",
            archive, plural(unnamed, "file"), SPH_TABLE,
        )  # fmt: skip


def _aha_codes(written: str) -> tuple[str, ...]:
    """Statements with their modifiers as written: ``22;105+347`` is two codes."""
    codes = [code.strip() for code in re.split(r"[;,]", written)]
    return tuple(dict.fromkeys(f"aha:{code}" for code in codes if code))


def read_sph_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record: ``(12, sample)`` float32 millivolts, 500 Hz, standard leads.

    Raises:
        RecordError: h5py is not installed, or the file cannot be read or has another shape.
    """
    signal = read_hdf5_array(folder / path, "ecg")
    if signal.ndim != 2 or len(signal) != len(LEADS):
        raise RecordError(f"{path}: {len(LEADS)} leads are needed, found shape {signal.shape}")
    return as_float32(signal), SPH_FS, LEADS


def read_hdf5_array(path: Path, name: str) -> np.ndarray:
    """One dataset of an HDF5 file.

    Raises:
        RecordError: h5py is not installed, the file is damaged, or has no such dataset.
    """
    try:
        import h5py
    except ImportError:
        raise RecordError("h5py is not installed: pip install h5py") from None
    if not path.is_file():
        raise RecordError(f"{path.name} is not there")
    try:
        with h5py.File(path, "r") as file:
            found = file.get(name)
            if isinstance(found, h5py.Dataset):
                return np.asarray(found[()])
    except (OSError, RuntimeError) as error:
        raise RecordError(f"{path.name} is no readable HDF5 file ({error})") from error
    raise RecordError(f"{path.name} has no dataset {name!r}")
