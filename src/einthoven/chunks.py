"""Chunks of records: which there are, which are done, and what became of their records.

A chunk is a few hundred records of one archive, and becomes one shard. Its name holds a digest of
the records, their files' sizes and times, and the signal settings, so that a changed file or
setting never meets an old shard.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven.audit.sketches import Sketches
from einthoven.columns import column_of_texts, number_few, own_columns, row_pieces
from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.files import digest
from einthoven.settings import Settings
from einthoven.shards import SHARD_VERSION, numeric_versions, versions_in_words
from einthoven.store import shard_path

RECORDS_PER_SHARD = 512
LARGEST_FILE_BYTES = 1 << 30
# Names of files whose sizes and times are in memory at a time.
MOST_LISTED = 2_000_000
# Of files that a WFDB header of the same name speaks of, in all archives that have a reader.
OWN_SIGNAL_SUFFIXES = (".dat", ".mat")

# Which there are ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Records that one worker turns into one shard.

    Attributes:
        name: of the shard; tells its content.
        rows: ``(n,)`` positions in the mapping table.
        mapping: the table; all chunks share it.
        archives_dir: what its ``folder`` is relative to.
        too_large: what is wrong with records whose files are not read, by their rows.
    """

    name: str
    rows: np.ndarray
    mapping: pd.DataFrame = field(repr=False)
    archives_dir: Path
    too_large: Mapping[int, str]

    @property
    def sources(self) -> list[tuple[str, str, str, str]]:
        """Reader, folder, path and known problem (or empty) of each record."""
        cells = _cells_of_rows(self.mapping[["reader", "folder", "path", "problem"]], self.rows)
        return [
            (reader, str(self.archives_dir / folder), path, problem or self.too_large.get(row, ""))
            for row, reader, folder, path, problem in zip(self.rows.tolist(), *cells, strict=True)
        ]


def _cells_of_rows(table: pd.DataFrame, rows: np.ndarray) -> list[list[Any]]:
    """The columns of some rows, as lists."""
    is_run = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
    # Neighbours, which they mostly are, are seen where they lie.
    part = table.iloc[rows[0] : rows[-1] + 1] if is_run else table.iloc[rows]
    return [part[name].tolist() for name in part.columns]


def signal_settings(settings: Settings) -> dict[str, Any]:
    """What a shard depends on besides the records, as plain values."""
    band = (settings.bandpass_low_hz, settings.bandpass_high_hz) if settings.bandpass else None
    return {
        "version": SHARD_VERSION,
        "target_fs": settings.target_fs,
        "target_samples": settings.target_samples,
        "band": band,
    }


def plan_chunks(
    mapping: pd.DataFrame, rows: np.ndarray, archives_dir: Path, how: Mapping[str, Any]
) -> list[Chunk]:
    """Cut chosen records into chunks of one archive each, and name each by its content.

    Args:
        mapping: of `read_mapping`.
        rows: positions of the chosen records.
        archives_dir: what the mapping's ``folder`` is relative to.
        how: of `signal_settings`.
    """
    table = mapping[["record_id", "reader", "folder", "path", "problem"]]
    archive, _ = number_few(mapping["archive"])
    files = FileStamps()
    chunks: list[Chunk] = []
    of_rows = archive[rows]
    for which in pd.unique(of_rows):
        members = _rows_of(rows, of_rows == which)
        name = _safe_name(str(mapping["archive"].iloc[members[0]]))
        for number, start in enumerate(range(0, len(members), RECORDS_PER_SHARD)):
            part = members[start : start + RECORDS_PER_SHARD]
            content, too_large = _chunk_content(table, part, archives_dir, files)
            title = f"{name}-{number:05d}-{digest([dict(how), content])}"
            chunks.append(Chunk(title, part, mapping, archives_dir, too_large))
    return chunks


