"""All that lies between raw millivolts and decisions, as one graph of tensor operations.

It does what `einthoven.signal`, `einthoven.inference`, `einthoven.calibration.maps` and
`einthoven.metrics.decide` do, in their order and with their rounding, for any number of records of
any one length, so that an exported model needs no code of ours.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from einthoven.batches import standardize_batch
from einthoven.calibration.maps import PROBABILITY_MARGIN, Calibration
from einthoven.checkpoint import TrainedModel
from einthoven.inference import count_crops
from einthoven.signal import Band, bandpass
from einthoven.store import MICROVOLTS_PER_MILLIVOLT

# Shape suffixes: B batch, L lead, S sample, W window, K crop, C class.

INPUT_NAME = "signal"
OUTPUT_NAMES = ("probabilities", "decisions", "raw_probabilities")

# Two samples are the fewest that can be mirrored.
FEWEST_SAMPLES = 2


class WholeModel(nn.Module):
    """From raw millivolts ``(B, 12, S)`` to calibrated probabilities, decisions, raw probabilities.

    Leads stand in standard order, at the model's rate; all records of a batch have one length, of
    two samples or more; there is no NaN. A record shorter than a window is filled with zeros at its
    end, which count for nothing; a longer one is cut into windows.

    Args:
        trained: what it is made of; its network is shared, and must be in evaluation mode.
    """

    scale: torch.Tensor
    thresholds: torch.Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        taken = trained.input
        self.filter = BandPass(taken.bandpass, taken.fs) if taken.bandpass else nn.Identity()
        self.crops = OverlappingCrops(taken.window, taken.crop)
        self.standardize = taken.standardize
        self.register_buffer("scale", taken.scale.detach().float().clone())
        self.network = trained.model
        self.single = trained.single
        self.calibrate = CalibrationMap(trained.calibration)
        limits = [trained.thresholds[label] for label in trained.labels] if not self.single else []
        self.register_buffer("thresholds", torch.tensor(limits, dtype=torch.float64))

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        microvolts_BLS = to_whole_microvolts(self.filter(signal))
        crops_NLS, n_valid_N = self.crops(microvolts_BLS)
        x_NLS = standardize_batch(crops_NLS, n_valid_N, self.standardize, self.scale)
        logits_NC = self.network(x_NLS)
        each_NC = logits_NC.softmax(-1) if self.single else logits_NC.sigmoid()
        # Every window has as many crops as any other: the mean of their means is that of all.
        raw_BC = each_NC.reshape(signal.shape[0], -1, each_NC.shape[-1]).mean(1)
        probabilities_BC = self.calibrate(raw_BC)
        return probabilities_BC, self.decide(probabilities_BC), raw_BC

    def decide(self, probabilities_BC: torch.Tensor) -> torch.Tensor:
        """0 or 1 for each label, uint8; see `einthoven.metrics.decide`."""
        if not self.single:
            return (probabilities_BC.double() >= self.thresholds).to(torch.uint8)
        classes_C = torch.arange(probabilities_BC.shape[-1], device=probabilities_BC.device)
        likeliest_B1 = probabilities_BC.argmax(dim=-1, keepdim=True)
        return (classes_C == likeliest_B1).to(torch.uint8)


def to_whole_microvolts(signal: torch.Tensor) -> torch.Tensor:
    """Millivolts as whole microvolts in float32, within what an int16 of the store can hold."""
    return (signal * MICROVOLTS_PER_MILLIVOLT).round().clamp(-32767, 32767)


# Band-pass --------------------------------------------------------------------------------------


class BandPass(nn.Module):
    """The zero-phase filter of `einthoven.signal.preprocess` at one rate, as a convolution.

    That filter is the product of linear-phase kernels of finite length, applied by Fourier
    transform to a record that is mirrored at both ends by at least their reach: the same sums as
    here. Float32 rounds them in another order.

    Args:
        band: high-pass and low-pass edge in hertz.
        fs: hertz.
    """

    kernel: torch.Tensor

    def __init__(self, band: Band, fs: int) -> None:
        super().__init__()
        kernel = filter_kernel(band, fs)
        self.reach = len(kernel) // 2
        # Without a high-pass a record is mirrored through its end point; see _extend_circularly.
        self.is_point_mirror = band[0] == 0
        self.register_buffer("kernel", torch.from_numpy(kernel)[None, None, None])

    def forward(self, signal_BLS: torch.Tensor) -> torch.Tensor:
        extended_BLS = self.extend(signal_BLS) if self.reach else signal_BLS
        # As a picture of one channel, whose rows are the leads.
        return functional.conv2d(extended_BLS[:, None], self.kernel)[:, 0]

    def extend(self, signal_BLS: torch.Tensor) -> torch.Tensor:
        """Mirror each record at both ends by the kernel's reach, as often as its length asks."""
        n_samples = signal_BLS.shape[-1]
        device = signal_BLS.device
        position_S = torch.arange(n_samples + 2 * self.reach, device=device) - self.reach
        period = 2 * (torch.scalar_tensor(n_samples, dtype=torch.int64, device=device) - 1)
        folded_S = position_S.remainder(period)
        mirrored_S = torch.minimum(folded_S, period - folded_S)
        extended_BLS = signal_BLS.index_select(-1, mirrored_S)
        if not self.is_point_mirror:
            return extended_BLS
        first_BL1, last_BL1 = signal_BLS[..., :1], signal_BLS[..., -1:]
        before = 2 * first_BL1 - extended_BLS
        after = 2 * last_BL1 - extended_BLS
        extended_BLS = torch.where(position_S < 0, before, extended_BLS)
        return torch.where(position_S >= n_samples, after, extended_BLS)


