"""The whole line, as a user runs it, on small synthetic archives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from evaluated_workspace import draw_coarsely

from einthoven.cli import command_line
from einthoven.files import Workspace, read_json, write_text
from einthoven.settings import Settings
from einthoven.synthetic.archives import write_synthetic_archives

N_PATIENTS = 60
BRIEF = (
    "--epochs", "1", "--bootstrap-resamples", "100", "--prepare-workers", "1", "--tracking", "none",
)  # fmt: skip


def einthoven_run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(command_line, ["run", "--root", str(root), *BRIEF, *words])


def files_of(root: Path) -> dict[str, int]:
    """Every file of a workspace, and when it was written."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after `einthoven run`; tests read it, or work on a copy."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_synthetic_archives(folder / "archives", n_patients=N_PATIENTS)
    archives = (folder / "archives").as_posix()
    write_text(folder / "work" / "einthoven.toml", f'dataset_dir = "{archives}"\n')
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        result = einthoven_run(folder / "work")
    assert result.exit_code == 0, result.output
    return folder / "work"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that workspace, for tests that change it; the archives stay where they are."""
    return shutil.copytree(finished, tmp_path / "work")


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_coarsely(monkeypatch)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time; other tests look at them."""
    monkeypatch.setattr("einthoven.evaluation.save_score_figures", lambda *arguments: [])
    monkeypatch.setattr("einthoven.modes.run_inference_examples", lambda settings: {})
    monkeypatch.setattr("einthoven.report.writing.write_report", lambda settings: settings.root)


# What is written ---------------------------------------------------------------------------------


def test_every_promised_file_is_there(finished: Path) -> None:
    names = set(files_of(finished))
    checkpoints = "artifacts/processed/checkpoints"
    assert names >= {
        "logs/unified_label_mapping.csv", "logs/label_coverage.csv",
        "artifacts/processed/manifest.parquet", "artifacts/processed/rejected.csv",
        "artifacts/processed/splits.json", f"{checkpoints}/best_model.pth",
        f"{checkpoints}/last_checkpoint.pth", f"{checkpoints}/metrics_epoch_001.json",
        f"{checkpoints}/training_history.json", f"{checkpoints}/test_metrics.json",
        f"{checkpoints}/predictions.parquet", f"{checkpoints}/run.json", "artifacts/report.html",
        f"{checkpoints}/inference_examples.json",
    }  # fmt: skip
    figures = {name.rpartition("/")[2].rpartition("_")[0] for name in names if "figures/" in name}
    examples = read_json(finished / checkpoints / "inference_examples.json")["examples"]
    assert figures == {
        "training_curves", "confusion_matrix", "per_class_metrics", "roc_curves",
        "precision_recall_curves", "reliability_diagrams", "score_distributions",
        "subgroup_forest", *(each["figure"].rpartition("_")[0] for each in examples),
    }  # fmt: skip
    assert any(name.startswith("artifacts/processed/records/") for name in names)


def test_found_is_stored_plus_rejected(finished: Path) -> None:
    workspace = Workspace(finished)
    mapping = pd.read_csv(workspace.mapping_path)
    manifest = pd.read_parquet(workspace.manifest_path)
    rejected = pd.read_csv(workspace.rejected_path)
    assert 0 < len(rejected) and rejected["reason"].str.len().min() > 10
    found = mapping["archive"] + "/" + mapping["record_id"].astype(str).str.zfill(5)
    assert len(mapping) == len(manifest) + len(rejected) and found.is_unique


def test_copies_of_one_recording_are_found_and_counted_once(finished: Path) -> None:
    manifest = pd.read_parquet(Workspace(finished).manifest_path)
    copies = manifest[manifest["duplicate_of"] != ""]
    assert len(copies) == 4
    splits = read_json(Workspace(finished).splits_path)
    used = {record for split in ("train", "val", "test") for record in splits[split]}
    assert not used & set(copies["record"])


def test_predictions_are_of_the_validation_and_test_splits_alone(finished: Path) -> None:
    workspace = Workspace(finished)
    table = pd.read_parquet(workspace.checkpoints_dir / "predictions.parquet")
    splits = read_json(workspace.splits_path)
    assert table.loc[table["split"] == "test", "record"].tolist() == splits["test"]
    halves = table.loc[table["split"].isin(["selection", "calibration"]), "record"]
    assert sorted(halves) == sorted(splits["val"])


def test_records_longer_than_the_window_are_several_windows(finished: Path) -> None:
    manifest = pd.read_parquet(Workspace(finished).manifest_path)
    single_lead = manifest[manifest["archive"] == "challenge-2017"]
    assert set(single_lead["leads_present"]) == {"I"}
    assert set(single_lead["n_windows"]) <= {2, 3, 4}
    assert (manifest.loc[manifest["archive"] == "ptb-xl", "n_windows"] == 1).all()


# Again -------------------------------------------------------------------------------------------


def test_a_second_run_writes_nothing_and_still_says_the_scores(finished: Path) -> None:
    before = files_of(finished)
    result = einthoven_run(finished)
    assert result.exit_code == 0
    assert files_of(finished) == before
    assert "macro AUROC" in result.stdout and "Report: " in result.stdout


