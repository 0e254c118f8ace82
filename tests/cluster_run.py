"""Prepare on a Ray cluster of several nodes on this machine, some of which are killed; for tests.

python tests/cluster_run.py FOLDER

``FOLDER/Dataset`` holds archives of 2-second windows. Writes a workspace per step into ``FOLDER``
and ``FOLDER/told.json``: what each step said.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray_nodes import start_cluster

from einthoven import chunks, making
from einthoven.cluster.tasks import in_ray_tasks
from einthoven.console import setup_logging
from einthoven.errors import DataError
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings

RECORDS_PER_SHARD = 3


def settings_of(folder: Path, name: str, **changes: Any) -> Settings:
    values = {"engine": "ray", "prepare_workers": 0, **changes}
    return Settings(
        root=folder / name, dataset_dir=folder / "Dataset", target_samples=200, **values
    )


def n_finished(settings: Settings) -> int:
    return len(list(settings.workspace.records_dir.glob("*.parquet")))


def kill_worker() -> int:
    """SIGKILL one process that makes a chunk; returns its number, or 0 where none does."""
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::chunk_task"):
            process.kill()
            return int(process.pid)
    return 0


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def prepare_and_kill(cluster: Any, node: Any, settings: Settings) -> dict[str, Any]:
    """A worker is killed at the second chunk, a node at the fourth."""
    told: dict[str, Any] = {}

    def kill() -> None:
        while n_finished(settings) < 2:
            time.sleep(0.01)
        while not (killed := kill_worker()):
            time.sleep(0.001)
        told["worker"] = killed
        while n_finished(settings) < 4:
            time.sleep(0.01)
        told["finished_before"] = n_finished(settings)
        cluster.remove_node(node, allow_graceful=False)

    with meanwhile(kill):
        done = prepare_archives(settings)
    return told | {"chunks": done.n_chunks, "nodes": len(cluster.list_all_nodes())}


@contextmanager
def gone_on_the_nodes(path: Path) -> Iterator[None]:
    """Where the command is given a path is there; the tasks no longer find it."""
    real, aside = making.in_ray_tasks, path.with_name(f"{path.name}-aside")

    def replaced(ray: Any, function: Any, calls: Iterable[Any], n_workers: int) -> Iterator[int]:
        calls = list(calls)
        path.rename(aside)
        yield from in_ray_tasks(ray, function, calls, n_workers)

    making.in_ray_tasks = replaced
    try:
        yield
    finally:
        making.in_ray_tasks = real
        aside.rename(path)


def prepare_without(path: Path, settings: Settings) -> dict[str, Any]:
    """What is said where the nodes lack a path, and what is left."""
    with gone_on_the_nodes(path):
        try:
            prepare_archives(settings)
        except DataError as error:
            return {
                "error": str(error),
                "tables": n_finished(settings),
                "rejected": settings.workspace.rejected_path.exists(),
            }
    return {}


@contextmanager
def bucket_server() -> Iterator[str]:
    """An S3 of our own, and its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    boto3.client("s3").create_bucket(Bucket="ecgs")
    try:
        yield "s3://ecgs/chunks"
    finally:
        server.stop()


def run_steps(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    with bucket_server() as bucket:
        cluster, (_, third) = start_cluster(3)
        address = {"ray_address": cluster.address}
        try:
            archive = folder / "Dataset" / "own"
            told["no folder"] = prepare_without(archive, settings_of(folder, "a", **address))
            file = archive / "r004.npy"
            told["no file"] = prepare_without(file, settings_of(folder, "b", **address))
            stored = settings_of(folder, "bucket", store_url=bucket, **address)
            told["bucket"] = prepare_archives(stored).n_chunks_made
            again = settings_of(folder, "again", engine="local", store_url=bucket)
            told["again"] = prepare_archives(again).n_chunks_made
            killed = settings_of(folder, "killed", **address)
            told["killed"] = prepare_and_kill(cluster, third, killed)
        finally:
            cluster.shutdown()
    return told


def main() -> None:
    folder = Path(sys.argv[1])
    setup_logging()
    chunks.RECORDS_PER_SHARD = RECORDS_PER_SHARD
    (folder / "told.json").write_text(json.dumps(run_steps(folder)))


if __name__ == "__main__":
    main()
