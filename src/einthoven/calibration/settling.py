"""Everything that the calibration half settles, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einthoven.calibration.conformal import conformal_limits
from einthoven.calibration.fitting import fit_calibration
from einthoven.calibration.maps import Calibration
from einthoven.calibration.thresholds import tune_thresholds


@dataclass(frozen=True, eq=False)
class Settled:
    """Calibration, thresholds of every rule (none where single), conformal limits."""

    calibration: Calibration
    thresholds: dict[str, dict[str, float]]
    conformal: dict[str, dict[str, float]]

    def values(self) -> dict[str, Any]:
        """As parts of a model file."""
        return {
            "calibration": self.calibration.values(),
            "thresholds": self.thresholds,
            "conformal": self.conformal,
        }


def settle(
    targets: np.ndarray,
    raw: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    single: bool,
    class_weights: Sequence[float] | None = None,
) -> Settled:
    """Fit what turns raw probabilities into decisions.

    Args:
        targets, raw: ``(n, C)`` of the calibration half.
        groups: ``(n,)`` patient groups.
        class_weights: ``(C,)`` of the training loss, or None.
    """
    calibration = fit_calibration(targets, raw, groups, labels, single, class_weights)
    thresholds = {} if single else tune_thresholds(targets, calibration.apply(raw), labels)
    return Settled(calibration, thresholds, conformal_limits(targets, raw, labels, single))
