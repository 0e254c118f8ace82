"""What an exported model says of itself, so that its file alone is enough to use it.

Plain values under fixed names; in an ONNX file each is a metadata property in JSON, in the other
formats all are one JSON file beside the graph. Nothing tells where records or files lay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from einthoven.checkpoint import ModelInput, TrainedModel, versions
from einthoven.errors import CheckpointError
from einthoven.records import LEADS
from einthoven.version import DISCLAIMER

EXPORT_FORMAT = 1

INPUT_CONTRACT = (
    "float32 (batch, 12, samples): millivolts at fs, leads in the order of `leads`, absent ones "
    "zero, no NaN; all records of a batch have one length, 2 samples or more. A record shorter "
    "than a window is filled with zeros at its end, a longer one is cut into windows"
)
OUTPUT_CONTRACT = {
    "probabilities": "float32 (batch, labels): calibrated",
    "decisions": "uint8 (batch, labels): 1 from the thresholds on; single: the likeliest alone",
    "raw_probabilities": "float32 (batch, labels): before calibration; `conformal` is in these",
}


def exported_facts(trained: TrainedModel, precision: str, model_digest: str) -> dict[str, Any]:
    """What a file made of this model says.

    Args:
        precision: ``float32`` or ``int8``.
        model_digest: of the model file; empty where it is not known.
    """
    taken = trained.input
    return {
        "einthoven_export_format": EXPORT_FORMAT,
        "disclaimer": DISCLAIMER,
        "input": INPUT_CONTRACT,
        "outputs": OUTPUT_CONTRACT,
        "labels": list(trained.labels),
        "label_set": str(trained.facts.get("label_set", "")),
        "task": "single" if trained.single else "multi",
        "leads": list(LEADS),
        "fs": taken.fs,
        "units": "mV",
        "window": taken.window,
        "crop": taken.crop,
        "bandpass": list(taken.bandpass) if taken.bandpass else None,
        "standardize": taken.standardize,
        "scale": taken.scale.tolist(),
        "calibration": trained.calibration.values(),
        "thresholds": trained.thresholds,
        "threshold_rule": "likeliest" if trained.single else trained.threshold_rule,
        "conformal": trained.conformal,
        "precision": precision,
        "model_name": str(trained.facts.get("model_name", "")),
        "model_digest": model_digest,
        "weights_digest": weights_digest(trained.model),
        "data": str(trained.facts.get("data", "")),
        "trained_with": dict(trained.facts.get("versions", {})),
        "exported_with": versions(),
    }


def weights_digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that name a model's weights."""
    hashed = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        hashed.update(name.encode())
        hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def facts_as_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON."""
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def facts_from_text(texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """What `facts_as_text` made of them, checked.

    Args:
        where: the file, as messages name it.

    Raises:
        CheckpointError: it is no export of ours, or of another version.
    """
    found = texts.get("einthoven_export_format")
    if found is None:
        raise CheckpointError(
            f"{where} says nothing of its labels, leads and rate: it is no model that "
            "`einthoven export` wrote"
        )
    if found != str(EXPORT_FORMAT):
        raise CheckpointError(
            f"{where} has export format {found}; this version reads {EXPORT_FORMAT}. Export the "
            "model again, or use the version that wrote it"
        )
    try:
        facts = {name: json.loads(text) for name, text in texts.items()}
        _check_facts(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{where} is damaged: what it says of itself cannot be read "
            f"({type(error).__name__}: {error}); export the model again"
        ) from error
    return facts


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Raise what Python raises where a value is absent, or is not of its kind."""
    labels, taken = facts["labels"], model_input_of(facts)
    is_named = labels and all(isinstance(label, str) for label in labels)
    if not is_named or len(set(labels)) != len(labels):
        raise ValueError(f"labels are {labels}")
    if facts["leads"] != list(LEADS) or facts["units"] != "mV":
        raise ValueError(f"leads are {facts['leads']} in {facts['units']}")
    if not 0 < taken.crop <= taken.window or taken.fs <= 0:
        raise ValueError(f"crop {taken.crop}, window {taken.window}, fs {taken.fs}")
    if facts["task"] not in ("single", "multi"):
        raise ValueError(f"task is {facts['task']}")
    per_label = [facts["thresholds"]] if facts["task"] == "multi" else []
    for limits in (*per_label, *facts["conformal"].values()):
        if [float(limits[label]) for label in labels] and set(limits) != set(labels):
            raise ValueError(f"limits are of {', '.join(limits)}")


def model_input_of(facts: Mapping[str, Any]) -> ModelInput:
    """What the graph takes: records at its rate that are not filtered, which it does itself."""
    return ModelInput(
        fs=int(facts["fs"]),
        window=int(facts["window"]),
        crop=int(facts["crop"]),
        bandpass=None,
        standardize=str(facts["standardize"]),
        scale=torch.tensor(facts["scale"], dtype=torch.float32),
    )
