"""A tiny store for tests of what comes after `prepare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.files import Workspace, write_json, write_parquet
from einthoven.splits import fold_split
from einthoven.store import MANIFEST_COLUMNS, Store, open_store

N_SAMPLES = 200
FS = 100


def tiny_signals(labels: list[str], rng: np.random.Generator) -> np.ndarray:
    """Windows whose class shows: MI beats are negative, NORM's positive, under a little noise."""
    beat = 1000 * np.exp(-0.5 * ((np.arange(N_SAMPLES) % 50 - 25) / 3.0) ** 2)
    sign = np.array([-1.0 if label == "MI" else 1.0 for label in labels])
    noise = rng.normal(0, 50, (len(labels), 12, N_SAMPLES))
    return (sign[:, None, None] * beat + noise).astype(np.int16)


def write_tiny_store(root: Path, n_records: int = 80, seed: int = 0, n_windows: int = 1) -> Store:
    """A store of MI and NORM records of one archive, eight in ten for training."""
    rng = np.random.default_rng(seed)
    labels = ["MI" if rng.random() < 0.4 else "NORM" for _ in range(n_records)]
    windows = np.repeat(tiny_signals(labels, rng), n_windows, axis=0)
    workspace = Workspace(root)
    workspace.records_dir.mkdir(parents=True)
    np.save(workspace.records_dir / "only.npy", windows)
    manifest = pd.DataFrame(dict.fromkeys(MANIFEST_COLUMNS, ""), index=range(n_records))
    ids = [f"r{number:03d}" for number in range(n_records)]
    manifest = manifest.assign(
        record=[f"tiny/{record_id}" for record_id in ids], archive="tiny", record_id=ids,
        patient_id=ids, patient_group=[f"tiny/{record_id}" for record_id in ids],
        fold=np.arange(n_records) % 10 + 1, shard="only", row=np.arange(n_records) * n_windows,
        n_windows=n_windows, n_samples=N_SAMPLES * n_windows, fs=500.0,
        leads_present="I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6", clipped_fraction=0.0,
        lead_law_residual_mv=0.0, missing_fraction=0.0, labels=[[label] for label in labels],
        age=60.0, sex="female",
    )  # fmt: skip
    manifest.attrs = {"target_fs": FS, "target_samples": N_SAMPLES, "digest": f"{seed}"}
    write_parquet(workspace.manifest_path, manifest)
    splits = {"seed": seed, "label_set": "five", "audit": {}, **fold_split(manifest)}
    write_json(workspace.splits_path, splits)
    return open_store(workspace)
