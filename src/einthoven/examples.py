"""Which records of a split show best what a model does: its best, its worst, and one of each class.

A pure function of predictions and seed, so that the same run shows the same records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from einthoven.console import plural

# Of more classes than this, those that the split holds most records of get an example.
MOST_CLASSES_WITH_EXAMPLE = 8


def choose_example_records(
    predictions: pd.DataFrame, labels: Sequence[str], thresholds: Mapping[str, float], seed: int
) -> dict[int, list[str]]:
    """The most confident right decision, the worst errors, the least certain, one of each class.

    The first four are picked for what they are; those of the classes are drawn at random, so that
    they say how the model does as a rule.

    Args:
        predictions: of one split, with ``label_``, ``decision_`` and ``probability_`` columns for
            each of the labels.
        labels: the model's.
        thresholds: label to the probability from which it is decided; empty where the likeliest is.
        seed: of the draw.

    Returns:
        Row of ``predictions`` to what it shows, in words; a row may show several things.
    """
    truth = predictions[[f"label_{label}" for label in labels]].to_numpy() > 0
    decided = predictions[[f"decision_{label}" for label in labels]].to_numpy() > 0
    probability = predictions[[f"probability_{label}" for label in labels]].to_numpy(float)
    chosen: dict[int, list[str]] = {}
    extremes = [
        _best_decision(truth, decided, probability),
        _worst_label(decided & ~truth, probability, labels, "the most confident false alarm"),
        _worst_label(truth & ~decided, 1 - probability, labels, "the most clearly missed label"),
        _least_certain(probability, [thresholds[label] for label in labels if thresholds]),
    ]
    for row, shows in [*filter(None, extremes), *_draw_of_classes(truth, labels, seed)]:
        chosen.setdefault(row, []).append(shows)
    return chosen


def _best_decision(
    truth: np.ndarray, decided: np.ndarray, probability: np.ndarray
) -> tuple[int, str] | None:
    """A record counts as confident as its least certain true label."""
    is_right = (truth == decided).all(axis=1) & truth.any(axis=1)
    confidence = np.where(is_right, np.where(truth, probability, 1).min(axis=1), -1)
    if not is_right.any():
        return None
    return int(confidence.argmax()), "the most confident right decision"


def _worst_label(
    is_wrong: np.ndarray, how_wrong: np.ndarray, labels: Sequence[str], name: str
) -> tuple[int, str] | None:
    if not is_wrong.any():
        return None
    row, c = np.unravel_index(np.where(is_wrong, how_wrong, -1).argmax(), is_wrong.shape)
    return int(row), f"{name}: {labels[int(c)]}"


def _least_certain(probability: np.ndarray, limits: Sequence[float]) -> tuple[int, str] | None:
    """Nearest to another decision: to a threshold, or to the second likeliest label."""
    if not len(probability):
        return None
    if limits:
        distance = np.abs(probability - np.array(limits)).min(axis=1)
    else:
        ranked = np.sort(probability, axis=1)
        distance = ranked[:, -1] - ranked[:, -2:].min(axis=1)
    return int(distance.argmin()), "the least certain decision"


def _draw_of_classes(truth: np.ndarray, labels: Sequence[str], seed: int) -> list[tuple[int, str]]:
    counts = truth.sum(axis=0)
    commonest = set(np.argsort(-counts, kind="stable")[:MOST_CLASSES_WITH_EXAMPLE].tolist())
    drawn = []
    for c, label in enumerate(labels):
        if c in commonest and counts[c]:
            # A class's draw does not hang on how many other classes there are.
            row = np.random.default_rng([seed, c]).choice(np.flatnonzero(truth[:, c]))
            n = plural(int(counts[c]), "record")
            drawn.append((int(row), f"drawn at random from {n} of {label}"))
    return drawn


# Errors ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConfidentError:
    """A decision that is wrong and was not close.

    Attributes:
        row: of the predictions.
        record: its name.
        label: decided and not true, or true and not decided.
        is_false_alarm: which of both.
        probability: of the label.
    """

    row: int
    record: str
    label: str
    is_false_alarm: bool
    probability: float


def choose_confident_errors(
    test: pd.DataFrame, labels: Sequence[str], most: int = 8
) -> list[ConfidentError]:
    """The most confident false alarms and the most clearly missed labels, by turns.

    Each record shows one error. Every class shows its worst error of a kind before any class shows
    its second.

    Args:
        test: of one split, with ``record`` and the columns of each label.
        labels: the model's.
        most: errors to choose.
    """
    truth = test[[f"label_{label}" for label in labels]].to_numpy() > 0
    decided = test[[f"decision_{label}" for label in labels]].to_numpy() > 0
    probability = test[[f"probability_{label}" for label in labels]].to_numpy(float)
    queues = [
        _rank_by_turns(decided & ~truth, probability),
        _rank_by_turns(truth & ~decided, 1 - probability),
    ]
    chosen: dict[int, ConfidentError] = {}
    while len(chosen) < most and any(queues):
        for queue, is_false_alarm in zip(queues, (True, False), strict=True):
            row, c = next(((r, c) for r, c in queue if r not in chosen), (None, 0))
            if row is None:
                queue.clear()
            elif len(chosen) < most:
                record, p = str(test["record"].iloc[row]), float(probability[row, c])
                chosen[row] = ConfidentError(row, record, labels[c], is_false_alarm, p)
                queue.remove((row, c))
    return list(chosen.values())


def _rank_by_turns(is_wrong: np.ndarray, how_wrong: np.ndarray) -> list[tuple[int, int]]:
    """Rows and classes of errors, worst first; the second of a class after the first of all."""
    rows, columns = np.nonzero(is_wrong)
    order = np.lexsort((rows, -how_wrong[rows, columns]))
    seen: Counter[int] = Counter()
    ranked = []
    for row, c in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        ranked.append((seen[c], row, c))
        seen[c] += 1
    return [(row, c) for _, row, c in sorted(ranked, key=lambda entry: entry[0])]
