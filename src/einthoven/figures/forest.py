"""A forest plot: the score of each subgroup with its interval, beside that of the other records."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from einthoven.figures.style import PALETTE, REFERENCE_COLOR, style_axes

# Inches: a table with the plot as one of its columns.
_WIDTH = 9.9
_ROW = 0.24
_TOP, _BOTTOM = 0.85, 0.85
_PLOT_LEFT, _PLOT_RIGHT = 4.1, 6.35
_NAME_X, _RECORDS_X, _POSITIVES_X, _CLASSES_X = 0.25, 2.85, 3.35, 3.95
_SCORE_X, _VERDICT_X = 6.45, 7.9
_GROUP_COLOR, _WORSE_COLOR, _GREY = PALETTE[0], PALETTE[1], "#6E6E6E"

_HEADS = (
    (_RECORDS_X, "right", "records"),
    (_POSITIVES_X, "right", "pos."),
    (_CLASSES_X, "right", "classes"),
    (_SCORE_X, "left", "AUROC (95 % interval)"),
    (_VERDICT_X, "left", "difference, p"),
)
_NOTE = (
    "pos.: labels set in the subgroup's records, of the classes compared. classes: those that both "
    "sides have enough records of.\np: lower than the rest by chance, one-sided, after Holm's "
    "correction over all comparisons."
)

# More subgroups of one kind than this with too few records to compare are one row.
MOST_SMALL_SUBGROUPS = 3
SMALL_SUBGROUP = 20

# The name of a kind, a subgroup, or how many small ones there are.
ForestRow = Mapping[str, Any] | str | int


def plot_subgroup_forest(subgroups: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Macro AUROC of each subgroup with its 95 % interval, and of the rest of the records.

    A subgroup that is worse is said to be so in words, with its p; one that cannot be compared is
    grey, with the reason.

    Args:
        subgroups: as `einthoven.subgroups.score_subgroups` gives them; may be empty.
        title: what the figure shows, of which records.
    """
    rows: list[ForestRow] = []
    for kind, of_kind in groupby(subgroups, key=lambda entry: str(entry["kind"])):
        rows += [kind, *_without_small(list(of_kind))]
    figure, axes = _forest_page(max(1, len(rows)), title)
    if not rows:
        axes.set_axis_off()
        _write(axes, 0.1, 0, "no subgroups: nothing is known that would divide the records")
        return figure
    _set_forest_axes(axes, subgroups)
    for place, row in enumerate(rows):
        if isinstance(row, str):
            _write(axes, 0.1, place, row, fontweight="bold")
        elif isinstance(row, int):
            _write(axes, _NAME_X, place, f"{row} more", color=_GREY)
            few = f"not compared: fewer than {SMALL_SUBGROUP} records each"
            _write(axes, _PLOT_LEFT + 0.05, place, few, color=_GREY, style="italic")
        else:
            _draw_subgroup(axes, place, row)
    for x, side, text in _HEADS:
        _write(axes, x, -0.95, text, ha=side, color=_GREY)
    height = figure.get_size_inches()[1]
    figure.text(0.1 / _WIDTH, 0.1 / height, _NOTE, fontsize=7.5, color=_GREY, linespacing=1.4)
    _explain_marks(figure, axes)
    return figure


def _without_small(of_kind: Sequence[Mapping[str, Any]]) -> list[ForestRow]:
    """Subgroups to list, and how many are left out because they have very few records."""
    listed = [
        entry
        for entry in of_kind
        if entry["n"] >= SMALL_SUBGROUP or entry["auroc"]["value"] is not None
    ]
    n_small = len(of_kind) - len(listed)
    return [*listed, n_small] if n_small > MOST_SMALL_SUBGROUPS else list(of_kind)


def _forest_page(n_rows: int, title: str) -> tuple[Figure, Axes]:
    height = _TOP + _BOTTOM + n_rows * _ROW
    figure = Figure(figsize=(_WIDTH, height))
    figure.text(0.1 / _WIDTH, 1 - 0.12 / height, title, fontsize=11, va="top")
    box = (_PLOT_LEFT, _BOTTOM, _PLOT_RIGHT - _PLOT_LEFT, n_rows * _ROW)
    axes = figure.add_axes((box[0] / _WIDTH, box[1] / height, box[2] / _WIDTH, box[3] / height))
    axes.set_ylim(n_rows - 0.5, -0.5)
    return figure, axes


