"""Scores against scikit-learn, hand-computed values and degenerate inputs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from einthoven.bootstrap import (
    all_scores,
    bootstrap_scores,
    draw_patient_weights,
    logit_interval,
    normal_interval,
)
from einthoven.metrics import (
    CALIBRATION_BINS,
    MIN_POSITIVES_TO_TUNE,
    auroc,
    average_precision,
    best_f1_thresholds,
    calibration_bins,
    confusion_matrix,
    decide,
    f1_scores,
    label_accuracy,
    label_tables,
    macro_auroc,
    macro_f1,
    macro_mean,
    precision_recall_curve,
    precision_scores,
    ranking_scores,
    recall_scores,
    roc_curve,
    subset_accuracy,
    weighted_f1,
)


def random_case(
    seed: int, n: int = 300, n_classes: int = 6, digits: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities (with ties where ``digits`` is small) and decisions."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, n_classes)) < rng.uniform(0.05, 0.6, n_classes)).astype(np.uint8)
    probabilities = np.round(np.clip(rng.random(targets.shape) + 0.2 * targets, 0, 1), digits)
    return targets, probabilities, (probabilities >= 0.5).astype(np.uint8)


@pytest.mark.parametrize("digits", [8, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_scores_equal_scikit_learns_with_and_without_ties(seed: int, digits: int) -> None:
    targets, probabilities, _ = random_case(seed, digits=digits)
    expected = sk.roc_auc_score(targets, probabilities, average=None)
    np.testing.assert_allclose(auroc(targets, probabilities), expected, atol=1e-12)
    expected = sk.average_precision_score(targets, probabilities, average=None)
    np.testing.assert_allclose(average_precision(targets, probabilities), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_decision_scores_equal_scikit_learns(seed: int) -> None:
    targets, _, decisions = random_case(seed)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(targets, decisions)
    np.testing.assert_allclose(precision_scores(targets, decisions), precision)
    np.testing.assert_allclose(recall_scores(targets, decisions), recall)
    np.testing.assert_allclose(f1_scores(targets, decisions), f1)
    for ours, average in ((macro_f1, "macro"), (weighted_f1, "weighted")):
        assert ours(targets, decisions) == pytest.approx(
            sk.f1_score(targets, decisions, average=average)
        )
    scores = all_scores(targets, decisions, decisions, None, single=False)
    assert scores["f1", "micro"][0] == pytest.approx(
        sk.f1_score(targets, decisions, average="micro")
    )
    assert subset_accuracy(targets, decisions) == pytest.approx(
        sk.accuracy_score(targets, decisions)
    )
    assert label_accuracy(targets, decisions) == pytest.approx(
        1 - sk.hamming_loss(targets, decisions)
    )
    np.testing.assert_array_equal(
        label_tables(targets, decisions), sk.multilabel_confusion_matrix(targets, decisions)
    )


def test_specificity_equals_scikit_learns_recall_of_what_is_absent() -> None:
    targets, _, decisions = random_case(0)
    scores = all_scores(targets, decisions, decisions, None, single=False)
    absent, not_called = 1 - targets, 1 - decisions
    expected = sk.recall_score(absent, not_called, average=None)
    np.testing.assert_allclose(scores["specificity", "per_class"][0], expected)
    assert scores["specificity", "macro"][0] == pytest.approx(expected.mean())
    weighted = np.average(expected, weights=targets.sum(axis=0))
    assert scores["specificity", "weighted"][0] == pytest.approx(weighted)
    micro = sk.recall_score(absent, not_called, average="micro")
    assert scores["specificity", "micro"][0] == pytest.approx(micro)


def test_weighted_decision_scores_equal_scikit_learns_with_sample_weights() -> None:
    targets, probabilities, decisions = random_case(6)
    weights = next(draw_patient_weights(np.arange(300) // 3, 3, np.random.default_rng(0)))
    scores = all_scores(targets, probabilities, decisions, weights, single=False)
    for row, weight in enumerate(weights):
        for average, ours in (
            (None, "per_class"), ("macro", "macro"), ("weighted", "weighted"), ("micro", "micro"),
        ):  # fmt: skip
            expected = sk.precision_recall_fscore_support(
                targets, decisions, average=average, sample_weight=weight
            )
            for metric, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
                np.testing.assert_allclose(scores[metric, ours][row], value, atol=1e-6)
        specificity = sk.recall_score(
            1 - targets, 1 - decisions, average=None, sample_weight=weight
        )
        np.testing.assert_allclose(scores["specificity", "per_class"][row], specificity, atol=1e-6)
        accuracy = sk.accuracy_score(targets, decisions, sample_weight=weight)
        assert scores["subset_accuracy", ""][row] == pytest.approx(accuracy, abs=1e-6)
        entries = 1 - sk.hamming_loss(targets, decisions, sample_weight=weight)
        assert scores["accuracy", ""][row] == pytest.approx(entries, abs=1e-6)


def test_single_label_scores_equal_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth, called = rng.integers(4, size=200), rng.integers(4, size=200)
    targets, decisions = np.eye(4, dtype=np.uint8)[truth], np.eye(4, dtype=np.uint8)[called]
    assert subset_accuracy(targets, decisions) == pytest.approx(sk.accuracy_score(truth, called))
    scores = all_scores(targets, decisions, decisions, None, single=True)
    assert scores["f1", "micro"][0] == pytest.approx(sk.accuracy_score(truth, called))
    np.testing.assert_array_equal(
        confusion_matrix(targets, decisions), sk.confusion_matrix(truth, called)
    )


@pytest.mark.parametrize("digits", [8, 1])
def test_weighted_ranking_scores_equal_scikit_learns_with_sample_weights(digits: int) -> None:
    targets, probabilities, _ = random_case(5, digits=digits)
    weights = next(draw_patient_weights(np.arange(300) // 3, 4, np.random.default_rng(0)))
    areas, precisions = ranking_scores(targets, probabilities, weights)
    for row, weight in enumerate(weights):
        expected = sk.roc_auc_score(targets, probabilities, average=None, sample_weight=weight)
        np.testing.assert_allclose(areas[row], expected, atol=1e-6)
        expected = sk.average_precision_score(
            targets, probabilities, average=None, sample_weight=weight
        )
        np.testing.assert_allclose(precisions[row], expected, atol=1e-6)


def test_curves_end_at_the_corners_and_enclose_the_area() -> None:
    targets, probabilities, _ = random_case(1, digits=1)
    false_rate, true_rate = roc_curve(targets[:, 0], probabilities[:, 0])
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(true_rate, false_rate)
    assert area == pytest.approx(auroc(targets, probabilities)[0])
    recall, precision = precision_recall_curve(targets[:, 0], probabilities[:, 0])
    steps = (np.diff(recall) * precision[1:]).sum()
    assert steps == pytest.approx(average_precision(targets, probabilities)[0])


# Calibration -----------------------------------------------------------------------------------


def test_brier_score_equals_scikit_learns_with_and_without_weights() -> None:
    targets, probabilities, decisions = random_case(7)
    weights = next(draw_patient_weights(np.arange(300) // 3, 3, np.random.default_rng(0)))
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    scores = all_scores(targets, probabilities, decisions, weights, single=False)
    for row, weight in enumerate(weights):
        expected = [
            sk.brier_score_loss(targets[:, c], probabilities[:, c], sample_weight=weight)
            for c in range(6)
        ]
        np.testing.assert_allclose(scores["brier", "per_class"][row], expected, atol=1e-6)
        assert scores["brier", "macro"][row] == pytest.approx(np.mean(expected), abs=1e-6)


def calibration_error_by_loops(
    is_right: np.ndarray, confidence: np.ndarray, weight: np.ndarray
) -> float:
    """Guo et al. 2017: bins (m-1)/M < p <= m/M; share right against mean confidence in each."""
    error = 0.0
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    for m in range(CALIBRATION_BINS):
        inside = (confidence > edges[m]) & (confidence <= edges[m + 1])
        if m == 0:
            inside |= confidence == 0
        total = weight[inside].sum()
        if total:
            accuracy = (weight * is_right)[inside].sum() / total
            mean_confidence = (weight * confidence)[inside].sum() / total
            error += total / weight.sum() * abs(accuracy - mean_confidence)
    return error


@pytest.mark.parametrize("digits", [8, 1, 0])
def test_calibration_error_of_each_class_equals_a_plain_loop(digits: int) -> None:
    targets, probabilities, decisions = random_case(8, digits=digits)
    weights = next(draw_patient_weights(np.arange(300) // 3, 2, np.random.default_rng(0)))
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    scores = all_scores(targets, probabilities, decisions, weights, single=False)
    for row, weight in enumerate(weights):
        expected = [
            calibration_error_by_loops(targets[:, c], probabilities[:, c], weight) for c in range(6)
        ]
        ours = scores["expected_calibration_error", "per_class"][row]
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert ("expected_calibration_error", "top_label") not in scores


def test_calibration_error_of_the_decided_class_equals_a_plain_loop() -> None:
    targets, probabilities = drawn_case(200, 1.0, np.random.default_rng(0))
    decisions = decide(probabilities, None, single=True)
    weights = next(draw_patient_weights(np.arange(200) // 2, 3, np.random.default_rng(0)))
    scores = all_scores(targets, probabilities, decisions, weights, single=True)
    is_right = targets.argmax(axis=1) == probabilities.argmax(axis=1)
    expected = [
        calibration_error_by_loops(is_right, probabilities.max(axis=1), weight)
        for weight in weights
    ]
    ours = scores["expected_calibration_error", "top_label"]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_probability_that_says_how_often_has_no_calibration_error() -> None:
    targets = np.array([[1], [0], [0], [0], [1], [1], [1], [0]])
    probabilities = np.repeat([0.25, 0.75], 4)[:, None]
    decisions = decide(probabilities, None, single=False)
    scores = all_scores(targets, probabilities, decisions, None, single=False)
    assert scores["expected_calibration_error", "macro"][0] == 0
    assert scores["brier", "macro"][0] == 0.1875


def test_bins_are_closed_above() -> None:
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = calibration_bins(np.array([0, edges[1], np.nextafter(edges[1], 1), 1, 1 + 1e-7]))
    assert bins.tolist() == [0, 0, 1, CALIBRATION_BINS - 1, CALIBRATION_BINS - 1]


# The PTB-XL benchmark's scores -----------------------------------------------------------------


def f_max_by_loops(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """As the benchmark has it; a record without a label is not in the mean recall."""
    found = []
    for threshold in np.arange(0.00, 1.01, 1.0 / 100):
        precisions, recalls = [], []
        for there, probability in zip(targets > 0, probabilities, strict=True):
            called = probability >= threshold
            if called.any():
                precisions.append((there & called).sum() / called.sum())
            if there.any():
                recalls.append((there & called).sum() / there.sum())
        precision, recall = np.mean(precisions or [np.nan]), np.mean(recalls)
        if precision + recall > 0:
            found.append(2 * precision * recall / (precision + recall))
    return float(max(found))


@pytest.mark.parametrize("digits", [8, 2, 0])
@pytest.mark.parametrize("seed", range(2))
def test_f_max_equals_the_benchmarks_definition(seed: int, digits: int) -> None:
    targets, probabilities, decisions = random_case(seed, n=80, digits=digits)
    # No threshold but 0 reaches the least likely record.
    probabilities[0] = 0.001
    scores = all_scores(targets, probabilities, decisions, None, single=False)
    assert scores["f_max", ""][0] == pytest.approx(f_max_by_loops(targets, probabilities))


def beta_scores_by_loops(
    targets: np.ndarray, decisions: np.ndarray, weight: np.ndarray, beta: float = 2
) -> tuple[float, float]:
    """Macro F-beta and G-beta, a record counting once, shared out over its labels."""
    f_beta, g_beta = [], []
    for c in range(targets.shape[1]):
        hits = false_alarms = misses = 0.0
        for there, called, times in zip(targets, decisions, weight, strict=True):
            share = times / max(there.sum(), 1)
            hits += share * (there[c] == 1 and called[c] == 1)
            false_alarms += share * (there[c] == 0 and called[c] == 1)
            misses += share * (there[c] == 1 and called[c] == 0)
        if hits + misses:
            above = (1 + beta**2) * hits
            f_beta.append(above / (above + false_alarms + beta**2 * misses))
            g_beta.append(hits / (hits + false_alarms + beta * misses))
    return float(np.mean(f_beta)), float(np.mean(g_beta))


@pytest.mark.parametrize("share_of_calls", [0, 0.3, 1])
def test_beta_scores_equal_the_benchmarks_definition(share_of_calls: float) -> None:
    targets, probabilities, _ = random_case(9, n=60)
    targets[:, 2] = 0
    decisions = (
        (probabilities <= share_of_calls).astype(np.uint8) if share_of_calls else targets * 0
    )
    weights = next(draw_patient_weights(np.arange(60) // 2, 3, np.random.default_rng(0)))
    scores = all_scores(targets, probabilities, decisions, weights, single=False)
    for row, weight in enumerate(weights):
        f_beta, g_beta = beta_scores_by_loops(targets, decisions, weight)
        assert scores["f_beta", "macro"][row] == pytest.approx(f_beta, abs=1e-6)
        assert scores["g_beta", "macro"][row] == pytest.approx(g_beta, abs=1e-6)


def test_f_beta_of_one_label_per_record_equals_scikit_learns() -> None:
    targets, probabilities = drawn_case(200, 1.0, np.random.default_rng(0))
    decisions = decide(probabilities, None, single=True)
    scores = all_scores(targets, probabilities, decisions, None, single=True)
    expected = sk.fbeta_score(targets, decisions, beta=2, average="macro", zero_division=0)
    assert scores["f_beta", "macro"][0] == pytest.approx(expected)


# Degenerate inputs -----------------------------------------------------------------------------


PER_CLASS = (
    "auroc", "average_precision", "f1", "precision", "recall", "specificity", "brier",
    "expected_calibration_error",
)  # fmt: skip


def test_every_score_of_an_absent_class_is_nan_and_averages_leave_it_out() -> None:
    targets, probabilities, decisions = random_case(0)
    with_absent = all_scores(
        *(np.c_[table, extra] for table, extra in
          ((targets, targets[:, 0] * 0), (probabilities, probabilities[:, 0]),
           (decisions, decisions[:, 0]))),
        None, single=False,
    )  # fmt: skip
    without = all_scores(targets, probabilities, decisions, None, single=False)
    for metric in PER_CLASS:
        assert np.isnan(with_absent[metric, "per_class"][0, -1]), metric
        assert with_absent[metric, "macro"][0] == pytest.approx(without[metric, "macro"][0])
    for metric in ("f_beta", "g_beta"):
        assert with_absent[metric, "macro"][0] == pytest.approx(without[metric, "macro"][0])


def test_class_of_every_record_has_no_specificity_but_a_brier_score() -> None:
    targets, probabilities = np.ones((4, 1)), np.array([[0.1], [0.6], [0.7], [0.9]])
    decisions = decide(probabilities, None, single=False)
    scores = all_scores(targets, probabilities, decisions, None, single=False)
    assert np.isnan(scores["specificity", "per_class"]).all()
    assert np.isnan(scores["specificity", "macro"]).all()
    assert scores["brier", "macro"][0] == pytest.approx((0.81 + 0.16 + 0.09 + 0.01) / 4)


def test_no_decision_at_all_scores_zero_but_for_specificity() -> None:
    targets, probabilities, decisions = random_case(1)
    scores = all_scores(targets, probabilities, decisions * 0, None, single=False)
    for metric in ("f1", "precision", "recall", "f_beta", "g_beta"):
        assert scores[metric, "macro"][0] == 0
    assert scores["specificity", "macro"][0] == 1 and scores["specificity", "micro"][0] == 1


def test_records_without_any_label_have_no_score_of_classes() -> None:
    probabilities = np.full((3, 2), 0.6)
    decisions = decide(probabilities, None, single=False)
    scores = all_scores(np.zeros((3, 2)), probabilities, decisions, None, single=False)
    assert scores.pop(("accuracy", ""))[0] == 0 and scores.pop(("subset_accuracy", ""))[0] == 0
    assert all(np.isnan(values).all() for values in scores.values())


def test_no_record_gives_no_score_without_a_warning() -> None:
    nothing = np.zeros((0, 3))
    for single in (True, False):
        scores = all_scores(nothing, nothing, nothing, None, single=single)
        assert all(np.isnan(values).all() for values in scores.values())


def test_all_wrong_scores_as_badly_as_can_be() -> None:
    targets = np.array([[1, 0], [0, 1]])
    scores = all_scores(targets, 1 - targets, 1 - targets, None, single=True)
    for name in (("f1", "macro"), ("specificity", "macro"), ("f_beta", "macro"), ("accuracy", "")):
        assert scores[name][0] == 0
    for name in (
        ("brier", "macro"), ("expected_calibration_error", "macro"),
        ("expected_calibration_error", "top_label"),
    ):  # fmt: skip
        assert scores[name][0] == 1
    # At threshold 0 every class is called.
    assert scores["f_max", ""][0] == pytest.approx(2 / 3)


def test_absent_class_is_nan_and_left_out_of_averages() -> None:
    targets = np.array([[1, 0], [0, 0], [1, 0]])
    probabilities = np.array([[0.9, 0.9], [0.2, 0.1], [0.6, 0.3]])
    decisions = decide(probabilities, None, single=False)
    for scores in (
        auroc(targets, probabilities), average_precision(targets, probabilities),
        f1_scores(targets, decisions), precision_scores(targets, decisions),
        recall_scores(targets, decisions),
    ):  # fmt: skip
        assert scores[0] == 1 and np.isnan(scores[1])
    assert macro_auroc(targets, probabilities) == 1
    assert macro_mean(average_precision(targets, probabilities)) == 1
    assert macro_f1(targets, decisions) == 1


def test_class_of_every_record_has_no_auroc_but_a_recall() -> None:
    targets, probabilities = np.ones((4, 1)), np.array([[0.1], [0.6], [0.7], [0.9]])
    assert np.isnan(auroc(targets, probabilities)).all()
    assert recall_scores(targets, decide(probabilities, None, single=False)) == 0.75


def test_equal_probabilities_have_auroc_one_half_and_prevalence_as_average_precision() -> None:
    targets, probabilities = np.array([[1], [0], [0], [0]]), np.full((4, 1), 0.3)
    assert auroc(targets, probabilities) == 0.5
    assert average_precision(targets, probabilities) == 0.25


def test_all_wrong_scores_zero() -> None:
    targets = np.array([[1, 0], [0, 1]])
    probabilities = np.array([[0.1, 0.9], [0.9, 0.1]])
    decisions = decide(probabilities, None, single=True)
    assert macro_auroc(targets, probabilities) == 0
    assert macro_f1(targets, decisions) == 0 and subset_accuracy(targets, decisions) == 0


def test_class_never_called_has_precision_zero_as_in_scikit_learn() -> None:
    assert precision_scores(np.array([[1], [0]]), np.zeros((2, 1))) == 0


def test_one_record_gives_scores_without_a_warning() -> None:
    targets, probabilities = np.array([[1, 0, 0]]), np.array([[0.7, 0.2, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = all_scores(
            targets, probabilities, decide(probabilities, None, single=True), None, single=True
        )
    assert scores["accuracy", ""][0] == 1
    assert np.isnan(scores["auroc", "macro"][0])


# Decisions -------------------------------------------------------------------------------------


def test_single_label_decisions_are_the_likeliest_class() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    np.testing.assert_array_equal(decide(probabilities, None, single=True), [[0, 1, 0], [1, 0, 0]])


def test_probability_at_its_threshold_is_decided() -> None:
    np.testing.assert_array_equal(
        decide(np.array([[0.2, 0.2]]), [0.2, 0.21], single=False), [[1, 0]]
    )


def test_best_threshold_reaches_the_best_f1_there_is() -> None:
    targets, probabilities, _ = random_case(2, n=120, n_classes=2)
    assert (targets.sum(axis=0) >= MIN_POSITIVES_TO_TUNE).all()
    decisions = decide(probabilities, best_f1_thresholds(targets, probabilities), single=False)
    for c, reached in enumerate(f1_scores(targets, decisions)):
        candidates = [
            sk.f1_score(targets[:, c], probabilities[:, c] >= p) for p in probabilities[::2, c]
        ]
        assert reached >= max(candidates) - 1e-12


def test_rare_class_keeps_threshold_one_half() -> None:
    targets = np.zeros((100, 2))
    targets[: MIN_POSITIVES_TO_TUNE - 1, 0] = targets[:MIN_POSITIVES_TO_TUNE, 1] = 1
    probabilities = np.tile(np.linspace(0.2, 0.1, 100)[:, None], 2)
    thresholds = best_f1_thresholds(targets, probabilities)
    assert thresholds[0] == 0.5 and thresholds[1] < 0.2


# Bootstrap -------------------------------------------------------------------------------------


def test_records_of_a_patient_are_drawn_together() -> None:
    groups = np.array(["a", "b", "a", "c", "b"])
    weights = next(draw_patient_weights(groups, 50, np.random.default_rng(0)))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_resampled_scores_equal_scores_of_the_repeated_records() -> None:
    targets, probabilities, decisions = random_case(4, n=60)
    groups = np.arange(60) // 2
    weights = next(draw_patient_weights(groups, 5, np.random.default_rng(1)))
    samples = bootstrap_scores(
        targets, probabilities, decisions, groups, False, 5, np.random.default_rng(1)
    )
    for row, weight in enumerate(weights):
        repeated = np.repeat(np.arange(60), weight.astype(int))
        once = all_scores(
            targets[repeated], probabilities[repeated], decisions[repeated], None, single=False
        )
        for name, value in once.items():
            np.testing.assert_allclose(samples[name][row], value[0], atol=1e-6)


def test_bootstrap_of_patients_is_wider_than_of_records() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(2, size=(40, 1))
    probabilities = np.repeat(np.clip(patients + rng.normal(0, 1, (40, 1)), -3, 3), 10, axis=0)
    targets = np.repeat(patients, 10, axis=0)
    spread = [
        bootstrap_scores(
            targets, probabilities, targets, groups, False, 200, np.random.default_rng(0)
        )["auroc", "macro"].std()
        for groups in (np.arange(400) // 10, np.arange(400))
    ]
    assert spread[0] > 2 * spread[1]


# Intervals -------------------------------------------------------------------------------------


def drawn_case(n: int, skill: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets of five classes, rare ones among them, and what a model of some skill says."""
    shares = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    targets = np.eye(5)[rng.choice(5, size=n, p=shares)]
    odds = shares * np.exp(skill * targets + rng.normal(size=targets.shape))
    return targets, odds / odds.sum(axis=1, keepdims=True)


