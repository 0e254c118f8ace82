"""``write_report``: one self-contained HTML page for a run.

It opens with the verdict and goes down to every detail. Everything on it is read from the files of
the workspace; what is not there yet is said to be missing.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from einthoven import __version__
from einthoven.console import log, progress
from einthoven.errors import DataError
from einthoven.evaluation import metrics_path, predictions_path
from einthoven.figures.curves import plot_training_curves
from einthoven.figures.ecg_paper import plot_ecg
from einthoven.figures.saving import FIGURE_DPI
from einthoven.files import Workspace, file_digest, stamp_step, step_changes, write_text
from einthoven.records import LEADS
from einthoven.report.page import REPORT_STYLE, REPORT_TEMPLATE
from einthoven.report.tables import (
    ReportTable,
    RunFiles,
    archive_score_table,
    archive_table,
    audit_table,
    class_score_table,
    facts_table,
    load_run_files,
    rejection_table,
    settings_tables,
    split_table,
    training_sentence,
    unmapped_table,
)
from einthoven.report.verdict import (
    headline_note,
    headline_rows,
    report_warnings,
    verdict_sentence,
)
from einthoven.settings import Settings
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, Store, open_store

SCORE_PICTURES = {
    "confusion_matrix": "What was decided for the records of each true class (test split).",
    "per_class_metrics": "Precision, recall and F1 of each class (test split).",
    "roc_curves": "ROC curves, each class against the rest (test split).",
    "precision_recall_curves": "Precision against recall of each class (test split).",
}

# So many pixels of the page show one inch of a figure.
PIXELS_PER_INCH = 82

# A cell of more letters than this is a sentence.
LONG_CELL = 30


@dataclass(frozen=True)
class Picture:
    """A PNG as base64, and what it shows.

    Attributes:
        width: pixels of the page where there is room.
        least_width: where there is less than this, it scrolls: its type would be too small.
    """

    data: str
    caption: str
    width: int
    least_width: int


@dataclass(frozen=True)
class ReportPart:
    """A piece of a section; ``folded`` is the line under which a long table hides."""

    heading: str = ""
    text: str = ""
    table: ReportTable | None = None
    picture: Picture | None = None
    folded: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of the page."""

    id: str
    title: str
    parts: list[ReportPart]


def write_report(settings: Settings) -> Path:
    """Write the report of this workspace's run, unless it is up to date; returns where it lies.

    Raises:
        DataError: nothing has been done in this workspace, or a file is damaged.
    """
    workspace = settings.workspace
    check_something_to_report(workspace)
    inputs, stamp_path = _report_inputs(workspace), workspace.step_path("report")
    if workspace.report_path.exists() and not step_changes(stamp_path, inputs):
        log.info("The report is up to date (%s)", workspace.report_path)
        return workspace.report_path
    files = load_run_files(workspace)
    makers: list[Callable[[], ReportSection]] = [
        lambda: _data_section(files),
        lambda: _training_section(files),
        lambda: _scores_section(files, workspace),
        lambda: _examples_section(files, workspace),
        lambda: _settings_section(files),
        lambda: _files_section(workspace),
    ]
    sections = [make() for make in progress(makers, desc="Report", unit="sections")]
    label_set = (files.run or {}).get("settings", {}).get("label_set", settings.label_set)
    name = f", run {workspace.run_name}" if workspace.run_name else ""
    page = render_report(f"ECG classifier, {label_set}{name}", files, sections, datetime.now())
    write_text(workspace.report_path, page)
    stamp_step(stamp_path, inputs)
    return workspace.report_path


def check_something_to_report(workspace: Workspace) -> None:
    """Refuse a folder in which nothing has been done.

    Raises:
        DataError: says what to run.
    """
    made = (
        workspace.mapping_path, workspace.manifest_path, metrics_path(workspace),
        workspace.checkpoints_dir / "run.json", workspace.best_model_path,
    )  # fmt: skip
    if not any(path.exists() for path in made):
        raise DataError(
            f"there is nothing to report in {workspace.root}: no archive has been read and no "
            "model trained; run `einthoven run` first, or name another folder with --root"
        )


def _report_inputs(workspace: Workspace) -> dict[str, str]:
    """Everything that a report is made from."""
    paths = [
        workspace.mapping_path, workspace.mapping_path.with_name("label_coverage.csv"),
        workspace.manifest_path, workspace.rejected_path, workspace.splits_path,
        workspace.checkpoints_dir / "run.json", workspace.best_model_path,
        workspace.checkpoints_dir / "training_history.json", metrics_path(workspace),
        predictions_path(workspace), *sorted(workspace.figures_dir.glob("*.png")),
    ]  # fmt: skip
    return {"version": __version__} | {path.name: file_digest(path) for path in paths}


