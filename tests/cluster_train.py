"""Train by two processes of a Ray cluster on this machine, one of which is killed; for tests.

python tests/cluster_train.py ROOT STEP...

``ROOT`` holds a tiny store. Each step is a run: left alone (``whole``), one of whose processes is
killed (``killed``), that is stopped by a signal (``stopped``) and gone on with (``went-on``), or
that cannot work (``refused``). Writes ``ROOT/told-STEP.txt``: what it said.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ray_nodes import start_cluster

from einthoven.cluster_training import train_on_engine
from einthoven.console import log
from einthoven.errors import EinthovenError
from einthoven.settings import Settings


def settings_of(root: Path, run_name: str, **changes: Any) -> Settings:
    usual = {
        "engine": "ray", "train_workers": 2, "epochs": 8, "batch_size_cpu": 16, "crop_samples": 100,
        "lr": 0.003, "target_samples": 200, "device": "cpu", "ema_decay": 0.9, "augment": "strong",
        "tracking": "none", "checkpoint_minutes": 1e-6, "model_name": "resnet1d_wang",
    }  # fmt: skip
    return Settings(root=root, run_name=run_name, **(usual | changes))


def kill_one_process() -> None:
    """SIGKILL one of the two processes that train."""
    names = [(process, process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])]
    workers = [process for process, words in names if words and "RayTrainWorker" in words[0]]
    workers[-1].kill()


def stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def after_saves(settings: Settings, n_saves: int, action: Callable[[], None]) -> threading.Thread:
    """A thread that acts as soon as a run has saved its state this often."""
    path = settings.workspace.checkpoints_dir / "last_checkpoint.pth"

    def watch() -> None:
        seen: set[int] = set()
        while len(seen) < n_saves:
            time.sleep(0.005)
            if path.exists():
                seen.add(path.stat().st_mtime_ns)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        print(self.said[-1], file=sys.stderr, flush=True)


def said_by(settings: Settings) -> list[str]:
    lines = Lines()
    log.handlers[:] = [lines]
    log.setLevel(logging.INFO)
    try:
        train_on_engine(settings)
    except EinthovenError as error:
        lines.said.append(f"{type(error).__name__}: {error}")
    return lines.said


def run_step(root: Path, step: str, address: dict[str, str]) -> list[str]:
    if step == "refused":
        return said_by(settings_of(root, step, batch_size_cpu=8, **address))
    settings = settings_of(root, "stopped" if step == "went-on" else step, **address)
    if step in ACTIONS:
        after_saves(settings, *ACTIONS[step])
    return said_by(settings)


# After the sixth save the second epoch has begun. A signal takes up to a second to reach the
# processes, which must not be done by then.
ACTIONS = {"killed": (6, kill_one_process), "stopped": (2, stop_this_process)}


def main() -> None:
    root, *steps = Path(sys.argv[1]), *sys.argv[2:]
    # One of a handful of Ray's helpers, each of which takes seconds to start.
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    cluster, _ = start_cluster(2)
    try:
        for step in steps:
            said = run_step(root, step, {"ray_address": cluster.address})
            (root / f"told-{step}.txt").write_text("\n".join(said))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
