"""A model scored on archives that are not in its store, and on what else is not the test split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from evaluated_workspace import draw_coarsely
from fake_ecgs import fake_ecg, settings_for, write_own_archive

from einthoven.cli import command_line
from einthoven.console import log
from einthoven.errors import DataError
from einthoven.evaluation import evaluate_detailed
from einthoven.external import copies_of_known, external_workspace
from einthoven.files import read_json
from einthoven.prepare import prepare_archives
from einthoven.scopes import Scope, metrics_path, predictions_path
from einthoven.settings import Settings
from einthoven.store import open_store
from einthoven.training import train_production

CLASSES = ("MI", "AF", "BBB", "NORM", "OTHER")


def quick_settings(root: Path) -> Settings:
    return settings_for(
        root, epochs=1, model_name="crnn", batch_size_cpu=16, crop_samples=100, device="cpu",
        bootstrap_resamples=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A model of one epoch from sixty ECGs; tests read it."""
    root = tmp_path_factory.mktemp("external")
    labels = [CLASSES[k % 5] for k in range(60)]
    write_own_archive(root / "Dataset" / "here", [fake_ecg(k) for k in range(60)], labels=labels)
    settings = quick_settings(root)
    prepare_archives(settings)
    train_production(settings)
    return settings


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_coarsely(monkeypatch)


def hospital(folder: Path, seeds: list[int]) -> Path:
    labels = [CLASSES[k % 5] for k in seeds]
    return write_own_archive(folder / "hospital", [fake_ecg(k) for k in seeds], labels=labels)


def test_an_external_folder_is_prepared_as_the_models_own_records_were(
    trained_run: Settings, tmp_path: Path
) -> None:
    hospital(tmp_path, list(range(100, 130)))
    scope = Scope(external=tmp_path)
    metrics = evaluate_detailed(trained_run, scope)
    assert metrics["n"] == 30 and metrics["n_trained_on"] == 0
    assert metrics["records"]["external"] == tmp_path.name
    store = open_store(external_workspace(trained_run, tmp_path))
    own = open_store(trained_run.workspace)
    assert (store.target_fs, store.target_samples) == (own.target_fs, own.target_samples)
    table = pd.read_parquet(predictions_path(trained_run.workspace, scope))
    assert len(table) == 30 and set(table["split"]) == {scope.name}
    assert not (trained_run.workspace.checkpoints_dir / "test_metrics.json").exists()


