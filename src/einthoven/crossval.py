"""Cross-validation: a run for each part of the patients, or for each archive, held out in turn.

Each part is an ordinary run with a name of its own. One that is finished is skipped and one that
was stopped goes on, so the same command goes on wherever a cross-validation was stopped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.bootstrap import INTERVAL_METHOD, ScoreName
from einthoven.cluster_training import train_on_engine
from einthoven.comparison.scored_runs import (
    OUT_OF_FOLD_PREDICTIONS,
    predictions_from_table,
    read_predictions,
)
from einthoven.console import format_table, log, plural
from einthoven.errors import ConfigError, DataError, EinthovenError, RunStopped
from einthoven.evaluation import evaluate_detailed
from einthoven.files import Workspace, digest, write_json, write_parquet
from einthoven.holdout import recordings_of_archive
from einthoven.labels.sets import load_label_set
from einthoven.run_folder import refuse_other_run
from einthoven.runs import chosen_records, has_one_label, run_splits
from einthoven.scopes import predictions_path
from einthoven.scoring import HEADLINE_SCORES, score_split
from einthoven.settings import Settings
from einthoven.splits import N_FOLDS, is_counted
from einthoven.store import Store, label_matrix
from einthoven.summary import SCORE_TITLES, SUMMARY_SCORES, headline_how, score_texts
from einthoven.training import open_data
from einthoven.version import DISCLAIMER

CROSSVAL_RUN = "crossval"
MIN_RECORDS_TO_HOLD_OUT = 100
LONGEST_RUN_NAME = 64
SHORTEST_ARCHIVE_WORD = 16
POOLED_NOTE = (
    "out-of-fold scores rank records against each other that different models have scored; the "
    "headline is the mean over parts"
)


@dataclass(frozen=True)
class CrossvalPart:
    """One part: what it holds out, and the run that does so.

    Attributes:
        title: for people.
        facts: what the result says of it: ``part`` and ``folds``, or ``archive``.
        settings: of its run.
    """

    title: str
    facts: Mapping[str, Any]
    settings: Settings


def cross_validate(settings: Settings, origins: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Train and score a run for each part, and put together what they say of records held out.

    Writes ``crossval.json`` (``by_archive.json`` with ``BY_ARCHIVE``) and, for parts of the
    patients, ``out_of_fold.parquet`` into the checkpoints folder of the run ``RUN_NAME``
    (``crossval`` without one). A part that fails is told with its error, and the others go on.

    Args:
        origins: setting to where its value came from.

    Returns:
        What the JSON file holds; docs/how-to/cross-validation.md describes it. ``failed`` names the
        runs that failed.

    Raises:
        ConfigError: settings that leave nothing to cross-validate.
        DataError: there is no usable store, or an archive is not there to hold out.
        CheckpointError: a part's folder holds a run with other settings.
        RunStopped: Ctrl-C or SIGTERM came; the state is saved.
    """
    _check_crossval_settings(settings)
    store, _ = open_data(settings)
    left_out: dict[str, str] = {}
    if settings.by_archive:
        parts, left_out = parts_by_archive(settings, store)
    else:
        parts = parts_of_folds(settings)
    for part in parts:
        refuse_other_run(part.settings)
    told = [
        run_part(part, f"{number} of {len(parts)}", store, origins or {})
        for number, part in enumerate(parts, 1)
    ]
    result = _describe(settings, told) | {"left_out": left_out}
    if not settings.by_archive:
        result |= score_out_of_fold(settings, store, parts, told)
    path = _crossval_dir(settings) / ("by_archive.json" if settings.by_archive else "crossval.json")
    write_json(path, result)
    log.info("Cross-validation: %s", path)
    return result


def _check_crossval_settings(settings: Settings) -> None:
    if settings.hold_out:
        raise ConfigError(
            f"HOLD_OUT is {settings.hold_out}, and `einthoven crossval` holds out every part in "
            "turn; leave it out, or use `einthoven train`"
        )
    if settings.dry_run:
        raise ConfigError("a dry run leaves nothing to put together; use `einthoven train`")


