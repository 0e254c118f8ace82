"""Checks before a long run: what is there, what is missing or wrong, and what to do next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from einthoven.batches import choose_residency
from einthoven.console import format_table, plural
from einthoven.errors import EinthovenError
from einthoven.inference import choose_device
from einthoven.labelling import choose_archives, read_mapping
from einthoven.labels.sets import load_label_set
from einthoven.readers.registry import find_archives
from einthoven.records import LEADS
from einthoven.runs import is_mapping_newer, store_differences
from einthoven.settings import Settings
from einthoven.splits import check_splits, read_splits
from einthoven.store import label_matrix, open_store

Verdict = Literal["passed", "warning", "failed"]

# Below this, a class is hardly learned and its scores are wide.
FEW_RECORDS = 20

GIB = 2**30
LITTLE_FREE_DISK_GIB = 5


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


def run_preflight_checks(settings: Settings) -> list[Check]:
    """Look at archives, labels, store, splits and the machine; nothing is written or read whole.

    A check that cannot be made because an earlier one failed is a failed check too.
    """
    checks: list[Check] = []
    for subject, look in CHECKS.items():
        try:
            checks += look(settings)
        except EinthovenError as error:
            checks.append(Check(subject, "failed", str(error)))
    return checks


def format_checks(checks: list[Check]) -> str:
    """A table of checks, and a line that counts them."""
    rows = [[check.verdict, check.subject, check.found] for check in checks]
    counts = {
        verdict: sum(check.verdict == verdict for check in checks)
        for verdict in ("passed", "warning", "failed")
    }
    advice = [f"  {check.subject}: {check.advice}" for check in checks if check.advice]
    lines = [
        format_table(["verdict", "subject", "found"], rows),
        "",
        *(["What to do:", *advice, ""] if advice else []),
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
    ]
    return "\n".join(lines)


# Data ---------------------------------------------------------------------------------------------


def check_archives(settings: Settings) -> Iterator[Check]:
    found, remarks = find_archives(settings.archives_dir)
    if found:
        archives = choose_archives(found, settings.archives, settings.archives_dir, remarks)
        names = ", ".join(archive.name for archive in archives)
        yield Check("archives", "passed", f"{plural(len(archives), 'archive')}: {names}")
    else:
        yield Check(
            "archives", "failed", f"none under {settings.archives_dir}",
            "put archives there, name their folder with --dataset-dir, or try `einthoven demo`",
        )  # fmt: skip
    for remark in remarks:
        yield Check("archives", "warning", remark)


def check_mapping(settings: Settings) -> Iterator[Check]:
    path = settings.workspace.mapping_path
    if not path.exists():
        yield Check("labels", "failed", f"{path} is not there", "run `einthoven label`")
        return
    mapping = read_mapping(path)
    for archive, rows in mapping.groupby("archive"):
        n_mapped = int((rows["labels"] != "").sum())
        yield Check(
            "labels",
            "passed" if n_mapped else "warning",
            f"{archive}: {n_mapped:,} of {plural(len(rows), 'record')} have a label",
            "" if n_mapped else f"label set {settings.label_set} does not cover {archive}",
        )


def check_store(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    splits = read_splits(settings.workspace.splits_path)
    for difference in store_differences(settings, store, splits):
        yield Check(
            "store", "failed", f"prepared with another setting, {difference}",
            "run `einthoven prepare` with the settings of the run, or give the store's",
        )  # fmt: skip
    if is_mapping_newer(settings.workspace):
        yield Check(
            "store", "warning", "the labels have changed since the store was made",
            "run `einthoven prepare`",
        )  # fmt: skip
    size = f"in windows of {store.target_samples} samples at {store.target_fs} Hz"
    yield Check("store", "passed", f"{plural(len(store.manifest), 'record')} {size}")


def check_split_patients(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    splits = read_splits(settings.workspace.splits_path)
    check_splits(splits, store.manifest)
    sizes = ", ".join(f"{split} {len(splits[split]):,}" for split in ("train", "val", "test"))
    yield Check("splits", "passed", f"no patient and no duplicate in two splits; {sizes}")


def check_classes(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    splits = read_splits(settings.workspace.splits_path)
    check_splits(splits, store.manifest)
    labels = load_label_set(settings.label_set).labels
    by_record = store.manifest.set_index("record")
    for split in ("train", "val", "test"):
        counts = label_matrix(by_record.loc[splits[split]], labels).sum(0).astype(int)
        few = [
            f"{label} {count}"
            for label, count in zip(labels, counts, strict=True)
            if count < FEW_RECORDS
        ]
        if few:
            yield Check(
                "classes", "warning",
                f"{split}: fewer than {FEW_RECORDS} records of {', '.join(few)}",
                "scores of such classes say little; add archives, or use a coarser label set",
            )  # fmt: skip
        else:
            yield Check("classes", "passed", f"{split}: {FEW_RECORDS} records or more of each")


# Machine ------------------------------------------------------------------------------------------


def check_device(settings: Settings) -> Iterator[Check]:
    device = choose_device(settings.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    threads = plural(torch.get_num_threads(), "thread")
    yield Check("device", "passed", f"{device} {name}".strip() + f", {threads}")


def check_memory(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    residency = choose_residency(
        store.n_windows, store.target_samples, choose_device(settings.device)
    )
    needed = store.n_windows * store.window_bytes / GIB
    free = psutil.virtual_memory().available / GIB
    where = {"device": "on the GPU", "memory": "in memory", "streamed": "read as needed"}
    found = f"{needed:.2f} GiB of windows, {free:.1f} GiB free: kept {where[residency]}"
    yield Check("memory", "passed", found)


def check_disk(settings: Settings) -> Iterator[Check]:
    folder = settings.root.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Check("disk", "failed", f"{folder} cannot be written to", "use another --root")
        return
    free = shutil.disk_usage(folder).free / GIB
    if free < LITTLE_FREE_DISK_GIB:
        per_record = 2 * len(LEADS) * settings.target_samples / 1000
        yield Check(
            "disk", "warning", f"{free:.1f} GiB free",
            f"a window takes {per_record:.0f} kB: make room, or use another --root",
        )  # fmt: skip
    else:
        yield Check("disk", "passed", f"{free:.0f} GiB free")


CHECKS: dict[str, Callable[[Settings], Iterator[Check]]] = {
    "archives": check_archives,
    "labels": check_mapping,
    "store": check_store,
    "splits": check_split_patients,
    "classes": check_classes,
    "device": check_device,
    "memory": check_memory,
    "disk": check_disk,
}
