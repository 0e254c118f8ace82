"""Checks before a long run: what is there, what is missing or wrong, and what to do next."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from einthoven.console import format_table, plural
from einthoven.errors import EinthovenError
from einthoven.files import Workspace
from einthoven.inference import choose_device
from einthoven.labelling import choose_archives, read_mapping
from einthoven.labels.sets import load_label_set
from einthoven.readers.registry import Archive, find_archives
from einthoven.records import LEADS
from einthoven.residency import choose_residency, residency_line
from einthoven.runs import is_mapping_newer, run_splits, store_differences
from einthoven.settings import Settings
from einthoven.splits import read_splits
from einthoven.store import label_matrix, open_store

Verdict = Literal["passed", "warning", "failed"]

# Below this, a class is hardly learned and its scores are wide.
FEW_RECORDS = 20

# What a reader needs beyond the packages that are always installed.
READER_LIBRARIES = {"sph": "h5py"}

SPLIT_TITLES = {"train": "train", "val": "validation", "test": "test"}

NOT_MADE = "not made yet; `einthoven run` makes it"

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
    """Look at archives, labels, store, splits and the machine; no file stays behind.

    What no command has made yet is a warning. A check is left out where one that it builds on
    failed, or where what it looks at is not made yet.
    """
    checks: list[Check] = []
    unusable: set[str] = set()
    for look in LOOKS:
        found = _checks_of(look, settings) if unusable.isdisjoint(look.needs) else []
        if not found or any(
            check.verdict == "failed" or check.found == NOT_MADE for check in found
        ):
            unusable.add(look.subject)
        checks += found
    return checks


def _checks_of(look: Look, settings: Settings) -> list[Check]:
    if look.path and not look.path(settings.workspace).exists():
        return [Check(look.subject, "warning", NOT_MADE)]
    checks: list[Check] = []
    try:
        for check in look.checks(settings):
            checks.append(check)
    except EinthovenError as error:
        checks.append(Check(look.subject, "failed", str(error)))
    return checks


def format_checks(checks: Sequence[Check]) -> str:
    """A table of checks, what to do, and a line that counts the verdicts."""
    rows = [[check.verdict, check.subject, check.found] for check in checks]
    n_passed, n_warnings, n_failed = (
        sum(check.verdict == verdict for check in checks)
        for verdict in ("passed", "warning", "failed")
    )
    # Several checks of one subject may call for the same.
    advice = dict.fromkeys(f"  {check.subject}: {check.advice}" for check in checks if check.advice)
    lines = [
        format_table(["verdict", "subject", "found"], rows),
        "",
        *(["What to do:", *advice, ""] if advice else []),
        f"{n_passed} passed, {plural(n_warnings, 'warning')}, {n_failed} failed",
    ]
    return "\n".join(lines)


# Data ---------------------------------------------------------------------------------------------


def check_archives(settings: Settings) -> Iterator[Check]:
    found, remarks = find_archives(settings.archives_dir)
    if found:
        archives = choose_archives(found, settings.archives, settings.archives_dir, remarks)
        names = ", ".join(archive.name for archive in archives)
        yield Check("archives", "passed", f"{plural(len(archives), 'archive')}: {names}")
        yield from check_reader_libraries(archives)
    else:
        yield Check(
            "archives", "failed", f"none under {settings.archives_dir}",
            "put archives there, name their folder with --dataset-dir, or try `einthoven demo`",
        )  # fmt: skip
    for remark in remarks:
        yield Check("archives", "warning", remark)


def check_reader_libraries(archives: Sequence[Archive]) -> Iterator[Check]:
    """A warning for each archive whose reader lacks a library."""
    for archive in archives:
        library = READER_LIBRARIES.get(archive.reader)
        try:
            if library:
                importlib.import_module(library)
        except ImportError as error:
            yield Check(
                "archives", "warning",
                f"{archive.name} cannot be read without {library} ({error}); its records would be "
                "rejected",
                'pip install "einthoven[formats]"',
            )  # fmt: skip


def check_mapping(settings: Settings) -> Iterator[Check]:
    mapping = read_mapping(settings.workspace.mapping_path)
    has_label = mapping["labels"] != ""
    labelled = has_label.groupby(mapping["archive"]).sum()
    for archive in labelled.index[labelled == 0]:
        n = plural(int((mapping["archive"] == archive).sum()), "record")
        yield Check(
            "labels", "warning", f"{archive}: none of {n} has a label",
            f"label set {settings.label_set} does not cover {archive}",
        )  # fmt: skip
    sound = labelled.index[labelled > 0]
    if len(sound):
        n = plural(int(mapping["archive"].isin(sound).sum()), "record")
        where = f"{plural(len(sound), 'archive')}" if len(sound) > 1 else str(sound[0])
        found = f"{int(has_label.sum()):,} of {n} of {where} have a label"
        yield Check("labels", "passed", found)


def check_store(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    path = settings.workspace.splits_path
    splits = read_splits(path) if path.exists() else {}
    for difference in store_differences(settings, store, splits):
        yield Check(
            "store", "failed", f"prepared with another setting, {difference}",
            "run `einthoven prepare` with these settings, or give those of the store",
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
    splits = run_splits(settings, store)
    sizes = ", ".join(f"{title} {len(splits[split]):,}" for split, title in SPLIT_TITLES.items())
    yield Check("splits", "passed", f"no patient and no duplicate in two splits; {sizes}")


def check_classes(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    splits = run_splits(settings, store)
    labels = load_label_set(settings.label_set).labels
    by_record = store.manifest.set_index("record")
    for split, title in SPLIT_TITLES.items():
        counts = label_matrix(by_record.loc[splits[split]], labels).sum(0).astype(int)
        few = [
            f"{label} {count}"
            for label, count in zip(labels, counts, strict=True)
            if count < FEW_RECORDS
        ]
        if few:
            yield Check(
                "classes", "warning",
                f"{title}: fewer than {FEW_RECORDS} records of {', '.join(few)}",
                "scores of such classes say little; add archives, or use a coarser label set",
            )  # fmt: skip
        else:
            yield Check("classes", "passed", f"{title}: {FEW_RECORDS} records or more of each")


# Machine ------------------------------------------------------------------------------------------


def check_device(settings: Settings) -> Iterator[Check]:
    device = choose_device(settings.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    threads = plural(torch.get_num_threads(), "thread")
    yield Check("device", "passed", f"{device} {name}".strip() + f", {threads}")


def check_memory(settings: Settings) -> Iterator[Check]:
    store = open_store(settings.workspace)
    device, size = choose_device(settings.device), (store.n_windows, store.target_samples)
    residency = choose_residency(*size, device, settings.residency)
    yield Check("memory", "passed", residency_line(*size, device, residency))


def check_disk(settings: Settings) -> Iterator[Check]:
    try:
        folder = nearest_folder(settings.root)
        # Making something is the one sure test: an administrator may write to any folder, but for
        # file systems that take no files.
        Path(tempfile.mkdtemp(prefix=".einthoven-check-", dir=folder)).rmdir()
    except OSError as error:
        why = error.strerror or str(error)
        found = f"{settings.root} cannot be made or written to: {why}"
        yield Check("disk", "failed", found, "use another --root")
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


def nearest_folder(path: Path) -> Path:
    """The folder itself, or where it is not there the lowest of those above it that is."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


# Every look --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """A subject that is looked at.

    Attributes:
        checks: what finds out; it may raise an error that a user can mend.
        path: the file that `einthoven run` makes and that it looks at, if any.
        needs: subjects without which it cannot be made.
    """

    subject: str
    checks: Callable[[Settings], Iterator[Check]]
    path: Callable[[Workspace], Path] | None = None
    needs: tuple[str, ...] = ()


LOOKS = (
    Look("archives", check_archives),
    Look("labels", check_mapping, lambda workspace: workspace.mapping_path),
    Look("store", check_store, lambda workspace: workspace.manifest_path),
    Look("splits", check_split_patients, lambda workspace: workspace.splits_path, ("store",)),
    Look("classes", check_classes, needs=("store", "splits")),
    Look("device", check_device),
    Look("memory", check_memory, needs=("store", "device")),
    Look("disk", check_disk),
)
