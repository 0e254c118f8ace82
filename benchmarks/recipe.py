"""Our default training against the PTB-XL benchmark's own, in the same folds, at no more CPU time.

    python benchmarks/recipe.py --dataset-dir PTB_XL --root WORK [--seed 0] [--group 0 1 2]
                                [--both-arithmetics]

PTB-XL's folds 1 to 9 are held out in three groups; both recipes train on the other six folds and
predict the group with the weights of their last epoch, so that nothing is picked on what is scored.
Fold 10 is not touched. Reported are macro AUROC, the mean over the three groups, of ours and of
`reference_recipe`, and their paired difference with a 95 % interval from a bootstrap over patients;
and CPU seconds of training, both in bfloat16 and with one thread. ``--both-arithmetics`` also runs
ours in float32, for the effect of bfloat16. Runs that are finished are kept, so that the
script goes on where it was stopped; ``--group`` lets two processes share the work.
Writes results/recipe.json once all groups are there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cross_validation import HeldOut, predict_held_out, split_by_folds
from reference_recipe import predict_reference, train_reference

from einthoven import training
from einthoven.bootstrap import draw_patient_weights
from einthoven.checkpoint import hardware, load_trained_model, read_checkpoint, versions
from einthoven.console import log, setup_logging
from einthoven.files import read_json, write_json
from einthoven.metrics import macro_mean, ranking_scores
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.store import label_matrix, open_store

RESULTS = Path(__file__).resolve().parent / "results" / "recipe.json"
GROUPS = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
RESAMPLES = 1000
# Nothing is picked on the validation split; a few records save time.
N_VALIDATION = 32

# What each run predicts with, by name; the arithmetic is the same in the first three.
OURS, OURS_OTHER = "ours", "ours, float32"
REFERENCE, REFERENCE_MEAN = "reference", "reference, mean over crops"


def settings_of_group(given: argparse.Namespace, group: int, arithmetic: str) -> Settings:
    """Default settings but for what the comparison needs; a workspace per group."""
    return Settings(
        root=given.root / f"group{group}", dataset_dir=given.dataset_dir, archives="ptb-xl",
        label_set="superdiagnostic", seed=given.seed, early_stop_patience=0, device="cpu",
        mixed_precision=arithmetic, run_name=f"{arithmetic}_seed{given.seed}", tracking="none",
    )  # fmt: skip


def run_ours(given: argparse.Namespace, group: int, arithmetic: str) -> dict[str, Any]:
    """Train ours without one group and predict it."""
    settings = settings_of_group(given, group, arithmetic)
    rows = prepare_group(settings, group)
    seconds = train_and_time(settings)
    workspace = settings.workspace
    trained = load_trained_model(workspace.best_model_path, torch.device("cpu"))
    state = read_checkpoint(workspace.checkpoints_dir / "last_checkpoint.pth")["state"]
    trained.model.load_state_dict(state.get("average") or state["weights"])
    held_out = predict_held_out(trained, workspace, rows)
    return describe(held_out, {OURS: held_out.probabilities}, seconds)


def train_and_time(settings: Settings) -> float:
    """Train; returns CPU seconds of all epochs, without validation and saves as in the other."""
    seconds = []
    real = training.train_epoch

    def timed(*given: Any) -> dict[str, Any]:
        begun = time.process_time()
        row = real(*given)
        seconds.append(time.process_time() - begun)
        return row

    training.train_epoch = timed
    try:
        training.train_production(settings)
    finally:
        training.train_epoch = real
    return sum(seconds)


def run_reference(given: argparse.Namespace, group: int) -> dict[str, Any]:
    """Train the reference without one group and predict it."""
    settings = settings_of_group(given, group, "bf16")
    rows = prepare_group(settings, group)
    store = open_store(settings.workspace)
    manifest = store.manifest
    names = set(read_json(settings.workspace.splits_path)["train"])
    train = np.flatnonzero(manifest["record"].isin(names))
    labels = sorted({label for carried in manifest["labels"] for label in carried})
    targets = torch.from_numpy(label_matrix(manifest.iloc[train], labels))
    begun = time.process_time()
    net, scale = train_reference(
        torch.from_numpy(store.load_windows(train)), targets, settings.crop, given.seed, True
    )
    seconds = time.process_time() - begun
    mean, largest = predict_reference(
        net, scale, torch.from_numpy(store.load_windows(rows)), settings.crop
    )
    table = manifest.iloc[rows]
    held_out = HeldOut(label_matrix(table, labels), mean, table["patient_group"].to_numpy(str))
    return describe(held_out, {REFERENCE: largest, REFERENCE_MEAN: mean}, seconds)


def prepare_group(settings: Settings, group: int) -> np.ndarray:
    """A store, and a split that holds this group out; returns the rows to predict."""
    prepare_archives(settings)
    train_folds = [fold for folds in GROUPS if folds != GROUPS[group] for fold in folds]
    return split_by_folds(settings.workspace, train_folds, GROUPS[group], N_VALIDATION)


def describe(held_out: HeldOut, answers: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
    return {
        "targets": held_out.targets, "patients": held_out.groups, "cpu_s": seconds,
        "probabilities": answers,
    }  # fmt: skip


def keep(path: Path, make: Callable[[], dict[str, Any]]) -> None:
    """Make a group's predictions and write them, unless they are there."""
    if not path.exists():
        write_json(path, make())
        log.info("%s done", path.stem)


