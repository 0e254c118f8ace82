"""What a report says of a cross-validation: each part, the mean, all records out of fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einthoven.bootstrap import ScoreName
from einthoven.console import plural
from einthoven.crossval import crossval_remarks
from einthoven.report.parts import (
    NO_SCORE,
    ReportPart,
    ReportTable,
    figure_cell,
    figure_in,
    lacks_records,
    value_of,
)
from einthoven.report.run_files import RunFiles
from einthoven.scoring import HEADLINE_SCORES
from einthoven.summary import NO_SCORE_SHOWN, SCORE_TITLES, TOO_SMALL

_HEADINGS = {"folds": "Parts of the patients", "archives": "By archive"}

_INTRODUCTIONS = {
    "folds": "Patients were dealt to parts; each part is tested on by a model that was trained on "
    "the others.",
    "archives": "Each archive is tested on by a model that has seen no record of it: its hospital, "
    "recorders and habits of labelling are new to that model.",
}


def crossval_parts(files: RunFiles) -> list[ReportPart]:
    """Tables of each cross-validation of this name: its parts, and what was not held out."""
    parts = []
    for result in files.crossvals:
        kind = str(result.get("held_out"))
        table = _crossval_table(result)
        parts.append(ReportPart(_HEADINGS.get(kind, kind), _INTRODUCTIONS.get(kind, ""), table))
        left_out = [[name, str(why)] for name, why in (result.get("left_out") or {}).items()]
        if left_out:
            folded = f"{plural(len(left_out), 'archive')} not held out"
            parts.append(
                ReportPart(table=ReportTable(["archive", "why not"], left_out), folded=folded)
            )
    return parts


def _crossval_table(result: Mapping[str, Any]) -> ReportTable:
    parts = result.get("parts") or []
    names = _scores_used(result)
    rows = [_part_row(part, names) for part in parts]
    means = [_mean_cell(_mean_of(result, name)) for name in names]
    footer = [["mean ± sd", "", "", "", "", *means]]
    pooled = result.get("pooled")
    if pooled:
        headline = pooled.get("headline") or pooled
        counts = ["", "", *(f"{headline.get(k) or 0:,}" for k in ("n", "n_patient_groups"))]
        footer.append(["out of fold", *counts, *_score_cells(headline, names)])
    held_out = "archive held out" if result.get("held_out") == "archives" else "folds held out"
    header = [held_out, "trained on", "validated on", "tested on", "patients"]
    header += [SCORE_TITLES[name] for name in names]
    return ReportTable(header, rows, _crossval_note(result), footer)


def _scores_used(result: Mapping[str, Any]) -> list[ScoreName]:
    """Headline scores that some part has."""
    headlines = [part.get("headline") or {} for part in result.get("parts") or []]
    return [name for name in HEADLINE_SCORES if any(name[0] in one for one in headlines)]


def _part_row(part: Mapping[str, Any], names: list[ScoreName]) -> list[str]:
    title = part.get("archive") or ", ".join(map(str, part.get("folds") or ()))
    counts = [
        f"{part[key]:,}" if key in part else ""
        for key in ("n_train", "n_validation", "n", "n_patient_groups")
    ]
    if "headline" not in part:
        counts[2] = "failed"
        return [title, *counts, *[""] * len(names)]
    return [title, *counts, *_score_cells(part["headline"], names)]


def _score_cells(headline: Mapping[str, Any], names: list[ScoreName]) -> list[str]:
    if lacks_records(headline):
        return [NO_SCORE_SHOWN] * len(names)
    return [figure_cell(figure_in(headline, *filter(None, name))) for name in names]


def _mean_of(result: Mapping[str, Any], name: ScoreName) -> Mapping[str, Any] | None:
    return figure_in(result.get("mean"), *filter(None, name))


def _mean_cell(figure: Mapping[str, Any] | None) -> str:
    """A mean and its standard deviation.

    >>> _mean_cell({"value": 0.916, "sd": 0.0061, "n_parts": 5})
    '0.916 (±0.006)'
    """
    value = value_of(figure)
    if figure is None or value is None:
        return NO_SCORE
    return f"{value:.3f}" + (f" (±{figure['sd']:.3f})" if figure.get("sd") is not None else "")


def _crossval_note(result: Mapping[str, Any]) -> str:
    lines = [
        "Scores of a part: headline with 95 % intervals. The standard deviation says how far parts "
        "differ; it gives no interval of the mean, because parts share most training records.",
    ]
    # What was not held out has a table of its own.
    remarks = crossval_remarks({**result, "left_out": {}})
    lines += [f"{line[:1].upper()}{line[1:]}." for line in remarks]
    headlines = [part["headline"] for part in result.get("parts") or [] if "headline" in part]
    if any(lacks_records(headline) for headline in headlines):
        lines.append(f"{NO_SCORE_SHOWN}: {TOO_SMALL}.")
    return " ".join(lines)


# The page of a cross-validation that has no model of its own -----------------------------------


def crossval_verdict(files: RunFiles) -> str:
    """What was held out, in a sentence for each cross-validation; empty without one."""
    model = files.settings.get("model_name", "a model")
    return " ".join(_told_crossval(result, model) for result in files.crossvals)


def _told_crossval(result: Mapping[str, Any], model: str) -> str:
    parts = result.get("parts") or []
    noun = "archive" if result.get("held_out") == "archives" else "part of the patients"
    what = plural(len(parts), noun) if noun == "archive" else f"{len(parts)} parts of the patients"
    n_failed = len(result.get("failed") or ())
    failed = f" {plural(n_failed, 'part')} failed." if n_failed else ""
    n_labels = len(result.get("labels") or ())
    return (
        f"Cross-validation of {model} over {what}, label set {result.get('label_set', '')} "
        f"({n_labels} classes): each is tested on by a model that was not trained on it.{failed}"
    )


def crossval_headline(files: RunFiles) -> list[tuple[str, str, str]]:
    """Title, mean and standard deviation of each headline score, of the first that there is."""
    result = files.crossvals[0]
    rows = []
    for name in _scores_used(result):
        mean, _, deviation = _mean_cell(_mean_of(result, name)).partition(" ")
        rows.append((SCORE_TITLES[name], mean, deviation.strip("()") or "no deviation"))
    return rows


def crossval_note(files: RunFiles) -> str:
    """What the headline is of."""
    result = files.crossvals[0]
    n = len([part for part in result.get("parts") or [] if "headline" in part])
    noun = "archives" if result.get("held_out") == "archives" else "parts"
    return (
        f"Means over {n} {noun} held out in turn, with their standard deviation: how far {noun} "
        "differ. The tables below have each of them. Each part is a run with a report of its own: "
        "`einthoven report --run-name` with its name."
    )
