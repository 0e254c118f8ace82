"""The rules of DESIGN that no other tool checks: who imports whom, and what a notebook needs."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "einthoven"
ROOMS = [
    "version", "errors", "console", "columns", "resources", "outputs", "files", "settings",
    "configuration", "records", "labels", "signal", "quality", "readers", "sources", "download",
    "labelling", "synthetic",
    "positional", "store", "audit",
    "shards", "formats", "chunks",
    "split_records", "dealing", "splits", "holdout",
    "workers", "cluster", "making", "prepare", "residency", "batches",
    "augment", "models",
    "metrics", "challenge_score", "calibration", "checkpoint", "views", "inference", "bootstrap",
    "scoring", "subgroups", "objective", "interruption", "distributed", "runs", "run_folder",
    "averaging", "tally", "run_state", "tracking", "shortage", "step", "validation", "training",
    "cluster_training",
    "figures", "scopes", "external", "evaluated", "supplements", "summary", "evaluation",
    "comparison", "samples", "examples", "prediction", "explain", "exporting", "file_prediction",
    "crossval", "tuning", "report", "smoke", "modes",
    "preflight", "serving", "cli",
]  # fmt: skip
# The command line is no part of the notebook, and imports inside functions to start quickly.
FLAT = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("cli.py", "commands.py", "stages.py", "__main__.py")
]


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def module_name(path):
    return ".".join(["einthoven", *path.relative_to(PACKAGE).with_suffix("").parts])


def our_imports(tree):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("einthoven.")
    ]


@pytest.mark.parametrize("path", FLAT, ids=module_name)
def test_a_room_imports_only_from_rooms_before_it(path):
    here = room_of(module_name(path))
    if here == "__init__":
        return
    for node in our_imports(ast.parse(path.read_text())):
        there = room_of(node.module)
        assert ROOMS.index(there) <= ROOMS.index(here), f"{here} imports {there}"


@pytest.mark.parametrize("path", FLAT, ids=module_name)
def test_a_module_can_be_laid_out_flat(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "its docstring becomes the notebook's prose"
    top = {id(node) for node in tree.body}
    top |= {
        id(inner) for node in tree.body if isinstance(node, ast.If) for inner in node.body
    }  # TYPE_CHECKING
    for node in our_imports(tree):
        assert id(node) in top, f"line {node.lineno}: import at the top"
        assert all(alias.asname is None and alias.name != "*" for alias in node.names)
    assert not re.search(r"^import einthoven|__file__|__main__", text, re.MULTILINE)


def test_top_level_names_are_unique_across_the_package():
    owners = defaultdict(set)
    for path in FLAT:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                owners[node.name].add(module_name(path))
            elif isinstance(node, ast.Assign):
                inner = [name for target in node.targets for name in ast.walk(target)]
                for name in inner:
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        owners[name.id].add(module_name(path))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                owners[node.target.id].add(module_name(path))
    assert {name: sorted(where) for name, where in owners.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_no_file_is_longer_than_four_hundred_lines(path):
    is_table = path.parent.name == "labels"
    assert is_table or len(path.read_text().splitlines()) <= 430


def test_nothing_holds_an_emoji():
    root = PACKAGE.parents[1]
    emoji = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff]")
    for path in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *PACKAGE.rglob("*.py")]:
        assert not emoji.search(path.read_text(encoding="utf-8")), path
