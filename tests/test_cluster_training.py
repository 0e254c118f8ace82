"""A run on a cluster that loses a process ends as one that was left alone."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cluster_train
import numpy as np
import pytest
import torch
from stores import write_tiny_store

from einthoven.checkpoint import read_checkpoint
from einthoven.cluster.desk import Desk, described_error, noted_error
from einthoven.cluster_training import (
    WorkerPlan,
    _fit,
    check_cluster_room,
    is_old_there,
    old_files,
    plan_workers,
    train_on_engine,
)
from einthoven.errors import ConfigError, DataError, RunStopped
from einthoven.files import read_json
from einthoven.interruption import ask_to_stop, held_signals
from einthoven.run_folder import clear_run
from einthoven.settings import Settings

NO_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
SCRIPT = Path(cluster_train.__file__)


def run_steps(folder: Path, *steps: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *steps], env=environment, text=True,
        timeout=1200, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run that was left alone, and one that lost a process."""
    folder = tmp_path_factory.mktemp("trained")
    write_tiny_store(folder)
    run_steps(folder, "whole", "killed")
    return folder


def told(root: Path, step: str) -> str:
    return (root / f"told-{step}.txt").read_text()


def tensors(values, path=""):
    """Every tensor and number in nested values, by where it stands."""
    if isinstance(values, dict | list | tuple):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        return {k: v for key, item in items for k, v in tensors(item, f"{path}/{key}").items()}
    return {path: values} if isinstance(values, torch.Tensor | int | float) else {}


# What two runs of the same bits may differ in.
MEASURED = ("seconds", "records_per_s", "peak_memory_mb")


def assert_same_run(root: Path, run: str, other: str) -> None:
    runs = [
        cluster_train.settings_of(root, name).workspace.checkpoints_dir for name in (run, other)
    ]
    for name, key in (("last_checkpoint.pth", "state"), ("best_model.pth", "weights")):
        mine, others = (tensors(read_checkpoint(folder / name)[key]) for folder in runs)
        assert mine.keys() == others.keys() and len(mine) > 50
        compared = [at for at in mine if not at.endswith(MEASURED)]
        # A class that is absent has no score: NaN, in both.
        same = {at: np.array_equal(mine[at], others[at], equal_nan=True) for at in compared}
        assert [at for at in compared if not same[at]] == []


@NO_RAY
def test_killed_process_is_replaced_and_the_run_ends_with_the_same_bits(root):
    said = told(root, "killed")
    assert "Going on in epoch 2 of 8, after step" in said, said
    assert said.count("Best epoch") == 1 and "Going on" not in told(root, "whole")
    assert_same_run(root, "killed", "whole")


@NO_RAY
@pytest.mark.slow
def test_signal_to_the_command_saves_and_the_same_command_goes_on(root):
    run_steps(root, "stopped", "went-on")
    # It stops wherever it is when the signal comes, which may be between two epochs.
    place = re.search("RunStopped: stopped ((in|after) epoch .*), and saved", told(root, "stopped"))
    assert place and "; the same command goes on from here" in told(root, "stopped")
    assert f"Going on {place[1]}" in told(root, "went-on")
    assert_same_run(root, "stopped", "whole")


@NO_RAY
@pytest.mark.slow
def test_what_another_try_would_meet_again_is_told_once(root):
    run_steps(root, "refused")
    assert told(root, "refused").count("ConfigError") == 1
    assert "batch of all 2 processes together; use 16 or more" in told(root, "refused")


@NO_RAY
def test_a_run_leaves_nothing_of_ray_in_its_folder(root):
    folder = cluster_train.settings_of(root, "whole").workspace.checkpoints_dir
    assert not (folder / ".ray").exists()
    assert read_json(folder / "run.json")["settings"]["engine"] == "ray"


def test_torchrun_and_ray_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun and ENGINE=ray both start processes"):
        train_on_engine(Settings(root=tmp_path, engine="ray"))


@pytest.mark.parametrize(
    ("given", "machines", "expected"),
    [
        ({}, [{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}], (3, True, 1)),
        ({"device": "cpu"}, [{"CPU": 8, "GPU": 2}], (1, False, 8)),
        ({"train_workers": 2}, [{"CPU": 8}, {"CPU": 5}], (2, False, 5)),
        ({"train_workers": 4}, [{"CPU": 8}, {"CPU": 5}], (4, False, 2)),
        ({"train_workers": 4}, [{"CPU": 2}], (4, False, 1)),
        ({"device": "cuda"}, [{"CPU": 2}], (1, True, 1)),
    ],
)
def test_processes_and_their_share_follow_from_the_machines(given, machines, expected):
    plan = plan_workers(Settings(**given), machines)
    assert (plan.count, plan.on_gpu, plan.cores) == expected


