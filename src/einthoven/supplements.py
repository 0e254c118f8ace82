"""What an evaluation adds when it is asked to: conformal sets, and the gain of several views."""

from __future__ import annotations

from typing import Any

import numpy as np

from einthoven.bootstrap import ScoreName, draw_patient_weights
from einthoven.metrics import divide_or_nan
from einthoven.scoring import Predictions, figure_with_interval, resample_scores

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
        (sets.sum(1), one), (held.sum(1), there.sum(1)), (1.0 - sets.any(1), one),
        *zip(held.T, there.T, strict=True),
    ]  # fmt: skip
    size, covered, empty, *per_class = _ratio_figures(columns, predictions, resamples, seed)
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
    """Quotients of sums over records with 95 % intervals, all in the same resamples of patients.

    The first may be larger than 1; the others are shares.
    """
    above, below = (
        np.stack(part, axis=1).astype(np.float64) for part in zip(*columns, strict=True)
    )
    values = divide_or_nan(above.sum(0), below.sum(0))
    drawn = draw_patient_weights(
        predictions.groups.astype(str), resamples, np.random.default_rng(seed)
    )
    samples = np.concatenate([divide_or_nan(w @ above, w @ below) for w in drawn])
    return [
        _figure_of(float(value), samples[:, k], predictions, "class absent from the split", k > 0)
        for k, value in enumerate(values)
    ]


def _figure_of(
    value: float, samples: np.ndarray, predictions: Predictions, why_absent: str, within_unit: bool
) -> dict[str, Any]:
    n_groups = predictions.n_patient_groups
    return figure_with_interval(value, samples, len(predictions), n_groups, why_absent, within_unit)


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
        differences = after.samples[name] - before.samples[name]
        why = "no class of the split has this score"
        without[metric] = {average: _figure_of(old, before.samples[name], plain, why, True)}
        gain[metric] = {average: _figure_of(value - old, differences, plain, why, False)}
    return {"without": without, "gain": gain}
