"""Calibration, threshold rules, conformal sets and reliability: against brute force and theory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression

from einthoven.calibration.conformal import (
    STATED_COVERAGES,
    conformal_limits,
    conformal_sets,
)
from einthoven.calibration.fitting import fit_calibration
from einthoven.calibration.maps import Calibration, calibration_from_values, no_calibration
from einthoven.calibration.reliability import reliability_bins, wilson_interval
from einthoven.calibration.thresholds import SENSITIVITIES, THRESHOLD_RULES, tune_thresholds
from einthoven.challenge_score import challenge_score
from einthoven.labels.snomed import CHALLENGE_2021
from einthoven.metrics import auroc, best_f1_thresholds, decide, f1_scores

LABELS = ("a", "b", "c", "d")


def multi_case(
    seed: int, n: int = 1000, shift: float = 2.0, spread: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of four classes, the last rare, and log-odds too large by ``shift`` and wide."""
    rng = np.random.default_rng(seed)
    true_odds = rng.normal([0.0, -1.0, -2.0, -6.5], 2.0, (n, 4))
    targets = (rng.random((n, 4)) < expit(true_odds)).astype(np.uint8)
    return targets, expit(spread * true_odds + shift).astype(np.float32)


def single_case(
    seed: int, n: int = 2000, slope: float = 1.0, bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """One-hot targets of prevalence about .6, .25, .1, .05, and probabilities out of true."""
    rng = np.random.default_rng(seed)
    true = softmax(rng.normal(np.log([0.6, 0.25, 0.1, 0.05]), 1.2, (n, 4)), axis=1)
    chosen = (rng.random((n, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=3)
    raw = softmax(slope * np.log(true) + np.asarray(bias), axis=1)
    return np.eye(4, dtype=np.uint8)[chosen], raw.astype(np.float32)


def fitted(targets: np.ndarray, raw: np.ndarray, single: bool = False) -> Calibration:
    """The calibration of records that are each a patient of their own."""
    return fit_calibration(targets, raw, range(len(raw)), LABELS[: raw.shape[1]], single)


def constant_case(n: int) -> np.ndarray:
    """Two raw columns that never vary."""
    return np.full((n, 2), 0.3, np.float32)


# Platt scaling -------------------------------------------------------------------------------


def test_platt_equals_a_logistic_regression_on_smoothed_targets() -> None:
    targets, raw = multi_case(0)
    ours = fitted(targets, raw)
    for c in range(3):
        positive = targets[:, c] > 0
        n_positive, n_negative = positive.sum(), (~positive).sum()
        smoothed = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
        # A soft target is two records, one of each kind, weighted.
        x = np.tile(logit(raw[:, c].astype(float))[:, None], (2, 1))
        y = np.repeat([1, 0], len(raw))
        weight = np.r_[smoothed, 1 - smoothed]
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y, weight)
        assert ours.slope[c] == pytest.approx(model.coef_[0, 0], rel=1e-3)
        assert ours.bias[c] == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-3)


def test_platt_finds_the_map_that_was_put_in() -> None:
    targets, raw = multi_case(1, n=20_000, shift=2.0, spread=1.5)
    ours = fitted(targets, raw)
    np.testing.assert_allclose(ours.slope[:3], 1 / 1.5, rtol=0.1)
    np.testing.assert_allclose(ours.bias[:3], -2 / 1.5, rtol=0.1)


def test_platt_brings_the_mean_probability_to_the_prevalence() -> None:
    targets, raw = multi_case(2)
    ours = fitted(targets, raw)
    assert np.all(raw.mean(axis=0)[:3] > targets.mean(axis=0)[:3] + 0.1)
    np.testing.assert_allclose(
        ours.apply(raw).mean(axis=0)[:3], targets.mean(axis=0)[:3], atol=2 / 1000
    )


def test_platt_keeps_the_ranking_of_every_class() -> None:
    targets, raw = multi_case(3)
    calibrated = fitted(targets, raw).apply(raw)
    for c in range(4):
        assert np.all(np.diff(calibrated[np.argsort(raw[:, c]), c]) >= 0)
    np.testing.assert_allclose(auroc(targets, calibrated), auroc(targets, raw), atol=1e-4)


def test_a_rare_class_takes_the_map_of_all_entries() -> None:
    targets, raw = multi_case(4)
    assert 0 < targets[:, 3].sum() < 20
    ours = fitted(targets, raw)
    assert ours.pooled == ("d",)
    pool = fit_calibration(targets.reshape(-1, 1), raw.reshape(-1, 1), range(4000), "p", False)
    assert (ours.slope[3], ours.bias[3]) == (pool.slope[0], pool.bias[0])


def test_a_class_with_few_negatives_is_pooled_too() -> None:
    targets, raw = multi_case(5)
    assert fitted(1 - targets, 1 - raw).pooled == ("d",)


def test_an_anti_correlated_class_takes_the_pools_map_and_keeps_its_ranking() -> None:
    targets, raw = multi_case(6)
    raw[:, 1] = 1 - raw[:, 1]
    ours = fitted(targets, raw)
    assert ours.pooled == ("b", "d")
    assert np.all(ours.slope > 0) and ours.slope[1] == ours.slope[3]


def test_a_pool_that_is_anti_correlated_keeps_slope_one_and_the_prevalence() -> None:
    targets, raw = multi_case(7)
    ours = fitted(targets, 1 - raw)
    assert ours.pooled == LABELS
    np.testing.assert_array_equal(ours.slope, 1)
    assert ours.apply(1 - raw).mean() == pytest.approx(targets.mean(), abs=2 / 1000)


# Temperature and class bias ------------------------------------------------------------------


def test_temperature_and_bias_undo_what_was_put_in() -> None:
    bias = np.array([-1.0, 0.0, 0.5, 1.5])
    targets, raw = single_case(0, n=20_000, slope=2.0, bias=tuple(bias))
    ours = fitted(targets, raw, single=True)
    np.testing.assert_allclose(ours.slope, 0.5, rtol=0.05)
    np.testing.assert_allclose(ours.bias, (bias.mean() - bias) / 2, atol=0.06)
    assert ours.method == "temperature" and ours.pooled == ()


def test_fitting_undoes_class_weighting() -> None:
    prevalence = np.array([0.6, 0.25, 0.1, 0.05])
    targets, raw = single_case(1, bias=tuple(-np.log(prevalence)))
    assert raw[:, 3].mean() > 2.5 * targets[:, 3].mean()
    calibrated = fitted(targets, raw, single=True).apply(raw)
    np.testing.assert_allclose(calibrated.mean(axis=0), targets.mean(axis=0), atol=4 / 2000)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-6)


