"""Which defaults score best: band-pass, standardisation, crop, by patient-wise cross-validation.

    python benchmarks/choices.py --dataset-dir PTB_XL --root WORK [--folds 7 8 9] [--epochs 20]

Each choice is trained on PTB-XL's folds 1 to 9 without one, and scored on that one; fold 10 is not
touched. Macro AUROC over the pooled out-of-fold predictions and its paired difference to the first
choice with a 95 % interval from a bootstrap over patients, go to results/choices.json. Runs
that are finished are skipped, so that the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.bootstrap import draw_patient_weights, logit_interval
from einthoven.checkpoint import hardware, load_trained_model, versions
from einthoven.console import log, setup_logging
from einthoven.files import read_json, write_json
from einthoven.inference import choose_device, predict_records
from einthoven.metrics import macro_mean, ranking_scores
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.splits import is_counted
from einthoven.store import label_matrix, open_store
from einthoven.training import train_production

RESULTS = Path(__file__).resolve().parent / "results" / "choices.json"
TEST_FOLD = 10
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "band-pass 0.5 to 40 Hz": {"bandpass": True},
    "standardize lead": {"standardize": "lead"},
    "standardize record": {"standardize": "record"},
    "learning rate 0.003": {"lr": 0.003},
}


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of every record of the folds by a model that has not seen its patient."""

    targets: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray


def predict_out_of_fold(choice: dict[str, Any], given: argparse.Namespace) -> OutOfFold:
    """Train once per fold; the workspace is one per store, the run one per choice and fold."""
    store_name = "-".join(f"{key}-{choice[key]}" for key in choice if key == "bandpass") or "plain"
    usual = Settings(
        root=given.root / store_name,
        dataset_dir=given.dataset_dir,
        label_set="superdiagnostic",
        epochs=given.epochs,
        early_stop_patience=0,
        seed=given.seed,
        **choice,
    )
    prepare_archives(usual)
    parts = [predict_fold(usual, choice, fold) for fold in given.folds]
    return OutOfFold(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def predict_fold(
    usual: Settings, choice: dict[str, Any], fold: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities and patient groups of one fold."""
    name = "_".join([*(f"{k}-{v}" for k, v in choice.items()), f"fold{fold}-{usual.epochs}"])
    settings = usual.model_copy(update={"run_name": name})
    store = open_store(settings.workspace)
    manifest, counted = store.manifest, is_counted(store.manifest)
    is_val = counted & (manifest["fold"] == fold).to_numpy()
    is_train = counted & ~is_val & (manifest["fold"] != TEST_FOLD).to_numpy()
    splits = read_json(settings.workspace.splits_path)
    splits |= {"train": manifest["record"][is_train].tolist(), "test": []}
    splits["val"] = manifest["record"][is_val].tolist()
    write_json(settings.workspace.splits_path, splits)
    train_production(settings)
    rows = np.flatnonzero(is_val)
    trained = load_trained_model(settings.workspace.best_model_path, choose_device("cpu"))
    probabilities = predict_records(trained, store, rows)
    targets = label_matrix(manifest.iloc[rows], trained.labels)
    return targets, probabilities, manifest["patient_group"].to_numpy(str)[rows]


def compare(first: OutOfFold, other: OutOfFold, seed: int, resamples: int = 1000) -> dict[str, Any]:
    """Macro AUROC of ``other``, and its paired difference to ``first`` with its interval."""
    rng = np.random.default_rng(seed)
    values, differences = [], []
    for weights in draw_patient_weights(first.groups, resamples, rng):
        one, two = (
            macro_mean(ranking_scores(part.targets, part.probabilities, weights)[0])
            for part in (first, other)
        )
        values.append(two)
        differences.append(two - one)
    exact = [
        float(macro_mean(ranking_scores(part.targets, part.probabilities)[0])[0])
        for part in (first, other)
    ]
    low, high = logit_interval(exact[1], np.concatenate(values))
    low_gain, high_gain = np.nanquantile(np.concatenate(differences), [0.025, 0.975]).tolist()
    return {
        "auroc": {"value": exact[1], "low": low, "high": high, "n": len(first.groups)},
        "gain": {"value": exact[1] - exact[0], "low": low_gain, "high": high_gain},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    setup_logging()
    results: dict[str, Any] = {}
    first: OutOfFold | None = None
    for name, choice in CHOICES.items():
        predicted = predict_out_of_fold(choice, given)
        first = first or predicted
        results[name] = compare(first, predicted, given.seed)
        log.info("%s: %s", name, pd.Series(results[name]).to_dict())
        write_json(
            RESULTS,
            {
                "folds": given.folds,
                "epochs": given.epochs,
                "seed": given.seed,
                "versions": versions(),
                "hardware": hardware(choose_device("cpu")),
                "choices": results,
            },
        )


if __name__ == "__main__":
    main()
