"""Patient groups, patient-wise splits, folds for cross-validation, subsets of whole patients.

Every stored record has a fold from 1 to 10. PTB-XL's are its published ones; all other patients
are dealt to folds by their labels. A split is a choice of folds, so that one code serves the usual
split (1–8, 9, 10) and cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from einthoven.columns import (
    Texts,
    column_of_texts,
    empty_texts,
    number_few,
    number_texts,
    rows_where,
    taken,
    texts_of,
)
from einthoven.console import log
from einthoven.dealing import dealing_order, group_table
from einthoven.errors import SplitError
from einthoven.split_records import SPLITS, SplitRecords, rows_in_manifest, rows_of_records
from einthoven.store import patient_keys

N_FOLDS = 10


# Patients and copies ---------------------------------------------------------------------------


def group_patients(
    manifest: pd.DataFrame, published: np.ndarray, pairs: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Join patients who share a recording, and pick one copy of each recording.

    The canonical copy is one with a published fold, else one whose patient is known, else the
    longer one, else the first by name.

    Args:
        manifest: rows with ``record``, ``archive``, ``record_id``, ``patient_id``, ``n_samples``.
        published: ``(n,)`` the archive's own fold; NaN where it has none.
        pairs: of `find_duplicates`.

    Returns:
        ``patient_group`` and ``duplicate_of`` (empty for a canonical record), strings, ``(n,)``
        each.
    """
    n, keys = len(manifest), _texts_of_patients(manifest)
    patient, first_rows = number_texts(keys, n)
    pair_rows = [rows_of_records(manifest["record"], pairs[name]) for name in ("record", "copy")]
    pair_patients = [patient[rows] for rows in pair_rows]
    # Only where a copy joins something is there anything to choose between.
    is_joined = np.zeros(len(first_rows), bool)
    is_joined[np.concatenate(pair_patients)] = True
    rows = np.flatnonzero(is_joined[patient])
    rows = rows[_order_of_choice(manifest.iloc[rows], np.asarray(published, float)[rows])]
    recording = _first_of_joined(pair_rows, rows)
    # Patients stand in the order of their first choice of a record.
    patients, first_choice = np.unique(patient[rows], return_index=True)
    patients = patients[np.argsort(first_choice, kind="stable")]
    chosen_patient = _first_of_joined(pair_patients, patients)
    row_of_patient = dict(zip(patients.tolist(), rows[np.sort(first_choice)].tolist(), strict=True))
    chosen_rows = [row_of_patient[chosen_patient[number]] for number in patient[rows].tolist()]
    group = dict(zip(rows.tolist(), keys(chosen_rows), strict=True))
    originals = np.array([recording[row] for row in rows.tolist()], np.int64)
    names = manifest["record"].iloc[originals].to_numpy(object)
    copies = {row: name for row, of, name in zip(rows, originals, names, strict=True) if row != of}
    return column_of_texts(keys, n, group), column_of_texts(empty_texts(n), n, copies)


def _texts_of_patients(table: pd.DataFrame) -> Texts:
    columns = table[["archive", "record_id", "patient_id"]]

    def texts(rows: Any) -> np.ndarray:
        part: pd.DataFrame = columns.iloc[rows]
        return patient_keys(part).to_numpy(object)

    return texts


def _order_of_choice(records: pd.DataFrame, published: np.ndarray) -> np.ndarray:
    """Positions of records, the one to be canonical first."""
    ranks = pd.DataFrame(
        {
            "unpublished": np.isnan(published),
            "unknown": (records["patient_id"] == "").to_numpy(),
            "shortness": -records["n_samples"].to_numpy(),
            "name": records["record"].to_numpy(object),
        }
    )
    return np.asarray(ranks.sort_values(list(ranks.columns)).index)


