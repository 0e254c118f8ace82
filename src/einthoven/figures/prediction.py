"""A prediction beside the ECG that it was made from: what was decided, how surely, what is true."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from einthoven.figures.ecg_paper import plot_ecg
from einthoven.figures.style import PALETTE, short_label, style_axes
from einthoven.records import LEADS
from einthoven.version import DISCLAIMER

# Of more labels than this, those that matter for the record and then the likeliest are shown.
MOST_PROBABILITY_BARS = 10

# How a label's bar is called and coloured, by whether it is decided and whether it is true; the
# words carry the meaning, so that no reader depends on colours.
BAR_LOOKS = {
    (True, True): ("decided, true", PALETTE[2]),
    (True, False): ("decided, not true", PALETTE[1]),
    (False, True): ("missed", PALETTE[4]),
    (False, False): ("", "#BBBBBB"),
    # Where the truth is not known.
    (True, None): ("decided", PALETTE[0]),
    (False, None): ("", "#BBBBBB"),
}

_MM = 25.4
_LEFT_MM = 5.0
_BAR_PITCH_MM = 5.6
_BARS_HEAD_MM = 8.0
_BARS_FOOT_MM = 13.0
_LEAST_PANEL_MM = 52.0
_LINE_LETTERS = 44
_SMALL_LINE_LETTERS = 72
# Words end and labels begin here; bars follow, and right of them what they mean.
_BARS_LEFT_MM = 126.0
_LETTER_MM = 1.8
_MEANING_MM = 48.0


def visualize_prediction_sample(
    signal: np.ndarray,
    fs: float,
    probabilities: Mapping[str, float],
    decisions: Collection[str],
    *,
    thresholds: Mapping[str, float] | None = None,
    true_labels: Collection[str] | None = None,
    leads_present: Sequence[str] = LEADS,
    title: str = "",
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw a recording on ECG paper, true to scale, with the model's answer below it.

    Args:
        signal: ``(12, sample)`` millivolts in standard order; NaN leaves a gap. Of a long recording
            the first ten seconds are shown.
        fs: hertz.
        probabilities: of every label, in the model's order.
        decisions: the labels that were decided.
        thresholds: label to the probability from which it is decided; empty or None where the
            likeliest label is.
        true_labels: what the record is; None where nobody has said.
        leads_present: the leads that were recorded; of a single one, strips are shown.
        title: one or two lines above the trace.
        remarks: what a reader should know of the signal, such as its doubtful leads.

    Returns:
        A figure of matplotlib's object interface; nothing global is touched.
    """
    figure = _plot_recorded_leads(signal, fs, leads_present, title)
    shown = choose_bars(probabilities, decisions, true_labels or ())
    needed_mm = _BARS_HEAD_MM + len(shown) * _BAR_PITCH_MM + _BARS_FOOT_MM
    panel_mm = max(_LEAST_PANEL_MM, needed_mm)
    add_room_below(figure, panel_mm)
    _write_answer(figure, panel_mm, decisions, true_labels, remarks)
    axes = _bar_axes(figure, panel_mm, shown)
    _draw_bars(axes, shown, probabilities, decisions, thresholds or {}, true_labels)
    how = "decided from the black line on" if thresholds else "the likeliest is decided"
    some = (
        f", {len(shown)} of {len(probabilities)} labels" if len(shown) < len(probabilities) else ""
    )
    width_mm, height_mm = page_mm(figure)
    figure.text(
        _BARS_LEFT_MM / width_mm, (panel_mm - 2) / height_mm,
        f"The model's probabilities{some}; {how}", va="top", fontsize=9,
    )  # fmt: skip
    return figure


def _plot_recorded_leads(
    signal: np.ndarray, fs: float, leads_present: Sequence[str], title: str
) -> Figure:
    if len(leads_present) == 1:
        # A sheet of twelve would be empty but for one corner.
        row = signal[[LEADS.index(leads_present[0])]]
        return plot_ecg(row, fs, title=title, leads=leads_present)
    return plot_ecg(signal, fs, leads_present, title)


def choose_bars(
    probabilities: Mapping[str, float], decisions: Collection[str], true_labels: Collection[str]
) -> list[str]:
    """The labels to show, in the model's order: decided and true ones, then the likeliest.

    >>> many = {f"c{k}": k / 20 for k in range(12)}
    >>> choose_bars(many, ["c11"], ["c0"])[:3]
    ['c0', 'c3', 'c4']
    """
    matters = {*decisions, *true_labels}
    ranked = sorted(probabilities, key=lambda label: (label not in matters, -probabilities[label]))
    kept = set(ranked[:MOST_PROBABILITY_BARS])
    return [label for label in probabilities if label in kept]


