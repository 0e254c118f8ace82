"""Records trained on per second: our whole loop against the bare step and against the textbook's.

    python benchmarks/train_throughput.py --memory

For each model, in turns and several times over, with the same batch size, optimizer and threads:

a. *fixed*: forward, backward and step on one batch that lies on the device: the most there can be;
b. *loop*: `train_epoch` of `einthoven train`, with windows where it would keep them; *streamed*:
   the same with windows read from the store;
c. *textbook*: a `DataLoader` over one 500 Hz ``.npz`` per record that resamples, standardises and
   crops in numpy, with ``loss.item()`` at every step; without worker processes and with two, of
   which the better counts.

All on synthetic noise, which trains as fast as hearts do. ``--memory`` also takes the peak memory
of `einthoven train` over a store of 10,000 and one of 1,000,000 records, in streamed mode, less
what the manifest's own columns take; the shards are sparse files. Prints b/a and b/c; writes
``results/train_throughput.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import torch
from scipy.signal import resample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from einthoven import training
from einthoven.files import Workspace, read_json, write_json, write_parquet
from einthoven.inference import choose_device
from einthoven.labels.sets import load_label_set
from einthoven.models.costs import count_flops
from einthoven.models.registry import MODELS, build_model
from einthoven.objective import make_optimizer, summed_loss
from einthoven.records import LEADS
from einthoven.resources import peak_memory_mb
from einthoven.run_state import TrainState, new_state
from einthoven.runs import Run, chosen_records, data_fingerprint, open_run
from einthoven.settings import Settings
from einthoven.split_records import read_splits
from einthoven.splits import fold_split
from einthoven.store import MANIFEST_COLUMNS, open_store

RESULT_PATH = Path(__file__).parent / "results" / "train_throughput.json"
FS, TEXTBOOK_FS, N_WINDOW = 100, 500, 1000
LABELS = load_label_set(Settings().label_set).labels
RECORDS_PER_SHARD = 500
N_HELD_OUT = 128
MEMORY_RECORDS = (10_000, 1_000_000)
TEXTBOOK_WORKERS = (0, 2)

# A store -----------------------------------------------------------------------------------------


def write_store(root: Path, folds: np.ndarray, is_sparse: bool) -> None:
    """A prepared store with one record per fold given: noise, or zeros that take no disk."""
    workspace, n_records = Workspace(root), len(folds)
    workspace.records_dir.mkdir(parents=True)
    numbers = np.arange(n_records)
    rng = np.random.default_rng(0)
    for first in range(0, n_records, RECORDS_PER_SHARD):
        n = min(RECORDS_PER_SHARD, n_records - first)
        shard = np.lib.format.open_memmap(
            workspace.records_dir / f"shard-{first // RECORDS_PER_SHARD:05d}.npy",
            mode="w+", dtype=np.int16, shape=(n, len(LEADS), N_WINDOW),
        )  # fmt: skip
        if not is_sparse:
            shard[:] = rng.normal(0, 300, shard.shape)
    ids = [f"{number:07d}" for number in numbers]
    records = [f"synthetic/{record_id}" for record_id in ids]
    manifest = pd.DataFrame(dict.fromkeys(MANIFEST_COLUMNS, ""), index=range(n_records))
    manifest = manifest.assign(
        record=records, archive="synthetic", record_id=ids, patient_id=ids, patient_group=records,
        fold=folds, shard=[f"shard-{n // RECORDS_PER_SHARD:05d}" for n in numbers],
        row=numbers % RECORDS_PER_SHARD, n_windows=1, n_samples=N_WINDOW, fs=float(TEXTBOOK_FS),
        leads_present=",".join(LEADS), clipped_fraction=0.0, lead_law_residual_mv=0.0,
        missing_fraction=0.0, labels=[[LABELS[n % len(LABELS)]] for n in numbers], age=60.0,
        sex="female",
    )  # fmt: skip
    manifest.attrs = {"target_fs": FS, "target_samples": N_WINDOW, "digest": str(n_records)}
    write_parquet(workspace.manifest_path, manifest)
    write_json(workspace.splits_path, {"label_set": Settings().label_set, **fold_split(manifest)})


def open_run_of(settings: Settings, device: torch.device) -> Run:
    """What `train_production` opens."""
    store = open_store(settings.workspace)
    chosen = chosen_records(settings, store, read_splits(settings.workspace.splits_path))
    return open_run(settings, store, chosen, data_fingerprint(store, chosen), device)


# a. The bare step --------------------------------------------------------------------------------


def fixed_steps(run: Run, n_steps: int) -> Callable[[], None]:
    """Forward, backward and step on one batch on the device."""
    state = new_state(run)
    state.model.train()
    _, parts, batches = next(training.steps_of_epoch(run, state))
    batch = next(batches)
    x_BLS = run.input.prepare(batch.signal, batch.n_valid)
    targets = torch.from_numpy(run.train.targets[batch.records].astype(np.float32)).to(run.device)
    assert len(parts) == 1 and len(x_BLS) == run.batch_size

    def take() -> None:
        for _ in range(n_steps):
            plain_step(run, state.model, state.optimizer, x_BLS, targets)

    return take


def plain_step(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x_BLS: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    is_reduced = run.dtype != torch.float32
    with torch.autocast(run.device.type, run.dtype) if is_reduced else nullcontext():
        logits = model(x_BLS)
    loss = task_loss(run, logits.float(), targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def task_loss(run: Run, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The run's own loss, so that an ensemble's members each have theirs."""
    return summed_loss(logits, targets, run.single, run.weights) / len(targets)


