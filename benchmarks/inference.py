"""From raw millivolts to decisions: PyTorch against ONNX Runtime, and what int8 costs.

    python benchmarks/inference.py --model best_model.pth --root WORKSPACE

The same graph, filter to thresholds, on the same records of one window, in turns and several times
over: eager PyTorch, ONNX Runtime with float32 and with int8, with one thread and with two; one
record at a time (latency) and 64 together (throughput). The ratios are of rounds, so that what else
the machine does weighs on all of them. Without ``--model`` the default network has fresh weights,
which cost as much.

With ``--root``, a workspace whose model this is and that has been evaluated: both files are also
compared with PyTorch on 100 records of its test split, and macro AUROC of float32 and int8 on the
whole test split, with the interval of their difference over resamples of patients. The ranges of
int8 are settled on training records. Writes ``results/inference.json``.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from einthoven.bootstrap import all_scores, bootstrap_scores
from einthoven.calibration.maps import no_calibration
from einthoven.checkpoint import ModelInput, TrainedModel, versions
from einthoven.exporting.graph import WholeModel
from einthoven.exporting.onnx_model import load_exported_model
from einthoven.exporting.writing import export_model, pick_check_signals
from einthoven.files import Workspace, file_digest, write_json
from einthoven.labels.sets import load_label_set
from einthoven.models.registry import build_model
from einthoven.prediction import load_best_model, predict_prepared
from einthoven.records import LEADS
from einthoven.samples import prepare_sample
from einthoven.scopes import predictions_path
from einthoven.settings import Settings
from einthoven.split_records import rows_of_records
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, open_store, stored_signal

RESULT_PATH = Path(__file__).parent / "results" / "inference.json"
BATCHES = (1, 64)
N_COMPARED = 100
RESAMPLES = 2000
ENGINES = ("pytorch", "onnx", "onnx_int8")


def fresh_model() -> TrainedModel:
    """The default network with fresh weights, and the default input."""
    settings = Settings()
    labels = load_label_set(settings.label_set).labels
    torch.manual_seed(0)
    network = build_model(settings.model_name, n_leads=len(LEADS), n_classes=len(labels))
    taken = ModelInput(
        fs=settings.target_fs, window=settings.target_samples, crop=settings.crop, bandpass=None,
        standardize=settings.standardize, scale=torch.full((len(LEADS),), 0.2),
    )  # fmt: skip
    return TrainedModel(
        network.eval(), taken, tuple(labels), False, no_calibration(labels, "fresh weights"), {},
        "half", {}, torch.device("cpu"), {"model_name": settings.model_name},
    )  # fmt: skip


# Speed -------------------------------------------------------------------------------------------


def make_engines(
    trained: TrainedModel, paths: dict[str, Path], n_threads: int
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Each takes ``(B, 12, S)`` millivolts and gives probabilities."""
    whole = WholeModel(trained).eval()

    def eager(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return whole(torch.from_numpy(batch))[0].numpy()

    sessions = {name: load_exported_model(path, n_threads).session for name, path in paths.items()}
    return {"pytorch": eager} | {
        name: lambda batch, session=session: session.run(["probabilities"], {"signal": batch})[0]
        for name, session in sessions.items()
    }


def time_engines(
    engines: dict[str, Callable[[np.ndarray], np.ndarray]], batch: np.ndarray, n_rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of each engine in each round; who begins changes from round to round."""
    names = list(engines)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-2, n_rounds):  # the first rounds warm caches and do not count
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            engines[name](batch)
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(taken) for name, taken in seconds.items()}


def speed_of(seconds: dict[str, np.ndarray], n_records: int) -> dict[str, object]:
    """Milliseconds, records per second, and how many times as fast as eager PyTorch."""
    return {
        name: {
            "milliseconds": quantiles(1000 * taken),
            "records_per_s": round(n_records / float(np.median(taken)), 1),
            "times_pytorch": quantiles(seconds["pytorch"] / taken),
        }
        for name, taken in seconds.items()
    }


def quantiles(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {"median": round(middle, 3), "p5": round(low, 3), "p95": round(high, 3)}


def measure_speed(
    trained: TrainedModel, paths: dict[str, Path], options: argparse.Namespace
) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    measured = []
    for n_threads in options.threads:
        torch.set_num_threads(n_threads)
        engines = make_engines(trained, paths, n_threads)
        for n_records in BATCHES:
            batch = rng.normal(0, 0.3, (n_records, len(LEADS), trained.window)).astype(np.float32)
            n_rounds = options.rounds if n_records == 1 else max(5, options.rounds // 10)
            # What others do with the machine before each measurement, in per cent of all its cores.
            busy = psutil.cpu_percent(interval=2.0)
            speeds = speed_of(time_engines(engines, batch, n_rounds), n_records)
            measured.append(
                {
                    "threads": n_threads,
                    "batch": n_records,
                    "rounds": n_rounds,
                    "busy": busy,
                    **speeds,
                }
            )
            print_speed(measured[-1])
    return measured


def print_speed(row: dict) -> None:
    told = [
        f"{name} {row[name]['milliseconds']['median']:.1f} ms "
        f"({row[name]['records_per_s']:.0f}/s, {row[name]['times_pytorch']['median']:.2f}x)"
        for name in ENGINES
    ]
    print(
        f"{row['threads']} threads, batch {row['batch']}, busy {row['busy']:.0f} %: "
        + ", ".join(told),
        flush=True,
    )


# The same answers? -------------------------------------------------------------------------------


def compare_answers(
    trained: TrainedModel, paths: dict[str, Path], root: Path, seed: int
) -> dict[str, object]:
    """Differences from PyTorch, and scores, on a workspace's test split."""
    workspace = Workspace(root)
    store = open_store(workspace)
    table = pd.read_parquet(predictions_path(workspace))
    test = table[table["split"] == "test"].reset_index(drop=True)
    rows = rows_of_records(store.manifest["record"], test["record"].tolist())
    signals = [
        stored_signal(store, int(row)) / np.float32(MICROVOLTS_PER_MILLIVOLT) for row in rows
    ]
    answers = {name: load_exported_model(path).answer(signals) for name, path in paths.items()}
    samples = [prepare_sample(s, trained.fs, LEADS, trained.input) for s in signals[:N_COMPARED]]
    ours = predict_prepared(trained, samples)
    expected = np.array([list(each.probabilities.values()) for each in ours])
    decided = np.array([[name in each.decisions for name in trained.labels] for each in ours])
    compared = {
        name: {
            "largest_difference": float(np.abs(a.probabilities[:N_COMPARED] - expected).max()),
            "equal_decisions": int((a.decisions[:N_COMPARED] == decided).sum()),
            "equal_records": int((a.decisions[:N_COMPARED] == decided).all(axis=1).sum()),
            "n_records": len(expected), "n_decisions": int(decided.size),
        }
        for name, a in answers.items()
    }  # fmt: skip
    probabilities = {name: answer.probabilities for name, answer in answers.items()}
    return {
        "against_pytorch": compared,
        "scores": compare_scores(trained, test, probabilities, seed),
    }


def compare_scores(
    trained: TrainedModel, test: pd.DataFrame, probabilities: dict[str, np.ndarray], seed: int
) -> dict[str, object]:
    """Macro AUROC of each, and int8 minus float32 over the same resamples of patients."""
    targets = test[[f"label_{label}" for label in trained.labels]].to_numpy(np.uint8)
    groups = test["patient_group"].to_numpy(object)
    name, values, drawn = ("auroc", "macro"), {}, {}
    for engine, given in probabilities.items():
        decisions = (given >= 0.5).astype(np.uint8)
        rest = (trained.single,)
        values[engine] = float(all_scores(targets, given, decisions, None, *rest)[name][0])
        rng = np.random.default_rng(seed)
        drawn[engine] = bootstrap_scores(
            targets, given, decisions, groups, trained.single, RESAMPLES, rng
        )[name]
    drawn["int8_minus_float32"] = drawn["onnx_int8"] - drawn["onnx"]
    values["int8_minus_float32"] = values["onnx_int8"] - values["onnx"]
    return {
        "score": "macro AUROC", "split": "test", "n": len(test),
        "n_patient_groups": len(set(groups)), "seed": seed, "resamples": RESAMPLES,
        **{
            engine: {
                "value": round(values[engine], 5),
                "low": round(float(np.nanquantile(drawn[engine], 0.025)), 5),
                "high": round(float(np.nanquantile(drawn[engine], 0.975)), 5),
            }
            for engine in values
        },
    }  # fmt: skip


# Report ------------------------------------------------------------------------------------------


def describe_machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    names = ("onnx", "onnxscript", "onnxruntime")
    return {
        "cpu": cpu,
        "system": platform.platform(),
        "versions": versions() | {name: version(name) for name in names},
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model file; unset: fresh weights")
    parser.add_argument("--root", type=Path, help="the workspace that it was evaluated in")
    parser.add_argument("--rounds", type=int, default=100, help="of single records")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def run_benchmark() -> None:
    options = parse_options()
    trained = load_best_model(options.model, "cpu") if options.model else fresh_model()
    trained = replace(trained, device=torch.device("cpu"))
    workspace = Workspace(options.root) if options.root else None
    signals = pick_check_signals(trained, workspace, split="train", seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"onnx": Path(folder) / "m.onnx", "onnx_int8": Path(folder) / "m8.onnx"}
        exports = {
            name: export_model(trained, path, "onnx", signals, int8=name == "onnx_int8")
            for name, path in paths.items()
        }
        megabytes = {name: export["megabytes"] for name, export in exports.items()}
        result = {
            "model": trained.facts.get("model_name"),
            "model_digest": file_digest(options.model) if options.model else None,
            "window": trained.window, "crop": trained.input.crop, "fs": trained.fs,
            "megabytes": megabytes,
            "machine": describe_machine(),
        }  # fmt: skip
        if options.root:
            result |= compare_answers(trained, paths, options.root, options.seed)
            print(result["against_pytorch"], result["scores"], sep="\n", flush=True)
        result["speed"] = measure_speed(trained, paths, options)
    write_json(RESULT_PATH, result)


if __name__ == "__main__":
    run_benchmark()
