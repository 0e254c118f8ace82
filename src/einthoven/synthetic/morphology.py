"""The heart's waves: Gaussian pieces of a 3-D dipole, and what each disease does to them.

After McSharry et al., A dynamical model for generating synthetic electrocardiogram signals, IEEE
Trans Biomed Eng 50 (2003) 289, in the three-dimensional form of Sameni et al., EURASIP J Adv Signal
Process (2007) 43407: each wave is a bell in time that pushes the dipole in a direction of its own.
QRS is drawn as its electrical parts: septum, free walls, base.

Axes are Frank's: x to the left, y to the feet, z to the back; millivolts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from einthoven.errors import ConfigError
from einthoven.synthetic.patients import SyntheticPatient

# Leads I, II and V1–V6 from Frank's x, y, z: Dower, Machado and Osborne, On deriving the
# electrocardiogram from vectorcardiographic leads, Clin Cardiol 3 (1980) 87.
DOWER_MATRIX = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)


# x, y, z in millivolts.
DipoleDirection = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Wave:
    """One bell of the dipole.

    Attributes:
        anchor: what ``centre`` counts from: ``"P"`` the onset of P, ``"R"`` the middle of QRS,
            ``"T"`` the peak of T, ``"ST"`` the middle between the J point and the peak of T.
        centre: seconds after the anchor.
        rise, fall: width before and after the centre, seconds (for ``"ST"`` as a fraction of the
            time from J to the peak of T).
        vector: x, y, z in millivolts.
        power: 2 is a Gaussian, 4 has the flat top of an ST segment.
    """

    anchor: str
    centre: float
    rise: float
    fall: float
    vector: np.ndarray
    power: int = 2

    def scaled(self, gain: float) -> Wave:
        return replace(self, vector=self.vector * gain)


@dataclass(frozen=True)
class Heart:
    """The waves of one kind of beat, and the intervals that place them.

    Attributes:
        waves: by name.
        onset: from the start of QRS to the ``"R"`` anchor, seconds.
        j: from the ``"R"`` anchor to the J point, seconds.
        pr: from the onset of P to the onset of QRS, seconds.
        qtc: QT interval at one beat per second, seconds.
    """

    waves: dict[str, Wave]
    onset: float
    j: float
    pr: float
    qtc: float

    def with_waves(self, **changed: Wave) -> Heart:
        return replace(self, waves={**self.waves, **changed})


def _gauss_wave(
    anchor: str, centre_ms: float, width_ms: float | tuple[float, float], vector: DipoleDirection
) -> Wave:
    rise, fall = width_ms if isinstance(width_ms, tuple) else (width_ms, width_ms)
    return Wave(anchor, centre_ms / 1e3, rise / 1e3, fall / 1e3, np.asarray(vector, float))


def _st_wave(vector: DipoleDirection) -> Wave:
    return Wave("ST", 0.0, 0.52, 0.60, np.asarray(vector, float), power=4)


def _qrs_wave(patient: SyntheticPatient, centre_ms: float, width_ms: float, vector: DipoleDirection,
         stretch: float = 1.0) -> Wave:  # fmt: skip
    return _gauss_wave("R", centre_ms * stretch, width_ms * stretch, vector).scaled(
        patient.qrs_gain
    )


# The normal heart --------------------------------------------------------------------------------


def normal_heart(patient: SyntheticPatient) -> Heart:
    """The waves of a healthy heart in this person's chest."""
    w = patient.qrs_stretch
    waves = {
        "p_right": _gauss_wave("P", 36, 15, (0.035, 0.085, -0.055)).scaled(patient.p_gain),
        "p_left": _gauss_wave("P", 68, 16, (0.065, 0.050, 0.045)).scaled(patient.p_gain),
        "septum": _qrs_wave(patient, -22, 6.0, (-0.13, 0.02, -0.23), w),
        "anterior": _qrs_wave(patient, -9, 7.0, (0.33, 0.22, -0.18), w),
        "free_wall": _qrs_wave(patient, 3, 8.5, (0.95, 0.72, 0.36), w),
        "base": _qrs_wave(patient, 22, 7.5, (-0.10, -0.16, 0.58), w),
        "t": _gauss_wave("T", 0, (56, 36), (0.28, 0.20, -0.12)).scaled(patient.t_gain),
    }
    turned = {
        name: replace(wave, vector=_in_chest(wave.vector, patient, row, half=name == "t"))
        for row, (name, wave) in enumerate(waves.items())
    }
    return Heart(turned, onset=0.041 * w, j=0.046 * w, pr=patient.pr, qtc=patient.qtc)


