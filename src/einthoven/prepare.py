"""Archives to store: shards, manifest, rejected records, duplicate audit, folds and splits.

Each stage is redone only when what it depends on has changed, and says why: a file or a signal
setting redoes its chunk, any chunk the audit, a label or the seed only the manifest and the splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.audit.sketches import Sketches
from einthoven.audit.verification import AUDIT_VERSION, PAIR_COLUMNS, find_duplicates
from einthoven.chunks import (
    Chunk,
    CollectedChunks,
    collect_chunks,
    plan_chunks,
    remove_orphans,
    signal_settings,
)
from einthoven.columns import digest_of_rows, number_few, number_texts, release_freed, texts_of
from einthoven.console import format_table, log, plural
from einthoven.errors import DataError
from einthoven.files import (
    NOT_DONE_YET,
    Workspace,
    digest,
    file_digest,
    stamp_step,
    step_changes,
    write_csv,
    write_parquet,
)
from einthoven.labelling import label_archives
from einthoven.labels.mapping import split_labels
from einthoven.labels.sets import load_label_set
from einthoven.making import make_shards, share_shards
from einthoven.settings import Settings
from einthoven.shards import DEFECT_REASON
from einthoven.split_records import (
    SPLITS,
    read_split_facts,
    read_splits,
    rows_in_manifest,
    write_splits,
)
from einthoven.splits import (
    assign_folds,
    check_splits,
    group_patients,
    make_splits,
    subset_records,
)
from einthoven.store import MANIFEST_COLUMNS, PREPARE_HINT, Store, open_store, store_of_manifest

# What the set of shards depends on, under a name that reads well before "has changed".
STORE_CONTENT = "what the store is made from"

REJECTED_COLUMNS = ("archive", "record_id", "path", "reason")

# The step --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """What `prepare_archives` did: records found = not selected + stored + rejected."""

    n_found: int
    n_not_selected: int
    n_stored: int
    n_rejected: int
    n_chunks: int
    n_chunks_made: int
    n_pairs: int


def prepare_archives(settings: Settings) -> Prepared:
    """Bring the archives into the store, and split it by patient.

    Writes shards, ``manifest.parquet``, ``rejected.csv``, ``duplicates.csv`` and ``splits.json``.
    May be killed at any moment: the next run goes on after the last finished chunk.

    Returns:
        Counts; records that ``ECG_PREPROCESS_LIMIT`` left out are not selected.

    Raises:
        DataError: no record can be stored, the disk is full, or a worker process was killed.
    """
    mapping = label_archives(settings, say_skipped=False)
    workspace, how = settings.workspace, signal_settings(settings)
    rows = subset_records(mapping, settings.ecg_preprocess_limit, settings.split_seed)
    chunks = plan_chunks(mapping, rows, settings.archives_dir, how)
    inputs = _prepare_inputs(settings, chunks, len(rows))
    stamp_path = workspace.step_path("prepare")
    changes = step_changes(stamp_path, inputs) or _damage(workspace)
    if not changes:
        share_shards(settings, chunks)
        log.info("prepare: nothing has changed since the store was made; skipped")
        return _count_prepared(workspace, mapping, len(rows), len(chunks))
    if changes != list(NOT_DONE_YET):
        log.info("prepare: %s", "; ".join(changes))
    stamp_path.unlink(missing_ok=True)
    n_made = make_shards(settings, chunks, how)
    prepared = collect_chunks(chunks, workspace.records_dir, mapping)
    manifest = _make_manifest(settings, prepared, mapping, how, inputs[STORE_CONTENT])
    remove_orphans(workspace.records_dir, [chunk.name for chunk in chunks])
    if not _warn_of_defects(prepared.rejected):
        stamp_step(stamp_path, inputs)
    splits = read_splits(workspace.splits_path, manifest)
    labels = load_label_set(settings.label_set).labels
    log.info("\n%s", format_prepared(mapping, rows, manifest, prepared.rejected))
    if len(prepared.rejected):
        log.info("\n%s", format_rejected(prepared.rejected["reason"], workspace.rejected_path))
    log.info("\n%s\n", format_splits(manifest, splits, labels))
    return _count_prepared(workspace, mapping, len(rows), len(chunks), n_made)


def _warn_of_defects(rejected: pd.DataFrame) -> bool:
    """Say on which records our own code failed; they are tried again on the next run."""
    defects = rejected[rejected["reason"].str.startswith(DEFECT_REASON)]
    if len(defects):
        first = defects.iloc[0]
        log.warning(
            "%s rejected because Einthoven itself failed (first: %s/%s, %s); please report it",
            plural(len(defects), "record"), first["archive"], first["record_id"], first["reason"],
        )  # fmt: skip
    return len(defects) > 0


def _prepare_inputs(settings: Settings, chunks: Sequence[Chunk], n_chosen: int) -> dict[str, Any]:
    how = signal_settings(settings)
    return {
        STORE_CONTENT: digest([chunk.name for chunk in chunks]),
        "records chosen": n_chosen,
        "target_fs": how["target_fs"],
        "target_samples": how["target_samples"],
        "bandpass": "{} to {} Hz".format(*how["band"]) if how["band"] else "off",
        "store version": how["version"],
        "audit version": AUDIT_VERSION,
        "mapping": file_digest(settings.workspace.mapping_path),
        # One's own is a path, which may be written in several ways; its content is in the mapping.
        "label set": load_label_set(settings.label_set).name,
        "split_seed": settings.split_seed,
    }


def _damage(workspace: Workspace) -> list[str]:
    """What is wrong with files that a finished run left."""
    for path in (workspace.rejected_path, workspace.splits_path):
        if not path.exists():
            return [f"{path.name} is gone; it is made again"]
    try:
        manifest = open_store(workspace).manifest
        check_splits(read_splits(workspace.splits_path, manifest), manifest)
    except DataError as error:
        # Its advice, to run this very step, is being taken.
        return [str(error).partition(f"; {PREPARE_HINT}")[0] + "; what is wrong is made again"]
    return []


def _count_prepared(
    workspace: Workspace, mapping: pd.DataFrame, n_chosen: int, n_chunks: int, n_made: int = 0
) -> Prepared:
    audit = read_split_facts(workspace.splits_path)["audit"]
    n_stored = int(audit["n_records"])
    return Prepared(
        n_found=len(mapping),
        n_not_selected=len(mapping) - n_chosen,
        n_stored=n_stored,
        n_rejected=n_chosen - n_stored,
        n_chunks=n_chunks,
        n_chunks_made=n_made,
        n_pairs=int(audit["n_pairs"]),
    )


# Manifest, audit, splits -----------------------------------------------------------------------


def _make_manifest(
    settings: Settings,
    prepared: CollectedChunks,
    mapping: pd.DataFrame,
    how: Mapping[str, Any],
    signals: str,
) -> pd.DataFrame:
    """Audit, group, deal folds; write manifest, rejected records and splits."""
    workspace = settings.workspace
    manifest = _join_mapping(prepared.stored, mapping)
    published = _of_stored(mapping[["fold"]], prepared.stored)["fold"].to_numpy(float)
    attributes: dict[Any, Any] = {
        "target_fs": how["target_fs"],
        "target_samples": how["target_samples"],
        "band": list(how["band"] or (None, None)),
        "digest": prepared.digest,
    }
    manifest.attrs = attributes
    # Groups, copies and folds follow from what is found.
    store = store_of_manifest(manifest, workspace.records_dir, tuple(manifest.columns))
    pairs = audit_duplicates(workspace, store, prepared.sketches, signals)
    del store
    # What a step has freed is not to be there while the next one needs room of its own.
    release_freed()
    group, duplicate_of = group_patients(manifest, published, pairs)
    manifest = manifest.assign(patient_group=group, duplicate_of=duplicate_of)
    manifest["fold"] = assign_folds(manifest, published, settings.split_seed)
    release_freed()
    manifest = manifest[list(MANIFEST_COLUMNS)]
    manifest.attrs = attributes
    splits = make_splits(
        manifest,
        seed=settings.split_seed,
        label_set=settings.label_set,
        audit=summarise_audit(manifest, pairs),
    )
    release_freed()
    write_parquet(workspace.manifest_path, manifest)
    release_freed()
    write_csv(workspace.rejected_path, prepared.rejected[list(REJECTED_COLUMNS)])
    write_splits(workspace.splits_path, splits)
    return manifest


def _join_mapping(stored: pd.DataFrame, mapping: pd.DataFrame) -> pd.DataFrame:
    """The manifest without groups, folds and copies, which follow from it."""
    copied = ["archive", "record_id", "patient_id", "label_quality", "age", "sex", "device", "site"]
    of_mapping = _of_stored(mapping[[*copied, "labels"]], stored)
    manifest = stored.drop(columns="mapping_row")
    for name in copied:
        manifest[name] = of_mapping[name]
    manifest["record"] = of_mapping["archive"] + "/" + of_mapping["record_id"]
    numbers, texts = number_few(of_mapping["labels"])
    lists = np.empty(len(texts), object)
    for number, text in enumerate(texts):
        lists[number] = list(split_labels(text))
    manifest["labels"] = lists[numbers]
    release_freed()
    return manifest


def _of_stored(mapping: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """The mapping's rows of the stored records; mostly all of them, in their order."""
    rows = stored["mapping_row"].to_numpy()
    is_whole = len(rows) == len(mapping) and bool((rows == np.arange(len(rows))).all())
    return mapping if is_whole else mapping.iloc[rows].reset_index(drop=True)


