"""Whether settings that `einthoven tune` finds beat the default ones on PTB-XL, superdiagnostic.

    python benchmarks/tuning.py prepare   --dataset-dir PTB_XL --root WORK
    python benchmarks/tuning.py search    --dataset-dir PTB_XL --root WORK [--minutes 60]
    python benchmarks/tuning.py finalists --dataset-dir PTB_XL --root WORK [--part 0 2]
    python benchmarks/tuning.py confirm   --dataset-dir PTB_XL --root WORK [--part 0 2]
    python benchmarks/tuning.py summarise --dataset-dir PTB_XL --root WORK

``prepare`` comes first. ``search`` trains on folds 4 to 9 with few epochs and searches
tuning_space.toml; its score is macro AUROC on half of folds 1 to 3. Run it in as many processes as
there are cores. ``finalists`` trains the best two and the default with the default's epochs and a
new seed, on the same folds; all of folds 1 to 3 score them, and the best of them is the result.
``confirm`` holds out folds 4 to 6, which have chosen nothing, and trains default and result with
three more seeds on the other six of folds 1 to 9. Scored is the last epoch, so that nothing is
picked on what is scored. Fold 10 is in none of it. ``--part 0 2`` and ``--part 1 2`` share the runs
between two processes; finished runs are kept. ``summarise`` writes results/tuning.json and
results/tuned.toml.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cross_validation import (
    HeldOut,
    macro_auroc_of,
    predict_held_out,
    resampled_auroc,
    split_by_folds,
)
from recipe import GROUPS, N_VALIDATION, keep

from einthoven.checkpoint import hardware, load_trained_model, read_checkpoint, versions
from einthoven.console import log, setup_logging
from einthoven.files import read_json, write_json, write_text
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.splits import is_counted
from einthoven.store import open_store
from einthoven.training import train_production
from einthoven.tuning.command import tune
from einthoven.tuning.space import toml_value

HERE = Path(__file__).resolve().parent
RESULTS, TUNED = HERE / "results" / "tuning.json", HERE / "results" / "tuned.toml"
SPACE = HERE / "tuning_space.toml"
STUDY, SEARCH_EPOCHS, MOST_TRIALS = "ptbxl16", 16, 60
DEFAULT, N_FINALISTS = "default", 2
SEARCHED_GROUP, FRESH_GROUPS = 0, (1,)
FINALISTS_SEED, CONFIRM_SEEDS = 1, (2, 3, 4)
TUNED_NAMES = (
    "lr", "weight_decay", "batch_size_cpu", "crop_samples", "scheduler_type", "augment", "loss",
    "label_smoothing", "ema_decay", "clip_norm",
)  # fmt: skip


def base_settings(given: argparse.Namespace, group: int) -> Settings:
    """Default settings but for what the comparison needs; a workspace per group."""
    return Settings(
        root=given.root / f"group{group}", dataset_dir=given.dataset_dir, archives="ptb-xl",
        label_set="superdiagnostic", device="cpu", mixed_precision="bf16", tracking="none",
        best_metric="auroc",
    )  # fmt: skip


def prepare(given: argparse.Namespace) -> None:
    """A store for the search and one for each group, with the split that holds the group out."""
    searched = given.root / "search"
    for group, root in [(SEARCHED_GROUP, searched), *((group, None) for group in range(3))]:
        settings = base_settings(given, group)
        settings = settings if root is None else settings.model_copy(update={"root": root})
        prepare_archives(settings)
        train_folds = [fold for folds in GROUPS if folds != GROUPS[group] for fold in folds]
        n_val = N_VALIDATION if root is None else 0
        split_by_folds(settings.workspace, train_folds, GROUPS[group], n_val)


def rows_of_group(settings: Settings, group: int) -> np.ndarray:
    manifest = open_store(settings.workspace).manifest
    is_here = manifest["fold"].isin(list(GROUPS[group])).to_numpy()
    return np.flatnonzero(is_counted(manifest) & is_here)


# Searching ---------------------------------------------------------------------------------------


def search(given: argparse.Namespace) -> None:
    settings = base_settings(given, SEARCHED_GROUP).model_copy(
        update={
            "root": given.root / "search", "epochs": SEARCH_EPOCHS, "trials": MOST_TRIALS,
            "tune_minutes": given.minutes, "run_name": STUDY,
        }
    )  # fmt: skip
    print(tune(settings, {}, SPACE))


def trials_of(given: argparse.Namespace) -> pd.DataFrame:
    path = given.root / "search" / "artifacts" / "tuning" / STUDY / "trials.csv"
    return pd.read_csv(path)


def candidates(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of the default and of the best finished trials, by name."""
    done = trials_of(given).query("state == 'finished' and not is_default")
    best = done.nlargest(N_FINALISTS, "score")
    found: dict[str, dict[str, Any]] = {DEFAULT: {}}
    for _, row in best.iterrows():
        found[f"trial{row['trial']}"] = {
            name: Settings.model_validate({name: row[name]}).model_dump()[name]
            for name in TUNED_NAMES
        }
    return found


