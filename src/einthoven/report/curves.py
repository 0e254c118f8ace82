"""Curves as inline SVG: readable as they are, and with a read-out where the page's script runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from einthoven.figures.style import MOST_LINES_IN_ONE_PLOT, PALETTE, short_label
from einthoven.metrics import (
    MIN_POSITIVES_TO_TUNE,
    auroc,
    average_precision,
    precision_recall_curve,
    roc_curve,
)
from einthoven.report.parts import CurveChart, CurveSeries

# Points of a line that a page keeps; of many lines, fewer each.
MOST_POINTS = 200
FEWER_POINTS = 80

# Of more classes than fit one plot in colour, so many that score lowest are coloured.
N_LIT_OF_MANY = 4

_DASHES = ("", "7 3", "2 2", "9 3 2 3")
_CHART_WIDTH, _CHART_HEIGHT = 420.0, 340.0
_CHART_LEFT, _CHART_RIGHT, _CHART_TOP, _CHART_BOTTOM = 48.0, 10.0, 10.0, 42.0


# Which curves ----------------------------------------------------------------------------------


def class_charts(test: pd.DataFrame, labels: Sequence[str]) -> list[CurveChart]:
    """ROC and precision-recall curves of each class against the rest.

    Args:
        test: predictions of one split, with ``label_`` and ``probability_`` columns.
        labels: the classes; one without positives or negatives has no curve.
    """
    targets = test[[f"label_{label}" for label in labels]].to_numpy() > 0
    probabilities = test[[f"probability_{label}" for label in labels]].to_numpy(float)
    areas, averages = auroc(targets, probabilities), average_precision(targets, probabilities)
    drawn = [c for c in range(len(labels)) if not np.isnan(areas[c])]
    if not drawn:
        return []
    curves = [
        (c, roc_curve(targets[:, c], probabilities[:, c]),
         precision_recall_curve(targets[:, c], probabilities[:, c])) for c in drawn
    ]  # fmt: skip
    positives = targets[:, drawn].sum(axis=0)
    n_points = MOST_POINTS if len(drawn) <= MOST_LINES_IN_ONE_PLOT else FEWER_POINTS
    roc, recall = [], []
    for c, roc_points, recall_points in curves:
        at = _threshold_texts(probabilities[:, c])
        roc.append(_thin_series(labels[c], roc_points, at, f"{areas[c]:.3f}", n_points))
        share = f"{averages[c]:.3f}"
        recall.append(_thin_series(labels[c], recall_points, at, share, n_points))
    return [
        _class_chart("roc", "ROC curves (area)", ("false positive rate", "true positive rate"),
                     roc, areas[drawn], positives),
        _class_chart("precision-recall", "Precision and recall (average precision)",
                     ("recall", "precision"), recall, averages[drawn], positives),
    ]  # fmt: skip


def _threshold_texts(probability: np.ndarray) -> list[str]:
    """One for each point of a curve of this class: its first point calls nothing."""
    return ["nothing called", *(f"threshold {p:.3f}" for p in np.unique(probability)[::-1])]


def _thin_series(
    name: str, points: tuple[np.ndarray, np.ndarray], at: Sequence[str], note: str, most: int
) -> CurveSeries:
    kept = thin_points(*points, most)
    x, y = (axis[kept].round(4).tolist() for axis in points)
    return CurveSeries(name, x, y, [at[k] for k in kept.tolist()], note)


def thin_points(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Which points of a line to keep: its corners, then points spread evenly along its length.

    Of more corners than ``most``, those spread evenly; the ends are always kept.
    """
    if len(x) <= most:
        return np.arange(len(x))
    steps = np.stack([np.diff(x), np.diff(y)])
    turn = steps[0, :-1] * steps[1, 1:] - steps[1, :-1] * steps[0, 1:]
    corners = np.r_[0, 1 + np.flatnonzero(np.abs(turn) > 1e-12), len(x) - 1]
    length = np.r_[0, np.cumsum(np.abs(steps).sum(axis=0))]
    if len(corners) >= most:
        return np.asarray(corners[_evenly_along(length[corners], most)])
    return np.union1d(corners, _evenly_along(length, most - len(corners)))


def _evenly_along(length: np.ndarray, n: int) -> np.ndarray:
    """Numbers of up to n points whose lengths from the start are nearly even, ends included."""
    return np.unique(
        np.searchsorted(length, np.linspace(0, length[-1], n)).clip(0, len(length) - 1)
    )