def _base_name(settings: Settings) -> str:
    return settings.run_name or CROSSVAL_RUN


def _crossval_dir(settings: Settings) -> Path:
    return Workspace(settings.root, _base_name(settings)).checkpoints_dir


# Parts -------------------------------------------------------------------------------------------


def parts_of_folds(settings: Settings) -> list[CrossvalPart]:
    """Deal the ten folds of the store to parts in turn: fold f to part (f - 1) % K + 1.

    In turn and not in stretches, because folds 9 and 10 of PTB-XL have labels of higher quality
    than the others and should not make up one part together.
    """
    n_parts = settings.folds
    parts = []
    for number in range(1, n_parts + 1):
        folds = list(range(number, N_FOLDS + 1, n_parts))
        written = ",".join(map(str, folds))
        name = f"{_base_name(settings)}-part{number}of{n_parts}"
        parts.append(
            CrossvalPart(
                f"fold{'s' * (len(folds) > 1)} {written.replace(',', ', ')}",
                {"part": number, "folds": folds},
                _settings_of_part(settings, name, written),
            )
        )
    return parts


def parts_by_archive(settings: Settings, store: Store) -> tuple[list[CrossvalPart], dict[str, str]]:
    """A part for each archive that is large enough, and why the others have none.

    Raises:
        DataError: no archive is, or there is no other one to train on.
    """
    archives = sorted(store.manifest["archive"].unique())
    if len(archives) < 2:
        raise DataError(
            f"the store has one archive ({', '.join(archives)}); holding it out leaves none to "
            "train on: prepare another one, or leave --by-archive out"
        )
    parts, left_out = [], {}
    for archive in archives:
        n = len(recordings_of_archive(store.manifest, archive))
        if n < MIN_RECORDS_TO_HOLD_OUT:
            left_out[archive] = (
                f"{plural(n, 'labelled record')}, fewer than {MIN_RECORDS_TO_HOLD_OUT}"
            )
            continue
        name = run_name_without(_base_name(settings), archive)
        part_settings = _settings_of_part(settings, name, archive)
        parts.append(CrossvalPart(f"without {archive}", {"archive": archive}, part_settings))
    if not parts:
        raise DataError(
            f"no archive has {MIN_RECORDS_TO_HOLD_OUT} labelled records to test on: "
            + "; ".join(f"{name} {why}" for name, why in left_out.items())
        )
    return parts, left_out


def run_name_without(base: str, archive: str) -> str:
    """The name of the run that holds an archive out, as run names may be.

    >>> run_name_without("crossval", "ptb-xl")
    'crossval-without-ptb-xl'
    """
    start = f"{base}-without-"
    room = LONGEST_RUN_NAME - len(start)
    if room < SHORTEST_ARCHIVE_WORD:
        n = LONGEST_RUN_NAME - SHORTEST_ARCHIVE_WORD - len("-without-")
        raise ConfigError(f"RUN_NAME is {base}, too long here; use {n} letters at most")
    word = re.sub(r"[^\w.-]+", "_", archive)
    if word != archive or len(word) > room:
        # What is cut off or replaced may be all that tells two archives apart.
        word = f"{word[: room - 9]}-{digest(archive)[:8]}"
    return start + word


def _settings_of_part(settings: Settings, run_name: str, hold_out: str) -> Settings:
    if len(run_name) > LONGEST_RUN_NAME:
        n = LONGEST_RUN_NAME - len(run_name) + len(_base_name(settings))
        raise ConfigError(
            f"RUN_NAME is {settings.run_name}, too long here; use {n} letters at most"
        )
    return settings.model_copy(update={"run_name": run_name, "hold_out": hold_out})


# One part ----------------------------------------------------------------------------------------


