"""How Sphinx makes a site of these pages: ``make docs``, then open ``build/docs/index.html``.

The pages are plain Markdown, so that a git host shows them as they are. What the site alone needs
is added here: its contents, and the docstrings on the page of Python functions.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util import logging

import einthoven

log = logging.getLogger(__name__)

project = "Einthoven"
author = "the Einthoven authors"
project_copyright = "the Einthoven authors, Apache-2.0"
release = version = einthoven.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
templates_path = ["templates"]
exclude_patterns = ["_build", "templates", "static"]

# Anchors as a git host makes them, so that one link works in both places.
myst_heading_anchors = 4

# Docstrings are of Google's form, and write names in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
# Types in signatures, of NumPy and PyTorch mostly: their pages are on other hosts, which an offline
# build does not ask.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"Einthoven {release}"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#9c1c31", "color-brand-content": "#9c1c31"},
    "dark_css_variables": {"color-brand-primary": "#f0869a", "color-brand-content": "#f0869a"},
}
copybutton_prompt_text = r"\$ |PS> |>>> "  # a prompt is no part of a command
copybutton_prompt_is_regexp = True


# Contents ----------------------------------------------------------------------------------------

# Pages in the order in which they are read; further ones of a folder follow by name.
CONTENTS = {
    "Start": ["getting-started"],
    "How to": [
        "how-to/download", "how-to/own-data", "how-to/check", "how-to/resume", "how-to/evaluate",
        "how-to/predict", "how-to/explain", "how-to/export", "how-to/serve", "how-to/compare",
        "how-to/cross-validation", "how-to/*",
    ],
    "Reference": [
        "reference/settings", "reference/cli", "reference/python", "reference/files",
        "reference/metrics", "reference/*",
    ],
    "Explanation": ["explanation/labels", "explanation/splits-and-leakage", "explanation/signal",
        "explanation/why-100-hz", "explanation/training", "explanation/exact-resume",
        "explanation/calibration", "explanation/*"],
    "When something is wrong": ["troubleshooting"],
    "Runbook": ["runbook"],
}  # fmt: skip


def contents(folder: str) -> str:
    """The tables of contents, as Sphinx takes them; pages that are not there are left out."""
    parts = []
    for caption, pages in CONTENTS.items():
        there = [page for page in pages if "*" in page or Path(folder, f"{page}.md").is_file()]
        fence = [":hidden:", ":glob:", f":caption: {caption}", "", *there]
        parts.append("\n```{toctree}\n" + "\n".join(fence) + "\n```\n")
    return "".join(parts)


# Python reference --------------------------------------------------------------------------------


def with_docstring(match: re.Match[str]) -> str:
    """The directive that shows what a line of the page names."""
    path, _, name = match["name"].rpartition(".")
    found = getattr(importlib.import_module(path), name, None)
    if found is None:
        log.warning("docs/reference/python.md names %s, which is not there", match["name"])
        return match[0]
    if inspect.isclass(found):
        directive, options = "autoclass", ["   :members:"]
    else:
        directive, options = "autofunction", []
    body = "\n".join([f".. {directive}:: {match['name']}", *options])
    return f"```{{eval-rst}}\n{body}\n```"


def add_to_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add what the site shows beyond a page's own text."""
    if docname == "index":
        source[0] += contents(str(app.srcdir))
    if docname == "reference/python":
        source[0] = re.sub(
            r"^- `(?P<name>einthoven[\w.]+)`.*$", with_docstring, source[0], flags=re.M
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", add_to_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
