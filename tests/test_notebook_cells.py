"""What the notebook's own cells do, each by itself; the times that it tells."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from stores import write_tiny_store

from einthoven import store as store_module
from einthoven.configuration import LoadedSettings
from einthoven.errors import DataError
from einthoven.figures.ecg_paper import plot_ecg
from einthoven.figures.saving import write_figure
from einthoven.files import digest, read_json
from einthoven.preflight.checks import format_checks, worst_verdict
from einthoven.preflight.opened import Check
from einthoven.records import LEADS
from einthoven.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOK = PROJECT / "notebooks" / "master_pipeline.ipynb"


@pytest.fixture(scope="module")
def run_times():
    sys.path.insert(0, str(PROJECT / "tools"))
    try:
        return importlib.import_module("run_times")
    finally:
        sys.path.remove(str(PROJECT / "tools"))


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, 4).cells


def functions_of(cells, word, **given):
    """What the cell defines that holds this word, among these globals."""
    (source,) = [c.source for c in cells if c.cell_type == "code" and word in c.source]
    namespace = dict(given)
    exec(source, namespace)
    return namespace


@pytest.fixture
def running(cells, tmp_path):
    """The cell that runs a mode, where everything that it calls notes that it was called."""
    called = []

    def noting(name):
        return lambda wanted, *_: called.append((name, wanted.run_mode))

    given = {name: noting(name) for name in ("refuse_other_run", "run_mode", "write_report")}
    settings = Settings(root=tmp_path, run_mode="smoke")
    loaded = LoadedSettings(settings, {"run_mode": "default", "epochs": "environment"})
    stops = noting("stop_where_checks_fail")
    cell = functions_of(
        cells, "def run_and_show(", settings=settings, loaded=loaded, stop_where_checks_fail=stops,
        **given,
    )  # fmt: skip
    cell["show_figures"] = noting("show_figures")
    cell["called"] = called
    return cell


def test_a_mode_that_is_run_by_hand_is_what_later_cells_show(running):
    assert running["shown_run"].run_mode == "smoke"
    running["run_and_show"]("full")
    assert running["shown_run"].run_mode == "full"
    assert running["settings"].run_mode == "smoke"


def test_a_mode_that_is_run_by_hand_is_checked_before(running):
    running["run_and_show"]("full")
    assert running["called"] == [
        (name, "full")
        for name in ("refuse_other_run", "stop_where_checks_fail", "run_mode", "write_report",
                     "show_figures")
    ]  # fmt: skip


def test_a_mode_that_the_check_stops_is_not_run(running):
    def stop(wanted):
        raise DataError("the pre-flight check failed")

    running["stop_where_checks_fail"] = stop
    with pytest.raises(DataError):
        running["run_and_show"]("full")
    assert running["called"] == [("refuse_other_run", "full")]
    assert running["shown_run"].run_mode == "smoke"


def test_what_stands_after_the_runs_shows_the_run_that_came_last(cells):
    sources = [c.source for c in cells if c.cell_type == "code"]
    full = next(i for i, s in enumerate(sources) if '\n# run_and_show("full")' in s)
    after = "\n".join(sources[full + 1 :])
    used = {node.id for node in ast.walk(ast.parse(after)) if isinstance(node, ast.Name)}
    assert "shown_run" in used
    assert re.findall(r"\bsettings\.(\w+)", after) == ["dry_run"]
    assert not re.search(r"\bsettings\b(?!\.)", re.sub(r'".*?"|#.*', "", after))


@pytest.mark.parametrize(
    ("verdict", "mode", "stops"),
    [("failed", "full", True), ("failed", "smoke", False), ("warning", "full", False)],
)
def test_a_failed_check_stops_all_but_a_smoke_run(cells, verdict, mode, stops, capsys):
    checks = [Check("store", "passed", "there"), Check("disk", verdict, "small", "make room")]
    cell = functions_of(
        cells, "def stop_where_checks_fail(", run_preflight_checks=lambda wanted: checks,
        format_checks=format_checks, worst_verdict=worst_verdict, DataError=DataError,
    )  # fmt: skip
    with pytest.raises(DataError) if stops else nullcontext():
        cell["stop_where_checks_fail"](Settings(run_mode=mode))
    assert "make room" in capsys.readouterr().out


RECORDS = {
    "one lead": ("II", "", ["NORM"]), "all leads": (",".join(LEADS), "", []),
    "a flat one": (",".join(LEADS), "V1", ["NORM"]),
    "all and a label": (",".join(LEADS), "", ["NORM"]), "another": (",".join(LEADS), "", ["MI"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (list(RECORDS), "all and a label"),
        (["one lead", "a flat one", "all leads"], "all leads"),
        (["one lead", "a flat one"], "a flat one"),
        (["one lead"], "one lead"),
    ],
)
def test_the_record_that_is_drawn_has_most_leads_and_rather_a_label(cells, names, best):
    columns = ["leads_present", "flat_leads", "labels"]
    manifest = pd.DataFrame([RECORDS[name] for name in names], columns=columns)
    cell = functions_of(cells, "def record_to_draw(")
    assert names[cell["record_to_draw"](manifest)] == best


def test_a_record_is_drawn_again_only_where_the_store_has_changed(cells, tmp_path):
    cell = functions_of(
        cells, "def draw_stored_record(", **vars(store_module), digest=digest, plot_ecg=plot_ecg,
        write_figure=write_figure,
    )  # fmt: skip
    settings, draw = Settings(root=tmp_path), cell["draw_stored_record"]
    write_tiny_store(tmp_path, n_records=3)
    first = draw(settings)
    drawn = first.stat().st_mtime_ns
    assert draw(settings) == first and first.stat().st_mtime_ns == drawn
    shutil.rmtree(settings.workspace.records_dir.parent)
    write_tiny_store(tmp_path, n_records=3, seed=1)
    second = draw(settings)
    assert [path.name for path in first.parent.iterdir()] == [second.name] != [first.name]


def test_times_are_extrapolated_as_the_runbook_does(cells, run_times):
    results = PROJECT / "benchmarks" / "results"
    run = read_json(results / "run_steps.json")
    speed = run_times.core_speed(run, read_json(results / "train_throughput.json"))
    medium, full = (
        " ".join(cell.source.replace("> ", "").split())
        for cell in cells
        if cell.cell_type == "markdown" and "records/s of one" in cell.source
    )
    one = f"{speed.quiet:.0f} and {speed.whole:.0f} records/s of one thread"
    assert one in medium and f"{run['records']:,} records" in medium
    assert f"one CPU core that is {spread_of(run_times, speed, 132_000)}," in medium
    assert f"{speed.quiet:.0f} to {speed.whole:.0f} records/s of one CPU core" in full
    assert f"{spread_of(run_times, speed, 1_320_000)} on one core" in full
    eight = spread_of(run_times, speed, 1_320_000, run_times.N_CORES, run_times.CPU_SHARES)
    gpu = run_times.duration(1_320_000 / 64 * run["host_ms_per_step"] / 1000)
    assert f"{eight} on eight, {gpu} on an L4" in full


def spread_of(run_times, speed, n_passes, n_cores=1, shares=(1.0, 1.0)):
    each = zip((speed.quiet, speed.whole), shares, strict=True)
    return run_times.between(n_passes / (rate * n_cores * share) for rate, share in each)
