"""What the checks look at: each thing is read once, and no more of it than they need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import torch

from einthoven.errors import DataError, EinthovenError
from einthoven.files import Workspace, read_json
from einthoven.holdout import hold_out_records
from einthoven.inference import choose_device
from einthoven.labelling import choose_archives, read_mapping
from einthoven.labels.mapping import MAPPING_COLUMNS
from einthoven.preflight.estimates import TrainingNeed, training_need
from einthoven.readers.registry import Archive, find_archives
from einthoven.runs import chosen_records, store_differences
from einthoven.settings import Settings
from einthoven.split_records import SPLITS, read_splits
from einthoven.store import Store, read_store

Verdict = Literal["passed", "warning", "failed"]

NOT_MADE = "not made yet; `einthoven run` makes it"

# Columns of the manifest that the checks need.
CHECKED_COLUMNS = (
    "record", "archive", "record_id", "patient_id", "patient_group", "duplicate_of", "fold",
    "shard", "row", "n_windows", "n_samples", "labels",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        found: what was found.
        advice: what to do next; empty when nothing needs doing.
    """

    subject: str
    verdict: Verdict
    found: str
    advice: str = ""


class Opened:
    """A workspace and its archives as the checks see them.

    What cannot be opened raises an `EinthovenError`, each time that it is asked for.
    """

    def __init__(self, settings: Settings, port: int | None = None) -> None:
        self.settings, self.port = settings, port

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @cached_property
    def found_archives(self) -> tuple[list[Archive], list[str]]:
        """The archives found, and remarks on what was passed by."""
        return find_archives(self.settings.archives_dir)

    @cached_property
    def archives(self) -> list[Archive]:
        """The archives that the settings ask for."""
        found, remarks = self.found_archives
        settings = self.settings
        return choose_archives(found, settings.archives, settings.archives_dir, remarks)

    @cached_property
    def coverage(self) -> pd.DataFrame:
        """Of each archive of the mapping, ``records`` and those ``labelled``, by its name."""
        return count_labelled(self.workspace.mapping_path)

    @cached_property
    def store(self) -> Store:
        return read_store(self.workspace, CHECKED_COLUMNS)

    @cached_property
    def written_splits(self) -> dict[str, Any]:
        """What ``splits.json`` holds; empty where there is none."""
        path = self.workspace.splits_path
        return read_splits(path, self.store.manifest) if path.exists() else {}

    @cached_property
    def splits(self) -> dict[str, Any]:
        """The splits of this run as they are written; `check_splits` says whether they are sound.

        Raises:
            DataError: there are none, or not all three.
        """
        splits = dict(self.written_splits)
        if not all(name in splits for name in SPLITS):
            raise DataError(
                f"{self.workspace.splits_path} lacks one of {', '.join(SPLITS)}; run `einthoven "
                "prepare` to remake it"
            )
        if self.settings.hold_out:
            splits |= hold_out_records(self.store.manifest, self.settings.hold_out)
        return splits

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Rows of the manifest that each split of this run has; what is not stored is left out."""
        chosen = chosen_records(self.settings, self.store, self.splits)
        return {split: rows[rows >= 0] for split, rows in chosen.items()}

    @cached_property
    def differences(self) -> list[str]:
        """Settings that the store was not prepared with."""
        try:
            splits = self.written_splits
        except DataError:
            splits = {}  # a finding of the splits, not of the store
        return store_differences(self.settings, self.store, splits)

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.settings.device)

    @cached_property
    def need(self) -> TrainingNeed:
        """What training takes; on the CPU where the device that is asked for cannot be used."""
        try:
            return training_need(self.settings, self.device)
        except EinthovenError:
            return training_need(self.settings, torch.device("cpu"))

    @property
    def n_known_records(self) -> int:
        """Records that there are to prepare, as far as the mapping tells; 0 where it does not."""
        try:
            there = self.workspace.mapping_path.exists()
            n_records = int(self.coverage["records"].sum()) if there else 0
        except EinthovenError:
            return 0
        return min(n_records, self.settings.ecg_preprocess_limit or n_records)

    @property
    def has_store(self) -> bool:
        """Whether the store is there and made with these settings, so that it need not be made."""
        try:
            return self.workspace.manifest_path.exists() and not self.differences
        except EinthovenError:
            return False

    @property
    def n_run_windows(self) -> int:
        """Windows that a run keeps: those of its train and validation splits."""
        counts = self.store.manifest["n_windows"].to_numpy()
        try:
            return int(sum(counts[self.rows[split]].sum() for split in SPLITS[:2]))
        except EinthovenError:
            return int(counts.sum())


def stamp_values(workspace: Workspace, step: str) -> dict[str, Any]:
    """From what a step last finished; empty where it never has."""
    path = workspace.step_path(step)
    return dict(read_json(path)) if path.exists() else {}


# The mapping -------------------------------------------------------------------------------------


def count_labelled(mapping_path: Path) -> pd.DataFrame:
    """Records and labelled records per archive of a mapping, by the archive's name.

    Raises:
        DataError: the mapping cannot be read, or lacks a column.
    """
    counts = _count_by_pieces(mapping_path)
    if counts is None:
        mapping = read_mapping(mapping_path)
        columns = {name: mapping[name].astype(str) for name in ("archive", "labels")}
        counts = _count_piece(pa.table(columns))
    counted = pd.DataFrame.from_dict(counts, orient="index", columns=["records", "labelled"])
    return counted.rename_axis("archive").astype(int)


ArchiveCounts = dict[str, tuple[int, int]]


def _count_piece(
    piece: pa.Table | pa.RecordBatch, before: ArchiveCounts | None = None
) -> ArchiveCounts:
    """Records and labelled records of each archive, with those counted before."""
    counts = dict(before or {})
    is_labelled = pc.not_equal(pc.utf8_trim_whitespace(piece["labels"]), "")
    together = pa.table({"archive": piece["archive"], "labelled": is_labelled.cast(pa.int64())})
    grouped = together.group_by("archive", use_threads=False)
    found = grouped.aggregate([("labelled", "count"), ("labelled", "sum")]).to_pydict()
    for archive, *more in zip(
        found["archive"], found["labelled_count"], found["labelled_sum"], strict=True
    ):
        n_records, n_labelled = counts.get(archive, (0, 0))
        counts[archive] = (n_records + more[0], n_labelled + more[1])
    return counts


def _count_by_pieces(path: Path) -> ArchiveCounts | None:
    """Of a mapping as this program writes it, without having all of it in memory.

    None of one that a spreadsheet has written: its separator, encoding and quoting may be others.
    """
    with path.open("rb") as file:
        if file.readline().rstrip(b"\r\n") != ",".join(MAPPING_COLUMNS).encode():
            return None
    kinds = dict.fromkeys(("archive", "labels"), pa.string())
    options = arrow_csv.ConvertOptions(
        include_columns=list(kinds), column_types=kinds, strings_can_be_null=False
    )
    counts: ArchiveCounts = {}
    try:
        with arrow_csv.open_csv(path, convert_options=options) as pieces:
            for piece in pieces:
                counts = _count_piece(piece, counts)
    except pa.ArrowInvalid:
        return None
    return counts
