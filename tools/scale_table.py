"""Write the tables of docs/explanation/scale.md from result files and named assumptions.

python tools/scale_table.py            rewrite the tables
python tools/scale_table.py --check    fail where one is stale
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from einthoven.files import read_json, write_text

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "explanation" / "scale.md"
RESULTS = PROJECT / "benchmarks" / "results"

STAGES = {
    "prepare": "`prepare`, but for reading signals",
    "check": "`check`",
    "splits": "folds and splits",
    "audit": "audit for copies",
    "train": "start of `train`",
    "epoch": "an epoch planned, 200 batches read",
}

# The plan. Published: an H100 SXM's dense bfloat16 peak; 419 unexpected interruptions of 16,384
# GPUs in 54 days. Assumed: the rest.
N_RECORDS, N_GPUS, GPUS_PER_NODE = 100_000_000, 64, 8
TRAIN_SHARE, N_EPOCHS = 0.8, 20
PEAK_FLOPS, PEAK_SHARES = 989e12, (0.02, 0.20)
GPU_HOURS_PER_FAILURE = 16_384 * 54 * 24 / 419
BATCHES = (64, 256, 1024)
BYTES_100, BYTES_500 = 24_000, 120_000
PASSES = 3  # forward, and twice as much backward
USD_PER_GPU_HOUR, USD_PER_TB_MONTH = 3.0, 23.0
SAVE_S, RESTART_S = 2.0, 600.0
SKETCHES_PER_RECORD, SKETCH_BITS, KEY_PAIRS = 8, 40, 15
MS_PER_UNLIKE_PAIR = 0.7


def scaling_table() -> str:
    """A row per stage, and what was missed."""
    result = read_json(RESULTS / "scale.json")
    stages = result["stages"].values()
    sizes = sorted({int(size) for found in stages for size in found["measured"]})
    header = ["stage", *(f"{size:,} records" for size in sizes), "CPU time", "memory"]
    lines = [f"| {' | '.join(header)} |", "|---|" + "---|" * (len(header) - 1)]
    for stage, title in STAGES.items():
        found = result["stages"][stage]
        cells = [measured_cell(found["measured"].get(str(size)), size) for size in sizes]
        growth = found["growth"]
        power = f"n^{growth['exponent']:.2f} (last step n^{growth['last_exponent']:.2f})"
        cells += [power, f"{growth['memory_ratio']:.2f} times"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    audit = result["stages"]["audit"]["measured"].values()
    machine = result["machine"]
    missed = "; ".join(result["missed"]) or "none"
    lines += [
        "",
        f"Microseconds of CPU time per record; peak memory less the columns, in MB. Copies planted "
        f"{sum(told['n_planted'] for told in audit)}, found "
        f"{sum(told['n_found'] for told in audit)}, "
        f"{sum(told['n_false'] for told in audit)} false. Bounds missed: {missed}. "
        f"{machine['cpu']}, {machine['threads']} thread, {machine['system']}; other work shared "
        "the machine, so CPU time of user and system is given and not the clock's.",
    ]
    return "\n".join(lines)


def measured_cell(told: dict[str, Any] | None, size: int) -> str:
    if told is None:
        return "not run"
    memory = told["peak_mb"] - told["columns_mb"]
    return f"{told['cpu_s'] / size * 1e6:,.1f} µs, {memory:,.0f} MB"


def largest(stage: str) -> tuple[int, dict[str, Any], dict[str, float]]:
    """The largest size that a stage was measured at, what was found, and its growth."""
    found = read_json(RESULTS / "scale.json")["stages"][stage]
    size = max(found["measured"], key=int)
    return int(size), found["measured"][size], found["growth"]


def index_table() -> str:
    """Bytes per record of everything but the signals, measured, and at the plan's size."""
    sizes = read_json(RESULTS / "scale.json")["index_bytes_per_record"]
    of_largest = sizes[max(sizes, key=int)]
    rows = [(f"`{name}` on disk", value) for name, value in zip(
        ("manifest.parquet", "splits.json", "unified_label_mapping.csv"),
        (of_largest[key] for key in ("manifest_file", "splits_file", "mapping_file")), strict=True,
    )]  # fmt: skip
    for stage, title in (
        ("splits", "all columns of the manifest in memory"),
        ("check", "the columns that `check` and training need, in memory"),
        ("audit", "manifest and sketches in memory"),
    ):
        size, told, _ = largest(stage)
        rows.append((title, told["columns_mb"] * 2**20 / size))
    lines = ["| what | bytes per record, measured | at 100 million records |", "|---|---:|---:|"]
    lines += [f"| {n} | {b:,.0f} | {b * N_RECORDS / 1e9:,.1f} GB |" for n, b in rows]
    return "\n".join(lines)


