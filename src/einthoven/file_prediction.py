"""``einthoven predict``: any number of files, one answer for each, a bad file no more than a row.

Files are found, read and answered in small groups, so that ten thousand need no more memory than
thirty. What is written is complete or not there.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einthoven.checkpoint import ModelInput
from einthoven.console import format_table, log, plural, progress
from einthoven.errors import ConfigError, DataError, RecordError
from einthoven.exporting.onnx_model import load_exported_model, predict_exported
from einthoven.figures.prediction import visualize_prediction_sample
from einthoven.figures.saving import write_figure
from einthoven.files import atomic_path
from einthoven.formats.hints import NO_HINTS, ReadingHints
from einthoven.formats.reading import find_recordings
from einthoven.outputs import check_outputs, shown_path
from einthoven.prediction import SamplePrediction, load_best_model, predict_prepared
from einthoven.samples import PreparedSample, prepare_sample
from einthoven.store import MICROVOLTS_PER_MILLIVOLT
from einthoven.version import DISCLAIMER

# Files that are read, then answered together; fewer where they are long.
FILES_PER_GROUP = 32
SAMPLES_PER_GROUP = 500_000

CSV_SUFFIXES = (".csv", ".tsv", ".txt")

# Without a file to write to, the terminal lists so many answers; more are counted.
MOST_ANSWERS_SHOWN = 20


@dataclass(frozen=True)
class Predictor:
    """What answers prepared signals: a model file of ours, or an exported one.

    Attributes:
        input: what it takes.
        labels: in its order.
        answer: from prepared signals to one prediction for each.
    """

    input: ModelInput
    labels: tuple[str, ...]
    answer: Callable[[Sequence[PreparedSample]], list[SamplePrediction]]


@dataclass(frozen=True)
class FileAnswer:
    """What came of one file: a prediction, or the reason why there is none.

    Attributes:
        path: as it was found.
        file_format: of the file; empty where it could not be read.
        remarks: what the reader had to assume.
    """

    path: Path
    prediction: SamplePrediction | None = None
    error: str = ""
    file_format: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader had to assume, and what is doubtful about the signal."""
        if self.prediction is None:
            return ()
        return (*self.remarks, *self.prediction.sample.warnings)

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        if self.prediction is None:
            return {"path": shown_path(self.path), "error": self.error}
        told = self.prediction.values()
        told["warnings"] = list(self.warnings)
        return {"path": shown_path(self.path), "format": self.file_format, **told}


@dataclass(frozen=True)
class PredictedFiles:
    """Counts of what `predict_files` did, and the first answers."""

    n_files: int
    n_errors: int
    n_warned: int
    first: tuple[FileAnswer, ...]


def open_predictor(path: Path, device: str, rule: str | None = None) -> Predictor:
    """What answers: a model file, or an exported one.

    Args:
        device: as the setting ``DEVICE``; an exported model computes on the CPU.
        rule: of thresholds; None for that of the file.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: ONNX Runtime is not installed, or the model has no thresholds of the rule.
    """
    if path.suffix.lower() == ".onnx":
        exported = load_exported_model(path)
        own = exported.facts["threshold_rule"]
        if rule not in (None, own) and not exported.single:
            raise ConfigError(
                f"{shown_path(path)} decides by rule {own}, which is part of its graph; export the "
                f"model again with --threshold-rule {rule}"
            )
        return Predictor(
            exported.input, exported.labels, lambda samples: predict_exported(exported, samples)
        )
    trained = load_best_model(path, device, rule)
    return Predictor(
        trained.input, trained.labels, lambda samples: predict_prepared(trained, samples)
    )


