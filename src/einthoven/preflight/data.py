"""Checks of what is read: archives, labels, store, splits, copies, classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.audit.verification import AUDIT_VERSION
from einthoven.columns import number_lists
from einthoven.console import plural
from einthoven.errors import DataError, SplitError
from einthoven.files import file_digest
from einthoven.labels.sets import load_label_set
from einthoven.preflight.opened import Check, Opened, stamp_values
from einthoven.readers.own import OWN_TABLE
from einthoven.readers.registry import Archive
from einthoven.runs import has_one_label, is_mapping_newer
from einthoven.settings import Settings
from einthoven.split_records import SPLITS, rows_in_manifest, rows_of_records
from einthoven.splits import check_splits
from einthoven.store import check_shards

# Below this, a class is hardly learned.
FEW_RECORDS = 20
# An archive of which less than this share has a label is worth a look at what was not mapped.
LITTLE_COVERAGE = 0.5

# What a reader needs beyond the packages that are always installed.
READER_LIBRARIES = {"sph": "h5py"}
# Endings of files that hold signals, in any archive.
SIGNAL_SUFFIXES = (".dat", ".mat", ".h5", ".hdf5", ".npy", ".csv")
# Tables that lie beside the signals.
ARCHIVE_TABLES = (
    OWN_TABLE, "ptbxl_database.csv", "scp_statements.csv", "REFERENCE.csv", "metadata.csv",
)  # fmt: skip

SPLIT_TITLES = {"train": "train", "val": "validation", "test": "test"}
PREPARE_ADVICE = "run `einthoven prepare`"
LABEL_ADVICE = "run `einthoven label`; your edits stay"


# Archives and labels -----------------------------------------------------------------------------


def check_archives(opened: Opened) -> Iterator[Check]:
    """Archives are there, each holds something to read, and its reader has what it needs."""
    folder = opened.settings.archives_dir
    how = (
        "put archives there (`einthoven download` fetches public ones), name their folder with "
        "--dataset-dir, or try `einthoven demo`"
    )
    if not folder.is_dir():
        yield Check("archives", "failed", f"the data folder {folder} is not there", how)
        return
    found, remarks = opened.found_archives
    if not found:
        yield Check("archives", "failed", f"none under {folder}", how)
    for remark in remarks:
        yield Check(
            "archives", "warning", remark,
            "nothing, where no ECG archive lies there; docs/reference/archives.md tells which "
            "layouts are known",
        )  # fmt: skip
    if not found:
        return
    holding = []
    for archive in opened.archives:
        if holds_records(archive):
            holding.append(archive)
        else:
            yield Check(
                "archives", "warning", f"{archive.name}: no record in {archive.folder}",
                "copy the archive whole, with its signal files",
            )  # fmt: skip
    names = ", ".join(archive.name for archive in holding)
    if holding:
        yield Check("archives", "passed", f"{plural(len(holding), 'archive')}: {names}")
    yield from check_reader_libraries(holding)


def holds_records(archive: Archive) -> bool:
    """Whether an archive has a signal file, and a table of one's own a row: nothing is opened."""
    if archive.reader == "own" and not _has_a_row(archive.folder / OWN_TABLE):
        return False
    return _holds_signal(archive.folder)


def _has_a_row(table: Path) -> bool:
    try:
        with table.open("rb") as file:
            lines = (line for line in file if line.strip(b"\0\r\n\t ;,"))
            return next(lines, b"") != b"" and next(lines, b"") != b""
    except OSError:
        return False


def _holds_signal(folder: Path) -> bool:
    """Stops at the first signal file; links that lead round in circles end it too."""
    for _, _, names in os.walk(folder):
        if any(n.lower().endswith(SIGNAL_SUFFIXES) and n not in ARCHIVE_TABLES for n in names):
            return True
    return False


def check_reader_libraries(archives: list[Archive]) -> Iterator[Check]:
    """A warning for each archive whose reader lacks a library."""
    for archive in archives:
        library = READER_LIBRARIES.get(archive.reader)
        if library and find_spec(library) is None:
            yield Check(
                "archives", "warning",
                f"{archive.name} cannot be read without {library}; its records would be rejected",
                f"pip install {library}",
            )  # fmt: skip


