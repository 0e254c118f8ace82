"""From record numbers to batches on the device.

int16 microvolts go to the device; cropping and standardising happen there, in batch. What a batch
holds is a function of (seed, epoch, record) alone, so that a run can be had again, wherever its
windows are kept and however many processes share its batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from einthoven.columns import row_pieces, taken
from einthoven.console import progress
from einthoven.records import LEADS
from einthoven.residency import Residency, choose_residency
from einthoven.store import Store, WindowTable

WINDOWS_PER_PASS = 512
WINDOWS_PER_READ = 4096
# The spread of a lead is known to a thousandth by then; reading millions of windows takes hours.
MOST_WINDOWS_MEASURED = 1 << 16
# Reads that wait to be used, per thread: a disk's slowest answers take several steps.
READS_AHEAD = 4

# Records and their windows ----------------------------------------------------------------------


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
    counts = taken(store.manifest["n_windows"].to_numpy(), record_indices, np.int32)
    first = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=first[1:])
    del counts
    return RecordWindows(store.window_table(record_indices), first)


# Sources ----------------------------------------------------------------------------------------


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
        chosen = to_device(torch.from_numpy(windows), self.samples.device)
        if self.samples.device.type == self.device.type:
            return self.samples.index_select(0, chosen)
        shape = (len(windows), *self.samples.shape[1:])
        gathered = empty_windows(shape, self.device)
        torch.index_select(self.samples, 0, chosen, out=gathered)
        return to_device(gathered, self.device)


@dataclass(frozen=True)
class StreamedWindows:
    """Windows that are read from the store each time."""

    store: Store
    table: WindowTable
    device: torch.device

    def read(self, windows: np.ndarray) -> torch.Tensor:
        """The same as `fetch`, on the host; any thread may read."""
        shape = (len(windows), len(LEADS), self.store.target_samples)
        samples = empty_windows(shape, self.device)
        shards, rows = self.table.shard[windows], self.table.row[windows]
        self.store.read_rows(shards, rows, out=samples.numpy())
        return samples

    def fetch(self, windows: np.ndarray) -> torch.Tensor:
        return to_device(self.read(windows), self.device)


def empty_windows(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A host buffer of windows that are on their way to a device.

    For a CUDA device it is pinned. Torch keeps pinned blocks and hands one out again only when the
    copies from it are done, so that a buffer is never overwritten on its way.
    """
    return torch.empty(shape, dtype=torch.int16, pin_memory=device.type == "cuda")


