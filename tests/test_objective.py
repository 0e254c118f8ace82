import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from einthoven.objective import (
    balanced_weights,
    learning_rate_factor,
    make_optimizer,
    probability_loss,
    summed_loss,
)


def test_single_label_weights_are_inverse_frequencies_with_mean_one():
    targets = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
    weights = balanced_weights(targets, single=True)
    # 10 records, 3 classes: 10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1).
    assert np.allclose(weights, [10 / 18, 10 / 9, 10 / 3])
    assert (targets @ weights).mean() == pytest.approx(1)


def test_weights_of_absent_classes_are_one_and_others_are_exact():
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 0]])
    assert balanced_weights(targets, single=False).tolist() == [1, 1]
    assert balanced_weights(np.array([[1, 0]] * 2), single=True).tolist() == [1, 1]


@pytest.mark.parametrize("single", [True, False])
def test_losses_of_parts_add_up_to_the_loss_of_the_whole(single):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 4, generator=generator)
    targets = torch.eye(4)[torch.randint(0, 4, (10,), generator=generator)]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    whole = summed_loss(logits, targets, single, weights)
    parts = [summed_loss(logits[i:j], targets[i:j], single, weights) for i, j in [(0, 3), (3, 10)]]
    torch.testing.assert_close(sum(parts), whole)


def test_loss_of_probabilities_equals_that_of_their_logits():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    for single, probabilities in ((True, logits.softmax(-1)), (False, logits.sigmoid())):
        expected = summed_loss(logits, targets, single, None) / 8
        found = probability_loss(targets.numpy(), probabilities.numpy(), single)
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_probabilities_of_zero_give_a_finite_loss():
    assert math.isfinite(probability_loss(np.eye(2), 1 - np.eye(2), single=True))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_cross_entropy_is_torchs(weights):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    answers = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = functional.cross_entropy(logits, answers, weight=weights, reduction="sum")
    found = summed_loss(logits, torch.eye(3)[answers], True, weights)
    torch.testing.assert_close(found, expected)


def test_smoothed_targets_are_torchs():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    answers = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = functional.cross_entropy(logits, answers, reduction="sum", label_smoothing=0.1)
    found = summed_loss(logits, torch.eye(3)[answers], True, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


# One record, probability 0.8 for a present label and 0.25 for an absent one.
SURE, UNSURE = math.log(0.8 / 0.2), math.log(0.25 / 0.75)


def test_focal_loss_by_hand():
    # (1 - 0.8)^2 * -log 0.8 and 0.25^2 * -log 0.75, mean over the two labels.
    expected = (0.2**2 * -math.log(0.8) + 0.25**2 * -math.log(0.75)) / 2
    logits, targets = torch.tensor([[SURE, UNSURE]]), torch.tensor([[1.0, 0.0]])
    assert float(summed_loss(logits, targets, False, loss="focal")) == pytest.approx(expected)


def test_asymmetric_loss_by_hand():
    # Present: (1 - 0.8)^1 * -log 0.8. Absent: p is forgiven 0.05, so 0.2^4 * -log 0.8.
    expected = (0.2 * -math.log(0.8) + 0.2**4 * -math.log(0.8)) / 2
    logits, targets = torch.tensor([[SURE, UNSURE]]), torch.tensor([[1.0, 0.0]])
    assert float(summed_loss(logits, targets, False, loss="asymmetric")) == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "single"), [("focal", True), ("focal", False),
                                              ("asymmetric", False)])  # fmt: skip
def test_losses_are_finite_with_gradients_at_any_logit(loss, single):
    logits = torch.tensor([[-200.0, 0.0, 200.0]] * 3, requires_grad=True)
    value = summed_loss(logits, torch.eye(3), single, loss=loss)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


def test_mixed_records_have_the_loss_of_their_shares():
    logits = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    one, other = torch.eye(3)[:1], torch.eye(3)[1:2]
    mixed = summed_loss(logits, 0.3 * one + 0.7 * other, True)
    parts = 0.3 * summed_loss(logits, one, True) + 0.7 * summed_loss(logits, other, True)
    torch.testing.assert_close(mixed, parts)


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    decayed, others = make_optimizer(model, 0.1, 0.5).param_groups
    assert [p.ndim for p in decayed["params"]] == [3, 2]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert len(others["params"]) == 4


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedule_rises_to_one_and_falls_to_nothing(schedule):
    factors = [learning_rate_factor(schedule, step, 1000) for step in range(1000)]
    top = int(np.argmax(factors))
    assert factors[0] < 0.1
    assert max(factors) == pytest.approx(1, abs=0.01)
    assert (np.diff(factors[:top]) >= 0).all() and (np.diff(factors[top:]) <= 0).all()
    assert factors[-1] < 1e-4


def test_schedules_of_a_single_step_train():
    for schedule in ("cosine", "one_cycle", "step", "constant"):
        assert 0 < learning_rate_factor(schedule, 0, 1) <= 1


@pytest.mark.parametrize("single", [True, False])
def test_members_of_an_ensemble_learn_by_themselves(single):
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(3)[[0, 1, 2, 0]]
    alone = [summed_loss(logits[:, member], targets, single) for member in range(2)]
    torch.testing.assert_close(summed_loss(logits, targets, single), sum(alone) / 2)
