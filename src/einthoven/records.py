"""Records, leads and the two limb-lead laws that tie them together.

A record is one recording of one patient. What an archive says of it without opening the signal is
a `RecordInfo`; with its signal it is a `Record`. Signals are float32 millivolts,
``(lead, sample)``.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from einthoven.errors import RecordError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# What archives and devices write for the twelve leads, lower-cased and without blanks.
LEAD_ALIASES = {
    **{name.lower(): name for name in LEADS},
    **{f"lead{name.lower()}": name for name in LEADS},
    "mlii": "II",
    "d1": "I", "d2": "II", "d3": "III", "di": "I", "dii": "II", "diii": "III",
    # The chest electrodes' own names (IEC 60601-2-25).
    **{f"c{number}": f"V{number}" for number in range(1, 7)},
}  # fmt: skip

# What comes before a name: ISO/IEEE 11073 codes (HL7, DICOM), labels of EDF.
LEAD_PREFIX = re.compile(r"^(?:mdcecg|ecg|ekg)?(?:lead)?")

# Leads that archives carry beside the twelve: Frank's vectorcardiogram, right and posterior chest.
OTHER_LEADS = frozenset(
    {"vx", "vy", "vz", "x", "y", "z", "v3r", "v4r", "v5r", "v6r", "v7", "v8", "v9", "-avr"}
)


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """What an archive says of one record without its signal being opened.

    Attributes:
        archive: the source data set's name, e.g. ``"ptb-xl"``.
        record_id: unique within the archive; never contains a line break.
        path: the signal's place relative to the archive's folder, with forward slashes, in the form
            that the archive's reader takes.
        patient_id: the archive's own id; empty where the archive does not say, and then every
            record counts as a patient of its own.
        codes: what the archive wrote, each ``"<system>:<code>"``, e.g. ``"snomed:164889003"``,
            ``"scp:AFIB"``; see `einthoven.labels`. A likelihood follows as ``"scp:NORM=80"``.
        age: years; None where not stated or impossible. Ages over 89 are 90.
        sex: ``"female"``, ``"male"`` or empty.
        device: what recorded it, as the archive writes it; empty where the archive does not say.
        site: the archive's own name or number of the place; empty where it does not say.
        fold: the archive's own published fold, 1 to 10; None where it has none.
        problem: why the record cannot be read, found while listing it; empty when nothing is wrong
            so far.
    """

    archive: str
    record_id: str
    path: str
    patient_id: str = ""
    codes: tuple[str, ...] = ()
    age: float | None = None
    sex: str = ""
    device: str = ""
    site: str = ""
    fold: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its signal.

    Attributes:
        info: what the archive says of it.
        signal: ``(lead, sample)`` float32 millivolts, NaN where the archive marks no value.
        fs: sampling rate in hertz.
        leads: one name per row of ``signal``, as the archive writes it.
    """

    info: RecordInfo
    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]


# Lead order ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def lead_name(written: str) -> str | None:
    """The standard name of a lead, or None for a known lead that is not one of the twelve.

    Raises:
        RecordError: the name is not known.

    >>> lead_name("AVR"), lead_name("MDC_ECG_LEAD_II"), lead_name("vx")
    ('aVR', 'II', None)
    """
    # "-aVR" of the Cabrera sequence is aVR upside down: never aVR.
    sign = "-" if re.search(r"(?:^|\s)-", written.strip()) else ""
    key = re.sub(r"\(.*\)$|[\s_-]", "", written.strip().lower())
    key = sign + LEAD_PREFIX.sub("", key)
    if key in LEAD_ALIASES:
        return LEAD_ALIASES[key]
    if key in OTHER_LEADS:
        return None
    nearest = difflib.get_close_matches(key, LEAD_ALIASES, n=1)
    hint = f"; the nearest known name is {LEAD_ALIASES[nearest[0]]}" if nearest else ""
    raise RecordError(f"lead name {written!r} is not known{hint}")


def standard_leads(signal: np.ndarray, leads: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Put a signal's leads into standard order, by name, and complete the limb leads.

    Any two of the six limb leads determine the other four (Einthoven 1912, Goldberger 1942), so
    missing ones are computed. Other missing leads are zero.

    Args:
        signal: ``(lead, sample)`` float32, millivolts.
        leads: one name per row.

    Returns:
        ``(12, sample)`` float32 in the order of `LEADS`, and ``(12,)`` bool: which leads were
        recorded or computed.

    Raises:
        RecordError: a name is unknown, met twice, or none of the twelve leads is there.
    """
    if len(leads) != len(signal):
        raise RecordError(f"{len(leads)} lead names for {len(signal)} rows of signal")
    rows: dict[str, int] = {}
    for row, written in enumerate(leads):
        name = lead_name(written)
        if name in rows:
            raise RecordError(f"lead {name} is met twice")
        if name is not None:
            rows[name] = row
    if not rows:
        raise RecordError(f"none of the twelve leads is there, only {', '.join(leads)}")
    if tuple(rows) == LEADS and len(signal) == len(LEADS):
        return np.asarray(signal, np.float32), np.ones(len(LEADS), bool)
    present = np.array([name in rows for name in LEADS])
    ordered = np.zeros((len(LEADS), signal.shape[1]), np.float32)
    ordered[present] = signal[[rows[name] for name in LEADS if name in rows]]
    return complete_limb_leads(ordered, present)


# The six limb leads as combinations of I and II:
# III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
LIMB_FROM_I_AND_II = np.array(
    [[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32
)


def complete_limb_leads(signal: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the missing limb leads that two present ones determine.

    Args:
        signal: ``(12, sample)`` in standard order.
        present: ``(12,)`` bool.

    Returns:
        The completed signal and what is present now; both unchanged where fewer than two limb leads
        are there.
    """
    limb = np.flatnonzero(present[:6])
    if len(limb) < 2 or len(limb) == 6:
        return signal, present
    known = limb[:2]
    from_known = LIMB_FROM_I_AND_II @ np.linalg.inv(LIMB_FROM_I_AND_II[known])
    missing = np.flatnonzero(~present[:6])
    completed, now_present = signal.copy(), present.copy()
    completed[missing] = (from_known[missing] @ signal[known]).astype(np.float32)
    now_present[missing] = True
    return completed, now_present
