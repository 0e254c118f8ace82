"""Figures of scores and training: every class is shown, at 5, 26 and 71 classes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from einthoven.figures.curves import (
    plot_precision_recall_curves,
    plot_roc_curves,
    plot_training_curves,
)
from einthoven.figures.saving import save_figure
from einthoven.figures.scores import plot_confusion_matrix, plot_per_class_metrics, row_shares
from einthoven.figures.style import short_label
from einthoven.metrics import confusion_matrix, label_tables
from einthoven.scoring import score_predictions

SIZES = (5, 26, 71)


def case_of(n_classes: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Single-label targets, the last class absent, and probabilities."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % (n_classes - 1)
    targets = np.eye(n_classes, dtype=np.uint8)[truth]
    return targets, rng.random((200, n_classes)), [f"C{c}" for c in range(n_classes)]


def texts_of(figure: Figure) -> str:
    """All text of a figure; a legend holds its texts twice."""
    texts = {id(text): text.get_text() for text in figure.findobj(Text)}
    return "\n".join(texts.values())


@pytest.mark.parametrize("n_classes", SIZES)
@pytest.mark.parametrize("plot", [plot_roc_curves, plot_precision_recall_curves])
def test_curves_name_every_class_and_admit_the_absent_one(plot, n_classes: int) -> None:  # type: ignore[no-untyped-def]
    targets, probabilities, labels = case_of(n_classes)
    text = texts_of(plot(targets, probabilities, labels))
    assert all(label in text for label in labels)
    assert text.count("no score") == 1
    assert "nan" not in text


@pytest.mark.parametrize("n_classes", SIZES)
def test_confusion_matrix_names_every_class(n_classes: int) -> None:
    targets, probabilities, labels = case_of(n_classes)
    decisions = np.eye(n_classes, dtype=np.uint8)[probabilities.argmax(axis=1)]
    text = texts_of(plot_confusion_matrix(confusion_matrix(targets, decisions), labels))
    assert all(label in text for label in labels)


def test_confusion_matrix_shows_percentages_of_the_true_class() -> None:
    text = texts_of(plot_confusion_matrix(np.array([[3, 1], [0, 0]]), ["A", "B"]))
    assert "75.0 %\n3" in text and "25.0 %\n1" in text
    assert "nan" not in text


def test_labels_that_occur_together_get_a_table_each() -> None:
    targets, probabilities, labels = case_of(5)
    figure = plot_confusion_matrix(label_tables(targets, probabilities > 0.5), labels)
    assert len(figure.axes) == 5
    assert "none" in texts_of(figure)


def test_shares_of_an_absent_class_are_blank() -> None:
    np.testing.assert_array_equal(
        row_shares(np.array([[1, 3], [0, 0]])), [[0.25, 0.75], [np.nan, np.nan]]
    )


@pytest.mark.parametrize("n_classes", SIZES)
def test_bars_name_every_class_with_its_positives(n_classes: int) -> None:
    targets, probabilities, labels = case_of(n_classes)
    decisions = np.eye(n_classes, dtype=np.uint8)[probabilities.argmax(axis=1)]
    scores = score_predictions(
        targets, probabilities, decisions, np.arange(200), labels, True, 100, 0
    )
    text = texts_of(plot_per_class_metrics(scores, labels))
    assert all(label in text for label in labels)
    assert f"n={scores['support']['C0']}" in text
    assert text.count("absent from the split") == 1


def test_a_class_without_a_single_hit_is_not_taken_for_absent() -> None:
    nothing = {"value": 0.0, "low": None, "high": None, "n": 9}
    scores = {metric: {"per_class": {"A": nothing}} for metric in ("precision", "recall", "f1")}
    text = texts_of(plot_per_class_metrics({**scores, "support": {"A": 3}}, ["A"]))
    assert "all 0" in text and "n=3" in text and "absent" not in text


def test_confusion_says_which_classes_have_no_record() -> None:
    figure = plot_confusion_matrix(np.diag([2, 0, 1]), ["A", "B", "C"])
    said = [text for text in figure.axes[0].texts if "no record" in text.get_text()]
    assert [text.get_position()[1] for text in said] == [1]


def test_long_names_of_few_classes_do_not_overlap() -> None:
    figure = plot_confusion_matrix(np.eye(3), ["a name that is long", "B", "C"])
    names = figure.axes[0].get_xticklabels()
    FigureCanvasAgg(figure).draw()
    boxes = [name.get_window_extent() for name in names]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_label_with_dollars_is_not_read_as_a_formula(tmp_path: Path) -> None:
    figure = plot_roc_curves(*case_of(3)[:2], ["$x^$", "B", short_label("C")])
    assert save_figure(figure, tmp_path, "roc_curves", "x").exists()


def test_training_curves_mark_the_best_epoch_and_take_missing_values() -> None:
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_f1_macro": 0.2, "val_auroc_macro": None},
        {"epoch": 2, "train_loss": 0.5, "val_f1_macro": 0.6, "val_auroc_macro": 0.7},
        {"epoch": 3, "train_loss": 0.4, "val_f1_macro": 0.5, "val_auroc_macro": 0.8},
    ]
    assert "best epoch, 2" in texts_of(plot_training_curves(history))
    assert "best epoch, 3" in texts_of(plot_training_curves(history, "auroc"))


def test_one_epoch_is_drawn_on_whole_epochs() -> None:
    figure = plot_training_curves([{"epoch": 1, "train_loss": 1.0, "val_f1_macro": None}])
    assert figure.axes[0].get_xlim() == (0.5, 1.5)
    assert "best epoch" not in texts_of(figure)


def test_confusion_of_few_classes_is_small() -> None:
    width, height = plot_confusion_matrix(np.eye(5), list("ABCDE")).get_size_inches()
    assert width <= 6.5 and height <= 5.6


def test_figures_reach_150_dots_per_inch(tmp_path: Path) -> None:
    figure = plot_roc_curves(*case_of(5))
    path = save_figure(figure, tmp_path, "roc_curves", "20260101-000000")
    height, width = imread(path).shape[:2]
    assert (width, height) == tuple(int(150 * inch) for inch in figure.get_size_inches())
