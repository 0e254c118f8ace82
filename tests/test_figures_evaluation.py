"""Figures of calibration, thresholds and subgroups: they mark what they say, and admit gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from einthoven.figures.forest import plot_subgroup_forest
from einthoven.figures.reliability import plot_reliability_diagrams
from einthoven.figures.scores import SCORE_FIGURES, save_score_figures, score_figure_names
from einthoven.figures.style import shown_log_odds
from einthoven.figures.thresholds import (
    plot_score_distributions,
    plot_threshold_curves,
    scores_by_threshold,
)
from einthoven.metrics import f1_scores, precision_scores, recall_scores
from einthoven.scoring import Predictions

SIZES = (5, 26, 71)
N = 300


def case_of_many(n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Targets, raw and calibrated probabilities; the last classes have 3, 1 and 0 positives."""
    rng = np.random.default_rng(0)
    targets = (rng.random((N, n_classes)) < 0.2).astype(np.uint8)
    for k, n_positives in ((3, 3), (2, 1), (1, 0)):
        targets[:, -k] = np.arange(N) < n_positives
    log_odds = rng.normal(2 * targets - 2.0, 1)
    raw, calibrated = 1 / (1 + np.exp(-2 * log_odds)), 1 / (1 + np.exp(-log_odds))
    return targets, raw, calibrated, [f"C{c}" for c in range(n_classes)]


def a_subgroup(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """An entry as `einthoven.subgroups.score_subgroups` writes it."""

    def figure(value: float) -> dict[str, Any]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}

    return {
        "kind": kind, "name": name, "n": 1234, "n_patient_groups": 90, "labels": ["A", "B"],
        "positives": {"A": 30, "B": 40, "C": 2}, "auroc": figure(0.8), "rest": figure(0.9),
        "difference": figure(-0.1), "p": 0.01, "p_holm": 0.02, "is_worse": False, **changes,
    }  # fmt: skip


def not_compared(kind: str, name: str, reason: str) -> dict[str, Any]:
    nothing = {"value": None, "low": None, "high": None, "n": 5, "reason": reason}
    return a_subgroup(
        kind, name, labels=[], auroc=nothing, rest=nothing, difference=nothing, p=None,
        p_holm=None, reason=reason,
    )  # fmt: skip


def draw(figure: Figure) -> Figure:
    """Draw coarsely; warnings of layout and fonts are errors here."""
    figure.set_dpi(30)
    FigureCanvasAgg(figure).draw()
    return figure


def words_of(figure: Figure) -> str:
    return "\n".join({id(text): text.get_text() for text in figure.findobj(Text)}.values())


def threshold_lines(figure: Figure) -> list[float]:
    """Where panels have a line called the chosen threshold."""
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    chosen = [line for line in lines if str(line.get_label()).startswith("chosen threshold")]
    return [float(np.asarray(line.get_xdata())[0]) for line in chosen]


# All sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", SIZES)
def test_reliability_names_every_class_and_both_lines(n_classes: int) -> None:
    targets, raw, probabilities, labels = case_of_many(n_classes)
    figure = draw(plot_reliability_diagrams(targets, raw, probabilities, labels, "title"))
    text = words_of(figure)
    assert len(figure.axes) == n_classes and all(label in text for label in labels)
    assert "before calibration" in text and "after calibration" in text and "title" in text
    assert text.count("class absent") == 1


@pytest.mark.parametrize("n_classes", SIZES)
def test_threshold_curves_mark_each_threshold(n_classes: int) -> None:
    targets, _, probabilities, labels = case_of_many(n_classes)
    thresholds = {label: 0.2 + 0.005 * c for c, label in enumerate(labels)}
    figure = draw(plot_threshold_curves(targets, probabilities, labels, thresholds, "title"))
    np.testing.assert_allclose(threshold_lines(figure), shown_log_odds([*thresholds.values()]))
    assert all(f"t={threshold:.3f}" in words_of(figure) for threshold in thresholds.values())


@pytest.mark.parametrize("n_classes", SIZES)
def test_distributions_mark_thresholds_where_there_are_any(n_classes: int) -> None:
    targets, _, probabilities, labels = case_of_many(n_classes)
    thresholds = dict.fromkeys(labels, 0.3)
    figure = draw(plot_score_distributions(targets, probabilities, labels, thresholds, "title"))
    assert len(threshold_lines(figure)) == n_classes
    assert words_of(figure).count("class absent") == 1
    assert not threshold_lines(plot_score_distributions(targets, probabilities, labels, {}))