def audit_duplicates(
    workspace: Workspace, store: Store, sketches: Sketches, signals: str
) -> pd.DataFrame:
    """Pairs of records that hold one recording; found again only when a signal has changed."""
    path = workspace.processed_dir / "duplicates.csv"
    stamp_path = workspace.step_path("audit")
    inputs = {"signals": signals, "version": AUDIT_VERSION}
    inputs["pairs"] = file_digest(path)
    if not step_changes(stamp_path, inputs):
        log.info("audit: no signal has changed; %s holds", path.name)
        return pd.read_csv(path, dtype={"record": str, "copy": str}, keep_default_na=False)
    pairs = find_duplicates(store, sketches)
    log.info("audit: %s of one recording among %d", plural(len(pairs), "pair"), len(store.manifest))
    write_csv(path, pairs[list(PAIR_COLUMNS)])
    stamp_step(stamp_path, inputs | {"pairs": file_digest(path)})
    return pairs


def summarise_audit(manifest: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Any]:
    """What ``splits.json`` says of the audit."""
    columns = ["record", "patient_group", "duplicate_of", "fold"]
    return {
        "n_records": len(manifest),
        "n_pairs": len(pairs),
        "n_duplicates": int((manifest["duplicate_of"] != "").sum()),
        "n_groups": len(number_texts(texts_of(manifest["patient_group"]), len(manifest))[1]),
        "n_unlabelled": sum(len(names) == 0 for names in manifest["labels"].to_numpy()),
        "pairs": pairs[["record", "copy"]].head(100).to_numpy().tolist(),
        "store": manifest.attrs.get("digest", ""),
        "digest": digest_of_rows(manifest[columns]),
    }


