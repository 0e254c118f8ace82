"""What a training run is made of: its records, what was fitted to them, and what identifies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.batches import (
    RecordWindows,
    WindowSource,
    epoch_chunks,
    lead_spread,
    list_windows,
    open_windows,
)
from einthoven.checkpoint import ModelInput
from einthoven.console import log
from einthoven.errors import CheckpointError, DataError
from einthoven.files import Workspace, changes_between, digest, file_digest, read_json, step_changes
from einthoven.labels.sets import load_label_set
from einthoven.objective import balanced_weights
from einthoven.settings import Settings, setting_names
from einthoven.splits import subset_records
from einthoven.store import Store, label_matrix

MODE_RECORDS = {"smoke": 256, "medium": 5000}

# Settings of these groups that cannot change a result, or whose effect is seen elsewhere: in the
# batch size that the device gets, or in the records that were prepared.
WITHOUT_EFFECT = {
    "prepare_workers", "num_workers", "dry_run", "fresh", "batch_size_cpu", "batch_size_gpu",
    "ecg_preprocess_limit",
}  # fmt: skip

# What training, evaluation and report write into a run's three folders.
CHECKPOINT_FILES = (
    ".steps/train.json", ".steps/evaluate.json", ".steps/report.json",
    "last_checkpoint.pth", "best_model.pth", "run.json", "training_history.json",
    "metrics_epoch_*.json", "test_metrics.json", "predictions.parquet", "inference_examples.json",
    ".last_checkpoint-*.pth", ".best_model-*.pth",  # of a run that was killed while it wrote
)  # fmt: skip
FIGURE_FILES = "*_[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9].png"

# A run's parts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitData:
    """One split's records, ready to be read.

    Attributes:
        records: ``(n,)`` row numbers of the manifest.
        targets: ``(n, C)`` float32 of 0 and 1.
    """

    records: np.ndarray
    targets: np.ndarray
    listed: RecordWindows
    source: WindowSource


@dataclass(frozen=True)
class Run:
    """What stays the same while a run trains."""

    settings: Settings
    labels: tuple[str, ...]
    single: bool
    device: torch.device
    input: ModelInput
    train: SplitData
    val: SplitData
    weights: torch.Tensor | None
    data: str

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @property
    def batch_size(self) -> int:
        return device_batch_size(self.settings, self.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        return arithmetic(self.settings, self.device)

    @property
    def n_epochs(self) -> int:
        return 1 if self.settings.run_mode == "smoke" else self.settings.epochs

    @cached_property
    def chunk_sizes(self) -> list[int]:
        """Records of each batch of an epoch; asked for at every step."""
        return [len(c) for c in epoch_chunks(np.arange(len(self.train.records)), self.batch_size)]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.chunk_sizes) // self.settings.grad_accum_steps)


def open_run(
    settings: Settings,
    store: Store,
    chosen: Mapping[str, np.ndarray],
    data: str,
    device: torch.device,
) -> Run:
    """Load both splits and fit on the training split what is fitted to data.

    Args:
        chosen: of `chosen_records`.
        data: their `data_fingerprint`.
    """
    label_set = load_label_set(settings.label_set)
    single = has_one_label(settings)
    train = open_split("train", chosen["train"], store, label_set.labels, device)
    val = open_split("val", chosen["val"], store, label_set.labels, device)
    balance = settings.class_weights == "balanced" or (settings.class_weights == "auto" and single)
    weights = torch.from_numpy(balanced_weights(train.targets, single)) if balance else None
    low, high = store.band
    model_input = ModelInput(
        fs=store.target_fs,
        window=store.target_samples,
        crop=min(settings.crop, store.target_samples),
        bandpass=(low or 0.0, high) if high else None,
        standardize=settings.standardize,
        scale=lead_spread(train.source, train.listed),
    )
    return Run(
        settings=settings,
        labels=label_set.labels,
        single=single,
        device=device,
        input=model_input,
        train=train,
        val=val,
        weights=None if weights is None else weights.to(device),
        data=data,
    )


def has_one_label(settings: Settings) -> bool:
    """Whether each record of the task has exactly one label."""
    if settings.task == "auto":
        return load_label_set(settings.label_set).single
    return settings.task == "single"


def chosen_records(
    settings: Settings, store: Store, splits: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Row numbers of the manifest per split; a seeded subset of them in a mode that asks for it."""
    limit = MODE_RECORDS.get(settings.run_mode)
    manifest = store.manifest
    kept = np.ones(len(manifest), bool)
    if limit:
        kept[:] = False
        kept[subset_records(manifest, limit, settings.split_seed)] = True
    number = {record: row for row, record in enumerate(manifest["record"])}
    rows = {
        split: np.array([number[record] for record in splits[split]], np.int64)
        for split in ("train", "val", "test")
    }
    return {split: indices[kept[indices]] for split, indices in rows.items()}


