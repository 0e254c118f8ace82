"""Subgroups: who is in which, and which one is worse than the rest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from einthoven.metrics import auroc, macro_auroc
from einthoven.records import LEADS
from einthoven.scoring import Predictions
from einthoven.subgroups import holm_adjusted, score_subgroups, subgroup_facts

TWELVE = ",".join(LEADS)


def some_rows(**columns: list[Any]) -> pd.DataFrame:
    """Rows of a manifest that differ in nothing but the columns given."""
    alike = {
        "archive": "a", "sex": "female", "age": 50.0, "device": "", "site": "", "quality": "",
        "leads_present": TWELVE,
    }  # fmt: skip
    n = len(next(iter(columns.values())))
    return pd.DataFrame({**alike, **columns}, index=range(7, 7 + n))


def members(groups: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()}


def some_predictions(
    targets: np.ndarray, skill: np.ndarray | float, single: bool = False, seed: int = 0
) -> Predictions:
    """Each record a patient; ``skill`` ``(n,)`` is how far its logits tell its classes apart."""
    n, n_classes = targets.shape
    rng = np.random.default_rng(seed)
    logits = np.broadcast_to(skill, n)[:, None] * targets + rng.normal(size=targets.shape)
    odds = np.exp(logits)
    probabilities = odds / (odds.sum(axis=1, keepdims=True) if single else 1 + odds)
    names = np.array([f"a/{k}" for k in range(n)], object)
    return Predictions(
        records=names, groups=names, archives=np.full(n, "a", object), targets=targets,
        raw=probabilities, probabilities=probabilities, decisions=targets,
        labels=tuple("ABCDEFGH"[:n_classes]), single=single,
    )  # fmt: skip


def random_targets(n: int, single: bool = False, n_classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(9)
    if single:
        return np.eye(n_classes, dtype=np.uint8)[rng.integers(n_classes, size=n)]
    return (rng.random((n, n_classes)) < 0.3).astype(np.uint8)


def compare(predictions: Predictions, **masks: np.ndarray) -> dict[str, dict[str, Any]]:
    """The entries by the subgroups' names."""
    entries = score_subgroups(predictions, {"kind": masks}, resamples=200, seed=0)
    return {entry["name"]: entry for entry in entries}


# Which record is in which ----------------------------------------------------------------------


def test_a_kind_whose_only_group_holds_every_record_is_left_out():
    assert subgroup_facts(some_rows(sex=["female", "female"])) == {}


def test_sex_that_the_archive_does_not_say_is_a_group_of_its_own():
    groups = subgroup_facts(some_rows(sex=["male", "", "female", "male"]))
    assert members(groups["sex"]) == {"female": [2], "male": [0, 3], "unknown": [1]}


def test_age_bands_hold_their_lower_end_and_not_their_upper():
    ages = [0, 17.9, 18, 39.5, 40, 59, 60, 79.9, 80, 90, np.nan]
    assert members(subgroup_facts(some_rows(age=ages))["age"]) == {
        "under 18": [0, 1], "18–39": [2, 3], "40–59": [4, 5], "60–79": [6, 7],
        "80 and over": [8, 9], "unknown": [10],
    }  # fmt: skip


def test_record_of_unknown_device_is_in_no_group_of_that_kind():
    groups = subgroup_facts(some_rows(device=["", "CS-12", "AT-6", "CS-12"]))
    assert members(groups["device"]) == {"CS-12": [1, 3], "AT-6": [2]}


def test_sites_of_two_archives_with_one_number_are_two_sites():
    groups = subgroup_facts(some_rows(archive=["a", "b", "b", "b"], site=["1", "1", "", "1"]))
    assert members(groups["site"]) == {"b/1": [1, 3], "a/1": [0]}
    assert members(groups["archive"]) == {"b": [1, 2, 3], "a": [0]}


def test_record_of_two_quality_flags_is_in_both_groups():
    groups = subgroup_facts(some_rows(quality=["", "clipped;flat_lead", "clipped"]))
    assert members(groups["quality"]) == {"no flag": [0], "clipped": [1, 2], "flat_lead": [1]}


def test_few_sets_of_leads_are_groups_under_their_names():
    cells = [TWELVE, "I", "I,II", "I", "I,II,III,aVR,aVL,aVF,V2,V3,V4,V5,V6"]
    groups = subgroup_facts(some_rows(leads_present=cells))
    assert members(groups["leads"]) == {
        "all twelve": [0], "I alone": [1, 3], "I and II": [2], "all but V1": [4]
    }  # fmt: skip


