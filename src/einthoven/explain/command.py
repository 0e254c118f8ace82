"""``einthoven explain``: one file, drawn and written with what carried the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from einthoven.explain.explanation import (
    ExplainMethod,
    Explanation,
    draw_explanation,
    explain_sample,
)
from einthoven.figures.saving import write_figure
from einthoven.files import write_json
from einthoven.formats.hints import ReadingHints
from einthoven.outputs import check_outputs, shown_path
from einthoven.prediction import load_best_model


def explain_file(
    model_path: Path,
    path: Path,
    hints: ReadingHints,
    *,
    device: str = "auto",
    rule: str | None = None,
    label: str | None = None,
    method: str = "integrated_gradients",
    json_path: Path | None = None,
    plot_path: Path | None = None,
) -> str:
    """Explain a file's prediction; draw it, and write it as JSON where asked; returns it in words.

    Args:
        model_path: of a trained model; an exported one has no gradients.
        rule: of thresholds; None for that of the file.
        label: to explain; the likeliest that is decided where None.
        plot_path: by default ``<name>_explained.png`` in the current folder.

    Raises:
        RecordError: the file cannot be read.
        CheckpointError, ConfigError: as `load_best_model` and `explain_sample`.
    """
    drawn = plot_path or Path(f"{path.stem}_explained.png")
    check_outputs(
        {"--json": (json_path, (".json",)), "--plot": (drawn, (".png",))}, (path, model_path)
    )
    trained = load_best_model(model_path, device, rule)
    recording = hints.read(path)
    explanation = explain_sample(
        trained, recording.signal, recording.fs, recording.leads, label,
        cast(ExplainMethod, method),
    )  # fmt: skip
    explanation = _with_remarks(explanation, recording.remarks)
    write_figure(draw_explanation(explanation, shown_path(Path(path.name))), drawn)
    if json_path is not None:
        write_json(json_path, {"path": shown_path(path), **explanation.values()})
    said = explanation.prediction
    decided = "decided" if explanation.label in said.decisions else "not decided"
    first = (
        f"{explanation.label}: probability {said.probabilities[explanation.label]:.3f}, {decided}"
    )
    warnings = (*explanation.remarks, *said.sample.warnings)
    return "\n".join([first, *explanation.summary(), *warnings, shown_path(drawn)])


def _with_remarks(explanation: Explanation, remarks: tuple[str, ...]) -> Explanation:
    """What the reader had to assume goes before what is doubtful about the signal."""
    said = explanation.prediction
    sample = replace(said.sample, warnings=(*remarks, *said.sample.warnings))
    return replace(explanation, prediction=replace(said, sample=sample))
