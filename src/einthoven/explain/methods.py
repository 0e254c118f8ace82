"""Three ways to say which samples of a crop a model's answer hangs on; captum does the sums.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks" (ICML 2017, arXiv:1703.01365);
Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization"
(ICCV 2017, arXiv:1610.02391); Zeiler and Fergus, "Visualizing and understanding convolutional
networks" (ECCV 2014, arXiv:1311.2901), for occlusion.

The baseline, and what occlusion puts in place of the signal, is zero after standardisation: a
lead's own mean, which is what an absent lead is for the model too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from einthoven.errors import ConfigError
from einthoven.models.resnet1d_views import ResNet1dViews

# Of integrated gradients: steps that are tried first, and doubled while the sum is farther from
# what it must be than either tolerance, in log-odds and as a share of it.
FIRST_STEPS = 50
MOST_STEPS = 400
SUM_TOLERANCE = 0.05
SUM_TOLERANCE_SHARE = 0.02

OCCLUDED_S = 0.2

# Bounds the memory of a pass: 64 crops of 2.5 s at 100 Hz.
SAMPLES_PER_EXPLAINING_PASS = 16_000


@dataclass(frozen=True)
class CropAttribution:
    """What a crop's samples contribute.

    Attributes:
        values: ``(12, S)`` float32 log-odds, on the CPU.
        difference: of the log-odds from those of the baseline; only integrated gradients give it.
        n_steps: of integrated gradients.
    """

    values: torch.Tensor
    difference: float = 0.0
    n_steps: int = 0


class LabelLogOdds(nn.Module):
    """A network's log-odds of one label before calibration: ``(B, L, S)`` to ``(B,)``.

    With several labels per record that is the label's logit; with exactly one, the logit minus the
    logarithm of the summed exponentials of the others, because a number added to all logits changes
    no probability.
    """

    def __init__(self, network: nn.Module, label_number: int, single: bool) -> None:
        super().__init__()
        self.network = network
        self.label_number = label_number
        self.single = single

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.network(x_BLS)
        log_odds_B = logits_BC[:, self.label_number]
        if self.single:
            others = [k for k in range(logits_BC.shape[1]) if k != self.label_number]
            log_odds_B = log_odds_B - logits_BC[:, others].logsumexp(dim=1)
        return log_odds_B


def import_captum() -> Any:
    """captum's attribution methods.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise ConfigError(
            "explanations need captum, which is not installed: pip install 'einthoven[explain]'"
        ) from error
    return captum.attr


