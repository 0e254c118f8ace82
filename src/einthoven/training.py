"""The training loop, as a table of contents.

Randomness is a function of (seed, epoch, record) or (seed, step), never of what ran before, so two
runs with one seed end with the same weights, and so does one that was stopped between two epochs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from einthoven.batches import Batch, plan_epoch, training_batches
from einthoven.checkpoint import read_checkpoint, write_checkpoint
from einthoven.console import log, plural, progress
from einthoven.errors import DataError
from einthoven.files import stamp_step, write_json
from einthoven.inference import choose_device, predict_windows
from einthoven.metrics import (
    auroc,
    best_f1_thresholds,
    decide,
    f1_scores,
    label_accuracy,
    macro_auroc,
    macro_f1,
    precision_scores,
    recall_scores,
    subset_accuracy,
    weighted_f1,
)
from einthoven.objective import learning_rate_factor, probability_loss, summed_loss
from einthoven.run_state import TrainState, describe_run, new_state, resume_or_start, save_epoch
from einthoven.runs import (
    Run,
    SplitData,
    check_store_settings,
    chosen_records,
    data_fingerprint,
    is_finished,
    is_mapping_newer,
    open_run,
    run_inputs,
)
from einthoven.settings import Settings
from einthoven.splits import check_splits, read_splits
from einthoven.store import open_store

DRY_RUN_STEPS = 10


def train_production(settings: Settings, origins: Mapping[str, str] | None = None) -> None:
    """Train on the train split, keep the epoch that scores best on the validation split.

    Writes ``best_model.pth``, ``last_checkpoint.pth``, ``training_history.json`` and one
    ``metrics_epoch_*.json`` per epoch into the run's checkpoints folder. A run that was stopped
    goes on after its last finished epoch; one that is finished is left alone.

    Raises:
        SplitError: the splits share a patient.
        DataError: there is no store, it was prepared with other settings, or a split has no record.
        CheckpointError: the run's folder holds a run with other settings.
    """
    store = open_store(settings.workspace)
    splits = read_splits(settings.workspace.splits_path)
    check_splits(splits, store.manifest)
    check_store_settings(settings, store, splits)
    if is_mapping_newer(settings.workspace):
        log.warning("The labels have changed since the store was made; run `einthoven prepare`")
    device = choose_device(settings.device)
    chosen = chosen_records(settings, store, splits)
    data = data_fingerprint(store, chosen)
    inputs = run_inputs(settings, data, device)
    if not settings.dry_run and is_finished(settings, inputs):
        return
    run = open_run(settings, store, chosen, data, device)
    state = new_state(run)
    keep_freed_memory()
    if settings.dry_run:
        dry_run(run, state)
        return
    resume_or_start(run, state, inputs)
    write_json(settings.workspace.checkpoints_dir / "run.json", describe_run(run, origins or {}))
    while state.epoch < run.n_epochs and not state.is_stalled(settings.early_stop_patience):
        row = train_epoch(run, state) | validate(run, state)
        improved = state.finish_epoch(row, settings.best_metric)
        save_epoch(run, state, inputs, improved)
        log.info(epoch_line(run, state, improved))
    finish_run(run, state, inputs)


# glibc's names for them, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let the C library keep what a batch has freed, where it is glibc.

    By default every large tensor is handed back to the system and its pages are zeroed again at
    the next step, which took a tenth of a step's time on two cores.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**25)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


# Steps ------------------------------------------------------------------------------------------


def train_epoch(run: Run, state: TrainState) -> dict[str, Any]:
    """One pass over the training split; returns its part of the history row."""
    started = time.perf_counter()
    state.model.train()
    steps = progress(
        accumulation_groups(run, state.epoch),
        desc=f"Epoch {state.epoch + 1}/{run.n_epochs}",
        total=run.steps_per_epoch,
        unit="steps",
    )
    totals = [train_step(run, state, group, n_records) for group, n_records in steps]
    # The only wait for the device in an epoch: reading a number earlier would stall it each time.
    sums = torch.stack(totals).cpu().double().sum(0)
    loss, right, norm = (sums / len(run.train.records)).tolist()
    if not np.isfinite(loss):
        raise DataError(
            f"the loss of epoch {state.epoch + 1} is not finite; lower LR (now {run.settings.lr}) "
            "or set CLIP_NORM, and look for extreme values with `einthoven check`"
        )
    seconds = time.perf_counter() - started
    return {
        "train_loss": loss,
        "train_accuracy": right,
        "gradient_norm": norm,
        "lr": state.optimizer.param_groups[0]["lr"],
        "seconds": seconds,
        "records_per_s": len(run.train.records) / seconds,
    }


def accumulation_groups(run: Run, epoch: int) -> Iterator[tuple[Iterator[Batch], int]]:
    """The batches of each optimizer step, and how many records they hold together."""
    plan = plan_epoch(run.train.listed, run.input.crop, run.settings.seed, epoch)
    batches = training_batches(
        run.train.source,
        run.train.listed,
        plan,
        batch_size=run.batch_size,
        crop=run.input.crop,
        n_workers=run.settings.num_workers,
    )
    together = run.settings.grad_accum_steps
    for start in range(0, len(run.chunk_sizes), together):
        sizes = run.chunk_sizes[start : start + together]
        yield islice(batches, len(sizes)), sum(sizes)


def train_step(run: Run, state: TrainState, group: Iterator[Batch], n_records: int) -> torch.Tensor:
    """One optimizer step over a group of batches.

    Returns:
        ``(3,)`` on the device: summed loss, right answers, and gradient norm times records.
    """
    set_learning_rate(run, state)
    torch.manual_seed(run.settings.seed * 1_000_003 + state.step)
    totals = torch.zeros(3, device=run.device)
    for batch in group:
        x_BLS = run.input.prepare(batch.signal, batch.n_valid)
        targets = torch.from_numpy(run.train.targets[batch.records]).to(run.device)
        with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
            logits = state.model(x_BLS)
        loss = summed_loss(logits.float(), targets, run.single, run.weights)
        state.scaler.scale(loss / n_records).backward()  # type: ignore[no-untyped-call]
        totals[0] += loss.detach()
        totals[1] += right_answers(logits.detach(), targets, run.single)
    state.scaler.unscale_(state.optimizer)
    limit = run.settings.clip_norm or float("inf")
    totals[2] = nn.utils.clip_grad_norm_(state.model.parameters(), limit) * n_records
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return totals


def set_learning_rate(run: Run, state: TrainState) -> None:
    """Set the learning rate of this step."""
    n_steps = run.steps_per_epoch * run.n_epochs
    factor = learning_rate_factor(run.settings.scheduler_type, state.step, n_steps)
    for group in state.optimizer.param_groups:
        group["lr"] = run.settings.lr * factor


def right_answers(logits: torch.Tensor, targets: torch.Tensor, single: bool) -> torch.Tensor:
    """Records answered rightly; with several labels, each counts its share."""
    if single:
        return (logits.argmax(-1) == targets.argmax(-1)).sum()
    return ((logits > 0) == (targets > 0.5)).float().mean(-1).sum()


def dry_run(run: Run, state: TrainState) -> None:
    """Ten steps, to see that everything works; nothing is written."""
    groups = islice(accumulation_groups(run, 0), DRY_RUN_STEPS)
    losses = [float(train_step(run, state, group, n)[0]) / n for group, n in groups]
    log.info(
        "Dry run: %s, loss %.3f -> %.3f; nothing was written",
        plural(len(losses), "step"),
        losses[0],
        losses[-1],
    )


# Validation -------------------------------------------------------------------------------------


def validate(run: Run, state: TrainState) -> dict[str, Any]:
    """Score the validation split; returns its part of the history row.

    Decisions of several labels use each class's threshold of best F1 on this very split: good for
    comparing epochs, too good to report.
    """
    targets = run.val.targets
    probabilities = predict_split(run, state.model, run.val)
    thresholds = best_f1_thresholds(targets, probabilities)
    decisions = decide(probabilities, thresholds, run.single)
    per_class = zip(
        run.labels,
        precision_scores(targets, decisions).tolist(),
        recall_scores(targets, decisions).tolist(),
        f1_scores(targets, decisions).tolist(),
        auroc(targets, probabilities).tolist(),
        targets.sum(0).astype(int).tolist(),
        strict=True,
    )
    names = ("precision", "recall", "f1", "auroc", "support")
    return {
        "val_loss": probability_loss(targets, probabilities, run.single),
        "val_accuracy": (subset_accuracy if run.single else label_accuracy)(targets, decisions),
        "val_f1_macro": macro_f1(targets, decisions),
        "val_f1_weighted": weighted_f1(targets, decisions),
        "val_auroc_macro": macro_auroc(targets, probabilities),
        "val_per_class": {
            label: dict(zip(names, scores, strict=True)) for label, *scores in per_class
        },
    }


def predict_split(run: Run, model: nn.Module, split: SplitData) -> np.ndarray:
    """Probabilities ``(n, C)`` of a split's records."""
    return predict_windows(model, run.input, run.single, split.source, split.listed)


