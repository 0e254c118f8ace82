"""Whether the best settings hold up: they and the default ones trained anew, with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einthoven.bootstrap import ScoreName
from einthoven.cluster.desk import NotedError, noted_error
from einthoven.comparison.paired import PairedScores, differences_as_json
from einthoven.configuration import load_settings
from einthoven.console import format_table, log
from einthoven.errors import DataError
from einthoven.files import write_json
from einthoven.scoring import Predictions, ResampledScores, resample_scores
from einthoven.settings import Settings, setting_names
from einthoven.summary import difference_text, figure_text
from einthoven.training import train_production
from einthoven.tuning.devices import TrialDevice
from einthoven.tuning.halves import OTHER_HALF, predict_halves
from einthoven.tuning.on_ray import gathered_crew
from einthoven.tuning.results import number_of_best
from einthoven.tuning.storage import study_name, tuning_dir

CONFIRMED_SCORES: tuple[ScoreName, ...] = (
    ("auroc", "macro"), ("average_precision", "macro"), ("f1", "macro"),
)  # fmt: skip


def confirm_best(settings: Settings, origins: Mapping[str, str], n_seeds: int) -> str:
    """Train the best and the default settings with seeds that the search has not used, and compare.

    On the half of the validation split that chose neither settings nor epochs. Writes
    ``confirmation.json`` beside ``best.toml``. Runs that are finished are skipped.

    Args:
        origins: setting to where its value came from.
        n_seeds: runs of each.

    Returns:
        A summary for people.

    Raises:
        DataError: the search has no best settings yet, or the validation split no second half.
    """
    path = tuning_dir(settings) / "best.toml"
    if not path.exists():
        raise DataError(f"{path} is not there: the search has no finished trial to confirm")
    found = load_settings({"root": settings.root}, path).settings
    trial = number_of_best(path)
    seeds = [settings.seed + 1 + number for number in range(n_seeds)]
    runs = []
    for seed in seeds:
        default, best = contestants_of(settings, found, seed, trial)
        if default.model_copy(update={"run_name": best.run_name}) == best:
            return "The best trial has the default settings: there is nothing to confirm."
        runs += [default, best]
    answers = (answers_on_ray if settings.engine == "ray" else answers_here)(runs, origins)
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    result = {"seeds": seeds, **compare_seeds(pairs, settings)}
    write_json(tuning_dir(settings) / "confirmation.json", result)
    return confirmation_summary(result, settings)


def contestants_of(
    settings: Settings, found: Settings, seed: int, trial: int
) -> tuple[Settings, Settings]:
    """Both runs of a seed: with the settings in force, and with those that the search found.

    Args:
        trial: number of the trial that found them: a search that goes on may find others.
    """
    base, name = settings.model_copy(update={"seed": seed}), study_name(settings)
    learning = set(setting_names(["train"])) & found.model_fields_set
    tuned = {key: getattr(found, key) for key in learning}
    return (
        base.model_copy(update={"run_name": f"{name}-default-seed{seed}"}),
        base.model_copy(update={**tuned, "run_name": f"{name}-best-trial{trial}-seed{seed}"}),
    )


def answers_here(runs: Sequence[Settings], origins: Mapping[str, str]) -> list[Predictions]:
    """The answers of one run after the other, all trained in this process."""
    return [answers_of(settings, origins) for settings in runs]


def answers_on_ray(runs: Sequence[Settings], origins: Mapping[str, str]) -> list[Predictions]:
    """The answers of runs that processes of a Ray cluster train, as many at once as trials."""
    with gathered_crew(runs[0]) as crew:
        answers = crew.call(answers_in_task, [(settings, dict(origins)) for settings in runs])
    for answer in answers:
        if isinstance(answer, NotedError):
            raise noted_error(answer)
    return answers


def answers_in_task(
    settings: Settings, origins: Mapping[str, str], device: TrialDevice
) -> Predictions:
    """One run's answers, as a process of the cluster gives them."""
    return answers_of(settings, origins)


