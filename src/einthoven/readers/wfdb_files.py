"""WFDB signals: common files read directly, all others through the wfdb library.

The layouts of nearly every public ECG archive, 16-bit interleaved samples in a ``.dat`` or a MATLAB
v4 ``.mat`` file, take one read and one division; the library is some twenty times slower.
Format: https://physionet.org/physiotools/wag/signal-5.htm.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.readers.wfdb_header import (
    WfdbHeader,
    WfdbSignal,
    millivolts_per_unit,
    read_wfdb_header,
    signal_file_path,
)

# Signals ---------------------------------------------------------------------------------------

# In 16-bit files this value marks a sample that was not recorded.
WFDB_NO_VALUE_16 = -32768
# The bytes before a matrix called val in a MATLAB v4 file, and how they begin.
MATLAB4_HEAD, MATLAB4_INT16 = 24, b"\x1e\0\0\0"
CHECKSUM_FRAMES = 64


def read_wfdb(path: Path) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """The signal of a WFDB record.

    Args:
        path: of the header, with or without ``.hea``.

    Returns:
        ``(lead, sample)`` float32 millivolts, NaN where the file marks no value; hertz; lead names
        as written.

    Raises:
        RecordError: header or signal file cannot be used, with the reason.
    """
    header_path = path if path.suffix == ".hea" else path.with_name(path.name + ".hea")
    header = read_wfdb_header(header_path)
    groups = _wfdb_direct_groups(header)
    if groups:
        signal = _read_wfdb_direct(header_path.parent, header, groups)
        return signal, header.fs, tuple(line.lead for line in header.signals)
    return read_wfdb_with_library(header_path, header)


def _wfdb_direct_groups(header: WfdbHeader) -> list[tuple[int, int]]:
    """Rows ``(first, stop)`` that share a signal file; empty where wfdb has to read the record."""
    groups: list[tuple[int, int]] = []
    first = 0
    for row, line in enumerate(header.signals):
        if line.fmt != "16" or line.samples_per_frame != 1 or line.skew != 0:
            return []
        if (line.file, line.offset) != (header.signals[first].file, header.signals[first].offset):
            groups.append((first, row))
            first = row
    if header.signals:
        groups.append((first, len(header.signals)))
    files = {header.signals[start].file for start, _ in groups}
    return groups if len(files) == len(groups) else []


def _read_wfdb_direct(
    folder: Path, header: WfdbHeader, groups: list[tuple[int, int]]
) -> np.ndarray:
    parts = [_read_wfdb_samples(folder, header, first, stop) for first, stop in groups]
    lengths = {len(samples) for samples in parts}
    if len(lengths) > 1:
        raise RecordError(f"the signal files differ in length: {sorted(lengths)} samples")
    scaled = [
        _scale_wfdb_samples(samples, header.signals[first:stop])
        for (first, stop), samples in zip(groups, parts, strict=True)
    ]
    return scaled[0] if len(scaled) == 1 else np.concatenate(scaled)


def _read_wfdb_samples(folder: Path, header: WfdbHeader, first: int, stop: int) -> np.ndarray:
    """The samples of one signal file, int16 ``(sample, lead)``."""
    line = header.signals[first]
    frame_bytes = 2 * (stop - first)
    try:
        # Unbuffered: read_bytes would ask for the file's place and size once more.
        with signal_file_path(folder, line.file).open("rb", buffering=0) as file:
            raw = file.readall()
    except FileNotFoundError:
        raise RecordError(f"the signal file {line.file} is not there") from None
    n_samples = header.n_samples or (len(raw) - line.offset) // frame_bytes
    expected = line.offset + n_samples * frame_bytes
    if len(raw) < expected:
        raise RecordError(
            f"the signal file {line.file} is cut short: {len(raw):,} bytes where its header "
            f"needs {expected:,}"
        )
    if n_samples <= 0:
        raise RecordError(f"the signal file {line.file} holds no samples")
    if line.file.endswith(".mat") and line.offset == MATLAB4_HEAD and raw[:4] != MATLAB4_INT16:
        raise RecordError(f"{line.file} is no MATLAB v4 file of 16-bit values")
    samples = np.frombuffer(raw, "<i2", n_samples * (stop - first), line.offset)
    samples = samples.reshape(n_samples, stop - first)
    check_wfdb_checksums(wfdb_checksums(samples), header.signals[first:stop])
    return samples


def wfdb_checksums(samples: np.ndarray) -> np.ndarray:
    """The sum of each lead modulo 65,536, of int16 ``(sample, lead)``, C-contiguous."""
    # Many frames side by side make one row, which takes a quarter of the time of adding frames.
    n_samples, n_leads = samples.shape
    n_whole = n_samples // CHECKSUM_FRAMES * CHECKSUM_FRAMES
    whole = samples[:n_whole].view("<u2").reshape(-1, CHECKSUM_FRAMES * n_leads)
    sums = whole.sum(axis=0, dtype=np.uint16).reshape(CHECKSUM_FRAMES, n_leads)
    rest = samples[n_whole:].view("<u2").sum(axis=0, dtype=np.uint16)
    return np.asarray(sums.sum(axis=0, dtype=np.uint16) + rest)


def check_wfdb_checksums(sums: np.ndarray, lines: Sequence[WfdbSignal]) -> None:
    """Refuse samples whose sums are not those of their header.

    A header that names the wrong format, or another record's header, would make noise of a file.

    Raises:
        RecordError: names the first lead that does not match.
    """
    for found, line in zip(sums.tolist(), lines, strict=True):
        if line.checksum not in (0, found):
            raise RecordError(
                f"the checksum of lead {line.lead} does not match: the signal file is damaged, or "
                "its header belongs to another"
            )


def _scale_wfdb_samples(samples: np.ndarray, lines: Sequence[WfdbSignal]) -> np.ndarray:
    """``(sample, lead)`` file values as ``(lead, sample)`` float32 millivolts."""
    # One fresh array and no others: the system clears each page of new memory, and that takes
    # longer than the arithmetic. Arithmetic on neighbours makes up for going over it once more.
    signal = np.empty(samples.shape[::-1], np.float32)
    signal[:] = samples.T
    if any(line.baseline for line in lines):
        signal -= np.array([[line.baseline] for line in lines], np.float32)
    signal /= np.array([[line.gain] for line in lines], np.float32)
    if samples.min() == WFDB_NO_VALUE_16:
        signal[samples.T == WFDB_NO_VALUE_16] = np.nan
    return signal


# Through the library ---------------------------------------------------------------------------


def read_wfdb_with_library(
    header_path: Path, header: WfdbHeader
) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """As `read_wfdb`, through the wfdb library: any format, several segments, skew.

    Raises:
        RecordError: wfdb cannot read it either.
    """
    _check_wfdb_names(header_path, header)
    _check_wfdb_sizes(header_path.parent, header)
    try:
        record = _rdrecord(header_path, header)
    except RecordError:
        raise
    except FileNotFoundError as error:
        name = Path(error.filename or header_path).name
        raise RecordError(f"the signal file {name} is not there") from error
    # wfdb fails on damaged files with whatever its parsing meets.
    except Exception as error:
        raise RecordError(f"wfdb cannot read {header_path.stem}: {error}") from error
    if record.p_signal is None or record.p_signal.size == 0:
        raise RecordError(f"{header_path.stem} holds no samples")
    leads = tuple(line.lead for line in header.signals) or tuple(record.sig_name)
    if header.signals:
        # The library's gain over ours: the unit's factor, and 4.88 where ours was mended.
        ours = np.array([line.gain for line in header.signals])
        factors = np.array(record.adc_gain) / ours
    else:
        factors = np.array([millivolts_per_unit(unit) for unit in record.units])
    signal = np.ascontiguousarray((record.p_signal * factors).T, np.float32)
    return signal, float(record.fs), leads


def _check_wfdb_names(header_path: Path, header: WfdbHeader) -> None:
    """Refuse a header that names files elsewhere, in itself or in its segments."""
    folder = header_path.parent
    for signal in header.signals:
        signal_file_path(folder, signal.file)
    if header.n_segments:
        for line in _header_lines(header_path)[1:]:
            segment_path = signal_file_path(folder, f"{line.split()[0]}.hea")
            if segment_path.stem != "~":
                if not segment_path.is_file():
                    raise RecordError(
                        f"the header announces {header.n_segments} segments; "
                        f"{line.split()[0]!r}, named as one, is not there"
                    )
                # A layout segment has no samples; its signals name the file "~".
                for signal in read_wfdb_header(segment_path).signals:
                    signal_file_path(folder, signal.file)


def _check_wfdb_sizes(folder: Path, header: WfdbHeader) -> None:
    """Refuse a length that no format packs into the file: wfdb would ask for the memory first."""
    for line in header.signals:
        # FLAC formats, 508 and up, compress; no other format has less than a byte per sample.
        path = signal_file_path(folder, line.file)
        if not line.fmt.startswith("5") and path.is_file():
            n_bytes = path.stat().st_size
            if n_bytes < header.n_samples:
                raise RecordError(
                    f"the signal file {line.file} is cut short: {n_bytes:,} bytes for "
                    f"{header.n_samples:,} samples"
                )


def _header_lines(header_path: Path) -> list[str]:
    text = header_path.read_text(encoding="latin-1")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def load_wfdb() -> Any:
    """The wfdb library, imported when first needed (0.5 s) and without its own warnings.

    wfdb 4.3 calls pandas in ways that pandas 3 announces the end of.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb
    return wfdb


