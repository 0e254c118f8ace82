"""What a report says of a run: settings, machine, training, the files that were written."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from einthoven.console import plural
from einthoven.files import Workspace
from einthoven.report.parts import ReportTable
from einthoven.report.run_files import RunFiles

# Name in the workspace to what the file is; the first that fits counts.
FILE_MEANINGS = {
    "unified_label_mapping.csv": "every record found, with its codes and labels; may be edited",
    "label_coverage.csv": "counts of labels, and of codes that are none",
    "smoke_test_results.json": "stages of the last smoke test",
    "manifest.parquet": "every stored record: patient, split fold, quality, labels, age, sex",
    "rejected.csv": "every record that could not be used, with the reason",
    "duplicates.csv": "pairs of records that hold the same recording",
    "splits.json": "which records train, validate and test; the audit",
    "best_model.pth": "the model: all that is needed to predict",
    "last_checkpoint.pth": "what a stopped run goes on from",
    "previous_checkpoint.pth": "the checkpoint before the last",
    "damaged_checkpoint.pth": "a checkpoint that did not fit its checksums",
    "run.json": "settings and their origins, versions, hardware",
    "metrics_epoch_*.json": "scores of one epoch on the validation split",
    "training_history.json": "losses and scores of all epochs",
    "test_metrics.json": "every score with its interval",
    "crossval.json": "the cross-validation over parts of the patients",
    "by_archive.json": "the cross-validation over archives",
    "out_of_fold.parquet": "the predictions of all parts of a cross-validation",
    "predictions.parquet": "labels, probabilities and decisions of every record scored",
    "inference_examples.json": "a few records with the model's answer",
    "tracking.json": "which run this is in TensorBoard and MLflow",
    "not_finite.json": "the steps whose loss was not finite",
    "report.html": "this page",
    "model_card.md": "the model card, from the same facts",
    "training_curves_*.png": "figure: the training by epoch",
    "confusion_matrix_*.png": "figure: what was decided for whom",
    "per_class_metrics_*.png": "figure: scores of each class",
    "roc_curves_*.png": "figure: ROC curves",
    "precision_recall_curves_*.png": "figure: precision against recall",
    "reliability_diagrams_*.png": "figure: calibration before and after",
    "threshold_curves_*.png": "figure: scores by threshold",
    "score_distributions_*.png": "figure: probabilities of records with and without each class",
    "subgroup_forest_*.png": "figure: subgroups beside the rest",
    "inference_example_*.png": "figure: an ECG with the model's answer",
    "*.png": "figure",
}


# Settings and machine --------------------------------------------------------------------------


def settings_tables(files: RunFiles) -> tuple[ReportTable, ReportTable] | None:
    """Settings that somebody chose, and those left at their defaults."""
    if files.run is None:
        return None
    origins = files.run.get("origins") or {}
    chosen: list[list[str]] = []
    default: list[list[str]] = []
    for name, value in files.settings.items():
        origin = str(origins.get(name, "default"))
        row = [name, "not set" if value is None else str(value), origin]
        (default if origin == "default" else chosen).append(row)
    header = ["setting", "value", "from"]
    return ReportTable(header, chosen), ReportTable(header, default)


def facts_table(files: RunFiles) -> ReportTable | None:
    """Versions and hardware."""
    if files.run is None:
        return None
    rows = [
        [name, str(value)]
        for part in ("versions", "hardware")
        for name, value in (files.run.get(part) or {}).items()
    ]
    if files.run.get("data"):
        rows.append(["data fingerprint", str(files.run["data"])])
    rows.append(["model file", files.model_digest])
    return ReportTable(["", ""], rows, is_list=True)


# Training --------------------------------------------------------------------------------------


def training_sentence(files: RunFiles) -> str:
    """How long the training took, and what came out of it."""
    if not files.history:
        return "No epoch has been finished yet."
    seconds = sum(row.get("seconds") or 0 for row in files.history)
    last = files.history[-1]
    best = best_epoch(files)
    chosen = f" The model is that of epoch {best}, the best by its score there." if best else ""
    return (
        f"{plural(len(files.history), 'epoch')} in {_duration(seconds)}; at the end the "
        f"loss was {_number(last.get('train_loss'))} on the training split and "
        f"{_number(last.get('val_loss'))} on the half `selection` of the validation split, which "
        f"picks the epoch.{chosen}"
    )


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(1.23), _duration(600.0), _duration(36000.0)
    ('1.2 seconds', '10.0 minutes', '10.0 hours')
    """
    if seconds < LONGEST_IN_SECONDS:
        return f"{seconds:.1f} seconds"
    if seconds < LONGEST_IN_MINUTES:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"


LONGEST_IN_SECONDS = 120
LONGEST_IN_MINUTES = 120 * 60


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def best_epoch(files: RunFiles) -> int | None:
    """The epoch whose validation score, by the setting ``BEST_METRIC``, is highest."""
    name = f"val_{files.settings.get('best_metric', 'f1')}_macro"
    known = [row for row in files.history or () if row.get(name) is not None]
    return int(max(known, key=lambda row: row[name])["epoch"]) if known else None


_EPOCH_COLUMNS = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "val_loss": "validation loss",
    "val_f1_macro": "macro F1",
    "val_auroc_macro": "macro AUROC",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
    "batch_size": "batch size",
    "records_per_s": "records/s",
    "seconds": "seconds",
}


def epoch_table(files: RunFiles) -> ReportTable | None:
    """Every epoch's losses and scores."""
    if not files.history:
        return None
    used = [key for key in _EPOCH_COLUMNS if any(row.get(key) is not None for row in files.history)]
    rows = [[_epoch_cell(row.get(key)) for key in used] for row in files.history]
    return ReportTable([_EPOCH_COLUMNS[key] for key in used], rows)


def _epoch_cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


# Files -----------------------------------------------------------------------------------------


def file_table(workspace: Workspace) -> ReportTable:
    """The files of this run and of the store: what each is, and its size."""
    paths = [workspace.report_path, workspace.model_card_path]
    for folder in (workspace.mapping_path.parent, workspace.processed_dir,
                   workspace.checkpoints_dir, workspace.figures_dir):  # fmt: skip
        paths += [path for path in sorted(folder.glob("*")) if path.is_file()]
    rows = [
        [
            path.relative_to(workspace.root).as_posix(),
            file_meaning(path.name),
            # The page cannot tell its own size.
            "" if path in paths[:2] else f"{path.stat().st_size / 1024:,.0f}",
        ]
        for path in dict.fromkeys(paths)
        if not path.name.startswith(".")
    ]
    shards = [path for path in workspace.records_dir.glob("*.npy") if path.is_file()]
    if shards:
        size = sum(path.stat().st_size for path in shards) / 1024
        name = workspace.records_dir.relative_to(workspace.root).as_posix()
        rows.append(
            [f"{name}/*.npy", f"the signals, {plural(len(shards), 'file')}", f"{size:,.0f}"]
        )
    return ReportTable(["file", "what it is", "KiB"], rows)


def file_meaning(name: str) -> str:
    """What a file of a workspace is, by its name.

    >>> file_meaning("roc_curves_20260301-090507.png")
    'figure: ROC curves'
    """
    return next((told for form, told in FILE_MEANINGS.items() if fnmatch(name, form)), "")
