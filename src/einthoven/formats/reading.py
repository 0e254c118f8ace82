"""Read one file in any supported format, and find the recordings in folders.

Reading decides nothing that a file leaves open: where the sampling rate, the unit or the leads are
not stated and cannot be told, it says what to pass. Formats are told by content; see
`einthoven.formats.detection`.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from einthoven.errors import ConfigError, RecordError
from einthoven.formats.aecg import read_aecg
from einthoven.formats.arrays import read_npy, read_npz
from einthoven.formats.content import (
    MAX_FILE_MB,
    FileContent,
    check_sizes,
    is_known_lead,
    is_standard_lead,
    scale_signal,
)
from einthoven.formats.detection import FILE_FORMATS, HEAD_BYTES, detect_format, format_of_content
from einthoven.formats.dicom import read_dicom
from einthoven.formats.edf import read_edf
from einthoven.formats.hdf5_file import read_hdf5
from einthoven.formats.ishne import read_ishne
from einthoven.formats.matlab_file import read_matlab
from einthoven.formats.scp import read_scp
from einthoven.formats.sierra import read_sierra
from einthoven.formats.text_table import is_signal_table, read_text_table
from einthoven.formats.vendor_xml import read_cardiosoft, read_muse, read_schiller
from einthoven.formats.wfdb_record import (
    WFDB_SIGNAL_SUFFIXES,
    check_wfdb_record,
    header_of,
    segments_of,
)
from einthoven.formats.xml_tree import parse_xml
from einthoven.quality import NARROWEST_MV, WIDEST_MV
from einthoven.readers.fields import warn_of_folder
from einthoven.readers.wfdb_files import read_wfdb
from einthoven.readers.wfdb_header import millivolts_per_unit


@dataclass(frozen=True)
class Recording:
    """The signal of one file.

    Attributes:
        signal: ``(lead, sample)`` float32 millivolts, NaN where there is no value.
        fs: hertz.
        leads: as written, one per row.
        format: a name in `FILE_FORMATS`.
        remarks: what was assumed or left out.
    """

    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]
    format: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Told:
    """What the caller says of a file that may not say it itself."""

    fs: float | None
    units: str | None
    leads: tuple[str, ...]


def read_recording(
    path: Path | str,
    *,
    fs: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """The recording in one file.

    Args:
        path: the file; of a WFDB record the header, a signal file, or the name that both share.
        fs, units, leads: hertz, a voltage ("mV", "uV", "V") and a name for each row, for files that
            do not state them. What a file states counts, and a remark says where they differ.

    Raises:
        RecordError: it cannot be read; the reason.
        ConfigError: a library is missing.
    """
    path, told = Path(path), _Told(fs, units, tuple(leads or ()))
    try:
        file_format, content = _read_content(path, told)
        recording = _finish(file_format, content, told)
    except (RecordError, ConfigError):
        raise
    except OSError as error:
        raise RecordError(f"{path.name} cannot be opened: {error.strerror or error}") from None
    # Damage shows itself wherever a parser happens to stumble; a file is never the program's end.
    except Exception as error:
        raise RecordError(f"{path.name} is damaged ({type(error).__name__}: {error})") from error
    return recording


# One file --------------------------------------------------------------------------------------

_BINARY_READERS: dict[str, Callable[[bytes], FileContent]] = {
    "edf": read_edf, "dicom": read_dicom, "scp": read_scp, "ishne": read_ishne,
}  # fmt: skip
_ARRAY_READERS: dict[str, Callable[[bytes, Sequence[str]], FileContent]] = {
    "csv": read_text_table, "npy": read_npy, "npz": read_npz, "matlab": read_matlab,
}  # fmt: skip
_XML_READERS = {
    "aecg": read_aecg, "cardiosoft": read_cardiosoft, "muse": read_muse, "sierra": read_sierra,
    "schiller": read_schiller,
}  # fmt: skip


def _read_content(path: Path, told: _Told) -> tuple[str, FileContent]:
    header = header_of(path)
    if header is not None:
        check_wfdb_record(header)
        signal, fs, leads = read_wfdb(header)
        return "wfdb", FileContent(signal, fs, leads)
    data = _read_bytes(path)
    name = detect_format(data, path)
    if name == "hdf5":
        return name, read_hdf5(path, told.leads)
    if name in _ARRAY_READERS:
        return name, _ARRAY_READERS[name](data, told.leads)
    if name in _XML_READERS:
        return name, _XML_READERS[name](parse_xml(data))
    return name, _BINARY_READERS[name](data)


def _read_bytes(path: Path) -> bytes:
    try:
        # A pipe or a device would be waited for, or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(f"{path.name} is no file")
    except FileNotFoundError:
        raise RecordError(f"{path.name} is not there") from None
    most = MAX_FILE_MB * 2**20
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise RecordError(f"{path.name} is larger than {MAX_FILE_MB} MiB")
    return data


# What all formats share ------------------------------------------------------------------------


def _finish(file_format: str, content: FileContent, told: _Told) -> Recording:
    """Settle leads, rate and unit, and cut off what is no recording."""
    remarks = list(content.remarks)
    signal, leads = _settle_leads(content, told.leads, remarks)
    fs = _settle_fs(content.fs, told.fs, remarks)
    check_sizes(len(signal), signal.shape[1], fs)
    signal = _settle_units(signal, content.has_units, told.units, remarks)
    n_samples = calibration_start(signal)
    if n_samples < signal.shape[1]:
        cut = (signal.shape[1] - n_samples) / fs
        remarks.append(f"the last {cut:.2f} s are the recorder's calibration pulse; cut off")
        signal = np.ascontiguousarray(signal[:, :n_samples])
    return Recording(signal, fs, leads, file_format, tuple(remarks))


def _settle_leads(
    content: FileContent, told: tuple[str, ...], remarks: list[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Rows of leads with known names; others are left out with a remark."""
    signal, names = content.signal, content.leads
    has_standard = any(map(is_standard_lead, names))
    if told and not has_standard:
        if len(told) != len(signal):
            raise RecordError(
                f"{len(told)} leads were passed for the {len(signal)} of the file"
                + (f" ({', '.join(names)[:100]})" if names else "")
            )
        return signal, told
    if not names:
        raise RecordError(f"the file names none of its {len(signal)} leads: pass leads")
    if not has_standard:
        raise RecordError(
            f"none of the twelve leads is there, only {', '.join(names)[:100]}: pass leads if they "
            "are known"
        )
    if told and told != names:
        remarks.append(f"the file's own lead names were taken: {', '.join(names)[:100]}")
    known = [is_known_lead(name) for name in names]
    if all(known):
        return signal, names
    left_out = [name for name, is_known in zip(names, known, strict=True) if not is_known]
    remarks.append(f"left out, as no known leads: {', '.join(left_out)[:200]}")
    kept = tuple(name for name, is_known in zip(names, known, strict=True) if is_known)
    return np.ascontiguousarray(signal[known]), kept