@pytest.mark.parametrize("n_rows", [1, 4, 40])
def test_forest_has_a_row_for_every_subgroup(n_rows: int) -> None:
    subgroups = [a_subgroup("device", f"device {k}") for k in range(n_rows)]
    figure = draw(plot_subgroup_forest(subgroups, "title"))
    assert all(f"device {k}" in words_of(figure) for k in range(n_rows))
    assert figure.get_size_inches()[1] > 0.2 * n_rows


@pytest.mark.parametrize("n_classes", [1, 12])
def test_one_record_can_be_drawn(n_classes: int) -> None:
    targets, p = np.ones((1, n_classes), np.uint8), np.full((1, n_classes), 0.7, np.float32)
    labels = [f"C{c}" for c in range(n_classes)]
    thresholds = dict.fromkeys(labels, 0.5)
    draw(plot_reliability_diagrams(targets, p, p, labels))
    draw(plot_threshold_curves(targets, p, labels, thresholds))
    draw(plot_score_distributions(targets, p, labels, thresholds))


def test_probabilities_of_0_and_1_can_be_drawn() -> None:
    targets = (np.arange(60) % 2).astype(np.uint8)[:, None]
    p = targets.astype(np.float32)
    draw(plot_reliability_diagrams(targets, p, p, ["A"]))
    draw(plot_threshold_curves(targets, p, ["A"], {"A": 0.5}))
    figure = draw(plot_score_distributions(targets, p, ["A"], {"A": 0.5}))
    # Every record is in the histograms, in the bars at the ends.
    assert words_of(figure).count("100 %") == 2


@pytest.mark.parametrize("n_classes", [5, 26])
def test_text_stays_on_the_page_and_off_the_legend(n_classes: int) -> None:
    targets, raw, probabilities, labels = case_of_many(n_classes)
    labels[0] = "nonspecific intraventricular conduction disorder"
    figure = draw(plot_reliability_diagrams(targets, raw, probabilities, labels, "title"))
    legend = figure.legends[0].get_window_extent()
    titles = [axes._left_title.get_window_extent() for axes in figure.axes]  # type: ignore[attr-defined]
    assert not any(legend.overlaps(title) for title in titles)
    title = figure._suptitle  # type: ignore[attr-defined]
    line_height = title.get_window_extent().height / 3
    assert legend.y1 < title.get_window_extent().y1 - 0.9 * line_height
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in [legend, *titles])


# What the lines say ------------------------------------------------------------------------------


def test_uncalibrated_probabilities_are_drawn_once_and_called_so() -> None:
    targets, raw, _, labels = case_of_many(5)
    text = words_of(plot_reliability_diagrams(targets, raw, raw, labels))
    assert "not calibrated" in text and "before calibration" not in text


def test_reliability_of_a_hand_made_case() -> None:
    targets = np.array([0, 0, 0, 1, 1, 1, 1, 0], np.uint8)[:, None]
    p = np.array([0.25] * 4 + [0.75] * 4)[:, None]
    axes = plot_reliability_diagrams(targets, p, p, ["A"]).axes[0]
    points = axes.containers[0][0].get_xydata()
    np.testing.assert_allclose(points, [[0.25, 0.25], [0.75, 0.75]])


def test_scores_by_threshold_agree_with_those_of_decisions() -> None:
    rng = np.random.default_rng(0)
    is_positive, p = rng.random(50) < 0.3, rng.integers(1, 10, 50) / 10
    scores = scores_by_threshold(is_positive, p, np.array([0.3, 0.7]))
    for column, limit in enumerate((0.3, 0.7)):
        arrays = is_positive[:, None].astype(np.uint8), (p >= limit)[:, None].astype(np.uint8)
        wanted = [score(*arrays)[0] for score in (precision_scores, recall_scores)]
        wanted += [float((p < limit)[~is_positive].mean()), f1_scores(*arrays)[0]]
        np.testing.assert_allclose(scores[:, column], wanted)


def test_scores_that_do_not_exist_are_gaps() -> None:
    limits = np.array([0.1, 0.9])
    no_positive = scores_by_threshold(np.zeros(3, bool), np.full(3, 0.5), limits)
    assert np.isnan(no_positive[[0, 1, 3]]).all() and (no_positive[2] == [0, 1]).all()
    no_negative = scores_by_threshold(np.ones(3, bool), np.full(3, 0.5), limits)
    assert np.isnan(no_negative[2]).all()
    assert np.isnan(no_negative[0, 1]) and no_negative[1, 1] == 0


