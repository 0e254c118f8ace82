"""Scores as JSON: every score, calibration before and after, confusion, reasons."""

from __future__ import annotations

import json

import numpy as np
import pytest

from einthoven.challenge_score import challenge_score
from einthoven.labels.snomed import CHALLENGE_2021
from einthoven.metrics import decide
from einthoven.scoring import (
    Predictions,
    confusion_as_json,
    figure_with_interval,
    score_predictions,
    score_split,
)

BY_CLASS = ("auroc", "average_precision")
BY_DECISION = ("f1", "precision", "recall", "specificity")


def drawn_predictions(
    n: int = 80,
    labels: tuple[str, ...] = ("A", "B", "C"),
    single: bool = False,
    archives: tuple[str, ...] = ("a",),
) -> Predictions:
    """Records of patients with two each; the raw probabilities are too sure of themselves."""
    rng = np.random.default_rng(0)
    n_classes = len(labels)
    targets = (
        np.eye(n_classes)[rng.integers(n_classes, size=n)]
        if single
        else rng.random((n, n_classes)) < 0.3
    ).astype(np.uint8)
    odds = np.exp(rng.normal(2.0 * targets - 1, 1.5))
    probabilities = odds / odds.sum(axis=1, keepdims=True) if single else odds / (1 + odds)
    sure = probabilities**2
    names = np.array([f"record {k}" for k in range(n)], object)
    return Predictions(
        records=names,
        groups=np.array([f"p{k // 2}" for k in range(n)], object),
        archives=np.array([archives[k % len(archives)] for k in range(n)], object),
        targets=targets,
        raw=sure / sure.sum(axis=1, keepdims=True) if single else sure,
        probabilities=probabilities,
        decisions=decide(probabilities, None, single),
        labels=labels,
        single=single,
    )


# Predictions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [np.array([5, 2, 2]), np.arange(80) == 7])
def test_taking_records_takes_every_column(rows: np.ndarray) -> None:
    p = drawn_predictions()
    taken = p.take(rows)
    assert taken.labels == p.labels and taken.single == p.single
    assert taken.records.tolist() == p.records[rows].tolist()
    for name in ("groups", "archives", "targets", "raw", "probabilities", "decisions"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(p, name)[rows])


def test_predictions_of_an_archive_are_its_records() -> None:
    p = drawn_predictions(archives=("a", "b"))
    assert p.of_archive("b").records.tolist() == p.records[1::2].tolist()


# Every score -----------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [True, False])
def test_every_score_of_the_reference_is_there(single: bool) -> None:
    scores = score_split(drawn_predictions(single=single), 100, 0)
    for metric in BY_CLASS:
        assert set(scores[metric]) == {"macro", "weighted", "per_class"}
    for metric in BY_DECISION:
        assert set(scores[metric]) == {"macro", "weighted", "micro", "per_class"}
    assert set(scores["brier"]) == {"macro", "per_class"}
    top = {"top_label"} if single else set()
    assert set(scores["expected_calibration_error"]) == {"macro", "per_class"} | top
    assert ("subset_accuracy" in scores) is not single
    for figure in (scores["accuracy"], scores["f_max"], scores["f_beta"]["macro"],
                   scores["g_beta"]["macro"], scores["specificity"]["per_class"]["B"]):  # fmt: skip
        assert figure["low"] < figure["value"] < figure["high"] and figure["n"] == 80
    assert "challenge_score" not in scores
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_archives_have_every_score_but_confusion_and_raw_calibration_of_all_alone() -> None:
    scores = score_split(drawn_predictions(archives=("a", "b")), 100, 0)
    extra = {"headline", "archives", "confusion", "uncalibrated"}
    assert set(scores) == set(scores["archives"]["a"]) | extra


# The Challenge score ---------------------------------------------------------------------------


def test_challenge_score_is_a_figure_and_in_the_headline() -> None:
    p = drawn_predictions(labels=tuple(CHALLENGE_2021))
    scores = score_split(p, 100, 0)
    figure = scores["challenge_score"]
    assert figure["value"] == pytest.approx(challenge_score(p.targets, p.decisions, p.labels))
    assert figure["low"] < figure["value"] < figure["high"]
    assert scores["headline"]["challenge_score"] == figure


