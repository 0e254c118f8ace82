"""Build notebooks/master_pipeline.ipynb from its spine and the package's source.

    python tools/build_notebook.py            write the notebook
    python tools/build_notebook.py --check    fail where the committed notebook is stale

The spine, notebooks/master_pipeline.py in percent format, holds the story and the cells that run
something; it is an ordinary script that runs against the installed package. The notebook is the
same text with each cell of ``from einthoven.x import *`` lines replaced by these modules: the
docstring becomes a markdown cell, each ``# Section ---`` a code cell, and what they import of the
package is dropped because it is in the notebook already. What that would break is refused, by file
and line. The cell of settings is written from `Settings`, in the spine too.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

# What lies beside this file.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from flat_names import (
    PACKAGE,
    SpineError,
    claims_of,
    is_future_import,
    refuse_unflat,
    why_no_name,
)

from einthoven.files import write_text
from einthoven.settings import Settings, setting_group, setting_names

PROJECT = Path(__file__).resolve().parents[1]
SPINE = PROJECT / "notebooks" / "master_pipeline.py"
NOTEBOOK = SPINE.with_suffix(".ipynb")

MARKER = re.compile(r"^# %%(?: \[(markdown|folded)\])?$")
SECTION = re.compile(r"^# \S.* -{3,}$")
FUTURE = "from __future__ import annotations\n\n"
SETTINGS_CELL = "# Settings: written by tools/build_notebook.py\n"
# In a notebook, a run of everything is asked for; windows follow the sampling rate.
NOTEBOOK_DEFAULTS: dict[str, str | None] = {
    "run_mode": "smoke", "root": None, "target_samples": None, "crop_samples": None,
}  # fmt: skip
UNSET_ROOT = " (None: this folder, or the one above notebooks/)"
LONGEST_LINE = 100


@dataclass(frozen=True)
class Cell:
    """A cell of the notebook.

    Attributes:
        module: that it is of, if any.
        is_folded: a heading hides what is below it, code hides itself and not its output.
    """

    kind: str
    source: str
    module: str = ""
    is_folded: bool = False


# Modules -----------------------------------------------------------------------------------------


@dataclass
class Flattener:
    """Turns modules into cells, and keeps every name of the one namespace honest."""

    source_dir: Path
    owners: dict[str, str] = field(default_factory=dict)
    inlined: set[str] = field(default_factory=set)

    def module_cells(self, module: str, place: str) -> list[Cell]:
        """A module as cells: its docstring, then each of its sections.

        Raises:
            SpineError: it is not there, or would mean something else in a notebook.
        """
        path = self.source_dir / Path(*module.split(".")).with_suffix(".py")
        if not path.is_file():
            raise SpineError(f"{place}: there is no module {module} ({path.name})")
        name = path.relative_to(self.source_dir.parent).as_posix()
        text = path.read_text(encoding="utf-8")
        tree = parse(text, name)
        docstring = ast.get_docstring(tree)
        if not docstring:
            raise SpineError(f"{name}:1: no docstring; it becomes the notebook's prose")
        refuse_unflat(tree, name, self.known_modules())
        self.check_imports(tree, name)
        self.claim(tree, module, name)
        self.inlined.add(module)
        heading = Cell("markdown", f"#### `{module}`\n\n{docstring}", module, is_folded=True)
        return [heading, *(Cell("code", part, module) for part in code_cells(tree, text))]

    def known_modules(self) -> set[str]:
        """The dotted name of every module of the package."""
        paths = (self.source_dir / PACKAGE).rglob("*.py")
        return {".".join(path.relative_to(self.source_dir).with_suffix("").parts) for path in paths}

    def check_imports(self, tree: ast.Module, name: str) -> None:
        """Refuse an import of ours whose name is not in the notebook by then."""
        for node in filter(is_our_import, tree.body):
            assert isinstance(node, ast.ImportFrom)
            for alias in node.names:
                owner = self.owners.get(alias.name)
                if owner == node.module:
                    continue
                if node.module in self.inlined:
                    why = f"{node.module} does not define {alias.name}; import it from where it is"
                else:
                    why = f"put {node.module} before it in the spine ({alias.name} is needed here)"
                raise SpineError(f"{name}:{node.lineno}: {why}")

    def claim(self, tree: ast.Module, owner: str, name: str, lines_before: int = 0) -> None:
        """Enter the names that a module or a cell binds at its top level.

        Raises:
            SpineError: it hides a builtin, or something else in the notebook has that name.
        """
        for bound, meaning, line in claims_of(tree):
            place, holder = f"{name}:{lines_before + line}", meaning or owner
            if why := why_no_name(bound):
                raise SpineError(f"{place}: `{bound}` {why}")
            if hasattr(builtins, bound):
                raise SpineError(f"{place}: `{bound}` hides Python's own everywhere; rename it")
            first = self.owners.setdefault(bound, holder)
            if first != holder:
                raise SpineError(f"{place}: `{bound}` ({holder}) is {first} already; rename one")


def is_our_import(node: ast.stmt) -> bool:
    """Whether a statement imports from the package."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE


