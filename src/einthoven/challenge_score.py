"""The score of the PhysioNet/CinC Challenge 2021: partial credit for answers that do little harm.

Every pair of a true and a decided class has a weight: 1 for the right class, less for another, the
less the further apart their treatment lies. A record spreads its credit over all classes that are
true or decided. The score is 1 for the model that is always right and 0 for the one that always
says sinus rhythm; it may be negative.

Source: https://github.com/physionetchallenges/evaluation-2021 (``weights_abbreviations.csv``, and
``compute_challenge_metric`` of ``evaluate_model.py``), BSD 2-Clause; Reyna et al., "Will two do?
Varying dimensions in electrocardiography: the PhysioNet/Computing in Cardiology Challenge 2021",
doi 10.23919/CinC53138.2021.9662687.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from einthoven.labels.snomed import CHALLENGE_2021
from einthoven.metrics import divide_or_nan

# The class that a model without any skill would always say.
CHALLENGE_NORMAL = "NSR"

# Weights in eightieths, of which all of them are whole multiples. Rows are true classes, columns
# decided ones, both in the order of `CHALLENGE_2021`.
# fmt: off
CHALLENGE_WEIGHTS = {
    "AF": "80 40 38 24 38 32 24 24 28 28 24 34 36 28 20 27 30 34 30 32 28 24 24 30 40 40",
    "AFL": "40 80 38 24 38 32 24 24 28 28 24 34 36 28 20 27 30 34 30 32 28 24 24 30 40 40",
    "BBB": "38 38 80 26 38 34 26 26 30 30 26 36 38 30 22 29 32 36 32 30 30 26 26 32 38 38",
    "Brady": "24 24 26 80 26 32 40 40 36 36 40 30 28 36 36 37 34 30 34 16 36 40 40 34 24 24",
    "CLBBB|LBBB": "38 38 38 26 80 34 26 26 30 30 26 36 38 30 22 29 32 36 32 30 30 26 26 32 38 38",
    "CRBBB|RBBB": "32 32 34 32 34 80 32 32 36 36 32 38 36 36 28 35 38 38 38 24 36 32 32 38 32 32",
    "IAVB": "24 24 26 40 26 32 80 40 36 36 40 30 28 36 36 37 34 30 34 16 36 40 40 34 24 24",
    "IRBBB": "24 24 26 40 26 32 40 80 36 36 40 30 28 36 36 37 34 30 34 16 36 40 40 34 24 24",
    "LAD": "28 28 30 36 30 36 36 36 80 40 36 34 32 40 32 39 38 34 38 20 40 36 36 38 28 28",
    "LAnFB": "28 28 30 36 30 36 36 36 40 80 36 34 32 40 32 39 38 34 38 20 40 36 36 38 28 28",
    "LPR": "24 24 26 40 26 32 40 40 36 36 80 30 28 36 36 37 34 30 34 16 36 40 40 34 24 24",
    "LQRSV": "34 34 36 30 36 38 30 30 34 34 30 80 38 34 26 33 36 38 36 26 34 30 30 36 34 34",
    "LQT": "36 36 38 28 38 36 28 28 32 32 28 38 80 32 24 31 34 38 34 28 32 28 28 34 36 36",
    "NSIVCB": "28 28 30 36 30 36 36 36 40 40 36 34 32 80 32 39 38 34 38 20 40 36 36 38 28 28",
    "NSR": "20 20 22 36 22 28 36 36 32 32 36 26 24 32 80 33 30 26 30 12 32 36 36 30 20 20",
    "PAC|SVPB": "27 27 29 37 29 35 37 37 39 39 37 33 31 39 33 80 37 33 37 19 39 37 37 37 27 27",
    "PR": "30 30 32 34 32 38 34 34 38 38 34 36 34 38 30 37 80 36 40 22 38 34 34 40 30 30",
    "PRWP": "34 34 36 30 36 38 30 30 34 34 30 38 38 34 26 33 36 80 36 26 34 30 30 36 34 34",
    "PVC|VPB": "30 30 32 34 32 38 34 34 38 38 34 36 34 38 30 37 40 36 80 22 38 34 34 40 30 30",
    "QAb": "32 32 30 16 30 24 16 16 20 20 16 26 28 20 12 19 22 26 22 80 20 16 16 22 32 32",
    "RAD": "28 28 30 36 30 36 36 36 40 40 36 34 32 40 32 39 38 34 38 20 80 36 36 38 28 28",
    "SA": "24 24 26 40 26 32 40 40 36 36 40 30 28 36 36 37 34 30 34 16 36 80 40 34 24 24",
    "SB": "24 24 26 40 26 32 40 40 36 36 40 30 28 36 36 37 34 30 34 16 36 40 80 34 24 24",
    "STach": "30 30 32 34 32 38 34 34 38 38 34 36 34 38 30 37 40 36 40 22 38 34 34 80 30 30",
    "TAb": "40 40 38 24 38 32 24 24 28 28 24 34 36 28 20 27 30 34 30 32 28 24 24 30 80 40",
    "TInv": "40 40 38 24 38 32 24 24 28 28 24 34 36 28 20 27 30 34 30 32 28 24 24 30 40 80",
}
# fmt: on
CHALLENGE_UNIT = 80


def fits_challenge(labels: Sequence[str]) -> bool:
    """Whether these are the 26 classes that the Challenge scores, in any order."""
    return len(labels) == len(CHALLENGE_2021) and set(labels) == set(CHALLENGE_2021)


def challenge_weights(labels: Sequence[str]) -> np.ndarray:
    """Weight of each true (row) and decided (column) class, ``(26, 26)``, in the order given."""
    assert fits_challenge(labels), labels
    table = {
        row: dict(zip(CHALLENGE_2021, map(int, weights.split()), strict=True))
        for row, weights in CHALLENGE_WEIGHTS.items()
    }
    return np.array([[table[row][column] for column in labels] for row in labels]) / CHALLENGE_UNIT


def challenge_parts(
    targets: np.ndarray, decisions: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What each record adds to the score's numerator and denominator, each ``(n,)``.

    The score of any set of records, counted as often as one likes, is the sum of the first over
    the sum of the second.

    Args:
        targets, decisions: ``(n, 26)`` of 0 and 1.
        labels: the names of the columns; see `fits_challenge`.
    """
    assert targets.shape == decisions.shape, (targets.shape, decisions.shape)
    weights = challenge_weights(labels)
    there, called = targets > 0, decisions > 0
    says_normal = np.zeros_like(there)
    says_normal[:, list(labels).index(CHALLENGE_NORMAL)] = True
    inactive = _credit(there, says_normal, weights)
    return _credit(there, called, weights) - inactive, _credit(there, there, weights) - inactive


def _credit(there: np.ndarray, called: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over pairs of a true and a decided class, over how many classes are either, ``(n,)``."""
    n_classes = np.maximum((there | called).sum(axis=1), 1)
    credit: np.ndarray = (there.astype(float) @ weights * called).sum(axis=1) / n_classes
    return credit


def challenge_score(targets: np.ndarray, decisions: np.ndarray, labels: Sequence[str]) -> float:
    """The Challenge-2021 score; see `challenge_parts` for the arguments.

    NaN where it is not defined: no record has a label other than sinus rhythm. (The official code
    gives 0 there.)
    """
    gained, possible = challenge_parts(targets, decisions, labels)
    return float(divide_or_nan(gained.sum(), possible.sum()))
