"""A command never writes over what it reads, nor over a file of another kind."""

import os
from pathlib import Path

import pytest

from einthoven.errors import ConfigError
from einthoven.outputs import check_outputs, shown_path

JSON = (".json",)


def test_new_and_old_outputs_of_their_kind_are_let_through(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("[]")
    check_outputs({"--json": (old, JSON), "--csv": (None, (".csv",))}, [tmp_path / "in.dcm"])
    check_outputs({"--json": (tmp_path / "any.name", JSON)}, [tmp_path])


def test_an_input_is_not_written_over(tmp_path: Path) -> None:
    recording = tmp_path / "a.json"
    recording.write_text("signal")
    with pytest.raises(ConfigError, match=r"--json is .*a\.json, which this command reads"):
        check_outputs({"--json": (tmp_path / "." / "a.json", JSON)}, [recording])


@pytest.mark.parametrize("name", ["patient.dcm", "best_model.pth"])
def test_a_file_of_another_kind_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=r"is there and is no \.json file; give another name"):
        check_outputs({"--json": (tmp_path / name, JSON)}, [])


def test_two_outputs_are_not_one_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--csv and --json are both"):
        check_outputs({"--json": (tmp_path / "x", JSON), "--csv": (tmp_path / "x", JSON)}, [])


def test_links_and_folders_are_no_outputs(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("")
    (tmp_path / "link.json").symlink_to(tmp_path / "there.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("link.json", "folder.json"):
        with pytest.raises(ConfigError, match="no ordinary file"):
            check_outputs({"--json": (tmp_path / name, JSON)}, [])


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_name_of_other_bytes_is_shown_as_text() -> None:
    shown = shown_path(Path(os.fsdecode(b"M\xfcller.dcm")))
    assert shown == "M\ufffdller.dcm" and shown.encode()
