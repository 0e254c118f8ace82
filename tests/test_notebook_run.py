"""The notebook as a person runs it: where the package is not installed, and with its scores."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from einthoven.files import file_digest

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOK = PROJECT / "notebooks" / "master_pipeline.ipynb"
# On the path of the kernel and of its worker processes; Python runs it before anything else.
BLOCKER = """
import importlib.metadata as metadata
import sys


class PackageIsAbsent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "einthoven":
            raise ModuleNotFoundError("einthoven is absent here", name=name)


sys.meta_path.insert(0, PackageIsAbsent())
found = metadata.Distribution.discover.__func__


def discover(cls, **asked):
    return (one for one in found(cls, **asked) if one.metadata["Name"] != "einthoven")


metadata.Distribution.discover = classmethod(discover)
"""
PROOF = """
def what_is_there():
    import importlib.metadata

    found = []
    for look in (__import__, importlib.metadata.version):
        try:
            found.append(look("einthoven"))
        except ModuleNotFoundError:
            pass
    return found


import joblib

print("package:", what_is_there(), *joblib.Parallel(2)([joblib.delayed(what_is_there)()] * 2))
"""
# What a smoke run may take, from archives to report, with everything that Python imports.
LONGEST_SECONDS = 300
# What a run says of the machine and the moment, and the name of a file that says where it lies.
NOT_COMPARED = {
    "model", "seconds", "records_per_s", "peak_memory_mb", "peak_gpu_memory_mb",
}  # fmt: skip


class Executed(NamedTuple):
    """A folder in which the notebook was executed: twice as it stands, then with RUN_MODE=full."""

    folder: Path
    first: nbformat.NotebookNode
    full: nbformat.NotebookNode
    before: dict[str, list[object]]
    after: dict[str, list[object]]

    @property
    def workspace(self) -> Path:
        return self.folder / "notebook_demo"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Executed once for all processes that test."""
    shared = tmp_path_factory.getbasetemp().parent / "notebook"
    folder = (
        shared if os.environ.get("PYTEST_XDIST_WORKER") else tmp_path_factory.mktemp("notebook")
    )
    try:
        folder.mkdir(exist_ok=not os.environ.get("PYTEST_XDIST_WORKER"))
    except FileExistsError:
        wait_for(folder / "done.json")
    else:
        execute_all(folder)
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    first, full = (nbformat.read(folder / f"{name}.ipynb", 4) for name in ("first", "full"))
    return Executed(folder, first, full, done["before"], done["after"])


def wait_for(path, seconds=900):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)


