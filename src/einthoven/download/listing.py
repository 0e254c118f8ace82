"""Which files of an archive are fetched: all, those of one rate, or those of a subset of records.

A subset is chosen by the records' names alone, so that it is the same on every machine and a larger
one holds the smaller. Tables that list all records are cut down to those that are there: a record
that a table lists and that has no files would end as rejected.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import quote

from einthoven.download.fetching import RemoteFile
from einthoven.errors import DataError
from einthoven.readers.fields import path_problem
from einthoven.sources import Source

SUMS_NAME = "SHA256SUMS.txt"
RECORD_SUFFIXES = (".hea", ".dat", ".mat", ".xyz")
_SUMS_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+[*]?(.+)")


def parse_sums(text: str, part: str = "") -> dict[str, str]:
    """A list of SHA-256 sums as ``{path: checksum}``.

    Args:
        text: of the list.
        part: a folder, outside which a line that names no good place is passed by.

    Raises:
        DataError: a line is no such sum, or names a file outside the archive's folder.

    >>> parse_sums("0" * 64 + " RECORDS")["RECORDS"][:4]
    '0000'
    """
    sums: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        match = _SUMS_LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{SUMS_NAME} has a line that is no checksum: {line[:80]!r}")
        path = match[2].removeprefix("./")
        problem = path_problem(path)
        if not problem and is_hidden_path(path):
            problem = f"{path!r} is a hidden file"
        if not problem:
            sums[path] = match[1].lower()
        elif not part or path.startswith(part):
            raise DataError(f"{SUMS_NAME}: {problem}")
    return sums


def is_hidden_path(path: str) -> bool:
    """Does a part of this path begin with a dot, as the folder does that is ours?"""
    return any(part.startswith(".") for part in path.split("/"))


def listed_files(source: Source, address: str, sums: Mapping[str, str]) -> list[RemoteFile]:
    """The files that the list names and readers need: tables first, as those say what is there.

    Raises:
        DataError: no record is among them.
    """
    files = [
        RemoteFile(path, address + quote(path), "sha256", checksum)
        for path, checksum in sums.items()
        if _is_wanted(source, path)
    ]
    if not any(is_signal(file.path) for file in files):
        where = f" under {source.part}" if source.part else ""
        raise DataError(f"{SUMS_NAME} of {source.name} at {address} lists no records{where}")
    return sorted(files, key=lambda file: is_signal(file.path))


def _is_wanted(source: Source, path: str) -> bool:
    if any(fnmatchcase(path, pattern) for pattern in source.skipped):
        return False
    return path.startswith(source.part) or path == "LICENSE.txt"


def is_signal(path: str) -> bool:
    """Is this a file of a record?"""
    return path.endswith(RECORD_SUFFIXES)


def of_rate(files: Iterable[RemoteFile], source: Source, rate: int) -> list[RemoteFile]:
    """The files without the signals of other rates than ``rate``; all of them where it is 0."""
    others = tuple(f"records{other}/" for other in source.rates if rate and other != rate)
    return [file for file in files if not (others and file.path.startswith(others))]


# Subsets ---------------------------------------------------------------------------------------


def record_key(path: str) -> str:
    """What the files of one record share; PTB-XL's two rates are one record.

    >>> record_key("records100/00000/00001_lr.dat"), record_key("training/A00/A00001.hea")
    ('00001', 'A00001')
    """
    return re.sub(r"_[lh]r$", "", PurePosixPath(path).name.partition(".")[0])


def choose_records(keys: Iterable[str], count: int, strata: Mapping[str, str]) -> set[str]:
    """``count`` of the keys, in turn from each stratum, in an order that only names decide.

    >>> len(choose_records(["a", "b", "c"], 2, {}))
    2
    """
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    turns: dict[str, int] = {}
    ranked = []
    for place, key in enumerate(ordered):
        stratum = strata.get(key, "")
        turns[stratum] = turns.get(stratum, 0) + 1
        ranked.append((turns[stratum], place, key))
    return {key for _, _, key in sorted(ranked)[:count]}


def of_records(files: Iterable[RemoteFile], chosen: set[str]) -> list[RemoteFile]:
    """The files that are of no record, and those of the chosen ones."""
    return [file for file in files if not is_signal(file.path) or record_key(file.path) in chosen]


@dataclass(frozen=True)
class ListingTable:
    """A table that lists records: its rows, the key of each, and the line of names, if any."""

    header: Sequence[str]
    rows: tuple[tuple[str, Sequence[str]], ...]
    folds: Mapping[str, str]

    def cut(self, chosen: set[str]) -> str:
        """The table's text with the rows of the chosen records alone."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.header] if self.header else [])
        writer.writerows(row for key, row in self.rows if key in chosen)
        return text.getvalue()


def read_listing(text: str) -> ListingTable:
    """A table that lists records, by PTB-XL's column of files or by the first cell of each line.

    >>> read_listing("A00001,N\\nA00002,A\\n").cut({"A00002"})
    'A00002,A\\n'
    """
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    header = rows.pop(0) if rows and "filename_lr" in rows[0] else []
    column = header.index("filename_lr") if header else 0
    keyed = tuple((record_key(row[column]), row) for row in rows if len(row) > column)
    folds = {}
    if "strat_fold" in header:
        place = header.index("strat_fold")
        folds = {key: row[place] for key, row in keyed if len(row) > place}
    return ListingTable(header, keyed, folds)


def is_listing(source: Source, path: str) -> bool:
    """Does this table list the archive's records, so that a subset has to cut it?"""
    return any(fnmatchcase(path, pattern) for pattern in source.listing)