def _settle_fs(stated: float | None, told: float | None, remarks: list[str]) -> float:
    if stated is None and told is None:
        raise RecordError("the file does not state its sampling rate: pass fs, in hertz")
    if told is not None and not (math.isfinite(told) and told > 0):
        raise RecordError(f"fs was passed as {told:g}; hertz above 0 are needed")
    if stated is not None and told is not None and stated != told:
        remarks.append(f"the file states {stated:g} Hz, which was taken instead of {told:g} Hz")
    return float(told if stated is None else stated)  # type: ignore[arg-type]


def _settle_units(
    signal: np.ndarray, has_units: bool, told: str | None, remarks: list[str]
) -> np.ndarray:
    if has_units:
        if told is not None and millivolts_per_unit(told) != 1:
            remarks.append(f"the file states its unit, which was taken instead of {told}")
        return signal
    if told is not None:
        return scale_signal(signal, [millivolts_per_unit(told)] * len(signal))
    span = typical_span(signal)
    if not NARROWEST_MV <= span < WIDEST_MV:
        raise RecordError(
            f"the file states no unit, and its typical lead spans {span:.4g}, which cannot be "
            "millivolts: pass units (V, mV, uV)"
        )
    remarks.append(f"the file states no unit; millivolts were taken (a lead spans {span:.2g})")
    return signal


