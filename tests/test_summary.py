"""An evaluation in words: what was scored, and what a reader must not overlook."""

from typing import Any

import pytest

from einthoven.scopes import Scope
from einthoven.summary import evaluation_remarks, scope_title


@pytest.mark.parametrize(
    ("scope", "title"),
    [
        (Scope(), "test split"), (Scope("all"), "all records"), (Scope(fold=3), "fold 3"),
        (Scope("selection", archive="sph"), "selection split, sph"),
    ],
)  # fmt: skip
def test_the_table_says_which_records_were_scored(scope: Scope, title: str) -> None:
    assert scope_title({"records": scope.values()}) == title


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 90}


def test_nothing_is_remarked_of_an_ordinary_evaluation() -> None:
    ordinary = {"n_trained_on": 0, "test_time_augmentation": None, "conformal": None}
    assert evaluation_remarks({**ordinary, "subgroups": [{"is_worse": False}]}) == []


def test_what_nobody_can_know_is_said() -> None:
    (line,) = evaluation_remarks({"n_trained_on": None, "n_trained_on_reason": "gone"})
    assert line == "May flatter: gone."


def test_what_flatters_and_what_is_worse_is_remarked() -> None:
    metrics = {
        "n": 90,
        "n_trained_on": 1,
        "n_validated_on": 2,
        "test_time_augmentation": {
            "views": ["plain", "dense_crops"], "gain": {"auroc": {"macro": figure(0.002)}},
        },
        "conformal": {
            "stated_coverage": 0.9, "coverage": figure(0.88), "mean_size": figure(1.4),
        },
        "subgroups": [
            {"kind": "site", "name": f"s{k}", "is_worse": k > 0} for k in range(8)
        ],
    }  # fmt: skip
    assert evaluation_remarks(metrics) == [
        "Too good to be true: the model was trained on patients of 1 record here.",
        "Flatters: 2 records here picked the model's epoch or set its thresholds.",
        "Averaged over 2 views of each record: macro AUROC +0.002 (-0.008 to +0.012) against one "
        "view.",
        "Conformal sets of stated coverage 0.9: coverage 0.880 (0.870–0.890), 1.400 (1.390–1.410) "
        "labels on average.",
        "Worse than for the other records: site s1, site s2, site s3, site s4, site s5 and 2 more.",
    ]
