"""What a search leaves: the best settings as TOML, a table of trials, two figures, a summary."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from einthoven.console import format_table, log, plural
from einthoven.figures.saving import write_figure
from einthoven.figures.search import plot_importance, plot_search
from einthoven.files import write_csv, write_text
from einthoven.run_folder import WITHOUT_EFFECT
from einthoven.settings import LABEL_SET_NAMES, Settings, setting_names
from einthoven.summary import figure_text
from einthoven.tuning.halves import CHOSEN_BY, OTHER_HALF
from einthoven.tuning.space import toml_value
from einthoven.tuning.storage import import_optuna, tuning_dir
from einthoven.tuning.study import Search
from einthoven.tuning.trials import best_trial, in_words

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRIAL_COLUMNS = (
    "trial", "state", "score", "low", "high", "n", "other_half", "other_half_low",
    "other_half_high", "other_half_n", "epochs", "best_epoch", "seconds", "is_default", "run",
    "why",
)  # fmt: skip
BEST_SHOWN = 5
FEWEST_FOR_IMPORTANCE = 10


# The table ---------------------------------------------------------------------------------------


def trials_table(search: Search) -> pd.DataFrame:
    """A row for each trial that counts, in order: its score with interval, and its settings."""
    rows = [_trial_row(trial) for trial in search.counted()]
    return pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, *search.space])


def _trial_row(trial: FrozenTrial) -> dict[str, Any]:
    facts = trial.user_attrs
    chosen_by, other = facts.get(CHOSEN_BY, {}), facts.get(OTHER_HALF, {})
    state = {"COMPLETE": "finished", "PRUNED": "given up", "RUNNING": "at work"}
    why = facts.get("why", "")
    is_failed = trial.state.name == "PRUNED" and why != "given up"
    return {
        "trial": trial.number + 1,
        "state": "failed" if is_failed else state.get(trial.state.name, "waiting"),
        "score": _score_so_far(trial),
        "low": chosen_by.get("low"),
        "high": chosen_by.get("high"),
        "n": chosen_by.get("n"),
        "other_half": other.get("value"),
        "other_half_low": other.get("low"),
        "other_half_high": other.get("high"),
        "other_half_n": other.get("n"),
        "epochs": facts.get("epochs", max(trial.intermediate_values, default=0)),
        "best_epoch": facts.get("best_epoch"),
        "seconds": facts.get("seconds"),
        "is_default": is_default(trial),
        "run": facts.get("run", ""),
        "why": why if is_failed else "",
        **trial.params,
    }


def is_default(trial: FrozenTrial) -> bool:
    """Whether a trial has the settings in force when the search began."""
    return bool(trial.user_attrs.get("is_default", False))


def _score_so_far(trial: FrozenTrial) -> float | None:
    if trial.state.name == "COMPLETE":
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


# The best settings -------------------------------------------------------------------------------


def best_as_toml(search: Search, best: FrozenTrial) -> str:
    """The best trial's settings, searched or not, with a headline."""
    settings = search.settings
    states = [trial.state.name for trial in search.counted()]
    lines = [
        f"# Best of {plural(len(states), 'trial')} ({states.count('COMPLETE')} finished) of study "
        f"{search.name!r}, seed {settings.seed}: trial {best.number + 1}.",
        f"# M{score_name(settings)[1:]} on the half of the validation split that chose it: "
        f"{counted_figure(best.user_attrs.get(CHOSEN_BY, {'value': best.value}))};",
        f"# on the other half: {counted_figure(best.user_attrs.get(OTHER_HALF, {}))}.",
        "# einthoven train --config best.toml --run-name NAME",
        "",
        "# Found by the search",
        *(f"{name} = {toml_value(value)}" for name, value in best.params.items()),
    ]
    lines += ["", "# As the search was given them"]
    lines += [f"{name} = {toml_value(value)}" for name, value in fixed_settings(search).items()]
    return "\n".join(lines) + "\n"


def fixed_settings(search: Search) -> dict[str, Any]:
    """What a run needs beside the settings found, to be the best trial's.

    Defaults too: they differ with the rate, and the environment or a later version may have others.
    """
    names = setting_names(["labels", "prepare", "train", "decisions"])
    names = [name for name in names if name not in WITHOUT_EFFECT]
    names = ["seed", "run_mode", "archives", "ecg_preprocess_limit", *names]
    # Left out above because only that of the device has an effect.
    names += ["batch_size_cpu", "batch_size_gpu"]
    fixed = {name: getattr(search.settings, name) for name in names if name not in search.space}
    if fixed["label_set"] not in LABEL_SET_NAMES:
        # The file is used from other folders than this one.
        fixed["label_set"] = str(Path(fixed["label_set"]).absolute())
    return fixed


def number_of_best(path: Path) -> int:
    """Which trial a ``best.toml`` is of, as `best_as_toml` says on its first line."""
    headline = path.read_text(encoding="utf-8").partition("\n")[0]
    return int(headline.rstrip(".").rpartition("trial ")[2])


def score_name(settings: Settings) -> str:
    """The score that the search raises, for people."""
    return f"macro {'AUROC' if settings.best_metric == 'auroc' else 'F1'}"


