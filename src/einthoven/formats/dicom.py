"""DICOM waveforms (PS3.3 C.10.9), through pydicom.

pydicom parses; samples are decoded here, because its own decoder knows neither padding nor how much
memory a file may announce.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    SCP_LEADS,
    FileContent,
    check_factor,
    check_sizes,
    factor_of_unit,
    is_standard_lead,
    needs_library,
)
from einthoven.formats.vendor_xml import left_out_remark

DICOM_MAGIC = (128, b"DICM")
DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"
DICOM_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how an item begins, either byte first
PIXELS = 0x7FE0_0008
MAX_DICOM_MB = 96
MOST_DICOM_PARTS = 10_000
DICOM_SAMPLES = {("SS", 16): "i2", ("US", 16): "u2", ("SB", 8): "i1", ("UB", 8): "u1",
                 ("SL", 32): "i4", ("UL", 32): "u4"}  # fmt: skip
# "5.6.3-9-61" of SCP-ECG, "2:61" of ISO/IEEE 11073: both end in SCP-ECG's number of a lead.
_DICOM_LEAD_CODE = re.compile(r"^(?:5\.6\.3-9-|2:)(\d{1,3})$")


def read_dicom(data: bytes) -> FileContent:
    """The waveforms of a file; of several groups the rhythm that has most of the twelve leads.

    Raises:
        ConfigError: pydicom is not installed.
        RecordError: it is damaged, or has no waveforms.
    """
    try:
        import pydicom
    except ImportError:
        raise needs_library("pydicom", "DICOM") from None
    try:
        with warnings.catch_warnings():
            # Values that bend the standard (identifiers, dates) have nothing to do with the signal.
            warnings.simplefilter("ignore")
            return _read_waveforms(_parse_dicom(pydicom, data))
    except RecordError:
        raise
    # pydicom takes elements apart when they are looked at, and fails wherever damage lies.
    except Exception as error:
        raise RecordError(f"the DICOM file is damaged ({error})") from None


def _parse_dicom(pydicom: Any, data: bytes) -> Any:
    # What is deflated may unpack to any size, and pydicom unpacks it before anything can be looked
    # at. The name of this transfer syntax is in the part of the file that is never deflated.
    if DEFLATED_SYNTAX in data:
        raise RecordError("the DICOM file is deflated as a whole, which is not read")
    # pydicom takes microseconds for each part, however small: a flood of them would take minutes.
    if len(data) > MAX_DICOM_MB * 2**20 or max(map(data.count, DICOM_ITEMS)) > MOST_DICOM_PARTS:
        raise RecordError(f"the DICOM file has over {MAX_DICOM_MB} MiB or {MOST_DICOM_PARTS} items")
    n_elements = itertools.count()

    def is_over(tag: Any, vr: Any, length: Any) -> bool:
        if next(n_elements) > MOST_DICOM_PARTS:
            raise RecordError(f"the DICOM file has over {MOST_DICOM_PARTS} elements")
        return bool(tag >= PIXELS)

    return pydicom.filereader.read_partial(io.BytesIO(data), stop_when=is_over, force=True)


def _read_waveforms(dataset: Any) -> FileContent:
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        kind = getattr(dataset.get("SOPClassUID"), "name", "") or dataset.get("Modality", "")
        raise RecordError(f"the DICOM file holds no waveforms (it is: {str(kind)[:60]})")
    names = [_dicom_leads(group) for group in groups]
    order = sorted(range(len(groups)), key=lambda at: _group_rank(groups[at], names[at]))
    best = order[-1]
    others = [_group_words(groups[at], names[at]) for at in sorted(order[:-1])]
    return _read_group(groups[best], names[best], others, _is_big_endian(dataset))


def _is_big_endian(dataset: Any) -> bool:
    return not dataset.original_encoding[1]


def _dicom_leads(group: Any) -> tuple[str, ...]:
    channels = group.get("ChannelDefinitionSequence") or []
    return tuple(_dicom_lead(channel, at) for at, channel in enumerate(channels))


def _dicom_lead(channel: Any, at: int) -> str:
    """A lead's name, from its code where that is known, else from its meaning or label."""
    source: Any = next(iter(channel.get("ChannelSourceSequence") or []), {})
    match = _DICOM_LEAD_CODE.match(str(source.get("CodeValue", "")).strip())
    if match and int(match[1]) in SCP_LEADS:
        return SCP_LEADS[int(match[1])]
    written = source.get("CodeMeaning") or channel.get("ChannelLabel") or f"channel {at + 1}"
    return str(written).strip()


