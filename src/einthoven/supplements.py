"""What an evaluation adds when it is asked to: conformal sets, and the gain of several views."""

from __future__ import annotations

from typing import Any

import numpy as np

from einthoven.bootstrap import ScoreName, draw_patient_weights, normal_interval
from einthoven.metrics import divide_or_nan
from einthoven.scoring import Predictions, resample_scores

# The scores whose gain is told.
GAIN_SCORES: tuple[ScoreName, ...] = (
    ("auroc", "macro"),
    ("average_precision", "macro"),
    ("f1", "macro"),
)


def conformal_scores(
    sets: np.ndarray, predictions: Predictions, coverage: float, resamples: int, seed: int
) -> dict[str, Any]:
    """How often conformal sets hold the true labels, and how large they are.

    Args:
        sets: ``(n, C)`` of 0 and 1.
        predictions: of the same records.
        coverage: the stated one.

    Returns:
        ``stated_coverage``; ``coverage``, the share of true labels that their record's set holds,
        of all and per class; ``mean_size`` of the sets; ``empty``, the share of sets without a
        label.
    """
    held, there = sets * predictions.targets, predictions.targets.astype(float)
    one = np.ones(len(sets))
    columns = [
        (held.sum(1), there.sum(1)), (sets.sum(1), one), (1.0 - sets.any(1), one),
        *zip(held.T, there.T, strict=True),
    ]  # fmt: skip
    covered, size, empty, *per_class = _ratio_figures(columns, predictions, resamples, seed)
    return {
        "stated_coverage": coverage,
        "coverage": covered,
        "mean_size": size,
        "empty": empty,
        "per_class": dict(zip(predictions.labels, per_class, strict=True)),
    }


def _ratio_figures(
    columns: list[tuple[np.ndarray, np.ndarray]],
    predictions: Predictions,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Quotients of sums over records with 95 % intervals, all in the same resamples of patients."""
    above, below = (
        np.stack(part, axis=1).astype(np.float32) for part in zip(*columns, strict=True)
    )
    values = divide_or_nan(above.sum(0), below.sum(0))
    drawn = draw_patient_weights(
        predictions.groups.astype(str), resamples, np.random.default_rng(seed)
    )
    samples = np.concatenate([divide_or_nan(w @ above, w @ below) for w in drawn])
    return [
        change_figure(float(value), samples[:, k], len(predictions), "class absent from the split")
        for k, value in enumerate(values)
    ]


def change_figure(
    value: float, samples: np.ndarray, n: int, why_absent: str = "one of the scores does not exist"
) -> dict[str, Any]:
    """A figure that need not lie within 0 and 1, with a normal interval."""
    figure: dict[str, Any] = {"value": None, "low": None, "high": None, "n": n}
    if np.isnan(value):
        return figure | {"reason": why_absent}
    low, high = normal_interval(value, samples)
    if np.isnan(low):
        return figure | {"value": value, "reason": "all resamples have the same value: no interval"}
    return figure | {"value": value, "low": low, "high": high}


def view_gain(
    augmented: Predictions, plain: Predictions, resamples: int, seed: int
) -> dict[str, Any]:
    """What averaging over views brings: differences in the same resamples of patients."""
    after = resample_scores(augmented, resamples, seed)
    before = resample_scores(plain, resamples, seed)
    without: dict[str, Any] = {}
    gain: dict[str, Any] = {}
    for metric, average in GAIN_SCORES:
        name = (metric, average)
        value, old = float(after.values[name][0]), float(before.values[name][0])
        without[metric] = {average: change_figure(old, before.samples[name], len(plain))}
        differences = after.samples[name] - before.samples[name]
        gain[metric] = {average: change_figure(value - old, differences, len(plain))}
    return {"without": without, "gain": gain}
