"""Figures on disk: PNG files whose names carry the time they were made."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from einthoven.files import atomic_path

FIGURE_DPI = 150


def figure_stamp(now: datetime) -> str:
    """The part of a figure's file name that says when it was made.

    >>> figure_stamp(datetime(2026, 3, 1, 9, 5, 7))
    '20260301-090507'
    """
    return now.strftime("%Y%m%d-%H%M%S")


def save_figure(
    figure: Figure, figures_dir: Path, name: str, stamp: str, dpi: int = FIGURE_DPI
) -> Path:
    """Write ``<name>_<stamp>.png`` into ``figures_dir``, whole or not at all.

    Args:
        figure: a matplotlib figure; it is drawn with Agg, whatever backend is in use.
        figures_dir: created where it is absent.
        name: file name without stamp and suffix.
        stamp: the time as `figure_stamp` writes it; an argument, so that a run's figures share one.
        dpi: 150 or more.

    Returns:
        Where the figure lies.
    """
    path = figures_dir / f"{name}_{stamp}.png"
    write_figure(figure, path, max(dpi, FIGURE_DPI))
    return path


def write_figure(figure: Figure, path: Path, dpi: int = FIGURE_DPI) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as beside:
        FigureCanvasAgg(figure)
        # No software version in the file: the same figure gives the same bytes.
        figure.savefig(beside, dpi=dpi, format="png", metadata={"Software": None})
