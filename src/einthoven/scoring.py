"""Predictions in, scores with 95 % intervals out, as plain values ready to be written as JSON.

Every figure is ``{"value", "low", "high", "n"}``; what does not exist is null, with the reason
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from einthoven.bootstrap import (
    ScoreName,
    all_scores,
    bootstrap_calibration,
    bootstrap_scores,
    calibration_scores,
    logit_interval,
    normal_interval,
    spread_of,
)
from einthoven.console import plural
from einthoven.metrics import confusion_matrix, label_tables, macro_mean

# The scores of fewer records than this say nothing: files hold them, but no table shows them, and
# they have no part in the headline.
MIN_RECORDS_FOR_HEADLINE = 20

HEADLINE_SCORES: tuple[ScoreName, ...] = (
    ("auroc", "macro"),
    ("average_precision", "macro"),
    ("f1", "macro"),
    ("f1", "weighted"),
    ("accuracy", ""),
    ("subset_accuracy", ""),
    ("challenge_score", ""),
)

CALIBRATION_SCORES = ("brier", "expected_calibration_error")

# A score that may be negative; all others lie within 0 and 1.
UNBOUNDED_SCORES = ("challenge_score",)

WHY_NO_SCORE = {
    "accuracy": "no record",
    "f_max": "no record of the split has a label",
    "challenge_score": "no record of the split has a label other than sinus rhythm",
}


COLUMNS_OF_PREDICTIONS = (
    "records", "groups", "archives", "targets", "raw", "probabilities", "decisions",
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """What a model said of some records, and what is true of them.

    Attributes:
        records, groups, archives: ``(n,)`` names, patient groups, archives.
        targets, decisions: ``(n, C)`` of 0 and 1.
        raw, probabilities: ``(n, C)`` before and after calibration; the same where there is none.
        labels: C names.
        single: each record has exactly one label.
    """

    records: np.ndarray
    groups: np.ndarray
    archives: np.ndarray
    targets: np.ndarray
    raw: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    labels: tuple[str, ...]
    single: bool

    def __len__(self) -> int:
        return len(self.records)

    @property
    def n_patient_groups(self) -> int:
        return len(np.unique(self.groups.astype(str)))

    def take(self, rows: np.ndarray) -> Predictions:
        """Those of some records: a mask of all of them, or row numbers."""
        chosen = {name: getattr(self, name)[rows] for name in COLUMNS_OF_PREDICTIONS}
        return replace(self, **chosen)

    def of_archive(self, archive: str) -> Predictions:
        """Those of one archive."""
        return self.take(self.archives == archive)


@dataclass(frozen=True)
class ResampledScores:
    """Scores of some predictions, and the same in every resample.

    Attributes:
        values: each score once, with a leading axis of 1.
        samples: each score in R resamples.
        n, n_patient_groups: records and patient groups behind them.
    """

    values: Mapping[ScoreName, np.ndarray]
    samples: Mapping[ScoreName, np.ndarray]
    n: int
    n_patient_groups: int


# One set of records -----------------------------------------------------------------------------


def score_predictions(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    single: bool,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Every score of some records with its 95 % interval.

    Args:
        targets, probabilities, decisions: ``(n, C)``.
        groups: ``(n,)`` patient groups, the bootstrap's clusters.
        labels: C names.
        single: each record has exactly one label.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"n", "n_patient_groups", "support": {label: positives}, "auroc": {"macro": figure,
        "weighted": figure, "per_class": {label: figure}}, …, "accuracy": figure}``.
    """
    nameless = np.full(len(targets), "", object)
    predictions = Predictions(
        records=nameless, groups=groups, archives=nameless, targets=targets, raw=probabilities,
        probabilities=probabilities, decisions=decisions, labels=tuple(labels), single=single,
    )  # fmt: skip
    return scores_as_json(resample_scores(predictions, resamples, seed), predictions)


def resample_scores(predictions: Predictions, resamples: int, seed: int) -> ResampledScores:
    """Score some predictions, once and in every resample."""
    p = predictions
    arrays, groups = (p.targets, p.probabilities, p.decisions), p.groups.astype(str)
    rng = np.random.default_rng(seed)
    return ResampledScores(
        all_scores(*arrays, None, p.single, p.labels),
        bootstrap_scores(*arrays, groups, p.single, resamples, rng, p.labels),
        len(p),
        p.n_patient_groups,
    )


