"""Scores: confusion matrices, and precision, recall and F1 of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from einthoven.console import progress
from einthoven.figures.curves import plot_precision_recall_curves, plot_roc_curves
from einthoven.figures.forest import plot_subgroup_forest
from einthoven.figures.reliability import plot_reliability_diagrams
from einthoven.figures.saving import save_figure
from einthoven.figures.style import (
    GRID_COLOR,
    PALETTE,
    REFERENCE_COLOR,
    head_figure,
    pad_figure,
    panel_grid,
    short_label,
    style_axes,
)
from einthoven.figures.thresholds import plot_score_distributions, plot_threshold_curves
from einthoven.metrics import confusion_matrix, label_tables
from einthoven.scoring import Predictions

# Confusion -------------------------------------------------------------------------------------

# Up to here every cell of a confusion matrix carries its count, and up to there its percentage.
MOST_CLASSES_WITH_COUNTS = 12
MOST_CLASSES_WITH_ALL_CELLS = 30


def plot_confusion_matrix(matrix: np.ndarray, labels: Sequence[str], title: str = "") -> Figure:
    """Confusion as percentages of each true class.

    Args:
        matrix: ``(C, C)`` records by true (row) and decided (column) class; or ``(C, 2, 2)``, the
            table of each label as `label_tables` gives it, drawn as one small panel per label.
        labels: C names.
        title: what the figure shows, of which records.
    """
    if matrix.ndim == 3:
        return _plot_label_tables(matrix, labels, title)
    return _plot_class_confusion(matrix, labels, title)


def _plot_class_confusion(matrix: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    n = len(labels)
    # The most classes are as small as print allows: a page is no wider.
    cell = (
        0.72 if n <= MOST_CLASSES_WITH_COUNTS else 0.3 if n <= MOST_CLASSES_WITH_ALL_CELLS else 0.14
    )
    names = [short_label(label) for label in labels]
    longest = max(len(name) for name in names)
    is_upright = n > 6 or longest > 8
    size = 10 if n <= MOST_CLASSES_WITH_COUNTS else 8 if n <= MOST_CLASSES_WITH_ALL_CELLS else 6
    # Names with the count beside them at the left, and below; 120 letters of a point to the inch.
    left, below = (longest + 9) * size / 120, longest * size / 120 if is_upright else 0.2
    width, height = 1.3 + left + n * cell, 1.3 + below + n * cell
    figure = Figure(figsize=(max(5.6, width), height), layout="constrained")
    pad_figure(figure)
    head_figure(figure, title)
    axes = figure.subplots()
    shares = row_shares(matrix)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), names, rotation=90 if is_upright else 0, fontsize=size)
    support = matrix.sum(axis=1)
    rows = [f"{name}  n={count:,}" for name, count in zip(names, support, strict=True)]
    axes.set_yticks(range(n), rows, fontsize=size)
    axes.set(xlabel="decided", ylabel="true")
    _draw_cell_edges(axes, n)
    _write_cells(axes, matrix, shares)
    for row in np.flatnonzero(support == 0).tolist():
        axes.text(0, row, "no record with this label", fontsize=0.8 * size, va="center",
                  ha="left" if n > 6 else "center", color=REFERENCE_COLOR)  # fmt: skip
    bar = figure.colorbar(
        image, ax=axes, shrink=0.7, pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1],
        anchor=(0, 1), panchor=(0, 1),
    )  # fmt: skip
    bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"], fontsize=8)
    bar.outline.set_visible(False)
    axes.set_title("share of each true class", fontsize=9, loc="left")
    return figure


def _draw_cell_edges(axes: Axes, n: int) -> None:
    """Faint lines that lead the eye along rows and columns."""
    edges = np.arange(n + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=GRID_COLOR, linewidth=0.4)
    axes.tick_params(which="minor", length=0)


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Rows divided by their sums; NaN, which is drawn blank, for a row without records."""
    totals = matrix.sum(axis=-1, keepdims=True)
    shares = np.full(matrix.shape, np.nan)
    np.divide(matrix, totals, out=shares, where=totals > 0)
    return shares


