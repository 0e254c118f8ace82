"""Which defaults score best: band-pass, standardisation, crop, by patient-wise cross-validation.

    python benchmarks/choices.py --dataset-dir PTB_XL --root WORK [--folds 7 8 9] [--epochs 20]

Each choice is trained on PTB-XL's folds 1 to 9 without one, and scored on that one; fold 10 is not
touched. Macro AUROC over the pooled out-of-fold predictions and its paired difference to the first
choice with a 95 % interval from a bootstrap over patients, go to results/choices.json. Runs
that are finished are skipped, so that the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cross_validation import (
    TEST_FOLD,
    HeldOut,
    auroc_figure,
    macro_auroc_of,
    predict_held_out,
    resampled_auroc,
    split_by_folds,
)

from einthoven.checkpoint import hardware, load_trained_model, versions
from einthoven.console import log, setup_logging
from einthoven.files import write_json
from einthoven.inference import choose_device
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.training import train_production

RESULTS = Path(__file__).resolve().parent / "results" / "choices.json"
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "band-pass 0.5 to 40 Hz": {"bandpass": True},
    "standardize lead": {"standardize": "lead"},
    "standardize record": {"standardize": "record"},
    "learning rate 0.003": {"lr": 0.003},
}


def predict_out_of_fold(choice: dict[str, Any], given: argparse.Namespace) -> HeldOut:
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
    columns = zip(*((p.targets, p.probabilities, p.groups) for p in parts), strict=True)
    return HeldOut(*(np.concatenate(column) for column in columns))


def predict_fold(usual: Settings, choice: dict[str, Any], fold: int) -> HeldOut:
    """Predictions of one fold by the best epoch of a model that trained on the others."""
    name = "_".join([*(f"{k}-{v}" for k, v in choice.items()), f"fold{fold}-{usual.epochs}"])
    settings = usual.model_copy(update={"run_name": name})
    rows = split_by_folds(settings.workspace, {*range(1, TEST_FOLD)} - {fold}, [fold])
    train_production(settings)
    trained = load_trained_model(settings.workspace.best_model_path, choose_device("cpu"))
    return predict_held_out(trained, settings.workspace, rows)


def compare(first: HeldOut, other: HeldOut, seed: int) -> dict[str, Any]:
    """Macro AUROC of ``other``, and its paired difference to ``first`` with its interval."""
    before, after = resampled_auroc([first, other], seed)
    low, high = np.nanquantile(after - before, [0.025, 0.975]).tolist()
    gain = macro_auroc_of(other) - macro_auroc_of(first)
    return {
        "auroc": auroc_figure(other, after),
        "gain": {"value": gain, "low": low, "high": high},
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
    first: HeldOut | None = None
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
