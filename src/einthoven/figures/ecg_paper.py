"""Electrocardiograms on paper: 25 mm/s, 10 mm/mV, squares of one and five millimetres."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from einthoven.records import LEADS

PAPER_SPEED_MM_S = 25.0
# What recorders offer; the first at which the tallest lead stays on its own part of the page.
PAPER_GAINS_MM_MV = (10.0, 5.0, 2.5)

_MM_PER_INCH = 25.4
_MARGIN_MM = 5.0
_TITLE_MM = 15.0
_CAPTION_MM = 10.0
# Free paper above the first row and below the last, for tall waves.
_PAD_MM = 5.0
_PULSE_MM = 10.0
_PAPER_COLOR = "#fffafa"
_SMALL_SQUARE_COLOR = "#f9dada"
_LARGE_SQUARE_COLOR = "#eeaaaa"
_INK_COLOR = "#101018"
_ABSENT_COLOR = "#77707a"

PaperLayout = Literal["3x4", "12x1"]


@dataclass(frozen=True)
class StripPlace:
    """Where a piece of a lead lies on the page; millimetres count from the grid's corner.

    Attributes:
        lead: its name.
        start, stop: the seconds it shows.
        left_mm: where ``start`` is.
        y_mm: of the baseline.
        pitch_mm: from one row to the next.
        is_last_row: whether nothing lies below.
    """

    lead: str
    start: float
    stop: float
    left_mm: float
    y_mm: float
    pitch_mm: float
    is_last_row: bool


# Draws something of its own on a strip, behind the trace.
StripPainter = Callable[[Axes, StripPlace], None]


@dataclass(frozen=True)
class _LeadStrip:
    """A piece of one lead: its row on the page, and the seconds it shows."""

    lead: str
    row: int
    left_mm: float
    start: float
    stop: float


def plot_ecg(
    signal: np.ndarray,
    fs: float,
    leads_present: Iterable[str] | None = None,
    title: str = "",
    layout: PaperLayout = "3x4",
    leads: Sequence[str] | None = None,
    seconds: float = 10.0,
    paint: StripPainter | None = None,
) -> Figure:
    """Draw a recording on ECG paper, true to scale when printed at the figure's own size.

    Args:
        signal: ``(lead, sample)`` millivolts; NaN leaves a gap. Each lead is shown around its
            median. Of a long recording the start is shown.
        fs: hertz.
        leads_present: the leads that were recorded; the others are marked as not recorded.
        title: one or two lines above the trace.
        layout: ``"3x4"`` (and lead II along the bottom) or ``"12x1"``. A recording of one lead
            gets strips below each other instead.
        leads: one name per row of ``signal``; by default the twelve standard leads, or lead I for a
            single row.
        seconds: length shown along a row.
        paint: called for every strip, before its trace is drawn.

    Returns:
        A figure of matplotlib's object interface; nothing global is touched.
    """
    signal = np.atleast_2d(np.asarray(signal, np.float32))
    names = tuple(leads) if leads is not None else (LEADS if len(signal) == 12 else LEADS[:1])
    recorded = set(names if leads_present is None else leads_present)
    rows = {name: _centred_lead(row) for name, row in zip(names, signal, strict=True)}
    traces = {name: row for name, row in rows.items() if name in recorded}
    duration = signal.shape[1] / fs
    strips, pitch_mm = _lay_out_strips(names, layout, duration, seconds)
    gain = _paper_gain(traces.values(), limit_mm=0.85 * pitch_mm)

    width_mm = seconds * PAPER_SPEED_MM_S + _PULSE_MM
    n_rows = 1 + max(strip.row for strip in strips)
    height_mm = n_rows * pitch_mm + 2 * _PAD_MM
    figure, axes = _blank_paper(width_mm, height_mm)
    for row in range(n_rows):
        _draw_pulse(axes, _baseline_mm(row, n_rows, pitch_mm), gain)
    is_cut = False
    for strip in strips:
        y_mm = _baseline_mm(strip.row, n_rows, pitch_mm)
        if paint is not None and strip.lead in traces:
            is_last = strip.row == n_rows - 1
            paint(axes, StripPlace(strip.lead, strip.start, strip.stop, strip.left_mm, y_mm,
                                   pitch_mm, is_last))  # fmt: skip
        is_cut |= _draw_strip(axes, strip, traces.get(strip.lead), fs, gain, y_mm, pitch_mm)
    caption = f"{PAPER_SPEED_MM_S:g} mm/s    {gain:g} mm/mV    {fs:g} Hz    {duration:.1f} s"
    if is_cut:
        caption += "    spikes taller than their row are cut off"
    axes.text(0, -4.5, caption, fontsize=8, va="center", color=_INK_COLOR)
    axes.text(0, height_mm + 3, title, fontsize=11, va="bottom", color=_INK_COLOR)
    return figure


def _centred_lead(row: np.ndarray) -> np.ndarray:
    """A lead around its median; all NaN where nothing in it is a number."""
    finite = row[np.isfinite(row)]
    return np.asarray(row - (np.median(finite) if finite.size else 0.0))


# Where things lie ------------------------------------------------------------------------------


def _lay_out_strips(
    names: Sequence[str], layout: PaperLayout, duration: float, seconds: float
) -> tuple[list[_LeadStrip], float]:
    """The strips of a page, and the height of a row in millimetres."""
    if len(names) == 1:
        n_rows = min(6, max(1, int(np.ceil(duration / seconds - 1e-6))))
        starts = [row * seconds for row in range(n_rows)]
        return [_LeadStrip(names[0], row, _PULSE_MM, start, start + seconds)
                for row, start in enumerate(starts)], 30.0  # fmt: skip
    if layout == "12x1":
        return [
            _LeadStrip(lead, row, _PULSE_MM, 0.0, seconds) for row, lead in enumerate(LEADS)
        ], 25.0
    part = seconds / 4
    strips = []
    for number, lead in enumerate(LEADS):
        column, row = divmod(number, 3)
        left_mm = _PULSE_MM + column * part * PAPER_SPEED_MM_S
        strips.append(_LeadStrip(lead, row, left_mm, column * part, (column + 1) * part))
    return [*strips, _LeadStrip("II", 3, _PULSE_MM, 0.0, seconds)], 30.0


def _baseline_mm(row: int, n_rows: int, pitch_mm: float) -> float:
    # On a line of the five-millimetre grid, as a technician would set it.
    return _PAD_MM + 5.0 * int((n_rows - row - 0.5) * pitch_mm / 5.0)


def _paper_gain(traces: Iterable[np.ndarray], limit_mm: float) -> float:
    """The largest usual gain at which no lead leaves its row; a few spikes may."""
    tallest = [np.nanpercentile(np.abs(row), 99.9) for row in traces if np.isfinite(row).any()]
    peak = float(max(tallest, default=0.0))
    fitting = [gain for gain in PAPER_GAINS_MM_MV if gain * peak <= limit_mm]
    return fitting[0] if fitting else PAPER_GAINS_MM_MV[-1]


# Ink -------------------------------------------------------------------------------------------


def _blank_paper(width_mm: float, height_mm: float) -> tuple[Figure, Axes]:
    """A page whose axes count millimetres from the lower left corner of the grid."""
    page_mm = (width_mm + 2 * _MARGIN_MM, height_mm + _TITLE_MM + _CAPTION_MM)
    figure = Figure(figsize=(page_mm[0] / _MM_PER_INCH, page_mm[1] / _MM_PER_INCH))
    figure.set_facecolor("white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN_MM, width_mm + _MARGIN_MM)
    axes.set_ylim(-_CAPTION_MM, height_mm + _TITLE_MM)
    axes.fill_between([0, width_mm], 0, height_mm, color=_PAPER_COLOR, linewidth=0, zorder=0)
    _draw_grid(axes, width_mm, height_mm, 1.0, _SMALL_SQUARE_COLOR, 0.35)
    _draw_grid(axes, width_mm, height_mm, 5.0, _LARGE_SQUARE_COLOR, 0.6)
    return figure, axes


def _draw_grid(
    axes: Axes, width_mm: float, height_mm: float, step: float, color: str, line_width: float
) -> None:
    across = [[(x, 0), (x, height_mm)] for x in np.arange(0, width_mm + 0.01, step)]
    along = [[(0, y), (width_mm, y)] for y in np.arange(0, height_mm + 0.01, step)]
    axes.add_collection(
        LineCollection([*across, *along], colors=color, linewidths=line_width, zorder=1),
        autolim=False,
    )


def _draw_pulse(axes: Axes, y_mm: float, gain: float) -> None:
    """One millivolt for 0.2 s."""
    x = np.array([1, 2.5, 2.5, 7.5, 7.5, 9])
    y = y_mm + gain * np.array([0, 0, 1, 1, 0, 0])
    axes.plot(x, y, color=_INK_COLOR, linewidth=0.8, zorder=3)


def _draw_strip(
    axes: Axes, strip: _LeadStrip, trace: np.ndarray | None, fs: float, gain: float, y_mm: float,
    pitch_mm: float,
) -> bool:  # fmt: skip
    """Draw a strip; returns whether a spike had to be cut off."""
    axes.plot(
        [strip.left_mm, strip.left_mm], [y_mm - 2.5, y_mm + 2.5],
        color=_INK_COLOR, linewidth=0.6, zorder=3,
    )  # fmt: skip
    axes.text(
        strip.left_mm + 1.2, y_mm + 0.36 * pitch_mm, strip.lead,
        fontsize=9, fontweight="bold", va="center", color=_INK_COLOR, zorder=2,
        path_effects=[withStroke(linewidth=2.5, foreground=_PAPER_COLOR)],
    )  # fmt: skip
    if trace is None:
        middle = strip.left_mm + (strip.stop - strip.start) * PAPER_SPEED_MM_S / 2
        axes.text(middle, y_mm, "not recorded", fontsize=8, style="italic", ha="center",
                  va="center", color=_ABSENT_COLOR, zorder=4)  # fmt: skip
        return False
    first, last = round(strip.start * fs), round(strip.stop * fs) + 1
    shown = trace[first:last]
    x = strip.left_mm + (np.arange(first, first + len(shown)) / fs - strip.start) * PAPER_SPEED_MM_S
    # A spike taller than the row stops short of the neighbours' baselines.
    limit_mm = 0.95 * pitch_mm
    y = y_mm + np.clip(gain * shown, -limit_mm, limit_mm)
    axes.plot(x, y, color=_INK_COLOR, linewidth=0.8, solid_joinstyle="round", zorder=3)
    return bool((np.abs(gain * shown) > limit_mm).any())