def to_device(samples: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device; the host does not wait for a CUDA device.

    From pinned memory the copy goes on by itself; of what is not pinned, CUDA takes a copy of its
    own before it lets the host go on.
    """
    return samples.to(device, non_blocking=device.type == "cuda")


def fetch_ahead(
    source: WindowSource, parts: Iterable[np.ndarray], n_workers: int = 0
) -> Iterator[torch.Tensor]:
    """Fetch windows part by part, in order; streamed ones are read before they are asked for.

    Args:
        parts: ``(n,)`` window numbers each.
        n_workers: threads that read; 0 is one too.
    """
    if not isinstance(source, StreamedWindows):
        yield from map(source.fetch, parts)
        return
    n_threads = max(n_workers, 1)
    waiting: deque[Future[torch.Tensor]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="einthoven-read")
    try:
        for part in parts:
            waiting.append(pool.submit(source.read, part))
            if len(waiting) > READS_AHEAD * n_threads:
                yield to_device(waiting.popleft().result(), source.device)
        while waiting:
            yield to_device(waiting.popleft().result(), source.device)
    finally:
        pool.shutdown(cancel_futures=True)


def open_windows(
    store: Store,
    listed: RecordWindows,
    device: torch.device,
    residency: Residency | None = None,
) -> WindowSource:
    """Load the listed windows, or arrange for them to be streamed.

    Args:
        residency: of `choose_residency`, which is asked for these windows alone where it is None.
    """
    table = listed.table
    streamed = StreamedWindows(store, table, device)
    residency = residency or choose_residency(len(table), store.target_samples, device)
    if residency == "streamed":
        return streamed
    on_host = residency == "memory" or device.type == "cpu"
    samples = torch.empty(
        (len(table), len(LEADS), store.target_samples),
        dtype=torch.int16,
        device="cpu" if on_host else device,
    )
    starts = range(0, len(table), WINDOWS_PER_READ)
    for start in progress(starts, desc="Loading windows", unit="parts"):
        windows = np.arange(start, min(start + WINDOWS_PER_READ, len(table)))
        part = samples[start : start + WINDOWS_PER_READ]
        if on_host:
            store.read_rows(table.shard[windows], table.row[windows], out=part.numpy())
        else:
            part.copy_(streamed.fetch(windows))
    return ResidentWindows(samples, device)


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
    # In place, because every pass over a batch and every new one is time in which no model learns.
    x_BLS = (signal / 1000).float()
    count_B11 = n_valid.clamp(min=1)[:, None, None]
    recorded_B1S = torch.arange(x_BLS.shape[-1], device=x_BLS.device) < n_valid[:, None, None]
    x_BLS -= x_BLS.sum(-1, keepdim=True) / count_B11
    x_BLS *= recorded_B1S
    if mode == "dataset":
        spread = scale[None, :, None]
    else:
        variance_BL1 = x_BLS.square().sum(-1, keepdim=True) / count_B11
        if mode == "record":
            # Absent leads are flat; they must not make the others larger.
            varies_BL1 = variance_BL1 > 0
            variance_BL1 = variance_BL1.sum(1, keepdim=True) / varies_BL1.sum(1, keepdim=True)
        spread = variance_BL1.sqrt()
    # A detached electrode records a constant; dividing by its zero spread would put NaN in the
    # batch and in every weight after it.
    return x_BLS / spread.where(spread > 0, torch.inf)


def lead_spread(source: WindowSource, listed: RecordWindows) -> torch.Tensor:
    """The spread of each lead over the listed windows, in millivolts: ``(12,)`` float32.

    Leads that are flat in a window do not count there. Of very many windows some are looked at, at
    even distances. Call it with the training split only.
    """
    total = torch.zeros(len(LEADS), dtype=torch.float64)
    count = torch.zeros(len(LEADS), dtype=torch.float64)
    unit = torch.ones(len(LEADS))
    n_windows = len(listed.table)
    n_measured = min(n_windows, MOST_WINDOWS_MEASURED)
    parts = [
        np.arange(start, min(start + WINDOWS_PER_PASS, n_measured)) * n_windows // n_measured
        for start in range(0, n_measured, WINDOWS_PER_PASS)
    ]
    signals = fetch_ahead(source, parts)
    for windows in progress(parts, desc="Measuring the leads", unit="parts"):
        signal = next(signals)
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
    # Sparing with memory: there may be millions of records.
    order = rng.permutation(np.arange(listed.n_records, dtype=np.int32))
    windows, starts = listed.first[:-1].copy(), np.empty(listed.n_records, np.int32)
    for piece in row_pieces(listed.n_records):
        counts = np.diff(listed.first[piece.start : piece.stop + 1])
        windows[piece] += (rng.random(len(counts)) * counts).astype(np.int32)
    for piece in row_pieces(listed.n_records):
        room = np.maximum(listed.n_valid[windows[piece]] - crop, 0) + 1
        starts[piece] = (rng.random(len(room)) * room).astype(np.int32)
    return EpochPlan(order, windows, starts)


def training_batches(
    source: WindowSource,
    listed: RecordWindows,
    plan: EpochPlan,
    chunks: Sequence[np.ndarray],
    *,
    crop: int,
    n_workers: int = 0,
) -> Iterator[Batch]:
    """Yield an epoch's batches.

    Args:
        chunks: the records of each batch; with several processes, this one's share of them.
        n_workers: threads that read ahead when windows are streamed; 0 is one too.
    """
    fetched = fetch_ahead(source, (plan.windows[records] for records in chunks), n_workers)
    for records in chunks:
        windows = plan.windows[records]
        yield crop_batch(next(fetched), listed, windows, plan.starts[records], crop, records)


def crop_batch(
    samples: torch.Tensor,
    listed: RecordWindows,
    windows: np.ndarray,
    starts: np.ndarray,
    crop: int,
    records: np.ndarray,
) -> Batch:
    """Cut one crop of each of some fetched windows."""
    signal = cut_crops(samples, to_device(torch.from_numpy(starts), samples.device), crop)
    n_valid = np.clip(listed.n_valid[windows] - starts, 0, crop)
    return Batch(signal, to_device(torch.from_numpy(n_valid), signal.device), records)
