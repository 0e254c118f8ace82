from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import DataError, SplitError
from einthoven.split_records import read_splits
from einthoven.splits import (
    assign_folds,
    check_splits,
    fold_split,
    group_patients,
    make_splits,
    subset_records,
)

LABELS = {"common": 0.6, "middling": 0.3, "rare": 0.1}


def make_manifest(n_patients=500, archive="own", seed=0):
    """Patients with one to four records, each with labels at the rates above."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    carried = rng.random((len(patient), 3)) < list(LABELS.values())
    return pd.DataFrame(
        {
            "record": [f"{archive}/r{n}" for n in range(len(patient))],
            "archive": archive,
            "record_id": [f"r{n}" for n in range(len(patient))],
            "patient_id": [f"p{n}" for n in patient],
            "patient_group": [f"{archive}/p{n}" for n in patient],
            "duplicate_of": "",
            "labels": [[n for n, c in zip(LABELS, row, strict=True) if c] for row in carried],
        }
    )


def with_folds(manifest, seed=0, published=None):
    published = np.full(len(manifest), np.nan) if published is None else published
    return manifest.assign(fold=assign_folds(manifest, published, seed))


def test_no_patient_crosses_splits():
    manifest = with_folds(make_manifest())
    splits = fold_split(manifest)
    groups = manifest.set_index("record")["patient_group"]
    train, val, test = (set(groups[splits[name]]) for name in ("train", "val", "test"))
    assert not (train & val or train & test or val & test)
    assert set().union(*splits.values()) == set(
        manifest["record"][manifest["labels"].str.len() > 0]
    )


def test_folds_hold_the_same_number_of_patients_to_one():
    manifest = with_folds(make_manifest(n_patients=503))
    counts = manifest.drop_duplicates("patient_group")["fold"].value_counts()
    assert counts.max() - counts.min() <= 1 and len(counts) == 10


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_spread_evenly_over_folds(label):
    manifest = with_folds(make_manifest(n_patients=1000))
    groups = manifest.explode("labels")
    carrying = groups[groups["labels"] == label].drop_duplicates("patient_group")
    counts = carrying["fold"].value_counts().reindex(range(1, 11), fill_value=0)
    # Dealing at random would spread a label of n patients by about the square root of n / 10.
    assert counts.max() - counts.min() <= 5


def test_folds_are_the_same_for_one_seed_and_others_for_another():
    manifest = make_manifest()
    first, again, other = (with_folds(manifest, seed)["fold"] for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_published_folds_are_kept_and_their_group_follows():
    manifest = make_manifest(n_patients=50)
    published = np.where(manifest["patient_group"] == "own/p7", 10, np.nan)
    published[np.flatnonzero(published == 10)[1:]] = np.nan
    folds = with_folds(manifest, published=published)["fold"]
    assert set(folds[manifest["patient_group"] == "own/p7"]) == {10}


def test_group_with_several_published_folds_goes_whole_into_the_smallest(caplog):
    manifest = make_manifest(n_patients=5).iloc[:2].assign(patient_group="g")
    assert assign_folds(manifest, [7, 4], 0).tolist() == [4, 4]
    assert "several published folds (first: g)" in caplog.text


def test_archive_of_six_records_is_dealt():
    folds = with_folds(make_manifest(n_patients=6).drop_duplicates("patient_group"))["fold"]
    assert folds.between(1, 10).all() and folds.is_unique


def test_many_tiny_archives_fill_all_folds_together():
    parts = [make_manifest(n_patients=3, archive=f"a{n}") for n in range(10)]
    manifest = with_folds(pd.concat(parts, ignore_index=True))
    counts = manifest.drop_duplicates("patient_group")["fold"].value_counts()
    assert (counts == 3).all() and len(counts) == 10


def test_fold_ten_is_the_usual_split():
    manifest = with_folds(make_manifest())
    folds = manifest.set_index("record")["fold"]
    splits = fold_split(manifest, 10)
    assert [sorted(set(folds[splits[name]])) for name in ("train", "val", "test")] == [
        list(range(1, 9)), [9], [10],
    ]  # fmt: skip


def test_cross_validation_tests_every_record_once():
    manifest = with_folds(make_manifest(n_patients=60))
    tested = [record for fold in range(1, 11) for record in fold_split(manifest, fold)["test"]]
    validated = [record for fold in range(1, 11) for record in fold_split(manifest, fold)["val"]]
    labelled = sorted(manifest["record"][manifest["labels"].str.len() > 0])
    assert sorted(tested) == sorted(validated) == labelled


def test_fold_that_is_not_there_is_refused():
    with pytest.raises(SplitError, match="fold 11"):
        fold_split(with_folds(make_manifest(10)), 11)


def test_duplicates_and_unlabelled_records_are_in_no_split():
    manifest = with_folds(make_manifest(n_patients=60))
    manifest.loc[0, "duplicate_of"] = manifest["record"][1]
    manifest.at[2, "labels"] = []
    listed = set().union(*fold_split(manifest).values())
    assert not listed & {manifest["record"][0], manifest["record"][2]}


def test_split_names_the_patient_it_leaks():
    manifest = with_folds(make_manifest(n_patients=60))
    splits = make_splits(manifest, seed=0, label_set="five", audit={})
    several = manifest[manifest["record"].isin(splits["train"])]
    twice = several[several["patient_group"].duplicated()].iloc[0]
    splits["train"].remove(twice["record"])
    splits["test"].append(twice["record"])
    with pytest.raises(SplitError, match=f"first: {twice['patient_group']}, in train and test"):
        check_splits(splits, manifest)


def test_split_with_a_duplicate_names_it():
    manifest = with_folds(make_manifest(n_patients=60))
    splits = make_splits(manifest, seed=0, label_set="five", audit={})
    record = splits["train"][0]
    manifest.loc[manifest["record"] == record, "duplicate_of"] = "own/r1"
    with pytest.raises(SplitError, match=f"{record} is a copy of own/r1"):
        check_splits(splits, manifest)


def test_splits_of_another_store_are_refused():
    manifest = with_folds(make_manifest(n_patients=60))
    splits = make_splits(manifest, seed=0, label_set="five", audit={})
    with pytest.raises(SplitError, match="not in the store"):
        check_splits(splits, manifest.iloc[:20])


def test_record_listed_twice_is_refused():
    manifest = with_folds(make_manifest(n_patients=60))
    splits = fold_split(manifest)
    splits["val"].append(splits["train"][0])
    with pytest.raises(SplitError, match="is listed in train and in val"):
        check_splits(splits, manifest)


def test_absent_splits_say_what_to_run(tmp_path):
    with pytest.raises(DataError, match="run `einthoven prepare` first"):
        read_splits(tmp_path / "splits.json")


# Patient groups --------------------------------------------------------------------------------


def manifest_of_records(rows):
    columns = ["archive", "record_id", "patient_id", "n_samples"]
    manifest = pd.DataFrame(rows, columns=columns)
    return manifest.assign(record=manifest["archive"] + "/" + manifest["record_id"])


def test_copy_joins_the_patients_of_both_archives_and_the_published_one_is_canonical():
    manifest = manifest_of_records(
        [
            ("challenge", "c1", "", 1000),
            ("challenge", "c2", "", 1000),
            ("ptb-xl", "1", "p1", 900),
            ("ptb-xl", "2", "p1", 1000),
            ("ptb-xl", "3", "p2", 1000),
        ]
    )
    pairs = pd.DataFrame({"record": ["challenge/c1"], "copy": ["ptb-xl/1"]})
    published = np.array([np.nan, np.nan, 3, 3, 4])
    group, duplicate_of = group_patients(manifest, published, pairs)
    assert group.tolist() == [
        "ptb-xl/p1", "challenge/record c2", "ptb-xl/p1", "ptb-xl/p1", "ptb-xl/p2",
    ]  # fmt: skip
    assert duplicate_of.tolist() == ["ptb-xl/1", "", "", "", ""]


def test_longer_copy_is_canonical_then_the_first_by_name():
    manifest = manifest_of_records(
        [("b", "1", "", 900), ("a", "1", "", 900), ("c", "1", "", 1000), ("d", "1", "", 5)]
    )
    pairs = pd.DataFrame({"record": ["a/1", "a/1"], "copy": ["b/1", "c/1"]})
    _, duplicate_of = group_patients(manifest, np.full(4, np.nan), pairs)
    assert duplicate_of.tolist() == ["c/1", "c/1", "", ""]
    _, duplicate_of = group_patients(manifest, np.full(4, np.nan), pairs.iloc[:1])
    assert duplicate_of.tolist() == ["a/1", "", "", ""]


def test_no_pairs_leave_every_patient_alone():
    manifest = manifest_of_records([("a", "1", "p", 9), ("a", "2", "p", 9), ("a", "3", "", 9)])
    none = pd.DataFrame({"record": [], "copy": []}, dtype=object)
    group, duplicate_of = group_patients(manifest, np.full(3, np.nan), none)
    assert group.tolist() == ["a/p", "a/p", "a/record 3"]
    assert not any(duplicate_of)


# Subsets ---------------------------------------------------------------------------------------


def test_subset_takes_whole_patients_from_every_stratum_by_share():
    parts = [make_manifest(400, "large"), make_manifest(100, "small")]
    manifest = with_folds(pd.concat(parts, ignore_index=True))
    chosen = subset_records(manifest, 250, seed=1)
    taken = manifest.iloc[chosen]
    left = manifest.drop(index=chosen)
    assert 244 <= len(taken) <= 250
    assert not set(taken["patient_group"]) & set(left["patient_group"])
    share = len(taken) / len(manifest)
    by_stratum = taken.groupby(["archive", "fold"]).size()
    expected = manifest.groupby(["archive", "fold"]).size() * share
    assert (by_stratum.reindex(expected.index, fill_value=0) - expected).abs().max() <= 4


def test_smaller_subset_lies_within_a_larger_one():
    manifest = with_folds(make_manifest())
    small, large = (set(subset_records(manifest, n, seed=1)) for n in (50, 300))
    assert small < large


def test_subset_of_everything_is_everything():
    manifest = with_folds(make_manifest(n_patients=9))
    everything = list(range(len(manifest)))
    assert subset_records(manifest, 0, 0).tolist() == everything
    assert subset_records(manifest, 10_000, 0).tolist() == everything


def test_subset_of_a_mapping_treats_unknown_patients_as_patients_of_their_own():
    mapping = make_manifest(n_patients=40).drop(columns="patient_group").assign(fold=np.nan)
    mapping["patient_id"] = ""
    assert len(subset_records(mapping, 20, 0)) == 20
