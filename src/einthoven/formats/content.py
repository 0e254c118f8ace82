"""What a reader of one format hands over, and the limits that all of them keep.

A file may come from anywhere. Nothing in it may run code, fill the memory or the disk, or hang: so
sizes are checked before anything of that size is made, and every reader ends in a `FileContent` or
a `RecordError`.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from einthoven.errors import ConfigError, RecordError
from einthoven.quality import check_length
from einthoven.readers.fields import as_float32
from einthoven.readers.wfdb_header import millivolts_per_unit
from einthoven.records import LEADS, lead_name

# Limits ----------------------------------------------------------------------------------------

# An hour of twelve leads at 1,000 Hz has 43 million values, 82 MiB as 16-bit numbers.
MAX_FILE_MB = 256
# Text takes more memory than its file while it is parsed, XML most.
MAX_TEXT_MB = 64
MAX_XML_MB = 32
MOST_LEADS = 256
MOST_VALUES = 2**26
HIGHEST_FS = 100_000.0


class FileContent(NamedTuple):
    """A signal as its file has it.

    Attributes:
        signal: ``(lead, sample)`` float32; millivolts, unless ``has_units`` is false.
        fs: hertz; None where the file does not say.
        leads: as written; empty where the file names none.
        remarks: what had to be assumed or was left out.
        has_units: whether the file says what its numbers are.
    """

    signal: np.ndarray
    fs: float | None
    leads: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    has_units: bool = True


def check_sizes(n_leads: int, n_samples: int, fs: float | None) -> None:
    """Refuse what a file announces before memory is asked for.

    Raises:
        RecordError: too many leads or samples, none at all, or a rate that cannot be.
    """
    if fs is not None and not (math.isfinite(fs) and 0 < fs <= HIGHEST_FS):
        raise RecordError(f"the file gives a sampling rate of {fs:g} Hz")
    if n_leads < 1 or n_samples < 1:
        raise RecordError("the file holds no samples")
    if n_leads > MOST_LEADS:
        raise RecordError(f"the file holds {n_leads:,} leads; at most {MOST_LEADS} are taken")
    if fs is not None:
        check_length(n_samples, fs)
    if n_leads * n_samples > MOST_VALUES:
        raise RecordError(
            f"the file holds {n_leads:,} leads of {n_samples:,} samples; at most {MOST_VALUES:,} "
            "values are taken"
        )


def stack_leads(rows: Sequence[np.ndarray], names: Sequence[str], fs: float | None) -> np.ndarray:
    """Rows of equal length as ``(lead, sample)`` float32.

    Raises:
        RecordError: there are none, they differ in length, or are too large.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        each = ", ".join(f"{name} {len(row):,}" for name, row in zip(names, rows, strict=True))
        raise RecordError(f"the leads differ in length: {each[:200]} samples")
    check_sizes(len(rows), lengths.pop() if lengths else 0, fs)
    return as_float32(np.stack(rows))


def scale_signal(signal: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Multiply each row by its factor; float32.

    Raises:
        RecordError: a factor is not a finite number other than 0.
    """
    for factor in factors:
        check_factor(factor)
    # A damaged factor may overflow float32; infinities are told as missing samples later.
    with np.errstate(over="ignore", invalid="ignore"):
        return as_float32(signal) * np.array(factors, np.float32)[:, None]


def check_factor(factor: float) -> None:
    """Refuse millivolts per step that would make every sample zero, infinite or no number.

    Raises:
        RecordError: such a factor.
    """
    if not (math.isfinite(factor) and 0 < abs(factor) < 1e6):
        raise RecordError(f"the file gives {factor:g} mV for each step of its numbers")


# Parts of files --------------------------------------------------------------------------------


def needs_library(library: str, file_format: str) -> ConfigError:
    """The error of a library that is not installed, with what installs it."""
    return ConfigError(
        f"{file_format} files need {library}, which is not installed: "
        "pip install 'einthoven[formats]'"
    )


def finite_number(text: str | None, what: str) -> float:
    """A number that a file gives as text.

    Raises:
        RecordError: it is absent or none.
    """
    try:
        value = float((text or "").strip().replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        found = "is missing" if text is None else f"is {text.strip()[:40]!r}"
        raise RecordError(f"{what} {found}; a number is needed")
    return value


def split_numbers(text: str, what: str) -> np.ndarray:
    """Numbers with commas or blanks between, float32.

    Raises:
        RecordError: one of them is none.
    """
    plain = text.replace(",", " ")
    if not plain.strip():
        return np.zeros(0, np.float32)
    try:
        with warnings.catch_warnings():
            # What it stops at is no more than a warning.
            warnings.simplefilter("error")
            return as_float32(np.fromstring(plain, np.float64, sep=" "))
    except (ValueError, DeprecationWarning):
        raise RecordError(f"{what} holds something other than numbers") from None


def decode_base64(text: str, what: str) -> bytes:
    """The bytes of a base64 text; blanks and line breaks do not matter.

    Raises:
        RecordError: it is damaged.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"{what} is no whole base64 text ({error})") from None


def factor_of_unit(unit: str, what: str) -> float:
    """Millivolts in one of a unit, as `millivolts_per_unit`, for the words of all the formats.

    >>> factor_of_unit("MICROVOLTS", "x"), factor_of_unit("uVperLsb", "x")
    (0.001, 0.001)
    """
    word = re.sub(r"perlsb$|olts?(?:perlsb)?$", "", unit.strip().lower())
    word = word.replace("micro", "u").replace("milli", "m").replace("nano", "n")
    try:
        return millivolts_per_unit(word)
    except RecordError:
        raise RecordError(f"{what} is in {unit.strip()[:20]!r}, which is no voltage") from None


# Lead names ------------------------------------------------------------------------------------

# Numbers of leads in SCP-ECG (EN 1064, table of lead identification), which DICOM's and HL7's own
# codes repeat (ISO/IEEE 11073-10102).
SCP_LEADS = {
    1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7",
    11: "V3R", 12: "V4R", 13: "V5R", 14: "V6R", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF",
    65: "-aVR", 66: "V8", 67: "V9", 16: "X", 17: "Y", 18: "Z",
}  # fmt: skip


def is_known_lead(name: str) -> bool:
    """Is a written name that of a lead, one of the twelve or another?"""
    try:
        lead_name(name)
    except RecordError:
        return False
    return True


def is_standard_lead(name: str) -> bool:
    """Is a written name that of one of the twelve leads?"""
    return is_known_lead(name) and lead_name(name) in LEADS
