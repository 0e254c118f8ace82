"""What a report says of scores: by archive, by class, every average, what was decided for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.metrics import DEFAULT_THRESHOLD, MIN_POSITIVES_TO_TUNE
from einthoven.report.decision_tables import labels_left_at_half
from einthoven.report.parts import (
    NO_SCORE,
    ReportTable,
    figure_cell,
    figure_in,
    lacks_records,
    listed,
    value_of,
)
from einthoven.report.run_files import RunFiles, scored_split, validation_parts
from einthoven.scoring import HEADLINE_SCORES
from einthoven.summary import (
    NO_SCORE_SHOWN,
    SCORE_TITLES,
    TOO_SMALL,
)

CLASS_SCORES = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "recall": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision (PPV)",
    "f1": "F1",
    "brier": "Brier",
    "expected_calibration_error": "ECE",
}

_AVERAGED_SCORES = CLASS_SCORES | {"f_beta": "F-beta (beta 2)", "g_beta": "G-beta (beta 2)"}
_AVERAGES = ("macro", "weighted", "micro", "top_label")
_WHOLE_SCORES = {
    "accuracy": "accuracy",
    "subset_accuracy": "all labels right",
    "f_max": "F-max",
    "challenge_score": "Challenge 2021 score",
}

# A matrix of more classes than this is a picture.
MOST_CLASSES_IN_MATRIX = 12


def archive_score_table(files: RunFiles) -> ReportTable | None:
    """Headline scores of each archive, of all records pooled, and of the validation split."""
    if files.metrics is None:
        return None
    metrics = files.metrics
    headline: Mapping[str, Any] = metrics.get("headline") or {}
    names = [name for name in HEADLINE_SCORES if name[0] in metrics or name[0] in headline]
    split = scored_split(metrics)
    parts = {f"{split}, {name}": part for name, part in (metrics.get("archives") or {}).items()}
    if len(parts) != 1:
        parts[f"{split}, all pooled"] = metrics
    for name, part in validation_parts(metrics).items():
        parts[f"validation, {name}"] = part
    rows = []
    for title, part in parts.items():
        counts = [f"{part.get(key) or 0:,}" for key in ("n", "n_patient_groups")]
        is_small = lacks_records(part)
        figures = [figure_in(part, *filter(None, name)) for name in names]
        cells = [NO_SCORE_SHOWN if is_small else figure_cell(figure) for figure in figures]
        rows.append([title, *counts, *cells])
    header = ["records of", "records", "patients", *(SCORE_TITLES[name] for name in names)]
    note = (
        "With 95 % intervals. On the validation split the epoch was chosen (its half `selection`) "
        "and probabilities calibrated (its half `calibration`), so its scores flatter."
    )
    if any(lacks_records(part) for part in parts.values()):
        note += f" {NO_SCORE_SHOWN}: {TOO_SMALL}, so the scores, in test_metrics.json, say nothing."
    return ReportTable(header, rows, note)


def evaluation_table(files: RunFiles) -> ReportTable | None:
    """Scores on other records than the test split, or by another model that was named."""
    chosen = shown_evaluations(files)
    if not chosen:
        return None
    rows = []
    for name, scores in chosen.items():
        headline = scores.get("headline") or scores
        figures = [figure_in(headline, *filter(None, score)) for score in HEADLINE_SCORES]
        cells = [NO_SCORE_SHOWN if lacks_records(headline) else figure_cell(f) for f in figures]
        counts = [f"{scores.get(key) or 0:,}" for key in ("n", "n_patient_groups")]
        counts += [_known_count(scores, key) for key in ("n_trained_on", "n_validated_on")]
        rows.append([f"{evaluation_title(scores)} ({name})", *counts, *cells])
    titles = [SCORE_TITLES[name] for name in HEADLINE_SCORES]
    header = ["records of", "records", "patients", "of patients trained on",
              "of patients validated on", *titles]  # fmt: skip
    used = [k for k in range(len(header)) if any(row[k] != NO_SCORE_SHOWN for row in rows)]
    note = "Headline scores with 95 % intervals, of records chosen by `einthoven evaluate`."
    rows = [[row[k] for k in used] for row in rows]
    return ReportTable([header[k] for k in used], rows, note)


def shown_evaluations(files: RunFiles) -> dict[str, Mapping[str, Any]]:
    """Evaluations by this model as it is now, or by another one that they name."""
    return {
        name: scores
        for name, scores in files.evaluations.items()
        if scores.get("model") == files.model_digest or (scores.get("records") or {}).get("model")
    }


def evaluation_title(scores: Mapping[str, Any]) -> str:
    """Which records, and by which model where it is not this run's."""
    title, model = scored_split(scores), (scores.get("records") or {}).get("model")
    return f"{title}, by {model}" if model and str(model) not in title else title


def _known_count(scores: Mapping[str, Any], key: str) -> str:
    """A count; where nobody can know it, so much; a dash in files that do not tell it."""
    if key in scores and scores[key] is None:
        return "not known"
    return f"{scores[key]:,}" if key in scores else NO_SCORE_SHOWN


