"""Convolutions of several lengths side by side.

Fawaz et al., "InceptionTime: finding AlexNet for time series classification" (Data Mining and
Knowledge Discovery 2020, arXiv:1909.04939): kernels of about 40, 20 and 10 samples over a
bottleneck, so that at 100 Hz one layer sees a wave, a QRS complex and a whole QT interval. One
network rather than the paper's ensemble of five, with the concatenated pooling of Strodthoff et
al., "Deep learning for ECG analysis" (IEEE JBHI 2021, arXiv:2004.13701).

`inception1d`: 475,141 parameters, 235.7 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import torch
from torch import nn

from einthoven.models.resnet1d import pooled_head
from einthoven.models.xresnet1d import PeakPool1d

# Shape suffixes: B batch, L lead, S sample, F feature, C class.

RESIDUAL_EVERY = 3


class InceptionModule1d(nn.Module):
    """Parallel convolutions of one bottleneck, and of a maximum over three samples.

    Args:
        n_in: features before; after, there are ``width`` for each kernel and for the maximum.
        width: features of the bottleneck and of each path.
        kernel_sizes: odd lengths in samples.
    """

    def __init__(self, n_in: int, width: int, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(n_in, width, 1, bias=False)
        self.paths = nn.ModuleList(
            nn.Conv1d(width, width, k, padding=k // 2, bias=False) for k in kernel_sizes
        )
        self.peaks = nn.Sequential(PeakPool1d(), nn.Conv1d(n_in, width, 1, bias=False))
        self.norm = nn.BatchNorm1d((len(kernel_sizes) + 1) * width)

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        narrow_BFS = self.bottleneck(x_BFS)
        parts = [path(narrow_BFS) for path in self.paths] + [self.peaks(x_BFS)]
        h_BFS: torch.Tensor = self.norm(torch.cat(parts, dim=1))
        return h_BFS.relu()


class InceptionGroup1d(nn.Module):
    """Some modules in a row, around a shortcut."""

    def __init__(self, n_in: int, width: int, kernel_sizes: tuple[int, ...], depth: int) -> None:
        super().__init__()
        n_out = (len(kernel_sizes) + 1) * width
        self.layers = nn.Sequential(
            *(InceptionModule1d(n_out if i else n_in, width, kernel_sizes) for i in range(depth))
        )
        self.shortcut = nn.Sequential(nn.Conv1d(n_in, n_out, 1, bias=False), nn.BatchNorm1d(n_out))

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = self.layers(x_BFS) + self.shortcut(x_BFS)
        return h_BFS.relu()


class Inception1d(nn.Module):
    """Groups of inception modules with shortcuts around every third, and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        width: features of each path; a module has four times as many.
        depth: modules, a multiple of three.
        kernel_sizes: odd lengths in samples.
        dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        width: int = 32,
        depth: int = 6,
        kernel_sizes: tuple[int, ...] = (39, 19, 9),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        n_features = (len(kernel_sizes) + 1) * width
        self.groups = nn.Sequential(
            *(
                InceptionGroup1d(n_features if i else n_leads, width, kernel_sizes, RESIDUAL_EVERY)
                for i in range(depth // RESIDUAL_EVERY)
            )
        )
        self.head = pooled_head(n_features, n_classes, dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.head(self.groups(x_BLS))
        return logits_BC
