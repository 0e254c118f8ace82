"""Scores as JSON, the headline over archives, and `evaluate_detailed` on a small workspace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated_workspace import fake_model, make_evaluated_workspace, make_workspace

from einthoven import evaluated as evaluated_room
from einthoven import evaluation
from einthoven.errors import CheckpointError, DataError
from einthoven.evaluation import evaluate_detailed
from einthoven.files import read_json, write_json
from einthoven.metrics import decide, macro_auroc
from einthoven.scopes import metrics_path, predictions_path
from einthoven.scoring import Predictions, score_predictions, score_split
from einthoven.settings import Settings
from einthoven.summary import evaluation_summary, headline_how

FIVE = ("MI", "AF", "BBB", "NORM", "OTHER")


def some_predictions(archives: dict[str, int], seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    names = np.repeat(np.array(list(archives), object), list(archives.values()))
    truth = rng.integers(2, size=(len(names), 3)).astype(np.uint8)
    probabilities = np.clip(rng.normal(0.5, 0.3, truth.shape) + 0.2 * truth, 0, 1)
    records = np.array([f"{name}/{k}" for k, name in enumerate(names)], object)
    decisions = decide(probabilities, None, single=False)
    return Predictions(
        records,
        records,
        names,
        truth,
        probabilities,
        probabilities,
        decisions,
        ("A", "B", "C"),
        single=False,
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An evaluated workspace; tests read it and leave it as it is."""
    root = tmp_path_factory.mktemp("evaluated")
    archives = {"ptb-xl": 300, "sph": 40}
    return make_evaluated_workspace(root, FIVE, single=True, archives=archives, with_figures=True)


# Scores ----------------------------------------------------------------------------------------


def test_every_figure_has_value_interval_and_n() -> None:
    p = some_predictions({"a": 80})
    scores = score_predictions(
        p.targets, p.probabilities, p.decisions, p.groups, p.labels, False, 100, 0
    )
    figure = scores["auroc"]["macro"]
    assert figure["low"] < figure["value"] < figure["high"] and figure["n"] == 80
    assert figure["value"] == pytest.approx(macro_auroc(p.targets, p.probabilities))
    assert set(scores["f1"]) == {"macro", "weighted", "micro", "per_class"}
    assert scores["f1"]["per_class"]["B"]["n"] == 80
    assert scores["support"] == dict(zip("ABC", p.targets.sum(axis=0).tolist(), strict=True))


def test_absent_class_is_null_with_a_reason() -> None:
    targets, probabilities = np.array([[1, 0], [0, 0], [1, 0]]), np.full((3, 2), 0.6)
    decisions, groups = decide(probabilities, None, single=False), np.arange(3)
    scores = score_predictions(
        targets, probabilities, decisions, groups, ("here", "gone"), False, 100, 0
    )
    for metric in ("auroc", "average_precision", "f1", "precision", "recall"):
        assert scores[metric]["per_class"]["gone"] == {
            "value": None, "low": None, "high": None, "n": 3,
            "reason": "class absent from the split",
        }  # fmt: skip
    assert scores["auroc"]["macro"]["value"] == 0.5
    json.dumps(scores, allow_nan=False)


def test_class_of_every_record_says_why_it_has_no_auroc() -> None:
    targets, probabilities = np.ones((4, 1)), np.linspace(0, 1, 4)[:, None]
    scores = score_predictions(targets, probabilities, targets, np.arange(4), ("A",), False, 100, 0)
    assert scores["auroc"]["per_class"]["A"]["reason"] == "every record of the split has this class"


def test_one_patient_has_scores_without_interval() -> None:
    p = some_predictions({"a": 10})
    scores = score_predictions(
        p.targets, p.probabilities, p.decisions, np.zeros(10), p.labels, False, 100, 0
    )
    figure = scores["f1"]["macro"]
    assert figure["value"] is not None and figure["low"] is None
    assert figure["reason"] == "one patient: no interval"