def _rows_of(rows: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """Those rows; where they lie together, as those of an archive mostly do, without a copy."""
    first, n_members = int(is_member.argmax()), int(np.count_nonzero(is_member))
    together = slice(first, first + n_members)
    return rows[together] if is_member[together].all() else rows[is_member]


def _chunk_content(
    table: pd.DataFrame, rows: np.ndarray, archives_dir: Path, files: FileStamps
) -> tuple[list[list[Any]], dict[int, str]]:
    """What the shard of some records depends on, and which of their files are too large."""
    content: list[list[Any]] = []
    too_large: dict[int, str] = {}
    cells = _cells_of_rows(table, rows)
    places = {folder: str(archives_dir / folder) for folder in set(cells[2])}
    for row, *facts, problem in zip(rows.tolist(), *cells, strict=True):
        _, _, folder, path = facts
        stamps = files.of_record(places[folder], path)
        if not problem and (why := _too_large(stamps)):
            problem = too_large[row] = why
        content.append([*facts, problem, stamps])
    return content, too_large


def _safe_name(archive: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in archive)[:64]


def _too_large(stamps: Sequence[tuple[str, int, int]]) -> str:
    for name, size, _ in stamps:
        if size > LARGEST_FILE_BYTES:
            return (
                f"{name} has {size / 2**30:.1f} GiB; files over 1 GiB are not read: "
                "cut the recording into shorter ones"
            )
    return ""


class FileStamps:
    """Names, sizes and times of the files behind records; each folder is listed once.

    Records mostly come folder by folder, so that of very many files the first may be forgotten.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[tuple[str, int, int]]]] = {}
        self._n_listed = 0

    def of_record(self, folder: str, path: str) -> list[tuple[str, int, int]]:
        """``(name, bytes, time)`` of the record's files.

        Those are all that are named like it, whatever their suffix, and those that its WFDB header
        names where the header has no signal file of its own name.
        """
        # Plain text: a million `Path`s would take longer than the files themselves.
        inner, slash, name = path.partition("?")[0].rpartition("/")
        parent = f"{folder}{slash}{inner}"
        if parent not in self._folders:
            self._folders[parent] = _list_files(parent)
            self._n_listed += len(self._folders[parent])
            while self._n_listed > MOST_LISTED and len(self._folders) > 1:
                self._n_listed -= len(self._folders.pop(next(iter(self._folders))))
        listed = self._folders[parent]
        stamps = {*listed.get(name, []), *listed.get(_stem(name), [])}
        header = name if name.endswith(".hea") else f"{name}.hea"
        if header in listed and not any(one[0].endswith(OWN_SIGNAL_SUFFIXES) for one in stamps):
            stamps |= _named_by_header(parent, header, listed)
        return sorted(stamps)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _named_by_header(
    folder: str, header: str, listed: Mapping[str, Sequence[tuple[str, int, int]]]
) -> set[tuple[str, int, int]]:
    """The stamps of the files, or segments and their files, that a WFDB header names."""
    stamps: set[tuple[str, int, int]] = set()
    waiting, seen = [header], {header}
    while waiting:
        for name in _header_names(f"{folder}/{waiting.pop()}"):
            # A segment is named without suffix, and its header may name other files again.
            stamps.update(listed.get(name, []))
            inner = f"{name}.hea"
            if inner in listed and inner not in seen:
                seen.add(inner)
                waiting.append(inner)
    return stamps


def _header_names(path: str) -> list[str]:
    """The first word of each line after a header's first one."""
    try:
        text = Path(path).read_text(encoding="latin-1")
    except OSError:
        # The record will be rejected with a reason when it is read.
        return []
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [words[0] for words in lines if words][1:]


def _list_files(folder: str) -> dict[str, list[tuple[str, int, int]]]:
    listed: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    facts = entry.stat()
                    stamp = (entry.name, facts.st_size, facts.st_mtime_ns)
                    for key in {entry.name, _stem(entry.name)}:
                        listed[key].append(stamp)
    except OSError:
        # Each of its records will be rejected with a reason when it is read.
        return {}
    return dict(listed)


# Which are done ----------------------------------------------------------------------------------


def is_chunk_done(records_dir: Path, name: str, window_bytes: int) -> bool:
    """Is a chunk's table there, and its shard as long as the table says?

    A chunk in which our own code failed on a record is never done: the next version may not fail.
    """
    shard = shard_path(records_dir, name)
    table = shard.with_suffix(".parquet")
    if not table.exists() or not shard.exists():
        return False
    try:
        facts = pq.read_schema(table).metadata or {}
        n_windows, n_defects = int(facts[b"n_windows"]), int(facts[b"n_defects"])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid):
        return False
    return n_defects == 0 and shard.stat().st_size >= n_windows * window_bytes


def is_chunk_of_now(records_dir: Path, name: str) -> bool:
    """Was a finished chunk made with the versions that are installed now?"""
    facts = pq.read_schema(shard_path(records_dir, name).with_suffix(".parquet")).metadata or {}
    return bool(facts.get(b"made_with") == versions_in_words(numeric_versions()).encode())


def read_chunk_table(records_dir: Path, name: str) -> tuple[pa.Table, str]:
    """A finished chunk's table, and the digest of its shard's samples.

    Raises:
        DataError: it is damaged; it is deleted, so that the next run makes it again.
    """
    path = shard_path(records_dir, name).with_suffix(".parquet")
    try:
        table = pq.read_table(path, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"{path} was damaged ({error}) and is deleted; run `einthoven prepare` again"
        ) from error
    return table, table.schema.metadata[b"content"].decode()


def remove_orphans(records_dir: Path, names: Sequence[str]) -> int:
    """Delete shards and tables of other settings or archives, and what a killed run left.

    Returns:
        How many files went.
    """
    wanted = {f"{name}{suffix}" for name in names for suffix in (".npy", ".parquet")}
    n_removed = 0
    for path in sorted(records_dir.iterdir()):
        if path.suffix in (".npy", ".parquet") and path.name not in wanted:
            # Windows keeps a file that another process still reads; the next run tries again.
            with contextlib.suppress(PermissionError):
                path.unlink(missing_ok=True)
                n_removed += 1
    return n_removed


