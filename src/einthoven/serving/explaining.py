"""The service's way to the explanations."""

from __future__ import annotations

from typing import Any

from einthoven.checkpoint import TrainedModel
from einthoven.explain.explanation import ExplainMethod, explain_sample
from einthoven.explain.methods import CROP_EXPLAINERS
from einthoven.serving.readers import ReadSignal

METHODS: tuple[ExplainMethod, ...] = ("integrated_gradients", "grad_cam", "occlusion")
assert set(METHODS) == set(CROP_EXPLAINERS)

# Of each lead's attribution; 10 s are then told in steps of 10 ms.
MOST_POINTS_TOLD = 2000


def explanation_values(
    trained: TrainedModel, read: ReadSignal, label: str | None, method: ExplainMethod
) -> dict[str, Any]:
    """What ``/explain`` says of a recording.

    Raises:
        RecordError: the signal cannot be an ECG.
        ConfigError: this model cannot be explained so, or captum is missing.
    """
    explanation = explain_sample(trained, read.signal, read.fs, read.leads, label, method)
    return explanation.values(MOST_POINTS_TOLD)
