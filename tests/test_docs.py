"""What is written for people agrees with what the code does."""

import importlib.util
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from einthoven.cli import STAGES

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")]


@pytest.mark.parametrize("tool", ["models_table", "results_table", "settings_table"])
def test_generated_pages_are_fresh(tool):
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / f"{tool}.py"), "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def load_script(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by its name
    if str(path.parent) not in sys.path:  # as Python has it for a script that is run
        sys.path.append(str(path.parent))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wfdb's own, with pandas 3
        spec.loader.exec_module(module)
    return module


def test_results_table_leaves_small_archives_out_and_takes_scores_without_interval():
    tool = load_script(PROJECT / "tools" / "results_table.py")
    score = {"value": 0.5, "low": None, "high": None, "n": 20}
    scores = dict.fromkeys(("auroc", "f1", "calibration_error"), score)
    parts = {name: {"n": n, **scores} for name, n in (("a", 19), ("b", 20))}
    assert tool.score_rows("five", {"archives": parts, "seed": 0}) == [
        "| five | b | 20 | 0.500 | 0.500 | 0.500 | 0 |"
    ]


@pytest.mark.parametrize(
    "script", [*PROJECT.glob("tools/*.py"), *PROJECT.glob("benchmarks/*.py")], ids=lambda p: p.name
)
def test_scripts_beside_the_package_find_what_they_import(script):
    assert load_script(script)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_that_pages_name_exist(page):
    from einthoven.settings import Settings

    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"einthoven ([a-z]+)(?=[ `\n]| --)", text):
        assert name in STAGES or name in PROSE, name
    for command, line in re.findall(r"einthoven ([a-z]+)( .*--.*)", text):
        own = {option.flag[2:] for option in STAGES[command].options}
        for flag in set(re.findall(r"--([a-z0-9-]+)", line)) - own:
            assert flag.replace("-", "_") in Settings.model_fields, flag


# Words that follow the project's name in sentences.
PROSE: set[str] = set()
