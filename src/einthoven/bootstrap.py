"""Every score at once, and its interval: a bootstrap over patients, not over records.

Records of one patient are alike, so whole patient groups are drawn with replacement; a record then
counts as often as its group was drawn. The resamples are rows of a weight matrix, and each score
comes out for all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit

from einthoven.console import progress
from einthoven.metrics import (
    decision_counts,
    divide_or_nan,
    divide_or_zero,
    macro_mean,
    ranking_scores,
    weighted_mean,
)

# A score's name: the metric and how it is averaged, e.g. ("auroc", "macro").
ScoreName = tuple[str, str]

# So many weights are held at once: small enough to stay in the cache, where it is twice as fast.
RECORDS_PER_CHUNK = 500_000

INTERVAL_METHOD = "95 %, normal on the logit scale; spread from a bootstrap over patient groups"
NORMAL_QUANTILE = 1.959964

# Resamples that differ by less than this differ by rounding only.
ROUNDING_SPREAD = 1e-6


def bootstrap_scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    groups: np.ndarray,
    single: bool,
    resamples: int,
    rng: np.random.Generator,
) -> dict[ScoreName, np.ndarray]:
    """Each score of `all_scores` in each resample, ``(R,)`` or ``(R, C)``, NaN where it has none.

    Args:
        targets, probabilities, decisions: ``(n, C)``.
        groups: ``(n,)`` patient group of each record.
        single: each record has exactly one label.
        resamples: R, how many times patients are drawn.
        rng: decides the draws.
    """
    drawn = draw_patient_weights(groups, resamples, rng)
    n_chunks = math.ceil(resamples / _rows_per_chunk(len(groups)))
    chunks = [
        all_scores(targets, probabilities, decisions, weights, single)
        for weights in progress(drawn, desc="Resampling patients", total=n_chunks, unit="parts")
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def draw_patient_weights(
    groups: np.ndarray, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield float32 ``(r, n)``, R rows in all: how often each record counts in each resample."""
    names, group_of_record = np.unique(groups, return_inverse=True)
    n_groups = len(names)
    step = _rows_per_chunk(len(groups))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n_groups, size=(rows, n_groups))
        drawn += np.arange(rows)[:, None] * n_groups
        times = np.bincount(drawn.ravel(), minlength=rows * n_groups).reshape(rows, n_groups)
        # Sums of small whole numbers stay exact in float32 up to 16 million records.
        yield times.astype(np.float32)[:, group_of_record]


def _rows_per_chunk(n_records: int) -> int:
    return max(1, RECORDS_PER_CHUNK // max(n_records, 1))


def all_scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    weights: np.ndarray | None,
    single: bool,
) -> dict[ScoreName, np.ndarray]:
    """Every score under every row of ``weights`` (None: one row of ones).

    Returns:
        ``(R,)`` for averages, ``(R, C)`` for ``(metric, "per_class")``. ``("accuracy", "")`` is the
        share of right records where ``single``, else of right entries; multi-label adds
        ``("subset_accuracy", "")``, the share of records with every label right.
    """
    if weights is None:
        weights = np.ones((1, len(targets)))
    counts = decision_counts(targets, decisions, weights)
    areas, precisions = ranking_scores(targets, probabilities, weights)
    per_class = {"auroc": areas, "average_precision": precisions, **_decision_scores(*counts)}
    scores: dict[ScoreName, np.ndarray] = {}
    for metric, values in per_class.items():
        scores[metric, "per_class"] = values
        scores[metric, "macro"] = macro_mean(values)
        scores[metric, "weighted"] = weighted_mean(values, counts[2])
    pooled = _decision_scores(*(count.sum(axis=1, keepdims=True) for count in counts))
    scores.update({(metric, "micro"): values[:, 0] for metric, values in pooled.items()})
    return scores | _accuracies(targets, decisions, weights, single)


def _decision_scores(
    hits: np.ndarray, called: np.ndarray, there: np.ndarray
) -> dict[str, np.ndarray]:
    is_there = there > 0
    return {
        "f1": np.where(is_there, divide_or_zero(2 * hits, called + there), np.nan),
        "precision": np.where(is_there, divide_or_zero(hits, called), np.nan),
        "recall": divide_or_nan(hits, there),
    }


def _accuracies(
    targets: np.ndarray, decisions: np.ndarray, weights: np.ndarray, single: bool
) -> dict[ScoreName, np.ndarray]:
    right = (targets > 0) == (decisions > 0)
    total = weights.sum(axis=1)
    by_record = divide_or_nan(weights @ right.all(axis=1).astype(weights.dtype), total)
    if single:
        return {("accuracy", ""): by_record}
    by_entry = divide_or_nan(weights @ right.mean(axis=1).astype(weights.dtype), total)
    return {("accuracy", ""): by_entry, ("subset_accuracy", ""): by_record}


def logit_interval(value: float, samples: np.ndarray) -> tuple[float, float]:
    """A 95 % interval around a score, which lies within 0 and 1 and always holds the score.

    Resamples give the score's spread only, and the interval is normal on the scale of log-odds
    (Boyd, Eng and Page, "Area under the precision-recall curve", ECML PKDD 2013, recommend this for
    average precision). Percentiles of the resamples would not do: in a resample the same record
    stands above itself several times, which raises the average precision, so that they can lie
    above the score altogether.

    Args:
        value: the score, 0 to 1.
        samples: ``(R,)`` the score in resamples; NaN where one has none.

    Returns:
        NaN where fewer than two resamples have the score, or where all are the same, as they are
        with a score of 0 or 1: they tell nothing about the spread then.

    >>> [round(end, 3) for end in logit_interval(0.9, np.array([0.85, 0.9, 0.95, np.nan]))]
    [0.752, 0.964]
    """
    known = samples[~np.isnan(samples)]
    if len(known) < 2:
        return float("nan"), float("nan")
    spread = float(np.std(known, ddof=1, dtype=np.float64))
    if spread < ROUNDING_SPREAD or not 0 < value < 1:
        return float("nan"), float("nan")
    middle, half = logit(value), NORMAL_QUANTILE * spread / (value * (1 - value))
    # Rounding must not put the score outside.
    return min(float(expit(middle - half)), value), max(float(expit(middle + half)), value)
