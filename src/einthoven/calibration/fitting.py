"""Fitting a calibration: probabilities that agree with how often each label is there.

Sigmoid models get Platt scaling per class (Platt 1999), softmax models a temperature (Guo et al.
2017) and a bias per class. Both undo class weighting too: a model trained with balanced weights
gives rare classes too large probabilities, and the bias takes that back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax, logit

from einthoven.calibration.maps import Calibration, clipped_logits, no_calibration
from einthoven.metrics import MIN_POSITIVES_TO_TUNE

# Below these nothing is fitted: a map from so few would be noise.
MIN_RECORDS_TO_CALIBRATE = 20
MIN_GROUPS_TO_CALIBRATE = 2

# A slope at or below this is one that the data do not support: a negative one would turn the
# ranking round, and a tiny one would map all records to one float32.
MIN_SLOPE = 0.01

# Pull towards slope 1 and bias 0 on the mean loss: it settles what the data leave open (a
# probability that never varies; the constant that softmax takes from all biases).
CALIBRATION_RIDGE = 1e-6

CalibrationLoss = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def fit_calibration(
    targets: np.ndarray,
    raw: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    labels: Sequence[str],
    single: bool,
    class_weights: Sequence[float] | None = None,
) -> Calibration:
    """The calibration that suits these records best.

    A class with fewer than `MIN_POSITIVES_TO_TUNE` positives or negatives is calibrated with the
    pool: in a sigmoid, one map fitted to the entries of all classes; in a softmax, one bias that
    such classes share. So is a class of a sigmoid whose probability does not rise with its label.

    Args:
        targets: ``(n, C)`` of 0 and 1.
        raw: ``(n, C)`` raw probabilities.
        groups: ``(n,)`` patient groups.
        labels: C names.
        single: each record has exactly one label (softmax).
        class_weights: ``(C,)`` of the training loss: a weight w multiplies the odds of its class by
            w, which is taken back before anything is fitted, so that the pool need not know.
    """
    assert targets.shape == raw.shape == (len(groups), len(labels)), (targets.shape, raw.shape)
    is_positive = targets > 0
    positives = is_positive.sum(axis=0)
    n, n_groups = len(targets), len(set(groups))
    reason = _why_not_calibrated(n, n_groups)
    if reason is not None:
        nothing = no_calibration(labels, reason)
        return replace(nothing, n=n, n_patient_groups=n_groups, positives=positives)
    is_rare = np.minimum(positives, n - positives) < MIN_POSITIVES_TO_TUNE
    fit = _fit_temperature if single else _fit_platt
    shift = np.zeros(len(labels)) if class_weights is None else -np.log(np.array(class_weights))
    slope, bias, is_pooled = fit(is_positive, _shifted(raw, shift, single), is_rare)
    bias = bias + slope * shift
    bias = bias - bias.mean() if single else bias
    pooled = tuple(label for label, pool in zip(labels, is_pooled, strict=True) if pool)
    method: Literal["platt", "temperature"] = "temperature" if single else "platt"
    return Calibration(method, slope, bias, n, n_groups, positives, pooled)


def _shifted(raw: np.ndarray, shift: np.ndarray, single: bool) -> np.ndarray:
    """Probabilities whose log-odds, or logarithms, are moved by a shift for each class."""
    if not shift.any():
        return raw
    moved = clipped_logits(raw, single) + shift
    return np.asarray(np.exp(log_softmax(moved, axis=1)) if single else expit(moved))


def _why_not_calibrated(n: int, n_groups: int) -> str | None:
    if n < MIN_RECORDS_TO_CALIBRATE:
        return f"records to calibrate on: {n}; at least {MIN_RECORDS_TO_CALIBRATE} are needed"
    if n_groups < MIN_GROUPS_TO_CALIBRATE:
        return (
            f"patient groups to calibrate on: {n_groups}; "
            f"at least {MIN_GROUPS_TO_CALIBRATE} are needed"
        )
    return None


def _minimise(objective: CalibrationLoss, start: np.ndarray) -> np.ndarray:
    """Where a smooth convex mean loss is least; the objective gives value, gradient, Hessian."""
    found = minimize(
        lambda at: objective(at)[0],
        start,
        jac=lambda at: objective(at)[1],
        hess=lambda at: objective(at)[2],
        method="trust-exact",
        options={"gtol": CALIBRATION_RIDGE / 10, "maxiter": 200},
    )
    best: np.ndarray = found.x
    return best


# Platt scaling, class by class ---------------------------------------------------------------


def _fit_platt(
    is_positive: np.ndarray, raw: np.ndarray, is_rare: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, bias and which classes took the pool's, each ``(C,)``."""
    log_odds = clipped_logits(raw, single=False)
    n_classes = len(is_rare)
    maps = np.full((n_classes, 2), -np.inf)
    for c in np.flatnonzero(~is_rare):
        maps[c] = _fit_platt_map(log_odds[:, c], is_positive[:, c])
    is_pooled = maps[:, 0] <= MIN_SLOPE
    if is_pooled.any():
        maps[is_pooled] = _fit_pool_map(log_odds.ravel(), is_positive.ravel())
    return maps[:, 0], maps[:, 1], is_pooled


