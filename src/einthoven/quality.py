"""What is wrong with a recording: missing values, signals that cannot be an ECG, doubtful leads.

Arrays in, arrays out. Signals are float32 millivolts, ``(lead, sample)``; rates are hertz.
"""

from __future__ import annotations

import math

import numpy as np

from einthoven.errors import RecordError
from einthoven.records import LEADS

# Missing values --------------------------------------------------------------------------------

# A lead with more than this share missing is counted as absent.
MISSING_LIMIT = 0.1


def fill_missing(signal: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Interpolate gaps, and drop leads that have too many.

    Gaps (NaN or infinite) are filled linearly, at the ends with the nearest value, where they make
    up at most a tenth of a lead; a lead with more becomes zero and absent.

    Args:
        signal: ``(12, sample)`` float32 millivolts.
        present: ``(12,)`` bool.

    Returns:
        The filled signal, what is present now, and which share of the samples of the leads present
        before had no value. The first two are the arguments themselves where nothing is missing.

    Raises:
        RecordError: no lead is left.
    """
    flat = signal.reshape(-1)
    # One NaN or infinity anywhere makes the sum of squares not finite.
    if math.isfinite(np.dot(flat, flat)):
        return signal, present, 0.0
    missing = ~np.isfinite(signal)
    share = missing.mean(axis=1)
    now_present = present & (share <= MISSING_LIMIT)
    if not now_present.any():
        raise RecordError(
            f"no lead has values for at least {1 - MISSING_LIMIT:.0%} of the record; "
            f"{share[present].mean():.0%} of the samples are missing"
        )
    filled = np.where(now_present[:, None], signal, np.float32(0))
    positions = np.arange(signal.shape[1])
    for lead in np.flatnonzero(now_present & (share > 0)):
        known = ~missing[lead]
        filled[lead, ~known] = np.interp(positions[~known], positions[known], signal[lead, known])
    return filled, now_present, float(share[present].mean())


# Refused ---------------------------------------------------------------------------------------

SHORTEST_SECONDS = 1.0
LOWEST_FS = 50.0
# A day of Holter would outweigh 8,000 ordinary records in every batch, and takes 2 GB to read.
LONGEST_RECORD_S = 3600.0
# Peak to peak. Of 2,606 real records the widest typical lead spans 13 mV and every widest lead over
# 0.4 mV, so that only another unit (volts, microvolts, raw steps) falls outside.
WIDEST_MV = 50.0
NARROWEST_MV = 0.02


def check_length(n_samples: int, fs: float) -> None:
    """Refuse a signal that is too long; one of an impossible rate is for `check_signal` to refuse.

    Raises:
        RecordError: it lasts more than `LONGEST_RECORD_S`.
    """
    if fs >= LOWEST_FS and n_samples > LONGEST_RECORD_S * fs:
        raise RecordError(
            f"the signal lasts {n_samples / fs / 3600:.1f} h; at most "
            f"{LONGEST_RECORD_S / 3600:g} h are taken: cut the recording into shorter ones"
        )


def check_signal(signal: np.ndarray, fs: float) -> None:
    """Refuse a recording that cannot be an ECG in millivolts.

    Refused: a rate that is not finite or below 50 Hz, no sample, less than a second, no lead that
    varies, a largest span below 0.02 mV, and a span of 50 mV or more in the typical lead (the
    median over the leads that vary), spikes left out.

    Args:
        signal: ``(lead, sample)`` millivolts without NaN; absent leads are zero.
        fs: sampling rate in hertz.

    Raises:
        RecordError: the reason.
    """
    if not math.isfinite(fs) or fs < LOWEST_FS:
        raise RecordError(f"the sampling rate is {fs:g} Hz; at least {LOWEST_FS:g} Hz is needed")
    if signal.size == 0:
        raise RecordError("the signal is empty")
    seconds = signal.shape[1] / fs
    if seconds < SHORTEST_SECONDS:
        raise RecordError(
            f"the signal lasts {seconds:.3g} s; at least {SHORTEST_SECONDS:g} s are needed"
        )
    span = signal.max(axis=1) - signal.min(axis=1)
    widest = float(span.max())
    if widest == 0:
        raise RecordError("no lead varies: every lead is flat")
    if widest < NARROWEST_MV:
        raise RecordError(
            f"the widest lead spans {widest * 1000:.2g} µV: no electrode was attached, or the unit "
            f"is not the millivolt that the file states"
        )
    if widest >= WIDEST_MV:
        _check_typical_span(signal[span > 0])


def _check_typical_span(signal: np.ndarray) -> None:
    # Without the outermost hundredth of the samples, which may be spikes.
    low, high = np.percentile(signal, [0.5, 99.5], axis=1)
    typical = float(np.median(high - low))
    if typical >= WIDEST_MV:
        raise RecordError(
            f"a typical lead spans {typical:.4g} mV; an ECG spans a few: the unit or gain that the "
            f"file states is wrong"
        )


# Doubtful --------------------------------------------------------------------------------------

FLAT_MV = 0.005
FLAT_BLOCK = 100
CLIPPED_RUN = 5
# Real plateaus at an extreme, and the constant that fills the end of some records, reach 1.5 %.
CLIPPED_LIMIT = 0.02
# 2,422 real records reach 0.005 mV; all of them exceed this with leads I and II swapped.
LEAD_LAW_LIMIT_MV = 0.05
LEAD_LAW_SAMPLES = 1000


def quality_flags(
    signal: np.ndarray, present: np.ndarray, missing_fraction: float = 0.0
) -> dict[str, str | float]:
    """What is doubtful in a recording, without refusing it.

    Args:
        signal: ``(12, sample)`` float32 millivolts without NaN, in standard order, as recorded
            (clipping does not survive a filter).
        present: ``(12,)`` bool.
        missing_fraction: from `fill_missing`.

    Returns:
        ``flat_leads``: present leads that span less than 5 µV or are constant for most of the
        record (over half of its blocks of 100 samples), as ``"V1,V2"``. ``clipped_fraction``: the
        share of samples at the lead's own maximum or minimum in runs of five or more, in the lead
        that has most. ``lead_law_residual_mv``: see `lead_law_residual`.
        ``missing_fraction``. ``quality``: ``;``-joined flags: ``flat_lead`` (any), ``clipped``
        (2 % or more), ``lead_law`` (0.05 mV or more), ``missing`` (any).
    """
    low, high = signal.min(axis=1), signal.max(axis=1)
    is_flat = present & ((high - low < FLAT_MV) | _is_mostly_constant(signal))
    clipped = _clipped_fraction(signal, low, high, present & ~is_flat)
    residual = lead_law_residual(signal, present & ~is_flat)
    raised = {
        "flat_lead": is_flat.any(),
        "clipped": clipped >= CLIPPED_LIMIT,
        "lead_law": residual >= LEAD_LAW_LIMIT_MV,
        "missing": missing_fraction > 0,
    }
    return {
        "flat_leads": ",".join(LEADS[lead] for lead in np.flatnonzero(is_flat)),
        "clipped_fraction": clipped,
        "lead_law_residual_mv": residual,
        "missing_fraction": missing_fraction,
        "quality": ";".join(flag for flag, is_raised in raised.items() if is_raised),
    }


def _is_mostly_constant(signal: np.ndarray) -> np.ndarray:
    """Which leads hold one value throughout over half of their blocks."""
    n_leads, n_samples = signal.shape
    n_blocks = max(1, n_samples // FLAT_BLOCK)
    blocks = signal[:, : n_blocks * FLAT_BLOCK].reshape(n_leads, n_blocks, -1)
    # Two samples of each block tell nearly every lead that varies.
    middle = blocks.shape[2] // 2
    constant: np.ndarray = (blocks[:, :, 0] == blocks[:, :, middle]).sum(axis=1) > n_blocks / 2
    for lead in np.flatnonzero(constant):
        constant[lead] = (np.ptp(blocks[lead], axis=1) == 0).mean() > 0.5
    return constant


def _clipped_fraction(
    signal: np.ndarray, low: np.ndarray, high: np.ndarray, counted: np.ndarray
) -> float:
    """The largest share, over the leads that count, of samples in runs at a rail."""
    n_leads, n_samples = signal.shape
    at_rail = np.flatnonzero((signal == low[:, None]) | (signal == high[:, None]))
    last = CLIPPED_RUN - 1
    if not (at_rail[last:] - at_rail[: len(at_rail) - last] == last).any():
        return 0.0
    lead = at_rail // n_samples
    # Numbered with a gap between leads, so that no run goes over from one to the next.
    ends = np.flatnonzero(np.diff(at_rail + lead, append=-2) != 1)
    lengths = np.diff(ends, prepend=-1)
    lengths[lengths < CLIPPED_RUN] = 0
    held = np.bincount(lead[ends], lengths, minlength=n_leads)
    return float((held * counted).max() / n_samples)


def lead_law_residual(signal: np.ndarray, present: np.ndarray) -> float:
    """How far a recording is from its limb-lead laws, in millivolts.

    The laws are I + III = II (Einthoven 1912) and aVR + aVL + aVF = 0, aVR = -(I + II) / 2 and
    aVF = (II + III) / 2 (Goldberger 1942); each counts where all its leads are present. Of each
    law's error over the samples the 95th percentile is taken, and of those the largest. Swapped
    lead columns leave a residual of the size of the waves; rounding leaves a few microvolts. The
    constant part is removed first, because amplifiers add their own offsets. About a thousand
    samples are looked at.

    Args:
        signal: ``(12, sample)`` millivolts in standard order.
        present: ``(12,)`` bool.
    """
    step = max(1, signal.shape[1] // LEAD_LAW_SAMPLES)
    kept = [present[:6][law != 0].all() for law in LIMB_LEAD_LAWS]
    if not any(kept):
        return 0.0
    errors = LIMB_LEAD_LAWS[kept] @ signal[:6, ::step]
    # Sorting is faster here than the selection that np.median and np.percentile do.
    errors.sort(axis=1)
    distance = np.abs(errors - errors[:, errors.shape[1] // 2, None])
    distance.sort(axis=1)
    return float(distance[:, int(0.95 * (distance.shape[1] - 1))].max())


# Rows are laws, columns I, II, III, aVR, aVL, aVF; a recording that obeys them gives zero.
LIMB_LEAD_LAWS = np.array(
    [[1, -1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0.5, 0.5, 0, 1, 0, 0], [0, 0.5, 0.5, 0, 0, -1]],
    np.float32,
)