def _in_chest(
    vector: np.ndarray, patient: SyntheticPatient, row: int, half: bool = False
) -> np.ndarray:
    """A vector of the mean heart as it lies in this chest; T turns half as far as QRS."""
    part = 0.5 if half else 1.0
    turned = turn_dipole(vector * (1 + patient.jitter[row]), part * patient.axis, (0, 1))
    return turn_dipole(turned, part * patient.rotation, (0, 2))


def turn_dipole(dipole: np.ndarray, degrees: float, plane: tuple[int, int]) -> np.ndarray:
    """A vector, or ``(3, sample)`` of them, turned in the plane of two axes."""
    a, b = plane
    angle = np.deg2rad(degrees)
    turned = dipole.copy()
    turned[a] = np.cos(angle) * dipole[a] - np.sin(angle) * dipole[b]
    turned[b] = np.sin(angle) * dipole[a] + np.cos(angle) * dipole[b]
    return turned


# Conduction --------------------------------------------------------------------------------------


def _left_bundle_branch_block(heart: Heart, patient: SyntheticPatient) -> Heart:
    # The septum is now crossed from right to left: no q in I, aVL, V5, V6; the left wall comes last
    # and slowly (a notched plateau), and ST and T point away from it.
    w = 0.95 + 0.13 * patient.severity
    tilt = 0.35 * (0.5 - patient.variant)
    waves = {
        "septum": _qrs_wave(patient, -40, 11, (0.30, 0.16, -0.10), w),
        "anterior": _qrs_wave(patient, -14, 14, (0.74, 0.26 + tilt, 0.60), w),
        "free_wall": _qrs_wave(patient, 18, 14, (0.52, -0.06 + tilt, 1.30), w),
        "base": _qrs_wave(patient, 47, 14, (0.80, -0.14 + tilt, 0.82), w),
        "st": _st_wave((-0.12, -0.01, -0.22)).scaled(patient.qrs_gain),
        "t": _gauss_wave("T", 0, (62, 40), (-0.30, -0.04, -0.40)).scaled(patient.qrs_gain),
    }
    changed = heart.with_waves(**waves)
    return replace(changed, onset=0.068 * w, j=0.078 * w, qtc=heart.qtc + 0.055)


def _right_bundle_branch_block(heart: Heart, patient: SyntheticPatient) -> Heart:
    return _late_right_ventricle(heart, patient, delay_ms=60, width_ms=19, gain=0.78)


def _incomplete_right_bundle_branch_block(heart: Heart, patient: SyntheticPatient) -> Heart:
    return _late_right_ventricle(heart, patient, delay_ms=40, width_ms=8.5, gain=0.50)


def _late_right_ventricle(
    heart: Heart, patient: SyntheticPatient, delay_ms: float, width_ms: float, gain: float
) -> Heart:
    # The left ventricle is done first, as ever; then the right one, forwards and to the right: R'
    # in V1, a broad S in I and V6, and T turned away from it in V1 and V2.
    gain *= 0.85 + 0.4 * patient.severity
    late = _qrs_wave(patient, delay_ms, width_ms, (-0.60, -0.02, -0.72)).scaled(gain)
    base = heart.waves["base"].scaled(0.75)
    t = replace(heart.waves["t"], vector=heart.waves["t"].vector + gain * np.array([0.02, 0, 0.30]))
    end = (delay_ms + 2.1 * width_ms) / 1e3
    lengthened = heart.qtc + 0.6 * (end - heart.j)
    return replace(heart.with_waves(late=late, base=base, t=t), j=end, qtc=lengthened)


def _first_degree_av_block(heart: Heart, patient: SyntheticPatient) -> Heart:
    return replace(heart, pr=0.225 + 0.09 * patient.severity)


