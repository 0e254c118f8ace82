"""Heartbeats for tests of the store: twelve leads that obey the limb-lead laws, seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.records import LEADS, LIMB_FROM_I_AND_II
from einthoven.settings import Settings


def fake_ecg(seed: int, fs: float = 200, seconds: float = 10) -> np.ndarray:
    """``(12, sample)`` float32 mV; the same seed at two rates is the same recording twice."""
    rng = np.random.default_rng(seed)
    beats = np.cumsum(rng.normal(0.8, 0.08, 200)) - 0.3
    sizes = rng.normal(1, 0.1, 200)
    source = rng.normal(0, 0.6, (8, 4))
    time = np.arange(round(seconds * fs)) / fs
    waves = np.zeros((4, len(time)))
    for wave, (delay, width) in enumerate([(-0.16, 0.03), (0, 0.012), (0.03, 0.015), (0.25, 0.06)]):
        for beat, size in zip(beats[beats < seconds + 1], sizes, strict=False):
            waves[wave] += size * np.exp(-(((time - beat - delay) / width) ** 2) / 2)
    eight = source @ waves
    limb = LIMB_FROM_I_AND_II @ eight[:2]
    return np.concatenate([limb, eight[2:]]).astype(np.float32)


def write_own_archive(folder: Path, signals: list[np.ndarray], fs: float = 200, **columns) -> Path:
    """An archive of NumPy files with a labels.csv; ``columns`` are further columns of it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"r{number:03d}.npy" for number in range(len(signals))]
    for name, signal in zip(names, signals, strict=True):
        np.save(folder / name, signal)
    table = pd.DataFrame({"path": names, "labels": "NORM", "fs": fs, "leads": ";".join(LEADS)})
    table.assign(**columns).to_csv(folder / "labels.csv", index=False)
    return folder


def settings_for(root: Path, **changes) -> Settings:
    """Settings of a small store: 2 s windows at 100 Hz, in this process."""
    values = {
        "root": root,
        "target_samples": 200,
        "prepare_workers": 1,
        "tracking": "none",
        **changes,
    }
    return Settings(**values)
