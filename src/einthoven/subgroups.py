"""Is the model worse for some records than for the rest: one sex, one age, one device, one site?

The score of a subgroup is the macro AUROC over the classes that both sides have enough of, because
an AUROC, unlike an average precision, does not change with how common a class is. Patients are
drawn with replacement once for both sides, and the difference is taken within each resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from einthoven.bootstrap import draw_patient_weights, logit_interval, normal_interval, spread_of
from einthoven.console import plural, progress
from einthoven.metrics import macro_mean, ranking_scores
from einthoven.records import LEADS
from einthoven.scoring import Predictions

# A class is compared only where either side has so many records with it and so many without.
MIN_RECORDS_TO_COMPARE = 20
# Spread cannot be told from fewer patients (Cameron and Miller, "A practitioner's guide to
# cluster-robust inference", Journal of Human Resources 2015), however many records they have.
MIN_PATIENTS_TO_COMPARE = 20

WORSE_BELOW_P = 0.05

UNKNOWN_GROUP = "unknown"
AGE_BANDS = (
    ("under 18", 0, 18),
    ("18–39", 18, 40),
    ("40–59", 40, 60),
    ("60–79", 60, 80),
    ("80 and over", 80, np.inf),
)

# So many different sets of leads, beside all twelve, are groups of their own.
MOST_LEAD_SETS = 4

# Kind of subgroup -> name of the subgroup -> ``(n,)`` bool: which records are in it.
Subgroups = dict[str, dict[str, np.ndarray]]


# Which record is in which ----------------------------------------------------------------------


def subgroup_facts(manifest_rows: pd.DataFrame) -> Subgroups:
    """The subgroups that some records fall into.

    Args:
        manifest_rows: the records' rows of the manifest, in the order of their predictions.

    Returns:
        For each kind (``sex``, ``age``, ``archive``, ``device``, ``site``, ``quality``, ``leads``)
        the records of each subgroup, none of them empty. A record of unknown device or site is in
        no group of that kind; one of several quality flags is in several. A kind whose only group
        holds all records compares nothing and is left out.
    """
    archive, device, site = (_texts(manifest_rows, name) for name in ("archive", "device", "site"))
    # Archives number their sites each for itself.
    place = np.where(site == "", "", archive + "/" + site)
    kinds = {
        "sex": _sex_groups(_texts(manifest_rows, "sex")),
        "age": _age_groups(manifest_rows["age"].to_numpy(float)),
        "archive": _named_groups(archive),
        "device": _named_groups(device),
        "site": _named_groups(place),
        "quality": _quality_groups(_texts(manifest_rows, "quality")),
        "leads": _lead_groups(_texts(manifest_rows, "leads_present")),
    }
    filled = {
        kind: {name: mask for name, mask in groups.items() if mask.any()}
        for kind, groups in kinds.items()
    }
    return {
        kind: groups
        for kind, groups in filled.items()
        if groups and not (len(groups) == 1 and next(iter(groups.values())).all())
    }


def _texts(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows[column].fillna("").astype(str).to_numpy(object)


def _named_groups(names: np.ndarray) -> dict[str, np.ndarray]:
    """A group per name, the largest first; an empty name is in none."""
    found, counts = np.unique(names[names != ""].astype(str), return_counts=True)
    return {str(name): names == name for name in found[np.argsort(-counts, kind="stable")]}


def _sex_groups(sexes: np.ndarray) -> dict[str, np.ndarray]:
    known = {name: sexes == name for name in ("female", "male")}
    return known | {UNKNOWN_GROUP: ~np.logical_or.reduce(list(known.values()))}


def _age_groups(ages: np.ndarray) -> dict[str, np.ndarray]:
    bands = {name: (ages >= low) & (ages < high) for name, low, high in AGE_BANDS}
    return bands | {UNKNOWN_GROUP: np.isnan(ages)}


def _quality_groups(cells: np.ndarray) -> dict[str, np.ndarray]:
    flags = [set(filter(None, cell.split(";"))) for cell in cells]
    met = sorted(set().union(*flags))
    groups = {flag: np.array([flag in its for its in flags], bool) for flag in met}
    return {"no flag": np.array([not its for its in flags], bool), **groups}


def _lead_groups(cells: np.ndarray) -> dict[str, np.ndarray]:
    """All twelve leads, and each other set of leads, or all other sets together where many."""
    sets = np.array([_lead_set_name(cell) for cell in cells], object)
    complete = sets == _lead_set_name(",".join(LEADS))
    others = _named_groups(np.where(complete, "", sets))
    if len(others) > MOST_LEAD_SETS:
        others = {"fewer than twelve": ~complete}
    return {"all twelve": complete, **others}


def _lead_set_name(cell: str) -> str:
    """Leads in words.

    >>> _lead_set_name("I"), _lead_set_name("I,II"), _lead_set_name("I,II,III,aVR,aVL,aVF,V1,V2")
    ('I alone', 'I and II', 'all but V3, V4, V5 and V6')
    """
    present = [lead for lead in LEADS if lead in cell.split(",")]
    absent = [lead for lead in LEADS if lead not in present]
    if len(present) == 1:
        return f"{present[0]} alone"
    if present and len(absent) < len(present):
        return f"all but {_listed(absent)}"
    return _listed(present)


def _listed(leads: Sequence[str]) -> str:
    *first, last = leads or ("no lead",)
    return f"{', '.join(first)} and {last}" if first else last


# Worse than the rest? --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """A subgroup, the rest of the records, and the columns of the classes that both can score."""

    kind: str
    name: str
    inside: np.ndarray
    classes: np.ndarray
    why_not: str


@dataclass(frozen=True)
class _Areas:
    """Macro AUROC of a subgroup and of the rest, and their mean difference, each ``(R,)``."""

    inside: np.ndarray
    rest: np.ndarray
    difference: np.ndarray


def score_subgroups(
    predictions: Predictions, groups: Mapping[str, Mapping[str, np.ndarray]], resamples: int,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Compare each subgroup with the rest of the records.

    A subgroup is worse where its AUROC is lower than the rest's, in a one-sided test of their
    difference over its spread in the resamples, at p below 0.05 after Holm's correction over all
    subgroups compared.

    Args:
        predictions: of n records.
        groups: of `subgroup_facts`, for the same records in the same order.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        An entry per subgroup: ``{"kind", "name", "n", "n_patient_groups", "labels", "positives",
        "auroc", "rest", "difference", "p", "p_holm", "is_worse"}``, with ``"reason"`` where the
        two cannot be compared; ``labels`` are the classes compared, figures are
        ``{"value", "low", "high", "n"}``, and the difference is subgroup minus rest.
    """
    comparisons = [
        _plan_comparison(predictions, kind, name, np.asarray(mask, bool))
        for kind, of_kind in groups.items()
        for name, mask in of_kind.items()
    ]
    samples = _resample_areas(predictions, comparisons, resamples, seed)
    entries = [
        _subgroup_entry(predictions, comparison, areas)
        for comparison, areas in zip(comparisons, samples, strict=True)
    ]
    adjusted = holm_adjusted([entry["p"] for entry in entries])
    for entry, p_holm in zip(entries, adjusted, strict=True):
        entry["p_holm"] = p_holm
        entry["is_worse"] = p_holm is not None and p_holm < WORSE_BELOW_P
    return entries


