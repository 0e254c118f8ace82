"""What plots of scores share: colours that colour-blind people tell apart, grids, short names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito, "Color Universal Design" (2008), in the order that lines take them.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31",
)  # fmt: skip
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
REFERENCE_COLOR = "#777777"
GRID_COLOR = "#E4E4E4"

# With more classes than these, each gets a small panel of its own.
MOST_LINES_IN_ONE_PLOT = 8

# A page of A4 is 7.5 inches wide between its margins: wider figures shrink their type in print.
LARGE_PANEL = (2.9, 3.1)
SMALL_PANEL = (1.42, 1.72)
_MOST_COLUMNS = {LARGE_PANEL: 3, SMALL_PANEL: 6}

# Text over lines stays readable.
WHITE_BEHIND: dict[str, Any] = {
    "facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1,
}  # fmt: skip

# Log-odds axes run between these probabilities; what lies beyond is drawn at their ends.
LEAST_SHOWN_PROBABILITY = 0.0005
_LOG_ODDS_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_FEW_LOG_ODDS_TICKS = (0.01, 0.5, 0.99)


def style_axes(axes: Axes, font_size: float = 9) -> None:
    """A light grid, no box, modest type."""
    axes.grid(True, color=GRID_COLOR, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(labelsize=font_size, color="#999999")


def pad_figure(figure: Figure) -> None:
    """Keep text off the figure's edge; for figures with constrained layout."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.08, h_pad=0.08)


def head_figure(figure: Figure, title: str) -> None:
    """Say at the top left what a figure shows, so that the picture alone tells it."""
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")


def panel_size(n_panels: int) -> tuple[float, float]:
    """Inches across and along of each of so many panels."""
    return LARGE_PANEL if n_panels <= MOST_LINES_IN_ONE_PLOT else SMALL_PANEL


def panel_grid(
    n_panels: int, size: tuple[float, float] = SMALL_PANEL, title: str = ""
) -> tuple[Figure, list[Axes], int]:
    """A figure of equal small panels, some of the last row left out.

    Args:
        n_panels: how many.
        size: inches across and along of each.
        title: of the figure.

    Returns:
        The figure, ``n_panels`` axes in reading order, and the number of columns.
    """
    most_columns = _MOST_COLUMNS.get(size, 6)
    columns = min(most_columns, max(1, math.ceil(math.sqrt(n_panels * 1.2))))
    rows = math.ceil(n_panels / columns)
    # The title needs its width even above one panel.
    width = max(columns * size[0] + 0.6, 5.6 if title else 0)
    figure = Figure(figsize=(width, rows * size[1] + 0.9), layout="constrained")
    pad_figure(figure)
    head_figure(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[n_panels:]:
        unused.remove()
    return figure, axes[:n_panels], columns


def name_panel(axes: Axes, label: str, facts: str, is_large: bool = False) -> None:
    """A panel's class, and below it what is known of it, above the upper left corner."""
    name = short_label(label, 30 if is_large else 20)
    axes.set_title(f"{name}\n{facts}", fontsize=9 if is_large else 7, loc="left", pad=4)


def mark_absent(axes: Axes, why: str, is_large: bool = False) -> None:
    """Say in the middle of an empty panel why it is empty."""
    axes.text(
        0.5, 0.5, why, ha="center", va="center", fontsize=9 if is_large else 7,
        color=REFERENCE_COLOR, transform=axes.transAxes, bbox=WHITE_BEHIND, zorder=5,
    )  # fmt: skip


def explain_lines(figure: Figure, handles: Sequence[Any], n_columns: int) -> None:
    """One legend for all panels, above them.

    Args:
        handles: labelled lines, bars or patches.
        n_columns: of the legend.
    """
    names = [str(handle.get_label()) for handle in handles]
    # Two lines more than the title: constrained layout keeps them free for the legend.
    title = figure.get_suptitle()
    head_figure(figure, f"{title or ' '}\n\n")
    height = figure.get_size_inches()[1]
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.0, 1 - 0.26 / height),
        ncols=n_columns, fontsize=8.5, frameon=False, handlelength=3.2, columnspacing=1.6,
    )  # fmt: skip


# Log-odds --------------------------------------------------------------------------------------


def shown_log_odds(probability: np.ndarray | float) -> np.ndarray:
    """Where a probability lies on a log-odds axis; beyond its ends, at them."""
    # In double precision, so that both ends lie on the axis to the last bit.
    shown = np.asarray(probability, np.float64)
    shown = np.clip(shown, LEAST_SHOWN_PROBABILITY, 1 - LEAST_SHOWN_PROBABILITY)
    return np.asarray(np.log(shown / (1 - shown)))


def set_log_odds_axis(axes: Axes, is_large: bool) -> None:
    """Probabilities along x, by their log-odds: 0.1 % is as far from 1 % as 99 % from 99.9 %."""
    ticks = _LOG_ODDS_TICKS if is_large else _FEW_LOG_ODDS_TICKS
    axes.set_xticks(shown_log_odds(np.array(ticks)), [f"{tick:g}" for tick in ticks])
    end = float(shown_log_odds(1.0)) * 1.04
    axes.set_xlim(-end, end)


def short_label(label: str, longest: int = 22) -> str:
    """A label cut to a length that fits beside a plot; long ones often differ in their endings.

    >>> short_label("premature ventricular contractions", 12)
    'premat…tions'
    """
    short = label if len(label) <= longest else f"{label[: longest - 6]}…{label[-5:]}"
    # Between two dollars matplotlib would read a formula.
    return short.replace("$", r"\$")