# Scores ------------------------------------------------------------------------------------------


def macro_samples(parts: list[dict[str, Any]], name: str, seed: int) -> tuple[float, np.ndarray]:
    """Mean over groups of macro AUROC, and the same in resamples of patients."""
    values, samples = [], []
    for group, part in enumerate(parts):
        targets = np.array(part["targets"], np.float32)
        probabilities = np.array(part["probabilities"][name], np.float32)
        values.append(macro_mean(ranking_scores(targets, probabilities)[0])[0])
        rng = np.random.default_rng([seed, group])
        chunks = [
            macro_mean(ranking_scores(targets, probabilities, weights)[0])
            for weights in draw_patient_weights(np.array(part["patients"]), RESAMPLES, rng)
        ]
        samples.append(np.concatenate(chunks))
    return float(np.mean(values)), np.mean(samples, axis=0)


def figure(value: float, samples: np.ndarray, n: int) -> dict[str, Any]:
    low, high = np.nanquantile(samples, [0.025, 0.975]).tolist()
    return {"value": value, "low": low, "high": high, "n": n}


def summarise(given: argparse.Namespace) -> dict[str, Any]:
    """Scores and differences of what has been run in all groups; ours is compared with each."""
    answers = {
        OURS: ("bf16", OURS), OURS_OTHER: ("off", OURS), REFERENCE: ("reference", REFERENCE),
        REFERENCE_MEAN: ("reference", REFERENCE_MEAN),
    }  # fmt: skip
    read = {kind: read_groups(given, kind) for kind in ("bf16", "off", "reference")}
    scored = {
        name: macro_samples(read[kind], answer, given.seed)
        for name, (kind, answer) in answers.items()
        if read[kind]
    }
    n = sum(len(part["targets"]) for part in read["bf16"])
    base, base_samples = scored[OURS]
    return {
        "split": "PTB-XL folds 1-9, superdiagnostic, held out in groups 1-3, 4-6, 7-9; "
        "last epoch; macro AUROC, mean over groups; 95 % intervals over patients",
        "seed": given.seed,
        "auroc": {name: figure(*found, n) for name, found in scored.items()},
        "ours_minus": {
            name: figure(base - value, base_samples - samples, n)
            for name, (value, samples) in scored.items()
            if name != OURS
        },
        "cpu_s": {
            name: [round(part["cpu_s"], 1) for part in read[answers[name][0]]] for name in scored
        },
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
    }


def read_groups(given: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """What one kind of run has predicted, group by group; nothing unless all groups are there."""
    paths = [given.root / f"{kind}{group}_seed{given.seed}.json" for group in range(len(GROUPS))]
    return [read_json(path) for path in paths] if all(path.exists() for path in paths) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--both-arithmetics", action="store_true")
    given = parser.parse_args()
    setup_logging()
    torch.set_num_threads(1)
    for group in given.group:
        name = f"{group}_seed{given.seed}.json"
        keep(given.root / f"bf16{name}", lambda g=group: run_ours(given, g, "bf16"))
        keep(given.root / f"reference{name}", lambda g=group: run_reference(given, g))
        if given.both_arithmetics:
            keep(given.root / f"off{name}", lambda g=group: run_ours(given, g, "off"))
    if read_groups(given, "bf16") and read_groups(given, "reference"):
        result = summarise(given)
        write_json(RESULTS, result)
        log.info("%s", result["ours_minus"])


if __name__ == "__main__":
    main()
