"""The first step: find the archives, list their records, and map their codes to labels."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from einthoven.columns import number_few, release_freed
from einthoven.console import format_table, log, plural, progress
from einthoven.download.ledger import unfinished_download
from einthoven.errors import ConfigError, DataError, RecordError
from einthoven.files import (
    NOT_DONE_YET,
    digest,
    file_digest,
    read_json,
    stamp_step,
    step_changes,
    write_csv,
)
from einthoven.labels.edits import (
    MappingLine,
    apply_edits,
    keyed_lines,
    read_mapping_lines,
    read_plain_mapping,
)
from einthoven.labels.mapping import (
    MAPPING_COLUMNS,
    MappingRow,
    coverage,
    format_coverage,
    labels_in_a_line,
    mapping_rows,
    split_labels,
)
from einthoven.labels.sets import LABEL_SETS, LabelSet, known_label, load_label_set
from einthoven.readers.registry import Archive, find_archives, index_archive, read_signal
from einthoven.records import RecordInfo
from einthoven.settings import Settings, did_you_mean

# What must be there for a person's edits to be read.
EDIT_COLUMNS = ("archive", "record_id", "labels", "labels_mapped")

# The step ----------------------------------------------------------------------------------------


def label_archives(settings: Settings, say_skipped: bool = True) -> pd.DataFrame:
    """Write ``logs/unified_label_mapping.csv`` and ``logs/label_coverage.csv``.

    Skipped when neither archives, label set, settings nor the mapping file have changed. A person
    may edit the column ``labels``; edits hold over re-runs and come back when an earlier label set
    is chosen again.

    Args:
        settings: of the run.
        say_skipped: log a line when nothing has changed.

    Returns:
        The mapping, as `read_mapping` gives it.

    Raises:
        ConfigError: a label set or archive that is not there.
        DataError: no archives, an archive's list of records that cannot be used, edits that name
            no label, or a file that another program keeps open.
    """
    with _open_elsewhere_explained(settings.workspace.mapping_path):
        return _label_or_skip(settings, say_skipped)


@contextlib.contextmanager
def _open_elsewhere_explained(path: Path) -> Iterator[None]:
    # On Windows a spreadsheet keeps others from reading or replacing the file that it shows.
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"{error.filename or path} cannot be read or replaced ({error.strerror}); close the "
            "program that has it open, say a spreadsheet, and run again"
        ) from error


def _label_or_skip(settings: Settings, say_skipped: bool) -> pd.DataFrame:
    label_set = load_label_set(settings.label_set)
    single = label_set.single if settings.task == "auto" else settings.task == "single"
    found, remarks = find_archives(settings.archives_dir)
    archives = choose_archives(found, settings.archives, settings.archives_dir, remarks)
    for archive in archives:
        if said := unfinished_download(archive.name, archive.folder, settings.archives_dir):
            log.warning("%s", said)
    inputs = _label_inputs(settings, label_set, single, archives)
    mapping_path = settings.workspace.mapping_path
    stamp_path = settings.workspace.step_path("label")
    changes = step_changes(stamp_path, inputs | {mapping_path.name: file_digest(mapping_path)})
    if not changes and mapping_path.exists():
        if say_skipped:
            log.info("label: nothing has changed since %s was written; skipped", mapping_path.name)
        return read_mapping(mapping_path)
    if changes != list(NOT_DONE_YET):
        log.info("label: %s", "; ".join(changes))
    for remark in remarks:
        log.info("%s", remark)
    mapping = _make_mapping(settings, label_set, single, archives)
    report = coverage(mapping, label_set)
    write_csv(mapping_path.with_name("label_coverage.csv"), report)
    if remainder := format_coverage(report):
        log.info("%s\n", remainder)
    stamp_step(stamp_path, inputs | {mapping_path.name: file_digest(mapping_path)})
    return mapping


def choose_archives(
    found: Sequence[Archive], wanted: str, folder: Path, remarks: Sequence[str] = ()
) -> list[Archive]:
    """The archives that the setting ``ARCHIVES`` names; all of them when it is empty.

    Raises:
        ConfigError: a name that no archive found has.
        DataError: nothing was found at all.
    """
    if not found:
        passed_by = "".join(f"\n  {remark}" for remark in remarks)
        raise DataError(f"no archive that a reader knows lies in {folder}{passed_by}")
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = {archive.name: archive for archive in found}
    problems = [
        f"ARCHIVES names {name!r}, found: {', '.join(known)}{did_you_mean(name, known)}"
        for name in names
        if name not in known
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return [archive for archive in found if not names or archive.name in names]


def read_mapping(path: Path) -> pd.DataFrame:
    """The mapping table.

    Returns:
        The columns of `MAPPING_COLUMNS`: text, empty where there is nothing; ``age`` and ``fold``
        are float64 with NaN.

    Raises:
        DataError: the file is not there, or lacks a column.
    """
    if not path.exists():
        raise DataError(f"{path} is not there; run `einthoven label` first")
    columns = read_plain_mapping(path, MAPPING_COLUMNS)
    if columns is None:
        # A step that needs the mapping may meet one that an earlier version wrote.
        advice = "Run `einthoven label` to have it made again; edits stay."
        lines = read_mapping_lines(path, MAPPING_COLUMNS, advice)
        columns = {
            name: pd.Series([line.values.get(name, "") for line in lines], dtype=object).astype(str)
            for name in MAPPING_COLUMNS
        }
    for name in ("age", "fold"):
        numbers, texts = number_few(columns[name])
        decimal = pd.Series(texts, dtype=object).astype(str).str.replace(",", ".", regex=False)
        values = pd.to_numeric(decimal, errors="coerce").astype("float64").to_numpy()
        columns[name] = pd.Series(values[numbers], dtype="float64")
        release_freed()
    return pd.DataFrame(columns, copy=False)


# Mapping -----------------------------------------------------------------------------------------


def _make_mapping(
    settings: Settings, label_set: LabelSet, single: bool, archives: Sequence[Archive]
) -> pd.DataFrame:
    rows: list[MappingRow] = []
    leads_and_fs: dict[str, tuple[str, str]] = {}
    for archive in progress(archives, desc="listing archives", unit="archives"):
        infos = index_archive(archive, settings.target_fs)
        folder = archive.folder.relative_to(settings.archives_dir).as_posix()
        leads_and_fs[archive.name] = _leads_and_fs(archive, infos)
        rows += mapping_rows(infos, archive.reader, folder, label_set, single)
    _write_with_edits(settings, label_set, single, rows)
    mapping = read_mapping(settings.workspace.mapping_path)
    log.info("\n%s\n", format_archives(mapping, leads_and_fs, label_set))
    return mapping


def format_archives(
    mapping: pd.DataFrame, leads_and_fs: Mapping[str, tuple[str, str]], label_set: LabelSet
) -> str:
    """A table of what was found in each archive, and what it was mapped to."""
    header = [
        "archive",
        "records",
        "patients",
        "leads",
        "fs",
        "labelled",
        "problems",
        "labels found",
    ]
    lines: list[list[object]] = []
    for name, part in mapping.groupby("archive", sort=False):
        of_record = "record " + part["record_id"]
        lines.append(
            [
                name,
                len(part),
                part["patient_id"].where(part["patient_id"] != "", of_record).nunique(),
                *leads_and_fs[str(name)],
                int((part["labels"] != "").sum()),
                int((part["problem"] != "").sum()),
                labels_in_a_line(part["labels"], label_set.labels),
            ]
        )
    return format_table(header, lines)


def _leads_and_fs(archive: Archive, infos: Sequence[RecordInfo]) -> tuple[str, str]:
    """Leads and rate of the archive's first record that can be read; three are tried."""
    sound = [info for info in infos if not info.problem]
    for info in sound[:3]:
        try:
            _, fs, leads = read_signal(archive.reader, archive.folder, info.path)
        except RecordError:
            continue
        return str(len(leads)), f"{fs:g}"
    return "?", "?"