def _class_chart(
    name: str,
    title: str,
    axes: tuple[str, str],
    series: list[CurveSeries],
    scores: np.ndarray,
    positives: np.ndarray,
) -> CurveChart:
    lit = frozenset(range(len(series)))
    caption = ""
    if len(series) > MOST_LINES_IN_ONE_PLOT:
        # Of a few positives a score says little, so it lights up nothing.
        ranked = np.argsort(np.where(positives < MIN_POSITIVES_TO_TUNE, scores + 1, scores))
        lit = frozenset(ranked[:N_LIT_OF_MANY].tolist())
        caption = (
            f"In colour: the {N_LIT_OF_MANY} classes that score lowest, of those with "
            f"{MIN_POSITIVES_TO_TUNE} positives or more."
        )
    is_roc = name == "roc"
    return CurveChart(
        name, title, *axes, (0, 1), (0, 1), series, lit,
        is_stepped=not is_roc, diagonal=is_roc, caption=caption,
    )  # fmt: skip


_TRAINING_CHARTS = (
    ("loss", "Loss", {"train_loss": "train", "val_loss": "validation, selection"}),
    (
        "validation-scores",
        "Validation scores",
        {
            "val_f1_macro": "F1, macro",
            "val_auroc_macro": "AUROC, macro",
            "val_accuracy": "accuracy",
        },
    ),
    ("learning-rate", "Learning rate", {"lr": "learning rate"}),
)


def training_charts(
    history: Sequence[Mapping[str, Any]], best_epoch: int | None
) -> list[CurveChart]:
    """Loss, validation scores and learning rate by epoch; the best epoch is marked."""
    charts = []
    for name, title, columns in _TRAINING_CHARTS:
        series = [_epoch_series(history, key, word) for key, word in columns.items()]
        series = [line for line in series if len(line.x)]
        if not series:
            continue
        top = max(max(line.y) for line in series)
        bottom = 0.0 if name != "validation-scores" else min(min(line.y) for line in series)
        epochs = [float(row["epoch"]) for row in history]
        marks = {} if best_epoch is None else {float(best_epoch): f"best epoch, {best_epoch}"}
        low, high = _round_range(min(bottom, *(min(line.y) for line in series)), top)
        charts.append(
            CurveChart(
                name, title, "epoch", "", (min(epochs), max(max(epochs), min(epochs) + 1)),
                (low, high), series, frozenset(range(len(series))), marks=marks,
            )
        )  # fmt: skip
    return charts


def _epoch_series(history: Sequence[Mapping[str, Any]], key: str, name: str) -> CurveSeries:
    known = [(float(row["epoch"]), float(row[key])) for row in history if row.get(key) is not None]
    kept = thin_points(
        np.array([x for x, _ in known]), np.array([y for _, y in known]), MOST_POINTS
    )
    x, y = ([known[k][axis] for k in kept.tolist()] for axis in (0, 1))
    return CurveSeries(name, x, y)


def _round_range(low: float, high: float) -> tuple[float, float]:
    """A range of axis with round ends that holds both values."""
    step = axis_step(high - low or abs(high) or 1.0)
    return float(np.floor(low / step) * step), float(np.ceil(high / step + 1e-9) * step)


def axis_step(span: float) -> float:
    """The distance of ticks, of 1, 2 or 5 times a power of ten, that gives about five.

    >>> axis_step(1.0), axis_step(33)
    (0.2, 10.0)
    """
    rough = span / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next((s for s in (1, 2, 5) if s * power >= rough * 0.999), 10)
    return float(f"{step * power:.6g}")


# SVG -------------------------------------------------------------------------------------------


def chart_markup(chart: CurveChart) -> Markup:
    """A chart as SVG; text from files is escaped."""
    lines = [*_axis_lines(chart)]
    grey_first = sorted(range(len(chart.series)), key=lambda k: k in chart.lit)
    for k in grey_first:
        lines.append(_line_markup(chart, k))
    label = f"{chart.title}: {len(chart.series)} lines, named in the legend"
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        _CHART_WIDTH, _CHART_HEIGHT, label, Markup("\n").join(lines)
    )