# b. Our loop -------------------------------------------------------------------------------------


def whole_epochs(run: Run) -> Callable[[], None]:
    """The next epoch of a run at every call."""
    state: TrainState = new_state(run)

    def take() -> None:
        row = training.train_epoch(run, state)
        state.finish_epoch(row | {"val_f1_macro": 0.0}, "f1")

    return take


# c. The textbook's loop --------------------------------------------------------------------------


class NpzRecords(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One ``.npz`` per record, read, resampled, standardised and cropped when it is asked for."""

    def __init__(self, paths: list[Path], crop: int) -> None:
        self.paths, self.crop = paths, crop

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with np.load(self.paths[index]) as record:
            signal, target = record["signal"], record["target"]
        signal = resample(signal, N_WINDOW, axis=1)
        spread = signal.std(axis=1, keepdims=True)
        signal = (signal - signal.mean(axis=1, keepdims=True)) / (spread + 1e-6)
        start = int(torch.randint(0, N_WINDOW - self.crop + 1, ()))
        crop = np.ascontiguousarray(signal[:, start : start + self.crop], np.float32)
        return torch.from_numpy(crop), torch.from_numpy(target)


def write_npz_records(folder: Path, targets: np.ndarray) -> list[Path]:
    """Ten seconds of noise at 500 Hz per record, in millivolts."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:07d}.npz" for number in range(len(targets))]
    for path, target in zip(paths, targets, strict=True):
        signal = rng.normal(0, 0.3, (len(LEADS), N_WINDOW * TEXTBOOK_FS // FS))
        np.savez(path, signal=signal.astype(np.float32), target=target.astype(np.float32))
    return paths


def textbook_epochs(run: Run, paths: list[Path], n_workers: int) -> Callable[[], None]:
    model = build_model(run.settings.model_name, n_leads=len(LEADS), n_classes=len(run.labels))
    model.to(run.device).train()
    optimizer = make_optimizer(model, run.settings.lr, run.settings.weight_decay)
    loader = DataLoader(
        NpzRecords(paths, run.input.crop),
        batch_size=run.batch_size,
        shuffle=True,
        num_workers=n_workers,
        # Kinder than the textbook, which starts its workers anew for every epoch.
        persistent_workers=n_workers > 0,
        pin_memory=run.device.type == "cuda",
    )

    def take() -> None:
        total = 0.0
        for x_BLS, targets in loader:
            x_BLS, targets = x_BLS.to(run.device), targets.to(run.device)
            total += plain_step(run, model, optimizer, x_BLS, targets).item()

    return take


# Timing ------------------------------------------------------------------------------------------


def time_in_turns(
    loops: dict[str, Callable[[], None]], n_repeats: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Seconds of each loop in each round, ``(repeat,)``; who begins changes from round to round."""
    names = list(loops)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(-1, n_repeats):  # the first round warms caches and does not count
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            taken = stopwatch(loops[name], device)
            if repeat >= 0:
                seconds[name].append(taken)
    return {name: np.array(taken) for name, taken in seconds.items()}


def stopwatch(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def compare_loops(settings: Settings, options: argparse.Namespace) -> dict[str, object]:
    """Records per second of every loop with one model, and the ratios."""
    device = choose_device(options.device)
    run = open_run_of(settings, device)
    streamed = open_run_of(settings.model_copy(update={"residency": "streamed"}), device)
    n_records = len(run.train.records)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_npz_records(Path(folder) / "npz", run.train.targets)
        loops = {
            "fixed": fixed_steps(run, options.steps),
            "loop": whole_epochs(run),
            "streamed": whole_epochs(streamed),
        } | {f"textbook_{n}_workers": textbook_epochs(run, paths, n) for n in TEXTBOOK_WORKERS}
        seconds = time_in_turns(loops, options.repeats, device)
        del loops
    textbook = min((n for n in seconds if "textbook" in n), key=lambda n: np.median(seconds[n]))
    return {
        "flops_per_record": flops_of(settings.model_name, run.input.crop),
        "records_per_s": {n: round(n_records / np.median(s), 1) for n, s in seconds.items()},
        "loop_to_fixed": ratio_of(seconds["fixed"], seconds["loop"]),
        "streamed_to_fixed": ratio_of(seconds["fixed"], seconds["streamed"]),
        "loop_to_textbook": ratio_of(seconds[textbook], seconds["loop"]),
        "textbook": textbook,
        "seconds": seconds,
    }


def ratio_of(slower: np.ndarray, faster: np.ndarray) -> dict[str, float]:
    """Speed of the second to the first, from pairs of one round each."""
    ratios = slower / faster
    return {"median": np.median(ratios), "low": ratios.min(), "high": ratios.max()}


# Memory ------------------------------------------------------------------------------------------


def compare_memory(n_steps: int) -> dict[str, object]:
    """Peak memory of training over few and over many records, the manifest's columns aside."""
    measured = {f"{n}_records": measure_apart(n, n_steps) for n in MEMORY_RECORDS}
    few, many = (m["peak_mb"] - m["manifest_mb"] for m in measured.values())
    return {"steps": n_steps, **measured, "ratio": round(many / few, 3)}


def measure_apart(n_records: int, n_steps: int) -> dict[str, float]:
    """In a process of its own: what one run leaves behind must not count for the next."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), np.arange(n_records) % 10 + 1, is_sparse=True)
        command = [sys.executable, __file__, "--memory-of", folder, "--memory-steps", str(n_steps)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, float] = json.loads(told.splitlines()[-1])
    return measured


def measure_memory(root: Path, n_steps: int) -> dict[str, float]:
    """Of this process: the start of training and some steps, by `train_production`."""
    training.DRY_RUN_STEPS = n_steps
    training.train_production(
        Settings(root=root, residency="streamed", dry_run=True, device="cpu", quiet=True)
    )
    peak = peak_memory_mb(torch.device("cpu"))["peak_memory_mb"]
    first = read_manifest(root)
    before = psutil.Process().memory_info().rss
    # What it takes to hold the table once more: all else that reading needs is there by now.
    again = read_manifest(root)
    own = psutil.Process().memory_info().rss - before
    assert len(first) == len(again)
    return {"peak_mb": peak, "manifest_mb": round(own / 2**20, 1)}


def read_manifest(root: Path) -> pd.DataFrame:
    manifest = pd.read_parquet(Workspace(root).manifest_path)
    pa.default_memory_pool().release_unused()
    return manifest


# Report ------------------------------------------------------------------------------------------


def describe_machine(device: torch.device) -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy", "scipy", "einthoven")},
    }


def print_comparison(name: str, result: dict[str, object]) -> None:
    print(f"{name}: " + ", ".join(f"{n} {v:,.0f}" for n, v in result["records_per_s"].items()))
    for key in ("loop_to_fixed", "streamed_to_fixed", "loop_to_textbook"):
        ratio = result[key]
        print(f"  {key} {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", help="with commas between; unset: the default and the smallest")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20, help="per turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too")
    parser.add_argument("--memory-steps", type=int, default=200)
    parser.add_argument("--memory-only", action="store_true")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def models_to_compare(options: argparse.Namespace, crop: int) -> list[str]:
    if options.models:
        return [name.strip() for name in options.models.split(",")]
    smallest = min(MODELS, key=lambda name: flops_of(name, crop))
    return list(dict.fromkeys([Settings().model_name, smallest]))


def flops_of(model_name: str, crop: int) -> int:
    model = build_model(model_name, n_leads=len(LEADS), n_classes=len(LABELS))
    return count_flops(model, len(LEADS), crop)


def run_benchmark() -> None:
    options = parse_options()
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of, options.memory_steps)))
        return
    result = read_json(RESULT_PATH) if RESULT_PATH.exists() else {}
    if not options.memory_only:
        result |= run_comparisons(options)
    if options.memory or options.memory_only:
        result["memory"] = compare_memory(options.memory_steps)
        print(json.dumps(result["memory"], indent=2))
    result["machine"] = describe_machine(choose_device(options.device))
    write_json(RESULT_PATH, result)


def run_comparisons(options: argparse.Namespace) -> dict[str, object]:
    training.keep_freed_memory()  # as `train_production` does, for all loops alike
    folds = np.ones(options.steps * options.batch + 2 * N_HELD_OUT, int)
    folds[-2 * N_HELD_OUT :] = np.repeat([9, 10], N_HELD_OUT)
    models: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", folds, is_sparse=False)
        settings = Settings(
            root=Path(folder) / "store", epochs=options.repeats + 1,
            batch_size_cpu=options.batch, batch_size_gpu=options.batch, tracking="none",
        )  # fmt: skip
        for name in models_to_compare(options, settings.crop):
            chosen = settings.model_copy(update={"model_name": name})
            models[name] = compare_loops(chosen, options)
            print_comparison(name, models[name])
    plan = {"batch": options.batch, "steps": options.steps, "repeats": options.repeats}
    return {**plan, "augment": settings.augment, "models": models}


if __name__ == "__main__":
    run_benchmark()
