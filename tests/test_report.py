"""The report: whole or partial runs give one page that asks for nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluated_workspace import draw_coarsely, make_evaluated_workspace, make_workspace
from report_workspace import FIVE, MANY, make_reported_workspace

from einthoven.errors import DataError
from einthoven.examples import ConfidentError, choose_confident_errors
from einthoven.files import read_json, write_json
from einthoven.report.cautions import CAUTION_ORDER, report_warnings
from einthoven.report.curves import axis_step, class_charts, thin_points
from einthoven.report.gallery import draw_error
from einthoven.report.parts import ReportTable, figure_cell, figure_in
from einthoven.report.run_files import load_run_files
from einthoven.report.run_tables import file_meaning
from einthoven.report.script import REPORT_SCRIPT
from einthoven.report.verdict import glance_rows
from einthoven.report.writing import mark_code, script_digest, write_report
from einthoven.settings import Settings
from einthoven.store import open_store

LABELS = ("MI", "AF", "BBB", "NORM", "<b>OTHER</b>")
VOID = {"meta", "link", "img", "br", "hr"}
SECTIONS = {
    "verdict", "scores", "calibration", "subgroups", "errors", "data", "training", "settings",
    "files",
}  # fmt: skip


class PageParser(HTMLParser):
    """Collects addresses and ids; tags must close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[key] or "" for key in ("src", "href") if key in values]
        self.ids |= {values["id"] or ""} if "id" in values else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A part of an SVG that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse_page(path: Path) -> tuple[str, PageParser]:
    page, parser = path.read_text(encoding="utf-8"), PageParser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return page, parser


def header_of(page: str) -> str:
    return page[page.index("<header") : page.index("</header>")]


def text_of(page: str) -> str:
    return re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)


def report_of(settings: Settings) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        return write_report(settings)


def warnings_of(settings: Settings) -> str:
    return "\n".join(one.text for one in report_warnings(load_run_files(settings.workspace)))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run over two archives with one label per record."""
    root = tmp_path_factory.mktemp("report")
    settings = make_reported_workspace(root, FIVE, single=True)
    report_of(settings)
    return settings


@pytest.fixture(scope="module")
def report_path(reported: Settings) -> Path:
    return reported.workspace.report_path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run with 26 labels, of which a record may have several."""
    root = tmp_path_factory.mktemp("many")
    settings = make_reported_workspace(root, MANY, single=False)
    report_of(settings)
    return settings


# The verdict -----------------------------------------------------------------------------------


def test_report_opens_with_verdict_scores_warnings_and_the_disclaimer(report_path: Path) -> None:
    page, parser = parse_page(report_path)
    header = header_of(page)
    assert "trained on 2,000 records of 2 archives (ptb-xl, sph)" in header
    assert re.search(r"macro AUROC</dt><dd><div class=\"value\">0\.\d{3}</div>0\.\d+–[01]", header)
    assert "250 records of 125 patients" in header
    assert "1 record rejected; see Data." in header
    assert header.index("Research software, not a medical device.") < header.index("<h1>")
    assert parser.ids >= SECTIONS


def test_the_first_look_says_who_was_scored_and_where_it_is_weak(reported: Settings) -> None:
    rows = dict(glance_rows(load_run_files(reported.workspace)))
    assert rows["Trained on"] == "2,000 records of 1,000 patients (ptb-xl 1,600, sph 400)"
    assert rows["Scored on"].endswith("(ptb-xl 200, sph 50); no patient trained on")
    assert "AUROC" in rows["Weakest"] and "sex: female" in rows["Subgroups"]


