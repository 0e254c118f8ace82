"""Four small residual networks, each with a view of its own, that learn side by side.

Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
ensembles" (NeurIPS 2017, arXiv:1612.01474): members that err on different records err less
together. What makes these differ is what they see. One sees slopes; two see shapes, every lead
divided by its own spread, with the voltages given to the head instead; one sees the leads as they
are. Two are wide and keep the time resolution that narrow Q waves need; two are narrow, with longer
kernels and strides. On an archive of a few thousand records that is worth more than one network of
the same cost, or four with one view (docs/explanation/negative-results.md). The blocks are those of
He et al. (arXiv:1512.03385) with an average pool on the shortcut and branches that start at zero
(arXiv:1812.01187).

`resnet1d_views`: 1,177,188 parameters, 122.8 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from einthoven.models.resnet1d import ConcatPool1d
from einthoven.models.xresnet1d import normed_conv1d, pooled_shortcut

# Shape suffixes: B batch, L lead, S sample, F feature, C class, M member.

View = Literal["plain", "slopes", "shapes"]

# Of standardised leads: what a flat lead is divided by, and the size of a slope over two samples.
SMALLEST_SPREAD = 1e-2
SLOPE_SCALE = 1.5


class MemberSize(NamedTuple):
    """What one member is built of.

    Attributes:
        view: what it sees of the leads.
        widths: features of the stem, then of each block.
        strides: of each block.
        kernel_size, stem_kernel_size: odd lengths in samples.
    """

    view: View
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    stem_kernel_size: int


def wide_member(view: View) -> MemberSize:
    """Short kernels and few strides, for what is narrow in time."""
    return MemberSize(view, (128, 128, 128, 128), (1, 2, 2), 3, 7)


def narrow_member(view: View) -> MemberSize:
    """Longer kernels and more strides, for what takes a heartbeat."""
    return MemberSize(view, (32, 64, 96, 128), (2, 2, 2), 5, 11)


MEMBERS = (
    wide_member("slopes"),
    wide_member("shapes"),
    narrow_member("plain"),
    narrow_member("shapes"),
)


class PooledShortcutBlock1d(nn.Module):
    """Two convolutions around a shortcut that is averaged, not sampled; it starts as that alone."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            normed_conv1d(n_in, n_out, kernel_size, stride),
            nn.ReLU(),
            normed_conv1d(n_out, n_out, kernel_size, starts_at_zero=True),
        )
        self.shortcut = pooled_shortcut(n_in, n_out, stride)

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = self.branch(x_BFS) + self.shortcut(x_BFS)
        return h_BFS.relu()


class ViewMember1d(nn.Module):
    """A stem of stride 2, residual blocks, and a linear head on mean and maximum over time."""

    def __init__(self, n_leads: int, n_classes: int, size: MemberSize, dropout: float) -> None:
        super().__init__()
        self.view = size.view
        width, *widths = size.widths
        self.body = nn.Sequential(
            normed_conv1d(n_leads, width, size.stem_kernel_size, stride=2), nn.ReLU()
        )
        for n_out, stride in zip(widths, size.strides, strict=True):
            self.body.append(PooledShortcutBlock1d(width, n_out, size.kernel_size, stride))
            width = n_out
        self.body.append(ConcatPool1d())
        n_features = 2 * width + (2 * n_leads if self.view == "shapes" else 0)
        self.head = nn.Sequential(
            nn.BatchNorm1d(n_features), nn.Dropout(dropout), nn.Linear(n_features, n_classes)
        )

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        if self.view == "shapes":
            spread_BL, voltages_BF = lead_sizes(x_BLS)
            h_BF = self.body(x_BLS / spread_BL[:, :, None])
            h_BF = torch.cat([h_BF.float(), voltages_BF], dim=1)
        else:
            h_BF = self.body(slopes_of(x_BLS) if self.view == "slopes" else x_BLS)
        logits_BC: torch.Tensor = self.head(h_BF)
        return logits_BC


def slopes_of(x_BLS: torch.Tensor) -> torch.Tensor:
    """Differences over two samples, zero at both ends, of about the size of the leads."""
    return functional.pad(x_BLS[..., 2:] - x_BLS[..., :-2], (1, 1)) * SLOPE_SCALE


def lead_sizes(x_BLS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The spread of each lead ``(B, L)``, and logarithms of spread and range ``(B, 2L)``."""
    spread_BL = x_BLS.square().mean(dim=-1).sqrt() + SMALLEST_SPREAD
    range_BL = x_BLS.amax(dim=-1) - x_BLS.amin(dim=-1) + SMALLEST_SPREAD
    return spread_BL, torch.cat([spread_BL.log(), range_BL.log()], dim=1)


class ResNet1dViews(nn.Module):
    """Members that each learn by themselves, and answer with the mean of their logits.

    In training it returns every member's logits, ``(B, M, C)``, because a loss of their mean would
    let them learn as one; see `einthoven.objective.summed_loss`.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        members: one size for each.
        dropout: share of pooled features dropped before each head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        members: tuple[MemberSize, ...] = MEMBERS,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            ViewMember1d(n_leads, n_classes, size, dropout) for size in members
        )

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        logits_BMC = torch.stack([member(x_BLS) for member in self.members], dim=1)
        return logits_BMC if self.training else logits_BMC.mean(dim=1)
