"""SCP-ECG (EN 1064, ISO 11073-91064): what is recorded, and no more.

Read are the pointers (section 0), Huffman tables (2), leads (3) and rhythm data (6). Two ways of
making files smaller, which few recorders use, are refused by name rather than guessed at: no real
file was at hand to check them against.
"""

from __future__ import annotations

import binascii
import struct
from typing import NamedTuple

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    MOST_LEADS,
    SCP_LEADS,
    FileContent,
    check_sizes,
    scale_signal,
    stack_leads,
)
from einthoven.formats.scp_huffman import HuffmanTable, decode_huffman, read_huffman_tables

SCP_SECTION_HEADER = 16
SCP_POINTER = struct.Struct("<HII")  # section, length, place counted from 1
SCP_LEAD = struct.Struct("<IIB")  # first sample, last sample, lead
SCP_RHYTHM = struct.Struct("<HHBB")  # nanovolts per step, µs per sample, differences, bimodal
NANOVOLTS_PER_MILLIVOLT = 1e6


class ScpLead(NamedTuple):
    """A lead of section 3: its name, and how many samples it is said to have."""

    name: str
    n_samples: int


def is_scp(data: bytes) -> bool:
    """Is this an SCP-ECG file? Before version 1.3 only its stated length tells."""
    if data[16:22] == b"SCPECG":
        return True
    return data[8:10] == b"\0\0" and data[2:6] == struct.pack("<I", len(data)) and len(data) > 158


def read_scp(data: bytes) -> FileContent:
    """The rhythm data of a file.

    Raises:
        RecordError: it is damaged, or compressed in a way that is not read.
    """
    sections = _scp_sections(data)
    leads = _scp_leads(sections.get(3, b""))
    rhythm = sections.get(6, b"")
    n_lengths = SCP_RHYTHM.size + 2 * len(leads)
    if len(rhythm) < n_lengths:
        raise RecordError("the SCP-ECG file has no rhythm data (section 6)")
    nanovolts, interval, differences, bimodal = SCP_RHYTHM.unpack_from(rhythm)
    if bimodal:
        raise RecordError(
            "the SCP-ECG file is compressed bimodally (thinned out between the beats), which is "
            "not read: export it without lossy compression"
        )
    if not interval:
        raise RecordError("the SCP-ECG file gives an interval of 0 µs between its samples")
    fs = round(1e6 / interval, 6)
    lengths = struct.unpack_from(f"<{len(leads)}H", rhythm, SCP_RHYTHM.size)
    tables = read_huffman_tables(sections[2]) if sections.get(2) else None
    rows, start = [], n_lengths
    for lead, n_bytes in zip(leads, lengths, strict=True):
        check_sizes(len(leads), lead.n_samples, fs)
        rows.append(_scp_lead(rhythm[start : start + n_bytes], n_bytes, lead, tables, differences))
        start += n_bytes
    names = tuple(lead.name for lead in leads)
    signal = stack_leads(rows, names, fs)
    others = ("the rhythm data was taken; left out: averaged beats",) if sections.get(5) else ()
    factors = [nanovolts / NANOVOLTS_PER_MILLIVOLT] * len(rows)
    return FileContent(scale_signal(signal, factors), fs, names, others)


def _scp_sections(data: bytes) -> dict[int, bytes]:
    """The sections' contents, without their headers."""
    start = 6  # checksum and length of the file
    if len(data) < start + SCP_SECTION_HEADER:
        raise RecordError("the SCP-ECG file is cut short")
    (length,) = struct.unpack_from("<I", data, start + 4)
    pointers = data[start + SCP_SECTION_HEADER : start + min(length, 10_000)]
    sections: dict[int, bytes] = {}
    for position in range(0, len(pointers) - SCP_POINTER.size + 1, SCP_POINTER.size):
        number, n_bytes, place = SCP_POINTER.unpack_from(pointers, position)
        if n_bytes <= SCP_SECTION_HEADER or number in sections or number == 0:
            continue
        if place < 1 or place - 1 + n_bytes > len(data):
            raise RecordError(f"the SCP-ECG file is cut short in section {number}")
        body = data[place - 1 : place - 1 + n_bytes]
        _check_scp_section(number, body)
        sections[number] = body[SCP_SECTION_HEADER:]
    return sections


def _check_scp_section(number: int, body: bytes) -> None:
    stated, found = struct.unpack_from("<HH", body)
    if found != number:
        raise RecordError(f"section {number} of the SCP-ECG file says that it is {found}")
    # Only what is read has to be whole: the sums of the others are the recorder's business.
    if number in (2, 3, 6) and stated not in (0, scp_checksum(body[2:])):
        raise RecordError(f"the checksum of section {number} does not match: the file is damaged")


def scp_checksum(data: bytes) -> int:
    """CRC-CCITT as SCP-ECG takes it: polynomial 0x1021, starting from 0xFFFF."""
    return binascii.crc_hqx(data, 0xFFFF)


def _scp_leads(body: bytes) -> list[ScpLead]:
    if len(body) < 2:
        raise RecordError("the SCP-ECG file has no list of leads (section 3)")
    n_leads, flags = body[0], body[1]
    if flags & 1:
        raise RecordError(
            "the SCP-ECG file holds what is left after an averaged beat is subtracted, which is "
            "not read: export it without lossy compression"
        )
    if not 0 < n_leads <= MOST_LEADS or len(body) < 2 + n_leads * SCP_LEAD.size:
        raise RecordError(f"the list of {n_leads} leads is damaged")
    leads = []
    for number in range(n_leads):
        first, last, code = SCP_LEAD.unpack_from(body, 2 + number * SCP_LEAD.size)
        # Samples are counted from 1, both ends included; some programs count from 0 and mean that
        # the last one is not.
        n_samples = last - first + (1 if first else 0)
        if n_samples < 1:
            raise RecordError(f"lead {number + 1} runs from sample {first} to sample {last}")
        leads.append(ScpLead(SCP_LEADS.get(code, f"SCP lead {code}"), n_samples))
    return leads


def _scp_lead(
    raw: bytes, n_bytes: int, lead: ScpLead, tables: list[HuffmanTable] | None, differences: int
) -> np.ndarray:
    """The samples of one lead, int64."""
    if len(raw) < n_bytes:
        raise RecordError(f"lead {lead.name} is cut short")
    if tables is None:
        values = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")[: lead.n_samples].astype(np.int64)
    else:
        values = decode_huffman(raw, lead.n_samples, tables)
    if len(values) < lead.n_samples:
        raise RecordError(f"lead {lead.name} has {len(values):,} of {lead.n_samples:,} samples")
    if differences not in (0, 1, 2):
        raise RecordError(f"lead {lead.name} holds differences of order {differences}")
    if differences == 2:
        # The first two values are samples: x[n] = v[n] + 2 x[n-1] - x[n-2].
        values[1:] = np.cumsum(np.concatenate([np.diff(values[:2]), values[2:]]))
    if differences:
        values = np.cumsum(values)
    if np.abs(values).max() > 2**24:
        raise RecordError(f"lead {lead.name} runs out of bounds: the file is damaged")
    return values
