"""What a model says of the records of a scope, calibrated and decided, with the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from einthoven.calibration.conformal import conformal_sets
from einthoven.calibration.maps import clipped_logits
from einthoven.calibration.settling import settle
from einthoven.checkpoint import TrainedModel
from einthoven.console import log, plural
from einthoven.errors import CheckpointError, DataError
from einthoven.external import external_workspace, without_known_records
from einthoven.inference import predict_records
from einthoven.metrics import decide
from einthoven.runs import chosen_records, data_fingerprint, empty_split_error, run_splits
from einthoven.scopes import Scope, count_of_patients, rows_in_scope, split_rows
from einthoven.scoring import Predictions
from einthoven.settings import Settings
from einthoven.store import Store, label_matrix, open_store
from einthoven.views import RecordView, added_views

# Settings of a run that decide which records each of its splits has.
SPLIT_SETTINGS = ("hold_out", "split_seed", "run_mode")


@dataclass(frozen=True)
class Evaluated:
    """What a model said of the records in question, and what was found of them.

    Attributes:
        trained: the model, refitted to several views where they are averaged.
        predictions: by split; the first is the one that is reported.
        plain: of that one, with one view of each record; None where no others were asked for.
        facts: the rows of the manifest of that one.
        n_trained_on, n_validated_on: records of that one whose patients trained the model, and
            picked its epoch or set its thresholds; None where nobody can know.
        is_refitted: calibration, thresholds and limits are those of the averaged views.
    """

    trained: TrainedModel
    predictions: dict[str, Predictions]
    plain: Predictions | None
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)
    n_trained_on: int | None = 0
    n_validated_on: int | None = 0
    is_refitted: bool = False

    @property
    def reported(self) -> Predictions:
        return next(iter(self.predictions.values()))


def predict_scope(trained: TrainedModel, settings: Settings, scope: Scope) -> Evaluated:
    """Predict the records of a scope; with the test split, the validation split's halves too."""
    if scope.external is not None:
        return _predict_external(trained, settings, scope)
    store = open_store(settings.workspace)
    splits = splits_of_model(trained, settings, store)
    rows = rows_in_scope(scope, store, splits)
    parts = {"test" if scope.is_usual else scope.name: rows}
    if scope.is_usual:
        parts |= {half: splits[half] for half in ("selection", "calibration")}
    views = added_views(settings.test_time_augment)
    fitted = refit_to_views(trained, store, splits["calibration"], views)
    evaluated = predict_parts(trained, fitted, views, store, parts)
    return replace(
        evaluated,
        n_trained_on=count_of_patients(store, rows, splits["train"]),
        n_validated_on=count_of_patients(store, rows, splits["validation"]),
    )


def splits_of_model(
    trained: TrainedModel, settings: Settings, store: Store
) -> dict[str, np.ndarray]:
    """Rows of each split of the run that made a model; see `split_rows`.

    Raises:
        CheckpointError: the store or its splits are others than those that it was trained on.
    """
    own = trained.facts.get("settings", {})
    settings = settings.model_copy(
        update={name: own[name] for name in SPLIT_SETTINGS if name in own}
    )
    chosen = chosen_records(settings, store, run_splits(settings, store))
    check_same_data(trained, data_fingerprint(store, chosen))
    return split_rows(store, chosen, settings.split_seed)


def _predict_external(trained: TrainedModel, settings: Settings, scope: Scope) -> Evaluated:
    """Predict an external folder, without the recordings and patients that the model knows."""
    assert scope.external is not None
    store = open_store(external_workspace(settings, scope.external))
    rows = rows_in_scope(scope, store, {})
    views = added_views(settings.test_time_augment)
    n_known: int | None = None
    fitted = trained
    if settings.workspace.manifest_path.exists():
        known = open_store(settings.workspace)
        splits = splits_of_model(trained, settings, known)
        known_rows = np.concatenate([splits["train"], splits["validation"]])
        rows, n_known = without_known_records(known, known_rows, store, rows), 0
        fitted = refit_to_views(trained, known, splits["calibration"], views)
    else:
        log.warning(
            "%s has no store, so nobody can tell whether the model knows some of these recordings",
            settings.root,
        )
    evaluated = predict_parts(trained, fitted, views, store, {scope.name: rows})
    return replace(evaluated, n_trained_on=n_known, n_validated_on=n_known)


def refit_to_views(
    trained: TrainedModel, store: Store, calibration_rows: np.ndarray, views: Sequence[RecordView]
) -> TrainedModel:
    """The model with calibration, thresholds and limits for predictions averaged over views.

    Means over views are nearer to the middle than single predictions: what was fitted to these
    would be off. Without views, or without a calibration half, the model as it is.
    """
    if not views or not len(calibration_rows):
        return trained
    raw = predict_over_views(trained, store, calibration_rows, views, "the calibration half")[1]
    table = store.manifest.iloc[calibration_rows]
    settled = settle(
        label_matrix(table, trained.labels).astype(np.uint8),
        raw,
        table["patient_group"].to_numpy(str),
        trained.labels,
        trained.single,
        trained.facts.get("class_weights"),
    )
    return replace(
        trained,
        calibration=settled.calibration,
        threshold_sets=settled.thresholds,
        conformal=settled.conformal,
    )