def answers_of(settings: Settings, origins: Mapping[str, str]) -> Predictions:
    """Train, unless that is done, and predict the half that has chosen nothing.

    Raises:
        DataError: there is none.
    """
    log.info("Run %s", settings.run_name)
    train_production(settings, origins)
    halves = predict_halves(settings)
    if OTHER_HALF not in halves:
        raise DataError(
            "the validation split is of one patient, so that no half is left that has chosen "
            "nothing; prepare more records to confirm a search"
        )
    return halves[OTHER_HALF]


# Comparing ---------------------------------------------------------------------------------------


def compare_seeds(
    pairs: Sequence[tuple[Predictions, Predictions]], settings: Settings
) -> dict[str, Any]:
    """Differences best minus default of each seed, and of the means over seeds.

    Every seed is resampled with the same draws of patients, so that the interval of the mean is
    over patients; how far seeds differ is said beside it.

    Args:
        pairs: for each seed the default's answers and the best's, to the same records.
    """
    scored = [
        [resample_scores(part, settings.bootstrap_resamples, settings.seed) for part in pair]
        for pair in pairs
    ]
    labels = pairs[0][0].labels
    mean = [_mean_over([pair[side] for pair in scored]) for side in (0, 1)]
    name = (settings.best_metric, "macro")
    gains = [float(b.values[name][0] - d.values[name][0]) for d, b in scored]
    return {
        "metric": settings.best_metric,
        "half": OTHER_HALF,
        "by_seed": [differences_as_json(_paired(*pair), labels) for pair in scored],
        "mean": differences_as_json(_paired(*mean), labels),
        "difference_sd_over_seeds": float(np.std(gains, ddof=1)) if len(gains) > 1 else None,
    }


def _mean_over(seeds: Sequence[ResampledScores]) -> ResampledScores:
    def mean(parts: Sequence[Mapping[ScoreName, np.ndarray]]) -> dict[ScoreName, np.ndarray]:
        return {name: np.mean([part[name] for part in parts], axis=0) for name in CONFIRMED_SCORES}

    return ResampledScores(
        mean([seed.values for seed in seeds]), mean([seed.samples for seed in seeds]),
        seeds[0].n, seeds[0].n_patient_groups,
    )  # fmt: skip


def _paired(default: ResampledScores, best: ResampledScores) -> PairedScores:
    return PairedScores(
        {n: np.stack([default.values[n][0], best.values[n][0]]) for n in CONFIRMED_SCORES},
        {n: np.stack([default.samples[n], best.samples[n]]) for n in CONFIRMED_SCORES},
        default.n,
        default.n_patient_groups,
    )


def confirmation_summary(result: Mapping[str, Any], settings: Settings) -> str:
    """The comparison as a table in plain text, with what it says."""
    metric = result["metric"]
    told = [*result["by_seed"], result["mean"]]
    names = [f"seed {seed}" for seed in result["seeds"]] + ["mean"]
    scores = [part[metric]["macro"] for part in told]
    rows = [
        [name, figure_text(score["first"]), figure_text(score["second"]),
         difference_text(score["difference"])]
        for name, score in zip(names, scores, strict=True)
    ]  # fmt: skip
    difference = result["mean"][metric]["macro"]["difference"]
    n = result["mean"]["n"]
    if difference["low"] is None:
        verdict = "no interval can be given, so nothing can be said"
    elif difference["low"] > 0:
        verdict = "the settings found are better here"
    elif difference["high"] < 0:
        verdict = "the settings found are worse here: the search has chosen by chance"
    else:
        verdict = "no difference can be told from chance on so many records"
    return "\n".join(
        [
            format_table(["", "default", "found", "difference (95 %)"], rows),
            f"On the half of the validation split that chose nothing, n = {n:,}: {verdict}. The "
            "test split is left for `einthoven evaluate`.",
            f"{tuning_dir(settings) / 'confirmation.json'}",
        ]
    )
