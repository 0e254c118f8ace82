"""Archives in a few zip or tar files: fetched or given, unpacked, and what they held is kept."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from einthoven.console import log, plural, progress
from einthoven.download.fetching import RemoteFile, checksum_problem
from einthoven.download.ledger import HIDDEN, Ledger
from einthoven.download.listing import is_listing, read_listing, record_key
from einthoven.download.outcome import Outcome
from einthoven.download.parallel import fetch_as_set
from einthoven.download.subsets import cut_tables, forget_subsets, listing_text
from einthoven.download.unpacking import (
    PACKED_SUFFIXES,
    NoRoom,
    PackedFile,
    check_room,
    has_size,
    is_as_unpacked,
    unpack,
)
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
        DownloadError: it cannot be unpacked, holds nothing of this archive, or is not as published.
    """
    name = recognised_name(source, zip_path)
    is_unknown = not name and any(file.md5 for file in source.files)
    if is_unknown:
        outcome.state = replace(outcome.state, is_verified=False)

    def accepted(members: list[PackedFile]) -> list[PackedFile]:
        refuse_other_archive(source, zip_path, members)
        outcome.note_begun()
        if is_unknown:  # it may write over what a verified file held
            _forget_held(source, ledger)
        # Tables last: a subset's own stand for what is there until all of it is.
        return sorted(members, key=lambda member: is_listing(source, member.path))

    homes = {file.name: file.home for file in source.files}
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


def recognised_name(source: Source, given: Path) -> str:
    """Which of an archive's packed files this is: by its checksum, or by its name if none is known.

    Raises:
        DownloadError: it has the name of one whose publisher says another checksum.
    """
    by_name = published_name(source, given.name)
    summed = [file for file in source.files if is_packed(file.name) and file.md5]
    for file in summed if given.is_file() else []:
        problem = checksum_problem(given, _remote_file(file))
        if not problem:
            return file.name
        if file.name == by_name:
            raise DownloadError(
                f"{given} is not {file.name} as it was published: {problem}; nothing is unpacked. "
                f"If it is damaged, `einthoven download {source.name}` without --zip fetches it "
                "again. If somebody has packed it anew, give it another name: it is then unpacked "
                "and counts as not verified"
            )
    return by_name


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


def fetch_packed(
    source: Source, settings: Settings, ledger: Ledger, outcome: Outcome, verify: bool = False
) -> None:
    """Fetch an archive's few files, unpack those that pack, and keep what they held."""
    address = source_address(source, settings.mirror) if settings.mirror else ""
    files = [_remote_file(file, address) for file in source.files]
    missing = [file for file in files if not _is_packed_there(ledger, file, verify)]
    outcome.n_files, outcome.paths = len(files), [file.path for file in files]
    outcome.note_begun()
    _check_room_for(source, ledger, missing)
    outcome.failed, damaged = _fetch_and_unpack(source, settings, ledger, missing)
    # What arrives wrong is fetched twice by itself where it has a checksum; without one, that a
    # file is damaged shows only here.
    again = [file for file in missing if file.path in damaged]
    if again:
        unfetched, damaged = _fetch_and_unpack(source, settings, ledger, again)
        outcome.failed |= unfetched | damaged
    outcome.n_fetched = len(missing) - len(outcome.failed)
    if not outcome.failed and (problems := unlisted_problems(source, ledger.folder)):
        outcome.failed = problems
        _forget_held(source, ledger)


def _check_room_for(source: Source, ledger: Ledger, missing: list[RemoteFile]) -> None:
    """Refuse to fetch a packed file that the disk has no room for; tables take next to none."""
    absent = [file for file in missing if is_packed(file.path) and not _is_fetched(ledger, file)]
    if source.size_gb and absent:
        # The packed file and its content lie side by side for a while.
        parts = [ledger.part_path(file.path) for file in absent]
        came = sum(part.stat().st_size for part in parts if part.exists())
        check_room(ledger.folder, 2e9 * source.size_gb - came, f"downloading {source.name}")


def _is_fetched(ledger: Ledger, file: RemoteFile) -> bool:
    """Has a program that was stopped before it unpacked this left it here?"""
    return ledger.has(file.path, file.checksum)


def _fetch_and_unpack(
    source: Source, settings: Settings, ledger: Ledger, files: list[RemoteFile]
) -> tuple[dict[str, str], dict[str, str]]:
    """Fetch what is not here yet, and unpack what packs.

    Returns:
        ``{path: reason}`` of the files that cannot be had, and of those that came, are damaged, and
        may come whole another time.
    """
    homes = {_kept_path(file.name): file.home for file in source.files}
    absent = [f for f in files if not (is_packed(f.path) and _is_fetched(ledger, f))]
    failed, damaged = fetch_as_set(settings, absent, ledger, source.name), {}
    for file in [file for file in files if file.path not in failed and is_packed(file.path)]:
        try:
            _unpack_fetched(ledger, file.path, homes[file.path])
        except NoRoom as error:
            failed[file.path] = str(error)
        except DownloadError as error:
            if file.checksum:  # these are the publisher's bytes, and would come the same again
                failed[file.path] = str(error)
            else:
                (ledger.folder / file.path).unlink(missing_ok=True)
                damaged[file.path] = str(error)
    return failed, damaged


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
    """Keep what a zip held, to see later that all of it is still there, and still the same."""
    held = {member.path: [member.size, member.crc] for member in members}
    write_json(_held_path(ledger, path), held)


def _forget_held(source: Source, ledger: Ledger) -> None:
    for file in source.files:
        _held_path(ledger, _kept_path(file.name)).unlink(missing_ok=True)


def _is_packed_there(ledger: Ledger, file: RemoteFile, verify: bool = False) -> bool:
    if not is_packed(file.path):
        return _is_table_there(ledger, file, verify)
    if not _held_path(ledger, file.path).exists():
        return False
    lost = _lost_files(ledger, file.path, verify)
    if lost and verify:
        log.warning(
            "%s: %s of what it held not as unpacked, such as %s; it is fetched again",
            file.path, plural(len(lost), "file"), lost[0],
        )  # fmt: skip
        # What has been found does not hang on this fetch: the next run would look at lengths alone.
        _held_path(ledger, file.path).unlink()
    return not lost


def _is_table_there(ledger: Ledger, file: RemoteFile, verify: bool) -> bool:
    """A table that its publisher gives a sum of is known by that, whoever put it there."""
    if ledger.has(file.path, file.checksum) and not (verify and file.checksum):
        return True
    path = ledger.folder / file.path
    if not file.checksum or not path.is_file():
        return False
    if problem := checksum_problem(path, file):
        log.warning("%s: %s; it is fetched again", file.path, problem)
        return False
    ledger.add(file.path, file.checksum)
    return True


def _lost_files(ledger: Ledger, path: str, verify: bool) -> list[str]:
    """What a packed file held and is not there; or, to verify, has other bytes than it held."""
    folder, held = ledger.folder, read_json(_held_path(ledger, path))
    # Older notes have no CRC: nothing there vouches for the bytes.
    noted = {name: note if isinstance(note, list) else [note, None] for name, note in held.items()}
    if not verify:
        return [name for name, (size, _) in noted.items() if not has_size(folder / name, size)]
    shown = progress(noted.items(), desc=f"looking at what {path} held", unit="files")
    return [name for name, (size, crc) in shown if not is_as_unpacked(folder / name, size, crc)]