def _write_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    """Percentages in the cells; of many classes only those that matter, on and off the diagonal."""
    n = len(matrix)
    least = 0.0 if n <= MOST_CLASSES_WITH_COUNTS else 0.005
    least = 0.1 if n > MOST_CLASSES_WITH_ALL_CELLS else least
    size = 10 if n <= MOST_CLASSES_WITH_COUNTS else 7 if n <= MOST_CLASSES_WITH_ALL_CELLS else 4
    for row, column in np.ndindex(n, n):
        share = shares[row, column]
        if np.isnan(share) or share < least:
            continue
        text = f"{100 * share:.0f}"
        if n <= MOST_CLASSES_WITH_COUNTS:
            text = f"{100 * share:.1f} %\n{matrix[row, column]:,}"
        color = "white" if share > 0.55 else "#222222"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)


def _plot_label_tables(tables: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    figure, panels, columns = panel_grid(len(labels), (1.42, 1.5), title)
    for c, axes in enumerate(panels):
        shares = row_shares(tables[c])
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(2, 2):
            share = shares[row, column]
            text = "none" if np.isnan(share) else f"{100 * share:.1f} %\n{tables[c, row, column]:,}"
            color = "white" if share > 0.55 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
        is_left, is_bottom = c % columns == 0, c + columns >= len(labels)
        axes.set_xticks((0, 1), ("no", "yes") if is_bottom else ("", ""), fontsize=8)
        axes.set_yticks((0, 1), ("absent", "present") if is_left else ("", ""), fontsize=8)
        axes.tick_params(length=0)
        axes.set_title(short_label(labels[c], 20), fontsize=8.5, pad=3)
    figure.supxlabel("decided (share of the records without and with the label)", fontsize=10)
    figure.supylabel("true", fontsize=10)
    return figure


# Scores of each class --------------------------------------------------------------------------

_BAR_METRICS = (("precision", "precision"), ("recall", "recall"), ("f1", "F1 (95 % interval)"))
MOST_CLASSES_IN_A_COLUMN = 40


def plot_per_class_metrics(
    scores: Mapping[str, Any], labels: Sequence[str], title: str = ""
) -> Figure:
    """Bars of precision, recall and F1 of each class, with its number of positives.

    Args:
        scores: as `einthoven.scoring.score_predictions` gives them.
        labels: the classes to show, in order from the top.
        title: what the figure shows, of which records.
    """
    columns = math.ceil(len(labels) / MOST_CLASSES_IN_A_COLUMN)
    per_column = math.ceil(len(labels) / columns)
    height = 1.5 + per_column * (0.62 if len(labels) <= 8 else 0.36)
    figure = Figure(figsize=(max(8.0, 4.8 * columns), height), layout="constrained")
    pad_figure(figure)
    head_figure(figure, title)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for number, axes in enumerate(panels):
        shown = labels[number * per_column : (number + 1) * per_column]
        _draw_class_bars(axes, scores, shown)
        axes.set_ylim(per_column - 0.4, -0.6)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    return figure


def _draw_class_bars(axes: Axes, scores: Mapping[str, Any], labels: Sequence[str]) -> None:
    style_axes(axes)
    rows = np.arange(len(labels))
    for number, (metric, name) in enumerate(_BAR_METRICS):
        figures = [scores[metric]["per_class"][label] for label in labels]
        values = [figure["value"] or 0.0 for figure in figures]
        place = rows + (number - 1) * 0.27
        axes.barh(place, values, height=0.25, color=PALETTE[(0, 5, 1)[number]], label=name)
        if metric == "f1":
            _draw_intervals(axes, place, figures)
    for row, label in enumerate(labels):
        n_positives = scores["support"][label]
        if n_positives and not any(scores[metric]["per_class"][label]["value"]
                                   for metric, _ in _BAR_METRICS):  # fmt: skip
            axes.text(0.02, row, "all 0", fontsize=8, va="center", color=REFERENCE_COLOR)
        text = f"n={n_positives:,}" if n_positives else "absent from the split"
        axes.text(1.02 if n_positives else 0.02, row, text, fontsize=8, va="center",
                  color="#333333" if n_positives else REFERENCE_COLOR)  # fmt: skip
    axes.set(xlim=(0, 1), xlabel="score; n: positives")
    axes.set_yticks(rows, [short_label(label) for label in labels], fontsize=9)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _draw_intervals(axes: Axes, places: np.ndarray, figures: Sequence[Mapping[str, Any]]) -> None:
    for place, figure in zip(places, figures, strict=True):
        if figure["low"] is not None:
            axes.plot([figure["low"], figure["high"]], [place, place], color="#222222", linewidth=1)


# All of an evaluation --------------------------------------------------------------------------

# Drawn of every evaluation.
SCORE_FIGURES = (
    "confusion_matrix", "per_class_metrics", "roc_curves", "precision_recall_curves",
    "reliability_diagrams", "score_distributions",
)  # fmt: skip


def score_figure_names(single: bool, has_subgroups: bool) -> tuple[str, ...]:
    """The figures of an evaluation: `SCORE_FIGURES`, and those that only some evaluations have.

    Args:
        single: each record has exactly one label, so that there are no thresholds.
        has_subgroups: subgroups were scored.

    >>> score_figure_names(single=True, has_subgroups=True)[len(SCORE_FIGURES) :]
    ('subgroup_forest',)
    """
    some = {"threshold_curves": not single, "subgroup_forest": has_subgroups}
    return (*SCORE_FIGURES, *(name for name, is_drawn in some.items() if is_drawn))


def save_score_figures(
    predictions: Predictions, scores: Mapping[str, Any], figures_dir: Path, stamp: str
) -> list[Path]:
    """Draw and write every figure of an evaluation; returns where they lie.

    Args:
        predictions: of the split that is shown.
        scores: of the same records, with ``split`` and ``label_set``, and ``thresholds`` and
            ``subgroups`` where there are any.
        figures_dir: where to write.
        stamp: part of every name; see `einthoven.figures.saving.figure_stamp`.
    """
    names = score_figure_names(predictions.single, bool(scores.get("subgroups")))
    plots = _score_plots(predictions, scores)
    return [
        save_figure(plots[name](), figures_dir, name, stamp)
        for name in progress(names, desc="Drawing", unit="figures")
    ]


def _score_plots(
    predictions: Predictions, scores: Mapping[str, Any]
) -> dict[str, Callable[[], Figure]]:
    targets, probabilities = predictions.targets, predictions.probabilities
    labels = predictions.labels
    tables = confusion_matrix if predictions.single else label_tables
    thresholds = scores.get("thresholds") or {}
    label_set = Path(str(scores["label_set"])).stem
    about = f"{scores['split']} split, n={len(predictions):,}, label set {label_set}"
    return {
        "confusion_matrix": lambda: plot_confusion_matrix(
            tables(targets, predictions.decisions), labels, f"Confusion, {about}"
        ),
        "per_class_metrics": lambda: plot_per_class_metrics(
            scores, labels, f"Scores of each class, {about}"
        ),
        "roc_curves": lambda: plot_roc_curves(targets, probabilities, labels, f"ROC, {about}"),
        "precision_recall_curves": lambda: plot_precision_recall_curves(
            targets, probabilities, labels, f"Precision and recall, {about}"
        ),
        "reliability_diagrams": lambda: plot_reliability_diagrams(
            targets, predictions.raw, probabilities, labels, f"Reliability, {about}"
        ),
        "score_distributions": lambda: plot_score_distributions(
            targets, probabilities, labels, thresholds, f"Calibrated probabilities, {about}"
        ),
        "threshold_curves": lambda: plot_threshold_curves(
            targets, probabilities, labels, thresholds, f"Scores by threshold, {about}"
        ),
        "subgroup_forest": lambda: plot_subgroup_forest(scores["subgroups"], f"Subgroups, {about}"),
    }