# What a person reads ---------------------------------------------------------------------------


def format_prepared(
    mapping: pd.DataFrame, rows: np.ndarray, manifest: pd.DataFrame, rejected: pd.DataFrame
) -> str:
    """A table of what became of the records, by archive."""
    found = mapping["archive"].value_counts(sort=False)
    chosen = mapping["archive"].iloc[rows].value_counts()
    lines: list[list[Any]] = []
    for archive, n_found in found.items():
        part = manifest[manifest["archive"] == archive]
        n_chosen = int(chosen.get(archive, 0))
        lines.append(
            [
                archive,
                int(n_found),
                int(n_found) - n_chosen,
                len(part),
                int((rejected["archive"] == archive).sum()),
                int(part["n_windows"].sum()),
                int((part["labels"].str.len() > 0).sum()),
                int((part["quality"] != "").sum()),
                int((part["duplicate_of"] != "").sum()),
            ]
        )
    total = ["all", *(sum(line[at] for line in lines) for at in range(1, 9))]
    header = [
        "archive", "found", "not selected", "stored", "rejected", "windows", "labelled",
        "quality flags", "duplicates",
    ]  # fmt: skip
    return format_table(header, [*lines, total] if len(lines) > 1 else lines)


def format_rejected(reasons: pd.Series[str], path: Path) -> str:
    """How many records were rejected, why most of them, and where all reasons are.

    Reasons that differ in names and numbers only count as one.
    """
    kinds = reasons.str.replace(r"\S*\d\S*", "", regex=True)
    commonest = reasons[kinds == kinds.value_counts().index[0]]
    n_alike = f"{len(commonest):,} like this: " if len(commonest) > 1 else ""
    return f"{plural(len(reasons), 'record')} rejected ({n_alike}{commonest.iloc[0]}); see {path}"


def format_splits(manifest: pd.DataFrame, splits: Mapping[str, Any], labels: Sequence[str]) -> str:
    """A table of records per split and label, in the order of ``labels``, and of patients."""
    rows = [rows_in_manifest(manifest, splits[split]) for split in SPLITS]
    parts = [manifest[["labels", "patient_group"]].iloc[of_split] for of_split in rows]
    counts = [Counter(chain.from_iterable(part["labels"])) for part in parts]
    lines: list[list[object]] = [
        [label, *(count[label] for count in counts)]
        for label in labels
        if any(label in count for count in counts)
    ]
    lines.append(["records", *(len(part) for part in parts)])
    groups = (number_texts(texts_of(part["patient_group"]), len(part)) for part in parts)
    lines.append(["patients", *(len(first_rows) for _, first_rows in groups)])
    return format_table(["label", *SPLITS], lines)
