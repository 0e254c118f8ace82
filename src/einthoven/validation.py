"""Scores of the validation split, epoch by epoch, and the thresholds of the best model."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

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
from einthoven.runs import Run


def validate(run: Run, model: nn.Module) -> dict[str, Any]:
    """Score a model on the validation split; returns its part of the history row."""
    return validation_scores(run, predict_validation(run, model))


def predict_validation(run: Run, model: nn.Module) -> np.ndarray:
    """Probabilities ``(n, C)`` of the validation records; every process computes its share."""
    share_buffers(model, run.processes)
    mine = predict_windows(model, run.input, run.single, run.val.source, run.val.listed)
    return gather_shares(mine, len(run.val.records), run.processes)


def validation_scores(run: Run, probabilities: np.ndarray) -> dict[str, Any]:
    """Scores by the names of the history row.

    Decisions of several labels use each class's threshold of best F1 on this very split: good for
    comparing epochs, too good to report.
    """
    targets = run.val.targets
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


def validation_thresholds(run: Run, probabilities: np.ndarray) -> dict[str, float]:
    """Each label's threshold of best F1; none where each record has one label."""
    if run.single:
        return {}
    thresholds = best_f1_thresholds(run.val.targets, probabilities)
    return dict(zip(run.labels, thresholds.tolist(), strict=True))
