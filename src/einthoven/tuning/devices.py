"""What the trials of a search train on, as far as their scores depend on it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from einthoven.errors import ConfigError
from einthoven.inference import choose_device
from einthoven.runs import arithmetic
from einthoven.settings import Settings


@dataclass(frozen=True)
class TrialDevice:
    """Where a trial trains. Two are equal when the same settings score alike on them.

    Attributes:
        kind: ``cpu``, ``cuda`` or ``mps``, which decides the setting of the batch size.
        arithmetic: number type of the forward pass.
        model: of the device, for people.
        host: the machine it is in, for people.
    """

    kind: str
    arithmetic: str
    model: str = field(default="", compare=False)
    host: str = field(default="", compare=False)

    @property
    def torch_device(self) -> torch.device:
        """For what depends on the kind alone; this machine need not have such a device."""
        return torch.device(self.kind)


def device_here(settings: Settings) -> TrialDevice:
    """What a trial of this process trains on.

    Raises:
        ConfigError: this machine has no device such as ``DEVICE`` names.
    """
    device = choose_device(settings.device)
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return TrialDevice(device.type, str(arithmetic(settings, device)), model, platform.node())


def common_device(found: Sequence[TrialDevice]) -> TrialDevice:
    """The device of all machines; models may differ where the arithmetic does not.

    Args:
        found: one at least.

    Raises:
        ConfigError: a score would depend on the machine that a trial comes to.
    """
    if len(set(found)) == 1:
        return found[0]
    lines = "\n".join(f"  {device.host}: {device_in_words(device)}" for device in found)
    if len({device.kind for device in found}) > 1:
        advice = "use DEVICE=cpu, or a cluster of machines of one kind"
    else:
        advice = "set MIXED_PRECISION to fp16 or off, so that all of them calculate alike"
    raise ConfigError(
        "the cluster's machines would train differently, so that the scores of a search could not "
        f"be held against each other:\n{lines}\n{advice[0].upper()}{advice[1:]}"
    )


def device_in_words(device: TrialDevice) -> str:
    """A device for people.

    >>> device_in_words(TrialDevice("cuda", "torch.bfloat16", "NVIDIA A100"))
    'cuda (NVIDIA A100) in bfloat16'
    """
    model = f" ({device.model})" if device.model else ""
    return f"{device.kind}{model} in {device.arithmetic.removeprefix('torch.')}"


def refuse_other_device(wanted: TrialDevice, here: TrialDevice) -> None:
    """Refuse a machine that has joined a cluster since its search was begun, and is another kind.

    Raises:
        ConfigError: its trials' scores would be of another kind too.
    """
    if wanted != here:
        raise ConfigError(
            f"machine {here.host} trains on {device_in_words(here)}, and the search was begun for "
            f"{device_in_words(wanted)}; use a cluster of machines of one kind, or set DEVICE or "
            "MIXED_PRECISION so that all of them calculate alike"
        )