def render_report(
    title: str, files: RunFiles, sections: Iterable[ReportSection], made: datetime
) -> str:
    """The page as HTML; everything from files is escaped."""
    environment = Environment(autoescape=True)
    environment.globals |= {"cell_class": _cell_class, "cell_text": _cell_text}
    environment.filters["code"] = mark_code
    return environment.from_string(REPORT_TEMPLATE).render(
        title=title,
        style=Markup(REPORT_STYLE),
        version=__version__,
        made=made.strftime("%Y-%m-%d %H:%M"),
        verdict=verdict_sentence(files),
        headline=headline_rows(files),
        headline_note=headline_note(files),
        warnings=report_warnings(files),
        sections=list(sections),
    )


def mark_code(text: str) -> Markup:
    """Text as HTML, what stands between backticks as code.

    >>> mark_code("run `einthoven label` & look")
    Markup('run <code>einthoven label</code> &amp; look')
    """
    return Markup(_CODE_PATTERN.sub(r"<code>\1</code>", str(escape(text))))


_CODE_PATTERN = re.compile(r"`([^`]+)`")
_NUMBER_PATTERN = re.compile(r"-?[\d,]+(\.\d+)?")
_SCORE_PATTERN = re.compile(r"(\d\.\d+) \((\S+)\)")


def _cell_class(table: ReportTable, column: int) -> Markup:
    """Numbers stand right, scores do not break within a line, sentences get room."""
    cells = [row[column] for row in table.rows if row[column]]
    if cells and all(_NUMBER_PATTERN.fullmatch(cell) for cell in cells):
        return Markup(' class="number"')
    if any(_SCORE_PATTERN.fullmatch(cell) for cell in cells):
        return Markup(' class="score"')
    if any(len(cell) > LONG_CELL for cell in cells):
        return Markup(' class="long"')
    return Markup("")


def _cell_text(cell: str) -> Markup | str:
    """A score's interval goes under its value."""
    score = _SCORE_PATTERN.fullmatch(cell)
    return Markup("{} <small>{}</small>").format(*score.groups()) if score else cell


# Sections --------------------------------------------------------------------------------------


def _data_section(files: RunFiles) -> ReportSection:
    archives = archive_table(files)
    missing = "" if archives else "No archive has been read yet: run `einthoven label`."
    tables = {
        "Rejected records": rejection_table(files),
        "Codes that are no label of this set": unmapped_table(files),
        "Splits": split_table(files),
        "Duplicates": audit_table(files),
    }
    parts = [
        ReportPart("Archives", missing, archives),
        *_tables_if_there(tables),
    ]
    return ReportSection("data", "Data", parts)


def _tables_if_there(tables: dict[str, ReportTable | None]) -> list[ReportPart]:
    return [ReportPart(heading, table=table) for heading, table in tables.items() if table]


def _training_section(files: RunFiles) -> ReportSection:
    parts = [ReportPart(text=training_sentence(files))]
    if files.history:
        best_metric = (files.run or {}).get("settings", {}).get("best_metric", "f1")
        figure = plot_training_curves(files.history, best_metric)
        picture = picture_of(figure, "The training, by epoch.")
        parts.append(ReportPart(picture=picture))
    return ReportSection("training", "Training", parts)


def _scores_section(files: RunFiles, workspace: Workspace) -> ReportSection:
    by_archive, by_class = archive_score_table(files), class_score_table(files)
    if by_archive is None or by_class is None:
        part = ReportPart(text="Not evaluated yet: run `einthoven evaluate`.")
        return ReportSection("scores", "Scores", [part])
    parts = [ReportPart("By archive", table=by_archive), ReportPart("By class", table=by_class)]
    for name, caption in SCORE_PICTURES.items():
        path = newest_figure(workspace.figures_dir, name)
        if path is None:
            parts.append(ReportPart(text=f"The figure {name} is not there."))
        else:
            parts.append(ReportPart(picture=embed_picture(path.read_bytes(), caption)))
    return ReportSection("scores", "Scores", parts)


def newest_figure(figures_dir: Path, name: str) -> Path | None:
    """The latest figure of a name; the stamps in file names sort by time."""
    found = [path for path in figures_dir.glob(f"{name}_*.png") if path.is_file()]
    return max(found, key=lambda path: path.name, default=None)