def test_report_warns_of_what_a_reviewer_would_ask(reported: Settings) -> None:
    text = warnings_of(reported)
    assert "Worse than on the rest of the records: sex: female (macro AUROC 0." in text
    assert "calibrated with the pool: <script>alert(1)</script>." in text


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"n_trained_on": 7}, "7 of the 250 scored records are of patients that the model was"),
        ({"calibration": {"method": "none", "reason": "too few"}}, "Not calibrated (too few)"),
        ({"model": "another"}, "The model file has changed since these scores"),
        ({"support": {"MI": 0, "AF": 5}}, "Absent from the test split, so without any score: MI"),
        ({"n": 40}, "Only 40 records scored (test split): look at the intervals"),
        ({"headline": {"auroc": {"macro": {"value": 0.55, "low": 0.45}}}}, "better than chance"),
    ],
)
def test_report_warns_of_scores_that_flatter_or_say_little(
    reported: Settings, change: dict[str, Any], warning: str
) -> None:
    path = reported.workspace.checkpoints_dir / "test_metrics.json"
    before = path.read_text(encoding="utf-8")
    try:
        write_json(path, read_json(path) | change)
        assert warning in warnings_of(reported)
        found = report_warnings(load_run_files(reported.workspace))
    finally:
        path.write_text(before, encoding="utf-8")
    levels = [CAUTION_ORDER.index(one.level) for one in found]
    assert levels == sorted(levels)


def test_a_run_whose_memory_ran_out_or_whose_steps_were_left_out_says_so(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, ("MI", "NORM"), single=True, archives={"ptb-xl": 40})
    path = settings.workspace.checkpoints_dir / "training_history.json"
    history = read_json(path)
    assert "batches" not in warnings_of(settings)
    history[0] |= {"batch_size": 64, "skipped_steps": 2}
    history[1] |= {"batch_size": 16, "skipped_steps": 1}
    write_json(path, history)
    assert "batches were cut from 64 to 16 records" in warnings_of(settings)
    assert "3 training steps left out" in warnings_of(settings)


# Nothing from outside, nothing unescaped -------------------------------------------------------


def test_report_asks_for_nothing_from_outside(report_path: Path) -> None:
    page, parser = parse_page(report_path)
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    assert "@import" not in page and "url(" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{script_digest(REPORT_SCRIPT)}'" in policy[1]


def test_the_script_evaluates_nothing_and_sets_no_markup() -> None:
    for word in ("eval(", "Function(", "innerHTML", "document.write", "fetch(", "import("):
        assert word not in REPORT_SCRIPT


def test_report_escapes_what_archives_and_labels_say(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "&lt;no signal&gt;" in page and "scp:&lt;i&gt;" in page
    data = re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)
    assert data and FIVE[-1] in [s["name"] for s in json.loads(data[1])["charts"]["roc"]["series"]]


def test_code_is_marked_and_the_rest_escaped() -> None:
    assert mark_code("a < b: `run <x>`") == "a &lt; b: <code>run &lt;x&gt;</code>"
    assert mark_code("one ` alone") == "one ` alone"


def test_words_of_the_page_are_the_words_of_the_tables(report_path: Path) -> None:
    text = text_of(parse_page(report_path)[0])
    assert "duplicates" in text and "`" not in text
    for word in ("copies", "could not be read", "decided from", "nan", "NaN", "None"):
        assert not re.search(rf"\b{word}\b", text), word
    assert not re.search(r"\bval\b", text)


# Details ---------------------------------------------------------------------------------------


def test_report_embeds_every_figure(many: Settings) -> None:
    _, parser = parse_page(many.workspace.report_path)
    pictures = [address for address in parser.addresses if address.startswith("data:image/png")]
    names = {re.sub(r"_\d+-\d+\.png", "", p.name) for p in many.workspace.figures_dir.glob("*.png")}
    # The training is drawn as lines, not as the picture that evaluation leaves.
    assert "reliability_diagrams" in names and "subgroup_forest" in names
    assert len(pictures) == len(names - {"training_curves"}) + 8


def test_classes_show_every_score_with_its_threshold(many: Settings) -> None:
    page, _ = parse_page(many.workspace.report_path)
    table = page[page.index("By class") : page.index("By archive and split")]
    heads = re.findall(r"<th [^>]*>([^<]+)</th>", table)
    assert heads == ["class", "positives", "AUROC", "AP", "sensitivity (recall)", "specificity",
                     "precision (PPV)", "F1", "Brier", "ECE", "threshold"]  # fmt: skip
    assert table.count("<tr") == 1 + len(MANY)
    assert '<td class="number">0.400</td>' in table and "class absent from the split" in table


