"""Shards: what one worker process makes of some records.

Some hundred records of one archive become a shard (``<name>.npy``) and, written after it, a table
(``<name>.parquet``) of what became of each record. A table that is there is a shard that is done,
at whatever moment a run was killed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven.audit.sketches import SKETCH_LEADS, sketch_signals
from einthoven.errors import RecordError
from einthoven.files import atomic_path
from einthoven.quality import check_length, check_signal, fill_missing, quality_flags
from einthoven.readers.registry import read_signal
from einthoven.records import LEADS, standard_leads
from einthoven.signal import preprocess, to_microvolts, to_windows
from einthoven.store import shard_path

# Raised whenever the code here changes what a shard holds.
SHARD_VERSION = 1
# Whose versions may change the last bits, or what can be read at all.
NUMERIC_LIBRARIES = ("numpy", "scipy", "wfdb", "h5py")
# Records that are held before they are written; bounds what a worker keeps in memory.
RECORDS_PER_FLUSH = 64

# Begins the reason where our own code failed, not the record.
DEFECT_REASON = "it cannot be prepared"

# Columns of a chunk's table before the sketches; a record that is not stored has a reason, and
# empty values or zeros elsewhere.
FACT_TYPES = {
    "reason": pa.string(),
    "row": pa.int64(),
    "n_windows": pa.int64(),
    "n_samples": pa.int64(),
    "fs": pa.float64(),
    "leads_present": pa.string(),
    "flat_leads": pa.string(),
    "clipped_fraction": pa.float64(),
    "lead_law_residual_mv": pa.float64(),
    "missing_fraction": pa.float64(),
    "quality": pa.string(),
}


# One record ------------------------------------------------------------------------------------


def prepare_record(
    reader: str, folder: str, path: str, how: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read one record and bring it into the store's form.

    Args:
        reader, folder, path: as `read_signal` takes them.
        how: of `signal_settings`.

    Returns:
        ``(12, sample)`` int16 microvolts at the target rate, and the manifest's columns that tell
        of the signal.

    Raises:
        RecordError: it cannot be used, with the reason.
    """
    recorded, fs, names = read_signal(reader, folder, path)
    check_length(recorded.shape[1], fs)
    signal, present = standard_leads(recorded, names)
    signal, present, missing = fill_missing(signal, present)
    check_signal(signal, fs)
    facts: dict[str, Any] = dict(quality_flags(signal, present, missing))
    prepared = to_microvolts(preprocess(signal, fs, how["target_fs"], how["band"]))
    facts["n_samples"] = prepared.shape[1]
    facts["fs"] = float(fs)
    facts["leads_present"] = ",".join(
        name for name, there in zip(LEADS, present, strict=True) if there
    )
    return prepared, facts


def _prepare_or_explain(
    source: Sequence[str], how: Mapping[str, Any]
) -> tuple[np.ndarray | None, dict[str, Any]]:
    reader, folder, path, problem = source
    try:
        if problem:
            raise RecordError(problem)
        prepared, facts = prepare_record(reader, folder, path, how)
        return prepared, {"reason": "", **facts}
    except RecordError as error:
        reason = str(error)
    except MemoryError:
        # Says something of this machine now, nothing of the record.
        raise
    except Exception as error:
        # A defect of ours, met on one record; the others are still worth having.
        reason = f"{DEFECT_REASON} ({type(error).__name__}: {error})"
    empty = {name: "" if pa.types.is_string(kind) else 0 for name, kind in FACT_TYPES.items()}
    return None, {**empty, "reason": " ".join(reason.split())}


# One chunk -------------------------------------------------------------------------------------


def numeric_versions() -> dict[str, Any]:
    """What a chunk's bits depend on beside its records and the settings."""
    # Not asked of the modules: where nothing has changed, nobody waits for scipy.
    libraries = {name: metadata.version(name) for name in NUMERIC_LIBRARIES}
    return {"shards": SHARD_VERSION, **libraries}


def versions_in_words(versions: Mapping[str, Any]) -> str:
    """Versions as one word, which may name a folder.

    >>> versions_in_words({"shards": 1, "numpy": "2.3.1+local"})
    'shards1-numpy2.3.1_local'
    """
    word = "-".join(f"{name}{version}" for name, version in versions.items())
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in word)


