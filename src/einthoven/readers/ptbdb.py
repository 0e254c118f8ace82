"""PTB Diagnostic ECG Database: 549 records of 290 people, 15 leads at 1000 Hz.

https://physionet.org/content/ptbdb/ (Bousseljot et al. 1995). ``patient001/s0010_re.hea`` names a
``.dat`` with the twelve leads and an ``.xyz`` with Frank's; the diagnosis is in the header's
comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from einthoven.readers.fields import (
    FolderNames,
    comment_fields,
    files_below,
    parse_age,
    parse_sex,
    path_problem,
)
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.readers.wfdb_header import WfdbHeader, missing_signal_file, read_wfdb_headers
from einthoven.records import RecordInfo

_PTBDB_PATIENT = re.compile(r"patient\d{3}$")
_PTBDB_NOTHING = frozenset({"", "no", "n/a", "none", "unknown"})


def detect_ptbdb(folder: Path) -> bool:
    """Does the folder hold folders ``patient001`` ... or a RECORDS file that names them?"""
    records_path = folder / "RECORDS"
    if records_path.is_file():
        with records_path.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline(200)
        if re.match(r"patient\d{3}/s\d{4}", first):
            return True
    return next(folder.glob("patient[0-9][0-9][0-9]/s*.hea"), None) is not None


def index_ptbdb(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per header on disk, and per name in RECORDS that has none."""
    headers = files_below(folder, (".hea",))
    names = FolderNames(folder)
    for path, header, problem in read_wfdb_headers(folder, headers):
        if header is not None:
            problem = missing_signal_file(header, names.names(path.rpartition("/")[0]))
        yield _ptbdb_info(archive, path.removesuffix(".hea"), header, problem)
    listed = set(_ptbdb_listed_records(folder)) - {path.removesuffix(".hea") for path in headers}
    for name in sorted(listed):
        problem = path_problem(name) or f"named by RECORDS; the header {name}.hea is not there"
        yield _ptbdb_info(archive, name, None, problem)


def _ptbdb_listed_records(folder: Path) -> list[str]:
    path = folder / "RECORDS"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _ptbdb_info(archive: str, name: str, header: WfdbHeader | None, problem: str) -> RecordInfo:
    clinical = comment_fields(header.comments if header else ())
    patient, _, record_id = name.rpartition("/")
    patient = patient.rpartition("/")[2]
    return RecordInfo(
        archive=archive,
        record_id=record_id,
        path=name,
        patient_id=patient if _PTBDB_PATIENT.match(patient) else "",
        codes=_ptb_codes(clinical),
        age=parse_age(clinical.get("age", "")),
        sex=parse_sex(clinical.get("sex", "")),
        problem=problem,
    )


def _ptb_codes(clinical: dict[str, str]) -> tuple[str, ...]:
    """The reason for admission first, then each additional diagnosis."""
    items = [clinical.get("reason for admission", "")]
    items += re.split(r"[,;]", clinical.get("additional diagnoses", ""))
    kept = [" ".join(item.lower().split()) for item in items]
    return tuple(dict.fromkeys(f"ptb:{item}" for item in kept if item not in _PTBDB_NOTHING))


def read_ptbdb_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The 15 leads of one record; see `read_wfdb`."""
    return read_wfdb(folder / f"{path}.hea")
