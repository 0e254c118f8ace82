"""Which records an evaluation is of, and where its files lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.files import Workspace, digest
from einthoven.holdout import halve_records
from einthoven.settings import did_you_mean
from einthoven.splits import N_FOLDS, is_counted
from einthoven.store import Store


@dataclass(frozen=True)
class Scope:
    """Which records are scored; the test split by default.

    Attributes:
        split: test, validation or one of its halves, selection and calibration; train; or all.
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
        """For files and messages, such as ``test`` or ``fold_3-sph``; no two scopes share one."""
        split = f"fold_{self.fold}" if self.fold else self.split
        if self.external is not None:
            split = f"external_{_path_word(self.external)}"
        archive = f"-{_file_word(self.archive)}" if self.archive else ""
        return f"{split}{archive}" + (f"-by_{_path_word(self.model)}" if self.model else "")

    def values(self) -> dict[str, Any]:
        """As results tell it."""
        is_split = not self.fold and self.external is None
        return {
            "split": self.split if is_split else None,
            "fold": self.fold or None,
            "archive": self.archive or None,
            # A folder's name; where it lies on this machine is nobody's business.
            "external": None if self.external is None else self.external.resolve().name,
            "model": None if self.model is None else "/".join(self.model.resolve().parts[-2:]),
        }

    def places(self) -> dict[str, str]:
        """Whatever tells it from any other, for the stamp that nobody else sees."""
        paths = {"external": self.external, "model": self.model}
        told = {name: str(path.resolve()) for name, path in paths.items() if path is not None}
        return {"split": self.split, "fold": str(self.fold), "archive": self.archive, **told}


USUAL_SCOPE = Scope()


def _file_word(text: str) -> str:
    """A name that any file system takes; two names that differ stay different."""
    word = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
    return word if word == text else f"{word}-{digest(text)[:6]}"


def _path_word(path: Path) -> str:
    """A path's last part, and what tells it from others of that name."""
    where = path.resolve()
    return f"{_file_word(where.stem)}-{digest(where.as_posix())[:6]}"


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
        raise DataError(_why_empty(scope, manifest))
    return rows


def _why_empty(scope: Scope, manifest: pd.DataFrame) -> str:
    if scope.split == "calibration" and not scope.fold and scope.external is None:
        return (
            "the validation split has no calibration half: it is of one patient, or has no record "
            "of this archive"
        )
    n_labelled = int(is_counted(manifest).sum())
    is_split = not scope.fold and not scope.archive and scope.external is None
    what = f"the {scope.split} split" if is_split and scope.split != "all" else scope.name
    return (
        f"{what} has no labelled record; of the store's {plural(len(manifest), 'record')} "
        f"{n_labelled:,} have a label and are no copies"
    )


def count_of_patients(store: Store, rows: np.ndarray, known_rows: np.ndarray) -> int:
    """How many of some records are of the patients of other ones."""
    group = store.manifest["patient_group"]
    return int(group.iloc[rows].isin(set(group.iloc[known_rows])).sum())