# Running -----------------------------------------------------------------------------------------


def run_once(given: argparse.Namespace, name: str, group: int, seed: int) -> None:
    """Train a candidate without a group and predict that, unless it is done."""
    keep(answers_path(given, name, group, seed), lambda: predicted(given, name, group, seed))


def answers_path(given: argparse.Namespace, name: str, group: int, seed: int) -> Path:
    return Path(given.root / f"{name}_group{group}_seed{seed}.json")


def predicted(given: argparse.Namespace, name: str, group: int, seed: int) -> dict[str, Any]:
    own = candidates(given)[name] | {"seed": seed, "run_name": f"{name}-seed{seed}"}
    settings = base_settings(given, group).model_copy(update=own)
    train_production(settings)
    workspace = settings.workspace
    trained = load_trained_model(workspace.best_model_path, torch.device("cpu"))
    state = read_checkpoint(workspace.checkpoints_dir / "last_checkpoint.pth")["state"]
    trained.model.load_state_dict(state.get("average") or state["weights"])
    held_out = predict_held_out(trained, workspace, rows_of_group(settings, group))
    return {
        "targets": held_out.targets, "patients": held_out.groups,
        "probabilities": held_out.probabilities,
    }  # fmt: skip


def answers(given: argparse.Namespace, name: str, group: int, seed: int) -> HeldOut:
    kept = read_json(answers_path(given, name, group, seed))
    return HeldOut(
        np.array(kept["targets"], np.float32),
        np.array(kept["probabilities"], np.float32),
        np.array(kept["patients"]),
    )


def finalists(given: argparse.Namespace) -> None:
    shared = list(candidates(given))
    for name in shared[given.part[0] :: given.part[1]]:
        run_once(given, name, SEARCHED_GROUP, FINALISTS_SEED)


def finalist_scores(given: argparse.Namespace) -> dict[str, float]:
    return {
        name: macro_auroc_of(answers(given, name, SEARCHED_GROUP, FINALISTS_SEED))
        for name in candidates(given)
    }


def winner(given: argparse.Namespace) -> str:
    """The best finalist that is not the default."""
    scores = finalist_scores(given)
    return max((name for name in scores if name != DEFAULT), key=scores.__getitem__)


def confirm(given: argparse.Namespace) -> None:
    runs = list(product(CONFIRM_SEEDS, FRESH_GROUPS, (DEFAULT, winner(given))))
    for seed, group, name in runs[given.part[0] :: given.part[1]]:
        run_once(given, name, group, seed)


# Summing up --------------------------------------------------------------------------------------


