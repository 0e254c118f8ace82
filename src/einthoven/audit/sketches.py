"""Sketches of recordings, and the pairs of records that share some.

None of it looks at all pairs of records:

1. *Sketches*, while a record is prepared: at each steep moment (a QRS complex, mostly) three
   seconds of the signal's slope around it become 40 bits, the signs of random projections
   (Charikar 2002). A copy has the same moments and nearly the same bits, whatever its start,
   gain and offset.
2. *Candidates*: records that share a sketch. Bits near zero may flip between copies, so sketches
   that differ in the weakest bits are looked up too.

scipy is imported where it is used: a run that finds nothing changed does not need it, and it takes
a third of such a run's time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from einthoven.records import LEADS

# Sketches --------------------------------------------------------------------------------------

# Nearly independent of each other, and the first is there in single-lead archives too.
SKETCH_LEADS = tuple(LEADS.index(name) for name in ("I", "II", "V2"))
SKETCH_SECONDS_BEFORE, SKETCH_SECONDS_AFTER = 0.5, 2.5
SKETCH_FS = 30
SKETCH_BITS = 40
# Bits nearest to zero that may differ between copies; their places are kept behind the sketch.
SKETCH_WEAK_BITS = 3
SKETCH_PLACE_BITS = 6
# Slopes below about a microvolt per sample are no heartbeat.
SKETCH_LEAST_ENERGY = 25.0

_OFFSETS_S = (
    np.arange(int((SKETCH_SECONDS_BEFORE + SKETCH_SECONDS_AFTER) * SKETCH_FS)) / SKETCH_FS
    - SKETCH_SECONDS_BEFORE
)
_SKETCH_DIRECTIONS = (
    np.random.default_rng(20_240_229)
    .standard_normal((len(SKETCH_LEADS) * len(_OFFSETS_S), SKETCH_BITS))
    .astype(np.float32)
)
_SKETCH_PLACES = np.uint64(1) << np.arange(SKETCH_BITS, dtype=np.uint64)


def sketch_signals(signals: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sketch the steep moments of some recordings of one length.

    Args:
        signals: ``(record, len(SKETCH_LEADS), sample)`` int16 microvolts; an absent lead is zero.
        fs: sampling rate, hertz.

    Returns:
        For each sketch: index of the recording, uint64 sketch with the places of its weakest bits,
        and seconds from the recording's start. None for a flat recording, or one shorter than
        three seconds: there is nothing to compare.
    """
    slope, fs = signal_slope(signals, fs)
    record, moment = steep_moments(slope, fs)
    vectors = sample_slope(slope, record, moment[:, None] + _OFFSETS_S * fs)
    # To the power of 3/4: between the plain slope, all QRS, and its sign, all noise.
    root = np.sqrt(np.abs(vectors))
    vectors = np.copysign(root * np.sqrt(root), vectors)
    projections = vectors.reshape(len(record), len(_SKETCH_DIRECTIONS)) @ _SKETCH_DIRECTIONS
    sketches = ((projections > 0) * _SKETCH_PLACES).sum(axis=1, dtype=np.uint64)
    weakest = np.argpartition(np.abs(projections), SKETCH_WEAK_BITS, axis=1)
    for number in range(SKETCH_WEAK_BITS):
        shift = np.uint64(SKETCH_BITS + number * SKETCH_PLACE_BITS)
        sketches |= weakest[:, number].astype(np.uint64) << shift
    return record, sketches, (moment / fs).astype(np.float32)


