"""The files that a report is made from, read as far as they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from einthoven.files import Workspace, file_digest, read_json
from einthoven.labels.edits import read_mapping_lines
from einthoven.report.own_splits import OwnSplits, own_splits
from einthoven.scopes import metrics_path, predictions_path
from einthoven.summary import scope_title

# What a cross-validation writes, of folds and of archives.
CROSSVAL_FILES = ("crossval.json", "by_archive.json")


@dataclass(frozen=True)
class RunFiles:
    """The files that a report is made from; None for one that is not there.

    Attributes:
        splits: of the store; only the duplicate audit is taken from it.
        own: the splits of this run, which may be others than the store's.
        evaluations: scores of other records than the test split, by the name of their folder.
        crossvals: results of cross-validations of this name.
        part_run: what ``run.json`` holds of the first part of a cross-validation.
    """

    mapping: pd.DataFrame | None
    coverage: pd.DataFrame | None
    manifest: pd.DataFrame | None
    rejected: pd.DataFrame | None
    splits: dict[str, Any] | None
    run: dict[str, Any] | None
    history: list[dict[str, Any]] | None
    metrics: dict[str, Any] | None
    predictions: pd.DataFrame | None
    model_digest: str
    own: OwnSplits = field(default_factory=OwnSplits)
    evaluations: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    crossvals: Sequence[dict[str, Any]] = ()
    part_run: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, as `run.json` has them; of a cross-validation's first part."""
        found: dict[str, Any] = (self.run or self.part_run or {}).get("settings") or {}
        return found

    @property
    def labels(self) -> list[str]:
        """The classes, of the scores or of the run."""
        found = (self.metrics or {}).get("labels") or (self.run or {}).get("labels") or []
        return [str(label) for label in found]

    @property
    def is_crossval_alone(self) -> bool:
        """Whether there is a cross-validation of this name and no model."""
        return bool(self.crossvals) and self.run is None and self.metrics is None

    @property
    def is_single(self) -> bool:
        """Whether a record has exactly one label."""
        if self.metrics is not None and "task" in self.metrics:
            return bool(self.metrics["task"] == "single")
        return bool((self.run or {}).get("single"))


def load_run_files(workspace: Workspace) -> RunFiles:
    """Read what there is of a run.

    Raises:
        DataError: a JSON file is damaged.
    """
    checkpoints = workspace.checkpoints_dir
    manifest = _parquet_if_there(workspace.manifest_path)
    run = _json_if_there(checkpoints / "run.json")
    crossvals = [read_json(path) for path in crossval_paths(workspace)]
    return RunFiles(
        mapping=_mapping_if_there(workspace.mapping_path),
        coverage=_text_table(workspace.mapping_path.with_name("label_coverage.csv")),
        manifest=manifest,
        rejected=_text_table(workspace.rejected_path),
        splits=_json_if_there(workspace.splits_path),
        run=run,
        history=_json_if_there(checkpoints / "training_history.json"),
        metrics=_json_if_there(metrics_path(workspace)),
        predictions=_parquet_if_there(predictions_path(workspace)),
        model_digest=file_digest(workspace.best_model_path),
        own=own_splits(workspace, manifest, run),
        evaluations={path.parent.name: read_json(path) for path in evaluation_paths(workspace)},
        crossvals=crossvals,
        part_run=_first_part_run(workspace, crossvals),
    )


def evaluation_paths(workspace: Workspace) -> list[Path]:
    """Scores of other records than the test split, in the order of their names."""
    return sorted((workspace.checkpoints_dir / "evaluations").glob("*/metrics.json"))


def crossval_paths(workspace: Workspace) -> list[Path]:
    """Results of cross-validations of this workspace's run name."""
    paths = [workspace.checkpoints_dir / name for name in CROSSVAL_FILES]
    return [path for path in paths if path.exists()]


def _first_part_run(
    workspace: Workspace, crossvals: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    names = [str(part["run"]) for result in crossvals for part in result.get("parts") or []]
    paths = [Workspace(workspace.root, name).checkpoints_dir / "run.json" for name in names]
    found: dict[str, Any] | None = next((read_json(p) for p in paths if p.exists()), None)
    return found


def _mapping_if_there(path: Path) -> pd.DataFrame | None:
    """The archive of each record found; a spreadsheet may have written the file."""
    if not path.exists():
        return None
    lines = read_mapping_lines(path, ["archive"])
    return pd.DataFrame({"archive": [line.values.get("archive", "") for line in lines]}, dtype=str)


def _text_table(path: Path) -> pd.DataFrame | None:
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None


def _parquet_if_there(path: Path) -> pd.DataFrame | None:
    return pd.read_parquet(path) if path.exists() else None


def _json_if_there(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def scored_split(metrics: Mapping[str, Any]) -> str:
    """Which records were scored, in a few words."""
    return scope_title({"records": metrics.get("records") or {}})


def scored_predictions(files: RunFiles) -> pd.DataFrame | None:
    """The predictions that the scores are of, with the columns of every label; None without."""
    if files.predictions is None or not files.labels or "split" not in files.predictions:
        return None
    kinds = ("label", "decision", "probability")
    needed = [f"{kind}_{label}" for kind in kinds for label in files.labels]
    if any(name not in files.predictions for name in needed):
        return None
    split = (files.metrics or {}).get("split", "test")
    chosen = files.predictions[files.predictions["split"] == split]
    return chosen.reset_index(drop=True) if len(chosen) else None


def validation_parts(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Scores of the halves of the validation split, by name."""
    found = metrics.get("validation") or {}
    if "n" in found:
        return {"all": found}
    return {name: part for name, part in found.items() if isinstance(part, Mapping)}
