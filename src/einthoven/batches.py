"""From record numbers to batches on the device.

int16 microvolts go to the device; cropping and standardising happen there, in batch. The windows
are kept on the GPU when they fit, else in memory, else read from the store as they are needed.
What a batch holds is a function of (seed, epoch, record) alone, so that a run can be had again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import psutil
import torch

from einthoven.console import log, progress
from einthoven.records import LEADS
from einthoven.store import Store, WindowTable

Residency = Literal["device", "memory", "streamed"]

# Of what is free, this share may hold windows; the rest is for the model and for other programs.
SHARE_OF_FREE_MEMORY = 0.6
BYTES_PER_SAMPLE = 2
WINDOWS_PER_PASS = 512
WINDOWS_PER_READ = 4096


# Where windows are kept -------------------------------------------------------------------------


class WindowSource(Protocol):
    """Hands out windows by their position in a `RecordWindows`."""

    def fetch(self, windows: np.ndarray) -> torch.Tensor:
        """``(n,)`` window numbers to ``(n, 12, sample)`` int16 microvolts on the device."""


@dataclass(frozen=True)
class ResidentWindows:
    """Windows that are in memory as a whole, on the host or on the device."""

    samples: torch.Tensor
    device: torch.device

    def fetch(self, windows: np.ndarray) -> torch.Tensor:
        chosen = torch.from_numpy(windows).to(self.samples.device)
        return self.samples.index_select(0, chosen).to(self.device, non_blocking=True)


@dataclass(frozen=True)
class StreamedWindows:
    """Windows that are read from the store each time."""

    store: Store
    table: WindowTable
    device: torch.device

    def fetch(self, windows: np.ndarray) -> torch.Tensor:
        samples = self.store.read_rows(self.table.shard[windows], self.table.row[windows])
        return torch.from_numpy(samples).to(self.device, non_blocking=True)


@dataclass(frozen=True)
class RecordWindows:
    """The windows of some records, record after record.

    Attributes:
        table: one entry per window.
        first: position of each record's first window, and one past the last.
    """

    table: WindowTable
    first: np.ndarray

    @property
    def n_records(self) -> int:
        return len(self.first) - 1

    @property
    def n_valid(self) -> np.ndarray:
        return self.table.n_valid


def list_windows(store: Store, record_indices: np.ndarray) -> RecordWindows:
    """List the windows of some records (row numbers of the manifest), in their order."""
    counts = store.manifest["n_windows"].to_numpy(np.int64)[record_indices]
    first = np.concatenate([[0], np.cumsum(counts)])
    return RecordWindows(store.window_table(record_indices), first)


def choose_residency(n_windows: int, n_samples: int, device: torch.device) -> Residency:
    """Where windows of this number and length are best kept, from what memory is free."""
    needed = n_windows * len(LEADS) * n_samples * BYTES_PER_SAMPLE
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if needed < SHARE_OF_FREE_MEMORY * free:
            return "device"
    if needed < SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available:
        return "memory"
    return "streamed"


def open_windows(store: Store, listed: RecordWindows, device: torch.device) -> WindowSource:
    """Load the listed windows, or arrange for them to be streamed."""
    table = listed.table
    residency = choose_residency(len(table), store.target_samples, device)
    if residency == "streamed":
        log.info("Windows do not fit in memory and are read as they are needed")
        return StreamedWindows(store, table, device)
    samples = torch.from_numpy(_load_windows(store, table))
    return ResidentWindows(samples.to(device) if residency == "device" else samples, device)


def _load_windows(store: Store, table: WindowTable) -> np.ndarray:
    windows = np.empty((len(table), len(LEADS), store.target_samples), np.int16)
    starts = range(0, len(table), WINDOWS_PER_READ)
    for start in progress(starts, desc="Loading windows", unit="parts"):
        part = slice(start, start + WINDOWS_PER_READ)
        store.read_rows(table.shard[part], table.row[part], out=windows[part])
    return windows


# What the model sees ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Records on the device.

    Attributes:
        signal: ``(B, 12, crop)`` int16 microvolts.
        n_valid: ``(B,)`` samples of each row that were recorded.
        records: ``(B,)`` positions among the listed records.
    """

    signal: torch.Tensor
    n_valid: torch.Tensor
    records: np.ndarray


def cut_crops(windows: torch.Tensor, starts: torch.Tensor, crop: int) -> torch.Tensor:
    """Cut one crop from each window: ``(n, lead, sample)`` to ``(n, lead, crop)``."""
    if windows.shape[-1] == crop:
        return windows
    rows = torch.arange(len(windows), device=windows.device)
    # A view of every crop there is; only the chosen ones are copied.
    return windows.unfold(2, crop, 1)[rows, :, starts]


