"""The architectures by name.

A model maps standardised leads ``(B, L, S)`` to one logit per class ``(B, C)``, for any number of
samples; an ensemble does so in evaluation, and in training gives those of each member,
``(B, M, C)``. To add one, write a module beside this one and a line in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from einthoven.errors import ConfigError
from einthoven.models.cnn2d import Cnn2d
from einthoven.models.convnext1d import ConvNext1d
from einthoven.models.crnn import Crnn
from einthoven.models.inception1d import Inception1d
from einthoven.models.patch_transformer import PatchTransformer
from einthoven.models.resnet1d import ResNet1d
from einthoven.models.resnet1d_views import ResNet1dViews
from einthoven.models.s4d import S4d
from einthoven.models.se_resnet1d import SeResNet1d
from einthoven.models.xresnet1d import xresnet1d50, xresnet1d101
from einthoven.settings import did_you_mean

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet1d_views": ResNet1dViews,
    "resnet1d_wang": ResNet1d,
    "xresnet1d50": xresnet1d50,
    "xresnet1d101": xresnet1d101,
    "inception1d": Inception1d,
    "se_resnet1d": SeResNet1d,
    "crnn": Crnn,
    "s4d": S4d,
    "convnext1d": ConvNext1d,
    "patch_transformer": PatchTransformer,
    "cnn2d": Cnn2d,
}


def build_model(name: str, *, n_leads: int, n_classes: int, **arguments: Any) -> nn.Module:
    """Build an architecture with fresh weights, drawn from torch's global generator.

    Raises:
        ConfigError: the name is not known.

    >>> model = build_model("resnet1d_wang", n_leads=12, n_classes=5)
    >>> sum(parameter.numel() for parameter in model.parameters())
    440837
    """
    if name not in MODELS:
        hint = did_you_mean(name, MODELS)
        raise ConfigError(f"model {name!r} is not known{hint or '.'} Known: {', '.join(MODELS)}")
    return MODELS[name](n_leads=n_leads, n_classes=n_classes, **arguments)
