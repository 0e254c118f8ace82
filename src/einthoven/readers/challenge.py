"""Challenge 2020 and 2021, one archive per tranche, and Chapman-Shaoxing-Ningbo in its own layout.

https://physionet.org/content/challenge-2021/, https://physionet.org/content/challenge-2020/ and
https://physionet.org/content/ecg-arrhythmia/. All are WFDB records with ``Age``, ``Sex`` and the
SNOMED CT codes ``Dx`` in their comments. Layouts: ``training/<tranche>/g1/*.hea`` (2021, 2020 as
browsed), the tar files' folders without ``g1`` (``Training_WFDB``, ``Training_2``, ``WFDB_Ga``
...), and ``WFDBRecords/01/010/*.hea``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from einthoven.readers.fields import (
    FolderNames,
    comment_fields,
    files_below,
    parse_age,
    parse_sex,
)
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.readers.wfdb_header import WfdbHeader, missing_signal_file, read_wfdb_headers
from einthoven.records import RecordInfo

# Which tranche ---------------------------------------------------------------------------------

# Folder names, lower-cased and without dashes and underscores, of both years and all tar files.
CHALLENGE_FOLDERS = {
    "cpsc2018": "cpsc-2018", "wfdbcpsc2018": "cpsc-2018", "trainingwfdb": "cpsc-2018",
    "cpsc2018extra": "cpsc-2018-extra", "wfdbcpsc20182": "cpsc-2018-extra",
    "training2": "cpsc-2018-extra",
    "stpetersburgincart": "st-petersburg-incart", "wfdbstpetersburg": "st-petersburg-incart",
    "wfdbst": "st-petersburg-incart",
    "ptb": "ptb", "wfdbptb": "ptb", "wfdbp": "ptb",
    "ptbxl": "ptb-xl", "wfdbptbxl": "ptb-xl", "wfdbpx": "ptb-xl",
    "georgia": "georgia", "wfdbga": "georgia", "wfdbe": "georgia",
    "chapmanshaoxing": "chapman-shaoxing", "wfdbchapmanshaoxing": "chapman-shaoxing",
    "ningbo": "ningbo", "wfdbningbo": "ningbo",
}  # fmt: skip

_CHALLENGE_IDS = (
    (re.compile(r"A\d{4}$"), "cpsc-2018"),
    (re.compile(r"Q\d{4}$"), "cpsc-2018-extra"),
    (re.compile(r"I\d{4}$"), "st-petersburg-incart"),
    (re.compile(r"S\d{4}$"), "ptb"),
    (re.compile(r"HR\d{5}$"), "ptb-xl"),
    (re.compile(r"E\d{5}$"), "georgia"),
    (re.compile(r"JS(0\d{4}|10[0-5]\d\d|106[0-3]\d|1064[0-6])$"), "chapman-shaoxing"),
    (re.compile(r"JS\d{5}$"), "ningbo"),  # from JS10647 on
)

_TRANCHE_GROUP = re.compile(r"g\d+$")


def tranche_of_id(record_id: str) -> str:
    """The tranche whose records are named so; empty where none's are.

    >>> tranche_of_id("E00015"), tranche_of_id("JS10646"), tranche_of_id("JS10647")
    ('georgia', 'chapman-shaoxing', 'ningbo')
    """
    return next((name for form, name in _CHALLENGE_IDS if form.match(record_id)), "")


def detect_challenge_tranche(folder: Path) -> bool:
    """Does the folder hold headers of the Challenge, in itself or in ``g1``, ``g2`` ...?

    A folder is taken for a tranche by what it is called, or by lying below one that is called
    after the Challenge; a few headers of the Challenge somewhere else make no archive.
    """
    inner = _tranche_header_folder(folder)
    if inner is None:
        return False
    in_groups = inner != folder
    return in_groups or _tranche_key(folder) in CHALLENGE_FOLDERS or bool(_says_challenge(folder))


def _tranche_header_folder(folder: Path) -> Path | None:
    if _TRANCHE_GROUP.match(folder.name):
        return None  # its parent is the tranche
    for inner in (folder, *sorted(folder.glob("g[0-9]*"))):
        if inner.is_dir() and _first_challenge_id(inner):
            return inner
    return None


def _first_challenge_id(folder: Path) -> str:
    """The first id, by the alphabet, whose header is in a folder; empty where there is none."""
    try:
        with os.scandir(folder) as entries:
            stems = sorted(entry.name[:-4] for entry in entries if entry.name.endswith(".hea"))
    except PermissionError:  # the other groups of a tranche are still worth having
        return ""
    return next(filter(tranche_of_id, stems), "")


def _tranche_key(folder: Path) -> str:
    return re.sub(r"[-_ ]", "", folder.name.lower())


def _says_challenge(folder: Path) -> str:
    """The Challenge's year as the nearest folder above writes it; empty where none does."""
    for part in reversed(folder.resolve().parts[-5:]):
        match = re.search(r"(?:challenge|cinc).{0,4}(20(?:20|21))", part.lower())
        if match:
            return match[1]
    return ""


