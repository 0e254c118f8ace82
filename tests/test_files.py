from concurrent.futures import ThreadPoolExecutor

import pytest

from einthoven.errors import DataError
from einthoven.files import (
    atomic_path,
    digest,
    file_digest,
    read_json,
    stamp_step,
    step_changes,
    write_json,
    write_text,
)


def test_a_file_whose_writing_fails_keeps_its_old_content(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as beside:
        beside.write_text("half of the n")
        raise RuntimeError("the disk is full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_in_many_threads_leaves_the_mode_of_new_files_as_it_was(tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda path: write_text(path, "content"), paths))
    (tmp_path / "usual.txt").write_text("content")
    usual = (tmp_path / "usual.txt").stat().st_mode
    assert {path.stat().st_mode for path in paths} == {usual}


def test_json_holds_null_where_a_number_is_not_finite(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5]}


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"a\.json is not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_a_step_is_up_to_date_only_with_the_same_inputs(tmp_path):
    stamp = tmp_path / "step.json"
    assert step_changes(stamp, {"fs": 100}) == ["not done yet"]
    stamp_step(stamp, {"fs": 100, "seed": 0})
    assert step_changes(stamp, {"fs": 100, "seed": 0}) == []
    assert step_changes(stamp, {"fs": 500, "seed": 0}) == ["fs: 100 -> 500"]


def test_changes_that_only_digests_tell_are_said_without_them(tmp_path):
    stamp = tmp_path / "step.json"
    old, new = digest("a"), digest("b")
    stamp_step(stamp, {"data": old, "table": old, "archive a": old, "band": None, "fs": 100})
    now = {"data": new, "table": "absent", "archive b": new, "band": [0.5, 40], "fs": 100}
    assert step_changes(stamp, now) == [
        "data has changed", "table is gone", "archive a: left out", "band: None -> [0.5, 40]",
        "archive b: new",
    ]  # fmt: skip


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_digest_of_a_file_follows_its_bytes(tmp_path):
    assert file_digest(tmp_path / "a") == "absent"
    write_text(tmp_path / "a", "x")
    write_text(tmp_path / "b", "x")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
