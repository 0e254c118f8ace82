"""What is written for people agrees with what the code does."""

import ast
import functools
import importlib.util
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from einthoven.settings import Settings
from einthoven.stages import STAGES

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")]


@pytest.mark.parametrize(
    "tool",
    [
        "cli_reference",
        "models_table",
        "results_table",
        "run_times",
        "scale_table",
        "settings_table",
    ],
)
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


def test_a_step_takes_the_longer_of_arithmetic_and_host():
    tool = load_script(PROJECT / "tools" / "run_times.py")
    card = tool.Card("card", 100, "bfloat16", "")
    # 10^12 operations at a tenth of 10^14 a second.
    assert tool.step_seconds(card, 1e12, host=0.02, share=0.1) == pytest.approx(0.1)
    assert tool.step_seconds(card, 1e10, host=0.02, share=0.1) == 0.02


def test_the_speeds_of_a_core_are_told_apart():
    tool = load_script(PROJECT / "tools" / "run_times.py")
    steps = {"train": {"cpu_seconds": 50}}
    size = {"n_train": 100, "epochs": 3, "records_per_s": [7, 9, 8]}
    run = {"model": "m", "host_ms_per_step": 20, "steps": steps, **size}
    quiet = {"models": {"m": {"records_per_s": {"loop": 12, "fixed": 13}}}}
    assert tool.core_speed(run, quiet) == (12, 8, 6)
    row = tool.cards_table(run, tool.core_speed(run, quiet), flops=1.0).splitlines()[2]
    # 800,000 passes: eight cores with 12 a second each, and with half of 6.
    assert "| 2.3 h to 9.3 h |" in row and "6 to 12 records per second" in row


@pytest.mark.parametrize(
    "seconds, told", [(3.21, "3.2 s"), (95, "1.6 min"), (1500, "25 min"), (40_000, "11 h")]
)
def test_times_are_told_to_two_digits(seconds, told):
    assert load_script(PROJECT / "tools" / "run_times.py").duration(seconds) == told


@pytest.mark.parametrize(
    "script", [*PROJECT.glob("tools/*.py"), *PROJECT.glob("benchmarks/*.py")], ids=lambda p: p.name
)
def test_scripts_beside_the_package_find_what_they_import(script):
    assert load_script(script)


# Links, commands and names ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_index_links_every_page():
    index = PROJECT / "docs" / "index.md"
    linked = re.findall(r"\]\(([^)#]+\.md)\)", index.read_text(encoding="utf-8"))
    there = {path.relative_to(index.parent).as_posix() for path in PROJECT.glob("docs/**/*.md")}
    assert there - {"index.md"} == set(linked)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_that_pages_name_exist(page):
    for words in named_commands(page.read_text(encoding="utf-8")):
        name, *flags = words.split()
        assert name in STAGES or name in PROSE, name
        own = {option.flag[2:] for option in STAGES[name].options} if name in STAGES else set()
        for flag in {word.partition("=")[0][2:] for word in flags if word.startswith("--")} - own:
            setting = flag.replace("-", "_")
            assert {setting, setting.removeprefix("no_")} & {
                *Settings.model_fields,
                "config",
                "help",
            }, flag


def named_commands(text):
    """What follows ``einthoven`` in code within prose; `test_docs_commands` reads the blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    code = re.findall(r"``(.+?)``|`([^`\n]+)`", prose)
    for each in map("".join, code):
        yield from re.findall(r"\beinthoven ([a-z]+(?: [^`|]*)?)", each)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_pages_set_exist(page):
    text = page.read_text(encoding="utf-8")
    written = re.findall(r"(?:`|\$env:)([A-Z][A-Z0-9_]+) ?=", text)
    for name in written:
        known = name.lower() in Settings.model_fields or name in OTHER_VARIABLES
        assert known, f"{name} is no setting"


# Words that follow the project's name in sentences.
PROSE: set[str] = set()
OTHER_VARIABLES = {"OMP_NUM_THREADS", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"}


def test_the_page_of_python_functions_has_those_that_the_project_promises():
    page = (PROJECT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = {path.rpartition(".")[2] for path in re.findall(r"^- `(einthoven[\w.]+)`", page, re.M)}
    assert named >= {
        "train_production", "evaluate_detailed", "run_preflight_checks", "load_best_model",
        "predict_sample", "run_inference_examples", "visualize_prediction_sample",
        "plot_training_curves", "plot_confusion_matrix", "plot_per_class_metrics",
        "plot_roc_curves", "plot_precision_recall_curves", "load_settings", "prepare_archives",
    }  # fmt: skip


# Messages ----------------------------------------------------------------------------------------


@functools.cache
def code_texts():
    """Every text of the package's code, with an ellipsis for what is put in."""
    texts = []
    for path in sorted((PROJECT / "src" / "einthoven").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def quoted_messages():
    """Headings and rows of the page on trouble that quote a message."""
    page = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    double = re.findall(r"^### `` (.+?) ``$", page, re.MULTILINE)
    rows = re.findall(r"^\| `([^`]{20,})` \|", page, re.MULTILINE)
    return double + re.findall(r"^### `([^`]+)`$", page, re.MULTILINE) + rows


@pytest.mark.parametrize("message", quoted_messages())
def test_messages_that_the_page_on_trouble_quotes_are_in_the_code(message):
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" .:;")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(text) for text in code_texts()), message


# The site ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as Sphinx builds them, every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html",
            "-d", str(folder / "doctrees"), str(PROJECT / "docs"), str(folder / "html"),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_the_site_has_a_page_for_every_file_and_warns_of_nothing(site):
    for page in PROJECT.glob("docs/**/*.md"):
        assert (site / page.relative_to(PROJECT / "docs").with_suffix(".html")).is_file(), page


def test_every_page_says_that_this_is_no_medical_device(site):
    for page in site.rglob("*.html"):
        assert "Research software, not a medical device." in page.read_text(encoding="utf-8"), page


def test_the_site_asks_nothing_of_other_hosts(site):
    fetched = re.compile(
        r"""<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=["'](?:https?:)?//"""
    )
    for path in site.rglob("*"):
        if path.suffix == ".html":
            assert not fetched.search(path.read_text(encoding="utf-8")), path
        if path.suffix == ".css":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", text), path


def test_functions_have_their_docstrings_on_the_site(site):
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("training.train_production", "prediction.predict_sample"):
        assert f'id="einthoven.{name}"' in page
    assert "{eval-rst}" not in page