def parse(text: str, name: str, lines_before: int = 0) -> ast.Module:
    """The tree of a module or a cell.

    Raises:
        SpineError: it is no Python.
    """
    try:
        return ast.parse(text)
    except SyntaxError as error:
        line = lines_before + (error.lineno or 0)
        raise SpineError(f"{name}:{line}: no Python ({error.msg})") from error


def is_left_out(node: ast.stmt, index: int) -> bool:
    """Whether the notebook has a statement's content elsewhere: docstring, our imports, future."""
    return index == 0 or is_our_import(node) or is_future_import(node)


def code_cells(tree: ast.Module, text: str) -> list[str]:
    """What is left of a module, cut where a section begins, each part able to stand alone."""
    lines = text.splitlines()
    inside: set[int] = set()
    dropped: set[int] = set()
    for index, node in enumerate(tree.body):
        span = set(range(first_line(node), (node.end_lineno or 0) + 1))
        inside |= span
        dropped |= span if is_left_out(node, index) else set()
    parts: list[list[str]] = [[]]
    for number, line in enumerate(lines, 1):
        # A line that looks like one within a string or a function begins no section.
        if SECTION.match(line) and number not in inside:
            parts.append([])
        if number not in dropped:
            parts[-1].append(line)
    texts = [without_gaps(part, number, text) for number, part in enumerate(parts)]
    future = FUTURE if any(map(is_future_import, tree.body)) else ""
    return [future + part for part in texts if part]


def first_line(node: ast.stmt) -> int:
    """Where a statement begins, with its decorators."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def without_gaps(lines: Sequence[str], number: int, text: str) -> str:
    """A part's text, without the empty lines that dropped imports leave at its head."""
    part = "\n".join(lines).strip("\n")
    if number == 0:
        head, _, rest = part.partition("\n\n\n")
        part = re.sub(r"\n{3,}", "\n\n", head) + (f"\n\n\n{rest}" if rest else "")
    return part


# The spine ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A cell of the spine: its kind, its text and the number of the line before it."""

    kind: str
    source: str
    lines_before: int


def spine_blocks(text: str) -> Iterator[Block]:
    """The spine's cells, in order; what stands before the first is for the script alone."""
    lines = text.splitlines()
    starts = [index for index, line in enumerate(lines) if MARKER.match(line)]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = MARKER.match(lines[start])
        assert match
        body = lines[start + 1 : stop]
        yield Block(match[1] or "code", "\n".join(body).strip("\n"), start + 1)


def notebook_cells(text: str, flattener: Flattener, name: str) -> list[Cell]:
    """The notebook's cells from the text of a spine.

    Raises:
        SpineError: a cell or a module cannot be laid out flat.
    """
    cells: list[Cell] = []
    for block in spine_blocks(text):
        if block.kind == "markdown":
            cells.append(Cell("markdown", re.sub(r"^# ?", "", block.source, flags=re.MULTILINE)))
            continue
        tree = parse(block.source, name, block.lines_before)
        modules = block_modules(tree, name, block.lines_before)
        if modules:
            cells += section_cells(modules, flattener)
        elif tree.body:
            flattener.claim(tree, name, name, block.lines_before)
            cells.append(Cell("code", block.source, is_folded=block.kind == "folded"))
    return cells


def section_cells(modules: Sequence[tuple[str, str]], flattener: Flattener) -> list[Cell]:
    """Modules under one heading that says what they are; it stands folded."""
    inner = [cell for name, place in modules for cell in flattener.module_cells(name, place)]
    n_lines = sum(cell.source.count("\n") + 1 for cell in inner if cell.kind == "code")
    noun = "module" if len(modules) == 1 else "modules"
    listed = " · ".join(f"`{name.removeprefix(PACKAGE + '.')}`" for name, _ in modules)
    heading = f"### The code: {len(modules)} {noun}, {n_lines:,} lines\n\n{listed}"
    return [Cell("markdown", heading, modules[0][0], is_folded=True), *inner]


