"""The crops that a prediction is averaged over, and the attributions of crops put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from einthoven.checkpoint import ModelInput
from einthoven.inference import overlapping_starts
from einthoven.signal import window_starts


def predicted_crops(n_samples: int, model_input: ModelInput) -> np.ndarray:
    """Where the crops of a recording begin, each once, as `predict_windows` takes them.

    >>> taken = ModelInput(100, 1000, 500, None, "lead", torch.ones(12))
    >>> predicted_crops(1500, taken).tolist(), predicted_crops(300, taken).tolist()
    ([0, 250, 500, 750, 1000], [0])
    """
    first = window_starts(n_samples, model_input.window)
    n_valid = np.full(len(first), min(n_samples, model_input.window))
    within = overlapping_starts(n_valid, model_input.window, model_input.crop)
    return np.unique(first[:, None] + within)


def standardised_crop(
    microvolts: np.ndarray, start: int, model_input: ModelInput, device: torch.device
) -> tuple[torch.Tensor, int]:
    """One crop as the model sees it, and how many of its samples were recorded.

    Args:
        microvolts: ``(12, sample)`` int16.
        start: of `predicted_crops`.

    Returns:
        ``(1, 12, crop)`` float32; zeros follow what was recorded.
    """
    part = microvolts[:, start : start + model_input.crop]
    n_recorded = part.shape[1]
    crop = np.zeros((1, len(part), model_input.crop), np.int16)
    crop[0, :, :n_recorded] = part
    on_device = torch.from_numpy(crop).to(device)
    return model_input.prepare(on_device, torch.tensor([n_recorded], device=device)), n_recorded


def average_overlapping(
    parts: Sequence[np.ndarray], starts: Sequence[int], n_samples: int
) -> np.ndarray:
    """Mean of what the crops that cover a sample say of it.

    Args:
        parts: ``(12, recorded)`` for each crop.
        starts: first sample of each.
        n_samples: of the recording; every sample is covered.

    Returns:
        ``(12, n_samples)`` float32.

    >>> average_overlapping([np.ones((1, 3)), np.full((1, 3), 3.0)], [0, 2], 5).tolist()
    [[1.0, 1.0, 2.0, 3.0, 3.0]]
    """
    total = np.zeros((len(parts[0]), n_samples))
    count = np.zeros(n_samples)
    for part, start in zip(parts, starts, strict=True):
        total[:, start : start + part.shape[1]] += part
        count[start : start + part.shape[1]] += 1
    return np.asarray(total / count, np.float32)