def test_few_positives_are_drawn_one_by_one() -> None:
    targets, _, probabilities, labels = case_of_many(5)
    axes = plot_score_distributions(targets, probabilities, labels).axes[2]
    (ticks,) = axes.collections
    places = np.sort([segment[0, 0] for segment in ticks.get_segments()])  # type: ignore[attr-defined]
    np.testing.assert_allclose(places, np.sort(shown_log_odds(probabilities[:3, 2])))


# Subgroups ---------------------------------------------------------------------------------------


def test_forest_says_which_subgroup_is_worse_and_how_surely() -> None:
    worse = a_subgroup("sex", "male", is_worse=True, p_holm=0.0004)
    text = words_of(plot_subgroup_forest([a_subgroup("sex", "female"), worse]))
    assert "−0.100, worse, p < 0.001" in text and "−0.100, p = 0.020" in text
    assert "0.800 (0.780–0.820)" in text


def test_forest_counts_positives_of_the_compared_classes() -> None:
    text = words_of(plot_subgroup_forest([a_subgroup("sex", "female")])).splitlines()
    assert "1,234" in text and "70" in text and "2" in text


def test_forest_lists_what_is_not_compared_with_its_reason() -> None:
    figure = draw(plot_subgroup_forest([not_compared("age", "under 18", "only 3 patients")]))
    (reason,) = [text for text in figure.axes[0].texts if "only 3 patients" in text.get_text()]
    assert reason.get_text().startswith("not compared: ")
    assert len({channel for channel in str(reason.get_color()).strip("#")}) == 2, "it is grey"


def test_forest_folds_many_subgroups_of_very_few_records() -> None:
    small = [not_compared("site", f"s{k}", "too few") | {"n": 2} for k in range(30)]
    figure = draw(plot_subgroup_forest([a_subgroup("site", "large"), *small]))
    text = words_of(figure)
    assert "30 more" in text and "fewer than 20 records each" in text and "s7" not in text
    assert "s1" in words_of(plot_subgroup_forest(small[:3]))


def test_forest_takes_figures_without_interval_or_test() -> None:
    bare = {"value": 0.85, "low": None, "high": None, "n": 9, "reason": "one score"}
    text = words_of(draw(plot_subgroup_forest([a_subgroup("sex", "x", auroc=bare, p_holm=None)])))
    assert "0.850\n" in text and "not tested" in text and "nan" not in text


def test_forest_heads_each_kind_once() -> None:
    names = [("sex", "female"), ("sex", "male"), ("age", "18–39")]
    lines = words_of(plot_subgroup_forest([a_subgroup(*name) for name in names])).splitlines()
    assert lines.count("sex") == 1 and lines.count("age") == 1


def test_forest_without_subgroups_says_so() -> None:
    assert "no subgroups" in words_of(draw(plot_subgroup_forest([], "title")))


# All of an evaluation ----------------------------------------------------------------------------


def an_evaluation(n_classes: int, single: bool) -> tuple[Predictions, dict[str, Any]]:
    targets, raw, probabilities, labels = case_of_many(n_classes)
    names = np.full(N, "a", object)
    predictions = Predictions(
        records=names, groups=names, archives=names, targets=targets, raw=raw,
        probabilities=probabilities, decisions=targets, labels=tuple(labels), single=single,
    )  # fmt: skip
    figure = {"value": 0.5, "low": None, "high": None, "n": N}
    per_class = {label: figure for label in labels}
    scores = {metric: {"per_class": per_class} for metric in ("precision", "recall", "f1")}
    return predictions, {
        **scores, "split": "test", "label_set": "/my/set.csv", "support": dict.fromkeys(labels, 3),
        "thresholds": {} if single else dict.fromkeys(labels, 0.5),
        "subgroups": [a_subgroup("sex", "female")] if single else [],
    }  # fmt: skip


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("n_classes", [5, 26])
def test_every_score_figure_says_which_records_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: bool, n_classes: int
) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(
        "einthoven.figures.scores.save_figure",
        lambda figure, folder, name, stamp: drawn.update({name: figure}),
    )
    save_score_figures(*an_evaluation(n_classes, single), tmp_path, "x")
    assert set(drawn) == {*SCORE_FIGURES, "subgroup_forest" if single else "threshold_curves"}
    assert tuple(drawn) == score_figure_names(single, has_subgroups=single)
    for figure in drawn.values():
        assert f"test split, n={N}, label set set" in words_of(figure)
