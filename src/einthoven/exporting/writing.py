"""A model file becomes a file for other programs, and is refused unless it answers the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from einthoven.checkpoint import TrainedModel
from einthoven.console import log, plural
from einthoven.errors import ConfigError, DataError, ExportError
from einthoven.exporting.facts import exported_facts
from einthoven.exporting.formats import EXPORT_WRITERS, ExportFormat, import_onnx, quiet_tools
from einthoven.exporting.graph import WholeModel
from einthoven.exporting.integers import quantize_onnx
from einthoven.exporting.onnx_model import GraphAnswer, import_onnxruntime, load_exported_model
from einthoven.files import Workspace, atomic_path
from einthoven.prediction import predict_prepared
from einthoven.quality import SHORTEST_SECONDS
from einthoven.records import LEADS
from einthoven.samples import prepare_sample
from einthoven.split_records import read_splits, rows_of_records
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, open_store, stored_signal
from einthoven.synthetic.classes import ARCHIVE_CLASSES
from einthoven.synthetic.ecg import synthesize
from einthoven.synthetic.patients import draw_patient

# Largest difference of a calibrated probability from PyTorch's. Float32 in another order of sums
# gives 1e-7 to 1e-6; a band-pass up to 2e-5, where that moves a sample by the store's microvolt.
PARITY_LIMIT = 1e-4

N_CHECK_SIGNALS = 16


def export_model(
    trained: TrainedModel,
    path: Path,
    format: ExportFormat,
    check_signals: Sequence[np.ndarray],
    int8: bool = False,
    model_digest: str = "",
) -> dict[str, Any]:
    """Write the whole model, from raw millivolts to decisions, as one file for other programs.

    The file is read back and must give PyTorch's probabilities on the check signals, and on what is
    cut and joined from them to be shorter and longer than a window; of int8 the difference is only
    reported, and the check signals also settle the ranges of its integers.

    Args:
        trained: of `load_best_model`; its threshold rule is the file's.
        path: of the file, which appears whole and checked or not at all.
        format: ``onnx``, ``torchscript`` or ``torch-export``.
        check_signals: ``(12, sample)`` millivolts each, at the model's rate, leads in standard
            order; see `pick_check_signals`.
        int8: 8-bit integers in convolutions and matrix products; ``onnx`` only.
        model_digest: of the model file, which the export then names.

    Returns:
        ``path``, ``format``, ``precision``, ``megabytes``, and ``check``: ``n_signals``,
        ``n_samples`` (their lengths), ``largest_difference``, ``limit`` (None for int8),
        ``equal_decisions`` of ``n_decisions``.

    Raises:
        ConfigError: the format is not known, has no int8, or needs a library that is not installed.
        DataError: there is no check signal, or one has another shape.
        RecordError: a check signal cannot be an ECG in millivolts.
        ExportError: the file does not answer as the model does; there is none then.
    """
    _check_choice(format, int8)
    on_cpu = _on_cpu(trained)
    signals = _of_many_lengths(check_signals, trained)
    facts = exported_facts(on_cpu, "int8" if int8 else "float32", model_digest)
    with atomic_path(path) as beside:
        EXPORT_WRITERS[format](WholeModel(on_cpu).eval(), beside, facts)
        if int8:
            quantize_onnx(beside, check_signals, facts)
        check = check_export(on_cpu, answer_of_file(beside, format), signals, not int8)
        n_bytes = beside.stat().st_size
    log.info(
        "%s answers as the model does, to %.1e, on %s",
        path, check["largest_difference"], plural(len(signals), "signal"),
    )  # fmt: skip
    return {
        "path": str(path),
        "format": format,
        "precision": facts["precision"],
        "megabytes": round(n_bytes / 1e6, 3),
        "check": check,
    }


def _check_choice(format: str, int8: bool) -> None:
    known = get_args(ExportFormat)
    if format not in known:
        raise ConfigError(f"export format {format!r} is not known; use {', '.join(known)}")
    if int8 and format != "onnx":
        raise ConfigError(f"int8 is for onnx, not for {format}")
    if format == "onnx":
        import_onnx()
        import_onnxruntime()


def _on_cpu(trained: TrainedModel) -> TrainedModel:
    """A copy of its own, so that the caller's model stays where and as it is."""
    cpu = torch.device("cpu")
    network = copy.deepcopy(trained.model).to(cpu).eval().requires_grad_(False)
    return replace(trained, model=network, device=cpu)


# Does it answer the same? -----------------------------------------------------------------------


