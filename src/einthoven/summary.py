"""An evaluation's scores as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.bootstrap import ScoreName
from einthoven.console import format_table, plural
from einthoven.scoring import MIN_RECORDS_FOR_HEADLINE

# The names of the scores in tables for people.
SCORE_TITLES = {
    ("auroc", "macro"): "macro AUROC",
    ("average_precision", "macro"): "macro AP",
    ("f1", "macro"): "macro F1",
    ("f1", "weighted"): "weighted F1",
    ("accuracy", ""): "accuracy",
    ("subset_accuracy", ""): "all labels right",
    ("challenge_score", ""): "Challenge score",
}
# A terminal has room for these; the report shows all.
SUMMARY_SCORES: tuple[ScoreName, ...] = (
    ("auroc", "macro"),
    ("average_precision", "macro"),
    ("f1", "macro"),
    ("accuracy", ""),
)

# What stands in place of the scores of too few records.
NO_SCORE_SHOWN = "–"
TOO_SMALL = f"fewer than {MIN_RECORDS_FOR_HEADLINE} records"

# More flagged subgroups than this are counted.
MOST_WORSE_NAMED = 5


def evaluation_summary(metrics: Mapping[str, Any]) -> str:
    """The main scores of each archive with their intervals, as a table in plain text."""
    header = [scope_title(metrics), "records", *(SCORE_TITLES[name] for name in SUMMARY_SCORES)]
    archives, headline = metrics["archives"], metrics["headline"]
    parts = dict(archives)
    if len(archives) > 1:
        parts |= {"all, pooled": metrics, "headline": headline}
    rows: list[list[object]] = [
        [title, part["n"], *score_texts(part, SUMMARY_SCORES)] for title, part in parts.items()
    ]
    lines = [format_table(header, rows)]
    if len(archives) > 1:
        lines.append(f"headline: {headline_how(headline)}")
    if any(is_too_small(part) for part in parts.values()):
        lines.append(f"{NO_SCORE_SHOWN}: {TOO_SMALL}; their scores say nothing")
    return "\n".join([*lines, *evaluation_remarks(metrics)])


def scope_title(metrics: Mapping[str, Any]) -> str:
    """Which records were scored, in a few words."""
    records = metrics.get("records") or {}
    split = records.get("split") or "test"
    title = "all records" if split == "all" else f"{split} split"
    if records.get("fold"):
        title = f"fold {records['fold']}"
    if records.get("external"):
        title = f"external, {records['external']}"
    return f"{title}, {records['archive']}" if records.get("archive") else title


def evaluation_remarks(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook, a line each."""
    remarks = []
    if metrics.get("n_trained_on"):
        n = plural(metrics["n_trained_on"], "record")
        remarks.append(f"Too good to be true: the model was trained on patients of {n} here.")
    elif "n_trained_on" in metrics and metrics["n_trained_on"] is None:
        remarks.append(f"May flatter: {metrics['n_trained_on_reason']}.")
    if metrics.get("n_validated_on"):
        n = plural(metrics["n_validated_on"], "record")
        remarks.append(f"Flatters: {n} here picked the model's epoch or set its thresholds.")
    augmented = metrics.get("test_time_augmentation")
    if augmented:
        gain = augmented["gain"]["auroc"]["macro"]
        remarks.append(
            f"Averaged over {len(augmented['views'])} views of each record: macro AUROC "
            f"{difference_text(gain)} against one view."
        )
    sets = metrics.get("conformal")
    if sets and not is_too_small(metrics):
        remarks.append(
            f"Conformal sets of stated coverage {sets['stated_coverage']:g}: coverage "
            f"{figure_text(sets['coverage'])}, {figure_text(sets['mean_size'])} labels on average."
        )
    worse = [
        f"{row['kind']} {row['name']}" for row in metrics.get("subgroups", ()) if row["is_worse"]
    ]
    if worse:
        more = len(worse) - MOST_WORSE_NAMED
        named = ", ".join(worse[:MOST_WORSE_NAMED]) + (f" and {more} more" if more > 0 else "")
        remarks.append(f"Worse than for the other records: {named}.")
    return remarks


def headline_how(headline: Mapping[str, Any]) -> str:
    """How the headline was averaged, as a person says it."""
    how: str = headline["how"]
    if not headline["left_out"]:
        return how
    if len(headline["archives"]) == 1:
        return f"{how}, the one archive with {MIN_RECORDS_FOR_HEADLINE} test records or more"
    return f"{how} ({', '.join(headline['archives'])})"


def is_too_small(part: Mapping[str, Any]) -> bool:
    """Whether scores stem from so few records that tables leave them out."""
    return bool(part["n"] < MIN_RECORDS_FOR_HEADLINE)


def score_texts(part: Mapping[str, Any], names: Sequence[ScoreName]) -> list[str]:
    """Scores with their intervals; a dash for each where the records are too few."""
    if is_too_small(part):
        return [NO_SCORE_SHOWN] * len(names)
    figures = [part[metric][average] if average else part[metric] for metric, average in names]
    return [figure_text(figure) for figure in figures]


def figure_text(figure: Mapping[str, Any]) -> str:
    """A score with its interval.

    >>> figure_text({"value": 0.91, "low": 0.898, "high": 0.922, "n": 871})
    '0.910 (0.898–0.922)'
    >>> figure_text({"value": None, "low": None, "high": None, "n": 4, "reason": "class absent"})
    'none'
    """
    if figure["value"] is None:
        return "none"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def difference_text(figure: Mapping[str, Any]) -> str:
    """A difference with its interval, signs shown.

    >>> difference_text({"value": 0.012, "low": -0.001, "high": 0.025, "n": 871})
    '+0.012 (-0.001 to +0.025)'
    """
    if figure["value"] is None:
        return "none"
    if figure["low"] is None:
        return f"{figure['value']:+.3f}"
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"
