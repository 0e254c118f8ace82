"""The duplicate audit: one recording met twice, found from its signal.

Archives overlap: the Challenges contain PTB-XL and PTB, at other rates, in other units, with
trimmed ends. A copy in the training split and another in the test split is a leak that no id shows.
Three steps, none of which looks at all pairs of records:

1. *Sketches*, while a record is prepared: at each steep moment (a QRS complex, mostly) three
   seconds of the signal's slope around it become 40 bits, the signs of random projections
   (Charikar 2002). A copy has the same moments and nearly the same bits, whatever its start,
   gain and offset.
2. *Candidates*: records that share a sketch. Bits near zero may flip between copies, so sketches
   that differ in the weakest bits are looked up too.
3. *Verification*: candidates are aligned by cross-correlation and compared over all their overlap,
   doubtful ones heartbeat by heartbeat.

scipy is imported where it is used: a run that finds nothing changed does not need it, and it takes
a third of such a run's time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from einthoven.console import progress
from einthoven.records import LEADS
from einthoven.store import Store, stored_signal

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
    slope, fs = _slope(signals, fs)
    record, moment = _steep_moments(slope, fs)
    vectors = _sample_slope(slope, record, moment[:, None] + _OFFSETS_S * fs)
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


def _slope(signals: np.ndarray, fs: float) -> tuple[np.ndarray, float]:
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


def _steep_moments(slope: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
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


def _sample_slope(slope: np.ndarray, record: np.ndarray, position: np.ndarray) -> np.ndarray:
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


# Verification ----------------------------------------------------------------------------------

# Copies (resampled, trimmed, rescaled, filtered without a phase shift) reach 0.98 and more, the
# most alike of different recordings 0.93, but more in larger archives; see
# docs/explanation/splits-and-leakage.md.
LEAST_CORRELATION = 0.97
# From here on the rhythm is much the same, and another lag may fit better.
OUT_OF_STEP = 0.4
# Up to here a pair has to show that it shares single heartbeats, not only their shape and rhythm.
CERTAIN_CORRELATION = 0.995
LARGEST_BEAT_MISFIT = 0.8
BEAT_HALF_S, BEAT_SHIFT_S = 0.25, 0.04
FEWEST_BEATS, MOST_BEATS = 3, 64
LEAST_OVERLAP_S = 5.0
ALIGN_WITHIN_S = 0.06
# The steepest leads are enough to align two recordings, and to tell most pairs apart.
LEADS_TO_ALIGN = 3
# At whole samples copies agree less than when aligned, never as little as this.
LEAST_AGREEMENT = 0.85
# Raised whenever the code here changes which pairs are found.
AUDIT_VERSION = 3
# Filters ring at the ends of a recording: PTB-XL's own 100 Hz files differ there from the 500 Hz
# ones by more than anywhere else.
EDGE_S = 0.25

PAIR_COLUMNS = ("record", "copy", "lag_s", "overlap_s", "correlation")


def find_duplicates(store: Store, sketches: Sketches) -> pd.DataFrame:
    """Pairs of records of a store that hold the same recording.

    Returns:
        One row per pair: ``record``, ``copy``, ``lag_s`` (when in ``copy`` the start of ``record``
        falls), ``overlap_s``, ``correlation``.
    """
    candidates = find_candidates(sketches)
    names = store.manifest["record"].to_numpy()
    rows = []
    triples = zip(candidates["first"], candidates["second"], candidates["lag_s"], strict=True)
    for first, second, lag_s in progress(
        triples, desc="comparing", total=len(candidates), unit="pairs"
    ):
        one, two = stored_signal(store, int(first)), stored_signal(store, int(second))
        correlation, lag, overlap = compare_anywhere(one, two, store.target_fs, float(lag_s))
        if correlation >= LEAST_CORRELATION:
            rows.append((names[first], names[second], lag, overlap, correlation))
    found = pd.DataFrame(rows, columns=list(PAIR_COLUMNS)).round(4)
    return found.sort_values(["record", "copy"], ignore_index=True)


def compare_anywhere(
    first: np.ndarray, second: np.ndarray, fs: float, lag_s: float
) -> tuple[float, float, float]:
    """As `compare_recordings`; two like rhythms that are out of step there, at the likeliest lag.

    The beats of a flutter or a pacemaker have one sketch all, which cannot tell how many beats one
    recording lies behind the other.
    """
    compared = compare_recordings(first, second, fs, lag_s)
    if not OUT_OF_STEP <= compared[0] < LEAST_CORRELATION:
        return compared
    return compare_recordings(first, second, fs, _likeliest_lag_s(first, second, fs))


def _likeliest_lag_s(first: np.ndarray, second: np.ndarray, fs: float) -> float:
    """The lag of the largest correlation over all leads with enough of an overlap."""
    from scipy import fft

    one, rate = _slope(first, fs)
    two, _ = _slope(second, fs)
    n_one, n_two = one.shape[1], two.shape[1]
    lags = np.arange(1 - n_one, n_two)
    n_fft = fft.next_fast_len(len(lags), real=True)
    spectrum = fft.rfft(one, n_fft, axis=1).conj() * fft.rfft(two, n_fft, axis=1)
    products = fft.irfft(spectrum.sum(axis=0), n_fft)[lags]
    start, stop = np.maximum(0, -lags), np.minimum(n_one, n_two - lags)
    energy = [
        np.concatenate([[0], np.cumsum(np.square(x).sum(axis=0), dtype=float)]) for x in (one, two)
    ]
    norm = (energy[0][stop] - energy[0][start]) * (energy[1][stop + lags] - energy[1][start + lags])
    scores = products / np.sqrt(np.maximum(norm, 1.0))
    scores[stop - start < min(LEAST_OVERLAP_S * rate, 0.9 * min(n_one, n_two))] = -1
    return float(lags[np.argmax(scores)] / rate)


def compare_recordings(
    first: np.ndarray, second: np.ndarray, fs: float, lag_s: float
) -> tuple[float, float, float]:
    """How alike two recordings are where they overlap.

    Args:
        first, second: ``(12, sample)`` int16 microvolts.
        fs: their sampling rate, hertz.
        lag_s: about when in ``second`` the start of ``first`` falls; off by 0.06 s at most.

    Returns:
        The median over the leads with signal in both of the correlation of their slopes (0 where
        the overlap is too short or the heartbeats are others), the lag in seconds, the overlap in
        seconds. Recordings that do not agree in their steepest leads are not looked at further, and
        their overlap is 0.
    """
    one, rate = _slope(first, fs)
    two, _ = _slope(second, fs)
    shared = (np.square(one).mean(axis=1) > 1) & (np.square(two).mean(axis=1) > 1)
    one, two = one[shared], two[shared]
    steepest = np.argsort(-np.square(one).sum(axis=1))[:LEADS_TO_ALIGN]
    lag, agreement = _best_lag(one[steepest], two[steepest], lag_s * rate, ALIGN_WITHIN_S * rate)
    if agreement < LEAST_AGREEMENT:
        return max(0.0, agreement), lag / rate, 0.0
    positions = np.arange(one.shape[1]) + lag
    edge = round(EDGE_S * rate)
    inside = (positions >= edge) & (positions <= two.shape[1] - 1 - edge)
    inside[:edge] = inside[len(inside) - edge :] = False
    overlap_s = inside.sum() / rate
    # A short recording has to overlap whole, less its ends and what alignment may cost.
    whole_s = min(one.shape[1], two.shape[1]) / rate - 2 * (EDGE_S + ALIGN_WITHIN_S)
    if not shared.any() or overlap_s < min(LEAST_OVERLAP_S, whole_s) or overlap_s < 1:
        return 0.0, lag / rate, overlap_s
    whole = positions[inside].astype(np.int64)
    part = (positions[inside] - whole).astype(np.float32)
    moved = two[:, whole] * (1 - part) + two[:, whole + 1] * part
    correlation = float(np.median(_row_correlations(one[:, inside], moved)))
    if (
        LEAST_CORRELATION <= correlation < CERTAIN_CORRELATION
        and _beat_misfit(one, two, lag, rate) > LARGEST_BEAT_MISFIT
    ):
        correlation = 0.0
    return correlation, lag / rate, overlap_s


def _beat_misfit(one: np.ndarray, two: np.ndarray, lag: float, rate: float) -> float:
    """How badly a heartbeat fits its counterpart, relative to the best-fitting other heartbeat.

    In a copy each beat brings its own noise along and fits its counterpart best: at most 0.61 where
    measured. Two recordings that are only alike have beats that fit any beat as well: 1.0 and more.

    Returns:
        The median over the beats; 0 with fewer than three beats to compare.
    """
    half, shift = round(BEAT_HALF_S * rate), BEAT_SHIFT_S * rate
    _, moments = _steep_moments(one[None], rate)
    first, last = moments + min(lag - shift, 0) - half, moments + max(lag + shift, 0) + half
    inside = (first >= 0) & (moments + half < one.shape[1] - 2) & (last < two.shape[1] - 2)
    moments = moments[inside]
    if len(moments) < FEWEST_BEATS:
        return 0.0
    # Of an hour's recording not every beat with every other one.
    moments = moments[:: -(-len(moments) // MOST_BEATS)]
    beats = _unit_beats(one, moments, half)
    fits = [
        np.einsum("ils,jls->ij", beats, _unit_beats(two, moments + lag + by, half))
        for by in np.linspace(-shift, shift, 9)
    ]
    misfit = 1 - np.square(np.max(fits, axis=0).clip(0))
    own = misfit.diagonal()
    others = np.where(np.eye(len(own), dtype=bool), np.inf, misfit).min(axis=1)
    return float(np.median(own / np.maximum(others, 1e-9)))


def _unit_beats(slope: np.ndarray, moments: np.ndarray, half: int) -> np.ndarray:
    """``(beat, lead, sample)``: the slope around moments, each lead and beat of one size."""
    scaled = slope / np.sqrt(np.square(slope).mean(axis=1, keepdims=True))
    positions = moments[:, None] + np.arange(-half, half + 1)
    beats = _sample_slope(scaled[None], np.zeros(len(moments), np.int64), positions)
    size = np.sqrt(np.square(beats).sum(axis=(1, 2), keepdims=True))
    return np.asarray(beats / np.maximum(size, 1e-9))


def _best_lag(one: np.ndarray, two: np.ndarray, about: float, within: float) -> tuple[float, float]:
    """The lag, to a fraction of a sample, at which the leads agree best, and how well they do."""
    lags = np.arange(round(about - within), round(about + within) + 1)
    scores = np.array([_agreement_at(one, two, int(lag)) for lag in lags])
    at = int(np.argmax(scores))
    if not 0 < at < len(lags) - 1:
        return float(lags[at]), float(scores[at])
    before, peak, after = scores[at - 1 : at + 2]
    bend = before - 2 * peak + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(lags[at] + shift), float(peak)


def _agreement_at(one: np.ndarray, two: np.ndarray, lag: int) -> float:
    edge = min(one.shape[1], two.shape[1]) // 40
    start, stop = max(edge, edge - lag), min(one.shape[1], two.shape[1] - lag) - edge
    if stop - start < 2 or len(one) == 0:
        return -1.0
    a, b = one[:, start:stop], two[:, start + lag : stop + lag]
    return float(np.mean(_row_correlations(a, b)))


def _row_correlations(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.square(one).sum(axis=1) * np.square(two).sum(axis=1))
    return np.asarray((one * two).sum(axis=1) / np.maximum(norm, 1e-9))
