"""A workspace that gives a report all it can show: many classes, people, quality, every option.

Its fake model is worse for one sex and for rare classes, so that there is something to warn of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated_workspace import FakeModel, draw_coarsely, fake_model, make_workspace

from einthoven import evaluated, evaluation
from einthoven.files import read_json, write_json, write_parquet
from einthoven.settings import Settings
from einthoven.store import Store, open_store
from einthoven.views import PLAIN_VIEW, RecordView

FIVE = ("MI", "AF", "BBB", "NORM", "<script>alert(1)</script>")
MANY = tuple(f"class {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def make_reported_workspace(
    root: Path, labels: Sequence[str], *, single: bool, n_records: int = 2000, coarse: bool = True
) -> Settings:
    """An evaluated run over two archives, with figures, views, conformal sets and subgroups."""
    archives = {"ptb-xl": n_records, "sph": n_records // 4}
    settings = make_workspace(root, tuple(labels), single=single, archives=archives)
    settings = settings.model_copy(
        update={"conformal_coverage": "0.9", "test_time_augment": "shift"}
    )
    _tell_people_apart(settings, labels, single)
    _write_history(settings)
    with pytest.MonkeyPatch.context() as patch:
        if coarse:
            draw_coarsely(patch)
        fake_model(patch, tuple(labels), single=single)
        patch.setattr(evaluated, "predict_records", predict_worse_for_women)
        evaluation.evaluate_detailed(settings)
    _pool_last_label(settings, labels[-1])
    return settings


def _tell_people_apart(settings: Settings, labels: Sequence[str], single: bool) -> None:
    """Ages, sexes and flags by patient; labels from common to rare."""
    manifest = open_store(settings.workspace).manifest
    rng = np.random.default_rng(5)
    patient, group = pd.factorize(manifest["patient_group"])
    n = len(group)
    manifest["sex"] = rng.choice(["female", "male", ""], n, p=[0.48, 0.48, 0.04])[patient]
    manifest["age"] = np.where(rng.random(n) < 0.03, np.nan, rng.normal(60, 17, n).clip(1, 90))[
        patient
    ].round()
    manifest["quality"] = rng.choice(
        ["", "flat_lead", "clipped", "clipped;lead_law"], len(manifest), p=[0.85, 0.06, 0.06, 0.03]
    )
    manifest["flat_leads"] = np.where(manifest["quality"] == "flat_lead", "V2", "")
    manifest["clipped_fraction"] = manifest["quality"].str.startswith("clipped") * 0.05
    weight = 0.85 ** np.arange(len(labels))
    if single:
        drawn = rng.choice(len(labels), len(manifest), p=weight / weight.sum())
        manifest["labels"] = [[labels[k]] for k in drawn]
    else:
        carried = rng.random((len(manifest), len(labels))) < 0.35 * weight
        manifest["labels"] = [[labels[k] for k in np.flatnonzero(row)] for row in carried]
    write_parquet(settings.workspace.manifest_path, manifest)
    splits = read_json(settings.workspace.splits_path)
    labelled = set(manifest["record"][manifest["labels"].map(len) > 0])
    for name in ("train", "val", "test"):
        splits[name] = [record for record in splits[name] if record in labelled]
    write_json(settings.workspace.splits_path, splits)


def predict_worse_for_women(
    trained: FakeModel, store: Store, rows: np.ndarray, views: Sequence[RecordView] = (PLAIN_VIEW,)
) -> np.ndarray:
    """Raw probabilities that know the truth but for noise, of which some records have more."""
    truth = np.array(
        [[label in carried for label in trained.labels] for carried in store.manifest["labels"]]
    )
    noise = np.random.default_rng(2).normal(size=truth.shape) / np.sqrt(0.8 + 0.2 * len(views))
    noise *= np.where(store.manifest["sex"] == "female", 1.7, 0.9)[:, None]
    odds = np.exp(2.6 * truth + noise - (1.2 if trained.single else 2.2))
    shares = odds / odds.sum(axis=1, keepdims=True) if trained.single else odds / (1 + odds)
    return np.asarray(shares[rows], np.float32)


def _write_history(settings: Settings) -> None:
    rng = np.random.default_rng(3)
    history = [
        {
            "epoch": e, "train_loss": 0.9 * 0.9**e + 0.1, "val_loss": 0.8 * 0.92**e + 0.2,
            "val_f1_macro": 0.8 - 0.5 * 0.85**e + rng.normal(0, 0.01),
            "val_auroc_macro": 0.93 - 0.3 * 0.8**e, "val_accuracy": 0.85 - 0.3 * 0.8**e,
            "lr": 0.005 * (1 - e / 34), "seconds": 61.0, "batch_size": 64, "skipped_steps": 0,
        }
        for e in range(1, 34)
    ]  # fmt: skip
    write_json(settings.workspace.checkpoints_dir / "training_history.json", history)


def _pool_last_label(settings: Settings, label: str) -> None:
    path = settings.workspace.checkpoints_dir / "test_metrics.json"
    metrics = read_json(path)
    positives = dict.fromkeys(metrics["labels"], 40) | {label: 7}
    metrics["calibration"] |= {
        "n": 120, "n_patient_groups": 60, "positives": positives, "pooled": [label],
        "untuned": [] if metrics["task"] == "single" else [label],
    }  # fmt: skip
    write_json(path, metrics)
