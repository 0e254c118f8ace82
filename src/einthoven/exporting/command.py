"""``einthoven export``: a run's model, checked on its own test records where they are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from einthoven.exporting.formats import ExportFormat
from einthoven.exporting.writing import export_model, pick_check_signals
from einthoven.files import file_digest
from einthoven.outputs import check_outputs
from einthoven.prediction import load_best_model
from einthoven.settings import Settings
from einthoven.version import DISCLAIMER

EXPORT_SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2"}


def export_trained(
    settings: Settings,
    format: str,
    model_path: Path | None,
    output: Path | None,
    int8: bool,
    rule: str | None = None,
) -> dict[str, Any]:
    """Export this run's best model, or another model file.

    Args:
        format: a key of `EXPORT_SUFFIXES`.
        output: where to; by default beside the model, under its name.
        rule: of thresholds; None for that of the model file.

    Raises:
        CheckpointError, ConfigError, ExportError: as `load_best_model` and `export_model`.
    """
    path = model_path or settings.workspace.best_model_path
    check_outputs({"--output": (output, tuple(EXPORT_SUFFIXES.values()))}, (path,))
    trained = load_best_model(path, settings.device, rule)
    suffix = (".int8" if int8 else "") + EXPORT_SUFFIXES[format]
    # int8 takes its ranges from these signals, which must not be the test split's.
    signals = pick_check_signals(trained, settings.workspace, "train" if int8 else "test")
    report = export_model(
        trained, output or path.with_suffix(suffix), cast(ExportFormat, format), signals, int8,
        file_digest(path),
    )  # fmt: skip
    is_stored = (
        settings.workspace.manifest_path.exists() and settings.workspace.splits_path.exists()
    )
    return report | {"checked_on": "records of this workspace" if is_stored else "synthetic ECGs"}


def export_summary(report: Mapping[str, Any]) -> str:
    """What was written, and how far it answers as the model does."""
    check = report["check"]
    return (
        f"{report['path']} ({report['megabytes']:.1f} MB, {report['precision']}): probabilities "
        f"differ from PyTorch's by {check['largest_difference']:.1e} at most, "
        f"{check['equal_decisions']:,} of {check['n_decisions']:,} decisions are the same, on "
        f"{check['n_signals']} signals ({report['checked_on']}, and pieces of them). {DISCLAIMER}"
    )
