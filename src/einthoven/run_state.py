"""What changes while a run trains, how it is kept on disk, and how a stopped run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from einthoven.averaging import averaged_copy
from einthoven.checkpoint import (
    hardware,
    model_values,
    read_checkpoint,
    versions,
    write_checkpoint,
)
from einthoven.console import log, plural
from einthoven.distributed import largest_of_processes, parallel_model
from einthoven.errors import CheckpointError
from einthoven.files import changes_between, write_json
from einthoven.models.registry import build_model
from einthoven.objective import make_optimizer
from einthoven.records import LEADS
from einthoven.run_folder import UNFINISHED_FILES, clear_run, other_run_message, plain_inputs
from einthoven.runs import Run, smallest_shared_batch
from einthoven.tally import EpochTally

# What changes -----------------------------------------------------------------------------------


@dataclass
class TrainState:
    """What changes while a run trains; everything here is in ``last_checkpoint.pth``.

    There is no random generator among it: what is drawn is a function of the seed and of where in
    the run it is drawn.

    Attributes:
        parallel: the model as its processes train it together; ``model`` where there is one.
        average: the moving average of the weights, or None.
        batch_size: records per batch; smaller than the setting after memory ran out.
        epoch: epochs that are finished.
        step: optimizer steps that are done, over all epochs.
        step_in_epoch: those of the epoch in hand.
        tally: what they have added up to.
        history: one row of plain numbers per finished epoch.
        best: what ``best_model.pth`` holds, copied when that epoch ended.
        saved_at: when this process last saved, by `time.monotonic`; not saved.
        skipped: number, figures and records of the last steps, while each of them had to be left
            out; not saved.
        before_save: called before this process writes to the run's folder; what it raises ends the
            run without writing; not saved.
    """

    model: nn.Module
    parallel: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batch_size: int
    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    tally: EpochTally = field(default_factory=EpochTally)
    best_score: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)
    skipped: list[tuple[int, list[float], np.ndarray]] = field(default_factory=list)
    before_save: Callable[[], None] = lambda: None

    @property
    def predictor(self) -> nn.Module:
        """The model to predict with: averaged weights where there are any."""
        return self.model if self.average is None else self.average

    def batch_statistics(self) -> list[torch.Tensor]:
        """What batches change of the model without a gradient, themselves and not copies."""
        return list(self.model.buffers())

    def forget_gradient(self) -> None:
        """Leave nothing of a step that failed halfway."""
        self.optimizer.zero_grad(set_to_none=True)
        vars(self.optimizer).pop("found_inf", None)
        # A scaler remembers that it has unscaled; a new one of the same scale does not.
        fresh = torch.amp.GradScaler(self.scaler._device, enabled=self.scaler.is_enabled())
        fresh.load_state_dict(self.scaler.state_dict())
        self.scaler = fresh

    def finish_epoch(self, row: dict[str, Any], best_metric: str) -> bool:
        """Take an epoch's row into the history; say whether it is the best so far."""
        self.epoch += 1
        self.step_in_epoch = 0
        self.tally = self.tally.next_epoch()
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
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "tally": self.tally.values(),
            **{name: getattr(self, name) for name in PLAIN_FIELDS},
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from where `values` was taken."""
        self.model.load_state_dict(values["weights"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.scaler.load_state_dict(values["scaler"])
        self.tally = EpochTally(**values["tally"])
        for name in PLAIN_FIELDS:
            setattr(self, name, values[name])


def put_back(tensors: list[torch.Tensor], kept: list[torch.Tensor]) -> None:
    """Give tensors the values of copies that were taken of them."""
    if tensors:
        torch._foreach_copy_(tensors, kept)


PLAIN_FIELDS = (
    "batch_size", "epoch", "step", "step_in_epoch", "best_score", "best_epoch", "best", "history",
)  # fmt: skip


def new_state(run: Run) -> TrainState:
    """Fresh weights from the seed, and an optimizer over them."""
    torch.manual_seed(run.settings.seed)
    model = build_model(run.settings.model_name, n_leads=len(LEADS), n_classes=len(run.labels))
    model.to(run.device)
    return TrainState(
        model=model,
        parallel=parallel_model(model, run.processes, run.device),
        average=averaged_copy(model) if run.settings.ema_decay else None,
        optimizer=make_optimizer(model, run.settings.lr, run.settings.weight_decay),
        # Only float16 has gradients too small for it; a scaler that is off passes all through.
        scaler=torch.amp.GradScaler(run.device.type, enabled=run.dtype == torch.float16),
        batch_size=run.batch_size,
    )


# Going on ---------------------------------------------------------------------------------------


def last_path(run: Run) -> Path:
    """What a stopped run goes on from."""
    return run.workspace.checkpoints_dir / "last_checkpoint.pth"


def previous_path(run: Run) -> Path:
    """What it goes on from when the last checkpoint is damaged."""
    return run.workspace.checkpoints_dir / "previous_checkpoint.pth"


def resume_or_start(run: Run, state: TrainState, inputs: Mapping[str, Any]) -> None:
    """Go on with a stopped run, or begin a new one.

    Raises:
        CheckpointError: what is there is of another run, or cannot be used.
    """
    values = read_stopped_run(run)
    if values is None:
        log.info(
            "Training %s on %s, picking the epoch by %s; %s",
            run.settings.model_name,
            plural(len(run.train.records), "record"),
            plural(len(run.selection.records), "record"),
            run.device,
        )
        return
    changes = changes_between(values["inputs"], plain_inputs(inputs))
    if changes:
        raise CheckpointError(other_run_message(run.settings, "stopped", changes))
    state.restore(values["state"])
    check_same_place(run, state)
    log.info("Going on %s", place_in_run(run, state))
    restore_best_model(run, state)
    changes = changes_between(values["made_with"], made_with(run))
    if changes:
        log.warning(
            "Not the same to the bit as without the stop, but within rounding: %s",
            "; ".join(changes),
        )


def check_same_place(run: Run, state: TrainState) -> None:
    """Refuse to go on where processes do not see the same files, and keep shares large enough.

    Raises:
        CheckpointError: they went on from different steps.
    """
    latest = largest_of_processes(state.step, run.processes)
    if latest != state.step or largest_of_processes(-state.step, run.processes) != -latest:
        raise CheckpointError(
            f"process {run.processes.rank} would go on after step {state.step}, another one after "
            f"step {latest}: {run.workspace.checkpoints_dir} must be on a disk that all of them see"
        )
    if run.processes.count > 1:
        # One process may have cut its batches further than several can share them.
        state.batch_size = max(state.batch_size, smallest_shared_batch(run.processes))


def restore_best_model(run: Run, state: TrainState) -> None:
    """Write the model file again where it is gone, damaged, or of an epoch that is done anew."""
    path = run.workspace.best_model_path
    if not run.processes.is_first or not state.best:
        return
    try:
        epoch = read_checkpoint(path)["epoch"]
    except (CheckpointError, KeyError):
        epoch = None
    if epoch != state.best_epoch:
        write_checkpoint(path, state.best)


def made_with(run: Run) -> dict[str, Any]:
    """What decides in which order numbers are added, beside the settings."""
    return {"processes": run.processes.count, "threads": torch.get_num_threads(), **versions()}


def read_stopped_run(run: Run) -> dict[str, Any] | None:
    """The newest checkpoint of this run; None where there is none.

    Raises:
        CheckpointError: it cannot be used.
    """
    there = [path for path in (last_path(run), previous_path(run)) if path.exists()]
    if not there:
        return None
    values = read_checkpoint(there[0])
    if not {"inputs", "state", "made_with"} <= set(values):
        raise CheckpointError(f"{there[0]} holds no stopped run; start over with --fresh")
    return values


def set_damaged_aside(run: Run) -> None:
    """Let the previous checkpoint stand in for a last one that is damaged.

    The damaged file gets another name, or the next save would put it in the previous one's place.
    """
    last, previous = last_path(run), previous_path(run)
    if not last.exists() or not previous.exists():
        return
    try:
        read_checkpoint(last)
    except CheckpointError:
        last.replace(last.with_name("damaged_checkpoint.pth"))
        log.warning("%s is damaged; going on from %s", last, previous.name)


def place_in_run(run: Run, state: TrainState) -> str:
    """Where a run stands, in words."""
    if state.step_in_epoch:
        return (
            f"in epoch {state.epoch + 1} of {run.n_epochs}, after step {state.step_in_epoch} of "
            f"{run.steps_per_epoch}"
        )
    return f"after epoch {state.epoch} of {run.n_epochs}"


def clear_old_run(run: Run) -> None:
    """Delete what must not be taken for this run's: with ``--fresh`` all of the old one."""
    if run.settings.fresh:
        clear_run(run.workspace)
    set_damaged_aside(run)
    # Until this run is finished no stamp may say so.
    run.workspace.step_path("train").unlink(missing_ok=True)
    for name in UNFINISHED_FILES:
        for path in run.workspace.checkpoints_dir.glob(name):
            path.unlink(missing_ok=True)


