"""The model card in Markdown, from the same facts as the report.

Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from einthoven.files import Workspace
from einthoven.report.cautions import report_warnings
from einthoven.report.crossval_tables import crossval_parts
from einthoven.report.data_card import (
    archive_table,
    patient_table,
    split_table,
    splits_sentence,
    store_sentence,
)
from einthoven.report.decision_tables import (
    calibration_sentence,
    calibration_table,
    conformal_sentence,
    rule_sentence,
    subgroup_tables,
    views_sentence,
)
from einthoven.report.parts import ReportTable, listed
from einthoven.report.run_files import RunFiles
from einthoven.report.run_tables import training_sentence
from einthoven.report.score_tables import (
    archive_score_table,
    average_table,
    class_score_table,
    evaluation_table,
)
from einthoven.report.verdict import headline_note, headline_rows, verdict_sentence
from einthoven.version import DISCLAIMER, __version__

CODE_LICENSE = "Apache-2.0"

_USES = """\
Intended: research on automatic reading of 12-lead ECGs; comparing methods; a start for models
that are then validated on the records they are meant for.

Intended users: researchers and engineers who can judge the evaluation below.

Out of scope: diagnosis, triage, monitoring or any other decision about a patient. The model has
no clearance of any authority and was not tested in a clinic. It knows only its own classes: a
finding outside them gets no name, and a normal answer does not rule it out."""

_ETHICS = """\
The records are of people who were patients of the archives' hospitals: nothing here may be used
to find out who they are. Labels are what physicians or machines wrote
at the time, errors included. An archive's population, recorders and habits are in the model: on
other populations, and for groups that are few in the table of subgroups, it may do worse than any
figure here says. False alarms cost needless examinations and missed findings cost time: which of
both is worse depends on the use, so thresholds have to be chosen for it."""

_METRICS = """\
AUROC and average precision rank records and need no threshold; precision, recall (sensitivity),
specificity and F1 are of the decisions. Brier score and expected calibration error say how far
probabilities can be taken at their word; lower is better. A score that a split cannot give is
`none`. Intervals are 95 %, from a bootstrap of patients: they tell how other test patients would
move the score, not how another training would."""

_EXAMPLE = """\
```python
from einthoven.prediction import load_best_model, predict_sample

trained = load_best_model("{path}")
# signal: (lead, sample) in millivolts; fs in hertz; one name per row.
answer = predict_sample(trained, signal, fs=500, leads=["I", "II", "V1"])
answer.probabilities, answer.decisions
```"""


def model_card(title: str, files: RunFiles, workspace: Workspace) -> str:
    """The model card as Markdown; whatever is not there yet is said to be missing."""
    path = workspace.best_model_path.relative_to(workspace.root).as_posix()
    sections = {
        "Model details": _details(files),
        "Intended use": [_USES],
        "Factors": _factors(files),
        "Metrics": [_METRICS, markdown_text(rule_sentence(files)), _calibration(files)],
        "Evaluation data": _evaluation_data(files),
        "Training data": _training_data(files),
        "Quantitative analyses": _analyses(files),
        "Ethical considerations": [_ETHICS],
        "Caveats and limitations": _limits(files),
        "How to use it": [_EXAMPLE.format(path=path)],
    }
    blocks = [f"# Model card: {markdown_text(title)}", f"**{DISCLAIMER}**",
              markdown_text(verdict_sentence(files))]  # fmt: skip
    for heading, parts in sections.items():
        blocks += [f"## {heading}", *(part for part in parts if part)]
    return "\n\n".join(blocks) + "\n"


def _details(files: RunFiles) -> list[str]:
    run = files.run or {}
    versions = ", ".join(f"{name} {value}" for name, value in (run.get("versions") or {}).items())
    settings = files.settings
    rate, samples = settings.get("target_fs"), settings.get("target_samples")
    task = "exactly one" if files.is_single else "any number"
    facts = {
        "Architecture": settings.get("model_name"),
        "Input": f"12 leads, {samples} samples at {rate} Hz" if rate and samples else None,
        "Output": f"{', '.join(files.labels)}; {task} per record" if files.labels else None,
        "Label set": settings.get("label_set"),
        "Made with": f"einthoven {__version__}"
        + (f" (trained with {versions})" if versions else ""),
        "Model file": f"digest {files.model_digest}",
        "Data fingerprint": run.get("data"),
        "Seed": settings.get("seed"),
        "Licence of the code": f"{CODE_LICENSE}; the archives have their own",
    }
    lines = [
        f"- {name}: {markdown_text(str(fact))}" for name, fact in facts.items() if fact is not None
    ]
    return ["\n".join(lines), markdown_text(training_sentence(files))]


def _factors(files: RunFiles) -> list[str]:
    text = (
        "Scores may differ by sex, age, archive, device or site, signal quality and the leads "
        "present. Where the table of subgroups below has enough positives, it compares each with "
        "the rest of the records."
    )
    return [text]


def _calibration(files: RunFiles) -> str:
    sentences = (calibration_sentence(files), conformal_sentence(files), views_sentence(files))
    return markdown_text(" ".join(filter(None, sentences))) if files.metrics else ""


def _evaluation_data(files: RunFiles) -> list[str]:
    texts = [headline_note(files), splits_sentence(files)]
    return [*map(markdown_text, texts), _table_or("", patient_table(files))]


def _training_data(files: RunFiles) -> list[str]:
    missing = "No archive has been read yet."
    return [
        markdown_text(store_sentence(files)),
        _table_or(missing, archive_table(files)),
        _table_or("", split_table(files)),
    ]


def _analyses(files: RunFiles) -> list[str]:
    if files.metrics is None:
        return [markdown_text(headline_note(files))]
    headline = ReportTable(
        ["headline", "value", "95 % interval"], [list(row) for row in headline_rows(files)]
    )
    compared, others = subgroup_tables(files)
    blocks = [f"**{DISCLAIMER}**"]
    for heading, table in {
        "Headline": headline if headline.rows else None,
        "By archive and split": archive_score_table(files),
        "On other records": evaluation_table(files),
        "By class": class_score_table(files),
        "Averages": average_table(files),
        "Calibration and thresholds": calibration_table(files),
        "Subgroups": compared,
        "Subgroups with too few records to compare": others,
        **{
            f"Cross-validation: {part.heading or part.folded}": part.table
            for part in crossval_parts(files)
        },
    }.items():
        if table is not None:
            blocks += [f"### {heading}", markdown_table(table)]
    if not files.metrics.get("subgroups"):
        blocks.append("Subgroups were not compared.")
    return blocks


def _limits(files: RunFiles) -> list[str]:
    found = [f"- {markdown_text(one.text)}" for one in report_warnings(files)]
    always = [
        "- One training with one seed: another seed moves the scores, too.",
        f"- {markdown_text(_told_archives(files))}",
    ]
    return ["\n".join([*found, *(always if files.metrics else [])])]


def _told_archives(files: RunFiles) -> str:
    """Whether the archives tested on are new to the model."""
    own = files.own
    new, elsewhere = listed(list(own.new_archives)), "other hospitals, recorders and populations"
    if not own.rows:
        return (
            "Whether test records come from archives that the model was trained on cannot be told; "
            f"{elsewhere} may score lower."
        )
    if not own.new_archives:
        return (
            f"Test records come from archives that the model was trained on; {elsewhere} will "
            "score lower as a rule."
        )
    if not own.seen_archives:
        return (
            f"Every test record is of an archive that is new to the model ({new}): thresholds and "
            f"calibration come from the others. Yet {elsewhere} may score lower still."
        )
    return (
        f"Test records come from archives that the model was trained on, but for those of {new}; "
        f"{elsewhere} will score lower as a rule."
    )


# Markdown --------------------------------------------------------------------------------------


def _table_or(missing: str, table: ReportTable | None) -> str:
    return missing if table is None else markdown_table(table)


def markdown_table(table: ReportTable) -> str:
    """A table, its footer rows last, its note below.

    >>> print(markdown_table(ReportTable(["a", "b"], [["x|y", "1"]])))
    | a | b |
    |---|---|
    | x\\|y | 1 |
    """
    lines = [_markdown_row(table.header), "|" + "---|" * len(table.header)]
    lines += [_markdown_row(row) for row in [*table.rows, *table.footer]]
    text = "\n".join(lines)
    return f"{text}\n\n{markdown_text(table.note)}" if table.note else text


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def markdown_text(text: str) -> str:
    """Text from files, so that Markdown takes none of it as markup; backticks stay ours.

    >>> markdown_text("<b> a|b *c*")
    '&lt;b&gt; a\\\\|b \\\\*c\\\\*'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\*|\[\]])", r"\\\1", " ".join(text.split()))
    # Within a word an underscore is no markup, and many names have one.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