def test_temperature_equals_a_general_optimiser() -> None:
    targets, raw = single_case(2, n=500)
    log_p = np.log(np.r_[raw, np.tile(raw.mean(axis=0), (4, 1))].astype(float))
    y = np.r_[targets, np.eye(4)]

    def loss(at: np.ndarray) -> float:
        return float(-np.mean(np.log(softmax(at[0] * log_p + at[1:], axis=1)[y > 0])))

    found = minimize(loss, np.r_[1.0, np.zeros(4)], tol=1e-10).x
    ours = fitted(targets, raw, single=True)
    assert ours.pooled == ()
    np.testing.assert_allclose(ours.slope, found[0], rtol=1e-3)
    np.testing.assert_allclose(ours.bias, found[1:] - found[1:].mean(), atol=2e-3)


def test_rare_classes_of_a_softmax_share_one_bias() -> None:
    targets, raw = single_case(2, n=110)
    ours = fitted(targets, raw, single=True)
    assert ours.pooled == ("c", "d")
    assert ours.bias[2] == ours.bias[3] != ours.bias[1]
    assert ours.bias.sum() == pytest.approx(0, abs=1e-12)
    both = ours.apply(raw)[:, 2:].sum(axis=1).mean()
    assert both == pytest.approx(targets[:, 2:].sum(axis=1).mean(), abs=3 / 110)


def test_an_absent_class_of_a_softmax_keeps_some_probability() -> None:
    targets, raw = single_case(4)
    keep = targets[:, 3] == 0
    calibrated = fitted(targets[keep], raw[keep], single=True).apply(raw[keep])
    assert 0.2 < calibrated[:, 3].sum() < 2


