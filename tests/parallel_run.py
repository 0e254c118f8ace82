"""Train a model without batch statistics, as one of several processes; for tests.

torchrun --nproc-per-node N tests/parallel_run.py ROOT RUN_NAME [RANK EVENT STEP]

At that step the process of that rank dies (``dies``), runs out of memory (``hungry``), is sent
SIGTERM (``stops``) or cannot read a record (``damaged``). Once: nothing happens after a restart.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from einthoven import training
from einthoven.cli import report_error
from einthoven.console import setup_logging
from einthoven.errors import DataError, EinthovenError
from einthoven.models.registry import MODELS
from einthoven.settings import Settings


class PlainNet(nn.Module):
    """A convolution and a linear head: nothing in it knows its batch."""

    def __init__(self, n_leads: int, n_classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(n_leads, 8, 25, 5)
        self.head = nn.Linear(8, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.convolution(x).relu().amax(-1))
        return logits


def settings_of(root: Path, run_name: str, **changes: Any) -> Settings:
    usual = {
        "epochs": 3, "batch_size_cpu": 16, "grad_accum_steps": 2, "crop_samples": 100, "lr": 0.003,
        "target_samples": 200, "device": "cpu", "early_stop_patience": 0, "ema_decay": 0.9,
        "tracking": "none", "checkpoint_minutes": 1e-6, "model_name": "resnet1d_wang",
    }  # fmt: skip
    return Settings(root=root, run_name=run_name, **(usual | changes))


def meet(event: str) -> None:
    """What happens to one process alone."""
    if event == "dies":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    if event == "stops":
        os.kill(os.getpid(), signal.SIGTERM)
    if event == "hungry":
        raise torch.OutOfMemoryError("CUDA out of memory")
    if event == "damaged":
        raise DataError("shard-00001.npy cannot be read")


def arrange(rank: int, event: str, step_number: int) -> None:
    real = training.train_step

    def replaced(run: Any, state: Any, *given: Any) -> torch.Tensor:
        if state.step == step_number and run.processes.rank == rank:
            meet(event)
        return real(run, state, *given)

    training.train_step = replaced


def main() -> int:
    root, run_name, *happens = sys.argv[1:]
    torch.set_num_threads(1)
    setup_logging()
    MODELS["resnet1d_wang"] = PlainNet
    if happens and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        arrange(int(happens[0]), happens[1], int(happens[2]))
    try:
        training.train_production(settings_of(Path(root), run_name))
    except EinthovenError as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
