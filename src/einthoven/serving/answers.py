"""What the service says: of a recording, of its model, of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einthoven import __version__
from einthoven.checkpoint import TrainedModel
from einthoven.errors import DataError
from einthoven.files import file_digest, read_json
from einthoven.formats.detection import FILE_FORMATS
from einthoven.labels.scp import SCP_STATEMENTS
from einthoven.labels.snomed import CHALLENGE_2021, SNOMED
from einthoven.prediction import SamplePrediction
from einthoven.quality import fill_missing
from einthoven.records import LEADS, lead_name, standard_leads
from einthoven.serving.limits import ServingLimits
from einthoven.serving.readers import ReadSignal
from einthoven.version import DISCLAIMER

# So many samples, of all leads, are given back to be drawn: 100 s of twelve leads at 500 Hz.
MOST_VALUES_SHOWN = 600_000

# Wagner et al. 2020 (doi:10.1038/s41597-020-0495-6), table 5, and ours for the label set five.
_GROUP_TITLES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
    "AF": "atrial fibrillation or flutter",
    "BBB": "bundle branch block",
    "OTHER": "another finding",
}


def label_titles(labels: Sequence[str]) -> dict[str, str]:
    """What the labels stand for, of those that are known by an abbreviation."""
    scp = {statement.code: statement.description for statement in SCP_STATEMENTS}
    challenge = {short: name for code, (short, name) in SNOMED.items() if code in CHALLENGE_2021}
    titles = challenge | scp | _GROUP_TITLES
    return {label: titles[label] for label in labels if label in titles}


# A recording ------------------------------------------------------------------------------------


def prediction_answer(
    prediction: SamplePrediction, read: ReadSignal, trained: TrainedModel, model: str
) -> dict[str, Any]:
    """What ``/predict`` says; `PredictAnswer` describes it."""
    return {
        **prediction.values(),
        "threshold_rule": "likeliest" if trained.single else trained.threshold_rule,
        "format": read.format,
        "remarks": list(read.remarks),
        "model": model,
    }


def shown_signal(read: ReadSignal) -> dict[str, Any]:
    """The recording in standard order with its computed leads; `ShownSignal` describes it."""
    ordered, present = standard_leads(np.array(read.signal, np.float32), read.leads)
    _, now_present, _ = fill_missing(ordered, present)
    rows = np.flatnonzero(now_present)
    n_samples = min(ordered.shape[1], MOST_VALUES_SHOWN // max(1, len(rows)))
    recorded = {lead_name(written) for written in read.leads}
    names = [LEADS[row] for row in rows]
    return {
        "fs": read.fs,
        "leads": names,
        "computed": [name for name in names if name not in recorded],
        "microvolts": [_whole_microvolts(ordered[row, :n_samples]) for row in rows],
        "seconds": n_samples / read.fs,
    }


def _whole_microvolts(row: np.ndarray) -> list[int | None]:
    is_there = np.isfinite(row)
    whole = np.rint(np.where(is_there, row, 0) * 1000.0).astype(np.int64).tolist()
    if is_there.all():
        return list(whole)
    return [value if there else None for value, there in zip(whole, is_there, strict=True)]


# The model --------------------------------------------------------------------------------------


def model_metadata(
    trained: TrainedModel, model_path: Path, limits: ServingLimits, methods: Sequence[str]
) -> dict[str, Any]:
    """What ``/metadata`` says; nothing in it tells where the model's file lies."""
    model = file_digest(model_path)
    calibration = trained.calibration
    return {
        "disclaimer": DISCLAIMER,
        "model": model,
        "model_name": trained.facts.get("model_name"),
        "label_set": Path(str(trained.facts.get("label_set", ""))).stem,
        "labels": list(trained.labels),
        "titles": label_titles(trained.labels),
        "task": "single" if trained.single else "multi",
        "leads": list(LEADS),
        "fs": trained.fs,
        "units": "mV",
        "window_seconds": trained.window / trained.fs,
        "bandpass": list(trained.input.bandpass) if trained.input.bandpass else None,
        "threshold_rule": "likeliest" if trained.single else trained.threshold_rule,
        "thresholds": trained.thresholds,
        "conformal_coverages": list(trained.conformal),
        "calibration": {
            "method": calibration.method,
            "n": calibration.n,
            "n_patient_groups": calibration.n_patient_groups,
            "positives": dict(zip(trained.labels, calibration.positives.tolist(), strict=True)),
            "pooled": list(calibration.pooled),
            "reason": calibration.reason,
        },
        "scores": test_scores(model_path, model),
        "methods": list(methods),
        "formats": {name: one.title for name, one in FILE_FORMATS.items()},
        "max_bytes": limits.max_bytes,
        "versions": {"einthoven": __version__, "model": trained.facts.get("versions", {})},
    }


def test_scores(model_path: Path, model: str) -> dict[str, Any] | None:
    """Headline and per-class AUROC of the test split; None where this model has not been scored.

    Args:
        model: the digest of the model's file; scores of another model beside it are not shown.
    """
    path = model_path.with_name("test_metrics.json")
    if not path.is_file():
        return None
    try:
        metrics = read_json(path)
        if metrics.get("model") != model:
            return None
        headline = metrics["headline"]
        return {
            "split": "test",
            "n": metrics["n"],
            "n_patient_groups": metrics["n_patient_groups"],
            "interval": metrics["interval"],
            "how": headline.get("how"),
            "support": metrics.get("support"),
            "headline": plain_figures(
                {
                    "macro AUROC": headline["auroc"]["macro"],
                    "macro F1": headline["f1"]["macro"],
                }
            ),
            "auroc": plain_figures(metrics["auroc"]["per_class"]),
        }
    except (DataError, KeyError, TypeError, ValueError):
        return None


def plain_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Value, interval and count of scores; None where a score does not exist."""
    return {name: _plain_figure(figure) for name, figure in figures.items()}


def _plain_figure(figure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not figure or figure.get("value") is None:
        return None
    told = {name: figure.get(name) for name in ("value", "low", "high", "n")}
    is_number = [value is None or math.isfinite(value) for value in told.values()]
    return told if all(is_number) else None
