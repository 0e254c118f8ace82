"""Seconds for every score with its bootstrap over patients, on one thread.

    python benchmarks/scoring.py

1,000 resamples of 2,000 records of 1,500 patients with the 26 classes of the Challenge 2021, so
that the Challenge score is among them; synthetic probabilities. The target is 10 s on one core.
The median of several turns counts, after one to warm up. Prints the seconds; writes
``results/scoring.json``.
"""

from __future__ import annotations

import os

# Before numpy is there: one core.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from einthoven.files import write_json
from einthoven.labels.snomed import CHALLENGE_2021
from einthoven.metrics import decide
from einthoven.scoring import Predictions, score_split

LABELS = tuple(CHALLENGE_2021)
RESULT_PATH = Path(__file__).parent / "results" / "scoring.json"


def draw_predictions(n: int, n_patients: int) -> Predictions:
    """Records with about two labels each, and float32 probabilities that know some of the truth."""
    rng = np.random.default_rng(0)
    shape = (n, len(LABELS))
    targets = (rng.random(shape) < rng.uniform(0.02, 0.15, len(LABELS))).astype(np.uint8)
    odds = np.exp(rng.normal(3.0 * targets - 2.5, 1.0))
    probabilities = (odds / (1 + odds)).astype(np.float32)
    names = np.array([f"archive/{k}" for k in range(n)], object)
    return Predictions(
        records=names,
        groups=np.array([f"p{k}" for k in rng.integers(n_patients, size=n)], object),
        archives=np.full(n, "archive", object),
        targets=targets,
        raw=probabilities**2,
        probabilities=probabilities,
        decisions=decide(probabilities, None, single=False),
        labels=LABELS,
        single=False,
    )


def run_benchmark() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    predictions = draw_predictions(options.records, options.records * 3 // 4)
    seconds = []
    for _ in range(options.repeats + 1):
        start = time.perf_counter()
        scores = score_split(predictions, options.resamples, seed=0)
        seconds.append(time.perf_counter() - start)
    assert scores["challenge_score"]["low"] is not None
    median = float(np.median(seconds[1:]))
    size = f"{options.records:,} records x {len(LABELS)} classes"
    print(f"{options.resamples:,} resamples of {size}: {median:.2f} s on one thread")
    write_json(
        RESULT_PATH,
        {
            "n": options.records,
            "n_patient_groups": predictions.n_patient_groups,
            "classes": len(LABELS),
            "resamples": options.resamples,
            "threads": 1,
            "repeats": options.repeats,
            "seconds": {"median": median, "low": min(seconds[1:]), "high": max(seconds[1:])},
            "machine": {
                "cpus": os.cpu_count(),
                "processor": platform.machine(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "versions": {name: version(name) for name in ("einthoven", "numpy", "scipy")},
            },
        },
    )


if __name__ == "__main__":
    run_benchmark()