def _of_many_lengths(signals: Sequence[np.ndarray], trained: TrainedModel) -> list[np.ndarray]:
    """The check signals, and from them some shorter and some longer than a window."""
    if not signals:
        raise DataError("an export is checked on signals, and there is none")
    shapes = {np.shape(signal)[:-1] for signal in signals}
    if shapes != {(len(LEADS),)}:
        raise DataError("a check signal is not (12, sample)")
    window, crop = trained.window, trained.input.crop
    joined = np.concatenate([np.asarray(signal, np.float32) for signal in signals], axis=1)
    shortest = int(SHORTEST_SECONDS * trained.fs)
    lengths = (max(shortest, crop - 7), max(shortest, (window + crop) // 2), window + 1,
               2 * window + window // 3)  # fmt: skip
    repeated = np.tile(joined, max(1, -(-max(lengths) // joined.shape[1])))
    return [*signals, *(repeated[:, :length] for length in lengths)]


def check_export(
    trained: TrainedModel,
    answer: Callable[[Sequence[np.ndarray]], GraphAnswer],
    signals: Sequence[np.ndarray],
    must_agree: bool = True,
) -> dict[str, Any]:
    """Compare an exported model's answers with those of `predict_sample`.

    Raises:
        ExportError: a probability differs by more than `PARITY_LIMIT`, where it must not.
    """
    samples = [prepare_sample(signal, trained.fs, LEADS, trained.input) for signal in signals]
    # One by one: by the last bit of a float, a record may be cut a sample later in other company.
    expected = [predict_prepared(trained, [sample])[0] for sample in samples]
    probabilities = np.array([list(each.probabilities.values()) for each in expected])
    decided = np.array([[name in each.decisions for name in trained.labels] for each in expected])
    given = answer(signals)
    differences = np.abs(given.probabilities - probabilities).max(axis=1)
    worst = int(np.nanargmax(np.where(np.isfinite(differences), differences, np.inf)))
    if must_agree and not differences[worst] < PARITY_LIMIT:
        raise ExportError(
            f"the exported model differs from PyTorch's by {differences[worst]:.2g} in a "
            f"probability (check signal {worst + 1} of {len(signals)}, "
            f"{signals[worst].shape[1]} samples; the limit is {PARITY_LIMIT:g}); no file was "
            "written. This is a defect of the exporter or of the runtime: try another format"
        )
    return {
        "n_signals": len(signals),
        "n_samples": sorted({signal.shape[1] for signal in signals}),
        "largest_difference": float(differences[worst]),
        "limit": PARITY_LIMIT if must_agree else None,
        "equal_decisions": int((given.decisions == decided).sum()),
        "n_decisions": int(decided.size),
    }


def answer_of_file(
    path: Path, format: ExportFormat
) -> Callable[[Sequence[np.ndarray]], GraphAnswer]:
    """What an exported file answers, by its format's own runtime."""
    if format == "onnx":
        return load_exported_model(path).answer
    with quiet_tools(), path.open("rb") as file:
        program: Callable[..., Any]
        if format == "torchscript":
            program = torch.jit.load(file)  # type: ignore[no-untyped-call]
        else:
            program = torch.export.load(file).module()

    def answer(signals: Sequence[np.ndarray]) -> GraphAnswer:
        with quiet_tools():
            rows = [program(torch.from_numpy(np.array(s, np.float32))[None]) for s in signals]
        return GraphAnswer(*(torch.cat(part).numpy() for part in zip(*rows, strict=True)))

    return answer


# What it is checked on --------------------------------------------------------------------------


def pick_check_signals(
    trained: TrainedModel, workspace: Workspace | None = None, split: str = "test", seed: int = 0
) -> list[np.ndarray]:
    """`N_CHECK_SIGNALS` records of a workspace's split; synthetic ones where it has no store.

    A store at another rate than the model's counts as none.

    Returns:
        ``(12, sample)`` float32 millivolts each, at the model's rate.
    """
    is_prepared = (
        workspace is not None
        and workspace.manifest_path.exists()
        and workspace.splits_path.exists()
    )
    if workspace is not None and is_prepared:
        signals = _stored_check_signals(trained, workspace, split, seed)
        if signals:
            return signals
    return _synthetic_check_signals(trained, seed)


def _stored_check_signals(
    trained: TrainedModel, workspace: Workspace, split: str, seed: int
) -> list[np.ndarray]:
    store = open_store(workspace)
    if store.target_fs != trained.fs:
        return []
    names = read_splits(workspace.splits_path)[split]
    rows = rows_of_records(store.manifest["record"], names)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(rows))[:N_CHECK_SIGNALS]
    signals = (stored_signal(store, int(row)) for row in rows[np.sort(chosen)])
    return [signal / np.float32(MICROVOLTS_PER_MILLIVOLT) for signal in signals]


def _synthetic_check_signals(trained: TrainedModel, seed: int) -> list[np.ndarray]:
    """ECGs of the window's length, a kind each."""
    seconds = trained.window / trained.fs
    rng = np.random.default_rng(seed)
    kinds = [each.kind for each in ARCHIVE_CLASSES[:N_CHECK_SIGNALS]]
    return [synthesize(kind, draw_patient(rng), trained.fs, seconds, rng) for kind in kinds]
