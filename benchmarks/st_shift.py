"""How far the zero-phase high-pass moves the ST segment, measured on synthetic infarctions.

    python benchmarks/st_shift.py

Noise-free leads with a known ST level, in three shapes, at three heart rates and in an irregular
rhythm, pass through `einthoven.signal.bandpass` with each high-pass edge. The ST level is read as a
cardiologist reads it: 60 ms after the J point, against the PR segment just before the QRS complex.
The same reading after a causal first-order high-pass of the same edge, as in an old monitor, stands
beside it. Writes ``results/st_shift.json``.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from scipy.signal import butter, lfilter

from einthoven.console import format_table
from einthoven.files import write_json
from einthoven.signal import bandpass

FS = 500
SECONDS = 60
EDGES_HZ = (0.05, 0.5, 0.67, 1.0)
# (beats per minute, by which share RR intervals vary around that)
RHYTHMS = ((50, 0.0), (75, 0.0), (110, 0.0), (75, 0.3))
# (R, S, ST, T) in millivolts: what an acute infarction writes over the injured wall, opposite to
# it, and no infarction at all.
SHAPES = {
    "ST elevation 0.3 mV": (0.8, -0.2, 0.3, 0.6),
    "ST depression 0.15 mV": (0.9, -0.1, -0.15, -0.2),
    "no infarction": (1.0, -0.3, 0.0, 0.3),
}
# Seconds from the R peak.
PR_SEGMENT, J_POINT, READ_AFTER_J = -0.06, 0.05, 0.06


def make_beats(
    shape: tuple[float, float, float, float], rate: float, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """A lead, ``(sample,)`` float32 millivolts, and the samples of its R peaks."""
    r, s, st, t = shape
    time = np.arange(SECONDS * FS) / FS
    rng = np.random.default_rng(0)
    intervals = 60 / rate * (1 + jitter * rng.uniform(-1, 1, int(2 * SECONDS * rate / 60)))
    peaks = 1 + np.cumsum(intervals)
    peaks = np.round(peaks[peaks < SECONDS - 1] * FS) / FS
    # Repolarisation shortens with the cycle (Bazett 1920).
    t_peak = 0.30 * np.sqrt(min(1.0, 60 / rate))
    signal = np.zeros_like(time)
    for peak in peaks:
        since = time - peak
        signal += 0.12 * gaussian(since, -0.16, 0.020)
        signal += r * gaussian(since, 0, 0.009) + s * gaussian(since, 0.025, 0.008)
        signal += t * gaussian(since, t_peak, 0.040)
        # The segment: level from the J point, gone with the T wave.
        signal += st * smooth_step(since, J_POINT - 0.01, 0.01)
        signal -= st * smooth_step(since, t_peak, 0.08)
    return signal.astype(np.float32), np.round(peaks * FS).astype(int)


def gaussian(time: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((time - centre) / width) ** 2)


def smooth_step(time: np.ndarray, start: float, length: float) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((time - start) / length, 0, 1))


def read_st_levels(signal: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Of each beat away from the ends, microvolts."""
    inner = peaks[(peaks > 15 * FS) & (peaks < len(signal) - 15 * FS)]
    st = signal[inner + round((J_POINT + READ_AFTER_J) * FS)]
    return np.asarray(1000 * (st - signal[inner + round(PR_SEGMENT * FS)]))


def measure_shifts() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for edge, (name, shape), (rate, jitter) in product(EDGES_HZ, SHAPES.items(), RHYTHMS):
        lead, peaks = make_beats(shape, rate, jitter)
        true = read_st_levels(lead, peaks)
        zero_phase = read_st_levels(bandpass(lead[None], FS, edge, FS)[0], peaks) - true
        causal = read_st_levels(lfilter(*butter(1, edge, "highpass", fs=FS), lead), peaks) - true
        rows.append(
            {
                "edge_hz": edge,
                "shape": name,
                "beats_per_minute": rate,
                "rr_varies_by": jitter,
                "st_uv": float(true.mean()),
                "shift_uv": float(zero_phase.mean()),
                "largest_shift_uv": float(np.abs(zero_phase).max()),
                "causal_shift_uv": float(causal.mean()),
                "causal_largest_shift_uv": float(np.abs(causal).max()),
            }
        )
    return rows


def run_measurement() -> None:
    rows = measure_shifts()
    cells = [[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in rows]
    print(format_table(list(rows[0]), cells))
    write_json(Path(__file__).parent / "results" / "st_shift.json", rows)


if __name__ == "__main__":
    run_measurement()
