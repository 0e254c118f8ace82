"""Several processes train one model as one process would."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from parallel_run import settings_of
from stores import write_tiny_store

from einthoven.checkpoint import read_checkpoint
from einthoven.cli import command_line
from einthoven.distributed import (
    ALONE,
    Processes,
    joined_processes,
    name_of_start,
    processes_here,
    share_of,
)
from einthoven.errors import ConfigError, ProcessLost
from einthoven.files import read_json
from einthoven.runs import check_settings_together
from einthoven.settings import Settings

SCRIPT = Path(__file__).with_name("parallel_run.py")
MEETING_SCRIPT = Path(__file__).with_name("meeting_run.py")
CPU = torch.device("cpu")


def train(root, run_name, *words, n_processes=1, max_restarts=0):
    """Train in processes of their own; returns how that ended."""
    words = (str(root), run_name, *words)
    return in_processes(SCRIPT, *words, n_processes=n_processes, max_restarts=max_restarts)


def in_processes(script, *words, n_processes, max_restarts):
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    started = [sys.executable]
    if n_processes > 1:
        started += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        started += [str(n_processes), "--max-restarts", str(max_restarts)]
    return subprocess.run(
        [*started, str(script), *words],
        capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"}, timeout=600,
        check=False,
    )  # fmt: skip


def curve(root, run_name, name="train_loss"):
    path = settings_of(root, run_name).workspace.checkpoints_dir / "training_history.json"
    return [row[name] for row in read_json(path)]


def final_weights(root, run_name):
    folder = settings_of(root, run_name).workspace.checkpoints_dir
    return read_checkpoint(folder / "last_checkpoint.pth")["state"]["weights"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store, and a run by one process and by two of the same global batch."""
    folder = tmp_path_factory.mktemp("parallel")
    write_tiny_store(folder)
    for run_name, n_processes in (("one", 1), ("two", 2)):
        done = train(folder, run_name, n_processes=n_processes)
        assert done.returncode == 0, done.stderr
        (folder / f"{run_name}.log").write_text(done.stderr)
    return folder


def test_two_processes_give_the_loss_curve_of_one(root):
    for name in ("train_loss", "train_accuracy", "gradient_norm", "val_loss", "val_auroc_macro"):
        np.testing.assert_allclose(curve(root, "two", name), curve(root, "one", name), rtol=1e-5)
    one, two = final_weights(root, "one"), final_weights(root, "two")
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)


def test_only_the_first_process_prints(root):
    log = (root / "two.log").read_text()
    assert log.count("Training resnet1d_wang") == 1
    assert log.count("Epoch   3/3") == 1


def test_a_process_that_dies_ends_the_job_and_the_run_goes_on_with_one(root):
    died = train(root, "dies", "1", "dies", "3", n_processes=2)
    assert died.returncode != 0
    assert died.stderr.count("has lost another one of this job") == 1
    assert "The same command goes on from the last save" in died.stderr
    went_on = train(root, "dies")
    assert "Going on in epoch 2 of 3, after step 1 of 2" in went_on.stderr
    assert "processes: 2 -> 1" in went_on.stderr
    np.testing.assert_allclose(curve(root, "dies"), curve(root, "one"), rtol=1e-5)


def test_torchrun_restarts_a_job_that_lost_a_process_and_it_ends_with_the_same_bits(root):
    done = train(root, "restarted", "1", "dies", "3", n_processes=2, max_restarts=1)
    assert done.returncode == 0, done.stderr
    assert "Going on in epoch 2 of 3, after step 1 of 2" in done.stderr
    assert "Not the same to the bit" not in done.stderr
    restarted, undisturbed = final_weights(root, "restarted"), final_weights(root, "two")
    assert all(torch.equal(restarted[key], undisturbed[key]) for key in undisturbed)