# Hypertrophy and ischaemia -----------------------------------------------------------------------


def _left_ventricular_hypertrophy(heart: Heart, patient: SyntheticPatient) -> Heart:
    # More muscle to the left and the back; strain turns ST and T away from it.
    gain = 1.38 + 0.40 * patient.severity
    lift = gain / patient.qrs_gain
    free_wall, base = (
        turn_dipole(lift * np.array(vector), 0.5 * patient.axis, (0, 1))
        for vector in ((1.28, 0.62, 0.70), (-0.05, -0.25, 0.62))
    )
    stronger = {
        "free_wall": _qrs_wave(patient, 4, 10.5, free_wall),
        "base": _qrs_wave(patient, 26, 9.5, base),
        "st": _st_wave(np.array([-0.10, -0.035, -0.08]) * gain),
        "t": _gauss_wave("T", 0, (70, 34), np.array([-0.22, -0.10, -0.17]) * gain),
    }
    return replace(heart.with_waves(**stronger), onset=0.046, j=0.055, qtc=heart.qtc + 0.015)


def _st_depression(heart: Heart, patient: SyntheticPatient) -> Heart:
    # Subendocardial: ST away from the left ventricle, so depressed in I, II, V4–V6 and raised in
    # aVR; T is low.
    gain = 1.0 + 0.7 * patient.severity
    st = _st_wave(np.array([-0.125, -0.10, 0.035]) * gain)
    return heart.with_waves(st=st, t=heart.waves["t"].scaled(0.45))


def _t_inversion(heart: Heart, patient: SyntheticPatient) -> Heart:
    gain = 0.85 + 0.5 * patient.severity
    t = _gauss_wave("T", 0, (46, 40), np.array([-0.27, -0.10, 0.10]) * gain)
    return replace(heart.with_waves(t=t), qtc=heart.qtc + 0.02)


# Infarction --------------------------------------------------------------------------------------
# Dead muscle no longer pulls the dipole its way: the start of QRS points away from it (Q). Injured
# muscle pulls ST towards itself (elevation, with the mirror image opposite). Later T turns away.


def _infarcted(
    heart: Heart, lost: DipoleDirection, st: DipoleDirection, t: DipoleDirection,
    t_kept: float, r_kept: float = 1.0,
) -> Heart:  # fmt: skip
    """Replace the start of QRS by ``lost`` and add to ST and T."""
    stretch = heart.onset / 0.041
    old_t = heart.waves["t"]
    changed = {
        "septum": _gauss_wave("R", -23 * stretch, 10 * stretch, lost),
        "anterior": heart.waves["anterior"].scaled(r_kept),
        "free_wall": heart.waves["free_wall"].scaled(0.5 + 0.5 * r_kept),
        "t": replace(old_t, vector=t_kept * old_t.vector + np.asarray(t)),
    }
    if np.any(st):
        changed["st"] = _st_wave(st)
    return replace(heart.with_waves(**changed), onset=0.050 * stretch)


