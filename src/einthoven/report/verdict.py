"""How a report opens: what was trained on what, how good it is, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.console import plural
from einthoven.report.crossval_tables import crossval_headline, crossval_note, crossval_verdict
from einthoven.report.data_card import split_parts
from einthoven.report.decision_tables import RULE_MEANINGS, subgroup_title
from einthoven.report.parts import figure_cell, figure_in, lacks_records, listed
from einthoven.report.run_files import RunFiles, scored_split
from einthoven.report.run_tables import best_epoch
from einthoven.report.score_tables import weakest_classes
from einthoven.scoring import HEADLINE_SCORES
from einthoven.summary import SCORE_TITLES, headline_how

# What was trained, how good it is --------------------------------------------------------------


# Of more archives than this the first sentence tells only how many.
MOST_ARCHIVES_NAMED = 3


def verdict_sentence(files: RunFiles) -> str:
    """What was trained on what, in one sentence."""
    if files.run is None:
        return crossval_verdict(files) or "No model has been trained in this workspace yet."
    n_labels = len(files.labels)
    task = "one label" if files.is_single else "any number of labels"
    return (
        f"{files.settings.get('model_name', 'A model')}, trained on {_trained_on(files)}, tells "
        f"the {n_labels} classes of label set {files.settings.get('label_set', '')} apart "
        f"({task} per record).{_new_archives(files)}{_part_scored(files)}"
    )


def _trained_on(files: RunFiles) -> str:
    train = split_parts(files).get("train")
    if train is None:
        n_train = (files.run or {}).get("n_train")
        return "records unknown" if n_train is None else plural(n_train, "record")
    names = sorted(train["archive"].unique())
    listed = f" ({', '.join(names)})" if len(names) <= MOST_ARCHIVES_NAMED else ""
    return f"{plural(len(train), 'record')} of {plural(len(names), 'archive')}{listed}"


def _new_archives(files: RunFiles) -> str:
    """Which archives the model was tested on without having met them."""
    own = files.own
    if files.metrics is None or not own.new_archives or own.seen_archives:
        return ""
    names = named_or_counted(own.new_archives, "archive")
    return f" It was tested on {names}, of which it has seen no record."


def _part_scored(files: RunFiles) -> str:
    """Which archives the headline is of, where it is not of all."""
    headline = (files.metrics or {}).get("headline") or {}
    if not headline.get("left_out"):
        return ""
    names, left_out = (
        named_or_counted(list(headline.get(key) or ()), "archive")
        for key in ("archives", "left_out")
    )
    of = f"those of {names} alone" if len(headline["archives"]) == 1 else f"means over {names}"
    return f" Its headline scores are {of}, without {left_out}."


def named_or_counted(names: Sequence[str], noun: str) -> str:
    """A few names, or how many there are; the tables below hold them all."""
    if len(names) <= MOST_ARCHIVES_NAMED:
        return ", ".join(names)
    return plural(len(names), noun)


def headline_of(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headline scores, or the pooled ones where there is none."""
    found: Mapping[str, Any] = metrics.get("headline") or metrics
    return found


def headline_rows(files: RunFiles) -> list[tuple[str, str, str]]:
    """Title, value and interval of each headline score."""
    if files.metrics is None:
        return crossval_headline(files) if files.is_crossval_alone else []
    headline = headline_of(files.metrics)
    if lacks_records(headline):
        return []
    rows = []
    for name in HEADLINE_SCORES:
        figure = figure_in(headline, *filter(None, name))
        if figure is not None:
            value, _, interval = figure_cell(figure).partition(" ")
            rows.append((SCORE_TITLES[name], value, interval.strip("()") or "no interval"))
    return rows