def _group_rank(group: Any, names: tuple[str, ...]) -> tuple[bool, int, int]:
    """Recorded before derived, then by leads, then by samples."""
    label = str(group.get("MultiplexGroupLabel", "")).upper()
    derived = str(group.get("WaveformOriginality", "")).upper() == "DERIVED"
    is_beat = "MEDIAN" in label or "AVERAGE" in label
    n_standard = len({name for name in names if is_standard_lead(name)})
    return not (derived or is_beat), n_standard, int(group.get("NumberOfWaveformSamples") or 0)


def _group_words(group: Any, names: tuple[str, ...]) -> str:
    label = str(group.get("MultiplexGroupLabel") or group.get("WaveformOriginality") or "a group")
    return f"{label[:30].lower()} ({len(names)} leads)"


def _read_group(
    group: Any, names: tuple[str, ...], others: list[str], is_big_endian: bool
) -> FileContent:
    fs = float(group.get("SamplingFrequency") or 0)
    n_leads = int(group.get("NumberOfWaveformChannels") or 0)
    n_samples = int(group.get("NumberOfWaveformSamples") or 0)
    check_sizes(n_leads, n_samples, fs)
    if len(names) != n_leads:
        raise RecordError(f"the DICOM file defines {len(names)} of its {n_leads} channels")
    samples = _dicom_samples(group, n_leads, n_samples, is_big_endian)
    signal = np.empty((n_leads, n_samples), np.float32)
    n_without = 0
    for row, channel in enumerate(group.ChannelDefinitionSequence):
        scale, baseline, has_unit = _dicom_scale(channel, names[row])
        n_without += not has_unit
        with np.errstate(over="ignore"):
            signal[row] = samples[:, row] * scale + baseline
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        signal[(samples == _padding_number(padding, samples.dtype)).T] = np.nan
    if 0 < n_without < n_leads:
        raise RecordError(f"{n_without} of {n_leads} channels of the DICOM file have no unit")
    remarks = left_out_remark("the rhythm", others)
    return FileContent(signal, fs, names, remarks, has_units=not n_without)


def _dicom_samples(group: Any, n_leads: int, n_samples: int, is_big_endian: bool) -> np.ndarray:
    """``(sample, lead)`` integers."""
    kind = (str(group.get("WaveformSampleInterpretation")), int(group.get("WaveformBitsAllocated")))
    if kind not in DICOM_SAMPLES:
        raise RecordError(f"the DICOM file's samples are {kind[0][:8]} of {kind[1]} bits: not read")
    dtype = np.dtype(DICOM_SAMPLES[kind]).newbyteorder(">" if is_big_endian else "<")
    raw = group.get("WaveformData") or b""
    needed = n_leads * n_samples * dtype.itemsize
    if len(raw) < needed:
        raise RecordError(f"the DICOM file's samples are cut short: {len(raw):,} of {needed:,}")
    return np.frombuffer(raw, dtype, n_leads * n_samples).reshape(n_samples, n_leads)


def _padding_number(padding: Any, dtype: np.dtype[Any]) -> int:
    if isinstance(padding, bytes):
        return int(np.frombuffer(padding[: dtype.itemsize], dtype)[0])
    return int(padding)


def _dicom_scale(channel: Any, name: str) -> tuple[float, float, bool]:
    """Millivolts per step, millivolts at step 0, and whether the file gives a unit.

    PS3.3 C.10.9.1.4: value = step × sensitivity × correction + baseline, in the channel's unit.
    """
    sensitivity = channel.get("ChannelSensitivity")
    if sensitivity is None:
        return 1.0, 0.0, False
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    units: Any = next(iter(channel.get("ChannelSensitivityUnitsSequence") or []), {})
    unit = str(units.get("CodeValue", ""))
    if not unit:
        raise RecordError(f"the DICOM file gives lead {name} a sensitivity without a unit")
    factor = factor_of_unit(unit, f"lead {name}")
    scale = float(sensitivity) * (1.0 if correction is None else float(correction)) * factor
    check_factor(scale)
    return scale, float(channel.get("ChannelBaseline") or 0) * factor, True
