"""Depthwise convolutions over time and pointwise ones over features, in a transformer's order.

Liu et al., "A ConvNet for the 2020s" (CVPR 2022, arXiv:2201.03545): 7-sample depthwise kernels,
layer norm, an inverted bottleneck with GELU and a learned scale on each branch. Smaller than the
paper's, with overlapping kernels where that cuts patches, so that no length leaves samples over,
and with mean and maximum over time pooled.

`convnext1d`: 861,461 parameters, 72.3 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import torch
from torch import nn

from einthoven.models.resnet1d import pooled_head

# Shape suffixes: B batch, L lead, S sample, F feature, C class.


class FeatureNorm1d(nn.LayerNorm):
    """Layer norm over the features of ``(B, F, S)``."""

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BFS.transpose(1, 2)).transpose(1, 2)


class ConvNextBlock1d(nn.Module):
    """A depthwise convolution and two pointwise ones around a shortcut.

    Args:
        n_features: before and after.
        kernel_size: odd length of the depthwise convolution, in samples.
        scale: with which the branch starts; the paper's 1e-6 is for far longer training.
    """

    def __init__(self, n_features: int, kernel_size: int, scale: float = 0.1) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            n_features, n_features, kernel_size, padding=kernel_size // 2, groups=n_features
        )
        self.pointwise = nn.Sequential(
            nn.LayerNorm(n_features),
            nn.Linear(n_features, 4 * n_features),
            nn.GELU(),
            nn.Linear(4 * n_features, n_features),
        )
        self.scale = nn.Parameter(torch.full((n_features,), scale))

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BSF: torch.Tensor = self.pointwise(self.depthwise(x_BFS).transpose(1, 2))
        return x_BFS + (self.scale * h_BSF).transpose(1, 2)


class ConvNext1d(nn.Module):
    """A strided stem, stages of blocks with strided convolutions between, and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        widths: features of each stage; the stem and every stage but the first halve the length.
        n_blocks: of each stage.
        kernel_size: odd length of the depthwise convolutions, in samples.
        dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        widths: tuple[int, ...] = (48, 96, 192),
        n_blocks: tuple[int, ...] = (2, 2, 2),
        kernel_size: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(n_leads, widths[0], 7, 2, 3), FeatureNorm1d(widths[0]))
        self.stages = nn.Sequential()
        n_in = widths[0]
        for n_out, n in zip(widths, n_blocks, strict=True):
            if n_out != n_in:
                self.stages.append(FeatureNorm1d(n_in))
                self.stages.append(nn.Conv1d(n_in, n_out, 3, 2, 1))
            self.stages.extend(ConvNextBlock1d(n_out, kernel_size) for _ in range(n))
            n_in = n_out
        self.head = pooled_head(n_in, n_classes, dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFS = self.stages(self.stem(x_BLS))
        logits_BC: torch.Tensor = self.head(h_BFS)
        return logits_BC