def start_table() -> str:
    """Start-up stages at the plan's size, by the growth measured."""
    lines = [
        "| stage | measured at | CPU time there | at 100 million, extrapolated |",
        "|---|---:|---:|---:|",
    ]
    for stage, title in STAGES.items():
        size, told, growth = largest(stage)
        power = max(growth["last_exponent"], 1.0)
        at_plan = told["cpu_s"] * (N_RECORDS / size) ** power
        lines.append(f"| {title} | {size:,} | {told['cpu_s']:,.0f} s | {clock(at_plan)} |")
    n_sketches = N_RECORDS * SKETCHES_PER_RECORD
    chance = KEY_PAIRS * n_sketches**2 / 2 / 2**SKETCH_BITS
    lines += [
        "",
        "The audit has a quadratic part that the largest store measured hardly shows: two sketches "
        f"of {SKETCH_BITS} bits agree by chance, and every pair that does is compared. At 100 "
        f"million records these are {chance / 1e6:.1f} million pairs (computed), at "
        f"{MS_PER_UNLIKE_PAIR} ms each (measured on noise) "
        f"{clock(chance * MS_PER_UNLIKE_PAIR / 1000)} of one core; 48 bits would leave "
        f"{chance / 2**8:,.0f} pairs.",
    ]
    return "\n".join(lines)


def clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def step_rates(batch: int) -> tuple[float, float]:
    """Records per second of one GPU at the lowest and the highest share of its peak."""
    steps = read_json(RESULTS / "run_steps.json")
    host_s = steps["host_ms_per_step"] / 1000
    flops = PASSES * read_json(RESULTS / "models.json")["models"]["resnet1d_views"]["flops"]
    low, high = (batch / max(flops * batch / (PEAK_FLOPS * share), host_s) for share in PEAK_SHARES)
    return low, high


