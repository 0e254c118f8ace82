"""A search by processes of a Ray cluster, all of which work on one study."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster_tune
import pandas as pd
import pytest
from stores import write_tiny_store
from tuning_process import search_settings, write_space

from einthoven.cluster.desk import Desk, NotedError
from einthoven.cluster_training import WorkerPlan
from einthoven.errors import ConfigError, DataError, ProcessLost
from einthoven.files import read_json
from einthoven.settings import Settings
from einthoven.tuning import on_ray, ray_calls
from einthoven.tuning.devices import (
    TrialDevice,
    common_device,
    device_here,
    refuse_other_device,
)
from einthoven.tuning.on_ray import (
    collect_answers,
    has_all_trials,
    plan_search_workers,
    refuse_gpu_without_use,
    refuse_sqlite_between_machines,
    refuse_without_room,
    search_in_task,
)
from einthoven.tuning.ray_calls import Place, StoodAside, WatchedCalls, why_not_here
from einthoven.tuning.storage import open_storage
from einthoven.tuning.study import join_study, next_trial
from einthoven.tuning.working import search_facts

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


def test_a_machine_without_cores_for_trials_gets_none():
    plan = plan_search_workers(Settings(device="cpu"), [{}, {"CPU": 8.0}, {"CPU": 8.0}])
    assert plan == WorkerPlan(2, False, 8)


# What the machines train on ----------------------------------------------------------------------

A100 = TrialDevice("cuda", "torch.bfloat16", "NVIDIA A100", "first")
V100 = TrialDevice("cuda", "torch.float16", "Tesla V100", "second")
CPU = TrialDevice("cpu", "torch.float32", "", "third")


def test_machines_may_differ_in_what_changes_no_score():
    h100 = TrialDevice("cuda", "torch.bfloat16", "NVIDIA H100", "other")
    assert common_device([A100, h100]) == A100
    refuse_other_device(A100, h100)


@pytest.mark.parametrize(
    ("other", "line", "advice"),
    [
        (V100, r"  second: cuda \(Tesla V100\) in float16", "Set MIXED_PRECISION to fp16 or off"),
        (CPU, "  third: cpu in float32", "Use DEVICE=cpu"),
    ],
)
def test_machines_that_would_score_differently_are_refused_and_named(other, line, advice):
    with pytest.raises(ConfigError, match=rf"first: cuda .*in bfloat16\n{line}\n{advice}"):
        common_device([A100, other])
    with pytest.raises(ConfigError, match=f"machine {other.host} trains on .* begun for cuda"):
        refuse_other_device(A100, other)


def test_a_gpu_that_torch_cannot_use_is_told():
    refuse_gpu_without_use(WorkerPlan(1, True, 1), "first", A100)
    refuse_gpu_without_use(WorkerPlan(1, False, 4), "third", CPU)
    with pytest.raises(ConfigError, match="machine third a GPU, and torch there can use none"):
        refuse_gpu_without_use(WorkerPlan(1, True, 1), "third", CPU)


def test_a_score_depends_on_the_device_of_the_trials_and_not_on_this_machine_s(tmp_path):
    write_tiny_store(tmp_path)
    settings = search_settings(tmp_path, batch_size_gpu=48)
    facts = search_facts(settings, {}, A100)
    assert (facts["device"], facts["batch_size"]) == ("cuda", "48")
    assert facts["arithmetic"] == "torch.bfloat16"
    here = search_facts(settings, {}, device_here(settings))
    assert (here["device"], here["batch_size"], here["arithmetic"]) == (
        "cpu",
        "16",
        "torch.float32",
    )


class OneByOne:
    """Ray, as far as answers are collected: each task is done at once, dead, or never."""

    exceptions = SimpleNamespace(RayError=ChildProcessError)

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    def wait(self, tasks: list[str], timeout: float) -> tuple[list[str], list[str]]:
        done = [task for task in tasks if task != "busy"][:1]
        return done, [task for task in tasks if task not in done]

    def get(self, task: str) -> TrialDevice:
        if task == "dead":
            raise ChildProcessError("its node is gone")
        return A100

    def cancel(self, task: str) -> None:
        self.cancelled.append(task)


def test_machines_that_are_busy_or_dead_do_not_hold_up_the_others(monkeypatch):
    monkeypatch.setattr(on_ray, "SECONDS_FOR_OTHERS", 0.05)
    ray = OneByOne()
    assert collect_answers(ray, ["dead", "free", "busy"]) == {"free": A100}
    assert ray.cancelled == ["busy"]
    with pytest.raises(ProcessLost, match="its node is gone"):
        collect_answers(ray, ["dead"])


# Calls that are watched --------------------------------------------------------------------------


class ScriptedRay:
    """Ray, as far as calls are watched: a task is a call's number and node, and ends as it says.

    ``ends`` takes a number, a node, and how many looks ago it was started; None: not yet.
    """

    exceptions = SimpleNamespace(RayError=ChildProcessError, TaskCancelledError=InterruptedError)

    def __init__(self, ends: Any) -> None:
        self.ends, self.now = ends, 0
        self.desk, self.outcomes = Desk(), {}
        self.started: dict[tuple[int, str], int] = {}
        self.cancelled: list[tuple[int, str]] = []
        self.most_at_once = 0

    def start(self, number: int, node: str) -> tuple[int, str]:
        self.started[number, node] = self.now
        return number, node

    def wait(self, tasks: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.now += 1
        self.most_at_once = max(self.most_at_once, len(tasks))
        for task in tasks:
            end = self.ends(*task, self.now - self.started[task])
            if end is not None and task not in self.outcomes:
                self.outcomes[task] = end
        return [task for task in tasks if task in self.outcomes], []

    def get(self, told: Any) -> Any:
        if not isinstance(told, tuple):
            return told
        outcome = self.outcomes[told]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self, task: Any) -> None:
        self.cancelled.append(task)
        self.outcomes[task] = InterruptedError("cancelled")

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.0}


def watched(ray: ScriptedRay, n_calls: int, n_at_once: int, is_over: Any = None) -> WatchedCalls:
    methods = {
        name: SimpleNamespace(remote=getattr(ray.desk, name)) for name in ("take", "begin", "begun")
    }
    return WatchedCalls(ray, SimpleNamespace(**methods), ray.start, n_calls, n_at_once, is_over)


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(ray_calls, "SECONDS_UNTIL_NEXT_LOOK", 0.0)
    monkeypatch.setattr(ray_calls, "SECONDS_BETWEEN_WARNINGS", 0.0)


def test_a_slow_call_holds_up_no_other():
    finished: list[int] = []

    def ends(number: int, node: str, age: int) -> int | None:
        if age < (6 if number == 0 else 1):
            return None
        finished.append(number)
        return number * 10

    ray = ScriptedRay(ends)
    assert watched(ray, 5, 2).results() == [0, 10, 20, 30, 40]
    assert finished[:4] == [1, 2, 3, 4] and ray.most_at_once == 2


@pytest.mark.usefixtures("no_pauses")
def test_processes_that_never_start_are_not_waited_for_once_a_search_is_over():
    ray = ScriptedRay(lambda number, node, age: "done" if number == 0 else None)
    ray.desk.begin(0, "first")
    ray.desk.begin(1, "second")
    over = iter([False, False])
    results = watched_until(ray, over)
    # The one that has begun is let end by itself for a while.
    assert ray.cancelled[0] == (2, "") and ray.cancelled[-1] == (1, "")
    assert results == ["done", None, None]


def watched_until(ray: ScriptedRay, over: Any) -> list[Any]:
    calls = watched(ray, 3, 3, lambda: next(over, True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_calls, "SECONDS_TO_LEAVE", 0.01)
        patch.setattr(ray, "wait", slowly(ray.wait))
        return calls.results()


def slowly(wait: Any) -> Any:
    def then(tasks: list[Any], timeout: float) -> Any:
        time.sleep(0.005)
        return wait(tasks, timeout)

    return then


@pytest.mark.usefixtures("no_pauses")
def test_processes_that_wait_for_room_are_told_of(caplog):
    ray = ScriptedRay(lambda number, node, age: "done" if age > 5 else None)
    ray.desk.begin(0, "first")
    watched(ray, 2, 2).results()
    assert "Of 2 trials at once 1 wait for room on the cluster; free now: 0 cores" in caplog.text


def test_a_call_goes_from_a_machine_that_stands_aside_to_one_that_does_not(caplog):
    ray = ScriptedRay(
        lambda number, node, age: StoodAside("other") if (number, node) == (1, "") else number
    )
    ray.desk.begin(0, "good")
    assert watched(ray, 3, 2).results() == [0, 1, 2]
    assert (1, "good") in ray.started and "A machine is left out: other" in caplog.text


def test_calls_fail_only_where_all_machines_stand_aside():
    with pytest.raises(ConfigError, match="of another kind"):
        watched(ScriptedRay(lambda *task: StoodAside("of another kind")), 3, 2).results()
    one_left = ScriptedRay(lambda number, *rest: StoodAside("other") if number else "done")
    assert watched(one_left, 2, 2, lambda: False).results() == ["done", None]


def test_the_first_error_of_a_call_ends_the_others_and_is_raised():
    noted = NotedError(DataError, "no store")
    ray = ScriptedRay(lambda number, node, age: noted if number == 1 else None)
    with pytest.raises(DataError, match="no store"):
        watched(ray, 4, 2).results()
    assert ray.cancelled == [(0, "")] and len(ray.started) == 2
    with pytest.raises(ProcessLost, match="died again and again"):
        watched(ScriptedRay(lambda *task: ChildProcessError("gone")), 1, 1).results()


def test_a_machine_that_trains_otherwise_stands_aside_and_is_named(tmp_path):
    settings = search_settings(tmp_path)
    assert why_not_here(Place("", None, A100, lambda settings: A100), settings) == ""
    why = why_not_here(Place("", None, A100, lambda settings: V100), settings)
    assert "machine second trains on cuda (Tesla V100) in float16" in why
    cuda = search_settings(tmp_path, device="cuda")
    assert "cuda" in why_not_here(Place("", None, A100, device_here), cuda)


@pytest.mark.parametrize("state", ["none is begun", "one is at work", "all are over"])
def test_a_search_has_all_its_trials_once_none_is_to_begin_or_at_work(tmp_path, state):
    write_tiny_store(tmp_path)
    settings = search_settings(tmp_path, run_name="tune", trials=1)
    with open_storage(settings) as storage:
        search = join_study(settings, {}, {}, storage)
        if state != "none is begun":
            trial = next_trial(search)
            if state == "all are over":
                search.study.tell(trial, 0.5)
        assert has_all_trials(search) == (state == "all are over")


# A study that a machine does not see -------------------------------------------------------------


def begin_study_of(settings: Settings) -> None:
    with open_storage(settings) as storage:
        join_study(settings, {}, search_facts(settings, {}, device_here(settings)), storage)


@pytest.mark.parametrize(
    "place", ["search.journal", "deeper/search.journal", "sqlite:///search.db"]
)
def test_a_machine_that_does_not_see_the_study_s_file_begins_none(tmp_path, monkeypatch, place):
    write_tiny_store(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = search_settings(tmp_path, study_storage=place, run_name="tune")
    begin_study_of(settings)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"does not see the study 'tune' in {place}; put STUDY"):
        search_in_task(settings, {}, {}, device_here(settings))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_machine_with_another_study_s_file_begins_none(tmp_path):
    write_tiny_store(tmp_path)
    place = str(tmp_path / "search.journal")
    other, mine = (
        search_settings(tmp_path, study_storage=place, run_name=name) for name in ("other", "tune")
    )
    begin_study_of(other)
    with pytest.raises(ConfigError, match="does not see the study 'tune'"):
        search_in_task(mine, {}, {}, device_here(mine))
    with open_storage(mine) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["other"]


# On Ray ------------------------------------------------------------------------------------------


def run_on_ray(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    done = subprocess.run(
        [sys.executable, *words], env=environment, timeout=550, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done


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
    done = run_on_ray("-m", "einthoven", *words.split())
    rows = pd.read_csv(tmp_path / "artifacts/tuning/tune/trials.csv")
    assert len(rows) == 5 and rows["lr"].nunique() == 5
    assert "Searching with 2 trials at once on a Ray cluster of 1 machine" in done.stderr
    assert "5 trials" in done.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after a search from a head without a GPU on a worker that is said to have one."""
    folder = tmp_path_factory.mktemp("searched")
    write_tiny_store(folder)
    run_on_ray(cluster_tune.__file__, str(folder), "searched", "confirmed", "refused")
    return folder


