"""Which records a run is tested on, and the two halves of its validation split.

One half picks the epoch, the other one calibrates and sets thresholds: a threshold tuned on the
records that picked the epoch would be tuned to their chance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from einthoven.columns import rows_where
from einthoven.console import plural
from einthoven.dealing import dealing_order, group_table
from einthoven.errors import SplitError
from einthoven.settings import did_you_mean
from einthoven.split_records import SPLITS, SplitRecords
from einthoven.splits import N_FOLDS, check_patients_disjoint, is_counted, masks_of_folds

# The test split --------------------------------------------------------------------------------


def hold_out_records(manifest: pd.DataFrame, hold_out: str) -> dict[str, SplitRecords]:
    """Train, val and test records with some folds, or an archive, as the test.

    Args:
        manifest: rows with ``record``, ``archive``, ``fold``, ``patient_group``, ``duplicate_of``
            and ``labels``.
        hold_out: the setting ``HOLD_OUT``: folds with commas between them, or an archive's name.

    Raises:
        SplitError: there is no such fold or archive, or a split would be empty.
    """
    names = [word.strip() for word in hold_out.split(",") if word.strip()]
    is_archive = hold_out.strip() in _names_of_archives_like_numbers(manifest)
    if names and all(name.isdecimal() for name in names) and not is_archive:
        chosen = _without_folds(manifest, sorted({int(name) for name in names}))
    else:
        chosen = _without_archive(manifest, hold_out.strip())
    for split, purpose in zip(SPLITS, ("train on", "validate on", "test"), strict=True):
        if not chosen[split].any():
            raise SplitError(
                f"HOLD_OUT is {hold_out}, which leaves no labelled record to {purpose}"
            )
    group = manifest["patient_group"]
    number = np.select([chosen[split] for split in SPLITS], list(range(len(SPLITS))), -1)
    check_patients_disjoint(number, group, "patient group")
    return {split: SplitRecords(manifest, rows_where(chosen[split])) for split in SPLITS}


def _names_of_archives_like_numbers(manifest: pd.DataFrame) -> set[str]:
    """Archives such as ``2017``, whose names are no fold's number."""
    folds = {str(fold) for fold in range(1, N_FOLDS + 1)}
    return {name for name in manifest["archive"].unique() if name.isdecimal()} - folds


def _without_folds(manifest: pd.DataFrame, folds: list[int]) -> dict[str, np.ndarray]:
    """These folds test; the one before the first of them that is not among them validates."""
    wrong = [fold for fold in folds if not 1 <= fold <= N_FOLDS]
    if wrong or len(folds) > N_FOLDS - 2:
        raise SplitError(
            f"HOLD_OUT names {'fold ' + str(wrong[0]) if wrong else plural(len(folds), 'fold')}; "
            f"use folds from 1 to {N_FOLDS}, and {N_FOLDS - 2} of them at most"
        )
    return masks_of_folds(manifest, folds)


def _without_archive(manifest: pd.DataFrame, archive: str) -> dict[str, np.ndarray]:
    """One archive tests; no patient of it, and no copy of a recording of it, trains or validates.

    A recording that another archive has too is tested on here, once, even where the other copy is
    the canonical one.
    """
    is_here = (manifest["archive"] == archive).to_numpy()
    if not is_here.any():
        known = sorted(manifest["archive"].unique())
        raise SplitError(
            f"HOLD_OUT is {archive!r}: no folds with commas between them, such as 1,2, and the "
            "store has no archive of that name; it has "
            f"{', '.join(known)}{did_you_mean(archive, known)}"
        )
    test = np.zeros(len(manifest), bool)
    test[recordings_of_archive(manifest, archive)] = True
    groups_here = set(manifest.loc[is_here, "patient_group"])
    others = is_counted(manifest) & ~manifest["patient_group"].isin(groups_here).to_numpy()
    # Fold 9 validates, as in the usual split; fold 10 has nothing else to do and trains.
    val = others & (manifest["fold"] == N_FOLDS - 1).to_numpy()
    return {"train": others & ~val, "val": val, "test": test}


def recordings_of_archive(manifest: pd.DataFrame, archive: str) -> np.ndarray:
    """Row numbers of an archive's labelled recordings, each once: by its canonical copy, if here.

    Args:
        manifest: rows with ``record``, ``archive``, ``duplicate_of`` and ``labels``.
    """
    is_here = (manifest["archive"] == archive).to_numpy()
    is_labelled = np.array([len(names) > 0 for names in manifest["labels"]], bool)
    is_copy = (manifest["duplicate_of"] != "").to_numpy()
    recording = manifest["duplicate_of"].where(is_copy, manifest["record"])
    rows = np.flatnonzero(is_here & is_labelled)
    rows = rows[np.argsort(is_copy[rows], kind="stable")]
    return rows[~recording.iloc[rows].duplicated().to_numpy()]


# The halves of the validation split --------------------------------------------------------------


def halve_records(
    manifest: pd.DataFrame, rows: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deal the validation split's patients to two halves, alike in archives and labels.

    Args:
        manifest: rows with ``archive``, ``patient_group``, ``duplicate_of`` and ``labels``.
        rows: row numbers of the validation records.
        seed: of the order among patients with the same labels.

    Returns:
        Row numbers of the half that selects the epoch, and of the half that calibrates; the second
        is empty where all records are of one patient.
    """
    part = manifest[["archive", "patient_group", "duplicate_of", "labels"]].iloc[rows]
    group, names = pd.factorize(part["patient_group"])
    table = group_table(part, group, len(names))
    table = table.assign(order=np.random.default_rng([seed, 3]).permutation(len(names)))
    half, turn = np.zeros(len(names), np.int8), 0
    for _, of_archive in table.groupby("archive", sort=True):
        dealt = dealing_order(of_archive)
        half[dealt] = (turn + np.arange(len(dealt))) % 2
        turn += len(dealt)
    return rows[half[group] == 0], rows[half[group] == 1]
