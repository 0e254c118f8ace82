"""Rows of a file read by their position: neighbours in one system call, from any thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def runs_of_one_shard(sorted_shards: np.ndarray) -> Iterator[tuple[int, int]]:
    if len(sorted_shards) == 0:
        return
    cuts = np.flatnonzero(np.diff(sorted_shards)) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(sorted_shards)], strict=True)


def read_by_position(
    path: Path, offset: int, size: int, rows: np.ndarray, positions: np.ndarray, out: np.ndarray
) -> None:
    """Fill ``out[positions]`` with ``rows`` (ascending), one system call per run of neighbours."""
    handle = os.open(path, os.O_RDONLY)
    try:
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        for run_rows, run_positions in zip(
            np.split(rows, cuts), np.split(positions, cuts), strict=True
        ):
            # Linux takes at most 1024 buffers in one call.
            for first in range(0, len(run_rows), 1024):
                buffers = [out[position] for position in run_positions[first : first + 1024]]
                start = offset + int(run_rows[first]) * size
                _fill_buffers(handle, buffers, start)
    finally:
        os.close(handle)


def _fill_buffers(handle: int, buffers: list[np.ndarray], start: int) -> None:
    views = [buffer.data.cast("B") for buffer in buffers]
    if os.preadv(handle, views, start) == sum(view.nbytes for view in views):
        return
    # One call hands over 2 GiB at most, and a network disk may hand over less.
    for view in views:
        done = 0
        while done < view.nbytes:
            n_read = os.preadv(handle, [view[done:]], start + done)
            if n_read == 0:
                raise EOFError("it is cut short")
            done += n_read
        start += view.nbytes
