"""Scores of predictions against labels: pure functions on arrays.

Throughout, ``targets`` and ``decisions`` are ``(n, C)`` of 0 and 1, ``probabilities`` is
``(n, C)``: n records, C classes. A score that does not exist is NaN, never 0 or 1: a class without
a positive has no score at all, and one without a negative has no AUROC and no specificity. Averages
over classes leave such classes out.

``weights`` is ``(R, n)``: how often each record counts in each of R resamples of a bootstrap;
scores then get a leading axis R. Without weights every record counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

# With fewer positives than this the threshold of best F1 is mostly noise.
MIN_POSITIVES_TO_TUNE = 20

DEFAULT_THRESHOLD = 0.5

# As in Guo et al., "On calibration of modern neural networks", ICML 2017.
CALIBRATION_BINS = 15

# 0, 0.01, … 1, as the PTB-XL benchmark counts them in `F_max` of its ``utils.py`` (Strodthoff et
# al. 2021, doi 10.1109/JBHI.2020.3022989; https://github.com/helme/ecg_ptbxl_benchmarking).
F_MAX_THRESHOLDS = np.arange(0, 1.01, 1 / 100)

# F-beta and G-beta of the PTB-XL benchmark and of the Challenge 2020: a miss counts twice.
BETA = 2


# Ranking: AUROC and average precision --------------------------------------------------------


def auroc(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class, ``(C,)``; a tied pair counts one half."""
    return _only_row(ranking_scores(targets, probabilities)[0])


