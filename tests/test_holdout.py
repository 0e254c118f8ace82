"""Other test splits than the usual one, and the two halves of the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import SplitError
from einthoven.holdout import halve_records, hold_out_records
from einthoven.splits import fold_split

FOLDS = range(1, 11)


def some_manifest(archives: Mapping[str, int], n_per_patient: int = 2) -> pd.DataFrame:
    """Patients of two records each, ten folds, labels MI and NORM."""
    rows = [
        {
            "record": f"{archive}/{number:03d}",
            "archive": archive,
            "patient_group": f"{archive}/p{number // n_per_patient}",
            "fold": number // n_per_patient % 10 + 1,
            "duplicate_of": "",
            "labels": ["MI"] if number // n_per_patient % 3 == 0 else ["NORM"],
        }
        for archive, n in archives.items()
        for number in range(n)
    ]
    return pd.DataFrame(rows)


def change(manifest: pd.DataFrame, record: str, **values: Any) -> None:
    row = manifest.index[manifest["record"] == record][0]
    for name, value in values.items():
        manifest.at[row, name] = value


def copied_manifest() -> pd.DataFrame:
    """``b/000`` is a recording that ``a`` has too, where it is the canonical one."""
    manifest = some_manifest({"a": 40, "b": 40})
    change(manifest, "b/000", duplicate_of="a/000")
    for record in ("b/000", "b/001"):
        change(manifest, record, patient_group="a/p0")
    return manifest


def groups_of(manifest: pd.DataFrame, records: list[str]) -> set[str]:
    return set(manifest["patient_group"][manifest["record"].isin(records)])


# Folds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", FOLDS)
def test_one_fold_held_out_is_the_split_of_that_fold(fold: int) -> None:
    manifest = some_manifest({"a": 60, "b": 50})
    assert hold_out_records(manifest, str(fold)) == fold_split(manifest, fold)


@pytest.mark.parametrize(
    ("hold_out", "validating"), [("1,6", 10), (" 6, 5 ", 4), ("1,10", 9), ("10", 9), ("3,3", 2)]
)
def test_the_fold_before_the_first_that_is_held_out_validates(
    hold_out: str, validating: int
) -> None:
    manifest = some_manifest({"a": 60})
    splits = hold_out_records(manifest, hold_out)
    fold = manifest.set_index("record")["fold"]
    assert set(fold[splits["test"]]) == {int(word) for word in hold_out.split(",")}
    assert set(fold[splits["val"]]) == {validating}
    assert sorted(chain(*splits.values())) == sorted(manifest["record"])


def test_copies_and_unlabelled_records_are_in_no_split_of_folds() -> None:
    manifest = copied_manifest()
    change(manifest, "a/005", labels=[])
    everywhere = {*chain(*hold_out_records(manifest, "1,2").values())}
    assert "b/000" not in everywhere and "a/005" not in everywhere and "a/000" in everywhere


@pytest.mark.parametrize("hold_out", ["0", "11", "3,12", "1,2,3,4,5,6,7,8,9"])
def test_folds_that_cannot_be_held_out_are_refused(hold_out: str) -> None:
    with pytest.raises(SplitError, match="use folds from 1 to 10, and 8 of them at most"):
        hold_out_records(some_manifest({"a": 60}), hold_out)


@pytest.mark.parametrize(
    ("hold_out", "gone", "purpose"), [("3", 3, "test"), ("4", 3, "validate on")]
)
def test_an_empty_split_is_refused_before_anything_is_trained(
    hold_out: str, gone: int, purpose: str
) -> None:
    manifest = some_manifest({"a": 60})
    manifest["labels"] = [
        [] if fold == gone else labels
        for fold, labels in zip(manifest["fold"], manifest["labels"], strict=True)
    ]
    with pytest.raises(SplitError, match=f"leaves no labelled record to {purpose}"):
        hold_out_records(manifest, hold_out)


# Archives ----------------------------------------------------------------------------------------


def test_no_patient_of_a_held_out_archive_is_trained_on() -> None:
    manifest = copied_manifest()
    for archive, other in (("a", "b"), ("b", "a")):
        splits = hold_out_records(manifest, archive)
        held_out = groups_of(manifest, manifest["record"][manifest["archive"] == archive].tolist())
        used = splits["train"] + splits["val"]
        assert not held_out & groups_of(manifest, used)
        assert all(record.startswith(f"{other}/") for record in used)


def test_a_recording_is_tested_in_its_archive_though_its_canonical_copy_is_elsewhere() -> None:
    splits = hold_out_records(copied_manifest(), "b")
    assert len(splits["test"]) == 40 and "b/000" in splits["test"]
    # Neither the copy's twin in the other archive nor anything else of that patient trains.
    assert not {"a/000", "a/001"} & set(splits["train"] + splits["val"])


def test_a_recording_that_an_archive_holds_twice_is_tested_once_by_its_canonical_copy() -> None:
    manifest = some_manifest({"a": 40, "b": 40})
    change(manifest, "b/002", duplicate_of="b/003")
    splits = hold_out_records(manifest, "b")
    assert "b/003" in splits["test"] and "b/002" not in splits["test"]
    assert len(splits["test"]) == 39


def test_a_canonical_copy_without_a_label_leaves_the_test_to_the_other_one() -> None:
    manifest = some_manifest({"a": 40, "b": 40})
    change(manifest, "b/002", duplicate_of="b/003")
    change(manifest, "b/003", labels=[])
    splits = hold_out_records(manifest, "b")
    assert "b/002" in splits["test"] and "b/003" not in splits["test"]


def test_fold_nine_of_the_other_archives_validates_and_fold_ten_trains() -> None:
    manifest = some_manifest({"a": 60, "b": 60})
    splits = hold_out_records(manifest, "b")
    fold = manifest.set_index("record")["fold"]
    assert set(fold[splits["val"]]) == {9}
    assert set(fold[splits["train"]]) == {*range(1, 9), 10}


def test_an_unknown_archive_names_the_known_ones() -> None:
    manifest = some_manifest({"ptb-xl": 40, "sph": 40})
    with pytest.raises(SplitError, match=r"it has ptb-xl, sph; did you mean ptb-xl\?"):
        hold_out_records(manifest, "ptbxl")


def test_the_only_archive_cannot_be_held_out() -> None:
    with pytest.raises(SplitError, match="leaves no labelled record to train on"):
        hold_out_records(some_manifest({"a": 40}), "a")


def test_an_archive_without_a_label_cannot_be_tested_on() -> None:
    manifest = some_manifest({"a": 40, "b": 40})
    manifest["labels"] = [
        labels if archive == "a" else []
        for archive, labels in zip(manifest["archive"], manifest["labels"], strict=True)
    ]
    with pytest.raises(SplitError, match="HOLD_OUT is b, which leaves no labelled record to test"):
        hold_out_records(manifest, "b")


def test_an_archive_named_like_a_year_can_be_held_out() -> None:
    splits = hold_out_records(some_manifest({"2017": 40, "b": 40}), "2017")
    assert splits["test"] == [f"2017/{number:03d}" for number in range(40)]


# Halves ------------------------------------------------------------------------------------------


def test_halves_share_no_patient_and_lose_no_record() -> None:
    manifest = some_manifest({"a": 60, "b": 40}, n_per_patient=3)
    rows = np.flatnonzero(manifest["fold"].to_numpy() <= 4)
    first, second = halve_records(manifest, rows, 0)
    assert sorted([*first, *second]) == rows.tolist()
    group = manifest["patient_group"].to_numpy()
    assert not set(group[first]) & set(group[second])


def test_halves_are_alike_in_archives_and_labels() -> None:
    manifest = some_manifest({"a": 240, "b": 122, "c": 42})
    halves = halve_records(manifest, np.arange(len(manifest)), 0)
    for archive in "abc":
        for label in ("MI", "NORM"):
            is_such = (manifest["archive"] == archive) & (manifest["labels"].str[0] == label)
            n_first, n_second = (int(is_such.iloc[half].sum()) for half in halves)
            assert abs(n_first - n_second) <= 2, (archive, label)


def test_halves_depend_on_the_seed_alone() -> None:
    manifest = some_manifest({"a": 80})
    rows = np.arange(len(manifest))
    first, again, other = (halve_records(manifest, rows, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_one_patient_leaves_the_second_half_empty() -> None:
    manifest = some_manifest({"a": 6}, n_per_patient=6)
    first, second = halve_records(manifest, np.arange(6), 0)
    assert first.tolist() == list(range(6)) and len(second) == 0


def test_no_record_makes_two_empty_halves() -> None:
    halves = halve_records(some_manifest({"a": 6}), np.zeros(0, np.int64), 0)
    assert [len(half) for half in halves] == [0, 0]
