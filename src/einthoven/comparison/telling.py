"""A comparison as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.bootstrap import ScoreName
from einthoven.console import format_table, plural
from einthoven.summary import SCORE_TITLES, difference_text, figure_text

# The score that the verdict is about.
VERDICT_SCORE: ScoreName = ("auroc", "macro")
VERDICT_TITLE = "macro AUROC"
LARGEST_CHANCE = 0.05
SMALLEST_SHOWN = 0.0005
COMPARED_TITLES: dict[ScoreName, str] = {
    **SCORE_TITLES,
    ("brier", "macro"): "macro Brier (lower is better)",
}


def comparison_summary(result: Mapping[str, Any]) -> str:
    """The compared scores as a table in plain text, what to know of them, and the verdict."""
    first, second = result["first"]["run"], result["second"]["run"]
    headline, pooled = result["headline"], result["pooled"]
    header = ["score", first, second, f"{second} minus {first}", "p"]
    scores = [*_averages(headline), *_classes(headline, result["labels"])]
    lines = [
        format_table(header, [_row(title, told) for title, told in scores]),
        f"{plural(headline['n'], 'record')} that both were tested on, of "
        f"{plural(headline['n_patient_groups'], 'patient')}; {headline['how']}",
    ]
    if len(headline["archives"]) > 1 or headline["n"] != pooled["n"]:
        told = _told_score(pooled, VERDICT_SCORE)
        lines.append(
            f"All {plural(pooled['n'], 'record')} pooled: {VERDICT_TITLE} "
            f"{difference_text(told['difference'])}, p {chance_text(told['p'])}"
        )
    lines += [f"Warning: {line}" for line in result["warnings"]]
    lines.append("One training of each: what another SEED would change is in no interval here")
    return "\n".join([*lines, result["verdict"]])


def comparison_verdict(result: Mapping[str, Any]) -> str:
    """In one line, whether the headline scores are told apart from chance."""
    first, second = result["first"]["run"], result["second"]["run"]
    told = _told_score(result["headline"], VERDICT_SCORE)
    figure = told["difference"]
    if result["is_same"]:
        n = plural(result["pooled"]["n"], "record")
        return f"{first} and {second} say the same of {n}: every difference is exactly 0"
    if figure["value"] is None:
        return f"{first} and {second} have no {VERDICT_TITLE} to compare: {figure['reason']}"
    others = _others_told_apart(result["headline"])
    if figure["low"] is None:
        if abs(figure["value"]) < SMALLEST_SHOWN:
            return f"{VERDICT_TITLE} is the same in all resamples{others}"
        return f"{VERDICT_TITLE} differs by {figure['value']:+.3f}: {figure['reason']}{others}"
    found = "told apart" if _is_told_apart(told) else "not told apart"
    how = "higher" if figure["value"] > 0 else "lower"
    return (
        f"{VERDICT_TITLE} of {second} is {abs(figure['value']):.3f} {how} than that of {first} "
        f"({figure['low']:+.3f} to {figure['high']:+.3f}, p {chance_text(told['p'])}): {found} "
        f"from chance{others}"
    )


def _is_told_apart(told: Mapping[str, Any]) -> bool:
    return told["p"] is not None and bool(told["p"] < LARGEST_CHANCE)


def _others_told_apart(headline: Mapping[str, Any]) -> str:
    """The other averages that differ by more than chance, for the end of a sentence."""
    others = [
        title.partition(" (")[0]
        for title, told in _averages(headline)
        if title != VERDICT_TITLE and _is_told_apart(told)
    ]
    return f"; also told apart: {', '.join(others)}" if others else ""


def _told_score(part: Mapping[str, Any], name: ScoreName) -> dict[str, Any]:
    metric, average = name
    told: dict[str, Any] = part[metric][average] if average else part[metric]
    return told


def _averages(part: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    names = [name for name in COMPARED_TITLES if name[0] in part]
    return [(COMPARED_TITLES[name], _told_score(part, name)) for name in names]


def _classes(part: Mapping[str, Any], labels: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"AUROC {label}", part["auroc"]["per_class"][label]) for label in labels]


def _row(title: str, told: Mapping[str, Any]) -> list[object]:
    sides = [figure_text(told[side]) for side in ("first", "second")]
    return [title, *sides, difference_text(told["difference"]), chance_text(told["p"])]


def chance_text(p: float | None) -> str:
    """A p-value.

    >>> chance_text(0.0412), chance_text(0.00001), chance_text(None)
    ('0.041', '< 0.001', 'none')
    """
    if p is None:
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
