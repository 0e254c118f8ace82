"""A search by processes of a Ray cluster, all of which work on one study."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from stores import write_tiny_store
from tuning_process import search_settings, write_space

from einthoven.cluster_training import WorkerPlan
from einthoven.errors import ConfigError
from einthoven.settings import Settings
from einthoven.tuning.on_ray import (
    plan_search_workers,
    refuse_sqlite_between_machines,
    refuse_without_gpu_here,
    refuse_without_room,
)

NO_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def test_there_are_as_many_trials_at_once_as_gpus_or_as_somebody_says():
    machines = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}]
    assert plan_search_workers(Settings(), machines).count == 6
    assert plan_search_workers(Settings(device="cpu"), machines).count == 2
    asked = plan_search_workers(Settings(device="cpu", train_workers=8), machines)
    assert (asked.count, asked.cores) == (8, 4)


def test_a_study_in_sqlite_is_refused_between_machines(tmp_path):
    settings = search_settings(tmp_path)
    refuse_sqlite_between_machines(settings, 1)
    with pytest.raises(ConfigError, match="2 machines, and a study in SQLite is for one"):
        refuse_sqlite_between_machines(settings, 2)
    shared = search_settings(tmp_path, study_storage="/shared/study.journal")
    refuse_sqlite_between_machines(shared, 2)


def test_trials_that_no_machine_can_run_are_refused_and_too_many_are_told(caplog):
    with pytest.raises(ConfigError, match=r"needs a GPU and a core, .*\(8 cores, 0 GPUs\)"):
        refuse_without_room(WorkerPlan(1, True, 1), [{"CPU": 8.0}])
    refuse_without_room(WorkerPlan(9, False, 1), [{"CPU": 8.0}])
    assert "Of 9 trials at once (TRAIN_WORKERS) 8 fit" in caplog.text


def test_a_search_on_gpus_is_not_begun_on_a_machine_without_one():
    refuse_without_gpu_here(WorkerPlan(2, True, 1), "cuda")
    refuse_without_gpu_here(WorkerPlan(2, False, 4), "cpu")
    with pytest.raises(ConfigError, match=r"this machine has none, .* with a GPU .*DEVICE=cpu"):
        refuse_without_gpu_here(WorkerPlan(2, True, 1), "cpu")


@NO_RAY
@pytest.mark.slow
def test_processes_of_a_cluster_share_the_trials_of_one_search(tmp_path: Path):
    write_tiny_store(tmp_path)
    space = write_space(tmp_path)
    words = (
        "tune --engine ray --train-workers 2 --trials 5 --epochs 2 --device cpu --tracking none "
        "--model-name se_resnet1d --crop-samples 100 --target-samples 200 --best-metric auroc "
        f"--bootstrap-resamples 100 --root {tmp_path} --space {space}"
    )
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    done = subprocess.run(
        [sys.executable, "-m", "einthoven", *words.split()], env=environment, timeout=550,
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    rows = pd.read_csv(tmp_path / "artifacts/tuning/tune/trials.csv")
    assert len(rows) == 5 and rows["lr"].nunique() == 5
    assert "Searching with 2 trials at once on a Ray cluster of 1 machine" in done.stderr
    assert "5 trials" in done.stdout