@NO_RAY
@pytest.mark.slow
def test_a_head_without_gpu_searches_for_the_device_of_its_workers(searched: Path):
    said = (searched / "told-searched.txt").read_text()
    assert "1 trial at once on a Ray cluster of 2 machines, each on cuda (pretended)" in said, said
    rows = pd.read_csv(searched / "artifacts/tuning/searched/trials.csv")
    assert set(rows["state"]) == {"finished"} and set(rows["batch_size_gpu"]) <= {8, 16}
    # The probe and the trials: all of them had the GPU.
    assert {path.read_text() for path in searched.glob("asked-*.txt")} == {"0"}
    with open_storage(cluster_tune.searched_settings(searched)) as storage:
        study_id = storage.get_study_id_from_name("searched")
        facts = storage.get_study_user_attrs(study_id)["einthoven"]
    assert (facts["device"], facts["arithmetic"]) == ("cuda", "torch.bfloat16")


@NO_RAY
@pytest.mark.slow
def test_a_worker_whose_torch_cannot_use_its_gpu_ends_the_search_before_it_begins(searched: Path):
    said = (searched / "told-refused.txt").read_text()
    assert "ConfigError: Ray gives a trial on machine" in said and "can use none" in said
    assert not (searched / "artifacts/tuning/refused").exists()


@NO_RAY
@pytest.mark.slow
def test_what_was_found_is_confirmed_by_the_workers_too(searched: Path):
    said = (searched / "told-confirmed.txt").read_text()
    assert "Run searched-default-seed1" in said and "Run searched-best-trial" in said
    result = read_json(searched / "artifacts/tuning/searched/confirmation.json")
    assert (result["seeds"], result["mean"]["n"]) == ([1], 4)
