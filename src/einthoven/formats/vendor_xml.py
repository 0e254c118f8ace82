"""The XML of three makers of recorders: GE CardioSoft, GE MUSE and Schiller.

None has a published schema. CardioSoft's and Schiller's layout was read off real files; MUSE's off
its document type (``restecg.dtd``) as its users describe it, and is not verified on a real file.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    FileContent,
    decode_base64,
    factor_of_unit,
    finite_number,
    scale_signal,
    split_numbers,
    stack_leads,
)
from einthoven.formats.xml_tree import child, child_number, child_text, descendants, tag_of

# GE CardioSoft ---------------------------------------------------------------------------------


def read_cardiosoft(root: Element) -> FileContent:
    """``StripData`` of a ``CardiologyXML`` file: numbers with commas between, one text per lead.

    Raises:
        RecordError: there is none, or it cannot be understood.
    """
    strip = next(descendants(root, "StripData"), None)
    if strip is None:
        raise RecordError("the CardioSoft file has no StripData, the recording itself")
    fs = child_number(strip, "SampleRate", "SampleRate")
    waves = [inner for inner in strip if tag_of(inner) == "WaveformData"]
    leads = tuple(wave.get("lead", "").strip() for wave in waves)
    rows = [
        split_numbers(wave.text or "", f"lead {lead}")
        for wave, lead in zip(waves, leads, strict=True)
    ]
    resolution = child(strip, "Resolution")
    unit = "" if resolution is None else resolution.get("units", "")
    factor = child_number(strip, "Resolution", "Resolution") * factor_of_unit(unit, "Resolution")
    signal = scale_signal(stack_leads(rows, leads, fs), [factor] * len(rows))
    others = {"MedianSamples": "median beats", "FullDisclosureData": "the full disclosure"}
    found = [text for tag, text in others.items() if any(descendants(root, tag))]
    return FileContent(signal, fs, leads, left_out_remark("the rhythm strip", found))


def left_out_remark(taken: str, others: Sequence[str]) -> tuple[str, ...]:
    """What was taken of a file that holds several signals, and what was left out."""
    return (f"{taken} was taken; left out: {', '.join(others)}",) if others else ()


# GE MUSE ---------------------------------------------------------------------------------------


def read_muse(root: Element) -> FileContent:
    """The ``Waveform`` of type Rhythm of a ``RestingECG`` file: base64 int16, little-endian.

    MUSE stores eight leads; the other limb leads follow from I and II.

    Raises:
        RecordError: there is none, or it cannot be understood.
    """
    waves = list(descendants(root, "Waveform"))
    kinds = [(child_text(wave, "WaveformType") or "").strip() for wave in waves]
    rhythms = [w for w, kind in zip(waves, kinds, strict=True) if kind.lower() == "rhythm"]
    if not rhythms:
        raise RecordError(f"the MUSE file has no Waveform of type Rhythm (found: {kinds[:5]})")
    base = child_number(rhythms[0], "SampleBase", "SampleBase")
    exponent = finite_number(child_text(rhythms[0], "SampleExponent") or "0", "SampleExponent")
    if not abs(exponent) <= 9:
        raise RecordError(f"SampleExponent is {exponent:g}")
    fs = base * 10.0**exponent
    parts = list(descendants(rhythms[0], "LeadData"))
    leads = tuple(child_text(part, "LeadID") or "" for part in parts)
    rows = [_muse_lead(part, lead) for part, lead in zip(parts, leads, strict=True)]
    factors = [_muse_factor(part) for part in parts]
    signal = scale_signal(stack_leads(rows, leads, fs), factors)
    others = ["median beats"] if "median" in (kind.lower() for kind in kinds) else []
    return FileContent(signal, fs, leads, left_out_remark("the rhythm strip", others))


def _muse_lead(part: Element, lead: str) -> np.ndarray:
    size = finite_number(child_text(part, "LeadSampleSize") or "2", "LeadSampleSize")
    if size != 2:
        raise RecordError(f"lead {lead} has samples of {size:g} bytes; 2 are known")
    raw = decode_base64(child_text(part, "WaveFormData") or "", f"lead {lead}")
    row = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.float32)
    stated = child_text(part, "LeadSampleCountTotal")
    if stated is not None and finite_number(stated, "LeadSampleCountTotal") != len(row):
        raise RecordError(f"lead {lead} has {len(row):,} samples where {stated[:20]} are stated")
    return row


def _muse_factor(part: Element) -> float:
    unit = child_text(part, "LeadAmplitudeUnits") or ""
    per_bit = child_number(part, "LeadAmplitudeUnitsPerBit", "LeadAmplitudeUnitsPerBit")
    return per_bit * factor_of_unit(unit, "LeadAmplitudeUnits")


# Schiller --------------------------------------------------------------------------------------


def read_schiller(root: Element) -> FileContent:
    """``ECG_RHYTHMS`` of a SEMA export: numbers with commas between, one ``channel`` per lead.

    Raises:
        RecordError: there is none, or it cannot be understood.
    """
    waves = {child_text(wave, "type") or "": wave for wave in descendants(root, "wavedata")}
    wave = waves.get("ECG_RHYTHMS")
    if wave is None:
        raise RecordError(f"the Schiller file has no ECG_RHYTHMS (found: {list(waves)[:5]})")
    fs = _schiller_fs(wave)
    unit = child_text(wave, "resolution", "yres", "units") or ""
    per_bit = child_number(wave, "unitperbit", "resolution", "yres", "unitperbit")
    channels = [inner for inner in wave if tag_of(inner) == "channel"]
    leads = tuple(child_text(channel, "name") or "" for channel in channels)
    rows = [_schiller_lead(channel) for channel in channels]
    factor = per_bit * factor_of_unit(unit, "yres")
    signal = scale_signal(stack_leads(rows, leads, fs), [factor] * len(rows))
    others = ["averaged beats"] if "ECG_AVERAGES" in waves else []
    return FileContent(signal, fs, leads, left_out_remark("the rhythm strip", others))


def _schiller_fs(wave: Element) -> float:
    rate = ("resolution", "samplerate")
    exponent = child_text(wave, *rate, "exponent")
    # The one real file writes 500 with exponent 1 for 500 Hz: what others mean is not known.
    if finite_number(exponent or "1", "samplerate's exponent") != 1:
        raise RecordError(f"samplerate's exponent is {exponent}; only 1 is known")
    return child_number(wave, "samplerate", *rate, "value")


def _schiller_lead(channel: Element) -> np.ndarray:
    name = child_text(channel, "name") or ""
    kind = child_text(channel, "datastype") or "COMMASEPARATE"
    if kind != "COMMASEPARATE":
        raise RecordError(f"lead {name} is stored as {kind[:30]!r}; COMMASEPARATE is known")
    row = split_numbers(child_text(channel, "data") or "", f"lead {name}")
    stated = child_text(channel, "samplecount")
    if stated is not None and finite_number(stated, "samplecount") != len(row):
        raise RecordError(f"lead {name} has {len(row):,} samples where {stated[:20]} are stated")
    return row
