"""What the benchmarks that train on PTB-XL's folds share: the split, the score, its interval.

Fold 10, the test fold, is in no split that is made here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einthoven.bootstrap import draw_patient_weights, logit_interval
from einthoven.checkpoint import TrainedModel
from einthoven.files import Workspace, read_json, write_json
from einthoven.inference import predict_records
from einthoven.metrics import macro_mean, ranking_scores
from einthoven.splits import is_counted
from einthoven.store import label_matrix, open_store

TEST_FOLD = 10


@dataclass(frozen=True)
class HeldOut:
    """Predictions of some records by models that have not seen their patients."""

    targets: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray


def split_by_folds(
    workspace: Workspace, train_folds: Collection[int], val_folds: Collection[int], n_val: int = 0
) -> np.ndarray:
    """Write a split of these folds; returns the row numbers of the validation folds.

    Args:
        n_val: how many of them a run validates on after each epoch (0: all); where the last epoch
            is scored, that decides nothing and only takes time.
    """
    assert not {*train_folds} & {*val_folds} and TEST_FOLD not in {*train_folds, *val_folds}
    manifest = open_store(workspace).manifest
    counted, fold = is_counted(manifest), manifest["fold"]
    is_train, is_val = (
        counted & fold.isin(list(folds)).to_numpy() for folds in (train_folds, val_folds)
    )
    splits = read_json(workspace.splits_path)
    splits |= {"train": manifest["record"][is_train].tolist(), "test": []}
    splits["val"] = manifest["record"][is_val].tolist()[: n_val or None]
    write_json(workspace.splits_path, splits)
    return np.flatnonzero(is_val)


def predict_held_out(trained: TrainedModel, workspace: Workspace, rows: np.ndarray) -> HeldOut:
    """Predict some records of the store."""
    store = open_store(workspace)
    table = store.manifest.iloc[rows]
    return HeldOut(
        label_matrix(table, trained.labels),
        predict_records(trained, store, rows),
        table["patient_group"].to_numpy(str),
    )


def macro_auroc_of(part: HeldOut) -> float:
    return float(macro_mean(ranking_scores(part.targets, part.probabilities)[0])[0])


def resampled_auroc(parts: Sequence[HeldOut], seed: int, resamples: int = 1000) -> list[np.ndarray]:
    """Macro AUROC of each part in resamples of patients, the same patients for all: ``(R,)``."""
    rng = np.random.default_rng(seed)
    drawn = [
        [macro_mean(ranking_scores(p.targets, p.probabilities, weights)[0]) for p in parts]
        for weights in draw_patient_weights(parts[0].groups, resamples, rng)
    ]
    return [np.concatenate(chunks) for chunks in zip(*drawn, strict=True)]


def auroc_figure(part: HeldOut, samples: np.ndarray) -> dict[str, Any]:
    """Macro AUROC with its 95 % interval: ``{"value", "low", "high", "n"}``."""
    value = macro_auroc_of(part)
    low, high = logit_interval(value, samples)
    return {"value": value, "low": low, "high": high, "n": len(part.groups)}
