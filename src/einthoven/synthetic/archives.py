"""Whole synthetic archives on disk, in the layouts of three published ones.

PTB-XL's (many patients with several recordings, published folds), Challenge 2017's (one lead) and
Chapman's (SNOMED codes at 500 Hz). A few recordings lie in two archives, and a few are damaged, as
real ones are.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from einthoven.console import log, plural, progress
from einthoven.errors import DataError
from einthoven.files import read_json, write_json
from einthoven.labels.scp import SCP_STATEMENTS
from einthoven.records import LEADS
from einthoven.signal import resample
from einthoven.synthetic.classes import ARCHIVE_CLASSES, ArchiveClass, deal_classes
from einthoven.synthetic.ecg import synthesize
from einthoven.synthetic.patients import SyntheticPatient, draw_patient
from einthoven.synthetic.wfdb_writing import to_digital, write_wfdb_dat, write_wfdb_mat

SYNTHETIC_VERSION = 3
SYNTHETIC_STAMP = "synthetic.json"
SYNTHETIC_FOLDERS = ("ptb-xl", "challenge-2017", "chapman")

_SYNTHETIC_SECONDS = 10.0
# Recordings that lie in the PTB-XL archive at 100 Hz and in the Chapman archive at 500 Hz.
_N_SHARED = 4
# Which random stream each archive draws from.
_PTB_XL_STREAM, _CHALLENGE_STREAM, _CHAPMAN_STREAM = 1, 2, 3


@dataclass(frozen=True)
class _SyntheticRecording:
    """What is needed to make one recording again: no signal."""

    patient: SyntheticPatient
    group: ArchiveClass
    patient_number: int
    fold: int
    seeds: tuple[int, ...]

    def signal(
        self, fs: int, seconds: float = _SYNTHETIC_SECONDS, noise: float = 1.0
    ) -> np.ndarray:
        rng = np.random.default_rng(self.seeds)
        return synthesize(self.group.kind, self.patient, fs, seconds, rng, noise)


def write_synthetic_archives(
    dataset_dir: Path, n_patients: int = 600, seed: int = 0, high_rate: bool = False
) -> bool:
    """Write three archives into ``dataset_dir``, whole or not at all.

    The same arguments give the same bytes. Nothing is done where they lie there already; archives
    of other arguments are replaced.

    Args:
        dataset_dir: absent, empty, or holding synthetic archives and nothing else.
        n_patients: of the PTB-XL archive (about 1.25 recordings each); the two others have two
            recordings for five of them, enough for twenty in each test split. 24 or more.
        seed: of everything that is drawn.
        high_rate: also write PTB-XL's ``records500``.

    Returns:
        Whether anything was written.

    Raises:
        DataError: ``dataset_dir`` holds something else, or ``n_patients`` is too small.
    """
    if n_patients < len(ARCHIVE_CLASSES):
        raise DataError(f"n_patients is {n_patients}; use {len(ARCHIVE_CLASSES)} or more")
    n_others = n_patients * 2 // 5
    stamp = {
        "what": "synthetic ECG archives made by einthoven; no recordings of real people",
        "version": SYNTHETIC_VERSION,
        "n_patients": n_patients,
        "seed": seed,
        "high_rate": high_rate,
    }
    if _stamp_of(dataset_dir) == stamp:
        return False
    _check_replaceable(dataset_dir)
    dataset_dir.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{dataset_dir.name}-", dir=dataset_dir.parent))
    try:
        beside.chmod(0o755)
        recordings = _plan_ptb_xl(n_patients, seed)
        _write_ptb_xl(beside / "ptb-xl", recordings, high_rate)
        _write_challenge_2017(beside / "challenge-2017", n_others, seed)
        _write_chapman(beside / "chapman", recordings, n_others, seed)
        write_json(beside / SYNTHETIC_STAMP, stamp)
        if dataset_dir.exists():
            shutil.rmtree(dataset_dir)
        beside.replace(dataset_dir)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    n_records = len(recordings) + 2 * n_others
    log.info("synthetic archives: %s in %s", plural(n_records, "record"), dataset_dir)
    return True


def is_synthetic(dataset_dir: Path) -> bool:
    """Whether the archives of a folder are synthetic."""
    return (dataset_dir / SYNTHETIC_STAMP).exists()


def _stamp_of(dataset_dir: Path) -> object:
    path = dataset_dir / SYNTHETIC_STAMP
    return read_json(path) if path.is_file() else None


def _check_replaceable(dataset_dir: Path) -> None:
    if not dataset_dir.exists():
        return
    if not dataset_dir.is_dir():
        raise DataError(f"{dataset_dir} is a file; synthetic archives need a folder")
    found = {path.name for path in dataset_dir.iterdir()}
    others = sorted(found - {*SYNTHETIC_FOLDERS, SYNTHETIC_STAMP})
    if others or (found and SYNTHETIC_STAMP not in found):
        first = (others or sorted(found))[0]
        raise DataError(
            f"{dataset_dir} holds other files (first: {first}), which synthetic archives would "
            "replace; choose another folder"
        )


# PTB-XL ------------------------------------------------------------------------------------------


def _plan_ptb_xl(n_patients: int, seed: int) -> list[_SyntheticRecording]:
    """The recordings of all patients, in mixed order; a patient's share class, heart and fold."""
    rng = np.random.default_rng([seed, _PTB_XL_STREAM])
    groups = deal_classes(n_patients, rng)
    folds = _deal_folds(groups)
    recordings = []
    for number, (group, fold) in enumerate(zip(groups, folds, strict=True)):
        patient = draw_patient(rng, group.mean_age)
        for visit in range(int(rng.choice([1, 2, 3], p=[0.81, 0.13, 0.06]))):
            seeds = (seed, _PTB_XL_STREAM, number, visit)
            recordings.append(_SyntheticRecording(patient, group, number, fold, seeds))
    return [recordings[index] for index in rng.permutation(len(recordings))]