def test_a_softmax_that_is_anti_correlated_keeps_slope_one() -> None:
    targets, raw = single_case(5)
    wrong = softmax(-np.log(raw), axis=1)
    ours = fitted(targets, wrong, single=True)
    np.testing.assert_array_equal(ours.slope, 1)
    np.testing.assert_allclose(ours.apply(wrong).mean(axis=0), targets.mean(axis=0), atol=4 / 2000)


# Degenerate input ----------------------------------------------------------------------------


@pytest.mark.parametrize("single", [True, False])
def test_separable_data_stay_finite_and_ordered(single: bool) -> None:
    targets = np.eye(2, dtype=np.uint8)[np.arange(200) % 2]
    raw = np.where(targets > 0, 0.9, 0.1).astype(np.float32)
    ours = fitted(targets, raw, single)
    calibrated = ours.apply(raw)
    assert np.isfinite(ours.slope).all() and np.isfinite(ours.bias).all()
    assert calibrated[targets > 0].min() > 0.97 and calibrated[targets == 0].max() < 0.03


@pytest.mark.parametrize("single", [True, False])
def test_probabilities_of_zero_and_one_give_finite_output(single: bool) -> None:
    rng = np.random.default_rng(0)
    targets = np.eye(2, dtype=np.uint8)[rng.integers(0, 2, 100)]
    raw = targets.astype(np.float32)
    raw[:10] = 1 - raw[:10]
    ours = fitted(targets, raw, single)
    calibrated = ours.apply(raw)
    assert np.isfinite(calibrated).all() and calibrated.dtype == np.float32
    assert 0.8 < calibrated[targets > 0][10:].mean() < 0.95


@pytest.mark.parametrize("single", [True, False])
def test_a_constant_probability_becomes_the_prevalence(single: bool) -> None:
    targets = np.eye(2, dtype=np.uint8)[(np.arange(400) % 4 == 0).astype(int)]
    raw = np.tile(np.float32([0.3, 0.7]), (400, 1))
    ours = fitted(targets, raw, single)
    np.testing.assert_allclose(ours.slope, 1, atol=1e-6)
    np.testing.assert_allclose(ours.apply(raw)[0], [0.75, 0.25], atol=0.005)


@pytest.mark.parametrize("value", [0, 1])
def test_targets_that_are_all_alike_are_calibrated_with_the_pool(value: int) -> None:
    targets = np.full((100, 2), value, np.uint8)
    raw = np.random.default_rng(0).random((100, 2)).astype(np.float32)
    ours = fitted(targets, raw)
    assert ours.pooled == ("a", "b") and np.all(ours.slope > 0)
    assert abs(ours.apply(raw).mean() - value) < 0.01


@pytest.mark.parametrize("single", [True, False])
def test_no_records_one_or_too_few_leave_probabilities_alone(single: bool) -> None:
    for n in (0, 1, 19):
        raw = constant_case(n)
        ours = fitted(np.eye(2, dtype=np.uint8)[np.zeros(n, int)], raw, single)
        assert ours.method == "none" and ours.n == n
        assert ours.reason == f"records to calibrate on: {n}; at least 20 are needed"
        np.testing.assert_array_equal(ours.apply(raw), raw)


def test_one_patient_group_is_too_few() -> None:
    targets = np.eye(2, dtype=np.uint8)[np.arange(50) % 2]
    ours = fit_calibration(targets, constant_case(50), ["p"] * 50, LABELS[:2], True)
    assert ours.method == "none"
    assert ours.reason == "patient groups to calibrate on: 1; at least 2 are needed"
    assert ours.positives.tolist() == [25, 25]


@pytest.mark.parametrize("single", [True, False])
def test_a_calibration_survives_json(single: bool) -> None:
    targets, raw = single_case(6, n=150)
    ours = fitted(targets, raw, single)
    again = calibration_from_values(json.loads(json.dumps(ours.values(), allow_nan=False)))
    assert again.values() == ours.values()
    assert again.slope.dtype == np.float64 and again.pooled == ours.pooled != ()
    np.testing.assert_array_equal(again.apply(raw), ours.apply(raw))


