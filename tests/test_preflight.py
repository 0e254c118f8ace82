"""`run_preflight_checks`: every verdict, and what the command makes of it."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_ecgs import fake_ecg, write_own_archive
from stores import N_SAMPLES, write_tiny_store

from einthoven import preflight
from einthoven.cli import command_line
from einthoven.files import read_json, stamp_step, write_json
from einthoven.labelling import label_archives
from einthoven.preflight import Check, format_checks, run_preflight_checks
from einthoven.readers.registry import Archive
from einthoven.settings import Settings

DiskUsage = namedtuple("DiskUsage", ["total", "used", "free"])


def checks_of(settings: Settings, subject: str) -> list[Check]:
    return [check for check in run_preflight_checks(settings) if check.subject == subject]


def verdicts(settings: Settings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for check in run_preflight_checks(settings):
        found.setdefault(check.subject, set()).add(check.verdict)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Archives, mapping, store and splits, all as they should be."""
    signals = [fake_ecg(seed, seconds=2) for seed in range(3)]
    write_own_archive(tmp_path / "Dataset" / "mine", signals)
    write_tiny_store(tmp_path, n_records=600)
    settings = Settings(root=tmp_path, target_samples=N_SAMPLES, device="cpu")
    label_archives(settings)
    return settings


def test_what_is_in_order_passes(settings: Settings) -> None:
    found = verdicts(settings)
    # The tiny store has two of five classes; everything else is as it should be.
    assert found.pop("classes") == {"warning"}
    assert set(found) == {"archives", "labels", "store", "splits", "device", "memory", "disk"}
    assert set.union(*found.values()) == {"passed"}


