"""When the heart beats, and what the atria do in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from einthoven.synthetic.patients import SyntheticPatient

# Beats start before the recording and go on after it, so that neither edge lacks a wave.
_LEAD_IN_S = 2.0


@dataclass(frozen=True)
class Beats:
    """The beats of one recording.

    Attributes:
        r: ``(beat,)`` time of the middle of each QRS, seconds from the start.
        rr: ``(beat,)`` interval that sets the QT of each beat, seconds.
        kind: ``(beat,)`` of ``"sinus"``, ``"no_p"``, ``"ventricular"`` or ``"atrial"``.
        cycle: length of an atrial flutter cycle, seconds; 0 where there is none.
    """

    r: np.ndarray
    rr: np.ndarray
    kind: np.ndarray
    cycle: float = 0.0


Rhythm = Callable[[SyntheticPatient, float, np.random.Generator], Beats]


def _sinus_intervals(
    patient: SyntheticPatient, rate: float, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """Intervals around a rate, moved by breathing and by a little noise, seconds."""
    mean = 60.0 / (rate * rng.normal(1, 0.04))
    count = int((seconds + 2 * _LEAD_IN_S) / mean) + 4
    breaths = rng.uniform(0.2, 0.3) * mean * np.arange(count) + rng.random()
    breathing = patient.arrhythmia * np.sin(2 * np.pi * breaths)
    # Blood pressure waves of ten seconds, and a rate that is never quite constant.
    waves = rng.gamma(3.0, 0.007) * np.sin(
        2 * np.pi * (0.1 * mean * np.arange(count) + rng.random())
    )
    drift = waves + rng.normal(0, 0.025) * np.linspace(-1, 1, count)
    return np.asarray(mean * (1 + breathing + drift + rng.normal(0, 0.014, count)))


def _from_intervals(
    intervals: np.ndarray, rng: np.random.Generator, kind: np.ndarray | str = "sinus"
) -> Beats:
    start = -_LEAD_IN_S + rng.random() * intervals[0]
    kinds = np.full(len(intervals), kind, dtype="U11") if isinstance(kind, str) else kind
    # QT follows the rate of the last seconds, not the last interval alone.
    smooth = 0.3 * intervals + 0.7 * np.median(intervals)
    return Beats(start + np.cumsum(intervals) - intervals[0], smooth, kinds)


def _sinus_rhythm(patient: SyntheticPatient, seconds: float, rng: np.random.Generator) -> Beats:
    return _from_intervals(_sinus_intervals(patient, patient.rate, seconds, rng), rng)


def _bradycardia_rhythm(
    patient: SyntheticPatient, seconds: float, rng: np.random.Generator
) -> Beats:
    rate = 41 + 14 * patient.variant
    return _from_intervals(_sinus_intervals(patient, rate, seconds, rng), rng)


def _tachycardia_rhythm(
    patient: SyntheticPatient, seconds: float, rng: np.random.Generator
) -> Beats:
    rate = 107 + 30 * patient.variant
    calm = _sinus_intervals(patient, rate, seconds, rng)
    # At high rates vagal tone is gone, and breathing no longer shows.
    return _from_intervals(np.mean(calm) + 0.7 * (calm - np.mean(calm)), rng)


def _fibrillation_rhythm(
    patient: SyntheticPatient, seconds: float, rng: np.random.Generator
) -> Beats:
    mean = 60.0 / (rng.normal(1, 0.05) * (68 + 55 * patient.variant))
    count = int((seconds + 2 * _LEAD_IN_S) / mean * 1.4) + 6
    spread = rng.uniform(0.21, 0.30)
    refractory = max(0.34, 0.5 * mean)
    drawn = refractory + (mean - refractory) * rng.gamma(
        ((mean - refractory) / (spread * mean)) ** 2, (spread * mean / (mean - refractory)) ** 2,
        count,
    )  # fmt: skip
    return _from_intervals(drawn, rng, "no_p")


def _flutter_rhythm(patient: SyntheticPatient, seconds: float, rng: np.random.Generator) -> Beats:
    cycle = 60.0 / ((270 + 40 * patient.severity) * rng.uniform(0.94, 1.06))
    count = int((seconds + 2 * _LEAD_IN_S) / (2 * cycle)) + 4
    ratios = ([2, 2, 2, 3], [4, 4, 4, 3], [3, 4], [2, 4])[int(patient.variant * 3.999)]
    conducted = rng.choice(ratios, count)
    beats = _from_intervals(conducted * cycle * rng.normal(1, 0.002, count), rng, "no_p")
    return Beats(beats.r, beats.rr, beats.kind, cycle)


def _premature_ventricular(
    patient: SyntheticPatient, seconds: float, rng: np.random.Generator
) -> Beats:
    # The sinus node does not notice: the early beat and the pause make up two intervals.
    return _with_ectopics(patient, seconds, rng, "ventricular", pause=lambda early: 2 - early)


def _premature_atrial(patient: SyntheticPatient, seconds: float, rng: np.random.Generator) -> Beats:
    # The sinus node is reset: the next beat comes one ordinary interval later.
    return _with_ectopics(patient, seconds, rng, "atrial", pause=lambda early: 1.06)


def _with_ectopics(
    patient: SyntheticPatient, seconds: float, rng: np.random.Generator, kind: str,
    pause: Callable[[float], float],
) -> Beats:  # fmt: skip
    intervals = _sinus_intervals(patient, patient.rate, seconds, rng)
    kinds = np.full(len(intervals), "sinus", dtype="U11")
    mean = float(np.mean(intervals))
    position = int((_LEAD_IN_S + rng.uniform(1.5, 3.0)) / mean) + 1
    while position < len(intervals) - 1:
        early = float(rng.uniform(0.56, 0.66))
        intervals[position] = early * mean
        intervals[position + 1] = pause(early) * mean
        kinds[position] = kind
        position += int(rng.integers(4, 9))
    return _from_intervals(intervals, rng, kinds)


RHYTHMS: dict[str, Rhythm] = {
    "sinus": _sinus_rhythm,
    "bradycardia": _bradycardia_rhythm,
    "tachycardia": _tachycardia_rhythm,
    "afib": _fibrillation_rhythm,
    "flutter": _flutter_rhythm,
    "pvc": _premature_ventricular,
    "pac": _premature_atrial,
}

# Atria without P waves ---------------------------------------------------------------------------


def fibrillatory_waves(
    times: np.ndarray, patient: SyntheticPatient, rng: np.random.Generator
) -> np.ndarray:
    """The f-waves of atrial fibrillation: 5 to 8 Hz, waxing, waning and drifting in frequency.

    After Stridh and Sörnmo, IEEE Trans Biomed Eng 48 (2001) 105: a saw-tooth of a few harmonics
    whose frequency and amplitude are modulated. Largest in V1.

    Returns:
        ``(3, sample)`` x, y, z in millivolts.
    """
    rate = 5.2 + 2.4 * patient.severity
    amplitude = (0.035 + 0.035 * patient.variant) * rng.uniform(0.85, 1.15)
    directions = np.array([[-0.25, 0.35, -0.8], [0.30, 0.8, -0.15]]) * [[1.0], [0.5]]
    waves = np.zeros((3, len(times)))
    for direction, detuned in zip(directions, (0.0, 0.35), strict=True):
        drift = 0.9 * np.sin(2 * np.pi * (rng.uniform(0.11, 0.22) * times + rng.random()))
        wobble = 0.5 * np.sin(2 * np.pi * (rng.uniform(0.6, 1.1) * times + rng.random()))
        phase = 2 * np.pi * ((rate + detuned) * times + rng.random()) + drift + wobble
        swell = 1 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * times + rng.random()))
        tooth = sum(np.sin(k * phase) / k**1.3 for k in (1, 2, 3))
        waves += amplitude * np.outer(direction, swell * tooth)
    return waves


def flutter_waves(times: np.ndarray, beats: Beats, patient: SyntheticPatient) -> np.ndarray:
    """The saw-tooth of typical flutter: slowly down and sharply up in II, III, aVF; up in V1.

    Returns:
        ``(3, sample)`` x, y, z in millivolts.
    """
    # The AV node lets each conducted cycle through after the same delay.
    cycles = np.interp(times, beats.r, _cycle_counts(beats))
    phase = (cycles + 0.35 + 0.3 * patient.variant) % 1.0
    shape_phase = np.array([0.0, 0.15, 0.45, 0.68, 0.76, 0.86, 0.94, 1.0])
    shape = np.array([0.30, 0.18, -0.02, -0.22, -0.62, -0.48, 0.12, 0.30])
    fine = np.linspace(0, 1, 200, endpoint=False)
    tooth = np.interp(fine, shape_phase, shape)
    smooth = np.fft.irfft(np.fft.rfft(tooth) * np.exp(-((np.arange(101) / 6.0) ** 2)), 200)
    amplitude = 0.42 * (0.85 + 0.4 * patient.severity)
    wave = amplitude * np.interp(phase, fine, smooth - smooth.mean(), period=1.0)
    return np.outer([-0.05, 1.0, 0.50], wave)


def _cycle_counts(beats: Beats) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.round(np.diff(beats.r) / beats.cycle))])
