"""The notebook is its spine and the package, laid out flat; what would break that is refused."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from einthoven.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOK = PROJECT / "notebooks" / "master_pipeline.ipynb"
FUTURE = "from __future__ import annotations"
SPINE = "# %% [markdown]\n# # Title\n\n# %%\nfrom einthoven.first import *\n"
SECTIONS = [
    "1. Configuration", "2. Environment", "3. Utilities", "4. Label mapping", "5. Preprocessing",
    "6. Data set and model", "7. Training", "8. Evaluation", "9. Visualisation", "10. Inference",
    "11. Pre-flight check", "12. Quick smoke run, medium run", "13. FULL PRODUCTION TRAINING",
    "14. Runbook",
]  # fmt: skip


def tool(name):
    sys.path.insert(0, str(PROJECT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROJECT / "tools"))


@pytest.fixture(scope="module")
def builder():
    return tool("build_notebook")


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, 4).cells


@pytest.fixture
def lay_out(builder, tmp_path):
    """Lay out a package of these modules, and a spine."""

    def lay(spine=SPINE, **modules):
        folder = tmp_path / "src" / "einthoven"
        folder.mkdir(parents=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        return builder.notebook_cells(spine, builder.Flattener(tmp_path / "src"), "spine.py")

    return lay


def code_of(cells):
    return [cell.source for cell in cells if getattr(cell, "kind", "code") == "code"]


# The committed notebook -------------------------------------------------------------------------


def test_the_committed_notebook_is_a_fresh_build(builder):
    spine, notebook = builder.build()
    assert builder.SPINE.read_text(encoding="utf-8") == spine, "run `make notebook`"
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook, "run `make notebook`"


def test_the_committed_notebook_has_no_output(cells):
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_sections_are_numbered_as_they_were_asked_for(cells):
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.findall(r"^## (\d+\. .+)$", text, re.MULTILINE) == SECTIONS


def test_the_first_code_cell_has_every_setting_at_its_default(cells):
    namespace = {}
    exec(next(cell.source for cell in cells if cell.cell_type == "code"), namespace)
    given = {name: namespace[name.upper()] for name in Settings.model_fields}
    assert given.pop("run_mode") == "smoke"
    # Unset values follow other settings.
    values = {name: value for name, value in given.items() if value is not None}
    assert Settings(**values) == Settings()


def test_every_setting_is_explained(cells):
    text = next(cell.source for cell in cells if cell.cell_type == "code")
    for info in Settings.model_fields.values():
        assert f"# {info.description}" in text


def test_every_statement_of_every_module_is_in_the_notebook(builder, cells):
    flat = [
        ast.dump(node)
        for cell in cells
        if "package" in cell.metadata.get("tags", []) and cell.cell_type == "code"
        for node in ast.parse(cell.source).body
        if not builder.is_future_import(node)
    ]
    modules = [
        line.split()[1]
        for line in builder.SPINE.read_text(encoding="utf-8").splitlines()
        if line.startswith("from einthoven.")
    ]
    written = [
        ast.dump(node)
        for module in modules
        for index, node in enumerate(module_body(module))
        if not builder.is_left_out(node, index)
    ]
    assert flat == written


def module_body(module):
    path = (PROJECT / "src" / Path(*module.split("."))).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body


def test_the_flattened_code_has_no_undefined_unused_or_doubled_name(builder, cells, tmp_path):
    path = tmp_path / "flat.py"
    path.write_text(flat_script(builder, cells), encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F"]
    done = subprocess.run(
        [*ruff, "--output-format", "concise", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def flat_script(builder, cells):
    """All code as one script; an import that stands in several cells stands once."""
    seen, parts = set(), [FUTURE]
    for source in (cell.source for cell in cells if cell.cell_type == "code"):
        lines = source.splitlines()
        for node in ast.parse(source).body:
            text = "\n".join(lines[builder.first_line(node) - 1 : node.end_lineno])
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", "")
                node.names = [a for a in node.names if (module, a.name, a.asname) not in seen]
                seen |= {(module, alias.name, alias.asname) for alias in node.names}
                text = ast.unparse(node) if node.names and module != "__future__" else ""
            parts.append(text)
    return "\n".join(parts)


def test_the_code_of_the_package_stands_folded(cells):
    headings = [c for c in cells if c.cell_type == "markdown" and c.source.startswith("### The co")]
    assert len(headings) == 10
    assert all(cell.metadata["jp-MarkdownHeadingCollapsed"] for cell in headings)


def test_long_runs_are_shown_as_one_commented_line(cells):
    for mode in ("medium", "full"):
        (cell,) = [c for c in cells if f'run_and_show("{mode}")' in c.source]
        assert f'\n# run_and_show("{mode}")' in cell.source


def test_the_spine_is_an_ordinary_script(builder):
    compile(builder.SPINE.read_text(encoding="utf-8"), "master_pipeline.py", "exec")


# Laying out flat --------------------------------------------------------------------------------


def test_a_module_becomes_its_docstring_and_its_sections(lay_out):
    code = "import os\n\n# One ---\n\na = os.sep\n\n# Two ---\n\nb = 1\n"
    text = f'"""What it is."""\n\n{FUTURE}\n\n{code}'
    _, _, heading, *code = lay_out(first=text)
    assert heading.source == "#### `einthoven.first`\n\nWhat it is."
    assert [cell.source for cell in code] == [
        f"{FUTURE}\n\nimport os",
        f"{FUTURE}\n\n# One ---\n\na = os.sep",
        f"{FUTURE}\n\n# Two ---\n\nb = 1",
    ]


def test_a_section_marker_inside_a_string_or_a_function_cuts_nothing(lay_out):
    text = 'TEXT = """\n# Not a section ---\n"""\n\n\ndef f() -> None:\n# Nor this ---\n    pass'
    assert code_of(lay_out(first=f'"""Doc."""\n\n{text}\n')) == [text]