def _fit_pool_map(log_odds: np.ndarray, is_positive: np.ndarray) -> tuple[float, float]:
    """Slope and bias of the pool: slope 1 where no rising map fits."""
    slope, bias = _fit_platt_map(log_odds, is_positive)
    if slope > MIN_SLOPE:
        return slope, bias
    share = _smoothed_targets(is_positive).mean()
    bias = brentq(lambda shift: expit(log_odds + shift).mean() - share, -100.0, 100.0)
    return 1.0, bias


def _smoothed_targets(is_positive: np.ndarray) -> np.ndarray:
    """Platt's targets: the rule of succession instead of 0 and 1, so that none lies at infinity."""
    n_positives = is_positive.sum()
    n_negatives = len(is_positive) - n_positives
    present, absent = (n_positives + 1) / (n_positives + 2), 1 / (n_negatives + 2)
    smoothed: np.ndarray = np.where(is_positive, present, absent)
    return smoothed


def _fit_platt_map(log_odds: np.ndarray, is_positive: np.ndarray) -> tuple[float, float]:
    """Slope and bias of least cross-entropy to Platt's smoothed targets (Lin, Lin, Weng 2007)."""
    target = _smoothed_targets(is_positive)
    # Centred, a probability that never varies leaves the slope where it starts, at 1.
    centre = log_odds.mean()
    x = log_odds - centre

    def objective(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        slope, offset = at
        eta = slope * x + offset
        p = expit(eta)
        value = np.mean(np.logaddexp(0, eta) - target * eta)
        pull = CALIBRATION_RIDGE * (slope - 1)
        gradient = np.array([np.mean((p - target) * x) + pull, np.mean(p - target)])
        w = p * (1 - p)
        cross = np.mean(w * x)
        hessian = np.array([[np.mean(w * x * x) + CALIBRATION_RIDGE, cross], [cross, w.mean()]])
        return float(value + pull * (slope - 1) / 2), gradient, hessian

    slope, offset = _minimise(objective, np.array([1.0, logit(target.mean())]))
    return float(slope), float(offset - slope * centre)


# Temperature and class bias ------------------------------------------------------------------


def _fit_temperature(
    is_positive: np.ndarray, raw: np.ndarray, is_rare: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, bias and which classes share the pool's bias, each ``(C,)``."""
    member = _bias_groups(is_rare)
    log_p = clipped_logits(raw, single=True)
    # Centred by bias group, a probability that never varies leaves the slope at 1.
    centre = member @ (log_p.mean(axis=0) @ member / member.sum(axis=0))
    z, y = _with_average_records(log_p - centre, is_positive, raw, centre, member)

    def objective(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return _softmax_loss(at, z, y, member)

    def objective_of_bias(bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = objective(np.r_[1.0, bias])
        return value, gradient[1:], hessian[1:, 1:]

    start = np.r_[1.0, np.zeros(member.shape[1])]
    found = _minimise(objective, start)
    if found[0] <= MIN_SLOPE:
        found = np.r_[1.0, _minimise(objective_of_bias, start[1:])]
    bias = member @ found[1:] - found[0] * centre
    return np.full(len(is_rare), found[0]), bias - bias.mean(), is_rare


def _bias_groups(is_rare: np.ndarray) -> np.ndarray:
    """Which bias each class has, ``(C, G)`` of 0 and 1: its own, or that of all rare ones."""
    own = np.eye(len(is_rare))[:, ~is_rare]
    return np.c_[own, is_rare] if is_rare.any() else own


def _with_average_records(
    z: np.ndarray, is_positive: np.ndarray, raw: np.ndarray, centre: np.ndarray, member: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets with one average record more for each bias.

    The rule of succession, for several classes: each bias group is seen once more than it was, at
    the mean probability. Without it a class that is absent here would get probability 0 for ever,
    and data that the model separates would call for temperature 0.
    """
    average = clipped_logits(raw.mean(axis=0, dtype=np.float64), single=True) - centre
    extra = (member / member.sum(axis=0)).T
    return np.r_[z, np.tile(average, (len(extra), 1))], np.r_[is_positive, extra]


def _softmax_loss(
    at: np.ndarray, z: np.ndarray, y: np.ndarray, member: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean cross-entropy of ``softmax(slope z + bias)``, with its gradient and Hessian.

    Args:
        at: ``(1 + G,)``: the slope, then the bias of each group.
        z, y: ``(n, C)``.
        member: ``(C, G)``.
    """
    slope, bias = at[0], at[1:]
    log_p = log_softmax(slope * z + member @ bias, axis=1)
    p = np.exp(log_p)
    n = len(z)
    pull = CALIBRATION_RIDGE * (at - np.r_[1.0, np.zeros(len(bias))])
    value = -np.sum(y * log_p) / n + pull @ pull / (2 * CALIBRATION_RIDGE)
    missing = p - y
    gradient = np.r_[np.sum(missing * z), missing.sum(axis=0) @ member] / n + pull

    p_group, mean_z = p @ member, np.sum(p * z, axis=1)
    hessian = np.empty((len(at), len(at)))
    hessian[0, 0] = np.sum(p * z * z) - mean_z @ mean_z
    hessian[0, 1:] = hessian[1:, 0] = ((p * z) @ member).sum(axis=0) - mean_z @ p_group
    hessian[1:, 1:] = np.diag(p_group.sum(axis=0)) - p_group.T @ p_group
    return float(value), gradient, hessian / n + CALIBRATION_RIDGE * np.eye(len(at))