def test_many_sets_of_leads_are_one_group():
    groups = subgroup_facts(some_rows(leads_present=[TWELVE, *LEADS]))
    assert members(groups["leads"]) == {
        "all twelve": [0],
        "fewer than twelve": list(range(1, 13)),
    }


def test_absent_cells_are_unknown():
    groups = subgroup_facts(some_rows(sex=[None, "male"], device=[np.nan, "X"]))
    assert members(groups["sex"]) == {"male": [1], "unknown": [0]}
    assert members(groups["device"]) == {"X": [1]}


# Worse than the rest? --------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_planted_worse_subgroup_is_flagged_and_an_equal_one_is_not(single: bool):
    rows = np.arange(900)
    poor, equal = rows < 250, rows % 2 == 0
    targets = random_targets(900, single)
    entries = compare(
        some_predictions(targets, np.where(poor, 0.3, 2.0), single),
        poor=poor, equal=equal, good=~poor,
    )  # fmt: skip
    assert {name: entry["is_worse"] for name, entry in entries.items()} == {
        "poor": True, "equal": False, "good": False,
    }  # fmt: skip
    assert entries["poor"]["difference"]["high"] < 0 < entries["good"]["difference"]["low"]


def test_figures_are_the_macro_auroc_of_either_side_and_their_difference():
    predictions, inside = some_predictions(random_targets(400), 1.0), np.arange(400) < 150
    entry = compare(predictions, first=inside)["first"]
    expected = [
        macro_auroc(predictions.targets[rows], predictions.probabilities[rows])
        for rows in (inside, ~inside)
    ]
    assert [entry["auroc"]["value"], entry["rest"]["value"]] == pytest.approx(expected)
    assert entry["difference"]["value"] == pytest.approx(expected[0] - expected[1])
    assert [entry[key]["n"] for key in ("auroc", "rest", "difference")] == [150, 250, 400]
    assert (entry["n"], entry["n_patient_groups"], entry["labels"]) == (150, 150, ["A", "B", "C"])
    assert entry["auroc"]["low"] < expected[0] < entry["auroc"]["high"]


def test_p_is_one_sided_and_of_the_same_spread_as_the_interval():
    predictions = some_predictions(random_targets(400), 1.0)
    entry = compare(predictions, first=np.arange(400) < 150)["first"]
    difference = entry["difference"]
    spread = (difference["high"] - difference["low"]) / (2 * norm.ppf(0.975))
    assert entry["p"] == pytest.approx(norm.cdf(difference["value"] / spread), rel=1e-4)


def test_interval_of_a_difference_has_the_spread_that_theory_gives():
    # Hanley and McNeil 1982, for two independent areas.
    targets = np.tile(np.array([[1], [0], [0]], np.uint8), (200, 1))
    predictions, inside = some_predictions(targets, 1.0), np.arange(600) % 2 == 0
    entry = compare(predictions, half=inside)["half"]
    variances = []
    for rows in (inside, ~inside):
        (area,) = auroc(predictions.targets[rows], predictions.probabilities[rows])
        n, m = 100, 200
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        both = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
        variances.append(both / (n * m))
    width = entry["difference"]["high"] - entry["difference"]["low"]
    assert width / (2 * norm.ppf(0.975)) == pytest.approx(np.sqrt(sum(variances)), rel=0.15)


def test_patient_on_both_sides_is_drawn_whole():
    half = some_predictions(random_targets(200), 1.0)
    twice = {
        name: np.concatenate([getattr(half, name)] * 2)
        for name in ("records", "groups", "archives", "targets", "raw", "probabilities")
    }
    predictions = Predictions(**twice, decisions=twice["targets"], labels=half.labels, single=False)
    entry = compare(predictions, first=np.arange(400) < 200)["first"]
    # Both sides hold the same recordings: equal in every resample, if the patient is one.
    assert entry["difference"]["value"] == 0 and entry["difference"]["low"] is None
    assert entry["p"] is None and entry["p_holm"] is None and entry["is_worse"] is False
    assert entry["reason"] == "all resamples have the same score: no interval"
    assert entry["auroc"]["low"] is not None


