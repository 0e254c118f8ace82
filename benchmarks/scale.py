"""Time and memory of everything that a start-up does, over ten thousand to ten million records.

    python benchmarks/scale.py --max-records 1000000

For stores of 10,000 records and ten times as many up to ``--max-records`` (sparse files, see
`sparse_store`), each in a process of its own:

- *prepare*: everything of `einthoven prepare` but reading signals: the mapping table, the plan of
  chunks, their tables, audit, patient groups, folds, splits, manifest;
- *check*: `run_preflight_checks`;
- *splits*: folds dealt, splits made and checked;
- *audit*: copies found among seeded random fingerprints; every planted one has to be;
- *train*: the start of `einthoven train`, up to its first batch;
- *epoch*: an epoch planned, and 200 batches of it read from the store.

CPU time (of user and system: other programs take their share of the clock) and peak memory of each,
less the columns that the stage holds by design: see `STAGES`. All stages at all sizes are written
to ``results/scale.json``, a part of them to ``build/scale.json``. Shows how each stage grows; exits
with 1, and names the figure, where one of `BOUNDS` is missed or cannot be judged.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from sparse_store import all_sketches, build_store, columns_of, expected_pairs, settings_of

from einthoven.audit.verification import find_duplicates
from einthoven.batches import list_windows, open_windows, plan_epoch, training_batches
from einthoven.chunks import collect_chunks, is_chunk_done, plan_chunks, signal_settings
from einthoven.files import read_json, write_json
from einthoven.labelling import read_mapping
from einthoven.preflight.checks import run_preflight_checks
from einthoven.preflight.opened import CHECKED_COLUMNS
from einthoven.prepare import _make_manifest
from einthoven.run_folder import run_inputs
from einthoven.run_state import new_state
from einthoven.runs import data_fingerprint, micro_batches, open_run, step_bounds
from einthoven.splits import assign_folds, check_splits, make_splits, masks_of_folds, subset_records
from einthoven.store import open_store, read_store
from einthoven.training import open_data, steps_of_epoch

RESULT_PATH = Path(__file__).parent / "results" / "scale.json"
# Less than all is no result to be told of, and must not take the place of one.
PART_PATH = Path(__file__).parents[1] / "build" / "scale.json"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
# The smaller ones are over so soon that one disturbance would bend the slope.
REPEATS = {1_000: 1, 10_000: 3, 100_000: 2}
BOUNDS = {
    "exponent": (1.1, "CPU time grows as the number of records to the power of {:.2f}"),
    "last_exponent": (1.2, "CPU time of the last step up grows to the power of {:.2f}"),
    "memory_ratio": (2.0, "memory, columns aside, grows to {:.2f} times that of the smallest"),
}

# Stages ------------------------------------------------------------------------------------------

# What a stage tells of itself besides time and memory. "columns" are the bytes taken off its peak.
Told = dict[str, Any]


def prepare_stage(root: Path, n_records: int) -> Told:
    settings = settings_of(root)
    settings.workspace.step_path("audit").unlink(missing_ok=True)  # of a stage that ran before
    mapping = read_mapping(settings.workspace.mapping_path)
    how = signal_settings(settings)
    rows = subset_records(mapping, 0, settings.split_seed)
    chunks = plan_chunks(mapping, rows, settings.archives_dir, how)
    records_dir, window_bytes = settings.workspace.records_dir, 24 * settings.target_samples
    assert all(is_chunk_done(records_dir, chunk.name, window_bytes) for chunk in chunks)
    prepared = collect_chunks(chunks, records_dir, mapping)
    manifest = _make_manifest(settings, prepared, mapping, how, "scale")
    assert len(manifest) == n_records
    sketches = sum(column.nbytes for column in prepared.sketches)
    return {"columns": lambda: columns_of(mapping, prepared.stored, manifest) + sketches}


def check_stage(root: Path, n_records: int) -> Told:
    settings = settings_of(root)
    checks = run_preflight_checks(settings)
    passed = {check.subject for check in checks if check.verdict == "passed"}
    # There is no archive that a reader knows: its signals are not read here.
    failed = {check.subject for check in checks if check.verdict == "failed"} - {"archives"}
    assert passed >= {"labels", "store", "splits", "classes"} and not failed, checks
    return {"columns": lambda: columns_of(read_store(settings.workspace, CHECKED_COLUMNS).manifest)}


def splits_stage(root: Path, n_records: int) -> Told:
    manifest = open_store(settings_of(root).workspace).manifest
    published = np.full(n_records, np.nan)
    manifest["fold"] = assign_folds(manifest, published, 0)
    splits = make_splits(manifest, seed=0, label_set="five", audit={})
    check_splits(splits, manifest)
    held = columns_of(manifest) + published.nbytes
    return {"columns": lambda: held, "n_train": len(splits["train"])}


def audit_stage(root: Path, n_records: int) -> Told:
    store = open_store(settings_of(root).workspace)
    sketches = all_sketches(n_records)
    pairs = find_duplicates(store, sketches)
    found = set(zip(pairs["record"], pairs["copy"], strict=True))
    planted = expected_pairs(n_records)
    held = columns_of(store.manifest) + sum(column.nbytes for column in sketches)
    return {
        "columns": lambda: held, "n_planted": len(planted), "n_found": len(planted & found),
        "n_false": len(found - planted),
    }  # fmt: skip


def train_stage(root: Path, n_records: int) -> Told:
    settings, device = settings_of(root), torch.device("cpu")
    store, chosen = open_data(settings)
    data = data_fingerprint(store, chosen)
    run_inputs(settings, data, device)
    run = open_run(settings, store, chosen, data, device)
    state = new_state(run)
    _, _, batches = next(steps_of_epoch(run, state))
    n_read = len(next(batches).records)
    return {"columns": lambda: columns_of(store.manifest), "n_read": n_read}


def epoch_stage(root: Path, n_records: int, n_batches: int = 200) -> Told:
    settings = settings_of(root)
    store = open_store(settings.workspace)
    rows = np.flatnonzero(masks_of_folds(store.manifest, [10])["train"]).astype(np.int32)
    listed = list_windows(store, rows)
    source = open_windows(store, listed, torch.device("cpu"), "streamed")
    began = time.process_time()
    plan = plan_epoch(listed, settings.crop, 0, 0)
    planned = time.process_time() - began
    size = settings.batch_size_cpu
    bounds = step_bounds(len(rows), size)[: n_batches + 1]
    chunks = [
        part
        for start, stop in pairwise(bounds)
        for part in micro_batches(plan.order[start:stop], size)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    batches = training_batches(source, listed, plan, chunks, crop=settings.crop)
    n_read = sum(len(batch.records) for batch in batches)
    return {
        "columns": lambda: columns_of(store.manifest), "n_read": n_read, "plan_cpu_s": planned,
        "read_cpu_s": time.process_time() - cpu, "read_wall_s": time.perf_counter() - began,
    }  # fmt: skip


# What each stage's peak is taken less: its own tables of a row per record.
STAGES: dict[str, tuple[Callable[[Path, int], Told], str]] = {
    "prepare": (prepare_stage, "mapping, chunk tables with sketches, manifest"),
    "check": (check_stage, "the manifest's columns that it reads"),
    "splits": (splits_stage, "manifest, published folds"),
    "audit": (audit_stage, "manifest, sketches"),
    "train": (train_stage, "manifest"),
    "epoch": (epoch_stage, "manifest"),
}


def measure_here(stage: str, root: Path, n_records: int) -> Told:
    """Of this process, which does nothing else."""
    imported = psutil.Process().memory_info().rss
    began, cpu = time.perf_counter(), time.process_time()
    told = STAGES[stage][0](root, n_records)
    count_columns = told.pop("columns")
    peak = peak_bytes()
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began}
    return (
        told
        | spent
        | {
            "peak_mb": round(peak / 2**20, 1),
            "imported_mb": round(imported / 2**20, 1),
            # Asked for last: a stage that gave its table up has to read it once more.
            "columns_mb": round(count_columns() / 2**20, 1),
        }
    )


def peak_bytes() -> int:
    """Most memory that this process has taken."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells a process includes the program that started it.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_apart(stage: str, root: Path, n_records: int) -> Told:
    """In processes of their own; of several, the one that took least CPU time."""
    runs = []
    for _ in range(REPEATS.get(n_records, 1)):
        command = [sys.executable, __file__, "--stage", stage, "--root", str(root)]
        command += ["--of", str(n_records)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["cpu_s"])


