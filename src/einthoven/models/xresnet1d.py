"""Deep residual networks with bottlenecks over time.

He et al., "Bag of tricks for image classification with convolutional neural networks" (CVPR 2019,
arXiv:1812.01187): three small convolutions as stem, strides on the inner convolution, an average
pool on the shortcut, and branches that start at zero. Kernels of 5 samples and the same width in
every stage are those with which Strodthoff et al., "Deep learning for ECG analysis" (IEEE JBHI
2021, arXiv:2004.13701), found `xresnet1d101` among the best on PTB-XL.

`xresnet1d50`: 889,989 parameters, 53.2 MFLOPs (12 leads, 250 samples, 5 classes).
`xresnet1d101`: 1,808,261 parameters, 82.1 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from einthoven.models.resnet1d import pooled_head

# Shape suffixes: B batch, L lead, S sample, F feature, C class.

EXPANSION = 4


def normed_conv1d(
    n_in: int, n_out: int, kernel_size: int = 1, stride: int = 1, starts_at_zero: bool = False
) -> nn.Sequential:
    """A convolution that keeps the length, or divides it by ``stride``, and batch norm."""
    convolution = nn.Conv1d(n_in, n_out, kernel_size, stride, kernel_size // 2, bias=False)
    norm = nn.BatchNorm1d(n_out)
    nn.init.kaiming_normal_(convolution.weight)
    if starts_at_zero:
        nn.init.zeros_(norm.weight)
    return nn.Sequential(convolution, norm)


class PeakPool1d(nn.Module):
    """Maximum over three samples, by way of two dimensions.

    `torch.export` keeps the length of `nn.MaxPool1d` fixed.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d((1, 3), (1, stride), (0, 1))

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        peaks_BFS: torch.Tensor = self.pool(x_BFS[:, :, None]).squeeze(2)
        return peaks_BFS


def pooled_shortcut(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    """What stands beside a block's branch: the input, averaged rather than sampled."""
    shortcut = nn.Sequential()
    if stride > 1:
        # Three samples rather than the paper's two: the length of an odd input is then the
        # branch's, without a rounding mode that torch.export cannot follow.
        shortcut.append(nn.AvgPool1d(3, stride, 1, count_include_pad=False))
    if n_in != n_out:
        shortcut.append(normed_conv1d(n_in, n_out))
    return shortcut


class Bottleneck1d(nn.Module):
    """Narrow, convolve, widen, around a shortcut; it starts as the shortcut alone.

    Args:
        n_in: features before; after, there are ``EXPANSION * width``.
        width: features of the inner convolution.
        kernel_size: its odd length in samples.
        stride: of the inner convolution.
    """

    def __init__(self, n_in: int, width: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        n_out = EXPANSION * width
        self.branch = nn.Sequential(
            normed_conv1d(n_in, width),
            nn.ReLU(),
            normed_conv1d(width, width, kernel_size, stride),
            nn.ReLU(),
            normed_conv1d(width, n_out, starts_at_zero=True),
        )
        self.shortcut = pooled_shortcut(n_in, n_out, stride)

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = self.branch(x_BFS) + self.shortcut(x_BFS)
        return h_BFS.relu()


class XResNet1d(nn.Module):
    """A stem that divides the length by four, stages of bottlenecks, and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        n_blocks: of each stage; every stage but the first halves the length.
        width: inner features of every bottleneck.
        kernel_size: of the stem and of the bottlenecks, in samples.
        dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        kernel_size: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            normed_conv1d(n_leads, 32, kernel_size, 2),
            nn.ReLU(),
            normed_conv1d(32, 32, kernel_size),
            nn.ReLU(),
            normed_conv1d(32, 64, kernel_size),
            nn.ReLU(),
            PeakPool1d(stride=2),
        )
        self.blocks = nn.Sequential()
        n_features = 64
        for stage, n in enumerate(n_blocks):
            for block in range(n):
                stride = 2 if stage and not block else 1
                self.blocks.append(Bottleneck1d(n_features, width, kernel_size, stride))
                n_features = EXPANSION * width
        self.head = pooled_head(n_features, n_classes, dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFS = self.blocks(self.stem(x_BLS))
        logits_BC: torch.Tensor = self.head(h_BFS)
        return logits_BC


def xresnet1d50(n_leads: int, n_classes: int, **arguments: Any) -> XResNet1d:
    """`XResNet1d` of 16 bottlenecks."""
    return XResNet1d(n_leads, n_classes, n_blocks=(3, 4, 6, 3), **arguments)


def xresnet1d101(n_leads: int, n_classes: int, **arguments: Any) -> XResNet1d:
    """`XResNet1d` of 33 bottlenecks."""
    return XResNet1d(n_leads, n_classes, n_blocks=(3, 4, 23, 3), **arguments)
