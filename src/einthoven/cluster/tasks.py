"""Calls as tasks of a Ray cluster, and what such a task checks of the machine that it comes to.

Ray gives a task whose worker or machine has died to another one. A chunk is written whole or not at
all and is the same whoever makes it, so nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from einthoven.chunks import FileStamps
from einthoven.cluster.chunk_store import ChunkStore
from einthoven.errors import DataError, EinthovenError, RunStopped
from einthoven.shards import numeric_versions, prepare_chunk
from einthoven.workers import told_failures

# Times that a task is given to another worker after its own was killed. A machine that goes does
# not count, and one that has too little memory for this very chunk everywhere has to be told.
MAX_RETRIES = 5
# Tasks handed over beyond those that can run, so that no worker waits and a cluster that can grow
# sees that it should.
TASKS_AHEAD = 2
SECONDS_TO_CANCEL = 5.0


def in_ray_tasks(
    ray: Any, function: Callable[..., int], calls: Iterable[tuple[Any, ...]], n_workers: int = 0
) -> Generator[int, None, None]:
    """Call a function as tasks of the cluster that Ray is connected to.

    Closing the iterator, or an interrupt, cancels what has not finished.

    Args:
        ray: of `connected_ray`.
        function: taking and returning plain values; every machine has the package it is of.
        calls: its arguments; taken as they are needed.
        n_workers: tasks that run at the same time; 0 is one per core of the cluster.

    Yields:
        Results as they come.

    Raises:
        EinthovenError: a task failed so.
        DataError: its workers were killed again and again.
    """
    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(function)
    waiting = iter(calls)
    running: list[Any] = []
    try:
        while True:
            n_more = (n_workers or _tasks_at_once(ray)) - len(running)
            running += [remote.remote(*call) for call in islice(waiting, max(0, n_more))]
            if not running:
                return
            done, running = ray.wait(running)
            for result in done:
                yield _told_result(ray, result)
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            # Their temporary files are theirs to remove.
            ray.wait(running, num_returns=len(running), timeout=SECONDS_TO_CANCEL)


def _tasks_at_once(ray: Any) -> int:
    return TASKS_AHEAD * max(4, int(ray.cluster_resources().get("CPU", 0)))


def _told_result(ray: Any, result: Any) -> int:
    try:
        return int(ray.get(result))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EinthovenError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        said = str(error).strip().split("\n")[0]
        raise DataError(
            f"a worker of the cluster was killed {MAX_RETRIES + 1} times at the same chunk, most "
            f"often because memory ran out ({said}); use fewer at once (PREPARE_WORKERS) and run "
            "`einthoven prepare` again: finished chunks are kept"
        ) from error


# On whatever machine a task comes to --------------------------------------------------------------


def chunk_task(chunk_call: tuple[Any, ...], needs: Mapping[str, Any], store_url: str) -> int:
    """Make one chunk, if this machine has what it takes.

    Args:
        chunk_call: what `prepare_chunk` takes.
        needs: of `chunk_needs`.
        store_url: where the chunk goes instead of the workspace; may be empty.

    Returns:
        The number of records, stored and rejected.

    Raises:
        DataError: the machine lacks the archives or the workspace, has other versions, or cannot
            write.
        ConfigError: it cannot open such a URL.
    """
    here = platform.node() or "without a name"
    with machine_named(here):
        return _make_chunk(here, chunk_call, needs, store_url)


@contextmanager
def machine_named(here: str) -> Iterator[None]:
    """Within, every error that a person can mend says on which machine it is to be mended."""
    try:
        yield
    except EinthovenError as error:
        # One that stops the run is of no machine.
        if f"machine {here}" in str(error) or isinstance(error, RunStopped):
            raise
        raise type(error)(f"machine {here}: {error}") from error


def _make_chunk(
    here: str, chunk_call: tuple[Any, ...], needs: Mapping[str, Any], store_url: str
) -> int:
    records_dir, name, sources, how = chunk_call
    check_versions(here, needs["versions"])
    check_same_files(here, sorted({source[1] for source in sources}), needs["files"])
    if not store_url:
        check_workspace(here, needs["mark"])
        with told_failures(f"machine {here}: "):
            return prepare_chunk(records_dir, name, sources, how)
    with (
        told_failures(f"machine {here}, temporary folder {tempfile.gettempdir()}: "),
        tempfile.TemporaryDirectory(prefix="einthoven-") as folder,
    ):
        n_records = prepare_chunk(folder, name, sources, how)
        ChunkStore(store_url).upload(Path(folder), name)
    return n_records


def chunk_needs(sources: Sequence[Sequence[str]], files: FileStamps, mark: str) -> dict[str, Any]:
    """What `chunk_task` must find on its machine: plain values, made where the command was given.

    Args:
        sources: of a `Chunk`.
        files: lists the folders of the archives.
        mark: a file of the workspace.
    """
    sizes = {}
    for _, folder, path, problem in sources:
        parent = f"{folder}/{path}".rpartition("/")[0]
        for name, size, _ in [] if problem else files.of_record(folder, path):
            sizes[f"{parent}/{name}"] = size
    # Where this machine may not read a file itself, the record is rejected as it is without Ray.
    readable = [(path, size) for path, size in sizes.items() if file_bytes(path) == size]
    return {"versions": numeric_versions(), "files": readable, "mark": mark}


def check_versions(here: str, wanted: Mapping[str, Any]) -> None:
    """Refuse to make what another version may make differently.

    Raises:
        DataError: names the machine and the difference.
    """
    mine = numeric_versions()
    other = [f"{key} {mine[key]} (here {wanted[key]})" for key in mine if mine[key] != wanted[key]]
    if other:
        raise DataError(
            f"machine {here} has {', '.join(other)} and might make other chunks; install the same "
            "versions on every machine of the cluster"
        )


def check_same_files(here: str, folders: Sequence[str], files: Sequence[tuple[str, int]]) -> None:
    """Refuse to look for records where their archive is not, which would reject them all.

    Raises:
        DataError: names the machine, and the folder or file.
    """
    advice = (
        "every machine of the cluster must find the archives at the same path: share the folder, "
        "or copy it whole (DATASET_DIR), and run the same command again"
    )
    for folder in folders:
        if not Path(folder).is_dir():
            raise DataError(f"machine {here} has no folder {folder}; {advice}")
    for path, size in files:
        found = file_bytes(path)
        if found != size:
            what = f"has {found:,}" if found >= 0 else "cannot be read"
            raise DataError(
                f"{path} has {size:,} bytes here and {what} on machine {here}; {advice}"
            )


def check_workspace(here: str, mark: str) -> None:
    """Refuse to write chunks to a folder that only this machine sees.

    Raises:
        DataError: names the machine and the folder.
    """
    if not Path(mark).exists():
        raise DataError(
            f"machine {here} does not see the workspace's folder {Path(mark).parent}; put the "
            "workspace on a disk that all machines share, or let STORE_URL name a folder or "
            "bucket for chunks"
        )


def file_bytes(path: str) -> int:
    """A file's length, or -1 where it is not there or may not be read."""
    place = Path(path)
    try:
        return place.stat().st_size if os.access(place, os.R_OK) else -1
    except OSError:
        return -1
