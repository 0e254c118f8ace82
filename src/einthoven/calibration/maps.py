"""The calibration of a model: a map from raw to calibrated probabilities, as its file holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit, softmax

# Probabilities are held this far from 0 and 1, whose log-odds are infinite.
PROBABILITY_MARGIN = 1e-7


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map from raw to calibrated probabilities, and what it was fitted on.

    Attributes:
        method: ``platt`` (sigmoid), ``temperature`` (softmax) or ``none`` (leaves them alone).
        slope: ``(C,)`` float64, all above 0; one over the temperature in every class of a softmax.
        bias: ``(C,)`` float64; sums to 0 in a softmax.
        n: records it was fitted on, of ``n_patient_groups`` patient groups.
        positives: ``(C,)`` ints: how many of them have each label.
        pooled: labels calibrated with the pool, not by themselves.
        reason: why the method is ``none``.
    """

    method: Literal["platt", "temperature", "none"]
    slope: np.ndarray
    bias: np.ndarray
    n: int
    n_patient_groups: int
    positives: np.ndarray
    pooled: tuple[str, ...] = ()
    reason: str | None = None

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities ``(n, C)`` float32.

        Platt scaling keeps the order of the records in every class. A softmax keeps the order of
        the odds of any two classes; its single probabilities may change order.

        Args:
            raw: ``(n, C)`` raw probabilities; 0 and 1 are allowed.
        """
        assert raw.shape[1:] == self.slope.shape, (raw.shape, self.slope.shape)
        if self.method == "none":
            return raw.astype(np.float32)
        if self.method == "platt":
            calibrated = expit(self.slope * clipped_logits(raw, single=False) + self.bias)
        else:
            calibrated = softmax(self.slope * clipped_logits(raw, single=True) + self.bias, axis=1)
        return np.asarray(calibrated, np.float32)

    def values(self) -> dict[str, Any]:
        """As plain values, for a model file or JSON; `calibration_from_values` reads them."""
        return {
            "method": self.method,
            "slope": self.slope.tolist(),
            "bias": self.bias.tolist(),
            "n": self.n,
            "n_patient_groups": self.n_patient_groups,
            "positives": self.positives.tolist(),
            "pooled": list(self.pooled),
            "reason": self.reason,
        }


def calibration_from_values(values: Mapping[str, Any]) -> Calibration:
    """The calibration whose `Calibration.values` these are."""
    return Calibration(
        method=values["method"],
        slope=np.asarray(values["slope"], np.float64),
        bias=np.asarray(values["bias"], np.float64),
        n=values["n"],
        n_patient_groups=values["n_patient_groups"],
        positives=np.asarray(values["positives"], np.int64),
        pooled=tuple(values["pooled"]),
        reason=values["reason"],
    )


def no_calibration(labels: Sequence[str], reason: str) -> Calibration:
    """A calibration that leaves probabilities alone, for the reason given."""
    n_classes = len(labels)
    nothing = np.zeros(n_classes, np.int64)
    return Calibration(
        "none", np.ones(n_classes), np.zeros(n_classes), 0, 0, nothing, reason=reason
    )


def clipped_logits(raw: np.ndarray, single: bool) -> np.ndarray:
    """Log-odds, or the log where ``single``, of probabilities ``(n, C)``; float64, finite."""
    inside = np.clip(raw.astype(np.float64), PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    logits: np.ndarray = np.log(inside) if single else logit(inside)
    return logits
