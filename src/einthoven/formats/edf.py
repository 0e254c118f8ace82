"""EDF and EDF+ (Kemp et al. 1992; https://www.edfplus.info/specs/edf.html).

Read directly: the format is a header of fixed fields and 16-bit numbers. The usual library, edflib,
refuses discontinuous EDF+ files and the small faults that many exporters leave in headers, and
takes files by path only; the tests hold this reader against it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    MOST_LEADS,
    FileContent,
    check_factor,
    check_sizes,
    finite_number,
    is_standard_lead,
)
from einthoven.formats.vendor_xml import left_out_remark
from einthoven.readers.wfdb_header import MILLIVOLTS_PER_UNIT

EDF_MAGIC = b"0       "
# The fields of each signal, in the file's order: (name, bytes).
EDF_FIELDS = (
    ("label", 16), ("transducer", 80), ("unit", 8), ("physical_min", 8), ("physical_max", 8),
    ("digital_min", 8), ("digital_max", 8), ("prefilter", 80), ("n_samples", 8), ("reserved", 32),
)  # fmt: skip
EDF_HEADER = 256
EDF_NO_VALUE = -32768  # as WFDB's converter writes what was not recorded


class EdfSignal(NamedTuple):
    """One signal of the header; ``start`` is where its samples begin in each data record."""

    label: str
    unit: str
    physical: tuple[float, float]
    digital: tuple[float, float]
    n_samples: int
    start: int


def read_edf(data: bytes) -> FileContent:
    """The leads of a file; other signals (respiration, annotations) are left out.

    Raises:
        RecordError: it is damaged, or holds no leads.
    """
    signals = _edf_signals(data)
    seconds = finite_number(_edf_text(data, 244, 8), "the EDF file's duration of a data record")
    leads = _edf_leads(signals)
    n_frame = sum(signal.n_samples for signal in signals)
    n_stored = (len(data) - EDF_HEADER * (1 + len(signals))) // (2 * n_frame) if n_frame else 0
    n_records = int(finite_number(_edf_text(data, 236, 8), "the EDF file's number of records"))
    if n_records > n_stored:
        raise RecordError(f"the EDF file is cut short: {n_stored} of {n_records} data records")
    if n_records < 1:  # -1 while the file was still being written
        n_records = n_stored
    if seconds <= 0:
        raise RecordError(f"the EDF file's data records last {seconds:g} s")
    n_each, fs = leads[0].n_samples, round(leads[0].n_samples / seconds, 6)
    check_sizes(len(leads), n_records * n_each, fs)
    raw = np.frombuffer(data, "<i2", n_records * n_frame, EDF_HEADER * (1 + len(signals)))
    frames = raw.reshape(n_records, n_frame)
    rows = [frames[:, lead.start : lead.start + n_each].reshape(-1) for lead in leads]
    signal = np.stack([_edf_scaled(row, lead) for row, lead in zip(rows, leads, strict=True)])
    signal, remarks = _cut_unrecorded_end(signal)
    if data[192:197] == b"EDF+D":
        remarks += ("the recording has gaps (EDF+D); its parts were joined",)
    others = [one.label[:20] for one in signals if one not in leads and not _is_annotation(one)]
    names = tuple(lead.label for lead in leads)
    has_units = all(_edf_factor(lead.unit) is not None for lead in leads)
    return FileContent(
        signal, fs, names, remarks + left_out_remark("the ECG", others[:20]), has_units
    )


def _edf_text(data: bytes, start: int, length: int) -> str:
    return data[start : start + length].decode("latin-1").strip(" \0")


def _edf_signals(data: bytes) -> list[EdfSignal]:
    n_signals = int(finite_number(_edf_text(data, 252, 4), "the EDF file's number of signals"))
    if not 0 < n_signals <= MOST_LEADS or len(data) < EDF_HEADER * (1 + n_signals):
        raise RecordError(f"the EDF file announces {n_signals} signals and is damaged or cut short")
    columns: dict[str, list[str]] = {}
    at = EDF_HEADER
    for name, width in EDF_FIELDS:
        columns[name] = [_edf_text(data, at + width * k, width) for k in range(n_signals)]
        at += width * n_signals
    signals, start = [], 0
    for k in range(n_signals):
        bounds = [
            finite_number(columns[name][k], f"{name} of signal {k + 1}")
            for name in ("physical_min", "physical_max", "digital_min", "digital_max")
        ]
        n_samples = int(finite_number(columns["n_samples"][k], f"samples of signal {k + 1}"))
        if n_samples < 0:
            raise RecordError(f"signal {k + 1} of the EDF file has {n_samples} samples")
        signals.append(
            EdfSignal(
                columns["label"][k], columns["unit"][k], (bounds[0], bounds[1]),
                (bounds[2], bounds[3]), n_samples, start,
            )
        )  # fmt: skip
        start += n_samples
    return signals


def _is_annotation(signal: EdfSignal) -> bool:
    return signal.label.lower().startswith(("edf annotations", "bdf annotations"))


def _edf_factor(unit: str) -> float | None:
    """Millivolts in a unit; None where none is written."""
    return MILLIVOLTS_PER_UNIT.get(unit.lower())


def _edf_leads(signals: list[EdfSignal]) -> list[EdfSignal]:
    """The signals that are leads: named so; else all voltages of the highest rate."""
    wave = [one for one in signals if not _is_annotation(one) and one.n_samples]
    named = [one for one in wave if is_standard_lead(one.label)]
    volts = [one for one in wave if _edf_factor(one.unit) is not None or not one.unit]
    leads = named or volts
    if not leads:
        found = ", ".join(f"{one.label[:20]} ({one.unit})" for one in wave[:10])
        raise RecordError(f"the EDF file holds no lead (found: {found or 'nothing'})")
    most = max(one.n_samples for one in leads)
    return [one for one in leads if one.n_samples == most]


def _edf_scaled(row: np.ndarray, lead: EdfSignal) -> np.ndarray:
    """Millivolts, float32; NaN where the file marks no value."""
    (low, high), (digital_low, digital_high) = lead.physical, lead.digital
    if digital_high == digital_low:
        raise RecordError(f"lead {lead.label} of the EDF file has a digital range of 0")
    factor = _edf_factor(lead.unit) or 1.0
    gain = (high - low) / (digital_high - digital_low)
    check_factor(gain * factor)
    scaled = (row * np.float32(gain * factor)).astype(np.float32)
    scaled += np.float32((low - digital_low * gain) * factor)
    scaled[row == EDF_NO_VALUE] = np.nan
    return scaled


def _cut_unrecorded_end(signal: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Without the end that fills the last data record and was never recorded."""
    recorded = np.flatnonzero(np.isfinite(signal).any(axis=0))
    if not len(recorded):
        raise RecordError("the EDF file marks every sample as not recorded")
    end = int(recorded[-1]) + 1
    n_cut = signal.shape[1] - end
    remark = f"the last {n_cut:,} samples are marked as not recorded; they were cut off"
    return signal[:, :end], (remark,) if n_cut else ()