def test_single_labels_have_a_confusion_matrix_and_no_threshold(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert "its likeliest class" in page and ">threshold</th>" not in page
    assert "Rows: true class; columns: what was decided." in page


def test_what_was_calibrated_how_and_by_which_rule_is_told(many: Settings) -> None:
    page, _ = parse_page(many.workspace.report_path)
    assert "Platt scaling" in page and "Fitted on 120 records of 60 patients" in page
    assert "or no clear slope, so calibrated with the pool: class Z." in page
    assert "fitted to means over the same views of each record" in page
    assert "Rule <code>best_f1</code>: thresholds give the best F1" in page
    assert "each label is in the set of 90 % of the records that have it." in page
    assert "means over these views of it: plain, shift start, shift end." in page


def test_worse_subgroups_are_flagged_and_small_ones_set_aside(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert re.search(r'<tr class="flagged">\s*<td[^>]*>sex: female</td>', page)
    assert "subgroups with too few records to compare" in page


def test_data_card_counts_people_quality_and_rejections(report_path: Path) -> None:
    text = re.sub(r"\s+", " ", text_of(parse_page(report_path)[0]))
    assert re.search(r"all 2,501 2,500 1 2,500 0 1,250", text)
    assert re.search(r"age \d\d \(\d\d–\d\d\)", text)
    assert re.search(r"female \d+ \(4\d\.\d %\)", text)
    assert "a lead that holds a constant for most of the record" in text
    assert "sph &lt;no signal&gt; 1 A9" in text


def test_report_says_where_settings_came_from(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert re.search(r"<td>label_set</td>\s*<td>five</td>\s*<td>flag</td>", page)


def test_every_file_of_a_workspace_is_explained(many: Settings) -> None:
    folder = many.workspace.checkpoints_dir
    paths = [*folder.glob("[!.]*"), *many.workspace.figures_dir.glob("*.png")]
    names = [path.name for path in paths]
    assert [name for name in names if not file_meaning(name)] == []
    assert "figure" not in {file_meaning(name) for name in names}


def test_a_split_of_few_records_shows_no_score(tmp_path: Path) -> None:
    settings = make_evaluated_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 60})
    page, _ = parse_page(report_of(settings))
    assert "The test split has 6 records: too few for a score that says anything." in page
    assert page.count("–: fewer than 20 records") == 1
    by_class = page[page.index("By class") : page.index("By archive and split")]
    assert 'class="score' not in by_class


def test_report_says_which_archives_the_headline_is_of(tmp_path: Path) -> None:
    archives = {"ptb-xl": 300, "sph": 40}
    settings = make_evaluated_workspace(tmp_path, LABELS, single=True, archives=archives)
    header = header_of(parse_page(report_of(settings))[0])
    assert "Its headline scores are those of ptb-xl alone, without sph." in header
    assert "ptb-xl alone, the one archive with 20 test records or more" in header
    assert "Fewer than 20 test records, so not part of the headline: sph." in header


def test_scores_on_other_records_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    settings = make_evaluated_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 240})
    folder = settings.workspace.checkpoints_dir
    elsewhere = read_json(folder / "test_metrics.json")
    elsewhere |= {"records": {"external": "Clinic"}, "n_trained_on": 3}
    write_json(folder / "evaluations/external_Clinic/metrics.json", elsewhere)
    write_json(folder / "evaluations/fold_3/metrics.json", elsewhere | {"model": "another"})
    text = text_of(parse_page(report_of(settings))[0])
    assert "external, Clinic (external_Clinic)" in text and "(fold_3)" not in text
    card = settings.workspace.model_card_path.read_text(encoding="utf-8")
    assert "### On other records" in card


# Whatever is missing ---------------------------------------------------------------------------


