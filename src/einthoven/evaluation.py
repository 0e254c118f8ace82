"""``evaluate_detailed``: how good the best model is, on records that it has not seen.

Over several archives the headline is the mean of per-archive scores, because an archive's habits
(its absent leads, its noise) give its labels away where all are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.bootstrap import INTERVAL_METHOD, ScoreName
from einthoven.checkpoint import TrainedModel, load_trained_model
from einthoven.console import format_table, log, plural
from einthoven.errors import CheckpointError, DataError
from einthoven.figures.curves import plot_training_curves
from einthoven.figures.saving import figure_stamp, save_figure
from einthoven.figures.scores import SCORE_FIGURES, save_score_figures
from einthoven.files import (
    Workspace,
    file_digest,
    read_json,
    stamp_step,
    step_changes,
    write_json,
    write_parquet,
)
from einthoven.inference import choose_device, predict_records
from einthoven.metrics import DEFAULT_THRESHOLD, decide
from einthoven.runs import chosen_records, data_fingerprint, empty_split_error
from einthoven.scoring import MIN_RECORDS_FOR_HEADLINE, Predictions, score_split
from einthoven.settings import Settings
from einthoven.splits import check_splits, read_splits
from einthoven.store import Store, label_matrix, open_store
from einthoven.tracking.trackers import track_evaluation

# Probabilities this near to 0 or 1 are moved away before their logarithm is taken.
SMALLEST_PROBABILITY = 1e-7

# The names of the scores in tables for people.
SCORE_TITLES = {
    ("auroc", "macro"): "macro AUROC",
    ("average_precision", "macro"): "macro AP",
    ("f1", "macro"): "macro F1",
    ("f1", "weighted"): "weighted F1",
    ("accuracy", ""): "accuracy",
    ("subset_accuracy", ""): "all labels right",
}
# A terminal has room for these; the report shows all.
SUMMARY_SCORES: tuple[ScoreName, ...] = (
    ("auroc", "macro"),
    ("average_precision", "macro"),
    ("f1", "macro"),
    ("accuracy", ""),
)

# What stands in place of the scores of too few records.
NO_SCORE_SHOWN = "–"
TOO_SMALL = f"fewer than {MIN_RECORDS_FOR_HEADLINE} records"


def evaluate_detailed(settings: Settings) -> dict[str, Any]:
    """Score the best model on the test and validation splits; write scores, predictions, figures.

    Writes ``test_metrics.json``, ``predictions.parquet`` and the figures; skips when model, store,
    splits and settings are those of the last evaluation.

    Returns:
        What ``test_metrics.json`` holds; docs/reference/metrics.md describes it.

    Raises:
        CheckpointError: there is no usable model, or it was trained on other data or splits.
        DataError: there is no usable store or split.
    """
    workspace = settings.workspace
    inputs = _evaluation_inputs(settings)
    if _evaluation_is_current(workspace, inputs):
        metrics: dict[str, Any] = read_json(metrics_path(workspace))
        return metrics
    trained = load_trained_model(workspace.best_model_path, choose_device(settings.device))
    predictions = _predict_splits(trained, settings)
    metrics = describe_evaluation(predictions, trained, settings)
    write_parquet(predictions_path(workspace), predictions_table(predictions))
    write_json(metrics_path(workspace), metrics)
    stamp = figure_stamp(datetime.now())
    figures = save_score_figures(predictions["test"], metrics, workspace.figures_dir, stamp)
    figures += _save_training_figure(settings, stamp)
    track_evaluation(settings, metrics, figures, int(trained.facts.get("epoch", 0)))
    stamp_step(workspace.step_path("evaluate"), inputs)
    return metrics


def _save_training_figure(settings: Settings, stamp: str) -> list[Path]:
    path = settings.workspace.checkpoints_dir / "training_history.json"
    history = read_json(path) if path.exists() else []
    if not history:
        return []
    figure = plot_training_curves(history, settings.best_metric)
    return [save_figure(figure, settings.workspace.figures_dir, "training_curves", stamp)]


def metrics_path(workspace: Workspace) -> Path:
    """Where the scores lie."""
    return workspace.checkpoints_dir / "test_metrics.json"


def predictions_path(workspace: Workspace) -> Path:
    """Where the predictions of single records lie."""
    return workspace.checkpoints_dir / "predictions.parquet"


# Up to date? -----------------------------------------------------------------------------------


def _evaluation_inputs(settings: Settings) -> dict[str, Any]:
    workspace = settings.workspace
    return {
        "model": file_digest(workspace.best_model_path),
        "manifest": file_digest(workspace.manifest_path),
        "splits": file_digest(workspace.splits_path),
        "run_mode": settings.run_mode,
        "bootstrap_resamples": settings.bootstrap_resamples,
        "interval": INTERVAL_METHOD,
        "seed": settings.seed,
    }


def _evaluation_is_current(workspace: Workspace, inputs: Mapping[str, Any]) -> bool:
    stamp = workspace.step_path("evaluate")
    changes = step_changes(stamp, inputs)
    files = (metrics_path(workspace), predictions_path(workspace))
    written = all(path.exists() for path in files) and all(
        any(workspace.figures_dir.glob(f"{name}_*.png")) for name in SCORE_FIGURES
    )
    if not changes and written:
        log.info("Evaluation is up to date (%s)", metrics_path(workspace))
        return True
    if stamp.exists():
        log.info("Evaluating again: %s", "; ".join(changes) or "its files are gone")
    return False


# Predictions -----------------------------------------------------------------------------------


def _predict_splits(trained: TrainedModel, settings: Settings) -> dict[str, Predictions]:
    store = open_store(settings.workspace)
    splits = read_splits(settings.workspace.splits_path)
    check_splits(splits, store.manifest)
    chosen = chosen_records(settings, store, splits)
    check_same_data(trained, data_fingerprint(store, chosen))
    return {
        split: predict_for_scoring(trained, store, chosen[key], split)
        for split, key in (("validation", "val"), ("test", "test"))
    }


def check_same_data(trained: TrainedModel, data: str) -> None:
    """Refuse a model that was trained before the store, its labels or its splits changed.

    It may have been trained on records that are in the test split now.

    Raises:
        CheckpointError: the model is of other data.
    """
    before = trained.facts.get("data")
    if before != data:
        raise CheckpointError(
            f"the best model was trained on other records, labels or splits (data {before}, now "
            f"{data}) and may have seen records that are in the test split now; train again "
            "(another --run-name, or --fresh), or run `einthoven prepare` with that run's settings"
        )


def predict_for_scoring(
    trained: TrainedModel, store: Store, rows: np.ndarray, split: str
) -> Predictions:
    """Predict some records, with the truth beside it.

    Args:
        rows: row numbers of the manifest.
        split: for messages.

    Raises:
        DataError: there are no records, or the model gives a probability that is no number.
    """
    if not len(rows):
        raise empty_split_error(split)
    log.info("Predicting %s of the %s split", plural(len(rows), "record"), split)
    probabilities = predict_records(trained, store, rows)
    if not np.isfinite(probabilities).all():
        raise DataError(
            f"the model gives probabilities that are no numbers on the {split} split: its training "
            "diverged; train again with a lower LR"
        )
    table = store.manifest.iloc[rows]
    thresholds = [trained.thresholds.get(label, DEFAULT_THRESHOLD) for label in trained.labels]
    return Predictions(
        records=table["record"].to_numpy(object),
        groups=table["patient_group"].astype(str).to_numpy(object),
        archives=table["archive"].to_numpy(object),
        targets=label_matrix(table, trained.labels).astype(np.uint8),
        probabilities=probabilities,
        decisions=decide(probabilities, thresholds, trained.single),
        labels=trained.labels,
        single=trained.single,
    )


def predictions_table(splits: Mapping[str, Predictions]) -> pd.DataFrame:
    """One row per record: ``record, patient_group, archive, split``, then columns for each label.

    ``label_<name>`` and ``decision_<name>`` are 0 and 1, ``probability_<name>`` the model's, and
    ``logit_<name>`` its log-odds; where each record has one label, its logarithm.
    """
    return pd.concat([_split_table(split, part) for split, part in splits.items()])


def _split_table(split: str, predictions: Predictions) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "record": predictions.records,
        "patient_group": predictions.groups,
        "archive": predictions.archives,
        "split": split,
    }
    logits = logits_of(predictions.probabilities, predictions.single)
    for c, label in enumerate(predictions.labels):
        columns[f"label_{label}"] = predictions.targets[:, c].astype(np.uint8)
        columns[f"logit_{label}"] = logits[:, c]
        columns[f"probability_{label}"] = predictions.probabilities[:, c]
        columns[f"decision_{label}"] = predictions.decisions[:, c].astype(np.uint8)
    return pd.DataFrame(columns)


def logits_of(probabilities: np.ndarray, single: bool) -> np.ndarray:
    """Log-probabilities where each record has one label, else log-odds.

    A record's probabilities are means over windows, so these are not the network's own outputs.
    """
    p = np.clip(probabilities.astype(float), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(p) if single else np.log(p) - np.log1p(-p), np.float32)


# What is written -------------------------------------------------------------------------------


def describe_evaluation(
    predictions: Mapping[str, Predictions], trained: TrainedModel, settings: Settings
) -> dict[str, Any]:
    """Scores of every split with all that is needed to have them again."""
    resamples, seed = settings.bootstrap_resamples, settings.seed
    scores = {
        split: {"split": split, **score_split(part, resamples, seed)}
        for split, part in predictions.items()
    }
    return {
        "label_set": trained.facts.get("label_set", settings.label_set),
        "labels": list(trained.labels),
        "task": "single" if trained.single else "multi",
        "thresholds": dict(trained.thresholds),
        "model": file_digest(settings.workspace.best_model_path),
        "seed": seed,
        "resamples": resamples,
        "interval": INTERVAL_METHOD,
        **scores["test"],
        "validation": scores["validation"],
    }


def evaluation_summary(metrics: Mapping[str, Any]) -> str:
    """The main scores of each archive with their intervals, as a table in plain text."""
    header = ["test split", "records", *(SCORE_TITLES[name] for name in SUMMARY_SCORES)]
    archives, headline = metrics["archives"], metrics["headline"]
    parts = dict(archives)
    if len(archives) > 1:
        parts |= {"all, pooled": metrics, "headline": headline}
    rows: list[list[object]] = [
        [title, part["n"], *score_texts(part, SUMMARY_SCORES)] for title, part in parts.items()
    ]
    lines = [format_table(header, rows)]
    if len(archives) > 1:
        lines.append(f"headline: {headline_how(headline)}")
    if any(is_too_small(part) for part in parts.values()):
        lines.append(f"{NO_SCORE_SHOWN}: {TOO_SMALL}; their scores say nothing")
    return "\n".join(lines)


def headline_how(headline: Mapping[str, Any]) -> str:
    """How the headline was averaged, as a person says it."""
    how: str = headline["how"]
    if not headline["left_out"]:
        return how
    if len(headline["archives"]) == 1:
        return f"{how}, the one archive with {MIN_RECORDS_FOR_HEADLINE} test records or more"
    return f"{how} ({', '.join(headline['archives'])})"


def is_too_small(part: Mapping[str, Any]) -> bool:
    """Whether scores stem from so few records that tables leave them out."""
    return bool(part["n"] < MIN_RECORDS_FOR_HEADLINE)


def score_texts(part: Mapping[str, Any], names: Sequence[ScoreName]) -> list[str]:
    """Scores with their intervals; a dash for each where the records are too few."""
    if is_too_small(part):
        return [NO_SCORE_SHOWN] * len(names)
    figures = [part[metric][average] if average else part[metric] for metric, average in names]
    return [figure_text(figure) for figure in figures]


def figure_text(figure: Mapping[str, Any]) -> str:
    """A score with its interval.

    >>> figure_text({"value": 0.91, "low": 0.898, "high": 0.922, "n": 871})
    '0.910 (0.898–0.922)'
    >>> figure_text({"value": None, "low": None, "high": None, "n": 4, "reason": "class absent"})
    'none'
    """
    if figure["value"] is None:
        return "none"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"