def test_no_calibration_survives_json_with_its_reason() -> None:
    values = json.loads(json.dumps(no_calibration(LABELS, "an old model file").values()))
    again = calibration_from_values(values)
    assert again.reason == "an old model file" and again.slope.shape == (4,)


@pytest.mark.parametrize("single", [True, False])
def test_class_weights_are_taken_back_even_where_every_class_is_pooled(single: bool) -> None:
    rng = np.random.default_rng(4)
    labels, weights = ("a", "b", "c", "d"), (1.0, 4.0, 8.0, 0.5)
    n = 36
    truth = rng.dirichlet(np.ones(4), n) if single else rng.random((n, 4))
    odds = truth if single else truth / (1 - truth)
    weighted = odds * np.array(weights)
    raw = weighted / weighted.sum(axis=1, keepdims=True) if single else weighted / (1 + weighted)
    targets = (
        np.eye(4)[[rng.choice(4, p=row) for row in truth]] if single else rng.random((n, 4)) < truth
    )
    groups = np.arange(n).astype(str)
    blind, told = (
        fit_calibration(targets, raw, groups, labels, single, given).apply(raw)
        for given in (None, weights)
    )
    assert np.abs(told - truth).mean() < 0.6 * np.abs(blind - truth).mean()


def test_class_weights_change_nothing_for_classes_with_records_enough() -> None:
    targets, raw = single_case(6, n=400)
    groups = np.arange(400).astype(str)
    plain, told = (
        fit_calibration(targets, raw, groups, LABELS, False, given).apply(raw)
        for given in (None, (1.0, 2.0, 3.0, 1.5))
    )
    is_enough = np.minimum(targets.sum(0), 400 - targets.sum(0)) >= 20
    assert is_enough.any()
    np.testing.assert_allclose(plain[:, is_enough], told[:, is_enough], atol=1e-4)


# Thresholds ----------------------------------------------------------------------------------


def brute_force(rule: str, target: np.ndarray, probability: np.ndarray) -> float:
    """The rule's threshold by trying all that lie between two probabilities seen."""
    values = np.unique(probability)[::-1]
    candidates = (values + np.r_[values[1:], 0]) / 2
    called = probability[None] >= candidates[:, None]
    sensitivity = called[:, target > 0].mean(axis=1)
    if rule == "youden":
        return float(candidates[np.argmax(sensitivity - called[:, target == 0].mean(axis=1))])
    return float(candidates[sensitivity >= SENSITIVITIES[rule]].max())


@pytest.mark.parametrize("digits", [8, 1])
@pytest.mark.parametrize("rule", ["youden", *SENSITIVITIES])
def test_threshold_rules_equal_brute_force_with_and_without_ties(rule: str, digits: int) -> None:
    targets, raw = multi_case(8, n=400)
    raw = np.round(raw.astype(float), digits)
    tuned = tune_thresholds(targets, raw, LABELS)[rule]
    for c in range(3):
        assert tuned[LABELS[c]] == pytest.approx(brute_force(rule, targets[:, c], raw[:, c]))


def test_best_f1_and_half_are_what_they_say() -> None:
    targets, raw = multi_case(9)
    tuned = tune_thresholds(targets, raw, LABELS)
    assert list(tuned["best_f1"].values()) == best_f1_thresholds(targets, raw).tolist()
    assert set(tuned["half"].values()) == {0.5}
    assert set(tuned) == set(THRESHOLD_RULES) - {"challenge_score"}


def test_expected_f1_is_best_where_the_probabilities_are_true() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(0.5, 3, 40_000)
    target = (rng.random(40_000) < p)[:, None].astype(np.uint8)
    chosen = tune_thresholds(target, p[:, None], ("a",))["expected_f1"]["a"]
    scores = {t: f1_scores(target, p[:, None] >= t)[0] for t in np.linspace(0.02, 0.9, 45)}
    reached = f1_scores(target, p[:, None] >= chosen)[0]
    assert reached > max(scores.values()) - 0.01
    assert chosen == pytest.approx(reached / 2, abs=0.03)


