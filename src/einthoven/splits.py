"""Patient groups, patient-wise splits, folds for cross-validation, subsets of whole patients.

Every stored record has a fold from 1 to 10. PTB-XL's are its published ones; all other patients
are dealt to folds by their labels. A split is a choice of folds, so that one code serves the usual
split (1–8, 9, 10) and cross-validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.console import log
from einthoven.errors import DataError, SplitError
from einthoven.files import read_json
from einthoven.store import patient_keys

N_FOLDS = 10
SPLITS = ("train", "val", "test")


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
        ``patient_group`` and ``duplicate_of`` (empty for a canonical record), ``(n,)`` each.
    """
    n = len(manifest)
    index = pd.Index(manifest["record"])
    first = index.get_indexer(pd.Index(pairs["record"], dtype=object))
    second = index.get_indexer(pd.Index(pairs["copy"], dtype=object))
    keys = patient_keys(manifest.drop(columns="patient_group", errors="ignore"))
    patient, _ = pd.factorize(keys)
    recording = _components(first, second, n)
    group = _components(patient[first], patient[second], int(patient.max(initial=-1)) + 1)[patient]
    ranks = pd.DataFrame(
        {
            "unpublished": np.isnan(np.asarray(published, float)),
            "unknown": (manifest["patient_id"] == "").to_numpy(),
            "shortness": -manifest["n_samples"].to_numpy(),
            "name": manifest["record"].to_numpy(),
        }
    )
    order = ranks.sort_values(list(ranks.columns)).index.to_numpy()
    canonical = _first_of_each(recording, order)
    names = manifest["record"].to_numpy()
    duplicate_of = np.where(canonical == np.arange(n), "", names[canonical])
    return keys.to_numpy()[_first_of_each(group, order)], duplicate_of


def _components(first: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1])