def test_imports_of_ours_are_left_out(lay_out):
    spine = f"{SPINE}from einthoven.second import *\n"
    second = '"""Doc."""\n\nfrom einthoven.first import (\n    a,\n)\n\nb = a\n'
    assert code_of(lay_out(spine, first='"""Doc."""\n\na = 1\n', second=second)) == [
        "a = 1",
        "b = a",
    ]


def test_the_same_text_gives_the_same_notebook(builder, lay_out):
    cells = lay_out(first='"""Doc."""\n\na = 1\n')
    assert builder.notebook_text(cells) == builder.notebook_text(cells)


# What is refused --------------------------------------------------------------------------------

REFUSED = {
    "package import": ("import einthoven.errors\n", "3: write `from einthoven.x import name`"),
    "relative import": ("from . import errors\n", "3: .*not a relative import"),
    "import from the package": ("from einthoven import a\n", "3: import from the module that"),
    "renamed import": ("from einthoven.first import a as b\n", "3: `as b` does not survive"),
    "star": ("from einthoven.first import *\n", "3: name what is imported of einthoven.first"),
    "third-party star": ("from os.path import *\n", "3: name what is imported of os.path"),
    "in a function": ("def f():\n    from einthoven.first import a\n", "4: imports of ours stand"),
    "for types only": ("if 1:\n    from einthoven.first import a\n", "4: imports of ours stand"),
    "not there yet": ("from einthoven.third import a\n", "3: put einthoven.third before it"),
    "from elsewhere": ("from einthoven.first import Path\n", "3: .*first does not define Path"),
    "function twice": ("def a(): pass\n", "3: `a` .*einthoven.first already"),
    "class twice": ("class a: pass\n", "3: `a` .*einthoven.first already"),
    "tuple twice": ("x, (a, *y) = 1, (2, 3)\n", "3: `a` .*einthoven.first already"),
    "annotated twice": ("a: int = 1\n", "3: `a` .*einthoven.first already"),
    "loop variable": ("for a in ():\n    pass\n", "3: `a` .*einthoven.first already"),
    "with": ("with open('x') as a:\n    pass\n", "3: `a` .*einthoven.first already"),
    "caught error": ("try:\n    x = 1\nexcept OSError as a:\n    pass\n", "5: `a` .*already"),
    "in a branch": ("if 1:\n    a = 2\n", "4: `a` .*einthoven.first already"),
    "walrus": ("x = [(a := 1) for y in (1,)]\n", "3: `a` .*einthoven.first already"),
    "import of a name of ours": ("from os import a\n", r"3: `a` \(os.a\) is einthoven.first"),
    "import of another thing": ("from os import Path\n", "3: `Path` .*pathlib.Path already"),
    "ours as a library's name": ("def Path(): pass\n", "3: `Path` .*pathlib.Path already"),
    "builtin": ("def open(): pass\n", "3: `open` hides Python's own"),
    "__file__": ("x = __file__\n", "3: __file__ is another"),
    "__name__": ("x = sys.modules[__name__]\n", "3: __name__ is another"),
    "__main__": ("if x == '__main__':\n    pass\n", "3: a notebook is always `__main__`"),
    "package data": ("from importlib import resources\n", "3: importlib reads files of a package"),
    "more package data": ("import pkgutil\n", "3: pkgutil reads files of a package"),
    "module by name": ("x = 'einthoven.first'\n", "3: einthoven.first cannot be imported by name"),
    "no Python": ("x = = 1\n", "3: no Python"),
    "global of another's": ("def f():\n    global a\n    a = 2\n", "4: `a` .*first already"),
    "global of a builtin": ("def f():\n    global open\n", "4: `open` hides Python's own"),
    "composed module": ("import_module('einthoven.' + x)\n", "3: import_module finds no eint"),
    "formatted module": ("import_module(f'einthoven.{x}')\n", "3: import_module finds no eint"),
    "package by name": ("importlib.import_module('einthoven')\n", "3: import_module finds no"),
    "by another name": ("from importlib import import_module as i\ni(x)\n", "4: import_module of"),
    "any module": ("__import__(x)\n", "3: __import__ of a computed name"),
    "run by name": ("runpy.run_module('einthoven')\n", "3: run_module finds no einthoven"),
    "table of modules": ("x = sys.modules['einthoven']\n", "3: sys.modules has no einthoven"),
    "asked of the table": ("x = sys.modules.get('einthoven')\n", "3: sys.modules has no eint"),
    "looked for in it": ("x = 'einthoven' in sys.modules\n", "3: sys.modules has no eint"),
    "package's files": ("x = files('einthoven')\n", "3: files finds no einthoven"),
    "resources": ("x = importlib.resources.open(y)\n", "3: importlib.resources reads files"),
    "package's version": ("x = metadata.version('einthoven')\n", "3: version finds no einthoven"),
    "command line": ("x = [sys.executable, '-m', 'einthoven']\n", "3: `python -m einthoven` needs"),
    "__file__ in a text": ("x = globals()['__file__']\n", "3: __file__ is another"),
    "__doc__": ("x = __doc__\n", "3: __doc__ is another"),
    "__module__": ("x = f.__module__\n", "3: __module__ is another"),
    "source file": ("x = inspect.getsourcefile(f)\n", "3: a notebook's functions stand in no file"),
    "source": ("from inspect import getsource\n", "3: a notebook's functions stand in no file"),
    "walrus in a default": ("def f(x=(a := 3)): pass\n", "3: `a` .*einthoven.first already"),
    "in a lambda's": ("f = lambda *, x=(a := 3): x\n", "3: `a` .*einthoven.first already"),
    "in a decorator": ("@(a := f)\ndef g(): pass\n", "3: `a` .*einthoven.first already"),
    "in a base": ("class G((a := object)): pass\n", "3: `a` .*einthoven.first already"),
    "module's __getattr__": ("def __getattr__(x): pass\n", "3: `__getattr__` is asked of a module"),
    "__all__": ("__all__ = ['a']\n", "3: `__all__` is asked of a module"),
    "IPython's last answer": ("_ = 1\n", "3: `_` is IPython's own"),
    "IPython's display": ("display = 1\n", "3: `display` is IPython's own"),
}  # fmt: skip
ACCEPTED = {
    "the log's name": "x = getLogger('einthoven')\n",
    "a file's name": "x = Path('einthoven.toml')\n",
    "a text to a person": "x = 'run `python -m einthoven`'\n",
    "another package": "x = version('numpy'), import_module('numpy'), sys.modules['numpy']\n",
    "versions of a list": "x = {name: version(name) for name in ('numpy',)}\n",
    "a name of a function's own": "def f():\n    a = [_ := 1]\n    return lambda: (a := 2)\n",
    "a global of its own": "x = 1\n\n\ndef f():\n    global x\n    x = 2\n",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_notebook_would_change_is_refused_by_file_and_line(builder, lay_out, text, message):
    spine = f"{SPINE}from einthoven.second import *\n"
    first = '"""Doc."""\n\nfrom pathlib import Path\n\na = Path()\n'
    with pytest.raises(builder.SpineError, match=f"^src/einthoven/second.py:{message}"):
        lay_out(spine, first=first, second=f'"""Doc."""\n\n{text}')


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_what_only_looks_like_it_is_laid_out(lay_out, text):
    spine = f"{SPINE}from einthoven.second import *\n"
    *_, cell = lay_out(spine, first='"""Doc."""\n\na = 1\n', second=f'"""Doc."""\n\n{text}')
    assert cell.source == text.strip()


def test_a_module_without_docstring_is_refused(builder, lay_out):
    with pytest.raises(builder.SpineError, match=r"first.py:1: no docstring"):
        lay_out(first="a = 1\n")


SPINES = {
    "other code beside imports": ("# %%\nfrom einthoven.first import *\nx = 1\n", "2: imports of"),
    "not the whole module": ("# %%\nfrom einthoven.first import a\n", r"2: write .* import \*"),
    "import of the package": ("# %%\nimport einthoven.first\n", r"2: write `from"),
    "no such module": ("# %%\nfrom einthoven.none import *\n", "2: there is no module"),
    "a name of a module": (f"{SPINE}\n# %%\na = 2\n", "8: `a` .*einthoven.first already"),
    "a string that is cut": ('# %%\nx = """\n# %%\n"""\n', "2: no Python"),
}  # fmt: skip


@pytest.mark.parametrize(("spine", "message"), SPINES.values(), ids=SPINES)
def test_a_spine_that_cannot_be_built_is_refused_by_line(builder, lay_out, spine, message):
    with pytest.raises(builder.SpineError, match=f"^spine.py:{message}"):
        lay_out(spine, first='"""Doc."""\n\na = 1\n')
