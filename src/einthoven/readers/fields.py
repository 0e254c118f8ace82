"""What the readers share: ages, sexes, tables of an archive, names of files."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from einthoven.errors import DataError

# Fields ----------------------------------------------------------------------------------------

# Ages over 89 identify a person in the archives' countries; PTB-XL writes 300 for all of them.
ANONYMISED_AGE = 90.0
PTBXL_OVER_89 = 300.0
OLDEST_CREDIBLE_AGE = 125.0

_SEX_WORDS = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male"}


def parse_age(written: str) -> float | None:
    """Years, or None where nothing credible is written; ages over 89 become 90.

    >>> parse_age("56"), parse_age("300"), parse_age("NaN"), parse_age("-1"), parse_age("064Y")
    (56.0, 90.0, None, None, 64.0)
    """
    try:
        years = float(written.strip().rstrip("yY"))
    except ValueError:
        return None
    if not math.isfinite(years) or years < 0:
        return None
    if years == PTBXL_OVER_89 or 89 < years <= OLDEST_CREDIBLE_AGE:
        return ANONYMISED_AGE
    return years if years <= 89 else None


def parse_sex(written: str) -> str:
    """``"female"``, ``"male"``, or empty where neither is written.

    >>> parse_sex("Female"), parse_sex("M"), parse_sex("Unknown")
    ('female', 'male', '')
    """
    return _SEX_WORDS.get(written.strip().lower(), "")


def parse_id(written: str) -> str:
    """An id as an integer's text where it is one: pandas writes ``15709.0`` beside empty cells.

    >>> parse_id("15709.0"), parse_id("S00001"), parse_id(" ")
    ('15709', 'S00001', '')
    """
    text = written.strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text


def comment_fields(comments: Sequence[str]) -> dict[str, str]:
    """``key: value`` comments of a header, keys lower-cased; the first of a key counts.

    >>> comment_fields(["age: 81", "Diagnose:", "Reason for admission: Myocardial infarction"])
    {'age': '81', 'diagnose': '', 'reason for admission': 'Myocardial infarction'}
    """
    fields: dict[str, str] = {}
    for comment in comments:
        key, colon, value = comment.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


# Tables ----------------------------------------------------------------------------------------


def read_archive_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV table of an archive, every cell as text, empty where nothing is written.

    Args:
        path: the table.
        columns: names that it must have.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    try:
        table = _read_text_cells(path)
    except (OSError, ValueError) as error:  # pandas' ParserError and UnicodeError are ValueErrors
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{path} cannot be read as a CSV table ({reason}). "
            f"It needs the columns {', '.join(columns)}; correct it or fetch it again."
        ) from error
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = ", ".join(table.columns[:12]) + (" ..." if len(table.columns) > 12 else "")
        raise DataError(
            f"{path} has no column {', '.join(missing)}; found: {found}. "
            f"It needs {', '.join(columns)}; correct it or fetch it again."
        )
    return table


def _read_text_cells(path: Path) -> pd.DataFrame:
    # A BOM is what spreadsheet programs put first; Latin-1 is how they write umlauts.
    try:
        return _read_csv_cells(path, "utf-8-sig")
    except UnicodeDecodeError:
        return _read_csv_cells(path, "latin-1")


def _read_csv_cells(path: Path, encoding: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        # A cell too many in each row: pandas would drop it, or call the first column an index.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding=encoding, index_col=False
            )
        except pd.errors.ParserWarning:
            raise ValueError("its rows have more cells than its first line") from None


# Names of files --------------------------------------------------------------------------------


def path_problem(relative: str) -> str:
    """Why a path that a table or header names may not be opened; empty when it may.

    >>> path_problem("records100/00000/00001_lr"), path_problem("../x")
    ('', "the path '../x' leads out of the archive's folder")
    """
    if not relative.strip():
        return "no file is named"
    # Windows takes either slash, a drive before a colon; a NUL ends a name for the system.
    if "\0" in relative or "\n" in relative:
        return f"the path {relative!r} is not one"
    path = PurePosixPath(relative.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in relative:
        return f"the path {relative!r} leads out of the archive's folder"
    return ""


class FolderNames:
    """Which files a folder tree has, asking the system once per folder and not once per file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def has(self, relative: str) -> bool:
        """Is there a file of this name (forward slashes) below the root?"""
        parent, _, name = relative.rpartition("/")
        return name in self.names(parent)

    def names(self, relative: str = "") -> frozenset[str]:
        """The names in one folder; empty where it is not there."""
        if relative not in self._names:
            try:
                with os.scandir(self.root / relative) as entries:
                    self._names[relative] = frozenset(entry.name for entry in entries)
            except OSError:
                self._names[relative] = frozenset()
        return self._names[relative]


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Every file below a folder whose name ends so, relative, forward slashes, sorted.

    Hidden files and folders are left out.
    """
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        within = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if within == "." else f"{within}/"
        found += [
            prefix + name for name in names if name.endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)
