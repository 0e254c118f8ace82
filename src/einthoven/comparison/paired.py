"""Differences between the scores of two runs, each with its interval, in the same resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.bootstrap import ScoreName, spread_of
from einthoven.comparison.scored_runs import ScoredRun, read_scored_run
from einthoven.comparison.sharing import (
    PredictionsPair,
    comparison_warnings,
    say_the_same,
    shared_predictions,
)
from einthoven.comparison.telling import comparison_verdict
from einthoven.metrics import macro_mean
from einthoven.scoring import (
    HEADLINE_SCORES,
    UNBOUNDED_SCORES,
    Predictions,
    ResampledScores,
    figure_with_interval,
    headline_scores,
    resample_scores,
)

COMPARED_SCORES: tuple[ScoreName, ...] = (
    *HEADLINE_SCORES,
    ("brier", "macro"),
    ("auroc", "per_class"),
)
DIFFERENCE_INTERVAL = (
    "95 %, normal; spread from a bootstrap over patient groups, the same draws for both runs"
)


@dataclass(frozen=True)
class PairedScores:
    """Scores of two runs on the same records, and in the same resamples of them.

    Attributes:
        values: score to ``(2,)``, or to ``(2, C)`` for a score per class.
        samples: score to ``(2, R)``, or to ``(2, R, C)``.
        n, n_patient_groups: records and patient groups behind them.
    """

    values: Mapping[ScoreName, np.ndarray]
    samples: Mapping[ScoreName, np.ndarray]
    n: int
    n_patient_groups: int


def compare_runs(first: Path, second: Path, resamples: int, seed: int) -> dict[str, Any]:
    """How much higher the scores of the second run are, on the records that both were tested on.

    Over several archives the headline is the mean of per-archive scores, as `score_split` has it.

    Args:
        first, second: each a run's checkpoints folder, or its file of predictions.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        What docs/how-to/compare.md describes. A score has the keys ``first``, ``second``,
        ``difference`` (second minus first) and ``p``; each of the first three has ``value``,
        ``low``, ``high`` and ``n``.

    Raises:
        DataError: a file cannot be read, or the runs disagree on what is true of a record.
        CheckpointError: the runs have other labels, or were tested on no record in common.
    """
    runs = (read_scored_run(first), read_scored_run(second))
    names = _telling_names(runs, (first, second))
    parts = shared_predictions(runs, names)
    result: dict[str, Any] = {
        "first": _told_run(runs[0], names[0], len(parts[0])),
        "second": _told_run(runs[1], names[1], len(parts[1])),
        "labels": list(parts[0].labels),
        "task": "single" if parts[0].single else "multi",
        "seed": seed,
        "resamples": resamples,
        "interval": DIFFERENCE_INTERVAL,
        "is_same": say_the_same(*parts),
        "warnings": comparison_warnings(runs, names),
        **compare_predictions(parts, resamples, seed),
    }
    return result | {"verdict": comparison_verdict(result)}


def _telling_names(runs: tuple[ScoredRun, ScoredRun], paths: tuple[Path, Path]) -> tuple[str, str]:
    """Names that tell the runs apart: runs of two workspaces may have the same."""
    first, second = (run.name for run in runs)
    is_clear = first != second or paths[0] == paths[1]
    return (first, second) if is_clear else (str(paths[0]), str(paths[1]))


def _told_run(run: ScoredRun, name: str, n_shared: int) -> dict[str, Any]:
    told = ("model", "data", "threshold_rule")
    return {
        "run": name,
        **{fact: run.facts.get(fact) for fact in told},
        "n_test": len(run.test),
        "n_left_out": len(run.test) - n_shared,
    }


def compare_predictions(parts: PredictionsPair, resamples: int, seed: int) -> dict[str, Any]:
    """Headline and pooled scores of two runs on the same records, with their differences."""
    pooled = [resample_scores(part, resamples, seed) for part in parts]
    names = sorted(set(parts[0].archives.tolist()))
    archives = [
        _by_archive(part, names, whole, resamples, seed)
        for part, whole in zip(parts, pooled, strict=True)
    ]
    told = headline_scores(pooled[0], archives[0])
    large = told["archives"]
    paired = [_pair(archives[0][name], archives[1][name]) for name in large]
    headline = _mean_of_pairs(paired) if large else _pair(*pooled)
    labels = parts[0].labels
    how = {key: told[key] for key in ("how", "archives", "left_out")}
    return {
        "headline": {**how, **differences_as_json(headline, labels)},
        "pooled": differences_as_json(_pair(*pooled), labels),
    }


def _by_archive(
    part: Predictions, names: Sequence[str], pooled: ResampledScores, resamples: int, seed: int
) -> dict[str, ResampledScores]:
    """Each archive resampled on its own, with the seeds that `score_split` gives them."""
    if len(names) == 1:
        return {names[0]: pooled}
    return {
        name: resample_scores(part.of_archive(name), resamples, seed + number)
        for number, name in enumerate(names, 1)
    }


def _pair(first: ResampledScores, second: ResampledScores) -> PairedScores:
    names = [name for name in COMPARED_SCORES if name in first.values]
    return PairedScores(
        {name: np.stack([first.values[name][0], second.values[name][0]]) for name in names},
        {name: np.stack([first.samples[name], second.samples[name]]) for name in names},
        first.n,
        first.n_patient_groups,
    )


def _mean_of_pairs(pairs: Sequence[PairedScores]) -> PairedScores:
    """Means over archives; one without a value leaves the mean to the others."""

    def mean(rows: Sequence[np.ndarray]) -> np.ndarray:
        return macro_mean(np.stack(rows, axis=-1))

    names = list(pairs[0].values)
    return PairedScores(
        {name: mean([pair.values[name] for pair in pairs]) for name in names},
        {name: mean([pair.samples[name] for pair in pairs]) for name in names},
        sum(pair.n for pair in pairs),
        sum(pair.n_patient_groups for pair in pairs),
    )


# Differences -------------------------------------------------------------------------------------


def differences_as_json(scores: PairedScores, labels: Sequence[str]) -> dict[str, Any]:
    """Every compared score of both runs, with the difference."""
    result: dict[str, Any] = {"n": scores.n, "n_patient_groups": scores.n_patient_groups}
    for (metric, average), values in scores.values.items():
        samples, bounded = scores.samples[metric, average], metric not in UNBOUNDED_SCORES
        told: dict[str, Any]
        if average == "per_class":
            told = {
                label: _difference(values[:, c], samples[:, :, c], scores, bounded)
                for c, label in enumerate(labels)
            }
        else:
            told = _difference(values, samples, scores, bounded)
        if average:
            result.setdefault(metric, {})[average] = told
        else:
            result[metric] = told
    return result


def _difference(
    values: np.ndarray, samples: np.ndarray, scores: PairedScores, bounded: bool
) -> dict[str, Any]:
    """One score of both runs; ``values`` ``(2,)``, ``samples`` ``(2, R)``."""
    why = "none or all of the shared records have it"
    counts = scores.n, scores.n_patient_groups
    first, second = (
        figure_with_interval(float(values[k]), samples[k], *counts, why, bounded) for k in (0, 1)
    )
    value, apart = float(values[1] - values[0]), samples[1] - samples[0]
    difference = figure_with_interval(value, apart, *counts, why, within_unit=False)
    p = None if difference["low"] is None else two_sided_p(value, apart)
    return {"first": first, "second": second, "difference": difference, "p": p}


def two_sided_p(value: float, samples: np.ndarray) -> float:
    """How often chance alone would put equal runs this far apart; normal, as the interval is.

    Args:
        value: the difference.
        samples: ``(R,)`` the difference in resamples; NaN where one has none.

    >>> round(two_sided_p(1.96, np.array([-1.0, 0.0, 1.0])), 3)
    0.05
    """
    return math.erfc(abs(value) / spread_of(samples) / math.sqrt(2))
