"""Stores of any number of records that take hardly any disk: what `benchmarks/scale.py` measures.

Signals are holes in sparse files, but for the planted copies, whose signals are really there.
Everything else is as `einthoven label` and `einthoven prepare` leave it: mapping table, chunk
tables with sketches, manifest, splits, stamps. What a record is follows from its number, so that
tables are written piece by piece and none is ever whole in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from einthoven.audit.sketches import SKETCH_BITS, SKETCH_PLACE_BITS, SKETCH_WEAK_BITS, Sketches
from einthoven.chunks import Chunk, plan_chunks, signal_settings
from einthoven.files import file_digest, stamp_step
from einthoven.labelling import read_mapping
from einthoven.labels.mapping import MAPPING_COLUMNS
from einthoven.labels.sets import load_label_set
from einthoven.records import LEADS
from einthoven.settings import Settings
from einthoven.shards import FACT_TYPES
from einthoven.split_records import write_splits
from einthoven.splits import fold_split
from einthoven.store import MANIFEST_COLUMNS, open_store, shard_path

N_ARCHIVES = 4
RECORDS_PER_PATIENT = 2
RECORDS_PER_RAW_FILE = 1000
RAW_FS, RAW_SAMPLES = 500, 5000
FS, N_SAMPLES = 100, 1000
# As many steep moments as ten seconds with a heart rate of 70 leave room for.
SKETCHES_PER_RECORD = 8
UNLABELLED_EVERY = 101
MOST_PLANTED = 100
PIECE = 1 << 18
LABELS = load_label_set(Settings().label_set).labels

# What a record is --------------------------------------------------------------------------------


def archive_number(n: np.ndarray, n_records: int) -> np.ndarray:
    """Archives are blocks of neighbours."""
    return n * N_ARCHIVES // n_records


def planted_copies(n_records: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the originals and of their copies, which lie in other archives."""
    n_planted = max(1, min(MOST_PLANTED, n_records // 100))
    originals = np.arange(n_planted) * (n_records // 2 // n_planted)
    return originals, originals + n_records // 2


def sketches_of(numbers: np.ndarray, n_records: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeded fingerprints ``(record, sketch)`` and their times; a copy has nearly its original's.

    The first weak bit of every sketch of a copy is another, as between real copies.
    """
    _, copies = planted_copies(n_records)
    is_copy = np.isin(numbers, copies)
    source = np.where(is_copy, numbers - n_records // 2, numbers).astype(np.uint64)
    count = np.arange(SKETCHES_PER_RECORD, dtype=np.uint64)
    random = scrambled(source[:, None] * np.uint64(SKETCHES_PER_RECORD) + count)
    sketch = random & np.uint64((1 << SKETCH_BITS) - 1)
    first_place = (random >> np.uint64(SKETCH_BITS)) % np.uint64(SKETCH_BITS - SKETCH_WEAK_BITS)
    sketch ^= (np.uint64(1) << first_place) * is_copy[:, None].astype(np.uint64)
    for number in range(SKETCH_WEAK_BITS):
        place = first_place + np.uint64(number)
        sketch |= place << np.uint64(SKETCH_BITS + number * SKETCH_PLACE_BITS)
    times = 0.6 + 0.85 * count.astype(np.float32) + (random % np.uint64(97)) / np.float32(1000)
    return sketch, times.astype(np.float32)


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """A seeded 64-bit number for each number (splitmix64)."""
    state = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(20_260_101)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def all_sketches(n_records: int) -> Sketches:
    """The sketches of all records, as `gather_sketches` gives them."""
    n = n_records * SKETCHES_PER_RECORD
    sketch, time_s = np.empty(n, np.uint64), np.empty(n, np.float32)
    for numbers in pieces(n_records, 1 << 14):
        at = slice(numbers[0] * SKETCHES_PER_RECORD, (numbers[-1] + 1) * SKETCHES_PER_RECORD)
        values, times = sketches_of(numbers, n_records)
        sketch[at], time_s[at] = values.ravel(), times.ravel()
    record = np.repeat(np.arange(n_records, dtype=np.int32), SKETCHES_PER_RECORD)
    return Sketches(record, sketch, time_s)


def planted_signal(number: int) -> np.ndarray:
    """``(12, N_SAMPLES)`` int16: seeded noise at the heart's frequencies."""
    noise = np.random.default_rng(number).normal(0, 300, (len(LEADS), N_SAMPLES + 8))
    smooth = np.lib.stride_tricks.sliding_window_view(noise, 9, axis=1).mean(axis=-1)
    return np.asarray(smooth, np.int16)


def pieces(n_records: int, size: int = PIECE) -> Iterator[np.ndarray]:
    for start in range(0, n_records, size):
        yield np.arange(start, min(start + size, n_records))


def digits(numbers: np.ndarray, width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def joined(*parts: object) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def names_of(numbers: np.ndarray, n_records: int) -> dict[str, pa.Array]:
    """The columns that say which record of which patient each is."""
    archive = joined("hospital-", digits(archive_number(numbers, n_records), 1))
    return {
        "archive": archive,
        "record_id": digits(numbers, 8),
        "patient_id": joined("p", digits(numbers // RECORDS_PER_PATIENT, 7)),
    }


def labels_of(numbers: np.ndarray) -> np.ndarray:
    label = np.array(LABELS, dtype=object)[numbers % len(LABELS)]
    return np.where(numbers % UNLABELLED_EVERY == UNLABELLED_EVERY - 1, "", label)


# Files -------------------------------------------------------------------------------------------


def build_store(root: Path, n_records: int) -> None:
    """Write a whole workspace."""
    settings = settings_of(root)
    write_mapping(settings.workspace.mapping_path, n_records)
    write_raw_files(settings.archives_dir, n_records)
    mapping = read_mapping(settings.workspace.mapping_path)
    how = signal_settings(settings)
    chunks = plan_chunks(mapping, np.arange(n_records), settings.archives_dir, how)
    del mapping
    settings.workspace.records_dir.mkdir(parents=True)
    for chunk in chunks:
        write_sparse_shard(settings.workspace.records_dir, chunk)
        write_chunk_table(settings.workspace.records_dir, chunk, n_records)
    write_planted_signals(settings.workspace.records_dir, chunks, n_records)
    write_manifest(settings.workspace.manifest_path, chunks, n_records)
    manifest = open_store(settings.workspace).manifest
    splits = {"seed": 0, "label_set": settings.label_set, "audit": {}, **fold_split(manifest)}
    write_splits(settings.workspace.splits_path, splits)
    mapped = {"mapping": file_digest(settings.workspace.mapping_path)}
    stamp_step(settings.workspace.step_path("prepare"), mapped)
    stamp_labelled(settings)


def stamp_labelled(settings: Settings) -> None:
    """What `einthoven label` leaves besides the mapping."""
    label_set = load_label_set(settings.label_set)
    labelled = {
        "label set": label_set.name, "table of codes": label_set.fingerprint,
        "labels per record": "one" if label_set.single else "any number",
        "data folder": str(settings.archives_dir.resolve()),
    }  # fmt: skip
    stamp_step(settings.workspace.step_path("label"), labelled)


def settings_of(root: Path) -> Settings:
    return Settings(
        root=root, dataset_dir=root / "Dataset", residency="streamed", device="cpu",
        tracking="none", quiet=True, target_fs=FS, target_samples=N_SAMPLES,
    )  # fmt: skip


def write_mapping(path: Path, n_records: int) -> None:
    path.parent.mkdir(parents=True)
    schema = pa.schema([(name, pa.string()) for name in MAPPING_COLUMNS])
    options = pyarrow.csv.WriteOptions(quoting_style="none", include_header=False)
    with path.open("wb") as file:
        file.write((",".join(MAPPING_COLUMNS) + "\n").encode())
        with pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
            for numbers in pieces(n_records):
                writer.write(mapping_piece(numbers, n_records))


def mapping_piece(numbers: np.ndarray, n_records: int) -> pa.Table:
    labels = pa.array(labels_of(numbers), pa.string())
    part = digits(numbers // RECORDS_PER_RAW_FILE, 5)
    within = digits(numbers % RECORDS_PER_RAW_FILE, 3)
    names = names_of(numbers, n_records)
    columns = {name: pa.repeat("", len(numbers)) for name in MAPPING_COLUMNS} | names
    columns |= dict.fromkeys(("codes", "labels", "labels_mapped"), labels) | {
        "label_quality": pa.repeat("stated", len(numbers)),
        "age": digits(20 + numbers % 70, 2),
        "sex": pa.repeat("female", len(numbers)),
        "device": pa.repeat("cart", len(numbers)),
        "site": pa.repeat("ward", len(numbers)),
        "reader": pa.repeat("own", len(numbers)),
        "folder": names["archive"],
        "path": joined("records/part-", part, ".npy?", within),
    }
    return pa.table({name: columns[name] for name in MAPPING_COLUMNS})


def write_raw_files(folder: Path, n_records: int) -> None:
    """One sparse file for many records, each in the folder of its archive."""
    n_bytes = RECORDS_PER_RAW_FILE * len(LEADS) * RAW_SAMPLES * 2
    firsts = np.arange(0, n_records, RECORDS_PER_RAW_FILE)
    lasts = np.minimum(firsts + RECORDS_PER_RAW_FILE, n_records) - 1
    for first, last in zip(firsts, lasts, strict=True):
        for number in {*archive_number(np.array([first, last]), n_records).tolist()}:
            records = folder / f"hospital-{number}" / "records"
            records.mkdir(parents=True, exist_ok=True)
            with (records / f"part-{first // RECORDS_PER_RAW_FILE:05d}.npy").open("wb") as file:
                file.truncate(n_bytes)


def write_sparse_shard(records_dir: Path, chunk: Chunk) -> None:
    shape = (len(chunk.rows), len(LEADS), N_SAMPLES)
    with shard_path(records_dir, chunk.name).open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i2", "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + 2 * int(np.prod(shape)))


def signal_facts(n: int) -> dict[str, pa.Array]:
    """The columns that tell of the signals of ``n`` records of one chunk."""
    facts: dict[str, pa.Array] = {
        "n_windows": pa.repeat(1, n), "n_samples": pa.repeat(N_SAMPLES, n),
        "fs": pa.repeat(float(RAW_FS), n), "leads_present": pa.repeat(",".join(LEADS), n),
    }  # fmt: skip
    for name, kind in FACT_TYPES.items():
        facts.setdefault(name, pa.repeat(pa.scalar("" if kind == pa.string() else 0, kind), n))
    return facts


def write_chunk_table(records_dir: Path, chunk: Chunk, n_records: int) -> None:
    n = len(chunk.rows)
    facts = signal_facts(n) | {"row": pa.array(np.arange(n))}
    sketch, times = sketches_of(chunk.rows, n_records)
    offsets = np.arange(n + 1, dtype=np.int32) * SKETCHES_PER_RECORD
    table = pa.table(
        {name: facts[name] for name in FACT_TYPES}
        | {
            "sketch": pa.ListArray.from_arrays(offsets, pa.array(sketch.ravel())),
            "sketch_time_s": pa.ListArray.from_arrays(offsets, pa.array(times.ravel())),
        }
    )
    told = {"n_windows": str(n), "n_defects": "0", "content": chunk.name}
    path = shard_path(records_dir, chunk.name).with_suffix(".parquet")
    pq.write_table(table.replace_schema_metadata(told), path)


def write_planted_signals(records_dir: Path, chunks: list[Chunk], n_records: int) -> None:
    originals, copies = planted_copies(n_records)
    firsts = np.array([chunk.rows[0] for chunk in chunks])
    for original, copy in zip(originals, copies, strict=True):
        for number in (original, copy):
            chunk = chunks[int(np.searchsorted(firsts, number, side="right")) - 1]
            shard = np.load(shard_path(records_dir, chunk.name), mmap_mode="r+")
            shard[number - chunk.rows[0]] = planted_signal(int(original))
            shard.flush()


# The manifest ------------------------------------------------------------------------------------


def write_manifest(path: Path, chunks: list[Chunk], n_records: int) -> None:
    """The manifest that `einthoven prepare` would write, in row groups."""
    firsts = np.array([chunk.rows[0] for chunk in chunks])
    titles = pa.array([chunk.name for chunk in chunks], pa.string())
    attributes = {
        "target_fs": FS, "target_samples": N_SAMPLES, "band": [None, None], "digest": str(n_records)
    }  # fmt: skip
    writer: pq.ParquetWriter | None = None
    for numbers in pieces(n_records):
        chunk = np.searchsorted(firsts, numbers, side="right") - 1
        piece = manifest_piece(numbers, n_records)
        piece |= {"shard": titles.take(pa.array(chunk)), "row": pa.array(numbers - firsts[chunk])}
        table = pa.table({name: piece[name] for name in MANIFEST_COLUMNS})
        empty = table.slice(0, 0).to_pandas()
        empty.attrs = attributes
        told = pa.Table.from_pandas(empty, preserve_index=False).schema.metadata
        table = table.replace_schema_metadata(told | {b"PANDAS_ATTRS": json.dumps(attributes)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def manifest_piece(numbers: np.ndarray, n_records: int) -> dict[str, pa.Array]:
    n, names = len(numbers), names_of(numbers, n_records)
    labels = labels_of(numbers)
    offsets = np.concatenate([[0], np.cumsum(labels != "")]).astype(np.int32)
    _, copies = planted_copies(n_records)
    # All records of a copy's patient are in the group of the original's patient.
    patient = numbers // RECORDS_PER_PATIENT
    is_joined = np.isin(patient, copies // RECORDS_PER_PATIENT)
    grouped = np.where(is_joined, numbers - n_records // 2, numbers)
    group = names_of(grouped, n_records)
    is_copy = np.isin(numbers, copies)
    original = names_of(np.where(is_copy, numbers - n_records // 2, numbers), n_records)
    canonical = joined(original["archive"], "/", original["record_id"])
    return signal_facts(n) | names | {
        "record": joined(names["archive"], "/", names["record_id"]),
        "patient_group": joined(group["archive"], "/", group["patient_id"]),
        "duplicate_of": pc.if_else(pa.array(is_copy), canonical, ""),
        "fold": pa.array(scrambled((grouped // RECORDS_PER_PATIENT).astype(np.uint64)) % 10 + 1)
        .cast(pa.int64()),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(labels[labels != ""], pa.string())),
        "label_quality": pa.repeat("stated", n),
        "age": pa.array((20 + numbers % 70).astype(float)),
        "sex": pa.repeat("female", n),
        "device": pa.repeat("cart", n),
        "site": pa.repeat("ward", n),
    }  # fmt: skip


def expected_pairs(n_records: int) -> set[tuple[str, str]]:
    """Names of the planted originals and copies, as the audit has to find them."""
    originals, copies = (names_of(numbers, n_records) for numbers in planted_copies(n_records))
    told = [joined(n["archive"], "/", n["record_id"]).to_pylist() for n in (originals, copies)]
    return set(zip(*told, strict=True))


def columns_of(*tables: pd.DataFrame) -> int:
    """Bytes that tables' columns take in memory; what several of them share counts once."""
    sizes: dict[int, int] = {}
    for table in tables:
        for name in table:
            column = table[name]
            if isinstance(column.dtype, pd.StringDtype):
                chunks = pa.chunked_array(column.array.__arrow_array__()).chunks
                buffers = [buffer for chunk in chunks for buffer in chunk.buffers() if buffer]
                sizes |= {buffer.address: buffer.size for buffer in buffers}
            else:
                values = column.to_numpy()
                sizes[values.__array_interface__["data"][0]] = values.nbytes
    return sum(sizes.values())
