"""A cross-validation has a page of its own, and a section where a run has the same name."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from evaluated_workspace import make_workspace

from einthoven.crossval import mean_over_parts
from einthoven.files import read_json, write_json
from einthoven.report.cautions import report_warnings
from einthoven.report.run_files import load_run_files
from einthoven.report.writing import write_report
from einthoven.settings import Settings

LABELS = ["MI", "AF", "BBB", "NORM", "OTHER"]


def headline(value: float, n: int = 200) -> dict[str, Any]:
    figure = {"value": value, "low": value - 0.02, "high": value + 0.02, "n": n}
    return {
        "how": "one archive, ptb-xl", "archives": ["ptb-xl"], "left_out": {}, "n": n,
        "n_patient_groups": n, "auroc": {"macro": figure}, "accuracy": figure,
    }  # fmt: skip


def part_of(number: int, value: float) -> dict[str, Any]:
    return {
        "part": number, "folds": [number, number + 5], "run": f"crossval-part{number}of2",
        "n_train": 300, "n_validation": 50, "absent_from_training": [], "n": 200,
        "n_patient_groups": 180, "headline": headline(value),
    }  # fmt: skip


def result_of(parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "held_out": "folds", "run": "crossval", "label_set": "five", "labels": LABELS,
        "task": "single", "parts": parts, "failed": [p["run"] for p in parts if "error" in p],
        "mean": mean_over_parts(parts), "left_out": {}, "n": 400, "n_expected": 400,
        "pooled": {"headline": headline(0.85, 400)}, **more,
    }  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store, with a run of no name."""
    return make_workspace(tmp_path, tuple(LABELS), single=True, archives={"ptb-xl": 40})


def write_result(settings: Settings, result: dict[str, Any], name: str = "crossval") -> Settings:
    named = settings.model_copy(update={"run_name": "crossval"})
    write_json(named.workspace.checkpoints_dir / f"{name}.json", result)
    return named


def text_of_report(settings: Settings) -> str:
    page = write_report(settings).read_text(encoding="utf-8")
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(text))


def test_a_cross_validation_without_a_model_has_a_page(settings: Settings) -> None:
    named = write_result(settings, result_of([part_of(1, 0.9), part_of(2, 0.8)]))
    text = text_of_report(named)
    assert "Cross-validation, five, run crossval" in text
    assert "over 2 parts of the patients, label set five (5 classes)" in text
    assert "macro AUROC 0.850 ±0.071" in text
    assert "1, 6 300 50 200 180 0.900 0.880–0.920" in text
    assert "mean ± sd 0.850 ±0.071" in text and "out of fold 400 400 0.850 0.830–0.870" in text
    assert "No model has been trained" not in text and "Not evaluated yet" not in text
    # The store's own splits are those of no part.
    assert "Labels in the store" in text and "Labels in each split" not in text
    assert not named.workspace.model_card_path.exists()


def test_the_page_is_made_again_only_when_the_cross_validation_was(settings: Settings) -> None:
    named = write_result(settings, result_of([part_of(1, 0.9), part_of(2, 0.8)]))
    before = write_report(named).stat().st_mtime_ns
    assert write_report(named).stat().st_mtime_ns == before
    write_result(settings, result_of([part_of(1, 0.9), part_of(2, 0.7)]))
    assert write_report(named).stat().st_mtime_ns > before


def test_archives_held_out_and_left_out_are_told(settings: Settings) -> None:
    part = {k: v for k, v in part_of(1, 0.7).items() if k not in ("part", "folds")}
    why = "6 labelled records, fewer than 100"
    result = result_of(
        [part | {"archive": "ptb-xl"}], held_out="archives", left_out={"sph": why}, pooled=None
    )
    text = text_of_report(write_result(settings, result, "by_archive"))
    assert "archive held out" in text and "ptb-xl 300 50 200 180 0.700" in text
    assert "1 archive not held out" in text and f"sph {why}" in text
    assert "mean ± sd 0.700 " in text and "macro AUROC 0.700 no deviation" in text


def test_a_part_that_failed_says_why(settings: Settings) -> None:
    failed = {"part": 2, "folds": [2, 7], "run": "crossval-part2of2", "error": "<no test record>"}
    text = text_of_report(write_result(settings, result_of([part_of(1, 0.9), failed])))
    assert "1 part failed." in text and "2, 7 failed" in text
    assert "Failed: crossval-part2of2: <no test record>" in text


def test_a_run_of_the_same_name_shows_both(settings: Settings) -> None:
    result = result_of([part_of(1, 0.9), part_of(2, 0.8)])
    write_json(settings.workspace.checkpoints_dir / "crossval.json", result)
    text = text_of_report(settings)
    assert "resnet1d_views, trained on" in text and "mean ± sd 0.850 ±0.071" in text
    card = settings.workspace.model_card_path.read_text(encoding="utf-8")
    assert "### Cross-validation: Parts of the patients" not in card, "no scores, no analyses"


def test_a_cross_validation_of_a_part_of_the_records_is_warned_of(settings: Settings) -> None:
    named = write_result(settings, result_of([part_of(1, 0.9), part_of(2, 0.8)]))
    run = read_json(settings.workspace.checkpoints_dir / "run.json")
    run["settings"]["run_mode"] = "medium"
    there = settings.model_copy(update={"run_name": "crossval-part1of2"}).workspace
    write_json(there.checkpoints_dir / "run.json", run)
    found = report_warnings(load_run_files(named.workspace))
    assert "A medium run" in found[0].text
