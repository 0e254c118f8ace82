"""Which records an evaluation is of, and where its files lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.files import Workspace
from einthoven.holdout import halve_records
from einthoven.settings import did_you_mean
from einthoven.splits import N_FOLDS, is_counted
from einthoven.store import Store

SCOPE_SPLITS = ("test", "selection", "calibration", "validation", "train", "all")


@dataclass(frozen=True)
class Scope:
    """Which records are scored; the test split by default.

    Attributes:
        split: one of `SCOPE_SPLITS`; selection and calibration are the validation split's halves.
        fold: in place of a split, a fold of the store; 0 for none.
        archive: of these records, those of one archive; empty for all.
        external: in place of the store, a folder of archives that the model has not seen.
        model: in place of this run's best model, another file.
    """

    split: str = "test"
    fold: int = 0
    archive: str = ""
    external: Path | None = None
    model: Path | None = None

    @property
    def is_usual(self) -> bool:
        return self == Scope()

    @property
    def name(self) -> str:
        """For files and messages, such as ``test`` or ``fold_3-sph``."""
        split = f"fold_{self.fold}" if self.fold else self.split
        if self.external is not None:
            split = f"external_{_file_word(self.external.resolve().name)}"
        archive = f"-{_file_word(self.archive)}" if self.archive else ""
        return f"{split}{archive}" + (f"-by_{_file_word(self.model.stem)}" if self.model else "")

    def values(self) -> dict[str, Any]:
        """As results tell it."""
        is_split = not self.fold and self.external is None
        return {
            "split": self.split if is_split else None,
            "fold": self.fold or None,
            "archive": self.archive or None,
            # A folder's name; where it lies on this machine is nobody's business.
            "external": None if self.external is None else self.external.resolve().name,
        }


USUAL_SCOPE = Scope()


def _file_word(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text) or "_"


def evaluation_dir(workspace: Workspace, scope: Scope = USUAL_SCOPE) -> Path:
    """Where scores and predictions lie: beside the model, or in a folder of their own."""
    if scope.is_usual:
        return workspace.checkpoints_dir
    return workspace.checkpoints_dir / "evaluations" / scope.name


def metrics_path(workspace: Workspace, scope: Scope = USUAL_SCOPE) -> Path:
    """Where the scores lie."""
    name = "test_metrics.json" if scope.is_usual else "metrics.json"
    return evaluation_dir(workspace, scope) / name


def predictions_path(workspace: Workspace, scope: Scope = USUAL_SCOPE) -> Path:
    """Where the predictions of single records lie."""
    return evaluation_dir(workspace, scope) / "predictions.parquet"


# Records ---------------------------------------------------------------------------------------


def split_rows(
    store: Store, chosen: Mapping[str, np.ndarray], split_seed: int
) -> dict[str, np.ndarray]:
    """Row numbers of the manifest by the names that scopes use.

    Args:
        chosen: rows of ``train``, ``val`` and ``test`` of a run.
        split_seed: of the run; decides the halves.
    """
    selection, calibration = halve_records(store.manifest, chosen["val"], split_seed)
    return {
        "train": chosen["train"],
        "selection": selection,
        "calibration": calibration,
        "validation": chosen["val"],
        "test": chosen["test"],
    }


def rows_in_scope(scope: Scope, store: Store, splits: Mapping[str, np.ndarray]) -> np.ndarray:
    """Row numbers of the records to score.

    Args:
        splits: of `split_rows`; not looked at for a fold, for all, and for an external folder.

    Raises:
        DataError: there are none.
    """
    manifest = store.manifest
    rows = np.flatnonzero(is_counted(manifest))
    if scope.fold:
        if not 1 <= scope.fold <= N_FOLDS:
            raise DataError(f"fold {scope.fold} is not there; use 1 to {N_FOLDS}")
        rows = rows[manifest["fold"].to_numpy()[rows] == scope.fold]
    elif scope.external is None and scope.split != "all":
        rows = splits[scope.split]
    if scope.archive:
        known = sorted(manifest["archive"].unique())
        if scope.archive not in known:
            raise DataError(
                f"the store has no archive {scope.archive!r}; it has {', '.join(known)}"
                f"{did_you_mean(scope.archive, known)}"
            )
        rows = rows[(manifest["archive"] == scope.archive).to_numpy()[rows]]
    if not len(rows):
        n = plural(len(manifest), "record")
        raise DataError(f"none of the store's {n} that have a label is in {scope.name}")
    return rows


def count_trained(store: Store, rows: np.ndarray, trained_rows: np.ndarray) -> int:
    """How many of some records are of patients that the model was trained on."""
    group = store.manifest["patient_group"]
    return int(group.iloc[rows].isin(set(group.iloc[trained_rows])).sum())
