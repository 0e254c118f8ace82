"""Conformal sets and the gain of several views, as an evaluation tells them."""

from dataclasses import replace

import numpy as np
import pytest

from einthoven.scoring import Predictions
from einthoven.supplements import conformal_scores, view_gain


def four_records() -> Predictions:
    """Truth: A, A, B, both."""
    targets = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.uint8)
    names = np.array(["a", "b", "c", "d"], object)
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    return Predictions(names, names, names, targets, p, p, (p > 0.5) * 1, ("A", "B"), False)


def test_coverage_counts_true_labels_and_size_counts_all() -> None:
    sets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], np.uint8)
    told = conformal_scores(sets, four_records(), 0.9, 100, 0)
    # Held: A of the first two, B of the third; true labels: 5. Sizes 1, 2, 1, 0.
    assert told["coverage"]["value"] == pytest.approx(3 / 5)
    assert told["mean_size"]["value"] == 1.0 and told["empty"]["value"] == 0.25
    assert told["per_class"]["A"]["value"] == pytest.approx(2 / 3)
    assert told["mean_size"]["low"] < 1 < told["mean_size"]["high"]


def test_a_label_that_nobody_has_has_no_coverage() -> None:
    p = four_records()
    p = replace(p, targets=p.targets * np.array([1, 0], np.uint8))
    told = conformal_scores(np.ones((4, 2), np.uint8), p, 0.9, 100, 0)
    assert told["per_class"]["B"]["value"] is None
    assert told["per_class"]["B"]["reason"] == "class absent from the split"


def test_the_gain_of_no_change_is_zero() -> None:
    told = view_gain(four_records(), four_records(), 100, 0)
    gain = told["gain"]["auroc"]["macro"]
    assert gain["value"] == 0 and gain["low"] is None
    assert gain["reason"] == "all resamples have the same score: no interval"


def test_a_gain_is_the_difference_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 2)) < 0.4).astype(np.uint8)
    names = np.arange(200).astype(str).astype(object)
    weak, strong = (rng.normal(size=(200, 2)) + k * targets for k in (0.5, 2.0))
    plain = Predictions(names, names, names, targets, weak, weak, (weak > 1) * 1, ("A", "B"), False)
    better = replace(plain, probabilities=strong, decisions=(strong > 1) * 1)
    told = view_gain(better, plain, 200, 0)
    gain = told["gain"]["auroc"]["macro"]
    assert 0.1 < gain["low"] < gain["value"] < gain["high"]
    assert told["without"]["auroc"]["macro"]["value"] < 0.7


def test_shares_keep_their_intervals_within_the_unit_interval() -> None:
    rng = np.random.default_rng(1)
    targets = np.ones((12, 1), np.uint8)
    names = np.arange(12).astype(str).astype(object)
    p = rng.random((12, 1))
    nearly_all = np.ones((12, 1), np.uint8)
    nearly_all[0] = 0
    part = Predictions(names, names, names, targets, p, p, targets, ("A",), False)
    told = conformal_scores(nearly_all, part, 0.9, 200, 0)
    for figure in (told["coverage"], told["empty"], told["per_class"]["A"]):
        assert 0 < figure["low"] < figure["value"] < figure["high"] < 1
