"""A moving average of a model's weights, which is evaluated in place of the last ones.

Averaging over the end of training finds flatter minima and calmer validation scores; see
Izmailov et al. 2018 (arXiv:1803.05407) and Tarvainen and Valpola 2017 (arXiv:1703.01780).
"""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(model: nn.Module) -> nn.Module:
    """A copy whose weights `update_average` moves; gradients never reach it."""
    average = copy.deepcopy(model)
    average.requires_grad_(False)
    return average.eval()


def average_decay(decay: float, step: int) -> float:
    """The decay at a step: young averages forget the random start faster.

    >>> [round(average_decay(0.99, step), 3) for step in (0, 90, 10_000)]
    [0.1, 0.91, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average towards the model: weights and batch statistics; counts are copied."""
    pairs = list(zip(_tensors(average), _tensors(model), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
