"""What a threshold does: scores against it, and how the probabilities lie on both sides of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from einthoven.figures.style import (
    LINE_STYLES,
    MOST_LINES_IN_ONE_PLOT,
    PALETTE,
    WHITE_BEHIND,
    explain_lines,
    mark_absent,
    name_panel,
    panel_grid,
    panel_size,
    set_log_odds_axis,
    shown_log_odds,
    style_axes,
)
from einthoven.metrics import divide_or_nan

THRESHOLD_SCORES = ("precision", "recall (sensitivity)", "specificity", "F1")
# The third and fourth of the palette are one grey to those who see no green.
_SCORE_COLORS = (PALETTE[0], PALETTE[1], PALETTE[5], PALETTE[3])
_THRESHOLD_NAME = "chosen threshold t"
_N_THRESHOLDS = 241
_N_DISTRIBUTION_BINS = 28

# So few records are drawn one by one: a histogram of them would be a few odd bars.
MOST_RECORDS_DRAWN_SINGLY = 20

# Scores against the threshold -------------------------------------------------------------------


def plot_threshold_curves(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    thresholds: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Precision, recall, specificity and F1 of each class against its threshold.

    The chosen threshold is a line with its value; the axis is even in log-odds, since the
    thresholds of rare classes are small. Precision ends where no record is called any more.

    Args:
        targets, probabilities: ``(n, C)``; several labels a record.
        labels: C names.
        thresholds: label to the probability from which it is decided.
        title: what the figure shows, of which records.
    """
    is_large = len(labels) <= MOST_LINES_IN_ONE_PLOT
    figure, panels, columns = panel_grid(len(labels), panel_size(len(labels)), title)
    limits = _even_log_odds(_N_THRESHOLDS)
    for c, axes in enumerate(panels):
        _set_threshold_axes(axes, is_large, is_left=c % columns == 0)
        is_positive = targets[:, c] > 0
        scores = scores_by_threshold(is_positive, probabilities[:, c], 1 / (1 + np.exp(-limits)))
        for number, (name, values) in enumerate(zip(THRESHOLD_SCORES, scores, strict=True)):
            axes.plot(limits, values, color=_SCORE_COLORS[number], linestyle=LINE_STYLES[number],
                      linewidth=1.6 if is_large else 1.1, label=name)  # fmt: skip
        _mark_threshold(axes, thresholds.get(labels[c]))
        if not is_positive.any():
            mark_absent(axes, "class absent", is_large)
        facts = _threshold_facts(thresholds.get(labels[c]), int(is_positive.sum()))
        name_panel(axes, labels[c], facts, is_large)
    explain_lines(figure, panels[0].get_lines(), 5)
    figure.supxlabel("threshold (even in log-odds; n: positives)", fontsize=9)
    figure.supylabel("score", fontsize=9)
    return figure