def predict_files(
    paths: Sequence[Path],
    predictor: Predictor,
    hints: ReadingHints = NO_HINTS,
    *,
    json_path: Path | None = None,
    csv_path: Path | None = None,
    plot_dir: Path | None = None,
) -> PredictedFiles:
    """Answer every recording among files and folders.

    Args:
        paths: files, or folders that are searched with everything below them.
        hints: for files that do not state their rate, units or leads.
        json_path, csv_path: where the answers are written, a row for each file.
        plot_dir: where each recording is drawn with its answer.

    Raises:
        DataError: a path is not there, or there is no recording at all.
    """
    absent = [path for path in paths if not path.exists()]
    if absent:
        raise DataError(f"{shown_path(absent[0])} is not there")
    outputs = {"--json": (json_path, (".json",)), "--csv": (csv_path, CSV_SUFFIXES)}
    check_outputs(outputs, paths)
    n_files = n_errors = n_warned = 0
    first: list[FileAnswer] = []
    with contextlib.ExitStack() as stack:
        writers = _open_writers(stack, predictor.labels, json_path, csv_path, plot_dir)
        found = find_recordings(paths)
        answers = answer_files(found, predictor, hints)
        for answer in progress(answers, desc="Predicting", unit="files"):
            n_files += 1
            n_errors += bool(answer.error)
            n_warned += bool(answer.warnings)
            if answer.error:
                log.warning("%s: %s", shown_path(answer.path), answer.error)
            if len(first) < MOST_ANSWERS_SHOWN:
                first.append(answer)
            for write in writers:
                write(answer)
        if not n_files:
            raise DataError(
                f"no recording in {', '.join(map(str, paths))}; docs/reference/formats.md lists "
                "what can be read"
            )
    return PredictedFiles(n_files, n_errors, n_warned, tuple(first))


def answer_files(
    paths: Iterable[Path], predictor: Predictor, hints: ReadingHints
) -> Iterator[FileAnswer]:
    """One answer for each file, in order; files are answered in groups."""
    group: list[_ReadFile] = []
    for path in paths:
        group.append(_read_file(path, predictor.input, hints))
        n_samples = sum(file.n_samples for file in group)
        if len(group) >= FILES_PER_GROUP or n_samples >= SAMPLES_PER_GROUP:
            yield from _answer_group(group, predictor)
            group = []
    yield from _answer_group(group, predictor)


@dataclass(frozen=True)
class _ReadFile:
    """A file as the model takes it, or the reason why not; the recording itself is let go."""

    path: Path
    sample: PreparedSample | None = None
    file_format: str = ""
    remarks: tuple[str, ...] = ()
    error: str = ""

    @property
    def n_samples(self) -> int:
        return 0 if self.sample is None else self.sample.microvolts.shape[1]


def _answer_group(group: Sequence[_ReadFile], predictor: Predictor) -> Iterator[FileAnswer]:
    samples = [file.sample for file in group if file.sample is not None]
    predictions = iter(predictor.answer(samples) if samples else [])
    for file in group:
        if file.sample is None:
            yield FileAnswer(file.path, error=file.error)
        else:
            yield FileAnswer(file.path, next(predictions), "", file.file_format, file.remarks)


def _read_file(path: Path, model_input: ModelInput, hints: ReadingHints) -> _ReadFile:
    try:
        recording = hints.read(path)
        sample = prepare_sample(recording.signal, recording.fs, recording.leads, model_input)
    except RecordError as error:
        return _ReadFile(path, error=str(error))
    except OSError as error:
        return _ReadFile(path, error=error.strerror or type(error).__name__)
    return _ReadFile(path, sample, recording.format, recording.remarks)


# What is written ---------------------------------------------------------------------------------

AnswerWriter = Callable[[FileAnswer], None]


def _open_writers(
    stack: contextlib.ExitStack,
    labels: Sequence[str],
    json_path: Path | None,
    csv_path: Path | None,
    plot_dir: Path | None,
) -> list[AnswerWriter]:
    writers: list[AnswerWriter] = []
    if json_path is not None:
        writers.append(stack.enter_context(_json_writer(json_path)))
    if csv_path is not None:
        writers.append(stack.enter_context(_csv_writer(csv_path, labels)))
    if plot_dir is not None:
        writers.append(_plotter(plot_dir))
    return writers