def holm_adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values after Holm's step-down correction (Scandinavian Journal of Statistics 1979).

    Those that are None were not tested, and do not count.

    >>> holm_adjusted([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[at] = largest
    return adjusted


def _plan_comparison(
    predictions: Predictions, kind: str, name: str, inside: np.ndarray
) -> _Comparison:
    assert inside.shape == (len(predictions),), (kind, name, inside.shape)
    sides = [predictions.targets[rows] > 0 for rows in (inside, ~inside)]
    has_positives = _all_enough([side.sum(axis=0) for side in sides])
    has_both = has_positives & _all_enough([(~side).sum(axis=0) for side in sides])
    n_patients = [
        len(np.unique(predictions.groups[rows].astype(str))) for rows in (inside, ~inside)
    ]
    why_not = ""
    if not has_positives.any():
        why_not = f"fewer than {MIN_RECORDS_TO_COMPARE} positives of every class on one side"
    elif not has_both.any():
        why_not = f"fewer than {MIN_RECORDS_TO_COMPARE} negatives of every class on one side"
    elif min(n_patients) < MIN_PATIENTS_TO_COMPARE:
        why_not = f"only {plural(min(n_patients), 'patient')} on one side"
    classes = np.flatnonzero(has_both) if not why_not else np.array([], int)
    return _Comparison(kind, name, inside, classes, why_not)


def _all_enough(counts: Sequence[np.ndarray]) -> np.ndarray:
    is_enough: np.ndarray = np.min(counts, axis=0) >= MIN_RECORDS_TO_COMPARE
    return is_enough


def _resample_areas(
    predictions: Predictions, comparisons: Sequence[_Comparison], resamples: int, seed: int
) -> list[_Areas | None]:
    """The areas of each comparison in the same resamples; None where there is none to make."""
    if all(comparison.why_not for comparison in comparisons):
        return [None] * len(comparisons)
    rng = np.random.default_rng(seed)
    drawn = draw_patient_weights(predictions.groups.astype(str), resamples, rng)
    parts: list[list[_Areas]] = [[] for _ in comparisons]
    for weights in progress(drawn, desc="Comparing subgroups", unit="parts"):
        for comparison, of_comparison in zip(comparisons, parts, strict=True):
            if not comparison.why_not:
                of_comparison.append(_areas(predictions, comparison, weights))
    return [_joined(of_comparison) if of_comparison else None for of_comparison in parts]


def _areas(predictions: Predictions, comparison: _Comparison, weights: np.ndarray | None) -> _Areas:
    """Areas under some rows of weights; with None, once and every record counting once."""
    inside, rest = (
        ranking_scores(
            predictions.targets[np.ix_(rows, comparison.classes)],
            predictions.probabilities[np.ix_(rows, comparison.classes)],
            None if weights is None else weights[:, rows],
        )[0]
        for rows in (np.flatnonzero(comparison.inside), np.flatnonzero(~comparison.inside))
    )
    # By class, so that a class that a resample lost on one side is missing from both.
    return _Areas(macro_mean(inside), macro_mean(rest), macro_mean(inside - rest))


def _joined(parts: Sequence[_Areas]) -> _Areas:
    return _Areas(
        np.concatenate([part.inside for part in parts]),
        np.concatenate([part.rest for part in parts]),
        np.concatenate([part.difference for part in parts]),
    )


# As JSON ---------------------------------------------------------------------------------------


def _subgroup_entry(
    predictions: Predictions, comparison: _Comparison, samples: _Areas | None
) -> dict[str, Any]:
    inside = comparison.inside
    positives = (predictions.targets[inside] > 0).sum(axis=0).tolist()
    entry: dict[str, Any] = {
        "kind": comparison.kind,
        "name": comparison.name,
        "n": int(inside.sum()),
        "n_patient_groups": len(np.unique(predictions.groups[inside].astype(str))),
        "labels": [predictions.labels[c] for c in comparison.classes],
        "positives": dict(zip(predictions.labels, positives, strict=True)),
    }
    if samples is None:
        return entry | _no_comparison(entry["n"], len(inside), comparison.why_not)
    return entry | _told_comparison(_areas(predictions, comparison, None), samples, inside)


def _no_comparison(n_inside: int, n_all: int, why: str) -> dict[str, Any]:
    counts = {"auroc": n_inside, "rest": n_all - n_inside, "difference": n_all}
    figures = {
        name: {"value": None, "low": None, "high": None, "n": n, "reason": why}
        for name, n in counts.items()
    }
    return {**figures, "p": None, "reason": why}


def _told_comparison(values: _Areas, samples: _Areas, inside: np.ndarray) -> dict[str, Any]:
    n, n_inside = len(inside), int(inside.sum())
    value = float(values.difference[0])
    auroc, rest = float(values.inside[0]), float(values.rest[0])
    low, high = normal_interval(value, samples.difference)
    told = {
        "auroc": _interval_figure(auroc, logit_interval(auroc, samples.inside), n_inside),
        "rest": _interval_figure(rest, logit_interval(rest, samples.rest), n - n_inside),
        "difference": _interval_figure(value, (low, high), n),
    }
    if np.isnan(low):
        return told | {"p": None, "reason": told["difference"]["reason"]}
    return told | {"p": float(ndtr(value / spread_of(samples.difference)))}


def _interval_figure(value: float, ends: tuple[float, float], n: int) -> dict[str, Any]:
    low, high = ends
    if np.isnan(low):
        why = "all resamples have the same score: no interval"
        return {"value": value, "low": None, "high": None, "n": n, "reason": why}
    return {"value": value, "low": low, "high": high, "n": n}
