"""What trackers are told is read back from them; a broken or absent one changes nothing."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from stores import N_SAMPLES, write_tiny_store

from einthoven.checkpoint import read_checkpoint
from einthoven.console import log
from einthoven.errors import ConfigError, RunStopped
from einthoven.figures.saving import save_figure
from einthoven.files import file_digest, read_json, stamp_step, write_json
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.settings import Settings
from einthoven.tracking import mlflow_run
from einthoven.tracking.event_file import EventFile
from einthoven.tracking.mlflow_run import MODEL_TAG, RUN_TAG
from einthoven.tracking.numbers import described_settings, epoch_numbers, score_numbers
from einthoven.tracking.trackers import (
    Trackers,
    open_trackers,
    parse_tracking,
    track_evaluation,
    tracking_path,
)
from einthoven.training import train_production

FIGURE = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}
NO_FIGURE = {"value": None, "low": None, "high": None, "n": 40, "reason": "class absent"}
METRICS = {
    "label_set": "five", "n": 40, "support": {"AF": 3},
    "auroc": {"macro": FIGURE, "per_class": {"AF": FIGURE, "ST/T": NO_FIGURE}},
    "accuracy": FIGURE,
    "headline": {"how": "mean", "n": 40, "auroc": {"macro": FIGURE}},
    "archives": {"sph": {"n": 20, "auroc": {"macro": FIGURE, "per_class": {"AF": FIGURE}}},
                 "my own": {"n": 20, "accuracy": FIGURE}},
    "validation": {"n": 9, "accuracy": FIGURE},
}  # fmt: skip


def row(epoch: int) -> dict[str, object]:
    """A row of the history; ``seconds`` differ whenever an epoch is repeated."""
    return {
        "epoch": epoch, "train_loss": 1 / epoch, "lr": 0.01, "seconds": time.perf_counter(),
        "val_f1_macro": epoch / 10, "val_auroc_macro": float("nan"),
        "val_per_class": {"AF": {"f1": epoch / 20, "auroc": None, "support": 3}},
    }  # fmt: skip


def rows(*epochs: int) -> list[dict[str, object]]:
    return [row(epoch) for epoch in epochs]


def make_run(root: Path, tracking: str, run_name: str = "", **changes) -> Settings:
    """A run's folder as it is when training begins, with a model that is as yet any bytes."""
    settings = Settings(root=root, tracking=tracking, run_name=run_name, **changes)
    folder = settings.workspace.checkpoints_dir
    run = {"settings": settings.model_dump(mode="json"), "origins": {"lr": "flag"},
           "versions": {"torch": "2"}, "labels": ["AF", "ST/T"], "n_train": 7}  # fmt: skip
    write_json(folder / "run.json", run)
    settings.workspace.best_model_path.write_bytes(b"a model")
    return settings


def make_figure(settings: Settings) -> Path:
    stamp = "20260301-090507"
    return save_figure(
        Figure(figsize=(1, 0.5)), settings.workspace.figures_dir, "roc_curves", stamp
    )


@pytest.fixture
def said(caplog, monkeypatch):
    """The lines that a person sees."""
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "propagate", False)
    with caplog.at_level("INFO", logger="einthoven"):
        yield caplog


def warnings_in(said) -> list[str]:
    return [record.getMessage() for record in said.records if record.levelname == "WARNING"]


# Which trackers ----------------------------------------------------------------------------------


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_trackers_are_auto_none_or_a_list():
    assert parse_tracking("auto") == ("tensorboard", "mlflow")
    assert parse_tracking("none") == ()
    assert parse_tracking("mlflow") == ("mlflow",)
    assert parse_tracking("mlflow, tensorboard,mlflow") == ("tensorboard", "mlflow")


@pytest.mark.parametrize("text", ["tensorbord", "mlflow,tensorbord", "tensorbord,none"])
def test_an_unknown_tracker_is_refused_with_the_nearest_name(text):
    with pytest.raises(ConfigError, match=r"auto, none.*did you mean tensorboard\?"):
        parse_tracking(text)