def test_an_empty_workspace_is_refused_with_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `einthoven run` first"):
        write_report(Settings(root=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["labelled", "prepared", "trained"])
def test_a_partial_workspace_gives_a_partial_page(tmp_path: Path, kept: str) -> None:
    settings = make_workspace(tmp_path, LABELS, single=False, archives={"ptb-xl": 40})
    workspace = settings.workspace
    if kept != "trained":
        for path in workspace.checkpoints_dir.iterdir():
            path.unlink()
    if kept == "labelled":
        for path in (workspace.manifest_path, workspace.rejected_path, workspace.splits_path):
            path.unlink()
    page, parser = parse_page(write_report(settings))
    assert parser.ids >= SECTIONS
    assert "Not evaluated yet: run <code>einthoven evaluate</code>." in page
    assert ("No model has been trained" in page) == (kept != "trained")
    assert ("3 epochs in" in page) == (kept == "trained")


@pytest.mark.parametrize(
    "gone",
    ["headline", "archives", "validation", "subgroups", "calibration", "thresholds", "confusion",
     "uncalibrated", "conformal", "support", "auroc", "n", "records"],
)  # fmt: skip
def test_a_page_is_made_whatever_the_scores_lack(many: Settings, tmp_path: Path, gone: str) -> None:
    files = load_run_files(many.workspace)
    assert files.metrics is not None
    for value in ("absent", None):
        metrics = {k: v for k, v in files.metrics.items() if k != gone}
        metrics |= {} if value == "absent" else {gone: None}
        write_json(tmp_path / "artifacts/processed/checkpoints/test_metrics.json", metrics)
        page, parser = parse_page(write_report(Settings(root=tmp_path)))
        assert parser.ids >= SECTIONS and "By class" in page


def test_report_shows_pictures_where_predictions_are_gone(many: Settings, tmp_path: Path) -> None:
    source, there = many.workspace, Settings(root=tmp_path).workspace
    write_json(there.checkpoints_dir / "test_metrics.json",
               read_json(source.checkpoints_dir / "test_metrics.json"))  # fmt: skip
    there.figures_dir.mkdir(parents=True)
    for path in source.figures_dir.glob("roc_curves_*.png"):
        (there.figures_dir / path.name).write_bytes(path.read_bytes())
    page, _ = parse_page(write_report(Settings(root=tmp_path)))
    assert "ROC curves, each class against the rest." in page and 'data-chart="roc"' not in page


def test_report_reads_a_mapping_that_a_spreadsheet_has_saved(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 40})
    path = settings.workspace.mapping_path
    text = path.read_text(encoding="utf-8").replace(",", ";").replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-16"))
    files = load_run_files(settings.workspace)
    assert files.mapping is not None
    assert files.mapping["archive"].value_counts().to_dict() == {"ptb-xl": 40, "sph": 1}


def test_report_is_written_again_only_when_something_has_changed(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 40})
    before = write_report(settings).stat().st_mtime_ns
    assert write_report(settings).stat().st_mtime_ns == before
    write_json(settings.workspace.checkpoints_dir / "training_history.json", [])
    changed = write_report(settings).stat().st_mtime_ns
    assert changed > before
    settings.workspace.model_card_path.unlink()
    assert write_report(settings).stat().st_mtime_ns > changed
    assert settings.workspace.model_card_path.exists()


# Curves ----------------------------------------------------------------------------------------


def test_thinned_curve_keeps_its_ends_and_corners() -> None:
    x, y = np.r_[np.arange(500), np.full(500, 499)], np.r_[np.zeros(500), np.arange(1, 501)]
    kept = thin_points(x, y, 50)
    assert len(kept) <= 50 and kept[0] == 0 and kept[-1] == 999 and 499 in kept
    rng = np.random.default_rng(0)
    rough = thin_points(np.sort(rng.random(5000)), np.sort(rng.random(5000)), 200)
    assert len(rough) <= 200 and rough[0] == 0 and rough[-1] == 4999


def test_curves_name_scores_and_thresholds_and_leave_out_absent_classes() -> None:
    test = pd.DataFrame({
        "label_a": [0, 0, 1, 1], "probability_a": [0.1, 0.4, 0.35, 0.8],
        "label_b": [0, 0, 0, 0], "probability_b": [0.1, 0.2, 0.3, 0.4],
    })  # fmt: skip
    roc, recall = class_charts(test, ["a", "b"])
    (line,) = roc.series
    assert (line.name, line.note) == ("a", "0.750") and recall.series[0].note == "0.833"
    assert list(line.x) == [0, 0, 0.5, 0.5, 1] and list(line.y) == [0, 0.5, 0.5, 1, 1]
    assert list(line.at)[:2] == ["nothing called", "threshold 0.800"]