def signal_slope(signals: np.ndarray, fs: float) -> tuple[np.ndarray, float]:
    """The slope between about 3 and 15 Hz, at 100 to 200 Hz: free of wander, offset and hum."""
    every = max(1, int(fs // 100))
    # Whole numbers, whose running sums are exact however long the recording; sums may wrap around,
    # their differences do not.
    whole = signals.astype(np.int32, copy=False)
    if every > 1:
        whole = whole[..., : whole.shape[-1] // every * every]
        whole = whole.reshape(*whole.shape[:-1], -1, every).sum(axis=-1, dtype=np.int32)
        fs /= every
    width, half = max(1, round(0.06 * fs)), max(1, round(0.03 * fs))
    slope = np.zeros(whole.shape, np.float32)
    start, n_values = width - 1 + half, whole.shape[-1] - 2 * (width - 1 + half)
    if n_values > 0:
        smooth = _running_sum(_running_sum(whole, width), width)
        rise = smooth[..., 2 * half :] - smooth[..., : -2 * half]
        slope[..., start : start + n_values] = rise / np.float32(every * width * width)
    return slope, fs


def _running_sum(values: np.ndarray, width: int) -> np.ndarray:
    """Sums of ``width`` neighbours along the last axis, which gets shorter by ``width - 1``."""
    sums = np.cumsum(values, axis=-1, dtype=values.dtype)
    sums[..., width:] -= sums[..., :-width].copy()
    return sums[..., width - 1 :]


def steep_moments(slope: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the slope's energy peaks, to a fraction of a sample, with room for a sketch around."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    energy = uniform_filter1d(np.square(slope).sum(axis=1), max(1, round(0.1 * fs)), axis=-1)
    highest = maximum_filter1d(energy, 2 * round(0.25 * fs) + 1, axis=-1)
    floor = np.maximum(0.1 * energy.max(axis=-1, keepdims=True), SKETCH_LEAST_ENERGY)
    is_peak = (energy == highest) & (energy > floor)
    is_peak[:, : int(SKETCH_SECONDS_BEFORE * fs) + 2] = False
    is_peak[:, max(0, energy.shape[1] - int(SKETCH_SECONDS_AFTER * fs) - 3) :] = False
    record, sample = np.nonzero(is_peak)
    before, at, after = (energy[record, sample + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
    return record, sample + shift


def sample_slope(slope: np.ndarray, record: np.ndarray, position: np.ndarray) -> np.ndarray:
    """``(moment, lead, offset)``: the slope at fractional samples, interpolated linearly."""
    n_leads, n_samples = slope.shape[1:]
    whole = position.astype(np.intp)
    part = (position - whole).astype(np.float32)[:, None]
    row = (record[:, None] * n_leads + np.arange(n_leads)) * n_samples
    index = row[:, :, None] + whole[:, None]
    flat = slope.reshape(-1)
    left = flat.take(index)
    index += 1
    return np.asarray(left + part * (flat.take(index) - left))


# Candidates ------------------------------------------------------------------------------------

# Each entry is compared with this many neighbours of the same sketch, so that a sketch that very
# many records share (a calibration signal, an archive copied ten times) costs linear time; copies
# are still joined, because the neighbours form a chain.
NEIGHBOURS_COMPARED = 16
CANDIDATES_PER_RECORD = 8
# Sketches are looked up in this many parts, each small enough for memory, above a million of them.
SKETCHES_PER_PART = 1_000_000


class Sketches(NamedTuple):
    """Sketches of many records: index of the record, sketch, seconds from the record's start."""

    record: np.ndarray
    sketch: np.ndarray
    time_s: np.ndarray


def find_candidates(sketches: Sketches) -> pd.DataFrame:
    """Pairs of records that share sketches at one time shift.

    Returns:
        Columns ``first`` < ``second`` (record indices), ``lag_s`` (the second's time less the
        first's), ``n_shared``; at most `CANDIDATES_PER_RECORD` for each ``second``, best first.
    """
    n_parts = 1 + len(sketches.record) // SKETCHES_PER_PART
    parts = [_pairs_of_part(sketches, part, n_parts) for part in range(n_parts)]
    pairs = pd.concat(parts, ignore_index=True)
    pairs["step"] = (pairs["lag_s"] * 10).round().astype(np.int64)
    counted = pairs.groupby(["first", "second", "step"], as_index=False).agg(
        lag_s=("lag_s", "median"), n_shared=("lag_s", "size")
    )
    counted = counted.sort_values(
        ["n_shared", "first", "second", "step"], ascending=[False, True, True, True]
    )
    best = counted.drop_duplicates(["first", "second"]).drop(columns="step")
    return best.groupby("second").head(CANDIDATES_PER_RECORD).reset_index(drop=True)


def _pairs_of_part(sketches: Sketches, part: int, n_parts: int) -> pd.DataFrame:
    """Every two entries of one key among neighbours, for one part of all keys."""
    key, entry, is_exact = _lookup_keys(sketches.sketch, part, n_parts)
    order = np.lexsort((entry, ~is_exact, key))
    key, entry, is_exact = key[order], entry[order], is_exact[order]
    left, right = [], []
    for step in range(1, NEIGHBOURS_COMPARED + 1):
        # Exact keys come first within a key: two that were both altered are no evidence.
        near = (key[step:] == key[:-step]) & is_exact[:-step]
        at = np.flatnonzero(near)
        if len(at) == 0:
            break
        left.append(entry[at])
        right.append(entry[at + step])
    a = np.concatenate([np.zeros(0, np.int64), *left])
    b = np.concatenate([np.zeros(0, np.int64), *right])
    swapped = sketches.record[a] > sketches.record[b]
    a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    pairs = pd.DataFrame(
        {
            "first": sketches.record[a],
            "second": sketches.record[b],
            "lag_s": sketches.time_s[b] - sketches.time_s[a],
        }
    )
    return pairs[pairs["first"] != pairs["second"]]


def _lookup_keys(
    sketches: np.ndarray, part: int, n_parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys of one part: each sketch as it is, and with its weakest bits flipped in every way."""
    exact = sketches & np.uint64((1 << SKETCH_BITS) - 1)
    mask = np.uint64((1 << SKETCH_PLACE_BITS) - 1)
    shifts = np.uint64(SKETCH_BITS) + np.arange(SKETCH_WEAK_BITS, dtype=np.uint64) * np.uint64(
        SKETCH_PLACE_BITS
    )
    weak = np.uint64(1) << ((sketches[:, None] >> shifts) & mask)
    keys, entries, flags = [], [], []
    for choice in range(1 << SKETCH_WEAK_BITS):
        flipped = exact.copy()
        for number in range(SKETCH_WEAK_BITS):
            if choice >> number & 1:
                flipped ^= weak[:, number]
        mine = np.flatnonzero(flipped % np.uint64(n_parts) == part)
        keys.append(flipped[mine])
        entries.append(mine)
        flags.append(np.full(len(mine), choice == 0))
    return np.concatenate(keys), np.concatenate(entries), np.concatenate(flags)
