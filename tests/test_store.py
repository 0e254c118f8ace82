from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import DataError
from einthoven.files import Workspace, write_parquet
from einthoven.store import MANIFEST_COLUMNS, label_matrix, open_store

# Windows per record, and the shard of each record.
N_WINDOWS = [1, 3, 1, 2, 1]
SHARDS = ["a", "a", "b", "b", "a"]


@pytest.fixture
def workspace(tmp_path):
    """Two shards of random windows of 50 samples, and their manifest."""
    workspace = Workspace(tmp_path)
    workspace.records_dir.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, filled = [], {"a": 0, "b": 0}
    for shard, n in zip(SHARDS, N_WINDOWS, strict=True):
        rows.append(filled[shard])
        filled[shard] += n
    for shard, n in filled.items():
        windows = rng.integers(-3000, 3000, (n, 12, 50)).astype(np.int16)
        np.save(workspace.records_dir / f"{shard}.npy", windows)
    manifest = pd.DataFrame(
        {"shard": SHARDS, "row": rows, "n_windows": N_WINDOWS, "n_samples": [50, 140, 30, 99, 50]}
    )
    manifest["labels"] = [["MI"], [], ["AF", "MI"], ["AF"], []]
    manifest = manifest.reindex(columns=list(MANIFEST_COLUMNS))
    manifest.attrs = {"target_fs": 100, "target_samples": 50, "band": [0.5, None], "digest": "d"}
    write_parquet(workspace.manifest_path, manifest)
    return workspace


def expected_windows(workspace, store, indices):
    table = store.window_table(indices)
    shards = {name: np.load(workspace.records_dir / f"{name}.npy", mmap_mode="r") for name in "ab"}
    return np.stack(
        [shards[store.shards[s]][r] for s, r in zip(table.shard, table.row, strict=True)]
    )


def test_windows_come_back_as_they_lie_in_the_shards(workspace):
    store = open_store(workspace)
    assert store.windows(1).shape == (3, 12, 50)
    order = [4, 1, 0, 3, 2, 1]
    assert np.array_equal(store.load_windows(order), expected_windows(workspace, store, order))


def test_store_knows_its_rate_window_and_band(workspace):
    store = open_store(workspace)
    found = (store.target_fs, store.target_samples, store.band, store.digest, store.n_windows)
    assert found == (100, 50, (0.5, None), "d", 8)


def test_gathered_windows_are_in_the_order_asked_for_with_repeats(workspace):
    store = open_store(workspace)
    everything = store.load_windows(np.arange(5))
    chosen = np.array([7, 0, 3, 3, 5, 1])
    out = np.empty((6, 12, 50), np.int16)
    assert store.gather(chosen, out) is out
    assert np.array_equal(out, everything[chosen])


def test_padded_windows_say_how_much_of_them_is_signal(workspace):
    table = open_store(workspace).window_table([2, 1])
    assert table.n_valid.tolist() == [30, 50, 50, 50]
    assert table.record.tolist() == [2, 1, 1, 1]


def test_no_windows_can_be_gathered(workspace):
    assert open_store(workspace).gather([]).shape == (0, 12, 50)


def test_platform_without_positional_reads_gives_the_same_windows(workspace, monkeypatch):
    store = open_store(workspace)
    before = store.load_windows(np.arange(5))
    monkeypatch.delattr(os, "preadv", raising=False)
    assert np.array_equal(store.load_windows(np.arange(5)), before)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this platform has no preadv")
def test_disk_that_hands_over_little_at_a_time_gives_the_same_windows(workspace, monkeypatch):
    store = open_store(workspace)
    before = store.load_windows(np.arange(5))
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:777]], at))
    assert np.array_equal(store.load_windows(np.arange(5)), before)


def test_absent_store_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="run `einthoven prepare` first"):
        open_store(Workspace(tmp_path))


def test_missing_shard_is_named(workspace):
    (workspace.records_dir / "b.npy").unlink()
    with pytest.raises(DataError, match=r"1 of 2 shards.*b\.npy is missing.*einthoven prepare"):
        open_store(workspace)


def test_shard_that_was_cut_short_is_named(workspace):
    path = workspace.records_dir / "a.npy"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.npy is cut short"):
        open_store(workspace)


def test_shard_of_another_shape_is_refused_when_it_is_read(workspace):
    store = open_store(workspace)
    np.save(workspace.records_dir / "a.npy", np.zeros((9, 12, 70), np.int16))
    with pytest.raises(DataError, match=r"a\.npy cannot be read"):
        store.windows(0)


def test_damaged_manifest_is_refused(workspace):
    workspace.manifest_path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        open_store(workspace)


def test_label_matrix_marks_each_label_a_record_carries(workspace):
    manifest = open_store(workspace).manifest
    matrix = label_matrix(manifest, ["AF", "MI"])
    assert matrix.tolist() == [[0, 1], [0, 0], [1, 1], [1, 0], [0, 0]]
    assert matrix.dtype == np.float32


def test_label_of_another_label_set_is_refused(workspace):
    with pytest.raises(DataError, match="'MI' of the manifest is not one of AF, NORM"):
        label_matrix(open_store(workspace).manifest, ["AF", "NORM"])
