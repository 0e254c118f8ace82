"""Where the heartbeats of a recording are, well enough to say which of them mattered."""

from __future__ import annotations

import numpy as np

# A slope is a difference over this time; QRS is steep on this scale, P and T are not.
_SLOPE_S = 0.02
_QRS_S = 0.08
# Ventricles cannot be excited again sooner.
_REFRACTORY_S = 0.25
# Of the typical beat's steepness; ectopic and low beats reach it, T waves do not.
_LEAST_STEEPNESS = 0.35
# Nearer to either end a QRS complex is cut off, or it is none: what an archive has resampled
# may end in a jump (34 of 250 records of PTB-XL at 100 Hz).
_CUT_OFF_S = 0.1
# Every block of this length holds a beat, unless the heart pauses.
_BLOCK_S = 2.0
# A beat begins at this share of the way from the R before it: P lies after, T before.
_BEAT_BOUNDARY = 0.6


def find_beats(signal: np.ndarray, fs: float) -> np.ndarray:
    """Find the QRS complexes of a recording.

    The steepness of a moment is the median over the leads of their slopes, so that what disturbs
    less than half of the leads is not taken for a beat; a beat is a peak of it that reaches 0.35
    times the median over blocks of two seconds of their maxima, which neither a single spike nor a
    pause moves. What lies within 0.1 s of either end does not count.

    Args:
        signal: ``(lead, sample)`` millivolts without NaN; flat leads do not count.
        fs: hertz.

    Returns:
        ``(n_beats,)`` int64, the sample in the middle of each QRS complex.
    """
    from scipy.signal import find_peaks

    varying = signal[np.ptp(signal, axis=1) > 0]
    width = max(1, round(_SLOPE_S * fs))
    if not len(varying) or signal.shape[1] <= 2 * width:
        return np.zeros(0, np.int64)
    slopes = np.zeros(varying.shape, np.float64)
    before = width // 2
    slopes[:, before : before - width] = np.abs(varying[:, width:] - varying[:, :-width])
    n_mean = max(1, round(_QRS_S * fs))
    steepness = np.convolve(np.median(slopes, axis=0), np.ones(n_mean) / n_mean, mode="same")
    n_blocks = max(1, round(len(steepness) / (_BLOCK_S * fs)))
    typical = float(np.median([block.max() for block in np.array_split(steepness, n_blocks)]))
    if typical == 0:
        return np.zeros(0, np.int64)
    peaks, _ = find_peaks(
        steepness, height=_LEAST_STEEPNESS * typical, distance=max(1, round(_REFRACTORY_S * fs))
    )
    from_edge = np.minimum(peaks, len(steepness) - 1 - peaks)
    return np.asarray(peaks[from_edge >= _CUT_OFF_S * fs], np.int64)


def beat_bounds(beats: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut a recording into its beats, each from before its P wave to after its T wave.

    The first and the last are as long as the typical one: what lies beyond are pieces of beats that
    the recording cuts off.

    Args:
        beats: ``(n_beats,)`` of `find_beats`.
        n_samples: of the recording.

    Returns:
        ``(n_beats + 1,)`` int64; each beat ends where the next begins. A single beat is the whole
        recording.

    >>> beat_bounds(np.array([50, 150, 250]), 400).tolist()
    [10, 110, 210, 310]
    """
    if len(beats) < 2:
        return np.array([0, n_samples], np.int64)
    intervals = np.diff(beats)
    typical = np.median(intervals)
    between = beats[:-1] + _BEAT_BOUNDARY * intervals
    first = max(0.0, beats[0] - (1 - _BEAT_BOUNDARY) * typical)
    last = min(float(n_samples), beats[-1] + _BEAT_BOUNDARY * typical)
    return np.asarray(np.rint(np.concatenate([[first], between, [last]])), np.int64)
