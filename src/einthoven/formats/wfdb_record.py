"""WFDB records as files among others: which header a file belongs to, and what it may ask for."""

from __future__ import annotations

from pathlib import Path

from einthoven.errors import RecordError
from einthoven.formats.content import MAX_FILE_MB, check_sizes
from einthoven.readers.wfdb_header import (
    WfdbHeader,
    read_wfdb_header,
    signal_file_path,
)

WFDB_SIGNAL_SUFFIXES = frozenset({".dat", ".mat", ".xyz", ".sig", ".flac"})
MAX_HEADER_BYTES = 2**20
MOST_SAMPLES_PER_FRAME = 64
MOST_SEGMENTS = 1000


def header_of(path: Path) -> Path | None:
    """The header of the record that a path belongs to; None where it belongs to none.

    A record is named by its header, by one of the signal files that this lists, or by what both
    have in common.
    """
    if path.suffix.lower() == ".hea":
        return path
    if path.suffix.lower() not in WFDB_SIGNAL_SUFFIXES:
        beside = path.with_name(path.name + ".hea") if path.name else path
        return beside if not path.exists() and beside.is_file() else None
    header = path.with_suffix(".hea")
    if not header.is_file():
        if path.suffix.lower() == ".dat" and path.is_file():
            raise RecordError(
                f"the header {header.name}, without which this is no record, is absent"
            )
        return None
    # A MATLAB file beside a header that does not list it is a file of its own.
    return header if _lists(header, path.name) else None


def _lists(header: Path, name: str) -> bool:
    try:
        return any(line.file == name for line in _small_header(header).signals)
    except RecordError:
        return True


def _small_header(path: Path) -> WfdbHeader:
    if path.is_file() and path.stat().st_size > MAX_HEADER_BYTES:
        raise RecordError(f"the header {path.name} is larger than {MAX_HEADER_BYTES:,} bytes")
    return read_wfdb_header(path)


def check_wfdb_record(path: Path) -> None:
    """Refuse a record that would ask for more memory than its length allows.

    Raises:
        RecordError: it is too large, or its header cannot be understood.
    """
    header = _small_header(path)
    if header.n_segments > MOST_SEGMENTS:
        raise RecordError(f"the record has {header.n_segments:,} segments; at most {MOST_SEGMENTS}")
    n_leads = max(1, len(header.signals))
    if header.n_samples:
        check_sizes(n_leads, header.n_samples, header.fs)
    elif header.n_segments or any(line.fmt.startswith("5") for line in header.signals):
        raise RecordError("the header does not say how many samples the record has")
    if any(line.samples_per_frame > MOST_SAMPLES_PER_FRAME for line in header.signals):
        raise RecordError("the header gives a lead more than 64 samples at a time")
    for name in {line.file for line in header.signals}:
        file = signal_file_path(path.parent, name)
        if file.exists() and not file.is_file():
            raise RecordError(f"{name} is no file")
        if file.is_file() and file.stat().st_size > MAX_FILE_MB * 2**20:
            raise RecordError(f"the signal file {name} is larger than {MAX_FILE_MB} MiB")
    for name in segments_of(path):
        if (path.parent / name).is_file():
            _check_segment(path.parent / name)


def _check_segment(path: Path) -> None:
    header = _small_header(path)
    if header.n_segments:
        raise RecordError("a segment of the record has segments of its own")
    check_wfdb_record(path)


def segments_of(path: Path) -> set[str]:
    """The headers, by name, of the segments of which a record is made; empty for most."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_HEADER_BYTES).decode("latin-1").splitlines()
    except OSError:
        return set()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines or "/" not in lines[0].split()[0]:
        return set()
    words = (line.split()[0] for line in lines[1 : MOST_SEGMENTS + 2])
    return {f"{word}.hea" for word in words if word != "~" and "/" not in word}
