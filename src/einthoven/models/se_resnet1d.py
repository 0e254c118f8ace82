"""A residual network that weighs its features by the whole recording, and its moments by attention.

Hu, Shen and Sun, "Squeeze-and-excitation networks" (CVPR 2018, arXiv:1709.01507), with the larger
kernels with which Zhao et al., "Adaptive lead weighted ResNet trained with different duration
signals for classifying 12-lead ECGs" (CinC 2020, doi:10.22489/CinC.2020.112), came second in the
Challenge 2020. Pooling over time is the gated attention of Ilse, Tomczak and Welling,
"Attention-based deep multiple instance learning" (ICML 2018, arXiv:1802.04712), so that one
ectopic beat among ten normal ones is not averaged away.

`se_resnet1d`: 1,846,909 parameters, 122.4 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import torch
from torch import nn

# Shape suffixes: B batch, L lead, S sample, F feature, C class.


class SqueezeExcitation1d(nn.Module):
    """Scale every feature by a number between 0 and 1 that depends on the means of all."""

    def __init__(self, n_features: int, reduction: int = 8) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(n_features, n_features // reduction),
            nn.ReLU(),
            nn.Linear(n_features // reduction, n_features),
            nn.Sigmoid(),
        )

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        scale_BF: torch.Tensor = self.gate(x_BFS.mean(dim=-1))
        return x_BFS * scale_BF[:, :, None]


class SeResidualBlock1d(nn.Module):
    """Two convolutions and a squeeze-and-excitation around a shortcut.

    Args:
        n_in, n_out: features before and after.
        kernel_size: odd length of both convolutions, in samples.
        stride: of the first convolution.
        dropout: share of features dropped between the convolutions, in training.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_size: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        half = kernel_size // 2
        self.branch = nn.Sequential(
            nn.Conv1d(n_in, n_out, kernel_size, stride, half, bias=False),
            nn.BatchNorm1d(n_out),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(n_out, n_out, kernel_size, 1, half, bias=False),
            nn.BatchNorm1d(n_out),
            SqueezeExcitation1d(n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv1d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm1d(n_out)
            )

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = self.branch(x_BFS) + self.shortcut(x_BFS)
        return h_BFS.relu()


class AttentionPool1d(nn.Module):
    """Mean over time, weighted by what is seen: ``(B, F, S)`` to ``(B, F)``."""

    def __init__(self, n_features: int, n_hidden: int = 64) -> None:
        super().__init__()
        self.content = nn.Linear(n_features, n_hidden)
        self.gate = nn.Linear(n_features, n_hidden)
        # Without bias: one number added to every score changes no weight.
        self.score = nn.Linear(n_hidden, 1, bias=False)

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        x_BSF = x_BFS.transpose(1, 2).contiguous()
        score_BS1: torch.Tensor = self.score(
            self.content(x_BSF).tanh() * self.gate(x_BSF).sigmoid()
        )
        return (x_BSF * score_BS1.softmax(dim=1)).sum(dim=1)


class SeResNet1d(nn.Module):
    """A stem, stages of two blocks each, attention over time and a linear head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        widths: features of each stage; every stage but the first halves the length.
        kernel_size: odd length of the convolutions, in samples.
        dropout: share of features dropped within blocks and before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        widths: tuple[int, ...] = (64, 96, 128, 192),
        kernel_size: int = 7,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(n_leads, widths[0], 15, 2, 7, bias=False),
            nn.BatchNorm1d(widths[0]),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential()
        n_in = widths[0]
        for stage, n_out in enumerate(widths):
            for stride in (2 if stage else 1, 1):
                self.blocks.append(SeResidualBlock1d(n_in, n_out, kernel_size, stride, dropout))
                n_in = n_out
        self.head = nn.Sequential(
            AttentionPool1d(n_in), nn.Dropout(dropout), nn.Linear(n_in, n_classes)
        )

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFS = self.blocks(self.stem(x_BLS))
        logits_BC: torch.Tensor = self.head(h_BFS)
        return logits_BC
