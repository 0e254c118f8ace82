"""HDF5 files, MATLAB's version 7.3 among them, through h5py.

A file may point outside itself: by external links, by raw data in other files, by virtual data
sets. None of these is followed. Shapes are checked before data is loaded, so that a small file that
unpacks to a large one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.arrays import (
    FS_NAMES,
    LEAD_NAMES,
    MOST_ARRAYS,
    UNIT_NAMES,
    content_of_arrays,
)
from einthoven.formats.content import MOST_VALUES, FileContent

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Where HDF5 allows its beginning to be: at 0, or after a block of the user's own.
HDF5_STARTS = (0, 512, 1024, 2048)
DEEPEST_GROUP = 3
MOST_HDF5_BYTES = 8 * MOST_VALUES


def is_hdf5(data: bytes) -> bool:
    """Do these first bytes begin an HDF5 file?"""
    return any(data[at : at + len(HDF5_MAGIC)] == HDF5_MAGIC for at in HDF5_STARTS)


def read_hdf5(path: Path, told_leads: Sequence[str] = ()) -> FileContent:
    """The signal of a file, with what its attributes say of it.

    Raises:
        RecordError: h5py is not installed, the file is damaged, or it holds no signal.
    """
    try:
        import h5py
    except ImportError:
        raise RecordError("h5py is not installed: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            arrays = dict(_attributes(file))
            is_matlab = file.userblock_size >= 128
            room = MOST_HDF5_BYTES
            for name, dataset in _datasets(file):
                arrays |= dict(_attributes(dataset))
                value = _load_dataset(dataset, is_matlab, room)
                if value is not None:
                    room -= value.nbytes
                    arrays.setdefault(name.rpartition("/")[2], value)
    except RecordError:
        raise
    # A damaged file fails wherever the library happens to stumble.
    except Exception as error:
        raise RecordError(f"the HDF5 file is damaged ({error})") from None
    return content_of_arrays(arrays, told_leads)


def _datasets(group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The data sets of a group and the groups in it, by links that stay within the file."""
    import h5py

    if depth > DEEPEST_GROUP:
        return
    for at, name in enumerate(group):
        if at >= MOST_ARRAYS:
            return
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or name == "#refs#":
            continue
        found = group[name]
        if isinstance(found, h5py.Dataset):
            yield f"{group.name}/{name}", found
        elif isinstance(found, h5py.Group):
            yield from _datasets(found, depth + 1)


def _load_dataset(dataset: Any, is_matlab: bool, room: int) -> np.ndarray | None:
    """Its numbers or texts; None where it is something else, or lies in other files."""
    if dataset.is_virtual or dataset.external or dataset.shape is None:
        return None
    is_text = dataset.dtype.kind in "SO"
    if dataset.dtype.kind not in "fiuSO" or (is_text and dataset.size > MOST_ARRAYS):
        return None
    n_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    if n_bytes > room:
        raise RecordError(
            f"the HDF5 file announces an array of shape {dataset.shape}; all its arrays may have "
            f"{MOST_HDF5_BYTES:,} bytes"
        )
    if dataset.dtype.kind == "O" and _string_kind(dataset.dtype) is None:
        return None
    value = np.asarray(dataset[()])
    if is_matlab and dataset.attrs.get("MATLAB_class") == b"char":
        return np.array(["".join(chr(code) for code in value.reshape(-1)[:200].tolist())])
    return value


def _string_kind(dtype: Any) -> Any:
    import h5py

    return h5py.check_string_dtype(dtype)


def _attributes(owner: Any) -> Iterator[tuple[str, np.ndarray]]:
    """What attributes say of rate, unit and leads."""
    for name in list(owner.attrs)[:MOST_ARRAYS]:
        if name.lower() in (*FS_NAMES, *UNIT_NAMES, *LEAD_NAMES):
            yield name, np.atleast_1d(np.asarray(owner.attrs[name]))
