"""A report describes the run's own records: what it held out, what it took a part of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from evaluated_workspace import make_workspace

from einthoven.files import read_json, write_json
from einthoven.report.data_card import split_parts, split_table, splits_sentence
from einthoven.report.model_card import model_card
from einthoven.report.run_files import load_run_files
from einthoven.report.verdict import glance_rows, verdict_sentence
from einthoven.report.writing import write_report
from einthoven.runs import data_fingerprint
from einthoven.settings import Settings
from einthoven.store import open_store

LABELS = ("MI", "AF", "BBB", "NORM", "OTHER")
ARCHIVES = {"ptb-xl": 400, "sph": 100}


def make_run(
    root: Path, settings_of_run: dict[str, Any], archives: dict[str, int] = ARCHIVES, **facts: Any
) -> Settings:
    """A run with these settings and no more than the counts of an evaluation."""
    settings = make_workspace(root, LABELS, single=True, archives=archives)
    folder = settings.workspace.checkpoints_dir
    run = read_json(folder / "run.json")
    run["settings"] |= settings_of_run
    write_json(folder / "run.json", run | facts)
    metrics = {"labels": LABELS, "task": "single", "split": "test", "n": 50, "n_trained_on": 0}
    write_json(folder / "test_metrics.json", metrics)
    return settings


def card_of(settings: Settings) -> str:
    return model_card("run", load_run_files(settings.workspace), settings.workspace)


def counts_of(settings: Settings) -> dict[str, int]:
    parts = split_parts(load_run_files(settings.workspace))
    return {name: len(part) for name, part in parts.items()}


@pytest.mark.parametrize(
    ("of_run", "counts", "told"),
    [
        ({}, {"train": 400, "val": 50, "test": 50}, ""),
        ({"hold_out": "sph"}, {"train": 360, "val": 40, "test": 100}, "tested on sph, held out"),
        ({"hold_out": "1,6"}, {"train": 350, "val": 50, "test": 100}, "tested on folds 1, 6, held"),
    ],
)
def test_the_tables_are_of_the_splits_that_the_run_had(
    tmp_path: Path, of_run: dict[str, Any], counts: dict[str, int], told: str
) -> None:
    settings = make_run(tmp_path, of_run)
    files = load_run_files(settings.workspace)
    assert counts_of(settings) == counts
    table = split_table(files)
    assert table is not None and list(table.footer[0][1:]) == [str(n) for n in counts.values()]
    assert told in splits_sentence(files) and bool(splits_sentence(files)) == bool(told)
    assert f"trained on {counts['train']} records" in verdict_sentence(files)
    assert dict(glance_rows(files))["Trained on"].startswith(f"{counts['train']} records")


def test_a_smoke_run_is_described_by_the_records_that_it_took(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {"run_mode": "smoke"})
    assert sum(counts_of(settings).values()) <= 256
    assert "`RUN_MODE` smoke" in splits_sentence(load_run_files(settings.workspace))


def test_an_archive_that_the_model_never_met_is_named_as_such(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {"hold_out": "sph"})
    files = load_run_files(settings.workspace)
    assert "It was tested on sph, of which it has seen no record." in verdict_sentence(files)
    card = card_of(settings)
    assert "Every test record is of an archive that is new to the model (sph)" in card
    assert "come from archives that the model was trained on" not in card


def test_archives_that_the_model_knows_are_not_called_new(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {})
    assert "has seen no record" not in verdict_sentence(load_run_files(settings.workspace))
    assert "Test records come from archives that the model was trained on;" in card_of(settings)


def test_a_single_new_archive_among_known_ones_is_named(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {}, {"ptb-xl": 400, "sph": 20})
    splits = read_json(settings.workspace.splits_path)
    for name in ("train", "val"):
        splits[name] = [record for record in splits[name] if not record.startswith("sph")]
    write_json(settings.workspace.splits_path, splits)
    assert "trained on, but for those of sph;" in card_of(settings)


@pytest.mark.parametrize("facts", [{"data": "another"}, {"n_train": 3}])
def test_splits_that_cannot_be_told_are_left_out(tmp_path: Path, facts: dict[str, Any]) -> None:
    settings = make_run(tmp_path, {}, **facts)
    page = write_report(settings).read_text(encoding="utf-8")
    assert "Labels in each split" not in page and "Patients in each split" not in page
    assert "have changed since this run was trained" in page and "Trained on" not in page
    assert "cannot be told;" in card_of(settings)


def test_splits_of_the_same_data_are_shown(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {"hold_out": "sph"})
    files = load_run_files(settings.workspace)
    data = data_fingerprint(open_store(settings.workspace), files.own.rows)
    path = settings.workspace.checkpoints_dir / "run.json"
    write_json(path, read_json(path) | {"data": data, "n_train": 360})
    assert load_run_files(settings.workspace).own.problem == ""


def test_an_archive_that_is_gone_from_the_store_is_told(tmp_path: Path) -> None:
    settings = make_run(tmp_path, {"hold_out": "elsewhere"})
    page = write_report(settings).read_text(encoding="utf-8")
    assert re.search(r"Splits are not shown: HOLD_OUT is (&#39;|')elsewhere", page)
