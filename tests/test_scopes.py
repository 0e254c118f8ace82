"""Which records an evaluation is of."""

from pathlib import Path

import numpy as np
import pytest
from stores import write_tiny_store

from einthoven.errors import DataError
from einthoven.files import Workspace
from einthoven.scopes import (
    USUAL_SCOPE,
    Scope,
    count_of_patients,
    metrics_path,
    rows_in_scope,
    split_rows,
)
from einthoven.split_records import rows_of_records
from einthoven.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_tiny_store(tmp_path, n_records=100)


def splits_of(store: Store) -> dict[str, np.ndarray]:
    from einthoven.splits import fold_split

    listed = fold_split(store.manifest)
    chosen = {name: rows_of_records(store.manifest["record"], listed[name]) for name in listed}
    return split_rows(store, chosen, split_seed=0)


def test_the_halves_make_up_the_validation_split_and_share_nobody(store: Store) -> None:
    splits = splits_of(store)
    halves = np.concatenate([splits["selection"], splits["calibration"]])
    assert sorted(halves) == sorted(splits["validation"])
    assert len(splits["selection"]) == len(splits["calibration"]) == 5


@pytest.mark.parametrize(
    ("scope", "folds"),
    [
        (Scope("test"), {10}), (Scope("validation"), {9}), (Scope("train"), set(range(1, 9))),
        (Scope("all"), set(range(1, 11))), (Scope(fold=3), {3}),
    ],
)  # fmt: skip
def test_a_scope_is_the_records_that_it_names(store: Store, scope: Scope, folds: set[int]) -> None:
    rows = rows_in_scope(scope, store, splits_of(store))
    assert set(store.manifest["fold"].iloc[rows]) == folds


def test_records_without_a_label_and_copies_are_in_no_scope(store: Store) -> None:
    store.manifest.at[2, "labels"] = []
    store.manifest.loc[12, "duplicate_of"] = "tiny/r000"
    rows = rows_in_scope(Scope(fold=3), store, splits_of(store))
    assert not {2, 12} & set(rows.tolist()) and len(rows) == 8


def test_an_unknown_archive_gets_the_nearest_name(store: Store) -> None:
    with pytest.raises(DataError, match="no archive 'tinny'; it has tiny; did you mean tiny"):
        rows_in_scope(Scope(archive="tinny"), store, splits_of(store))


def test_a_scope_without_a_record_is_refused(store: Store) -> None:
    store.manifest["labels"] = [[] for _ in range(100)]
    with pytest.raises(
        DataError, match="fold_3 has no labelled record; of the store's 100 records 0 have"
    ):
        rows_in_scope(Scope(fold=3), store, {})


def test_records_of_trained_patients_are_counted(store: Store) -> None:
    store.manifest.loc[9, "patient_group"] = store.manifest.loc[0, "patient_group"]
    splits = splits_of(store)
    assert count_of_patients(store, np.array([9, 19]), splits["train"]) == 1


def test_only_the_usual_scope_writes_beside_the_model(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert metrics_path(workspace) == workspace.checkpoints_dir / "test_metrics.json"
    path = metrics_path(workspace, Scope(fold=3, archive="ptb-xl"))
    assert path == workspace.checkpoints_dir / "evaluations" / "fold_3-ptb-xl" / "metrics.json"
    assert USUAL_SCOPE.is_usual and not Scope("train").is_usual


def test_no_two_scopes_share_a_folder() -> None:
    scopes = [
        Scope(), Scope("train"), Scope(archive="a-b"), Scope(archive="a_b"), Scope(archive="a b"),
        Scope(external=Path("/x/hospital")), Scope(external=Path("/y/hospital")),
        Scope(model=Path("/a/best_model.pth")), Scope(model=Path("/b/best_model.pth")),
    ]  # fmt: skip
    assert len({scope.name for scope in scopes}) == len(scopes)
    assert len({str(scope.places()) for scope in scopes}) == len(scopes)


def test_a_calibration_half_that_is_not_there_is_told_as_such(store: Store) -> None:
    splits = splits_of(store) | {"calibration": np.zeros(0, np.int64)}
    with pytest.raises(DataError, match="the validation split has no calibration half"):
        rows_in_scope(Scope("calibration"), store, splits)


def test_results_do_not_tell_where_an_external_folder_lies() -> None:
    told = Scope(external=Path("/home/somebody/hospital")).values()
    assert told["external"] == "hospital" and "somebody" not in str(told)
    told = Scope(model=Path("/home/somebody/wide/best_model.pth")).values()
    assert told["model"] == "wide/best_model.pth"
