"""What a report says of calibration, thresholds, conformal sets, views and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.console import plural
from einthoven.metrics import DEFAULT_THRESHOLD
from einthoven.report.parts import (
    NO_SCORE,
    ReportTable,
    difference_cell,
    figure_cell,
    figure_in,
    lacks_records,
    listed,
)
from einthoven.report.run_files import RunFiles
from einthoven.summary import NO_SCORE_SHOWN, TOO_SMALL

RULE_MEANINGS = {
    "half": "a probability of 0.5",
    "best_f1": "the best F1",
    "expected_f1": "the best F1 expected if the calibrated probabilities are true",
    "youden": "the largest sum of sensitivity and specificity (Youden)",
    "sensitivity_80": "a sensitivity of 80 %",
    "sensitivity_90": "a sensitivity of 90 %",
    "sensitivity_95": "a sensitivity of 95 %",
    "challenge_score": "the best Challenge-2021 score",
}

METHOD_MEANINGS = {
    "platt": "Platt scaling, a slope and a bias for each class",
    "temperature": "a temperature and a bias for each class before the softmax",
    "none": "none: probabilities are as the network gives them",
}


# Calibration and thresholds --------------------------------------------------------------------


def calibration_sentence(files: RunFiles) -> str:
    """How probabilities were calibrated, on what."""
    found = (files.metrics or {}).get("calibration")
    if not found:
        return "The scores say nothing of calibration."
    method = str(found.get("method", "none"))
    text = f"Calibration: {METHOD_MEANINGS.get(method, method)}"
    if found.get("reason"):
        text += f" ({found['reason']})"
    if method == "none":
        return f"{text}."
    text += "."
    if found.get("n"):
        n, patients = (
            plural(found["n"], "record"),
            plural(found.get("n_patient_groups") or 0, "patient"),
        )
        half = "the half of the validation split that does not pick the epoch"
        text += f" Fitted on {n} of {patients}, {half}."
    if found.get("pooled"):
        names = listed([str(label) for label in found["pooled"]])
        text += f" {pool_reason(files.is_single)}, so calibrated with the pool: {names}."
    views = (files.metrics or {}).get("test_time_augmentation") or {}
    if views.get("refitted"):
        text += " " + REFITTED_TEXT
    return text


# Said where a probability is a mean over views, of the records that calibrate too.
REFITTED_TEXT = (
    "Calibration, thresholds and conformal limits are fitted to means over the same views of each "
    "record."
)


def pool_reason(is_single: bool) -> str:
    """Why a class is calibrated with others."""
    reason = "Too few positives or negatives to calibrate with"
    return reason if is_single else f"{reason}, or no clear slope"


def labels_left_at_half(metrics: Mapping[str, Any]) -> list[str]:
    """Classes at 0.5 for want of records to set a threshold; none where the rule is 0.5."""
    if metrics.get("threshold_rule") == "half":
        return []
    untuned = (metrics.get("calibration") or {}).get("untuned") or []
    limits = metrics.get("thresholds") or {}
    return [str(name) for name in untuned if limits.get(name) in (None, DEFAULT_THRESHOLD)]


def rule_sentence(files: RunFiles) -> str:
    """By which rule a record is decided to have a label."""
    if files.metrics is None:
        return ""
    if files.is_single:
        return "Decisions: each record gets its likeliest class; there are no thresholds."
    rule = str(files.metrics.get("threshold_rule") or "")
    how = RULE_MEANINGS.get(rule, rule)
    where = "" if rule == "half" else ", on the records that calibrate"
    named = f" Rule `{rule}`: thresholds give {how}{where}." if rule else ""
    untuned = labels_left_at_half(files.metrics)
    kept = f" At {DEFAULT_THRESHOLD}, for want of positives or negatives: {listed(untuned)}."
    return f"Decisions: every class at or above its threshold.{named}{kept if untuned else ''}"


def calibration_table(files: RunFiles) -> ReportTable | None:
    """Each class: what calibrates it, its threshold, its errors before and after."""
    metrics = files.metrics or {}
    found = metrics.get("calibration") or {}
    if not found:
        return None
    pooled, counts = set(found.get("pooled") or ()), found.get("positives") or {}
    is_fitted = found.get("method", "none") != "none"
    before = metrics.get("uncalibrated") or {}
    header = ["class", "positives that calibrate", "calibrated by", "threshold",
              "Brier before", "Brier after", "ECE before", "ECE after"]  # fmt: skip
    rows, flagged = [], set()
    for number, label in enumerate(files.labels):
        own = "the pool" if label in pooled else "its own"
        limit = (metrics.get("thresholds") or {}).get(label)
        scores = [
            figure_cell(figure_in(part, name, "per_class", label))
            for name in ("brier", "expected_calibration_error")
            for part in (before, metrics)
        ]
        count = f"{counts[label]:,}" if label in counts else ""
        limit_text = "" if limit is None else f"{limit:.3f}"
        rows.append([label, count, own if is_fitted else "nothing", limit_text, *scores])
        flagged |= {number} if label in pooled else set()
    kept = [k for k in range(len(header)) if any(row[k] for row in rows)]
    note = "Before and after calibration, on the records scored. Lower is better."
    return ReportTable(
        [header[k] for k in kept], [[row[k] for k in kept] for row in rows], note,
        flagged=frozenset(flagged),
    )  # fmt: skip


# Options ---------------------------------------------------------------------------------------


def conformal_sentence(files: RunFiles) -> str:
    """What conformal sets cover; empty where none were asked for."""
    found = (files.metrics or {}).get("conformal")
    if not found:
        return ""
    stated = f"{100 * float(found.get('stated_coverage') or 0):g} %"
    made = f"Conformal sets are made so that {stated} of records have their class in their set."
    held = "Of the classes"
    if not files.is_single:
        made = (
            "Conformal sets are made so that each label is in the set of "
            f"{stated} of the records that have it."
        )
        held = "Of the labels"
    if lacks_records(files.metrics or {}):
        return f"{made} Here are {TOO_SMALL}: too few to say what the sets hold."
    cells = [figure_cell(figure_in(found, name)) for name in ("coverage", "mean_size", "empty")]
    return (
        f"{made} {held} of the records scored, the sets hold {cells[0]}; mean size {cells[1]}; "
        f"empty {cells[2]}."
    )


def conformal_table(files: RunFiles) -> ReportTable | None:
    """The coverage of each class, of those that enough records have."""
    metrics = files.metrics or {}
    found, support = metrics.get("conformal") or {}, metrics.get("support") or {}
    if not found.get("per_class") or lacks_records(metrics):
        return None
    rows = []
    for label in files.labels:
        if label in found["per_class"]:
            n = support.get(label) or 0
            cell = figure_cell(figure_in(found, "per_class", label))
            rows.append([label, f"{n:,}", NO_SCORE_SHOWN if lacks_records({"n": n}) else cell])
    note = "Coverage: the share of the records with the class whose set holds it."
    if any(row[2] == NO_SCORE_SHOWN for row in rows):
        note += f" {NO_SCORE_SHOWN}: {TOO_SMALL} have it."
    return ReportTable(["class", "positives", "coverage"], rows, note)


def views_sentence(files: RunFiles) -> str:
    """Which views of each record were averaged; empty without test-time augmentation."""
    found = (files.metrics or {}).get("test_time_augmentation")
    if not found:
        return ""
    names = ", ".join(str(name).replace("_", " ") for name in found.get("views") or ())
    return f"Each record's probabilities are means over these views of it: {names}."


def views_table(files: RunFiles) -> ReportTable | None:
    """What test-time augmentation gains."""
    found = (files.metrics or {}).get("test_time_augmentation") or {}
    gains: Mapping[str, Any] = found.get("gain") or {}
    titles = {"auroc": "macro AUROC", "average_precision": "macro AP", "f1": "macro F1"}
    rows = [
        [
            titles.get(name, name),
            figure_cell(figure_in(found.get("without"), name, "macro")),
            figure_cell(figure_in(files.metrics, name, "macro")),
            difference_cell(figure_in(gains, name, "macro")),
        ]
        for name in gains
    ]
    if not rows:
        return None
    header = ["score", "without", "with", "gain"]
    return ReportTable(header, rows, "The gain is paired by patient.", is_list=True)


# Subgroups -------------------------------------------------------------------------------------


def subgroup_tables(files: RunFiles) -> tuple[ReportTable | None, ReportTable | None]:
    """Subgroups beside the rest of the records, the worse ones flagged; and those not compared."""
    groups = list((files.metrics or {}).get("subgroups") or [])
    compared = [group for group in groups if _is_compared(group)]
    others = [group for group in groups if not _is_compared(group)]
    return _compared_table(compared) if compared else None, _left_out_table(others)


def _is_compared(group: Mapping[str, Any]) -> bool:
    figure = figure_in(group, "difference")
    return figure is not None and figure["value"] is not None


def _compared_table(groups: Sequence[Mapping[str, Any]]) -> ReportTable:
    header = ["subgroup", "records", "patients", "classes", "positives", "macro AUROC",
              "of the rest", "difference", "p (Holm)", "verdict"]  # fmt: skip
    rows = [_subgroup_row(group) for group in groups]
    flagged = frozenset(k for k, group in enumerate(groups) if group.get("is_worse"))
    note = (
        "Compared over the classes that both the subgroup and the rest have enough records of. "
        "Difference: subgroup less rest, with its 95 % interval. p: one-sided, of a difference so "
        "far below zero by chance. Worse: that stands after Holm's correction for all "
        "comparisons. No flag does not show that a subgroup is as "
        "good: small ones cannot show it."
    )
    return ReportTable(header, rows, note, flagged=flagged)


def _left_out_table(groups: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    rows = [
        [
            subgroup_title(group),
            f"{group.get('n') or 0:,}",
            f"{group.get('n_patient_groups') or 0:,}",
            str(group.get("reason") or ""),
        ]
        for group in groups
    ]
    return ReportTable(["subgroup", "records", "patients", "why not"], rows) if rows else None


def _subgroup_row(group: Mapping[str, Any]) -> list[str]:
    labels, positives = group.get("labels") or [], group.get("positives") or {}
    n_positives = sum(int(positives.get(label) or 0) for label in (labels or positives))
    p = group.get("p_holm")
    return [
        subgroup_title(group),
        f"{group.get('n') or 0:,}",
        f"{group.get('n_patient_groups') or 0:,}",
        f"{len(labels):,}",
        f"{n_positives:,}",
        figure_cell(figure_in(group, "auroc")),
        figure_cell(figure_in(group, "rest")),
        difference_cell(figure_in(group, "difference")),
        NO_SCORE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        "worse" if group.get("is_worse") else "",
    ]


def subgroup_title(group: Mapping[str, Any]) -> str:
    """Kind and name of a subgroup.

    >>> subgroup_title({"kind": "age_band", "name": "under 40"})
    'age band: under 40'
    """
    return f"{str(group.get('kind', '')).replace('_', ' ')}: {group.get('name', '')}"


def worse_subgroups(files: RunFiles) -> list[str]:
    """The flagged subgroups, each with how much lower its score is."""
    groups = (files.metrics or {}).get("subgroups") or []
    return [_told_worse(group) for group in groups if group.get("is_worse")]


def _told_worse(group: Mapping[str, Any]) -> str:
    figure = figure_in(group, "difference") or {}
    value, low, high = (figure.get(key) for key in ("value", "low", "high"))
    if value is None:
        return subgroup_title(group)
    interval = "" if low is None or high is None else f", interval {-high:.3f} to {-low:.3f}"
    return f"{subgroup_title(group)} (macro AUROC {-value:.3f} lower{interval})"
