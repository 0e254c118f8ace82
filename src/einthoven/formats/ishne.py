"""ISHNE Holter files (Badilini 1998, "The ISHNE Holter standard output file format").

A header of 522 bytes, a block of any content, then 16-bit samples, all leads of a moment together.
Recordings longer than an hour, as Holters are, are refused by their length like those of any other
format. Built from the description; not verified on a real file.
"""

from __future__ import annotations

import struct

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import FileContent, check_sizes, scale_signal
from einthoven.formats.scp import scp_checksum

ISHNE_MAGIC = b"ISHNE1.0"
ISHNE_HEADER = 522
ISHNE_MOST_LEADS = 12
ISHNE_SIZES = struct.Struct("<HIIIIH")  # checksum; bytes before, samples; places of both; version
ISHNE_LEADS = struct.Struct("<H12h12h12h")  # number, leads, quality, nanovolts per step
ISHNE_SIZES_AT, ISHNE_LEADS_AT, ISHNE_FS_AT = 8, 156, 272
ISHNE_NAMES = {
    1: "bipolar", 2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF",
    11: "V1", 12: "V2", 13: "V3", 14: "V4", 15: "V5", 16: "V6", 17: "ES", 18: "AS", 19: "AI",
}  # fmt: skip
NANOVOLT = 1e-6  # in millivolts


def read_ishne(data: bytes) -> FileContent:
    """The samples of a file.

    Raises:
        RecordError: it is damaged, or too long.
    """
    if len(data) < ISHNE_HEADER:
        raise RecordError("the ISHNE file is cut short in its header")
    checksum, _, n_values, _, start, _ = ISHNE_SIZES.unpack_from(data, ISHNE_SIZES_AT)
    n_leads, *numbers = ISHNE_LEADS.unpack_from(data, ISHNE_LEADS_AT)
    (fs,) = struct.unpack_from("<h", data, ISHNE_FS_AT)
    if not 0 < n_leads <= ISHNE_MOST_LEADS:
        raise RecordError(f"the ISHNE file announces {n_leads} leads; 1 to 12 can be")
    if not ISHNE_HEADER <= start <= len(data):
        raise RecordError("the ISHNE file is cut short before its samples")
    _check_ishne_header(checksum, data[10:start])
    # The size is meant to be that of the whole block; some programs write it per lead.
    n_stored = (len(data) - start) // 2 // n_leads
    n_samples = n_values // n_leads if n_values >= n_stored * n_leads else n_values
    if n_samples > n_stored:
        raise RecordError(f"the ISHNE file is cut short: {n_stored:,} of {n_samples:,} samples")
    check_sizes(n_leads, n_samples, float(fs))
    codes, resolutions = numbers[:n_leads], numbers[24 : 24 + n_leads]
    samples = np.frombuffer(data, "<i2", n_leads * n_samples, start).reshape(n_samples, n_leads)
    names = tuple(ISHNE_NAMES.get(code, f"ISHNE lead {code}") for code in codes)
    signal = scale_signal(samples.T, [steps * NANOVOLT for steps in resolutions])
    return FileContent(signal, float(fs), names)


def _check_ishne_header(stated: int, header: bytes) -> None:
    """The checksum covers what lies between itself and the samples; 0 where none was made."""
    if len(header) > 2**16:
        raise RecordError(f"the ISHNE file's header has {len(header):,} bytes")
    found = scp_checksum(header)
    if stated not in (0, found, int.from_bytes(found.to_bytes(2, "big"), "little")):
        raise RecordError("the checksum of the ISHNE file's header does not match: it is damaged")
