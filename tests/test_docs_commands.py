"""Every command and every piece of Python in README and docs is run, or says why it is not.

A block is run unless the line above its fence is ``<!-- not run: the reason -->``. The blocks of a
page run in order, in a folder of their own with a finished workspace over synthetic archives
(`doc_sandbox`). ``python tests/test_docs_commands.py`` lists what is not run, with the reasons.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from doc_blocks import (
    LANGUAGES,
    PAGES,
    PROJECT,
    SHELLS,
    Block,
    blocks_of,
    command_lines,
    einthoven_words,
    page_name,
    parse_blocks,
)
from doc_sandbox import (
    BRIEF,
    Sandbox,
    cloud_script,
    dataset_folder,
    default_archives,
    empty_folder,
    exported,
    lonely_signal,
    make_small,
    make_workspace,
    model_copy,
    name_runs,
    no_pictures,
    older_workspace,
    page_tables,
    service,
    trackers,
    work_folder,
    write_own,
    write_recordings,
)

from einthoven.cli import command_line
from einthoven.models.registry import MODELS
from einthoven.readers.registry import READERS
from einthoven.settings import Settings

# What each page assumes beside a finished workspace in the current folder.
ASSUMES: dict[str, list[Callable[[Sandbox], Any]]] = {
    "README.md": [empty_folder],
    "docs/getting-started.md": [write_own, default_archives],
    "docs/how-to/cloud-gpu.md": [cloud_script],
    "docs/explanation/augmentation.md": [no_pictures],
    "docs/explanation/why-100-hz.md": [no_pictures],
    "docs/reference/python.md": [no_pictures],
    "docs/how-to/cluster.md": [dataset_folder],
    "docs/how-to/cross-validation.md": [no_pictures],
    "docs/how-to/compare.md": [lambda here: name_runs(here, "crnn", "a", "b"), older_workspace],
    "docs/how-to/evaluate.md": [write_own, model_copy, no_pictures],
    "docs/how-to/explain.md": [model_copy],
    "docs/how-to/export.md": [model_copy],
    "docs/how-to/own-data.md": [model_copy, write_own, page_tables, no_pictures],
    "docs/how-to/predict.md": [model_copy, exported],
    "docs/how-to/resume.md": [work_folder],
    "docs/runbook.md": [write_own],
    "docs/how-to/tracking.md": [trackers],
}
SERVED = ("docs/how-to/serve.md",)
# Its examples run where its columns are compared.
RUN_ELSEWHERE = {"docs/reference/files.md": "test_files_reference.py"}

BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.is_code]
RUN = [
    block
    for block in BLOCKS
    if not block.reason
    and block.language != "powershell"
    and page_name(block.page) not in RUN_ELSEWHERE
]
RUN_PAGES = list(dict.fromkeys(block.page for block in RUN))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives and a finished workspace; pages work on copies."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        make_workspace(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_added_for_good() -> Iterator[None]:
    """Readers and models that a page adds are gone after it."""
    kept = [(known, dict(known)) for known in (READERS, MODELS)]
    yield
    for known, before in kept:
        known.clear()
        known.update(before)


@pytest.fixture
def sandbox(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    make_small(monkeypatch)
    base = tmp_path / "machine"
    shutil.copytree(finished, base)
    shutil.copytree(base / "work", base / "home" / "project")
    folder = base / "home" / "project"
    write_recordings(folder)
    # The archives of the session: a copy would be other archives, and be prepared anew.
    return Sandbox(
        base, folder, {**BRIEF, "DATASET_DIR": str(finished / "data" / "ecg")}, monkeypatch
    )


def run_block(block: Block, sandbox: Sandbox, names: dict[str, Any]) -> None:
    """Run one block; a failure names the page and line."""
    try:
        if block.language in SHELLS:
            for words in command_lines(block):
                sandbox.run(words)
        else:
            with contextlib.chdir(sandbox.folder), sandbox.environment():
                exec(compile(block.text, block.place, "exec"), names)
    except Exception as error:
        raise AssertionError(f"{block.place}: {error}") from error


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
@pytest.mark.parametrize("page", RUN_PAGES, ids=page_name)
def test_blocks_of_a_page_run(page: Path, sandbox: Sandbox) -> None:
    name = page_name(page)
    for assume in ASSUMES.get(name, []):
        assume(sandbox)
    names = {"json": json, "pd": pd, "torch": torch, "Path": Path, **lonely_signal()}
    with service(sandbox) if name in SERVED else contextlib.nullcontext():
        for block in [each for each in RUN if each.page == page]:
            run_block(block, sandbox, names)


# What is not run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_block_is_of_a_language_that_tests_know(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block.place}: {block.language}"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_run_or_says_why_not(block: Block) -> None:
    is_run = block in RUN or page_name(block.page) in RUN_ELSEWHERE
    assert is_run or len(block.reason) > 10, (
        f"{block.place} is not run; write `<!-- not run: the reason -->` above it"
    )


@pytest.mark.parametrize("page, test", RUN_ELSEWHERE.items())
def test_pages_that_another_test_runs_are_named_there(page: str, test: str) -> None:
    assert Path(page).name in (PROJECT / "tests" / test).read_text(encoding="utf-8")


def test_pages_with_assumptions_are_there_and_run() -> None:
    assert {*ASSUMES, *SERVED} <= {page_name(page) for page in RUN_PAGES}


def test_a_block_that_calls_a_stranger_has_to_be_marked(sandbox: Sandbox) -> None:
    page = (
        "```bash\ndocker build .\n```\n<!-- not run: needs a daemon -->\n```bash\ndocker run\n```"
    )
    first, second = parse_blocks(PROJECT / "README.md", page)
    assert second.reason == "needs a daemon" and not first.reason
    with pytest.raises(AssertionError, match=r"README.md:1: `docker build \.` is not run here"):
        run_block(first, sandbox, {})


def test_a_command_that_fails_fails_its_block(sandbox: Sandbox) -> None:
    (block,) = parse_blocks(PROJECT / "README.md", "```bash\neinthoven predict none.dcm\n```")
    with pytest.raises(AssertionError, match=r"README.md:1: einthoven predict none.dcm"):
        run_block(block, sandbox, {})


# Commands that are not run are read all the same -------------------------------------------------

SHELL_BLOCKS = [block for block in BLOCKS if block.language != "python"]


def known_flags(command: str) -> set[str]:
    """The flags that a command takes."""
    found = command_line.get_command(None, command)  # type: ignore[arg-type]
    assert found, f"there is no command {command!r}"
    return {flag for each in found.params for flag in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda block: block.place)
def test_commands_and_flags_of_a_block_exist(block: Block) -> None:
    for words in command_lines(block):
        ours = einthoven_words(words)
        if not ours or ours[0].startswith("-"):
            continue
        written = {word.partition("=")[0] for word in ours if word.startswith("--")}
        assert written <= known_flags(ours[0]) | {"--help"}, block.place


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda block: block.place)
def test_variables_that_a_block_sets_for_us_are_settings(block: Block) -> None:
    for words in command_lines(block):
        if words[0] != "export" and einthoven_words(words) is None:
            continue  # a variable of the script, or of another program
        names = [match[1] for word in words if (match := re.match(r"([A-Z_]+)=", word))]
        for name in names:
            known = name.lower() in Settings.model_fields
            assert known or name.startswith(FOREIGN_VARIABLES), f"{block.place}: {name}"


# Variables of others: threads, MLflow, CUDA, storage, and the token of the service.
FOREIGN_VARIABLES = ("OMP_", "MLFLOW_", "CUDA_", "EINTHOVEN_", "AWS_", "PYTORCH_", "RAY_")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_extras_that_pages_install_exist(page: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for written in re.findall(
        r"(?:einthoven|\.)\[([a-z,]+)\][\"']", page.read_text(encoding="utf-8")
    ):
        assert set(written.split(",")) <= set(extras), written


if __name__ == "__main__":
    for each in BLOCKS:
        if each.reason:
            print(f"{each.place} ({each.language}): {each.reason}")
