"""What is done when a batch does not fit into memory: a smaller one, or advice that was tried."""

from __future__ import annotations

import torch

from einthoven.batches import ResidentWindows
from einthoven.console import log
from einthoven.errors import MemoryShortage
from einthoven.objective import summed_loss
from einthoven.records import LEADS
from einthoven.resources import is_out_of_memory, release_memory
from einthoven.run_state import TrainState, put_back
from einthoven.runs import Run, batch_size_name, smallest_shared_batch

# Batch statistics of a single record are no statistics.
SMALLEST_BATCH = 2
# Shorter ones hold hardly a heartbeat.
SHORTEST_CROP_SECONDS = 0.8


def make_room(run: Run, state: TrainState) -> None:
    """Halve the batch, so that the same records make up a step in twice as many parts.

    Raises:
        MemoryShortage: AUTO_BATCH is off, or the batch cannot get smaller; says what would fit.
    """
    release_memory(run.device)
    smaller = state.batch_size // 2
    if not run.settings.auto_batch or smaller < SMALLEST_BATCH or run.processes.count > 1:
        raise MemoryShortage(shortage_advice(run, state))
    log.warning(
        "Memory ran out at a batch of %d records; going on with %d and accumulating over %d "
        "batches, so that a step has as many records as before. Batch statistics are of fewer "
        "records now: this run is not the same to the bit as one that had the memory",
        state.batch_size, smaller, accumulated_batches(run, smaller),
    )  # fmt: skip
    state.batch_size = smaller


def accumulated_batches(run: Run, batch_size: int) -> int:
    """Batches that make up one optimizer step."""
    return -(-run.records_per_step // batch_size)


def shortage_advice(run: Run, state: TrainState) -> str:
    """What ran out, and the settings to change, with values that were tried where they can be."""
    fits = largest_batch_that_fits(run, state)
    if not fits:
        return (
            f"memory ran out on {run.device}, even with {smallest_batch(run)} records at a time; "
            f"use a smaller MODEL_NAME than {run.settings.model_name}, or a CROP_SAMPLES below "
            f"{run.input.crop}"
        )
    ways = [
        f"{batch_size_name(run.device)}={fits} with GRAD_ACCUM_STEPS="
        f"{accumulated_batches(run, fits)}: as many records per step as now (a batch of {fits} was "
        "tried here, and fits)",
        *other_ways(run, fits / state.batch_size),
    ]
    lines = "\n".join(f"  {way}" for way in ways)
    alone = run.processes.count == 1
    return (
        f"memory ran out on {run.device} at a batch of {state.batch_size} records. Any of these "
        f"helps:\n{lines}\n"
        + ("AUTO_BATCH=true halves the batch by itself, as often as needed. " if alone else "")
        + "The last save is kept; what changes a result needs another --run-name or --fresh"
    )


def other_ways(run: Run, share: float) -> list[str]:
    """Settings that leave the batch as it is; ``share`` of the memory for a batch is there."""
    ways = []
    shorter = int(run.input.crop * share)
    if shorter >= run.input.fs * SHORTEST_CROP_SECONDS:
        ways.append(
            f"CROP_SAMPLES={shorter}: the same batch of shorter crops (now {run.input.crop}); "
            "takes about as much memory as that batch"
        )
    if run.dtype == torch.float32:
        ways.append("MIXED_PRECISION=bf16: about half the memory for what a batch leaves behind")
    if isinstance(run.train.source, ResidentWindows) and run.train.source.samples.is_cuda:
        ways.append("RESIDENCY=memory: keeps the recordings out of the GPU's memory")
    ways.append(f"MODEL_NAME: a smaller one than {run.settings.model_name}")
    return ways


def smallest_batch(run: Run) -> int:
    """Batch statistics of a single record are no statistics, on no process."""
    return max(SMALLEST_BATCH, smallest_shared_batch(run.processes))


def largest_batch_that_fits(run: Run, state: TrainState) -> int:
    """Try half the batch, a quarter and so on, forward and backward; 0 where none fits.

    With several processes each tries its share.
    """
    buffers = state.batch_statistics()
    kept = [buffer.clone() for buffer in buffers]
    size, smallest = state.batch_size // 2, smallest_batch(run)
    while size >= smallest and not _fits(run, state, size // run.processes.count):
        release_memory(run.device)
        size //= 2
    state.forget_gradient()
    put_back(buffers, kept)
    return size if size >= smallest else 0


def _fits(run: Run, state: TrainState, batch_size: int) -> bool:
    try:
        x_BLS = torch.randn(batch_size, len(LEADS), run.input.crop, device=run.device)
        targets = torch.zeros(batch_size, len(run.labels), device=run.device)
        with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
            logits = state.model(x_BLS)
        loss = summed_loss(logits.float(), targets, run.single)
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
