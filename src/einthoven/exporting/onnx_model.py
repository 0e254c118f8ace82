"""An exported ONNX file in place of a model file: ONNX Runtime answers, without PyTorch's help.

The graph takes raw millivolts and does all the rest; what stays here is to bring recordings into
the standard form, as for any model, and to give the answers their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.calibration.conformal import name_conformal_sets
from einthoven.checkpoint import ModelInput
from einthoven.errors import CheckpointError, ConfigError, DataError
from einthoven.exporting.facts import facts_from_text, model_input_of
from einthoven.exporting.graph import FEWEST_SAMPLES, INPUT_NAME, OUTPUT_NAMES
from einthoven.inference import CROPS_PER_PASS, count_crops
from einthoven.prediction import SamplePrediction
from einthoven.records import LEADS
from einthoven.samples import PreparedSample, prepare_sample
from einthoven.signal import window_starts
from einthoven.store import MICROVOLTS_PER_MILLIVOLT


@dataclass(frozen=True)
class GraphAnswer:
    """What the graph gives for some records, each ``(n, C)``.

    Attributes:
        probabilities: calibrated, float32.
        decisions: 0 or 1, uint8.
        raw: before calibration, float32.
    """

    probabilities: np.ndarray
    decisions: np.ndarray
    raw: np.ndarray


@dataclass(frozen=True)
class OnnxModel:
    """An exported model, ready to predict.

    Attributes:
        session: of ONNX Runtime.
        input: what it takes; without a band-pass, which is in the graph.
        labels: one per column.
        single: whether a record has exactly one label.
        thresholds: label to the calibrated probability from which it is decided; empty where
            single.
        conformal: stated coverage to label to the raw probability from which it is in a set.
        facts: everything that the file says of itself.
    """

    session: Any = field(repr=False)
    input: ModelInput
    labels: tuple[str, ...]
    single: bool
    thresholds: dict[str, float]
    conformal: dict[str, dict[str, float]]
    facts: dict[str, Any] = field(repr=False)

    @property
    def fs(self) -> int:
        return self.input.fs

    @property
    def window(self) -> int:
        return self.input.window

    @property
    def leads(self) -> tuple[str, ...]:
        return LEADS

    @property
    def threshold_rule(self) -> str:
        return str(self.facts["threshold_rule"])

    def predict(self, signals: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities ``(n, C)``; see `answer`."""
        return self.answer(signals).probabilities

    def answer(self, signals: Sequence[np.ndarray]) -> GraphAnswer:
        """Run the graph; records of one length go through it together.

        Args:
            signals: ``(12, sample)`` millivolts each, at the model's rate and of any lengths, leads
                in standard order.

        Raises:
            DataError: a signal has another shape or a NaN, or the model gives no numbers.
        """
        n_labels = len(self.labels)
        answer = GraphAnswer(
            np.zeros((len(signals), n_labels), np.float32),
            np.zeros((len(signals), n_labels), np.uint8),
            np.zeros((len(signals), n_labels), np.float32),
        )
        for places in self._passes(signals):
            batch = np.stack([np.asarray(signals[place], np.float32) for place in places])
            outputs = self.session.run(list(OUTPUT_NAMES), {INPUT_NAME: batch})
            answer.probabilities[places], answer.decisions[places], answer.raw[places] = outputs
        if not np.isfinite(answer.probabilities).all():
            raise DataError(
                "the model gives probabilities that are no numbers: its training diverged; train "
                "again with a lower LR"
            )
        return answer

    def _passes(self, signals: Sequence[np.ndarray]) -> list[list[int]]:
        """Places of signals that go through the graph together."""
        of_length: dict[int, list[int]] = {}
        for place, signal in enumerate(signals):
            check_graph_input(signal)
            of_length.setdefault(signal.shape[1], []).append(place)
        n_crops = count_crops(self.window, self.input.crop)
        passes = []
        for length, places in of_length.items():
            per_record = n_crops * len(window_starts(length, self.window))
            per_pass = max(1, CROPS_PER_PASS // per_record)
            passes += [places[k : k + per_pass] for k in range(0, len(places), per_pass)]
        return passes


def check_graph_input(signal: np.ndarray) -> None:
    """Refuse what the graph does not take.

    Raises:
        DataError: it is not ``(12, sample)`` of two samples or more, or holds a NaN.
    """
    if signal.ndim != 2 or signal.shape[0] != len(LEADS) or signal.shape[1] < FEWEST_SAMPLES:
        raise DataError(
            f"a signal has shape {signal.shape}; (12, sample) with {FEWEST_SAMPLES} samples or "
            "more is needed"
        )
    if not np.isfinite(signal).all():
        raise DataError("a signal holds values that are no numbers; fill or leave them out first")


# Files ------------------------------------------------------------------------------------------


def import_onnxruntime() -> Any:
    """ONNX Runtime, told to keep to itself.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "ONNX files need ONNX Runtime: pip install 'einthoven[export]'"
        ) from error
    # Builds for Windows report events to their maker unless told not to.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def load_exported_model(path: Path, n_threads: int = 0) -> OnnxModel:
    """Load an ONNX file that `einthoven export` wrote.

    Args:
        n_threads: that the runtime uses; 0 lets it use every core.

    Raises:
        CheckpointError: the file is missing, damaged, or no export of ours.
        ConfigError: ONNX Runtime is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; `einthoven export` writes it")
    session = _open_session(path, n_threads)
    facts = facts_from_text(session.get_modelmeta().custom_metadata_map, str(path))
    names = ([i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
    if names != ([INPUT_NAME], list(OUTPUT_NAMES)):
        raise CheckpointError(
            f"{path} is damaged: its graph takes {', '.join(names[0])} and gives "
            f"{', '.join(names[1])}; export the model again"
        )
    return OnnxModel(
        session=session,
        input=model_input_of(facts),
        labels=tuple(facts["labels"]),
        single=facts["task"] == "single",
        thresholds={label: float(limit) for label, limit in facts["thresholds"].items()},
        conformal=facts["conformal"],
        facts=facts,
    )


def _open_session(path: Path, n_threads: int) -> Any:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        # From memory: nothing beside the file is read, and the file is not kept open.
        return runtime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # The runtime's errors have no base of their own; all it is given here is the file.
        first_line = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is damaged or no ONNX model ({first_line}); export the model again"
        ) from error


# One signal, or several -------------------------------------------------------------------------


def predict_exported_sample(
    model: OnnxModel, signal: np.ndarray, fs: float, leads: Sequence[str]
) -> SamplePrediction:
    """As `einthoven.prediction.predict_sample`, by an exported model.

    Raises:
        RecordError: the signal cannot be an ECG in millivolts, or a lead's name is not known.
        DataError: the model gives probabilities that are no numbers.
    """
    return predict_exported(model, [prepare_sample(signal, fs, leads, model.input)])[0]


def predict_exported(model: OnnxModel, samples: Sequence[PreparedSample]) -> list[SamplePrediction]:
    """Predict prepared signals of whatever lengths together.

    Args:
        samples: of `prepare_sample` with ``model.input``.

    Raises:
        DataError: the model gives probabilities that are no numbers.
    """
    answer = model.answer([_millivolts(sample) for sample in samples])
    sets = name_conformal_sets(answer.raw, model.labels, model.conformal)
    return [
        SamplePrediction(
            probabilities=dict(zip(model.labels, answer.probabilities[row].tolist(), strict=True)),
            decisions=_named(model.labels, answer.decisions[row]),
            thresholds=model.thresholds,
            conformal=sets[row],
            n_windows=len(window_starts(sample.microvolts.shape[1], model.window)),
            sample=replace(sample, steps=(*sample.steps, *_graph_steps(model))),
        )
        for row, sample in enumerate(samples)
    ]


def _millivolts(sample: PreparedSample) -> np.ndarray:
    return sample.microvolts.astype(np.float32) / np.float32(MICROVOLTS_PER_MILLIVOLT)


def _named(labels: Sequence[str], marks: np.ndarray) -> tuple[str, ...]:
    return tuple(label for label, mark in zip(labels, marks, strict=True) if mark)


def _graph_steps(model: OnnxModel) -> list[str]:
    """What `prepare_sample` would have told, had it done it."""
    band = model.facts["bandpass"]
    return ["band-pass from {:g} to {:g} Hz".format(*band)] if band else []