@pytest.mark.parametrize(("n_positives", "labels"), [(19, ["B"]), (20, ["A", "B"])])
@pytest.mark.parametrize("is_turned", [False, True])
def test_class_is_compared_from_20_positives_on_both_sides(n_positives, labels, is_turned):
    targets = random_targets(300, n_classes=2)
    inside = np.arange(300) < 100
    targets[:, 0] = ~inside
    targets[:n_positives, 0] = 1
    targets[-50:, 0] = 0
    entry = compare(some_predictions(targets, 1.0), it=inside ^ is_turned)["it"]
    assert entry["labels"] == labels
    assert entry["positives"]["A"] == (150 if is_turned else n_positives)


def test_class_is_compared_from_20_negatives_on_both_sides():
    targets = random_targets(300, n_classes=2)
    targets[:100, 0] = 1
    targets[:19, 0] = 0
    entry = compare(some_predictions(targets, 1.0), it=np.arange(300) < 100)["it"]
    assert entry["labels"] == ["B"]


def test_class_absent_from_the_records_is_not_compared():
    targets = random_targets(300)
    targets[:, 1] = 0
    entry = compare(some_predictions(targets, 1.0), it=np.arange(300) < 100)["it"]
    assert entry["labels"] == ["A", "C"] and entry["positives"]["B"] == 0
    assert entry["difference"]["value"] is not None


@pytest.mark.parametrize("n_inside", [10, 300])
def test_subgroup_without_enough_positives_has_no_figures_but_a_reason(n_inside: int):
    predictions = some_predictions(random_targets(300), 1.0)
    entry = compare(predictions, it=np.arange(300) < n_inside)["it"]
    reason = "fewer than 20 positives of every class on one side"
    null = {"value": None, "low": None, "high": None, "reason": reason}
    assert entry["difference"] == null | {"n": 300} and entry["auroc"] == null | {"n": n_inside}
    assert entry["rest"] == null | {"n": 300 - n_inside}
    assert (entry["p"], entry["p_holm"], entry["is_worse"]) == (None, None, False)
    assert entry["reason"] == reason and entry["labels"] == []
    assert entry["n"] == n_inside and sum(entry["positives"].values()) > 0


def test_subgroup_that_holds_one_class_whole_says_that_negatives_are_missing():
    targets = random_targets(300, n_classes=1)
    targets[:100] = 1
    entry = compare(some_predictions(targets, 1.0), it=np.arange(300) < 100)["it"]
    assert entry["reason"] == "fewer than 20 negatives of every class on one side"


def test_records_of_too_few_patients_are_not_compared():
    predictions = some_predictions(random_targets(400), 1.0)
    predictions.groups[:200] = [f"p{k // 20}" for k in range(200)]
    entry = compare(predictions, it=np.arange(400) < 200)["it"]
    assert entry["reason"] == "only 10 patients on one side"
    assert (entry["n"], entry["n_patient_groups"], entry["p"]) == (200, 10, None)


def test_a_comparison_does_not_depend_on_the_others_but_for_holm():
    predictions, inside = some_predictions(random_targets(400), 1.0), np.arange(400) < 150
    alone = compare(predictions, it=inside)["it"]
    among = compare(predictions, other=np.arange(400) % 2 == 0, it=inside, few=inside[::-1])["it"]
    assert alone["p_holm"] == alone["p"] == among["p"] < among["p_holm"]
    assert {**alone, "p_holm": None} == {**among, "p_holm": None}


def test_entries_come_in_the_order_of_the_groups_and_are_json():
    inside = np.arange(400) < 150
    groups = {"sex": {"female": inside, "male": ~inside}, "site": {"a/1": np.arange(400) < 5}}
    entries = score_subgroups(some_predictions(random_targets(400), 1.0), groups, 50, 0)
    written = json.loads(json.dumps(entries, allow_nan=False))
    assert written == entries
    assert [(entry["kind"], entry["name"]) for entry in written] == [
        ("sex", "female"), ("sex", "male"), ("site", "a/1"),
    ]  # fmt: skip


def test_no_subgroups_have_no_entries():
    assert score_subgroups(some_predictions(random_targets(30), 1.0), {}, 50, 0) == []


# Holm ------------------------------------------------------------------------------------------


def test_holm_multiplies_by_the_tests_left_and_never_falls():
    # By hand: 0.01 × 4; 0.02 × 3; 0.022 × 2 is below what came before; 0.6 × 1.
    found = holm_adjusted([0.02, 0.6, 0.01, 0.022])
    assert found == pytest.approx([0.06, 0.6, 0.04, 0.06])


def test_holm_stops_at_one_and_counts_only_what_was_tested():
    assert holm_adjusted([0.7, None, 0.6]) == [1.0, None, 1.0]
    assert holm_adjusted([None]) == [None]