def compared(given: argparse.Namespace, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Macro AUROC of default and winner, means over groups and seeds, and the paired difference.

    All seeds and both settings are resampled with the same draws of patients.
    """
    names = (DEFAULT, winner(given))
    values, samples, n = np.zeros(2), 0.0, 0
    for group in FRESH_GROUPS:
        parts = [answers(given, name, group, seed) for name in names for seed in seeds]
        drawn = np.array(resampled_auroc(parts, group)).reshape(2, len(seeds), -1)
        scores = np.array([macro_auroc_of(part) for part in parts]).reshape(2, len(seeds))
        values += scores.mean(1) / len(FRESH_GROUPS)
        samples = samples + drawn.mean(1) / len(FRESH_GROUPS)
        n += len(parts[0].groups)
    samples = np.asarray(samples)
    return {
        "default": figure(values[0], samples[0], n),
        "tuned": figure(values[1], samples[1], n),
        "difference": figure(values[1] - values[0], samples[1] - samples[0], n),
    }


def figure(value: float, samples: np.ndarray, n: int) -> dict[str, Any]:
    low, high = np.nanquantile(samples, [0.025, 0.975]).tolist()
    return {"value": float(value), "low": low, "high": high, "n": n}


def summarise(given: argparse.Namespace) -> None:
    table, best = trials_of(given), winner(given)
    by_seed = {str(seed): compared(given, (seed,)) for seed in CONFIRM_SEEDS}
    pooled = compared(given, CONFIRM_SEEDS)
    gains = [part["difference"]["value"] for part in by_seed.values()]
    states = table["state"].value_counts().to_dict()
    result = {
        "what": "Settings found by `einthoven tune` against the default ones, PTB-XL, "
        "superdiagnostic, macro AUROC of the last epoch. Searched on folds 4-9 with "
        f"{SEARCH_EPOCHS} epochs, scored on half of folds 1-3; the best {N_FINALISTS} and the "
        "default trained anew with the default's epochs and scored on all of folds 1-3; "
        "the best trial of these confirmed on folds 4-6, "
        "which chose nothing, by models of the other six of folds 1-9; 95 % intervals over "
        "patients, mean over seeds",
        "search": {
            "trials": len(table), **states, "epochs": SEARCH_EPOCHS,
            "default": score_of(table[table["is_default"]]),
            "best": score_of(table[table["state"] == "finished"].nlargest(1, "score")),
        },
        "finalists": {"seed": FINALISTS_SEED, "auroc": finalist_scores(given)},
        "settings": candidates(given)[best],
        "confirmation": {
            "by_seed": by_seed, "mean": pooled, "sd_over_seeds": float(np.std(gains, ddof=1)),
        },
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
    }  # fmt: skip
    write_json(RESULTS, result)
    write_text(TUNED, tuned_toml(result))
    log.info("%s, %s", RESULTS, TUNED)


def score_of(rows: pd.DataFrame) -> dict[str, Any]:
    columns = ["trial", "score", "low", "high", "n", "other_half"]
    return dict(rows[columns].iloc[0].items()) if len(rows) else {}


def tuned_toml(result: dict[str, Any]) -> str:
    gain = result["confirmation"]["mean"]["difference"]
    lines = [
        "# Found by benchmarks/tuning.py for PTB-XL, superdiagnostic; tuning.json has more.",
        "# Macro AUROC minus the default's, three seeds, on folds that chose nothing, "
        f"n = {gain['n']:,}:",
        f"# {gain['value']:+.4f} (95 % {gain['low']:+.4f} to {gain['high']:+.4f}).",
        "# einthoven train --config benchmarks/results/tuned.toml --label-set superdiagnostic",
        "",
        *(f"{name} = {toml_value(value)}" for name, value in result["settings"].items()),
    ]
    return "\n".join(lines) + "\n"


STAGES = {
    "prepare": prepare, "search": search, "finalists": finalists, "confirm": confirm,
    "summarise": summarise,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1))
    given = parser.parse_args()
    setup_logging()
    STAGES[given.stage](given)


if __name__ == "__main__":
    main()