@contextlib.contextmanager
def _json_writer(path: Path) -> Iterator[AnswerWriter]:
    """A JSON list that grows answer by answer."""
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
        separators = iter(["["])

        def write(answer: FileAnswer) -> None:
            text = json.dumps(answer.values(), ensure_ascii=False, allow_nan=False)
            file.write(f"{next(separators, ',')}\n{text}")

        yield write
        file.write(f"{next(separators, '')}\n]\n")


@contextlib.contextmanager
def _csv_writer(path: Path, labels: Sequence[str]) -> Iterator[AnswerWriter]:
    """One row per file: path, error, decisions, a probability per label, warnings."""
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        columns = [f"probability_{label}" for label in labels]
        table.writerow(["path", "error", "decisions", *columns, "warnings"])

        def write(answer: FileAnswer) -> None:
            values = answer.values()
            probabilities = values.get("probabilities", {})
            table.writerow(
                [
                    values["path"],
                    answer.error,
                    ";".join(values.get("decisions", ())),
                    *(f"{probabilities[label]:.6f}" if probabilities else "" for label in labels),
                    "; ".join(values.get("warnings", ())),
                ]
            )

        yield write


def _plotter(folder: Path) -> AnswerWriter:
    """Draws each answered recording; equal file names are told apart by a number."""
    used: set[str] = set()

    def write(answer: FileAnswer) -> None:
        if answer.prediction is None:
            return
        name = answer.path.stem or "recording"
        number = 2
        while name.lower() in used:
            name, number = f"{answer.path.stem}_{number}", number + 1
        used.add(name.lower())
        draw_answer(answer, folder, name)

    return write


def draw_answer(answer: FileAnswer, folder: Path, name: str) -> Path:
    """Write ``<name>.png``: the recording on paper, with the model's answer below it."""
    prediction = answer.prediction
    assert prediction is not None
    sample = prediction.sample
    figure = visualize_prediction_sample(
        sample.microvolts / MICROVOLTS_PER_MILLIVOLT,
        sample.microvolts.shape[1] / sample.seconds,
        prediction.probabilities,
        prediction.decisions,
        thresholds=prediction.thresholds,
        leads_present=sample.leads_present,
        title=shown_path(Path(answer.path.name)),
        remarks=[*answer.remarks, *sample.warnings],
    )
    path = folder / f"{name}.png"
    write_figure(figure, path)
    return path


def prediction_summary(done: PredictedFiles, is_written: bool) -> str:
    """The first answers as a table where nothing is written, and what it comes to."""
    lines = []
    if not is_written:
        rows: list[list[object]] = [
            [shown_path(answer.path), _answer_in_words(answer)] for answer in done.first
        ]
        lines.append(format_table(["file", "decided, or likeliest"], rows))
        lines += [
            f"{shown_path(answer.path)}: {warning}"
            for answer in done.first
            for warning in answer.warnings
        ]
        more = done.n_files - len(done.first)
        if more > 0:
            lines.append(f"and {more:,} more; --json or --csv writes all of them")
    wrong = f", {done.n_errors:,} could not be read" if done.n_errors else ""
    wrong += f", {done.n_warned:,} with warnings" if done.n_warned else ""
    lines.append(f"{plural(done.n_files, 'recording')}{wrong}. {DISCLAIMER}")
    return "\n".join(lines)


def _answer_in_words(answer: FileAnswer) -> str:
    """Decided labels with their probabilities; where none is, the likeliest in brackets."""
    if answer.prediction is None:
        return f"not read: {answer.error}"
    probabilities, decisions = answer.prediction.probabilities, answer.prediction.decisions
    if decisions:
        return ", ".join(f"{label} {probabilities[label]:.3f}" for label in decisions)
    likeliest = max(probabilities, key=lambda label: probabilities[label])
    return f"none of the labels ({likeliest} {probabilities[likeliest]:.3f})"
