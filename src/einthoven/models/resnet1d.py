"""Residual networks over time.

`ResNet1d` is the strong baseline of Wang, Yan and Oates, "Time series classification from scratch
with deep neural networks" (IJCNN 2017, arXiv:1611.06455), with the widths and the concatenated
pooling with which Strodthoff et al., "Deep learning for ECG analysis" (IEEE JBHI 2021,
arXiv:2004.13701), benchmarked it on PTB-XL.

`resnet1d_wang`: 440,837 parameters, 126.4 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import torch
from torch import nn

# Shape suffixes: B batch, L lead, S sample, F feature, C class.


class ResidualBlock1d(nn.Module):
    """Two convolutions around a shortcut; ``stride`` shortens the time axis.

    Args:
        n_in, n_out: features before and after.
        kernel_sizes: odd lengths of the two convolutions, in samples.
        stride: of the first convolution.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_sizes: tuple[int, int] = (5, 3), stride: int = 1
    ) -> None:
        super().__init__()
        first, second = kernel_sizes
        self.convolutions = nn.Sequential(
            nn.Conv1d(n_in, n_out, first, stride, first // 2, bias=False),
            nn.BatchNorm1d(n_out),
            nn.ReLU(),
            nn.Conv1d(n_out, n_out, second, 1, second // 2, bias=False),
            nn.BatchNorm1d(n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv1d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm1d(n_out)
            )

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = self.convolutions(x_BFS) + self.shortcut(x_BFS)
        return h_BFS.relu()


class ConcatPool1d(nn.Module):
    """Mean and maximum over time, side by side: ``(B, F, S)`` to ``(B, 2F)``."""

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        return torch.cat([x_BFS.amax(dim=-1), x_BFS.mean(dim=-1)], dim=1)


def pooled_head(n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Features over time to logits: ``(B, F, S)`` to ``(B, C)``."""
    return nn.Sequential(
        ConcatPool1d(),
        nn.BatchNorm1d(2 * n_features),
        nn.Dropout(dropout),
        nn.Linear(2 * n_features, n_classes),
    )


class ResNet1d(nn.Module):
    """A stem, three residual blocks and a linear head on pooled features.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        width: features of every block.
        dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self, n_leads: int, n_classes: int, width: int = 128, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(n_leads, width, 7, 1, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            ResidualBlock1d(width, width),
            ResidualBlock1d(width, width, stride=2),
            ResidualBlock1d(width, width, stride=2),
        )
        self.head = pooled_head(width, n_classes, dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFS = self.blocks(self.stem(x_BLS))
        logits_BC: torch.Tensor = self.head(h_BFS)
        return logits_BC
