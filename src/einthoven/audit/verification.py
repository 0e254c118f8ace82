"""Candidates compared: aligned by cross-correlation, doubtful ones heartbeat by heartbeat."""

from __future__ import annotations

import numpy as np
import pandas as pd

from einthoven.audit.sketches import (
    Sketches,
    find_candidates,
    sample_slope,
    signal_slope,
    steep_moments,
)
from einthoven.console import progress
from einthoven.store import Store, stored_signal

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
    names = store.manifest["record"]
    rows = []
    triples = zip(candidates["first"], candidates["second"], candidates["lag_s"], strict=True)
    for first, second, lag_s in progress(
        triples, desc="comparing", total=len(candidates), unit="pairs"
    ):
        one, two = stored_signal(store, int(first)), stored_signal(store, int(second))
        correlation, lag, overlap = compare_anywhere(one, two, store.target_fs, float(lag_s))
        if correlation >= LEAST_CORRELATION:
            pair = names.iloc[[int(first), int(second)]].tolist()
            rows.append((*pair, lag, overlap, correlation))
    found = pd.DataFrame(rows, columns=list(PAIR_COLUMNS)).round(4)
    # Rounding leaves -0.0 of a tiny negative lag.
    found["lag_s"] += 0.0
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

    one, rate = signal_slope(first, fs)
    two, _ = signal_slope(second, fs)
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
    one, rate = signal_slope(first, fs)
    two, _ = signal_slope(second, fs)
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
    _, moments = steep_moments(one[None], rate)
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
    beats = sample_slope(scaled[None], np.zeros(len(moments), np.int64), positions)
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