def predict_parts(
    trained: TrainedModel,
    fitted: TrainedModel,
    views: Sequence[RecordView],
    store: Store,
    parts: Mapping[str, np.ndarray],
) -> Evaluated:
    """Predict some rows of a store; the first part is the one that is reported.

    Args:
        trained: the model as its file has it; decides of single views.
        fitted: of `refit_to_views`; decides of averages.
    """
    predictions: dict[str, Predictions] = {}
    plain = None
    for number, (name, rows) in enumerate(parts.items()):
        if not len(rows) and number:
            continue
        single_view, raw = predict_over_views(trained, store, rows, views, name)
        predictions[name] = describe_predictions(fitted, store, rows, raw)
        if views and not number:
            plain = describe_predictions(trained, store, rows, single_view)
    return Evaluated(
        fitted,
        predictions,
        plain,
        store.manifest.iloc[next(iter(parts.values()))],
        is_refitted=fitted is not trained,
    )


def predict_over_views(
    trained: TrainedModel,
    store: Store,
    rows: np.ndarray,
    views: Sequence[RecordView],
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities before calibration, of one view and of the mean over that and the others."""
    raw = predict_for_scoring(trained, store, rows, name)
    if not views:
        return raw, raw
    others = predict_records(trained, store, rows, views=views)
    return raw, (raw + len(views) * others) / np.float32(1 + len(views))


def check_same_data(trained: TrainedModel, data: str) -> None:
    """Refuse a model that was trained before the store, its labels or its splits changed.

    It may have been trained on records that are in the test split now.

    Raises:
        CheckpointError: the model is of other data.
    """
    before = trained.facts.get("data")
    if before != data:
        raise CheckpointError(
            f"the model was trained on other records, labels or splits (data {before}, now "
            f"{data}) and may have seen records that are in the test split now; train again "
            "(another --run-name, or --fresh), or run `einthoven prepare` with that run's settings"
        )


def predict_for_scoring(
    trained: TrainedModel, store: Store, rows: np.ndarray, split: str
) -> np.ndarray:
    """Probabilities of some records, before calibration: ``(n, C)``.

    Args:
        rows: row numbers of the manifest.
        split: for messages.

    Raises:
        DataError: there are no records, or the model gives a probability that is no number.
    """
    if not len(rows):
        raise empty_split_error(split)
    log.info("Predicting %s of %s", plural(len(rows), "record"), split)
    raw = predict_records(trained, store, rows)
    if not np.isfinite(raw).all():
        raise DataError(
            f"the model gives probabilities that are no numbers on the {split} split: its training "
            "diverged; train again with a lower LR"
        )
    return raw


def describe_predictions(
    trained: TrainedModel, store: Store, rows: np.ndarray, raw: np.ndarray
) -> Predictions:
    """Calibrate and decide, with the truth beside it."""
    table = store.manifest.iloc[rows]
    probabilities = trained.calibration.apply(raw)
    thresholds = list(trained.thresholds.values()) or None
    return Predictions(
        records=table["record"].to_numpy(object),
        groups=table["patient_group"].astype(str).to_numpy(object),
        archives=table["archive"].to_numpy(object),
        targets=label_matrix(table, trained.labels).astype(np.uint8),
        raw=raw,
        probabilities=probabilities,
        decisions=decide(probabilities, thresholds, trained.single),
        labels=trained.labels,
        single=trained.single,
    )


def predictions_table(evaluated: Evaluated, settings: Settings) -> pd.DataFrame:
    """One row per record: ``record, patient_group, archive, split``, then columns for each label.

    ``label_<name>`` and ``decision_<name>`` are 0 and 1, ``probability_<name>`` is calibrated, and
    ``logit_<name>`` the log-odds before calibration; where each record has one label, the
    logarithm. ``set_<name>`` says whether a conformal set holds the label, where one is asked for.
    """
    return pd.concat(
        [
            _split_table(split, part, sets_of(part, evaluated.trained, settings))
            for split, part in evaluated.predictions.items()
        ]
    )


def sets_of(
    predictions: Predictions, trained: TrainedModel, settings: Settings
) -> np.ndarray | None:
    """Conformal sets ``(n, C)`` of 0 and 1 at the coverage that the settings state; None for none.

    Raises:
        DataError: nothing was left to calibrate the model's sets on.
    """
    stated = settings.conformal_coverage
    if stated == "none":
        return None
    if stated not in trained.conformal:
        raise DataError(
            f"CONFORMAL_COVERAGE is {stated}, and this model has no sets of that coverage: its "
            "validation split was too small; use none"
        )
    limits = [trained.conformal[stated][label] for label in trained.labels]
    return conformal_sets(predictions.raw, limits)


def _split_table(split: str, predictions: Predictions, sets: np.ndarray | None) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "record": predictions.records,
        "patient_group": predictions.groups,
        "archive": predictions.archives,
        "split": split,
    }
    logits = clipped_logits(predictions.raw, predictions.single).astype(np.float32)
    for c, label in enumerate(predictions.labels):
        columns[f"label_{label}"] = predictions.targets[:, c].astype(np.uint8)
        columns[f"logit_{label}"] = logits[:, c]
        columns[f"probability_{label}"] = predictions.probabilities[:, c]
        columns[f"decision_{label}"] = predictions.decisions[:, c].astype(np.uint8)
        if sets is not None:
            columns[f"set_{label}"] = sets[:, c].astype(np.uint8)
    return pd.DataFrame(columns)
