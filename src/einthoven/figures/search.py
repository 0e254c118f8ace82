"""Pictures of a search for settings: how its trials scored, and which settings mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from einthoven.figures.style import (
    PALETTE,
    REFERENCE_COLOR,
    explain_lines,
    head_figure,
    pad_figure,
    short_label,
    style_axes,
)

_BEST, _TRIAL, _DEFAULT = PALETTE[1], PALETTE[0], PALETTE[2]
MOST_SETTINGS_SHOWN = 6


def plot_search(trials: pd.DataFrame, title: str, score_title: str) -> Figure:
    """Each trial's validation score in turn, with its interval, and the best so far.

    Args:
        trials: rows with ``trial``, ``state``, ``score``, ``low``, ``high`` and ``is_default``.
        title: what the figure shows.
        score_title: of the score's axis.
    """
    figure = Figure(figsize=(7.5, 3.9), layout="constrained")
    pad_figure(figure)
    head_figure(figure, title)
    axes = figure.subplots()
    style_axes(axes)
    done = trials[(trials["state"] == "finished") & trials["score"].notna()]
    ended = trials[(trials["state"] == "given up") & trials["score"].notna()]
    last = max(trials["trial"].max() if len(trials) else 1, 2)
    axes.set_xlabel("trial", fontsize=9)
    axes.set_ylabel(f"{score_title} (validation)", fontsize=9)
    axes.set_xlim(0.3, last + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # The worst trial says little; the upper ones decide how much of the scale is shown.
    shown = done["score"].astype(float).to_numpy()
    if len(shown):
        low = float(np.quantile(shown, 0.1)) - 0.35 * max(float(np.ptp(shown)), 0.02)
        high = done[["score", "high"]].astype(float).to_numpy()
        axes.set_ylim(max(0.0, low), float(np.nanmax(high)) + 0.05 * (np.nanmax(high) - low))
    _draw_trials(axes, done, ended, last)
    explain_lines(figure, axes.get_legend_handles_labels()[0], 4)
    return figure


def _draw_trials(axes: Axes, done: pd.DataFrame, ended: pd.DataFrame, last: int) -> None:
    number, score = done["trial"].to_numpy(), done["score"].astype(float).to_numpy()
    known = done[done["low"].notna()]
    axes.vlines(
        known["trial"], known["low"].astype(float), known["high"].astype(float), color=_TRIAL,
        linewidth=1, alpha=0.35,
    )  # fmt: skip
    axes.plot(number, score, "o", color=_TRIAL, markersize=5, label="finished (95 % interval)")
    axes.plot(ended["trial"], ended["score"].astype(float), "x", color=REFERENCE_COLOR,
              markersize=5, label="given up (best until then)")  # fmt: skip
    _mark_below(axes, pd.concat([done, ended]))
    if len(done):
        best = np.maximum.accumulate(score)
        axes.step([*number, last], [*best, best[-1]], where="post", color=_BEST, linewidth=1.4,
                  label="best so far")  # fmt: skip
    usual = done[done["is_default"].astype(bool)]
    if len(usual):
        axes.axhline(float(usual["score"].iloc[0]), color=_DEFAULT, linewidth=1.2,
                     dashes=(5, 2), label="default settings")  # fmt: skip


def _mark_below(axes: Axes, trials: pd.DataFrame) -> None:
    """Triangles at the foot for trials whose score lies below the scale."""
    bottom = axes.get_ylim()[0]
    below = trials[trials["score"].astype(float) < bottom]
    if len(below):
        axes.plot(below["trial"], np.full(len(below), bottom), "v", color=REFERENCE_COLOR,
                  markersize=5, clip_on=False, label="below the scale")  # fmt: skip


def plot_importance(
    shares: Mapping[str, float],
    trials: pd.DataFrame,
    names: Mapping[str, bool],
    title: str,
    score_title: str,
) -> Figure:
    """How much each setting mattered, and beside it the scores over its values.

    Args:
        shares: setting to its share, which add up to 1.
        trials: as `plot_search` takes them, with a column for each setting.
        names: the settings, and whether the axis of each is logarithmic.
        title: what the figure shows.
        score_title: of the panels' axis.
    """
    ranked = sorted(names, key=lambda name: -shares.get(name, 0.0))
    shown = ranked[:MOST_SETTINGS_SHOWN]
    figure = Figure(figsize=(7.5, 2.1 + 0.24 * len(ranked) + 2.1 * -(-len(shown) // 3)),
                    layout="constrained")  # fmt: skip
    pad_figure(figure)
    head_figure(figure, title)
    heights = [0.9 + 0.24 * len(ranked), *[2.1] * -(-len(shown) // 3)]
    grid = figure.add_gridspec(len(heights), 3, height_ratios=heights)
    _draw_shares(figure.add_subplot(grid[0, :]), shares, ranked)
    done = trials[(trials["state"] == "finished") & trials["score"].notna()]
    panels: list[Axes] = []
    for place, name in enumerate(shown):
        axes = figure.add_subplot(
            grid[1 + place // 3, place % 3], sharey=panels[0] if panels else None
        )
        panels.append(axes)
        _draw_scores_over(axes, done, name, names[name])
        if place % 3 == 0:
            axes.set_ylabel(score_title, fontsize=8)
    return figure


def _draw_shares(axes: Axes, shares: Mapping[str, float], ranked: Sequence[str]) -> None:
    style_axes(axes)
    values = [shares.get(name, 0.0) for name in ranked]
    place = np.arange(len(ranked))
    axes.barh(place, values, color=_TRIAL, height=0.62)
    for y, value in zip(place, values, strict=True):
        axes.text(value + 0.005, float(y), f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(place, [name.upper() for name in ranked])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlim(0, max([*values, 0.05]) * 1.1)
    axes.set_xlabel("share in what sets the best trials apart (PED-ANOVA)", fontsize=9)


def _draw_scores_over(axes: Axes, done: pd.DataFrame, name: str, is_log: bool) -> None:
    style_axes(axes, font_size=7.5)
    score, values = done["score"].astype(float), done[name]
    axes.set_title(name.upper(), fontsize=8.5, loc="left", pad=4)
    is_best = (score == score.max()).to_numpy()
    is_number = pd.api.types.is_numeric_dtype(values) and values.nunique() > 4
    if is_number:
        x = values.astype(float).to_numpy()
        axes.set_xscale("log" if is_log else "linear")
    else:
        known = sorted(values.unique(), key=lambda value: (str(type(value)), value))
        x = np.array([known.index(value) for value in values], float)
        labels = [short_label(str(value), 20) for value in known]
        axes.set_xticks(range(len(known)), labels, fontsize=6.5, rotation=25, ha="right")
        axes.set_xlim(-0.6, len(known) - 0.4)
        # Side by side, where several trials have one value.
        x = x + (np.arange(len(x)) % 5 - 2) * 0.07
    axes.plot(x[~is_best], score[~is_best], "o", color=_TRIAL, markersize=4, alpha=0.7)
    axes.plot(x[is_best], score[is_best], "o", color=_BEST, markersize=5.5)
