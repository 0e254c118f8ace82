"""PTB-XL: 21,799 records (21,837 in its first versions) of 18,869 patients, at 100 and 500 Hz.

https://physionet.org/content/ptb-xl/ (Wagner et al., Scientific Data 2020). The rows of
``ptbxl_database.csv`` are the records; signal files that it does not name are passed by, because
nothing says whose they are.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.console import log, plural
from einthoven.readers.fields import (
    FolderNames,
    files_below,
    parse_age,
    parse_id,
    path_problem,
)
from einthoven.readers.tables import ROW_PROBLEM, read_archive_table
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.records import RecordInfo

PTBXL_TABLE = "ptbxl_database.csv"
PTBXL_COLUMNS = (
    "ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr",
)  # fmt: skip
# Every version of the archive has them, but a table cut down to what is needed may not.
PTBXL_OPTIONAL = ("device", "site")
PTBXL_RATES = {100: "filename_lr", 500: "filename_hr"}
PTBXL_SEXES = {"0": "male", "1": "female"}


def detect_ptbxl(folder: Path) -> bool:
    """Does the folder hold PTB-XL's table?"""
    return (folder / PTBXL_TABLE).is_file()


def index_ptbxl(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per row of ``ptbxl_database.csv``, at the rate nearest ``target_fs``.

    Where only the 500 Hz file is there it is listed instead of the 100 Hz one; the other way round
    the record has a ``problem``, because a signal cannot be made finer.

    Raises:
        DataError: the table cannot be used.
    """
    table = read_archive_table(folder / PTBXL_TABLE, PTBXL_COLUMNS)
    names = FolderNames(folder)
    rate = nearest_ptbxl_rate(target_fs)
    for row in _ptbxl_rows(table):
        yield _ptbxl_info(archive, row, rate, names)
    _say_unnamed_ptbxl(archive, folder, table, rate)


def nearest_ptbxl_rate(target_fs: int) -> int:
    """100 or 500 Hz, whichever ratio to ``target_fs`` is nearer to one.

    >>> nearest_ptbxl_rate(100), nearest_ptbxl_rate(250), nearest_ptbxl_rate(500)
    (100, 500, 500)
    """
    return min(PTBXL_RATES, key=lambda rate: abs(math.log(rate / target_fs)))


def _ptbxl_rows(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    # to_dict("records") would hold every column of every row, reports included.
    names = (*PTBXL_COLUMNS, ROW_PROBLEM, *(name for name in PTBXL_OPTIONAL if name in table))
    for values in zip(*(table[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _ptbxl_info(archive: str, row: Mapping[str, str], rate: int, names: FolderNames) -> RecordInfo:
    path, problem = _choose_ptbxl_file(row, rate, names)
    problem = row[ROW_PROBLEM] or problem
    codes = () if row[ROW_PROBLEM] else _ptbxl_codes(row["scp_codes"])
    if codes is None:
        problem = problem or f"its scp_codes cannot be understood: {row['scp_codes'][:60]!r}"
    return RecordInfo(
        archive=archive,
        record_id=parse_id(row["ecg_id"]) or path,
        path=path,
        patient_id=parse_id(row["patient_id"]),
        codes=codes or (),
        age=parse_age(row["age"]),
        sex=PTBXL_SEXES.get(parse_id(row["sex"]), ""),
        # Written as "CS-12   E" and "CS100    3".
        device=" ".join(row.get("device", "").split()),
        site=parse_id(row.get("site", "")),
        fold=_ptbxl_fold(row["strat_fold"]),
        problem=problem,
    )


def _choose_ptbxl_file(row: Mapping[str, str], rate: int, names: FolderNames) -> tuple[str, str]:
    wanted, other = row[PTBXL_RATES[rate]], row[PTBXL_RATES[600 - rate]]
    problem = path_problem(wanted)
    if problem:
        return wanted, f"{PTBXL_RATES[rate]}: {problem}"
    missing = names.missing(f"{wanted}.hea") or names.missing(f"{wanted}.dat")
    if not missing:
        return wanted, ""
    other_is_here = (
        not path_problem(other) and names.has(f"{other}.hea") and names.has(f"{other}.dat")
    )
    if other_is_here and rate == 100:
        return other, ""
    said = missing
    if other_is_here:
        said += f" (only the 100 Hz file {other} is; TARGET_FS=100 reads it)"
    return wanted, said


@lru_cache(maxsize=4096)
def _ptbxl_codes(written: str) -> tuple[str, ...] | None:
    """``{'NORM': 80.0}`` as ``("scp:NORM=80",)``; None where it is no such dictionary."""
    try:
        statements = ast.literal_eval(written)
        return tuple(f"scp:{name}={float(value):g}" for name, value in statements.items())
    except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError, MemoryError):
        return None


def _ptbxl_fold(written: str) -> int | None:
    fold = parse_id(written)
    return int(fold) if fold.isdecimal() and 1 <= int(fold) <= 10 else None


def _say_unnamed_ptbxl(archive: str, folder: Path, table: pd.DataFrame, rate: int) -> None:
    # A folder that may not be opened is told by the records that the table puts there.
    on_disk = files_below(folder / f"records{rate}", (".hea",), on_error=str)
    named = set(table[PTBXL_RATES[rate]])
    count = sum(f"records{rate}/{path.removesuffix('.hea')}" not in named for path in on_disk)
    if count:
        log.warning(
            "%s: %s in records%d that %s does not name; passed by",
            archive, plural(count, "signal file"), rate, PTBXL_TABLE,
        )  # fmt: skip


def read_ptbxl_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record; see `read_wfdb`."""
    return read_wfdb(folder / f"{path}.hea")
