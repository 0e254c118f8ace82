"""What a module may hold that is to lie flat in a notebook, and which names it binds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Set

PACKAGE = "einthoven"
# What a module has of its own and a notebook's one namespace has not.
MODULE_NAMES = {
    "__file__", "__name__", "__path__", "__package__", "__spec__", "__loader__", "__doc__",
}  # fmt: skip
# What Python asks of a module, and never of a notebook.
MODULE_HOOKS = {"__all__", "__getattr__", "__dir__"}
DATA_LOADERS = ("importlib.resources", "importlib_resources", "pkgutil", "pkg_resources")
# What looks a module or a distribution up by its name; the first two import it.
IMPORTERS = {"import_module", "__import__", "run_module"}
BY_NAME = IMPORTERS | {"find_spec", "files", "version", "metadata", "distribution", "requires"}
# What looks for the file that something was defined in.
SOURCE_FINDERS = {"getfile", "getsourcefile", "getsource", "getsourcelines", "getmodule"}
# Names that IPython sets whenever a cell has run, and those that it gives a notebook.
IPYTHON_NAMES = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[iod]h|In|Out|get_ipython|display")


class SpineError(Exception):
    """The spine or a module cannot be laid out as one flat notebook."""


def is_future_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def refuse_unflat(tree: ast.Module, name: str, modules: Set[str]) -> None:
    """Refuse what would mean something else, or nothing, in a notebook.

    Args:
        name: of the file, for the message.
        modules: dotted names of the package's modules.

    Raises:
        SpineError: says the file, the line and what to write instead.
    """
    top = {id(node) for node in tree.body}
    imported = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        why = (
            _why_import(node)
            or _why_import_from(node, id(node) in top)
            or _why_name(node)
            or _why_attribute(node)
            or _why_call(node, imported)
            or _why_lookup(node)
            or _why_command(node)
            or _why_text(node, modules)
        )
        if why:
            raise SpineError(f"{name}:{getattr(node, 'lineno', 0)}: {why}")


def _why_import(node: ast.AST) -> str:
    if not isinstance(node, ast.Import):
        return ""
    for alias in node.names:
        if alias.name.split(".")[0] == PACKAGE:
            return f"write `from {PACKAGE}.x import name`, not `import {PACKAGE}.x`"
        if alias.name in DATA_LOADERS:
            return f"{alias.name} reads files of a package, which a notebook is not"
    return ""


def _why_import_from(node: ast.AST, is_top: bool) -> str:
    if not isinstance(node, ast.ImportFrom):
        return ""
    module, names = node.module or "", [alias.name for alias in node.names]
    if node.level:
        return f"write `from {PACKAGE}.x import name`, not a relative import"
    if module in DATA_LOADERS or (module == "importlib" and "resources" in names):
        return f"{module} reads files of a package, which a notebook is not"
    if module == "inspect" and SOURCE_FINDERS & set(names):
        return "a notebook's functions stand in no file; pass in what it is needed for"
    if "*" in names:
        return f"name what is imported of {module}; a star hides which names it brings"
    if module.split(".")[0] != PACKAGE:
        return ""
    if module == PACKAGE:
        return f"import from the module that defines it, not from {PACKAGE} itself"
    if not is_top:
        return "imports of ours stand at the top, outside functions, `if` and `try`"
    renamed = next((alias for alias in node.names if alias.asname), None)
    if renamed:
        return f"`as {renamed.asname}` does not survive inlining; rename {renamed.name} itself"
    return ""


def _why_name(node: ast.AST) -> str:
    if isinstance(node, ast.Name) and node.id in MODULE_NAMES:
        return f"{node.id} is another in a notebook; pass in what it is needed for"
    # `globals()["__file__"]`, `getattr(function, "__module__")`.
    if isinstance(node, ast.Constant) and node.value in (*MODULE_NAMES, "__module__"):
        return f"{node.value} is another in a notebook; pass in what it is needed for"
    return ""


def _why_attribute(node: ast.AST) -> str:
    if not isinstance(node, ast.Attribute):
        return ""
    if ast.unparse(node) in DATA_LOADERS:
        return f"{ast.unparse(node)} reads files of a package, which a notebook is not"
    if node.attr == "__module__":
        return "__module__ is another in a notebook; pass in what it is needed for"
    if node.attr in SOURCE_FINDERS and ast.unparse(node.value) == "inspect":
        return "a notebook's functions stand in no file; pass in what it is needed for"
    return ""


def _why_call(node: ast.AST, imported: Mapping[str, str]) -> str:
    """Refuse to look the package up by name, and to import what the text does not name."""
    if not isinstance(node, ast.Call):
        return ""
    written = ast.unparse(node.func).split(".")[-1]
    called = imported.get(written, written)
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    if called in BY_NAME and any(map(_names_package, given)):
        return f"{called} finds no {PACKAGE} where nothing is installed"
    if called in IMPORTERS and given and not isinstance(given[0], ast.Constant):
        return f"{called} of a computed name; import what is needed by its name"
    # `sys.modules.get("einthoven")`
    if isinstance(node.func, ast.Attribute) and _is_module_table(node.func.value):
        return _why_absent(given)
    return ""


def _why_lookup(node: ast.AST) -> str:
    """Refuse ``sys.modules["einthoven"]`` and ``"einthoven" in sys.modules``."""
    if isinstance(node, ast.Subscript) and _is_module_table(node.value):
        return _why_absent([node.slice])
    if isinstance(node, ast.Compare) and any(map(_is_module_table, node.comparators)):
        return _why_absent([node.left])
    return ""


def _why_absent(given: list[ast.expr]) -> str:
    is_ours = any(map(_names_package, given))
    return f"sys.modules has no {PACKAGE} where nothing is installed" if is_ours else ""


def _is_module_table(node: ast.expr) -> bool:
    return ast.unparse(node) in ("sys.modules", "modules")


def _why_command(node: ast.AST) -> str:
    """Refuse ``[sys.executable, "-m", "einthoven"]``."""
    if not isinstance(node, ast.List | ast.Tuple):
        return ""
    for option, module in zip(node.elts, node.elts[1:], strict=False):
        if isinstance(option, ast.Constant) and option.value == "-m" and _names_package(module):
            return f"`python -m {PACKAGE}` needs the package, which is not installed"
    return ""


def _names_package(node: ast.AST) -> bool:
    """Whether a text is the package's name or one that begins with it, also a composed one."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _names_package(node.values[0])
    if isinstance(node, ast.BinOp):
        return _names_package(node.left)
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return node.value == PACKAGE or node.value.startswith(f"{PACKAGE}.")


