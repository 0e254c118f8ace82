"""Reliability: how often a label is there, against how probable it was said to be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ReliabilityBins(NamedTuple):
    """Bins of one class, lowest probability first; each array is ``(bins,)``.

    Attributes:
        mean_probability: mean of what was said.
        observed_share: share of the bin's records that have the label.
        n_records: how many the bin holds, never 0.
        low, high: Wilson 95 % interval of the share.
    """

    mean_probability: np.ndarray
    observed_share: np.ndarray
    n_records: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reliability_bins(
    target: np.ndarray, probability: np.ndarray, n_bins: int = 10
) -> ReliabilityBins:
    """At most ``n_bins`` bins of equal expected variance, Σ p (1 − p).

    Of a rare class nearly all probabilities are tiny. Bins of equal width put all of those into
    one bin and leave the others almost empty; bins of equal count draw nine points near (0, 0).
    Bins of equal variance tell equally much about calibration: the tiny probabilities share few
    bins, and the few large ones, where decisions are made, are split. Equal probabilities are
    never parted, so the order of the records does not matter.

    Args:
        target: ``(n,)`` of 0 and 1.
        probability: ``(n,)``.
    """
    assert target.shape == probability.shape, (target.shape, probability.shape)
    values, which, counts = np.unique(
        probability.astype(np.float64), return_inverse=True, return_counts=True
    )
    bin_of_value = _bins_of_equal_variance(values, counts, n_bins)
    bins, bin_of = np.unique(bin_of_value[which], return_inverse=True)
    count = np.bincount(bin_of, minlength=len(bins))
    hits = np.bincount(bin_of, target > 0, minlength=len(bins))
    said = np.bincount(bin_of, probability, minlength=len(bins))
    low, high = wilson_interval(hits, count)
    return ReliabilityBins(said / count, hits / count, count, low, high)


def _bins_of_equal_variance(values: np.ndarray, counts: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin of each distinct probability: where the middle of its share of the variance falls."""
    # The least weight keeps bins where all probabilities are 0 or 1.
    weight = counts * np.maximum(values * (1 - values), 1e-9)
    middle = np.cumsum(weight) - weight / 2
    bins: np.ndarray = np.minimum(middle * n_bins // weight.sum(), n_bins - 1).astype(np.int64)
    return bins


def wilson_interval(hits: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of each share ``hits / count`` (Wilson 1927); counts are above 0."""
    z = 1.959964
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    half = z * spread / (1 + z**2 / count)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