def test_processes_that_torchrun_starts_again_meet_and_none_waits_for_a_dead_one():
    done = in_processes(MEETING_SCRIPT, n_processes=2, max_restarts=2)
    assert done.returncode == 0, done.stderr
    # In the second start one dies before the other has its address.
    assert [done.stdout.count(f"start {start}: 2 have met") for start in range(3)] == [2, 0, 2]


def test_every_start_has_a_name_of_its_own_whatever_dead_processes_have_left():
    store = torch.distributed.HashStore()
    store.set("asked by 1", "the word of a process that died before it was answered")

    def name_in(rank):
        return name_of_start(store, Processes(rank, 3))

    with ThreadPoolExecutor(3) as threads:
        names = [set(threads.map(name_in, ranks)) for ranks in ((0, 1, 2), (2, 1, 0))]
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]


def test_the_first_process_says_who_has_not_come(monkeypatch):
    monkeypatch.setattr("einthoven.distributed.MEETING_LIMIT", timedelta(seconds=0.1))
    with pytest.raises(TimeoutError, match="these have not come: 1, 2"):
        name_of_start(torch.distributed.HashStore(), Processes(0, 3))


def test_a_process_that_meets_nobody_ends_and_says_what_to_look_at(monkeypatch):
    monkeypatch.setattr("einthoven.distributed.MEETING_LIMIT", timedelta(seconds=1))
    monkeypatch.setattr("einthoven.distributed.ignore_termination", lambda: None)
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ProcessLost, match=r"0 of 2 has not met .* same command again") as ended,
        joined_processes(Processes(0, 2), CPU),
    ):
        raise AssertionError("met somebody")
    assert ended.value.is_of_one_process


def test_processes_that_nothing_tells_where_to_meet_say_how_to_start_them(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(ConfigError, match=r"MASTER_ADDR, MASTER_PORT unset.*torchrun"),
        joined_processes(Processes(0, 2), CPU),
    ):
        raise AssertionError("met somebody")


@pytest.mark.parametrize(
    ("rank", "event", "said"),
    [
        ("0", "dies", "process 1 of 2 has lost another one of this job"),
        ("1", "hungry", "memory ran out on cpu, even with 16 records at a time"),
        ("1", "damaged", "shard-00001.npy cannot be read"),
    ],
)
def test_what_one_process_meets_is_told_once(root, rank, event, said):
    ended = train(root, f"{event}{rank}", rank, event, "2", n_processes=2)
    assert ended.returncode != 0
    assert ended.stderr.count(said) == 1, ended.stderr


def test_a_signal_to_one_process_stops_all_and_the_run_goes_on(root):
    stopped = train(root, "stops", "1", "stops", "2", n_processes=2)
    assert "stopped in epoch 2 of 3, after step 1 of 2, and saved" in stopped.stderr
    went_on = train(root, "stops", n_processes=2)
    assert "Going on in epoch 2 of 3, after step 1 of 2" in went_on.stderr
    np.testing.assert_allclose(curve(root, "stops"), curve(root, "two"), rtol=1e-6)


def test_other_commands_refuse_several_processes(root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = CliRunner().invoke(command_line, ["prepare", "--root", str(root)])
    assert "torchrun is for `einthoven train`" in str(refused.exception)


def test_shares_of_a_batch_hold_each_record_once():
    records = np.arange(7) * 10
    shares = [share_of(records, Processes(rank, 3)) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == records.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_too_small_for_the_processes_is_refused():
    with pytest.raises(ConfigError, match="batch of all 4 processes together; use 32 or more"):
        check_settings_together(Settings(batch_size_cpu=16), False, CPU, Processes(0, 4))
    check_settings_together(Settings(batch_size_cpu=16), False, CPU, ALONE)


def test_what_torchrun_says_is_read(monkeypatch):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert processes_here() == Processes(3, 8, 1) and not processes_here().is_first
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="start several processes with torchrun"):
        processes_here()


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert processes_here() == ALONE and ALONE.is_first