def test_many_classes_light_up_the_weakest_that_have_enough_positives(many: Settings) -> None:
    files = load_run_files(many.workspace)
    assert files.predictions is not None and files.metrics is not None
    test = files.predictions.query("split == 'test'")
    roc, _ = class_charts(test, list(MANY))
    lit = [roc.series[k].name for k in roc.lit]
    assert len(lit) == 4 and all(files.metrics["support"][name] >= 20 for name in lit)


@pytest.mark.parametrize("span", [1e-4, 0.03, 1.0, 7.0, 33.0, 4000.0])
def test_an_axis_has_four_to_ten_ticks(span: float) -> None:
    assert 2.4 <= span / axis_step(span) <= 10


def test_a_missing_figure_is_a_dash_and_a_missing_value_none() -> None:
    assert figure_cell(figure_in({"auroc": {}}, "auroc", "macro")) == "–"
    assert figure_cell({"value": None, "reason": "class absent"}) == "none"
    assert figure_cell({"value": 0.5}) == "0.500"


# Errors ----------------------------------------------------------------------------------------


def confident_test() -> pd.DataFrame:
    """Six records of two labels: false alarms of a at 0.9, 0.8, 0.7; one of b; two missed."""
    return pd.DataFrame({
        "record": [f"r/{k}" for k in range(6)],
        "label_a": [0, 0, 0, 0, 1, 1], "decision_a": [1, 1, 1, 0, 0, 1],
        "probability_a": [0.9, 0.8, 0.7, 0.1, 0.05, 0.99],
        "label_b": [0, 0, 0, 0, 0, 1], "decision_b": [0, 0, 0, 1, 0, 0],
        "probability_b": [0.0, 0.0, 0.0, 0.6, 0.0, 0.3],
    })  # fmt: skip


def test_confident_errors_take_turns_and_spread_over_classes() -> None:
    found = choose_confident_errors(confident_test(), ["a", "b"])
    told = [(one.record, one.label, one.is_false_alarm) for one in found]
    assert told == [
        ("r/0", "a", True), ("r/4", "a", False), ("r/3", "b", True), ("r/5", "b", False),
        ("r/1", "a", True), ("r/2", "a", True),
    ]  # fmt: skip
    assert choose_confident_errors(confident_test(), ["a", "b"], most=3) == found[:3]


def test_a_model_without_errors_has_none_to_show() -> None:
    test = confident_test()
    for label in "ab":
        test[f"decision_{label}"] = test[f"label_{label}"]
    assert choose_confident_errors(test, ["a", "b"]) == []
    assert choose_confident_errors(test.head(0), ["a", "b"]) == []


def test_an_error_whose_record_is_not_in_the_store_is_told(many: Settings) -> None:
    error = ConfidentError(0, "elsewhere/1", "class A", False, 0.01)
    files = load_run_files(many.workspace)
    part = draw_error(error, files, pd.DataFrame(), open_store(many.workspace))
    assert part.picture is None and "not in this store" in part.text


# The model card --------------------------------------------------------------------------------


def test_model_card_has_the_sections_of_its_paper_and_the_same_facts(reported: Settings) -> None:
    card = reported.workspace.model_card_path.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert sections == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and limitations",
        "How to use it",
    ]  # fmt: skip
    assert "**Research software, not a medical device.**" in card
    headline = read_json(reported.workspace.checkpoints_dir / "test_metrics.json")["headline"]
    assert f"| macro AUROC | {headline['auroc']['macro']['value']:.3f} |" in card
    assert "- Worse than on the rest of the records: sex: female" in card
    assert 'load_best_model("artifacts/processed/checkpoints/best_model.pth")' in card


def test_nothing_from_files_is_markup_in_the_model_card(reported: Settings) -> None:
    card = reported.workspace.model_card_path.read_text(encoding="utf-8")
    assert "<script>" not in card and "&lt;script&gt;alert(1)&lt;/script&gt;" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) > 30 and "None" not in card and "nan" not in card


def test_tables_of_one_kind_of_row_can_be_sorted_and_others_not(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    by_class = page[page.index("By class") :]
    people = page[page.index("Patients in each split") :]
    assert by_class.index('<table class="sortable">') < by_class.index("<thead>")
    assert "sortable" not in people[: people.index("<thead>")]
    assert ReportTable(["a"], [["1"]]).is_list is False
