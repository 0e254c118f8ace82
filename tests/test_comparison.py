"""Two runs on the same records: differences, their intervals, and what must not be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.comparison.paired import compare_predictions, compare_runs
from einthoven.comparison.scored_runs import (
    predictions_from_table,
    read_predictions,
    resolve_run,
)
from einthoven.comparison.telling import comparison_summary
from einthoven.errors import CheckpointError, ConfigError, DataError
from einthoven.files import Workspace, write_json, write_parquet
from einthoven.metrics import macro_auroc
from einthoven.scoring import score_split

LABELS = ("A", "B", "C")


def some_table(
    archives: dict[str, int] | None = None,
    *,
    skill: float = 1.0,
    noise_seed: int = 1,
    n_per_patient: int = 1,
) -> pd.DataFrame:
    """Predictions of a test split; the truth is the same for all, the noise is not."""
    archives = archives or {"ptb-xl": 200}
    names = np.repeat(list(archives), list(archives.values()))
    truth = (np.random.default_rng(0).random((len(names), len(LABELS))) < 0.5).astype(np.uint8)
    noise = np.random.default_rng(noise_seed).normal(size=truth.shape)
    table = _table_of_logits(truth, skill * (2.0 * truth - 1) + noise)
    return table.assign(
        record=[f"{name}/{number:04d}" for number, name in enumerate(names)],
        patient_group=[f"p{number // n_per_patient}" for number in range(len(names))],
        archive=names,
    )


def _table_of_logits(truth: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    records = [f"a/{number}" for number in range(len(truth))]
    columns: dict[str, Any] = {
        "record": records, "patient_group": records, "archive": "a", "split": "test",
    }  # fmt: skip
    for c, label in enumerate(LABELS[: truth.shape[1]]):
        columns[f"label_{label}"] = truth[:, c].astype(np.uint8)
        columns[f"logit_{label}"] = logits[:, c]
        columns[f"probability_{label}"] = 1 / (1 + np.exp(-logits[:, c]))
        columns[f"decision_{label}"] = (logits[:, c] > 0).astype(np.uint8)
    return pd.DataFrame(columns)


def write_run(root: Path, name: str, table: pd.DataFrame, **facts: Any) -> Path:
    folder = Workspace(root, name).checkpoints_dir
    write_parquet(folder / "predictions.parquet", table)
    write_json(folder / "test_metrics.json", {"task": "multi", "n_trained_on": 0} | facts)
    return folder


def compare_tables(root: Path, first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    return compare_runs(write_run(root, "a", first), write_run(root, "b", second), 200, 0)


# Differences -------------------------------------------------------------------------------------


def test_a_run_compared_with_itself_differs_by_exactly_nothing_and_says_so(tmp_path: Path) -> None:
    result = compare_tables(tmp_path, some_table(), some_table())
    told = result["headline"]["auroc"]["macro"]
    assert told["difference"]["value"] == 0 and told["p"] is None
    assert told["difference"]["low"] is None and "all resamples" in told["difference"]["reason"]
    assert comparison_summary(result).splitlines()[-1] == (
        "a and b say the same of 200 records: every difference is exactly 0"
    )


def test_a_better_run_is_told_apart_from_chance(tmp_path: Path) -> None:
    better = some_table(skill=2.0, noise_seed=2)
    result = compare_tables(tmp_path, some_table(skill=0.5), better)
    for told in (result["headline"]["auroc"]["macro"], result["headline"]["f1"]["macro"]):
        difference = told["difference"]
        assert difference["value"] == pytest.approx(
            told["second"]["value"] - told["first"]["value"]
        )
        assert 0 < difference["low"] < difference["value"] < difference["high"]
        assert told["p"] < 0.001
    assert result["headline"]["brier"]["macro"]["difference"]["high"] < 0
    assert result["verdict"].startswith("macro AUROC of b is 0.")
    assert "p < 0.001): told apart from chance; also told apart: macro AP" in result["verdict"]


def test_runs_of_equal_skill_are_not_told_apart(tmp_path: Path) -> None:
    result = compare_tables(tmp_path, some_table(), some_table(noise_seed=2))
    told = result["headline"]["auroc"]["macro"]
    assert told["difference"]["low"] < 0 < told["difference"]["high"] and told["p"] > 0.05
    assert result["verdict"].endswith("not told apart from chance")


def test_verdict_names_other_scores_that_are_told_apart(tmp_path: Path) -> None:
    bold = some_table()
    for label in LABELS:
        bold[f"decision_{label}"] = np.uint8(1)
    verdict = compare_tables(tmp_path, some_table(), bold)["verdict"]
    assert verdict.startswith("macro AUROC is the same in all resamples")
    assert verdict.endswith("; also told apart: macro F1, weighted F1, accuracy, all labels right")


def test_runs_of_equal_skill_are_told_apart_about_once_in_twenty_times() -> None:
    n_told_apart = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = rng.random((150, 2)) < 0.3
        # Half of the noise is the records' own: what is hard for one run is hard for the other.
        shared, *own = rng.normal(0, 0.7, (3, *truth.shape))
        tables = [_table_of_logits(truth, 2.4 * truth - 1.2 + shared + noise) for noise in own]
        pair = tuple(predictions_from_table(table, single=False) for table in tables)
        told = compare_predictions(pair, 200, seed)["headline"]["auroc"]["macro"]
        n_told_apart += told["p"] < 0.05
    assert 1 <= n_told_apart <= 12


def test_turning_the_runs_round_turns_the_signs_round(tmp_path: Path) -> None:
    tables = some_table(), some_table(skill=1.5, noise_seed=2)
    one, other = (
        compare_tables(tmp_path, *pair)["headline"]["auroc"]["macro"]
        for pair in (tables, tables[::-1])
    )
    assert one["difference"]["low"] == pytest.approx(-other["difference"]["high"])
    assert one["p"] == pytest.approx(other["p"]) and one["first"] == other["second"]


def test_scores_of_each_run_are_those_of_its_own_evaluation(tmp_path: Path) -> None:
    table = some_table({"ptb-xl": 60, "sph": 30, "cpsc2018": 10})
    own = score_split(predictions_from_table(table, single=False), 200, 0)
    result = compare_tables(tmp_path, table, some_table({"ptb-xl": 60, "sph": 30, "cpsc2018": 10}))
    assert result["headline"]["auroc"]["macro"]["first"] == own["headline"]["auroc"]["macro"]
    assert result["pooled"]["f1"]["weighted"]["first"] == own["f1"]["weighted"]
    assert result["pooled"]["auroc"]["per_class"]["B"]["first"]["value"] == pytest.approx(
        own["auroc"]["per_class"]["B"]["value"]
    )


def test_pairing_makes_the_interval_narrower_than_that_of_either_run(tmp_path: Path) -> None:
    first = some_table()
    second = first.copy()
    second.loc[:3, "probability_A"] = 0.5
    told = compare_tables(tmp_path, first, second)["headline"]["auroc"]["macro"]
    widths = {side: told[side]["high"] - told[side]["low"] for side in ("first", "difference")}
    assert widths["difference"] < widths["first"] / 3


def test_records_of_one_patient_count_as_one_draw(tmp_path: Path) -> None:
    tables = some_table(skill=0.5), some_table(skill=1.0, noise_seed=2)
    copied = [pd.concat([t.assign(record=t["record"] + f"-{k}") for k in range(4)]) for t in tables]
    alone, together = (
        compare_tables(tmp_path, *pair)["headline"]["auroc"]["macro"]["difference"]
        for pair in (tables, copied)
    )
    assert together["n"] == 4 * alone["n"]
    assert together["value"] == pytest.approx(alone["value"])
    # Copies of the same patients say nothing new.
    assert together["high"] == pytest.approx(alone["high"], abs=0.003)


def test_headline_is_the_mean_over_archives_of_twenty_shared_records(tmp_path: Path) -> None:
    archives = {"cpsc2018": 10, "ptb-xl": 120, "sph": 40}
    tables = [some_table(archives, noise_seed=seed, skill=seed) for seed in (1, 2)]
    result = compare_tables(tmp_path, *tables)
    expected = []
    for archive in ("ptb-xl", "sph"):
        of = [table[table["archive"] == archive] for table in tables]
        arrays = [predictions_from_table(part, single=False) for part in of]
        areas = [macro_auroc(part.targets, part.probabilities) for part in arrays]
        expected.append(areas[1] - areas[0])
    headline = result["headline"]
    assert headline["auroc"]["macro"]["difference"]["value"] == pytest.approx(np.mean(expected))
    assert headline["archives"] == ["ptb-xl", "sph"] and headline["n"] == 160
    assert headline["left_out"] == {"cpsc2018": "fewer than 20 records"}
    assert result["pooled"]["n"] == 170
    assert "All 170 records pooled: macro AUROC +0." in comparison_summary(result)


def test_a_class_that_no_shared_record_has_is_null_with_a_reason(tmp_path: Path) -> None:
    tables = [some_table(noise_seed=seed).assign(label_C=np.uint8(0)) for seed in (1, 2)]
    result = compare_tables(tmp_path, *tables)
    told = result["headline"]["auroc"]["per_class"]["C"]
    assert told["difference"]["value"] is None and told["p"] is None
    assert told["difference"]["reason"] == "none or all of the shared records have it"
    assert result["headline"]["auroc"]["macro"]["difference"]["value"] is not None
    row = next(line for line in comparison_summary(result).splitlines() if "AUROC C" in line)
    assert row.split() == ["AUROC", "C", "none", "none", "none", "none"]
    json.dumps(result, allow_nan=False)


def test_one_patient_gives_a_difference_without_interval(tmp_path: Path) -> None:
    tables = [some_table(noise_seed=seed).assign(patient_group="p") for seed in (1, 2)]
    result = compare_tables(tmp_path, *tables)
    told = result["headline"]["auroc"]["macro"]
    assert told["difference"]["low"] is None and told["p"] is None
    assert result["verdict"].endswith(": one patient: no interval")


def test_the_same_seed_gives_the_same_comparison(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, n, some_table(noise_seed=s)) for n, s in (("a", 1), ("b", 2))]
    assert compare_runs(*folders, 100, 3) == compare_runs(*folders, 100, 3)
    assert compare_runs(*folders, 100, 3) != compare_runs(*folders, 100, 4)


# Which records -----------------------------------------------------------------------------------


def test_records_and_labels_in_another_order_are_the_same_run(tmp_path: Path) -> None:
    table = some_table()
    columns = [*table.columns[:4], *table.columns[:3:-1]]
    shuffled = table.sample(frac=1, random_state=0)[columns]
    assert compare_tables(tmp_path, table, shuffled)["is_same"]


def test_records_that_one_run_was_not_tested_on_are_left_out_and_counted(tmp_path: Path) -> None:
    table = some_table(noise_seed=2)
    second = table.iloc[30:].copy()
    second.loc[second.index[:20], "split"] = "calibration"
    result = compare_tables(tmp_path, some_table(), second)
    assert result["first"]["n_left_out"] == 50 and result["second"]["n_left_out"] == 0
    assert result["headline"]["n"] == 150
    assert result["warnings"] == [
        "left out: 20 test records of a that picked the epoch of b or set its thresholds",
        "left out: 30 test records of a that b was not tested on and may have been trained on",
    ]


def test_a_run_trained_on_what_it_is_scored_on_is_warned_about(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a", some_table(), n_trained_on=7)
    second = write_run(tmp_path, "b", some_table(noise_seed=2))
    result = compare_runs(first, second, 100, 0)
    warning = "Warning: a was trained on the patients of 7 records that it is scored on"
    assert warning in comparison_summary(result)


def test_runs_of_other_data_and_other_patient_groups_are_warned_about(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a", some_table(), data="1")
    moved = some_table(noise_seed=2, n_per_patient=2)
    result = compare_runs(first, write_run(tmp_path, "b", moved, data="2"), 100, 0)
    assert result["warnings"] == [
        "the runs do not have the same records, labels or splits",
        "199 shared records in other patient groups in b; those of a are drawn",
    ]
    assert result["headline"]["n_patient_groups"] == 200


def test_runs_without_a_record_in_common_are_refused(tmp_path: Path) -> None:
    table = some_table()
    with pytest.raises(CheckpointError, match=r"no record in common \(50 records and 150 records"):
        compare_tables(tmp_path, table.iloc[:50], table.iloc[50:])


def test_other_labels_are_refused_by_name(tmp_path: Path) -> None:
    other = some_table().rename(columns=lambda name: name.replace("_C", "_D"))
    with pytest.raises(CheckpointError, match="only a has C; only b has D"):
        compare_tables(tmp_path, some_table(), other)


def test_one_label_and_any_number_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a", some_table(), task="single")
    with pytest.raises(CheckpointError, match="a gives each record one label, b any number"):
        compare_runs(first, write_run(tmp_path, "b", some_table()), 100, 0)


def test_another_truth_is_refused_with_the_first_record(tmp_path: Path) -> None:
    other = some_table()
    for label in LABELS:
        other.loc[5, f"label_{label}"] = 1 - other.loc[5, f"label_{label}"]
    with pytest.raises(DataError, match=r"of 1 shared record differ \(first: ptb-xl/0005: a has"):
        compare_tables(tmp_path, some_table(), other)


def test_damaged_or_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as predictions"):
        read_predictions(path)
    write_parquet(path, pd.DataFrame({"record": ["a"]}))
    with pytest.raises(DataError, match="no predictions of ours"):
        read_predictions(path)
    twice = pd.concat([some_table(), some_table().iloc[:1]])
    with pytest.raises(DataError, match="the record ptb-xl/0000 twice"):
        compare_tables(tmp_path, some_table(), twice)
    with pytest.raises(DataError, match="holds no predictions"):
        compare_runs(tmp_path / "nowhere", path, 100, 0)


# By name -----------------------------------------------------------------------------------------


def test_a_run_is_found_by_name_folder_and_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", some_table())
    for written in ("a", str(folder), str(folder / "predictions.parquet")):
        assert resolve_run(tmp_path, written) == folder / "predictions.parquet"
    unnamed = write_run(tmp_path, "", some_table())
    assert resolve_run(tmp_path, "default") == unnamed / "predictions.parquet"


def test_out_of_fold_predictions_of_a_cross_validation_are_found(tmp_path: Path) -> None:
    folder = Workspace(tmp_path, "crossval").checkpoints_dir
    write_parquet(folder / "out_of_fold.parquet", some_table())
    first = write_run(tmp_path, "a", some_table(noise_seed=2))
    result = compare_runs(first, resolve_run(tmp_path, "crossval"), 100, 0)
    assert result["second"]["run"] == "crossval" and result["headline"]["n"] == 200


def test_an_unknown_run_names_those_that_there_are(tmp_path: Path) -> None:
    write_run(tmp_path, "wide_model", some_table())
    with pytest.raises(ConfigError, match=r"has wide_model; did you mean wide_model\?"):
        resolve_run(tmp_path, "wide_modle")
    with pytest.raises(ConfigError, match="this workspace has none"):
        resolve_run(tmp_path / "empty", "a")


def test_a_run_that_was_not_evaluated_is_told_from_an_unknown_one(tmp_path: Path) -> None:
    write_json(Workspace(tmp_path, "a").checkpoints_dir / "run.json", {})
    with pytest.raises(CheckpointError, match="run `einthoven evaluate --run-name a` first"):
        resolve_run(tmp_path, "a")


def test_a_run_may_be_compared_with_itself(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", some_table())
    verdict = compare_runs(folder, folder, 100, 0)["verdict"]
    assert verdict == "a and a say the same of 200 records: every difference is exactly 0"


def test_runs_of_the_same_name_are_told_by_their_paths(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place, "a", some_table()) for place in ("one", "two")]
    result = compare_runs(*folders, 100, 0)
    assert result["first"]["run"] == str(folders[0]) != result["second"]["run"]


def test_other_records_than_the_test_split_are_compared_too(tmp_path: Path) -> None:
    folders = []
    for name, seed in (("a", 1), ("b", 2)):
        folder = Workspace(tmp_path, name).checkpoints_dir / "evaluations" / "fold_3"
        write_parquet(folder / "predictions.parquet", some_table(noise_seed=seed).assign(split="f"))
        write_json(folder / "metrics.json", {"task": "multi"})
        folders.append(folder)
    result = compare_runs(*folders, 100, 0)
    assert result["first"]["run"] == "a/fold_3" and result["headline"]["n"] == 200
