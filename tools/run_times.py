"""Write the runbook's tables of times from what was measured, and extrapolate the rest.

    python tools/run_times.py           rewrite the tables
    python tools/run_times.py --check   fail where they are stale

Measured: results/run_steps.json, and the speed of training steps alone on a quiet machine
(results/train_throughput.json). Extrapolated, and called so: training 50,000 records for 20 epochs
on other machines. A step there takes the longer of two times: the arithmetic at a share of the
card's published peak, and the host's work of calling every operation, as it was measured here.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from einthoven.files import read_json, write_text

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "runbook.md"
RESULTS = PROJECT / "benchmarks" / "results"
N_RECORDS, N_EPOCHS = 50_000, 20
BATCHES = (64, 1024)  # the default, and one that keeps a card busy
TRAIN_SHARE = 0.8  # eight folds of ten
# A pass forwards and one backwards, which costs about twice as much.
PASSES = 3
# Shares of the published peak that the card may reach with small one-dimensional convolutions.
GPU_SHARES = (0.20, 0.02)
# What a CPU core of eight may keep of the speed that one has alone.
CPU_SHARES = (1.0, 0.5)
N_CORES = 8


class Card(NamedTuple):
    """A graphics card and its published peak without sparsity, in 10^12 operations per second."""

    name: str
    peak: float
    arithmetic: str
    source: str


DATASHEETS = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center"
CARDS = (
    Card("NVIDIA L4", 121, "bfloat16", "https://www.nvidia.com/en-us/data-center/l4/"),
    Card(
        "NVIDIA V100 (SXM2)", 125, "float16",
        "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
    ),
    Card(
        "NVIDIA A100 (SXM4)", 312, "bfloat16",
        f"{DATASHEETS}/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
)  # fmt: skip


# Measured ----------------------------------------------------------------------------------------


def steps_table(measured: dict[str, Any]) -> str:
    """What each step took here."""
    rows = [
        f"| `einthoven {step}` | {duration(facts['cpu_seconds'])} | {facts['peak_mib']:,.0f} MiB |"
        for step, facts in measured["steps"].items()
    ]
    header = "| step | processor time, one core | most memory |\n|---|---:|---:|"
    sizes = ", ".join(
        f"{name} {size:,.1f} MB" for name, size in measured["megabytes"].items() if size
    )
    return (
        "\n".join([header, *rows])
        + f"\n\nMeasured, each command once and by itself: {measured['records']:,} records,"
        f" most of them PTB-XL's at 100 Hz, {measured['label_set']}, {measured['n_train']:,} of"
        f" them trained on for {measured['epochs']} epochs, `{measured['model']}`, without"
        f" trackers, {machine_words(measured)}. Processor time, because other work ran beside it,"
        " which makes that longer too: training took about twice what it takes at a quiet time"
        " ([why](#training-50000-records-for-20-epochs))."
        " `train` has scored the test split already, so that `evaluate` finds it done."
        f" On disk afterwards: {sizes}. `benchmarks/run_steps.py` measures these steps in one go."
    )


def machine_words(measured: dict[str, Any]) -> str:
    return f"one thread of an AMD EPYC core without a GPU, torch {measured['versions']['torch']}"


def duration(seconds: float) -> str:
    """Seconds in words, to two digits.

    >>> duration(3.21), duration(95), duration(5400), duration(40000)
    ('3.2 s', '1.6 min', '1.5 h', '11 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


# Extrapolated ------------------------------------------------------------------------------------


class CoreSpeed(NamedTuple):
    """Records per second of one core here, trained on with the default model in float32."""

    quiet: float  # training steps alone, nothing else running
    busy: float  # training steps alone, beside other work: the median epoch
    whole: float  # all of `einthoven train`, beside other work, per second of processor time


def core_speed(measured: dict[str, Any], quiet: dict[str, Any]) -> CoreSpeed:
    passes = measured["n_train"] * measured["epochs"]
    return CoreSpeed(
        quiet["models"][measured["model"]]["records_per_s"]["loop"],
        statistics.median(measured["records_per_s"]),
        passes / measured["steps"]["train"]["cpu_seconds"],
    )


def cards_table(measured: dict[str, Any], speed: CoreSpeed, flops: float) -> str:
    """Training times on machines that nobody had here, each from the better to the worse case."""
    n_passes = N_RECORDS * TRAIN_SHARE * N_EPOCHS
    spread = between(
        n_passes / (each * N_CORES * share)
        for each, share in zip((speed.quiet, speed.whole), CPU_SHARES, strict=True)
    )
    rows = [
        f"| CPU, {N_CORES} cores like ours | {spread} | {spread} | float32;"
        f" {speed.whole:.0f} to {speed.quiet:.0f} records per second of one core, of which each of"
        " eight keeps half to all |"
    ]
    host = measured["host_ms_per_step"] / 1000
    for card in CARDS:
        spreads = [
            between(
                n_passes / batch * step_seconds(card, PASSES * flops * batch, host, share)
                for share in GPU_SHARES
            )
            for batch in BATCHES
        ]
        rows.append(
            f"| {card.name} | {' | '.join(spreads)} | {card.arithmetic},"
            f" [{card.peak:g} TFLOPS]({card.source}) |"
        )
    columns = " | ".join(f"batch {batch:,}, extrapolated" for batch in BATCHES)
    header = f"| machine | {columns} | from |\n|---|---|---|---|"
    table = "\n".join([header, *rows])
    return "\n\n".join([table, basis(flops, n_passes, host), cores(speed)])


def step_seconds(card: Card, flops: float, host: float, share: float) -> float:
    """A step takes the longer of arithmetic and host, since one waits for the other."""
    return max(flops / (card.peak * 1e12 * share), host)


def between(seconds: Iterable[float]) -> str:
    """From the shortest to the longest, in words."""
    told = list(dict.fromkeys(map(duration, sorted(seconds))))
    return " to ".join(told)


def basis(flops: float, n_passes: float, host: float) -> str:
    low, high = (f"{100 * share:g} %" for share in reversed(GPU_SHARES))
    return (
        f"**None of these machines was measured.** {N_RECORDS:,} records, of which eight folds of"
        f" ten train, for {N_EPOCHS} epochs are {n_passes:,.0f} passes of a record; one of"
        f" `resnet1d_views` costs {PASSES} × {flops / 1e6:.1f} MFLOP. A GPU is taken to reach"
        f" {low} to {high} of its published peak (an assumption: small one-dimensional"
        f" convolutions fill no large card), and never to be faster than its host, which needs"
        f" {1000 * host:.0f} ms of one core to call the operations of a step, measured here. With"
        f" the default `BATCH_SIZE_GPU` of {BATCHES[0]} the host is the limit on every card; a"
        f" larger one makes epochs shorter, and wants a larger `LR`. Validation and the stages"
        f" around training are not in the rows of GPUs."
    )


def cores(speed: CoreSpeed) -> str:
    """Why the speeds of one core differ."""
    return (
        f"**Records per second of one CPU core**: {speed.quiet:.0f} in training steps alone on a"
        " quiet machine (`benchmarks/results/train_throughput.json`). In the run of the table above"
        f" other work kept the machine's other core busy, and the same steps came to"
        f" {speed.busy:.0f}; a shared processor gets less done in each of its seconds. With its"
        " start, the validation after each epoch and the test scores the whole run came to"
        f" {speed.whole:.0f} per second of processor time. Model, batch of 64, one thread, float32"
        " and PyTorch are the same in all three."
    )


def fill(page: str, part: str, text: str) -> str:
    """The page with a part between its two marks replaced."""
    begin, end = f"<!-- {part}: tools/run_times.py writes this -->", f"<!-- end of {part} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE.name} lacks the marks of {part}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def new_page() -> str:
    measured = read_json(RESULTS / "run_steps.json")
    flops = read_json(RESULTS / "models.json")["models"][measured["model"]]["flops"]
    speed = core_speed(measured, read_json(RESULTS / "train_throughput.json"))
    page = fill(PAGE.read_text(encoding="utf-8"), "steps", steps_table(measured))
    return fill(page, "cards", cards_table(measured, speed, flops))


def main() -> int:
    page = new_page()
    if "--check" not in sys.argv:
        write_text(PAGE, page)
        return 0
    if PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.name} is stale; run `python tools/run_times.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
