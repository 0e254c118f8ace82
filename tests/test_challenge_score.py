"""The Challenge-2021 score against what the official code gives on the same arrays."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from einthoven.bootstrap import all_scores, bootstrap_scores, draw_patient_weights
from einthoven.challenge_score import (
    CHALLENGE_NORMAL,
    challenge_parts,
    challenge_score,
    challenge_weights,
    fits_challenge,
)
from einthoven.labels.snomed import CHALLENGE_2021

LABELS = tuple(CHALLENGE_2021)
NORMAL = LABELS.index(CHALLENGE_NORMAL)
TABLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "tables" / "evaluation-2021"


def official_case(
    seed: int, n: int = 60, share: float = 0.1, flip: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of which some records have none, and decisions with some entries flipped."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, 26)) < share
    return targets, targets ^ (rng.random((n, 26)) < flip)


# What compute_challenge_metric of physionetchallenges/evaluation-2021 gave for official_case.
@pytest.mark.parametrize(
    ("seed", "how", "expected"),
    [
        (0, {}, 0.8309866764913432),
        (1, {"flip": 0.3}, 0.5623424168230292),
        (2, {"share": 0.02, "flip": 0.02}, 0.9122263127300912),
        (3, {"n": 1}, 0.9243027888446215),
        (4, {"flip": 1.0}, 0.47172171433952004),
        (5, {"n": 500, "share": 0.3, "flip": 0.5}, 0.631771641482818),
    ],
)
def test_score_equals_the_official_codes(seed: int, how: dict[str, float], expected: float) -> None:
    assert challenge_score(*official_case(seed, **how), LABELS) == pytest.approx(
        expected, abs=1e-12
    )


def test_degenerate_decisions_score_as_with_the_official_code() -> None:
    targets, _ = official_case(6)
    only_normal = np.zeros_like(targets)
    only_normal[:, NORMAL] = True
    each_class = np.eye(26, dtype=bool)
    next_class = np.roll(each_class, 1, axis=1)
    for truth, decisions, expected in (
        (targets, np.zeros_like(targets), -0.21590194541136382),
        (targets, np.ones_like(targets), 0.5987076450371683),
        (targets, only_normal, 0.0),
        (each_class, next_class, 0.005162465836623148),
        (each_class, each_class, 1.0),
    ):
        assert challenge_score(truth, decisions, LABELS) == pytest.approx(expected, abs=1e-12)


def test_score_is_not_defined_where_all_are_in_sinus_rhythm() -> None:
    # The official code says 0.
    targets, decisions = official_case(6)
    targets[:] = np.arange(26) == NORMAL
    assert np.isnan(challenge_score(targets, decisions, LABELS))
    assert np.isnan(challenge_score(targets[:1], decisions[:1], LABELS))
    assert np.isnan(challenge_score(np.zeros_like(targets), decisions, LABELS))


def test_order_of_the_labels_does_not_matter() -> None:
    targets, decisions = official_case(0)
    order = np.random.default_rng(0).permutation(26)
    labels = [LABELS[k] for k in order]
    assert challenge_score(targets[:, order], decisions[:, order], labels) == pytest.approx(
        0.8309866764913432
    )


def test_only_the_26_labels_fit() -> None:
    assert fits_challenge(LABELS) and fits_challenge(LABELS[::-1])
    assert not fits_challenge(LABELS[:-1])
    assert not fits_challenge([*LABELS[:-1], "MI"])
    assert not fits_challenge([*LABELS, "AF"])


def test_weights_are_symmetric_and_full_for_the_right_class() -> None:
    weights = challenge_weights(LABELS)
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_array_equal(np.diag(weights), np.ones(26))
    assert weights[~np.eye(26, dtype=bool)].max() == 0.5
    assert weights[LABELS.index("AF"), LABELS.index("PAC|SVPB")] == 0.3375


@pytest.mark.skipif(not TABLES.exists(), reason="the Challenge's own tables are not here")
def test_weights_are_those_of_the_official_table() -> None:
    with (TABLES / "weights_abbreviations.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    np.testing.assert_array_equal(
        challenge_weights(header[1:]), [[float(weight) for weight in row[1:]] for row in rows]
    )


def test_weighted_score_is_that_of_the_repeated_records() -> None:
    targets, decisions = official_case(0)
    groups = np.arange(60) // 2
    weights = next(draw_patient_weights(groups, 4, np.random.default_rng(2)))
    probabilities = decisions.astype(float)
    samples = bootstrap_scores(
        targets, probabilities, decisions, groups, False, 4, np.random.default_rng(2), LABELS
    )["challenge_score", ""]
    for weight, sample in zip(weights, samples, strict=True):
        repeated = np.repeat(np.arange(60), weight.astype(int))
        expected = challenge_score(targets[repeated], decisions[repeated], LABELS)
        assert sample == pytest.approx(expected, abs=1e-6)


def test_score_is_among_all_scores_only_where_the_labels_fit() -> None:
    targets, decisions = official_case(0)
    arrays = targets, decisions.astype(float), decisions
    scores = all_scores(*arrays, None, False, LABELS)
    assert scores["challenge_score", ""][0] == pytest.approx(0.8309866764913432)
    assert ("challenge_score", "") not in all_scores(*arrays, None, False)


def test_parts_of_single_records_add_up_to_the_score() -> None:
    targets, decisions = official_case(1, n=3)
    parts = [challenge_parts(targets[k : k + 1], decisions[k : k + 1], LABELS) for k in range(3)]
    gained, possible = np.sum(parts, axis=0)
    assert challenge_score(targets, decisions, LABELS) == pytest.approx((gained / possible)[0])