def average_precision(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Average precision of each class, ``(C,)``: precision summed over steps of recall.

    The step-wise sum, without interpolation, as in scikit-learn.
    """
    return _only_row(ranking_scores(targets, probabilities)[1])


def ranking_scores(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of every class under every resample, each ``(R, C)``."""
    assert targets.shape == probabilities.shape, (targets.shape, probabilities.shape)
    if weights is None:
        weights = np.ones((1, len(targets)))
    columns = [
        _ranking_of_one_class(targets[:, c] > 0, probabilities[:, c], weights)
        for c in range(targets.shape[1])
    ]
    areas, precisions = zip(*columns, strict=True)
    return np.stack(areas, axis=1), np.stack(precisions, axis=1)


def _ranking_of_one_class(
    is_positive: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision, each ``(R,)``.

    Sorted once; each resample then needs cumulative weights only, and those only where the sorted
    records are positive: both scores are sums over positives.
    """
    if not is_positive.any():
        nothing = np.full(len(weights), np.nan)
        return nothing, nothing
    order = np.argsort(-probability, kind="stable")
    is_positive, probability = is_positive[order], probability[order]
    starts_tie = np.r_[True, probability[1:] != probability[:-1]]
    tie = np.cumsum(starts_tie) - 1
    first = np.flatnonzero(starts_tie)
    last = np.r_[first[1:], len(tie)] - 1
    positions = np.flatnonzero(is_positive)
    tie_of_positive = tie[positions]

    # above[:, k] is the weight of the k highest.
    sorted_weights = weights[:, order]
    above = _cumulative_from_zero(sorted_weights)
    hit_weights = sorted_weights[:, positions]
    hits_above = _cumulative_from_zero(hit_weights)
    n_hits_to = np.r_[0, np.cumsum(is_positive)]

    start, stop = first[tie_of_positive], last[tie_of_positive] + 1
    called = above[:, stop]
    hits = hits_above[:, n_hits_to[stop]]
    misses_before = above[:, start] - hits_above[:, n_hits_to[start]]
    misses = called - hits
    n_hits = hits_above[:, -1:]
    n_misses = above[:, -1:] - n_hits
    beaten = n_misses - (misses + misses_before) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (hit_weights * beaten).sum(axis=1) / (n_hits * n_misses)[:, 0]
        precision = np.where(called > 0, hits / called, 0)
        average = (hit_weights * precision).sum(axis=1) / n_hits[:, 0]
    return area, average


def _cumulative_from_zero(weights: np.ndarray) -> np.ndarray:
    total = np.zeros((weights.shape[0], weights.shape[1] + 1), weights.dtype)
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total


def _only_row(table: np.ndarray) -> np.ndarray:
    row: np.ndarray = table[0]
    return row


# Decisions: precision, recall, F1, accuracy --------------------------------------------------


def decision_counts(
    targets: np.ndarray, decisions: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, positives called and positives there are, each ``(R, C)``."""
    assert targets.shape == decisions.shape, (targets.shape, decisions.shape)
    if weights is None:
        weights = np.ones((1, len(targets)))
    there, called = (targets > 0).astype(weights.dtype), (decisions > 0).astype(weights.dtype)
    return weights @ (there * called), weights @ called, weights @ there


def divide_or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is zero."""
    quotient = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def divide_or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is zero."""
    quotient: np.ndarray = np.nan_to_num(divide_or_nan(numerator, denominator))
    return quotient


def recall_scores(targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Share of a class's records that were called so, ``(C,)``; its sensitivity."""
    hits, _, there = decision_counts(targets, decisions)
    return _only_row(divide_or_nan(hits, there))


def precision_scores(targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Share of a class's calls that were right, ``(C,)``; 0 for a class that is never called."""
    hits, called, there = decision_counts(targets, decisions)
    return _only_row(np.where(there > 0, divide_or_zero(hits, called), np.nan))


def f1_scores(targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, ``(C,)``."""
    hits, called, there = decision_counts(targets, decisions)
    return _only_row(np.where(there > 0, divide_or_zero(2 * hits, called + there), np.nan))


def label_accuracy(targets: np.ndarray, decisions: np.ndarray) -> float:
    """Share of right entries of the matrix: the mean over labels of each one's accuracy."""
    right = (targets > 0) == (decisions > 0)
    return float(right.mean()) if right.size else float("nan")


def subset_accuracy(targets: np.ndarray, decisions: np.ndarray) -> float:
    """Share of records with every label right."""
    right = ((targets > 0) == (decisions > 0)).all(axis=1)
    return float(right.mean()) if len(right) else float("nan")


# Calibration: Brier score and expected calibration error ------------------------------------------


def squared_errors(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What each record adds to the Brier score of each class, ``(n, C)``."""
    assert targets.shape == probabilities.shape, (targets.shape, probabilities.shape)
    errors: np.ndarray = ((targets > 0) - probabilities.astype(float)) ** 2
    return errors


def calibration_bins(probabilities: np.ndarray) -> np.ndarray:
    """Which of `CALIBRATION_BINS` equal parts of (0, 1] holds each probability; the first has 0."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges, probabilities, side="left") - 1
    # A mean of float32 probabilities may lie above 1 by rounding.
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def calibration_gaps(targets: np.ndarray, probabilities: np.ndarray) -> csr_array:
    """Truth minus probability of each record in the bin that it falls in.

    Returns:
        ``(C * CALIBRATION_BINS, n)``: a row per class and bin, sparse.
    """
    assert targets.shape == probabilities.shape, (targets.shape, probabilities.shape)
    n, n_classes = targets.shape
    rows = np.arange(n_classes) * CALIBRATION_BINS + calibration_bins(probabilities.astype(float))
    columns = np.repeat(np.arange(n), n_classes)
    gaps = (targets > 0) - probabilities.astype(float)
    shape = (n_classes * CALIBRATION_BINS, n)
    return csr_array((gaps.ravel(), (rows.ravel(), columns)), shape=shape)


def expected_calibration_errors(gaps: csr_array, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error of each class under every resample, ``(R, C)``.

    The mean over bins, each counting as often as it has records, of the distance between mean
    probability and share of positives: Guo et al. 2017 for one class, and class by class as in
    Kull et al., "Beyond temperature scaling", NeurIPS 2019. A bin's count cancels, so that the
    sum of its gaps is all one needs.

    Args:
        gaps: of `calibration_gaps`.
        weights: ``(R, n)``.
    """
    by_bin = np.abs(gaps @ weights.T).reshape(-1, CALIBRATION_BINS, len(weights))
    return divide_or_nan(by_bin.sum(axis=1).T, weights.sum(axis=1, keepdims=True))


def top_label_gaps(
    targets: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray
) -> csr_array:
    """`calibration_gaps` of "the decided class is right", for one label per record: one class."""
    is_decided = decisions > 0
    n_right = ((targets > 0) & is_decided).sum(axis=1, keepdims=True)
    confidence = np.where(is_decided, probabilities, 0).sum(axis=1, keepdims=True)
    return calibration_gaps(n_right, confidence)


# The PTB-XL benchmark's: F-max, F-beta, G-beta -----------------------------------------------


def f_max_terms(
    targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each record's precision, whether it has one, and its recall at each threshold of F-max.

    Returns:
        Three ``(n, T)``. A record for which nothing is at or above a threshold has no precision
        there (written 0); one without a label has recall 0.
    """
    assert targets.shape == probabilities.shape, (targets.shape, probabilities.shape)
    there = targets > 0
    called = _labels_at_thresholds(probabilities, np.ones_like(there))
    hits = _labels_at_thresholds(probabilities, there)
    recall = divide_or_zero(hits, there.sum(axis=1, keepdims=True))
    return divide_or_zero(hits, called), called > 0, recall


def _labels_at_thresholds(probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many of each record's labels that count are at or above each threshold, ``(n, T)``."""
    n, n_thresholds = len(probabilities), len(F_MAX_THRESHOLDS)
    # So many thresholds are at or below the probability.
    passed = np.searchsorted(F_MAX_THRESHOLDS, probabilities.astype(float), side="right")
    cells = passed + np.arange(n)[:, None] * (n_thresholds + 1)
    found = np.bincount(cells[counts], minlength=n * (n_thresholds + 1))
    at_or_above = found.reshape(n, n_thresholds + 1)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return at_or_above[:, 1:].astype(float)


def f_max_of(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Best harmonic mean of precision and recall over the thresholds of the last axis."""
    best: np.ndarray = np.fmax.reduce(
        divide_or_nan(2 * precision * recall, precision + recall), axis=-1
    )
    return best


def f_beta_of(hits: np.ndarray, called: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(1 + β²) hits / ((1 + β²) hits + false alarms + β² misses), NaN where a class is absent."""
    f_beta = divide_or_nan((1 + BETA**2) * hits, called + BETA**2 * there)
    return np.where(there > 0, f_beta, np.nan)


def g_beta_of(hits: np.ndarray, called: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Hits / (hits + false alarms + β misses), NaN where a class is absent."""
    g_beta = divide_or_nan(hits, called + BETA * (there - hits))
    return np.where(there > 0, g_beta, np.nan)


# Averages over classes -----------------------------------------------------------------------


def macro_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is.

    >>> float(macro_mean(np.array([0.5, np.nan, 1.0])))
    0.75
    """
    return weighted_mean(values, np.ones_like(values))


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the last axis of what is not NaN; NaN where nothing weighs."""
    known = ~np.isnan(values)
    weights = np.where(known, weights, 0)
    return divide_or_nan((np.where(known, values, 0) * weights).sum(axis=-1), weights.sum(axis=-1))


def macro_auroc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """AUROC averaged over the classes that have one."""
    return float(macro_mean(auroc(targets, probabilities)))


def macro_f1(targets: np.ndarray, decisions: np.ndarray) -> float:
    """F1 averaged over the classes that have one."""
    return float(macro_mean(f1_scores(targets, decisions)))


def weighted_f1(targets: np.ndarray, decisions: np.ndarray) -> float:
    """F1 averaged over classes, each counting as often as it has positives."""
    return float(weighted_mean(f1_scores(targets, decisions), (targets > 0).sum(axis=0)))


# Decisions from probabilities ----------------------------------------------------------------


def decide(
    probabilities: np.ndarray, thresholds: Sequence[float] | np.ndarray | None, single: bool
) -> np.ndarray:
    """Decisions ``(n, C)`` uint8: the likeliest class, or every class at or above its threshold.

    Args:
        probabilities: ``(n, C)``.
        thresholds: one per class; None for 0.5; not used where ``single``.
        single: each record has exactly one label.
    """
    if not single:
        limits = DEFAULT_THRESHOLD if thresholds is None else np.asarray(thresholds)
        return (probabilities >= limits).astype(np.uint8)
    decisions = np.zeros(probabilities.shape, np.uint8)
    decisions[np.arange(len(decisions)), probabilities.argmax(axis=1)] = 1
    return decisions


def best_f1_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Threshold of best F1 for each class, ``(C,)``, halfway between two probabilities seen.

    A class with fewer than `MIN_POSITIVES_TO_TUNE` positives, or without a negative, keeps 0.5.
    """
    assert targets.shape == probabilities.shape, (targets.shape, probabilities.shape)
    return np.array(
        [
            _best_f1_threshold(targets[:, c] > 0, probabilities[:, c].astype(float))
            for c in range(targets.shape[1])
        ]
    )


def _best_f1_threshold(is_positive: np.ndarray, probability: np.ndarray) -> float:
    n_positives = int(is_positive.sum())
    if n_positives < MIN_POSITIVES_TO_TUNE or n_positives == len(is_positive):
        return DEFAULT_THRESHOLD
    values, hits, called = _counts_by_threshold(is_positive, probability)
    best = int(np.argmax(2 * hits / (called + n_positives)))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def _counts_by_threshold(
    is_positive: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct probabilities, falling, with hits and calls at or above each."""
    order = np.argsort(-probability, kind="stable")
    falling = probability[order]
    ends_tie = np.r_[falling[1:] != falling[:-1], True]
    hits = np.cumsum(is_positive[order])[ends_tie]
    return falling[ends_tie], hits, np.flatnonzero(ends_tie) + 1


# Curves and tables ---------------------------------------------------------------------------


def roc_curve(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate of one class at every threshold, from (0, 0) to (1, 1).

    Args:
        target, probability: ``(n,)``; at least one positive and one negative.
    """
    is_positive = target > 0
    _, hits, called = _counts_by_threshold(is_positive, probability)
    misses = called - hits
    return np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]]


def precision_recall_curve(
    target: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one class at every threshold, recall rising from 0.

    Args:
        target, probability: ``(n,)``; at least one positive.
    """
    _, hits, called = _counts_by_threshold(target > 0, probability)
    precision = hits / called
    return np.r_[0, hits / hits[-1]], np.r_[precision[0], precision]


def confusion_matrix(targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Records by true (row) and decided (column) class, ``(C, C)``; for one label per record."""
    return (targets > 0).astype(np.int64).T @ (decisions > 0).astype(np.int64)


def label_tables(targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """The 2×2 table of each label, ``(C, 2, 2)``: absent, present by not called, called."""
    there, called = targets > 0, decisions > 0
    cells = [[~there & ~called, ~there & called], [there & ~called, there & called]]
    return np.stack(
        [np.stack([cell.sum(axis=0) for cell in row], axis=-1) for row in cells], axis=1
    )