# Saving -----------------------------------------------------------------------------------------


def save_state(run: Run, state: TrainState, inputs: Mapping[str, Any]) -> None:
    """Write what a stopped run goes on from; the file before it stays until the next save."""
    if run.processes.is_first:
        state.before_save()
        values = {
            "inputs": plain_inputs(inputs),
            "made_with": made_with(run),
            "state": state.values(),
        }
        write_checkpoint(last_path(run), values, previous_path(run))
    state.saved_at = time.monotonic()


def save_epoch(run: Run, state: TrainState, inputs: Mapping[str, Any], improved: bool) -> None:
    """Write the best model, the epoch's figures, and last what a stopped run goes on from."""
    folder = run.workspace.checkpoints_dir
    if improved:
        state.best = best_model_values(run, state)
    if run.processes.is_first:
        state.before_save()
        if improved:
            write_checkpoint(run.workspace.best_model_path, state.best)
        write_json(folder / f"metrics_epoch_{state.epoch:03d}.json", state.history[-1])
        flat = [{k: v for k, v in row.items() if k != "val_per_class"} for row in state.history]
        write_json(folder / "training_history.json", flat)
    save_state(run, state, inputs)


def best_model_values(run: Run, state: TrainState) -> dict[str, Any]:
    """What the model file of this epoch holds; with averaged weights, the raw ones beside them.

    Copies: the weights themselves go on changing.
    """
    values = model_values(
        run.settings.model_name, state.predictor, run.input, run.labels, run.single,
        model_facts(run, state),
    )  # fmt: skip
    values["weights"] = copied_weights(state.predictor)
    if state.average is not None:
        values["raw_weights"] = copied_weights(state.model)
    return values


def copied_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state, on the host, as it is now."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def model_facts(run: Run, state: TrainState) -> dict[str, Any]:
    """What a model file says of how it came to be."""
    # A model file is handed on; where its maker kept the records is nobody's business.
    settings = run.settings.model_dump(mode="json", exclude={"root", "dataset_dir"})
    return {
        "epoch": state.epoch,
        "label_set": run.settings.label_set,
        "threshold_rule": run.settings.threshold_rule,
        "class_weights": None if run.weights is None else run.weights.tolist(),
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
        "hardware": hardware(run.device) | {"processes": run.processes.count},
        "labels": list(run.labels),
        "single": run.single,
        "n_train": len(run.train.records),
        "n_selection": len(run.selection.records),
        "n_calibration": 0 if run.calibration is None else len(run.calibration.records),
        "class_weights": None if run.weights is None else run.weights.tolist(),
        "data": run.data,
    }
