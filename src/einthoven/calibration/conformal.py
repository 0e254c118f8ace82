"""Conformal sets: the labels that cannot be excluded, at a coverage stated in advance.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018). Limits come from RAW probabilities:
the guarantee needs a score that was fitted on other records, and the calibration is fitted on
these. It holds for new records like the calibration half's, on average over draws of that half; it
counts records as exchangeable, so several records of one patient make it a little less exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

STATED_COVERAGES = (0.8, 0.9, 0.95, 0.99)


def conformal_limits(
    targets: np.ndarray, raw: np.ndarray, labels: Sequence[str], single: bool
) -> dict[str, dict[str, float]]:
    """Stated coverage (``"0.9"``) to label to the raw probability from which it is in the set.

    Single: one limit for all classes; the set holds a record's true class with the stated
    probability (score 1 − p of the true class: Sadinle et al. 2019). Several labels: one limit for
    each, so that a record that has the label has it in its set with the stated probability
    (label-conditional). With too few positives for a coverage the limit is 0: the label can never
    be excluded.

    Args:
        targets: ``(n, C)`` of 0 and 1.
        raw: ``(n, C)`` raw probabilities.
        labels: C names.
        single: each record has exactly one label.
    """
    assert targets.shape == raw.shape == (len(raw), len(labels)), (targets.shape, raw.shape)
    is_positive = targets > 0
    of_label = [
        raw[is_positive] if single else raw[is_positive[:, c], c] for c in range(len(labels))
    ]
    return {
        str(coverage): {
            label: _conformal_limit(probability, coverage)
            for label, probability in zip(labels, of_label, strict=True)
        }
        for coverage in STATED_COVERAGES
    }


def conformal_sets(raw: np.ndarray, limits: Sequence[float] | np.ndarray) -> np.ndarray:
    """Which labels are in each record's set, ``(n, C)`` uint8; a set may be empty.

    Args:
        raw: ``(n, C)`` raw probabilities.
        limits: one per class, from `conformal_limits`.
    """
    return (raw >= np.asarray(limits, np.float64)).astype(np.uint8)


def name_conformal_sets(
    raw: np.ndarray, labels: Sequence[str], conformal: Mapping[str, Mapping[str, float]]
) -> list[dict[str, tuple[str, ...]]]:
    """The labels that cannot be excluded at each stated coverage, of each record.

    Args:
        raw: ``(n, C)`` raw probabilities.
        labels: C names.
        conformal: of `conformal_limits`.
    """
    sets: list[dict[str, tuple[str, ...]]] = [{} for _ in raw]
    for coverage, limits in conformal.items():
        is_in = conformal_sets(raw, [limits[label] for label in labels])
        for named, row in zip(sets, is_in, strict=True):
            named[coverage] = tuple(label for label, yes in zip(labels, row, strict=True) if yes)
    return sets


def _conformal_limit(probability: np.ndarray, coverage: float) -> float:
    """The k-th largest probability of those that have the label, k = ⌈(n + 1) coverage⌉.

    A new one ranks evenly among n + 1, so it is at or above the limit with probability k / (n + 1).
    """
    # Rounded: 0.95 times 20 must be 19, whatever binary fractions make of it.
    k = math.ceil(round((len(probability) + 1) * coverage, 9))
    if k > len(probability):
        return 0.0
    return float(np.sort(probability)[-k])