def run_part(
    part: CrossvalPart, place: str, store: Store, origins: Mapping[str, str]
) -> dict[str, Any]:
    """Train and score one part; a failure is told, and leaves the other parts to go on.

    Returns:
        Its facts, ``run``, and ``n_train``, ``n_validation``, ``n``, ``n_patient_groups``,
        ``absent_from_training`` and ``headline``; or ``error``.
    """
    run_name = part.settings.run_name
    log.info("Part %s, %s: run %s", place, part.title, run_name)
    told: dict[str, Any] = {**part.facts, "run": run_name}
    own = {name: "crossval" for name in ("run_name", "hold_out")}
    try:
        told |= describe_split(part.settings, store)
        train_on_engine(part.settings, {**origins, **own})
        metrics = evaluate_detailed(part.settings)
    except (RunStopped, ConfigError):
        raise
    except EinthovenError as error:
        log.error("Part %s, %s, failed: %s", place, part.title, error)
        return told | {"error": str(error)}
    return told | {key: metrics[key] for key in ("n", "n_patient_groups", "headline")}


def describe_split(settings: Settings, store: Store) -> dict[str, Any]:
    """How many records a part trains and validates on, and which classes it cannot learn."""
    chosen = chosen_records(settings, store, run_splits(settings, store))
    labels = load_label_set(settings.label_set).labels
    n_of_label = label_matrix(store.manifest.iloc[chosen["train"]], labels).sum(axis=0)
    return {
        "n_train": len(chosen["train"]),
        "n_validation": len(chosen["val"]),
        "absent_from_training": [
            label for label, n in zip(labels, n_of_label, strict=True) if not n
        ],
    }


# All parts together ------------------------------------------------------------------------------


def _describe(settings: Settings, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "disclaimer": DISCLAIMER,
        "held_out": "archives" if settings.by_archive else "folds",
        "run": _base_name(settings),
        "label_set": settings.label_set,
        "labels": list(load_label_set(settings.label_set).labels),
        "task": "single" if has_one_label(settings) else "multi",
        "seed": settings.seed,
        "resamples": settings.bootstrap_resamples,
        "interval": INTERVAL_METHOD,
        "parts": list(told),
        "failed": [part["run"] for part in told if "error" in part],
        "mean": mean_over_parts(told),
    }


