"""Kill training at random moments, a hundred times, and see that it ends with the same bits.

    python benchmarks/resume_soak.py [--kills 100] [--seed 0]

One run is left alone. Others, of the same seed and with accumulation, averaged weights,
augmentation and a save at every step, are killed with SIGKILL inside steps, inside saves, between
two files, between epochs and after random times, and started again until they are done. Weights,
optimizer, averaged weights and history must equal those of the run left alone, and every start must
go on where the one before had saved. Exits with 1 where that is not so; the counts go to
results/resume_soak.json.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from einthoven.checkpoint import hardware, versions
from einthoven.console import log, setup_logging
from einthoven.files import write_json

TESTS = Path(__file__).resolve().parents[1] / "tests"
RESULTS = Path(__file__).resolve().parent / "results" / "resume_soak.json"
# Of the first moments of each kind in a process; a later one may never come.
LAST_COUNT = 3
LONGEST_WAIT_MS = 400


def draw_kill(rng: random.Random, moments: tuple[str, ...]) -> tuple[str, int]:
    """A moment, and how many of its kind to let pass."""
    moment = rng.choice(moments)
    return moment, rng.randint(1, LONGEST_WAIT_MS if moment == "after" else LAST_COUNT)


def kill_until_done(root: Path, run_name: str, n_kills: int, rng: random.Random) -> list[str]:
    """Start a run again and again, killing it each time; returns the moments of the kills.

    Raises:
        AssertionError: a start did not go on where the one before had saved.
    """
    from killed_run import MOMENTS, settings_of
    from test_resume import place, start_in_a_process

    kills: list[str] = []
    reached, finished = 0, settings_of(root, run_name).workspace.step_path("train")
    while not finished.exists():
        kill = draw_kill(rng, MOMENTS) if len(kills) < n_kills else ("never", 0)
        done = start_in_a_process(root, run_name, *kill)
        came_to = place(done.stderr)
        assert came_to >= reached, f"started at step {came_to} after {reached}: {done.stderr}"
        reached = came_to
        if done.returncode < 0:
            kills.append(kill[0])
        else:
            assert done.returncode == 0, done.stderr
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    setup_logging()
    sys.path.insert(0, str(TESTS))
    from stores import write_tiny_store
    from test_resume import assert_same_result, start_in_a_process

    rng = random.Random(given.seed)
    kills: list[str] = []
    n_runs = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tiny_store(root)
        assert start_in_a_process(root, "whole").returncode == 0
        while len(kills) < given.kills:
            n_runs += 1
            kills += kill_until_done(root, f"killed{n_runs}", given.kills - len(kills), rng)
            assert_same_result(root, "whole", f"killed{n_runs}")
            log.info("%d kills, %d runs: all equal so far", len(kills), n_runs)
    result: dict[str, Any] = {
        "kills": len(kills), "runs": n_runs, "runs_equal": n_runs, "seed": given.seed,
        "by_moment": dict(Counter(kills)), "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
    }  # fmt: skip
    write_json(RESULTS, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
