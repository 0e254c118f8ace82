"""CSV tables of archives, read so that a damaged row costs one record and not the archive."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from einthoven.errors import DataError

# The column that says what is wrong with a row; empty in a sound one.
ROW_PROBLEM = "row problem"


def read_archive_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV table of an archive, every cell as text, empty where nothing is written.

    Args:
        path: the table.
        columns: names that it must have.

    Returns:
        A row per line, with the column `ROW_PROBLEM` besides the table's own: a row with a cell too
        many, or with a quote that is not closed, cannot be trusted in any cell but the first.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    needs = f"It needs the columns {', '.join(columns)}; correct it or fetch it again."
    try:
        lines = io.StringIO(_table_text(path), newline="").readlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). {needs}") from error
    if not lines:
        raise DataError(f"{path} cannot be read as a CSV table (it is empty). {needs}")
    first, at, _ = _table_row(lines, 0, 0)
    header = _unique_names(first)
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header[:12]) + (" ..." if len(header) > 12 else "")
        raise DataError(f"{path} has no column {', '.join(missing)}; found: {found}. {needs}")
    rows = list(_table_rows(lines, at, len(header), path.name))
    return pd.DataFrame(rows, columns=[*header, ROW_PROBLEM], dtype=object)


def _table_text(path: Path) -> str:
    raw = path.read_bytes()
    # A BOM is what spreadsheet programs put first; Latin-1 is how they write umlauts.
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unique_names(written: Sequence[str]) -> list[str]:
    """Column names without blanks; a second one of a name gets a number."""
    names: list[str] = []
    for name in map(str.strip, written):
        names.append(f"{name}.{names.count(name)}" if name in names else name)
    return names


def _table_rows(lines: Sequence[str], at: int, n_cells: int, name: str) -> Iterator[list[str]]:
    """Each row's cells, as many as there are columns, and what is wrong with it."""
    while at < len(lines):
        line = at + 1
        cells, at, fault = _table_row(lines, at, n_cells)
        if fault:
            fault = f"line {line} of {name} {fault}"
        # Spreadsheets end a file in lines of nothing; a line of commas is a row all the same.
        if fault or len(cells) > 1 or any(map(str.strip, cells)):
            padded = cells[:n_cells] + [""] * (n_cells - len(cells))
            yield [*padded, fault]


def _table_row(lines: Sequence[str], at: int, n_cells: int) -> tuple[list[str], int, str]:
    """The cells of the row that begins at a line, the line after it, and what is wrong.

    A quote that is not closed swallows the lines that follow, up to the next quote or the end: such
    a row ends where its first line does, so that the others are rows of their own. ``n_cells`` is 0
    for the first line of all, which says how many there should be.
    """
    reader = csv.reader(_lines_from(lines, at))
    try:
        cells = next(reader, [])
    except csv.Error:  # a cell of over 128 KiB
        cells = []
    stop = at + max(1, reader.line_num)
    wanted = n_cells or len(cells)
    n_found, spans_lines = _n_filled(cells, wanted), stop > at + 1
    has_odd_quotes = (spans_lines or stop == len(lines)) and _has_odd_quotes(lines[at:stop])
    if not cells or has_odd_quotes or (spans_lines and n_found != wanted):
        alone = [cell.strip('" \r\n') for cell in lines[at].split(",")]
        return alone, at + 1, "has a quote that is not closed" if any(alone) else ""
    if n_found > wanted:
        return cells, stop, f"has {len(cells)} cells where its first line has {wanted}"
    return cells, stop, ""


def _lines_from(lines: Sequence[str], at: int) -> Iterator[str]:
    for number in range(at, len(lines)):
        yield lines[number]


def _n_filled(cells: Sequence[str], n_cells: int) -> int:
    """The number of cells; empty ones behind the last column do not count."""
    return len(cells) if any(map(str.strip, cells[n_cells:])) else min(len(cells), n_cells)


def _has_odd_quotes(lines: Sequence[str]) -> bool:
    """Do these lines end within quotes, or follow on text behind a quote that closes a cell?"""
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        return len(lines) > 1 or "end of data" in str(error)
    return False
