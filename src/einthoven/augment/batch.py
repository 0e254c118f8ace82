"""Changes of training batches: what another recording of the same heart could have looked like.

Everything acts on microvolts, before standardisation, as a heart, an electrode or a recorder would:
10 µV of noise are 10 µV however leads are standardised, and the model meets augmented signals
centred and scaled the way it meets others in evaluation, which never comes here. The numbers that
decide what happens to a record are a function of (seed, epoch, record), so it does not depend on
the batch, on the processes or on what ran before; only mixup and cutmix know the batch, whose next
record they mix in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from einthoven.augment.draws import Draws
from einthoven.augment.heart import flip_sign, rotate_vcg, scale_amplitude, shift_time, warp_time
from einthoven.augment.mixtures import cut_mix, mix_up
from einthoven.augment.recorded import Recorded, find_recorded, recorded_samples
from einthoven.augment.recorder import (
    add_mains,
    add_muscle,
    add_wander,
    drop_leads,
    mask_time,
)
from einthoven.batches import to_device
from einthoven.errors import ConfigError
from einthoven.settings import AUGMENT_PRESETS, AUGMENTATION_NAMES, did_you_mean

# Shape suffixes: B batch, L lead, S sample, C class, U uniform number.

# Names ------------------------------------------------------------------------------------------

# The share of records that each one changes, in the order in which they are applied: the heart, two
# hearts, the recorder, what is missing.
AUGMENTED_SHARE = {
    "vcg_rotation": 0.5,
    "amplitude_scale": 0.5,
    "time_warp": 0.25,
    "time_shift": 0.5,
    "sign_flip": 0.5,
    "mixup": 0.5,
    "cutmix": 0.5,
    "baseline_wander": 0.3,
    "muscle_noise": 0.3,
    "mains_noise": 0.3,
    "lead_dropout": 0.3,
    "time_mask": 0.3,
}

# Light: what every archive holds anyway, so that a label can hardly become wrong. Strong: also what
# hides or bends part of the evidence. Left out of both: cutmix, which does mixup's work and leaves
# little of a record that mixup has had; time_shift, which random crops do without a seam.
_LIGHT = ("amplitude_scale", "sign_flip", "baseline_wander", "muscle_noise", "mains_noise")
PRESET_AUGMENTATIONS = {
    "none": (),
    "light": _LIGHT,
    "strong": (*_LIGHT, "vcg_rotation", "time_warp", "mixup", "lead_dropout", "time_mask"),
}


def parse_augment(text: str) -> tuple[str, ...]:
    """The augmentations that a preset or a list names, in the order in which they are applied.

    Args:
        text: ``none``, ``light``, ``strong``, or names with commas between them; presets may be
            among the names.

    Raises:
        ConfigError: a name is not known.

    >>> parse_augment("mixup, time_warp")
    ('time_warp', 'mixup')
    """
    wished: set[str] = set()
    for word in (part.strip() for part in text.split(",")):
        if word not in PRESET_AUGMENTATIONS and word not in AUGMENTED_SHARE:
            allowed = (*AUGMENT_PRESETS, *AUGMENTATION_NAMES)
            raise ConfigError(
                f"augmentation {word!r} is not known{did_you_mean(word, allowed) or '.'} "
                f"Use {', '.join(AUGMENT_PRESETS)}, or a list of {', '.join(AUGMENTATION_NAMES)}"
            )
        wished.update(PRESET_AUGMENTATIONS.get(word, (word,)))
    return tuple(name for name in AUGMENTED_SHARE if name in wished)


# A batch ----------------------------------------------------------------------------------------

SignalChange = Callable[[torch.Tensor, torch.Tensor, Recorded], torch.Tensor]
CHANGES: dict[str, SignalChange] = {
    "vcg_rotation": rotate_vcg,
    "amplitude_scale": scale_amplitude,
    "time_warp": warp_time,
    "time_shift": shift_time,
    "sign_flip": flip_sign,
    "baseline_wander": add_wander,
    "muscle_noise": add_muscle,
    "mains_noise": add_mains,
    "lead_dropout": drop_leads,
    "time_mask": mask_time,
}
MIXTURES = {"mixup": mix_up, "cutmix": cut_mix}


def augment_batch(
    signal_BLS: torch.Tensor,
    targets_BC: torch.Tensor,
    n_valid_B: torch.Tensor,
    names: tuple[str, ...],
    draws: Draws,
    fs: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply augmentations to a batch, each to its share of the records.

    Flat leads and padding come back as zeros, whatever was added: noise on a lead that was never
    recorded would hide that it is absent. Leads that vary keep their level; standardise afterwards.

    Args:
        signal_BLS: microvolts, int16 or float32, zero after ``n_valid_B`` samples. Twelve leads in
            the order of `LEADS`; with another number of leads, what ties leads together is left
            out: the rotation, and the limb-lead laws of the noise.
        targets_BC: 0 and 1; mixup and cutmix mix them.
        names: of `parse_augment`.
        draws: whose ``records`` are the batch's.
        fs: hertz.

    Returns:
        New signals, float32 microvolts, and targets; the arguments themselves where there are no
        names. Nothing is changed in place.
    """
    if not names:
        return signal_BLS, targets_BC
    x_BLS = signal_BLS.to(torch.float32, copy=True)
    recorded = find_recorded(x_BLS, n_valid_B, fs)
    table = draws.table(names)
    uniforms = to_device(torch.from_numpy(table), x_BLS.device)
    for number, name in enumerate(names):
        chosen = np.flatnonzero(table[:, number, 0] < AUGMENTED_SHARE[name])
        if len(chosen) == 0:
            continue
        # The host knows which, so that only they are computed and nothing waits for the device.
        rows = to_device(torch.from_numpy(chosen), x_BLS.device)
        own_BLS, here = x_BLS.index_select(0, rows), recorded.of(rows)
        u_BU = uniforms[:, number, 1:].index_select(0, rows)
        if name in MIXTURES:
            others = (rows + 1) % len(x_BLS)
            other_BLS, there = x_BLS.index_select(0, others), recorded.of(others)
            new_BLS, share_B = MIXTURES[name](own_BLS, other_BLS, u_BU, here, there)
            new_BC = torch.lerp(targets_BC[rows], targets_BC[others], share_B[:, None])
            targets_BC = targets_BC.index_copy(0, rows, new_BC)
        else:
            new_BLS = CHANGES[name](own_BLS, u_BU, here)
        x_BLS.index_copy_(0, rows, new_BLS)
    x_BLS *= recorded_samples(n_valid_B, x_BLS.shape[-1])
    x_BLS *= recorded.present_BL[:, :, None].float()
    return x_BLS, targets_BC
