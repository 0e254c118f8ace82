"""Files of plain arrays: NumPy's ``.npy`` and ``.npz``, and what all such files have in common.

An array alone does not say what it is. Names beside it may: ``fs``, ``units`` and ``leads``, under
the names that people give them. Otherwise twelve rows or columns are the twelve leads in standard
order, and rate and unit are asked for.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    MAX_FILE_MB,
    FileContent,
    check_sizes,
    is_known_lead,
    scale_signal,
)
from einthoven.readers.fields import as_float32
from einthoven.readers.wfdb_header import millivolts_per_unit
from einthoven.records import LEADS

SIGNAL_NAMES = ("val", "ecg", "signal", "signals", "p_signal", "data", "tracings", "x", "sig")
FS_NAMES = (
    "fs",
    "sampling_rate",
    "sampling_frequency",
    "samplerate",
    "sample_rate",
    "freq",
    "sfreq",
)
UNIT_NAMES = ("units", "unit")
LEAD_NAMES = ("leads", "lead_names", "lead", "channels", "channel_names", "sig_name", "ch_names")
MOST_ARRAYS = 256
MOST_MEMBERS = 4096

STANDARD_ORDER = "no lead is named; the twelve were taken in standard order"


def content_of_arrays(arrays: Mapping[str, Any], told_leads: Sequence[str] = ()) -> FileContent:
    """What named arrays hold: one signal, and what is said of it.

    Args:
        arrays: name to array, or to a value.
        told_leads: lead names from outside, for files that give none.

    Raises:
        RecordError: there is no signal, or more than one that might be it.
    """
    lower = {name.lower(): value for name, value in arrays.items()}
    fs = _first_number(lower)
    units = _first_texts(lower, UNIT_NAMES)
    leads = _first_texts(lower, LEAD_NAMES) or tuple(told_leads)
    signal, leads, remarks = orient_signal(_signal_array(lower), leads)
    check_sizes(len(signal), signal.shape[1], fs)
    if not units:
        return FileContent(as_float32(signal), fs, leads, remarks, has_units=False)
    each = units if len(units) == len(signal) else units[:1] * len(signal)
    scaled = scale_signal(signal, [millivolts_per_unit(unit) for unit in each])
    return FileContent(scaled, fs, leads, remarks)


def orient_signal(
    array: np.ndarray, leads: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """``(lead, sample)`` from either order, its leads, and what was assumed.

    Raises:
        RecordError: leads are named or told, and their number is not that of rows or columns; or
            none are and there are not twelve.
    """
    signal = np.atleast_2d(array)
    if leads and len(leads) not in signal.shape:
        raise RecordError(f"{len(leads)} leads are named for an array of shape {array.shape}")
    if not leads and len(LEADS) not in signal.shape:
        raise RecordError(
            f"the file names no leads, and its array has shape {array.shape}: pass leads, one name "
            "for each row"
        )
    remarks = () if leads else (STANDARD_ORDER,)
    names = tuple(leads) or LEADS
    if len(signal) != len(names):
        signal = signal.T
    return signal, names, remarks


def _is_signal(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind in "fiu"
        and value.ndim in (1, 2)
        and value.size > 1
    )


def _signal_array(lower: Mapping[str, Any]) -> np.ndarray:
    for name in SIGNAL_NAMES:
        if _is_signal(lower.get(name)):
            return np.asarray(lower[name])
    others = (*FS_NAMES, *UNIT_NAMES, *LEAD_NAMES)
    found = {k: v for k, v in lower.items() if _is_signal(v) and k not in others}
    if len(found) == 1:
        return np.asarray(next(iter(found.values())))
    listed = ", ".join(f"{name[:30]} {_words_of(value)}" for name, value in list(lower.items())[:8])
    raise RecordError(
        f"the file holds {'several arrays' if found else 'no array of numbers'} ({listed or 'none'}"
        f"); the signal is looked for as {', '.join(SIGNAL_NAMES[:4])}"
    )


def _words_of(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _first_number(lower: Mapping[str, Any]) -> float | None:
    for name in FS_NAMES:
        value = lower.get(name)
        if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiu":
            number = float(value.reshape(-1)[0])
            if math.isfinite(number) and number > 0:
                return number
    return None


def _first_texts(lower: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Texts under the first of some names that has any: several, or one with separators."""
    for name in names:
        value = lower.get(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "USO" or not value.size:
            continue
        words = [_plain_text(item) for item in value.reshape(-1)[:MOST_ARRAYS].tolist()]
        if len(words) == 1:
            words = re.split(r"[;,\s]+", words[0].strip())
        kept = tuple(word.strip() for word in words)
        if all(kept) and (names is UNIT_NAMES or any(map(is_known_lead, kept))):
            return kept
    return ()


def _plain_text(item: Any) -> str:
    while isinstance(item, list | np.ndarray) and len(item) == 1:
        item = item[0]
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


# NumPy -----------------------------------------------------------------------------------------


def read_npy(data: bytes, told_leads: Sequence[str] = ()) -> FileContent:
    """The array of a ``.npy`` file, never by pickle.

    Raises:
        RecordError: it is damaged, or no plain array.
    """
    return content_of_arrays({"signal": npy_array(data)}, told_leads)


def npy_array(data: bytes) -> np.ndarray:
    """A view of the array in the bytes of a ``.npy`` file, with no memory of its own."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(file)
    except KeyError:
        raise RecordError(f"version {version} of NumPy's format is not read") from None
    # What is wrong with a header comes as whatever Python's parser of literals meets.
    except Exception as error:
        raise RecordError(f"the .npy file's header is damaged ({error})") from None
    if dtype.hasobject or dtype.kind not in "fiuUSb":
        raise RecordError(f"the .npy file holds {dtype} and not numbers")
    n_values = math.prod(shape)
    if dtype.itemsize == 0 or n_values * dtype.itemsize > len(data) - file.tell():
        raise RecordError(f"the .npy file is cut short: it announces shape {shape}")
    values = np.frombuffer(data, dtype, n_values, file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")


def read_npz(data: bytes, told_leads: Sequence[str] = ()) -> FileContent:
    """The arrays of a ``.npz`` file; none is unpacked beyond the limit of a file's size.

    Raises:
        RecordError: it is damaged, too large, or holds no signal.
    """
    arrays: dict[str, np.ndarray] = {}
    room = MAX_FILE_MB * 2**20
    # The archive's list is read whole when it is opened.
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:
        raise RecordError(f"the .npz file lists over {MOST_MEMBERS:,} members")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            if len(members) > MOST_ARRAYS:
                raise RecordError(f"the .npz file holds {len(members):,} arrays")
            for name in members:
                with archive.open(name) as member:
                    unpacked = member.read(room + 1)
                room -= len(unpacked)
                if room < 0:
                    raise RecordError(f"the .npz file unpacks to over {MAX_FILE_MB} MiB")
                if b"'O'" not in unpacked[:200] and b"|O" not in unpacked[:200]:
                    arrays[name.removesuffix(".npy")] = npy_array(unpacked)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError,
            NotImplementedError, KeyError) as error:  # fmt: skip
        raise RecordError(f"the .npz file is damaged ({error})") from None
    if not arrays:
        raise RecordError("the zip archive holds no arrays of NumPy: it is no .npz file")
    return content_of_arrays(arrays, told_leads)
