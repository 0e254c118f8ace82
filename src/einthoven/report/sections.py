"""The sections of a report, each from what there is of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from einthoven.figures.style import MOST_LINES_IN_ONE_PLOT
from einthoven.files import Workspace
from einthoven.report.crossval_tables import crossval_parts
from einthoven.report.curves import class_charts, training_charts
from einthoven.report.data_card import (
    archive_table,
    audit_table,
    coverage_table,
    patient_table,
    quality_table,
    rejection_table,
    split_table,
    splits_sentence,
    store_sentence,
    unmapped_table,
)
from einthoven.report.decision_tables import (
    calibration_sentence,
    calibration_table,
    conformal_sentence,
    conformal_table,
    rule_sentence,
    subgroup_tables,
    views_sentence,
    views_table,
)
from einthoven.report.gallery import error_parts
from einthoven.report.parts import ReportPart, ReportSection, ReportTable
from einthoven.report.pictures import embed_picture, newest_figure
from einthoven.report.run_files import RunFiles, scored_predictions
from einthoven.report.run_tables import (
    best_epoch,
    epoch_table,
    facts_table,
    file_table,
    settings_tables,
    training_sentence,
)
from einthoven.report.score_tables import (
    archive_score_table,
    average_table,
    class_score_table,
    confusion_table,
    evaluation_table,
)
from einthoven.version import DISCLAIMER

NOT_EVALUATED = "Not evaluated yet: run `einthoven evaluate`."

PICTURE_CAPTIONS = {
    "confusion_matrix": "What was decided for the records of each true class.",
    "per_class_metrics": "Precision, recall and F1 of each class.",
    "roc_curves": "ROC curves, each class against the rest.",
    "precision_recall_curves": "Precision against recall of each class.",
    "reliability_diagrams": "Calibration: on the diagonal, a probability is the share of records "
    "that have the class.",
    "threshold_curves": "What each threshold would give.",
    "score_distributions": "Probabilities of records with and without each class.",
    "subgroup_forest": "Subgroups and the rest of the records, with 95 % intervals.",
}


def report_sections(files: RunFiles, workspace: Workspace) -> list[Callable[[], ReportSection]]:
    """What makes each section, in the page's order: first what trust hangs on."""
    if files.is_crossval_alone:
        return [
            lambda: _crossval_section(files),
            lambda: _data_section(files),
            lambda: _files_section(workspace),
        ]
    crossval = [lambda: _crossval_section(files)] if files.crossvals else []
    return [
        lambda: _scores_section(files, workspace),
        lambda: _calibration_section(files, workspace),
        lambda: _subgroups_section(files, workspace),
        *crossval,
        lambda: ReportSection("errors", "Errors", error_parts(files, workspace)),
        lambda: _data_section(files),
        lambda: _training_section(files),
        lambda: _settings_section(files),
        lambda: _files_section(workspace),
    ]


def _tables_if_there(tables: Mapping[str, ReportTable | None]) -> list[ReportPart]:
    return [ReportPart(heading, table=table) for heading, table in tables.items() if table]


def _picture_parts(workspace: Workspace, *names: str, folded: str = "") -> list[ReportPart]:
    """The newest figure of each name, where there is one."""
    found = [(name, newest_figure(workspace.figures_dir, name)) for name in names]
    return [
        ReportPart(picture=embed_picture(path.read_bytes(), PICTURE_CAPTIONS[name]), folded=folded)
        for name, path in found
        if path is not None
    ]


# Scores ----------------------------------------------------------------------------------------


def _scores_section(files: RunFiles, workspace: Workspace) -> ReportSection:
    if files.metrics is None:
        return ReportSection("scores", "Scores", [ReportPart(text=NOT_EVALUATED)])
    parts = [ReportPart(text=DISCLAIMER)]
    parts += _tables_if_there(
        {
            "By class": class_score_table(files),
            "By archive and split": archive_score_table(files),
            "On other records": evaluation_table(files),
        }
    )
    parts += _picture_parts(workspace, "per_class_metrics")
    parts += [*_curve_parts(files, workspace), *_confusion_parts(files, workspace)]
    averages = average_table(files)
    if averages:
        parts.append(ReportPart("Every average", table=averages))
    if views_sentence(files):
        text, table = views_sentence(files), views_table(files)
        parts.append(ReportPart("Test-time augmentation", text, table))
    return ReportSection("scores", "Scores", parts)


