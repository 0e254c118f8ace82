"""What is done to a signal between the archive and the store.

Arrays in, arrays out: resampling and band-pass in one pass, windows, the store's unit.
Signals are float32 millivolts, ``(lead, sample)``; rates are hertz. scipy is imported where it is
used, because it takes longer to import than a run that finds nothing changed.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from einthoven.errors import ConfigError

# Resampling and band-pass ----------------------------------------------------------------------

Band = tuple[float, float]

# Ripple and stop band of each Kaiser-windowed filter (Kaiser 1974). Two in a row stay within 1 %.
FILTER_ATTENUATION_DB = 46.0
# The record's grid may be off by this share of an output sample at its end, no more; rates such as
# 257 or 128.7 Hz come out exact.
GRID_TOLERANCE = 0.01


def preprocess(
    signal: np.ndarray, fs: float, target_fs: float, band: Band | None = None
) -> np.ndarray:
    """Resample and band-pass a recording in one pass, without shifting anything in time.

    Pass band (amplitude within 1 %, phase kept): from twice the high-pass edge to 0.8 times the
    smallest of the low-pass edge and both Nyquist rates. At least 40 dB down: below a tenth of the
    high-pass edge, above 1.2 times the low-pass edge, and above the target's Nyquist rate, aliases
    included. Half the amplitude is left at 1.05 times the high-pass edge and at the low-pass edge.

    No sample reaches farther than 0.7 / edge seconds through a high-pass, 3.3 / edge through a
    low-pass and 13 samples of the slower rate through resampling: what happens at one end of a
    record never shows at the other.

    Args:
        signal: ``(lead, sample)`` float32 millivolts without NaN.
        fs, target_fs: sampling rates in hertz, any ratio.
        band: high-pass and low-pass edge in hertz, 0 for no high-pass; None for no band-pass.

    Returns:
        ``(lead, round(sample * target_fs / fs))`` float32 millivolts; ``signal`` itself where there
        is nothing to do.

    Raises:
        ConfigError: the band leaves nothing to pass.

    >>> preprocess(np.zeros((12, 5000), np.float32), 500, 100, (0.5, 40)).shape
    (12, 1000)
    """
    from scipy import fft

    low, high = band if band is not None else (0.0, math.inf)
    if high >= min(fs, target_fs) / 2:
        high = math.inf
    if fs == target_fs and low == 0 and high == math.inf:
        return signal
    n_samples = signal.shape[1]
    n_out = round(n_samples * target_fs / fs)
    if n_samples < 2 or n_out == 0:
        return np.zeros((len(signal), n_out), np.float32)
    half = _filter_half_length(fs, target_fs, low, high)
    n_in_fft, n_out_fft = _fft_lengths(n_samples + 2 * half, n_samples, fs, target_fs)
    response = _filter_response(n_in_fft, n_out_fft, fs, target_fs, low, high)
    spectrum = fft.rfft(_extend_circularly(signal, n_in_fft, point_mirror=low == 0), axis=1)
    kept = spectrum[:, : len(response)]
    kept *= response
    return np.ascontiguousarray(fft.irfft(kept, n_out_fft, axis=1)[:, :n_out])


def resample(signal: np.ndarray, fs: float, target_fs: float) -> np.ndarray:
    """Resample a recording, keeping its duration; see `preprocess`.

    >>> resample(np.zeros((12, 5000), np.float32), 500, 100).shape
    (12, 1000)
    """
    return preprocess(signal, fs, target_fs)


def bandpass(signal: np.ndarray, fs: float, low: float, high: float) -> np.ndarray:
    """Band-pass a recording at its own rate, without shifting anything in time; see `preprocess`.

    ``low`` 0 is no high-pass, ``high`` at or above the Nyquist rate no low-pass.
    """
    return preprocess(signal, fs, fs, (low, high))


def _filter_edges(fs: float, target_fs: float, low: float, high: float) -> tuple[Band, Band]:
    """(end of stop, start of pass) and (end of pass, start of stop), in hertz.

    The second is (inf, inf) where nothing needs to be cut off above.
    """
    nyquist = min(fs, target_fs) / 2
    if high == math.inf and fs == target_fs:
        above = (math.inf, math.inf)
    else:
        # Cutting off at the Nyquist rate, not at 1.2 times, leaves no alias at all and takes out
        # mains hum of 50 Hz where the target is 100 Hz.
        above = (0.8 * min(high, nyquist), min(1.2 * high, nyquist))
    below = (0.1 * low, 2 * low)
    if low < 0 or high <= 0 or below[1] >= min(above[0], 0.8 * nyquist):
        raise ConfigError(
            f"a band from {low:g} to {high:g} Hz passes nothing at {target_fs:g} Hz: the high-pass "
            f"edge must be 0 (none) or below 0.4 times the low-pass edge and the Nyquist rate"
        )
    return below, above


def _kaiser_half_length(fs: float, width: float) -> int:
    if not 0 < width < math.inf:
        return 0
    return math.ceil((FILTER_ATTENUATION_DB - 7.95) / (2.285 * 2 * math.pi * width / fs) / 2)


@lru_cache(maxsize=256)
def _filter_half_length(fs: float, target_fs: float, low: float, high: float) -> int:
    """How many source samples the filter reaches to either side."""
    below, above = _filter_edges(fs, target_fs, low, high)
    reach_above = 0 if above[1] == math.inf else _kaiser_half_length(fs, above[1] - above[0])
    return reach_above + _kaiser_half_length(fs, below[1] - below[0])


@lru_cache(maxsize=1024)
def _fft_lengths(n_least: int, n_samples: int, fs: float, target_fs: float) -> tuple[int, int]:
    """Fast transform lengths before and after resampling, in the ratio of the rates."""
    from scipy.fft import next_fast_len

    exact = Fraction(target_fs) / Fraction(fs)
    for largest in (10, 100, 1000, 10_000, 100_000):
        ratio = exact.limit_denominator(largest)
        if abs(ratio - exact) * n_samples <= GRID_TOLERANCE:
            break
    blocks = next_fast_len(math.ceil(n_least / ratio.denominator), real=True)
    return blocks * ratio.denominator, blocks * ratio.numerator


@lru_cache(maxsize=16)
def _filter_response(
    n_in_fft: int, n_out_fft: int, fs: float, target_fs: float, low: float, high: float
) -> np.ndarray:
    """The real response at the bins that survive, with the transforms' scale in it."""
    below, above = _filter_edges(fs, target_fs, low, high)
    response = np.ones(n_in_fft // 2 + 1)
    if above[1] < math.inf:
        response *= _lowpass_response(n_in_fft, fs, *above)
    if below[1] > 0:
        response *= 1 - _lowpass_response(n_in_fft, fs, *below)
    if n_in_fft != n_out_fft:
        # The bin at the smaller Nyquist rate has no partner on the other side.
        smaller = min(n_in_fft, n_out_fft)
        response = response[: smaller // 2 + 1]
        response[-1] *= smaller % 2
    return (response * (n_out_fft / n_in_fft)).astype(np.float32)


def _lowpass_response(n_fft: int, fs: float, pass_end: float, stop_start: float) -> np.ndarray:
    """Zero-phase response of a Kaiser-windowed low-pass whose gain at 0 Hz is exactly 1."""
    from scipy.fft import rfft

    half = _kaiser_half_length(fs, stop_start - pass_end)
    offsets = np.arange(-half, half + 1)
    excess = FILTER_ATTENUATION_DB - 21
    window = np.kaiser(len(offsets), 0.5842 * excess**0.4 + 0.07886 * excess)
    kernel = np.sinc((pass_end + stop_start) / fs * offsets) * window
    circular = np.zeros(n_fft)
    circular[offsets] = kernel / kernel.sum()
    return np.asarray(rfft(circular).real)


def _extend_circularly(signal: np.ndarray, n_fft: int, point_mirror: bool) -> np.ndarray:
    """Mirror a record at both ends, the part before its start placed at the buffer's end.

    Mirroring through the end point keeps level and slope: the smaller error for a low-pass, which
    reaches 0.15 s. A high-pass reaches over a second, and an end point that happens to lie on a
    wave would lift all of it: there time is mirrored only (`docs/explanation/signal.md`).
    """
    n_samples = signal.shape[1]
    after, before = _mirror_indices(n_samples, n_fft)
    extended = np.empty((len(signal), n_fft), np.float32)
    extended[:, :n_samples] = signal
    tail, head = (
        extended[:, n_samples : n_samples + len(after)],
        extended[:, n_samples + len(after) :],
    )
    np.take(signal, after, axis=1, out=tail)
    np.take(signal, before, axis=1, out=head)
    if point_mirror:
        np.subtract(2 * signal[:, -1:], tail, out=tail)
        np.subtract(2 * signal[:, :1], head, out=head)
    return extended


@lru_cache(maxsize=256)
def _mirror_indices(n_samples: int, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Which samples stand behind the last one and before the first one."""
    period = 2 * (n_samples - 1)
    n_after = (n_fft - n_samples) // 2
    positions = np.concatenate(
        [np.arange(n_samples, n_samples + n_after), np.arange(n_samples + n_after - n_fft, 0)]
    )
    folded = positions % period
    mirrored = np.minimum(folded, period - folded)
    return mirrored[:n_after], mirrored[n_after:]


# Windows ---------------------------------------------------------------------------------------


def window_starts(n_samples: int, n_window: int) -> np.ndarray:
    """Where the windows of a record begin: ``ceil(n / window)`` of them, spread evenly.

    The first begins at 0 and the last ends with the record, so that none is padded unless the
    record is shorter than one window.

    >>> window_starts(2500, 1000).tolist(), window_starts(800, 1000).tolist()
    ([0, 750, 1500], [0])
    """
    n_windows = max(1, -(-n_samples // n_window))
    return np.linspace(0, max(0, n_samples - n_window), n_windows).round().astype(np.int64)


def to_windows(signal: np.ndarray, n_window: int) -> np.ndarray:
    """Cut a record into windows of one length; a shorter record is padded with zeros at the end.

    Args:
        signal: ``(lead, sample)``.
        n_window: samples per window.

    Returns:
        ``(n_windows, lead, n_window)``; see `window_starts`. A view where one window is the record.
    """
    n_leads, n_samples = signal.shape
    if n_samples == n_window:
        return signal[None]
    if n_samples < n_window:
        padded = np.zeros((1, n_leads, n_window), signal.dtype)
        padded[0, :, :n_samples] = signal
        return padded
    starts = window_starts(n_samples, n_window)
    return np.stack([signal[:, start : start + n_window] for start in starts])


def to_microvolts(signal: np.ndarray) -> np.ndarray:
    """Millivolts as int16 of 1 µV per unit, rounded, clipped to ±32,767.

    >>> to_microvolts(np.array([0.0014, -0.0016, 40.0], np.float32)).tolist()
    [1, -2, 32767]
    """
    scaled = signal * np.float32(1000)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32767, 32767, out=scaled)
    return scaled.astype(np.int16)


# A spread below a tenth of the store's unit is rounding, not signal.
FLAT_SPREAD_MV = 1e-4


def standardize(signal: np.ndarray) -> np.ndarray:
    """Give each lead zero mean and unit standard deviation; a flat lead stays zero.

    Args:
        signal: ``(..., lead, sample)`` millivolts.
    """
    centred = signal - signal.mean(axis=-1, keepdims=True)
    scale = centred.std(axis=-1, keepdims=True)
    # A detached electrode records a constant; dividing by its zero spread would put NaN in the
    # batch and in every weight after it.
    varies = scale > FLAT_SPREAD_MV
    return np.where(varies, centred / np.where(varies, scale, 1), 0).astype(signal.dtype)
