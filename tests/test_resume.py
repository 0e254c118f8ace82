"""A run that is killed at any moment and started again ends as if nothing had happened."""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_run import MOMENTS, settings_of
from stores import write_tiny_store

from einthoven.checkpoint import read_checkpoint, write_checkpoint
from einthoven.errors import CheckpointError
from einthoven.files import read_json
from einthoven.settings import Settings

SCRIPT = Path(__file__).with_name("killed_run.py")
# What the clock and the machine decide, not the run.
MEASURED = {"seconds", "records_per_s", "peak_memory_mb"}
GOING_ON = re.compile(r"Going on (?:in epoch (\d+) of \d+, after step (\d+)|after epoch (\d+))")
N_STEPS = 4  # 64 training records, two batches of eight a step


def start_in_a_process(
    root: Path, run_name: str, moment: str = "never", count: int = 0
) -> subprocess.CompletedProcess[str]:
    """Train until the end, or until the moment comes at which the process kills itself."""
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(root), run_name, moment, str(count)],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip


def train_in_a_process(root: Path, run_name: str, moment: str = "never", count: int = 0) -> str:
    """Its standard error; fails unless it ended as the moment says."""
    done = start_in_a_process(root, run_name, moment, count)
    endings = {"never": [0], "after": [0, -signal.SIGKILL]}.get(moment, [-signal.SIGKILL])
    assert done.returncode in endings, done.stderr
    return done.stderr


def result(root: Path, run_name: str) -> tuple[dict, dict, list]:
    """Best weights, the whole last state, and the history without what a clock measured."""
    folder = settings_of(root, run_name).workspace.checkpoints_dir
    history = read_json(folder / "training_history.json")
    kept = [{k: v for k, v in row.items() if k not in MEASURED} for row in history]
    state = read_checkpoint(folder / "last_checkpoint.pth")["state"]
    return read_checkpoint(folder / "best_model.pth"), state, kept


def assert_same_weights(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_same_result(root: Path, run_name: str, other: str) -> None:
    (best, state, history), (best_2, state_2, history_2) = (
        result(root, run_name),
        result(root, other),
    )
    assert history == history_2
    assert_same_weights(best["weights"], best_2["weights"])
    assert_same_weights(best["raw_weights"], best_2["raw_weights"])
    # As text, because a class that is absent has scores that equal nothing, not even themselves.
    assert str(best["raw_validation"]) == str(best_2["raw_validation"])
    for part in ("weights", "average"):
        assert_same_weights(state[part], state_2[part])
    for number, values in state["optimizer"]["state"].items():
        assert_same_weights(values, state_2["optimizer"]["state"][number])


def place(said: str) -> int:
    """The optimizer step at which a process went on."""
    found = GOING_ON.search(said)
    if not found:
        return 0
    epoch, step, whole = found.groups()
    return int(whole) * N_STEPS if whole else (int(epoch) - 1) * N_STEPS + int(step)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_run_equals_uninterrupted_run(tmp_path):
    write_tiny_store(tmp_path)
    assert place(train_in_a_process(tmp_path, "whole")) == 0
    rng = random.Random(0)
    kills = [(moment, rng.randint(2, 4)) for moment in MOMENTS[:-1]] + [("after", 150)]
    places = [place(train_in_a_process(tmp_path, "killed", *kill)) for kill in kills]
    places.append(place(train_in_a_process(tmp_path, "killed")))
    # Each went on from where the one before had come, and none started over.
    assert places[0] == 0 and places[1] > 0 and places == sorted(places)
    assert places[-1] > places[1]
    assert_same_result(tmp_path, "whole", "killed")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_damaged_last_checkpoint_costs_a_step_even_when_the_next_start_is_killed(tmp_path):
    write_tiny_store(tmp_path)
    train_in_a_process(tmp_path, "whole")
    folder = settings_of(tmp_path, "killed").workspace.checkpoints_dir
    train_in_a_process(tmp_path, "killed", "inside a step", 7)
    reached = read_checkpoint(folder / "last_checkpoint.pth")["state"]["step"]
    damage(folder / "last_checkpoint.pth")
    said = train_in_a_process(tmp_path, "killed", "between two files", 1)
    assert "last_checkpoint.pth is damaged; going on from previous_checkpoint.pth" in said
    assert 0 < place(said) == reached - 1
    train_in_a_process(tmp_path, "killed")
    assert_same_result(tmp_path, "whole", "killed")


# What is on disk ---------------------------------------------------------------------------------


def write_twice(folder):
    """A last checkpoint of 2, and a previous one of 1."""
    last, previous = folder / "last_checkpoint.pth", folder / "previous_checkpoint.pth"
    for number in (1, 2):
        write_checkpoint(last, {"x": torch.full((1000,), number)}, previous)
    return last, previous


def test_the_previous_checkpoint_is_kept(tmp_path):
    last, previous = write_twice(tmp_path)
    assert read_checkpoint(last)["x"][0] == 2
    assert read_checkpoint(previous)["x"][0] == 1


@pytest.mark.parametrize("place_of_flip", [0.2, 0.5, 0.9])
def test_a_single_flipped_bit_is_found(tmp_path, place_of_flip):
    # torch.load itself takes such a file, with another weight in it.
    last, _ = write_twice(tmp_path)
    content = bytearray(last.read_bytes())
    start = content.index(torch.full((1000,), 2).numpy().tobytes())
    content[start + int(place_of_flip * 8000)] ^= 1
    last.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="does not fit its checksum"):
        read_checkpoint(last)


def test_a_new_checkpoint_that_cannot_be_read_back_replaces_nothing(tmp_path, monkeypatch):
    last, previous = write_twice(tmp_path)
    monkeypatch.setattr(torch, "save", lambda values, path: path.write_bytes(b"half"))
    with pytest.raises(CheckpointError, match="damaged"):
        write_checkpoint(last, {"x": torch.zeros(3)}, previous)
    assert read_checkpoint(last)["x"][0] == 2 and read_checkpoint(previous)["x"][0] == 1
    assert len(list(tmp_path.iterdir())) == 2