def test_expected_f1_does_not_look_at_labels() -> None:
    p = np.random.default_rng(0).random((50, 2))
    nobody, all_of_them = np.zeros((50, 2)), np.ones((50, 2))
    one, other = (tune_thresholds(t, p, ("a", "b")) for t in (nobody, all_of_them))
    assert one["expected_f1"] == other["expected_f1"]
    assert tune_thresholds(nobody, 0 * p, ("a", "b"))["expected_f1"] == {"a": 0.5, "b": 0.5}


def test_rare_and_absent_classes_keep_one_half_under_every_rule() -> None:
    targets, raw = multi_case(10)
    targets[:, 2] = 0
    targets[5:, 0] = 1
    rules = tune_thresholds(targets, raw, LABELS)
    del rules["expected_f1"]  # it needs no positives
    for rule, thresholds in rules.items():
        assert (thresholds["a"], thresholds["c"], thresholds["d"]) == (0.5, 0.5, 0.5), rule
        assert (thresholds["b"] == 0.5) == (rule == "half")


def test_a_constant_probability_gets_a_threshold_below_it() -> None:
    targets = np.eye(2, dtype=np.uint8)[np.arange(100) % 2]
    for rule, thresholds in tune_thresholds(targets, constant_case(100), LABELS[:2]).items():
        expected = 0.5 if rule == "half" else 0.15
        assert list(thresholds.values()) == pytest.approx([expected, expected])


def test_a_sensitivity_is_reached_on_the_records_it_was_tuned_on() -> None:
    targets, raw = multi_case(11)
    tuned = tune_thresholds(targets, raw, LABELS)
    for rule, sensitivity in SENSITIVITIES.items():
        decisions = decide(raw, list(tuned[rule].values()), single=False)
        for c in range(3):
            assert decisions[targets[:, c] > 0, c].mean() >= sensitivity