def scores_as_json(scores: ResampledScores, predictions: Predictions) -> dict[str, Any]:
    """See `score_predictions`."""
    support = _support(predictions)
    return {
        "n": scores.n,
        "n_patient_groups": scores.n_patient_groups,
        "support": dict(zip(predictions.labels, support, strict=True)),
        **_figures_as_json(scores, predictions),
    }


def _support(predictions: Predictions) -> list[int]:
    support: list[int] = predictions.targets.astype(int).sum(axis=0).tolist()
    return support


def _figures_as_json(scores: ResampledScores, predictions: Predictions) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in scores.values:
        metric, average = name
        if average == "per_class":
            figures = _class_figures(scores, metric, predictions.labels, _support(predictions))
            result.setdefault(metric, {})[average] = figures
        elif average:
            result.setdefault(metric, {})[average] = score_figure(scores, name)
        else:
            result[metric] = score_figure(scores, name)
    return result


def score_figure(scores: ResampledScores, name: ScoreName) -> dict[str, Any]:
    """One average as ``{"value", "low", "high", "n"}``."""
    metric, _ = name
    why = WHY_NO_SCORE.get(metric, "no class of the split has this score")
    value, samples = float(scores.values[name][0]), scores.samples[name]
    counts = scores.n, scores.n_patient_groups
    return figure_with_interval(value, samples, *counts, why, metric not in UNBOUNDED_SCORES)


def _class_figures(
    scores: ResampledScores, metric: str, labels: Sequence[str], support: Sequence[int]
) -> dict[str, Any]:
    values, samples = scores.values[metric, "per_class"], scores.samples[metric, "per_class"]
    counts = scores.n, scores.n_patient_groups
    return {
        label: figure_with_interval(
            float(values[0, c]), samples[:, c], *counts, _why_class_has_no_score(metric, support[c])
        )
        for c, label in enumerate(labels)
    }


def _why_class_has_no_score(metric: str, n_positives: int) -> str:
    if metric in ("auroc", "specificity") and n_positives:
        return "every record of the split has this class"
    return "class absent from the split"


def figure_with_interval(
    value: float,
    samples: np.ndarray,
    n: int,
    n_patient_groups: int,
    why_absent: str,
    within_unit: bool = True,
) -> dict[str, Any]:
    """A score as ``{"value", "low", "high", "n"}``, with a reason for what is null.

    Args:
        value: NaN where the score does not exist.
        samples: ``(R,)`` the score in resamples of patient groups.
        n, n_patient_groups: records and patient groups behind it.
        why_absent: the reason where the value is NaN.
        within_unit: the score lies within 0 and 1, and so should its interval.
    """
    figure: dict[str, Any] = {"value": None, "low": None, "high": None, "n": n}
    if np.isnan(value):
        return figure | {"reason": why_absent}
    if n_patient_groups < 2:
        return figure | {"value": value, "reason": "one patient: no interval"}
    low, high = (logit_interval if within_unit else normal_interval)(value, samples)
    if np.isnan(low):
        return figure | {"value": value, "reason": _why_no_interval(samples)}
    return figure | {"value": value, "low": low, "high": high}


def _why_no_interval(samples: np.ndarray) -> str:
    if (~np.isnan(samples)).sum() < 2:
        return "fewer than two resamples have this score: no interval"
    if np.isnan(spread_of(samples)):
        return "all resamples have the same score: no interval"
    return "a score of 0 or 1 has no log-odds: no interval"


# A split of several archives --------------------------------------------------------------------