# Growth ------------------------------------------------------------------------------------------


def growth_exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(figures), 1)[0])


def growth_of(measured: Mapping[str, Told]) -> dict[str, float]:
    """How a stage's time and memory grow.

    Args:
        measured: by number of records, ascending.
    """
    sizes, runs = [int(size) for size in measured], list(measured.values())
    seconds = [run["cpu_s"] for run in runs]
    memory = [run["peak_mb"] - run["columns_mb"] for run in runs]
    return {
        "exponent": round(growth_exponent(sizes, seconds), 3),
        "last_exponent": round(growth_exponent(sizes[-2:], seconds[-2:]), 3),
        "memory_ratio": round(max(memory) / memory[0], 3),
    }


def missed_bounds(
    growth: Mapping[str, Mapping[str, float]], audit: Mapping[str, Told]
) -> list[str]:
    """Every figure that is beyond its bound, in words."""
    missed = [
        f"{stage}: {words.format(figures[name])}; {bound:g} is allowed"
        for stage, figures in growth.items()
        for name, (bound, words) in BOUNDS.items()
        if figures[name] > bound
    ]
    for size, told in audit.items():
        if told["n_found"] < told["n_planted"] or told["n_false"]:
            missed.append(
                f"audit: {told['n_found']} of {told['n_planted']} planted copies found among "
                f"{int(size):,} records, and {told['n_false']} that are none"
            )
    return missed