def scores_by_threshold(
    is_positive: np.ndarray, probability: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Precision, recall, specificity and F1 of one class at each limit, ``(4, len(limits))``.

    Args:
        is_positive: ``(n,)`` bool.
        probability: ``(n,)``.
        limits: rising; a record is called where its probability is at least the limit.

    Returns:
        NaN where a score does not exist: precision without a call, specificity without a negative,
        all but specificity without a positive.
    """
    n_positives, n_negatives = float(is_positive.sum()), float((~is_positive).sum())
    hits = n_positives - np.searchsorted(np.sort(probability[is_positive]), limits)
    misses = n_negatives - np.searchsorted(np.sort(probability[~is_positive]), limits)
    called = hits + misses
    precision = divide_or_nan(hits, called)
    recall = divide_or_nan(hits, np.full(len(limits), n_positives))
    specificity = divide_or_nan(n_negatives - misses, np.full(len(limits), n_negatives))
    f1 = divide_or_nan(2 * hits, called + n_positives)
    scores = np.stack([precision, recall, specificity, f1])
    if not n_positives:
        scores[[0, 3]] = np.nan
    return scores


def _even_log_odds(n: int) -> np.ndarray:
    """From one end of a log-odds axis to the other."""
    return np.linspace(float(shown_log_odds(0.0)), float(shown_log_odds(1.0)), n)


def _set_threshold_axes(axes: Axes, is_large: bool, is_left: bool) -> None:
    style_axes(axes, font_size=8 if is_large else 7)
    set_log_odds_axis(axes, is_large)
    ticks = (0, 0.25, 0.5, 0.75, 1) if is_large else (0, 0.5, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks] if is_left else [""] * len(ticks))
    axes.set_ylim(-0.03, 1.05)


def _mark_threshold(axes: Axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(float(shown_log_odds(threshold)), color="black", linewidth=1.2,
                     dashes=(6, 2, 1, 2), label=_THRESHOLD_NAME, zorder=4)  # fmt: skip


def _threshold_facts(threshold: float | None, n_positives: int) -> str:
    at = "" if threshold is None else f"t={threshold:.3f}, "
    return f"{at}n={n_positives:,}"


# Distributions ----------------------------------------------------------------------------------


def plot_score_distributions(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """How the calibrated probability is spread among records with and without each label.

    Each of the two groups is drawn as shares of itself, so that a rare class is as tall as the
    rest, and the axis is even in log-odds, so that small probabilities are told apart. Of groups of
    at most `MOST_RECORDS_DRAWN_SINGLY` records each record is a tick.

    Args:
        targets, probabilities: ``(n, C)``.
        labels: C names.
        thresholds: label to the probability from which it is decided; empty or None where the
            likeliest label is.
        title: what the figure shows, of which records.
    """
    is_large = len(labels) <= MOST_LINES_IN_ONE_PLOT
    figure, panels, _ = panel_grid(len(labels), panel_size(len(labels)), title)
    for c, axes in enumerate(panels):
        style_axes(axes, font_size=8 if is_large else 7)
        set_log_odds_axis(axes, is_large)
        axes.set_yticks([])
        is_positive = targets[:, c] > 0
        _draw_distributions(axes, is_positive, shown_log_odds(probabilities[:, c]))
        if not is_positive.any():
            mark_absent(axes, "class absent", is_large)
        threshold = (thresholds or {}).get(labels[c])
        _mark_threshold(axes, threshold)
        facts = _threshold_facts(threshold, int(is_positive.sum()))
        name_panel(axes, labels[c], facts, is_large)
    _explain_distributions(figure, panels[0], bool(thresholds))
    figure.supxlabel(
        "calibrated probability (even in log-odds; n: positives; end bars: all beyond)",
        fontsize=9,
    )
    figure.supylabel("share of each group", fontsize=9)
    return figure


# Without and with the label: colours, and hatching for print without them.
_GROUP_COLORS = (PALETTE[0], PALETTE[1])
_HATCH = "/////"


def _draw_distributions(axes: Axes, is_positive: np.ndarray, log_odds: np.ndarray) -> None:
    """Without the label: filled bars; with it: hatched ones; of few records ticks."""
    edges = _even_log_odds(_N_DISTRIBUTION_BINS + 1)
    shares: list[np.ndarray] = []
    few: list[tuple[np.ndarray, str]] = []
    for belongs, color in zip((~is_positive, is_positive), _GROUP_COLORS, strict=True):
        if belongs.sum() <= MOST_RECORDS_DRAWN_SINGLY:
            few.append((log_odds[belongs], color))
            continue
        share = np.histogram(log_odds[belongs], edges)[0] / belongs.sum()
        shares.append(share)
        if color == _GROUP_COLORS[0]:
            axes.stairs(share, edges, fill=True, color=color, alpha=0.4)
        else:
            axes.stairs(share, edges, color=color, linewidth=1.2, hatch=_HATCH)
    top = _distribution_top(shares)
    for places, color in few:
        axes.vlines(places, 0, 0.3 * top, color=color, linewidth=1.4, zorder=4)
    axes.set_ylim(0, top)
    for share in shares:
        _name_cut_bars(axes, share, edges, top)


def _distribution_top(shares: Sequence[np.ndarray]) -> float:
    """The height of a panel: bars at the ends, which gather all that lies beyond, may be cut."""
    inner = max((float(share[1:-1].max()) for share in shares), default=0.0)
    tallest = max((float(share.max()) for share in shares), default=0.0)
    return max(1.25 * inner, 0.4 * tallest) or 1.0


def _name_cut_bars(axes: Axes, share: np.ndarray, edges: np.ndarray, top: float) -> None:
    """The share of a bar that is taller than its panel, beside its top."""
    for at, place, side in ((0, edges[1], "left"), (-1, edges[-2], "right")):
        if share[at] > top:
            inwards = 1 if side == "left" else -1
            axes.text(float(place) + 0.15 * inwards, 0.97 * top, f"{100 * share[at]:.0f} %",
                      ha=side, va="top", fontsize=7, bbox=WHITE_BEHIND, zorder=5)  # fmt: skip


def _explain_distributions(figure: Figure, axes: Axes, has_thresholds: bool) -> None:
    without, having = _GROUP_COLORS
    few = f"one record (groups of {MOST_RECORDS_DRAWN_SINGLY} or fewer)"
    handles: list[Artist] = [
        Patch(facecolor=without, alpha=0.4, label="without the label"),
        Patch(facecolor="white", edgecolor=having, hatch=_HATCH, label="with the label"),
        Line2D([], [], color=having, marker="|", linestyle="", markersize=9, markeredgewidth=1.4,
               label=few),
    ]  # fmt: skip
    if has_thresholds:
        handles += [line for line in axes.get_lines() if line.get_label() == _THRESHOLD_NAME]
    explain_lines(figure, handles, 4)
