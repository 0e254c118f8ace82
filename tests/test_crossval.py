"""Cross-validation: parts held out in turn, resumable, with one prediction for every record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stores import N_SAMPLES, write_tiny_store

from einthoven import crossval, evaluation
from einthoven.comparison.scored_runs import read_predictions, resolve_run
from einthoven.crossval import (
    check_out_of_fold,
    cross_validate,
    crossval_summary,
    mean_over_parts,
    parts_of_folds,
    run_name_without,
)
from einthoven.errors import CheckpointError, ConfigError, DataError, RunStopped
from einthoven.files import Workspace, read_json, write_json, write_parquet
from einthoven.labels.sets import load_label_set
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.runs import chosen_records, run_splits
from einthoven.scoring import Predictions, score_split
from einthoven.settings import Settings
from einthoven.splits import fold_split, is_counted
from einthoven.store import label_matrix, open_store

LABELS = load_label_set("five").labels


def tiny_settings(root: Path, **changes: Any) -> Settings:
    usual = {
        "epochs": 2, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": N_SAMPLES,
        "lr": 0.003, "device": "cpu", "tracking": "none", "model_name": "resnet1d_wang",
        "bootstrap_resamples": 100, "folds": 2,
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def write_store(
    root: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda manifest: manifest,
    n_records: int = 80,
) -> None:
    """A tiny store, with its manifest changed and its splits made again."""
    store = write_tiny_store(root, n_records)
    manifest = change(store.manifest.copy())
    workspace = Workspace(root)
    write_parquet(workspace.manifest_path, manifest)
    splits = read_json(workspace.splits_path) | fold_split(manifest)
    write_json(workspace.splits_path, splits)


def with_archives(counts: Mapping[str, int]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Deal the records of a tiny store to archives of these sizes."""

    def change(manifest: pd.DataFrame) -> pd.DataFrame:
        names = np.repeat(list(counts), list(counts.values()))
        ids = [f"r{number:03d}" for number in range(len(names))]
        records = [f"{name}/{own}" for name, own in zip(names, ids, strict=True)]
        return manifest.assign(
            archive=names, record_id=ids, patient_id=ids, record=records, patient_group=records
        )

    return change


