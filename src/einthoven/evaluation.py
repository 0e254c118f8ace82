"""``evaluate_detailed``: how good the best model is, on records that it has not seen.

Over several archives the headline is the mean of per-archive scores, because an archive's habits
(its absent leads, its noise) give its labels away where all are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.bootstrap import INTERVAL_METHOD
from einthoven.checkpoint import TrainedModel, load_trained_model
from einthoven.console import log
from einthoven.evaluated import Evaluated, predict_scope, predictions_table, sets_of
from einthoven.external import external_workspace, prepare_external
from einthoven.figures.curves import plot_training_curves
from einthoven.figures.saving import figure_stamp, save_figure
from einthoven.figures.scores import save_score_figures, score_figure_names
from einthoven.files import (
    Workspace,
    file_digest,
    read_json,
    stamp_step,
    step_changes,
    write_json,
    write_parquet,
)
from einthoven.inference import choose_device
from einthoven.metrics import MIN_POSITIVES_TO_TUNE
from einthoven.scopes import USUAL_SCOPE, Scope, evaluation_dir, metrics_path, predictions_path
from einthoven.scoring import Predictions, score_split
from einthoven.settings import Settings
from einthoven.subgroups import score_subgroups, subgroup_facts
from einthoven.supplements import conformal_scores, view_gain
from einthoven.tracking.trackers import track_evaluation
from einthoven.version import DISCLAIMER
from einthoven.views import PLAIN_VIEW, added_views

# Raised whenever an evaluation would come out otherwise with the same inputs.
EVALUATION_VERSION = 2


def evaluate_detailed(settings: Settings, scope: Scope = USUAL_SCOPE) -> dict[str, Any]:
    """Score the best model on records it has not seen; write scores, predictions, figures.

    Writes ``test_metrics.json``, ``predictions.parquet`` and the figures, or, for another scope
    than the test split, ``metrics.json`` and its own in a folder of the scope's name; skips when
    model, store, splits and settings are those of the last evaluation.

    Args:
        scope: which records, and which model.

    Returns:
        What ``test_metrics.json`` holds; docs/reference/metrics.md describes it.

    Raises:
        CheckpointError: there is no usable model, or it was trained on other data or splits.
        DataError: there is no usable store, or no record in the scope.
        ConfigError: the model has no thresholds of the rule that is asked for.
    """
    workspace = settings.workspace
    trained = None
    if scope.external is not None:
        # Before anything is compared: the records may have changed.
        trained = load_trained_model(model_path(settings, scope), choose_device(settings.device))
        prepare_external(settings, trained, scope.external)
    inputs = _evaluation_inputs(settings, scope)
    if _evaluation_is_current(workspace, scope, inputs):
        metrics: dict[str, Any] = read_json(metrics_path(workspace, scope))
        return metrics
    if trained is None:
        trained = load_trained_model(model_path(settings, scope), choose_device(settings.device))
    trained = trained.with_rule(settings.threshold_rule)
    evaluated = predict_scope(trained, settings, scope)
    metrics = describe_evaluation(evaluated, settings, scope)
    write_parquet(predictions_path(workspace, scope), predictions_table(evaluated, settings))
    write_json(metrics_path(workspace, scope), metrics)
    figures = save_evaluation_figures(evaluated.reported, metrics, settings, scope)
    if scope.is_usual:
        track_evaluation(settings, metrics, figures, int(trained.facts.get("epoch", 0)))
    stamp_step(_stamp_path(workspace, scope), inputs)
    return metrics


def model_path(settings: Settings, scope: Scope) -> Path:
    """The model that is scored: the one named, or this run's best."""
    return scope.model or settings.workspace.best_model_path


def scope_figures_dir(workspace: Workspace, scope: Scope) -> Path:
    """Where an evaluation's figures lie."""
    if scope.is_usual:
        return workspace.figures_dir
    return evaluation_dir(workspace, scope) / "figures"


def save_evaluation_figures(
    reported: Predictions, metrics: Mapping[str, Any], settings: Settings, scope: Scope
) -> list[Path]:
    """Draw the scores, and the training of the model where it is this run's."""
    stamp = figure_stamp(datetime.now())
    folder = scope_figures_dir(settings.workspace, scope)
    figures = save_score_figures(reported, metrics, folder, stamp)
    history_path = settings.workspace.checkpoints_dir / "training_history.json"
    if scope.is_usual and history_path.exists() and (history := read_json(history_path)):
        figure = plot_training_curves(history, settings.best_metric)
        figures.append(save_figure(figure, folder, "training_curves", stamp))
    return figures


# Up to date? -----------------------------------------------------------------------------------


def _stamp_path(workspace: Workspace, scope: Scope) -> Path:
    if scope.is_usual:
        return workspace.step_path("evaluate")
    return evaluation_dir(workspace, scope) / ".steps" / "evaluate.json"


