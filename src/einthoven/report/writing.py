"""``write_report``: one self-contained HTML page for a run, and its model card.

The page opens with the verdict and goes down to every detail. Everything on it is read from the
files of the workspace; what is not there yet is said to be missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from einthoven.console import log, progress
from einthoven.errors import DataError
from einthoven.files import Workspace, file_digest, stamp_step, step_changes, write_text
from einthoven.report.cautions import report_warnings
from einthoven.report.curves import chart_data, chart_markup, legend_rows
from einthoven.report.model_card import model_card
from einthoven.report.page import REPORT_STYLE, REPORT_TEMPLATE
from einthoven.report.parts import ReportSection, ReportTable
from einthoven.report.run_files import (
    RunFiles,
    crossval_paths,
    evaluation_paths,
    load_run_files,
)
from einthoven.report.script import REPORT_SCRIPT
from einthoven.report.sections import report_sections
from einthoven.report.verdict import glance_rows, headline_note, headline_rows, verdict_sentence
from einthoven.scopes import metrics_path, predictions_path
from einthoven.settings import Settings
from einthoven.version import DISCLAIMER, __version__

# Raised whenever a report would come out otherwise from the same files.
REPORT_VERSION = 3

# A cell of more letters than this is a sentence.
LONG_CELL = 30


def write_report(settings: Settings) -> Path:
    """Write the report and the model card of this workspace's run, unless they are up to date.

    Returns:
        Where the report lies; ``model_card.md`` lies beside it, but for a cross-validation, which
        has no model of its own.

    Raises:
        DataError: nothing has been done in this workspace, or a file is damaged.
    """
    workspace = settings.workspace
    check_something_to_report(workspace)
    inputs, stamp_path = _report_inputs(workspace), workspace.step_path("report")
    if _pages_are_there(workspace) and not step_changes(stamp_path, inputs):
        log.info("The report is up to date (%s)", workspace.report_path)
        return workspace.report_path
    files = load_run_files(workspace)
    makers = report_sections(files, workspace)
    sections = [make() for make in progress(makers, desc="Report", unit="sections")]
    title = _page_title(files, settings)
    if not files.is_crossval_alone:
        write_text(workspace.model_card_path, model_card(title, files, workspace))
    write_text(workspace.report_path, render_report(title, files, sections, datetime.now()))
    stamp_step(stamp_path, inputs)
    return workspace.report_path


def _pages_are_there(workspace: Workspace) -> bool:
    """Whether all is written that can be; a cross-validation has no model, so no card."""
    run_path = workspace.checkpoints_dir / "run.json"
    has_card = run_path.exists() or metrics_path(workspace).exists()
    needs_card = has_card or not crossval_paths(workspace)
    return workspace.report_path.exists() and (workspace.model_card_path.exists() or not needs_card)


def _page_title(files: RunFiles, settings: Settings) -> str:
    run_name = settings.workspace.run_name
    label_set = files.settings.get("label_set", settings.label_set)
    what = "ECG classifier"
    if files.is_crossval_alone:
        what, label_set = "Cross-validation", files.crossvals[0].get("label_set", label_set)
    return f"{what}, {label_set}" + (f", run {run_name}" if run_name else "")


def check_something_to_report(workspace: Workspace) -> None:
    """Refuse a folder in which nothing has been done.

    Raises:
        DataError: says what to run.
    """
    made = (
        workspace.mapping_path, workspace.manifest_path, metrics_path(workspace),
        workspace.checkpoints_dir / "run.json", workspace.best_model_path,
        *crossval_paths(workspace),
    )  # fmt: skip
    if not any(path.exists() for path in made):
        raise DataError(
            f"there is nothing to report in {workspace.root}: no archive has been read and no "
            "model trained; run `einthoven run` first, or name another folder with --root"
        )


def _report_inputs(workspace: Workspace) -> dict[str, Any]:
    """Everything that a report is made from."""
    paths = [
        workspace.mapping_path, workspace.mapping_path.with_name("label_coverage.csv"),
        workspace.manifest_path, workspace.rejected_path, workspace.splits_path,
        workspace.checkpoints_dir / "run.json", workspace.best_model_path,
        workspace.checkpoints_dir / "training_history.json", metrics_path(workspace),
        predictions_path(workspace), *sorted(workspace.figures_dir.glob("*.png")),
        *crossval_paths(workspace),
    ]  # fmt: skip
    digests = {path.name: file_digest(path) for path in paths}
    digests |= {path.parent.name: file_digest(path) for path in evaluation_paths(workspace)}
    return {"version": __version__, "version of the report": REPORT_VERSION, **digests}


def render_report(
    title: str, files: RunFiles, sections: Iterable[ReportSection], made: datetime
) -> str:
    """The page as HTML; everything from files is escaped."""
    sections = list(sections)
    environment = Environment(autoescape=True)
    environment.globals |= {
        "cell_class": _cell_class,
        "head_class": _head_class,
        "cell_text": _cell_text,
        "chart_markup": chart_markup,
        "legend_rows": legend_rows,
    }
    environment.filters["code"] = mark_code
    charts = {
        chart.id: chart_data(chart)
        for section in sections
        for part in section.parts
        for chart in part.charts
    }
    return environment.from_string(REPORT_TEMPLATE).render(
        title=title,
        style=Markup(REPORT_STYLE),
        script=Markup(REPORT_SCRIPT),
        script_digest=script_digest(REPORT_SCRIPT),
        chart_json=json_for_page({"charts": charts}),
        version=__version__,
        made=made.strftime("%Y-%m-%d %H:%M"),
        disclaimer=DISCLAIMER,
        verdict=verdict_sentence(files),
        headline=headline_rows(files),
        headline_note=headline_note(files),
        glance=glance_rows(files),
        cautions=report_warnings(files),
        sections=sections,
    )


def script_digest(script: str) -> str:
    """What a Content-Security-Policy names a script by, so that no other runs on the page."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def json_for_page(value: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element.

    >>> json_for_page({"name": "</script>"})
    Markup('{"name":"\\\\u003c/script\\\\u003e"}')
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def mark_code(text: str) -> Markup:
    """Text as HTML, what stands between backticks as code.

    >>> mark_code("run `einthoven label` & look")
    Markup('run <code>einthoven label</code> &amp; look')
    """
    return Markup(_CODE_PATTERN.sub(r"<code>\1</code>", str(escape(text))))