def test_challenge_score_below_zero_has_an_interval() -> None:
    p = drawn_predictions(labels=tuple(CHALLENGE_2021))
    scores = score_predictions(
        p.targets, p.probabilities, p.decisions * 0, p.groups, p.labels, False, 100, 0
    )
    figure = scores["challenge_score"]
    assert figure["low"] < figure["value"] < 0 and figure["high"] > figure["value"]


def test_challenge_score_of_sinus_rhythm_alone_says_why_there_is_none() -> None:
    labels = tuple(CHALLENGE_2021)
    targets = np.tile(np.array(labels) == "NSR", (4, 1)).astype(np.uint8)
    scores = score_predictions(targets, targets * 0.7, targets, np.arange(4), labels, False, 100, 0)
    assert scores["challenge_score"] == {
        "value": None, "low": None, "high": None, "n": 4,
        "reason": "no record of the split has a label other than sinus rhythm",
    }  # fmt: skip


# Calibration before and after ------------------------------------------------------------------


@pytest.mark.parametrize("single", [True, False])
def test_uncalibrated_scores_are_those_of_the_raw_probabilities(single: bool) -> None:
    p = drawn_predictions(single=single)
    before = score_split(p, 100, 0)["uncalibrated"]
    raw = score_predictions(
        p.targets, p.raw, decide(p.raw, None, single), p.groups, p.labels, single, 100, 0
    )
    assert before == {name: raw[name] for name in ("brier", "expected_calibration_error")}


def test_without_calibration_both_are_the_same() -> None:
    p = drawn_predictions(single=True)
    p = Predictions(**{**vars(p), "raw": p.probabilities})
    scores = score_split(p, 100, 0)
    for metric in ("brier", "expected_calibration_error"):
        assert scores["uncalibrated"][metric] == scores[metric]


# Confusion -------------------------------------------------------------------------------------


def test_confusion_of_one_label_per_record_is_a_matrix_of_true_by_decided_class() -> None:
    p = drawn_predictions(single=True)
    matrix = np.array(confusion_as_json(p)["matrix"])
    np.testing.assert_array_equal(matrix.sum(axis=1), p.targets.sum(axis=0))
    np.testing.assert_array_equal(matrix.sum(axis=0), p.decisions.sum(axis=0))


def test_confusion_of_several_labels_is_a_table_each() -> None:
    p = drawn_predictions().take(np.arange(4))
    p.targets[:, 1], p.decisions[:, 1] = [1, 1, 1, 0], [1, 0, 0, 0]
    tables = confusion_as_json(p)["tables"]
    assert list(tables) == ["A", "B", "C"]
    assert tables["B"] == {
        "true_positive": 1, "false_positive": 0, "false_negative": 2, "true_negative": 1,
    }  # fmt: skip


# What is null says why -------------------------------------------------------------------------


def test_specificity_of_a_class_of_every_record_says_why_there_is_none() -> None:
    targets = np.ones((4, 1))
    scores = score_predictions(targets, targets * 0.6, targets, np.arange(4), ("A",), False, 100, 0)
    figure = scores["specificity"]["per_class"]["A"]
    assert figure["reason"] == "every record of the split has this class"


def test_absent_class_has_no_calibration_scores() -> None:
    targets, probabilities = np.array([[1, 0], [0, 0], [1, 0]]), np.full((3, 2), 0.6)
    decisions = decide(probabilities, None, single=False)
    scores = score_predictions(
        targets, probabilities, decisions, np.arange(3), ("here", "gone"), False, 100, 0
    )
    for metric in ("specificity", "brier", "expected_calibration_error"):
        figure = scores[metric]["per_class"]["gone"]
        assert figure["value"] is None and figure["reason"] == "class absent from the split"


@pytest.mark.parametrize(
    ("value", "samples", "n_groups", "reason"),
    [
        (np.nan, [0.5, 0.6], 3, "because"),
        (0.5, [0.5, 0.6], 1, "one patient: no interval"),
        (0.5, [np.nan, 0.6], 3, "fewer than two resamples have this score: no interval"),
        (0.5, [0.6, 0.6], 3, "all resamples have the same score: no interval"),
        (0.0, [0.1, 0.2], 3, "a score of 0 or 1 has no log-odds: no interval"),
    ],
)
def test_a_figure_without_interval_says_why(
    value: float, samples: list[float], n_groups: int, reason: str
) -> None:
    figure = figure_with_interval(value, np.array(samples), 5, n_groups, "because")
    assert figure["low"] is None and figure["reason"] == reason