def name_challenge_tranche(folder: Path) -> str:
    """``challenge-2021-georgia``: the year is 2021 unless a folder's name says 2020."""
    inner = _tranche_header_folder(folder) or folder
    known = CHALLENGE_FOLDERS.get(_tranche_key(folder))
    tranche = known or tranche_of_id(_first_challenge_id(inner))
    return f"challenge-{_says_challenge(folder) or '2021'}-{tranche or folder.name}"


def detect_chapman(folder: Path) -> bool:
    """Is the folder ``WFDBRecords`` or does it hold it?"""
    if folder.name == "WFDBRecords":
        return next(folder.glob("[0-9][0-9]"), None) is not None
    return (folder / "WFDBRecords").is_dir()


# Records ---------------------------------------------------------------------------------------


def index_challenge_tranche(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per header, and per signal file that has none.

    The tranches name no patients, so each record is a patient of its own; INCART's are the
    exception, see `_incart_patients`.
    """
    infos = list(_index_snomed_headers(archive, folder, files_below(folder, (".hea", ".mat"))))
    if archive.endswith("st-petersburg-incart"):
        infos = _incart_patients(infos)
    yield from infos


def index_chapman(archive: str, folder: Path, target_fs: int) -> Iterator[RecordInfo]:
    """A `RecordInfo` per header below ``WFDBRecords``, and per signal file that has none."""
    inner = "" if folder.name == "WFDBRecords" else "WFDBRecords"
    paths = files_below(folder / inner, (".hea", ".mat"))
    prefix = f"{inner}/" if inner else ""
    yield from _index_snomed_headers(archive, folder, [prefix + path for path in paths])


def _index_snomed_headers(archive: str, folder: Path, paths: Sequence[str]) -> Iterator[RecordInfo]:
    names = FolderNames(folder)
    headers = [path for path in paths if path.endswith(".hea")]
    for path, header, problem in read_wfdb_headers(folder, headers):
        if header is not None:
            problem = missing_signal_file(header, names.names(path.rpartition("/")[0]))
        yield _snomed_info(archive, path.removesuffix(".hea"), header, problem)
    with_header = {path.removesuffix(".hea") for path in headers}
    for path in paths:
        stem = path.removesuffix(".mat")
        if stem != path and stem not in with_header:
            problem = f"the header {PurePosixPath(stem).name}.hea is not there"
            yield _snomed_info(archive, stem, None, problem)


def _snomed_info(archive: str, path: str, header: WfdbHeader | None, problem: str) -> RecordInfo:
    fields = comment_fields(header.comments if header else ())
    return RecordInfo(
        archive=archive,
        record_id=PurePosixPath(path).name,
        path=path,
        codes=snomed_codes(fields.get("dx", "")),
        age=parse_age(fields.get("age", "")),
        sex=parse_sex(fields.get("sex", "")),
        problem=problem,
    )


def snomed_codes(written: str) -> tuple[str, ...]:
    """The codes of a ``Dx`` comment, each once, in its order.

    >>> snomed_codes("251146004,284470004,284470004")
    ('snomed:251146004', 'snomed:284470004')
    >>> snomed_codes("Unknown")
    ()
    """
    codes = [code.strip() for code in written.split(",")]
    return tuple(dict.fromkeys(f"snomed:{code}" for code in codes if code.isdigit()))


def _incart_patients(infos: list[RecordInfo]) -> list[RecordInfo]:
    """Join neighbouring INCART records of one age and sex as one patient.

    Its 74 records are half-hours cut, in order, from the Holter tapes of 32 people
    (https://physionet.org/content/incartdb/), and the Challenge's headers leave the patient's
    number out. Records of one tape share age and sex and lie side by side, so no patient is split;
    at worst two alike are joined.
    """
    joined: list[RecordInfo] = []
    first: RecordInfo | None = None
    for info in sorted(infos, key=lambda info: info.record_id):
        if first is None or info.age is None or (info.age, info.sex) != (first.age, first.sex):
            first = info
        joined.append(replace(info, patient_id=first.record_id))
    return joined


def read_challenge_signal(folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of one record; see `read_wfdb`."""
    return read_wfdb(folder / f"{path}.hea")