_CODE_PATTERN = re.compile(r"`([^`]+)`")
_NUMBER_PATTERN = re.compile(r"<?-?[\d,]+(\.\d+)?|none|–")
# A count with its share, a score with its interval, a difference with its interval.
_COUNT_PATTERN = re.compile(r"[\d,]+ \([\d.]+ %\)")
_SCORE_PATTERN = re.compile(r"([+−]?\d+\.\d+) \((\S+|\S+ to \S+)\)")


def _column_kind(table: ReportTable, column: int) -> str:
    """Numbers stand right, scores do not break within a line, sentences get room."""
    cells = [row[column] for row in table.rows if row[column]]
    if any(_SCORE_PATTERN.fullmatch(cell) for cell in cells):
        return "score"
    if cells and all(_NUMBER_PATTERN.fullmatch(c) or _COUNT_PATTERN.fullmatch(c) for c in cells):
        return "number"
    if any(len(cell) > LONG_CELL for cell in cells):
        return "long"
    return ""


def _cell_class(table: ReportTable, column: int) -> Markup:
    kind = _column_kind(table, column)
    return Markup(' class="{}"').format(kind) if kind else Markup("")


def _head_class(table: ReportTable, column: int) -> Markup:
    """Also tells the script whether to sort by number."""
    kind = _column_kind(table, column)
    sort = "number" if kind in ("number", "score") else "text"
    return Markup(' data-kind="{}"').format(sort) + _cell_class(table, column)


def _cell_text(cell: str) -> Markup | str:
    """A score's interval goes under its value."""
    score = _SCORE_PATTERN.fullmatch(cell)
    return Markup("{} <small>{}</small>").format(*score.groups()) if score else cell
