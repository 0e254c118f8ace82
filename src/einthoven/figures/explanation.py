"""An ECG with what carried a model's answer behind its trace."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from einthoven.figures.ecg_paper import (
    PAPER_SPEED_MM_S,
    PaperLayout,
    StripPainter,
    StripPlace,
    plot_ecg,
)
from einthoven.figures.prediction import add_room_below, page_mm
from einthoven.figures.style import PALETTE, short_label, style_axes
from einthoven.records import LEADS
from einthoven.version import DISCLAIMER

# Blue and vermilion stay apart for every kind of colour blindness; the legend names both.
FOR_COLOR, AGAINST_COLOR = PALETTE[0], PALETTE[1]

# A wave takes longer than this: what is finer is not to be seen on paper.
_SMOOTHING_S = 0.03
# The strongest shade is for what only one sample in two hundred exceeds.
_FULL_SHADE_PERCENTILE = 99.5
_STRONGEST_SHADE = 0.85
_WEAKEST_SHADE = 0.04
_SHOWN_SECONDS = 10.0

_TEXT_MM = 5.0
_BARS_MM = 150.0
_PANEL_WITH_BARS_MM = 78.0
_PANEL_OF_TEXT_MM = 54.0
_LEAD_PITCH_MM = 4.6
_SENTENCE_LETTERS = 66
_REMARK_LETTERS = 84


@dataclass(frozen=True)
class DrawnExplanation:
    """What a figure says beside the trace.

    Attributes:
        label: what is explained.
        answer: the model's answer for it, in words.
        method: in words.
        lead_shares: lead to the parts that speak for and against the label; empty where the method
            knows no leads.
        beats: second and share of each heartbeat.
        summary, remarks: sentences.
    """

    label: str
    answer: str
    method: str
    lead_shares: Mapping[str, tuple[float, float]]
    beats: Sequence[tuple[float, float]]
    summary: Sequence[str]
    remarks: Sequence[str] = ()


def plot_explanation(
    signal: np.ndarray,
    attribution: np.ndarray,
    fs: float,
    drawn: DrawnExplanation,
    *,
    leads_present: Sequence[str] = LEADS,
    title: str = "",
    layout: PaperLayout = "3x4",
) -> Figure:
    """Draw a recording on ECG paper, true to scale, shaded where it carried a model's answer.

    Blue speaks for the label, vermilion against it, and the darker the more. The percentages along
    the last row are the shares of the heartbeats. Of a long recording the ten seconds that carried
    most are shown.

    Args:
        signal: ``(12, sample)`` millivolts in standard order.
        attribution: ``(12, sample)``, above zero for the label.
        fs: hertz of both.
        drawn: what is said beside the trace.
        leads_present: the leads that were recorded; of a single one, strips are shown.
        title: one line above the trace.
        layout: as in `plot_ecg`.

    Returns:
        A figure of matplotlib's object interface; nothing global is touched.
    """
    smooth = _smooth_over_time(attribution, fs)
    shown = slice(0, signal.shape[1]) if len(leads_present) == 1 else _shown_part(smooth, fs)
    first_s = shown.start / fs
    head = f"{title}\nWhat carried {short_label(drawn.label, 50)}: {drawn.answer}".strip()
    if shown.stop - shown.start < signal.shape[1]:
        head += f"; seconds {first_s:.0f} to {shown.stop / fs:.0f} of {signal.shape[1] / fs:.0f}"
    beats = [(second - first_s, share) for second, share in drawn.beats]
    rows = [LEADS.index(lead) for lead in leads_present]
    is_one_lead = len(rows) == 1
    painter = _strip_painter(smooth[:, shown], fs, _full_shade(smooth), beats, is_one_lead)
    if is_one_lead:
        figure = plot_ecg(signal[rows], fs, title=head, leads=leads_present, paint=painter)
    else:
        figure = plot_ecg(signal[:, shown], fs, leads_present, head, layout, paint=painter)
    panel_mm = _PANEL_WITH_BARS_MM if drawn.lead_shares else _PANEL_OF_TEXT_MM
    add_room_below(figure, panel_mm)
    _write_explanation(figure, panel_mm, drawn)
    if drawn.lead_shares:
        _draw_lead_shares(figure, panel_mm, drawn.lead_shares)
    return figure


# Shades ------------------------------------------------------------------------------------------


def _smooth_over_time(attribution: np.ndarray, fs: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    # Beyond the ends there is nothing; the mirror of an edge would make it darker.
    smooth = gaussian_filter1d(
        attribution.astype(np.float64), _SMOOTHING_S * fs, axis=1, mode="constant"
    )
    return np.asarray(smooth)


def _full_shade(smooth: np.ndarray) -> float:
    return float(np.percentile(np.abs(smooth), _FULL_SHADE_PERCENTILE)) or 1.0


def _shown_part(smooth: np.ndarray, fs: float) -> slice:
    """The ten seconds that carry most, beginning with a whole second."""
    n_samples, width = smooth.shape[1], round(_SHOWN_SECONDS * fs)
    if n_samples <= width:
        return slice(0, n_samples)
    cumulated = np.pad(np.abs(smooth).sum(axis=0).cumsum(), (1, 0))
    starts = np.arange(0, n_samples - width + 1, max(1, round(fs)))
    start = int(starts[np.argmax(cumulated[starts + width] - cumulated[starts])])
    return slice(start, start + width)


def _shade_colors(values: np.ndarray, full: float) -> np.ndarray:
    """``(1, sample, 4)``: colour by sign, opacity by size."""
    strength = np.clip(np.abs(values) / full, 0, 1)
    colors = np.empty((1, len(values), 4))
    colors[0, :, :3] = np.where(
        (values >= 0)[:, None], np.array(to_rgb(FOR_COLOR)), np.array(to_rgb(AGAINST_COLOR))
    )
    colors[0, :, 3] = np.where(strength < _WEAKEST_SHADE, 0, _STRONGEST_SHADE * strength)
    return colors


def _strip_painter(
    smooth: np.ndarray,
    fs: float,
    full: float,
    beats: Sequence[tuple[float, float]],
    is_one_lead: bool,
) -> StripPainter:
    """Shades every strip, and writes the shares of the beats below the last row.

    Of a single lead, whose rows follow each other in time, it does so below each.
    """

    def paint(axes: Axes, place: StripPlace) -> None:
        first, last = round(place.start * fs), round(place.stop * fs)
        values = smooth[LEADS.index(place.lead), first:last]
        if len(values):
            right_mm = place.left_mm + len(values) / fs * PAPER_SPEED_MM_S
            half_mm = 0.44 * place.pitch_mm
            axes.imshow(
                _shade_colors(values, full), aspect="auto", interpolation="nearest", zorder=1.5,
                extent=(place.left_mm, right_mm, place.y_mm - half_mm, place.y_mm + half_mm),
            )  # fmt: skip
        if is_one_lead:
            _write_beat_shares(axes, place, place.y_mm - 0.5 * place.pitch_mm, beats)
        elif place.is_last_row:
            _write_beat_shares(axes, place, 1.2, beats)

    return paint


def _write_beat_shares(
    axes: Axes, place: StripPlace, y_mm: float, beats: Iterable[tuple[float, float]]
) -> None:
    inside = [(second, share) for second, share in beats if place.start <= second < place.stop]
    for second, share in inside:
        x_mm = place.left_mm + (second - place.start) * PAPER_SPEED_MM_S
        axes.text(
            x_mm, y_mm, f"{100 * share:.0f}%", fontsize=7.5, ha="center", va="bottom", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip


# Below the paper ---------------------------------------------------------------------------------


def _write_explanation(figure: Figure, panel_mm: float, drawn: DrawnExplanation) -> None:
    width_mm, height_mm = page_mm(figure)
    y_mm = panel_mm - 3.0
    legend = (("for the label", FOR_COLOR), ("against it", AGAINST_COLOR))
    for number, (text, color) in enumerate(legend):
        x_mm = _TEXT_MM + 34.0 * number
        figure.text(
            x_mm / width_mm, y_mm / height_mm, "     ", va="top", fontsize=9,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
        figure.text((x_mm + 7) / width_mm, y_mm / height_mm, text, va="top", fontsize=10)
    y_mm -= 8.0
    for sentence in drawn.summary:
        lines = textwrap.wrap(sentence, _SENTENCE_LETTERS)
        figure.text(
            _TEXT_MM / width_mm, y_mm / height_mm, "\n".join(lines),
            va="top", fontsize=10, color="#101018",
        )  # fmt: skip
        y_mm -= 4.7 * len(lines) + 1.8
    small = [
        f"Explained: log-odds of the label before calibration, by {drawn.method}.",
        "It says what the model has used, not what is true of the patient.",
        *drawn.remarks,
    ]
    lines = [line for text in small for line in textwrap.wrap(text, _REMARK_LETTERS)]
    n_room = max(1, int((y_mm - 9) / 3.9))
    if len(lines) > n_room:
        lines = [*lines[: n_room - 1], "…"]
    figure.text(
        _TEXT_MM / width_mm, y_mm / height_mm, "\n".join(lines),
        va="top", fontsize=8.5, color="#444444", linespacing=1.3,
    )  # fmt: skip
    figure.text(_TEXT_MM / width_mm, 4 / height_mm, DISCLAIMER, fontsize=9, color="#444444")


def _draw_lead_shares(
    figure: Figure, panel_mm: float, shares: Mapping[str, tuple[float, float]]
) -> None:
    width_mm, height_mm = page_mm(figure)
    bars_mm = len(shares) * _LEAD_PITCH_MM
    bottom_mm = panel_mm - 8.0 - bars_mm
    axes = figure.add_axes(
        (
            (_BARS_MM + 10) / width_mm,
            bottom_mm / height_mm,
            (width_mm - _BARS_MM - 28) / width_mm,
            bars_mm / height_mm,
        )
    )
    style_axes(axes, font_size=8)
    for row, (speaks_for, against) in enumerate(shares.values()):
        axes.barh(row, speaks_for, height=0.68, color=FOR_COLOR)
        axes.barh(row, against, left=speaks_for, height=0.68, color=AGAINST_COLOR)
        text = f"{100 * (speaks_for + against):.0f}%"
        axes.text(speaks_for + against, row, f" {text}", fontsize=8.5, va="center", clip_on=False)
    largest = max(speaks_for + against for speaks_for, against in shares.values())
    axes.set(xlim=(0, max(largest, 0.01) * 1.02), ylim=(len(shares) - 0.4, -0.6))
    axes.set_yticks(range(len(shares)), list(shares), fontsize=8.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.text(
        _BARS_MM / width_mm, (panel_mm - 2) / height_mm, "Share of each lead, for and against",
        va="top", fontsize=9,
    )  # fmt: skip
