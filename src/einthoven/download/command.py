"""`einthoven download`: published archives into folders that readers find."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from einthoven.console import log, plural, progress
from einthoven.download.fetching import RemoteFile, checksum_problem
from einthoven.download.ledger import HIDDEN, Ledger, SourceState, read_state, write_state
from einthoven.download.listing import (
    SUMS_NAME,
    is_listing,
    is_signal,
    listed_files,
    of_rate,
    parse_sums,
)
from einthoven.download.locking import only_download
from einthoven.download.outcome import Outcome, Wanted, source_folder
from einthoven.download.packed import fetch_packed, is_packed, unpack_given
from einthoven.download.parallel import fetch_as_set
from einthoven.download.patience import DiskFull, disk_explained
from einthoven.download.subsets import (
    chosen_subset,
    cut_tables,
    files_of_subset,
    finish_subset,
    held_table,
    place_tables,
    plain_path,
    without_tables,
)
from einthoven.download.unpacking import check_room
from einthoven.errors import ConfigError, DataError, DownloadError
from einthoven.readers.registry import find_archives
from einthoven.settings import Settings
from einthoven.sources import Source, find_source, source_address

# The command -----------------------------------------------------------------------------------


def download_archives(
    settings: Settings,
    names: Sequence[str],
    wanted: Wanted | None = None,
    zip_path: Path | None = None,
) -> list[Outcome]:
    """Fetch archives into `archives_dir`, or unpack a zip of one that is there already.

    What is there and verified is not fetched again; what is partly there is gone on with.

    Raises:
        ConfigError: a name that is not known or not open, or wishes that an archive cannot meet.
        DataError: the archive lies somewhere else, or its list of files cannot be understood.
        DownloadError: nothing of it can be had, or the disk has no room.
    """
    wanted = wanted or Wanted()
    sources = [find_source(name) for name in dict.fromkeys(names)]
    for source in sources:
        check_wishes(source, wanted, zip_path, len(sources))
        refuse_second_copy(source, settings)
    if len(sources) == 1:
        return [_download_one(sources[0], settings, wanted, zip_path)]
    return [_download_or_tell(source, settings, wanted) for source in sources]


def check_wishes(source: Source, wanted: Wanted, zip_path: Path | None, n_sources: int) -> None:
    """Refuse wishes that an archive cannot meet.

    Raises:
        ConfigError: says why.
    """
    if zip_path and (n_sources > 1 or wanted.records or wanted.rate):
        raise ConfigError("--zip unpacks one whole archive: name one, without --subset and --rate")
    if wanted.records and source.files:
        packed = " and ".join(file.name for file in source.files if is_packed(file.name))
        raise ConfigError(
            f"--subset: the records of {source.name} are published in {packed}, which has to be "
            "fetched whole; leave out --subset, or set ECG_PREPROCESS_LIMIT to prepare fewer"
        )
    if wanted.rate and wanted.rate not in source.rates:
        has = f"has {', '.join(map(str, source.rates))}" if source.rates else "has one rate only"
        raise ConfigError(f"--rate {wanted.rate}: {source.name} {has}; leave out --rate")


def refuse_second_copy(source: Source, settings: Settings) -> None:
    """Refuse to fetch what lies in the data folder already, elsewhere than where files go.

    Raises:
        DataError: names the folder.
    """
    folder = source_folder(source, settings)
    if not settings.archives_dir.is_dir() or read_state(folder, source.name) is not None:
        return
    for archive in find_archives(settings.archives_dir)[0]:
        place = _place_of(source, folder, archive.name, archive.folder)
        if place is not None and place.resolve() != archive.folder.resolve():
            raise DataError(
                f"{archive.name} lies in {archive.folder} already. To have it verified and "
                f"completed, move what is in that folder to {place}"
            )


def _place_of(source: Source, folder: Path, name: str, found: Path) -> Path | None:
    """Where an archive that was found belongs, if it is this source or a part of it."""
    if name != source.name and not name.startswith(f"{source.name}-"):
        return None
    if source.reader != "challenge":
        return folder if name == source.name else None
    return folder / (source.part or f"training/{found.name}")


def _download_or_tell(source: Source, settings: Settings, wanted: Wanted) -> Outcome:
    """One of several: that it cannot be had does not stop the others."""
    try:
        return _download_one(source, settings, wanted, None)
    except DiskFull:
        raise
    except (DownloadError, DataError) as error:
        folder = source_folder(source, settings)
        state = SourceState(
            source.name, source.version, "", wanted.records, wanted.rate, 1, 1, True
        )
        return Outcome(source, folder, state, n_files=1, failed={source.name: str(error)})


def _download_one(
    source: Source, settings: Settings, wanted: Wanted, zip_path: Path | None
) -> Outcome:
    folder = source_folder(source, settings)
    with disk_explained(folder), only_download(folder):
        return _download_alone(source, settings, wanted, zip_path)


def _download_alone(
    source: Source, settings: Settings, wanted: Wanted, zip_path: Path | None
) -> Outcome:
    began, folder = time.monotonic(), source_folder(source, settings)
    ledger, before = Ledger(folder), read_state(folder, source.name)
    wanted = _grown(source, folder, wanted, before)
    came_from = str(zip_path) if zip_path else source_address(source, settings.mirror)
    state = SourceState(
        source.name, source.version, came_from, wanted.records, wanted.rate, 0, 0, False
    )
    outcome = Outcome(source, folder, state, is_local=zip_path is not None)
    try:
        if zip_path:
            unpack_given(source, ledger, zip_path, outcome)
        if source.project:
            _fetch_listed(settings, ledger, wanted, outcome)
        elif zip_path is None:
            fetch_packed(source, settings, ledger, outcome, wanted.verify)
    finally:
        # The list says the same with lines of files that are gone.
        with contextlib.suppress(OSError):
            ledger.tidy()
    outcome.state = replace(
        outcome.state, n_files=outcome.n_files, n_failed=len(outcome.failed), is_done=True
    )
    if not outcome.failed:
        ledger.forget_parts(outcome.paths)
    write_state(folder, outcome.state)
    outcome.seconds = time.monotonic() - began
    return outcome


def _grown(source: Source, folder: Path, wanted: Wanted, before: SourceState | None) -> Wanted:
    """A lesser wish never makes less of what is there."""
    if before is None:
        return wanted
    if wanted.records and not before.records and not _has_records(folder / source.part):
        return wanted
    if wanted.records and not before.records:
        raise ConfigError(
            f"--subset: a download of all of {source.name} was begun here; leave out --subset to "
            f"go on with it, or delete {source.folder} to begin anew"
        )
    if wanted.records and before.records > wanted.records:
        log.info("%s: %s are there already", source.name, plural(before.records, "record"))
        wanted = replace(wanted, records=before.records)
    if wanted.records == before.records and before.is_complete:
        asked = {rate for state in (wanted, before) for rate in _rates(source, state.rate)}
        wanted = replace(wanted, rate=0) if asked == {*source.rates} else wanted
    return wanted


def _rates(source: Source, rate: int) -> tuple[int, ...]:
    return (rate,) if rate else source.rates


def _has_records(folder: Path) -> bool:
    return any(is_signal(path.name) for path in folder.rglob("*.*"))


# Archives with a list of their files -----------------------------------------------------------


def _fetch_listed(settings: Settings, ledger: Ledger, wanted: Wanted, outcome: Outcome) -> None:
    """Fetch what the list names. A zip that holds the list needs no network."""
    source = outcome.source
    if outcome.is_local and not (ledger.folder / SUMS_NAME).exists():
        log.warning("%s: the zip holds no %s, so nothing is verified", source.name, SUMS_NAME)
        outcome.state = replace(outcome.state, is_verified=False)
        return
    files = of_rate(_files_by_list(settings, ledger, wanted, outcome), source, wanted.rate)
    outcome.note_begun()
    outcome.paths = [file.path for file in files]
    if outcome.is_local:
        missing = _missing(files, ledger, wanted.verify, source.name)
        outcome.n_files = len(files)
        outcome.failed = {file.path: f"{file.path} is not in the zip" for file in missing}
    elif wanted.records:
        _fetch_subset(settings, ledger, wanted, outcome, files)
    else:
        _fetch_whole(settings, ledger, wanted, outcome, files)


def _files_by_list(
    settings: Settings, ledger: Ledger, wanted: Wanted, outcome: Outcome
) -> list[RemoteFile]:
    """The files that the archive's list names; a published version never changes.

    The list takes its name when it is found good: a page that asks for a password is none.
    """
    source, path = outcome.source, ledger.folder / SUMS_NAME
    address = source_address(source, settings.mirror)
    if outcome.is_local:
        return _files_in_list(source, address, path)
    if ledger.has(SUMS_NAME) and not wanted.verify:
        with contextlib.suppress(DataError):
            return _files_in_list(source, address, path)
    arriving = RemoteFile(f"{HIDDEN}/{SUMS_NAME}", address + SUMS_NAME)
    failed = fetch_as_set(settings, [arriving], ledger, f"{source.name}: list of files")
    if failed:
        raise DownloadError(f"{source.name}: {failed[arriving.path]}")
    try:
        files = _files_in_list(source, address, ledger.folder / arriving.path)
    except DataError as error:
        (ledger.folder / arriving.path).unlink()
        raise DataError(f"{address} gives no list of files that can be used: {error}") from error
    (ledger.folder / arriving.path).replace(path)
    ledger.add(SUMS_NAME)
    return files


def _files_in_list(source: Source, address: str, path: Path) -> list[RemoteFile]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return listed_files(source, address, parse_sums(text, source.part))


def _fetch_whole(
    settings: Settings, ledger: Ledger, wanted: Wanted, outcome: Outcome, files: list[RemoteFile]
) -> None:
    """Fetch all; tables that list records take their names when those have come."""
    source = outcome.source
    cut = set(cut_tables(source, ledger.folder))
    uncut = [file for file in files if file.path not in cut]
    missing = _missing(uncut, ledger, wanted.verify, source.name)
    missing += [file for file in files if file.path in cut]
    held = [held_table(file) for file in missing if is_listing(source, file.path)]
    absent = _missing(held, ledger, wanted.verify, source.name) + without_tables(source, missing)
    _fetch_missing(settings, ledger, outcome, absent)
    outcome.n_files = len(files)
    there = [file for file in held if plain_path(file.path) not in outcome.failed]
    place_tables(source, ledger, there)


def _fetch_subset(
    settings: Settings, ledger: Ledger, wanted: Wanted, outcome: Outcome, files: list[RemoteFile]
) -> None:
    """Fetch some records, and cut the tables down to them."""
    source = outcome.source
    others = without_tables(source, files)
    tables = [held_table(file) for file in files if is_listing(source, file.path)]
    failed = fetch_as_set(
        settings, _missing(tables, ledger, wanted.verify, source.name), ledger,
        f"{source.name}: tables",
    )  # fmt: skip
    if failed:
        raise DownloadError(f"{source.name}: {next(iter(failed.values()))}")
    subset = chosen_subset(source, ledger.folder, others, tables, wanted.records)
    if not subset:
        outcome.state = replace(outcome.state, records=0)
        return _fetch_whole(settings, ledger, wanted, outcome, files)
    chosen = files_of_subset(others, subset)
    absent = _missing(chosen, ledger, wanted.verify, source.name)
    _fetch_missing(settings, ledger, outcome, absent)
    outcome.n_files = len(chosen)
    finish_subset(source, ledger.folder, subset | {"rate": wanted.rate})


def _missing(files: list[RemoteFile], ledger: Ledger, verify: bool, name: str) -> list[RemoteFile]:
    """The files that are not there or not right; those that somebody else put there are hashed."""
    unknown = [f for f in files if verify or not ledger.has(f.path, f.checksum)]
    if len(unknown) == len(files) and not any((ledger.folder / f.path).exists() for f in files):
        return unknown
    missing = []
    for file in progress(unknown, desc=f"{name}: looking at what is there", unit="files"):
        path = ledger.folder / file.path
        if not path.is_file():
            missing.append(file)
        elif problem := checksum_problem(path, file):
            log.warning("%s: %s; it is fetched again", file.path, problem)
            missing.append(file)
        else:
            ledger.add(file.path, file.checksum)
    return missing


def _fetch_missing(
    settings: Settings, ledger: Ledger, outcome: Outcome, missing: list[RemoteFile]
) -> None:
    source = outcome.source
    if source.size_gb:
        needed = bytes_needed(source, (file.path for file in missing))
        check_room(ledger.folder, needed, f"downloading {source.name}", "take --subset")
    failed = fetch_as_set(settings, missing, ledger, source.name)
    outcome.failed = {plain_path(path): reason for path, reason in failed.items()}
    outcome.n_fetched = len(missing) - len(failed)


def bytes_needed(source: Source, paths: Iterable[str]) -> float:
    """About how many bytes the records take that these files are of; those of 500 Hz five times."""
    records = {path.rpartition(".")[0] for path in paths if is_signal(path)}
    per_record = 1e9 * (source.size_gb or 0.0) / source.records
    if not source.rates:
        return len(records) * per_record
    shares = {f"records{rate}": rate / sum(source.rates) for rate in source.rates}
    return sum(per_record * shares.get(path.partition("/")[0], 1.0) for path in records)
