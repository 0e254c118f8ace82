"""``einthoven explain``: one file, drawn and written with what carried the answer."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from einthoven.checkpoint import load_trained_model
from einthoven.errors import ConfigError
from einthoven.explain.explanation import ExplainMethod, draw_explanation, explain_sample
from einthoven.figures.saving import write_figure
from einthoven.files import write_json
from einthoven.formats.hints import ReadingHints
from einthoven.inference import choose_device
from einthoven.settings import Settings


def explain_file(
    settings: Settings,
    path: Path,
    hints: ReadingHints,
    *,
    model_path: Path | None = None,
    label: str | None = None,
    method: str = "integrated_gradients",
    json_path: Path | None = None,
    plot_path: Path | None = None,
) -> str:
    """Explain a file's prediction; draw it, and write it as JSON where asked; returns it in words.

    Args:
        label: to explain; the likeliest that is decided where None.
        plot_path: by default ``<name>_explained.png`` in the current folder.

    Raises:
        RecordError: the file cannot be read.
        CheckpointError, ConfigError: as `load_trained_model` and `explain_sample`.
    """
    model = model_path or settings.workspace.best_model_path
    if model.suffix.lower() == ".onnx":
        raise ConfigError(
            f"{model} is an exported model, which has no gradients; explain with best_model.pth"
        )
    trained = load_trained_model(model, choose_device(settings.device))
    trained = trained.with_rule(settings.threshold_rule)
    recording = hints.read(path)
    explanation = explain_sample(
        trained, recording.signal, recording.fs, recording.leads, label,
        cast(ExplainMethod, method),
    )  # fmt: skip
    drawn = plot_path or Path(f"{path.stem}_explained.png")
    write_figure(draw_explanation(explanation, path.name), drawn)
    if json_path is not None:
        write_json(json_path, {"path": path.as_posix(), **explanation.values()})
    said = explanation.prediction
    decided = "decided" if explanation.label in said.decisions else "not decided"
    first = (
        f"{explanation.label}: probability {said.probabilities[explanation.label]:.3f}, {decided}"
    )
    return "\n".join([first, *explanation.summary(), *explanation.remarks, str(drawn)])
