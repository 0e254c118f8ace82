"""The most confident errors of a model, on ECG paper."""

from __future__ import annotations

import pandas as pd

from einthoven.errors import DataError
from einthoven.examples import ConfidentError, choose_confident_errors
from einthoven.figures.prediction import visualize_prediction_sample
from einthoven.files import Workspace
from einthoven.report.parts import ReportPart
from einthoven.report.pictures import picture_of
from einthoven.report.run_files import RunFiles, scored_predictions
from einthoven.samples import signal_remarks
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, Store, open_store, stored_signal

# ECG paper has few colours, large areas and no small type: it needs fewer dots than a plot.
GALLERY_DPI = 100


def error_parts(files: RunFiles, workspace: Workspace) -> list[ReportPart]:
    """Each of the most confident errors drawn with the model's answer; sentences where none are."""
    test = scored_predictions(files)
    if test is None:
        return [ReportPart(text="Shown once the model has been evaluated.")]
    errors = choose_confident_errors(test, files.labels)
    if not errors:
        return [ReportPart(text="No record was decided wrongly.")]
    try:
        store = open_store(workspace)
    except (DataError, KeyError) as error:
        text = f"The store cannot be read, so no record is shown: {error}"
        return [ReportPart(text=text), *(ReportPart(text=_told_error(one)) for one in errors)]
    intro = (
        "False alarms with the highest probability and missed labels with the lowest, at most one "
        "per record and spread over the classes: the model at its worst, not as a rule. The label "
        "may be what is wrong."
    )
    return [ReportPart(text=intro), *(draw_error(one, files, test, store) for one in errors)]


def draw_error(
    error: ConfidentError, files: RunFiles, test: pd.DataFrame, store: Store
) -> ReportPart:
    """One error on ECG paper; a sentence where its record is not in the store."""
    number = int(pd.Index(store.manifest["record"]).get_indexer(pd.Index([error.record]))[0])
    if number < 0:
        return ReportPart(text=f"{_told_error(error)} It is not in this store, so not drawn.")
    row, record = test.iloc[error.row], store.manifest.iloc[number]
    labels = files.labels
    age = "" if pd.isna(record["age"]) else f"{record['age']:g} years"
    who = ", ".join(word for word in (error.record, age, str(record["sex"])) if word)
    thresholds = {} if files.is_single else dict((files.metrics or {}).get("thresholds") or {})
    figure = visualize_prediction_sample(
        stored_signal(store, number) / MICROVOLTS_PER_MILLIVOLT,
        store.target_fs,
        {label: float(row[f"probability_{label}"]) for label in labels},
        [label for label in labels if row[f"decision_{label}"]],
        thresholds=thresholds,
        true_labels=[label for label in labels if row[f"label_{label}"]],
        leads_present=str(record["leads_present"]).split(","),
        title=who,
        remarks=signal_remarks({str(name): value for name, value in record.items()}),
    )
    kind = "False alarm" if error.is_false_alarm else "Missed"
    heading = f"{kind}: {error.label} ({error.probability:.3f})"
    return ReportPart(heading, picture=picture_of(figure, _told_error(error), GALLERY_DPI))


def _told_error(error: ConfidentError) -> str:
    kind = "false alarm" if error.is_false_alarm else "missed"
    return f"{error.record}: {kind}, {error.label}, probability {error.probability:.3f}."
