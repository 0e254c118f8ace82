"""docs/reference/files.md names each file, column and key that a run writes; its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_ecgs import fake_ecg, settings_for, write_own_archive
from tuning_process import CONFIRMATION_KEYS

from einthoven.evaluation import evaluate_detailed
from einthoven.files import Workspace, read_json
from einthoven.labels.mapping import MAPPING_COLUMNS
from einthoven.prediction import run_inference_examples
from einthoven.prepare import REJECTED_COLUMNS, prepare_archives
from einthoven.report.writing import write_report
from einthoven.smoke import SMOKE_STAGES, run_smoke_test
from einthoven.store import MANIFEST_COLUMNS, open_store
from einthoven.training import train_production
from einthoven.tuning.results import TRIAL_COLUMNS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAGE = (REFERENCE / "files.md").read_text(encoding="utf-8")
LABELS = ("MI", "AF", "BBB", "NORM", "OTHER")
# Where metrics and predictions are described.
SCORES_PAGE = (REFERENCE / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A whole run over sixty small records, one of them met twice and one rejected."""
    root = tmp_path_factory.mktemp("run")
    signals = [fake_ecg(seed % 59, seconds=8) for seed in range(60)]
    signals.append(np.zeros((12, 800), np.float32))
    labels = [LABELS[number % 5] for number in range(61)]
    write_own_archive(root / "Dataset" / "mine", signals, labels=labels)
    settings = settings_for(
        root, epochs=1, device="cpu", crop_samples=100, bootstrap_resamples=100, batch_size_cpu=16
    )
    prepare_archives(settings)
    train_production(settings, {"root": "flag"})
    evaluate_detailed(settings)
    run_inference_examples(settings)
    write_report(settings)
    with pytest.MonkeyPatch.context() as patch:
        for name in SMOKE_STAGES:
            patch.setitem(SMOKE_STAGES, name, lambda test: "what is there")
        patch.setitem(SMOKE_STAGES, "report", lambda test: open_store(Workspace(root / "none")))
        run_smoke_test(settings)
    return settings.workspace


def section(title: str, page: str = PAGE) -> str:
    """A section of the page, from its title to the next."""
    _, _, rest = page.partition(f"\n## {title}\n")
    assert rest, f"the page has no section {title}"
    return rest.partition("\n## ")[0]


def named_in(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def assert_named(names: Any, title: str, page: str = PAGE) -> None:
    missing = set(names) - named_in(section(title, page))
    assert not missing, f"{title} does not name {sorted(missing)}"


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("`unified_label_mapping.csv`", MAPPING_COLUMNS),
        ("`manifest.parquet`", MANIFEST_COLUMNS),
        ("`rejected.csv`", REJECTED_COLUMNS),
        ("`tuning/<study>/`", TRIAL_COLUMNS),
        ("`tuning/<study>/`", CONFIRMATION_KEYS),
    ],
)
def test_every_column_that_the_code_lists_is_named(title, columns):
    assert_named(columns, title)


@pytest.mark.parametrize(
    ("title", "path"),
    [
        ("`unified_label_mapping.csv`", "logs/unified_label_mapping.csv"),
        ("`label_coverage.csv`", "logs/label_coverage.csv"),
        ("`rejected.csv`", "artifacts/processed/rejected.csv"),
        ("`duplicates.csv`", "artifacts/processed/duplicates.csv"),
    ],
)
def test_every_column_of_a_written_table_is_named(workspace, title, path):
    assert_named(pd.read_csv(workspace.root / path).columns, title)


def test_every_column_and_attribute_of_a_written_manifest_is_named(workspace):
    manifest = pd.read_parquet(workspace.manifest_path)
    assert_named([*manifest.columns, *manifest.attrs], "`manifest.parquet`")


def test_every_key_of_the_splits_is_named(workspace):
    splits = read_json(workspace.splits_path)
    assert_named([*splits, *splits["audit"]], "`splits.json`")


@pytest.mark.parametrize("name", ["best_model.pth", "last_checkpoint.pth"])
def test_every_key_of_a_checkpoint_is_named(workspace, name):
    values = torch.load(workspace.checkpoints_dir / name, weights_only=True)
    inner = values.get("state", values.get("model_arguments"))
    assert_named([*values, *inner], f"`{name}`")


def test_every_key_of_an_epoch_is_named(workspace):
    (path,) = workspace.checkpoints_dir.glob("metrics_epoch_*.json")
    row = read_json(path)
    assert_named([*row, *row["val_per_class"]["MI"]], "`metrics_epoch_*.json`")
    (flat,) = read_json(workspace.checkpoints_dir / "training_history.json")
    assert row.keys() - flat.keys() == {"val_per_class"}


def test_every_key_of_the_run_is_named(workspace):
    run = read_json(workspace.checkpoints_dir / "run.json")
    assert_named([*run, *run["hardware"]], "`run.json`")


def test_every_key_of_the_scores_and_column_of_the_predictions_is_named(workspace):
    metrics = read_json(workspace.checkpoints_dir / "test_metrics.json")
    assert_named(metrics, "`test_metrics.json`", SCORES_PAGE)
    table = pd.read_parquet(workspace.checkpoints_dir / "predictions.parquet")
    columns = {re.sub(rf"_({'|'.join(LABELS)})$", "_<name>", name) for name in table.columns}
    assert_named(columns, "`predictions.parquet`", SCORES_PAGE)


def test_every_key_of_the_examples_is_named(workspace):
    written = read_json(workspace.checkpoints_dir / "inference_examples.json")
    assert_named([*written, *written["examples"][0]], "`inference_examples.json`")


def test_every_key_of_a_smoke_test_is_named(workspace):
    results = read_json(workspace.root / "logs" / "smoke_test_results.json")
    stages = [key for stage in results["stages"] for key in stage]
    verdicts = {"passed", "failed", "not run"}
    assert_named([*results, *stages, *verdicts, *SMOKE_STAGES], "`smoke_test_results.json`")
    assert {"found", "error"} <= set(stages)


def test_every_file_of_a_run_is_named(workspace):
    wanted = {
        path.name
        for part in ("logs", "artifacts")
        for path in (workspace.root / part).rglob("*")
        if path.is_file() and path.parent.name not in (".steps", "records", "figures")
    }
    wanted = {re.sub(r"epoch_\d+", "epoch_*", name) for name in wanted}
    assert not {name for name in wanted if name not in PAGE}
    names = [path.name.rpartition("_")[0] for path in workspace.figures_dir.glob("*.png")]
    figures = {re.sub(r"_\d+$", "_<number>", name) for name in names}
    assert_named(figures, "Figures and report")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
def test_examples_run(workspace, monkeypatch, example):
    monkeypatch.chdir(workspace.root)
    exec(example, {"pd": pd, "np": np, "torch": torch, "json": json, "Path": Path})