def _evaluation_inputs(settings: Settings, scope: Scope) -> dict[str, Any]:
    workspace = settings.workspace
    inputs: dict[str, Any] = {
        "model": file_digest(model_path(settings, scope)),
        "manifest": file_digest(workspace.manifest_path),
        "splits": file_digest(workspace.splits_path),
        "run_mode": settings.run_mode,
        "bootstrap_resamples": settings.bootstrap_resamples,
        "threshold_rule": settings.threshold_rule,
        "test_time_augment": settings.test_time_augment,
        "conformal_coverage": settings.conformal_coverage,
        "interval": INTERVAL_METHOD,
        "seed": settings.seed,
        "version of the evaluation": EVALUATION_VERSION,
        **scope.places(),
    }
    if scope.external is not None:
        there = external_workspace(settings, scope.external)
        inputs["external manifest"] = file_digest(there.manifest_path)
    return inputs


def _evaluation_is_current(workspace: Workspace, scope: Scope, inputs: Mapping[str, Any]) -> bool:
    stamp = _stamp_path(workspace, scope)
    changes = step_changes(stamp, inputs)
    path, folder = metrics_path(workspace, scope), scope_figures_dir(workspace, scope)
    written = path.exists() and predictions_path(workspace, scope).exists()
    if written and not changes:
        metrics = read_json(path)
        names = score_figure_names(metrics["task"] == "single", bool(metrics["subgroups"]))
        written = all(any(folder.glob(f"{name}_*.png")) for name in names)
    if not changes and written:
        log.info("Evaluation is up to date (%s)", path)
        return True
    if stamp.exists():
        log.info("Evaluating again: %s", "; ".join(changes) or "its files are gone")
    return False


# What is written -------------------------------------------------------------------------------


def describe_evaluation(
    evaluated: Evaluated, settings: Settings, scope: Scope = USUAL_SCOPE
) -> dict[str, Any]:
    """Scores of every split with all that is needed to have them again."""
    trained = evaluated.trained
    resamples, seed = settings.bootstrap_resamples, settings.seed
    name, *halves = evaluated.predictions
    reported = evaluated.reported
    groups = subgroup_facts(evaluated.facts)
    return {
        "disclaimer": DISCLAIMER,
        "label_set": trained.facts.get("label_set", settings.label_set),
        "labels": list(trained.labels),
        "task": "single" if trained.single else "multi",
        "model": file_digest(model_path(settings, scope)),
        "seed": seed,
        "resamples": resamples,
        "interval": INTERVAL_METHOD,
        "records": scope.values(),
        **_told_patients(evaluated),
        "threshold_rule": trained.threshold_rule,
        "thresholds": dict(trained.thresholds),
        "calibration": told_calibration(trained),
        "test_time_augmentation": _told_views(evaluated, settings),
        "conformal": _told_sets(reported, trained, settings),
        "split": name,
        **score_split(reported, resamples, seed),
        "subgroups": score_subgroups(reported, groups, resamples, seed),
        "validation": {
            half: {"split": half, **score_split(evaluated.predictions[half], resamples, seed)}
            for half in halves
        },
    }


def _told_patients(evaluated: Evaluated) -> dict[str, Any]:
    """How many of the scored records are of patients that the model knows; null where unknown."""
    told: dict[str, Any] = {
        "n_trained_on": evaluated.n_trained_on,
        "n_validated_on": evaluated.n_validated_on,
    }
    if evaluated.n_trained_on is None:
        told["n_trained_on_reason"] = "the records that the model was trained on are not at hand"
    return told


def told_calibration(trained: TrainedModel) -> dict[str, Any]:
    """How a model was calibrated, on how much, and which labels had too little of it."""
    calibration = trained.calibration
    told: dict[str, Any] = {"method": calibration.method}
    if calibration.reason:
        told["reason"] = calibration.reason
    positives = map(int, calibration.positives)
    return told | {
        "n": calibration.n,
        "n_patient_groups": calibration.n_patient_groups,
        "positives": dict(zip(trained.labels, positives, strict=True)),
        "pooled": list(calibration.pooled),
        "untuned": untuned_labels(trained),
    }


def untuned_labels(trained: TrainedModel) -> list[str]:
    """Labels whose threshold stays 0.5 for want of positives or negatives.

    The rule ``expected_f1`` needs none.
    """
    if trained.single or trained.threshold_rule == "expected_f1":
        return []
    calibration = trained.calibration
    fewest = np.minimum(calibration.positives, calibration.n - calibration.positives)
    pairs = zip(trained.labels, fewest, strict=True)
    return [label for label, n in pairs if n < MIN_POSITIVES_TO_TUNE]


def _told_views(evaluated: Evaluated, settings: Settings) -> dict[str, Any] | None:
    if evaluated.plain is None:
        return None
    views = (PLAIN_VIEW, *added_views(settings.test_time_augment))
    gain = view_gain(
        evaluated.reported, evaluated.plain, settings.bootstrap_resamples, settings.seed
    )
    names = [view.name for view in views]
    return {"views": names, "refitted": evaluated.is_refitted, **gain}


def _told_sets(
    reported: Predictions, trained: TrainedModel, settings: Settings
) -> dict[str, Any] | None:
    sets = sets_of(reported, trained, settings)
    if sets is None:
        return None
    stated = float(settings.conformal_coverage)
    return conformal_scores(sets, reported, stated, settings.bootstrap_resamples, settings.seed)
