"""What a report says, as plain text and tables, from the files of a workspace.

Every function takes what is there and passes over what is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from einthoven.console import plural
from einthoven.evaluation import (
    NO_SCORE_SHOWN,
    SCORE_TITLES,
    TOO_SMALL,
    figure_text,
    is_too_small,
    metrics_path,
    predictions_path,
    score_texts,
)
from einthoven.files import Workspace, file_digest, read_json
from einthoven.labels.edits import read_mapping_lines
from einthoven.metrics import DEFAULT_THRESHOLD, MIN_POSITIVES_TO_TUNE
from einthoven.scoring import HEADLINE_SCORES


@dataclass(frozen=True)
class RunFiles:
    """The files that a report is made from; None for one that is not there."""

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


@dataclass(frozen=True)
class ReportTable:
    """A table of text; a note stands under it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def load_run_files(workspace: Workspace) -> RunFiles:
    """Read what there is of a run.

    Raises:
        DataError: a JSON file is damaged.
    """
    checkpoints = workspace.checkpoints_dir
    return RunFiles(
        mapping=_mapping_if_there(workspace.mapping_path),
        coverage=_text_table(workspace.mapping_path.with_name("label_coverage.csv")),
        manifest=_parquet_if_there(workspace.manifest_path),
        rejected=_text_table(workspace.rejected_path),
        splits=_json_if_there(workspace.splits_path),
        run=_json_if_there(checkpoints / "run.json"),
        history=_json_if_there(checkpoints / "training_history.json"),
        metrics=_json_if_there(metrics_path(workspace)),
        predictions=_parquet_if_there(predictions_path(workspace)),
        model_digest=file_digest(workspace.best_model_path),
    )


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


# Data ------------------------------------------------------------------------------------------


def archive_table(files: RunFiles) -> ReportTable | None:
    """Records found, stored, rejected and labelled in each archive."""
    if files.mapping is None:
        return None
    header = ["archive", "found", "stored", "rejected", "labelled", "duplicates", "patients"]
    names = sorted(files.mapping["archive"].unique())
    rows = [[name, *_archive_counts(files, name)] for name in names]
    note = (
        "Labelled: stored records with a label of this set. Duplicates: recordings that another "
        "record repeats; they neither train nor score."
    )
    found = len(files.mapping)
    done = sum(len(table) for table in (files.manifest, files.rejected) if table is not None)
    if found > done:
        note += f" {plural(found - done, 'record')} not prepared: new, or beyond the limit set."
    return ReportTable(header, rows, note)


def _archive_counts(files: RunFiles, name: str) -> list[str]:
    found = int((files.mapping["archive"] == name).sum()) if files.mapping is not None else 0
    rejected = int((files.rejected["archive"] == name).sum()) if files.rejected is not None else 0
    if files.manifest is None:
        return [f"{found:,}", "", f"{rejected:,}", "", "", ""]
    part = files.manifest[files.manifest["archive"] == name]
    counts = (
        found,
        len(part),
        rejected,
        int((part["labels"].map(len) > 0).sum()),
        int((part["duplicate_of"] != "").sum()),
        part["patient_group"].nunique(),
    )
    return [f"{count:,}" for count in counts]


def rejection_table(files: RunFiles, most: int = 10) -> ReportTable | None:
    """The commonest reasons for rejecting records, with an example of each."""
    if files.rejected is None or files.rejected.empty:
        return None
    groups = files.rejected.groupby(["archive", "reason"], as_index=False).agg(
        records=("record_id", "size"), example=("record_id", "first")
    )
    groups = groups.sort_values("records", ascending=False, kind="stable")
    rows = [
        [str(row.archive), str(row.reason), f"{row.records:,}", str(row.example)]
        for row in groups.head(most).itertuples()
    ]
    note = "The whole list is in rejected.csv." if len(groups) > most else ""
    return ReportTable(["archive", "reason", "records", "for example"], rows, note)


def unmapped_table(files: RunFiles, most: int = 10) -> ReportTable | None:
    """The commonest codes that the label set knows nothing of."""
    if files.coverage is None:
        return None
    codes = files.coverage[files.coverage["kind"] == "unmapped code"]
    if codes.empty:
        return None
    order = codes["count"].astype(int).sort_values(ascending=False, kind="stable").index
    columns = ["archive", "name", "count"]
    rows = [[str(cell) for cell in row] for row in codes.loc[order[:most], columns].to_numpy()]
    note = "The whole list is in label_coverage.csv." if len(codes) > most else ""
    return ReportTable(["archive", "code", "records"], rows, note)


def split_table(files: RunFiles) -> ReportTable | None:
    """Records of each label in each split."""
    if files.manifest is None or files.splits is None:
        return None
    carried = files.manifest.set_index("record")["labels"].map(list)
    splits = {
        name: carried.reindex(files.splits[name]).dropna() for name in ("train", "val", "test")
    }
    counts = pd.DataFrame({name: part.explode().value_counts() for name, part in splits.items()})
    order = list((files.run or {}).get("labels", sorted(counts.index)))
    counts = counts.reindex(order).fillna(0).astype(int)
    rows = [[str(label), *(f"{n:,}" for n in counts.loc[label])] for label in order]
    rows.append(["records", *(f"{len(part):,}" for part in splits.values())])
    groups = files.manifest.set_index("record")["patient_group"]
    patients = [groups.reindex(files.splits[name]).nunique() for name in splits]
    rows.append(["patients", *(f"{n:,}" for n in patients)])
    return ReportTable(["label", "train", "validation", "test"], rows)