def _curve_parts(files: RunFiles, workspace: Workspace) -> list[ReportPart]:
    """Curves from the predictions; their pictures where those are gone, or lines are many."""
    test = scored_predictions(files)
    charts = [] if test is None else class_charts(test, files.labels)
    pictures = ("roc_curves", "precision_recall_curves")
    if not charts:
        return _picture_parts(workspace, *pictures)
    parts = [ReportPart("Curves of each class against the rest", charts=charts)]
    if len(files.labels) > MOST_LINES_IN_ONE_PLOT:
        for name, kind in zip(pictures, ("ROC", "precision-recall"), strict=True):
            folded = f"The {kind} curve of each class in a panel of its own"
            parts += _picture_parts(workspace, name, folded=folded)
    return parts


def _confusion_parts(files: RunFiles, workspace: Workspace) -> list[ReportPart]:
    table = confusion_table(files)
    heading = "What was decided for whom"
    parts = [ReportPart(heading, table=table)] if table else []
    if table is None or not files.is_single:
        parts += _picture_parts(workspace, "confusion_matrix")
    return parts


def _calibration_section(files: RunFiles, workspace: Workspace) -> ReportSection:
    title = "Calibration and thresholds"
    if files.metrics is None:
        return ReportSection("calibration", title, [ReportPart(text=NOT_EVALUATED)])
    parts = [
        ReportPart(text=calibration_sentence(files)),
        ReportPart(text=rule_sentence(files), table=calibration_table(files)),
        *_picture_parts(workspace, "reliability_diagrams"),
        *_picture_parts(workspace, "threshold_curves", "score_distributions"),
    ]
    if conformal_sentence(files):
        text, table = conformal_sentence(files), conformal_table(files)
        parts.append(ReportPart("Conformal sets", text, table))
    return ReportSection("calibration", title, parts)


def _subgroups_section(files: RunFiles, workspace: Workspace) -> ReportSection:
    compared, others = subgroup_tables(files)
    if compared is None and others is None:
        text = NOT_EVALUATED if files.metrics is None else "Subgroups were not compared."
        return ReportSection("subgroups", "Subgroups", [ReportPart(text=text)])
    text = "" if compared else "No subgroup has enough records to be compared with the rest."
    parts = [ReportPart(text=text, table=compared)]
    parts += _picture_parts(workspace, "subgroup_forest")
    if others:
        folded = f"{len(others.rows)} subgroups with too few records to compare"
        parts.append(ReportPart(table=others, folded=folded))
    return ReportSection("subgroups", "Subgroups", parts)


def _crossval_section(files: RunFiles) -> ReportSection:
    return ReportSection("crossval", "Cross-validation", crossval_parts(files))


# Data and run ----------------------------------------------------------------------------------


def _data_section(files: RunFiles) -> ReportSection:
    archives = archive_table(files)
    missing = "" if archives else "No archive has been read yet: run `einthoven label`."
    parts = [
        ReportPart("Archives", missing or store_sentence(files), archives),
        *_tables_if_there(
            {
                "Labels in the store": coverage_table(files),
            }
        ),
        *([ReportPart(text=splits_sentence(files))] if splits_sentence(files) else []),
        *_tables_if_there(
            {
                "Labels in each split": split_table(files),
                "Patients in each split": patient_table(files),
                "Rejected records": rejection_table(files),
                "Codes that are no label of this set": unmapped_table(files),
                "Signal quality": quality_table(files),
                "Duplicates": audit_table(files),
            }
        ),
    ]
    return ReportSection("data", "Data", parts)


def _training_section(files: RunFiles) -> ReportSection:
    parts = [ReportPart(text=training_sentence(files))]
    if files.history:
        charts = training_charts(files.history, best_epoch(files))
        parts.append(ReportPart(charts=charts))
        n = len(files.history)
        parts.append(ReportPart(table=epoch_table(files), folded=f"Every epoch ({n})"))
    return ReportSection("training", "Training", parts)


def _settings_section(files: RunFiles) -> ReportSection:
    tables, facts = settings_tables(files), facts_table(files)
    if tables is None or facts is None:
        part = ReportPart(text="Nothing has been trained, so no settings are recorded.")
        return ReportSection("settings", "Settings and machine", [part])
    chosen, default = tables
    text = "" if chosen.rows else "Every setting was left at its default."
    parts = [
        ReportPart("Chosen", text, chosen if chosen.rows else None),
        ReportPart(table=default, folded=f"{len(default.rows)} settings at their defaults"),
        ReportPart("Versions and hardware", table=facts),
    ]
    return ReportSection("settings", "Settings and machine", parts)


def _files_section(workspace: Workspace) -> ReportSection:
    table = file_table(workspace)
    part = ReportPart(table=table, folded=f"{len(table.rows)} files")
    return ReportSection("files", "Files", [part])
