"""Checkpoints and the model file: tensors and plain values, whole or not at all.

``best_model.pth`` alone is enough to predict: beside the weights it holds architecture, labels,
leads, sampling rate, window, preprocessing, calibration, thresholds, settings, data fingerprint
and versions.
Files load with ``weights_only=True``, so that opening one from a stranger runs no code.
"""

from __future__ import annotations

import pickle
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from einthoven.batches import standardize_batch
from einthoven.calibration.maps import Calibration, calibration_from_values, no_calibration
from einthoven.errors import CheckpointError, ConfigError
from einthoven.files import atomic_path, sync_file
from einthoven.metrics import DEFAULT_THRESHOLD
from einthoven.models.registry import build_model
from einthoven.records import LEADS
from einthoven.version import __version__

MODEL_FORMAT = 2
# What `einthoven export` writes has one of these suffixes.
EXPORT_FORMS = (".onnx", ".pt", ".ts", ".pt2")
# Without these a file cannot predict.
MODEL_KEYS = (
    "model_name", "model_arguments", "weights", "labels", "single", "fs", "window", "crop",
    "bandpass", "standardize", "scale", "calibration", "thresholds", "threshold_rule", "conformal",
)  # fmt: skip


@dataclass(frozen=True)
class ModelInput:
    """What a model sees of a record.

    Attributes:
        fs: hertz.
        window: samples of a window; longer records are several windows.
        crop: samples that the model sees at once; predictions of overlapping crops are averaged.
        bandpass: edges in hertz that records were filtered with, or None.
        standardize: how leads are standardised; see `standardize_batch`.
        scale: ``(12,)`` millivolts, the spread of each lead over the training split.
    """

    fs: int
    window: int
    crop: int
    bandpass: tuple[float, float] | None
    standardize: str
    scale: torch.Tensor

    def prepare(self, signal: torch.Tensor, n_valid: torch.Tensor) -> torch.Tensor:
        """``(B, 12, S)`` microvolts to standardised float32 on the same device."""
        return standardize_batch(signal, n_valid, self.standardize, self.scale.to(signal.device))


@dataclass
class TrainedModel:
    """A model with all that is needed to predict.

    Attributes:
        model: in evaluation mode, on ``device``.
        labels: one per logit.
        single: whether a record has exactly one label.
        calibration: from the network's probabilities to calibrated ones.
        threshold_sets: rule to the calibrated probabilities from which labels are decided; empty
            where single, or where nothing was left to tune them on.
        threshold_rule: the rule that is in use.
        conformal: stated coverage to label to the network's probability from which it is in a set.
        facts: everything else that the file holds: settings, data fingerprint, versions, epoch.
    """

    model: nn.Module
    input: ModelInput
    labels: tuple[str, ...]
    single: bool
    calibration: Calibration
    threshold_sets: dict[str, dict[str, float]]
    threshold_rule: str
    conformal: dict[str, dict[str, float]]
    device: torch.device
    facts: dict[str, Any]

    @property
    def fs(self) -> int:
        return self.input.fs

    @property
    def window(self) -> int:
        return self.input.window

    @property
    def thresholds(self) -> dict[str, float]:
        """From which calibrated probability each label is decided; empty where single."""
        if self.single:
            return {}
        return dict.fromkeys(self.labels, DEFAULT_THRESHOLD) | self.threshold_sets.get(
            self.threshold_rule, {}
        )

    def with_rule(self, rule: str) -> TrainedModel:
        """The same model, deciding by another rule.

        Raises:
            ConfigError: its file has no thresholds of this rule.
        """
        if self.threshold_sets and rule not in self.threshold_sets:
            raise ConfigError(
                f"THRESHOLD_RULE is {rule}, and the model has thresholds for "
                f"{', '.join(self.threshold_sets)}"
                + (
                    "; the Challenge's score is for its own 26 classes"
                    if rule == "challenge_score"
                    else ""
                )
            )
        return replace(self, threshold_rule=rule)


