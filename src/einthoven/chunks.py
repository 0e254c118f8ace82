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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven.audit.sketches import Sketches
from einthoven.console import plural
from einthoven.errors import DataError
from einthoven.files import digest
from einthoven.settings import Settings
from einthoven.shards import SHARD_VERSION
from einthoven.store import shard_path

RECORDS_PER_SHARD = 512
LARGEST_FILE_BYTES = 1 << 30

# Which there are ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Records that one worker turns into one shard.

    Attributes:
        name: of the shard; tells its content.
        rows: ``(n,)`` positions in the mapping table.
        sources: reader, folder, path and known problem (or empty) of each record.
    """

    name: str
    rows: np.ndarray
    sources: list[tuple[str, str, str, str]]


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
    columns = [mapping[name].to_numpy() for name in ("archive", "record_id", "reader", "folder")]
    archive, record_id, reader, folder = columns
    path, problem = mapping["path"].to_numpy(), mapping["problem"].to_numpy()
    places = {name: str(archives_dir / name) for name in set(folder)}
    files = FileStamps()
    of_archive: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        of_archive[archive[row]].append(int(row))
    chunks = []
    for name, members in of_archive.items():
        for number, start in enumerate(range(0, len(members), RECORDS_PER_SHARD)):
            part = members[start : start + RECORDS_PER_SHARD]
            sources, content = [], []
            for row in part:
                place = places[folder[row]]
                stamps = files.of_record(place, path[row])
                why = problem[row] or _too_large(stamps)
                sources.append((reader[row], place, path[row], why))
                content.append([record_id[row], reader[row], folder[row], path[row], why, stamps])
            title = f"{_safe_name(name)}-{number:05d}-{digest([dict(how), content])}"
            chunks.append(Chunk(title, np.array(part), sources))
    return chunks


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
    """Names, sizes and times of the files behind records; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[tuple[str, int, int]]]] = {}

    def of_record(self, folder: str, path: str) -> list[tuple[str, int, int]]:
        """``(name, bytes, time)`` of every file named like the record, whatever its suffix."""
        # Plain text: a million `Path`s would take longer than the files themselves.
        inner, slash, name = path.partition("?")[0].rpartition("/")
        parent = f"{folder}{slash}{inner}"
        if parent not in self._folders:
            self._folders[parent] = _list_files(parent)
        listed = self._folders[parent]
        return sorted({*listed.get(name, []), *listed.get(_stem(name), [])})


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


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


def read_chunk_table(records_dir: Path, name: str) -> tuple[pa.Table, str]:
    """A finished chunk's table, and the digest of its shard's samples.

    Raises:
        DataError: it is damaged; it is deleted, so that the next run makes it again.
    """
    path = shard_path(records_dir, name).with_suffix(".parquet")
    try:
        table = pq.read_table(path)
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
    tables, contents = [], []
    for chunk in chunks:
        table, content = read_chunk_table(records_dir, chunk.name)
        shard = pa.array([chunk.name] * len(table))
        extra = table.append_column("shard", shard).append_column("mapping_row", [chunk.rows])
        tables.append(extra.replace_schema_metadata(None))
        contents.append([chunk.name.rpartition("-")[0], content])
    together = pa.concat_tables(tables).sort_by("mapping_row")
    kept = together.filter(pa.compute.equal(together["reason"], ""))
    gone = together.filter(pa.compute.not_equal(together["reason"], ""))
    rows = gone["mapping_row"].to_numpy()
    rejected = mapping.iloc[rows][["archive", "record_id", "path"]].reset_index(drop=True)
    rejected["reason"] = gone["reason"].to_numpy(zero_copy_only=False)
    if len(kept) == 0:
        first = f" (first: {rejected['reason'].iloc[0]})" if len(rejected) else ""
        raise DataError(f"none of {plural(len(rejected), 'record')} can be stored{first}")
    plain = kept.drop_columns(["sketch", "sketch_time_s", "reason"]).to_pandas()
    return CollectedChunks(plain, rejected, gather_sketches(kept), digest(contents))


def gather_sketches(table: pa.Table) -> Sketches:
    sketch, time_s = table["sketch"].combine_chunks(), table["sketch_time_s"].combine_chunks()
    counts = pa.compute.list_value_length(sketch).to_numpy()
    return Sketches(
        record=np.repeat(np.arange(len(table)), counts),
        sketch=pa.compute.list_flatten(sketch).to_numpy(),
        time_s=pa.compute.list_flatten(time_s).to_numpy(),
    )