def typical_span(signal: np.ndarray) -> float:
    """The median, over the leads that vary, of what 99 % of a lead's samples span; 0 for none."""
    if not np.isfinite(signal).all():
        signal = np.where(np.isfinite(signal), signal, np.float32(0))
    low, high = np.percentile(signal, [0.5, 99.5], axis=1)
    spans = (high - low)[high > low]
    return float(np.median(spans)) if len(spans) else 0.0


# A pulse of a millivolt in all leads at once, which some recorders append (Philips: 0.4 s).
PULSE_MV, PULSE_TOLERANCE_MV = 1.0, 0.03
PULSE_LEADS = 6


def calibration_start(signal: np.ndarray) -> int:
    """The first sample of a calibration pulse at a recording's end; its length where there is none.

    No heart gives all leads the same voltage: the limb leads' laws exclude it, unless it is 0.
    """
    n_samples = int(signal.shape[1])
    if len(signal) < PULSE_LEADS or np.ptp(signal[:, -1]) > PULSE_TOLERANCE_MV:
        return n_samples
    differs = np.flatnonzero(np.ptp(signal, axis=0) > PULSE_TOLERANCE_MV)
    start = int(differs[-1]) + 1 if len(differs) else 0
    tail = signal[0, start:]
    if len(tail) == 0 or start == 0:
        return n_samples
    is_pulse = abs(float(np.ptp(tail)) - PULSE_MV) <= 0.1
    # It is a rectangle: nearly every sample is high or low.
    flat = (np.abs(tail - tail.min()) < 0.05) | (np.abs(tail - tail.max()) < 0.05)
    return start if is_pulse and flat.mean() > 0.9 else n_samples


# Folders ---------------------------------------------------------------------------------------

_KNOWN_SUFFIXES = frozenset(
    suffix for one in FILE_FORMATS.values() for suffix in one.suffixes
) | {".dicom", ".ishne"}  # fmt: skip
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_NO_RECORDINGS = frozenset({"dicomdir"})


def find_recordings(paths: Sequence[Path]) -> Iterator[Path]:
    """One path for each recording among files and folders.

    Files are yielded as they are given. Folders are searched with everything below them, sorted,
    one folder's names in memory at a time. A WFDB record is yielded once, by its header, and the
    segments of a longer one not at all. Passed by are hidden files, links that lead out of the
    folder, folders that are links, tables that are no signals (see `is_signal_table`), and files
    that have neither the suffix nor the content of a known format.

    Args:
        paths: files or folders.
    """
    for path in paths:
        if path.is_dir():
            yield from _find_below(path, Path(os.path.realpath(path)))
        else:
            yield path


def _find_below(folder: Path, root: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError as error:
        warn_of_folder(error)
        return
    names = frozenset(name for name, _, _ in found)
    segments: set[str] = set()
    for name, is_folder, is_link in found:
        path = folder / name
        if is_folder:
            yield from _find_below(path, root)
            continue
        if is_link and not _leads_to_file_within(path, root):
            continue
        if name.endswith(".hea"):
            segments |= segments_of(path)
        if name not in segments and _is_recording(path, names):
            yield path


def _leads_to_file_within(path: Path, root: Path) -> bool:
    target = Path(os.path.realpath(path))
    return target.is_file() and target.is_relative_to(root)


def _is_recording(path: Path, names: frozenset[str]) -> bool:
    """Is a file in a folder of these names one to read?"""
    suffix = path.suffix.lower()
    if suffix == ".hea":
        return True
    if suffix in WFDB_SIGNAL_SUFFIXES and _belongs_to_header(path, names):
        return False
    if path.name.lower() in _NO_RECORDINGS:
        return False
    if suffix in _TABLE_SUFFIXES:
        return is_signal_table(_first_bytes(path, 2**16))
    if suffix in _KNOWN_SUFFIXES:
        return True
    found = format_of_content(_first_bytes(path, HEAD_BYTES), suffix)
    return found not in ("", "csv", "npz", "scp")


def _belongs_to_header(path: Path, names: frozenset[str]) -> bool:
    if f"{path.stem}.hea" in names:
        return True
    # A signal file of another name than its header's: .dat means nothing else.
    return path.suffix.lower() == ".dat" and any(name.endswith(".hea") for name in names)


def _first_bytes(path: Path, n_bytes: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError:
        return b""
