"""Threshold rules: from which calibrated probability a label is decided.

Each rule is tuned on the calibration half. A threshold lies halfway between two probabilities seen
there, or between the lowest and 0, so that rounding cannot move a record across it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from einthoven.challenge_score import challenge_parts, fits_challenge
from einthoven.metrics import (
    DEFAULT_THRESHOLD,
    MIN_POSITIVES_TO_TUNE,
    best_f1_thresholds,
    decide,
    roc_curve,
)

SENSITIVITIES = {"sensitivity_80": 0.80, "sensitivity_90": 0.90, "sensitivity_95": 0.95}

THRESHOLD_RULES = (
    "half", "best_f1", "expected_f1", "youden", *SENSITIVITIES, "challenge_score",
)  # fmt: skip

# Coordinate ascent is at rest after three to five rounds; this bounds it.
MAX_ASCENT_ROUNDS = 20


def tune_thresholds(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Rule to label to threshold, for every rule; ``challenge_score`` only where the labels fit.

    ``half`` is 0.5; ``best_f1`` has the best F1; ``youden`` the largest sensitivity + specificity;
    ``sensitivity_X`` is the highest threshold whose sensitivity is at least X percent;
    ``challenge_score`` is where the Challenge-2021 score is best. A class with fewer than
    `MIN_POSITIVES_TO_TUNE` positives or negatives keeps 0.5 under all of these. ``expected_f1`` is
    for rare classes too: the best F1 that there would be were the calibrated probabilities true.

    Args:
        targets: ``(n, C)`` of 0 and 1.
        probabilities: ``(n, C)``, calibrated.
        labels: C names.
    """
    assert targets.shape == probabilities.shape == (len(targets), len(labels)), targets.shape
    probabilities = probabilities.astype(np.float64)
    positives = (targets > 0).sum(axis=0)
    is_tuned = np.minimum(positives, len(targets) - positives) >= MIN_POSITIVES_TO_TUNE
    half = np.full(len(labels), DEFAULT_THRESHOLD)
    rules = {"half": half, "best_f1": half.copy(), "youden": half.copy()}
    rules |= {rule: half.copy() for rule in SENSITIVITIES}
    rules["expected_f1"] = np.array([_expected_f1_threshold(p) for p in probabilities.T])
    rules["best_f1"][is_tuned] = best_f1_thresholds(targets, probabilities)[is_tuned]
    for c in np.flatnonzero(is_tuned):
        for rule, threshold in _roc_thresholds(targets[:, c], probabilities[:, c]).items():
            rules[rule][c] = threshold
    if fits_challenge(labels):
        rules["challenge_score"] = _best_challenge_thresholds(
            targets, probabilities, labels, rules["best_f1"], np.flatnonzero(is_tuned)
        )
    return {
        rule: dict(zip(labels, rules[rule].tolist(), strict=True))
        for rule in THRESHOLD_RULES
        if rule in rules
    }


def _roc_thresholds(target: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Threshold of each rule that reads the ROC curve, for one class with both kinds of record."""
    false_rate, true_rate = roc_curve(target, probability)
    # The curve's first point is the one where nothing is called.
    candidates = _candidate_thresholds(probability)
    chosen = {"youden": int(np.argmax(true_rate[1:] - false_rate[1:]))}
    for rule, sensitivity in SENSITIVITIES.items():
        chosen[rule] = int(np.argmax(true_rate[1:] >= sensitivity))
    return {rule: float(candidates[k]) for rule, k in chosen.items()}


def _expected_f1_threshold(probability: np.ndarray) -> float:
    """Where the expected F1 is best; it needs no labels, only probabilities that can be trusted.

    With p true, calling the k most probable records hits as many as their p add up to. The
    threshold is close to half the F1 that it reaches (Lipton, Elkan and Naryanaswamy 2014,
    arXiv:1402.1892).
    """
    if not probability.any():
        return DEFAULT_THRESHOLD
    values, counts = np.unique(probability, return_counts=True)
    falling, of_value = values[::-1], counts[::-1]
    hits = np.cumsum(falling * of_value)
    f1 = 2 * hits / (np.cumsum(of_value) + probability.sum())
    return float(_candidate_thresholds(probability)[int(np.argmax(f1))])


def _candidate_thresholds(probability: np.ndarray) -> np.ndarray:
    """Every threshold that calls other records than the next, falling; each calls at least one."""
    values = np.unique(probability)[::-1]
    candidates: np.ndarray = (values + np.r_[values[1:], 0.0]) / 2
    return candidates


def _best_challenge_thresholds(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    start: np.ndarray,
    tuned: np.ndarray,
) -> np.ndarray:
    """Thresholds ``(C,)`` that no change of a single one betters: coordinate ascent.

    Only the score's numerator depends on decisions, and it is a sum over records. So a class's
    best threshold, the others held, is found exactly: a running sum, from the most probable record
    down, of what each record gains when the class is called.
    """
    thresholds = start.copy()
    decisions = decide(probabilities, thresholds, single=False)
    for _ in range(MAX_ASCENT_ROUNDS):
        has_moved = False
        for c in tuned:
            gains = _gains_when_called(targets, decisions, labels, c)
            threshold = _best_sum_threshold(gains, probabilities[:, c], thresholds[c])
            has_moved |= threshold != thresholds[c]
            thresholds[c] = threshold
            decisions[:, c] = probabilities[:, c] >= threshold
        if not has_moved:
            break
    return thresholds


def _gains_when_called(
    targets: np.ndarray, decisions: np.ndarray, labels: Sequence[str], c: int
) -> np.ndarray:
    """What the Challenge score's numerator gains in each record when class ``c`` is called."""
    with_class, without = decisions.copy(), decisions.copy()
    with_class[:, c], without[:, c] = 1, 0
    gained, _ = challenge_parts(targets, with_class, labels)
    gained_without, _ = challenge_parts(targets, without, labels)
    gains: np.ndarray = gained - gained_without
    return gains


def _best_sum_threshold(gains: np.ndarray, probability: np.ndarray, now: float) -> float:
    """The threshold whose called records gain most; the one of now, unless it is bettered."""
    _, which = np.unique(probability, return_inverse=True)
    sums = np.cumsum(np.bincount(which, gains)[::-1])
    best = int(np.argmax(sums))
    # More than rounding, or two equal thresholds could take turns for ever.
    if sums[best] <= gains[probability >= now].sum() + 1e-9:
        return now
    return float(_candidate_thresholds(probability)[best])
