"""A cluster, a bucket or another machine make the store that this machine would have made."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cluster_run
import numpy as np
import pytest
from fake_ecgs import fake_ecg, settings_for, write_own_archive

from einthoven.chunks import FileStamps
from einthoven.cluster import tasks
from einthoven.cluster.chunk_store import ChunkStore
from einthoven.cluster.connection import connected_ray
from einthoven.cluster.tasks import (
    check_same_files,
    check_versions,
    check_workspace,
    chunk_needs,
    chunk_task,
)
from einthoven.configuration import load_settings
from einthoven.errors import ConfigError, DataError
from einthoven.files import Workspace
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.shards import numeric_versions

NO_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
SCRIPT = Path(cluster_run.__file__)


def processed_files(root: Path) -> dict[str, bytes]:
    """Every file that `prepare` has written, by its name."""
    folder = Workspace(root).processed_dir
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_same_store(root: Path, other: Path) -> None:
    mine, others = processed_files(root), processed_files(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if mine[name] != others[name]] == []


# On a Ray cluster --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `cluster_run` leaves, and a workspace made by this machine alone."""
    folder = tmp_path_factory.mktemp("cluster")
    signals = [fake_ecg(seed, fs=500, seconds=60) for seed in range(60)]
    write_own_archive(folder / "Dataset" / "own", signals, fs=500)
    (folder / "Dataset" / "own" / "r007.npy").write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einthoven.chunks.RECORDS_PER_SHARD", cluster_run.RECORDS_PER_SHARD)
        local = cluster_run.settings_of(folder, "local", engine="local", prepare_workers=1)
        prepare_archives(local)
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env=environment, timeout=550, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def told(cluster: Path, step: str):
    return json.loads((cluster / "told.json").read_text())[step]


@NO_RAY
def test_killed_worker_and_killed_node_lose_nothing(cluster):
    killed = told(cluster, "killed")
    assert killed["worker"] and killed["finished_before"] < killed["chunks"] == 20
    assert killed["nodes"] == 2
    assert_same_store(cluster / "killed", cluster / "local")


@NO_RAY
def test_cluster_makes_the_same_store_through_a_bucket(cluster):
    assert told(cluster, "bucket") == 20
    assert_same_store(cluster / "bucket", cluster / "local")


@NO_RAY
def test_second_machine_fetches_from_the_bucket_what_the_cluster_has_made(cluster):
    assert told(cluster, "again") == 0
    assert_same_store(cluster / "again", cluster / "local")


@NO_RAY
@pytest.mark.parametrize(
    ("step", "said"), [("no folder", "has no folder"), ("no file", "cannot be read")]
)
def test_node_that_lacks_archives_is_named_and_no_record_is_rejected(cluster, step, said):
    what = told(cluster, step)
    assert said in what["error"] and "machine " in what["error"]
    assert "at the same path" in what["error"]
    assert (what["tables"], what["rejected"]) == (0, False) or step == "no file"
    assert not what["rejected"]


# What a task asks of its machine -----------------------------------------------------------------


def test_file_of_another_length_on_a_node_is_told(tmp_path):
    path = tmp_path / "r1.npy"
    path.write_bytes(b"12345")
    check_same_files("b7", [str(tmp_path)], [(str(path), 5)])
    with pytest.raises(DataError, match=r"r1.npy has 4 bytes here and has 5 on machine b7"):
        check_same_files("b7", [str(tmp_path)], [(str(path), 4)])