def _first_of_joined(pairs: Sequence[np.ndarray], order: np.ndarray) -> dict[int, int]:
    """For each element of an order, which of those that pairs join it with comes first in it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = {element: number for number, element in enumerate(order.tolist())}
    ends = [[place[element] for element in side.tolist()] for side in pairs]
    n = len(order)
    edges = coo_array((np.ones(len(ends[0]), np.int8), (ends[0], ends[1])), shape=(n, n))
    component = connected_components(edges, directed=False)[1]
    best = np.unique(component, return_index=True)[1]
    return dict(zip(order.tolist(), order[best[component]].tolist(), strict=True))


# Folds -----------------------------------------------------------------------------------------


def assign_folds(
    manifest: pd.DataFrame, published: np.ndarray | Sequence[float], seed: int
) -> np.ndarray:
    """Give every record the fold of its patient group.

    A group with a published fold takes it; should it have several, the smallest, with a warning.
    All others are dealt per archive, stratified on the labels of the whole group: groups stand in
    the order of their rarest label, then of their labels together, then of a seeded shuffle, and
    go to the ten folds in turn. So no two folds of an archive differ by more than one group, and
    groups with the same labels are spread as evenly as they can be. Time grows as n log n.

    Args:
        manifest: rows with ``archive``, ``patient_group``, ``duplicate_of`` and ``labels``.
        published: ``(n,)`` the archive's own fold per record; NaN where it has none.
        seed: of the shuffle.

    Returns:
        ``(n,)`` int64, 1 to 10.
    """
    name = manifest["patient_group"]
    group, first_rows = number_texts(texts_of(name), len(manifest))
    folds = _published_fold_of_groups(group, len(first_rows), np.asarray(published, float), name)
    del first_rows
    _deal_groups(group_table(manifest, group, len(folds)), folds, seed)
    return taken(folds, group, np.int64)


def _deal_groups(table: pd.DataFrame, folds: np.ndarray, seed: int) -> None:
    """Give a fold to each group of a `group_table` that has none."""
    numbers = np.arange(len(folds), dtype=np.int32)
    table["order"] = np.random.default_rng([seed, 1]).permutation(numbers)
    del numbers
    # Turning on where the archive before it stopped keeps many small archives balanced together.
    turn = 0
    lots = np.random.default_rng([seed, 2]).permutation(N_FOLDS) + 1
    archive = table["archive"].cat.codes.to_numpy()
    for which in range(len(table["archive"].cat.categories)):
        dealt = dealing_order(table.iloc[np.flatnonzero((archive == which) & (folds == 0))])
        folds[dealt] = lots[(turn + np.arange(len(dealt))) % N_FOLDS]
        turn += len(dealt)


def _published_fold_of_groups(
    group: np.ndarray, n_groups: int, published: np.ndarray, name: pd.Series[str]
) -> np.ndarray:
    """The published fold of each group; 0 where it has none."""
    rows = np.flatnonzero(~np.isnan(published))
    lowest, highest = np.full(n_groups, N_FOLDS + 1, np.int8), np.zeros(n_groups, np.int8)
    np.minimum.at(lowest, group[rows], published[rows].astype(np.int8))
    np.maximum.at(highest, group[rows], published[rows].astype(np.int8))
    mixed = np.flatnonzero(lowest < highest)
    if len(mixed):
        log.warning(
            "%d patient groups have records in several published folds (first: %s); "
            "each is put whole into the smallest",
            len(mixed), name.iloc[int(np.argmax(group == mixed[0]))],
        )  # fmt: skip
    return np.where(lowest > N_FOLDS, np.int8(0), lowest)


# Splits ----------------------------------------------------------------------------------------


def fold_split(manifest: pd.DataFrame, fold: int = N_FOLDS) -> dict[str, SplitRecords]:
    """Train, val and test records with one fold as the test.

    The fold before it is the validation split (10 before 1), so that fold 10 gives the usual
    split: 1–8, 9, 10. Duplicates and records without a label are in none.

    Args:
        manifest: rows with ``record``, ``fold``, ``duplicate_of`` and ``labels``.
        fold: 1 to 10.

    Raises:
        SplitError: there is no such fold.
    """
    if not 1 <= fold <= N_FOLDS:
        raise SplitError(f"fold {fold} is not there; use 1 to {N_FOLDS}")
    chosen = masks_of_folds(manifest, [fold])
    return {split: SplitRecords(manifest, rows_where(chosen[split])) for split in SPLITS}


def masks_of_folds(manifest: pd.DataFrame, folds: Sequence[int]) -> dict[str, np.ndarray]:
    """Which records train, validate and test, ``(n,)`` bool each.

    Args:
        folds: that test; the one before the first of them that is not among them validates.
    """
    before = [(folds[0] - 2 - step) % N_FOLDS + 1 for step in range(N_FOLDS)]
    validating = next(fold for fold in before if fold not in folds)
    counted, fold = is_counted(manifest), manifest["fold"].to_numpy()
    test, val = np.logical_or.reduce([fold == one for one in folds]), fold == validating
    return {"train": counted & ~test & ~val, "val": counted & val, "test": counted & test}


def is_counted(manifest: pd.DataFrame) -> np.ndarray:
    """Which records train and score: canonical copies with at least one label, ``(n,)`` bool."""
    lists = manifest["labels"].to_numpy()
    labelled = np.fromiter((len(names) > 0 for names in lists), bool, count=len(lists))
    return np.asarray(labelled & (manifest["duplicate_of"] == "").to_numpy(bool))


def make_splits(
    manifest: pd.DataFrame, *, seed: int, label_set: str, audit: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``splits.json`` holds: the usual split, and what it was made from.

    Args:
        manifest: every stored record.
        seed: that the folds were dealt with.
        label_set: whose labels the manifest carries.
        audit: the duplicate audit's result, see `summarise_audit`.

    Raises:
        SplitError: a patient would be in two splits.
    """
    splits = {"seed": seed, "label_set": label_set, "audit": dict(audit), **fold_split(manifest)}
    check_splits(splits, manifest)
    return splits


