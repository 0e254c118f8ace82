"""Individual patients: what stays the same from one recording of a person to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# A dipole far away makes V2 and V3 too small, because these electrodes lie on the heart; with these
# gains the median voltages of I, II, V1–V6 are those of PTB-XL's normal records.
_LEAD_NEARNESS = np.array([1.12, 1.05, 1.12, 1.50, 1.20, 1.08, 1.10, 1.12])


@dataclass(frozen=True)
class SyntheticPatient:
    """One heart in one chest.

    Attributes:
        age: years.
        sex: ``"female"`` or ``"male"``.
        rate: sinus rate at rest, beats per minute.
        axis: how far the frontal axis is turned from the model's mean, degrees; positive turns it
            downwards and to the right.
        rotation: the same in the horizontal plane; positive turns it backwards (clockwise rotation:
            a later transition in the chest leads).
        p_gain, qrs_gain, t_gain: voltages relative to the model's mean.
        pr: from the onset of P to the onset of QRS, seconds.
        qrs_stretch: duration of the normal QRS relative to the model's mean.
        qtc: QT interval at one beat per second, seconds.
        arrhythmia: how far breathing moves the sinus interval, as a fraction of it.
        severity: 0 to 1, how marked this person's disease shows.
        variant: 0 to 1, which of a disease's forms this person has.
        jitter: ``(8, 3)``, small personal changes of the waves' vectors, as a fraction.
        lead_gain: ``(8,)`` gain of I, II, V1–V6: electrode places and body build.
    """

    age: float
    sex: str
    rate: float
    axis: float
    rotation: float
    p_gain: float
    qrs_gain: float
    t_gain: float
    pr: float
    qrs_stretch: float
    qtc: float
    arrhythmia: float
    severity: float
    variant: float
    jitter: np.ndarray = field(repr=False)
    lead_gain: np.ndarray = field(repr=False)


def draw_patient(rng: np.random.Generator, mean_age: float = 60.0) -> SyntheticPatient:
    """Draw a person; the same generator state gives the same person.

    Voltages fall and the axis turns to the left with age; women have the longer QTc and the smaller
    voltages (Macfarlane and Lawrie, Comprehensive Electrocardiology, 2010).
    """
    age = float(np.clip(rng.normal(mean_age, 15.0), 18, 95).round())
    female = bool(rng.random() < 0.48)
    years_over_40 = age - 40.0
    return SyntheticPatient(
        age=age,
        sex="female" if female else "male",
        rate=_draw_between(rng, 71, 8, 60, 95),
        axis=_draw_between(rng, -0.35 * years_over_40, 15, -45, 32),
        rotation=_draw_between(rng, 0, 9, -20, 20),
        p_gain=_draw_between(rng, 1.0, 0.2, 0.65, 1.5),
        qrs_gain=_draw_between(rng, 1.02 - 0.003 * years_over_40 - 0.08 * female, 0.17, 0.6, 1.45),
        t_gain=_draw_between(rng, 1.0 - 0.15 * female, 0.2, 0.65, 1.5),
        pr=_draw_between(rng, 0.150 + 0.0003 * years_over_40, 0.014, 0.122, 0.194),
        qrs_stretch=_draw_between(rng, 1.1 - 0.04 * female, 0.05, 0.95, 1.22),
        qtc=_draw_between(rng, 0.400 + 0.010 * female, 0.012, 0.375, 0.440),
        arrhythmia=_draw_between(rng, 0.05 - 0.0006 * years_over_40, 0.012, 0.01, 0.09),
        severity=float(rng.random()),
        variant=float(rng.random()),
        jitter=rng.normal(0, 0.13, (8, 3)).clip(-0.28, 0.28),
        lead_gain=_LEAD_NEARNESS * rng.normal(1, [0.03] * 2 + [0.11] * 6).clip(0.75, 1.25),
    )


def _draw_between(
    rng: np.random.Generator, mean: float, spread: float, low: float, high: float
) -> float:
    return float(np.clip(rng.normal(mean, spread), low, high))