def _settings_section(files: RunFiles) -> ReportSection:
    tables, facts = settings_tables(files), facts_table(files)
    if tables is None or facts is None:
        part = ReportPart(text="Nothing has been trained, so no settings are recorded.")
        return ReportSection("settings", "Settings and machine", [part])
    chosen, default = tables
    text = "" if chosen.rows else "Every setting was left at its default."
    parts = [
        ReportPart("Chosen", text, chosen if chosen.rows else None),
        ReportPart(table=default, folded=f"{len(default.rows)} settings at their defaults"),
        ReportPart("Versions and hardware", table=facts),
    ]
    return ReportSection("settings", "Settings and machine", parts)


def _files_section(workspace: Workspace) -> ReportSection:
    paths = [workspace.mapping_path]
    for folder in (workspace.processed_dir, workspace.checkpoints_dir, workspace.figures_dir):
        paths += [path for path in sorted(folder.glob("*")) if path.is_file()]
    rows = [
        [path.relative_to(workspace.root).as_posix(), f"{path.stat().st_size / 1024:,.0f}"]
        for path in paths
        if path.exists() and not path.name.startswith(".")
    ]
    table = ReportTable(["file", "KiB"], rows)
    return ReportSection("files", "Files", [ReportPart(table=table, folded=f"{len(rows)} files")])


# Examples --------------------------------------------------------------------------------------


def _examples_section(files: RunFiles, workspace: Workspace) -> ReportSection:
    if files.predictions is None or files.metrics is None:
        parts = [ReportPart(text="Shown once the model has been evaluated.")]
        return ReportSection("examples", "Examples", parts)
    test = files.predictions[files.predictions["split"] == "test"].reset_index(drop=True)
    labels = files.metrics["labels"]
    try:
        store = open_store(workspace)
        parts = [
            _example_part(title, test.iloc[row], labels, store)
            for title, row in choose_examples(test, labels).items()
        ]
    except (DataError, KeyError) as error:
        parts = [ReportPart(text=f"The store cannot be read, so no record is shown: {error}")]
    return ReportSection("examples", "Examples", parts)


def choose_examples(test: pd.DataFrame, labels: list[str]) -> dict[str, int]:
    """Rows of the most confident right decision and of the most confident error, if any.

    Confidence is the probability of the least certain true label; an error's, that of its most
    certain wrong one.
    """
    truth = test[[f"label_{label}" for label in labels]].to_numpy() > 0
    decided = test[[f"decision_{label}" for label in labels]].to_numpy() > 0
    probability = test[[f"probability_{label}" for label in labels]].to_numpy()
    is_right = (truth == decided).all(axis=1)
    wrong_calls = decided & ~truth
    right = np.where(is_right, np.where(truth, probability, 1).min(axis=1), -1)
    wrong = np.where(wrong_calls.any(axis=1), np.where(wrong_calls, probability, 0).max(axis=1), -1)
    examples = {
        "A confident, right decision": right,
        "The most confident error": wrong,
    }
    return {
        title: int(np.argmax(scores))
        for title, scores in examples.items()
        if len(scores) and scores.max() >= 0
    }


def _example_part(title: str, row: pd.Series, labels: list[str], store: Store) -> ReportPart:
    index = int(pd.Index(store.manifest["record"]).get_loc(row["record"]))
    record = store.manifest.iloc[index]
    n_samples = min(int(record["n_samples"]), store.target_samples)
    signal = store.windows(index)[0, :, :n_samples] / MICROVOLTS_PER_MILLIVOLT
    true = ", ".join(label for label in labels if row[f"label_{label}"])
    decided = ", ".join(
        f"{label} ({row[f'probability_{label}']:.2f})"
        for label in labels
        if row[f"decision_{label}"]
    )
    text = f"{row['record']}: true {true}; decided {decided or 'none'}."
    leads = str(record["leads_present"]).split(",")
    if len(leads) == 1 and leads[0] in LEADS:
        # A sheet of twelve would be empty but for one corner.
        signal = signal[[LEADS.index(leads[0])]]
        figure = plot_ecg(signal, store.target_fs, title=row["record"], leads=leads)
    else:
        figure = plot_ecg(signal, store.target_fs, leads, row["record"])
    return ReportPart(title, picture=picture_of(figure, text))


def picture_of(figure: Figure, caption: str, dpi: int = FIGURE_DPI) -> Picture:
    """A figure as a PNG inside the page."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return embed_picture(buffer.getvalue(), caption)


def embed_picture(png: bytes, caption: str, dpi: int = FIGURE_DPI) -> Picture:
    """A PNG for the page, at a size at which its smallest type can be read."""
    # The width is the first field of a PNG's first chunk.
    width = int.from_bytes(png[16:20], "big") / dpi * PIXELS_PER_INCH
    encoded = base64.b64encode(png).decode()
    return Picture(encoded, caption, round(width), round(0.88 * width))