def _axis_lines(chart: CurveChart) -> list[Markup]:
    lines = []
    for value in _ticks(*chart.x_range):
        x = _place_x(chart, value)
        lines.append(_svg_line("grid", x, _CHART_TOP, x, _CHART_HEIGHT - _CHART_BOTTOM))
        lines.append(_svg_text(f"{value:g}", x, _CHART_HEIGHT - _CHART_BOTTOM + 15, "middle"))
    for value in _ticks(*chart.y_range):
        y = _place_y(chart, value)
        lines.append(_svg_line("grid", _CHART_LEFT, y, _CHART_WIDTH - _CHART_RIGHT, y))
        lines.append(_svg_text(f"{value:g}", _CHART_LEFT - 6, y + 4, "end"))
    if chart.diagonal:
        ends = [(_place_x(chart, x), _place_y(chart, x)) for x in chart.x_range]
        lines.append(_svg_line("guide", *ends[0], *ends[1]))
    for value, text in chart.marks.items():
        x = _place_x(chart, value)
        lines.append(_svg_line("guide", x, _CHART_TOP, x, _CHART_HEIGHT - _CHART_BOTTOM))
        is_left = x < _CHART_WIDTH * 0.6
        side, anchor = (4, "start") if is_left else (-4, "end")
        lines.append(_svg_text(text, x + side, _CHART_TOP + 10, anchor))
    middle = (_CHART_LEFT + _CHART_WIDTH - _CHART_RIGHT) / 2
    lines.append(_svg_text(chart.x_label, middle, _CHART_HEIGHT - 6, "middle"))
    if chart.y_label:
        turned = Markup(
            '<text x="{:.0f}" y="13" text-anchor="middle" transform="rotate(-90)">{}</text>'
        )
        lines.append(
            turned.format(-(_CHART_TOP + _CHART_HEIGHT - _CHART_BOTTOM) / 2, chart.y_label)
        )
    return lines


def _ticks(low: float, high: float) -> list[float]:
    step = axis_step(high - low)
    first, last = int(np.ceil(low / step - 1e-6)), int(np.floor(high / step + 1e-6))
    return [float(f"{k * step:.6g}") for k in range(first, last + 1)]


def _svg_line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    template = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return template.format(kind, x1, y1, x2, y2)


def _svg_text(text: str, x: float, y: float, anchor: str) -> Markup:
    template = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return template.format(x, y, anchor, text)


def _line_markup(chart: CurveChart, number: int) -> Markup:
    series = chart.series[number]
    steps = []
    for k, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        place = f"{_place_x(chart, x):.1f} {_place_y(chart, y):.1f}"
        if k and chart.is_stepped:
            # Average precision is the area under steps: the later value holds on the way there.
            steps.append(f"V{_place_y(chart, y):.1f}H{_place_x(chart, x):.1f}")
        else:
            steps.append(f"{'L' if k else 'M'}{place}")
    return Markup('<path class="line{}" data-line="{}" style="{}" d="{}"/>').format(
        "" if number in chart.lit else " faint", number, Markup(line_look(chart, number)),
        "".join(steps),
    )  # fmt: skip


def line_look(chart: CurveChart, number: int) -> str:
    """Colour and dashes of a line, as CSS; coloured ones of many take the palette in turn."""
    lit = sorted(chart.lit)
    place = lit.index(number) if number in chart.lit else number
    dash = _DASHES[place % len(_DASHES)]
    return f"--c:{PALETTE[place % len(PALETTE)]}" + (f";stroke-dasharray:{dash}" if dash else "")


def legend_rows(chart: CurveChart) -> list[dict[str, Any]]:
    """What the legend says of each line."""
    return [
        {
            "number": k,
            "name": short_label(line.name, 40),
            "note": line.note,
            "look": Markup(line_look(chart, k)),
            "is_lit": k in chart.lit,
        }
        for k, line in enumerate(chart.series)
    ]


def chart_data(chart: CurveChart) -> dict[str, Any]:
    """What the script needs to read a chart out: where each point lies, and what it means."""
    return {
        "x": chart.x_label,
        "y": chart.y_label,
        "series": [
            {
                "name": line.name,
                "px": [round(_place_x(chart, x), 1) for x in line.x],
                "py": [round(_place_y(chart, y), 1) for y in line.y],
                "x": [float(f"{x:.4g}") for x in line.x],
                "y": [float(f"{y:.4g}") for y in line.y],
                "at": list(line.at),
            }
            for line in chart.series
        ],
    }


def _place_x(chart: CurveChart, x: float) -> float:
    low, high = chart.x_range
    return _CHART_LEFT + (x - low) / (high - low) * (_CHART_WIDTH - _CHART_LEFT - _CHART_RIGHT)


def _place_y(chart: CurveChart, y: float) -> float:
    low, high = chart.y_range
    return (
        _CHART_HEIGHT
        - _CHART_BOTTOM
        - (y - low) / (high - low) * (_CHART_HEIGHT - _CHART_TOP - _CHART_BOTTOM)
    )