# What became of each record ----------------------------------------------------------------------


@dataclass(frozen=True)
class CollectedChunks:
    """All chunks' tables together.

    Attributes:
        stored: a row per stored record, with ``mapping_row`` and the columns that tell of signals.
        rejected: the rows of ``rejected.csv``.
        sketches: of the stored records, by their row in ``stored``.
        digest: names all shards' samples.
    """

    stored: pd.DataFrame
    rejected: pd.DataFrame
    sketches: Sketches
    digest: str


def collect_chunks(
    chunks: Sequence[Chunk], records_dir: Path, mapping: pd.DataFrame
) -> CollectedChunks:
    """Read what the workers wrote of each record, in the order of the mapping.

    Raises:
        DataError: no record is stored, or a chunk's table is damaged.
    """
    tables, contents, sketches = [], [], SketchCollector()
    for number, chunk in enumerate(chunks):
        table, content = read_chunk_table(records_dir, chunk.name)
        sketches.add(chunk.rows, table)
        table = table.drop_columns(["sketch", "sketch_time_s"])
        which = pa.repeat(pa.scalar(number, pa.int32()), len(table))
        extra = table.append_column("chunk", which).append_column("mapping_row", [chunk.rows])
        tables.append(extra.replace_schema_metadata(None))
        contents.append([chunk.name.rpartition("-")[0], content])
    together = pa.concat_tables(tables)
    del tables
    if (np.diff(together["mapping_row"].to_numpy()) < 0).any():
        together = together.sort_by("mapping_row")
    is_kept = pa.compute.equal(together["reason"], "")
    gone = together.filter(pa.compute.invert(is_kept))
    kept = together.filter(is_kept) if len(gone) else together
    del together
    rows = gone["mapping_row"].to_numpy()
    rejected = mapping[["archive", "record_id", "path"]].iloc[rows].reset_index(drop=True)
    rejected["reason"] = gone["reason"].to_numpy(zero_copy_only=False)
    if len(kept) == 0:
        first = f" (first: {rejected['reason'].iloc[0]})" if len(rejected) else ""
        raise DataError(f"none of {plural(len(rejected), 'record')} can be stored{first}")
    columns = {name: kept[name] for name in kept.column_names if name != "reason"}
    del kept
    stored = own_columns(columns)
    stored["shard"] = _chunk_names(chunks, stored.pop("chunk").to_numpy())
    mapping_row = stored["mapping_row"].to_numpy()
    return CollectedChunks(stored, rejected, sketches.of_records(mapping_row), digest(contents))


def _chunk_names(chunks: Sequence[Chunk], numbers: np.ndarray) -> Any:
    names = np.array([chunk.name for chunk in chunks], object)
    return column_of_texts(lambda rows: names[numbers[rows]], len(numbers), {})


class SketchCollector:
    """Sketches of chunk after chunk, in arrays that grow: they are most of what is collected."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, np.int32)
        self._sketches = np.zeros(0, np.uint64)
        self._times = np.zeros(0, np.float32)
        self._is_ascending = True

    def add(self, rows: np.ndarray, table: pa.Table) -> None:
        """Take the sketches of a chunk, whose records are some rows of the mapping."""
        counts = pa.compute.list_value_length(table["sketch"]).to_numpy()
        before = len(self._rows)
        self._is_ascending &= before == 0 or len(rows) == 0 or bool(rows[0] > self._rows[-1])
        n_all = before + int(counts.sum())
        for array in (self._rows, self._sketches, self._times):
            # The system moves large memory without copying it.
            array.resize(n_all, refcheck=False)
        self._rows[before:] = np.repeat(rows, counts)
        self._sketches[before:] = pa.compute.list_flatten(table["sketch"]).to_numpy()
        self._times[before:] = pa.compute.list_flatten(table["sketch_time_s"]).to_numpy()

    def of_records(self, mapping_rows: np.ndarray) -> Sketches:
        """The sketches by record, in the order of these rows of the mapping, which ascend."""
        for piece in row_pieces(len(self._rows)):
            self._rows[piece] = np.searchsorted(mapping_rows, self._rows[piece])
        if self._is_ascending:
            return Sketches(self._rows, self._sketches, self._times)
        order = np.argsort(self._rows, kind="stable")
        return Sketches(self._rows[order], self._sketches[order], self._times[order])


def gather_sketches(table: pa.Table) -> Sketches:
    """The sketches of some rows of chunk tables, by row."""
    sketches = SketchCollector()
    sketches.add(np.arange(len(table)), table.combine_chunks())
    return sketches.of_records(np.arange(len(table)))