def filter_kernel(band: Band, fs: float) -> np.ndarray:
    """What `einthoven.signal.bandpass` makes of a single 1: ``(2 * reach + 1,)`` float32.

    >>> kernel = filter_kernel((0.5, 40.0), 100)
    >>> len(kernel) % 2, bool(abs(kernel.sum()) < 1e-6)
    (1, True)
    """
    low, high = band
    low_reach = 0.7 / low if low > 0 else 0.0
    high_reach = 3.3 / high if high < fs / 2 else 0.0
    reach = math.ceil((low_reach + high_reach) * fs) + 2 if low_reach or high_reach else 0
    impulse = np.zeros((1, 4 * reach + 1), np.float32)
    impulse[0, 2 * reach] = 1
    kernel = bandpass(impulse, fs, low, high)[0, reach : 3 * reach + 1].astype(np.float64)
    if low > 0:
        # A constant passes a high-pass as exactly nothing, whatever float32 makes of its sum.
        kernel -= kernel.mean()
    return kernel.astype(np.float32)


# Windows and crops ------------------------------------------------------------------------------


class OverlappingCrops(nn.Module):
    """All crops of all windows: ``(B, L, S)`` to ``(B * W * K, L, crop)``, and their valid samples.

    The starts are those of `einthoven.signal.window_starts` and
    `einthoven.inference.overlapping_starts`, in float64 and with ties to even as theirs.
    """

    def __init__(self, window: int, crop: int) -> None:
        super().__init__()
        self.window, self.crop = window, crop
        self.n_crops = count_crops(window, crop)

    def forward(self, microvolts_BLS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, n_leads, n_samples = microvolts_BLS.shape
        device = microvolts_BLS.device
        n_windows = (n_samples + self.window - 1) // self.window
        length = torch.scalar_tensor(n_samples, dtype=torch.int64, device=device)
        n_valid = length.clamp(max=self.window)
        window_step = even_step(length - self.window, (length - 1) // self.window)
        crop_step = even_step(n_valid - self.crop, self.n_crops - 1)
        # Counted in one row: torch.export takes an axis that may have length 1, as that of the
        # windows, for another program than all others.
        count = torch.arange(n_windows * self.n_crops * self.crop, device=device)
        of_row = count // self.crop
        first = spaced(of_row // self.n_crops, window_step)
        first = first + spaced(of_row % self.n_crops, crop_step)
        # Zeros behind the record are what fills a window that it does not.
        padded_BLS = functional.pad(microvolts_BLS, (0, self.window))
        crops_BLS = padded_BLS.index_select(-1, first + count % self.crop)
        crops_BLNS = crops_BLS.reshape(batch, n_leads, -1, self.crop)
        crops_NLS = crops_BLNS.transpose(1, 2).reshape(-1, n_leads, self.crop)
        number = torch.arange(batch * n_windows * self.n_crops, device=device) % self.n_crops
        recorded = (n_valid - spaced(number, crop_step)).clamp(min=0, max=self.crop)
        return crops_NLS, recorded


def even_step(slack: torch.Tensor, n_steps: torch.Tensor | int) -> torch.Tensor:
    """The distance of ``n_steps + 1`` starts from 0 to ``slack`` (0 where negative), float64."""
    steps = n_steps.clamp(min=1).double() if isinstance(n_steps, torch.Tensor) else max(n_steps, 1)
    return slack.clamp(min=0).double() / steps


def spaced(number: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The whole samples nearest to multiples of a step, ties to even."""
    return (number.double() * step).round().long()


# Calibration ------------------------------------------------------------------------------------


class CalibrationMap(nn.Module):
    """`Calibration.apply` on tensors: ``(B, C)`` raw to calibrated probabilities, float32.

    In float64, as there: a probability near 1 has its odds in the last digits.
    """

    slope: torch.Tensor
    bias: torch.Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.method = calibration.method
        self.register_buffer("slope", torch.from_numpy(calibration.slope.astype(np.float64)))
        self.register_buffer("bias", torch.from_numpy(calibration.bias.astype(np.float64)))

    def forward(self, raw_BC: torch.Tensor) -> torch.Tensor:
        if self.method == "none":
            return raw_BC.clone()
        inside_BC = raw_BC.double().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
        if self.method == "platt":
            logits_BC = inside_BC.log() - (1 - inside_BC).log()
            return (self.slope * logits_BC + self.bias).sigmoid().float()
        return (self.slope * inside_BC.log() + self.bias).softmax(-1).float()