def write_headers(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.hea").write_text(text)


def test_files_of_other_names_that_a_header_speaks_of_are_the_record_s_too(tmp_path):
    write_headers(
        tmp_path, one="one 2 500 9\nsignals.dat 16\nsignals.dat 16\n# none.dat\n",
        rec="rec/3 1 500 9\nrec_a 5\n~ 4\nrec_b 0\n", rec_a="rec_a 1 500 5\nother.dat 16\n",
        usual="usual 1 500 9\nusual.dat 16\n", gone="gone 1 500 9\n../x.dat 16\n",
    )  # fmt: skip
    for name in ("signals.dat", "rec_b.dat", "other.dat", "usual.dat", "usual.atr"):
        (tmp_path / name).write_bytes(b"1234")

    def files_of(path: str) -> list[str]:
        return [name for name, _, _ in FileStamps().of_record(str(tmp_path), path)]

    assert files_of("one.hea?fs=500") == ["one.hea", "signals.dat"]
    assert files_of("rec") == ["other.dat", "rec.hea", "rec_a.hea", "rec_b.dat"]
    assert files_of("usual") == ["usual.atr", "usual.dat", "usual.hea"]
    assert files_of("gone") == ["gone.hea"]
    needs = chunk_needs([("own", str(tmp_path), "one.hea", "")], FileStamps(), "")
    assert (f"{tmp_path}/signals.dat", 4) in needs["files"]


def test_workspace_that_a_node_does_not_see_is_told_with_both_ways_out(tmp_path):
    with pytest.raises(DataError, match=r"machine b7 does not see .* disk that all .* STORE_URL"):
        check_workspace("b7", str(tmp_path / "absent" / ".shared-1"))


def test_node_with_another_version_is_refused():
    check_versions("b7", numeric_versions())
    with pytest.raises(DataError, match=r"machine b7 has numpy .* \(here 1.0\)"):
        check_versions("b7", numeric_versions() | {"numpy": "1.0"})


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "Ray client cannot train"),
        ("127.0.0.1:1", "set RAY_ADDRESS to HOST:PORT"),
        ("head", "it is no HOST:PORT"),
    ],
)
@NO_RAY
def test_address_that_cannot_be_used_is_told_with_those_that_can(address, said):
    with pytest.raises(ConfigError, match=said), connected_ray(address):
        pass


@NO_RAY
def test_ray_that_does_not_start_here_is_no_matter_of_its_address(monkeypatch):
    import ray

    def too_late(**options):
        raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", too_late)
    said = r"could not be started on this machine \(The current node timed out .*ENGINE=local"
    with pytest.raises(ConfigError, match=said), connected_ray(""):
        pass
    assert int(os.environ["RAY_raylet_start_wait_time_s"]) > 30


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r'pip install "einthoven\[cluster\]"'),
        connected_ray(""),
    ):
        pass


# Chunks kept elsewhere ---------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with archives, and the workspace ``first`` whose chunks are in ``chunks``."""
    monkeypatch.setattr("einthoven.chunks.RECORDS_PER_SHARD", 3)
    signals = [fake_ecg(seed, seconds=4) for seed in range(8)]
    write_own_archive(tmp_path / "Dataset" / "own", signals)
    prepare_in(tmp_path, "first")
    return tmp_path


def prepare_in(folder: Path, name: str, **changes):
    url = (folder / "chunks").as_uri()
    values = {"dataset_dir": folder / "Dataset", "store_url": url, **changes}
    return prepare_archives(settings_for(folder / name, **values))


def chunk_folder(shared: Path) -> Path:
    """Where the chunks of the versions that are installed lie."""
    (folder,) = (shared / "chunks").iterdir()
    return folder


def test_chunks_of_other_versions_are_neither_fetched_nor_taken_along(shared, monkeypatch):
    before = chunk_folder(shared)
    assert before.name.startswith("shards1-numpy")
    other = numeric_versions() | {"scipy": "0.1"}
    for module in ("chunks", "shards", "cluster.chunk_store"):
        monkeypatch.setattr(f"einthoven.{module}.numeric_versions", lambda: other)
    # What this workspace has from before is not what the other version would have made.
    prepare_in(shared, "first")
    assert list((shared / "chunks").iterdir()) == [before]
    assert prepare_in(shared, "second").n_chunks_made == 3
    assert sum("scipy0.1" in path.name for path in (shared / "chunks").iterdir()) == 1


def test_second_workspace_fetches_instead_of_preparing(shared):
    done = prepare_in(shared, "second")
    assert (done.n_chunks, done.n_chunks_made) == (3, 0)
    prepare_in(shared, "third", store_url="")
    assert_same_store(shared / "second", shared / "third")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".sha256"])
