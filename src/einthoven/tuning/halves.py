"""What a run's best model says of the two halves of the validation split; the test split's records
are not even opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from einthoven.checkpoint import TrainedModel, load_trained_model
from einthoven.holdout import halve_records
from einthoven.inference import choose_device, predict_records
from einthoven.metrics import best_f1_thresholds, decide
from einthoven.scoring import Predictions, resample_scores, score_figure
from einthoven.settings import Settings
from einthoven.store import Store, label_matrix
from einthoven.training import open_data

# The half that picks the epoch and so the trial, and the one that picks neither.
CHOSEN_BY, OTHER_HALF = "selection", "other_half"


def predict_halves(settings: Settings) -> dict[str, Predictions]:
    """A finished run's answers to the halves of its validation split; the second may have none."""
    store, chosen = open_data(settings)
    halves = halve_records(store.manifest, chosen["val"], settings.split_seed)
    model = load_trained_model(settings.workspace.best_model_path, choose_device(settings.device))
    thresholds: np.ndarray | None = None
    answers: dict[str, Predictions] = {}
    for name, rows in zip((CHOSEN_BY, OTHER_HALF), halves, strict=True):
        if not len(rows):
            continue
        probabilities = predict_records(model, store, rows)
        targets = label_matrix(store.manifest.iloc[rows], model.labels).astype(np.uint8)
        if thresholds is None:
            # As after each epoch; the other half is decided by the same ones.
            thresholds = best_f1_thresholds(targets, probabilities)
        decisions = decide(probabilities, thresholds, model.single)
        answers[name] = _as_predictions(store, rows, model, targets, probabilities, decisions)
    return answers


def _as_predictions(
    store: Store,
    rows: np.ndarray,
    model: TrainedModel,
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
) -> Predictions:
    table = store.manifest.iloc[rows]
    return Predictions(
        records=table["record"].to_numpy(object), groups=table["patient_group"].to_numpy(object),
        archives=table["archive"].to_numpy(object), targets=targets, raw=probabilities,
        probabilities=probabilities, decisions=decisions, labels=model.labels, single=model.single,
    )  # fmt: skip


def score_halves(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """A finished run's score on each half, with its interval: ``{"value", "low", "high", "n"}``."""
    return {
        half: score_figure(
            resample_scores(answers, settings.bootstrap_resamples, settings.seed),
            (settings.best_metric, "macro"),
        )
        for half, answers in predict_halves(settings).items()
    }