def test_errors_of_other_processes_are_raised_as_what_they_are():
    stopped = noted_error(described_error(RunStopped("saved", 143)))
    assert isinstance(stopped, RunStopped) and stopped.exit_code == 143
    assert repr(noted_error(described_error(DataError("gone")))) == "DataError('gone')"
    defect = noted_error(described_error(ZeroDivisionError("by zero")))
    assert isinstance(defect, RuntimeError) and "ZeroDivisionError: by zero" in str(defect)


def test_word_to_stop_reaches_a_loop_outside_the_main_thread():
    seen: list[int] = []

    def loop() -> None:
        with held_signals() as request:
            ask_to_stop(15)
            seen.append(request.signal_number)

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [15]


# Before, and without, processes -------------------------------------------------------------------


def run_with_checkpoint(root: Path, **changes) -> Settings:
    settings = cluster_train.settings_of(root, "fresh", fresh=True, **changes)
    settings.workspace.checkpoints_dir.mkdir(parents=True)
    for name in ("last_checkpoint.pth", "run.json", "notes.txt"):
        (settings.workspace.checkpoints_dir / name).write_text("old")
    return settings


@NO_RAY
def test_fresh_run_keeps_the_old_one_where_ray_cannot_be_used(tmp_path):
    write_tiny_store(tmp_path)
    settings = run_with_checkpoint(tmp_path, ray_address="127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS is 127\.0\.0\.1:1"):
        train_on_engine(settings)
    assert (settings.workspace.checkpoints_dir / "last_checkpoint.pth").exists()


def test_finished_run_on_a_cpu_needs_no_ray_to_be_left_alone(tmp_path, caplog):
    write_tiny_store(tmp_path)
    settings = cluster_train.settings_of(tmp_path, "done", ray_address="127.0.0.1:1", epochs=1)
    train_on_engine(settings.model_copy(update={"engine": "local"}))
    caplog.set_level("INFO", "einthoven")
    train_on_engine(settings)
    assert "Training is up to date" in caplog.text


def test_processes_that_start_again_do_not_clear_a_fresh_run_again(tmp_path):
    settings = run_with_checkpoint(tmp_path)
    folder = settings.workspace.checkpoints_dir
    old = old_files(settings)
    (folder / "run.json").unlink()
    # Killed while it deleted: the next one has to finish that.
    assert is_old_there(old)
    clear_run(settings.workspace)
    assert not is_old_there(old) and (folder / "notes.txt").exists()
    (folder / "last_checkpoint.pth").write_text("new")
    os.utime(folder / "last_checkpoint.pth", ns=(1, 1))
    assert not is_old_there(old)
    assert old_files(settings.model_copy(update={"fresh": False})) == {}


def test_more_processes_than_this_machine_can_hold_are_refused(caplog):
    plan, machines = WorkerPlan(5, False, 1), [{"CPU": 3.0}, {"CPU": 1.0}]
    check_cluster_room("", WorkerPlan(4, False, 1), machines)
    with pytest.raises(ConfigError, match=r"5 processes with 1 core each cannot .*\(4 cores"):
        check_cluster_room("", plan, machines)
    assert not caplog.messages
    check_cluster_room("head:6379", plan, machines)
    assert "waiting for the cluster to grow" in caplog.text


class FakeRay:
    """Answers as Ray does, from a `Desk` of this process."""

    get = staticmethod(lambda answer: answer)
    available_resources = staticmethod(lambda: {"CPU": 1.0})


class FakeDesk:
    def __init__(self) -> None:
        self.desk = Desk()

    def __getattr__(self, name):
        return type("Method", (), {"remote": staticmethod(getattr(self.desk, name))})


class PendingTrainer:
    """A job for which there is no room."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def fit(self) -> None:
        self.is_over.wait(60)


def test_one_signal_ends_a_job_that_waits_for_room(tmp_path, monkeypatch):
    trainer = PendingTrainer()
    module = "einthoven.cluster_training"
    monkeypatch.setattr(f"{module}._make_trainer", lambda *arguments: trainer)
    for name in ("SECONDS_TO_HEED", "SECONDS_BETWEEN_WARNINGS", "SECONDS_BETWEEN_MESSAGES"):
        monkeypatch.setattr(f"{module}.{name}", 0.05)
    said: list[str] = []

    def lose_patience(text: str, *words) -> None:
        said.append(text % words)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(f"{module}.log.warning", lose_patience)
    with pytest.raises(RunStopped, match="no process was training") as stopped:
        _fit(FakeRay, FakeDesk(), {}, WorkerPlan(5, False, 1), tmp_path / ".ray")
    trainer.is_over.set()
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert len(said) == 1
    assert "Needed: 5 processes with 1 core each; free now: 1 core, 0 GPUs" in said[0]
