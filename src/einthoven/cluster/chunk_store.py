"""Finished chunks in storage that several machines share: a folder, S3, Google Cloud and others.

``STORE_URL`` holds, in a folder per versions of NumPy and the like, a shard (``<name>.npy``) and a
table (``<name>.parquet``) per chunk, as a workspace does, and their checksums (``<name>.sha256``),
without which they do not count. The name of a chunk tells what it is made from, so what another
machine has made from the same files is fetched and not made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from einthoven.console import log, plural, progress
from einthoven.errors import ConfigError, DataError, EinthovenError
from einthoven.files import atomic_path
from einthoven.shards import numeric_versions, versions_in_words
from einthoven.store import shard_path

# Chunks that are on their way at the same time; each is some ten megabytes.
TRANSFERS_AT_ONCE = 8
# Here an object appears whole or not at all. Elsewhere a file is put beside and renamed.
WHOLE_OBJECTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf")
SUMS = ".sha256"
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class ChunkStore:
    """The storage behind a URL, as fsspec opens it.

    Raises:
        ConfigError: nothing here can open such a URL.
        DataError: by every method: the storage does not answer, or refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ConfigError(
                f"STORE_URL is {url}, and fsspec cannot be imported ({error}); "
                'pip install "einthoven[cluster]"'
            ) from error
        try:
            self.files, self.root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            # The text names the missing package, such as s3fs or gcsfs.
            raise ConfigError(f"STORE_URL is {url}, which cannot be opened: {error}") from error
        protocol = self.files.protocol
        names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        self.folder = f"{self.root}/{versions_in_words(numeric_versions())}"
        self.is_whole = any(name in WHOLE_OBJECTS for name in names)

    @property
    def address(self) -> str:
        """The URL as any process may use it, whatever its current folder is."""
        return str(self.files.unstrip_protocol(self.root))

    def names(self) -> set[str]:
        """The chunks that are there, with their checksums."""
        with self._told():
            self.files.invalidate_cache()
            try:
                listed = self.files.ls(self.folder, detail=False)
            except FileNotFoundError:
                return set()
        return {Path(str(key)).stem for key in listed if str(key).endswith(SUMS)}

    def upload(self, records_dir: Path, name: str) -> None:
        """Put a finished chunk there, its checksums last."""
        paths = chunk_files(records_dir, name)
        sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in paths)
        with self._told():
            self.files.makedirs(self.folder, exist_ok=True)
            for path in paths:
                self._put(path.name, partial(self.files.put_file, str(path)))
            self._put(f"{name}{SUMS}", lambda key: self.files.pipe_file(key, sums.encode()))

    def fetch(self, records_dir: Path, name: str) -> str:
        """Bring a chunk into a folder; it appears there only if it is sound.

        Returns:
            What is wrong with it, or nothing.
        """
        shard, table = chunk_files(records_dir, name)
        try:
            # The table is the last to take its place: it says that the shard is whole.
            with atomic_path(table) as table_beside, atomic_path(shard) as shard_beside:
                # What has no room is this machine's own disk.
                with self._told(str(records_dir)):
                    sums = self._text(f"{name}{SUMS}")
                    self._get(shard.name, shard_beside)
                    self._get(table.name, table_beside)
                check_sum(sums, shard.name, shard_beside)
                check_sum(sums, table.name, table_beside)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return ""

    def _put(self, name: str, write: Callable[[str], None]) -> None:
        key = f"{self.folder}/{name}"
        if self.is_whole:
            write(key)
            return
        beside = f"{self.folder}/.{name}-{secrets.token_hex(4)}"
        try:
            write(beside)
            self.files.mv(beside, key)
        finally:
            # It is left only where an upload failed, perhaps because nothing answers any more.
            with contextlib.suppress(Exception):
                if self.files.exists(beside):
                    self.files.rm_file(beside)

    def _get(self, name: str, path: Path) -> None:
        try:
            self.files.get_file(f"{self.folder}/{name}", str(path))
        except FileNotFoundError:
            raise FileNotFoundError(f"{name} is not there") from None

    def _text(self, name: str) -> str:
        return bytes(self.files.cat_file(f"{self.folder}/{name}")).decode("utf-8", "replace")

    @contextlib.contextmanager
    def _told(self, place: str = "") -> Iterator[None]:
        place = place or f"STORE_URL ({self.url})"
        try:
            yield
        except (FileNotFoundError, EinthovenError):
            raise
        # Each kind of storage has its own errors for no network, no such bucket, no right to it.
        except Exception as error:
            said = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            if getattr(error, "errno", None) in NO_ROOM:
                raise DataError(
                    f"a disk is full ({said}); make room where {place} lies and run the same "
                    "command again: finished chunks are kept"
                ) from error
            raise DataError(
                f"STORE_URL {self.url} cannot be used ({said}); look at the address, the network "
                "and your rights there, and run the same command again: finished chunks are kept"
            ) from error


def chunk_files(records_dir: Path, name: str) -> tuple[Path, Path]:
    """Where a chunk's shard and its table lie."""
    shard = shard_path(records_dir, name)
    return shard, shard.with_suffix(".parquet")


def sha256_of(path: Path) -> str:
    """The SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sum(sums: str, name: str, path: Path) -> None:
    """Compare a file with its line of a list of checksums.

    Raises:
        ValueError: it is not what was written.
    """
    if f"{sha256_of(path)}  {name}" not in sums.splitlines():
        raise ValueError(f"{name} has another checksum than it was written with")


# Many chunks -------------------------------------------------------------------------------------


def fetch_chunks(store: ChunkStore, names: Sequence[str], records_dir: Path) -> int:
    """Fetch those chunks that are in the store and sound; says which are not.

    Returns:
        How many have come.
    """
    there = store.names()
    wanted = [name for name in names if name in there]
    if not wanted:
        return 0

    def fetch(name: str) -> str:
        return store.fetch(records_dir, name)

    problems = _each_at_once(fetch, wanted, "fetching")
    for name, problem in zip(wanted, problems, strict=True):
        if problem:
            log.warning("%s in %s is damaged (%s) and is made again", name, store.url, problem)
    n_fetched = problems.count("")
    log.info("fetched %s from %s", plural(n_fetched, "chunk"), store.url)
    return n_fetched


def upload_chunks(store: ChunkStore, names: Sequence[str], records_dir: Path) -> None:
    """Put finished chunks into the store."""

    def upload(name: str) -> str:
        store.upload(records_dir, name)
        return ""

    if names:
        _each_at_once(upload, names, "uploading")
        log.info("uploaded %s to %s", plural(len(names), "chunk"), store.url)


def _each_at_once(function: Callable[[str], str], names: Sequence[str], desc: str) -> list[str]:
    executor = ThreadPoolExecutor(min(TRANSFERS_AT_ONCE, len(names)))
    try:
        told = executor.map(function, names)
        return list(progress(told, desc=desc, total=len(names), unit="chunks"))
    finally:
        executor.shutdown(cancel_futures=True)
