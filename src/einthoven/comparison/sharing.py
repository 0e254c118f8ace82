"""What two runs have in common: the records that both were tested on, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from einthoven.comparison.scored_runs import ScoredRun
from einthoven.console import plural
from einthoven.errors import CheckpointError, DataError
from einthoven.scoring import Predictions

PredictionsPair = tuple[Predictions, Predictions]
COLUMNS_PER_CLASS = ("targets", "raw", "probabilities", "decisions")

# Probabilities that are nearer than this differ by rounding only.
LARGEST_ROUNDING = 1e-6


def shared_predictions(runs: Sequence[ScoredRun], names: tuple[str, str]) -> PredictionsPair:
    """The test records that both runs have, in the order and with the patient groups of the first.

    Raises:
        CheckpointError: the runs have other labels, or no record in common.
        DataError: they disagree on what is true of a record.
    """
    first, second = (run.test for run in runs)
    _check_same_labels(first, second, names)
    order = pd.Index(second.records).get_indexer(pd.Index(first.records))
    rows = np.flatnonzero(order >= 0)
    if not len(rows):
        counts = [plural(len(part), "record") for part in (first, second)]
        raise CheckpointError(
            f"{names[0]} and {names[1]} were tested on no record in common ({counts[0]} and "
            f"{counts[1]}); compare runs with the same HOLD_OUT on the same store"
        )
    first = first.take(rows)
    second = _in_order_of(first.labels, second.take(order[rows]))
    differs = (first.targets != second.targets).any(axis=1)
    if differs.any():
        raise _other_truth((first, second), names, differs)
    return first, replace(second, groups=first.groups)


def _in_order_of(labels: tuple[str, ...], part: Predictions) -> Predictions:
    columns = [part.labels.index(label) for label in labels]
    ordered = {name: getattr(part, name)[:, columns] for name in COLUMNS_PER_CLASS}
    return replace(part, labels=labels, **ordered)


def _check_same_labels(first: Predictions, second: Predictions, names: tuple[str, str]) -> None:
    only = [set(first.labels) - set(second.labels), set(second.labels) - set(first.labels)]
    told = [
        f"only {name} has {', '.join(sorted(labels))}"
        for name, labels in zip(names, only, strict=True)
        if labels
    ]
    if told:
        raise CheckpointError(
            f"{names[0]} and {names[1]} do not have the same labels: {'; '.join(told)}. Compare "
            "runs of one LABEL_SET"
        )
    if first.single != second.single:
        kinds = ["one label" if part.single else "any number of" for part in (first, second)]
        raise CheckpointError(
            f"{names[0]} gives each record {kinds[0]}, {names[1]} {kinds[1]}; compare runs of one "
            "TASK"
        )


def _other_truth(parts: PredictionsPair, names: tuple[str, str], differs: np.ndarray) -> DataError:
    row, n = int(np.flatnonzero(differs)[0]), int(differs.sum())
    told = [
        f"{name} has {', '.join(np.array(part.labels)[part.targets[row] > 0]) or 'no label'}"
        for name, part in zip(names, parts, strict=True)
    ]
    return DataError(
        f"the true labels of {plural(n, 'shared record')} differ (first: {parts[0].records[row]}: "
        f"{', '.join(told)}); evaluate both runs on one store"
    )


def say_the_same(first: Predictions, second: Predictions) -> bool:
    """Whether two runs said the same of every record."""
    apart = np.abs(first.probabilities - second.probabilities).max(initial=0)
    return bool(apart < LARGEST_ROUNDING and (first.decisions == second.decisions).all())


def comparison_warnings(runs: Sequence[ScoredRun], names: tuple[str, str]) -> list[str]:
    """What a reader must know before believing a comparison."""
    lines = [
        line
        for this, other in ((0, 1), (1, 0))
        for line in _warnings_of(runs[this], names[this], runs[other], names[other])
    ]
    data = [run.facts.get("data") for run in runs]
    if all(data) and data[0] != data[1]:
        lines.append("the runs do not have the same records, labels or splits")
    first, second = (dict(zip(run.test.records, run.test.groups, strict=True)) for run in runs)
    for key, told in (
        ("threshold_rule", "thresholds of rule"), ("test_time_augmentation", "views"),
    ):  # fmt: skip
        both = [_told_way(run.facts.get(key)) for run in runs]
        if both[0] != both[1]:
            lines.append(
                f"decided differently: {names[0]} with {told} {both[0]}, {names[1]} with "
                f"{both[1]}; evaluate both alike to compare decisions"
            )
    n_moved = sum(second.get(record, group) != group for record, group in first.items())
    if n_moved:
        lines.append(
            f"{plural(n_moved, 'shared record')} in other patient groups in {names[1]}; those of "
            f"{names[0]} are drawn"
        )
    return lines


def _told_way(value: Any) -> str:
    """A rule by its name, and several views by theirs."""
    if isinstance(value, Mapping):
        return ", ".join(value.get("views", ()))
    return str(value) if value else "plain"


def _warnings_of(run: ScoredRun, name: str, other: ScoredRun, other_name: str) -> list[str]:
    lines: list[str] = []
    n_trained = run.facts.get("n_trained_on") or 0
    if n_trained:
        lines.append(
            f"{name} was trained on the patients of {plural(n_trained, 'record')} that it is "
            "scored on: its scores are too good"
        )
    n_validated = run.facts.get("n_validated_on") or 0
    if n_validated:
        lines.append(
            f"{plural(n_validated, 'record')} that {name} is scored on picked its epoch or set its "
            "thresholds"
        )
    only = set(run.test.records) - set(other.test.records)
    n_chose = len(only & other.validation)
    if n_chose:
        lines.append(
            f"left out: {plural(n_chose, 'test record')} of {name} that picked the epoch of "
            f"{other_name} or set its thresholds"
        )
    if len(only) > n_chose:
        lines.append(
            f"left out: {plural(len(only) - n_chose, 'test record')} of {name} that {other_name} "
            "was not tested on and may have been trained on"
        )
    return lines