def counted_figure(figure: Mapping[str, Any]) -> str:
    """``0.912 (0.894–0.928), n = 223``, as far as it is known."""
    if figure.get("value") is None:
        return "unknown"
    n = f", n = {figure['n']:,}" if figure.get("n") else ""
    return figure_text({"low": None, **figure}) + n


# Writing -----------------------------------------------------------------------------------------


def write_progress(search: Search) -> None:
    """Write the table, and the best settings so far; after each trial."""
    folder, best = tuning_dir(search.settings), best_trial(search)
    write_csv(folder / "trials.csv", trials_table(search))
    if best is not None:
        write_text(folder / "best.toml", best_as_toml(search, best))


def write_figures(search: Search) -> list[Path]:
    """Draw the search's history, and how much each setting mattered where enough is known."""
    folder, table = tuning_dir(search.settings), trials_table(search)
    what = f"study {search.name}, {score_name(search.settings)}"
    figures = {"history.png": plot_search(table, f"Trials of {what}", score_name(search.settings))}
    shares = setting_importance(search)
    if shares:
        names = {name: getattr(values, "log", False) for name, values in search.space.items()}
        figures["importance.png"] = plot_importance(
            shares, table, names, f"Settings of {what}", score_name(search.settings)
        )
    for name, figure in figures.items():
        write_figure(figure, folder / name)
    return [folder / name for name in figures]


def setting_importance(search: Search) -> dict[str, float]:
    """Each setting's share in what sets good trials apart; empty where too few are finished.

    PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023): how far the values of the best trials are
    distributed otherwise than those of all.
    """
    finished = search.trials("COMPLETE")
    if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in finished}) < 2:
        return {}
    importance = import_optuna().importance
    found = importance.get_param_importances(
        search.study, evaluator=importance.PedAnovaImportanceEvaluator()
    )
    return {str(name): float(share) for name, share in found.items()}


# For people --------------------------------------------------------------------------------------


def search_summary(search: Search, figures: Sequence[Path]) -> str:
    """The best trials and the default one, what their scores are worth, and where it all lies."""
    trials, best = search.counted(), best_trial(search)
    if best is None:
        return f"None of {plural(len(trials), 'trial')} is finished; the same command goes on."
    states = [trial.state.name for trial in trials]
    ranked = sorted(search.trials("COMPLETE"), key=lambda t: (-(t.value or 0), t.number))
    shown = ranked[:BEST_SHOWN]
    shown += [trial for trial in ranked[BEST_SHOWN:] if is_default(trial)]
    name = score_name(search.settings)
    header = ["trial", f"{name}, the half that chooses", "the other half", "settings"]
    rows = [
        [
            f"{trial.number + 1}{' (default)' if is_default(trial) else ''}",
            counted_figure(trial.user_attrs.get(CHOSEN_BY, {"value": trial.value})),
            counted_figure(trial.user_attrs.get(OTHER_HALF, {})),
            in_words(trial.params),
        ]
        for trial in shown
    ]
    at_work = states.count("RUNNING") + states.count("WAITING")
    n_over, n_asked = len(states) - at_work, search.settings.trials
    unfinished = f"The search is not finished: {n_over} of {n_asked} trials are over."
    folder = tuning_dir(search.settings)
    lines = [
        format_table(header, rows),
        f"{plural(len(trials), 'trial')}: {states.count('COMPLETE')} finished, "
        f"{states.count('PRUNED')} given up, {at_work} not done yet. "
        f"95 % intervals over patients; the first score of the best trial is too good, being the "
        f"highest of {states.count('COMPLETE')} on these records; the other half chose nothing.",
        *([f"{unfinished} The same command goes on."] if n_over < n_asked else []),
        *(["No trial scored better than the default settings."] if is_default(best) else []),
        f"Best settings: {folder / 'best.toml'}",
        f"Train with them: {training_command(search, folder / 'best.toml')}",
        f"Table and figures: {', '.join(str(path) for path in (folder / 'trials.csv', *figures))}",
    ]
    return "\n".join(lines)


def training_command(search: Search, path: Path) -> str:
    """How to train with a file of settings, from the folder that this command was given in."""
    root = search.settings.root
    where = [] if root.resolve() == Path.cwd() else ["--root", str(root)]
    named = ["--config", str(path), "--run-name", f"{search.name}-best"]
    return quoted_command(["einthoven", "train", *where, *named], os.name == "nt")


def quoted_command(words: Sequence[str], for_windows: bool) -> str:
    """A command as one pastes it into a shell; Windows' does not know single quotes.

    >>> quoted_command(["einthoven", "train", "--root", "my data"], for_windows=False)
    "einthoven train --root 'my data'"
    >>> quoted_command(["einthoven", "train", "--root", "my data"], for_windows=True)
    'einthoven train --root "my data"'
    """
    return subprocess.list2cmdline(words) if for_windows else shlex.join(words)


def log_best(search: Search, number: int) -> None:
    """One line after each trial."""
    best = best_trial(search)
    if best is not None:
        log.info(
            "After trial %d the best is trial %d: %s %.4f",
            number + 1,
            best.number + 1,
            score_name(search.settings),
            best.value,
        )
