"""Curves: training, receiver operating characteristic, precision and recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from einthoven.figures.style import (
    LINE_STYLES,
    MOST_LINES_IN_ONE_PLOT,
    PALETTE,
    REFERENCE_COLOR,
    head_figure,
    mark_absent,
    name_panel,
    pad_figure,
    panel_grid,
    short_label,
    style_axes,
)
from einthoven.metrics import auroc, average_precision, precision_recall_curve, roc_curve

# Training --------------------------------------------------------------------------------------

_TRAINING_PANELS = (
    ("Loss", (("train_loss", "train"), ("val_loss", "validation"))),
    ("Accuracy", (("train_accuracy", "train"), ("val_accuracy", "validation"))),
    (
        "Validation scores",
        (
            ("val_f1_macro", "F1, macro"),
            ("val_f1_weighted", "F1, weighted"),
            ("val_auroc_macro", "AUROC, macro"),
        ),
    ),
    ("Learning rate", (("lr", "learning rate"),)),
)


def plot_training_curves(
    history: Sequence[Mapping[str, Any]], best_metric: Literal["f1", "auroc"] = "f1"
) -> Figure:
    """Loss, accuracy, F1 and learning rate by epoch.

    Args:
        history: one row per epoch, as in ``training_history.json``; a value that is null or not
            there leaves a gap.
        best_metric: the validation score, macro, whose best epoch is marked.
    """
    epochs = np.array([row["epoch"] for row in history], float)
    best_epoch = _best_epoch(history, f"val_{best_metric}_macro")
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    pad_figure(figure)
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, _TRAINING_PANELS, strict=True):
        style_axes(axes)
        for number, (key, name) in enumerate(lines):
            values = _history_column(history, key)
            axes.plot(
                epochs, values, color=PALETTE[number], linestyle=LINE_STYLES[number],
                marker="o", markersize=3 if len(epochs) <= 40 else 0, linewidth=1.6, label=name,
            )  # fmt: skip
        if best_epoch is not None:
            label = f"best epoch, {best_epoch}"
            axes.axvline(best_epoch, color=REFERENCE_COLOR, linewidth=1, dashes=(3, 2), label=label)
        axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, frameon=False)
    return figure


def _history_column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else row[key] for row in history], float)


def _best_epoch(history: Sequence[Mapping[str, Any]], key: str) -> int | None:
    scores = _history_column(history, key)
    if np.isnan(scores).all():
        return None
    return int(history[int(np.nanargmax(scores))]["epoch"])


# One class against the rest --------------------------------------------------------------------


def plot_roc_curves(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], title: str = ""
) -> Figure:
    """ROC of each class against the rest, with its area and the line of a random guess.

    Up to eight classes share one plot; more get a small panel each. A class without positives or
    without negatives is named as absent.

    Args:
        targets, probabilities: ``(n, C)``.
        labels: C names.
        title: what the figure shows, of which records.
    """
    areas = auroc(targets, probabilities)
    curves = [
        roc_curve(targets[:, c], probabilities[:, c]) if not np.isnan(area) else None
        for c, area in enumerate(areas)
    ]
    if len(labels) <= MOST_LINES_IN_ONE_PLOT:
        figure, axes = _single_plot("false positive rate", "true positive rate", title, labels)
        axes.plot([0, 1], [0, 1], color=REFERENCE_COLOR, dashes=(4, 3), linewidth=1, label="random")
        _draw_lines(axes, curves, areas, labels, "AUC")
        return figure
    figure, panels, columns = panel_grid(len(labels), title=title)
    for c, axes in enumerate(panels):
        axes.plot([0, 1], [0, 1], color=REFERENCE_COLOR, dashes=(4, 3), linewidth=0.8)
        score = f"AUC {areas[c]:.3f}"
        _draw_panel(axes, curves[c], score, labels[c], targets[:, c], c % columns == 0)
    figure.supxlabel("false positive rate (dashed: random; n: positives)", fontsize=10)
    figure.supylabel("true positive rate", fontsize=10)
    return figure


def plot_precision_recall_curves(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], title: str = ""
) -> Figure:
    """Precision against recall of each class, with average precision and prevalence.

    The prevalence is what a random guess reaches. Panels as in `plot_roc_curves`.

    Args:
        targets, probabilities: ``(n, C)``.
        labels: C names.
        title: what the figure shows, of which records.
    """
    averages = average_precision(targets, probabilities)
    prevalence = (targets > 0).mean(axis=0)
    curves = [
        precision_recall_curve(targets[:, c], probabilities[:, c]) if not np.isnan(ap) else None
        for c, ap in enumerate(averages)
    ]
    if len(labels) <= MOST_LINES_IN_ONE_PLOT:
        figure, axes = _single_plot("recall", "precision", title, labels)
        _draw_lines(axes, curves, averages, labels, "AP")
        for c, share in enumerate(prevalence):
            color = PALETTE[c % len(PALETTE)]
            axes.axhline(share, color=color, linewidth=0.8, dashes=(1, 3), zorder=1)
        axes.set_title("dotted: prevalence, what a random guess reaches", fontsize=9, loc="left")
        return figure
    figure, panels, columns = panel_grid(len(labels), title=title)
    for c, axes in enumerate(panels):
        axes.axhline(float(prevalence[c]), color=REFERENCE_COLOR, dashes=(4, 3), linewidth=0.8)
        score = f"AP {averages[c]:.3f}"
        _draw_panel(axes, curves[c], score, labels[c], targets[:, c], c % columns == 0)
    figure.supxlabel(
        "recall (dashed: prevalence, what a random guess reaches; n: positives)", fontsize=10
    )
    figure.supylabel("precision", fontsize=10)
    return figure


def _single_plot(
    x_label: str, y_label: str, title: str, labels: Sequence[str]
) -> tuple[Figure, Axes]:
    longest = max(len(short_label(label)) for label in labels)
    figure = Figure(figsize=(6.9 + 0.07 * longest, 5.6), layout="constrained")
    pad_figure(figure)
    head_figure(figure, title)
    axes = figure.subplots()
    style_axes(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x_label, ylabel=y_label)
    axes.set_aspect("equal")
    axes.set_anchor("W")
    return figure, axes


def _draw_lines(
    axes: Axes,
    curves: Sequence[tuple[np.ndarray, np.ndarray] | None],
    scores: np.ndarray,
    labels: Sequence[str],
    score_name: str,
) -> None:
    for c, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        look: dict[str, Any] = {
            "color": PALETTE[c % len(PALETTE)],
            "linestyle": LINE_STYLES[c % len(LINE_STYLES)],
        }
        if curve is None:
            axes.plot([], [], label=f"{short_label(label)}  no score", **look)
        else:
            name = f"{short_label(label)}  {score_name} {scores[c]:.3f}"
            axes.plot(*curve, linewidth=1.7, label=name, drawstyle=_draw_style(score_name), **look)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False)


def _draw_style(score: str) -> Literal["default", "steps-pre"]:
    # Average precision is the area under steps; between two recalls no straight line is reached.
    return "steps-pre" if score.startswith("AP") else "default"


def _draw_panel(
    axes: Axes,
    curve: tuple[np.ndarray, np.ndarray] | None,
    score: str,
    label: str,
    target: np.ndarray,
    is_left: bool,
) -> None:
    style_axes(axes, font_size=7)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_xticklabels(("0", "0.5", "1"))
    axes.set_yticklabels(("0", "0.5", "1") if is_left else ())
    n_positives = f"n={int((target > 0).sum()):,}"
    if curve is None:
        mark_absent(axes, "no score")
        name_panel(axes, label, n_positives)
        return
    axes.plot(*curve, color=PALETTE[0], linewidth=1.4, drawstyle=_draw_style(score))
    name_panel(axes, label, f"{score}, {n_positives}")
