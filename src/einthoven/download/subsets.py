"""Subsets of records, and tables that take their names after the records that they list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from einthoven.download.fetching import RemoteFile
from einthoven.download.ledger import HIDDEN, Ledger
from einthoven.download.listing import (
    choose_records,
    is_listing,
    of_records,
    read_listing,
    record_key,
)
from einthoven.files import read_json, write_json, write_text
from einthoven.sources import Source

SUBSET_NAME = "subset.json"
WHOLE = f"{HIDDEN}/whole/"


def subset_path(source: Source, folder: Path) -> Path:
    """Where it is said which records a subset has; tranches of one folder have one each."""
    return folder / source.part / SUBSET_NAME


# Tables, which wait until the records are there --------------------------------------------------


def held_table(file: RemoteFile) -> RemoteFile:
    """A table under the name that no reader sees, as it lists records that are not there yet."""
    return replace(file, path=f"{WHOLE}{file.path}")


def plain_path(path: str) -> str:
    """The name that a table has in the end."""
    return path.removeprefix(WHOLE)


def place_tables(source: Source, ledger: Ledger, held: Iterable[RemoteFile]) -> None:
    """Give the whole tables their names, and forget what was said of a subset."""
    for file in held:
        target = ledger.folder / plain_path(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        (ledger.folder / file.path).replace(target)
        ledger.add(plain_path(file.path), file.checksum)
    if set(cut_tables(source, ledger.folder)) <= {plain_path(file.path) for file in held}:
        forget_subsets(source, ledger.folder)


def cut_tables(source: Source, folder: Path) -> list[str]:
    """The tables that a subset has cut down."""
    path = subset_path(source, folder)
    return [*read_json(path)["cut_tables"]] if path.exists() else []


def forget_subsets(source: Source, folder: Path) -> None:
    """All is there: of the source, and of what is part of it."""
    subset_path(source, folder).unlink(missing_ok=True)
    if source.reader == "challenge" and not source.part:
        for path in folder.glob(f"training/*/{SUBSET_NAME}"):
            path.unlink()


# Subsets ---------------------------------------------------------------------------------------


def chosen_subset(
    source: Source, folder: Path, files: list[RemoteFile], tables: list[RemoteFile], count: int
) -> dict[str, Any]:
    """Which records a subset has: what `finish_subset` writes; empty where it would have all.

    Args:
        source: which.
        folder: the archive's.
        files: all but the tables.
        tables: that list records, which are there under the names of `held_table`.
        count: how many records.
    """
    keys = {record_key(file.path) for file in files if file.path.endswith(".hea")}
    folds: dict[str, str] = {}
    for table in tables:
        folds |= read_listing(listing_text(folder / table.path)).folds
    if folds:  # PTB-XL's files that its table does not list are nobody's
        keys &= folds.keys()
    chosen = choose_records(keys, count, folds)
    if chosen == keys:
        return {}
    return {
        "source": source.name, "version": source.version, "records": len(chosen),
        "of": len(keys), "cut_tables": [plain_path(table.path) for table in tables],
        "record_keys": sorted(chosen),
    }  # fmt: skip


def files_of_subset(files: list[RemoteFile], subset: dict[str, Any]) -> list[RemoteFile]:
    """The files of a subset's records, and those of no record."""
    return of_records(files, set(subset["record_keys"]))


def finish_subset(source: Source, folder: Path, subset: dict[str, Any]) -> None:
    """Write the cut tables last: only then do they list what is there."""
    chosen = set(subset["record_keys"])
    for name in subset["cut_tables"]:
        table = read_listing(listing_text(folder / WHOLE / name))
        write_text(folder / name, table.cut(chosen))
    write_json(subset_path(source, folder), subset)


def listing_text(path: Path) -> str:
    """A table's text; what is no UTF-8 stays as it is."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def without_tables(source: Source, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files without the tables that list records."""
    return [file for file in files if not is_listing(source, file.path)]
