"""Philips Sierra XML 1.03, 1.04 and 1.04.01 (``restingecgdata``), with its XLI compression.

The format is described by https://github.com/sixlettervariables/sierra-ecg-tools/wiki: per lead a
header of eight bytes and a stream of LZW codes of ten bits; what they spell are differences of
second order, all high bytes before all low ones. Of the derived limb leads only what the limb-lead
laws leave over is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    MOST_LEADS,
    MOST_VALUES,
    FileContent,
    check_sizes,
    decode_base64,
    finite_number,
    scale_signal,
    stack_leads,
)
from einthoven.formats.vendor_xml import left_out_remark
from einthoven.formats.xml_tree import child_text, descendants
from einthoven.records import LEADS

XLI_HEADER = struct.Struct("<iHh")  # bytes that follow, not known, the first difference
LZW_BITS = 10
XLI_DIFFERENCE_OFFSET = 64
XLI_PART = 5 * 4096  # bytes
# Rest ECGs last seconds; decoding takes a microsecond for each value.
MOST_XLI_VALUES = 2**22


def read_sierra(root: Element) -> FileContent:
    """The ``parsedwaveforms`` of a file.

    Raises:
        RecordError: there are none, or they cannot be understood.
    """
    waves = next(descendants(root, "parsedwaveforms"), None)
    if waves is None:
        raise RecordError("the Philips file has no parsedwaveforms, the recording itself")
    fs = _sierra_number(root, waves, "samplespersecond", ("samplingrate",))
    step = _sierra_number(root, waves, "resolution", ("resolution", "signalresolution"))
    if waves.get("dataencoding") != "Base64":
        raise RecordError(f"the waveforms are encoded as {waves.get('dataencoding')}; not Base64")
    data = decode_base64(waves.text or "", "parsedwaveforms")
    names, remarks = _sierra_leads(root, waves)
    seconds = finite_number(waves.get("durationperchannel"), "durationperchannel") / 1000
    n_samples = _sierra_samples(seconds, fs, len(names))
    rows = _sierra_rows(waves, data, len(names), n_samples)
    signal = scale_signal(stack_leads(rows, names, fs), [step / 1000] * len(rows))
    others = ["averaged beats"] if any(descendants(root, "repbeats")) else []
    return FileContent(signal, fs, names, remarks + left_out_remark("the rhythm strip", others))


def _sierra_number(root: Element, waves: Element, name: str, elsewhere: Sequence[str]) -> float:
    """A number that the waveforms carry themselves (1.04), or the signal's description (1.03)."""
    if name in waves.attrib:
        return finite_number(waves.get(name), name)
    for description in descendants(root, "signalcharacteristics"):
        for tag in elsewhere:
            text = child_text(description, tag)
            if text:
                return finite_number(text, tag)
    raise RecordError(f"the Philips file gives no {elsewhere[0]}")


def _sierra_leads(root: Element, waves: Element) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the leads, and what had to be assumed."""
    written = tuple((waves.get("leadlabels") or "").split())
    if written:
        return written, ()
    n_leads = int(_sierra_number(root, waves, "numberofleads", ("numberchannelsvalid",)))
    if n_leads != len(LEADS):
        raise RecordError(f"the Philips file names none of its {n_leads} leads")
    return LEADS, ("the file names no leads; the standard order of twelve was taken",)


def _sierra_samples(seconds: float, fs: float, n_leads: int) -> int:
    check_sizes(n_leads, 1, fs)
    if not 0 < seconds * fs < MOST_VALUES:
        raise RecordError(f"durationperchannel gives {seconds:g} s")
    n_samples = round(seconds * fs)
    check_sizes(n_leads, n_samples, fs)
    if n_leads * n_samples > MOST_XLI_VALUES:
        raise RecordError(f"the Philips file announces {n_leads} leads of {n_samples:,} samples")
    return n_samples


def _sierra_rows(waves: Element, data: bytes, n_leads: int, n_samples: int) -> list[np.ndarray]:
    compression = waves.get("compression") or waves.get("compressmethod") or ""
    is_compressed = compression and waves.get("compressflag", "True") == "True"
    if not is_compressed or compression.lower() == "uncompressed":
        if len(data) < 2 * n_leads * n_samples:
            raise RecordError("the waveforms are cut short")
        plain = np.frombuffer(data, "<i2", n_leads * n_samples)
        return list(plain.reshape(n_leads, n_samples))
    if compression != "XLI":
        raise RecordError(f"the waveforms are compressed as {compression[:20]!r}; XLI is known")
    rows = decode_xli(data, n_samples)
    if len(rows) < n_leads:
        raise RecordError(f"the waveforms hold {len(rows)} leads of {n_leads}")
    return restore_limb_leads(rows[:n_leads])


def restore_limb_leads(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Undo what is stored of III, aVR, aVL and aVF: their differences from the limb-lead laws."""
    if len(rows) < 6:
        return rows
    one, two, three, avr, avl, avf = (row.astype(np.int64) for row in rows[:6])
    three = two - one - three
    avr = -avr - (one + two) // 2
    avl = (one - three) // 2 - avl
    avf = (two + three) // 2 - avf
    return [one, two, three, avr, avl, avf, *rows[6:]]


