"""What plots of scores share: colours that colour-blind people tell apart, grids, short names."""

from __future__ import annotations

import math

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

# With more classes than these, each gets a panel of its own.
MOST_LINES_IN_ONE_PLOT = 8


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


def panel_grid(
    n_panels: int, panel_size: tuple[float, float], title: str = "", most_columns: int = 8
) -> tuple[Figure, list[Axes], int]:
    """A figure of equal small panels, some of the last row left out.

    Returns:
        The figure, ``n_panels`` axes in reading order, and the number of columns.
    """
    columns = min(most_columns, max(1, math.ceil(math.sqrt(n_panels * 1.2))))
    rows = math.ceil(n_panels / columns)
    figure = Figure(
        figsize=(columns * panel_size[0] + 0.6, rows * panel_size[1] + 0.7), layout="constrained"
    )
    pad_figure(figure)
    head_figure(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[n_panels:]:
        unused.remove()
    return figure, axes[:n_panels], columns


def short_label(label: str, longest: int = 22) -> str:
    """A label cut to a length that fits beside a plot; long ones often differ in their endings.

    >>> short_label("premature ventricular contractions", 12)
    'premat…tions'
    """
    return label if len(label) <= longest else f"{label[: longest - 6]}…{label[-5:]}"