def check_splits(splits: Mapping[str, Any], manifest: pd.DataFrame) -> None:
    """Refuse splits that share a patient or a recording, or that belong to another store.

    Raises:
        SplitError: names the first patient or record that is wrong.
    """
    split = _split_of_rows(splits, manifest)
    copies = np.flatnonzero((split >= 0) & (manifest["duplicate_of"] != "").to_numpy(bool))
    if len(copies):
        first = manifest[["record", "duplicate_of"]].iloc[copies[0]]
        raise SplitError(
            f"{first['record']} is a copy of {first['duplicate_of']} and must not be in a split; "
            "run `einthoven prepare` to make the splits again"
        )
    check_patients_disjoint(split, manifest["patient_group"], "patient group")
    split[(manifest["patient_id"] == "").to_numpy(bool)] = -1
    archives, ids = texts_of(manifest["archive"]), texts_of(manifest["patient_id"])
    _check_texts_disjoint(split, lambda rows: archives(rows) + "/" + ids(rows), "patient")


def check_patients_disjoint(
    split: np.ndarray, patient: pd.Series[str], noun: str = "patient"
) -> None:
    """Refuse a patient who is in two splits.

    Args:
        split: ``(n,)`` number of the split in `SPLITS`, per record; below 0 for one in none.
        patient: the patient, per record.
        noun: what to call a patient in the message.

    Raises:
        SplitError: names the first patient of those in two splits, and the splits.
    """
    _check_texts_disjoint(split, texts_of(patient), noun)


def _check_texts_disjoint(split: np.ndarray, patients: Texts, noun: str) -> None:
    number, first_rows = number_texts(patients, len(split))
    is_in = np.zeros((len(first_rows), len(SPLITS)), bool)
    for at in range(len(SPLITS)):
        is_in[number[split == at], at] = True
    shared = np.flatnonzero(is_in.sum(1) > 1)
    if len(shared) == 0:
        return
    places = " and ".join(np.array(SPLITS)[is_in[shared[0]]])
    raise SplitError(
        f"{len(shared)} {noun}s appear in more than one split (first: "
        f"{patients(first_rows[shared[:1]])[0]}, in {places}); run `einthoven prepare` to make the "
        "splits again, by patient"
    )