def prepare_chunk(
    records_dir: str, name: str, sources: Sequence[Sequence[str]], how: Mapping[str, Any]
) -> int:
    """Make one shard and its table; takes and returns plain values only, for worker processes.

    Returns:
        The number of records, stored and rejected.

    Raises:
        OSError: the shard cannot be written.
    """
    path = shard_path(Path(records_dir), name)
    writer = ShardWriter(how["target_fs"], how["target_samples"])
    with atomic_path(path) as beside:
        with beside.open("wb") as file:
            writer.begin(file)
            for source in sources:
                writer.add(file, *_prepare_or_explain(source, how))
            writer.finish(file)
    table = writer.table()
    with atomic_path(path.with_suffix(".parquet")) as beside:
        pq.write_table(table, beside)
    return len(sources)


class ShardWriter:
    """Collects the records of a chunk, writing windows and sketches in groups."""

    def __init__(self, target_fs: int, target_samples: int) -> None:
        self.target_fs, self.target_samples = target_fs, target_samples
        self.facts: list[dict[str, Any]] = []
        self.waiting: dict[int, np.ndarray] = {}
        self.sketches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.n_windows = 0
        self.content = hashlib.sha256()

    def begin(self, file: Any) -> None:
        """Leave room for the header, whose length does not depend on the number of windows."""
        self._write_header(file)

    def add(self, file: Any, prepared: np.ndarray | None, facts: dict[str, Any]) -> None:
        """Take one record, with its signal if it is stored."""
        number = len(self.facts)
        n_windows = 0
        if prepared is not None:
            windows = to_windows(prepared, self.target_samples)
            n_windows = len(windows)
            block = np.ascontiguousarray(windows, "<i2")
            self.content.update(block.data)
            file.write(block.data)
            self.waiting[number] = prepared[list(SKETCH_LEADS)]
        self.facts.append({**facts, "row": self.n_windows, "n_windows": n_windows})
        self.n_windows += n_windows
        if len(self.waiting) >= RECORDS_PER_FLUSH:
            self._sketch_waiting()

    def finish(self, file: Any) -> None:
        """Sketch what is left, and write the header again, now with the number of windows."""
        self._sketch_waiting()
        file.seek(0)
        self._write_header(file)

    def table(self) -> pa.Table:
        """A row per record: ``reason`` (empty: stored), the manifest's columns, its sketches."""
        columns = {
            name: pa.array([fact[name] for fact in self.facts], kind)
            for name, kind in FACT_TYPES.items()
        }
        sketches, times = self._sketch_columns()
        table = pa.table({**columns, "sketch": sketches, "sketch_time_s": times})
        n_defects = sum(fact["reason"].startswith(DEFECT_REASON) for fact in self.facts)
        return table.replace_schema_metadata(
            {
                "n_windows": str(self.n_windows),
                "n_defects": str(n_defects),
                "content": self.content.hexdigest(),
                "made_with": versions_in_words(numeric_versions()),
            }
        )

    def _write_header(self, file: Any) -> None:
        shape = (self.n_windows, len(LEADS), self.target_samples)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i2", "fortran_order": False, "shape": shape}
        )

    def _sketch_waiting(self) -> None:
        """Sketch records of one length together: many small calls would take most of the time."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for number, signal in self.waiting.items():
            of_length[signal.shape[1]].append(number)
        for numbers in of_length.values():
            block = np.stack([self.waiting[number] for number in numbers])
            which, sketch, time_s = sketch_signals(block, self.target_fs)
            self.sketches.append((np.array(numbers)[which], sketch, time_s))
        self.waiting.clear()

    def _sketch_columns(self) -> tuple[pa.Array, pa.Array]:
        empty = (np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.float32))
        which, sketch, time_s = (
            np.concatenate(parts) for parts in zip(empty, *self.sketches, strict=True)
        )
        order = np.lexsort((time_s, which))
        ends = np.cumsum(np.bincount(which, minlength=len(self.facts)))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        return (
            pa.ListArray.from_arrays(offsets, pa.array(sketch[order])),
            pa.ListArray.from_arrays(offsets, pa.array(time_s[order])),
        )