def drawn_intervals(
    n: int, skill: float, simulations: int, names: list[tuple[str, str]]
) -> dict[tuple[str, str], np.ndarray]:
    """``(simulation, 3)`` low, value and high of each score in samples drawn anew."""
    rng = np.random.default_rng(0)
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {name: [] for name in names}
    for _ in range(simulations):
        targets, probabilities = drawn_case(n, skill, rng)
        arrays = targets, probabilities, decide(probabilities, None, single=True)
        values = all_scores(*arrays, None, single=True)
        samples = bootstrap_scores(*arrays, np.arange(n), True, 100, rng)
        for name in names:
            value = float(values[name][0])
            low, high = logit_interval(value, samples[name])
            found[name].append((low, value, high))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize(("n", "least_for_precision"), [(80, 0.83), (250, 0.88)])
def test_95_percent_intervals_hold_the_truth_about_as_often(
    n: int, least_for_precision: float
) -> None:
    targets, probabilities = drawn_case(200_000, 1.5, np.random.default_rng(1))
    truth = {
        ("auroc", "macro"): macro_auroc(targets, probabilities),
        ("average_precision", "macro"): average_precision(targets, probabilities).mean(),
    }
    drawn = drawn_intervals(n, 1.5, 250, list(truth))
    held = {name: np.mean((rows[:, 0] <= truth[name]) & (truth[name] <= rows[:, 2]))
            for name, rows in drawn.items()}  # fmt: skip
    assert 0.90 <= held["auroc", "macro"] <= 0.98, held
    # Average precision is biased upwards in small samples, whatever the interval.
    assert least_for_precision <= held["average_precision", "macro"] <= 0.98, held