def judge_decisions(
    decisions: Iterable[str], true_labels: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The labels that were decided and are not true, and those that are true and were missed.

    >>> judge_decisions(["MI", "NORM"], ["MI", "CD"])
    (['NORM'], ['CD'])
    """
    decided, true = list(decisions), list(true_labels)
    false_alarms = [label for label in decided if label not in true]
    return false_alarms, [label for label in true if label not in decided]


# Below the paper -------------------------------------------------------------------------------


def add_room_below(figure: Figure, room_mm: float) -> None:
    """Make the page longer; what is drawn keeps its size and so its scale."""
    width, height = figure.get_size_inches()
    longer = height + room_mm / _MM
    figure.set_size_inches(width, longer)
    figure.axes[0].set_position((0, 1 - height / longer, 1, height / longer))


def page_mm(figure: Figure) -> tuple[float, float]:
    width, height = figure.get_size_inches() * _MM
    return float(width), float(height)


def _write_answer(
    figure: Figure,
    panel_mm: float,
    decisions: Collection[str],
    true_labels: Collection[str] | None,
    remarks: Sequence[str],
) -> None:
    """Decided, true and judgement, then remarks, then what this is not."""
    lines = [("Decided", _listed_labels(decisions))]
    if true_labels is not None:
        false_alarms, missed = judge_decisions(decisions, true_labels)
        faults = [
            *([f"not true: {_listed_labels(false_alarms)}"] if false_alarms else []),
            *([f"missed: {_listed_labels(missed)}"] if missed else []),
        ]
        lines += [("True", _listed_labels(true_labels)), ("Result", "; ".join(faults) or "right")]
    width_mm, height_mm = page_mm(figure)
    y_mm = panel_mm - 2.0
    for name, text in lines:
        wrapped = textwrap.wrap(text, _LINE_LETTERS, max_lines=2, placeholder=" …")
        for x_mm, written, weight in (
            (_LEFT_MM, [name], "bold"),
            (_LEFT_MM + 20, wrapped, "normal"),
        ):
            figure.text(
                x_mm / width_mm, y_mm / height_mm, "\n".join(written),
                va="top", fontsize=11, fontweight=weight, color="#101018",
            )  # fmt: skip
        y_mm -= 5.0 * len(wrapped) + 1.6
    small = [line for remark in remarks for line in textwrap.wrap(remark, _SMALL_LINE_LETTERS)]
    n_room = max(0, int((y_mm - 9) / 3.9))
    if len(small) > n_room:
        small = [*small[: max(0, n_room - 1)], "…"]
    figure.text(
        _LEFT_MM / width_mm, (y_mm - 1) / height_mm, "\n".join(small),
        va="top", fontsize=8.5, color="#444444", linespacing=1.3,
    )  # fmt: skip
    figure.text(_LEFT_MM / width_mm, 4 / height_mm, DISCLAIMER, fontsize=9, color="#444444")


def _listed_labels(labels: Collection[str]) -> str:
    return ", ".join(labels) or "none of the labels"


def _bar_axes(figure: Figure, panel_mm: float, shown: Sequence[str]) -> Axes:
    width_mm, height_mm = page_mm(figure)
    longest = max(len(short_label(label)) for label in shown)
    left_mm = _BARS_LEFT_MM + _LETTER_MM * (longest + 2)
    bars_mm = len(shown) * _BAR_PITCH_MM
    bottom_mm = panel_mm - _BARS_HEAD_MM - bars_mm
    return figure.add_axes(
        (
            left_mm / width_mm,
            bottom_mm / height_mm,
            (width_mm - _MEANING_MM - left_mm) / width_mm,
            bars_mm / height_mm,
        )
    )


def _draw_bars(
    axes: Axes,
    shown: Sequence[str],
    probabilities: Mapping[str, float],
    decisions: Collection[str],
    thresholds: Mapping[str, float],
    true_labels: Collection[str] | None,
) -> None:
    style_axes(axes, font_size=8)
    for row, label in enumerate(shown):
        is_true = None if true_labels is None else label in true_labels
        verdict, color = BAR_LOOKS[label in decisions, is_true]
        axes.barh(row, probabilities[label], height=0.68, color=color)
        if label in thresholds:
            limit = thresholds[label]
            axes.plot([limit, limit], [row - 0.42, row + 0.42], color="black", linewidth=1.4)
        text = f"{probabilities[label]:.3f}  {verdict}".rstrip()
        axes.text(1.02, row, text, fontsize=9, va="center", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), xticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_yticks(range(len(shown)), [short_label(label) for label in shown], fontsize=9)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
