"""The record store: int16 shards of windows on disk, 1 unit = 1 µV, and the manifest over them.

A shard is an ordinary ``.npy`` of ``(window, 12, sample)``; the windows of a record are consecutive
rows of one shard. The manifest says which rows. One store serves every model, because
standardisation happens on the device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.columns import number_few, number_lists, read_columns, row_pieces, taken
from einthoven.errors import DataError
from einthoven.files import Workspace
from einthoven.positional import read_by_position, runs_of_one_shard
from einthoven.records import LEADS
from einthoven.signal import window_starts

MICROVOLTS_PER_MILLIVOLT = 1000.0

# Every column of the manifest, in order; docs/reference/files.md says what each means.
MANIFEST_COLUMNS = (
    "record", "archive", "record_id", "patient_id", "patient_group", "duplicate_of", "fold",
    "shard", "row", "n_windows", "n_samples", "fs", "leads_present",
    "flat_leads", "clipped_fraction", "lead_law_residual_mv", "missing_fraction", "quality",
    "labels", "label_quality", "age", "sex", "device", "site",
)  # fmt: skip

PREPARE_HINT = "run `einthoven prepare`"


@dataclass(frozen=True, slots=True)
class WindowTable:
    """Where windows lie, one entry per window.

    Attributes:
        record: ``(n,)`` index into the manifest.
        shard: ``(n,)`` index into `Store.shards`.
        row: ``(n,)`` row in the shard.
        n_valid: ``(n,)`` samples from the record; zeros follow them where the record was shorter
            than the window.
    """

    record: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    n_valid: np.ndarray

    def __len__(self) -> int:
        return len(self.record)


# The store -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """Windows of records, read by the manifest's indices; safe to use from several threads.

    Attributes:
        manifest: one row per record, index 0 to n - 1.
        records_dir: where the shards lie.
        target_fs: sampling rate of the windows, hertz.
        target_samples: samples of a window.
        band: band-pass edges in hertz that records were filtered with (None: that edge is open).
        digest: names the store's content: two stores with one digest hold the same windows.
    """

    manifest: pd.DataFrame
    records_dir: Path
    target_fs: int
    target_samples: int
    band: tuple[float | None, float | None] = (None, None)
    digest: str = ""

    @property
    def n_leads(self) -> int:
        return len(LEADS)

    @property
    def n_windows(self) -> int:
        """Windows of all records together."""
        return int(self._columns["n_windows"].sum())

    def count_windows(self, record_indices: np.ndarray | Sequence[int]) -> int:
        """Windows of some records together."""
        return int(self._columns["n_windows"][np.asarray(record_indices, np.int64)].sum())

    @property
    def window_bytes(self) -> int:
        return self.n_leads * self.target_samples * 2

    @cached_property
    def shards(self) -> list[str]:
        """Names of the shards, in the order that `WindowTable.shard` counts."""
        return self._numbered_shards[1]

    @cached_property
    def all_windows(self) -> WindowTable:
        """Every window, in the order of the manifest; `gather` counts in it."""
        return self.window_table(np.arange(len(self.manifest)))

    def window_table(self, record_indices: np.ndarray | Sequence[int]) -> WindowTable:
        """Where the windows of some records lie, in the order given."""
        # A table of millions of windows is in memory for as long as a model trains on them.
        records = np.asarray(record_indices, np.int32)
        counts = taken(self._columns["n_windows"], records, np.int32)
        is_single = bool((counts == 1).all())
        record = records if is_single else np.repeat(records, counts)
        row = taken(self._columns["row"], record, np.int32)
        if not is_single:
            first = np.cumsum(counts, dtype=np.int32) - counts
            row += np.arange(len(record), dtype=np.int32) - np.repeat(first, counts)
        del counts
        n_valid = taken(self._columns["n_samples"], record, np.int32)
        return WindowTable(
            record=record,
            shard=self._numbered_shards[0][record],
            row=row,
            n_valid=np.minimum(n_valid, self.target_samples, out=n_valid),
        )

    def windows(self, index: int) -> np.ndarray:
        """``(n_windows, 12, target_samples)`` int16 of one record."""
        return self.load_windows([index])

    def load_windows(self, record_indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """``(n, 12, target_samples)`` int16: all windows of some records, in the order given."""
        table = self.window_table(record_indices)
        return self.read_rows(table.shard, table.row)

    def gather(
        self, window_indices: np.ndarray | Sequence[int], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Windows by their indices into `all_windows`; see `read_rows`."""
        chosen = np.asarray(window_indices, np.int64)
        return self.read_rows(self.all_windows.shard[chosen], self.all_windows.row[chosen], out)

    def read_rows(
        self, shards: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Read windows from wherever they lie, neighbours in one go.

        Args:
            shards: ``(n,)`` indices into `shards`.
            rows: ``(n,)`` rows in them.
            out: ``(n, 12, target_samples)`` int16, C-contiguous, to read into.

        Returns:
            ``out``, or a new array like it.

        Raises:
            DataError: a shard is missing or damaged.
        """
        if out is None:
            out = np.empty((len(rows), self.n_leads, self.target_samples), np.int16)
        order = np.lexsort((rows, shards))
        for start, stop in runs_of_one_shard(shards[order]):
            chosen = order[start:stop]
            name = self.shards[int(shards[chosen[0]])]
            self._read_shard_rows(name, rows[chosen], chosen, out)
        return out

    def _read_shard_rows(
        self, name: str, rows: np.ndarray, positions: np.ndarray, out: np.ndarray
    ) -> None:
        path = shard_path(self.records_dir, name)
        try:
            if hasattr(os, "preadv"):
                offset = self._shard_offset(path)
                read_by_position(path, offset, self.window_bytes, rows, positions, out)
            else:
                out[positions] = np.load(path, mmap_mode="r")[rows]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); {PREPARE_HINT} to mend it"
            ) from error

    def _shard_offset(self, path: Path) -> int:
        """Where the windows begin in a shard; its header is read and checked once."""
        if path.name not in self._offsets:
            shape, offset = read_shard_header(path)
            if shape[1:] != (self.n_leads, self.target_samples):
                raise ValueError(f"its windows are {shape[1:]}")
            self._offsets[path.name] = offset
        return self._offsets[path.name]

    @cached_property
    def _offsets(self) -> dict[str, int]:
        return {}

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        names = ("row", "n_windows", "n_samples")
        return {name: self.manifest[name].to_numpy(np.int64) for name in names}

    @cached_property
    def _numbered_shards(self) -> tuple[np.ndarray, list[str]]:
        """The number of each record's shard, and the shards' names in order of first record."""
        return number_few(self.manifest["shard"])

    def count_rows_of_shards(self) -> np.ndarray:
        """Windows that each shard has to hold, in the order of `shards`."""
        rows = np.zeros(len(self.shards), np.int64)
        shard, n_windows = self._numbered_shards[0], self._columns["n_windows"]
        for piece in row_pieces(len(shard)):
            np.add.at(rows, shard[piece], n_windows[piece])
        return rows


def open_store(workspace: Workspace) -> Store:
    """Open the store that `einthoven prepare` made.

    Raises:
        DataError: there is none, or its shards are missing or cut short.
    """
    store = read_store(workspace)
    check_shards(store)
    return store


def read_store(workspace: Workspace, columns: Sequence[str] = MANIFEST_COLUMNS) -> Store:
    """Read the manifest alone; whether its shards are there is for `check_shards` to say.

    Args:
        columns: of the manifest that are read; few of them take a fraction of the time.

    Raises:
        DataError: there is no store, or its manifest is damaged.
    """
    if not workspace.manifest_path.exists():
        raise DataError(f"{workspace.manifest_path} is not there; {PREPARE_HINT} first")
    chosen = None if columns == MANIFEST_COLUMNS else columns
    try:
        manifest = read_columns(workspace.manifest_path, chosen)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{workspace.manifest_path} cannot be read ({error}); {PREPARE_HINT} to remake it"
        ) from error
    return store_of_manifest(manifest, workspace.records_dir, columns)


def store_of_manifest(
    manifest: pd.DataFrame, records_dir: Path, columns: Sequence[str] = MANIFEST_COLUMNS
) -> Store:
    """A store over shards that a manifest describes; its settings are in the table's ``attrs``.

    Args:
        columns: that the manifest must have.

    Raises:
        DataError: columns or settings are missing.
    """
    absent = [name for name in columns if name not in manifest]
    attrs: dict[Any, Any] = manifest.attrs
    if absent or "target_fs" not in attrs:
        what = f"columns {', '.join(absent)}" if absent else "the store's sampling rate"
        raise DataError(f"the manifest lacks {what}; {PREPARE_HINT} to remake it")
    low, high = attrs.get("band", (None, None))
    return Store(
        manifest.reset_index(drop=True),
        records_dir,
        target_fs=int(attrs["target_fs"]),
        target_samples=int(attrs["target_samples"]),
        band=(low, high),
        digest=str(attrs.get("digest", "")),
    )


def stored_signal(store: Store, index: int) -> np.ndarray:
    """``(12, n_samples)`` int16: a record as prepared, put together from its windows."""
    windows = store.windows(index)
    n_samples, n_window = int(store.manifest["n_samples"].iloc[index]), store.target_samples
    signal = np.zeros((windows.shape[1], max(n_samples, n_window)), np.int16)
    for start, window in zip(window_starts(n_samples, n_window), windows, strict=True):
        signal[:, start : start + n_window] = window
    return signal[:, :n_samples]


def check_shards(store: Store) -> None:
    """Refuse a store whose shards are missing or shorter than the manifest says.

    Only sizes are looked at, so that ten thousand shards take a moment.

    Raises:
        DataError: names the first shard that is wrong, and says how many are.
    """
    rows = store.count_rows_of_shards()
    wrong = []
    for name, n_rows in zip(store.shards, rows, strict=True):
        path = shard_path(store.records_dir, name)
        size = path.stat().st_size if path.exists() else -1
        if size < n_rows * store.window_bytes:
            wrong.append(f"{path} is {'missing' if size < 0 else 'cut short'}")
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(rows)} shards of the store cannot be used (first: {wrong[0]}); "
            f"{PREPARE_HINT} to mend it"
        )


# Shards ----------------------------------------------------------------------------------------


def shard_path(records_dir: Path, shard: str) -> Path:
    """Where a shard lies."""
    return records_dir / f"{shard}.npy"


def read_shard_header(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of a shard, and the byte at which its windows begin.

    Raises:
        ValueError: it is no shard of ours, or shorter than its header says.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"npy version {version} is not ours")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        offset, size = file.tell(), file.seek(0, os.SEEK_END)
    if fortran or dtype != np.dtype("<i2") or len(shape) != 3:
        raise ValueError(f"it holds {dtype} {shape}, not int16 windows")
    if size < offset + 2 * int(np.prod(shape)):
        raise ValueError("it is cut short")
    return shape, offset


# Patients and labels ---------------------------------------------------------------------------


def patient_keys(table: pd.DataFrame) -> pd.Series[str]:
    """Who each row's patient is: its group, else archive and patient id, else the record alone."""
    if "patient_group" in table:
        return table["patient_group"]
    patient_id = table["patient_id"].astype(str)
    own = "record " + table["record_id"].astype(str)
    return table["archive"].astype(str) + "/" + patient_id.where(patient_id != "", own)


def label_matrix(manifest: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Which record carries which label.

    Args:
        manifest: rows with a ``labels`` column of lists.
        labels: the columns of the result, in order.

    Returns:
        ``(n_records, n_labels)`` float32 of 0 and 1.

    Raises:
        DataError: a record carries a label that is not among ``labels``.
    """
    return label_flags(manifest, labels).astype(np.float32)


def label_flags(manifest: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """As `label_matrix`, in a quarter of the memory: ``(n_records, n_labels)`` uint8."""
    numbers, lists = number_lists(manifest["labels"].to_numpy())
    flags = np.zeros((len(lists), len(labels)), np.uint8)
    column = {label: number for number, label in enumerate(labels)}
    for row, names in enumerate(lists):
        for name in names:
            if name not in column:
                raise DataError(
                    f"label {name!r} of the manifest is not one of {', '.join(labels)}; "
                    "prepare the store again with the label set that is used here"
                )
            flags[row, column[name]] = 1
    return np.asarray(flags[numbers])
