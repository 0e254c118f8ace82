"""Searches of tests: training that takes no time, and a search in a process of its own.

python tests/tuning_process.py ROOT STORAGE TRIALS real|fake [EPOCHS_TO_LIVE]

The process ends itself with SIGKILL after so many epochs, over all its trials.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from killed_run import Countdown, die

from einthoven.files import read_json
from einthoven.settings import Settings
from einthoven.tuning import command, study, trials
from einthoven.tuning.command import tune

SPACE = "[lr]\nlow = 0.0005\nhigh = 0.05\nlog = true\n\n[batch_size_cpu]\nchoices = [16, 32]\n"


CONFIRMATION_KEYS = ("seeds", "metric", "half", "by_seed", "mean", "difference_sd_over_seeds")


def search_settings(root: Path, **changes: Any) -> Settings:
    usual = {
        "epochs": 3, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": 200, "trials": 4,
        "device": "cpu", "tracking": "none", "model_name": "resnet1d_wang", "best_metric": "auroc",
        "bootstrap_resamples": 100,
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def write_space(root: Path, text: str = SPACE) -> Path:
    path = root / "space.toml"
    path.write_text(text)
    return path


def fake_score(settings: Settings, epoch: int) -> float:
    """Best at a learning rate of 0.005; better from epoch to epoch."""
    return 0.9 - 0.1 * abs(math.log10(settings.lr / 0.005)) - 0.1 / epoch


def fake_training(
    settings: Settings,
    origins: Mapping[str, str] | None = None,
    after_epoch: Any = None,
    before_save: Any = lambda: None,
) -> None:
    """A run that leaves what a real one leaves, and goes on where it was stopped."""
    folder = settings.workspace.checkpoints_dir
    history = folder / "training_history.json"
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_json(history) if history.exists() else []
    for epoch in range(len(rows) + 1, settings.epochs + 1):
        before_save()
        rows.append({"epoch": epoch, "val_auroc_macro": fake_score(settings, epoch)})
        history.write_text(json.dumps(rows))
        (folder / "last_checkpoint.pth").write_text("bulky")
        if after_epoch is not None:
            after_epoch(epoch, rows[-1]["val_auroc_macro"])
    (folder / "best_model.pth").write_text("bulky")


def fake_halves(settings: Settings) -> dict[str, Any]:
    value = fake_score(settings, settings.epochs)
    figure = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 8}
    return {"selection": figure, "other_half": figure | {"value": value - 0.01}}


def make_training_fake(patch: Any) -> None:
    patch.setattr(trials, "train_production", fake_training)
    patch.setattr(trials, "score_halves", fake_halves)
    # Drawing takes longer than all the rest.
    patch.setattr(command, "write_figures", lambda search: [])


def die_after_epochs(count: int) -> None:
    countdown, real = Countdown(count), trials.after_epoch

    def arranged(*given: Any) -> Any:
        tell = real(*given)

        def tell_and_die(epoch: int, score: float) -> None:
            tell(epoch, score)
            if countdown.tick():
                die()

        return tell_and_die

    trials.after_epoch = arranged


def be_quick_to_tell() -> None:
    study.SECONDS_BETWEEN_SIGNS, study.SECONDS_UNTIL_LOST = 0.2, 1.5


def main() -> None:
    root, storage, n_trials, kind, *epochs_to_live = sys.argv[1:]
    be_quick_to_tell()
    if kind == "fake":
        make_training_fake(pytest.MonkeyPatch())
    else:
        import torch

        from einthoven.models.registry import MODELS
        from einthoven.models.resnet1d import ResNet1d

        torch.set_num_threads(1)
        MODELS["resnet1d_wang"] = partial(ResNet1d, width=16)
    if epochs_to_live:
        die_after_epochs(int(epochs_to_live[0]))
    settings = search_settings(Path(root), study_storage=storage, trials=int(n_trials))
    print(tune(settings, {}, write_space(Path(root))))


if __name__ == "__main__":
    main()