def execute_all(folder):
    (folder / "blocked").mkdir()
    (folder / "blocked" / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROOF, id="proof"))
    (folder / "notebooks").mkdir()
    nbformat.write(notebook, folder / "notebooks" / "master_pipeline.ipynb")
    done = {}
    try:
        execute(folder, "first")
        done["before"] = files_below(folder / "notebook_demo")
        execute(folder, "second")
        done["after"] = files_below(folder / "notebook_demo")
        execute(folder, "full", RUN_MODE="full", EPOCHS="1", BOOTSTRAP_RESAMPLES="100")
    finally:
        # Others wait for it, also where it failed.
        (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")


def execute(folder, name, **given):
    """As the runbook has it, in the folder of the notebook; no longer than a smoke run may take."""
    convert = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute"]
    path, out = folder / "notebooks" / "master_pipeline.ipynb", folder / f"{name}.ipynb"
    done = subprocess.run(
        [*convert, path, "--ExecutePreprocessor.timeout=-1", "--output", out],
        env=environment(PYTHONPATH=str(folder / "blocked"), PREPARE_WORKERS="2", **given),
        cwd=folder / "notebooks", capture_output=True, text=True, errors="replace",
        timeout=LONGEST_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def environment(**given):
    return {**os.environ, "TRACKING": "none", "PYTHONHASHSEED": "0", **given}


def files_below(folder):
    """Each file's time of change and digest."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_mtime_ns, file_digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def output_of(notebook, word):
    """What the cell printed that holds this word."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and word in c.source]
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_runs_where_the_package_cannot_be_imported(executed):
    said = output_of(executed.first, "def what_is_there")
    assert said == "package: [] [] []\n"


def test_its_smoke_run_passes(executed):
    results = json.loads((executed.workspace / "logs" / "smoke_test_results.json").read_text())
    assert results["verdict"] == "passed"


def test_without_archives_it_says_that_it_makes_synthetic_ones(executed):
    said = output_of(executed.first, "label_archives(settings)\n")
    assert "NO ARCHIVES" in said and "SYNTHETIC" in said


def test_run_in_notebooks_it_works_in_the_folder_above(executed):
    assert executed.workspace.is_dir()
    assert not (executed.folder / "notebooks" / "notebook_demo").exists()


def test_figures_and_gallery_are_shown_inline(executed):
    pictures = [
        cell.id
        for cell in executed.first.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    # A stored record, nine figures of scores, and at least one example of each of five classes.
    assert len(pictures) >= 14


def test_nothing_is_printed_as_an_error(executed):
    outputs = [o for cell in executed.first.cells for o in cell.get("outputs", [])]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []


def test_a_second_execution_changes_nothing_that_is_done(executed):
    # The smoke test has its verdict again, with the times of skipping.
    changed = [name for name, file in executed.after.items() if executed.before.get(name) != file]
    assert changed == ["logs/smoke_test_results.json"]
    assert set(executed.before) == set(executed.after)
    assert any(name.endswith("best_model.pth") for name in executed.before)


def test_the_full_run_trains_on_everything_and_is_what_is_shown(executed):
    checkpoints = executed.workspace / "artifacts" / "processed" / "checkpoints"
    described = json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))
    assert described["settings"]["run_mode"] == "full" and described["settings"]["epochs"] == 1
    assert (executed.workspace / "artifacts" / "report.html").is_file()
    table = shown_html(executed.full, "show(artifact_table(")
    assert "artifacts/processed/checkpoints/best_model.pth" in table and "smoke" not in table
    assert "left out" in output_of(executed.full, '# run_and_show("smoke")')


def test_a_full_run_leaves_the_smoke_run_and_the_store_as_they_are(executed):
    now = files_below(executed.workspace)
    changed = [name for name, file in executed.after.items() if now.get(name) != file]
    assert changed == []


def test_the_record_on_ecg_paper_has_all_leads_and_a_label(executed):
    (path,) = (executed.workspace / "artifacts" / "figures").glob("stored_record_*.png")
    assert path.stat().st_size > 50_000


def shown_html(notebook, word):
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and word in c.source]
    return "".join(o["data"]["text/html"] for o in cell.outputs if "text/html" in o.get("data", {}))


def test_its_metrics_equal_those_of_the_command_line(executed, tmp_path):
    shutil.copytree(executed.workspace / "Dataset", tmp_path / "Dataset")
    subprocess.run(
        [sys.executable, "-m", "einthoven", "run", "--root", tmp_path, "--run-mode", "smoke"],
        env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    for name in ("test_metrics.json", "training_history.json"):
        path = Path("artifacts") / "processed" / "checkpoints" / "smoke" / name
        ours, theirs = (
            compared(json.loads((root / path).read_text(encoding="utf-8")))
            for root in (executed.workspace, tmp_path)
        )
        assert ours == theirs


def compared(value):
    """Results without what two runs cannot share."""
    if isinstance(value, dict):
        return {key: compared(item) for key, item in value.items() if key not in NOT_COMPARED}
    return [compared(item) for item in value] if isinstance(value, list) else value


WRONG = {
    "EPOCHS": ("none", "EPOCHS is none (environment); use a whole number from 1 to 10,000"),
    "SEED": ("abc", "SEED is abc (environment); use a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_told_with_what_is_allowed(tmp_path, name):
    done = run_first_cells(tmp_path, **{name: WRONG[name][0]})
    assert WRONG[name][1] in done.stderr


def test_what_follows_from_settings_is_shown_of_those_in_the_workspace_too(tmp_path):
    (tmp_path / "einthoven.toml").write_text("seed = 5\nbatch_size_cpu = 48\n", encoding="utf-8")
    done = run_first_cells(tmp_path, DEVICE="cpu")
    assert re.search(r"batch size +48 \(CPU\)", done.stdout)
    assert re.search(r"seed +5\n", done.stdout)


def run_first_cells(folder, **given):
    """The cells up to the settings in force, as a script."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"]
    last = next(i for i, source in enumerate(cells) if source.startswith("loaded = "))
    future = "from __future__ import annotations\n"
    script = future + "\n".join(cells[: last + 1]).replace(future, "")
    (folder / "cells.py").write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "cells.py"], cwd=folder, capture_output=True, text=True,
        env=environment(**given),
    )  # fmt: skip