_AUDIT_TITLES = {
    "n_records": "records compared",
    "n_pairs": "pairs with the same recording",
    "n_duplicates": "duplicates, left out",
    "n_groups": "patient groups",
    "n_unlabelled": "records without a label, left out",
    "pairs": "first pair",
}


def audit_table(files: RunFiles) -> ReportTable | None:
    """What the duplicate audit says."""
    audit = (files.splits or {}).get("audit")
    if not audit:
        return None
    rows = [
        [title, _short_value(audit[key])] for key, title in _AUDIT_TITLES.items() if key in audit
    ]
    return ReportTable(["duplicate audit", ""], rows)


def _short_value(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(value[0]) if value else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short_value(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# Settings, training, machine -------------------------------------------------------------------


def settings_tables(files: RunFiles) -> tuple[ReportTable, ReportTable] | None:
    """Settings that somebody chose, and those left at their defaults."""
    if files.run is None:
        return None
    origins = files.run.get("origins", {})
    chosen: list[list[str]] = []
    default: list[list[str]] = []
    for name, value in files.run.get("settings", {}).items():
        origin = str(origins.get(name, "default"))
        (default if origin == "default" else chosen).append([name, str(value), origin])
    header = ["setting", "value", "from"]
    return ReportTable(header, chosen), ReportTable(header, default)


def facts_table(files: RunFiles) -> ReportTable | None:
    """Versions and hardware."""
    if files.run is None:
        return None
    rows = [
        [name, str(value)]
        for part in ("versions", "hardware")
        for name, value in files.run.get(part, {}).items()
    ]
    if files.run.get("data"):
        rows.append(["data fingerprint", str(files.run["data"])])
    rows.append(["model file", files.model_digest])
    return ReportTable(["", ""], rows)


def training_sentence(files: RunFiles) -> str:
    """How long the training took, and what came out of it."""
    if not files.history:
        return "No epoch has been finished yet."
    seconds = sum(row.get("seconds") or 0 for row in files.history)
    last = files.history[-1]
    return (
        f"{plural(len(files.history), 'epoch')} in {seconds / 60:,.1f} minutes; at the end the "
        f"loss was {_number(last.get('train_loss'))} on the training split and "
        f"{_number(last.get('val_loss'))} on the validation split."
    )


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


# Scores ----------------------------------------------------------------------------------------


def archive_score_table(files: RunFiles) -> ReportTable | None:
    """Headline scores of each archive, of the pooled test split, and of the validation split."""
    if files.metrics is None:
        return None
    metrics = files.metrics
    names = [name for name in HEADLINE_SCORES if name[0] in metrics]
    parts = {f"test, {archive}": part for archive, part in metrics["archives"].items()}
    if len(parts) > 1:
        parts["test, all pooled"] = metrics
    if metrics.get("validation"):
        parts["validation, all pooled"] = metrics["validation"]
    rows = []
    for title, part in parts.items():
        counts = [f"{part['n']:,}", f"{part['n_patient_groups']:,}"]
        rows.append([title, *counts, *score_texts(part, names)])
    header = ["split", "records", "patients", *(SCORE_TITLES[name] for name in names)]
    chosen = "epoch was" if metrics["task"] == "single" else "epoch and the thresholds were"
    note = (
        f"With 95 % intervals. The {chosen} chosen on the validation split, so its scores flatter."
    )
    if any(is_too_small(part) for part in parts.values()):
        note += f" {NO_SCORE_SHOWN}: {TOO_SMALL}, so the scores, in test_metrics.json, say nothing."
    return ReportTable(header, rows, note)


def class_score_table(files: RunFiles) -> ReportTable | None:
    """Scores of each class on the test split, all archives pooled."""
    if files.metrics is None:
        return None
    metrics = files.metrics
    columns = ("auroc", "average_precision", "precision", "recall", "f1")
    header = ["class", "positives", "AUROC", "AP", "precision", "recall", "F1"]
    rows = [
        [
            label,
            f"{metrics['support'][label]:,}",
            *(_class_score_text(metrics, metric, label) for metric in columns),
        ]
        for label in metrics["labels"]
    ]
    note = "None: a score that this split cannot give, because it lacks positives or negatives."
    if metrics["task"] == "single":
        note += " Each record is decided as its likeliest class."
    else:
        header.append("threshold")
        for row in rows:
            row.append(f"{metrics['thresholds'].get(row[0], DEFAULT_THRESHOLD):.3f}")
        note += (
            " Threshold: the probability from which a record is decided to be of the class; of "
            f"best F1 on the validation split, and {DEFAULT_THRESHOLD} where that has fewer than "
            f"{MIN_POSITIVES_TO_TUNE} positives."
        )
    return ReportTable(header, rows, note)


def _class_score_text(metrics: Mapping[str, Any], metric: str, label: str) -> str:
    return (
        NO_SCORE_SHOWN
        if is_too_small(metrics)
        else figure_text(metrics[metric]["per_class"][label])
    )
