"""Twelve leads from a heart, a rhythm, a chest and a recorder."""

from __future__ import annotations

import numpy as np

from einthoven.errors import ConfigError
from einthoven.records import LIMB_FROM_I_AND_II
from einthoven.synthetic.morphology import (
    DOWER_MATRIX,
    MORPHOLOGIES,
    Heart,
    Wave,
    atrial_ectopic,
    diseased_heart,
    turn_dipole,
    ventricular_ectopic,
)
from einthoven.synthetic.patients import SyntheticPatient
from einthoven.synthetic.rhythm import (
    RHYTHMS,
    Beats,
    fibrillatory_waves,
    flutter_waves,
)


def synthesize(
    kind: str, patient: SyntheticPatient, fs: float, seconds: float, rng: np.random.Generator,
    noise: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """One recording of a patient.

    Args:
        kind: a rhythm of `RHYTHMS`, morphologies of `MORPHOLOGIES`, or both joined by ``+``:
            ``"sinus"``, ``"afib"``, ``"lbbb"`` (sinus rhythm), ``"afib+lbbb"``.
        patient: whose heart; two recordings of one patient share its waves.
        fs: hertz.
        seconds: length.
        rng: beats, noise and small beat-to-beat changes of this recording.
        noise: 0 gives the signal alone, 1 an ordinary recording, more a worse one.

    Returns:
        ``(12, round(fs * seconds))`` float32 millivolts in the order of `LEADS`; Einthoven's and
        Goldberger's laws hold to float32's rounding.

    Raises:
        ConfigError: a part of ``kind`` is not known.

    >>> from einthoven.synthetic.patients import draw_patient
    >>> rng = np.random.default_rng(0)
    >>> synthesize("afib+lbbb", draw_patient(rng), 100, 10, rng).shape
    (12, 1000)
    """
    rhythm, morphologies = parse_kind(kind)
    times = np.arange(round(fs * seconds)) / fs
    beats = RHYTHMS[rhythm](patient, seconds, rng)
    dipole = _beat_waves(times, beats, diseased_heart(patient, morphologies), patient, rng)
    if rhythm == "afib":
        dipole += fibrillatory_waves(times, patient, rng)
    if rhythm == "flutter":
        dipole += flutter_waves(times, beats, patient)
    # No two recordings have their electrodes, or the heart, in quite the same place.
    for plane in ((0, 1), (0, 2)):
        dipole = turn_dipole(dipole, rng.normal(0, 3), plane)
    electrodes = patient.lead_gain[:, None] * (DOWER_MATRIX @ dipole)
    if noise > 0:
        electrodes *= rng.normal(1, 0.015)
        electrodes += recording_noise(len(times), fs, rng, noise)
    return twelve_leads(electrodes)


def parse_kind(kind: str) -> tuple[str, tuple[str, ...]]:
    """The rhythm and the morphologies that a kind names.

    >>> parse_kind("afib+lbbb"), parse_kind("lvh"), parse_kind("sinus")
    (('afib', ('lbbb',)), ('sinus', ('lvh',)), ('sinus', ()))
    """
    parts = kind.split("+")
    rhythms = [part for part in parts if part in RHYTHMS]
    morphologies = tuple(part for part in parts if part in MORPHOLOGIES)
    if len(rhythms) > 1 or len(rhythms) + len(morphologies) != len(parts):
        raise ConfigError(
            f"kind {kind!r} cannot be synthesized; join at most one rhythm ({', '.join(RHYTHMS)}) "
            f"and any morphologies ({', '.join(MORPHOLOGIES)}) by '+'"
        )
    return (rhythms[0] if rhythms else "sinus"), morphologies


def twelve_leads(electrodes: np.ndarray) -> np.ndarray:
    """``(8, sample)`` of I, II, V1–V6 to ``(12, sample)`` float32 in the order of `LEADS`."""
    limb = LIMB_FROM_I_AND_II @ electrodes[:2]
    return np.concatenate([limb, electrodes[2:]]).astype(np.float32)


# Beats -------------------------------------------------------------------------------------------


def _beat_waves(
    times: np.ndarray, beats: Beats, heart: Heart, patient: SyntheticPatient,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """``(3, sample)``: the dipole of all beats."""
    without_p = Heart(
        {name: wave for name, wave in heart.waves.items() if wave.anchor != "P"},
        heart.onset, heart.j, heart.pr, heart.qtc,
    )  # fmt: skip
    hearts = {
        "sinus": heart,
        "no_p": without_p,
        "ventricular": ventricular_ectopic(patient),
        "atrial": atrial_ectopic(heart),
    }
    # Breathing turns and lifts the heart a little; from beat to beat voltages change by percents.
    breathing = 0.035 * np.sin(2 * np.pi * (0.25 * beats.r + rng.random()))
    gain = 1 + breathing + rng.normal(0, 0.012, len(beats.r))
    dipole = np.zeros((3, len(times)))
    for kind, kind_heart in hearts.items():
        chosen = beats.kind == kind
        if chosen.any():
            dipole += _sum_beat_waves(
                times, beats.r[chosen], beats.rr[chosen], gain[chosen], kind_heart
            )
    return dipole


def _sum_beat_waves(
    times: np.ndarray, r: np.ndarray, rr: np.ndarray, gain: np.ndarray, heart: Heart
) -> np.ndarray:
    # Bazett's square root, held where it is known to exaggerate.
    stretch = np.sqrt(np.clip(rr, 0.40, 1.25))
    t_peak = r - heart.onset + heart.qtc * stretch - 0.078 * stretch
    anchors = {
        "P": r - heart.onset - heart.pr,
        "R": r,
        "T": t_peak,
        "ST": (r + heart.j + t_peak) / 2,
    }
    st_length = np.maximum(t_peak - r - heart.j, 0.06)
    unit = np.ones_like(r)
    stretches = {"P": unit, "R": unit, "T": stretch, "ST": st_length}
    dipole = np.zeros((3, len(times)))
    for wave in heart.waves.values():
        bells = _wave_bells(
            times, anchors[wave.anchor] + wave.centre, stretches[wave.anchor], gain, wave
        )
        dipole += wave.vector[:, None] * bells
    return dipole


def _wave_bells(
    times: np.ndarray, centres: np.ndarray, stretch: np.ndarray, gain: np.ndarray, wave: Wave
) -> np.ndarray:
    """``(sample,)``: one bell at each centre, summed; each is evaluated only where it is not 0."""
    n, fs = len(times), 1.0 / (times[1] - times[0])
    before, after = (4.0 * width * stretch.max() for width in (wave.rise, wave.fall))
    first = np.floor((centres - before) * fs).astype(int)
    samples = first[:, None] + np.arange(int((before + after) * fs) + 2)
    distance = samples / fs - centres[:, None]
    width = np.where(distance < 0, wave.rise, wave.fall) * stretch[:, None]
    squared = (distance / width) ** 2
    if wave.power == 4:
        squared *= squared
    bells = gain[:, None] * np.exp(-0.5 * squared)
    inside = (samples >= 0) & (samples < n)
    return np.bincount(samples[inside], weights=bells[inside], minlength=n)


# The recorder ------------------------------------------------------------------------------------


def recording_noise(
    n_samples: int, fs: float, rng: np.random.Generator, noise: float = 1.0
) -> np.ndarray:
    """Baseline wander, muscle and mains of one recording, at the electrodes.

    Returns:
        ``(8, n_samples)`` millivolts for I, II, V1–V6.
    """
    times = np.arange(n_samples) / fs
    wander = _baseline_wander(times, rng) * rng.gamma(2.0, 0.02)
    muscle = (
        rng.standard_normal((8, n_samples), dtype=np.float32)
        * rng.gamma(2.0, 0.004)
        * np.sqrt(fs / 500 + 0.3)
    )
    muscle *= rng.uniform(0.6, 1.5, (8, 1))
    total = wander + muscle
    mains = rng.choice([50.0, 60.0]) * rng.normal(1, 0.0005)
    phases, levels = rng.random((8, 1)), rng.gamma(1.5, 0.004, (8, 1))
    # A recorder's own filter has taken out what lies above half its sampling rate.
    if mains < 0.45 * fs:
        # The sine of a sum: two sines for all electrodes instead of one for each.
        turn, angle = 2 * np.pi * phases, 2 * np.pi * mains * times
        parts = np.stack([np.sin(angle), np.cos(angle)])
        total += levels * np.hstack([np.cos(turn), np.sin(turn)]) @ parts
    return np.asarray(noise * total)


def _baseline_wander(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``(8, sample)`` of about unit spread: breathing and slow drifts of the electrodes."""
    rates = np.array([0.05, 0.11, 0.19, 0.28, 0.36]) * rng.uniform(0.85, 1.15, 5)
    weights = rng.standard_normal((8, 5)) * [1.0, 0.7, 0.5, 0.6, 0.3]
    phases = 2 * np.pi * rng.random(5)
    return np.asarray(weights @ np.sin(2 * np.pi * rates[:, None] * times + phases[:, None]))