def test_quiet_prints_results_alone(finished: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    done = subprocess.run(
        [sys.executable, "-m", "einthoven", "run", "--quiet", "--root", str(finished), *BRIEF],
        capture_output=True, text=True, env=environment, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("test split") and lines[-1].startswith("Report: ")


def test_fresh_starts_over_and_leaves_nothing_of_the_old_run(copied: Path) -> None:
    before = files_of(copied)
    result = einthoven_run(copied, "--fresh", "--lr", "0.001")
    assert result.exit_code == 0, result.output
    after = files_of(copied)
    old_pictures = {name for name in before if name.endswith(".png")}
    assert not old_pictures & set(after)
    # Another model may show more or fewer different records.
    n_others = [
        sum("inference_example_" not in name for name in names) for names in (before, after)
    ]
    assert n_others[0] == n_others[1]
    for name in ("last_checkpoint.pth", "test_metrics.json", "run.json"):
        name = f"artifacts/processed/checkpoints/{name}"
        assert after[name] > before[name]
    assert (
        after["artifacts/processed/manifest.parquet"]
        == (before["artifacts/processed/manifest.parquet"])
    )


def test_a_named_run_has_folders_of_its_own(copied: Path) -> None:
    before = files_of(copied)
    result = einthoven_run(copied, "--run-name", "other", "--lr", "0.001")
    assert result.exit_code == 0, result.output
    after = files_of(copied)
    assert {name: after[name] for name in before} == before
    assert {name.rpartition("/")[0] for name in set(after) - set(before)} == {
        "artifacts/other", "artifacts/figures/other", "artifacts/processed/checkpoints/other",
        "artifacts/processed/checkpoints/other/.steps",
    }  # fmt: skip


def test_other_settings_stop_with_the_difference_and_the_two_ways_on(finished: Path) -> None:
    before = files_of(finished)
    result = einthoven_run(finished, "--lr", "0.5")
    message = str(result.exception)
    assert "lr: 0.005 -> 0.5" in message and "--run-name" in message and "--fresh" in message
    assert files_of(finished) == before


def test_an_edited_label_makes_it_another_run(copied: Path) -> None:
    path = Workspace(copied).mapping_path
    mapping = pd.read_csv(path, dtype=str, keep_default_na=False)
    train = read_json(Workspace(copied).splits_path)["train"]
    row = (mapping["archive"] + "/" + mapping["record_id"]).isin(train).idxmax()
    mapping.loc[row, "labels"] = "AF" if mapping.loc[row, "labels"] != "AF" else "MI"
    mapping.to_csv(path, index=False)
    message = str(einthoven_run(copied).exception)
    assert "data has changed" in message and "--run-name" in message and "--fresh" in message
    # `prepare` took the edit in; the old model must not be scored on the new labels either.
    words = ["evaluate", "--root", str(copied), "--bootstrap-resamples", "100"]
    refused = CliRunner().invoke(command_line, words)
    assert "trained on other records, labels or splits" in str(refused.exception)


def test_scores_whose_files_are_gone_are_made_again(copied: Path) -> None:
    for path in Workspace(copied).figures_dir.glob("roc_curves_*.png"):
        path.unlink()
    assert einthoven_run(copied).exit_code == 0
    assert len(list(Workspace(copied).figures_dir.glob("roc_curves_*.png"))) == 1


def test_a_dry_run_stops_after_training(copied: Path) -> None:
    before = files_of(copied)
    result = einthoven_run(copied, "--dry-run", "--run-name", "dry")
    assert result.exit_code == 0, result.output
    assert files_of(copied) == before


def test_a_smoke_test_goes_from_archives_to_the_report(copied: Path) -> None:
    before = files_of(copied)
    result = einthoven_run(copied, "--run-mode", "smoke", "--lr", "0.001")
    assert result.exit_code == 0, result.output
    after = files_of(copied)
    assert {name: after[name] for name in before} == before
    results = read_json(copied / "logs" / "smoke_test_results.json")
    found = {stage["stage"]: stage["found"] for stage in results["stages"]}
    assert "from its archive" in found["prediction"] and "as evaluated" in found["prediction"]
    assert found["report"].startswith((copied / "artifacts" / "smoke" / "report.html").as_posix())


# Other tasks -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_several_labels_per_record(copied: Path) -> None:
    result = einthoven_run(copied, "--task", "multi", "--run-name", "multi")
    assert result.exit_code == 0, result.output
    metrics = read_json(Workspace(copied, "multi").checkpoints_dir / "test_metrics.json")
    assert metrics["task"] == "multi" and set(metrics["thresholds"]) == set(metrics["labels"])
    assert metrics["subset_accuracy"]["value"] <= metrics["accuracy"]["value"]
    # The store now has several labels per record: it is no longer the single-label run's.
    words = ["train", "--root", str(copied), "--epochs", "1"]
    refused = CliRunner().invoke(command_line, words)
    assert "labels per record: any number -> one" in str(refused.exception)


@pytest.mark.usefixtures("no_pictures")
def test_label_set_of_ptb_xl(copied: Path) -> None:
    result = einthoven_run(copied, "--label-set", "superdiagnostic", "--run-name", "super")
    assert result.exit_code == 0, result.output
    metrics = read_json(Workspace(copied, "super").checkpoints_dir / "test_metrics.json")
    assert metrics["labels"] == ["CD", "HYP", "MI", "NORM", "STTC"]
    table = pd.read_parquet(Workspace(copied, "super").checkpoints_dir / "predictions.parquet")
    probabilities = table[[f"probability_{label}" for label in metrics["labels"]]].to_numpy()
    assert np.isfinite(probabilities).all() and abs(probabilities.sum(1) - 1).max() > 0.01


@pytest.mark.usefixtures("no_pictures")
def test_one_archive_of_one_lead(copied: Path) -> None:
    words = ("--archives", "challenge-2017", "--run-name", "one-lead")
    result = einthoven_run(copied, *words)
    assert result.exit_code == 0, result.output
    manifest = pd.read_parquet(Workspace(copied).manifest_path)
    assert set(manifest["archive"]) == {"challenge-2017"}
