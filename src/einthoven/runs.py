"""What a training run is made of: its records, what was fitted to them, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.augment.batch import parse_augment
from einthoven.batches import (
    RecordWindows,
    WindowSource,
    lead_spread,
    list_windows,
    open_windows,
)
from einthoven.challenge_score import fits_challenge
from einthoven.checkpoint import ModelInput
from einthoven.columns import number_few, number_lists
from einthoven.console import plural
from einthoven.distributed import ALONE, Processes, share_of
from einthoven.errors import ConfigError, DataError
from einthoven.files import Workspace, file_digest, read_json
from einthoven.holdout import halve_records, hold_out_records
from einthoven.labels.sets import load_label_set
from einthoven.objective import balanced_weights
from einthoven.residency import Residency, settle_residency
from einthoven.settings import Settings
from einthoven.split_records import SPLITS, read_splits, rows_in_manifest, tell_records
from einthoven.splits import check_splits, subset_records
from einthoven.store import Store, label_flags

MODE_RECORDS = {"smoke": 256, "medium": 5000}

# A run's parts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitData:
    """One split's records, ready to be read.

    Attributes:
        records: ``(n,)`` row numbers of the manifest.
        targets: ``(n, C)`` uint8 of 0 and 1.
        listed: the windows of the records that this process reads: all of them, or its share.
    """

    records: np.ndarray
    targets: np.ndarray
    listed: RecordWindows
    source: WindowSource


@dataclass(frozen=True)
class Run:
    """What stays the same while a run trains.

    Attributes:
        selection, calibration: the halves of the validation split; one picks the epoch, the other
            one calibrates and sets thresholds. None where the split is one patient's.
    """

    settings: Settings
    store: Store
    labels: tuple[str, ...]
    single: bool
    device: torch.device
    input: ModelInput
    train: SplitData
    selection: SplitData
    calibration: SplitData | None
    weights: torch.Tensor | None
    data: str
    processes: Processes = ALONE

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @property
    def batch_size(self) -> int:
        return device_batch_size(self.settings, self.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        return arithmetic(self.settings, self.device)

    @cached_property
    def augmentations(self) -> tuple[str, ...]:
        """What is done to training batches, in order."""
        return parse_augment(self.settings.augment)

    @property
    def n_epochs(self) -> int:
        return 1 if self.settings.run_mode == "smoke" else self.settings.epochs

    @property
    def records_per_step(self) -> int:
        """Records of one optimizer step, over all batches and processes."""
        return self.batch_size * self.settings.grad_accum_steps

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; asked for at every step."""
        return len(step_bounds(len(self.train.records), self.records_per_step)) - 1


def step_bounds(n_records: int, per_step: int) -> np.ndarray:
    """Where an epoch's steps begin and end.

    A last step of a quarter or less joins the one before it: its batch statistics and its noisy
    gradient would weigh as much as those of a full one, and every process needs its share.

    >>> step_bounds(9, 4)
    array([0, 4, 9])
    """
    bounds = np.append(np.arange(0, n_records, per_step), n_records)
    last = bounds[-1] - bounds[-2]
    if len(bounds) > 2 and (4 * last <= per_step or last == 1):
        bounds = np.delete(bounds, -2)
    return bounds


