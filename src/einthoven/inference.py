"""From windows to one row of probabilities per record.

A record's probabilities are the mean over its windows, and each window's the mean over half
overlapping crops, when the model was trained on crops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from einthoven.batches import (
    RecordWindows,
    WindowSource,
    fetch_ahead,
    list_windows,
    open_windows,
    to_device,
)
from einthoven.checkpoint import ModelInput, TrainedModel
from einthoven.console import plural, progress
from einthoven.errors import ConfigError
from einthoven.residency import ResidencyWish, choose_residency
from einthoven.resources import is_out_of_memory, release_memory
from einthoven.store import Store
from einthoven.views import PLAIN_VIEW, RecordView

CROPS_PER_PASS = 512


def predict_records(
    trained: TrainedModel,
    store: Store,
    record_indices: np.ndarray,
    residency: ResidencyWish = "auto",
    views: Sequence[RecordView] = (PLAIN_VIEW,),
) -> np.ndarray:
    """Probabilities of some records of a store, before calibration.

    Args:
        record_indices: row numbers of the manifest.
        residency: where their windows are kept.
        views: over which each prediction is averaged.

    Returns:
        ``(n_records, n_classes)`` float32.
    """
    listed = list_windows(store, record_indices)
    kept = choose_residency(len(listed.table), store.target_samples, trained.device, residency)
    source = open_windows(store, listed, trained.device, kept)
    return predict_windows(
        trained.model, trained.input, trained.single, source, listed, "Predicting", views
    )


@torch.inference_mode()
def predict_windows(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    source: WindowSource,
    listed: RecordWindows,
    shown_as: str = "",
    views: Sequence[RecordView] = (PLAIN_VIEW,),
) -> np.ndarray:
    """Probabilities of the listed records; see `predict_records`.

    The model is left in the mode, training or evaluation, in which it was met.

    Args:
        shown_as: name of a progress bar; none is shown without it.
        views: over which each prediction is averaged.
    """
    was_training = model.training
    model.eval()
    n_crops = max(
        count_crops(model_input.window, model_input.crop, view.crop_density) for view in views
    )
    per_pass = max(1, CROPS_PER_PASS // n_crops)
    n_windows = len(listed.table)
    passes = [
        np.arange(start, min(start + per_pass, n_windows))
        for start in range(0, n_windows, per_pass)
    ]
    fetched = fetch_ahead(source, passes)
    rows = [
        _mean_over_views(model, model_input, single, samples, listed.n_valid[windows], views)
        for windows, samples in zip(
            progress(passes, desc=shown_as, unit="passes") if shown_as else passes,
            fetched,
            strict=True,
        )
    ]
    model.train(was_training)
    per_window = torch.cat(rows).cpu().numpy()
    # Sums over each record's windows, which lie in a row.
    sums = np.add.reduceat(per_window, listed.first[:-1], axis=0)
    return np.asarray(sums / np.diff(listed.first)[:, None], np.float32)


def _mean_over_views(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    samples: torch.Tensor,
    n_valid: np.ndarray,
    views: Sequence[RecordView],
) -> torch.Tensor:
    shown = [
        _probabilities_that_fit(
            model, model_input, single, *view.show(samples, n_valid), view.crop_density
        )
        for view in views
    ]
    return shown[0] if len(shown) == 1 else torch.stack(shown).mean(0)


def _probabilities_that_fit(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    samples: torch.Tensor,
    n_valid: np.ndarray,
    density: int,
) -> torch.Tensor:
    """As `_window_probabilities`, in halves where memory runs out."""
    try:
        return _window_probabilities(model, model_input, single, samples, n_valid, density)
    except Exception as error:
        if len(samples) == 1 or not is_out_of_memory(error):
            raise
    release_memory(samples.device)
    half = len(samples) // 2
    return torch.cat(
        [
            _probabilities_that_fit(
                model, model_input, single, samples[part], n_valid[part], density
            )
            for part in (slice(half), slice(half, None))
        ]
    )


def _window_probabilities(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    samples: torch.Tensor,
    n_valid: np.ndarray,
    density: int,
) -> torch.Tensor:
    """Mean over crops: ``(n_windows, n_classes)``."""
    starts = overlapping_starts(n_valid, model_input.window, model_input.crop, density)
    n, k = starts.shape
    row = torch.arange(n, device=samples.device).repeat_interleave(k)
    start = to_device(torch.from_numpy(starts.reshape(-1)), samples.device)
    crops = samples.unfold(2, model_input.crop, 1)[row, :, start]
    recorded = np.clip(n_valid[:, None] - starts, 0, model_input.crop)
    n_recorded = to_device(torch.from_numpy(recorded.reshape(-1)), samples.device)
    x_BLS = model_input.prepare(crops, n_recorded)
    logits = model(x_BLS)
    probabilities = logits.softmax(-1) if single else logits.sigmoid()
    mean: torch.Tensor = probabilities.view(n, k, -1).mean(1)
    return mean


def overlapping_starts(
    n_valid: np.ndarray, n_samples: int, crop: int, density: int = 1
) -> np.ndarray:
    """First samples of crops that overlap by half and cover what was recorded.

    Args:
        n_valid: ``(n,)`` recorded samples of each window.
        n_samples: length of a window.
        crop: length of a crop.
        density: of crops; 2 lets them overlap by three quarters.

    Returns:
        ``(n, k)``, k of `count_crops`; it is the same for every window, so that short windows
        repeat crops.

    >>> overlapping_starts(np.array([1000, 300]), n_samples=1000, crop=500)
    array([[  0, 250, 500],
           [  0,   0,   0]])
    """
    slack = np.maximum(n_valid - crop, 0)
    n_crops = count_crops(n_samples, crop, density)
    # Not np.linspace: its arithmetic for one window depends on the others beside it.
    step = slack / max(n_crops - 1, 1)
    starts: np.ndarray = np.rint(np.arange(n_crops) * step[:, None]).astype(np.int64)
    return starts


def count_crops(n_samples: int, crop: int, density: int = 1) -> int:
    """How many crops that overlap by half, or more where they are denser, cover a window."""
    return math.ceil((n_samples - crop) / (crop / (2 * density))) + 1


def choose_device(name: str) -> torch.device:
    """The device that a setting names; ``auto`` takes a CUDA GPU where there is one.

    Raises:
        ConfigError: this machine, or this build of torch, has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count(),
    }[device.type]  # fmt: skip
    if (device.index or 0) >= there:
        kind = {"cuda": "a CUDA build of torch", "mps": "an Apple GPU"}.get(device.type, "")
        raise ConfigError(
            f"DEVICE is {name}, and {plural(there, f'{device.type} device')} can be used here; "
            f"use auto, or {kind} on a machine that has it"
        )
    return device
