"""Every score at once, and its interval: a bootstrap over patients, not over records.

Records of one patient are alike, so whole patient groups are drawn with replacement; a record then
counts as often as its group was drawn. The resamples are rows of a weight matrix, and each score
comes out for all of them together. All scores but the rankings are made of sums over records, so
what each record adds is worked out once, and a resample is a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import csr_array
from scipy.special import expit, logit

from einthoven.challenge_score import challenge_parts, fits_challenge
from einthoven.console import progress
from einthoven.metrics import (
    calibration_gaps,
    decide,
    divide_or_nan,
    divide_or_zero,
    expected_calibration_errors,
    f_beta_of,
    f_max_of,
    f_max_terms,
    g_beta_of,
    macro_mean,
    ranking_scores,
    squared_errors,
    top_label_gaps,
    weighted_mean,
)

# A score's name: the metric and how it is averaged, e.g. ("auroc", "macro").
ScoreName = tuple[str, str]

# So many weights are held at once: small enough to stay in the cache, where it is twice as fast.
RECORDS_PER_CHUNK = 500_000

INTERVAL_METHOD = (
    "95 %, normal on the logit scale (the Challenge score's on its own scale); spread from a "
    "bootstrap over patient groups"
)
NORMAL_QUANTILE = 1.959964

# Resamples that differ by less than this differ by rounding only.
ROUNDING_SPREAD = 1e-6


# Resamples ---------------------------------------------------------------------------------------


def bootstrap_scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    groups: np.ndarray,
    single: bool,
    resamples: int,
    rng: np.random.Generator,
    labels: Sequence[str] = (),
) -> dict[ScoreName, np.ndarray]:
    """Each score of `all_scores` in each resample, ``(R,)`` or ``(R, C)``, NaN where it has none.

    Args:
        targets, probabilities, decisions: ``(n, C)``.
        groups: ``(n,)`` patient group of each record.
        single: each record has exactly one label.
        resamples: R, how many times patients are drawn.
        rng: decides the draws.
        labels: C names; the Challenge score is there where they are its 26.
    """
    terms = _record_terms(targets, probabilities, decisions, single, labels, np.float32)
    return _resample(lambda weights: _scores_of(terms, weights), groups, resamples, rng)


def bootstrap_calibration(
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    single: bool,
    resamples: int,
    rng: np.random.Generator,
) -> dict[ScoreName, np.ndarray]:
    """Each score of `calibration_scores` in each resample; see `bootstrap_scores`."""
    decisions = decide(probabilities, None, single)
    terms = _calibration_terms(targets, probabilities, decisions, single, np.float32)
    return _resample(lambda weights: _calibration_of(terms, weights), groups, resamples, rng)


def _resample(
    score: Callable[[np.ndarray], dict[ScoreName, np.ndarray]],
    groups: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
) -> dict[ScoreName, np.ndarray]:
    drawn = draw_patient_weights(groups, resamples, rng)
    n_chunks = math.ceil(resamples / _rows_per_chunk(len(groups)))
    chunks = [
        score(weights)
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


# Scores -----------------------------------------------------------------------------------------


def all_scores(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    weights: np.ndarray | None,
    single: bool,
    labels: Sequence[str] = (),
) -> dict[ScoreName, np.ndarray]:
    """Every score under every row of ``weights`` (None: one row of ones).

    Returns:
        ``(R,)`` for averages, ``(R, C)`` for ``(metric, "per_class")``. ``("accuracy", "")`` is the
        share of right records where ``single``, else of right entries; multi-label adds
        ``("subset_accuracy", "")``, the share of records with every label right; the 26 labels of
        the Challenge 2021 add ``("challenge_score", "")``.
    """
    if weights is None:
        weights = np.ones((1, len(targets)))
    terms = _record_terms(targets, probabilities, decisions, single, labels, weights.dtype)
    return _scores_of(terms, weights)


def calibration_scores(
    targets: np.ndarray, probabilities: np.ndarray, single: bool
) -> dict[ScoreName, np.ndarray]:
    """Brier score and expected calibration error as `all_scores` has them, without decisions.

    Where ``single``, ``top_label`` is about the likeliest class.
    """
    decisions = decide(probabilities, None, single)
    terms = _calibration_terms(targets, probabilities, decisions, single, float)
    return _calibration_of(terms, np.ones((1, len(targets))))


@dataclass(frozen=True)
class CalibrationTerms:
    """What each record adds to the calibration scores.

    Attributes:
        there: ``(n, C)`` 1 where the record has the class.
        squares: ``(n, C)`` squared errors.
        gaps: ``(C * bins, n)``; see `calibration_gaps`.
        top_gaps: ``(bins, n)``, the same of the decided class; None in a multi-label task.
    """

    there: np.ndarray
    squares: np.ndarray
    gaps: csr_array
    top_gaps: csr_array | None


@dataclass(frozen=True)
class RecordTerms:
    """What each record adds to the sums of which scores are made.

    Attributes:
        targets, probabilities: ``(n, C)``, for the rankings.
        sums: name to ``(n, k)``.
        calibration: of the Brier score and the calibration error.
    """

    targets: np.ndarray
    probabilities: np.ndarray
    sums: Mapping[str, np.ndarray]
    calibration: CalibrationTerms


def _record_terms(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    single: bool,
    labels: Sequence[str],
    dtype: DTypeLike,
) -> RecordTerms:
    assert targets.shape == decisions.shape, (targets.shape, decisions.shape)
    sums = {
        **_decision_terms(targets > 0, decisions > 0, single),
        **_f_max_sums(targets, probabilities),
    }
    if fits_challenge(labels):
        gained, possible = challenge_parts(targets, decisions, labels)
        sums |= {"gained": gained[:, None], "possible": possible[:, None]}
    return RecordTerms(
        targets,
        probabilities,
        {name: values.astype(dtype) for name, values in sums.items()},
        _calibration_terms(targets, probabilities, decisions, single, dtype),
    )


def _decision_terms(there: np.ndarray, called: np.ndarray, single: bool) -> dict[str, np.ndarray]:
    """Hits, calls and positives of each class; ``shared_``: over how many labels a record has."""
    counts = {"hits": there & called, "called": called, "there": there}
    # The Challenge 2020 counts a record without a label once.
    n_labels = np.maximum(there.sum(axis=1, keepdims=True), 1)
    right = there == called
    return {
        **counts,
        **{f"shared_{name}": count / n_labels for name, count in counts.items()},
        "right_records": right.all(axis=1, keepdims=True),
        **({} if single else {"right_entries": right.mean(axis=1, keepdims=True)}),
    }


def _f_max_sums(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    names = ("record_precision", "has_precision", "record_recall")
    terms = dict(zip(names, f_max_terms(targets, probabilities), strict=True))
    return terms | {"has_label": (targets > 0).sum(axis=1, keepdims=True) > 0}


def _calibration_terms(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    single: bool,
    dtype: DTypeLike,
) -> CalibrationTerms:
    top_gaps = top_label_gaps(targets, probabilities, decisions).astype(dtype) if single else None
    return CalibrationTerms(
        (targets > 0).astype(dtype),
        squared_errors(targets, probabilities).astype(dtype),
        calibration_gaps(targets, probabilities).astype(dtype),
        top_gaps,
    )


def _scores_of(terms: RecordTerms, weights: np.ndarray) -> dict[ScoreName, np.ndarray]:
    sums = {name: weights @ values for name, values in terms.sums.items()}
    total = weights.sum(axis=1, keepdims=True)
    areas, precisions = ranking_scores(terms.targets, terms.probabilities, weights)
    hits, called, there = sums["hits"], sums["called"], sums["there"]
    per_class = {
        "auroc": areas,
        "average_precision": precisions,
        **_decision_scores(hits, called, there, total),
    }
    scores: dict[ScoreName, np.ndarray] = {}
    for metric, values in per_class.items():
        scores[metric, "per_class"] = values
        scores[metric, "macro"] = macro_mean(values)
        scores[metric, "weighted"] = weighted_mean(values, there)
    totals = np.broadcast_to(total, there.shape)
    pooled = _decision_scores(
        *(count.sum(axis=1, keepdims=True) for count in (hits, called, there, totals))
    )
    scores.update({(metric, "micro"): values[:, 0] for metric, values in pooled.items()})
    return (
        scores
        | _calibration_of(terms.calibration, weights)
        | {(metric, ""): values for metric, values in _record_scores(sums, total).items()}
        | _beta_scores(sums)
    )


def _decision_scores(
    hits: np.ndarray, called: np.ndarray, there: np.ndarray, total: np.ndarray
) -> dict[str, np.ndarray]:
    is_there, negatives = there > 0, total - there
    specificity = divide_or_nan(negatives - (called - hits), negatives)
    return {
        "f1": np.where(is_there, divide_or_zero(2 * hits, called + there), np.nan),
        "precision": np.where(is_there, divide_or_zero(hits, called), np.nan),
        "recall": divide_or_nan(hits, there),
        "specificity": np.where(is_there, specificity, np.nan),
    }


def _record_scores(sums: Mapping[str, np.ndarray], total: np.ndarray) -> dict[str, np.ndarray]:
    """Scores that are not about one class, each ``(R,)``."""
    by_record = divide_or_nan(sums["right_records"], total)[:, 0]
    scores = {"accuracy": by_record}
    if "right_entries" in sums:
        by_entry = divide_or_nan(sums["right_entries"], total)[:, 0]
        scores = {"accuracy": by_entry, "subset_accuracy": by_record}
    scores["f_max"] = f_max_of(
        divide_or_nan(sums["record_precision"], sums["has_precision"]),
        divide_or_nan(sums["record_recall"], sums["has_label"]),
    )
    if "gained" in sums:
        scores["challenge_score"] = divide_or_nan(sums["gained"], sums["possible"])[:, 0]
    return scores


def _beta_scores(sums: Mapping[str, np.ndarray]) -> dict[ScoreName, np.ndarray]:
    shared = sums["shared_hits"], sums["shared_called"], sums["shared_there"]
    return {
        ("f_beta", "macro"): macro_mean(f_beta_of(*shared)),
        ("g_beta", "macro"): macro_mean(g_beta_of(*shared)),
    }


def _calibration_of(terms: CalibrationTerms, weights: np.ndarray) -> dict[ScoreName, np.ndarray]:
    is_there = weights @ terms.there > 0
    brier = divide_or_nan(weights @ terms.squares, weights.sum(axis=1, keepdims=True))
    per_class = {
        "brier": brier,
        "expected_calibration_error": expected_calibration_errors(terms.gaps, weights),
    }
    scores: dict[ScoreName, np.ndarray] = {}
    for metric, values in per_class.items():
        scores[metric, "per_class"] = np.where(is_there, values, np.nan)
        scores[metric, "macro"] = macro_mean(scores[metric, "per_class"])
    if terms.top_gaps is not None:
        top = expected_calibration_errors(terms.top_gaps, weights)[:, 0]
        scores["expected_calibration_error", "top_label"] = top
    return scores


# Intervals --------------------------------------------------------------------------------------


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
    spread = spread_of(samples)
    if np.isnan(spread) or not 0 < value < 1:
        return float("nan"), float("nan")
    middle, half = logit(value), NORMAL_QUANTILE * spread / (value * (1 - value))
    # Rounding must not put the score outside.
    return min(float(expit(middle - half)), value), max(float(expit(middle + half)), value)


def normal_interval(value: float, samples: np.ndarray) -> tuple[float, float]:
    """A 95 % interval around a score that has no bounds, or may lie on them.

    Args:
        value: the score.
        samples: ``(R,)`` the score in resamples; NaN where one has none.

    Returns:
        The score less and plus 1.96 standard deviations; NaN as in `logit_interval`.

    >>> [round(end, 3) for end in normal_interval(-0.1, np.array([-0.15, -0.1, -0.05, np.nan]))]
    [-0.198, -0.002]
    """
    half = NORMAL_QUANTILE * spread_of(samples)
    return value - half, value + half


def spread_of(samples: np.ndarray) -> float:
    """Standard deviation of what is not NaN; NaN where there are fewer than two or no spread."""
    known = samples[~np.isnan(samples)]
    if len(known) < 2:
        return float("nan")
    spread = float(np.std(known, ddof=1, dtype=np.float64))
    return spread if spread >= ROUNDING_SPREAD else float("nan")
