"""What each step of a run takes: processor time, memory and disk.

    python benchmarks/run_steps.py --dataset-dir ARCHIVES --root WORK [--label-set superdiagnostic]

Runs ``label``, ``prepare``, ``check``, ``train``, ``evaluate`` and ``report`` one after the other,
each as a process of its own with one thread, in a workspace that is not there yet. Processor time
(user and system, children included) depends less on what else the machine does than the time on the
clock, which is kept beside it; but a processor that others share gets less done in each second.
Writes results/run_steps.json; `tools/run_times.py` makes the runbook's tables of it. For Linux and
macOS, which count what a child process has used.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Nothing large is imported before the steps have run: a child counts as its own peak what this
# process held when it was started.

RESULTS = Path(__file__).resolve().parent / "results" / "run_steps.json"
STEPS = ("label", "prepare", "check", "train", "evaluate", "report")
MIB = 2**20


def measure_step(step: str, environment: dict[str, str]) -> dict[str, float]:
    """Run one command to its end; what it and its children have used."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "einthoven", step], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"einthoven {step} has failed")
    # macOS counts memory in bytes, Linux in KiB.
    unit = 1 if platform.system() == "Darwin" else 1024
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "clock_seconds": round(seconds, 2),
        "peak_mib": round(used.ru_maxrss * unit / MIB, 1),
    }


def host_milliseconds(name: str, n_steps: int = 50) -> float:
    """Processor time of a training step on next to no data: what the host does for each step.

    Two records of 16 samples cost almost no arithmetic, so what is left is Python and PyTorch
    calling one operation after the other. A GPU waits for that, however fast it computes.
    """
    import torch

    from einthoven.models.registry import build_model
    from einthoven.objective import make_optimizer, summed_loss
    from einthoven.records import LEADS

    torch.set_num_threads(1)
    model = build_model(name, n_leads=len(LEADS), n_classes=5).train()
    optimizer = make_optimizer(model, 0.001, 0.01)
    windows, targets = torch.randn(2, len(LEADS), 16), torch.zeros(2, 5)
    times = []
    for _ in range(n_steps):
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        summed_loss(model(windows), targets, single=False).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.process_time() - start)
    return round(1000 * statistics.median(times), 2)


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def describe_workspace(root: Path) -> dict[str, Any]:
    """How many records there were, and what lies on disk afterwards."""
    from einthoven.files import Workspace, read_json
    from einthoven.store import open_store

    workspace = Workspace(root)
    run = read_json(workspace.checkpoints_dir / "run.json")
    history = read_json(workspace.checkpoints_dir / "training_history.json")
    return {
        "records": len(open_store(workspace).manifest),
        "n_train": run["n_train"],
        "epochs": len(history),
        "label_set": run["settings"]["label_set"],
        "model": run["settings"]["model_name"],
        "arithmetic": run["settings"]["mixed_precision"],
        "host_ms_per_step": host_milliseconds(run["settings"]["model_name"]),
        "records_per_s": [round(row["records_per_s"], 1) for row in history],
        "megabytes": {
            "logs": megabytes(root / "logs"),
            "records": megabytes(workspace.records_dir),
            "checkpoints": megabytes(workspace.checkpoints_dir),
            "figures": megabytes(root / "artifacts" / "figures"),
            "report.html": megabytes(root / "artifacts" / "report.html"),
        },
        "hardware": run["hardware"],
        "versions": run["versions"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--label-set", default="superdiagnostic")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.root.exists():
        sys.exit(f"{given.root} is there already; a step that is up to date takes no time")
    environment = {
        **os.environ, "ROOT": str(given.root), "DATASET_DIR": str(given.dataset_dir),
        "LABEL_SET": given.label_set, "TRACKING": "none", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    steps = {step: measure_step(step, environment) for step in STEPS}
    from einthoven.files import write_json

    write_json(given.output, {"steps": steps, **describe_workspace(given.root)})


if __name__ == "__main__":
    main()