def mean_over_parts(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each headline score: ``{"value", "sd", "n_parts"}``.

    The standard deviation says how far parts differ. It gives no interval of the mean: parts share
    most of their training records, so that they are no independent samples.
    """
    headlines = [part["headline"] for part in told if "headline" in part]
    result: dict[str, Any] = {}
    for metric, average in HEADLINE_SCORES:
        figures = [headline[metric] for headline in headlines if metric in headline]
        if not figures:
            continue
        figures = [figure[average] if average else figure for figure in figures]
        told_mean = _mean_and_sd([f["value"] for f in figures if f["value"] is not None])
        if average:
            result.setdefault(metric, {})[average] = told_mean
        else:
            result[metric] = told_mean
    return result


def _mean_and_sd(values: Sequence[float]) -> dict[str, Any]:
    figure: dict[str, Any] = {"value": None, "sd": None, "n_parts": len(values)}
    if not values:
        return figure | {"reason": "no part has this score"}
    figure["value"] = float(np.mean(values))
    if len(values) < 2:
        return figure | {"reason": "one part: no standard deviation"}
    return figure | {"sd": float(np.std(values, ddof=1))}


def score_out_of_fold(
    settings: Settings,
    store: Store,
    parts: Sequence[CrossvalPart],
    told: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Put the parts' test records into one file, and score them together.

    Raises:
        DataError: a record is there twice, or is not there though every part is.
    """
    finished = [part for part, facts in zip(parts, told, strict=True) if "error" not in facts]
    everything = {
        "train": store.manifest["record"][is_counted(store.manifest)],
        "val": [],
        "test": [],
    }
    expected = store.manifest["record"].iloc[chosen_records(settings, store, everything)["train"]]
    result = {"n_expected": len(expected), "n": 0, "pooled": None, "pooled_note": POOLED_NOTE}
    if not finished:
        return result | {"reason": "every part failed"}
    table = pd.concat([_tested_by(part) for part in finished], ignore_index=True)
    check_out_of_fold(table["record"], expected, is_whole=len(finished) == len(parts))
    write_parquet(_crossval_dir(settings) / OUT_OF_FOLD_PREDICTIONS, table)
    predictions = predictions_from_table(table, has_one_label(settings))
    pooled = score_split(predictions, settings.bootstrap_resamples, settings.seed)
    return result | {"n": len(table), "pooled": pooled}


def _tested_by(part: CrossvalPart) -> pd.DataFrame:
    """A part's test records, with the number of the part beside them."""
    table = read_predictions(predictions_path(part.settings.workspace))
    table = table[table["split"] == "test"]
    table.insert(4, "part", part.facts["part"])
    return table


def check_out_of_fold(tested: pd.Series[str], expected: pd.Series[str], *, is_whole: bool) -> None:
    """Refuse predictions that do not have each labelled canonical record once.

    Args:
        tested: records of all parts.
        expected: those that should be there.
        is_whole: every part is there; otherwise some may be missing.

    Raises:
        DataError: names the first record that is wrong.
    """
    wrong = {
        "tested by two parts": tested[tested.duplicated()],
        "tested by a part that is no labelled original": tested[~tested.isin(expected)],
        "tested by no part": expected[~expected.isin(tested)] if is_whole else expected[:0],
    }
    for how, records in wrong.items():
        if len(records):
            raise DataError(
                f"{plural(len(records), 'record')} {how} (first: {records.iloc[0]}): the store has "
                "changed since a part was trained; start over with --fresh"
            )


# For people --------------------------------------------------------------------------------------


def crossval_summary(result: Mapping[str, Any]) -> str:
    """The parts' scores, their mean and what to know of them, as a table in plain text."""
    is_archives = result["held_out"] == "archives"
    rows = [_summary_row(part) for part in result["parts"]]
    rows.append(["mean (sd)", "", "", *(_mean_text(result["mean"], s) for s in SUMMARY_SCORES)])
    if result.get("pooled"):
        pooled = result["pooled"]["headline"]
        rows.append(["out of fold", "", f"{pooled['n']:,}", *score_texts(pooled, SUMMARY_SCORES)])
    header = ["archive held out" if is_archives else "folds held out", "trained on", "tested on"]
    header += [SCORE_TITLES[name] for name in SUMMARY_SCORES]
    return "\n".join([format_table(header, rows), *crossval_remarks(result)])


def _summary_row(part: Mapping[str, Any]) -> list[object]:
    title = part.get("archive") or ", ".join(map(str, part["folds"]))
    n_train = f"{part['n_train']:,}" if "n_train" in part else ""
    if "error" in part:
        return [title, n_train, "failed", *([""] * len(SUMMARY_SCORES))]
    return [title, n_train, f"{part['n']:,}", *score_texts(part["headline"], SUMMARY_SCORES)]


def _mean_text(mean: Mapping[str, Any], name: ScoreName) -> str:
    metric, average = name
    figure = mean.get(metric, {})
    figure = figure.get(average, {}) if average else figure
    if figure.get("value") is None:
        return "none"
    return f"{figure['value']:.3f}" + (f" ({figure['sd']:.3f})" if figure["sd"] is not None else "")


def crossval_remarks(result: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook, a line each."""
    parts = result["parts"]
    lines = [f"failed: {part['run']}: {part['error']}" for part in parts if "error" in part]
    lines += [f"not held out: {name} ({why})" for name, why in result["left_out"].items()]
    absent = {part["run"]: part.get("absent_from_training", []) for part in parts}
    everywhere = [label for label in result["labels"] if all(label in a for a in absent.values())]
    if everywhere:
        lines.append(f"no part has a training record of {', '.join(everywhere)}")
    for run, labels in absent.items():
        own = [label for label in labels if label not in everywhere]
        if own:
            lines.append(f"{run} has no training record of {', '.join(own)} and cannot learn it")
    if result["held_out"] == "folds" and result["n"] < result["n_expected"]:
        n = result["n_expected"] - result["n"]
        lines.append(f"{plural(n, 'record')} of the parts that failed have no prediction")
    hows = {headline_how(part["headline"]) for part in parts if "headline" in part}
    if len(hows) == 1 and result["held_out"] == "folds":
        lines.append(f"scores of each row: {hows.pop()}")
    if result.get("pooled"):
        lines.append(POOLED_NOTE)
    return lines
