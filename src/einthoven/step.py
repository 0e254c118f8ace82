"""One optimizer step, and what it adds to the epoch's figures.

Nothing here waits for the device: a step hands back a tensor, and the loop reads several at once.
A step whose gradient is not finite leaves weights, optimizer and batch statistics as they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from einthoven.augment.batch import augment_batch
from einthoven.augment.draws import Draws
from einthoven.averaging import average_decay, update_average
from einthoven.batches import Batch, to_device
from einthoven.distributed import sum_over_processes
from einthoven.objective import learning_rate_factor, summed_loss
from einthoven.run_state import TrainState, put_back
from einthoven.runs import Run


def train_step(
    run: Run, state: TrainState, batches: Iterable[Batch], n_batches: int, n_records: int
) -> torch.Tensor:
    """Take one optimizer step over a few batches, as if they were one.

    Args:
        batches: yields ``n_batches`` batches; with several processes, this one's share of each.
        n_records: that the batches of all processes hold together.

    Returns:
        ``(4,)`` on the device: summed loss, right answers, gradient norm, and 1 where the gradient
        was not finite and the step was left out.
    """
    set_learning_rate(run, state)
    # What a layer draws, dropout above all, depends on the step and not on what ran before.
    torch.manual_seed(
        (run.settings.seed * 1_000_003 + state.step) * run.processes.count + run.processes.rank
    )
    buffers = state.batch_statistics()
    kept = [buffer.clone() for buffer in buffers]
    sums = torch.zeros(2, device=run.device)
    try:
        for number, batch in enumerate(batches, 1):
            with gradients_kept_here(state.parallel, number < n_batches):
                sums += accumulate_gradient(run, state, batch, n_records)
        norm, is_bad = update_weights(run, state)
    except BaseException:
        # Memory may have run out; the caller may try again with smaller batches.
        state.forget_gradient()
        put_back(buffers, kept)
        raise
    restore_where(is_bad, buffers, kept)
    if state.average is not None:
        decay = average_decay(run.settings.ema_decay, state.step)
        update_average(state.average, state.model, decay)
    state.step += 1
    return torch.cat([sum_over_processes(sums, run.processes), norm[None], is_bad[None]])


def set_learning_rate(run: Run, state: TrainState) -> None:
    """Set the learning rate of this step."""
    n_steps = run.steps_per_epoch * run.n_epochs
    factor = learning_rate_factor(run.settings.scheduler_type, state.step, n_steps)
    for group in state.optimizer.param_groups:
        group["lr"] = run.settings.lr * factor


def gradients_kept_here(model: nn.Module, keep: bool) -> AbstractContextManager[None]:
    """Let several processes exchange gradients only with a step's last batch."""
    if keep and isinstance(model, DistributedDataParallel):
        context: AbstractContextManager[None] = model.no_sync()
        return context
    return nullcontext()


def accumulate_gradient(run: Run, state: TrainState, batch: Batch, n_records: int) -> torch.Tensor:
    """Add a batch's gradient; returns its summed loss and right answers, ``(2,)``."""
    targets = targets_of(run, batch)
    x_BLS, mixed = training_inputs(run, state, batch, targets)
    with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
        logits = state.parallel(x_BLS)
    logits = logits.float()
    loss = summed_loss(
        logits, mixed, run.single, run.weights, run.settings.loss, run.settings.label_smoothing
    )
    # Processes average their gradients; the sum over all records is wanted.
    share = run.processes.count / n_records
    # A loss that is not finite spoils the gradient on every process, so that all leave it out.
    factor = torch.where(loss.isfinite(), share, torch.nan)
    (state.scaler.scale(loss) * factor).backward()  # type: ignore[no-untyped-call]
    answers = logits.detach()
    if answers.ndim == 3:
        answers = answers.mean(1)
    return torch.stack([loss.detach(), right_answers(answers, targets, run.single)])


def training_inputs(
    run: Run, state: TrainState, batch: Batch, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model sees in training ``(B, L, S)``, and what it should answer ``(B, C)``."""
    draws = Draws(run.settings.seed, state.epoch, run.train.records[batch.records])
    signal_BLS, targets_BC = augment_batch(
        batch.signal, targets, batch.n_valid, run.augmentations, draws, run.input.fs
    )
    return run.input.prepare(signal_BLS, batch.n_valid), targets_BC


def targets_of(run: Run, batch: Batch) -> torch.Tensor:
    """``(B, C)`` float32 of 0 and 1, on the device."""
    return to_device(torch.from_numpy(run.train.targets[batch.records]), run.device).float()


def update_weights(run: Run, state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip the gradient and step, unless the gradient is not finite.

    Returns:
        The gradient's norm before clipping, and 1 where the step was left out, both on the device.
    """
    optimizer, scaler = state.optimizer, state.scaler
    scaler.unscale_(optimizer)
    limit = run.settings.clip_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    is_bad = (~norm.isfinite()).float()
    # The fused optimizer leaves its step out where this is 1, as a GradScaler has it do; an `if`
    # would wait for the device, and `scaler.step` would look at the gradient but not at its norm.
    optimizer.found_inf = is_bad  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm, is_bad


def restore_where(
    is_bad: torch.Tensor, buffers: list[torch.Tensor], kept: list[torch.Tensor]
) -> None:
    """Take back what a step that is left out has done to batch statistics."""
    if is_bad.device.type == "cpu":
        if is_bad:
            put_back(buffers, kept)
        return
    for buffer, before in zip(buffers, kept, strict=True):
        torch.where(is_bad > 0, before, buffer, out=buffer)


def right_answers(logits: torch.Tensor, targets: torch.Tensor, single: bool) -> torch.Tensor:
    """Records answered rightly; with several labels, each counts its share."""
    if single:
        return (logits.argmax(-1) == targets.argmax(-1)).sum()
    return ((logits > 0) == (targets > 0.5)).float().mean(-1).sum()