def standardize_batch(
    signal: torch.Tensor, n_valid: torch.Tensor, mode: str, scale: torch.Tensor
) -> torch.Tensor:
    """Centre each lead and divide it by a spread; padding stays zero.

    Args:
        signal: ``(B, L, S)`` int16 microvolts, zero after ``n_valid`` samples.
        n_valid: ``(B,)`` samples that were recorded.
        mode: ``lead`` divides by each lead's own spread, ``record`` by the spread over all leads
            (which keeps the leads' sizes to each other), ``dataset`` by ``scale`` (which keeps
            voltages, as criteria for hypertrophy need).
        scale: ``(L,)`` millivolts.

    Returns:
        ``(B, L, S)`` float32.
    """
    x_BLS = signal.float() / 1000
    count_B11 = n_valid.clamp(min=1)[:, None, None]
    recorded_B1S = torch.arange(x_BLS.shape[-1], device=x_BLS.device) < n_valid[:, None, None]
    centred_BLS = (x_BLS - x_BLS.sum(-1, keepdim=True) / count_B11) * recorded_B1S
    if mode == "dataset":
        spread = scale[None, :, None]
    else:
        variance_BL1 = centred_BLS.square().sum(-1, keepdim=True) / count_B11
        if mode == "record":
            # Absent leads are flat; they must not make the others larger.
            varies_BL1 = variance_BL1 > 0
            variance_BL1 = variance_BL1.sum(1, keepdim=True) / varies_BL1.sum(1, keepdim=True)
        spread = variance_BL1.sqrt()
    # A detached electrode records a constant; dividing by its zero spread would put NaN in the
    # batch and in every weight after it.
    return torch.where(spread > 0, centred_BLS / spread, torch.zeros_like(centred_BLS))


def lead_spread(source: WindowSource, listed: RecordWindows) -> torch.Tensor:
    """The spread of each lead over the listed windows, in millivolts: ``(12,)`` float32.

    Leads that are flat in a window do not count there. Call it with the training split only.
    """
    total = torch.zeros(len(LEADS), dtype=torch.float64)
    count = torch.zeros(len(LEADS), dtype=torch.float64)
    unit = torch.ones(len(LEADS))
    starts = range(0, len(listed.table), WINDOWS_PER_PASS)
    for start in progress(starts, desc="Measuring the leads", unit="parts"):
        windows = np.arange(start, min(start + WINDOWS_PER_PASS, len(listed.table)))
        signal = source.fetch(windows)
        n_valid = torch.from_numpy(listed.n_valid[windows]).to(signal.device)
        centred = standardize_batch(signal, n_valid, "dataset", unit.to(signal.device))
        # Not every GPU has float64.
        squares = centred.square().sum(-1).cpu().double()
        total += squares.sum(0)
        count += (n_valid.cpu()[:, None] * (squares > 0)).sum(0)
    return (total / count.clamp(min=1)).sqrt().float()


# Order of an epoch ------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpochPlan:
    """Which window and crop of which record comes when: a function of (seed, epoch) alone.

    Attributes:
        order: positions of records, shuffled.
        windows: ``(n_records,)`` the window drawn for each record.
        starts: ``(n_records,)`` the crop's first sample.
    """

    order: np.ndarray
    windows: np.ndarray
    starts: np.ndarray


def plan_epoch(listed: RecordWindows, crop: int, seed: int, epoch: int) -> EpochPlan:
    """Draw one crop of one window of every record, and the order in which they come."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(listed.n_records)
    n_windows = np.diff(listed.first)
    windows = listed.first[:-1] + (rng.random(listed.n_records) * n_windows).astype(np.int64)
    slack = np.maximum(listed.n_valid[windows] - crop, 0)
    starts = (rng.random(listed.n_records) * (slack + 1)).astype(np.int64)
    return EpochPlan(order, windows, starts)


def epoch_chunks(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an epoch's records into batches; the last may be smaller.

    >>> [len(chunk) for chunk in epoch_chunks(np.arange(9), 4)]
    [4, 5]
    """
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    # Batch statistics of a single record are no statistics; it joins the batch before it.
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks


def training_batches(
    source: WindowSource,
    listed: RecordWindows,
    plan: EpochPlan,
    *,
    batch_size: int,
    crop: int,
    n_workers: int = 0,
) -> Iterator[Batch]:
    """Yield an epoch's batches; the last, smaller one too.

    Args:
        n_workers: threads that read ahead; only of use when windows are streamed.
    """
    chunks = epoch_chunks(plan.order, batch_size)

    def make(records: np.ndarray) -> Batch:
        windows = plan.windows[records]
        return crop_batch(source, listed, windows, plan.starts[records], crop, records)

    if n_workers == 0 or not isinstance(source, StreamedWindows):
        yield from map(make, chunks)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        waiting = [pool.submit(make, chunk) for chunk in chunks[: 2 * n_workers]]
        for chunk in [*chunks[2 * n_workers :], *[None] * len(waiting)]:
            ready = waiting.pop(0).result()
            if chunk is not None:
                waiting.append(pool.submit(make, chunk))
            yield ready


def crop_batch(
    source: WindowSource,
    listed: RecordWindows,
    windows: np.ndarray,
    starts: np.ndarray,
    crop: int,
    records: np.ndarray,
) -> Batch:
    """Fetch windows and cut one crop of each."""
    samples = source.fetch(windows)
    signal = cut_crops(samples, torch.from_numpy(starts).to(samples.device), crop)
    n_valid = np.clip(listed.n_valid[windows] - starts, 0, crop)
    return Batch(signal, torch.from_numpy(n_valid).to(signal.device), records)


def overlapping_starts(n_valid: np.ndarray, n_samples: int, crop: int) -> np.ndarray:
    """First samples of crops that overlap by half and cover what was recorded.

    Args:
        n_valid: ``(n,)`` recorded samples of each window.
        n_samples: length of a window.
        crop: length of a crop.

    Returns:
        ``(n, k)``; k is the same for every window, so that short windows repeat crops.

    >>> overlapping_starts(np.array([1000, 300]), n_samples=1000, crop=500)
    array([[  0, 250, 500],
           [  0,   0,   0]])
    """
    k = math.ceil((n_samples - crop) / (crop / 2)) + 1
    slack = np.maximum(n_valid - crop, 0)
    return np.rint(np.linspace(0, slack, k, axis=1)).astype(np.int64)