def _split_of_rows(splits: Mapping[str, Any], manifest: pd.DataFrame) -> np.ndarray:
    """Each stored record's number in `SPLITS`, and -1 for those in none: ``(n,)`` int8."""
    where = np.full(len(manifest), -1, np.int8)
    unknown: list[str] = []
    for number, split in enumerate(SPLITS):
        if split not in splits:
            raise SplitError(f"the splits lack {split!r}; run `einthoven prepare` to remake them")
        rows = rows_in_manifest(manifest, splits[split])
        unknown += [splits[split][position] for position in np.flatnonzero(rows < 0)]
        rows = rows[rows >= 0] if unknown else rows
        before = where[rows]
        where[rows] = number
        if (before >= 0).any() or np.count_nonzero(where == number) < len(rows):
            _refuse_second_listing(rows, before, split, manifest["record"])
    if unknown:
        raise SplitError(
            f"{len(unknown)} records of the splits are not in the store (first: {unknown[0]}); "
            "run `einthoven prepare` to make splits for this store"
        )
    return where


def _refuse_second_listing(
    rows: np.ndarray, before: np.ndarray, split: str, records: pd.Series[str]
) -> None:
    again = np.flatnonzero((before >= 0) | pd.Series(rows).duplicated().to_numpy())[0]
    place = SPLITS[before[again]] if before[again] >= 0 else split
    raise SplitError(
        f"record {records.iloc[rows[again]]} is listed in {place} and in {split}; "
        "run `einthoven prepare` to remake the splits"
    )


# Subsets ---------------------------------------------------------------------------------------


def subset_records(table: pd.DataFrame, n_records: int, seed: int) -> np.ndarray:
    """A seeded subset of whole patients, stratified by archive and fold.

    Every stratum gives its share, and a smaller subset lies within a larger one of the same seed.
    The number of records comes as near below ``n_records`` as whole patients allow, and at least
    one patient is taken.

    Args:
        table: a manifest or a mapping table: rows with ``archive``, ``fold`` (may be NaN), and
            ``patient_group``, or else ``patient_id`` (empty: a patient of its own).
        n_records: how many; 0 or too many takes all.
        seed: of the choice.

    Returns:
        ``(n,)`` int32 positions of the chosen rows, ascending.
    """
    if n_records <= 0 or n_records >= len(table):
        return np.arange(len(table), dtype=np.int32)
    grouped = texts_of(table["patient_group"]) if "patient_group" in table else None
    patient, first_row = number_texts(grouped or _texts_of_patients(table), len(table))
    (archive, archives), (fold, folds) = (
        number_few(column) for column in (table["archive"], table["fold"].fillna(0).astype(int))
    )
    names = [f"{of_archive}/{of_fold}" for of_archive in archives for of_fold in folds]
    pair = archive[first_row].astype(np.int64) * len(folds) + fold[first_row]
    stratum = pd.factorize(np.array(names, object)[pair], sort=True)[0]
    size = np.bincount(patient)
    order = np.random.default_rng([seed, 3]).permutation(len(size))
    order = order[np.argsort(stratum[order], kind="stable")]
    place = _place_within_stratum(stratum[order], size[order])
    by_place = order[np.argsort(place, kind="stable")]
    n_taken = int(np.searchsorted(np.cumsum(size[by_place]), n_records, side="right"))
    is_taken = np.zeros(len(size), bool)
    is_taken[by_place[: max(1, n_taken)]] = True
    return rows_where(is_taken[patient])


def _place_within_stratum(stratum: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Where each patient stands in its stratum, 0 to 1, counted in records; input sorted."""
    total = np.bincount(stratum, weights=size)
    before = np.cumsum(size) - size
    start_of_stratum = np.concatenate([[0], np.cumsum(total)[:-1]])
    return np.asarray((before - start_of_stratum[stratum] + size / 2) / total[stratum])
