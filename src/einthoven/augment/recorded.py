"""What augmentations must know of a batch: what of it was recorded, and how leads hang together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from einthoven.records import LEADS, LIMB_FROM_I_AND_II
from einthoven.synthetic.morphology import DOWER_MATRIX

# Shape suffixes: B batch, L lead, E independent lead, S sample.

# What was recorded ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """What of a batch's signals was recorded.

    Attributes:
        n_valid_B: samples; what follows is padding.
        present_BL: leads that are not flat: neither absent nor a detached electrode.
        fs: hertz.
    """

    n_valid_B: torch.Tensor
    present_BL: torch.Tensor
    fs: int

    def of(self, rows: torch.Tensor) -> Recorded:
        """The same of some records."""
        return Recorded(
            self.n_valid_B.index_select(0, rows), self.present_BL.index_select(0, rows), self.fs
        )

    def mean(self, x_BLS: torch.Tensor) -> torch.Tensor:
        """``(B, L, 1)``: each lead's level; ``x_BLS`` is zero where it is padding."""
        return x_BLS.sum(-1, keepdim=True) / self.n_valid_B.clamp(min=1)[:, None, None]


def find_recorded(x_BLS: torch.Tensor, n_valid_B: torch.Tensor, fs: int) -> Recorded:
    """See which leads of a batch vary."""
    steps_BLS = (x_BLS - x_BLS[:, :, :1]).mul_(recorded_samples(n_valid_B, x_BLS.shape[-1]))
    # A norm because it is fast: comparing sample by sample takes four times as long.
    return Recorded(n_valid_B, steps_BLS.norm(dim=-1) > 0, fs)


def recorded_samples(n_valid_B: torch.Tensor, n_samples: int) -> torch.Tensor:
    """``(B, 1, S)`` float32: 1 for what was recorded, 0 for padding."""
    positions_S = torch.arange(n_samples, device=n_valid_B.device)
    return (positions_S < n_valid_B[:, None, None]).float()


def stretches(
    u_B: torch.Tensor, length_B: torch.Tensor, n_valid_B: torch.Tensor, n_samples: int
) -> torch.Tensor:
    """``(B, 1, S)`` bool: a stretch of each record, which lies within what was recorded."""
    start_B = (u_B * (n_valid_B - length_B + 1)).long()
    positions_S = torch.arange(n_samples, device=u_B.device)
    inside_BS = (positions_S >= start_B[:, None]) & (positions_S < (start_B + length_B)[:, None])
    return inside_BS[:, None]


# Leads and electrodes ---------------------------------------------------------------------------

# I, II and V1–V6 determine the other four.
INDEPENDENT_LEADS = (0, 1, 6, 7, 8, 9, 10, 11)
TWELVE_FROM_EIGHT = np.zeros((12, 8), np.float32)
TWELVE_FROM_EIGHT[:6, :2] = LIMB_FROM_I_AND_II
TWELVE_FROM_EIGHT[6:, 2:] = np.eye(6)


@lru_cache(maxsize=8)
def lead_geometry(device: torch.device) -> dict[str, torch.Tensor]:
    """The matrices between leads and the heart's vector, on a device.

    Returns:
        ``"leads"`` ``(12, 8)``: all leads from the independent ones. ``"leads from vector"``
        ``(12, 3)``: Dower's matrix and the limb-lead laws. ``"vector from leads"`` ``(3, 12)``: its
        pseudo-inverse, the inverse Dower matrix of Edenbrandt and Pahlm, J Electrocardiol 21 (1988)
        361, to their three decimals. ``"turns"`` ``(3, 3, 3)``: the infinitesimal turn about each
        axis.
    """
    from_leads = np.zeros((3, 12))
    from_leads[:, INDEPENDENT_LEADS] = np.linalg.pinv(DOWER_MATRIX)
    turns = np.zeros((3, 3, 3))
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turns[axis, two, one], turns[axis, one, two] = 1, -1
    matrices = {
        "leads": TWELVE_FROM_EIGHT,
        "leads from vector": TWELVE_FROM_EIGHT @ DOWER_MATRIX,
        "vector from leads": from_leads,
        "turns": turns,
    }
    return {name: torch.from_numpy(m.astype(np.float32)).to(device) for name, m in matrices.items()}


def n_electrode_leads(n_leads: int) -> int:
    """How many leads see noise of their own; the others follow from them."""
    return len(INDEPENDENT_LEADS) if n_leads == len(LEADS) else n_leads


def at_all_leads(noise_BE_: torch.Tensor, n_leads: int) -> torch.Tensor:
    """``(B, E, ...)`` at the independent leads to ``(B, L, ...)``, by the limb-lead laws."""
    if n_leads != len(LEADS):
        return noise_BE_
    return lead_geometry(noise_BE_.device)["leads"] @ noise_BE_
