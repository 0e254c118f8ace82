"""From windows to one row of probabilities per record.

A record's probabilities are the mean over its windows, and each window's the mean over half
overlapping crops, when the model was trained on crops.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from einthoven.batches import (
    RecordWindows,
    WindowSource,
    list_windows,
    open_windows,
    overlapping_starts,
)
from einthoven.checkpoint import ModelInput, TrainedModel
from einthoven.console import plural, progress
from einthoven.errors import ConfigError
from einthoven.store import Store

CROPS_PER_PASS = 512


def predict_records(trained: TrainedModel, store: Store, record_indices: np.ndarray) -> np.ndarray:
    """Probabilities of some records of a store.

    Args:
        record_indices: row numbers of the manifest.

    Returns:
        ``(n_records, n_classes)`` float32.
    """
    listed = list_windows(store, record_indices)
    source = open_windows(store, listed, trained.device)
    return predict_windows(
        trained.model, trained.input, trained.single, source, listed, shown_as="Predicting"
    )


@torch.inference_mode()
def predict_windows(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    source: WindowSource,
    listed: RecordWindows,
    shown_as: str = "",
) -> np.ndarray:
    """Probabilities of the listed records; see `predict_records`.

    The model is left in the mode, training or evaluation, in which it was met.

    Args:
        shown_as: name of a progress bar; none is shown without it.
    """
    was_training = model.training
    model.eval()
    starts = overlapping_starts(listed.n_valid, model_input.window, model_input.crop)
    per_pass = max(1, CROPS_PER_PASS // starts.shape[1])
    passes: Iterable[np.ndarray] = np.array_split(
        np.arange(len(starts)), np.arange(per_pass, len(starts), per_pass)
    )
    if shown_as:
        passes = progress(passes, desc=shown_as, unit="passes")
    rows = [
        _window_probabilities(model, model_input, single, source, listed, windows, starts[windows])
        for windows in passes
    ]
    model.train(was_training)
    per_window = torch.cat(rows).cpu().numpy()
    # Sums over each record's windows, which lie in a row.
    sums = np.add.reduceat(per_window, listed.first[:-1], axis=0)
    return np.asarray(sums / np.diff(listed.first)[:, None], np.float32)


def _window_probabilities(
    model: nn.Module,
    model_input: ModelInput,
    single: bool,
    source: WindowSource,
    listed: RecordWindows,
    windows: np.ndarray,
    starts: np.ndarray,
) -> torch.Tensor:
    """Mean over crops: ``(n_windows, n_classes)``."""
    n, k = starts.shape
    samples = source.fetch(windows)
    row = torch.arange(n, device=samples.device).repeat_interleave(k)
    start = torch.from_numpy(starts.reshape(-1)).to(samples.device)
    crops = samples.unfold(2, model_input.crop, 1)[row, :, start]
    n_valid = np.clip(listed.n_valid[windows, None] - starts, 0, model_input.crop)
    x_BLS = model_input.prepare(crops, torch.from_numpy(n_valid.reshape(-1)).to(samples.device))
    logits = model(x_BLS)
    probabilities = logits.softmax(-1) if single else logits.sigmoid()
    mean: torch.Tensor = probabilities.view(n, k, -1).mean(1)
    return mean


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
