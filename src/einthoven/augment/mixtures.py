"""Augmentations that mix two records and their labels."""

from __future__ import annotations

import math

import torch

from einthoven.augment.recorded import Recorded, stretches

# Shape suffixes: B batch, L lead, S sample, U uniform number.

CUTMIX_LARGEST_SHARE = 0.5

# Each takes records and as many others, and gives new signals and the others' share in them.


def mix_up(
    x_BLS: torch.Tensor,
    other_BLS: torch.Tensor,
    u_BU: torch.Tensor,
    here: Recorded,
    there: Recorded,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add another record and its labels, weighted: mixup, Zhang et al., ICLR 2018.

    The weight is of Beta(1/2, 1/2), most often near 0 or 1, whose inverse distribution function is
    a sine squared; of a pair's two weights the record keeps the larger.
    """
    weight_B = torch.sin(u_BU[:, 0] * (math.pi / 2)).square()
    share_B = torch.minimum(weight_B, 1 - weight_B) * can_mix(here, there)
    return torch.lerp(x_BLS, other_BLS, share_B[:, None, None]), share_B


def cut_mix(
    x_BLS: torch.Tensor,
    other_BLS: torch.Tensor,
    u_BU: torch.Tensor,
    here: Recorded,
    there: Recorded,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a stretch by another record's, and mix labels by its length.

    CutMix, Yun et al., ICCV 2019, along time. The stretch is half of the record at the most, and is
    lifted to the record's level, so that the seams are no steps.
    """
    n_B = here.n_valid_B
    length_B = (u_BU[:, 0] * CUTMIX_LARGEST_SHARE * n_B).long() * can_mix(here, there)
    pasted_B1S = stretches(u_BU[:, 1], length_B, n_B, x_BLS.shape[-1])
    lifted_BLS = other_BLS + (here.mean(x_BLS) - there.mean(other_BLS))
    return torch.where(pasted_B1S, lifted_BLS, x_BLS), length_B / n_B.clamp(min=1)


def can_mix(here: Recorded, there: Recorded) -> torch.Tensor:
    """``(B,)`` bool: whether the other record has the same leads and is as long.

    Otherwise part of what its labels were read from would not be there, or an absent lead appear.
    """
    same_leads_B = (here.present_BL == there.present_BL).all(1)
    return same_leads_B & (there.n_valid_B >= here.n_valid_B)