def challenge_case(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    odds = rng.normal(rng.uniform(-5, -1, 26), 2.0, (n, 26))
    return (rng.random(odds.shape) < expit(odds)).astype(np.uint8), expit(odds)


def test_challenge_thresholds_beat_the_best_f1_ones_on_2000_records() -> None:
    targets, raw = challenge_case(0, n=2000)
    tuned = tune_thresholds(targets, raw, CHALLENGE_2021)
    assert tuple(tuned) == THRESHOLD_RULES
    scores = {
        rule: challenge_score(targets, decide(raw, list(t.values()), False), CHALLENGE_2021)
        for rule, t in tuned.items()
    }
    assert scores["challenge_score"] > scores["best_f1"] + 0.005
    assert scores["challenge_score"] == max(scores.values())


def test_no_single_threshold_betters_the_challenge_thresholds() -> None:
    targets, raw = challenge_case(1, n=150)
    tuned = np.array(
        list(tune_thresholds(targets, raw, CHALLENGE_2021)["challenge_score"].values())
    )
    is_tuned = targets.sum(axis=0) >= 20
    assert 3 < is_tuned.sum() < 26 and np.all(tuned[~is_tuned] == 0.5)
    best = challenge_score(targets, decide(raw, tuned, False), CHALLENGE_2021)
    for c in np.flatnonzero(is_tuned):
        for value in np.quantile(raw[:, c], np.linspace(0, 1, 30)):
            moved = np.r_[tuned[:c], value, tuned[c + 1 :]]
            score = challenge_score(targets, decide(raw, moved, False), CHALLENGE_2021)
            assert score <= best + 1e-9


# Conformal sets ------------------------------------------------------------------------------


def coverage_of(seed: int, single: bool, n: int, n_new: int = 200) -> dict[str, np.ndarray]:
    """Share of new true labels in the sets, for each class (one figure where single)."""
    make = single_case if single else multi_case
    targets, raw = make(seed, n=n + n_new)
    limits = conformal_limits(targets[:n], raw[:n], LABELS, single)
    there = targets[n:] > 0
    covered = {}
    for stated, limit in limits.items():
        sets = conformal_sets(raw[n:], list(limit.values()))
        hits = (sets > 0) & there
        covered[stated] = (
            np.array([hits.sum() / there.sum()])
            if single
            else hits.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        )
    return covered


@pytest.mark.parametrize("single", [True, False])
def test_stated_coverage_holds_on_new_records(single: bool) -> None:
    draws = [coverage_of(seed, single, n=150) for seed in range(300)]
    for stated in STATED_COVERAGES:
        seen = np.array([draw[str(stated)] for draw in draws])[:, : 1 if single else 3]
        standard_error = seen.std(axis=0) / np.sqrt(len(seen))
        assert np.all(seen.mean(axis=0) >= stated - 3 * standard_error)
        # Not by being useless: (n + 1) rounding costs at most one over the positives.
        is_sharp = stated < 0.99 and (single or stated == 0.8)
        assert not is_sharp or np.all(seen.mean(axis=0) <= stated + 0.05)


def test_the_limit_is_the_k_th_largest_probability_of_those_that_have_the_label() -> None:
    raw = np.linspace(0.05, 0.95, 19)[:, None]
    limits = conformal_limits(np.ones((19, 1)), raw, ["a"], False)
    # 20 ranks: 0.8 is the 16th largest of 19, 0.9 the 18th, 0.95 the 19th, and 0.99 has none.
    assert limits == {
        "0.8": {"a": pytest.approx(0.20)},
        "0.9": {"a": pytest.approx(0.10)},
        "0.95": {"a": pytest.approx(0.05)},
        "0.99": {"a": 0.0},
    }


@pytest.mark.parametrize("single", [True, False])
def test_a_label_without_positives_can_never_be_excluded(single: bool) -> None:
    raw = np.zeros((1, 2), np.float32)
    limits = conformal_limits(np.zeros((1, 2)), raw, LABELS[:2], single)
    assert conformal_sets(raw, list(limits["0.8"].values())).tolist() == [[1, 1]]


def test_one_limit_serves_all_classes_of_a_single_label_task() -> None:
    targets, raw = single_case(7, n=500)
    limits = conformal_limits(targets, raw, LABELS, True)
    for stated, limit in limits.items():
        assert len(set(limit.values())) == 1
        covered = (conformal_sets(raw, list(limit.values())) * targets).sum(axis=1).mean()
        assert covered >= float(stated)


def test_a_larger_coverage_gives_no_smaller_set() -> None:
    targets, raw = multi_case(12)
    limits = conformal_limits(targets, raw, LABELS, False)
    sizes = [conformal_sets(raw, list(limit.values())).sum(axis=0) for limit in limits.values()]
    assert np.all(np.diff(sizes, axis=0) >= 0)


# Reliability ---------------------------------------------------------------------------------


def test_bins_hold_every_record_once_whatever_the_order() -> None:
    targets, raw = multi_case(13)
    raw = np.round(raw, 2)
    bins = reliability_bins(targets[:, 2], raw[:, 2])
    assert bins.n_records.sum() == len(raw) and len(bins.n_records) <= 10
    assert bins.observed_share @ bins.n_records == pytest.approx(targets[:, 2].sum())
    assert bins.mean_probability @ bins.n_records == pytest.approx(raw[:, 2].sum(), rel=1e-5)
    assert np.all(np.diff(bins.mean_probability) > 0)
    back = reliability_bins(targets[::-1, 2], raw[::-1, 2])
    np.testing.assert_allclose(np.array(back), np.array(bins))


def test_bins_of_a_rare_class_spread_over_its_large_probabilities() -> None:
    rng = np.random.default_rng(14)
    probability = expit(rng.normal(-6, 2, 5000))
    target = rng.random(5000) < probability
    assert target.mean() < 0.03
    bins = reliability_bins(target, probability)
    assert (bins.mean_probability > 0.1).sum() >= 4
    inside = (bins.low <= bins.mean_probability) & (bins.mean_probability <= bins.high)
    assert inside.sum() >= len(inside) - 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_one_probability_for_all_is_one_bin(value: float) -> None:
    bins = reliability_bins(np.arange(40) % 4 == 0, np.full(40, value))
    assert bins.n_records.tolist() == [40] and bins.observed_share.tolist() == [0.25]
    assert bins.mean_probability[0] == pytest.approx(value)


def test_no_records_give_no_bins() -> None:
    assert all(len(column) == 0 for column in reliability_bins(np.empty(0), np.empty(0)))


def test_wilson_interval_equals_the_published_example() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    low, high = wilson_interval(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)
