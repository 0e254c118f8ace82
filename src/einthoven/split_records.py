"""The records of splits: names in ``splits.json``, row numbers of the manifest in memory.

Ten million names take a gigabyte as Python strings and forty megabytes as row numbers; so the file
is written and read piece by piece.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.compute import index_in

from einthoven.columns import number_lists, release_freed, row_pieces
from einthoven.errors import DataError
from einthoven.files import atomic_path, json_text, read_json, write_json

RECORDS_PER_PIECE = 4096
SPLITS = ("train", "val", "test")
# Records that there are for each name from which on the names, not the records, are indexed.
FEW_NAMES = 16


class SplitRecords(MutableSequence[str]):
    """Names of records, as a list of them behaves, kept as their rows until somebody changes it.

    Attributes:
        manifest: whose column ``record`` has the names.
        rows: ``(n,)`` int32 of them; None once the list has been changed.
    """

    def __init__(self, manifest: pd.DataFrame, rows: np.ndarray) -> None:
        self.manifest = manifest
        self.rows: np.ndarray | None = rows.astype(np.int32, copy=False)
        self._names: list[str] = []

    def pieces(self) -> Iterator[list[str]]:
        """The names, some thousand at a time."""
        if self.rows is None:
            yield self._names
            return
        records = self.manifest["record"]
        for piece in row_pieces(len(self.rows)):
            yield records.iloc[self.rows[piece]].tolist()

    def tolist(self) -> list[str]:
        return [name for piece in self.pieces() for name in piece]

    def _changing(self) -> list[str]:
        if self.rows is not None:
            self._names, self.rows = self.tolist(), None
        return self._names

    def __len__(self) -> int:
        return len(self._names) if self.rows is None else len(self.rows)

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces():
            yield from piece

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if self.rows is None:
            return self._names[index]
        found = self.manifest["record"].iloc[self.rows[index]]
        return found.tolist() if isinstance(index, slice) else str(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._changing()[index] = value

    def __delitem__(self, index: int | slice) -> None:
        del self._changing()[index]

    def insert(self, index: int, value: str) -> None:
        self._changing().insert(index, value)

    def __add__(self, other: Iterable[str]) -> list[str]:
        return [*self, *other]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SplitRecords):
            return self.tolist() == other.tolist()
        return isinstance(other, list) and self.tolist() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.tolist())


# Rows of names -----------------------------------------------------------------------------------


def rows_in_manifest(manifest: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The row of each named record, -1 for those that are not there: ``(n,)`` int32."""
    if isinstance(names, SplitRecords) and names.manifest is manifest and names.rows is not None:
        return names.rows
    return rows_of_records(manifest["record"], names)


def rows_of_records(records: pd.Series[str], names: Iterable[str]) -> np.ndarray:
    """The row of each named record, -1 for those that are not there: ``(n,)`` int32.

    Through Arrow, which looks a million names up without making an object of each.
    """
    kind = pa.large_string()
    names = names if isinstance(names, list | np.ndarray | pd.Series) else list(names)
    asked = pa.array(names, kind)
    if len(asked) * FEW_NAMES < len(records):
        return _rows_of_few(records, asked)
    found = index_in(asked, value_set=pa.array(records, kind))
    rows = np.array(found.fill_null(-1), np.int32)
    del found
    release_freed()
    return rows


def _rows_of_few(records: pd.Series[str], asked: pa.Array) -> np.ndarray:
    """The same where records are many more than names: these are the index then."""
    encoded = asked.dictionary_encode()
    first = np.full(len(encoded.dictionary), -1, np.int32)
    for piece in reversed(list(row_pieces(len(records)))):
        place = index_in(pa.array(records.iloc[piece], asked.type), value_set=encoded.dictionary)
        place = place.fill_null(-1).to_numpy()
        rows = np.flatnonzero(place >= 0)[::-1]
        first[place[rows]] = rows + piece.start
    return np.asarray(first[encoded.indices.to_numpy()])


class RowFinder:
    """Finds the rows of names that mostly come in the order of the manifest, without an index."""

    def __init__(self, records: pd.Series[str]) -> None:
        self.records = records
        self.next, self.room = 0, 2

    def find(self, names: list[str]) -> np.ndarray:
        """The rows of some names; they are looked for after those found before, then everywhere."""
        while True:
            stop = self.next + self.room * len(names)
            rows = rows_of_records(self.records.iloc[self.next : stop], names)
            if (rows >= 0).all():
                rows += self.next
                self.next = int(rows.max(initial=-1)) + 1
                return rows
            if stop >= len(self.records):
                return rows_of_records(self.records, names)
            self.room *= 2


