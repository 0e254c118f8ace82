"""What a report says is true of the rule, the task and the number of records at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluated_workspace import make_workspace

from einthoven.calibration.thresholds import THRESHOLD_RULES
from einthoven.files import file_digest, read_json, write_json
from einthoven.report.cautions import report_warnings
from einthoven.report.decision_tables import (
    RULE_MEANINGS,
    calibration_sentence,
    conformal_sentence,
    conformal_table,
    rule_sentence,
)
from einthoven.report.run_files import RunFiles, load_run_files
from einthoven.report.run_tables import training_sentence
from einthoven.report.score_tables import class_score_table, evaluation_table
from einthoven.report.verdict import glance_rows
from einthoven.settings import Settings

LABELS = ("MI", "AF", "BBB")
RARE = {
    "method": "platt", "n": 120, "n_patient_groups": 100, "pooled": ["BBB"], "untuned": ["BBB"],
    "positives": {"MI": 40, "AF": 40, "BBB": 7},
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("words")
    return make_workspace(root, LABELS, single=False, archives={"ptb-xl": 40})


def files_with(settings: Settings, **metrics: Any) -> RunFiles:
    """The run with these scores; several labels and 300 records unless they say otherwise."""
    path = settings.workspace.checkpoints_dir / "test_metrics.json"
    usual: dict[str, Any] = {
        "labels": LABELS, "task": "multi", "split": "test", "n": 300, "threshold_rule": "best_f1",
        "thresholds": {"MI": 0.3, "AF": 0.4, "BBB": 0.5}, "calibration": RARE,
        "model": file_digest(settings.workspace.best_model_path),
    }  # fmt: skip
    write_json(path, usual | metrics)
    return load_run_files(settings.workspace)


def told_of(files: RunFiles) -> str:
    """Everything that is said of decisions and calibration, and all cautions."""
    table = class_score_table(files)
    assert table is not None
    cautions = [caution.text for caution in report_warnings(files)]
    return " | ".join([rule_sentence(files), calibration_sentence(files), table.note, *cautions])


# Rules and calibration -------------------------------------------------------------------------


def test_every_rule_has_a_meaning() -> None:
    assert set(THRESHOLD_RULES) <= set(RULE_MEANINGS)


def test_a_class_left_at_one_half_is_named_wherever_thresholds_are_told(settings: Settings) -> None:
    text = told_of(files_with(settings))
    assert "At 0.5, for want of positives or negatives: BBB." in text
    assert "too few positives or negatives could set it: BBB." in text
    assert "to set a threshold, so decided at 0.5: BBB." in text


@pytest.mark.parametrize(
    "change",
    [
        {"threshold_rule": "expected_f1", "calibration": RARE | {"untuned": []}},
        {"threshold_rule": "expected_f1", "thresholds": {"MI": 0.3, "AF": 0.4, "BBB": 0.21}},
        {"threshold_rule": "half", "thresholds": dict.fromkeys(LABELS, 0.5)},
    ],
)
def test_no_class_is_said_to_be_left_at_one_half_that_is_not(
    settings: Settings, change: dict[str, Any]
) -> None:
    text = told_of(files_with(settings, **change))
    assert "At 0.5, for" not in text and "decided at 0.5" not in text and "set it" not in text
    assert "calibrated with the pool: BBB." in text


def test_the_reason_for_the_pool_is_one_that_can_be(settings: Settings) -> None:
    reason = "Too few positives or negatives to calibrate with"
    several = told_of(files_with(settings))
    assert f"{reason}, or no clear slope, so calibrated with the pool: BBB." in several
    single = told_of(files_with(settings, task="single", thresholds={}))
    assert f"{reason}, so calibrated with the pool: BBB." in single
    assert "Fewer than 20 positives" not in several + single


@pytest.mark.parametrize(("after", "is_told"), [(0.062, True), (0.0504, False), (0.03, False)])
def test_a_calibration_that_made_it_worse_is_told(
    settings: Settings, after: float, is_told: bool
) -> None:
    files = files_with(
        settings,
        expected_calibration_error={"macro": {"value": after}},
        uncalibrated={"expected_calibration_error": {"macro": {"value": 0.05}}},
    )
    text = "expected calibration error 0.050 before, 0.062 after."
    assert (text in told_of(files)) == is_told
    assert ("Calibration did not help on these records" in told_of(files)) == is_told


def test_a_calibration_refitted_to_views_is_told(settings: Settings) -> None:
    views = {"views": ["plain", "shift_left"], "refitted": True}
    text = "fitted to means over the same views of each record."
    assert text in told_of(files_with(settings, test_time_augmentation=views))
    assert text not in told_of(files_with(settings, test_time_augmentation={"views": ["plain"]}))


# Conformal sets --------------------------------------------------------------------------------

SETS = {
    "stated_coverage": 0.9, "coverage": {"value": 0.88}, "mean_size": {"value": 1.5},
    "empty": {"value": 0.1}, "per_class": {"MI": {"value": 0.87}, "BBB": {"value": 0.95}},
}  # fmt: skip


def test_conformal_sets_promise_by_record_or_by_label(settings: Settings) -> None:
    several = conformal_sentence(files_with(settings, conformal=SETS))
    assert "each label is in the set of 90 % of the records that have it." in several
    single = conformal_sentence(files_with(settings, conformal=SETS, task="single"))
    assert "90 % of records have their class in their set." in single


def test_coverage_of_few_records_is_not_shown(settings: Settings) -> None:
    support = {"MI": 40, "BBB": 3}
    table = conformal_table(files_with(settings, conformal=SETS, support=support))
    assert table is not None
    assert table.rows == [["MI", "40", "0.870"], ["BBB", "3", "–"]]
    few = files_with(settings, conformal=SETS, support=support, n=12)
    assert conformal_table(few) is None and "0.880" not in conformal_sentence(few)


# Who was scored --------------------------------------------------------------------------------


def test_records_that_validated_are_warned_of(settings: Settings) -> None:
    text = "17 of the 300 scored records are of patients of the validation split"
    assert text in told_of(files_with(settings, n_validated_on=17))
    assert "validation split, who" not in told_of(files_with(settings, n_validated_on=0))


def test_what_nobody_can_know_is_said(settings: Settings) -> None:
    files = files_with(settings, n_trained_on=None, n_trained_on_reason="no store here")
    assert "Nobody can tell whether the model was trained" in told_of(files)
    assert "(no store here)" in told_of(files)
    assert "is not known" in dict(glance_rows(files))["Scored on"]


def test_other_evaluations_tell_their_model_and_whom_they_know(settings: Settings) -> None:
    files = files_with(settings)
    folder = settings.workspace.checkpoints_dir / "evaluations"
    metrics = read_json(settings.workspace.checkpoints_dir / "test_metrics.json")
    fold = {"records": {"fold": 3, "archive": "sph"}, "n_trained_on": 3, "n_validated_on": 5}
    unknown = {"n_trained_on": None, "n_validated_on": None, "n_trained_on_reason": "no store"}
    clinic = {"records": {"external": "Clinic", "model": "a/other.pth"}, "model": "another"}
    clinic |= unknown
    write_json(folder / "fold_3/metrics.json", metrics | fold)
    write_json(folder / "clinic/metrics.json", metrics | clinic)
    files = load_run_files(settings.workspace)
    table = evaluation_table(files)
    assert table is not None
    assert table.header[3:5] == ["of patients trained on", "of patients validated on"]
    rows = {row[0]: list(row[3:5]) for row in table.rows}
    assert rows["fold 3, sph (fold_3)"] == ["3", "5"]
    assert rows["external, Clinic, by a/other.pth (clinic)"] == ["not known", "not known"]
    text = told_of(files)
    assert "fold 3, sph (fold_3): 3 of the 300 records are of patients that the model" in text
    assert "fold 3, sph (fold_3): 5 of the 300 records are of patients of the validation" in text
    assert "by a/other.pth (clinic): Nobody can tell" in text


# Training --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.7, "1.4 seconds"), (300, "10.0 minutes"), (18000, "10.0 hours")]
)
def test_a_training_takes_seconds_minutes_or_hours(
    tmp_path: Path, seconds: float, told: str
) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 40})
    history = [{"epoch": e, "train_loss": 0.5, "val_loss": 0.6, "seconds": seconds} for e in (1, 2)]
    write_json(settings.workspace.checkpoints_dir / "training_history.json", history)
    sentence = training_sentence(load_run_files(settings.workspace))
    assert f"2 epochs in {told};" in sentence
    assert "0.600 on the half `selection` of the validation split" in sentence