def _set_forest_axes(axes: Axes, subgroups: Sequence[Mapping[str, Any]]) -> None:
    style_axes(axes, font_size=8)
    axes.set_yticks([])
    axes.set_xlabel("macro AUROC", fontsize=9)
    axes.spines["left"].set_visible(False)
    figures = [entry[side] for entry in subgroups for side in ("auroc", "rest")]
    known = [
        figure[end] for figure in figures for end in ("low", "value") if figure[end] is not None
    ]
    # The best score is on the page always; the worst decides how much else is.
    least = np.floor(20 * (min(known, default=0.5) - 0.01)) / 20
    axes.set_xlim(max(0.0, least), 1.005)
    if least < 0.5 and known:
        axes.axvline(0.5, color=REFERENCE_COLOR, linewidth=0.8, dashes=(1, 2))


def _write(axes: Axes, x_inches: float, place: float, text: str, **look: Any) -> None:
    """Text in a column of the table, level with a row of the plot."""
    figure = axes.get_figure()
    assert figure is not None
    level = blended_transform_factory(figure.transFigure, axes.transData)
    axes.text(
        x_inches / _WIDTH, place, text, transform=level, clip_on=False,
        **{"va": "center", "fontsize": 8.5, **look},
    )  # fmt: skip


def _draw_subgroup(axes: Axes, place: int, entry: Mapping[str, Any]) -> None:
    value = entry["auroc"]["value"]
    color = "#101018" if value is not None else _GREY
    compared = entry["labels"]
    n_positives = sum(entry["positives"][label] for label in compared or entry["positives"])
    name = textwrap.shorten(str(entry["name"]), 32, placeholder=" …")
    _write(axes, _NAME_X, place, name, color=color)
    for x, count in ((_RECORDS_X, entry["n"]), (_POSITIVES_X, n_positives)):
        _write(axes, x, place, f"{count:,}", ha="right", color=color)
    if value is None:
        reason = textwrap.shorten(f"not compared: {entry.get('reason', '')}", 88, placeholder=" …")
        _write(axes, _PLOT_LEFT + 0.05, place, reason, color=_GREY, style="italic")
        return
    _write(axes, _CLASSES_X, place, f"{len(compared)}", ha="right")
    mark = _WORSE_COLOR if entry["is_worse"] else _GROUP_COLOR
    _draw_score(axes, place + 0.2, entry["rest"], _GREY, "D", 3.5, "white")
    _draw_score(axes, place - 0.1, entry["auroc"], mark, "s" if entry["is_worse"] else "o", 5, mark)
    _write(axes, _SCORE_X, place, _score_in_words(entry["auroc"]))
    verdict, weight = _verdict_in_words(entry)
    _write(axes, _VERDICT_X, place, verdict, fontweight=weight)


def _draw_score(
    axes: Axes, y: float, figure: Mapping[str, Any], color: str, marker: str, size: float, face: str
) -> None:
    if figure["value"] is None:
        return
    if figure["low"] is not None:
        axes.plot([figure["low"], figure["high"]], [y, y], color=color, linewidth=1.4 * size / 5)
    axes.plot([figure["value"]], [y], color=color, marker=marker, markersize=size,
              markerfacecolor=face, linestyle="", zorder=3)  # fmt: skip


def _score_in_words(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def _verdict_in_words(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The difference and what to think of it; bold where the subgroup is worse."""
    p = entry.get("p_holm")
    difference = entry["difference"]["value"]
    # A true minus sign, as wide as the plus.
    told = "" if difference is None else f"{difference:+.3f}".replace("-", "\N{MINUS SIGN}") + ", "
    if p is None:
        return f"{told}not tested", "normal"
    told_p = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return (f"{told}worse, {told_p}", "bold") if entry["is_worse"] else (told + told_p, "normal")


def _explain_marks(figure: Figure, axes: Axes) -> None:
    looks = (
        ("subgroup", _GROUP_COLOR, "o", _GROUP_COLOR),
        ("subgroup, worse than the rest", _WORSE_COLOR, "s", _WORSE_COLOR),
        ("rest of the records", _GREY, "D", "white"),
    )
    handles = [
        axes.plot([], [], color=color, marker=marker, markerfacecolor=face, markersize=5,
                  linewidth=1.2, label=name)[0]
        for name, color, marker, face in looks
    ]  # fmt: skip
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1 - 0.27 / height), ncols=3,
        fontsize=8.5, frameon=False,
    )  # fmt: skip
