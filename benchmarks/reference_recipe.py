"""The recipe of the PTB-XL benchmark's `resnet1d_wang`, in plain PyTorch, to compare ours with.

Strodthoff et al., "Deep learning for ECG analysis: benchmarks and insights from PTB-XL" (IEEE JBHI
2021, arXiv:2004.13701) and the code published with it: 2.5 s crops at 100 Hz drawn at random, one
mean and standard deviation for all leads, batches of 128, binary cross-entropy, AdamW with weight
decay 0.01 and a one-cycle schedule up to 0.01 that cycles the momentum too, 50 epochs; a head with
a hidden layer of 128; half-overlapping crops at test, of which the original takes the maximum.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from einthoven.inference import overlapping_starts
from einthoven.models.resnet1d import ConcatPool1d, ResNet1d

EPOCHS = 50
BATCH_SIZE = 128
LR = 0.01
WEIGHT_DECAY = 0.01
RISING_SHARE = 0.3
RECORDS_PER_PASS = 64


def reference_net(n_classes: int) -> nn.Module:
    """The benchmark's network, with He's initial weights."""
    net = ResNet1d(12, n_classes)
    net.head = nn.Sequential(
        ConcatPool1d(), nn.BatchNorm1d(256), nn.Dropout(0.25), nn.Linear(256, 128), nn.ReLU(),
        nn.BatchNorm1d(128), nn.Dropout(0.5), nn.Linear(128, n_classes),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def one_cycle(done: float) -> tuple[float, float]:
    """Share of the largest learning rate, and momentum, when a share of all steps is done."""
    if done < RISING_SHARE:
        return _cosine(1 / 25, 1, done / RISING_SHARE), _cosine(0.95, 0.85, done / RISING_SHARE)
    fallen = (done - RISING_SHARE) / (1 - RISING_SHARE)
    return _cosine(1, 1 / 25e4, fallen), _cosine(0.85, 0.95, fallen)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def train_reference(
    windows: torch.Tensor, targets: torch.Tensor, crop: int, seed: int, reduced: bool
) -> tuple[nn.Module, torch.Tensor]:
    """Train on ``(n, 12, S)`` int16 microvolts.

    Args:
        reduced: compute in bfloat16.

    Returns:
        The network of the last epoch, and mean and standard deviation in millivolts.
    """
    torch.manual_seed(seed)
    net = reference_net(targets.shape[1])
    millivolts = windows.float() / 1000
    scale = torch.stack([millivolts.mean(), millivolts.std()])
    del millivolts
    optimizer = torch.optim.AdamW(
        net.parameters(), LR, betas=(0.95, 0.99), weight_decay=WEIGHT_DECAY, fused=True
    )
    n_batches = len(windows) // BATCH_SIZE
    for epoch in range(EPOCHS):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(windows))[: n_batches * BATCH_SIZE]
        for number, rows in enumerate(np.array_split(order, n_batches)):
            share, momentum = one_cycle((epoch * n_batches + number + 0.5) / (EPOCHS * n_batches))
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = LR * share, (momentum, 0.99)
            starts = torch.from_numpy(rng.integers(0, windows.shape[-1] - crop + 1, len(rows)))
            x = windows.unfold(2, crop, 1)[torch.from_numpy(rows), :, starts]
            x = (x.float() / 1000 - scale[0]) / scale[1]
            with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                logits = net(x)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return net, scale


@torch.inference_mode()
def predict_reference(
    net: nn.Module, scale: torch.Tensor, windows: torch.Tensor, crop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``(n, C)``: the mean over half-overlapping crops, and the maximum."""
    net.eval()
    n_samples = windows.shape[-1]
    starts = overlapping_starts(np.array([n_samples]), n_samples, crop)[0]
    rows = []
    for part in windows.split(RECORDS_PER_PASS):
        x = (part.float() / 1000 - scale[0]) / scale[1]
        crops = [net(x[:, :, start : start + crop]).sigmoid() for start in starts]
        rows.append(torch.stack(crops))
    probabilities = torch.cat(rows, dim=1).numpy()
    return probabilities.mean(0), probabilities.max(0)