def test_what_run_makes_is_a_warning_and_its_dependents_are_left_out(tmp_path: Path) -> None:
    write_own_archive(tmp_path / "Dataset" / "mine", [fake_ecg(0, seconds=2)])
    settings = Settings(root=tmp_path)
    checks = run_preflight_checks(settings)
    assert [(check.subject, check.verdict) for check in checks] == [
        ("archives", "passed"), ("labels", "warning"), ("store", "warning"), ("device", "passed"),
        ("disk", "passed"),
    ]  # fmt: skip
    assert {check.found for check in checks[1:3]} == {"not made yet; `einthoven run` makes it"}
    assert format_checks(checks).splitlines()[-1] == "3 passed, 2 warnings, 0 failed"
    result = CliRunner().invoke(command_line, ["check", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output


def test_no_archives_fails_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "Dataset").mkdir()
    settings = Settings(root=tmp_path)
    assert verdicts(settings)["archives"] == {"failed"}
    text = format_checks(run_preflight_checks(settings))
    assert "try `einthoven demo`" in text
    assert text.splitlines()[-1] == "2 passed, 2 warnings, 1 failed"


def test_splits_that_are_not_made_are_a_warning(settings: Settings) -> None:
    settings.workspace.splits_path.unlink()
    found = verdicts(settings)
    assert found["splits"] == {"warning"} and found["store"] == {"passed"}
    assert "classes" not in found and found["memory"] == {"passed"}


def test_a_damaged_manifest_is_said_once(settings: Settings) -> None:
    settings.workspace.manifest_path.write_bytes(b"no table")
    failed = [check for check in run_preflight_checks(settings) if check.verdict == "failed"]
    assert [check.subject for check in failed] == ["store"]


def test_advice_is_given_once_and_verdicts_are_counted() -> None:
    checks = [Check("classes", "warning", f"{n}", "add archives") for n in range(3)]
    text = format_checks([*checks, Check("disk", "warning", "full", "make room")])
    assert text.count("add archives") == 1 and "disk: make room" in text
    assert text.splitlines()[-1] == "0 passed, 4 warnings, 0 failed"
    assert format_checks(checks[:1]).splitlines()[-1] == "0 passed, 1 warning, 0 failed"


def test_folders_that_no_reader_knows_are_named(settings: Settings) -> None:
    (settings.archives_dir / "notes").mkdir()
    (settings.archives_dir / "notes" / "a.txt").write_text("no ECG")
    found = checks_of(settings, "archives")
    assert [check.verdict for check in found] == ["passed", "warning"]
    assert "notes" in found[1].found


def test_an_archive_that_is_not_there_fails(settings: Settings) -> None:
    (check,) = checks_of(settings.model_copy(update={"archives": "mien"}), "archives")
    assert check.verdict == "failed" and "did you mean mine?" in check.found


def test_an_archive_without_labels_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset" / "mine"
    write_own_archive(folder, [fake_ecg(0, seconds=2)], labels="something else")
    settings = Settings(root=tmp_path)
    label_archives(settings)
    (check,) = checks_of(settings, "labels")
    assert check.verdict == "warning" and check.found == "mine: none of 1 record has a label"


def test_archives_with_labels_share_one_line(tmp_path: Path) -> None:
    for name, label in (("a", "NORM"), ("b", "NORM"), ("c", "something else")):
        write_own_archive(tmp_path / "Dataset" / name, [fake_ecg(0, seconds=2)] * 2, labels=label)
    settings = Settings(root=tmp_path)
    label_archives(settings)
    warning, passed = checks_of(settings, "labels")
    assert warning.verdict == "warning" and warning.found.startswith("c: none of 2 records")
    assert (passed.verdict, passed.found) == ("passed", "4 of 4 records of 2 archives have a label")


def test_a_library_that_an_archive_needs_and_is_not_there_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    archive = Archive("sph", "sph", settings.root)
    assert list(preflight.check_reader_libraries([archive])) == []
    monkeypatch.setattr(preflight.importlib, "import_module", fail)
    (check,) = preflight.check_reader_libraries([archive, Archive("mine", "own", settings.root)])
    assert check.verdict == "warning" and "sph cannot be read without h5py" in check.found
    assert "einthoven[formats]" in check.advice


def test_a_store_of_other_settings_fails_by_name(settings: Settings) -> None:
    changes = {"target_fs": 500, "bandpass": True, "label_set": "superdiagnostic"}
    found = checks_of(settings.model_copy(update=changes), "store")
    failed = [check.found for check in found if check.verdict == "failed"]
    assert len(failed) == 4, failed
    assert "label_set: five -> superdiagnostic" in failed[0]
    assert "labels per record: one -> any number" in failed[1]
    assert "target_fs: 100 -> 500" in failed[2]
    assert "bandpass: None -> (0.5, 40.0)" in failed[3]


def test_labels_edited_since_the_store_was_made_are_a_warning(settings: Settings) -> None:
    stamp_step(settings.workspace.step_path("prepare"), {"mapping": "another"})
    assert {check.verdict for check in checks_of(settings, "store")} == {"warning", "passed"}


def test_a_patient_in_two_splits_fails_and_is_named(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    splits["test"].append(splits["train"][0])
    write_json(settings.workspace.splits_path, splits)
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and splits["train"][0] in check.found
    assert checks_of(settings, "classes") == []


def test_splits_of_another_store_fail_without_a_traceback(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    write_json(settings.workspace.splits_path, splits | {"test": ["gone/1"]})
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and "gone/1" in check.found


def test_rare_classes_are_named_per_split(settings: Settings) -> None:
    found = checks_of(settings, "classes")
    assert [check.found.partition(":")[0] for check in found] == ["train", "validation", "test"]
    assert "fewer than 20 records of AF 0, BBB 0, OTHER 0" in found[0].found


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_gpu_that_is_not_there_fails(settings: Settings) -> None:
    (check,) = checks_of(settings.model_copy(update={"device": "cuda"}), "device")
    assert check.verdict == "failed" and "DEVICE is cuda" in check.found


def test_a_full_disk_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: DiskUsage(9, 8, 1 << 30))
    (check,) = checks_of(settings, "disk")
    assert (check.verdict, check.found) == ("warning", "1.0 GiB free")


def test_a_root_that_cannot_be_made_fails_for_an_administrator_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        (check,) = checks_of(Settings(root=root), "disk")
        assert check.verdict == "failed" and "another --root" in check.advice
        assert str(root) in check.found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_root_on_a_file_system_that_takes_no_files_fails() -> None:
    (check,) = checks_of(Settings(root=Path("/proc/einthoven")), "disk")
    assert check.verdict == "failed" and "/proc/einthoven cannot be made" in check.found


def test_nothing_is_written(tmp_path: Path) -> None:
    run_preflight_checks(Settings(root=tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_one_where_something_failed(settings: Settings) -> None:
    words = ["check", "--root", str(settings.root), "--target-samples", str(N_SAMPLES)]
    sound = CliRunner().invoke(command_line, words)
    assert sound.exit_code == 0, sound.output
    assert sound.output.splitlines()[0].split() == ["verdict", "subject", "found"]
    failing = CliRunner().invoke(command_line, [*words, "--target-fs", "250"])
    assert failing.exit_code == 1
    assert "target_fs: 100 -> 250" in failing.output


def test_memory_says_where_windows_are_kept(settings: Settings) -> None:
    (check,) = checks_of(settings, "memory")
    n_bytes = 600 * 12 * N_SAMPLES * np.dtype(np.int16).itemsize
    assert check.found.startswith(f"{n_bytes / 2**30:.2f} GiB of windows")
    assert check.found.endswith("kept in memory")