# The file ----------------------------------------------------------------------------------------


def write_splits(path: Path, splits: Mapping[str, Any]) -> None:
    """Write ``splits.json`` as `write_json` does, its lists piece by piece."""
    listed = [split for split in SPLITS if isinstance(splits.get(split), SplitRecords)]
    places = {split: f"\0{split}" for split in listed}
    if not listed:
        write_json(path, splits)
        return
    shape = json_text({**splits, **places})
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for split in listed:
            before, _, shape = shape.partition(json.dumps(places[split]))
            file.write(before)
            file.writelines(_told_names(splits[split]))
        file.write(shape)


def _told_names(names: SplitRecords) -> Iterator[str]:
    first = True
    for piece in names.pieces():
        for name in piece:
            yield ("[\n    " if first else ",\n    ") + json.dumps(name, ensure_ascii=False)
            first = False
    yield "[]" if first else "\n  ]"


def read_splits(path: Path, manifest: pd.DataFrame | None = None) -> dict[str, Any]:
    """The splits that `einthoven prepare` made.

    Args:
        manifest: of the store they belong to; with it the lists of records are `SplitRecords`, as
            long as the store has all of them.

    Raises:
        DataError: there are none, or the file is damaged.
    """
    if not path.exists():
        raise DataError(f"{path} is not there; run `einthoven prepare` first")
    splits = None if manifest is None else _read_by_rows(path, manifest)
    if splits is None:
        splits = _read_whole(path)
    if not isinstance(splits, dict):
        raise DataError(f"{path} holds no splits; run `einthoven prepare` to remake it")
    return splits


def _read_whole(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError as error:
        found, _, _ = str(error).rpartition("; ")
        raise DataError(f"{found}; run `einthoven prepare` to remake it") from error


def read_split_facts(path: Path) -> dict[str, Any]:
    """What ``splits.json`` holds, its lists of records left out or empty.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if path.exists():
        read = _read_apart(path, lambda lines: None)
        if read is not None:
            return read[0]
    return read_splits(path)


def _read_by_rows(path: Path, manifest: pd.DataFrame) -> dict[str, Any] | None:
    """With `SplitRecords`; None where the file is laid out otherwise, or names other records."""
    read = _read_apart(path, lambda lines: _rows_of_lines(lines, manifest))
    if read is None or any((rows < 0).any() for rows in read[1].values()):
        return None
    return read[0] | {split: SplitRecords(manifest, rows) for split, rows in read[1].items()}


def _read_apart(
    path: Path, take: Callable[[Iterator[bytes]], Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What the file holds with empty lists of records, and what was made of the lines of each list.

    None where the file is not laid out as `write_splits` does it.
    """
    others: list[bytes] = []
    taken: dict[str, Any] = {}
    begins = {f'  "{split}": [\n'.encode(): split for split in SPLITS}
    try:
        with path.open("rb") as file:
            for line in file:
                others.append(line)
                if line in begins:
                    lines = _lines_of_list(file, others)
                    taken[begins[line]] = take(lines)
                    for _ in lines:  # what was not taken is read over
                        pass
        facts = json.loads(b"".join(others))
    except ValueError:
        return None
    return (facts, taken) if isinstance(facts, dict) else None


def _lines_of_list(lines: Iterator[bytes], others: list[bytes]) -> Iterator[bytes]:
    """The lines up to a closing bracket, which joins the others."""
    for line in lines:
        if line.startswith(b"  ]"):
            others.append(line)
            return
        yield line


def _rows_of_lines(lines: Iterator[bytes], manifest: pd.DataFrame) -> np.ndarray:
    """The rows of the records that lines name."""
    finder = RowFinder(manifest["record"])
    found = [np.zeros(0, np.int32)]
    while piece := list(islice(lines, RECORDS_PER_PIECE)):
        found.append(finder.find(json.loads(b"[" + b"".join(piece).rstrip(b",\n") + b"]")))
    return np.concatenate(found)


def tell_records(manifest: pd.DataFrame, rows: np.ndarray) -> Iterator[str]:
    """A JSON list of records and their labels, in pieces: as a whole it is larger than they are."""
    records, labels = manifest["record"], manifest["labels"].to_numpy()
    yield "["
    for start in range(0, len(rows), RECORDS_PER_PIECE):
        piece = rows[start : start + RECORDS_PER_PIECE]
        numbers, lists = number_lists(labels[piece])
        told = [json.dumps(list(names)) for names in lists]
        pairs = zip(records.iloc[piece].tolist(), numbers.tolist(), strict=True)
        yield (", " if start else "") + ", ".join(f"[{json.dumps(r)}, {told[n]}]" for r, n in pairs)
    yield "]"