def _deal_folds(groups: Sequence[ArchiveClass]) -> list[int]:
    """Folds 1 to 10 for patients, so that each fold has its part of each class."""
    folds = [0] * len(groups)
    by_class = sorted(range(len(groups)), key=lambda index: groups[index].kind)
    for place, index in enumerate(by_class):
        folds[index] = place % 10 + 1
    return folds


def _write_ptb_xl(folder: Path, recordings: Sequence[_SyntheticRecording], high_rate: bool) -> None:
    folder.mkdir()
    rows = []
    shared = {id(recording) for recording in _shared_recordings(recordings)}
    numbered = list(enumerate(recordings, 1))
    for ecg_id, recording in progress(numbered, desc="synthetic ptb-xl", unit="records"):
        rows.append(_ptb_xl_row(ecg_id, recording))
        if high_rate or id(recording) in shared:
            fine = recording.signal(500)
            coarse = resample(fine, 500, 100)
        else:
            fine, coarse = None, recording.signal(100)
        damaged = _damage_signal(coarse, ecg_id - len(recordings))
        _write_ptb_xl_signal(folder, rows[-1]["filename_lr"], damaged, 100)
        if fine is not None and high_rate:
            _write_ptb_xl_signal(folder, rows[-1]["filename_hr"], fine, 500)
    _write_csv_rows(folder / "ptbxl_database.csv", list(rows[0]), [row.values() for row in rows])
    _write_scp_statements(folder / "scp_statements.csv")
    listed = [row["filename_lr"] for row in rows]
    listed += [row["filename_hr"] for row in rows if high_rate]
    (folder / "RECORDS").write_text("\n".join(listed) + "\n", "ascii", newline="\n")
    # As after a download that broke off.
    _truncate_file(folder / f"{rows[-1]['filename_lr']}.dat", 0.4)
    (folder / f"{rows[-3]['filename_lr']}.dat").unlink()