class FakeRuns:
    """Training that takes no time and a model that knows the truth, but for some noise."""

    def __init__(self, failing: str = "") -> None:
        self.trained: list[str] = []
        self.failing = failing

    def train(self, settings: Settings, origins: Mapping[str, str]) -> None:
        if self.failing and self.failing in settings.run_name:
            raise DataError("its training diverged")
        assert origins["hold_out"] == "crossval"
        self.trained.append(settings.run_name)

    def evaluate(self, settings: Settings) -> dict[str, Any]:
        store = open_store(settings.workspace)
        rows = chosen_records(settings, store, run_splits(settings, store))["test"]
        manifest = store.manifest.iloc[rows]
        targets = label_matrix(manifest, LABELS)
        odds = np.exp(2 * targets + np.random.default_rng(len(rows)).normal(size=targets.shape))
        shares = odds / odds.sum(axis=1, keepdims=True)
        decisions = np.eye(len(LABELS), dtype=np.uint8)[shares.argmax(axis=1)]
        names = ("record", "patient_group", "archive")
        table = manifest[list(names)].assign(split="test").reset_index(drop=True)
        columns = {"label": targets, "logit": np.log(shares), "probability": shares}
        for kind, values in (columns | {"decision": decisions}).items():
            for c, label in enumerate(LABELS):
                table[f"{kind}_{label}"] = values[:, c]
        write_parquet(settings.workspace.checkpoints_dir / "predictions.parquet", table)
        arrays = [manifest[name].to_numpy(object) for name in names]
        scored = Predictions(*arrays, targets, shares, shares, decisions, LABELS, single=True)
        return score_split(scored, 100, 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    runs = FakeRuns()
    monkeypatch.setattr(crossval, "train_on_engine", runs.train)
    monkeypatch.setattr(crossval, "evaluate_detailed", runs.evaluate)
    return runs


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_parts", range(2, 11))
def test_every_fold_is_in_one_part_and_ptb_xls_checked_folds_are_in_two(n_parts: int) -> None:
    parts = parts_of_folds(Settings(folds=n_parts))
    folds = [part.facts["folds"] for part in parts]
    assert len(parts) == n_parts and sorted(chain(*folds)) == list(range(1, 11))
    assert not any({9, 10} <= set(own) for own in folds)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_parts_are_ordinary_runs_with_names_of_their_own() -> None:
    first, second = parts_of_folds(Settings(folds=2, run_name="wide", seed=3))
    assert first.settings.run_name == "wide-part1of2" and first.settings.hold_out == "1,3,5,7,9"
    assert second.settings == Settings(
        folds=2, seed=3, run_name="wide-part2of2", hold_out="2,4,6,8,10"
    )


def test_names_of_archives_fit_into_run_names() -> None:
    names = [
        run_name_without("crossval", archive)
        for archive in ("ptb-xl", "my records", "my_records", "x" * 90, "x" * 91)
    ]
    assert len(set(names)) == 5
    for name in names:
        assert Settings(run_name=name).run_name == name


def test_a_run_name_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long here; use 55 letters at most"):
        parts_of_folds(Settings(folds=2, run_name="x" * 60))
    with pytest.raises(ConfigError, match="too long here; use 39 letters at most"):
        run_name_without("x" * 40, "sph")


@pytest.mark.parametrize(
    ("changes", "message"), [({"hold_out": "3"}, "HOLD_OUT is 3"), ({"dry_run": True}, "dry run")]
)
def test_settings_that_leave_nothing_to_cross_validate_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        cross_validate(tiny_settings(tmp_path, **changes))


# Every record once -------------------------------------------------------------------------------


def test_a_cross_validation_that_was_stopped_goes_on_and_tests_every_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path)
    settings = tiny_settings(tmp_path)
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))
    monkeypatch.setattr(evaluation, "save_evaluation_figures", lambda *arguments: [])
    real = crossval.train_on_engine

    def stopped_in_the_second_part(settings: Settings, origins: Mapping[str, str]) -> None:
        if "part2" in settings.run_name:
            raise RunStopped("stopped, and saved", 130)
        real(settings, origins)

    with monkeypatch.context() as patch, pytest.raises(RunStopped):
        patch.setattr(crossval, "train_on_engine", stopped_in_the_second_part)
        cross_validate(settings)
    first = Workspace(tmp_path, "crossval-part1of2").best_model_path
    before = first.stat().st_mtime_ns
    result = cross_validate(settings)
    assert first.stat().st_mtime_ns == before and result["failed"] == []
    table = pd.read_parquet(resolve_run(tmp_path, "crossval"))
    assert sorted(table["record"]) == sorted(open_store(settings.workspace).manifest["record"])
    for number, folds in ((1, "1,3,5,7,9"), (2, "2,4,6,8,10")):
        folder = Workspace(tmp_path, f"crossval-part{number}of2").checkpoints_dir
        assert read_json(folder / "run.json")["settings"]["hold_out"] == folds
        assert read_json(folder / "test_metrics.json")["n_trained_on"] == 0
    with pytest.raises(CheckpointError, match=r"lr: 0\.003 -> 0\.01"):
        cross_validate(tiny_settings(tmp_path, lr=0.01))


def test_out_of_fold_predictions_say_which_part_each_record_was_held_out_in(
    tmp_path: Path, fake: FakeRuns
) -> None:
    write_store(tmp_path)
    result = cross_validate(tiny_settings(tmp_path, folds=4, run_name="b"))
    folder = Workspace(tmp_path, "b").checkpoints_dir
    table = read_predictions(folder / "out_of_fold.parquet")
    fold = open_store(Workspace(tmp_path)).manifest.set_index("record")["fold"]
    assert (table["part"].to_numpy() == (fold[table["record"]].to_numpy() - 1) % 4 + 1).all()
    assert result["n"] == result["n_expected"] == result["pooled"]["n"] == 80
    assert read_json(folder / "crossval.json") == json.loads(json.dumps(result))


