"""Attention between patches of the signal.

Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021, arXiv:2010.11929), over time: a
token is a patch of all leads. Patches overlap by half, as in Nie et al., "A time series is worth 64
words" (ICLR 2023, arXiv:2211.14730), and positions are the sinusoids of Vaswani et al., "Attention
is all you need" (NeurIPS 2017, arXiv:1706.03762), so that any length will do. Mean and maximum over
patches are pooled, in place of a class token.

`patch_transformer`: 818,053 parameters, 54.0 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from einthoven.models.resnet1d import pooled_head

# Shape suffixes: B batch, L lead, S sample (of tokens: patch), F feature, C class, H head.

LONGEST_WAVE = 10_000


def sinusoid_positions(n_positions: int, n_features: int, device: torch.device) -> torch.Tensor:
    """Sines and cosines of wavelengths from 2π to ``LONGEST_WAVE`` · 2π: ``(S, F)`` float32."""
    half = torch.arange(n_features // 2, device=device)
    rates_F = torch.exp(-math.log(LONGEST_WAVE) * half / (n_features // 2))
    angles_SF = torch.arange(n_positions, device=device)[:, None] * rates_F
    return torch.cat([angles_SF.sin(), angles_SF.cos()], dim=1)


class SelfAttention(nn.Module):
    """Every patch looks at every other: ``(B, S, F)`` to the same."""

    def __init__(self, n_features: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        # Without bias: one vector added to every key changes no weight.
        self.project = nn.Linear(n_features, 3 * n_features, bias=False)
        self.merge = nn.Linear(n_features, n_features)

    def forward(self, x_BSF: torch.Tensor) -> torch.Tensor:
        parts = self.project(x_BSF).unflatten(-1, (3, self.n_heads, -1))
        query_BHSF, key_BHSF, value_BHSF = parts.permute(2, 0, 3, 1, 4)
        h_BHSF = functional.scaled_dot_product_attention(query_BHSF, key_BHSF, value_BHSF)
        merged_BSF: torch.Tensor = self.merge(h_BHSF.transpose(1, 2).flatten(2))
        return merged_BSF


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each behind a norm and around a shortcut."""

    def __init__(self, n_features: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(n_features), SelfAttention(n_features, n_heads), nn.Dropout(dropout)
        )
        self.network = nn.Sequential(
            nn.LayerNorm(n_features),
            nn.Linear(n_features, 4 * n_features),
            nn.GELU(),
            nn.Linear(4 * n_features, n_features),
            nn.Dropout(dropout),
        )

    def forward(self, x_BSF: torch.Tensor) -> torch.Tensor:
        h_BSF: torch.Tensor = x_BSF + self.attention(x_BSF)
        h_BSF = h_BSF + self.network(h_BSF)
        return h_BSF


class PatchTransformer(nn.Module):
    """Patches, positions, blocks and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        patch: samples of a patch; the next begins half a patch later.
        width: features of a token, a multiple of ``2 * n_heads``.
        depth: blocks.
        n_heads: of the attention.
        dropout: share of each branch dropped, in training.
        head_dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        patch: int = 16,
        width: int = 128,
        depth: int = 4,
        n_heads: int = 4,
        dropout: float = 0.1,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv1d(n_leads, width, patch, patch // 2, patch // 2)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, n_heads, dropout) for _ in range(depth))
        )
        self.head = pooled_head(width, n_classes, head_dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        tokens_BSF = self.embed(x_BLS).transpose(1, 2).contiguous()
        _, n_tokens, width = tokens_BSF.shape
        h_BSF = self.blocks(tokens_BSF + sinusoid_positions(n_tokens, width, x_BLS.device))
        logits_BC: torch.Tensor = self.head(h_BSF.transpose(1, 2))
        return logits_BC