def micro_batches(records: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut a step's records into batches of this size at most, as even as can be.

    Where that would leave one record by itself, of which batch statistics are none, it joins
    another batch.

    >>> [len(batch) for batch in micro_batches(np.arange(65), 32)]
    [22, 22, 21]
    """
    n_batches = max(1, min(-(-len(records) // batch_size), len(records) // 2))
    return np.array_split(records, n_batches)


def open_run(
    settings: Settings,
    store: Store,
    chosen: Mapping[str, np.ndarray],
    data: str,
    device: torch.device,
    processes: Processes = ALONE,
) -> Run:
    """Load both splits and fit on the training split what is fitted to data.

    Args:
        chosen: of `chosen_records`.
        data: their `data_fingerprint`.

    Raises:
        ConfigError: settings that do not go together, or do not suit this many processes.
        DataError: a split has too few records.
    """
    label_set = load_label_set(settings.label_set)
    single = has_one_label(settings)
    check_settings_together(settings, single, device, processes)
    n_windows = store.count_windows(chosen["train"]) + store.count_windows(chosen["val"])
    halves = halve_records(store.manifest, chosen["val"], settings.split_seed)
    residency = settle_residency(store, n_windows, device, settings.residency)
    labels = label_set.labels
    train = open_split("train", chosen["train"], store, labels, device, residency, processes)
    selection, calibration = (
        open_split("val", half, store, labels, device, residency, processes) if len(half) else None
        for half in halves
    )
    if selection is None:
        raise empty_split_error("val")
    if calibration is None and settings.conformal_coverage != "none":
        raise ConfigError(
            f"CONFORMAL_COVERAGE is {settings.conformal_coverage}, and the validation split is of "
            "one patient: nothing is left to calibrate sets on; use none, or more records"
        )
    balance = settings.class_weights == "balanced" or (settings.class_weights == "auto" and single)
    weights = torch.from_numpy(balanced_weights(train.targets, single)) if balance else None
    low, high = store.band
    model_input = ModelInput(
        fs=store.target_fs,
        window=store.target_samples,
        crop=min(settings.crop, store.target_samples),
        bandpass=(low or 0.0, high) if high else None,
        standardize=settings.standardize,
        scale=lead_spread(train.source, train.listed).to(device),
    )
    return Run(
        settings=settings,
        store=store,
        labels=label_set.labels,
        single=single,
        device=device,
        input=model_input,
        train=train,
        selection=selection,
        calibration=calibration,
        weights=None if weights is None else weights.to(device),
        data=data,
        processes=processes,
    )


def check_settings_together(
    settings: Settings, single: bool, device: torch.device, processes: Processes
) -> None:
    """Refuse settings that are sound alone but not together.

    Raises:
        ConfigError: says which, and what to do.
    """
    if single and settings.loss == "asymmetric":
        raise ConfigError(
            "LOSS is asymmetric, which is for any number of labels per record; here each has one: "
            "use focal or entropy"
        )
    if settings.threshold_rule == "challenge_score" and (
        single or not fits_challenge(load_label_set(settings.label_set).labels)
    ):
        raise ConfigError(
            "THRESHOLD_RULE is challenge_score, which is for the 26 classes of label set "
            "challenge-2021; use best_f1"
        )
    batch_size, smallest = device_batch_size(settings, device), smallest_shared_batch(processes)
    if batch_size < smallest:
        raise ConfigError(
            f"{batch_size_name(device)} is {batch_size}, which is the batch of all "
            f"{processes.count} processes together; use {smallest} or more"
        )


def smallest_shared_batch(processes: Processes) -> int:
    """The smallest batch of which every process has two records.

    A quarter of a batch may be an epoch's last.
    """
    return 8 * processes.count if processes.count > 1 else 1


def batch_size_name(device: torch.device) -> str:
    """The setting that decides how many records a batch has on this device."""
    return f"BATCH_SIZE_{'GPU' if device.type == 'cuda' else 'CPU'}"


def has_one_label(settings: Settings) -> bool:
    """Whether each record of the task has exactly one label."""
    if settings.task == "auto":
        return load_label_set(settings.label_set).single
    return settings.task == "single"


def run_splits(settings: Settings, store: Store) -> dict[str, Any]:
    """The splits that `einthoven prepare` made, or those that ``HOLD_OUT`` asks for.

    Raises:
        DataError: there are none.
        SplitError: they share a patient, or cannot be made.
    """
    splits = read_splits(settings.workspace.splits_path, store.manifest)
    check_splits(splits, store.manifest)
    if settings.hold_out:
        splits |= hold_out_records(store.manifest, settings.hold_out)
    return splits


def chosen_records(
    settings: Settings, store: Store, splits: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Row numbers of the manifest per split; a seeded subset of them in a mode that asks for it."""
    limit = MODE_RECORDS.get(settings.run_mode)
    rows = {split: rows_in_manifest(store.manifest, splits[split]) for split in SPLITS}
    if not limit:
        return rows
    kept = np.zeros(len(store.manifest), bool)
    kept[subset_records(store.manifest, limit, settings.split_seed)] = True
    return {split: indices[kept[indices]] for split, indices in rows.items()}


def open_split(
    name: str,
    records: np.ndarray,
    store: Store,
    labels: tuple[str, ...],
    device: torch.device,
    residency: Residency,
    processes: Processes = ALONE,
) -> SplitData:
    """Load one split.

    Args:
        processes: of the job; each reads only its share of the validation records.

    Raises:
        DataError: it has no records, or fewer than two for each process to train on.
    """
    if name == "train" and 0 < len(records) < 2 * processes.count:
        raise DataError(
            f"the train split has {plural(len(records), 'labelled record')}; two or more are "
            f"needed for each process (here {processes.count})"
        )
    if len(records) == 0 or (name == "val" and len(records) < processes.count):
        raise empty_split_error(name)
    # Every process draws from the whole training split, and validates its share.
    mine = share_of(records, processes) if name == "val" else records
    listed = list_windows(store, mine)
    targets = label_flags(store.manifest[["labels"]].iloc[records], labels)
    return SplitData(records, targets, listed, open_windows(store, listed, device, residency))


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
    if any(len(labels) > 1 for labels in number_lists(store.manifest["labels"].to_numpy())[1]):
        return "any number", wished
    # One each may be all that the archives state; only the step that mapped the codes knows.
    stamp = settings.workspace.step_path("label")
    return str(read_json(stamp)["labels per record"]) if stamp.exists() else wished, wished


def _archives_beside(settings: Settings, store: Store) -> tuple[str, str]:
    """The store's archives and those asked for, where the store holds others too."""
    wished = {name.strip() for name in settings.archives.split(",") if name.strip()}
    stored = set(number_few(store.manifest["archive"])[1])
    if not wished or stored <= wished:
        return "", ""
    return ",".join(sorted(stored)), ",".join(sorted(wished))


def is_mapping_newer(workspace: Workspace) -> bool:
    """Whether the mapping table has changed since the store was made from it."""
    stamp = workspace.step_path("prepare")
    return stamp.exists() and read_json(stamp).get("mapping") != file_digest(workspace.mapping_path)


def data_fingerprint(store: Store, chosen: Mapping[str, np.ndarray]) -> str:
    """Names the records, signals and labels that a run trains and is scored on."""
    content = {"store": iter([json.dumps(store.digest)])}
    content |= {split: tell_records(store.manifest, rows) for split, rows in chosen.items()}
    sha = hashlib.sha256()
    for number, key in enumerate(sorted(content)):
        sha.update(f"{', ' if number else '{'}{json.dumps(key)}: ".encode())
        for text in content[key]:
            sha.update(text.encode())
    sha.update(b"}")
    return sha.hexdigest()[:16]
