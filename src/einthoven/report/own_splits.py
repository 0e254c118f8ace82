"""Which stored records a run trained on, validated on and is tested on.

A run may have other splits than the store: it holds out folds or an archive, or takes a part of
the records. Its settings say so, and its data fingerprint shows whether they still lead there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from einthoven.errors import EinthovenError
from einthoven.evaluated import SPLIT_SETTINGS
from einthoven.files import Workspace
from einthoven.runs import chosen_records, data_fingerprint, run_splits
from einthoven.settings import Settings
from einthoven.store import store_of_manifest


@dataclass(frozen=True)
class OwnSplits:
    """The splits of a run, as far as they can be told.

    Attributes:
        rows: row numbers of the manifest in ``train``, ``val`` and ``test``; empty without a store.
        problem: why they cannot be told, though there is a run and a store.
        new_archives: of the archives tested on, those of whose patients the run saw no record.
        seen_archives: the other archives tested on.
    """

    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    problem: str = ""
    new_archives: tuple[str, ...] = ()
    seen_archives: tuple[str, ...] = ()


def own_splits(
    workspace: Workspace, manifest: pd.DataFrame | None, run: Mapping[str, Any] | None
) -> OwnSplits:
    """The splits that a run's settings lead to; without a run, the store's.

    Args:
        run: what ``run.json`` holds.
    """
    if manifest is None or not workspace.splits_path.exists():
        return OwnSplits()
    own = (run or {}).get("settings") or {}
    settings = Settings(root=workspace.root, run_name=workspace.run_name).model_copy(
        update={name: own[name] for name in SPLIT_SETTINGS if own.get(name) is not None}
    )
    try:
        store = store_of_manifest(manifest, workspace.records_dir)
        chosen = chosen_records(settings, store, run_splits(settings, store))
    except EinthovenError as error:
        return OwnSplits(problem=str(error))
    before = (run or {}).get("data")
    is_same = before is None or before == data_fingerprint(store, chosen)
    if not is_same or (run or {}).get("n_train") not in (None, len(chosen["train"])):
        return OwnSplits(
            problem="the store, its labels or its splits have changed since this run was trained"
        )
    new, seen = _tested_archives(manifest, chosen)
    return OwnSplits(chosen, "", new, seen)


def _tested_archives(
    manifest: pd.DataFrame, chosen: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Archives tested on, new to the model and not: one that shares a patient with it is not."""
    group, archive = manifest["patient_group"], manifest["archive"]
    met = set(group.iloc[np.concatenate([chosen["train"], chosen["val"]])])
    known = set(archive[group.isin(met)])
    tested = sorted(set(archive.iloc[chosen["test"]]))
    new = tuple(name for name in tested if name not in known)
    return new, tuple(name for name in tested if name in known)