@pytest.mark.parametrize("text", ["", ",", "auto,mlflow"])
def test_what_is_no_list_of_trackers_is_refused(text):
    with pytest.raises(ConfigError, match="TRACKING is"):
        parse_tracking(text)


def test_a_tracker_that_is_asked_for_and_missing_is_named_with_the_way_to_get_it(nothing_installed):
    with pytest.raises(ConfigError, match=r"mlflow.*pip install 'einthoven\[tracking\]'"):
        parse_tracking("mlflow")


def test_a_folder_of_the_name_is_no_tracker(monkeypatch, tmp_path):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [n for n in sys.modules if n.partition(".")[0] in ("mlflow", "tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    assert parse_tracking("auto") == ()


def test_without_trackers_nothing_is_written(nothing_installed, tmp_path, said):
    settings = make_run(tmp_path, "auto")
    before = sorted(tmp_path.rglob("*"))
    with open_trackers(settings, rows(1)) as trackers:
        trackers.log_epoch(row(2))
        trackers.log_model(settings.workspace.best_model_path, 2)
    track_evaluation(settings, METRICS, [], 2)
    assert sorted(tmp_path.rglob("*")) == before
    assert trackers.names == () and said.messages == []


def test_no_tracker_is_imported_unless_it_is_used(tmp_path):
    code = (
        "import sys; from einthoven.settings import Settings\n"
        "from einthoven.tracking.trackers import open_trackers, parse_tracking\n"
        "parse_tracking('auto'); open_trackers(Settings(tracking='none'), [])\n"
        "assert not {'mlflow', 'tensorboard', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# What they are told ------------------------------------------------------------------------------


def test_an_epoch_has_a_name_for_each_score_that_exists():
    numbers = epoch_numbers(row(2) | {"seconds": 3.0})
    assert numbers == {
        "train/loss": 0.5, "train/lr": 0.01, "train/seconds": 3.0, "val/f1_macro": 0.2,
        "val_f1/AF": 0.1,
    }  # fmt: skip


def test_scores_have_their_intervals_and_single_labels_their_own_groups():
    numbers = score_numbers(METRICS)
    assert numbers["test/auroc_macro"] == 0.9 and numbers["test/auroc_macro_low"] == 0.8
    assert numbers["test/accuracy_high"] == 0.95 and numbers["test/n"] == 40
    assert numbers["test_auroc/AF"] == 0.9
    assert numbers["test_headline/auroc_macro"] == 0.9
    assert numbers["test_my_own/accuracy"] == 0.9
    assert not any("ST" in name or "validation" in name for name in numbers)


def test_the_scores_of_the_only_archive_are_not_told_twice():
    alone = METRICS | {"archives": {"sph": METRICS["archives"]["sph"]}}
    assert not any("sph" in name for name in score_numbers(alone))


def test_settings_are_told_without_the_places_of_the_records(tmp_path):
    settings = make_run(tmp_path, "none", dataset_dir=tmp_path / "patients")
    told = described_settings(settings)
    assert (
        told["lr"] == str(Settings().lr)
        and told["versions.torch"] == "2"
        and told["n_train"] == "7"
    )
    assert told["labels"] == "AF, ST/T"
    assert not any(str(tmp_path) in value for value in told.values())


# TensorBoard -------------------------------------------------------------------------------------


def read_events(settings: Settings):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    name = settings.workspace.run_name or "default"
    events = EventAccumulator(str(settings.root / "artifacts" / "tensorboard" / name))
    return events.Reload()


def scalars(settings: Settings, tag: str) -> list[tuple[int, float]]:
    found = read_events(settings).Scalars(tag)
    return [(event.step, round(event.value, 6)) for event in found]  # TensorBoard's are float32


def text_of(settings: Settings, tag: str) -> str:
    (event,) = read_events(settings).Tensors(tag)
    return event.tensor_proto.string_val[0].decode()


def test_tensorboard_shows_settings_epochs_and_model(tmp_path, said):
    settings = make_run(tmp_path, "tensorboard")
    with open_trackers(settings, []) as trackers:
        trackers.log_epoch(row(1))
        trackers.log_epoch(row(2))
        trackers.log_model(settings.workspace.best_model_path, 2)
    assert scalars(settings, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert scalars(settings, "val_f1/AF") == [(1, 0.05), (2, 0.1)]
    assert f"| lr | {Settings().lr} |" in text_of(settings, "settings")
    assert text_of(settings, "model").startswith("best_model.pth, epoch 2, ")
    assert f'tensorboard --logdir "{tmp_path}' in said.text


def test_tensorboard_shows_scores_and_figures_of_the_last_evaluation(tmp_path):
    settings = make_run(tmp_path, "tensorboard")
    figure = make_figure(settings)
    with open_trackers(settings, []) as trackers:
        write_json(settings.workspace.checkpoints_dir / "metrics_epoch_001.json", row(1))
        trackers.log_epoch(row(1))
    for _ in range(2):
        track_evaluation(settings, METRICS, [figure], 1)
    assert scalars(settings, "train/loss") == [(1, 1.0)]
    assert scalars(settings, "test/auroc_macro") == [(1, 0.9)]
    (image,) = read_events(settings).Images("figures/roc_curves")
    assert image.encoded_image_string == figure.read_bytes()
    assert (image.width, image.height) == (150, 75)


@pytest.mark.parametrize("is_open_elsewhere", [False, True])
def test_tensorboard_shows_each_epoch_of_a_resumed_run_once(
    tmp_path, monkeypatch, is_open_elsewhere
):
    settings = make_run(tmp_path, "tensorboard")
    open_trackers(settings, rows(1, 2)).log_epoch(row(3))
    if is_open_elsewhere:  # on Windows, by a TensorBoard that is running
        monkeypatch.setattr(Path, "unlink", lambda self, **how: (_ for _ in ()).throw(OSError))
    open_trackers(settings, rows(1, 2)).log_epoch(row(3))
    assert [step for step, _ in scalars(settings, "train/loss")] == [1, 2, 3]


def test_an_epoch_that_is_added_later_stands_at_the_time_it_was_saved(tmp_path):
    settings = make_run(tmp_path, "tensorboard")
    path = settings.workspace.checkpoints_dir / "metrics_epoch_001.json"
    write_json(path, row(1))
    os.utime(path, (1e9, 1e9))
    open_trackers(settings, rows(1)).log_epoch(row(2))
    first, second = read_events(settings).Scalars("train/loss")
    assert first.wall_time == 1e9 and second.wall_time > 1.7e9


# MLflow ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    """Whatever MLflow the caller uses is no part of a test."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory) -> Path:
    """One workspace of many runs: its database takes seconds to make."""
    return tmp_path_factory.mktemp("with space #1")


@dataclass
class Mlflow:
    """A reader of what was written."""

    uri: str

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def run(self, settings: Settings):
        experiment = self.client.get_experiment_by_name("einthoven")
        identity = read_json(tracking_path(settings.workspace))["id"]
        query = f"tags.`{RUN_TAG}` = '{identity}'"
        (run,) = self.client.search_runs([experiment.experiment_id], query)
        return run

    def metric(self, settings: Settings, name: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self.run(settings).info.run_id, name)
        return [(metric.step, metric.value) for metric in found]

    def files(self, settings: Settings, folder: str) -> list[str]:
        found = self.client.list_artifacts(self.run(settings).info.run_id, folder)
        return [Path(artifact.path).name for artifact in found]

    def content(self, settings: Settings, path: str, to: Path) -> bytes:
        to.mkdir(exist_ok=True)
        run_id = self.run(settings).info.run_id
        return Path(self.client.download_artifacts(run_id, path, str(to))).read_bytes()


@pytest.fixture
def mlflow(shared_root, monkeypatch) -> Mlflow:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    path = (shared_root / "artifacts" / "mlflow.db").resolve()
    return Mlflow(f"sqlite:///{path.as_posix()}")


def assert_everything_is_there(mlflow: Mlflow, settings: Settings, tmp_path: Path) -> None:
    run = mlflow.run(settings)
    assert run.info.run_name == settings.run_name and run.info.status == "FINISHED"
    assert run.data.params["lr"] == str(Settings().lr) and run.data.params["versions.torch"] == "2"
    assert mlflow.metric(settings, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert mlflow.metric(settings, "val_f1/AF") == [(1, 0.05), (2, 0.1)]
    assert mlflow.metric(settings, "test/auroc_macro") == [(2, 0.9)]
    assert mlflow.files(settings, "figures") == ["roc_curves_20260301-090507.png"]
    model = mlflow.content(settings, "model/best_model.pth", tmp_path / "got")
    assert model == b"a model"
    assert run.data.tags[MODEL_TAG] == file_digest(settings.workspace.best_model_path)


def track_whole_run(settings: Settings) -> None:
    with open_trackers(settings, []) as trackers:
        trackers.log_epoch(row(1))
        trackers.log_epoch(row(2))
        trackers.log_model(settings.workspace.best_model_path, 2)
    track_evaluation(settings, METRICS, [make_figure(settings)], 2)


def test_mlflow_holds_settings_epochs_scores_figures_and_model(
    shared_root, mlflow, tmp_path, said, capfd
):
    settings = make_run(shared_root, "mlflow", "whole")
    is_new = not (shared_root / "artifacts" / "mlflow.db").exists()
    track_whole_run(settings)
    assert_everything_is_there(mlflow, settings, tmp_path)
    assert warnings_in(said) == [] and capfd.readouterr() == ("", "")
    command = f'mlflow ui --backend-store-uri "{mlflow.uri}"'
    assert said.text.count(command) == int(is_new)
    run_files = Path(shared_root, "artifacts", "mlflow").rglob("best_model.pth")
    assert [path.read_bytes() for path in run_files] == [b"a model"]
    assert not list(Path(shared_root, "artifacts").glob(".mlflow-*"))


def test_a_killed_run_goes_on_in_the_same_run_of_mlflow(shared_root, mlflow):
    settings = make_run(shared_root, "mlflow", "killed")
    killed = open_trackers(settings, [])
    killed.log_epoch(row(1))
    before = mlflow.run(settings)
    with open_trackers(settings.model_copy(update={"num_workers": 4}), rows(1, 2)) as trackers:
        assert mlflow.run(settings).info.status == "RUNNING"
        trackers.log_epoch(row(2))
        trackers.log_epoch(row(3))
    after = mlflow.run(settings)
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    assert mlflow.metric(settings, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(mlflow.metric(settings, "train/seconds")) == 3


def test_a_run_killed_before_mlflow_answered_is_no_second_run(shared_root, mlflow, monkeypatch):
    settings = make_run(shared_root, "mlflow", "early")
    from mlflow import MlflowClient

    real = MlflowClient.create_run

    def killed(*arguments, **names):
        real(*arguments, **names)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "create_run", killed)
    with pytest.raises(KeyboardInterrupt):
        open_trackers(settings, [])
    with open_trackers(settings, []) as trackers:
        trackers.log_epoch(row(1))
    assert mlflow.run(settings).data.params["lr"] == str(Settings().lr)  # which expects one run


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED"), (RunStopped("", 143), "KILLED")],
)
def test_mlflow_says_how_a_run_ended(shared_root, mlflow, error, status):
    settings = make_run(shared_root, "mlflow", type(error).__name__)
    with pytest.raises(type(error)), open_trackers(settings, []):
        raise error
    assert mlflow.run(settings).info.status == status


def test_a_run_started_afresh_is_another_run_of_mlflow(shared_root, mlflow):
    settings = make_run(shared_root, "mlflow", "again")
    open_trackers(settings, rows(1))
    before = mlflow.run(settings).info.run_id
    tracking_path(settings.workspace).unlink()  # as --fresh does
    open_trackers(settings, [])
    assert mlflow.run(settings).info.run_id != before
    assert mlflow.metric(settings, "train/loss") == []


def test_an_evaluation_adds_what_mlflow_missed_of_the_training(
    shared_root, mlflow, tmp_path, monkeypatch, said
):
    settings = make_run(shared_root, "mlflow", "missed")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "file:///nonsense")
        with open_trackers(settings, []) as trackers:
            for epoch in (1, 2):
                path = settings.workspace.checkpoints_dir / f"metrics_epoch_{epoch:03d}.json"
                write_json(path, row(epoch))
                trackers.log_epoch(row(epoch))
    assert len(warnings_in(said)) == 1
    stamp_step(settings.workspace.step_path("train"), {})
    track_evaluation(settings, METRICS, [make_figure(settings)], 2)
    assert_everything_is_there(mlflow, settings, tmp_path)


def test_an_evaluation_is_not_tracked_where_the_training_was_not(shared_root, tmp_path):
    settings = make_run(tmp_path, "none")
    open_trackers(settings, [])
    track_evaluation(settings.model_copy(update={"tracking": "auto"}), METRICS, [], 1)
    assert not (tmp_path / "artifacts" / "mlflow.db").exists()
    assert not (tmp_path / "artifacts" / "tensorboard").exists()


def without_hard_links(*paths):
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("link", [os.link, without_hard_links])
@pytest.mark.parametrize("others", [None, "theirs"])
def test_a_database_that_another_run_made_meanwhile_is_kept(tmp_path, monkeypatch, link, others):
    path = tmp_path / "artifacts" / "mlflow.db"

    class SlowClient:
        def __init__(self, tracking_uri: str) -> None:
            Path(tracking_uri.removeprefix("sqlite:///")).write_text("ours")

        def search_experiments(self, **how) -> None:
            if others:
                path.write_text(others)

    monkeypatch.setattr("mlflow.MlflowClient", SlowClient)
    monkeypatch.setattr(os, "link", link)
    mlflow_run._make_database(path)
    assert path.read_text() == (others or "ours") and list(path.parent.iterdir()) == [path]


# Trackers that fail ------------------------------------------------------------------------------


class Broken:
    """A tracker whose calls fail."""

    def __getattr__(self, name):
        raise OSError(28, "No space left on device")


def test_a_tracker_that_fails_is_switched_off_with_one_warning(tmp_path, said):
    trackers = Trackers()
    trackers.add("tensorboard", lambda: EventFile(tmp_path))
    trackers.add("mlflow", Broken)
    with trackers:
        trackers.log_epoch(row(1))
        trackers.log_scores(METRICS, 1)
    (warning,) = warnings_in(said)
    assert warning.startswith("MLflow is switched off and the run goes on: [Errno 28] No space")
    assert trackers.names == ("tensorboard",)


def test_a_full_disk_switches_tensorboard_off(tmp_path, said, monkeypatch):
    settings = make_run(tmp_path, "tensorboard")
    trackers = open_trackers(settings, [])
    shutil.rmtree(tmp_path / "artifacts" / "tensorboard")
    trackers.log_epoch(row(1))
    trackers.log_epoch(row(2))
    assert len(warnings_in(said)) == 1 and trackers.names == ()


def test_a_server_that_is_away_is_given_up_and_its_password_not_told(tmp_path, said, monkeypatch):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    before = random.getstate()
    with open_trackers(make_run(tmp_path, "mlflow"), []) as trackers:
        trackers.log_epoch(row(1))
    assert random.getstate() == before
    assert len(warnings_in(said)) == 1 and f"127.0.0.1:{port}" in said.text
    assert "secret" not in said.text


def test_a_locked_database_is_given_up(shared_root, mlflow, said, monkeypatch):
    open_trackers(make_run(shared_root, "mlflow", "unlocked"), [])
    monkeypatch.setattr(mlflow_run, "_SECONDS_FOR_A_LOCK", 0.1)
    with closing(sqlite3.connect(shared_root / "artifacts" / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        trackers = open_trackers(make_run(shared_root, "mlflow", "locked"), [])
    assert trackers.names == ()
    assert "database is locked" in warnings_in(said)[0]


def test_a_damaged_database_is_given_up_at_once(tmp_path, said):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "mlflow.db").write_text("no database at all" * 100)
    trackers = open_trackers(make_run(tmp_path, "mlflow"), [])
    assert trackers.names == () and "not a database" in warnings_in(said)[0]


def test_the_database_of_a_workspace_that_was_moved_is_left_alone(shared_root, tmp_path, said):
    open_trackers(make_run(shared_root, "mlflow", "before"), [])
    (tmp_path / "artifacts").mkdir()
    shutil.copy(shared_root / "artifacts" / "mlflow.db", tmp_path / "artifacts" / "mlflow.db")
    trackers = open_trackers(make_run(tmp_path, "mlflow"), [])
    assert trackers.names == () and "MLFLOW_EXPERIMENT_NAME" in warnings_in(said)[0]


# What training relies on -------------------------------------------------------------------------


def test_trackers_leave_random_numbers_and_environment_alone(shared_root):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    environment = dict(os.environ)
    track_whole_run(make_run(shared_root, "auto", "random"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before
    assert dict(os.environ) == environment


# A real server -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path):
    """An MLflow server on this machine, with a database and files of its own."""
    folder, port = tmp_path / "server", free_port()
    folder.mkdir()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{(folder / 'server.db').as_posix()}",
        "--artifacts-destination", (folder / "files").as_uri(),
    ]  # fmt: skip
    quick = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | quick
    log_path = folder / "log.txt"
    with log_path.open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, process: subprocess.Popen, log_path: Path) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log_path.read_text()
            time.sleep(0.2)
    raise AssertionError(log_path.read_text())


def test_a_server_of_mlflow_holds_the_same(server, tmp_path, monkeypatch, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    settings = make_run(tmp_path / "workspace", "mlflow", "remote")
    track_whole_run(settings)
    assert_everything_is_there(Mlflow(server), settings, tmp_path)
    assert warnings_in(said) == [] and f"MLflow writes to {server}" in said.text
    assert not (settings.root / "artifacts" / "mlflow.db").exists()


# In a whole run -----------------------------------------------------------------------------------


def run_settings(root: Path, run_name: str, tracking: str) -> Settings:
    return Settings(
        root=root, run_name=run_name, tracking=tracking, model_name="resnet1d_wang", epochs=2,
        batch_size_cpu=16, crop_samples=100, target_samples=N_SAMPLES, device="cpu",
    )  # fmt: skip


def test_trackers_mirror_a_run_and_leave_its_bits_alone(mlflow, shared_root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=8))
    write_tiny_store(shared_root)
    runs = [run_settings(shared_root, "plain", "none")]
    runs.append(run_settings(shared_root, "tracked", "tensorboard,mlflow"))
    for settings in runs:
        train_production(settings)
    plain, tracked = (read_checkpoint(s.workspace.best_model_path)["weights"] for s in runs)
    assert all(torch.equal(plain[name], tracked[name]) for name in plain)
    history = read_json(runs[1].workspace.checkpoints_dir / "training_history.json")
    losses = [(row["epoch"], row["train_loss"]) for row in history]
    assert sorted(mlflow.metric(runs[1], "train/loss")) == losses
    assert mlflow.run(runs[1]).info.status == "FINISHED"
    assert not (shared_root / "artifacts/tensorboard/plain").exists()