def test_same_seed_gives_the_same_intervals() -> None:
    p = some_predictions({"a": 30, "b": 30})
    assert score_split(p, 100, 3) == score_split(p, 100, 3)
    assert score_split(p, 100, 3) != score_split(p, 100, 4)


# The headline ----------------------------------------------------------------------------------


def test_headline_is_the_mean_of_the_archives_that_are_large_enough() -> None:
    scores = score_split(some_predictions({"a": 40, "b": 20, "c": 19}), 100, 0)
    headline, archives = scores["headline"], scores["archives"]
    assert headline["archives"] == ["a", "b"]
    assert headline["left_out"] == {"c": "fewer than 20 records"}
    values = [archives[name]["auroc"]["macro"]["value"] for name in ("a", "b")]
    figure = headline["auroc"]["macro"]
    assert figure["value"] == pytest.approx(np.mean(values))
    assert figure["low"] < figure["value"] < figure["high"]
    assert headline["n"] == figure["n"] == 60


@pytest.mark.parametrize("archives", [{"a": 30}, {"a": 5, "b": 5}])
def test_headline_of_one_archive_or_only_small_ones_is_pooled(archives: dict[str, int]) -> None:
    scores = score_split(some_predictions(archives), 100, 0)
    assert scores["headline"]["f1"]["macro"] == scores["f1"]["macro"]
    assert scores["headline"]["left_out"] == {}


# Whole evaluations -----------------------------------------------------------------------------


def test_evaluation_writes_scores_predictions_and_figures(evaluated: Settings) -> None:
    metrics = read_json(metrics_path(evaluated.workspace))
    assert metrics["split"] == "test" and metrics["task"] == "single"
    assert metrics["auroc"]["macro"]["value"] > 0.8
    assert metrics["accuracy"]["low"] <= metrics["accuracy"]["value"]
    halves = metrics["validation"]
    assert halves["selection"]["n"] + halves["calibration"]["n"] == 34
    assert set(metrics["archives"]) == {"ptb-xl", "sph"}
    names = {path.name.rsplit("_", 1)[0] for path in evaluated.workspace.figures_dir.glob("*.png")}
    assert names == {
        "confusion_matrix", "per_class_metrics", "roc_curves", "precision_recall_curves",
        "reliability_diagrams", "score_distributions", "subgroup_forest", "training_curves",
    }  # fmt: skip


def test_predictions_give_back_the_scores(evaluated: Settings) -> None:
    table = pd.read_parquet(predictions_path(evaluated.workspace))
    metrics = read_json(metrics_path(evaluated.workspace))
    assert list(table["split"].unique()) == ["test", "selection", "calibration"]
    patients = table.groupby("split")["patient_group"].agg(set)
    assert not patients["selection"] & patients["calibration"]
    test = table[table["split"] == "test"]
    parts = {
        kind: test[[f"{kind}_{label}" for label in FIVE]].to_numpy()
        for kind in ("label", "logit", "probability", "decision")
    }
    value = macro_auroc(parts["label"], parts["probability"])
    assert value == pytest.approx(metrics["auroc"]["macro"]["value"])
    np.testing.assert_allclose(np.exp(parts["logit"]), parts["probability"], rtol=1e-4)
    assert (parts["decision"].argmax(axis=1) == parts["probability"].argmax(axis=1)).all()


