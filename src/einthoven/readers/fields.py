"""What the readers share: ages, sexes, numbers, names of files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from einthoven.console import log

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


def as_float32(signal: np.ndarray) -> np.ndarray:
    """Numbers as float32 in C order; what is too large for it becomes infinite, without a warning.

    A damaged file may hold any float64; infinities are told as missing samples later.
    """
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(signal, np.float32)


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
        self._refused: dict[str, str] = {}

    def has(self, relative: str) -> bool:
        """Is there a file of this name (forward slashes) below the root?"""
        parent, _, name = relative.rpartition("/")
        return name in self.names(parent)

    def missing(self, relative: str) -> str:
        """Why a file cannot be had, its folder that may not be opened included; else empty."""
        if self.has(relative):
            return ""
        parent = relative.rpartition("/")[0]
        if parent in self._refused:
            return (
                f"the folder {parent or self.root.name} cannot be opened: {self._refused[parent]}"
            )
        return f"{relative} is not there"

    def names(self, relative: str = "") -> frozenset[str]:
        """The names in one folder; empty where it is not there or may not be opened."""
        if relative not in self._names:
            self._names[relative] = frozenset()
            try:
                with os.scandir(self.root / relative) as entries:
                    self._names[relative] = frozenset(entry.name for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                self._refused[relative] = error.strerror or str(error)
        return self._names[relative]


def warn_of_folder(error: OSError) -> None:
    """Say that a folder may not be opened, so that its records are not missed silently."""
    if not isinstance(error, FileNotFoundError):
        log.warning(
            "%s cannot be opened (%s): the records in it are passed by, and not counted as found",
            error.filename, error.strerror,
        )  # fmt: skip


def files_below(
    root: Path,
    suffixes: tuple[str, ...],
    on_error: Callable[[OSError], object] = warn_of_folder,
) -> list[str]:
    """Every file below a folder whose name ends so, relative, forward slashes, sorted.

    Hidden files and folders are left out. ``on_error`` is told of folders that may not be opened.
    """
    found = []
    for folder, inner, names in os.walk(root, onerror=on_error):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        within = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if within == "." else f"{within}/"
        found += [
            prefix + name for name in names if name.endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)
