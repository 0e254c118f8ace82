"""Small WFDB records for the tests of the readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

TWELVE = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def sample_values(n_samples: int, n_leads: int, seed: int = 0) -> np.ndarray:
    """``(sample, lead)`` int16."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3000, 3000, (n_samples, n_leads), dtype=np.int16)


def write_record(
    path: Path,
    values: np.ndarray,
    *,
    fs: float = 500,
    leads: Sequence[str] = TWELVE,
    gain: str = "1000(0)/mV",
    comments: Sequence[str] = (),
    first_line: str = "",
    suffix: str = ".dat",
    zero: int = 0,
) -> None:
    """Write ``path.hea`` and its signal file, format 16 (``.mat``: 24 bytes before the samples)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file, fmt, head = f"{path.name}{suffix}", "16", b""
    if suffix == ".mat":
        fmt, head = "16+24", matlab4_head(*values.shape[::-1])
    path.with_name(file).write_bytes(head + values.astype("<i2").tobytes())
    n_samples, n_leads = values.shape
    lines = [first_line or f"{path.name} {n_leads} {fs:g} {n_samples}"]
    lines += [f"{file} {fmt} {gain} 16 {zero} 0 0 0 {lead}" for lead in leads[:n_leads]]
    lines += [f"#{comment}" for comment in comments]
    path.with_name(f"{path.name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")


def matlab4_head(rows: int, columns: int) -> bytes:
    """The 24 bytes before an int16 matrix ``val`` in a MATLAB v4 file."""
    return np.array([30, rows, columns, 0, 4], "<i4").tobytes() + b"val\0"
