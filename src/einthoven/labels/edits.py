"""A person's edits of the mapping table: read from whatever a spreadsheet made of it, and kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from einthoven.columns import release_freed, whole_texts
from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.labels.mapping import MappingRow, split_labels
from einthoven.labels.sets import LabelSet, known_label, reduce_to_single
from einthoven.settings import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

# Archive and record id.
RecordKey = tuple[str, str]


@dataclass(frozen=True)
class MappingLine:
    """One row of a mapping file, and where it stands."""

    path: Path
    line: int
    values: Mapping[str, str]

    @property
    def is_edited(self) -> bool:
        """Has a person changed ``labels``? Their order, case and blanks do not count."""
        return self._labels("labels") != self._labels("labels_mapped")

    def contradicts(self, other: MappingLine) -> bool:
        """Has a person given one record other labels in each of two lines?"""
        both_edited = self.is_edited and other.is_edited
        return both_edited and self._labels("labels") != other._labels("labels")

    def _labels(self, column: str) -> set[str]:
        return set(split_labels(self.values.get(column, "").lower()))


# Reading -----------------------------------------------------------------------------------------


SAVE_OR_DELETE = (
    "Save it as CSV with all its columns, or delete it to have it made anew, without edits."
)


def read_mapping_lines(
    path: Path, columns: Sequence[str], advice: str = SAVE_OR_DELETE
) -> list[MappingLine]:
    """The rows of a mapping file, as this program or a spreadsheet wrote it.

    A byte order mark, UTF-16 or Windows' own encoding, any line ends, any quoting, columns in
    another order, and comma, semicolon or tab as separator are all accepted; empty rows are not
    rows.

    Args:
        path: the file.
        columns: the columns that it must have.
        advice: what to do where it lacks one.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    text = _decode_mapping(path)
    header_line = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header_line.count))
    header = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(header) or "nothing"
        raise DataError(f"{path} lacks the column {missing[0]} (found: {found}). {advice}")
    return [
        MappingLine(path, reader.line_num, dict(zip(header, map(str.strip, cells), strict=False)))
        for cells in reader
        if any(cell.strip() for cell in cells)
    ]


def read_plain_mapping(path: Path, columns: Sequence[str]) -> dict[str, pd.Series[str]] | None:
    """The columns of a mapping file as this program writes it: without an object for each cell.

    None of one that a spreadsheet may have written; that is for `read_mapping_lines`.
    """
    with path.open("rb") as file:
        if file.readline() != (",".join(columns) + "\n").encode():
            return None
    text = pa.large_string()
    try:
        table = pyarrow.csv.read_csv(
            path,
            # Each thread would keep what it has freed.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, text), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    read: dict[str, pd.Series[str]] = {}
    is_blank: Any = True
    for name in columns:
        column = pa.compute.utf8_trim_whitespace(table[name])
        table = table.drop_columns(name)
        is_blank = pa.compute.and_(is_blank, pa.compute.equal(column, ""))
        read[name] = whole_texts(column)
        del column
        release_freed()
    return None if pa.compute.any(is_blank).as_py() else read


def _decode_mapping(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    encodings = ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            # csv wants line ends as they are; a lone \r is what old spreadsheets write.
            return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path} is not text; save it as CSV, or delete it to have it made anew")


def keyed_lines(lines: Iterable[MappingLine]) -> dict[RecordKey, MappingLine]:
    """Lines by record; of several lines of one record, as copying rows leaves them, the edited one.

    Raises:
        DataError: two lines of one record are edited in different ways.
    """
    keyed: dict[RecordKey, MappingLine] = {}
    for line in lines:
        key = (line.values.get("archive", ""), line.values.get("record_id", ""))
        first = keyed.setdefault(key, line)
        if line.contradicts(first):
            raise DataError(
                f"{line.path.name} has two lines for the record {'/'.join(key)}, {first.line} and "
                f"{line.line}, with different labels; delete one of them"
            )
        if line.is_edited:
            keyed[key] = line
    return keyed


# Keeping -----------------------------------------------------------------------------------------


def apply_edits(
    rows: Sequence[MappingRow],
    edits: Mapping[RecordKey, MappingLine],
    label_set: LabelSet,
    single: bool,
) -> tuple[int, dict[RecordKey, MappingLine]]:
    """Put a person's labels into freshly made rows.

    Returns:
        How many rows now differ from what the tables gave, and the edits of records that are not
        among the rows.

    Raises:
        DataError: every edit that names no label of the set, with its line and the nearest label.
    """
    n_kept, problems = 0, []
    met: dict[RecordKey, MappingRow] = {(row["archive"], row["record_id"]): row for row in rows}
    used = set()
    for key, row in met.items():
        written = key if key in edits else _key_without_zeros(key, met)
        if written in edits:
            used.add(written)
            labels, problem = edited_labels(edits[written], label_set, single)
            problems += [problem] if problem else []
            row["labels"] = ";".join(labels)
            n_kept += row["labels"] != row["labels_mapped"]
    if problems:
        raise DataError(
            f"{plural(len(problems), 'edited label')} cannot be used:\n  " + "\n  ".join(problems)
            + f"\nThe labels of {label_set.name} are {', '.join(label_set.labels)}."
        )  # fmt: skip
    return n_kept, {key: line for key, line in edits.items() if key not in used}


def _key_without_zeros(key: RecordKey, known: Mapping[RecordKey, object]) -> RecordKey:
    """The key that a spreadsheet leaves of a numeric id such as 0012, unless it is another's."""
    archive, record_id = key
    short = (archive, record_id.lstrip("0") or "0")
    return short if record_id.isdigit() and short not in known else key


def edited_labels(
    line: MappingLine, label_set: LabelSet, single: bool
) -> tuple[tuple[str, ...], str]:
    """The labels that a person wrote, in the set's order, or what is wrong with them."""
    where = f"{line.path.name}, line {line.line} ({line.values.get('record_id', '')})"
    written = _written_labels(line.values.get("labels", ""), label_set)
    known = {part: known_label(part, label_set.labels) for part in written}
    for part, label in known.items():
        if label is None:
            return (), f"{where}: no label {part!r}{_nearest_label(part, label_set)}"
    labels = tuple(label for label in label_set.labels if label in known.values())
    if not single or len(labels) < 2:
        return labels, ""
    chosen = reduce_to_single(labels, label_set)
    problem = "" if chosen else f"{where}: {' and '.join(labels)}, but the task takes one label"
    return ((chosen,) if chosen else ()), problem


def _written_labels(text: str, label_set: LabelSet) -> list[str]:
    # People separate labels by commas as well; a label's own name may hold one.
    parts: list[str] = []
    for part in split_labels(text):
        whole = known_label(part, label_set.labels) is not None
        parts += [part] if whole else [piece.strip() for piece in part.split(",") if piece.strip()]
    return parts


def _nearest_label(written: str, label_set: LabelSet) -> str:
    by_lower = {label.lower(): label for label in label_set.labels}
    hint = did_you_mean(written.lower(), by_lower)
    for lower, label in by_lower.items():
        if hint.endswith(f" {lower}?"):
            return f"; did you mean {label}?"
    return hint