def test_damaged_object_is_noticed_and_made_again(shared, caplog, suffix, damage):
    sound = {path.name: path.read_bytes() for path in chunk_folder(shared).iterdir()}
    damage(sorted(chunk_folder(shared).glob(f"*{suffix}"))[1])
    caplog.set_level("WARNING", "einthoven")
    assert prepare_in(shared, "second").n_chunks_made == 1
    # Without its checksums a chunk is not there; that is no damage.
    assert ("is made again" in caplog.text) == (damage is not Path.unlink or suffix != ".sha256")
    assert_same_store(shared / "second", shared / "first")
    assert {path.name: path.read_bytes() for path in chunk_folder(shared).iterdir()} == sound


def test_chunks_made_before_there_was_a_store_are_put_there(tmp_path):
    write_own_archive(tmp_path / "Dataset" / "own", [fake_ecg(seed) for seed in range(4)])
    prepare_in(tmp_path, "first", store_url="")
    prepare_in(tmp_path, "first")
    assert prepare_in(tmp_path, "second").n_chunks_made == 0


def test_upload_that_fails_leaves_nothing_under_its_name(shared, monkeypatch):
    store = ChunkStore((shared / "other").as_uri())
    name = next(iter(ChunkStore((shared / "chunks").as_uri()).names()))

    def fails(path: str, key: str) -> None:
        Path(key).write_bytes(b"half")
        raise OSError("the network is gone")

    monkeypatch.setattr(store.files, "put_file", fails)
    with pytest.raises(DataError, match=r"STORE_URL .* cannot be used .*the network is gone"):
        store.upload(Workspace(shared / "first").records_dir, name)
    assert [path for path in (shared / "other").rglob("*") if path.is_file()] == []


def test_full_disk_here_is_not_told_as_a_fault_of_the_storage(shared, monkeypatch):
    store = ChunkStore((shared / "chunks").as_uri())

    def full(key: str, path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.files, "get_file", full)
    with pytest.raises(DataError, match=r"a disk is full .* make room where .*other lies"):
        store.fetch(shared / "other", next(iter(store.names())))


def test_full_temporary_folder_of_a_machine_is_named(tmp_path, monkeypatch):
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("einthoven.cluster.tasks.prepare_chunk", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    needs = {"versions": numeric_versions(), "files": []}
    words = r"machine .* temporary folder .*: the disk is full"
    with pytest.raises(DataError, match=words) as said:
        chunk_task(("", "a-1", [], {}), needs, (tmp_path / "chunks").as_uri())
    assert str(tmp_path) in str(said.value)


def test_address_that_nothing_can_open_is_a_setting_to_change():
    with pytest.raises(ConfigError, match=r"STORE_URL is nosuch://x, which cannot be opened"):
        ChunkStore("nosuch://x")


def test_address_that_a_machine_cannot_open_is_told_with_that_machine_s_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.platform, "node", lambda: "n7")
    monkeypatch.setattr(tasks, "prepare_chunk", lambda *given: 0)
    needs = {"versions": numeric_versions(), "files": [], "mark": ""}
    with pytest.raises(ConfigError, match=r"^machine n7: STORE_URL is nosuch://x") as said:
        chunk_task(("", "a-1", [], {}), needs, "nosuch://x")
    # As Ray hands it over: with colours, and the task's traceback.
    handed = ChildProcessError("\x1b[36mray::chunk_task()\x1b[39m")
    handed.cause = said.value

    def get(result: str) -> int:
        raise handed

    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayTaskError=ChildProcessError))
    with pytest.raises(ConfigError, match=r"^machine n7: STORE_URL"):
        tasks._told_result(ray, "result")


def test_password_in_the_address_is_refused_and_not_shown():
    said = r"STORE_URL is s3://KEY:\*\*\*@bucket/x .*AWS_SECRET_ACCESS_KEY"
    with pytest.raises(ConfigError, match=said) as refused:
        load_settings({"store_url": "s3://KEY:s3cr3t@bucket/x"})
    assert "s3cr3t" not in str(refused.value)
    assert Settings(store_url="abfs://chunks@account.dfs.core.windows.net/x").store_url
    assert Settings(store_url="sftp://me@host/x").store_url


def test_fetched_shard_is_the_one_that_was_made(shared):
    prepare_in(shared, "second")
    for path in Workspace(shared / "second").records_dir.glob("*.npy"):
        made = Workspace(shared / "first").records_dir / path.name
        assert np.array_equal(np.load(path), np.load(made))
