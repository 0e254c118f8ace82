"""Changed copies of a record over which a prediction may be averaged: test-time augmentation.

They are the same for every record and every run, so that a prediction can be had again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from einthoven.records import LEADS

# What a copy may be shifted by: not a multiple of half a crop, or it would meet the same crops.
SHIFT_SHARE = 0.1


@dataclass(frozen=True)
class RecordView:
    """One way to look at a record.

    Attributes:
        name: as results tell it.
        shift: share of the window that is cut off at its start (above 0) or at its end (below 0).
        scale: factor of the amplitude; without effect where records are standardised one by one.
        dropped: leads that are set to zero.
        crop_density: how many times as many crops as usual cover the window.
    """

    name: str
    shift: float = 0.0
    scale: float = 1.0
    dropped: tuple[str, ...] = ()
    crop_density: int = 1

    def show(self, samples: torch.Tensor, n_valid: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """A changed copy of some windows, and how many of its samples were recorded.

        Args:
            samples: ``(n, 12, S)`` microvolts.
            n_valid: ``(n,)`` recorded samples of each; zeros follow them.
        """
        if self.shift:
            samples, n_valid = _cut(samples, n_valid, round(self.shift * samples.shape[-1]))
        if self.scale != 1.0:
            samples = samples.float() * self.scale
        if self.dropped:
            samples = samples.clone()
            samples[:, [LEADS.index(lead) for lead in self.dropped]] = 0
        return samples, n_valid


def _cut(samples: torch.Tensor, n_valid: np.ndarray, n_cut: int) -> tuple[torch.Tensor, np.ndarray]:
    """Cut the start off (``n_cut`` above 0) or the end; zeros fill the window's end.

    A recording that is little longer than what is cut off is left as it is.
    """
    is_cut = n_valid > 2 * abs(n_cut)
    moved = samples.clone()
    if n_cut > 0:
        moved[..., :-n_cut] = samples[..., n_cut:]
    left = np.where(is_cut, n_valid - abs(n_cut), n_valid)
    after = torch.arange(samples.shape[-1], device=samples.device)
    # What lies after the recording is zero; a shifted copy has its old end there.
    limit = torch.from_numpy(left).to(samples.device)[:, None, None]
    moved = torch.where(after < limit, moved, torch.zeros_like(moved))
    keep = torch.from_numpy(~is_cut).to(samples.device)[:, None, None]
    return torch.where(keep, samples, moved), left


PLAIN_VIEW = RecordView("plain")

# What each name of the setting TEST_TIME_AUGMENT adds.
TEST_TIME_VIEWS: dict[str, tuple[RecordView, ...]] = {
    "shift": (
        RecordView("shift_start", shift=SHIFT_SHARE),
        RecordView("shift_end", shift=-SHIFT_SHARE),
    ),
    "crop": (RecordView("dense_crops", crop_density=2),),
    "scale": (RecordView("scale_down", scale=0.9), RecordView("scale_up", scale=1.1)),
    "lead_dropout": tuple(RecordView(f"without_{lead}", dropped=(lead,)) for lead in LEADS[6:]),
}


def added_views(setting: str) -> tuple[RecordView, ...]:
    """The views that a value of ``TEST_TIME_AUGMENT`` adds to the plain one.

    >>> [view.name for view in added_views("scale,crop")]
    ['scale_down', 'scale_up', 'dense_crops']
    """
    names = [name.strip() for name in setting.split(",") if name.strip() not in ("", "none")]
    return tuple(view for name in dict.fromkeys(names) for view in TEST_TIME_VIEWS[name])
