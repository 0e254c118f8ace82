"""What changes while a run trains, how it is kept on disk, and how a stopped run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from einthoven.checkpoint import (
    hardware,
    model_values,
    read_checkpoint,
    versions,
    write_checkpoint,
)
from einthoven.console import log, plural
from einthoven.errors import CheckpointError
from einthoven.files import changes_between, write_json
from einthoven.models.registry import build_model
from einthoven.objective import make_optimizer
from einthoven.records import LEADS
from einthoven.runs import Run, clear_run, other_run_message, plain_inputs

# What changes -----------------------------------------------------------------------------------


@dataclass
class TrainState:
    """What changes while a run trains; everything here is in ``last_checkpoint.pth``.

    Attributes:
        epoch: epochs that are finished.
        step: optimizer steps that are done.
        history: one row of plain numbers per finished epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def finish_epoch(self, row: dict[str, Any], best_metric: str) -> bool:
        """Take an epoch's row into the history; say whether it is the best so far."""
        self.epoch += 1
        self.history.append({"epoch": self.epoch, **row})
        score = row[f"val_{best_metric}_macro"]
        improved = bool(score > self.best_score) or not self.best_epoch
        if improved:
            self.best_score, self.best_epoch = float(np.nan_to_num(score, nan=-1.0)), self.epoch
        return improved

    def is_stalled(self, patience: int) -> bool:
        """Whether the last ``patience`` epochs brought nothing."""
        return 0 < patience <= self.epoch - self.best_epoch

    def values(self) -> dict[str, Any]:
        """Tensors and plain values that `restore` takes back."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from where `values` was taken."""
        self.model.load_state_dict(values["weights"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.scaler.load_state_dict(values["scaler"])
        for name in ("epoch", "step", "best_score", "best_epoch", "history"):
            setattr(self, name, values[name])


def new_state(run: Run) -> TrainState:
    """Fresh weights from the seed, and an optimizer over them."""
    torch.manual_seed(run.settings.seed)
    model = build_model(run.settings.model_name, n_leads=len(LEADS), n_classes=len(run.labels))
    model.to(run.device)
    optimizer = make_optimizer(model, run.settings.lr, run.settings.weight_decay)
    # Only float16 has gradients too small for it; a scaler that is off passes everything through.
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype == torch.float16)
    return TrainState(model, optimizer, scaler)


# On disk ----------------------------------------------------------------------------------------


def resume_or_start(run: Run, state: TrainState, inputs: Mapping[str, Any]) -> None:
    """Go on with a stopped run, or clear the folder for a new one."""
    folder = run.workspace.checkpoints_dir
    last_path = folder / "last_checkpoint.pth"
    if run.settings.fresh:
        clear_run(run.workspace)
    # Until this run is finished no stamp may say so.
    run.workspace.step_path("train").unlink(missing_ok=True)
    if not last_path.exists():
        log.info(
            "Training %s on %s, validating on %s; %s",
            run.settings.model_name,
            plural(len(run.train.records), "record"),
            plural(len(run.val.records), "record"),
            run.device,
        )
        return
    values = read_checkpoint(last_path)
    if not {"inputs", "state"} <= set(values):
        raise CheckpointError(f"{last_path} holds no stopped run; start over with --fresh")
    changes = changes_between(values["inputs"], plain_inputs(inputs))
    if changes:
        raise CheckpointError(other_run_message(run.settings, "stopped", changes))
    if not run.workspace.best_model_path.exists():
        raise CheckpointError(
            f"{run.workspace.best_model_path} is gone, and with it the best epoch so far; "
            "start this run over with --fresh"
        )
    state.restore(values["state"])
    log.info("Going on after epoch %d of %d", state.epoch, run.n_epochs)


def save_epoch(run: Run, state: TrainState, inputs: Mapping[str, Any], improved: bool) -> None:
    """Write the best model, the epoch's figures, and last what a stopped run goes on from."""
    folder = run.workspace.checkpoints_dir
    if improved:
        values = model_values(
            run.settings.model_name, state.model, run.input, run.labels, run.single,
            model_facts(run, state),
        )  # fmt: skip
        write_checkpoint(run.workspace.best_model_path, values)
    write_json(folder / f"metrics_epoch_{state.epoch:03d}.json", state.history[-1])
    flat = [{k: v for k, v in row.items() if k != "val_per_class"} for row in state.history]
    write_json(folder / "training_history.json", flat)
    write_checkpoint(
        folder / "last_checkpoint.pth",
        {"inputs": plain_inputs(inputs), "state": state.values()},
    )


def model_facts(run: Run, state: TrainState) -> dict[str, Any]:
    """What a model file says of how it came to be."""
    # A model file is handed on; where its maker kept the records is nobody's business.
    settings = run.settings.model_dump(mode="json", exclude={"root", "dataset_dir"})
    return {
        "epoch": state.epoch,
        "label_set": run.settings.label_set,
        "validation": {k: v for k, v in state.history[-1].items() if k.startswith("val_")},
        "settings": settings,
        "data": run.data,
    }


def describe_run(run: Run, origins: Mapping[str, str]) -> dict[str, Any]:
    """What ``run.json`` holds: all that is needed to have this run again."""
    return {
        "settings": run.settings.model_dump(mode="json"),
        "origins": dict(origins),
        "versions": versions(),
        "hardware": hardware(run.device),
        "labels": list(run.labels),
        "single": run.single,
        "n_train": len(run.train.records),
        "n_val": len(run.val.records),
        "class_weights": None if run.weights is None else run.weights.tolist(),
        "data": run.data,
    }
