"""From a trained model and a signal to an answer, and the examples that show what it answers.

`predict_sample` brings a signal into the store's form by the steps of `einthoven prepare` and runs
the model on it as `einthoven evaluate` does: a record's own file gives its stored prediction.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from einthoven.batches import RecordWindows, ResidentWindows
from einthoven.calibration.conformal import name_conformal_sets
from einthoven.checkpoint import TrainedModel, load_trained_model
from einthoven.console import log, plural, progress
from einthoven.errors import DataError
from einthoven.examples import choose_example_records
from einthoven.figures.prediction import judge_decisions, visualize_prediction_sample
from einthoven.figures.saving import figure_stamp, save_figure
from einthoven.files import (
    Workspace,
    file_digest,
    read_json,
    stamp_step,
    step_changes,
    write_json,
)
from einthoven.inference import choose_device, predict_records, predict_windows
from einthoven.metrics import decide
from einthoven.samples import PreparedSample, prepare_sample, signal_remarks
from einthoven.scopes import predictions_path
from einthoven.settings import Settings
from einthoven.signal import to_windows
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, Store, WindowTable, open_store, stored_signal
from einthoven.version import DISCLAIMER

# Raised whenever the examples would be chosen, written or drawn otherwise.
EXAMPLES_VERSION = 2

# The model -------------------------------------------------------------------------------------


def load_best_model(
    where: Settings | Path | str, device: str = "auto", rule: str | None = None
) -> TrainedModel:
    """Load a trained model, ready to predict.

    Args:
        where: the settings of a run, whose best model is loaded onto their device and decides by
            their ``THRESHOLD_RULE``; or a model file, which decides by the rule of its own run.
        device: for a model file, as the setting ``DEVICE``.
        rule: for a model file, of thresholds, in place of its own.

    Raises:
        CheckpointError: the file is missing, damaged, or of another format.
        ConfigError: this machine has no such device, or the model no thresholds of the rule.
    """
    if isinstance(where, Settings):
        trained = load_trained_model(where.workspace.best_model_path, choose_device(where.device))
        return trained.with_rule(where.threshold_rule)
    trained = load_trained_model(Path(where), choose_device(device))
    return trained.with_rule(rule) if rule else trained


# One signal ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplePrediction:
    """What a model says of one signal.

    Attributes:
        probabilities: of every label, calibrated, in the model's order.
        decisions: the labels that were decided; one where the model decides for exactly one.
        thresholds: label to the probability from which it is decided; empty where the likeliest is.
        conformal: stated coverage to the labels that it cannot exclude; empty where the model has
            no limits.
        n_windows: windows over which the probabilities are averaged.
        sample: the signal as the model took it.
    """

    probabilities: dict[str, float]
    decisions: tuple[str, ...]
    thresholds: dict[str, float]
    conformal: dict[str, tuple[str, ...]]
    n_windows: int
    sample: PreparedSample

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        return {
            "disclaimer": DISCLAIMER,
            "probabilities": self.probabilities,
            "decisions": list(self.decisions),
            "thresholds": self.thresholds,
            "conformal": {name: list(labels) for name, labels in self.conformal.items()},
            "fs": self.sample.recorded_fs,
            "seconds": self.sample.seconds,
            "n_windows": self.n_windows,
            "leads_present": list(self.sample.leads_present),
            "steps": list(self.sample.steps),
            "warnings": list(self.sample.warnings),
        }


def predict_sample(
    trained: TrainedModel, signal: np.ndarray, fs: float, leads: Sequence[str]
) -> SamplePrediction:
    """Predict one recording of any rate and length, and of any of the twelve leads in any order.

    Args:
        trained: of `load_best_model`.
        signal: ``(lead, sample)`` millivolts, NaN where there is no value.
        fs: hertz.
        leads: one name per row; those beside the twelve are left out.

    Raises:
        RecordError: the signal cannot be an ECG in millivolts, or a lead's name is not known.
        DataError: the model gives probabilities that are no numbers.
    """
    return predict_prepared(trained, [prepare_sample(signal, fs, leads, trained.input)])[0]


def predict_prepared(
    trained: TrainedModel, samples: Sequence[PreparedSample]
) -> list[SamplePrediction]:
    """Predict prepared signals of whatever lengths together: their windows share forward passes.

    Args:
        samples: of `prepare_sample`, for this model; their windows are all in memory at once.

    Raises:
        DataError: the model gives probabilities that are no numbers.
    """
    if not samples:
        return []
    windows = [to_windows(sample.microvolts, trained.window) for sample in samples]
    counts = np.array([len(each) for each in windows])
    lengths = np.array([sample.microvolts.shape[1] for sample in samples])
    number = np.arange(counts.sum())
    table = WindowTable(
        record=np.repeat(np.arange(len(samples)), counts),
        shard=np.zeros_like(number),
        row=number,
        n_valid=np.repeat(np.minimum(lengths, trained.window), counts),
    )
    listed = RecordWindows(table, np.concatenate([[0], np.cumsum(counts)]))
    source = ResidentWindows(torch.from_numpy(np.concatenate(windows)), trained.device)
    raw = predict_windows(trained.model, trained.input, trained.single, source, listed)
    answers = name_answers(trained, raw)
    sets = name_conformal_sets(raw, trained.labels, trained.conformal)
    return [
        SamplePrediction(*answer, trained.thresholds, conformal, int(count), sample)
        for answer, conformal, count, sample in zip(answers, sets, counts, samples, strict=True)
    ]


def name_answers(
    trained: TrainedModel, raw: np.ndarray
) -> list[tuple[dict[str, float], tuple[str, ...]]]:
    """Calibrated probabilities by label, and the labels that are decided, of each record.

    Args:
        raw: ``(n, C)`` probabilities before calibration.

    Raises:
        DataError: one of them is no number.
    """
    if not np.isfinite(raw).all():
        raise DataError(
            "the model gives probabilities that are no numbers: its training diverged; train again "
            "with a lower LR"
        )
    probabilities = trained.calibration.apply(raw)
    decided = decide(probabilities, list(trained.thresholds.values()) or None, trained.single)
    return [
        (
            dict(zip(trained.labels, row.tolist(), strict=True)),
            tuple(label for label, yes in zip(trained.labels, answer, strict=True) if yes),
        )
        for row, answer in zip(probabilities, decided, strict=True)
    ]


# Examples --------------------------------------------------------------------------------------


def examples_path(workspace: Workspace) -> Path:
    """Where the inference examples lie."""
    return workspace.checkpoints_dir / "inference_examples.json"


def run_inference_examples(settings: Settings) -> dict[str, Any]:
    """Predict a few records of the test split, and draw each with the model's answer.

    Writes ``inference_examples.json`` and a figure per record; skips when model, scores and
    settings are those of the last time. Which records are shown depends on the predictions and the
    seed alone; see `choose_example_records`.

    Returns:
        What ``inference_examples.json`` holds; docs/reference/files.md describes it.

    Raises:
        CheckpointError: there is no usable model.
        DataError: the model has not been evaluated on this store, or there is none.
    """
    workspace = settings.workspace
    inputs = _examples_inputs(settings)
    if _examples_are_current(workspace, inputs):
        written: dict[str, Any] = read_json(examples_path(workspace))
        return written
    trained = load_best_model(settings)
    _check_evaluated(workspace)
    predicted = _predict_examples(trained, settings)
    stamp = figure_stamp(datetime.now())
    for rank, (example, signal) in enumerate(progress(predicted, desc="Drawing", unit="ECGs"), 1):
        figure = _draw_example(example, signal, trained)
        path = save_figure(figure, workspace.figures_dir, f"inference_example_{rank:02d}", stamp)
        example["figure"] = path.name
    values = {
        "disclaimer": DISCLAIMER,
        "label_set": trained.facts.get("label_set", settings.label_set),
        "labels": list(trained.labels),
        "task": "single" if trained.single else "multi",
        "thresholds": trained.thresholds,
        "model": inputs["model"],
        "split": "test",
        "seed": settings.seed,
        "examples": [example for example, _ in predicted],
    }
    write_json(examples_path(workspace), values)
    stamp_step(workspace.step_path("examples"), inputs)
    log.info("%s: %s", plural(len(predicted), "inference example"), examples_path(workspace))
    return values


def _examples_inputs(settings: Settings) -> dict[str, Any]:
    workspace = settings.workspace
    return {
        "model": file_digest(workspace.best_model_path),
        "predictions": file_digest(predictions_path(workspace)),
        "manifest": file_digest(workspace.manifest_path),
        "seed": settings.seed,
        "version of the examples": EXAMPLES_VERSION,
    }


def _examples_are_current(workspace: Workspace, inputs: Mapping[str, Any]) -> bool:
    stamp, path = workspace.step_path("examples"), examples_path(workspace)
    changes = step_changes(stamp, inputs)
    if not changes and path.exists():
        shown = read_json(path)["examples"]
        if all((workspace.figures_dir / example["figure"]).exists() for example in shown):
            log.info("Inference examples are up to date (%s)", path)
            return True
    if stamp.exists():
        log.info("Inference examples again: %s", "; ".join(changes) or "their files are gone")
    return False


def _check_evaluated(workspace: Workspace) -> None:
    """Refuse predictions of another model or store: the examples are chosen by them."""
    stamp = workspace.step_path("evaluate")
    is_there = stamp.exists() and predictions_path(workspace).exists()
    scored = read_json(stamp) if is_there else {}
    now = {
        "model": file_digest(workspace.best_model_path),
        "manifest": file_digest(workspace.manifest_path),
    }
    if any(scored.get(name) != value for name, value in now.items()):
        why = "has changed since it was evaluated" if scored else "has not been evaluated"
        what = "the model" if not scored or scored.get("model") != now["model"] else "the store"
        raise DataError(f"{what} {why}; run `einthoven evaluate` first")


def _predict_examples(
    trained: TrainedModel, settings: Settings
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """What the file says of each chosen record, and its signal in millivolts."""
    store = open_store(settings.workspace)
    table = pd.read_parquet(predictions_path(settings.workspace))
    test = table[table["split"] == "test"].reset_index(drop=True)
    chosen = choose_example_records(test, trained.labels, trained.thresholds, settings.seed)
    names = test["record"].iloc[list(chosen)]
    numbers = pd.Index(store.manifest["record"]).get_indexer(pd.Index(names))
    answers = name_answers(trained, predict_records(trained, store, numbers))
    return [
        (
            _describe_example(store, number, shows, *answer),
            stored_signal(store, number) / MICROVOLTS_PER_MILLIVOLT,
        )
        for number, shows, answer in zip(numbers.tolist(), chosen.values(), answers, strict=True)
    ]


def _describe_example(
    store: Store,
    number: int,
    shows: Sequence[str],
    probabilities: Mapping[str, float],
    decisions: Sequence[str],
) -> dict[str, Any]:
    row = store.manifest.iloc[number]
    true_labels = [label for label in probabilities if label in set(row["labels"])]
    false_alarms, missed = judge_decisions(decisions, true_labels)
    return {
        "record": str(row["record"]),
        "shows": list(shows),
        "true_labels": true_labels,
        "probabilities": dict(probabilities),
        "decisions": list(decisions),
        "is_right": not false_alarms and not missed,
        "false_alarms": false_alarms,
        "missed": missed,
        "age": None if pd.isna(row["age"]) else float(row["age"]),
        "sex": str(row["sex"]),
        "fs": float(row["fs"]),
        "seconds": int(row["n_samples"]) / store.target_fs,
        "n_windows": int(row["n_windows"]),
        "leads_present": str(row["leads_present"]).split(","),
        "remarks": signal_remarks({str(name): value for name, value in row.items()}),
    }


def _draw_example(example: Mapping[str, Any], signal: np.ndarray, trained: TrainedModel) -> Figure:
    age = "" if example["age"] is None else f"{example['age']:g} years"
    who = ", ".join(word for word in (example["record"], age, example["sex"]) if word)
    why = textwrap.shorten(first_capital("; ".join(example["shows"])), 110, placeholder=" …")
    return visualize_prediction_sample(
        signal,
        trained.fs,
        example["probabilities"],
        example["decisions"],
        thresholds=trained.thresholds,
        true_labels=example["true_labels"],
        leads_present=example["leads_present"],
        title=f"{who}\n{why}",
        remarks=[first_capital(remark) for remark in example["remarks"]],
    )


def first_capital(text: str) -> str:
    """A phrase as the beginning of a sentence; the rest keeps its case.

    >>> first_capital("flat: V1, aVR")
    'Flat: V1, aVR'
    """
    return text[:1].upper() + text[1:]