def headline_note(files: RunFiles) -> str:
    """How the headline was averaged, over what, and from which seed."""
    if files.is_crossval_alone:
        return crossval_note(files)
    if files.metrics is None:
        return "The model has not been evaluated: run `einthoven evaluate`."
    metrics, headline = files.metrics, headline_of(files.metrics)
    split, n = scored_split(metrics), plural(headline.get("n") or 0, "record")
    if lacks_records(headline):
        return f"The {split} has {n}: too few for a score that says anything."
    how = headline_how(headline) if "how" in headline else "all records pooled"
    return (
        f"{split[:1].upper()}{split[1:]}, {how}; {n} of "
        f"{plural(headline.get('n_patient_groups') or 0, 'patient')}. 95 % intervals from "
        f"{metrics.get('resamples') or 0:,} resamples of patients, seed {metrics.get('seed')}."
    )


# At a glance -----------------------------------------------------------------------------------


def glance_rows(files: RunFiles) -> list[tuple[str, str]]:
    """The few facts on which trust hangs, as title and text."""
    if files.metrics is None:
        return []
    rows = {
        "Model": _model_fact(files),
        "Trained on": _training_fact(files),
        "Scored on": _scored_fact(files),
        "Decides": _decision_fact(files),
        "Probabilities": _calibration_fact(files.metrics),
        "Weakest": "; ".join(weakest_classes(files)),
        "Subgroups": _subgroup_fact(files),
    }
    return [(title, text) for title, text in rows.items() if text]


def _model_fact(files: RunFiles) -> str:
    if files.run is None:
        return ""
    best, epochs = best_epoch(files), len(files.history or ())
    return f"{files.settings.get('model_name', 'model')}" + (
        f", epoch {best} of {epochs}" if best else ""
    )


def _training_fact(files: RunFiles) -> str:
    train = split_parts(files).get("train")
    if train is None:
        return ""
    patients = plural(train["patient_group"].nunique(), "patient")
    archives = [f"{name} {count:,}" for name, count in train["archive"].value_counts().items()]
    return f"{plural(len(train), 'record')} of {patients} ({listed(archives, most=8)})"


def _scored_fact(files: RunFiles) -> str:
    metrics = files.metrics or {}
    n, patients = metrics.get("n") or 0, metrics.get("n_patient_groups") or 0
    text = f"{plural(n, 'record')} of {plural(patients, 'patient')}"
    parts = (metrics.get("archives") or {}).items()
    archives = [f"{name} {part.get('n') or 0:,}" for name, part in parts]
    text += f" ({listed(archives, most=8)})" if archives else ""
    trained_on = metrics.get("n_trained_on")
    if trained_on is None:
        unknown = "; whether it was trained on some of them is not known"
        return text + (unknown if "n_trained_on" in metrics else "")
    return f"{text}; " + (
        f"{trained_on:,} of patients trained on" if trained_on else "no patient trained on"
    )


def _decision_fact(files: RunFiles) -> str:
    if files.is_single:
        return "the likeliest class of each record"
    rule = str((files.metrics or {}).get("threshold_rule") or "")
    if rule == "half":
        return "every class at a probability of 0.5 or more"
    named = f", set for {RULE_MEANINGS.get(rule, rule)}" if rule else ""
    return f"every class at or above its threshold{named}"


def _calibration_fact(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("calibration") or {}
    method = found.get("method")
    if method is None:
        return ""
    words = {"platt": "calibrated (Platt)", "temperature": "calibrated (temperature and bias)"}
    text = words.get(str(method), "not calibrated")
    error = figure_in(metrics, "expected_calibration_error", "macro")
    before = figure_in(metrics.get("uncalibrated"), "expected_calibration_error", "macro")
    if error is None or error["value"] is None:
        return text
    was = "" if before is None or before["value"] is None else f", {before['value']:.3f} before"
    return (
        f"{text}; expected calibration error {error['value']:.3f}{was if method != 'none' else ''}"
    )


def _subgroup_fact(files: RunFiles) -> str:
    groups = (files.metrics or {}).get("subgroups")
    if groups is None:
        return ""
    compared = [g for g in groups if (figure_in(g, "difference") or {}).get("value") is not None]
    if not compared:
        return "none large enough to compare"
    worse = [subgroup_title(group) for group in groups if group.get("is_worse")]
    found = f"worse than the rest: {listed(worse, most=5)}" if worse else "none shown to be worse"
    return f"{len(compared)} of {len(groups)} compared; {found}"