def _why_text(node: ast.AST, modules: Set[str]) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return ""
    if node.value == "__main__":
        return "a notebook is always `__main__`; leave such a block to the command line"
    if node.value in modules and "." in node.value:
        return f"{node.value} cannot be imported by name where nothing is installed"
    return ""


# Names -------------------------------------------------------------------------------------------


def claims_of(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """The names that a module binds at its top level, without those it imports of ours.

    Yields:
        Name, what it is where it is imported (``numpy``, ``pathlib.Path``) and else nothing, and
        its line.
    """
    for node in tree.body:
        yield from _bound_by(node)
    for inner in ast.walk(tree):
        # A function that rebinds a name of the module; in a notebook it is everybody's.
        if isinstance(inner, ast.Global):
            yield from ((name, "", inner.lineno) for name in inner.names)


def why_no_name(name: str) -> str:
    """Why a notebook cannot have this name at its top level; empty where it can."""
    if name in MODULE_HOOKS:
        return "is asked of a module and never of a notebook; do without it"
    if IPYTHON_NAMES.fullmatch(name):
        return "is IPython's own in a notebook; rename it"
    return ""


def _bound_by(node: ast.AST) -> Iterator[tuple[str, str, int]]:
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, "", line
        # Its body is its own; what stands in its head is evaluated where it is defined.
        for part in _head_of(node):
            yield from _bound_by(part)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            yield name, alias.name if alias.asname else name, line
    elif isinstance(node, ast.ImportFrom):
        ours = (node.module or "").split(".")[0] == PACKAGE
        for alias in [] if ours or is_future_import(node) else node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}", line
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id, "", line
    elif isinstance(node, ast.Lambda):
        for part in _head_of(node):
            yield from _bound_by(part)
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        # Their variables are their own; what `:=` binds in them is the module's.
        yield from (
            claim
            for inner in ast.walk(node)
            if isinstance(inner, ast.NamedExpr)
            for claim in _bound_by(inner.target)
        )
    else:
        named = getattr(node, "name", None)
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and named:
            yield named, "", line
        if isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest, "", line
        for child in ast.iter_child_nodes(node):
            yield from _bound_by(child)


def _head_of(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda,
) -> Iterator[ast.AST]:
    """Decorators, defaults and bases."""
    yield from getattr(node, "decorator_list", [])
    if isinstance(node, ast.ClassDef):
        yield from [*node.bases, *node.keywords]
        return
    yield from node.args.defaults
    yield from filter(None, node.args.kw_defaults)
