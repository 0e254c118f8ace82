"""How far batches are from those of a full permutation when records are shuffled block by block.

    python benchmarks/shuffling.py

A store lies archive after archive, and archives differ in how common a label is. Our `plan_epoch`
permutes all records, for which every record has to be read by its position. A store that can only
be read in whole shards, as object storage wants it, is shuffled in two steps: shards in a random
order, and records within a buffer of some shards. This draws batches both ways and says how much
wider the share of a label spreads over batches than chance alone makes it, once with the archives
in their shards as `einthoven prepare` writes them, once with records scattered over all shards
before. Writes ``results/shuffling.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from einthoven.batches import RecordWindows, plan_epoch
from einthoven.chunks import RECORDS_PER_SHARD
from einthoven.files import write_json
from einthoven.store import WindowTable

RESULT_PATH = Path(__file__).parent / "results" / "shuffling.json"
N_RECORDS = 1 << 20
BATCH = 1024
# Share of records that carry the label, by archive; all archives are of one size.
PREVALENCES = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
BUFFERS = (1, 4, 16, 64, 256)


def make_labels(rng: np.random.Generator, is_scattered: bool) -> np.ndarray:
    """Which records carry the label, in the order of the shards: ``(n,)`` bool."""
    prevalence = np.repeat(PREVALENCES, N_RECORDS // len(PREVALENCES))
    labels = rng.random(N_RECORDS) < prevalence
    return rng.permutation(labels) if is_scattered else labels


def permuted(seed: int) -> np.ndarray:
    """The order of `plan_epoch`, for records of one window."""
    one_window = np.zeros(N_RECORDS, np.int32)
    table = WindowTable(one_window, one_window, one_window, one_window)
    listed = RecordWindows(table, np.arange(N_RECORDS + 1, dtype=np.int32))
    return plan_epoch(listed, 0, seed, 0).order


def buffered(rng: np.random.Generator, n_shards: int) -> np.ndarray:
    """Shards in a random order; each record is drawn from a buffer that holds some of them.

    The buffer is emptied and filled in turns of one shard: what is drawn in between is a random
    part of what it holds.
    """
    shards = rng.permutation(N_RECORDS // RECORDS_PER_SHARD)
    held = np.zeros(0, np.int64)
    drawn = []
    for number, shard in enumerate(shards):
        rows = shard * RECORDS_PER_SHARD + np.arange(RECORDS_PER_SHARD)
        held = rng.permutation(np.concatenate([held, rows]))
        if number + 1 >= n_shards:
            drawn.append(held[:RECORDS_PER_SHARD])
            held = held[RECORDS_PER_SHARD:]
    return np.concatenate([*drawn, held])


def spread_of(labels: np.ndarray, order: np.ndarray) -> dict[str, float]:
    """Labels per batch: standard deviation over that of chance, batches without any, and most."""
    per_batch = labels[order].reshape(-1, BATCH).sum(1)
    share = labels.mean()
    chance = np.sqrt(BATCH * share * (1 - share))
    return {
        "to_chance": round(float(per_batch.std() / chance), 2),
        "fewest": int(per_batch.min()),
        "most": int(per_batch.max()),
    }


def run_benchmark() -> int:
    result: dict[str, object] = {
        "records": N_RECORDS, "batch": BATCH, "records_per_shard": RECORDS_PER_SHARD,
        "prevalences": PREVALENCES, "seed": 0,
    }  # fmt: skip
    for kind in ("by archive", "scattered"):
        labels = make_labels(np.random.default_rng(0), kind == "scattered")
        found = {"whole store": spread_of(labels, permuted(0))}
        for n_shards in BUFFERS:
            order = buffered(np.random.default_rng(1), n_shards)
            found[f"{n_shards}"] = spread_of(labels, order)
        result[kind] = found
        print(kind, found)
    write_json(RESULT_PATH, result)
    return 0


if __name__ == "__main__":
    sys.exit(run_benchmark())