def epoch_line(run: Run, state: TrainState, improved: bool) -> str:
    """One line for the log."""
    row = state.history[-1]
    return (
        f"Epoch {state.epoch:>3}/{run.n_epochs}  loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  F1 {row['val_f1_macro']:.3f}  "
        f"AUROC {row['val_auroc_macro']:.3f}  lr {row['lr']:.1e}  "
        f"{row['records_per_s']:,.0f} records/s" + ("  best so far" if improved else "")
    )


# The end ----------------------------------------------------------------------------------------


def finish_run(run: Run, state: TrainState, inputs: Mapping[str, Any]) -> None:
    """Set the best model's thresholds on the validation split, and stamp the run as finished."""
    values = read_checkpoint(run.workspace.best_model_path)
    state.model.load_state_dict(values["weights"])
    if not run.single:
        probabilities = predict_split(run, state.model, run.val)
        thresholds = best_f1_thresholds(run.val.targets, probabilities)
        values["thresholds"] = dict(zip(run.labels, thresholds.tolist(), strict=True))
    write_checkpoint(run.workspace.best_model_path, values)
    stamp_step(run.workspace.step_path("train"), inputs)
    log.info(
        "Best epoch %d of %d (validation %s %.3f): %s",
        state.best_epoch,
        state.epoch,
        run.settings.best_metric,
        state.best_score,
        run.workspace.best_model_path,
    )