def _shared_recordings(recordings: Sequence[_SyntheticRecording]) -> list[_SyntheticRecording]:
    """The recordings that lie in the Chapman archive too."""
    return list(recordings[4 :: len(recordings) // 5][:_N_SHARED])


def _damage_signal(signal: np.ndarray, from_end: int) -> np.ndarray:
    """Spoil a few of the last recordings: no values at all, a lead off, two cables swapped."""
    damaged = signal.copy()
    if from_end == -4:
        damaged[:] = np.nan
    elif from_end == -6:
        damaged[LEADS.index("V4")] = 0.0
    elif from_end == -8:
        damaged[[0, 1]] = signal[[1, 0]]
    elif from_end == -10:
        damaged[LEADS.index("V6"), : signal.shape[1] // 8] = np.nan
    return damaged


def _write_ptb_xl_signal(folder: Path, name: str, signal: np.ndarray, fs: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    leads = [lead.upper() for lead in LEADS]
    write_wfdb_dat(path, to_digital(signal), fs, leads)


def _ptb_xl_row(ecg_id: int, recording: _SyntheticRecording) -> dict[str, str]:
    """All columns of PTB-XL's database, in its order and wording."""
    patient, group = recording.patient, recording.group
    rng = np.random.default_rng((*recording.seeds, 1))
    month, day, hour, minute = (int(rng.integers(1, high)) for high in (13, 29, 24, 60))
    height = (163 if patient.sex == "female" else 176) + 7 * rng.standard_normal()
    place = f"{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}"
    infarct = group.kind.startswith("mi_")
    stadium = "Stadium I" if group.kind.endswith("acute") else "Stadium III"
    return {
        "ecg_id": str(ecg_id),
        "patient_id": f"{recording.patient_number + 1}.0",
        # PTB-XL hides ages over 89 behind 300.
        "age": f"{300.0 if patient.age > 89 else patient.age:.1f}",
        "sex": str(int(patient.sex == "female")),
        "height": f"{height:.1f}" if rng.random() < 0.3 else "",
        "weight": f"{(height - 100) * rng.uniform(0.8, 1.3):.1f}" if rng.random() < 0.4 else "",
        "nurse": f"{rng.integers(0, 12)}.0",
        "site": f"{rng.integers(0, 5)}.0",
        "device": "synthetic",
        "recording_date": f"{1985 + ecg_id % 10}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:00",
        "report": f"synthetic recording: {group.kind}",
        "scp_codes": str({code: float(value) for code, value in group.scp.items()}),
        "heart_axis": _heart_axis(patient),
        "infarction_stadium1": stadium if infarct else "",
        "infarction_stadium2": "",
        "validated_by": "",
        "second_opinion": "False",
        "initial_autogenerated_report": "False",
        "validated_by_human": "True",
        "baseline_drift": "",
        "static_noise": "",
        "burst_noise": "",
        "electrodes_problems": "",
        "extra_beats": {"pvc": "VES", "pac": "SVES"}.get(group.kind, ""),
        "pacemaker": "",
        "strat_fold": str(recording.fold),
        "filename_lr": f"records100/{place}_lr",
        "filename_hr": f"records500/{place}_hr",
    }


def _heart_axis(patient: SyntheticPatient) -> str:
    return "LAD" if patient.axis < -25 else "RAD" if patient.axis > 25 else "MID"


def _write_scp_statements(path: Path) -> None:
    header = (
        ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass,"
        "Statement Category,SCP-ECG Statement Description,AHA code,aECG REFID,CDISC Code,DICOM Code"
    ).split(",")
    rows = [
        [each.code, each.description]
        + ["1.0" if kind in each.kinds else "" for kind in "DFR"]
        + [each.superclass, each.subclass, "", each.description, "", "", "", ""]
        for each in SCP_STATEMENTS
    ]
    _write_csv_rows(path, header, rows)


# Challenge 2017 ----------------------------------------------------------------------------------


def _write_challenge_2017(folder: Path, n_records: int, seed: int) -> None:
    """Single-lead recordings of 20 to 40 s at 300 Hz; every record is a patient of its own."""
    training_dir = folder / "training2017"
    training_dir.mkdir(parents=True)
    rng = np.random.default_rng([seed, _CHALLENGE_STREAM])
    letters = rng.permutation(_challenge_letters(n_records))
    reference = []
    numbered = list(enumerate(letters, 1))
    for number, letter in progress(numbered, desc="synthetic challenge-2017", unit="records"):
        name = f"A{number:05d}"
        # What is too noisy to read can be anything.
        possible = {"N", "O", "A"} if letter == "~" else {letter}
        groups = [each for each in ARCHIVE_CLASSES if each.letter in possible]
        group = groups[rng.integers(len(groups))]
        recording = _SyntheticRecording(
            draw_patient(rng, group.mean_age), group, number, 0, (seed, _CHALLENGE_STREAM, number)
        )
        seconds = float(rng.choice([20.0, 30.0, 30.0, 30.0, 40.0]))
        signal = recording.signal(300, seconds, noise=14.0 if letter == "~" else 1.0)[:1]
        date = f"2014-{1 + number % 12:02d}-{1 + number % 28:02d} 05:05:15"
        write_wfdb_mat(
            training_dir / name, to_digital(signal), 300, ["ECG"], date, line_end=" \r\n"
        )
        reference.append((name, letter))
    lines = "".join(f"{name},{letter}\n" for name, letter in reference)
    (training_dir / "REFERENCE.csv").write_text(lines, "ascii", newline="\n")
    names = "".join(f"{name}\n" for name, _ in reference)
    (training_dir / "RECORDS").write_text(names, "ascii", newline="\n")
    (training_dir / f"{reference[-1][0]}.mat").write_bytes(b"")


def _challenge_letters(n_records: int) -> list[str]:
    """About the shares of the published training set: mostly N, few A, fewer noisy."""
    n_noisy, n_afib, n_other = max(1, n_records // 25), n_records // 6, n_records // 4
    n_normal = n_records - n_noisy - n_afib - n_other
    return ["~"] * n_noisy + ["A"] * n_afib + ["O"] * n_other + ["N"] * n_normal


# Chapman -----------------------------------------------------------------------------------------


def _write_chapman(
    folder: Path, ptb_xl: Sequence[_SyntheticRecording], n_records: int, seed: int
) -> None:
    """Recordings at 500 Hz with SNOMED codes; the first few are PTB-XL's once more."""
    rng = np.random.default_rng([seed, _CHAPMAN_STREAM])
    recordings = _shared_recordings(ptb_xl)
    for number, group in enumerate(deal_classes(n_records - len(recordings), rng)):
        patient = draw_patient(rng, group.mean_age)
        seeds = (seed, _CHAPMAN_STREAM, number)
        recordings.append(_SyntheticRecording(patient, group, number, 0, seeds))
    places = [f"WFDBRecords/{1 + i // 1000:02d}/{10 + i // 100:03d}" for i in range(n_records)]
    paths = [folder / place / f"JS{i:05d}" for i, place in enumerate(places, 1)]
    pairs = list(zip(paths, recordings, strict=True))
    for path, recording in progress(pairs, desc="synthetic chapman", unit="records"):
        path.parent.mkdir(parents=True, exist_ok=True)
        units = to_digital(recording.signal(500), step_mv=0.00488)
        comments = _chapman_comments(recording)
        write_wfdb_mat(path, units, 500, LEADS, "23-Mar-2021 20:20:47", comments)
    listed = "".join(f"{place}/\n" for place in sorted(set(places)))
    (folder / "RECORDS").write_text(listed, "ascii", newline="\n")
    # The published archive has an empty header too (JS01052).
    paths[-1].with_suffix(".hea").write_bytes(b"")
    _truncate_file(paths[-2].with_suffix(".mat"), 0.5)


def _chapman_comments(recording: _SyntheticRecording) -> list[str]:
    patient = recording.patient
    return [
        f"Age: {patient.age:.0f}",
        f"Sex: {patient.sex.capitalize()}",
        f"Dx: {recording.group.snomed}",
        "Rx: Unknown",
        "Hx: Unknown",
        "Sx: Unknown",
    ]


# Files -------------------------------------------------------------------------------------------


def _truncate_file(path: Path, kept: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])


def _write_csv_rows(path: Path, header: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