def _rdrecord(header_path: Path, header: WfdbHeader) -> Any:
    wfdb = load_wfdb()
    try:
        return _rdrecord_checked(wfdb, header_path.with_suffix(""), header)
    except (ValueError, TypeError, AttributeError):  # a header that wfdb refuses, not a file
        if header.n_segments:
            raise
    with tempfile.TemporaryDirectory() as folder:
        _copy_with_plain_header(header_path, header, Path(folder))
        return _rdrecord_checked(wfdb, Path(folder) / "record", header)


def _rdrecord_checked(wfdb: Any, path: Path, header: WfdbHeader) -> Any:
    """wfdb's record with ``p_signal``, once the samples' sums are those of the header."""
    # wfdb averages what is sampled more often, and shifts what is skewed.
    if header.n_segments or any(s.samples_per_frame != 1 or s.skew != 0 for s in header.signals):
        return wfdb.rdrecord(str(path))
    record = wfdb.rdrecord(str(path), physical=False)
    sums = record.d_signal.sum(axis=0, dtype=np.int64) & 0xFFFF
    check_wfdb_checksums(sums, header.signals)
    record.p_signal = record.dac()
    return record


def _copy_with_plain_header(header_path: Path, header: WfdbHeader, folder: Path) -> None:
    """Copy a record beside a header without what wfdb trips over: date, time, odd names."""
    n_samples = str(header.n_samples) if header.n_samples else ""
    first = f"record {len(header.signals)} {header.fs:.12g} {n_samples}".strip()
    plain = "\n".join([first, *_header_lines(header_path)[1 : len(header.signals) + 1]])
    (folder / "record.hea").write_text(plain + "\n", encoding="latin-1")
    for name in {line.file for line in header.signals}:
        shutil.copyfile(signal_file_path(header_path.parent, name), folder / name)
