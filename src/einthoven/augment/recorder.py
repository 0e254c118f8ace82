"""Augmentations of the recording: noise of body, electrodes and mains, and what is missing."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from einthoven.augment.recorded import (
    Recorded,
    at_all_leads,
    n_electrode_leads,
    recorded_samples,
    stretches,
)

# Shape suffixes: B batch, L lead, E independent lead, S sample, U uniform number.

# Strengths --------------------------------------------------------------------------------------

# Root mean square at the independent leads, from and to. In 250 records of PTB-XL, 50, 90 and 99 %
# of leads hold less than 40, 148 and 499 µV of wander, 3.4, 8.5 and 21 of muscle noise (between
# beats), 0.9, 2.2 and 5.2 of mains, which other recorders filter less.
WANDER_MICROVOLTS = (20.0, 150.0)
MUSCLE_MICROVOLTS = (3.0, 20.0)
MAINS_MICROVOLTS = (2.0, 15.0)
DROPPED_LEAD_SHARE = 0.2
MASKED_LARGEST_SHARE = 0.2

# Noise ------------------------------------------------------------------------------------------

# Each lead's own, except that III, aVR, aVL and aVF see what I and II see: noise, too, comes from
# electrodes and keeps the limb-lead laws.


def add_wander(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Add 20 to 150 µV of baseline wander: breathing and slow electrodes, 0.05 to 0.5 Hz."""
    return x_BLS + banked_noise("wander", WANDER_MICROVOLTS, x_BLS, u_BU, recorded.fs)


def add_muscle(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Add 3 to 20 µV of muscle noise, 20 to 150 Hz."""
    return x_BLS + banked_noise("muscle", MUSCLE_MICROVOLTS, x_BLS, u_BU, recorded.fs)


def add_mains(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Add 2 to 15 µV of 50 or 60 Hz mains, in each lead with a phase of its own.

    Nothing is added where the mains lie at or above 0.45 ``fs``, so at 100 Hz: what resampling has
    taken out of every record cannot come back, and its alias would be a wave that no ECG shows.
    """
    frequencies = [f for f in (50.0, 60.0) if f < 0.45 * recorded.fs]
    if not frequencies:
        return x_BLS
    n_leads = x_BLS.shape[1]
    which_B1 = (u_BU[:, :1] * len(frequencies)).long()
    hertz_B1 = torch.where(which_B1 == 0, frequencies[0], frequencies[-1])
    seconds_S = torch.arange(x_BLS.shape[-1], device=x_BLS.device) / recorded.fs
    angle_BS = 2 * math.pi * hertz_B1 * seconds_S
    # The sine of a sum: two waves for all leads instead of one for each.
    waves_B2S = torch.stack([angle_BS.sin(), angle_BS.cos()], dim=1)
    phase_BE = 2 * math.pi * u_BU[:, 2 : 2 + n_electrode_leads(n_leads)]
    peak_B11 = math.sqrt(2) * strength_between(MAINS_MICROVOLTS, u_BU[:, 1])[:, None, None]
    parts_BE2 = torch.stack([phase_BE.cos(), phase_BE.sin()], dim=2) * peak_B11
    return torch.baddbmm(x_BLS, at_all_leads(parts_BE2, n_leads), waves_B2S)


def strength_between(limits: tuple[float, float], u_B: torch.Tensor) -> torch.Tensor:
    """Uniform between two limits."""
    return limits[0] + (limits[1] - limits[0]) * u_B


BANK_SECONDS = 600
# Hertz: what each kind of noise consists of. After what the MIT-BIH Noise Stress Test Database
# recorded on limbs without a heart between them: Moody, Muldrow and Mark, Comput Cardiol 1984, 381.
NOISE_BANDS = {"wander": (0.05, 0.5), "muscle": (20.0, 150.0)}


def banked_noise(
    kind: str, microvolts: tuple[float, float], x_BLS: torch.Tensor, u_BU: torch.Tensor, fs: int
) -> torch.Tensor:
    """``(B, L, S)``: pieces of a fixed noise, one for each independent lead."""
    _, n_leads, n_samples = x_BLS.shape
    bank = noise_bank(kind, fs, max(BANK_SECONDS * fs, 2 * n_samples), x_BLS.device)
    u_BE = u_BU[:, 1 : 1 + n_electrode_leads(n_leads)]
    pieces_BES = bank.unfold(0, n_samples, 1)[(u_BE * (len(bank) - n_samples)).long()]
    strength_B11 = strength_between(microvolts, u_BU[:, 0])[:, None, None]
    return at_all_leads(pieces_BES * strength_B11, n_leads)


@lru_cache(maxsize=8)
def noise_bank(kind: str, fs: int, n_samples: int, device: torch.device) -> torch.Tensor:
    """Noise of spread 1 within a band, the same in every run: ``(n_samples,)`` float32."""
    low, high = NOISE_BANDS[kind]
    hertz = np.fft.rfftfreq(n_samples, 1 / fs)
    inside = (hertz >= low) & (hertz <= high)
    # Wander is the stronger the slower it is.
    level = inside / np.maximum(hertz, low) if kind == "wander" else inside
    phases = np.random.default_rng(0).random(len(hertz)) * 2 * np.pi
    wave = np.fft.irfft(level * np.exp(1j * phases), n_samples)
    return torch.from_numpy((wave / wave.std()).astype(np.float32)).to(device)


# What is missing --------------------------------------------------------------------------------


def drop_leads(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Make each lead absent with a chance of one in five, never all that there are.

    Random lead masking, Oh et al., CHIL 2022 (arXiv:2203.06889), with half of the leads there; it
    makes a model that stands a loose electrode and archives with fewer leads.
    """
    kept_BL = u_BU[:, : x_BLS.shape[1]] >= DROPPED_LEAD_SHARE
    leaves_some_B1 = (kept_BL & recorded.present_BL).any(1, keepdim=True)
    return x_BLS * (kept_BL | ~leaves_some_B1)[:, :, None].float()


def mask_time(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Hold all leads at their level for up to a fifth of the record, as SpecAugment does.

    Park et al., Interspeech 2019. The level is the mean of what is left, so that standardisation
    makes the stretch zero. All leads at once: each could be filled in from the others.
    """
    n_B = recorded.n_valid_B
    length_B = (u_BU[:, 0] * MASKED_LARGEST_SHARE * n_B).long()
    masked_B1S = stretches(u_BU[:, 1], length_B, n_B, x_BLS.shape[-1])
    left_B1S = recorded_samples(n_B, x_BLS.shape[-1]) * ~masked_B1S
    n_left_B1 = (n_B - length_B).clamp(min=1)[:, None, None]
    level_BL1 = (x_BLS * left_B1S).sum(-1, keepdim=True) / n_left_B1
    return torch.where(masked_B1S, level_BL1, x_BLS)
