"""What training minimises, and how: losses with class weights, AdamW, learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Losses -----------------------------------------------------------------------------------------


def balanced_weights(targets: np.ndarray, single: bool) -> np.ndarray:
    """One weight per class, exact, from the labels of the whole training split.

    Args:
        targets: ``(n, C)`` of 0 and 1.
        single: whether every record has exactly one label.

    Returns:
        ``(C,)`` float32. Single: inverse frequency, with mean 1 over records. Otherwise: the square
        root of negatives per positive, which weighs positives; the ratio itself makes a class of
        one in a thousand louder than all others together. A class without a record weighs 1.
    """
    positives = targets.sum(0, dtype=np.float64)
    seen = np.maximum(positives, 1)
    if single:
        weights = len(targets) / (seen * max(int((positives > 0).sum()), 1))
    else:
        weights = np.sqrt((len(targets) - positives) / seen)
    return np.where(positives > 0, weights, 1).astype(np.float32)


LossName = Literal["entropy", "focal", "asymmetric"]

FOCUS = 2.0
FOCUS_ON_NEGATIVES = 4.0
FOCUS_ON_POSITIVES = 1.0
FORGIVEN_PROBABILITY = 0.05


def summed_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    single: bool,
    weights: torch.Tensor | None = None,
    loss: LossName = "entropy",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy or, per label, binary cross-entropy, summed over records.

    Sums rather than means, so that accumulated batches of any sizes add up to the large batch.

    Args:
        logits: ``(B, C)``, or ``(B, M, C)`` of an ensemble's members, each of which learns by
            itself; the loss is then the mean over members.
        targets: ``(B, C)`` from 0 to 1; mixed records have shares.
        weights: ``(C,)`` of `balanced_weights`, or None.
        loss: ``focal`` turns down what is answered well already (Lin et al. 2017,
            arXiv:1708.02002); ``asymmetric`` does so for absent labels above all, and forgives
            those below 5 % (Ridnik et al. 2021, arXiv:2009.14119), for several labels only.
        label_smoothing: share of each target that is spread evenly over the answers.
    """
    if logits.ndim == 3:
        n_members = logits.shape[1]
        each = targets.repeat_interleave(n_members, dim=0)
        rows = logits.flatten(0, 1)
        return summed_loss(rows, each, single, weights, loss, label_smoothing) / n_members
    answers = targets.shape[-1] if single else 2
    smooth = targets * (1 - label_smoothing) + label_smoothing / answers
    if single:
        log_p = logits.log_softmax(-1)
        missed = (1 - log_p.exp()) ** FOCUS if loss == "focal" else 1.0
        per_class = -smooth * log_p * missed
        return (per_class if weights is None else per_class * weights).sum()
    if loss == "asymmetric":
        return _asymmetric_loss(logits, smooth, weights)
    per_label = functional.binary_cross_entropy_with_logits(
        logits, smooth, pos_weight=weights, reduction="none"
    )
    if loss == "focal":
        per_label = per_label * (smooth - logits.sigmoid()).abs() ** FOCUS
    return per_label.mean(-1).sum()


def _asymmetric_loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    p = logits.sigmoid()
    absent = (1 - p + FORGIVEN_PROBABILITY).clamp(max=1)
    positive = -targets * functional.logsigmoid(logits) * (1 - p) ** FOCUS_ON_POSITIVES
    negative = -(1 - targets) * absent.log() * (1 - absent) ** FOCUS_ON_NEGATIVES
    per_label = (positive if weights is None else positive * weights) + negative
    return per_label.mean(-1).sum()


def probability_loss(targets: np.ndarray, probabilities: np.ndarray, single: bool) -> float:
    """Unweighted loss per record of probabilities that are averages already."""
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    if single:
        return float(-(targets * np.log(clipped)).sum(1).mean())
    entropy = targets * np.log(clipped) + (1 - targets) * np.log1p(-clipped)
    return float(-entropy.mean())


# Optimizer --------------------------------------------------------------------------------------


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays weight matrices and kernels, not norms and biases.

    The fused kernel, because it can leave a step out without the host looking at a number: see
    `einthoven.step`.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=lr,
        fused=True,
    )


ScheduleName = Literal["cosine", "one_cycle", "step", "constant"]

WARM_UP_SHARE = 0.05
RISING_SHARE = 0.3


def learning_rate_factor(schedule: ScheduleName, step: int, n_steps: int) -> float:
    """The share of the largest learning rate at a step: a function of the step alone.

    ``cosine`` warms up over the first twentieth and falls to zero; ``one_cycle`` (Smith 2018,
    arXiv:1803.09820) rises from 1/25 over three tenths and falls to zero; ``step`` divides by ten
    at three fifths and at four fifths.

    >>> [learning_rate_factor("step", step, 10) for step in (0, 6, 8)]
    [1.0, 0.1, 0.01]
    """
    done = step / max(n_steps, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 1.0 if done < 0.6 else 0.1 if done < 0.8 else 0.01
    rising = WARM_UP_SHARE if schedule == "cosine" else RISING_SHARE
    floor = 0.0 if schedule == "cosine" else 1 / 25
    if done < rising:
        share = (step + 1) / (rising * n_steps + 1)
        curve = share if schedule == "cosine" else (1 - math.cos(math.pi * share)) / 2
        return floor + (1 - floor) * min(curve, 1.0)
    return (1 + math.cos(math.pi * (done - rising) / (1 - rising))) / 2
