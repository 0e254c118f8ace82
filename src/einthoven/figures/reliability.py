"""Reliability diagrams: do records of which the model says 30 % have the label 3 times in 10?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from einthoven.calibration.reliability import reliability_bins
from einthoven.figures.style import (
    MOST_LINES_IN_ONE_PLOT,
    PALETTE,
    REFERENCE_COLOR,
    explain_lines,
    mark_absent,
    name_panel,
    panel_grid,
    panel_size,
    style_axes,
)

RELIABILITY_BINS = 10

# Marks, lines and places differ as well as colours: circles and squares, beside each other.
_BEFORE: dict[str, Any] = {
    "color": PALETTE[1], "marker": "s", "markerfacecolor": "white", "linestyle": (0, (4, 2)),
}  # fmt: skip
_AFTER: dict[str, Any] = {"color": PALETTE[0], "marker": "o", "linestyle": "-"}

# Below 0 a strip shows how many records lie where.
_STRIP_TOP, _STRIP_BOTTOM = -0.05, -0.29


def plot_reliability_diagrams(
    targets: np.ndarray,
    raw: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    title: str = "",
) -> Figure:
    """Observed share against predicted probability of each class, before and after calibration.

    Bars are 95 % intervals of the share. The strip below shows how many records have which
    probability, on a logarithmic scale, since of a rare class nearly all lie at the left.

    Args:
        targets: ``(n, C)`` of 0 and 1.
        raw: ``(n, C)`` probabilities as the network gives them.
        probabilities: ``(n, C)`` calibrated.
        labels: C names.
        title: what the figure shows, of which records.
    """
    is_large = len(labels) <= MOST_LINES_IN_ONE_PLOT
    is_calibrated = not np.allclose(raw, probabilities, atol=1e-6)
    after = "after calibration" if is_calibrated else "not calibrated"
    figure, panels, columns = panel_grid(len(labels), panel_size(len(labels)), title)
    for c, axes in enumerate(panels):
        _set_unit_axes(axes, is_large, is_left=c % columns == 0)
        n_positives = int((targets[:, c] > 0).sum())
        name_panel(axes, labels[c], f"{n_positives:,} of {len(targets):,} records", is_large)
        axes.plot([0, 1], [0, 1], color=REFERENCE_COLOR, linewidth=0.9, dashes=(1, 1.5),
                  label="perfect", zorder=1)  # fmt: skip
        if is_calibrated:
            _draw_bins(axes, targets[:, c], raw[:, c], _BEFORE, "before calibration", is_large)
        _draw_bins(axes, targets[:, c], probabilities[:, c], _AFTER, after, is_large)
        _draw_counts(axes, raw[:, c] if is_calibrated else None, probabilities[:, c])
        if not n_positives:
            mark_absent(axes, "class absent", is_large)
    explain_lines(figure, panels[0].get_legend_handles_labels()[0], 3)
    bars = "; line: before, bars: after" if is_calibrated else ""
    figure.supxlabel(f"predicted probability (strip: records there, logarithmic{bars})", fontsize=9)
    figure.supylabel("share that has the label, with 95 % interval", fontsize=9)
    return figure


def _set_unit_axes(axes: Axes, is_large: bool, is_left: bool) -> None:
    style_axes(axes, font_size=8 if is_large else 7)
    ticks = (0, 0.25, 0.5, 0.75, 1) if is_large else (0, 0.5, 1)
    axes.set(xlim=(-0.04, 1.04), ylim=(_STRIP_BOTTOM - 0.02, 1.05))
    names = [f"{tick:g}" for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names if is_left else [""] * len(ticks))


def _draw_bins(
    axes: Axes, target: np.ndarray, probability: np.ndarray, look: dict[str, Any], name: str,
    is_large: bool,
) -> None:  # fmt: skip
    bins = reliability_bins(target, probability, RELIABILITY_BINS)
    reach = (bins.observed_share - bins.low, bins.high - bins.observed_share)
    axes.errorbar(
        bins.mean_probability, bins.observed_share, yerr=reach, label=name,
        linewidth=1.3 if is_large else 1,
        elinewidth=1.0 if is_large else 0.7, markersize=5 if is_large else 3, zorder=3, **look,
    )  # fmt: skip


def _draw_counts(axes: Axes, raw: np.ndarray | None, probability: np.ndarray) -> None:
    """Histograms in the strip: logarithmic, the tallest bar as tall as the strip."""
    edges = np.linspace(0, 1, 2 * RELIABILITY_BINS + 1)
    shown = [values for values in (probability, raw) if values is not None]
    counts = [np.histogram(values, edges)[0] for values in shown]
    tallest = np.log1p(max(1, max(column.max() for column in counts)))
    tops = [
        _STRIP_BOTTOM + (_STRIP_TOP - _STRIP_BOTTOM) * np.log1p(column) / tallest
        for column in counts
    ]
    axes.stairs(tops[0], edges, baseline=_STRIP_BOTTOM, fill=True, color=PALETTE[0], alpha=0.45)
    for before in tops[1:]:
        axes.stairs(before, edges, baseline=_STRIP_BOTTOM, color=PALETTE[1], linewidth=0.9)
