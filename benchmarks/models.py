"""How well each architecture does at equal epochs, and what it costs.

    python benchmarks/models.py --dataset-dir PTB_XL --root WORK [--epochs 20] [--models crnn s4d]

Each trains on PTB-XL's folds 1 to 6 with the package's own defaults, but for the learning rates
below, and is scored on folds 7 to 9; fold 10 is not touched. The weights scored are those of the
last epoch (their moving average, where the settings keep one), so that nothing is picked on the
records that are scored. Macro AUROC has a 95 % interval from a bootstrap over patients. A run that
is finished is skipped and one that was stopped goes on. Writes results/models.json;
`tools/models_table.py` makes a page of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation import (
    HeldOut,
    auroc_figure,
    predict_held_out,
    resampled_auroc,
    split_by_folds,
)

from einthoven.checkpoint import load_trained_model, read_checkpoint
from einthoven.configuration import load_settings
from einthoven.console import log, setup_logging
from einthoven.files import read_json, write_json
from einthoven.inference import choose_device
from einthoven.models.costs import count_flops, count_parameters
from einthoven.models.registry import MODELS
from einthoven.prepare import prepare_archives
from einthoven.records import LEADS
from einthoven.settings import Settings
from einthoven.training import train_production

RESULTS = Path(__file__).resolve().parent / "results" / "models.json"
TRAIN_FOLDS, SCORED_FOLDS = range(1, 7), range(7, 10)
SPLIT = "PTB-XL, superdiagnostic labels, trained on folds 1-6, scored on folds 7-9"

# Where the default, which suits convolutions with batch norm, is too large: the better of two or
# three after eight epochs on folds 1-5, scored on fold 6.
LEARNING_RATES = {
    "se_resnet1d": 0.003,
    "crnn": 0.003,
    "convnext1d": 0.003,
    "patch_transformer": 0.001,
}
# Records that a run looks at after each epoch; which of them decides nothing here.
N_VALIDATED = 64


def run_settings(name: str, given: argparse.Namespace) -> Settings:
    """Settings of one model's run; the environment may add to them."""
    flags: dict[str, Any] = {
        "root": given.root,
        "dataset_dir": given.dataset_dir,
        "archives": "ptb-xl",
        "label_set": "superdiagnostic",
        "model_name": name,
        "epochs": given.epochs,
        "early_stop_patience": 0,
        "seed": given.seed,
        "tracking": "none",
        "run_name": f"{name}_{given.epochs}_seed{given.seed}",
        "lr": LEARNING_RATES.get(name),
    }
    return load_settings(flags).settings


def measure_model(settings: Settings) -> dict[str, Any]:
    """Train one model, or find it trained, and score its last epoch."""
    workspace = settings.workspace
    rows = split_by_folds(workspace, TRAIN_FOLDS, SCORED_FOLDS, N_VALIDATED)
    train_production(settings)
    run = read_json(workspace.checkpoints_dir / "run.json")
    history = read_json(workspace.checkpoints_dir / "training_history.json")
    held_out, costs = score_last_epoch(settings, rows)
    return {
        **costs,
        "records_per_s": float(np.median([row["records_per_s"] for row in history])),
        "seconds": sum(row["seconds"] for row in history),
        "auroc": auroc_figure(held_out, resampled_auroc([held_out], settings.seed)[0]),
        "lr": settings.lr,
        "n_train": run["n_train"],
        "hardware": run["hardware"],
        "versions": run["versions"],
    }


def score_last_epoch(settings: Settings, rows: np.ndarray) -> tuple[HeldOut, dict[str, int]]:
    """Predictions of the scored folds, and the model's parameters and FLOPs."""
    workspace = settings.workspace
    trained = load_trained_model(workspace.best_model_path, choose_device(settings.device))
    state = read_checkpoint(workspace.checkpoints_dir / "last_checkpoint.pth")["state"]
    trained.model.load_state_dict(state.get("average") or state["weights"])
    costs = {
        "parameters": count_parameters(trained.model),
        "flops": count_flops(trained.model, len(LEADS), trained.input.crop),
    }
    return predict_held_out(trained, workspace, rows), costs


def keep_result(path: Path, facts: dict[str, Any], name: str, result: dict[str, Any]) -> None:
    """Add a model's row to the file; rows of other epochs, seed or split do not compare and go."""
    kept = read_json(path) if path.exists() else {}
    models = kept["models"] if {k: kept.get(k) for k in facts} == facts else {}
    write_json(path, {**facts, "models": {**models, name: result}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    setup_logging()
    for name in given.models:
        settings = run_settings(name, given)
        prepare_archives(settings)
        result = measure_model(settings)
        facts = {
            "split": SPLIT,
            "n_train": result.pop("n_train"),
            "n": result["auroc"]["n"],
            "epochs": given.epochs,
            "seed": given.seed,
            "crop": settings.crop,
            "arithmetic": settings.mixed_precision,
        }
        keep_result(given.output, facts, name, result)
        log.info("%s: macro AUROC %.3f", name, result["auroc"]["value"])


if __name__ == "__main__":
    main()