def test_evaluation_is_skipped_until_the_model_changes(
    evaluated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("einthoven.evaluation.load_trained_model", fail)
    assert evaluate_detailed(evaluated) == read_json(metrics_path(evaluated.workspace))
    monkeypatch.setattr("einthoven.evaluation.file_digest", lambda path: f"another {path.name}")
    with pytest.raises(AssertionError, match="the model was loaded"):
        evaluate_detailed(evaluated)


def test_summary_has_a_row_per_archive_and_the_headline(evaluated: Settings) -> None:
    summary = evaluation_summary(read_json(metrics_path(evaluated.workspace)))
    lines = summary.splitlines()
    names = [line.split("  ")[0] for line in lines[1:5]]
    assert names == ["ptb-xl", "sph", "all, pooled", "headline"]
    assert lines[2].split() == ["sph", "4", "–", "–", "–", "–"]
    assert lines[4].split()[2:] == lines[1].split()[2:]
    how = "headline: ptb-xl alone, the one archive with 20 test records or more"
    assert lines[5:] == [how, "–: fewer than 20 records; their scores say nothing"]
    assert max(map(len, lines)) <= 110
    assert read_json(metrics_path(evaluated.workspace))["archives"]["sph"]["f1"]["macro"]["value"]


def test_headline_names_its_archives_where_some_are_left_out() -> None:
    scores = score_split(some_predictions({"a": 40, "b": 30, "c": 5}), 100, 0)
    assert headline_how(scores["headline"]) == "mean over 2 archives (a, b)"
    scores = score_split(some_predictions({"a": 40, "b": 30}), 100, 0)
    assert headline_how(scores["headline"]) == "mean over 2 archives"


def test_summary_of_one_small_archive_shows_no_score() -> None:
    summary = evaluation_summary(score_split(some_predictions({"a": 19}), 100, 0))
    assert summary.splitlines()[1].split() == ["a", "19", "–", "–", "–", "–"]


def test_a_perfect_score_has_no_interval() -> None:
    targets = np.tile(np.eye(2), (15, 1))
    scores = score_predictions(targets, targets, targets, np.arange(30), ("A", "B"), True, 100, 0)
    assert scores["auroc"]["macro"] == {
        "value": 1.0, "low": None, "high": None, "n": 30,
        "reason": "all resamples have the same score: no interval",
    }  # fmt: skip


def test_empty_test_split_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_workspace(tmp_path, FIVE, single=True, archives={"ptb-xl": 60})
    fake_model(monkeypatch, FIVE, single=True)
    splits = read_json(settings.workspace.splits_path)
    write_json(settings.workspace.splits_path, {**splits, "test": []})
    with pytest.raises(DataError, match="the test split has no labelled record"):
        evaluate_detailed(settings)


def test_several_labels_are_decided_at_the_models_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_workspace(tmp_path, FIVE, single=False, archives={"ptb-xl": 200})
    fake_model(monkeypatch, FIVE, single=False)
    monkeypatch.setattr("einthoven.evaluation.save_score_figures", lambda *arguments: [])
    metrics = evaluate_detailed(settings)
    table = pd.read_parquet(predictions_path(settings.workspace))
    assert ((table["probability_AF"] >= 0.4) == (table["decision_AF"] == 1)).all()
    assert metrics["subset_accuracy"]["value"] <= metrics["accuracy"]["value"]


def test_a_model_of_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_workspace(tmp_path, FIVE, single=True, archives={"ptb-xl": 60})
    refuse = evaluated_room.check_same_data
    fake_model(monkeypatch, FIVE, single=True)
    monkeypatch.setattr(evaluated_room, "check_same_data", refuse)
    with pytest.raises(CheckpointError, match="may have seen records that are in the test split"):
        evaluate_detailed(settings)


def test_a_rule_that_needs_no_positives_leaves_no_label_at_one_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_workspace(tmp_path, FIVE, single=False, archives={"ptb-xl": 60})
    fake_model(monkeypatch, FIVE, single=False)
    monkeypatch.setattr("einthoven.evaluation.save_score_figures", lambda *arguments: [])
    told = {
        rule: evaluate_detailed(settings.model_copy(update={"threshold_rule": rule}))
        for rule in ("best_f1", "expected_f1")
    }
    assert told["best_f1"]["calibration"]["untuned"] == list(FIVE)
    assert told["expected_f1"]["calibration"]["untuned"] == []


def test_figures_that_are_gone_are_drawn_again(
    evaluated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "score_figure_names", lambda *of: ("a_new_figure",))
    monkeypatch.setattr(evaluation, "load_trained_model", None)
    with pytest.raises(TypeError):
        evaluate_detailed(evaluated)
