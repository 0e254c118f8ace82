"""Patient groups, patient-wise splits, folds for cross-validation, subsets of whole patients.

Every stored record has a fold from 1 to 10. PTB-XL's are its published ones; all other patients
are dealt to folds by their labels. A split is a choice of folds, so that one code serves the usual
split (1–8, 9, 10) and cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.compute import index_in

from einthoven.console import log
from einthoven.errors import DataError, SplitError
from einthoven.files import read_json
from einthoven.store import patient_keys

N_FOLDS = 10
RECORDS_PER_PIECE = 4096
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
    table = group_table(manifest, group, len(names))
    table = table.iloc[np.flatnonzero(folds == 0)]
    shuffled = np.random.default_rng([seed, 1]).permutation(len(names))[table.index.to_numpy()]
    table = table.assign(order=shuffled)
    # Turning on where the archive before it stopped keeps many small archives balanced together.
    turn = 0
    lots = np.random.default_rng([seed, 2]).permutation(N_FOLDS) + 1
    for _, of_archive in table.groupby("archive", sort=True):
        dealt = dealing_order(of_archive)
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


def group_table(manifest: pd.DataFrame, group: np.ndarray, n_groups: int) -> pd.DataFrame:
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


def dealing_order(groups: pd.DataFrame) -> np.ndarray:
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
    chosen, records = masks_of_folds(manifest, [fold]), manifest["record"].to_numpy()
    return {split: records[chosen[split]].tolist() for split in SPLITS}


def masks_of_folds(manifest: pd.DataFrame, folds: Sequence[int]) -> dict[str, np.ndarray]:
    """Which records train, validate and test, ``(n,)`` bool each.

    Args:
        folds: that test; the one before the first of them that is not among them validates.
    """
    before = [(folds[0] - 2 - step) % N_FOLDS + 1 for step in range(N_FOLDS)]
    validating = next(fold for fold in before if fold not in folds)
    counted, fold = is_counted(manifest), manifest["fold"].to_numpy()
    test, val = np.isin(fold, folds), fold == validating
    return {"train": counted & ~test & ~val, "val": counted & val, "test": counted & test}


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
    split = _split_of_rows(splits, manifest["record"])
    rows = np.flatnonzero(split >= 0)
    copies = rows[(manifest["duplicate_of"] != "").to_numpy(bool)[rows]]
    if len(copies):
        first = manifest.iloc[copies[0]]
        raise SplitError(
            f"{first['record']} is a copy of {first['duplicate_of']} and must not be in a split; "
            "run `einthoven prepare` to make the splits again"
        )
    check_patients_disjoint(split[rows], manifest["patient_group"].iloc[rows], "patient group")
    named = rows[(manifest["patient_id"] != "").to_numpy(bool)[rows]]
    archives, ids = (manifest[name].iloc[named].astype(str) for name in ("archive", "patient_id"))
    check_patients_disjoint(split[named], archives + "/" + ids, "patient")


def check_patients_disjoint(
    split: np.ndarray, patient: pd.Series[str], noun: str = "patient"
) -> None:
    """Refuse a patient who is in two splits.

    Args:
        split: ``(n,)`` number of the split in `SPLITS`, per record.
        patient: the patient, per record.
        noun: what to call a patient in the message.

    Raises:
        SplitError: names the first patient of those in two splits, and the splits.
    """
    number, names = pd.factorize(patient)
    is_in = np.zeros((len(names), len(SPLITS)), bool)
    is_in[number, split] = True
    shared = np.flatnonzero(is_in.sum(1) > 1)
    if len(shared) == 0:
        return
    first = shared[0]
    places = " and ".join(np.array(SPLITS)[is_in[first]])
    raise SplitError(
        f"{len(shared)} {noun}s appear in more than one split (first: {names[first]}, in "
        f"{places}); run `einthoven prepare` to make the splits again, by patient"
    )


def _split_of_rows(splits: Mapping[str, Any], records: pd.Series[str]) -> np.ndarray:
    """Each stored record's number in `SPLITS`, and -1 for those in none: ``(n,)`` int8."""
    where = np.full(len(records), -1, np.int8)
    unknown: list[str] = []
    for number, split in enumerate(SPLITS):
        if split not in splits:
            raise SplitError(f"the splits lack {split!r}; run `einthoven prepare` to remake them")
        rows = rows_of_records(records, splits[split])
        unknown += [splits[split][position] for position in np.flatnonzero(rows < 0)]
        rows = rows[rows >= 0]
        again = rows[(where[rows] >= 0) | pd.Series(rows).duplicated().to_numpy()]
        if len(again):
            before = SPLITS[where[again[0]]] if where[again[0]] >= 0 else split
            raise SplitError(
                f"record {records.iloc[again[0]]} is listed in {before} and in {split}; "
                "run `einthoven prepare` to remake the splits"
            )
        where[rows] = number
    if unknown:
        raise SplitError(
            f"{len(unknown)} records of the splits are not in the store (first: {unknown[0]}); "
            "run `einthoven prepare` to make splits for this store"
        )
    return where


def rows_of_records(records: pd.Series[str], names: Sequence[str]) -> np.ndarray:
    """The row of each named record, -1 for those that are not there: ``(n,)`` int32.

    Through Arrow, which looks a million names up without making an object of each.
    """
    kind = pa.large_string()
    found = index_in(pa.array(names, kind), value_set=pa.array(records, kind))
    rows = np.array(found.fill_null(-1), np.int32)
    del found
    pa.default_memory_pool().release_unused()
    return rows


def tell_records(manifest: pd.DataFrame, rows: np.ndarray) -> Iterator[str]:
    """A JSON list of records and their labels, in pieces: as a whole it is larger than they are."""
    columns = manifest[["record", "labels"]]
    yield "["
    for start in range(0, len(rows), RECORDS_PER_PIECE):
        piece = columns.iloc[rows[start : start + RECORDS_PER_PIECE]]
        told = [[str(r), list(labels)] for r, labels in piece.itertuples(index=False)]
        yield (", " if start else "") + json.dumps(told)[1:-1]
    yield "]"


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