def open_split(
    name: str, records: np.ndarray, store: Store, labels: tuple[str, ...], device: torch.device
) -> SplitData:
    """Load one split.

    Raises:
        DataError: it has no records, or only one to train on.
    """
    if name == "train" and len(records) == 1:
        raise DataError("the train split has one labelled record; two or more are needed")
    if len(records) == 0:
        raise empty_split_error(name)
    listed = list_windows(store, records)
    targets = label_matrix(store.manifest.iloc[records], labels)
    return SplitData(records, targets, listed, open_windows(store, listed, device))


def empty_split_error(name: str) -> DataError:
    """What to say of a split without records."""
    return DataError(
        f"the {name} split has no labelled record; prepare more records, or use a label set "
        "that covers these archives (`einthoven label` shows the coverage)"
    )


def device_batch_size(settings: Settings, device: torch.device) -> int:
    """Records per batch on this device."""
    return settings.batch_size_gpu if device.type == "cuda" else settings.batch_size_cpu


def arithmetic(settings: Settings, device: torch.device) -> torch.dtype:
    """The number type of the forward pass."""
    wish = settings.mixed_precision
    if wish == "auto":
        if device.type != "cuda":
            return torch.float32
        # Older cards only emulate bfloat16, slowly.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[wish]


# The store it is trained on ---------------------------------------------------------------------


def check_store_settings(settings: Settings, store: Store, splits: Mapping[str, Any]) -> None:
    """Refuse a store that was prepared with other settings than these.

    Raises:
        DataError: names each difference.
    """
    differences = store_differences(settings, store, splits)
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise DataError(
            f"the store was prepared with other settings (store -> now):\n{lines}\n"
            "Run `einthoven prepare` with the settings of now, or give those of the store"
        )


def store_differences(settings: Settings, store: Store, splits: Mapping[str, Any]) -> list[str]:
    """Which settings a store was not prepared with, as lines to print."""
    label_set = str(splits.get("label_set", settings.label_set))
    n_records = len(store.manifest)
    limit = settings.ecg_preprocess_limit
    band = (settings.bandpass_low_hz, settings.bandpass_high_hz) if settings.bandpass else None
    pairs = {
        # A label set of one's own is a path, which may be written in several ways.
        "label_set": (Path(label_set).name, Path(settings.label_set).name),
        "labels per record": _labels_per_record(settings, store),
        "target_fs": (store.target_fs, settings.target_fs),
        "target_samples": (store.target_samples, settings.target_samples),
        "bandpass": (store.band if store.band[1] else None, band),
        "ecg_preprocess_limit": (n_records, limit) if 0 < limit < n_records else (0, 0),
        "archives": _archives_beside(settings, store),
    }
    return [f"{name}: {then} -> {now}" for name, (then, now) in pairs.items() if then != now]


def _labels_per_record(settings: Settings, store: Store) -> tuple[str, str]:
    wished = "one" if has_one_label(settings) else "any number"
    if any(len(labels) > 1 for labels in store.manifest["labels"]):
        return "any number", wished
    # One each may be all that the archives state; only the step that mapped the codes knows.
    stamp = settings.workspace.step_path("label")
    return str(read_json(stamp)["labels per record"]) if stamp.exists() else wished, wished