def score_split(predictions: Predictions, resamples: int, seed: int) -> dict[str, Any]:
    """Scores of a split: all records pooled, each archive, and the headline.

    The headline is the mean over archives of at least `MIN_RECORDS_FOR_HEADLINE` records, each
    resampled on its own; with one archive, or none that large, it is the pooled scores.

    Returns:
        The pooled scores, with ``"uncalibrated"``, ``"confusion"``, ``"headline"`` and
        ``"archives": {name: scores}`` beside them.
    """
    pooled = resample_scores(predictions, resamples, seed)
    names = sorted(set(predictions.archives.tolist()))
    parts = {name: predictions.of_archive(name) for name in names}
    scored = {names[0]: pooled}
    if len(names) > 1:
        scored = {
            name: resample_scores(part, resamples, seed + k)
            for k, (name, part) in enumerate(parts.items(), 1)
        }
    return {
        **scores_as_json(pooled, predictions),
        "uncalibrated": uncalibrated_scores(predictions, pooled, resamples, seed),
        "confusion": confusion_as_json(predictions),
        "headline": headline_scores(pooled, scored),
        "archives": {name: scores_as_json(scored[name], parts[name]) for name in names},
    }


def uncalibrated_scores(
    predictions: Predictions, pooled: ResampledScores, resamples: int, seed: int
) -> dict[str, Any]:
    """Calibration scores of the raw probabilities, in the same resamples as the pooled scores."""
    p = predictions
    if np.array_equal(p.raw, p.probabilities):
        names = [name for name in pooled.values if name[0] in CALIBRATION_SCORES]
        values = {name: pooled.values[name] for name in names}
        samples = {name: pooled.samples[name] for name in names}
    else:
        rng = np.random.default_rng(seed)
        values = calibration_scores(p.targets, p.raw, p.single)
        samples = bootstrap_calibration(
            p.targets, p.raw, p.groups.astype(str), p.single, resamples, rng
        )
    return _figures_as_json(ResampledScores(values, samples, len(p), p.n_patient_groups), p)


def confusion_as_json(predictions: Predictions) -> dict[str, Any]:
    """``{"matrix"}`` of true (row) by decided class; with several labels ``{"tables"}`` of each."""
    targets, decisions = predictions.targets, predictions.decisions
    if predictions.single:
        return {"matrix": confusion_matrix(targets, decisions).tolist()}
    names = ("true_negative", "false_positive", "false_negative", "true_positive")
    cells = label_tables(targets, decisions).reshape(-1, 4).tolist()
    return {
        "tables": {
            label: dict(zip(names, row, strict=True))
            for label, row in zip(predictions.labels, cells, strict=True)
        }
    }


def headline_scores(
    pooled: ResampledScores, archives: Mapping[str, ResampledScores]
) -> dict[str, Any]:
    """The few scores that a run is known by, with how they were averaged.

    Returns:
        ``{"how", "archives", "left_out": {archive: reason}, metric: …}``.
    """
    large = [name for name, part in archives.items() if part.n >= MIN_RECORDS_FOR_HEADLINE]
    scores, how = pooled, "all records pooled"
    if len(archives) == 1:
        large, how = list(archives), f"one archive, {next(iter(archives))}"
    elif large:
        scores = _mean_over_archives([archives[name] for name in large])
        how = (
            f"mean over {plural(len(large), 'archive')}" if len(large) > 1 else f"{large[0]} alone"
        )
    figures: dict[str, Any] = {}
    for metric, average in HEADLINE_SCORES:
        if (metric, average) in scores.values:
            figure = score_figure(scores, (metric, average))
            figures.setdefault(metric, {}).update({average: figure} if average else figure)
    why = f"fewer than {MIN_RECORDS_FOR_HEADLINE} records"
    left_out = {name: why for name in archives if large and name not in large}
    return {
        "how": how,
        "archives": large,
        "left_out": left_out,
        "n": scores.n,
        "n_patient_groups": scores.n_patient_groups,
        **figures,
    }


def _mean_over_archives(archives: Sequence[ResampledScores]) -> ResampledScores:
    """Means of the averaged scores; one archive without a value leaves the mean to the others."""
    names = [name for name in HEADLINE_SCORES if all(name in part.values for part in archives)]
    return ResampledScores(
        {name: _mean_of_known([part.values[name] for part in archives]) for name in names},
        {name: _mean_of_known([part.samples[name] for part in archives]) for name in names},
        sum(part.n for part in archives),
        sum(part.n_patient_groups for part in archives),
    )


def _mean_of_known(rows: Sequence[np.ndarray]) -> np.ndarray:
    return macro_mean(np.stack(rows, axis=-1))
