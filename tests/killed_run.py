"""Train in a process of its own that kills itself at a chosen moment; for tests and the soak.

python tests/killed_run.py ROOT RUN_NAME MOMENT COUNT

``MOMENT`` is one of `MOMENTS` or ``never``; the process ends itself with SIGKILL at the COUNT-th
time that it comes there. With ``after`` COUNT is in milliseconds, from the first step on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from einthoven import checkpoint, run_state, step, training, validation
from einthoven.console import setup_logging
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.settings import Settings

MOMENTS = (
    "inside a step", "inside a save", "between two files", "in validation", "between epochs",
    "after",
)  # fmt: skip


def settings_of(root: Path, run_name: str) -> Settings:
    """Everything on that has a state of its own: accumulation, average, augmentation, saves."""
    return Settings(
        root=root, run_name=run_name, model_name="resnet1d_wang", epochs=12, batch_size_cpu=8,
        grad_accum_steps=2, crop_samples=100, target_samples=200, lr=0.003, device="cpu",
        early_stop_patience=8, ema_decay=0.9, augment="strong", checkpoint_minutes=1e-6,
        tracking="none",
    )  # fmt: skip


def die() -> None:
    """End at once, without a last word; SIGKILL where there is one."""
    sys.stderr.flush()
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


class Countdown:
    """Dies at the n-th call."""

    def __init__(self, count: int) -> None:
        self.left = count

    def tick(self) -> bool:
        self.left -= 1
        return self.left == 0


def die_before(module: Any, name: str, countdown: Countdown) -> None:
    """Let a function of a module end the process at its n-th call."""
    real: Callable[..., Any] = getattr(module, name)

    def replaced(*given: Any, **named: Any) -> Any:
        if countdown.tick():
            die()
        return real(*given, **named)

    setattr(module, name, replaced)


def die_with_half_a_file(countdown: Countdown) -> None:
    real = torch.save

    def replaced(values: Any, path: Path) -> None:
        real(values, path)
        if countdown.tick():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            die()

    checkpoint.torch.save = replaced


def die_while_neither_name_is_there(countdown: Countdown) -> None:
    real = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        done = real(self, target)
        if target.name == "previous_checkpoint.pth" and countdown.tick():
            die()
        return done

    Path.replace = replaced


def die_after_a_while(milliseconds: int) -> None:
    real = training.train_epoch

    def replaced(*given: Any) -> Any:
        threading.Timer(milliseconds / 1000, die).start()
        training.train_epoch = real
        return real(*given)

    training.train_epoch = replaced


def arrange_death(moment: str, count: int) -> None:
    countdown = Countdown(count)
    if moment == "inside a step":
        die_before(step, "update_weights", countdown)
    elif moment == "inside a save":
        die_with_half_a_file(countdown)
    elif moment == "between two files":
        die_while_neither_name_is_there(countdown)
    elif moment == "in validation":
        die_before(validation, "validation_scores", countdown)
    elif moment == "between epochs":
        # The best model is written, the state is not.
        die_before(run_state, "write_json", countdown)
    elif moment == "after":
        die_after_a_while(count)


def main() -> None:
    root, run_name, moment, count = sys.argv[1:]
    torch.set_num_threads(1)
    setup_logging()
    MODELS["resnet1d_wang"] = partial(ResNet1d, width=16)
    arrange_death(moment, int(count))
    training.train_production(settings_of(Path(root), run_name))


if __name__ == "__main__":
    main()