@contextlib.contextmanager
def repeatable_gradients(network: nn.Module) -> Iterator[None]:
    """Within it gradients are on, and the same for the same input."""
    # cuDNN has no gradient of a recurrent layer in evaluation; torch's own kernels have.
    is_recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.backends.cudnn.flags(
            enabled=not is_recurrent, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        yield


def _crops_per_pass(x_BLS: torch.Tensor) -> int:
    return max(1, SAMPLES_PER_EXPLAINING_PASS // x_BLS.shape[-1])


@torch.no_grad()
def _difference_from_baseline(explained: LabelLogOdds, x_BLS: torch.Tensor) -> float:
    log_odds = explained(torch.cat([x_BLS, torch.zeros_like(x_BLS)]))
    return float(log_odds[0] - log_odds[1])


# The methods -------------------------------------------------------------------------------------


def integrated_gradients(explained: LabelLogOdds, x_BLS: torch.Tensor, fs: int) -> CropAttribution:
    """Gradients along the straight way from zero to a crop, times the crop.

    They sum to the difference of the log-odds, as far as the steps are fine enough.

    Args:
        x_BLS: ``(1, 12, S)`` standardised.
        fs: hertz; without effect here.
    """
    attributor = import_captum().IntegratedGradients(explained)
    difference = _difference_from_baseline(explained, x_BLS)
    allowed = max(SUM_TOLERANCE, SUM_TOLERANCE_SHARE * abs(difference))
    n_steps = FIRST_STEPS
    while True:
        found = attributor.attribute(
            x_BLS, baselines=0.0, n_steps=n_steps, internal_batch_size=_crops_per_pass(x_BLS)
        )
        # The spread of a lead that is flat has no gradient; what times zero is taken is zero.
        values = found.detach().where(x_BLS != 0, 0.0)[0]
        if abs(float(values.double().sum()) - difference) <= allowed or n_steps >= MOST_STEPS:
            return CropAttribution(values.cpu(), difference, n_steps)
        n_steps *= 2


def occlusion(explained: LabelLogOdds, x_BLS: torch.Tensor, fs: int) -> CropAttribution:
    """How much the log-odds fall when 0.2 s of one lead are zero, spread evenly over the 0.2 s.

    Args:
        x_BLS: ``(1, 12, S)`` standardised.
        fs: hertz.
    """
    n_samples = x_BLS.shape[-1]
    width = min(n_samples, max(1, round(OCCLUDED_S * fs)))
    with torch.no_grad():
        falls = import_captum().Occlusion(explained).attribute(
            x_BLS, (1, width), strides=(1, width), baselines=0.0,
            perturbations_per_eval=_crops_per_pass(x_BLS),
        )  # fmt: skip
    widths = torch.full((n_samples,), width, device=x_BLS.device)
    left_over = n_samples % width
    if left_over:
        widths[-left_over:] = left_over
    return CropAttribution((falls[0] / widths).float().cpu())


def grad_cam(explained: LabelLogOdds, x_BLS: torch.Tensor, fs: int) -> CropAttribution:
    """Features of the last convolutional map, weighted by their mean gradient, over time.

    It has no leads: every lead that is not flat gets an equal part. It keeps its sign. Of a network
    with members, the maps of all members are added; each is the gradient of the mean of their
    logits, and each is divided by its samples' length in time, so that they have one unit.

    Args:
        x_BLS: ``(1, 12, S)`` standardised.
        fs: hertz; without effect here.

    Raises:
        ConfigError: the network has no such map.
    """
    captum_attr = import_captum()
    n_samples = x_BLS.shape[-1]
    over_time_S = torch.zeros(n_samples, device=x_BLS.device)
    for layer in feature_map_layers(explained.network, x_BLS):
        found = captum_attr.LayerGradCam(explained, layer).attribute(x_BLS).detach()
        # Two-dimensional maps have rows of leads, whose order means nothing after convolutions.
        map_11S = found.sum(2) if found.ndim == 4 else found
        # Odd kernels that are padded on both sides: the first and last samples of both are aligned.
        long_11S = functional.interpolate(map_11S, n_samples, mode="linear", align_corners=True)
        over_time_S += long_11S[0, 0] * (map_11S.shape[-1] / n_samples)
    varies_L = (x_BLS[0] != 0).any(dim=-1)
    share_L = varies_L / varies_L.sum().clamp(min=1)
    return CropAttribution((share_L[:, None] * over_time_S).cpu())


CropExplainer = Callable[[LabelLogOdds, torch.Tensor, int], CropAttribution]

CROP_EXPLAINERS: dict[str, CropExplainer] = {
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
    "occlusion": occlusion,
}


# The last convolutional map ----------------------------------------------------------------------


def feature_map_layers(network: nn.Module, x_BLS: torch.Tensor) -> list[nn.Module]:
    """The layers whose output is the last convolutional map: one, or one of each member.

    Raises:
        ConfigError: there is none, because what the network sees over time it sees otherwise.
    """
    if isinstance(network, ResNet1dViews):
        layers = [_last_feature_map(member, x_BLS) for member in network.members]
    else:
        layers = [_last_feature_map(network, x_BLS)]
    found = [layer for layer in layers if layer is not None]
    if len(found) < len(layers):
        raise ConfigError(
            f"grad_cam needs a map that convolutions over time have made layer by layer, and "
            f"{type(network).__name__} has none; use integrated_gradients or occlusion"
        )
    return found


def _last_feature_map(network: nn.Module, x_BLS: torch.Tensor) -> nn.Module | None:
    """The last layer to finish that holds convolutions over time and whose output has time.

    A map of the first convolution is only a filtered signal; at least two must lie behind it.
    """
    n_convolutions = 0
    last: nn.Module | None = None

    def note(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal n_convolutions, last
        n_convolutions += _is_over_time(module)
        if n_convolutions >= 2 and output.ndim >= 3 and output.shape[-1] > 1:
            last = module

    holders = [
        module
        for module in network.modules()
        if module is not network and any(_is_over_time(part) for part in module.modules())
    ]
    handles = [module.register_forward_hook(note) for module in holders]
    try:
        with torch.no_grad():
            network(x_BLS)
    finally:
        for handle in handles:
            handle.remove()
    return last


def _is_over_time(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d) and module.kernel_size[-1] > 1