def _archives_beside(settings: Settings, store: Store) -> tuple[str, str]:
    """The store's archives and those asked for, where the store holds others too."""
    wished = {name.strip() for name in settings.archives.split(",") if name.strip()}
    stored = set(store.manifest["archive"])
    if not wished or stored <= wished:
        return "", ""
    return ",".join(sorted(stored)), ",".join(sorted(wished))


def is_mapping_newer(workspace: Workspace) -> bool:
    """Whether the mapping table has changed since the store was made from it."""
    stamp = workspace.step_path("prepare")
    return stamp.exists() and read_json(stamp).get("mapping") != file_digest(workspace.mapping_path)


# Going on, or not -------------------------------------------------------------------------------


def run_inputs(settings: Settings, data: str, device: torch.device) -> dict[str, Any]:
    """Everything that a run's result depends on; ``data`` is its `data_fingerprint`."""
    names = [n for n in setting_names(["labels", "prepare", "train"]) if n not in WITHOUT_EFFECT]
    return {
        "seed": settings.seed,
        "run_mode": settings.run_mode,
        **{name: getattr(settings, name) for name in names},
        "classes": ", ".join(load_label_set(settings.label_set).labels),
        "device": device.type,
        "batch_size": device_batch_size(settings, device),
        "arithmetic": str(arithmetic(settings, device)),
        "data": data,
    }


def data_fingerprint(store: Store, chosen: Mapping[str, np.ndarray]) -> str:
    """Names the records, signals and labels that a run trains and is scored on."""
    columns = store.manifest[["record", "labels"]]
    content = {
        split: [[str(r), list(labels)] for r, labels in columns.iloc[rows].itertuples(index=False)]
        for split, rows in chosen.items()
    }
    return digest({"store": store.digest, **content})


def is_finished(settings: Settings, inputs: Mapping[str, Any]) -> bool:
    """Whether this very run is finished already.

    Raises:
        CheckpointError: the folder holds a finished run with other settings.
    """
    stamp_path = settings.workspace.step_path("train")
    is_whole = stamp_path.exists() and settings.workspace.best_model_path.exists()
    if settings.fresh or not is_whole:
        return False
    changes = step_changes(stamp_path, inputs)
    if changes:
        raise CheckpointError(other_run_message(settings, "finished", changes))
    log.info("Training is up to date (%s)", settings.workspace.best_model_path)
    return True


def refuse_other_run(settings: Settings) -> None:
    """Refuse a run folder whose run has other settings, before anything is made anew for it.

    Raises:
        CheckpointError: names each difference.
    """
    path = settings.workspace.checkpoints_dir / "run.json"
    if settings.fresh or settings.dry_run or not path.exists():
        return
    stored = read_json(path)["settings"]
    now = settings.model_dump(mode="json")
    names = setting_names(["labels", "prepare", "train"])
    effective = [n for n in names if n not in WITHOUT_EFFECT]
    effective += ["archives", "ecg_preprocess_limit", "run_mode", "seed"]
    then = {name: stored[name] for name in effective if name in stored}
    changes = changes_between(then, {name: now[name] for name in then})
    if changes:
        raise CheckpointError(other_run_message(settings, "finished or stopped", changes))


def other_run_message(settings: Settings, state: str, changes: list[str]) -> str:
    """Why a run's folder cannot be used for these settings, and the two ways on."""
    lines = "\n".join(f"  {change}" for change in changes)
    return (
        f"{settings.workspace.checkpoints_dir} holds a {state} run with other settings or data:\n"
        f"{lines}\nGive this one a name of its own (--run-name NAME), replace that one (--fresh), "
        "or use its settings again"
    )


def plain_inputs(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Inputs as text, which a checkpoint holds without classes of ours."""
    return {name: str(value) for name, value in inputs.items()}


def clear_run(workspace: Workspace) -> None:
    """Delete what an earlier run of this name wrote: checkpoints, scores, figures and report."""
    # Stamps go first: a run that is half deleted is not finished.
    written = [path for name in CHECKPOINT_FILES for path in workspace.checkpoints_dir.glob(name)]
    for path in [*written, *workspace.figures_dir.glob(FIGURE_FILES), workspace.report_path]:
        path.unlink(missing_ok=True)