# XLI -------------------------------------------------------------------------------------------


def decode_xli(data: bytes, n_samples: int) -> list[np.ndarray]:
    """The leads of an XLI stream, each int64 ``(sample,)``.

    Args:
        data: the stream.
        n_samples: of each lead.

    Raises:
        RecordError: it is damaged, or holds something other than leads of this length.
    """
    leads: list[np.ndarray] = []
    position = 0
    while position + XLI_HEADER.size <= len(data):
        n_bytes, _, first = XLI_HEADER.unpack_from(data, position)
        position += XLI_HEADER.size
        if not 0 < n_bytes <= len(data) - position or len(leads) == MOST_LEADS:
            raise RecordError(f"lead {len(leads) + 1} of the waveforms is damaged or cut short")
        spelled = decode_lzw(data[position : position + n_bytes], 2 * n_samples)
        if len(spelled) < 2 * n_samples:
            raise RecordError(f"lead {len(leads) + 1} of the waveforms is cut short")
        leads.append(undo_xli_differences(spelled, first))
        position += n_bytes
    return leads


def decode_lzw(data: bytes, most_bytes: int) -> bytes:
    """Lempel-Ziv-Welch with codes of ten bits, most significant bit first.

    Args:
        data: the codes.
        most_bytes: at which the output ends, whatever the codes go on to spell.

    Raises:
        RecordError: a code has no meaning yet.
    """
    words = [bytes([value]) for value in range(256)]
    most_words = (1 << LZW_BITS) - 1
    out = bytearray()
    previous = b""
    for code in _ten_bit_codes(data):
        if code < len(words):
            word = words[code]
        elif code == len(words) and previous and len(words) < most_words:
            word = previous + previous[:1]
        elif code == most_words:  # the end of the stream
            break
        else:
            raise RecordError("the waveforms are damaged: a code of theirs has no meaning")
        out += word
        if len(out) >= most_bytes:
            break
        if previous and len(words) < most_words:
            words.append(previous + word[:1])
        previous = word
    return bytes(out[:most_bytes])


def _ten_bit_codes(data: bytes) -> Iterator[int]:
    # Four codes are five bytes; a part at a time, as bits take sixty times the memory of bytes.
    weights = 1 << np.arange(LZW_BITS - 1, -1, -1)
    for start in range(0, len(data), XLI_PART):
        bits = np.unpackbits(np.frombuffer(data[start : start + XLI_PART], np.uint8))
        words = bits[: len(bits) // LZW_BITS * LZW_BITS].reshape(-1, LZW_BITS)
        yield from (words @ weights).tolist()


def undo_xli_differences(spelled: bytes, first: int) -> np.ndarray:
    """Samples from bytes: high bytes, then low bytes, of differences of second order.

    Raises:
        RecordError: a sample does not fit into the 16 bits that all of them have.
    """
    high, low = np.frombuffer(spelled, np.uint8).reshape(2, -1).astype(np.uint16)
    values: list[int] = ((high << 8) | low).view(np.int16).tolist()
    if len(values) < 2:
        raise RecordError("the waveforms have fewer than two samples")
    earlier, last, difference = values[0], values[1], first
    for position in range(2, len(values)):
        earlier, last, difference = (
            last, 2 * last - earlier - difference, values[position] - XLI_DIFFERENCE_OFFSET
        )  # fmt: skip
        values[position] = last
        if not -32768 <= last <= 32767:
            raise RecordError("the waveforms are damaged: a sample exceeds 16 bits")
    return np.array(values, np.int64)
