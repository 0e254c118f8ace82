"""Archives in a few zip or tar files: fetched or given, unpacked, and what they held is kept."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from einthoven.console import plural
from einthoven.download.fetching import RemoteFile
from einthoven.download.ledger import HIDDEN, Ledger
from einthoven.download.listing import is_listing, read_listing, record_key
from einthoven.download.outcome import Outcome
from einthoven.download.parallel import fetch_as_set
from einthoven.download.subsets import cut_tables, forget_subsets, listing_text
from einthoven.download.unpacking import PACKED_SUFFIXES, PackedFile, check_room, unpack
from einthoven.errors import DownloadError
from einthoven.files import read_json, write_json
from einthoven.settings import Settings
from einthoven.sources import Source, SourceFile, source_address


def is_packed(name: str) -> bool:
    """Is this a zip or tar, by its name?"""
    return name.endswith(PACKED_SUFFIXES)


def unpack_given(source: Source, ledger: Ledger, zip_path: Path, outcome: Outcome) -> None:
    """Unpack what somebody has; of an archive in several zips, the others are still missing.

    Raises:
        DownloadError: it cannot be unpacked, or holds nothing of this archive.
    """

    def accepted(members: list[PackedFile]) -> list[PackedFile]:
        refuse_other_archive(source, zip_path, members)
        outcome.note_begun()
        # Tables last: a subset's own stand for what is there until all of it is.
        return sorted(members, key=lambda member: is_listing(source, member.path))

    homes = {file.name: file.home for file in source.files}
    name = published_name(source, zip_path.name)
    members = unpack(zip_path, ledger.folder, homes.get(name, ""), accepted)
    if set(cut_tables(source, ledger.folder)) <= {member.path for member in members}:
        forget_subsets(source, ledger.folder)
    outcome.n_files = outcome.n_fetched = len(members)
    if name:
        _note_held(ledger, _kept_path(name), members)
        outcome.n_files = len(homes)
        outcome.failed = {
            file.name: f"{file.name} is not there yet; without --zip it is fetched"
            for file in source.files
            if not _is_packed_there(ledger, _remote_file(file))
        }
        outcome.n_fetched = 1
    if source.files and not outcome.failed:
        outcome.failed = unlisted_problems(source, ledger.folder)


def published_name(source: Source, given: str) -> str:
    """Which of an archive's packed files somebody has; a tar ends in .tar, .tar.gz or .tgz.

    >>> from einthoven.sources import SOURCES
    >>> published_name(SOURCES["sph"], "records.tar")
    'records.tar.gz'
    """
    stems = {
        file.name.partition(".")[0]: file.name for file in source.files if is_packed(file.name)
    }
    return stems.get(given.partition(".")[0], "")


def refuse_other_archive(source: Source, packed: Path, members: list[PackedFile]) -> None:
    """Refuse a zip of something else, before anything of it lies among the archive's files.

    Raises:
        DownloadError: no file's name is one that this archive has.
    """
    if not any(fnmatchcase(member.path, sign) for member in members for sign in source.signs):
        held = ", ".join(member.path for member in members[:2]) or "nothing"
        raise DownloadError(
            f"{packed} is no {source.name}: it holds {held} ({plural(len(members), 'file')} in "
            f"all) and nothing like {' or '.join(source.signs[:3])}; nothing is unpacked"
        )


def unlisted_problems(source: Source, folder: Path) -> dict[str, str]:
    """What the archive's own table lists and no file has, though all that packs it was unpacked."""
    problems: dict[str, str] = {}
    for name in source.listing:
        if not (folder / name).is_file():
            problems[name] = f"{name} is not there yet; without --zip it is fetched"
            continue
        # The first row names the columns.
        listed = {key for key, _ in read_listing(listing_text(folder / name)).rows[1:]}
        there = {record_key(path.name) for path in folder.rglob("*.*") if is_record_file(path)}
        if lost := sorted(listed - there):
            problems[name] = (
                f"{plural(len(lost), 'record')} of the {len(listed):,} that {name} lists are not "
                f"there, such as {lost[0]}; what packed them was damaged or cut"
            )
    return problems


def is_record_file(path: Path) -> bool:
    """Is this a record of an archive in zips or tars?"""
    return path.suffix in (".h5", ".mat")


def fetch_packed(source: Source, settings: Settings, ledger: Ledger, outcome: Outcome) -> None:
    """Fetch an archive's few files, unpack those that pack, and keep what they held."""
    address = source_address(source, settings.mirror) if settings.mirror else ""
    files = [_remote_file(file, address) for file in source.files]
    missing = [file for file in files if not _is_packed_there(ledger, file)]
    outcome.n_files, outcome.paths = len(files), [file.path for file in files]
    outcome.note_begun()
    if source.size_gb and missing:
        # The packed file and its content lie side by side for a while.
        check_room(ledger.folder, 2e9 * source.size_gb, f"downloading {source.name}")
    outcome.failed = _fetch_and_unpack(source, settings, ledger, missing)
    # Without a checksum, a file that arrived damaged is found when it is unpacked.
    again = [file for file in missing if file.path in outcome.failed and is_packed(file.path)]
    if again:
        for file in again:
            outcome.failed.pop(file.path)
        outcome.failed |= _fetch_and_unpack(source, settings, ledger, again)
    outcome.n_fetched = len(missing) - len(outcome.failed)
    if not outcome.failed and (problems := unlisted_problems(source, ledger.folder)):
        outcome.failed = problems
        for file in filter(lambda file: is_packed(file.path), files):
            _held_path(ledger, file.path).unlink(missing_ok=True)


def _fetch_and_unpack(
    source: Source, settings: Settings, ledger: Ledger, files: list[RemoteFile]
) -> dict[str, str]:
    """Fetch what a program stopped before unpacking has not left here, and unpack what packs."""
    homes = {_kept_path(file.name): file.home for file in source.files}
    absent = [file for file in files if not ledger.has(file.path, file.checksum)]
    failed = fetch_as_set(settings, absent, ledger, source.name)
    for path in [file.path for file in files if file.path not in failed]:
        if is_packed(path):
            try:
                _unpack_fetched(ledger, path, homes[path])
            except DownloadError as error:
                (ledger.folder / path).unlink(missing_ok=True)
                failed[path] = str(error)
    return failed


def _kept_path(name: str) -> str:
    return f"{HIDDEN}/{name}" if is_packed(name) else name


def _remote_file(file: SourceFile, address: str = "") -> RemoteFile:
    """Where a file is had and kept, and the sum that its publisher gives, if any."""
    url = address + file.name if address else file.url
    return RemoteFile(_kept_path(file.name), url, "md5" if file.md5 else "", file.md5)


def _held_path(ledger: Ledger, path: str) -> Path:
    return ledger.folder / f"{path}.json"


def _unpack_fetched(ledger: Ledger, path: str, home: str) -> None:
    _note_held(ledger, path, unpack(ledger.folder / path, ledger.folder, home))
    (ledger.folder / path).unlink()


def _note_held(ledger: Ledger, path: str, members: list[PackedFile]) -> None:
    """Keep what a zip held, to see later that all of it is still there."""
    write_json(_held_path(ledger, path), {member.path: member.size for member in members})


def _is_packed_there(ledger: Ledger, file: RemoteFile) -> bool:
    if not is_packed(file.path):
        return ledger.has(file.path, file.checksum)
    if not _held_path(ledger, file.path).exists():
        return False
    held: dict[str, int] = read_json(_held_path(ledger, file.path))
    return all(_has_size(ledger.folder / name, size) for name, size in held.items())


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
