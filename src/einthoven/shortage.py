"""What is done when a batch does not fit into memory: a smaller one, or advice that was tried."""

from __future__ import annotations

import torch

from einthoven.console import log
from einthoven.errors import MemoryShortage
from einthoven.objective import summed_loss
from einthoven.records import LEADS
from einthoven.resources import is_out_of_memory, release_memory
from einthoven.run_state import TrainState, put_back
from einthoven.runs import Run

# Batch statistics of a single record are no statistics.
SMALLEST_BATCH = 2


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
            f"memory ran out on {run.device}, even with {SMALLEST_BATCH} records at a time; use a "
            f"smaller MODEL_NAME than {run.settings.model_name}, or a CROP_SAMPLES below "
            f"{run.input.crop}"
        )
    size_name = f"BATCH_SIZE_{'GPU' if run.device.type == 'cuda' else 'CPU'}"
    ways = [
        f"{size_name}={fits} with GRAD_ACCUM_STEPS={accumulated_batches(run, fits)}: as many "
        f"records per step as now (a batch of {fits} was tried here, and fits)",
        f"CROP_SAMPLES={max(run.input.crop * fits // state.batch_size, 1)}: the same batch of "
        f"shorter crops (now {run.input.crop}); takes about as much memory as that",
    ]
    if run.dtype == torch.float32:
        ways.append("MIXED_PRECISION=bf16: about half the memory for what a batch leaves behind")
    else:
        ways.append("RESIDENCY=memory: keeps the recordings out of the device's memory")
    lines = "\n".join(f"  {way}" for way in ways)
    return (
        f"memory ran out on {run.device} at a batch of {state.batch_size} records. Any of these "
        f"helps:\n{lines}\nor AUTO_BATCH=true halves the batch by itself, as often as needed. "
        "The last save is kept; what changes a result needs another --run-name or --fresh"
    )


def largest_batch_that_fits(run: Run, state: TrainState) -> int:
    """Try half the batch, a quarter and so on, forward and backward; 0 where none fits."""
    buffers = state.batch_statistics()
    kept = [buffer.clone() for buffer in buffers]
    size = state.batch_size // 2
    while size >= SMALLEST_BATCH and not _fits(run, state, size):
        release_memory(run.device)
        size //= 2
    state.optimizer.zero_grad(set_to_none=True)
    put_back(buffers, kept)
    return size if size >= SMALLEST_BATCH else 0


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