def plan_table() -> str:
    """Records, bytes and time by the batch of each GPU."""
    lines = [
        "| batch per GPU | records/s per GPU | an epoch of 80 million | per GPU, 100 Hz | per node "
        "| all | per node, 500 Hz | 20 epochs, GPU-hours |",
        "|---:|---|---|---|---|---|---|---|",
    ]
    n_trained = N_RECORDS * TRAIN_SHARE
    for batch in BATCHES:
        rates = sorted(set(step_rates(batch)))
        epoch = [n_trained / (rate * N_GPUS) for rate in reversed(rates)]
        cells = [
            f"{batch:,}",
            between(rates, lambda rate: f"{rate:,.0f}"),
            between(epoch, clock),
            *(
                between(rates, lambda rate, by=by: f"{rate * by / 1e9:,.2g} GB/s")
                for by in (
                    BYTES_100,
                    BYTES_100 * GPUS_PER_NODE,
                    BYTES_100 * N_GPUS,
                    BYTES_500 * GPUS_PER_NODE,
                )
            ),
            between(epoch, lambda s: f"{s * N_EPOCHS * N_GPUS / 3600:,.0f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def between(values: list[float], told: Any) -> str:
    first, last = told(values[0]), told(values[-1])
    return first if first == last else f"{first} to {last}"


def cost_table() -> str:
    """What failures and hours come to."""
    mtbf_h = GPU_HOURS_PER_FAILURE / N_GPUS
    best_s = math.sqrt(2 * SAVE_S * mtbf_h * 3600)
    lost_s = 600 / 2 + RESTART_S
    slowest = N_RECORDS * TRAIN_SHARE * N_EPOCHS / (step_rates(BATCHES[0])[0] * N_GPUS) / 3600
    prepare = read_json(RESULTS / "prepare.json")["records_per_second"]["ours"]
    core_h = N_RECORDS / prepare / 3600
    per_core = read_json(RESULTS / "train_throughput.json")["models"]["resnet1d_views"]
    cpu_h = N_RECORDS * TRAIN_SHARE * N_EPOCHS / per_core["records_per_s"]["loop"] / 3600
    rows = [
        ("reading and preparing 500 Hz records", f"{core_h:,.0f} core-hours",
         f"measured, {prepare:,.0f} records/s of one core"),
        ("20 epochs on CPUs instead", f"{cpu_h:,.0f} core-hours",
         f"measured, steps alone, {per_core['records_per_s']['loop']:,.0f} records/s of one core"),
        ("20 epochs on 64 GPUs, batch 64 each", f"{slowest:.1f} h, {slowest * N_GPUS:,.0f} "
         f"GPU-hours, {slowest * N_GPUS * USD_PER_GPU_HOUR:,.0f} USD",
         f"assumed, {USD_PER_GPU_HOUR:g} USD per GPU-hour"),
        ("store at 100 Hz, a month", f"{N_RECORDS * BYTES_100 / 1e12 * USD_PER_TB_MONTH:,.0f} USD",
         f"assumed, {USD_PER_TB_MONTH:g} USD per TB and month"),
        ("hours between failures of 64 GPUs", f"{mtbf_h:,.0f} h",
         "published rate of 16,384 GPUs, taken per GPU"),
        ("best interval between saves", clock(best_s),
         f"computed (Young), {SAVE_S:g} s a save, assumed; `CHECKPOINT_MINUTES` is 10"),
        ("lost per failure, at 10 minutes", clock(lost_s),
         f"half an interval, and {RESTART_S / 60:g} min to start again, assumed"),
        ("failures expected in the run above", f"{slowest / mtbf_h:.4f}", "computed"),
    ]  # fmt: skip
    lines = ["| what | figure | from |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def shuffling_table() -> str:
    found = read_json(RESULTS / "shuffling.json")
    lines = [
        "| buffer | archive after archive | fewest and most per batch | scattered when written |",
        "|---|---:|---|---:|",
    ]
    for buffer, ordered in found["by archive"].items():
        title = buffer if buffer == "whole store" else f"{buffer} shard{'s' * (buffer != '1')}"
        lines.append(
            f"| {title} | {ordered['to_chance']:.2f} | {ordered['fewest']} to {ordered['most']} "
            f"| {found['scattered'][buffer]['to_chance']:.2f} |"
        )
    lines += [
        "",
        f"Standard deviation over batches of {found['batch']:,} of how many records carry a label, "
        f"over that of chance; {found['records']:,} records in shards of "
        f"{found['records_per_shard']}, eight archives in which {found['prevalences'][0]:.1%} to "
        f"{found['prevalences'][-1]:.0%} carry it. *Whole store* is what `einthoven train` does. "
        "Simulated by `benchmarks/shuffling.py`.",
    ]
    return "\n".join(lines)


PARTS = {
    "scaling": scaling_table,
    "index": index_table,
    "start": start_table,
    "plan": plan_table,
    "shuffling": shuffling_table,
    "cost": cost_table,
}


def with_part(text: str, part: str, table: str) -> str:
    """The page with one of its tables as the result files have it."""
    begin, end = f"<!-- {part}: tools/scale_table.py writes this -->", f"<!-- end of {part} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> int:
    text = fresh = PAGE.read_text(encoding="utf-8")
    for part, table in PARTS.items():
        fresh = with_part(fresh, part, table())
    if "--check" in sys.argv[1:]:
        if fresh != text:
            print(f"{PAGE.name} is stale; run `python tools/scale_table.py`", file=sys.stderr)
        return int(fresh != text)
    write_text(PAGE, fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
