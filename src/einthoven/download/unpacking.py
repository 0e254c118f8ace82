"""Zip and tar files, unpacked so that a hostile or damaged one does no harm."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from einthoven.console import log, plural, progress
from einthoven.download.listing import is_hidden_path
from einthoven.errors import DownloadError
from einthoven.files import atomic_path
from einthoven.readers.fields import path_problem

# ECG archives shrink to a half or a third; what unpacks to a hundred times is no archive.
LARGEST_RATIO = 100
SMALLEST_LIMIT = 100_000_000
MOST_PACKED_FILES = 3_000_000
COPY_BYTES = 1 << 20
PACKED_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# Folders that an archive's files really lie in; any other single folder on top is wrapping.
_KEPT_TOPS = (
    "training", "validation", "records", "WFDBRecords", "WFDB_", "Training_", "TrainingSet",
    "patient",
)  # fmt: skip


@dataclass(frozen=True)
class PackedFile:
    """A file in a zip or tar: its name there, its place below the archive's folder, its length.

    A tar knows no CRC; there it is None until the file has been unpacked.
    """

    name: str
    path: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def unpack(
    packed: Path,
    folder: Path,
    home: str = "",
    accept: Callable[[list[PackedFile]], list[PackedFile]] = list,
) -> list[PackedFile]:
    """Unpack a zip or tar file into a folder; files that are there already are left as they are.

    Each file appears whole or not at all, so that unpacking goes on where it was stopped.

    Args:
        packed: the zip or tar.
        folder: the archive's folder.
        home: a folder in it that all files belong in, whether or not the zip says so.
        accept: puts what it holds in the order to unpack it in, or raises before that begins.

    Returns:
        Every file that it holds, with the CRC of its bytes.

    Raises:
        DownloadError: it is damaged, leads out of the folder, holds links, or is a bomb.
    """
    with _explained(packed), _opened(packed) as members:
        placed = _placed(packed, members, home)
        _check_sizes(packed, placed, folder)
        unpacked = []
        for member in progress(accept(placed), desc=f"unpacking {packed.name}", unit="files"):
            known = _with_crc(member) if has_size(folder / member.path, member.size) else member
            if not is_as_unpacked(folder / member.path, member.size, known.crc):
                known = _unpack_one(known, folder / member.path)
            unpacked.append(known)
        return unpacked


def _with_crc(member: PackedFile) -> PackedFile:
    """The same length says nothing of the bytes: where a tar has no CRC, they are read for it."""
    if member.crc is not None:
        return member
    with member.open() as opened:
        return replace(member, crc=crc_of(opened))


def _unpack_one(member: PackedFile, target: Path) -> PackedFile:
    crc = 0
    with member.open() as source, atomic_path(target) as beside, beside.open("wb") as written:
        while chunk := source.read(COPY_BYTES):
            crc = zlib.crc32(chunk, crc)
            written.write(chunk)
        if written.tell() != member.size:
            raise DownloadError(f"{member.name} is cut short")
    return replace(member, crc=crc)


def has_size(path: Path, size: int) -> bool:
    """Is there a file of this length?"""
    return path.is_file() and path.stat().st_size == size


def is_as_unpacked(path: Path, size: int, crc: int | None) -> bool:
    """Is there a file with these bytes? Without a CRC to hold them to, none is."""
    if crc is None or not has_size(path, size):
        return False
    with path.open("rb") as opened:
        return crc_of(opened) == crc


def crc_of(opened: IO[bytes]) -> int:
    """The CRC-32 of what is left to read of a file."""
    crc = 0
    while chunk := opened.read(COPY_BYTES):
        crc = zlib.crc32(chunk, crc)
    return crc


# What the libraries raise where a file is not what it says; the last is a way of packing unknown.
_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


@contextmanager
def _explained(packed: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise DownloadError(f"{packed} cannot be unpacked ({error}); fetch it again") from error
    except RuntimeError as error:  # what zipfile says of a password
        raise DownloadError(f"{packed} cannot be unpacked: {error}") from error


@contextmanager
def _opened(packed: Path) -> Iterator[list[PackedFile]]:
    if not packed.is_file():
        found = "a folder, and no zip or tar file" if packed.is_dir() else "not there"
        raise DownloadError(f"{packed} is {found}")
    if zipfile.is_zipfile(packed):
        with zipfile.ZipFile(packed) as opened:
            yield [_zip_member(opened, info) for info in opened.infolist() if not info.is_dir()]
    elif tarfile.is_tarfile(packed):
        with tarfile.open(packed) as opened_tar:
            members = [_tar_member(opened_tar, info) for info in opened_tar if not info.isdir()]
            _check_tar_end(packed, opened_tar)
            yield members
    else:
        raise DownloadError(f"{packed} is no zip or tar file, or its end is missing")


def _check_tar_end(packed: Path, opened: tarfile.TarFile) -> None:
    """A tar ends with empty blocks; the library takes a damaged name for the end, too."""
    assert opened.fileobj is not None
    opened.fileobj.seek(opened.offset)
    block = opened.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) != tarfile.BLOCKSIZE or any(block):
        what = "is damaged" if block else "is cut off"
        raise DownloadError(f"{packed} {what} after {opened.offset:,} bytes; fetch it again")


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> PackedFile:
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DownloadError(f"{opened.filename} holds a link, {info.filename}; not unpacked")
    return PackedFile(
        info.filename, info.filename, info.file_size, info.CRC, lambda: opened.open(info)
    )


def _tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo) -> PackedFile:
    if not info.isreg():
        raise DownloadError(f"{opened.name!s} holds {info.name}, which is no file; not unpacked")

    def content() -> IO[bytes]:
        found = opened.extractfile(info)
        if found is None:
            raise DownloadError(f"{info.name} holds nothing")
        return found

    return PackedFile(info.name, info.name, info.size, None, content)


def _placed(packed: Path, members: list[PackedFile], home: str) -> list[PackedFile]:
    """The members where they belong, without what a Mac adds, hidden files and wrapping."""
    for member in members:
        if problem := path_problem(member.name.replace("\\", "/")):
            raise DownloadError(f"{packed}: {problem}; nothing is unpacked")
    named = [(member, _plain_name(member.name)) for member in members]
    # A hidden file is none of an archive: it may be ours, or another program's to run.
    named = [(member, name) for member, name in named if not _is_left_out(name)]
    if len(named) < len(members):
        left_out = plural(len(members) - len(named), "hidden file")
        log.info("%s: %s left out", packed.name, left_out)
    names = _unwrapped([name for _, name in named])
    if home:
        names = [name if name.startswith(f"{home}/") else f"{home}/{name}" for name in names]
    if clash := _file_and_folder(names):
        raise DownloadError(f"{packed} has {clash} as a file and as a folder; nothing is unpacked")
    return [replace(member, path=name) for (member, _), name in zip(named, names, strict=True)]


def _plain_name(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _file_and_folder(names: list[str]) -> str:
    files = set(names)
    folders = {name.rpartition("/")[0] for name in names}
    folders |= {parent.as_posix() for folder in folders for parent in PurePosixPath(folder).parents}
    return min(files & folders, default="")


def _unwrapped(names: list[str]) -> list[str]:
    """Names without the folders that all of them share, down to one that an archive has.

    >>> _unwrapped(["ptb-xl-1.0.3/RECORDS", "ptb-xl-1.0.3/records100/1.hea"])
    ['RECORDS', 'records100/1.hea']
    """
    while names:
        tops = {name.partition("/")[0] for name in names}
        top = next(iter(tops))
        if len(tops) > 1 or not all("/" in name for name in names) or top.startswith(_KEPT_TOPS):
            break
        names = [name.partition("/")[2] for name in names]
    return names


def _is_left_out(name: str) -> bool:
    return name.startswith("__MACOSX/") or is_hidden_path(name)


def _check_sizes(packed: Path, members: list[PackedFile], folder: Path) -> None:
    total, packed_size = sum(member.size for member in members), packed.stat().st_size
    if len(members) > MOST_PACKED_FILES or total > max(LARGEST_RATIO * packed_size, SMALLEST_LIMIT):
        raise DownloadError(
            f"{packed} says that its {plural(len(members), 'file')} unpack to {total / 1e9:.1f} GB "
            f"from {packed_size / 1e9:.3f} GB, which no ECG archive does; nothing is unpacked"
        )
    # What is there already needs no room, so that unpacking can go on where a full disk stopped it.
    absent = (member for member in members if not has_size(folder / member.path, member.size))
    check_room(folder, sum(member.size for member in absent), f"unpacking {packed.name}")


class NoRoom(DownloadError):
    """The disk has too little room for what is to come."""


def check_room(folder: Path, n_bytes: float, doing: str, instead: str = "") -> None:
    """Refuse what the disk has no room for.

    Args:
        folder: where it is to go.
        n_bytes: how much comes.
        doing: what is refused, for the message.
        instead: what else there is to do, besides making room.

    Raises:
        NoRoom: says how much is free and how much is needed.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < n_bytes:
        ways = ["make room", "set DATASET_DIR to another disk", *filter(None, [instead])]
        raise NoRoom(
            f"{doing} needs about {bytes_words(n_bytes)} and {bytes_words(free)} are free on the "
            f"disk of {folder}: {', '.join(ways[:-1])} or {ways[-1]}"
        )


def bytes_words(n_bytes: float) -> str:
    """Gigabytes, or megabytes where they are less than one.

    >>> bytes_words(3.24e9), bytes_words(2.4e6)
    ('3.2 GB', '2.4 MB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
