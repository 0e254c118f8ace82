"""A run as it is compared: found by its name, read from its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from einthoven.errors import CheckpointError, ConfigError, DataError
from einthoven.files import Workspace, read_json
from einthoven.scoring import Predictions
from einthoven.settings import did_you_mean

DEFAULT_RUN = "default"
TEST_PREDICTIONS = "predictions.parquet"
OUT_OF_FOLD_PREDICTIONS = "out_of_fold.parquet"
PREDICTION_FILES = (TEST_PREDICTIONS, OUT_OF_FOLD_PREDICTIONS)
PREDICTION_COLUMNS = ("record", "patient_group", "archive", "split")


@dataclass(frozen=True)
class ScoredRun:
    """A run's test records, with what is known of the run.

    Attributes:
        name: for people.
        test: its test records.
        validation: names of the records that picked its epoch, or its calibration and thresholds.
        facts: of ``run.json`` and of its scores; empty where they are not there.
    """

    name: str
    test: Predictions
    validation: frozenset[str]
    facts: Mapping[str, Any]


# By name -----------------------------------------------------------------------------------------


def resolve_run(workspace_root: Path, written: str) -> Path:
    """The file of predictions of a run that a person has named.

    Args:
        workspace_root: the workspace whose runs have names.
        written: a run's name, ``default`` for the one without, a folder of checkpoints, or a file
            of predictions.

    Returns:
        ``predictions.parquet``, or ``out_of_fold.parquet`` of a cross-validation.

    Raises:
        ConfigError: there is no such run; names those that there are.
        CheckpointError: the run has not been evaluated yet.
    """
    checkpoints = Workspace(workspace_root).checkpoints_dir
    named = checkpoints if written == DEFAULT_RUN else checkpoints / written
    is_name = Path(written).name == written
    for place in [named, Path(written)] if is_name else [Path(written)]:
        file = predictions_in(place)
        if file is not None:
            return file
    if is_name and (named / "run.json").exists():
        flag = "" if written == DEFAULT_RUN else f" --run-name {written}"
        raise CheckpointError(
            f"run {written} has no scores yet; run `einthoven evaluate{flag}` first"
        )
    known = known_runs(workspace_root)
    there = f"this workspace has {', '.join(known)}" if known else "this workspace has none"
    raise ConfigError(
        f"there is no run {written!r} with scores; {there}{did_you_mean(written, known)} "
        "(the path of a checkpoints folder or of a predictions.parquet does as well)"
    )


def predictions_in(place: Path) -> Path | None:
    """A file itself, or the predictions that lie in a folder; None where there are none."""
    if place.is_file():
        return place
    files = [place / name for name in PREDICTION_FILES if (place / name).is_file()]
    return files[0] if files else None


def known_runs(workspace_root: Path) -> list[str]:
    """Names of the runs of a workspace that have predictions."""
    checkpoints = Workspace(workspace_root).checkpoints_dir
    named = sorted(path for path in checkpoints.glob("*") if path.is_dir())
    known = [path.name for path in named if predictions_in(path)]
    return [DEFAULT_RUN, *known] if predictions_in(checkpoints) else known


# From its files ----------------------------------------------------------------------------------


def read_scored_run(path: Path) -> ScoredRun:
    """Read what a run said of its test records.

    Args:
        path: a file of predictions, or the folder that holds it.

    Raises:
        DataError: there is no such file, it cannot be read, or it has a record twice or none.
    """
    file = predictions_in(path)
    if file is None:
        raise DataError(f"{path} holds no predictions; `einthoven evaluate` writes them")
    table = read_predictions(file)
    # An evaluation of other records than the test split has these alone.
    is_test = (table["split"] == "test").to_numpy() | (table["split"].nunique() == 1)
    test = table[is_test]
    again = test["record"][test["record"].duplicated()]
    if test.empty or len(again):
        wrong = f"the record {again.iloc[0]} twice" if len(again) else "no record of a test split"
        raise DataError(f"{file} holds {wrong}")
    facts = _facts_beside(file)
    single = facts["task"] == "single" if "task" in facts else None
    validation = frozenset(table["record"][~is_test])
    return ScoredRun(_run_title(file), predictions_from_table(test, single), validation, facts)


def _facts_beside(file: Path) -> dict[str, Any]:
    if file.name != TEST_PREDICTIONS:
        # The run of a cross-validation's name is another one.
        return {}
    facts: dict[str, Any] = {}
    for name in ("run.json", "test_metrics.json", "metrics.json"):
        facts |= read_json(file.with_name(name)) if file.with_name(name).exists() else {}
    return facts


def _run_title(file: Path) -> str:
    """``default``, ``a``, ``a/fold_3`` for another scope; the path of what is in no workspace."""
    folder = file.resolve().parent
    scope = ""
    if folder.parent.name == "evaluations":
        folder, scope = folder.parents[1], f"/{folder.name}"
    if folder.name == "checkpoints":
        return DEFAULT_RUN + scope
    return folder.name + scope if folder.parent.name == "checkpoints" else str(file)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a file of predictions.

    Raises:
        DataError: it is none.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise DataError(f"{path} cannot be read as predictions ({error})") from error
    missing = [name for name in PREDICTION_COLUMNS if name not in table]
    if missing or not labels_of_table(table):
        raise DataError(f"{path} holds no predictions of ours; `einthoven evaluate` writes them")
    return table


def labels_of_table(table: pd.DataFrame) -> tuple[str, ...]:
    """The labels that a table of predictions has columns of, in their order."""
    prefix = "label_"
    names = [str(name) for name in table.columns]
    return tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def predictions_from_table(table: pd.DataFrame, single: bool | None = None) -> Predictions:
    """Predictions as `evaluation.predictions_table` lays them out, the other way round.

    Args:
        single: whether each record has exactly one label; None: where all here have one, and are
            given one.
    """
    labels = labels_of_table(table)
    targets, logits, probabilities, decisions = (
        table[[f"{kind}_{label}" for label in labels]].to_numpy()
        for kind in ("label", "logit", "probability", "decision")
    )
    if single is None:
        single = bool((targets.sum(axis=1) == 1).all() and (decisions.sum(axis=1) == 1).all())
    return Predictions(
        records=table["record"].to_numpy(object),
        groups=table["patient_group"].astype(str).to_numpy(object),
        archives=table["archive"].to_numpy(object),
        targets=targets,
        raw=np.exp(logits) if single else expit(logits),
        probabilities=probabilities,
        decisions=decisions,
        labels=labels,
        single=single,
    )