# Report ------------------------------------------------------------------------------------------


def index_sizes(root: Path, n_records: int) -> dict[str, float]:
    """Bytes per record of what says where records are."""
    workspace = settings_of(root).workspace
    paths = {
        "manifest_file": workspace.manifest_path,
        "splits_file": workspace.splits_path,
        "mapping_file": workspace.mapping_path,
    }
    sizes = {name: path.stat().st_size / n_records for name, path in paths.items()}
    return {name: round(size, 1) for name, size in sizes.items()}


def measure_sizes(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Build a store of each size, measure its stages, and keep what is found at once."""
    for n_records in chosen_sizes(options):
        with tempfile.TemporaryDirectory() as folder:
            root = (options.work or Path(folder)) / f"store_of_{n_records}"
            if not settings_of(root).workspace.step_path("label").exists():
                command = [sys.executable, __file__, "--build", "--root", str(root)]
                subprocess.run([*command, "--of", str(n_records)], check=True)
            for stage in options.stages.split(","):
                told = measure_apart(stage, root, n_records)
                of_stage = result["stages"].setdefault(stage, {}).setdefault("measured", {})
                of_stage[str(n_records)] = told
                print(line_of(stage, n_records, told), flush=True)
            result["index_bytes_per_record"][str(n_records)] = index_sizes(root, n_records)
        write_json(options.output, result)


def line_of(stage: str, n_records: int, told: Told) -> str:
    memory = told["peak_mb"] - told["columns_mb"]
    return (
        f"{n_records:>10,} {stage:8} {told['cpu_s']:9.2f} s CPU "
        f"{told['cpu_s'] / n_records * 1e6:9.2f} us/record {memory:8.0f} MB "
        f"beside {told['columns_mb']:.0f} MB of columns"
    )


def growth_line(stage: str, growth: Mapping[str, float]) -> str:
    return (
        f"{stage:8} CPU time grows as n^{growth['exponent']:.2f} (last step "
        f"n^{growth['last_exponent']:.2f}), memory to {growth['memory_ratio']:.2f} times"
    )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-records", type=int, default=SIZES[-1])
    parser.add_argument("--min-records", type=int, default=SIZES[0])
    parser.add_argument("--add", action="store_true", help="to what the result file holds")
    parser.add_argument("--stages", default=",".join(STAGES), help="with commas between")
    parser.add_argument("--output", type=Path, help="a JSON file")
    parser.add_argument("--work", type=Path, help="where stores are built and kept; unset: nowhere")
    for flag, kind in (("--stage", str), ("--root", Path), ("--of", int)):
        parser.add_argument(flag, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := [stage for stage in options.stages.split(",") if stage not in STAGES]:
        parser.error(f"no stage {unknown[0]!r} is known; known: {', '.join(STAGES)}")
    if not chosen_sizes(options):
        parser.error(f"no size lies between --min-records and --max-records; there are {SIZES}")
    is_whole = chosen_sizes(options) == list(SIZES) and options.stages.split(",") == list(STAGES)
    options.output = options.output or (RESULT_PATH if is_whole or options.add else PART_PATH)
    return options


def chosen_sizes(options: argparse.Namespace) -> list[int]:
    return [size for size in SIZES if options.min_records <= size <= options.max_records]


def run_benchmark(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    if options.build:
        build_store(options.root, options.of)
        return 0
    if options.stage:
        print(json.dumps(measure_here(options.stage, options.root, options.of)))
        return 0
    result: dict[str, Any] = {"stages": {}, "index_bytes_per_record": {}}
    if options.add and options.output.exists():
        result = read_json(options.output)
    measure_sizes(options, result)
    return judge(result, options.output)


def judge(result: dict[str, Any], output: Path) -> int:
    """Add growth and missed bounds to the result; 1 where a bound is missed."""
    from train_throughput import describe_machine

    growth = {}
    for stage, found in result["stages"].items():
        found["less"] = STAGES[stage][1]
        if len(found["measured"]) > 1:
            growth[stage] = found["growth"] = growth_of(found["measured"])
            print(growth_line(stage, found["growth"]))
    audit = result["stages"].get("audit", {}).get("measured", {})
    result["missed"] = missed_bounds(growth, audit)
    unjudged = [stage for stage in result["stages"] if stage not in growth]
    result["missed"] += [f"{stage}: one size alone shows no growth" for stage in unjudged]
    result["machine"] = describe_machine(torch.device("cpu"))
    write_json(output, result)
    for size, told in audit.items():
        print(f"{int(size):,}: {told['n_found']} of {told['n_planted']} planted copies found")
    print(f"Written to {output}")
    for line in result["missed"]:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(run_benchmark())