@pytest.mark.parametrize("skill", [-1.0, 0.0, 4.0])
def test_an_interval_always_holds_its_own_score(skill: float) -> None:
    names = [("auroc", "macro"), ("average_precision", "macro"), ("f1", "macro"), ("accuracy", "")]
    for rows in drawn_intervals(15, skill, 60, names).values():
        low, value, high = rows.T
        has_none = np.isnan(low)
        assert (has_none | ((0 <= low) & (low <= value) & (value <= high) & (high <= 1))).all()
        assert ((0 < value) & (value < 1))[~has_none].all() and not has_none.all()


def test_resampling_raises_average_precision_but_the_interval_stays_around_it() -> None:
    targets, probabilities = drawn_case(60, 0.0, np.random.default_rng(5))
    decisions = decide(probabilities, None, single=True)
    value = float(macro_mean(average_precision(targets, probabilities)))
    samples = bootstrap_scores(
        targets, probabilities, decisions, np.arange(60), True, 400, np.random.default_rng(0)
    )["average_precision", "macro"]
    assert np.median(samples) > value + 0.02
    low, high = logit_interval(value, samples)
    assert low < value < high


@pytest.mark.parametrize(
    ("value", "samples"),
    [(1.0, [1, 1, 1]), (0.0, [0, 0]), (1 - 1e-16, [1, 1 - 6e-8, 1]), (0.5, [np.nan, 0.5])],
)
def test_resamples_that_are_all_the_same_give_no_interval(
    value: float, samples: list[float]
) -> None:
    assert np.isnan(logit_interval(value, np.array(samples))).all()


def test_interval_of_an_unbounded_score_lies_evenly_around_it() -> None:
    samples = np.random.default_rng(0).normal(-0.1, 0.05, 500)
    low, high = normal_interval(-0.1, samples)
    assert (low + high) / 2 == pytest.approx(-0.1)
    assert high - low == pytest.approx(2 * 1.959964 * samples.std(ddof=1))
    assert low < -0.1 < high


@pytest.mark.parametrize("samples", [[np.nan, 0.5], [np.nan], [0.25, 0.25, 0.25]])
def test_an_unbounded_score_without_spread_has_no_interval(samples: list[float]) -> None:
    assert np.isnan(normal_interval(0.25, np.array(samples))).all()
