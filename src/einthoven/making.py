"""Shards made where ``ENGINE`` says, and kept where ``STORE_URL`` says as well.

The bits are the same whoever makes them: worker processes of this machine, tasks of a Ray cluster,
or another machine, whose finished chunks are fetched.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven.chunks import Chunk, FileStamps, is_chunk_done, is_chunk_of_now
from einthoven.cluster.chunk_store import ChunkStore, chunk_files, fetch_chunks, upload_chunks
from einthoven.cluster.connection import connected_ray
from einthoven.cluster.tasks import chunk_needs, chunk_task, in_ray_tasks
from einthoven.console import log, plural, progress
from einthoven.errors import DataError
from einthoven.records import LEADS
from einthoven.settings import Settings
from einthoven.shards import prepare_chunk
from einthoven.store import shard_path
from einthoven.workers import in_processes

# A shared disk may say for a minute that a file is not there which another machine has written.
SECONDS_TO_APPEAR = 90.0
SECONDS_BETWEEN_TRIES = 1.0


def make_shards(settings: Settings, chunks: Sequence[Chunk], how: Mapping[str, Any]) -> int:
    """Make the shards that are not there yet, in parallel.

    Args:
        settings: where shards lie, who makes them, and where else they are kept.
        chunks: of `plan_chunks`.
        how: of `signal_settings`.

    Returns:
        How many were made; those that were fetched from ``STORE_URL`` are not among them.

    Raises:
        DataError: the disk is full, a worker process was killed, or a machine of the cluster lacks
            the archives or the workspace.
        ConfigError: Ray or the storage of ``STORE_URL`` cannot be used.
    """
    records_dir = settings.workspace.records_dir
    records_dir.mkdir(parents=True, exist_ok=True)
    store = ChunkStore(settings.store_url) if settings.store_url else None
    pending = missing_chunks(chunks, records_dir, how)
    if any(shard_path(records_dir, chunk.name).exists() for chunk in pending):
        # Made again, a shard may hold other windows at the rows that an old manifest gives.
        settings.workspace.manifest_path.unlink(missing_ok=True)
    if store and pending:
        fetch_chunks(store, [chunk.name for chunk in pending], records_dir)
        pending = missing_chunks(pending, records_dir, how)
    if pending:
        _make_pending(settings, pending, how, len(chunks) - len(pending))
    # A cluster has put its chunks there already.
    share_shards(settings, chunks, pending if settings.engine == "local" else ())
    return len(pending)


def share_shards(settings: Settings, chunks: Sequence[Chunk], made: Sequence[Chunk] = ()) -> None:
    """Put into ``STORE_URL``, if there is one, the finished chunks that it has not.

    Chunks that this workspace has from other versions of NumPy and the like stay its own.

    Args:
        made: chunks that were made anew; they replace what may be damaged there.
    """
    if settings.store_url:
        store = ChunkStore(settings.store_url)
        anew = {chunk.name for chunk in made}
        there = store.names() - anew
        names = [chunk.name for chunk in chunks if chunk.name not in there]
        records_dir = settings.workspace.records_dir
        of_now = [name for name in names if is_chunk_of_now(records_dir, name)]
        if len(of_now) < len(names):
            log.info("%s made with other versions are not put into %s",
                     plural(len(names) - len(of_now), "chunk"), store.url)  # fmt: skip
        upload_chunks(store, of_now, records_dir)


def missing_chunks(
    chunks: Sequence[Chunk], records_dir: Path, how: Mapping[str, Any]
) -> list[Chunk]:
    """The chunks that are not finished in a folder."""
    window_bytes = 2 * len(LEADS) * how["target_samples"]
    return [chunk for chunk in chunks if not is_chunk_done(records_dir, chunk.name, window_bytes)]


def _make_pending(
    settings: Settings, pending: Sequence[Chunk], how: Mapping[str, Any], n_before: int
) -> None:
    n_records = sum(len(chunk.rows) for chunk in pending)
    log.info(
        "preparing %s in %s%s",
        plural(n_records, "record"),
        plural(len(pending), "chunk"),
        f" ({plural(n_before, 'chunk')} done before)" if n_before else "",
    )
    makers = {"local": _made_by_processes, "ray": _made_by_cluster}
    # Closed at once when interrupted, so that the workers end.
    with contextlib.closing(makers[settings.engine](settings, pending, how)) as sizes:
        for _ in progress(_one_by_one(sizes), desc="preparing", total=n_records, unit="records"):
            pass


def _one_by_one(sizes: Iterable[int]) -> Iterator[int]:
    for size in sizes:
        yield from range(size)


def _made_by_processes(
    settings: Settings, pending: Sequence[Chunk], how: Mapping[str, Any]
) -> Generator[int, None, None]:
    calls = [_chunk_call(settings, chunk, how) for chunk in pending]
    yield from in_processes(prepare_chunk, calls, settings.prepare_workers)


def _made_by_cluster(
    settings: Settings, pending: Sequence[Chunk], how: Mapping[str, Any]
) -> Generator[int, None, None]:
    """Tasks write to the workspace, which all machines share, or to ``STORE_URL``."""
    records_dir, url = settings.workspace.records_dir, settings.store_url
    url = ChunkStore(url).address if url else ""
    with connected_ray(settings.ray_address) as ray, _marked(records_dir) as mark:
        n_cores = int(ray.cluster_resources().get("CPU", 0))
        log.info("on %s of a Ray cluster, %s", plural(len(ray.nodes()), "machine"),
                 plural(n_cores, "core"))  # fmt: skip
        calls = (
            (_chunk_call(settings, chunk, how), needs, url)
            for chunk, needs in _with_needs(pending, str(mark))
        )
        yield from in_ray_tasks(ray, chunk_task, calls, settings.prepare_workers)
    if url:
        fetch_chunks(ChunkStore(url), [chunk.name for chunk in pending], records_dir)
    _wait_for_chunks(pending, records_dir, 0 if url else SECONDS_TO_APPEAR)


def _chunk_call(settings: Settings, chunk: Chunk, how: Mapping[str, Any]) -> tuple[Any, ...]:
    records_dir = settings.workspace.records_dir.absolute()
    return (str(records_dir), chunk.name, _absolute_sources(chunk), dict(how))


def _absolute_sources(chunk: Chunk) -> list[tuple[str, str, str, str]]:
    """Another machine's current folder is not this one's."""
    here = Path.cwd()
    return [
        (reader, str(here / folder), path, problem)
        for reader, folder, path, problem in chunk.sources
    ]


def _with_needs(pending: Sequence[Chunk], mark: str) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    files, listed = FileStamps(), ""
    for chunk in pending:
        _, folder, path, _ = chunk.sources[0]
        parent = f"{folder}/{path}".rpartition("/")[0]
        # The files of all archives at once would be more than a driver should hold.
        if parent != listed:
            files, listed = FileStamps(), parent
        yield chunk, chunk_needs(_absolute_sources(chunk), files, mark)


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file of a name that no machine can have looked for before."""
    mark = folder.absolute() / f".shared-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _wait_for_chunks(made: Sequence[Chunk], records_dir: Path, patience_s: float) -> None:
    """Wait until this machine sees what others have written.

    Raises:
        DataError: it does not.
    """
    end = time.monotonic() + patience_s
    unseen = [path for chunk in made for path in chunk_files(records_dir, chunk.name)]
    while unseen := [path for path in unseen if not path.exists()]:
        if time.monotonic() > end:
            raise DataError(
                f"{plural(len(unseen), 'file')} that the cluster has made cannot be found here "
                f"(first: {unseen[0]}); run the same command again, and look at the storage that "
                "the machines share if it says so again"
            )
        time.sleep(SECONDS_BETWEEN_TRIES)