def check_mapping(opened: Opened) -> Iterator[Check]:
    """The mapping was made with these settings, and each archive's records have labels."""
    counted = opened.coverage
    differences = mapping_differences(opened)
    changes = archive_changes(opened)
    for told in (*(f"made with another setting, {line}" for line in differences), *changes):
        yield Check("labels", "warning", told, LABEL_ADVICE)
    # Counts of another label set would be taken for those of this one.
    if not differences:
        yield from check_coverage(opened.settings, counted)


def check_coverage(settings: Settings, counted: pd.DataFrame) -> Iterator[Check]:
    """How many of each archive's records have a label."""
    for archive, n, labelled in counted.itertuples():
        told = f"{archive}: {labelled:,} of {plural(n, 'record')}"
        if labelled == 0:
            yield Check(
                "labels", "warning", f"{archive}: none of {plural(n, 'record')} has a label",
                f"label set {settings.label_set} does not cover {archive}",
            )  # fmt: skip
        elif labelled < LITTLE_COVERAGE * n:
            yield Check(
                "labels", "warning", f"{told} have a label ({labelled / n:.0%})",
                "logs/label_coverage.csv lists the codes that were not mapped",
            )  # fmt: skip
        else:
            has = "has" if labelled == 1 else "have"
            yield Check("labels", "passed", f"{told} {has} a label")


def mapping_differences(opened: Opened) -> list[str]:
    """What the mapping was made for and these settings do not ask for, as lines to print."""
    settings, stamp = opened.settings, stamp_values(opened.workspace, "label")
    if not stamp:
        return []
    label_set = load_label_set(settings.label_set)
    pairs = {
        "label_set": (stamp.get("label set"), label_set.name),
        "labels per record": (
            stamp.get("labels per record"), "one" if has_one_label(settings) else "any number",
        ),
        "data folder": (stamp.get("data folder"), str(settings.archives_dir.resolve())),
    }  # fmt: skip
    lines = [f"{name}: {then} -> {now}" for name, (then, now) in pairs.items() if then != now]
    if not lines and stamp.get("table of codes") != label_set.fingerprint:
        lines.append(f"the table of codes of {label_set.name} has changed")
    return lines


def archive_changes(opened: Opened) -> list[str]:
    """Archives that have come or gone since the mapping was made, as lines to print.

    Whether files of an archive have changed is left to `einthoven label`, which looks at each.
    """
    settings, stamp = opened.settings, stamp_values(opened.workspace, "label")
    if not (stamp and settings.archives_dir.is_dir() and opened.found_archives[0]):
        return []
    here = {archive.name for archive in opened.archives}
    listed = {name.removeprefix("archive ") for name in stamp if name.startswith("archive ")}
    came = [f"{name} is new; the mapping does not list it" for name in sorted(here - listed)]
    return came + [f"{name} is gone; the mapping lists it" for name in sorted(listed - here)]


# Store and splits --------------------------------------------------------------------------------


def check_store(opened: Opened) -> Iterator[Check]:
    """The store was made with these settings, from this mapping, to its end."""
    store = opened.store
    for difference in opened.differences:
        yield Check(
            "store", "failed", f"prepared with another setting, {difference}",
            "run `einthoven prepare` with these settings, or give those of the store",
        )  # fmt: skip
    if not stamp_values(opened.workspace, "prepare"):
        yield Check(
            "store", "warning",
            "the last `einthoven prepare` did not finish, or failed on some records",
            PREPARE_ADVICE,
        )  # fmt: skip
    if is_mapping_newer(opened.workspace):
        yield Check(
            "store", "warning", "the labels have changed since the store was made", PREPARE_ADVICE
        )
    size = f"in windows of {store.target_samples} samples at {store.target_fs} Hz"
    yield Check("store", "passed", f"{plural(len(store.manifest), 'record')} {size}")


def check_shard_files(opened: Opened) -> Iterator[Check]:
    """Every shard of the manifest is there and long enough."""
    check_shards(opened.store)
    n_shards = len(opened.store.shards)
    yield Check("shards", "passed", f"{plural(n_shards, 'file')}, as long as the manifest says")


