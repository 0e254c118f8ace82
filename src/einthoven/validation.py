"""Scores of the records that pick the epoch, and what the other half settles for the best model."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from einthoven.calibration.maps import no_calibration
from einthoven.calibration.settling import Settled, settle
from einthoven.distributed import gather_shares, share_buffers
from einthoven.inference import predict_windows
from einthoven.metrics import (
    auroc,
    best_f1_thresholds,
    decide,
    f1_scores,
    label_accuracy,
    macro_auroc,
    macro_f1,
    precision_scores,
    recall_scores,
    subset_accuracy,
    weighted_f1,
)
from einthoven.objective import probability_loss
from einthoven.runs import Run, SplitData


def validate(run: Run, model: nn.Module) -> dict[str, Any]:
    """Score a model on the half that picks the epoch; returns its part of the history row."""
    return validation_scores(run, predict_half(run, run.selection, model))


def predict_half(run: Run, half: SplitData, model: nn.Module) -> np.ndarray:
    """Probabilities ``(n, C)`` of validation records; every process computes its share."""
    share_buffers(model, run.processes)
    mine = predict_windows(model, run.input, run.single, half.source, half.listed)
    return gather_shares(mine, len(half.records), run.processes)


def validation_scores(run: Run, probabilities: np.ndarray) -> dict[str, Any]:
    """Scores by the names of the history row.

    Decisions of several labels use each class's threshold of best F1 on these very records: good
    for comparing epochs, too good to report.
    """
    targets = run.selection.targets
    thresholds = best_f1_thresholds(targets, probabilities)
    decisions = decide(probabilities, thresholds, run.single)
    per_class = zip(
        run.labels,
        precision_scores(targets, decisions).tolist(),
        recall_scores(targets, decisions).tolist(),
        f1_scores(targets, decisions).tolist(),
        auroc(targets, probabilities).tolist(),
        targets.sum(0).astype(int).tolist(),
        strict=True,
    )
    names = ("precision", "recall", "f1", "auroc", "support")
    return {
        "val_loss": probability_loss(targets, probabilities, run.single),
        "val_accuracy": (subset_accuracy if run.single else label_accuracy)(targets, decisions),
        "val_f1_macro": macro_f1(targets, decisions),
        "val_f1_weighted": weighted_f1(targets, decisions),
        "val_auroc_macro": macro_auroc(targets, probabilities),
        "val_per_class": {
            label: dict(zip(names, scores, strict=True)) for label, *scores in per_class
        },
    }


def settle_decisions(run: Run, model: nn.Module) -> dict[str, Any]:
    """What turns a model's answers into decisions, from the half that did not pick the epoch.

    Returns:
        ``calibration``, ``thresholds`` by rule (none where each record has one label), and
        ``conformal`` limits by stated coverage: parts of the model file.
    """
    half = run.calibration
    if half is None:
        why = "the validation split is of one patient, so that no half is left for it"
        return Settled(no_calibration(run.labels, why), {}, {}).values()
    raw = predict_half(run, half, model)
    groups = run.store.manifest["patient_group"].iloc[half.records].to_numpy(object).astype(str)
    weights = None if run.weights is None else run.weights.tolist()
    return settle(half.targets, raw, groups, run.labels, run.single, weights).values()