def test_copies_and_unlabelled_records_are_not_expected(tmp_path: Path, fake: FakeRuns) -> None:
    def change(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest.at[3, "labels"] = []
        manifest.loc[[5, 15], "patient_group"] = "tiny/r005"
        manifest.loc[15, "duplicate_of"] = "tiny/r005"
        return manifest

    write_store(tmp_path, change)
    result = cross_validate(tiny_settings(tmp_path))
    manifest = open_store(Workspace(tmp_path)).manifest
    assert result["n"] == is_counted(manifest).sum() == 78


@pytest.mark.parametrize(
    ("tested", "message"),
    [
        (["a", "b", "b"], r"1 record tested by two parts \(first: b\)"),
        (["a", "b", "c", "x"], r"that is no labelled original \(first: x\)"),
        (["a", "b"], r"1 record tested by no part \(first: c\)"),
    ],
)
def test_a_record_that_is_not_tested_once_is_named(tested: list[str], message: str) -> None:
    expected = pd.Series(["a", "b", "c"])
    with pytest.raises(DataError, match=message):
        check_out_of_fold(pd.Series(tested), expected, is_whole=True)
    check_out_of_fold(pd.Series(["a", "b"]), expected, is_whole=False)


# What comes out ----------------------------------------------------------------------------------


def test_mean_and_spread_are_over_parts() -> None:
    def part(auroc: float, accuracy: float | None) -> dict[str, Any]:
        return {"headline": {"auroc": {"macro": {"value": auroc}}, "accuracy": {"value": accuracy}}}

    mean = mean_over_parts([part(0.8, 0.7), part(0.9, None), part(1.0, None), {"error": "no"}])
    assert mean["auroc"]["macro"] == {
        "value": pytest.approx(0.9), "sd": pytest.approx(0.1), "n_parts": 3,
    }  # fmt: skip
    assert mean["accuracy"] == {
        "value": 0.7, "sd": None, "n_parts": 1, "reason": "one part: no standard deviation",
    }  # fmt: skip
    assert mean_over_parts([{"error": "no"}]) == {}


def test_a_part_that_fails_is_told_while_the_others_go_on(tmp_path: Path, fake: FakeRuns) -> None:
    write_store(tmp_path)
    fake.failing = "part2"
    result = cross_validate(tiny_settings(tmp_path, folds=5))
    assert result["failed"] == ["crossval-part2of5"] and len(fake.trained) == 4
    assert result["n"] == 64 and result["n_expected"] == 80
    lines = crossval_summary(result).splitlines()
    assert lines[2].split() == ["2,", "7", "56", "failed"]
    assert "failed: crossval-part2of5: its training diverged" in lines
    assert "16 records of the parts that failed have no prediction" in lines


def test_where_every_part_fails_there_are_no_scores(tmp_path: Path, fake: FakeRuns) -> None:
    write_store(tmp_path)
    fake.failing = "part"
    result = cross_validate(tiny_settings(tmp_path))
    assert result["mean"] == {} and result["pooled"] is None
    assert result["reason"] == "every part failed"
    assert crossval_summary(result).splitlines()[3].split()[-1] == "none"


def test_a_part_without_a_labelled_record_is_told_with_its_error(
    tmp_path: Path, fake: FakeRuns
) -> None:
    def change(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest["labels"] = [
            [] if fold == 4 else labels
            for fold, labels in zip(manifest["fold"], manifest["labels"], strict=True)
        ]
        return manifest

    write_store(tmp_path, change)
    result = cross_validate(tiny_settings(tmp_path, folds=10))
    assert result["failed"] == ["crossval-part4of10", "crossval-part5of10"]
    assert result["parts"][3]["error"].endswith("leaves no labelled record to test")
    assert result["parts"][4]["error"].endswith("leaves no labelled record to validate on")


def test_a_class_that_a_part_cannot_learn_is_named(tmp_path: Path, fake: FakeRuns) -> None:
    def change(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest["labels"] = [
            ["AF"] if fold == 3 else labels
            for fold, labels in zip(manifest["fold"], manifest["labels"], strict=True)
        ]
        return manifest

    write_store(tmp_path, change)
    result = cross_validate(tiny_settings(tmp_path))
    assert "AF" in result["parts"][0]["absent_from_training"]
    assert "AF" not in result["parts"][1]["absent_from_training"]
    lines = crossval_summary(result).splitlines()
    assert "no part has a training record of BBB, OTHER" in lines
    assert "crossval-part1of2 has no training record of AF and cannot learn it" in lines


def test_summary_has_a_row_per_part_the_mean_and_the_pooled_scores(
    tmp_path: Path, fake: FakeRuns
) -> None:
    write_store(tmp_path)
    lines = crossval_summary(cross_validate(tiny_settings(tmp_path))).splitlines()
    assert lines[0].split()[:4] == ["folds", "held", "out", "trained"]
    assert lines[1].startswith("1, 3, 5, 7, 9   32")
    assert lines[3].startswith("mean (sd)") and lines[4].startswith("out of fold")
    assert lines[4].split()[3] == "80"
    assert lines[-2] == "scores of each row: one archive, tiny"
    assert lines[-1].endswith("the headline is the mean over parts")


def test_out_of_fold_row_is_a_mean_over_archives_as_the_parts_rows_are(
    tmp_path: Path, fake: FakeRuns
) -> None:
    write_store(tmp_path, with_archives({"a": 40, "b": 160}), 200)
    result = cross_validate(tiny_settings(tmp_path))
    pooled = result["pooled"]
    values = [pooled["archives"][name]["auroc"]["macro"]["value"] for name in "ab"]
    assert f"{np.mean(values):.3f} (" in crossval_summary(result).splitlines()[4]
    assert "scores of each row: mean over 2 archives" in crossval_summary(result)


def test_training_is_not_asked_for_where_a_parts_folder_holds_another_run(
    tmp_path: Path, fake: FakeRuns
) -> None:
    write_store(tmp_path)
    last = tiny_settings(tmp_path, run_name="crossval-part2of2", hold_out="1", lr=0.1)
    stored = {"settings": last.model_dump(mode="json")}
    write_json(last.workspace.checkpoints_dir / "run.json", stored)
    with pytest.raises(CheckpointError, match=r"hold_out: 1 -> 2,4,6,8,10"):
        cross_validate(tiny_settings(tmp_path))
    assert fake.trained == []


# Archives ----------------------------------------------------------------------------------------


def test_each_archive_of_a_hundred_records_is_held_out(tmp_path: Path, fake: FakeRuns) -> None:
    write_store(tmp_path, with_archives({"a": 120, "b": 100, "c": 99}), 319)
    result = cross_validate(tiny_settings(tmp_path, by_archive=True))
    assert fake.trained == ["crossval-without-a", "crossval-without-b"]
    assert [(part["archive"], part["n"]) for part in result["parts"]] == [("a", 120), ("b", 100)]
    assert result["left_out"] == {"c": "99 labelled records, fewer than 100"}
    folder = Workspace(tmp_path, "crossval").checkpoints_dir
    assert read_json(folder / "by_archive.json") == json.loads(json.dumps(result))
    assert not (folder / "out_of_fold.parquet").exists()
    lines = crossval_summary(result).splitlines()
    assert lines[1].startswith("a ") and "not held out: c (99 labelled" in lines[-2]


def test_an_archive_is_counted_without_its_own_copies(tmp_path: Path, fake: FakeRuns) -> None:
    def change(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest = with_archives({"a": 120, "b": 100})(manifest)
        manifest.loc[manifest["record"] == "b/r121", "duplicate_of"] = "b/r120"
        manifest.loc[manifest["record"] == "b/r121", "patient_group"] = "b/r120"
        # A copy of another archive's recording counts here.
        manifest.loc[manifest["record"] == "a/r000", "duplicate_of"] = "b/r125"
        manifest.loc[manifest["record"] == "a/r000", "patient_group"] = "b/r125"
        return manifest

    write_store(tmp_path, change, 220)
    result = cross_validate(tiny_settings(tmp_path, by_archive=True))
    assert result["parts"][0]["n"] == 120
    assert result["left_out"] == {"b": "99 labelled records, fewer than 100"}


def test_stores_without_two_archives_or_a_large_one_are_refused(
    tmp_path: Path, fake: FakeRuns
) -> None:
    write_store(tmp_path / "one")
    with pytest.raises(DataError, match=r"has one archive \(tiny\); holding it out leaves none"):
        cross_validate(tiny_settings(tmp_path / "one", by_archive=True))
    write_store(tmp_path / "small", with_archives({"a": 40, "b": 40}))
    with pytest.raises(DataError, match="no archive has 100 labelled records to test on: a 40"):
        cross_validate(tiny_settings(tmp_path / "small", by_archive=True))