# Edits -------------------------------------------------------------------------------------------


def _write_with_edits(
    settings: Settings, label_set: LabelSet, single: bool, rows: Sequence[MappingRow]
) -> None:
    """Write the mapping, keeping what a person changed in it, or in an earlier one of this set.

    The earlier mapping of another set is put aside first. Edits of records that this run did not
    list, say because ARCHIVES leaves their archive out, are put aside as well.
    """
    path = settings.workspace.mapping_path
    aside = mapping_path_of(path, label_set.name)
    before = read_mapping_lines(path, EDIT_COLUMNS) if path.exists() else []
    set_before = _label_set_of(before, settings, label_set)
    edits = keyed_lines(read_mapping_lines(aside, EDIT_COLUMNS)) if aside.exists() else {}
    if set_before != label_set.name:
        _put_aside(mapping_path_of(path, set_before), before)
    else:
        edits |= keyed_lines(before)
    edits = {key: line for key, line in edits.items() if line.is_edited}
    n_kept, elsewhere = apply_edits(rows, edits, label_set, single)
    # From here until the step has finished, no stamp says which set the file belongs to.
    settings.workspace.step_path("label").unlink(missing_ok=True)
    # At every moment each edit is in one file at least, lest a kill lose it.
    _put_aside(aside, list(edits.values()))
    write_csv(path, pd.DataFrame(rows, columns=list(MAPPING_COLUMNS)))
    _write_aside(aside, list(elsewhere.values()))
    if n_kept:
        log.info("%s kept", plural(n_kept, "edited record"))
    if elsewhere:
        log.info(
            "%s of records that are not listed now; kept in %s",
            plural(len(elsewhere), "edit"), aside.name,
        )  # fmt: skip