def class_score_table(files: RunFiles) -> ReportTable | None:
    """Every score of each class, all archives pooled."""
    if files.metrics is None:
        return None
    metrics = files.metrics
    columns = [name for name in CLASS_SCORES if _has_classes(metrics, name)]
    support = metrics.get("support") or {}
    header = ["class", "positives", *(CLASS_SCORES[name] for name in columns)]
    is_small = lacks_records(metrics)
    rows, reasons = [], set()
    for label in files.labels:
        figures = [figure_in(metrics, name, "per_class", label) for name in columns]
        reasons |= {str(f["reason"]) for f in figures if f and f["value"] is None and "reason" in f}
        cells = [NO_SCORE_SHOWN if is_small else figure_cell(figure) for figure in figures]
        rows.append([label, f"{support.get(label, 0):,}", *cells])
    notes = [f"{NO_SCORE}: {'; '.join(sorted(reasons))}." if reasons else "", _decision_note(files)]
    if files.is_single:
        return ReportTable(header, rows, " ".join(filter(None, notes)))
    thresholds = metrics.get("thresholds") or {}
    header.append("threshold")
    for row in rows:
        row.append(f"{thresholds.get(row[0], DEFAULT_THRESHOLD):.3f}")
    return ReportTable(header, rows, " ".join(filter(None, notes)))


def _decision_note(files: RunFiles) -> str:
    text = (
        "AP: average precision. ECE: expected calibration error; for it and for Brier, lower is "
        "better."
    )
    if files.is_single:
        return f"{text} Each record is decided as its likeliest class."
    text += " Threshold: the probability from which a record is decided to be of the class"
    untuned = labels_left_at_half(files.metrics or {})
    if not untuned:
        return f"{text}."
    return (
        f"{text}; {DEFAULT_THRESHOLD} where too few positives or negatives could set it: "
        f"{listed(untuned)}."
    )


def _has_classes(metrics: Mapping[str, Any], name: str) -> bool:
    found = metrics.get(name)
    return isinstance(found, Mapping) and bool(found.get("per_class"))


def average_table(files: RunFiles) -> ReportTable | None:
    """Every average of every score, all archives pooled."""
    if files.metrics is None or lacks_records(files.metrics):
        return None
    metrics = files.metrics
    rows = [
        [title, *(_average_cell(metrics, name, average) for average in _AVERAGES)]
        for name, title in _AVERAGED_SCORES.items()
        if isinstance(metrics.get(name), Mapping)
    ]
    for name, title in _WHOLE_SCORES.items():
        if figure_in(metrics, name) is not None:
            cell = figure_cell(figure_in(metrics, name))
            rows.append([title, cell, *[""] * (len(_AVERAGES) - 1)])
    used = [k for k in range(len(_AVERAGES) + 1) if any(row[k] for row in rows)]
    header = ["score", "macro, or the score", "weighted", "micro", "top label"]
    note = (
        "All archives pooled. Macro: mean over classes; weighted: each class counts as often as it "
        "has positives; micro: all entries of the label matrix together; top label: of the decided "
        "class alone."
    )
    rows = [[row[k] for k in used] for row in rows]
    return ReportTable([header[k] for k in used], rows, note, is_list=True)


def _average_cell(metrics: Mapping[str, Any], name: str, average: str) -> str:
    figure = figure_in(metrics, name, average)
    return "" if figure is None else figure_cell(figure)


# What was decided for whom ---------------------------------------------------------------------


def confusion_table(files: RunFiles) -> ReportTable | None:
    """Records by true and decided class, or how often each label was called and carried."""
    confusion = (files.metrics or {}).get("confusion") or {}
    if confusion.get("matrix") and len(files.labels) <= MOST_CLASSES_IN_MATRIX:
        return _matrix_table(files.labels, confusion["matrix"])
    if confusion.get("tables"):
        return _label_counts_table(files.labels, confusion["tables"])
    return None


def _matrix_table(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> ReportTable:
    rows = []
    for label, counts in zip(labels, matrix, strict=False):
        total = sum(counts)
        shares = [f"{n:,} ({100 * n / total:.0f} %)" if total else f"{n:,}" for n in counts]
        rows.append([label, *shares, f"{total:,}"])
    note = "Rows: true class; columns: what was decided. In brackets: share of the true class."
    return ReportTable(["true class", *labels, "all"], rows, note)


def _label_counts_table(
    labels: Sequence[str], tables: Mapping[str, Mapping[str, int]]
) -> ReportTable:
    cells = ("true_positive", "false_negative", "false_positive", "true_negative")
    header = ["class", "carried and decided", "carried, missed", "false alarm", "neither"]
    rows = [
        [label, *(f"{tables[label].get(cell, 0):,}" for cell in cells)]
        for label in labels
        if label in tables
    ]
    return ReportTable(header, rows, "Records of each 2×2 table.")


def weakest_classes(files: RunFiles, most: int = 3) -> list[str]:
    """The classes of the lowest AUROC, in words; of fewer than four classes, one."""
    support = (files.metrics or {}).get("support") or {}
    known = [
        (value, label)
        for label in files.labels
        if (value := value_of(figure_in(files.metrics, "auroc", "per_class", label))) is not None
    ]
    # Of a few positives a score says little: rather name classes of which it says something.
    sure = [one for one in known if support.get(one[1], 0) >= MIN_POSITIVES_TO_TUNE]
    known = sorted(sure or known)
    return [
        f"{label} (AUROC {value:.3f}, {support.get(label, 0):,} positives)"
        for value, label in known[: most if len(known) > most else 1]
    ]