def _inferior_acute(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.5 * patient.severity
    st = np.array([-0.02, 0.25, 0.075]) * size
    return _infarcted(heart, np.array([-0.05, -0.12, -0.20]), st, 0.5 * st, 0.8)


def _inferior_old(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.4 * patient.severity
    lost = np.array([-0.02, -0.40, -0.22]) * size
    return _infarcted(heart, lost, (0, 0, 0), np.array([0.04, -0.36, -0.04]) * size, 0.8, 0.75)


def _anterior_acute(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.5 * patient.severity
    st = np.array([0.055, -0.075, -0.235]) * size
    return _infarcted(heart, np.array([0.02, 0.02, 0.08]), st, 0.7 * st, 0.7, 0.8)


def _anterior_old(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.4 * patient.severity
    lost = np.array([-0.05, 0.04, 0.42]) * size
    heart = _infarcted(heart, lost, (0.01, 0, -0.05), np.array([-0.22, -0.04, 0.42]) * size, 0.75)
    # Without the anterior wall the rest of QRS lies further back too: QS, not rS, up to V3.
    anterior, free_wall = heart.waves["anterior"], heart.waves["free_wall"]
    return heart.with_waves(
        anterior=replace(anterior, vector=anterior.vector + size * np.array([-0.12, 0, 0.30])),
        free_wall=replace(free_wall, vector=free_wall.vector + size * np.array([-0.12, 0, 0.28])),
    )


def _lateral_acute(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.4 * patient.severity
    st = np.array([0.26, -0.13, 0.13]) * size
    return _infarcted(heart, np.array([-0.20, 0.06, -0.16]), st, 0.5 * st, 0.8)


def _lateral_old(heart: Heart, patient: SyntheticPatient) -> Heart:
    size = 0.85 + 0.4 * patient.severity
    lost = np.array([-0.46, 0.12, -0.16]) * size
    return _infarcted(heart, lost, (0, 0, 0), np.array([-0.46, 0.03, -0.12]) * size, 0.8, 0.75)


# Ectopic beats -----------------------------------------------------------------------------------


def ventricular_ectopic(patient: SyntheticPatient) -> Heart:
    """A beat that starts in one ventricle: no P, broad and tall, ST and T the other way."""
    from_left = patient.variant > 0.5
    start = (-0.35, 0.55, -0.95) if from_left else (0.75, 1.00, 0.35)
    end = (-0.80, 0.45, -0.60) if from_left else (0.60, 0.45, 1.05)
    t = -0.34 * (np.array(start) + np.array(end))
    gain = 1.05 + 0.2 * patient.severity
    waves = {
        "start": _gauss_wave("R", -24, 17, start).scaled(gain),
        "end": _gauss_wave("R", 20, 19, end).scaled(gain),
        "st": _st_wave(0.35 * t),
        "t": _gauss_wave("T", 0, (62, 44), t).scaled(gain),
    }
    return Heart(waves, onset=0.064, j=0.070, pr=0.0, qtc=patient.qtc + 0.05)


def atrial_ectopic(heart: Heart) -> Heart:
    """The same ventricles after a P wave from another place: flat or upside down in II."""
    strange_p = {
        "p_right": _gauss_wave("P", 32, 13, (-0.03, -0.07, -0.05)),
        "p_left": _gauss_wave("P", 60, 14, (0.05, -0.06, 0.03)),
    }
    return replace(heart.with_waves(**strange_p), pr=max(0.12, heart.pr - 0.015))


HeartEffect = Callable[[Heart, SyntheticPatient], Heart]

MORPHOLOGIES: dict[str, HeartEffect] = {
    "lbbb": _left_bundle_branch_block,
    "rbbb": _right_bundle_branch_block,
    "irbbb": _incomplete_right_bundle_branch_block,
    "av_block_1": _first_degree_av_block,
    "lvh": _left_ventricular_hypertrophy,
    "st_depression": _st_depression,
    "t_inversion": _t_inversion,
    "mi_inferior_acute": _inferior_acute,
    "mi_inferior_old": _inferior_old,
    "mi_anterior_acute": _anterior_acute,
    "mi_anterior_old": _anterior_old,
    "mi_lateral_acute": _lateral_acute,
    "mi_lateral_old": _lateral_old,
}


def diseased_heart(patient: SyntheticPatient, morphologies: Sequence[str]) -> Heart:
    """The waves of a heart with these diseases, each done to what the ones before left.

    Raises:
        ConfigError: a morphology is not known.
    """
    heart = normal_heart(patient)
    for name in morphologies:
        if name not in MORPHOLOGIES:
            known = ", ".join(MORPHOLOGIES)
            raise ConfigError(f"morphology {name!r} is not known; use one of {known}")
        heart = _personal(heart, MORPHOLOGIES[name](heart, patient), patient)
    return heart


def _personal(before: Heart, after: Heart, patient: SyntheticPatient) -> Heart:
    """The waves that a disease made, with this person's small differences."""
    changed = {
        name: replace(wave, vector=wave.vector * (1 + patient.jitter[row % 8]))
        for row, (name, wave) in enumerate(after.waves.items())
        if wave is not before.waves.get(name)
    }
    return after.with_waves(**changed)
