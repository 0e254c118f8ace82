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

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from einthoven.columns import row_pieces
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
# As many sketches are looked up at a time, in every way that their weakest bits may stand.
SKETCHES_PER_PART = 1 << 17
# Bits of a sketch that a part is cut by at a time.
BITS_PER_CUT = 3


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
    parts = [_no_pairs(), *_pairs_below(sketches, None, 0, 0)]
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


def _no_pairs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "first": np.zeros(0, np.int64),
            "second": np.zeros(0, np.int64),
            "lag_s": np.zeros(0, np.float32),
        }
    )


def _pairs_below(
    sketches: Sketches, entries: np.ndarray | None, n_bits: int, prefix: int
) -> Iterator[pd.DataFrame]:
    """Pairs of the keys that begin with some bits, part by part.

    Args:
        entries: the sketches that have such a key, ascending; None for all of them.
        n_bits: how many bits of the key are given.
        prefix: these bits.
    """
    n_entries = len(sketches.sketch) if entries is None else len(entries)
    if n_entries <= SKETCHES_PER_PART or n_bits + BITS_PER_CUT > SKETCH_BITS:
        every = np.arange(n_entries, dtype=np.int32) if entries is None else entries
        yield _pairs_of_part(sketches, every, n_bits, prefix)
        return
    reached = _reached_parts(sketches.sketch, entries, n_bits, prefix)
    for part in range(1 << BITS_PER_CUT):
        inside = _inside(reached, entries, part)
        below = prefix << BITS_PER_CUT | part
        yield from _pairs_below(sketches, inside, n_bits + BITS_PER_CUT, below)


def _inside(reached: np.ndarray, entries: np.ndarray | None, part: int) -> np.ndarray:
    """The sketches that have keys in a part: ``(n,)`` int32."""
    found = [np.zeros(0, np.int32)]
    for piece in row_pieces(len(reached)):
        at = (np.flatnonzero(reached[piece] & (1 << part)) + piece.start).astype(np.int32)
        found.append(at if entries is None else entries[at])
    return np.concatenate(found)


def _reached_parts(
    sketches: np.ndarray, entries: np.ndarray | None, n_bits: int, prefix: int
) -> np.ndarray:
    """Which parts each sketch has keys in, as bits of a number: ``(n,)`` uint8."""
    shift = np.uint64(SKETCH_BITS - n_bits - BITS_PER_CUT)
    reached = np.zeros(len(sketches) if entries is None else len(entries), np.uint8)
    for piece in row_pieces(len(reached)):
        for keys in _keys_of(sketches[piece if entries is None else entries[piece]]):
            part = (keys >> shift) & np.uint64((1 << BITS_PER_CUT) - 1)
            is_below = (keys >> (shift + np.uint64(BITS_PER_CUT))) == prefix
            reached[piece] |= (is_below.astype(np.uint8) << part.astype(np.uint8)).astype(np.uint8)
    return reached


def _pairs_of_part(
    sketches: Sketches, entries: np.ndarray, n_bits: int, prefix: int
) -> pd.DataFrame:
    """Every two entries of one key among neighbours, for the keys that begin with some bits."""
    key, entry, is_exact = _sorted_keys(sketches.sketch[entries], n_bits, prefix)
    left, right = [], []
    for step in range(1, NEIGHBOURS_COMPARED + 1):
        # Exact keys come first within a key: two that were both altered are no evidence.
        near = (key[step:] == key[:-step]) & is_exact[:-step]
        at = np.flatnonzero(near)
        if len(at) == 0:
            break
        left.append(entry[at])
        right.append(entry[at + step])
    a, b = (entries[np.concatenate([np.zeros(0, np.int64), *side])] for side in (left, right))
    swapped = sketches.record[a] > sketches.record[b]
    a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    pairs = pd.DataFrame(
        {
            "first": sketches.record[a].astype(np.int64),
            "second": sketches.record[b].astype(np.int64),
            "lag_s": sketches.time_s[b] - sketches.time_s[a],
        }
    )
    return pairs[pairs["first"] != pairs["second"]]


def _sorted_keys(
    sketches: np.ndarray, n_bits: int, prefix: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys that begin with some bits, which sketch each is of, and whether it is the sketch itself.

    By key, exact ones first, then in the order of the sketches.
    """
    entry_bits = np.uint64(max(len(sketches) - 1, 1).bit_length())
    packed = []
    for choice, keys in enumerate(_keys_of(sketches)):
        mine = np.flatnonzero(keys >> np.uint64(SKETCH_BITS - n_bits) == prefix)
        # The bits that all have in common make room for the flag and the sketch's number.
        own = keys[mine] & np.uint64((1 << (SKETCH_BITS - n_bits)) - 1)
        flagged = own << np.uint64(1) | np.uint64(choice > 0)
        packed.append(flagged << entry_bits | mine.astype(np.uint64))
    together = np.concatenate(packed)
    together.sort()
    entry = (together & ((np.uint64(1) << entry_bits) - np.uint64(1))).astype(np.int64)
    flagged = together >> entry_bits
    return flagged >> np.uint64(1), entry, (flagged & np.uint64(1)) == 0


def _keys_of(sketches: np.ndarray) -> Iterator[np.ndarray]:
    """Each sketch as it is, and with its weakest bits flipped in every way."""
    exact = sketches & np.uint64((1 << SKETCH_BITS) - 1)
    mask = np.uint64((1 << SKETCH_PLACE_BITS) - 1)
    shifts = np.uint64(SKETCH_BITS) + np.arange(SKETCH_WEAK_BITS, dtype=np.uint64) * np.uint64(
        SKETCH_PLACE_BITS
    )
    weak = [np.uint64(1) << ((sketches >> shift) & mask) for shift in shifts]
    for choice in range(1 << SKETCH_WEAK_BITS):
        flipped = exact.copy()
        for number in range(SKETCH_WEAK_BITS):
            if choice >> number & 1:
                flipped ^= weak[number]
        yield flipped
