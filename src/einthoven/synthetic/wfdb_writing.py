"""WFDB records as the archives write them: headers with format 16 or MATLAB v4 signals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# WFDB format 16 writes this for "no value".
WFDB_NO_VALUE = -32768


def to_digital(signal: np.ndarray, step_mv: float = 0.001) -> np.ndarray:
    """Millivolts to int16 at 1000 units per millivolt, NaN to WFDB's "no value".

    Args:
        signal: ``(lead, sample)`` millivolts.
        step_mv: the converter's own resolution, at least 0.001.
    """
    steps = np.round(np.nan_to_num(signal) / step_mv) * step_mv
    units = np.clip(np.round(steps * 1000), -32767, 32767).astype(np.int16)
    return np.where(np.isnan(signal), np.int16(WFDB_NO_VALUE), units)


def wfdb_checksum(units: np.ndarray) -> int:
    """The 16-bit sum of a lead's samples, as PTB-XL's headers give it."""
    return int(units.astype(np.int64).sum() % 65536)


def write_wfdb_dat(path: Path, units: np.ndarray, fs: int, leads: Sequence[str]) -> None:
    """Write ``<path>.dat`` in format 16 and its header, as PTB-XL has them.

    Args:
        path: without suffix; its folder exists.
        units: ``(lead, sample)`` int16, 1000 per millivolt.
        fs: hertz.
        leads: one name per row.
    """
    name = path.name
    lines = [f"{name} {len(units)} {fs} {units.shape[1]}"]
    lines += [
        f"{name}.dat 16 1000.0(0)/mV 16 0 {row[0]} {wfdb_checksum(row)} 0 {lead}"
        for row, lead in zip(units, leads, strict=True)
    ]
    path.with_name(f"{name}.hea").write_text("\n".join(lines) + "\n", "ascii", newline="\n")
    path.with_name(f"{name}.dat").write_bytes(units.T.astype("<i2").tobytes())


def write_wfdb_mat(
    path: Path, units: np.ndarray, fs: int, leads: Sequence[str], date: str,
    comments: Sequence[str] = (), line_end: str = "\n",
) -> None:  # fmt: skip
    """Write ``<path>.mat`` (MATLAB v4, variable ``val``) and its header, as the Challenges do.

    Args:
        path: without suffix; its folder exists.
        units: ``(lead, sample)`` int16, 1000 per millivolt.
        fs: hertz.
        leads: one name per row.
        date: what follows the number of samples in the header's first line.
        comments: lines after the signals, without their ``#``.
        line_end: Challenge 2017 ends its lines ``" \\r\\n"``.
    """
    name = path.name
    lines = [f"{name} {len(units)} {fs} {units.shape[1]} {date}".rstrip()]
    lines += [
        f"{name}.mat 16+24 1000/mV 16 0 {row[0]} {wfdb_checksum(row)} 0 {lead}"
        for row, lead in zip(units, leads, strict=True)
    ]
    lines += [f"#{comment}" for comment in comments]
    text = "".join(line + line_end for line in lines)
    path.with_name(f"{name}.hea").write_text(text, "ascii", newline="")
    # Type 30: little-endian, numeric, int16; columns first, so that one sample's leads adjoin.
    head = np.array([30, *units.shape, 0, 4], "<i4").tobytes() + b"val\x00"
    path.with_name(f"{name}.mat").write_bytes(head + units.T.astype("<i2").tobytes())