def check_split_seed(opened: Opened) -> Iterator[Check]:
    """The splits were dealt with this seed, and no patient or copy is in two of them."""
    rows = opened.rows
    then, now = opened.written_splits.get("seed"), opened.settings.split_seed
    if then != now:
        yield Check(
            "splits", "warning", f"dealt with another setting, split_seed: {then} -> {now}",
            PREPARE_ADVICE,
        )  # fmt: skip
    try:
        check_splits(opened.written_splits, opened.store.manifest)
    except SplitError as error:
        found, _, advice = str(error).partition("; ")
        yield Check("splits", "failed", found, advice)
        return
    if not len(rows["train"]):
        yield Check(
            "splits", "failed", "no labelled record to train on",
            "prepare more records, or use a label set that covers these archives",
        )  # fmt: skip
        return
    sizes = ", ".join(f"{title} {len(rows[name]):,}" for name, title in SPLIT_TITLES.items())
    yield Check("splits", "passed", f"no patient in two splits; {sizes}")


def check_duplicates(opened: Opened) -> Iterator[Check]:
    """What `einthoven prepare` found of one recording met twice; no signal is compared here."""
    path = opened.workspace.processed_dir / "duplicates.csv"
    stamp, audit = stamp_values(opened.workspace, "audit"), opened.written_splits.get("audit", {})
    fresh = {"version": AUDIT_VERSION, "pairs": file_digest(path)}
    is_of_store = audit.get("store") == opened.store.digest
    if not is_of_store or any(stamp.get(name) != value for name, value in fresh.items()):
        yield Check(
            "duplicates", "warning", "this store has not been searched for copies", PREPARE_ADVICE
        )
        return
    try:
        pairs = pd.read_csv(path, usecols=["record", "copy"], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        told = f"{path} cannot be read ({error}); {PREPARE_ADVICE} to remake it"
        raise DataError(told) from error
    crossing = crossing_pairs(opened, pairs)
    if len(crossing):
        first, second = crossing.iloc[0]
        yield Check(
            "duplicates", "failed",
            f"{plural(len(crossing), 'recording')} met in two splits (first: {first} and {second})",
            PREPARE_ADVICE,
        )  # fmt: skip
    else:
        n_copies = int((opened.store.manifest["duplicate_of"] != "").sum())
        yield Check(
            "duplicates", "passed",
            f"no recording in two splits; {plural(n_copies, 'duplicate')} left out",
        )  # fmt: skip


def crossing_pairs(opened: Opened, pairs: pd.DataFrame) -> pd.DataFrame:
    """Those pairs of one recording of which two different splits have a record each."""
    records = opened.store.manifest["record"]
    # One more, for what is in no split and what is not in the store.
    split = np.full(len(records) + 1, -1, np.int8)
    for number, name in enumerate(SPLITS):
        split[rows_in_manifest(opened.store.manifest, opened.splits[name])] = number
    split[-1] = -1
    first, second = (split[rows_of_records(records, list(pairs[n]))] for n in ("record", "copy"))
    crossing: pd.DataFrame = pairs[(first >= 0) & (second >= 0) & (first != second)]
    return crossing


def check_classes(opened: Opened) -> Iterator[Check]:
    """Every class has records to learn from, and to be scored on."""
    labels = load_label_set(opened.settings.label_set).labels
    if any(line.startswith("label_set:") for line in opened.differences):
        return
    number, lists = number_lists(opened.store.manifest["labels"].to_numpy())
    carried = np.array([[label in names for label in labels] for names in lists], int)
    for split, title in SPLIT_TITLES.items():
        n_of_list = np.bincount(number[opened.rows[split]], minlength=len(lists))
        counts = n_of_list @ carried.reshape(len(lists), len(labels))
        least = FEW_RECORDS if split == "train" else 1
        few = {n: int(c) for n, c in zip(labels, counts, strict=True) if c < least}
        rarest = int(counts.argmin())
        if not few:
            fewest = f"fewest are {labels[rarest]}, {plural(int(counts[rarest]), 'record')}"
            yield Check("classes", "passed", f"{title}: {fewest}")
        elif split == "train":
            told = ", ".join(f"{name} {count}" for name, count in few.items())
            yield Check(
                "classes", "warning", f"{title}: fewer than {FEW_RECORDS} records of {told}",
                "such classes are hardly learned; add archives, or use a coarser label set",
            )  # fmt: skip
        else:
            yield Check(
                "classes", "warning", f"{title}: no record of {', '.join(few)}",
                "such classes get no score; add archives, or use a coarser label set",
            )  # fmt: skip