def _first_of_each(number: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each element, which element of its component comes first in an order."""
    best = np.empty(int(number.max(initial=-1)) + 1, np.int64)
    best[number[order[::-1]]] = order[::-1]
    return np.asarray(best[number])


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
    group, names = pd.factorize(manifest["patient_group"], sort=False)
    folds = _published_fold_of_groups(group, names, np.asarray(published, float))
    table = _group_table(manifest, group, len(names))
    table = table.iloc[np.flatnonzero(folds == 0)]
    shuffled = np.random.default_rng([seed, 1]).permutation(len(names))[table.index.to_numpy()]
    table = table.assign(order=shuffled)
    # Turning on where the archive before it stopped keeps many small archives balanced together.
    turn = 0
    lots = np.random.default_rng([seed, 2]).permutation(N_FOLDS) + 1
    for _, of_archive in table.groupby("archive", sort=True):
        dealt = _dealing_order(of_archive)
        folds[dealt] = lots[(turn + np.arange(len(dealt))) % N_FOLDS]
        turn += len(dealt)
    return np.asarray(folds[group])


def _published_fold_of_groups(
    group: np.ndarray, names: pd.Index[Any], published: np.ndarray
) -> np.ndarray:
    """The published fold of each group; 0 where it has none."""
    known = pd.Series(published).groupby(group).agg(["min", "max"])
    mixed = known.index[(known["min"] != known["max"]) & known["min"].notna()]
    if len(mixed):
        log.warning(
            "%d patient groups have records in several published folds (first: %s); "
            "each is put whole into the smallest",
            len(mixed), names[mixed[0]],
        )  # fmt: skip
    return np.asarray(known["min"].fillna(0), np.int64)


def _group_table(manifest: pd.DataFrame, group: np.ndarray, n_groups: int) -> pd.DataFrame:
    """One row per group: its home archive, its labels as one string, its number of records.

    The labels of duplicates count too: they say of the same patient what another archive says.
    """
    canonical_first = np.argsort(manifest["duplicate_of"].to_numpy() != "", kind="stable")
    archive = np.empty(n_groups, dtype=object)
    archive[group[canonical_first[::-1]]] = manifest["archive"].to_numpy()[canonical_first[::-1]]
    labels: list[set[str]] = [set() for _ in range(n_groups)]
    for number, names in zip(group, manifest["labels"], strict=True):
        labels[number].update(names)
    return pd.DataFrame(
        {
            "archive": archive,
            "labels": [";".join(sorted(names)) for names in labels],
            "n_records": np.bincount(group, minlength=n_groups),
        }
    )


def _dealing_order(groups: pd.DataFrame) -> np.ndarray:
    """Group numbers of one archive: rarest label first, like next to like."""
    split = groups["labels"].str.split(";")
    counts = split.explode().value_counts()
    ranks = {name: rank for rank, name in enumerate(sorted(counts.index, key=_rarity(counts)))}
    last = len(ranks)
    rarest = [min((ranks[name] for name in names if name), default=last) for names in split]
    keyed = groups.assign(rarest=rarest)
    ordered = keyed.sort_values(
        ["rarest", "labels", "n_records", "order"], ascending=[True, True, False, True]
    )
    return np.asarray(ordered.index, np.int64)


def _rarity(counts: pd.Series[int]) -> Any:
    return lambda name: (counts[name], name)


# Splits ----------------------------------------------------------------------------------------


def fold_split(manifest: pd.DataFrame, fold: int = N_FOLDS) -> dict[str, list[str]]:
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
    val = (fold - 2) % N_FOLDS + 1
    counted = is_counted(manifest)
    folds, records = manifest["fold"].to_numpy(), manifest["record"].to_numpy()
    chosen = {"val": folds == val, "test": folds == fold}
    chosen["train"] = ~chosen["val"] & ~chosen["test"]
    return {split: records[counted & chosen[split]].tolist() for split in SPLITS}


def is_counted(manifest: pd.DataFrame) -> np.ndarray:
    """Which records train and score: canonical copies with at least one label, ``(n,)`` bool."""
    labelled = np.array([len(names) > 0 for names in manifest["labels"]], bool)
    return np.asarray(labelled & (manifest["duplicate_of"].to_numpy() == ""))


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


def read_splits(path: Path) -> dict[str, Any]:
    """The splits that `einthoven prepare` made.

    Raises:
        DataError: there are none, or the file is damaged.
    """
    if not path.exists():
        raise DataError(f"{path} is not there; run `einthoven prepare` first")
    splits = read_json(path)
    if not isinstance(splits, dict):
        raise DataError(f"{path} holds no splits; run `einthoven prepare` to remake it")
    return splits


def check_splits(splits: Mapping[str, Any], manifest: pd.DataFrame) -> None:
    """Refuse splits that share a patient or a recording, or that belong to another store.

    Raises:
        SplitError: names the first patient or record that is wrong.
    """
    where = _split_of_records(splits)
    position = pd.Index(manifest["record"]).get_indexer(pd.Index(list(where), dtype=object))
    if (position < 0).any():
        unknown = list(where)[int(np.argmin(position))]
        raise SplitError(
            f"{int((position < 0).sum())} records of the splits are not in the store (first: "
            f"{unknown}); run `einthoven prepare` to make splits for this store"
        )
    rows = manifest.iloc[position]
    if (rows["duplicate_of"] != "").any():
        first = rows[rows["duplicate_of"] != ""].iloc[0]
        raise SplitError(
            f"{first['record']} is a copy of {first['duplicate_of']} and must not be in a split; "
            "run `einthoven prepare` to make the splits again"
        )
    split = np.array(list(where.values()), dtype=object)
    check_patients_disjoint(split, rows["patient_group"], "patient group")
    has_id = (rows["patient_id"] != "").to_numpy()
    named = rows["archive"] + "/" + rows["patient_id"].astype(str)
    check_patients_disjoint(split[has_id], named[has_id], "patient")


def check_patients_disjoint(
    split: np.ndarray | Sequence[str], patient: Iterable[str], noun: str = "patient"
) -> None:
    """Refuse a patient who is in two splits.

    Args:
        split: name of the split, per record.
        patient: the patient, per record.
        noun: what to call a patient in the message.

    Raises:
        SplitError: names the first patient of those in two splits, and the splits.
    """
    table = pd.DataFrame({"split": np.asarray(split, dtype=object), "patient": list(patient)})
    pairs = table.drop_duplicates()
    shared = pairs["patient"][pairs["patient"].duplicated()].drop_duplicates()
    if len(shared) == 0:
        return
    first = shared.iloc[0]
    places = " and ".join(pairs["split"][pairs["patient"] == first])
    raise SplitError(
        f"{len(shared)} {noun}s appear in more than one split (first: {first}, in {places}); "
        "run `einthoven prepare` to make the splits again, by patient"
    )


def _split_of_records(splits: Mapping[str, Any]) -> dict[str, str]:
    where: dict[str, str] = {}
    for split in SPLITS:
        if split not in splits:
            raise SplitError(f"the splits lack {split!r}; run `einthoven prepare` to remake them")
        for record in splits[split]:
            if record in where:
                raise SplitError(
                    f"record {record} is listed in {where[record]} and in {split}; "
                    "run `einthoven prepare` to remake the splits"
                )
            where[record] = split
    return where


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
        Positions of the chosen rows, ascending.
    """
    if n_records <= 0 or n_records >= len(table):
        return np.arange(len(table))
    patient, _ = pd.factorize(patient_keys(table), sort=False)
    fold = table["fold"].fillna(0).astype(int).astype(str)
    stratum_name = table["archive"].astype(str) + "/" + fold
    stratum_of_row, _ = pd.factorize(stratum_name, sort=True)
    first_row = np.unique(patient, return_index=True)[1]
    stratum, size = stratum_of_row[first_row], np.bincount(patient)
    order = np.random.default_rng([seed, 3]).permutation(len(size))
    order = order[np.argsort(stratum[order], kind="stable")]
    place = _place_within_stratum(stratum[order], size[order])
    by_place = order[np.argsort(place, kind="stable")]
    n_taken = int(np.searchsorted(np.cumsum(size[by_place]), n_records, side="right"))
    taken = np.zeros(len(size), bool)
    taken[by_place[: max(1, n_taken)]] = True
    return np.flatnonzero(taken[patient])


def _place_within_stratum(stratum: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Where each patient stands in its stratum, 0 to 1, counted in records; input sorted."""
    total = np.bincount(stratum, weights=size)
    before = np.cumsum(size) - size
    start_of_stratum = np.concatenate([[0], np.cumsum(total)[:-1]])
    return np.asarray((before - start_of_stratum[stratum] + size / 2) / total[stratum])