def test_recordings_that_the_model_knows_are_left_out(
    trained_run: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log.addHandler(caplog.handler)
    hospital(tmp_path, [*range(10), *range(200, 220)])
    metrics = evaluate_detailed(trained_run, Scope(external=tmp_path))
    known = read_json(trained_run.workspace.splits_path)
    usable = {int(name[-3:]) for name in known["test"]} & set(range(10))
    assert metrics["n"] == 20 + len(usable)
    assert "because the model knows their recordings" in caplog.text


def test_a_copy_is_told_with_the_record_that_it_copies(
    trained_run: Settings, tmp_path: Path
) -> None:
    hospital(tmp_path, [3, 300])
    evaluate_detailed(trained_run, Scope(external=tmp_path, split="all"))
    known = open_store(trained_run.workspace)
    other = open_store(external_workspace(trained_run, tmp_path))
    copies = copies_of_known(known, np.arange(60), other)
    assert copies.to_numpy().tolist() == [["hospital/r000", "here/r003"]]


def test_other_records_of_a_known_patient_are_left_out(tmp_path: Path) -> None:
    """Known by archive and name: their signals tell nothing."""
    labels = [CLASSES[k % 5] for k in range(60)]
    patients = [f"p{k}" for k in range(60)]
    write_own_archive(
        tmp_path / "Dataset" / "here", [fake_ecg(k) for k in range(60)], labels=labels,
        patient_id=patients,
    )  # fmt: skip
    settings = quick_settings(tmp_path)
    prepare_archives(settings)
    train_production(settings)
    trained = {name[-3:] for name in read_json(settings.workspace.splits_path)["train"]}
    known = [int(name) for name in sorted(trained)][:5]
    write_own_archive(
        tmp_path / "later" / "here", [fake_ecg(500 + k) for k in range(15)],
        labels=[CLASSES[k % 5] for k in range(15)],
        patient_id=[f"p{k}" for k in known] + [f"q{k}" for k in range(10)],
    )  # fmt: skip
    metrics = evaluate_detailed(settings, Scope(external=tmp_path / "later"))
    assert metrics["n"] == 10


def test_an_external_folder_of_known_records_alone_is_refused(
    trained_run: Settings, tmp_path: Path
) -> None:
    train = read_json(trained_run.workspace.splits_path)["train"]
    hospital(tmp_path, [int(name[-3:]) for name in train[:5]])
    with pytest.raises(DataError, match="the model knows the patients of every external record"):
        evaluate_detailed(trained_run, Scope(external=tmp_path))


def test_a_model_file_alone_can_be_scored_elsewhere(trained_run: Settings, tmp_path: Path) -> None:
    hospital(tmp_path / "archives", list(range(400, 410)))
    model = shutil.copy(trained_run.workspace.best_model_path, tmp_path / "m.pth")
    elsewhere = Settings(root=tmp_path / "other", bootstrap_resamples=100, prepare_workers=1)
    scope = Scope(external=tmp_path / "archives", model=Path(model))
    metrics = evaluate_detailed(elsewhere, scope)
    assert metrics["n"] == 10 and metrics["n_trained_on"] is None
    assert "not at hand" in metrics["n_trained_on_reason"]


def test_a_folder_that_is_not_there_is_named(trained_run: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no folder"):
        evaluate_detailed(trained_run, Scope(external=tmp_path / "nowhere"))


# Other scopes of the store -----------------------------------------------------------------------


def test_scores_of_trained_records_say_so(trained_run: Settings) -> None:
    metrics = evaluate_detailed(trained_run, Scope("train"))
    assert metrics["n_trained_on"] == metrics["n"] > 0 and metrics["validation"] == {}
    path = metrics_path(trained_run.workspace, Scope("train"))
    assert read_json(path) == metrics
    assert any((path.parent / "figures").glob("roc_curves_*.png"))


def einthoven_evaluate(settings: Settings, *words: str) -> Result:
    root = str(settings.root)
    return CliRunner().invoke(
        command_line, ["evaluate", "--root", root, "--bootstrap-resamples", "100", *words]
    )


def test_the_command_scores_a_fold_and_says_where(trained_run: Settings) -> None:
    result = einthoven_evaluate(trained_run, "--fold", "10", "--archive", "here")
    assert result.exit_code == 0, result.output
    assert "fold 10" in result.output and "fold_10-here/metrics.json" in result.output
    assert "not a medical device" in result.output


def test_two_choices_of_records_are_refused(trained_run: Settings) -> None:
    result = einthoven_evaluate(trained_run, "--fold", "3", "--split", "train")
    assert result.exit_code and "give one of them" in str(result.exception)


def test_views_and_sets_are_told_where_they_are_asked_for(trained_run: Settings) -> None:
    asked = trained_run.model_copy(
        update={"test_time_augment": "scale,shift", "conformal_coverage": "0.8"}
    )
    scope = Scope("validation")
    metrics = evaluate_detailed(asked, scope)
    told = metrics["test_time_augmentation"]
    assert told["views"][0] == "plain" and len(told["views"]) == 5
    assert told["refitted"] is True
    assert set(told["gain"]) == {"auroc", "average_precision", "f1"}
    assert metrics["conformal"]["stated_coverage"] == 0.8
    table = pd.read_parquet(predictions_path(asked.workspace, scope))
    assert {f"set_{label}" for label in CLASSES} <= set(table)
