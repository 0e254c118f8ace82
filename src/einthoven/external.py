"""Archives that a model has not seen: prepared as its own were, and searched for copies of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from einthoven.audit.sketches import Sketches, find_candidates
from einthoven.audit.verification import LEAST_CORRELATION, compare_anywhere
from einthoven.checkpoint import TrainedModel
from einthoven.chunks import gather_sketches, read_chunk_table
from einthoven.console import log, plural, progress
from einthoven.errors import DataError
from einthoven.files import Workspace, digest
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.store import Store, stored_signal


def prepare_external(settings: Settings, trained: TrainedModel, folder: Path) -> None:
    """Prepare a folder of archives as the model's own were; a second call finds them prepared.

    Raises:
        DataError: there is no such folder, or no record in it can be used.
        ConfigError: the model's label set is a file that is not at hand.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds archives, as Dataset/ does")
    prepare_archives(external_settings(settings, trained, folder))


def external_workspace(settings: Settings, folder: Path) -> Workspace:
    """A workspace within the workspace, for one external folder."""
    where = folder.resolve()
    name = f"{where.name or 'external'}-{digest(where.as_posix())[:8]}"
    return Workspace(settings.root / "artifacts" / "external" / name)


def external_settings(settings: Settings, trained: TrainedModel, folder: Path) -> Settings:
    """What the external records are prepared with: the model's own settings, all of the records."""
    band = trained.input.bandpass
    given = {
        "root": external_workspace(settings, folder).root,
        "dataset_dir": folder,
        "label_set": trained.facts["label_set"],
        "task": "single" if trained.single else "multi",
        "target_fs": trained.fs,
        "target_samples": trained.window,
        "bandpass": band is not None,
        "prepare_workers": settings.prepare_workers,
        "quiet": settings.quiet,
    }
    if band is not None:
        given |= {"bandpass_low_hz": band[0], "bandpass_high_hz": band[1]}
    return Settings(**given)


# Copies ------------------------------------------------------------------------------------------


def copies_of_known(known: Store, known_rows: np.ndarray, other: Store) -> pd.DataFrame:
    """Records of another store that hold a recording which the model knows.

    Args:
        known: the store that the model was trained from.
        known_rows: its records that trained it, picked its epoch or calibrated it.
        other: prepared at the same rate.

    Returns:
        ``record`` of the other store, and ``copy``, the record of the known one.
    """
    first, second = stored_sketches(known, known_rows), stored_sketches(other)
    n_known = len(known.manifest)
    together = Sketches(
        record=np.concatenate([first.record, second.record + n_known]),
        sketch=np.concatenate([first.sketch, second.sketch]),
        time_s=np.concatenate([first.time_s, second.time_s]),
    )
    candidates = find_candidates(together)
    candidates = candidates[(candidates["first"] < n_known) & (candidates["second"] >= n_known)]
    found = []
    for one, two, lag_s in progress(
        zip(candidates["first"], candidates["second"], candidates["lag_s"], strict=True),
        desc="Comparing with known records", total=len(candidates), unit="pairs",
    ):  # fmt: skip
        row = int(two) - n_known
        signals = stored_signal(known, int(one)), stored_signal(other, row)
        if compare_anywhere(*signals, known.target_fs, float(lag_s))[0] >= LEAST_CORRELATION:
            found.append((other.manifest["record"][row], known.manifest["record"][int(one)]))
    return pd.DataFrame(found, columns=["record", "copy"])


def stored_sketches(store: Store, rows: np.ndarray | None = None) -> Sketches:
    """The sketches that `einthoven prepare` made, by row of the manifest; of some rows only."""
    tables = []
    for name in store.shards:
        table, _ = read_chunk_table(store.records_dir, name)
        kept = table.filter(pa.compute.equal(table["reason"], ""))
        shard = pa.array([name] * len(kept))
        tables.append(kept.append_column("shard", shard).replace_schema_metadata(None))
    together = pa.concat_tables(tables)
    places = pd.MultiIndex.from_frame(together.select(["shard", "row"]).to_pandas())
    in_manifest = pd.MultiIndex.from_frame(store.manifest[["shard", "row"]]).get_indexer(places)
    sketches = gather_sketches(together)
    record = in_manifest[sketches.record]
    kept_rows = np.arange(len(store.manifest)) if rows is None else rows
    chosen = np.isin(record, kept_rows)
    return Sketches(record[chosen], sketches.sketch[chosen], sketches.time_s[chosen])


def patient_names(manifest: pd.DataFrame) -> pd.Series[str]:
    """``archive/patient`` of each record; empty where the archive names no patient."""
    names = manifest["archive"].astype(str) + "/" + manifest["patient_id"].astype(str)
    return names.where((manifest["patient_id"] != "").to_numpy(bool), "")


def without_known_records(
    known: Store, known_rows: np.ndarray, other: Store, rows: np.ndarray
) -> np.ndarray:
    """Leave out of some external records those whose recording or patient the model knows.

    A recording is known by its signal; a patient, where both stores have an archive of that name,
    by the name that the archive gives.

    Raises:
        DataError: nothing is left.
    """
    copies = copies_of_known(known, known_rows, other)
    table = other.manifest
    is_copy = table["record"].isin(set(copies["record"]))
    is_named = patient_names(table).isin(set(patient_names(known.manifest.iloc[known_rows])) - {""})
    group = table["patient_group"]
    is_known = group.isin(set(group[is_copy | is_named])).to_numpy()
    left: np.ndarray = rows[~is_known[rows]]
    if len(left) == len(rows):
        log.info("No external record is of a recording or patient that the model knows")
        return rows
    log.warning(
        "%s left out, because the model knows their recordings (%d copies found by signal) or "
        "their patients (%d records by archive and name)",
        plural(len(rows) - len(left), "external record"), int(is_copy.sum()), int(is_named.sum()),
    )  # fmt: skip
    if not len(left):
        raise DataError("the model knows the patients of every external record; none can be scored")
    return left
