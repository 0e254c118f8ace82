"""The report: whole or partial runs give one page that asks for nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated_workspace import draw_coarsely, make_evaluated_workspace, make_workspace
from matplotlib.figure import Figure

from einthoven.errors import DataError
from einthoven.figures.ecg_paper import plot_ecg
from einthoven.files import read_json, write_json
from einthoven.records import LEADS
from einthoven.report.tables import load_run_files
from einthoven.report.verdict import report_warnings
from einthoven.report.writing import _example_part, mark_code, write_report
from einthoven.settings import Settings
from einthoven.store import open_store

LABELS = ("MI", "AF", "BBB", "NORM", "<b>OTHER</b>")
VOID = {"meta", "link", "img", "br", "hr"}


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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse_page(path: Path) -> tuple[str, PageParser]:
    page, parser = path.read_text(encoding="utf-8"), PageParser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return page, parser


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    archives = {"ptb-xl": 300, "sph": 40}
    settings = make_evaluated_workspace(
        root, LABELS, single=True, archives=archives, with_figures=True
    )
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        return write_report(settings)


def test_report_opens_with_verdict_scores_warnings_and_the_disclaimer(report_path: Path) -> None:
    page, parser = parse_page(report_path)
    header = page[page.index("<header") : page.index("</header>")]
    assert "trained on 272 records of 2 archives (ptb-xl, sph)" in header
    assert re.search(r"macro AUROC</dt><dd><div class=\"value\">0\.\d{3}</div>0\.\d+–[01]", header)
    assert "A small test split of 34 records" in header
    assert "1 record rejected; see Data." in header
    assert "Research software, not a medical device." in header
    assert {"data", "training", "scores", "examples", "settings", "files"} <= parser.ids


def test_report_asks_for_nothing_from_outside(report_path: Path) -> None:
    page, parser = parse_page(report_path)
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    assert "<script" not in page and "@import" not in page and "url(" not in page


def test_report_warns_of_a_model_no_better_than_chance(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 60})
    figure = {"value": 0.55, "low": 0.45, "high": 0.6, "n": 60}
    metrics = {
        "n": 60, "support": {}, "seed": 0, "resamples": 100,
        "headline": {"how": "", "n": 60, "n_patient_groups": 30, "left_out": {},
                     "auroc": {"macro": figure}},
    }  # fmt: skip
    write_json(settings.workspace.checkpoints_dir / "test_metrics.json", metrics)
    assert any(
        "better than chance" in w for w in report_warnings(load_run_files(settings.workspace))
    )


def test_report_embeds_every_figure(report_path: Path) -> None:
    _, parser = parse_page(report_path)
    pictures = [address for address in parser.addresses if address.startswith("data:image/png")]
    n_scores, n_training, n_examples = 4, 1, 2
    assert len(pictures) == n_scores + n_training + n_examples


def test_report_escapes_what_archives_and_labels_say(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert "<b>OTHER" not in page and "&lt;b&gt;OTHER" in page
    assert "&lt;no signal&gt;" in page
    assert "scp:&lt;i&gt;" in page


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
    assert write_report(settings).stat().st_mtime_ns > before


def test_report_says_where_settings_came_from(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    assert re.search(r"<td>label_set</td>\s*<td>five</td>\s*<td>flag</td>", page)


def test_an_empty_workspace_is_refused_with_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `einthoven run` first"):
        write_report(Settings(root=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_report_of_prepared_archives_says_what_is_missing(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 40})
    for path in settings.workspace.checkpoints_dir.iterdir():
        path.unlink()
    page, _ = parse_page(write_report(settings))
    assert "No model has been trained in this workspace yet." in page
    assert "Not evaluated yet: run <code>einthoven evaluate</code>." in page


def test_code_is_marked_and_the_rest_escaped() -> None:
    assert mark_code("a < b: `run <x>`") == "a &lt; b: <code>run &lt;x&gt;</code>"
    assert mark_code("one ` alone") == "one ` alone"


def test_report_says_which_archives_the_headline_is_of(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    header = page[page.index("<header") : page.index("</header>")]
    assert "Its headline scores are those of ptb-xl alone, without sph." in header
    assert "ptb-xl alone, the one archive with 20 test records or more" in header
    assert "Fewer than 20 test records, so not part of the headline: sph." in header
    assert page.count("–: fewer than 20 records") == 1


def test_a_test_split_of_few_records_shows_no_score(
    tmp_path: Path,
) -> None:
    settings = make_evaluated_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 60})
    page, _ = parse_page(write_report(settings))
    assert "The test split has 6 records: too few for a score that says anything." in page
    assert 'class="score' not in page


def test_only_labels_that_occur_together_have_thresholds(
    tmp_path: Path,
    report_path: Path,
) -> None:
    single, _ = parse_page(report_path)
    assert "likeliest class" in single and "hreshold" not in single
    settings = make_evaluated_workspace(tmp_path, LABELS, single=False, archives={"ptb-xl": 240})
    several, _ = parse_page(write_report(settings))
    assert ">threshold</th>" in several and '<td class="number">0.400</td>' in several


def test_a_single_lead_is_shown_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=True, archives={"ptb-xl": 20})
    store = open_store(settings.workspace)
    store.manifest["leads_present"] = "V1"
    shown = []

    def plot(signal: np.ndarray, fs: float, leads_present: object = None, **how: object) -> Figure:
        shown.append((signal, how["leads"]))
        return plot_ecg(signal, fs, leads_present, **how)

    monkeypatch.setattr("einthoven.report.writing.plot_ecg", plot)
    row = {"record": "ptb-xl/00003"}
    row |= {
        f"{kind}_{label}": 0 for kind in ("label", "decision", "probability") for label in LABELS
    }
    _example_part("An example", pd.Series(row), list(LABELS), store)
    ((signal, leads),) = shown
    assert leads == ["V1"] and signal.shape == (1, store.target_samples)
    window = store.windows(3)[0, LEADS.index("V1")]
    np.testing.assert_allclose(signal[0], window / 1000)


def test_words_of_the_page_are_the_words_of_the_tables(report_path: Path) -> None:
    page, _ = parse_page(report_path)
    text = re.sub(r"<style>.*?</style>|data:[^\"]+|<[^>]+>", " ", page, flags=re.DOTALL)
    assert "duplicates" in text and "`" not in text
    for word in ("copies", "could not be read", "decided from"):
        assert word not in text, word
    assert not re.search(r"\bval\b", text)


def test_report_of_a_trained_run_says_that_it_is_not_evaluated(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, LABELS, single=False, archives={"ptb-xl": 40})
    page, _ = parse_page(write_report(settings))
    assert "run <code>einthoven evaluate</code>" in page and "3 epochs in" in page


def test_report_notices_that_the_model_has_changed_since(
    tmp_path: Path,
) -> None:
    settings = make_evaluated_workspace(tmp_path, LABELS, single=False, archives={"ptb-xl": 60})
    settings.workspace.best_model_path.write_bytes(b"another model")
    page, _ = parse_page(write_report(settings))
    assert "The model file has changed since these scores" in page
    assert "The figure roc_curves is not there." in page


def test_a_run_whose_memory_ran_out_or_whose_steps_were_left_out_says_so(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, ("MI", "NORM"), single=True, archives={"ptb-xl": 40})
    path = settings.workspace.checkpoints_dir / "training_history.json"
    history = read_json(path)
    assert not [w for w in report_warnings(load_run_files(settings.workspace)) if "batches" in w]
    history[0] |= {"batch_size": 64, "skipped_steps": 2}
    history[1] |= {"batch_size": 16, "skipped_steps": 1}
    write_json(path, history)
    warnings = " ".join(report_warnings(load_run_files(settings.workspace)))
    assert "batches were cut from 64 to 16 records" in warnings
    assert "3 training steps left out" in warnings