# Files ------------------------------------------------------------------------------------------


def write_checkpoint(
    path: Path, values: Mapping[str, Any], previous_path: Path | None = None
) -> None:
    """Write tensors and plain values, whole or not at all.

    Args:
        previous_path: where the file that is replaced goes, once the new one has been read back.
    """
    with atomic_path(path) as beside:
        try:
            torch.save(dict(values), beside)
        except RuntimeError as error:
            # What torch makes of a full disk.
            first_line = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{path} cannot be written ({first_line}); is the disk full?"
            ) from error
        read_checkpoint(beside)
        if previous_path and path.exists():
            sync_file(beside)
            path.replace(previous_path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, onto the CPU.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; `einthoven train` writes it")
    try:
        # A flipped bit in a weight is nothing that torch.load would notice.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} does not fit its checksum")
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError, OSError, EOFError, ValueError, NotImplementedError, pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        if path.suffix.lower() in EXPORT_FORMS:
            raise CheckpointError(
                f"{path} is an exported model; this needs best_model.pth, as `einthoven train` "
                "writes it"
            ) from error
        # What torch says of a stranger's file is how to load it all the same.
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            why = "it holds more than tensors and plain values"
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of ours ({why}); where a run wrote it, that run "
            "can start over with --fresh"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no checkpoint; start over with --fresh")
    return values


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {
        "einthoven": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine that a result was made on."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "device": str(device),
        "name": name,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


# The model file ---------------------------------------------------------------------------------


def model_values(
    model_name: str,
    model: nn.Module,
    model_input: ModelInput,
    labels: tuple[str, ...],
    single: bool,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that ``best_model.pth`` holds; `load_trained_model` reads it.

    Args:
        model: the one to predict with, averaged weights where there are any.
        facts: what the file says of how the model came to be.
    """
    return {
        "format": MODEL_FORMAT,
        "model_name": model_name,
        "model_arguments": {"n_leads": len(LEADS), "n_classes": len(labels)},
        "weights": model.state_dict(),
        "leads": list(LEADS),
        "labels": list(labels),
        "single": single,
        "fs": model_input.fs,
        "window": model_input.window,
        "crop": model_input.crop,
        "bandpass": list(model_input.bandpass) if model_input.bandpass else None,
        "standardize": model_input.standardize,
        "scale": model_input.scale.cpu(),
        # The end of the training settles these; until then the model is not calibrated.
        "calibration": no_calibration(labels, "the training has not been finished").values(),
        "thresholds": {},
        "threshold_rule": "best_f1",
        "conformal": {},
        "versions": versions(),
        **facts,
    }


def load_trained_model(path: Path, device: torch.device) -> TrainedModel:
    """Load a model file, ready to predict.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    values = read_checkpoint(path)
    if values.get("format") != MODEL_FORMAT:
        raise CheckpointError(
            f"{path} has model format {values.get('format')}; this version reads {MODEL_FORMAT}. "
            "Train again, or use the version that wrote it"
        )
    absent = [name for name in MODEL_KEYS if name not in values]
    if absent:
        raise CheckpointError(f"{path} is no whole model file: it lacks {', '.join(absent)}")
    model = build_model(values["model_name"], **values["model_arguments"])
    model.load_state_dict(values.pop("weights"))
    values.pop("raw_weights", None)
    band = values["bandpass"]
    return TrainedModel(
        model=model.to(device).eval(),
        input=ModelInput(
            fs=values["fs"],
            window=values["window"],
            crop=values["crop"],
            bandpass=(band[0], band[1]) if band else None,
            standardize=values["standardize"],
            scale=values["scale"],
        ),
        labels=tuple(values["labels"]),
        single=values["single"],
        calibration=calibration_from_values(values["calibration"]),
        threshold_sets=values["thresholds"],
        threshold_rule=values["threshold_rule"],
        conformal=values["conformal"],
        device=device,
        facts=values,
    )