def mapping_path_of(mapping_path: Path, label_set_name: str) -> Path:
    """Where the mapping of a label set lies while another set is in use."""
    return mapping_path.with_name(f"{mapping_path.stem}.{label_set_name}{mapping_path.suffix}")


def _put_aside(path: Path, lines: Sequence[MappingLine]) -> None:
    """Add lines to a mapping put aside; a record's new line replaces its old one."""
    kept = keyed_lines(read_mapping_lines(path, EDIT_COLUMNS)) if path.exists() else {}
    kept |= keyed_lines(lines)
    _write_aside(path, list(kept.values()))


def _write_aside(path: Path, lines: Sequence[MappingLine]) -> None:
    """Put lines aside in place of those that are; no file where no line is edited."""
    if any(line.is_edited for line in lines):
        rows = [[line.values.get(c, "") for c in MAPPING_COLUMNS] for line in lines]
        write_csv(path, pd.DataFrame(rows, columns=list(MAPPING_COLUMNS)))
    else:
        path.unlink(missing_ok=True)


def _label_set_of(lines: Sequence[MappingLine], settings: Settings, now: LabelSet) -> str:
    """The name of the label set that a mapping file was made for.

    The stamp says so. Without one (it was deleted, or a run was killed after it wrote the file) the
    labels in the file tell.
    """
    stamp_path = settings.workspace.step_path("label")
    if stamp_path.exists():
        return str(read_json(stamp_path)["label set"])
    labels = {part for line in lines for part in split_labels(line.values.get("labels_mapped", ""))}
    for label_set in (now, *(make() for make in LABEL_SETS.values())):
        if all(known_label(label, label_set.labels) for label in labels):
            return label_set.name
    return "earlier"


# What the step depends on ------------------------------------------------------------------------


def _label_inputs(
    settings: Settings, label_set: LabelSet, single: bool, archives: Iterable[Archive]
) -> dict[str, Any]:
    return {
        "label set": label_set.name,
        "table of codes": label_set.fingerprint,
        # A mapping that an earlier version wrote may lack some.
        "columns of the mapping": digest(MAPPING_COLUMNS),
        "labels per record": "one" if single else "any number",
        "target_fs": settings.target_fs,
        "data folder": str(settings.archives_dir.resolve()),
        **{f"archive {archive.name}": archive_digest(archive.folder) for archive in archives},
    }


def archive_digest(folder: Path) -> str:
    """Sixteen hexadecimal digits that change when any file under a folder does.

    Names, sizes and times of change of all files, and the bytes of the tables at the top, which
    people edit. Hidden files and folders, as `download` keeps its notes in, do not count: readers
    pass them by.
    """
    state = hashlib.sha256()
    for line in sorted(_file_lines(folder)):
        state.update(line.encode("utf-8", "backslashreplace"))
    for path in sorted(folder.glob("[!.]*.csv")):
        state.update(file_digest(path).encode())
    return state.hexdigest()[:16]


def _file_lines(folder: Path) -> Iterable[str]:
    waiting, met = [folder], set()
    while waiting:
        inner = waiting.pop()
        # Links may lead round in circles.
        if (real := inner.resolve()) in met:
            continue
        met.add(real)
        try:
            with os.scandir(inner) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                    else:
                        yield _file_line(entry)
        except OSError as error:  # the reader says what it cannot open
            yield f"{inner}\0{error}\n"


def _file_line(entry: os.DirEntry[str]) -> str:
    # A link to nowhere is a file of its own kind, not an error.
    stat = entry.stat(follow_symlinks=entry.is_file())
    return f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