def block_modules(tree: ast.Module, name: str, lines_before: int) -> list[tuple[str, str]]:
    """The modules that a spine cell imports, with their places; empty for any other cell."""
    ours = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE)
        or (isinstance(node, ast.Import) and any(is_ours(alias.name) for alias in node.names))
    ]
    modules: list[tuple[str, str]] = []
    for node in ours:
        place = f"{name}:{lines_before + node.lineno}"
        if len(ours) < len(tree.body) or node not in tree.body:
            raise SpineError(f"{place}: imports of {PACKAGE} stand alone in a cell of their own")
        is_star = isinstance(node, ast.ImportFrom) and [a.name for a in node.names] == ["*"]
        if not is_star:
            raise SpineError(f"{place}: write `from {PACKAGE}.x import *`, for the whole module")
        assert isinstance(node, ast.ImportFrom)
        modules.append((str(node.module), place))
    return modules


def is_ours(module: str) -> bool:
    return module.split(".")[0] == PACKAGE


# Settings ----------------------------------------------------------------------------------------


def settings_cell() -> str:
    """Every setting with its default and its help, by the stage that it concerns."""
    groups = dict.fromkeys(setting_group(info) for info in Settings.model_fields.values())
    parts = [SETTINGS_CELL.strip()]
    for group in groups:
        lines = [line for name in setting_names([group]) for line in setting_lines(name)]
        parts.append("\n".join([f"# {group.capitalize()}", *lines]))
    return "\n\n".join(parts) + "\n"


def setting_lines(name: str) -> list[str]:
    """A setting's line, or two where its help would not fit."""
    info = Settings.model_fields[name]
    default = NOTEBOOK_DEFAULTS.get(name, info.default)
    value = repr(default).replace("'", '"')
    help_text = f"# {info.description}" + (UNSET_ROOT if name == "root" else "")
    assignment = f"{name.upper()} = {value}"
    line = f"{assignment}  {help_text}"
    return [line] if len(line) <= LONGEST_LINE else [help_text, assignment]


def with_settings(text: str) -> str:
    """The spine with its cell of settings as `Settings` has them."""
    before, found, after = text.partition(SETTINGS_CELL)
    if not found:
        raise SpineError(f"{SPINE.name}:1: no cell begins with `{SETTINGS_CELL.strip()}`")
    return before + settings_cell() + after[after.index("\n# %%") :]


# The notebook ------------------------------------------------------------------------------------


def notebook_text(cells: Sequence[Cell]) -> str:
    """The notebook file: the same cells give the same bytes."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    folded: list[str] = []
    for position, cell in enumerate(cells):
        made = getattr(nbformat.v4, f"new_{cell.kind}_cell")(cell.source)
        made["id"] = hashlib.sha256(f"{position}:{cell.source}".encode()).hexdigest()[:12]
        made["metadata"] = cell_metadata(cell)
        folded += [made["id"]] if cell.is_folded and cell.kind == "markdown" else []
        notebook.cells.append(made)
    # Colab keeps it for the whole notebook, JupyterLab with each heading.
    notebook.metadata["colab"] = {"collapsed_sections": folded, "toc_visible": True}
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1, sort_keys=True) + "\n"


def cell_metadata(cell: Cell) -> dict[str, Any]:
    """Which cells hold the package (a tag that nbconvert can leave out) and which stand folded."""
    metadata: dict[str, Any] = {"tags": ["package"]} if cell.module else {}
    if cell.is_folded and cell.kind == "markdown":
        metadata["jp-MarkdownHeadingCollapsed"] = True
    elif cell.is_folded:
        metadata["jupyter"] = {"source_hidden": True}
    return metadata


def build(spine: Path = SPINE, source_dir: Path = PROJECT / "src") -> tuple[str, str]:
    """The text of the spine and of the notebook, as they should be."""
    text = with_settings(spine.read_text(encoding="utf-8"))
    name = spine.relative_to(source_dir.parent).as_posix()
    return text, notebook_text(notebook_cells(text, Flattener(source_dir), name))


def main() -> int:
    try:
        spine, notebook = build()
    except SpineError as error:
        print(f"The notebook cannot be built: {error}", file=sys.stderr)
        return 1
    wanted = {SPINE: spine, NOTEBOOK: notebook}
    stale = [p for p, t in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != t]
    if "--check" not in sys.argv:
        for path in stale:
            write_text(path, wanted[path])
        return 0
    for path in stale:
        print(
            f"{path.relative_to(PROJECT)} is stale; run `make notebook` and commit it",
            file=sys.stderr,
        )
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
