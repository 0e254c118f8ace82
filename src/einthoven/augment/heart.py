"""Augmentations of the heart: its place in the chest, its size, its time."""

from __future__ import annotations

import math

import torch

from einthoven.augment.recorded import (
    INDEPENDENT_LEADS,
    Recorded,
    lead_geometry,
    recorded_samples,
)
from einthoven.records import LEADS

# Shape suffixes: B batch, L lead, S sample, U uniform number; 3 is x, y, z.

# Strengths --------------------------------------------------------------------------------------

VCG_DEGREES = 10.0
AMPLITUDE_FACTOR = 1.15
WARPED_SPEED = 0.1
SHIFT_SECONDS = 0.5

# Changes ----------------------------------------------------------------------------------------

# Each change takes the records that it concerns, ``(B, 15)`` uniform numbers of theirs and what was
# recorded of them, and gives new signals.


def rotate_vcg(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Turn the heart in the chest by up to ten degrees about each of Frank's axes.

    With posture and breath the axis moves by about that much (Ng, Sahakian and Swiryn, Computers in
    Cardiology 2001, 313); more would move it across the limits that axis deviation is read from.
    3KG (Gopal et al., arXiv:2106.04452) turns further, as a pretext and not under a label.

    Only the part of the leads that the vector explains is turned, and what it leaves unexplained
    stays, so that no turn is no change, and limb-lead laws that held still hold. Records without
    all of I, II and V1–V6 are left alone.
    """
    if x_BLS.shape[1] != len(LEADS):
        return x_BLS
    matrices = lead_geometry(x_BLS.device)
    angles_B3 = (2 * u_BU[:, :3] - 1) * math.radians(VCG_DEGREES)
    # Rodrigues: R - 1 = sin(a)/a K + (1 - cos(a))/a² K², and sinc has no 0/0.
    turn_B33 = torch.einsum("bi,ijk->bjk", angles_B3, matrices["turns"])
    angle_B11 = angles_B3.norm(dim=1)[:, None, None]
    change_B33 = (
        torch.sinc(angle_B11 / math.pi) * turn_B33
        + torch.sinc(angle_B11 / (2 * math.pi)).square() / 2 * turn_B33 @ turn_B33
    )
    has_vector_B = recorded.present_BL[:, INDEPENDENT_LEADS].all(1)
    change_BLL = matrices["leads from vector"] @ change_B33 @ matrices["vector from leads"]
    return torch.baddbmm(x_BLS, change_BLL * has_vector_B[:, None, None], x_BLS)


def scale_amplitude(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Multiply a whole record by 1/1.15 to 1.15: chest wall, skin, calibration.

    One factor for all leads, so that axis and R progression stay. It is small because voltage
    criteria are part of labels; with ``STANDARDIZE`` record or lead it cancels.
    """
    return x_BLS * AMPLITUDE_FACTOR ** (2 * u_BU[:, :1, None] - 1)


def warp_time(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Let time run up to 10 % faster at one end of the record and as much slower at the other.

    The speed changes by half a cosine and both ends stay, so that nothing is lost. Rates and
    intervals move with it: 10 % is what sinus rhythm does by itself, and 200 ms of PR become 222 at
    the most. Um et al., ICMI 2017 (arXiv:1706.00527), warp wearable sensors' signals much further.
    """
    positions_S = torch.arange(x_BLS.shape[-1], device=x_BLS.device)
    last_B1 = (recorded.n_valid_B - 1).clamp(min=1)[:, None]
    strength_B1 = (2 * u_BU[:, :1] - 1) * WARPED_SPEED
    bend_BS = torch.sin(math.pi * positions_S / last_B1) * last_B1 / math.pi
    warped_BLS = values_at(x_BLS, positions_S + strength_B1 * bend_BS, last_B1)
    return warped_BLS * recorded_samples(recorded.n_valid_B, x_BLS.shape[-1])


def values_at(
    x_BLS: torch.Tensor, positions_BS: torch.Tensor, last_B1: torch.Tensor
) -> torch.Tensor:
    """Signals between samples, by Keys' cubic (IEEE Trans ASSP 29 (1981) 1153).

    A straight line between samples would take two fifths of a QRS's 30 Hz at 100 Hz; the cubic
    takes one fifth, and that only half-way.

    Args:
        positions_BS: where, in samples; as many as are wanted.
        last_B1: the last recorded sample of each record.
    """
    whole_BS = positions_BS.floor()
    t = positions_BS - whole_BS
    weights = (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    n_leads = x_BLS.shape[1]
    found_BLS = x_BLS.new_zeros(len(x_BLS), n_leads, positions_BS.shape[1])
    for offset, weight_BS in zip((-1, 0, 1, 2), weights, strict=True):
        index_BS = (whole_BS.long() + offset).clamp(min=0).minimum(last_B1)
        near_BLS = x_BLS.gather(2, index_BS[:, None].expand(-1, n_leads, -1))
        found_BLS.addcmul_(near_BLS, weight_BS[:, None])
    return found_BLS


def shift_time(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Begin up to half a second earlier or later; what leaves at one end comes in at the other.

    All that was recorded is still there, at the cost of a seam near one end, where an interval
    between beats is wrong. Random crops shift without one; this is for models of whole windows.
    """
    positions_S = torch.arange(x_BLS.shape[-1], device=x_BLS.device)
    shift_B1 = ((2 * u_BU[:, :1] - 1) * SHIFT_SECONDS * recorded.fs).round().long()
    index_BS = (positions_S - shift_B1) % recorded.n_valid_B.clamp(min=1)[:, None]
    shifted_BLS = x_BLS.gather(2, index_BS[:, None].expand_as(x_BLS))
    return shifted_BLS * recorded_samples(recorded.n_valid_B, x_BLS.shape[-1])


def flip_sign(x_BLS: torch.Tensor, u_BU: torch.Tensor, recorded: Recorded) -> torch.Tensor:
    """Turn single-lead records upside down; leave others alone.

    Hand-held recorders are held either way round: Challenge 2017 holds both (Clifford et al.,
    Computing in Cardiology 2017). In twelve leads, a flipped lead is a finding.
    """
    single_B = recorded.present_BL.sum(1) == 1
    return x_BLS * (1 - 2 * single_B.float())[:, None, None]
