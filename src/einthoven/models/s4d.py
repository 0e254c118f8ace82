"""Linear state-space layers: convolutions as long as the signal.

Gu et al., "On the parameterization and initialization of diagonal state space models" (NeurIPS
2022, arXiv:2206.11893): each feature drives damped oscillators, whose frequencies start as S4D-Lin
has them, and their impulse response, as long as the input, is convolved with it by Fourier
transform. In place of a zero-order hold the input is scaled by the time step. In both directions of
time. Mehari and Strodthoff, "Advancing the state-of-the-art for ECG analysis through structured
state space models" (arXiv:2211.07579), found such layers better than convolutions on PTB-XL, in
networks larger than this one.

`s4d`: 154,053 parameters, 97.5 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from einthoven.models.resnet1d import pooled_head

# Shape suffixes: B batch, L lead, S sample, F feature, C class, D direction, N oscillator.

# Steps from a thousandth to a tenth of a time unit per sample: responses of ten to a thousand
# samples, 0.1 to 10 s at 100 Hz.
SHORTEST_STEP, LONGEST_STEP = 0.001, 0.1


def sum_oscillators(weight_DFN: torch.Tensor, waves_FNS: torch.Tensor) -> torch.Tensor:
    """Weighted sums over the oscillators of each feature: ``(D, F, S)``."""
    return torch.einsum("dfn,fns->dfs", weight_DFN, waves_FNS)


class DiagonalStateSpace(nn.Module):
    """One linear filter per feature, forwards and backwards in time: ``(B, F, S)`` to the same.

    All share their oscillators; each has its own unit of time and its own mixture.

    Args:
        n_features: independent filters.
        n_oscillators: pairs of conjugate states of each filter.
    """

    def __init__(self, n_features: int, n_oscillators: int) -> None:
        super().__init__()
        steps = torch.rand(n_features) * math.log(LONGEST_STEP / SHORTEST_STEP)
        self.log_step_F = nn.Parameter(steps + math.log(SHORTEST_STEP))
        self.log_decay_N = nn.Parameter(torch.full((n_oscillators,), math.log(0.5)))
        self.frequency_N = nn.Parameter(math.pi * torch.arange(n_oscillators))
        # Real and imaginary parts: optimizers and reduced precision know no complex numbers.
        self.output_DFN2 = nn.Parameter(torch.randn(2, n_features, n_oscillators, 2) / 2**0.5)
        self.through_F = nn.Parameter(torch.randn(n_features))

    def responses(self, n_samples: int) -> torch.Tensor:
        """Impulse responses of both directions: ``(D, F, S)``."""
        step_F1 = self.log_step_F.exp()[:, None]
        time_S = torch.arange(n_samples, device=step_F1.device)
        # The real part of output · exp((-decay + i frequency) · step · time), in real numbers:
        # three times as fast, and ONNX has no others.
        envelope_FNS = ((-self.log_decay_N.exp() * step_F1)[..., None] * time_S).exp()
        phase_FNS = (self.frequency_N * step_F1)[..., None] * time_S
        cosines_DFS = sum_oscillators(self.output_DFN2[..., 0], envelope_FNS * phase_FNS.cos())
        sines_DFS = sum_oscillators(self.output_DFN2[..., 1], envelope_FNS * phase_FNS.sin())
        return 2 * step_F1 * (cosines_DFS - sines_DFS)

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        # Half precision has no Fourier transform, and powers of a number near 1 need the digits.
        with torch.autocast(x_BFS.device.type, enabled=False):
            x_BFS = x_BFS.float()
            n_samples = x_BFS.shape[-1]
            ahead_FS, behind_FS = self.responses(n_samples)
            # A circle of twice the length, so that the end does not run into the beginning.
            spectrum_FS = torch.fft.rfft(ahead_FS, n=2 * n_samples)
            # The conjugate of a spectrum is that of the response reversed in time on the circle.
            spectrum_FS = spectrum_FS + torch.fft.rfft(behind_FS, n=2 * n_samples).conj()
            product_BFS = torch.fft.rfft(x_BFS, n=2 * n_samples) * spectrum_FS
            y_BFS: torch.Tensor = torch.fft.irfft(product_BFS, n=2 * n_samples)[..., :n_samples]
            return y_BFS + self.through_F[:, None] * x_BFS


class S4dBlock(nn.Module):
    """A state-space layer and a gated mixing of features around a shortcut."""

    def __init__(self, n_features: int, n_oscillators: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm1d(n_features),
            DiagonalStateSpace(n_features, n_oscillators),
            nn.GELU(),
            nn.Dropout1d(dropout),
            nn.Conv1d(n_features, 2 * n_features, 1),
            nn.GLU(dim=1),
        )

    def forward(self, x_BFS: torch.Tensor) -> torch.Tensor:
        h_BFS: torch.Tensor = x_BFS + self.branch(x_BFS)
        return h_BFS


class S4d(nn.Module):
    """A pointwise stem, state-space blocks and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        width: features of every block.
        depth: blocks.
        n_oscillators: of each filter.
        dropout: share of features dropped within blocks, over all samples, in training.
        head_dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        width: int = 128,
        depth: int = 4,
        n_oscillators: int = 8,
        dropout: float = 0.2,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv1d(n_leads, width, 1)
        self.blocks = nn.Sequential(
            *(S4dBlock(width, n_oscillators, dropout) for _ in range(depth))
        )
        self.head = pooled_head(width, n_classes, head_dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.head(self.blocks(self.stem(x_BLS)))
        return logits_BC
