"""`run_preflight_checks`: every verdict, and what the command makes of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fake_ecgs import fake_ecg, write_own_archive
from stores import N_SAMPLES, write_tiny_store

from einthoven.audit.verification import AUDIT_VERSION
from einthoven.cli import command_line
from einthoven.files import file_digest, read_json, stamp_step, write_json
from einthoven.labelling import label_archives, read_mapping
from einthoven.preflight import data, libraries, machine, opened
from einthoven.preflight.checks import (
    checks_as_json,
    format_checks,
    run_preflight_checks,
    worst_verdict,
)
from einthoven.preflight.estimates import TrainingNeed, training_need
from einthoven.preflight.opened import Check, count_labelled
from einthoven.readers.registry import Archive
from einthoven.settings import Settings

DiskUsage = namedtuple("DiskUsage", ["total", "used", "free"])
CPU = torch.device("cpu")


def checks_of(settings: Settings, subject: str) -> list[Check]:
    return [check for check in run_preflight_checks(settings) if check.subject == subject]


def verdicts(settings: Settings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for check in run_preflight_checks(settings):
        found.setdefault(check.subject, set()).add(check.verdict)
    return found


NEEDS: dict[tuple[object, ...], TrainingNeed] = {}


@pytest.fixture(autouse=True)
def each_model_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def need(settings: Settings, device: torch.device) -> TrainingNeed:
        key = (settings.label_set, settings.crop, device)
        if key not in NEEDS:
            NEEDS[key] = training_need(settings, device)
        return NEEDS[key]

    monkeypatch.setattr(opened, "training_need", need)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Archives, mapping, store, splits and audit, all as they should be."""
    signals = [fake_ecg(seed, seconds=2) for seed in range(3)]
    write_own_archive(tmp_path / "Dataset" / "mine", signals)
    write_tiny_store(tmp_path, n_records=600)
    settings = Settings(root=tmp_path, target_samples=N_SAMPLES, device="cpu")
    label_archives(settings)
    write_audit(settings, [])
    mapping = file_digest(settings.workspace.mapping_path)
    stamp_step(settings.workspace.step_path("prepare"), {"mapping": mapping})
    return settings


def write_audit(settings: Settings, pairs: list[tuple[str, str]]) -> None:
    """What `einthoven prepare` leaves of an audit that found these pairs."""
    workspace = settings.workspace
    path = workspace.processed_dir / "duplicates.csv"
    pd.DataFrame(pairs, columns=["record", "copy"]).to_csv(path, index=False)
    inputs = {"version": AUDIT_VERSION, "pairs": file_digest(path)}
    stamp_step(workspace.step_path("audit"), inputs)
    splits = read_json(workspace.splits_path)
    write_json(workspace.splits_path, splits | {"audit": {"store": "0"}})


# All together ------------------------------------------------------------------------------------


def test_what_is_in_order_passes(settings: Settings) -> None:
    found = verdicts(settings)
    # The tiny store has two of five classes; everything else is as it should be.
    assert found.pop("classes") == {"warning"}
    assert set(found) == {
        "archives", "labels", "store", "shards", "splits", "duplicates", "device", "memory",
        "writing", "disk", "libraries",
    }  # fmt: skip
    assert set.union(*found.values()) == {"passed"}


def test_what_run_makes_is_a_warning_and_its_dependents_are_left_out(tmp_path: Path) -> None:
    write_own_archive(tmp_path / "Dataset" / "mine", [fake_ecg(0, seconds=2)])
    checks = run_preflight_checks(Settings(root=tmp_path))
    warned = [check for check in checks if check.verdict == "warning"]
    assert [check.subject for check in warned] == ["labels", "store"]
    assert {check.found for check in warned} == {"not made yet; `einthoven run` makes it"}
    absent = {"shards", "splits", "duplicates", "classes"}
    assert absent.isdisjoint(check.subject for check in checks)
    result = CliRunner().invoke(command_line, ["check", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output


def test_one_bad_thing_hides_no_other(settings: Settings) -> None:
    workspace = settings.workspace
    next(workspace.records_dir.glob("*.npy")).unlink()
    splits = read_json(workspace.splits_path)
    splits["test"].append(splits["train"][0])
    write_json(workspace.splits_path, splits)
    workspace.step_path("audit").unlink()
    changed = settings.model_copy(update={"archives": "mien", "target_fs": 500, "device": "cuda:9"})
    found = verdicts(changed)
    failed = {"archives", "store", "shards", "splits", "device"}
    assert failed <= {subject for subject, all_of in found.items() if "failed" in all_of}
    assert found["duplicates"] == found["classes"] == {"warning"}
    assert found["libraries"] == found["disk"] == {"passed"}


def test_nothing_is_written(tmp_path: Path) -> None:
    run_preflight_checks(Settings(root=tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


# Archives and labels -----------------------------------------------------------------------------


def test_no_archives_fails_and_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    (absent,) = checks_of(settings, "archives")
    (tmp_path / "Dataset").mkdir()
    (empty,) = checks_of(settings, "archives")
    for check, told in ((absent, "is not there"), (empty, "none under")):
        assert check.verdict == "failed" and told in check.found
        assert "try `einthoven demo`" in check.advice


def test_folders_that_no_reader_knows_are_named(settings: Settings) -> None:
    (settings.archives_dir / "notes").mkdir()
    (settings.archives_dir / "notes" / "a.txt").write_text("no ECG")
    warning, passed = checks_of(settings, "archives")
    assert (warning.verdict, passed.verdict) == ("warning", "passed")
    assert "notes" in warning.found


@pytest.mark.parametrize("table", ["path,labels\n", "path,labels\na.npy,NORM\n"])
def test_an_archive_without_records_is_a_warning(settings: Settings, table: str) -> None:
    folder = settings.archives_dir / "bare"
    folder.mkdir()
    (folder / "labels.csv").write_text(table)
    if "NORM" not in table:
        np.save(folder / "a.npy", np.zeros((12, 100), np.float32))
    warning, passed = checks_of(settings, "archives")
    assert warning.verdict == "warning" and warning.found.startswith("bare: no record in")
    assert passed.found == "1 archive: mine"


def test_an_archive_that_is_not_there_fails(settings: Settings) -> None:
    (check,) = checks_of(settings.model_copy(update={"archives": "mien"}), "archives")
    assert check.verdict == "failed"
    assert "did you mean mine?" in check.found + check.advice


def test_a_library_that_an_archive_needs_and_is_not_there_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [Archive("sph", "sph", settings.root), Archive("mine", "own", settings.root)]
    assert list(data.check_reader_libraries(archives)) == []
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    (check,) = data.check_reader_libraries(archives)
    assert check.verdict == "warning" and "sph cannot be read without h5py" in check.found
    assert check.advice == "pip install h5py"


def test_coverage_is_told_per_archive_and_warned_of_where_it_is_low(tmp_path: Path) -> None:
    for name, labels in (("a", ["NORM"] * 4), ("b", ["NORM", "?", "?", "?"]), ("c", ["?"] * 4)):
        signals = [fake_ecg(0, seconds=2)] * 4
        write_own_archive(tmp_path / "Dataset" / name, signals, labels=labels)
    settings = Settings(root=tmp_path)
    label_archives(settings)
    assert [(check.verdict, check.found) for check in checks_of(settings, "labels")] == [
        ("passed", "a: 4 of 4 records have a label"),
        ("warning", "b: 1 of 4 records have a label (25%)"),
        ("warning", "c: none of 4 records has a label"),
    ]


def test_a_mapping_that_a_spreadsheet_has_saved_counts_the_same(settings: Settings) -> None:
    path = settings.workspace.mapping_path
    counted = count_labelled(path)
    assert counted.loc["mine"].tolist() == [3, 3]
    read_mapping(path).to_csv(path, sep=";", index=False, encoding="utf-16")
    assert count_labelled(path).equals(counted)


def test_a_mapping_of_other_settings_is_a_warning_by_name(settings: Settings) -> None:
    write_own_archive(settings.archives_dir / "later", [fake_ecg(0, seconds=2)])
    changed = settings.model_copy(update={"label_set": "superdiagnostic"})
    told = [check.found for check in checks_of(changed, "labels") if check.verdict == "warning"]
    assert any("label_set: five -> superdiagnostic" in line for line in told)
    assert any("labels per record: one -> any number" in line for line in told)
    assert any("later is new" in line for line in told)
    (settings.archives_dir / "mine" / "labels.csv").rename(settings.root / "away.csv")
    told = [check.found for check in checks_of(settings, "labels")]
    assert any("mine is gone" in line for line in told)


def test_coverage_of_another_label_set_is_not_told_as_that_of_this_one(tmp_path: Path) -> None:
    write_own_archive(tmp_path / "Dataset" / "a", [fake_ecg(0, seconds=2)] * 2, labels=["?", "?"])
    settings = Settings(root=tmp_path)
    label_archives(settings)
    before = [check.advice for check in checks_of(settings, "labels")]
    assert before == ["label set five does not cover a"]
    changed = settings.model_copy(update={"label_set": "superdiagnostic"})
    after = checks_of(changed, "labels")
    assert {check.advice for check in after} == {"run `einthoven label`; your edits stay"}
    assert all(check.found.startswith("made with another setting") for check in after)


def test_coverage_is_still_told_when_an_archive_has_come(settings: Settings) -> None:
    write_own_archive(settings.archives_dir / "later", [fake_ecg(0, seconds=2)])
    come, covered = checks_of(settings, "labels")
    assert come.verdict == "warning" and come.found.startswith("later is new")
    assert covered.found == "mine: 3 of 3 records have a label"


def test_a_damaged_mapping_fails(settings: Settings) -> None:
    settings.workspace.mapping_path.write_text("a,b\n1,2\n")
    (check,) = checks_of(settings, "labels")
    assert check.verdict == "failed" and "lacks the column" in check.found


# Store and splits --------------------------------------------------------------------------------


def test_a_damaged_manifest_is_said_once(settings: Settings) -> None:
    settings.workspace.manifest_path.write_bytes(b"no table")
    failed = [check for check in run_preflight_checks(settings) if check.verdict == "failed"]
    assert [check.subject for check in failed] == ["store"]


def test_a_store_of_other_settings_fails_by_name(settings: Settings) -> None:
    changes = {"target_fs": 500, "bandpass": True, "label_set": "superdiagnostic"}
    found = checks_of(settings.model_copy(update=changes), "store")
    failed = [check.found for check in found if check.verdict == "failed"]
    assert len(failed) == 4, failed
    assert "label_set: five -> superdiagnostic" in failed[0]
    assert "labels per record: one -> any number" in failed[1]
    assert "target_fs: 100 -> 500" in failed[2]
    assert "bandpass: None -> (0.5, 40.0)" in failed[3]


def test_splits_without_a_record_to_train_on_fail(settings: Settings) -> None:
    path = settings.workspace.splits_path
    write_json(path, read_json(path) | {"train": []})
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and check.found == "no labelled record to train on"


@pytest.mark.parametrize("text", ["{", "", "[1]"])
def test_unreadable_splits_are_a_finding_of_the_splits(settings: Settings, text: str) -> None:
    settings.workspace.splits_path.write_text(text)
    failed = [check for check in run_preflight_checks(settings) if check.verdict == "failed"]
    assert [check.subject for check in failed] == ["splits"]
    assert "splits.json" in failed[0].found
    assert failed[0].advice == "run `einthoven prepare` to remake it"


def test_labels_edited_since_the_store_was_made_are_a_warning(settings: Settings) -> None:
    path = settings.workspace.mapping_path
    path.write_text(path.read_text().replace("NORM", "MI"))
    warning, passed = checks_of(settings, "store")
    assert warning.verdict == "warning" and "labels have changed" in warning.found
    assert passed.verdict == "passed"


def test_a_preparation_that_did_not_finish_is_a_warning(settings: Settings) -> None:
    settings.workspace.step_path("prepare").unlink()
    warning, _ = checks_of(settings, "store")
    assert warning.verdict == "warning" and "did not finish" in warning.found


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_shard_that_is_not_whole_fails(settings: Settings, damage: str) -> None:
    (path,) = settings.workspace.records_dir.glob("*.npy")
    path.write_bytes(path.read_bytes()[:1000])
    if damage == "missing":
        path.unlink()
    (check,) = checks_of(settings, "shards")
    assert check.verdict == "failed" and damage in check.found
    assert "einthoven prepare" in check.advice
    assert checks_of(settings, "classes") and checks_of(settings, "splits")


def test_splits_that_are_not_made_are_a_warning(settings: Settings) -> None:
    settings.workspace.splits_path.unlink()
    found = verdicts(settings)
    assert found["splits"] == {"warning"} and found["store"] == {"passed"}
    assert "classes" not in found and found["memory"] == {"passed"}


def test_splits_of_another_seed_are_a_warning(settings: Settings) -> None:
    warning, passed = checks_of(settings.model_copy(update={"split_seed": 7}), "splits")
    assert warning.verdict == "warning" and "split_seed: 0 -> 7" in warning.found
    assert passed.verdict == "passed"


def test_a_patient_in_two_splits_fails_and_is_named(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    splits["test"].append(splits["train"][0])
    write_json(settings.workspace.splits_path, splits)
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and splits["train"][0] in check.found


def test_splits_of_another_store_fail_without_a_traceback(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    write_json(settings.workspace.splits_path, splits | {"test": ["gone/1"]})
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and "gone/1" in check.found


def test_splits_that_lack_one_fail(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    del splits["val"]
    write_json(settings.workspace.splits_path, splits)
    (check,) = checks_of(settings, "splits")
    assert check.verdict == "failed" and "lacks one of train, val, test" in check.found


def test_a_recording_in_two_splits_fails(settings: Settings) -> None:
    splits = read_json(settings.workspace.splits_path)
    train, test = splits["train"], splits["test"]
    write_audit(settings, [(train[0], train[1]), (train[2], test[0]), ("gone/1", test[1])])
    (check,) = checks_of(settings, "duplicates")
    assert check.verdict == "failed" and "1 recording met in two splits" in check.found
    assert f"{train[2]} and {test[0]}" in check.found


@pytest.mark.parametrize("stale", ["no stamp", "version", "pairs", "store"])
def test_an_audit_of_another_store_or_version_is_a_warning(settings: Settings, stale: str) -> None:
    workspace = settings.workspace
    stamp = read_json(workspace.step_path("audit"))
    stamp_step(workspace.step_path("audit"), stamp | {stale: "another"})
    if stale == "no stamp":
        workspace.step_path("audit").unlink()
    if stale == "store":
        splits = read_json(workspace.splits_path)
        write_json(workspace.splits_path, splits | {"audit": {"store": "another"}})
    (check,) = checks_of(settings, "duplicates")
    assert check.verdict == "warning" and "not been searched for copies" in check.found


def test_rare_classes_are_named_and_those_without_a_score(settings: Settings) -> None:
    train, validation, test = checks_of(settings, "classes")
    assert "train: fewer than 20 records of AF 0, BBB 0, OTHER 0" in train.found
    assert validation.found == "validation: no record of AF, BBB, OTHER"
    assert test.found == "test: no record of AF, BBB, OTHER"


def test_classes_with_enough_records_pass(settings: Settings) -> None:
    manifest = pd.read_parquet(settings.workspace.manifest_path)
    names = ["MI", "AF", "BBB", "NORM", "OTHER"]
    # Ten folds in turn and five labels in turn of fifty records.
    manifest["labels"] = [[names[row // 10 % 5]] for row in range(len(manifest))]
    manifest.attrs = {"target_fs": 100, "target_samples": N_SAMPLES, "digest": "0"}
    manifest.to_parquet(settings.workspace.manifest_path)
    assert {check.verdict for check in checks_of(settings, "classes")} == {"passed"}
    assert checks_of(settings, "classes")[2].found == "test: fewest are MI, 12 records"


# Machine -----------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_gpu_that_is_not_there_fails(settings: Settings) -> None:
    (check,) = checks_of(settings.model_copy(update={"device": "cuda"}), "device")
    assert check.verdict == "failed" and "DEVICE is cuda" in check.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_driver_that_torch_cannot_use_is_a_warning(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    wished = settings.model_copy(update={"device": "auto"})
    warning, _ = checks_of(wished, "device")
    assert warning.verdict == "warning" and "cannot use a GPU" in warning.found


def test_memory_says_where_windows_are_kept_and_what_training_needs(settings: Settings) -> None:
    windows, training = checks_of(settings, "memory")
    n_bytes = 540 * 12 * N_SAMPLES * np.dtype(np.int16).itemsize
    assert windows.found.startswith(f"{n_bytes / 2**20:.1f} MiB of windows")
    assert windows.found.endswith("kept in memory")
    assert re.search(r"about [\d.]+ GiB \(resnet1d_views, 64 records a batch\)", training.found)


def test_a_batch_that_does_not_fit_is_a_warning_with_one_that_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = machine.host_bytes(SimpleNamespace(n_known_records=0)) + 2**30
    monkeypatch.setattr(machine, "free_on", lambda device: (room, "on this machine"))
    (*_, check) = checks_of(settings.model_copy(update={"batch_size_cpu": 4096}), "memory")
    assert check.verdict == "warning" and "4,096 records a batch" in check.found
    fits = int(re.search(r"--batch-size-cpu (\d+) should fit", check.advice).group(1))
    assert 64 <= fits < 4096
    (*_, check) = checks_of(settings.model_copy(update={"batch_size_cpu": fits // 4}), "memory")
    assert check.verdict == "passed"


def test_windows_that_do_not_fit_where_they_are_wished_fail(settings, monkeypatch) -> None:
    monkeypatch.setattr("einthoven.residency.free_host_memory", lambda: (2**20, "here"))
    (*_, check) = checks_of(settings.model_copy(update={"residency": "memory"}), "memory")
    assert check.verdict == "failed" and "RESIDENCY is memory" in check.found


def test_workers_that_need_too_much_memory_are_a_warning(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "free_host_memory", lambda: (2**30, "on this machine"))
    (*_, check) = checks_of(Settings(root=tmp_path, prepare_workers=64), "memory")
    assert check.verdict == "warning" and "64 workers" in check.found
    assert check.advice == "--prepare-workers 4"
    (*_, check) = checks_of(Settings(root=tmp_path, prepare_workers=2), "memory")
    assert check.verdict == "passed"


def test_the_estimate_counts_what_a_model_keeps() -> None:
    full, half, larger = (
        training_need(Settings(**changes), CPU)
        for changes in ({}, {"mixed_precision": "bf16"}, {"crop_samples": 1000})
    )
    assert full.weights >= 4 * 1_177_188  # benchmarks/results/models.json
    assert 5 * full.weights <= full.state + full.weights <= 7 * full.weights
    assert 0.4 * full.per_record < half.per_record < 0.7 * full.per_record
    assert 3 * full.per_record < larger.per_record < 5 * full.per_record
    assert training_need(Settings(ema_decay=0), CPU).state < full.state


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_the_estimate_is_near_what_training_takes() -> None:
    """Peak memory of a process that takes two steps; loosely, for allocators differ."""
    batch = 128
    measured = measured_growth(batch)
    estimate = training_need(Settings(batch_size_cpu=batch), CPU).of_batch(batch)
    assert 0.5 * measured < estimate < 2.5 * measured, (measured, estimate)


MEASURE = """
import pathlib, torch
from einthoven.models.registry import build_model
from einthoven.objective import make_optimizer
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
torch.nn.Conv1d(12, 4, 3)(torch.randn(2, 12, 64)).sum().backward()
before = peak()
model = build_model("resnet1d_views", n_leads=12, n_classes=5)
optimizer = make_optimizer(model, 1e-3, 0.1)
for _ in range(2):
    model(torch.randn({batch}, 12, 250)).sum().backward()
    optimizer.step()
print(peak() - before)
"""


def measured_growth(batch: int) -> int:
    script = MEASURE.replace("{batch}", str(batch))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return int(done.stdout)


def test_a_root_that_cannot_be_made_fails_for_an_administrator_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        (check,) = checks_of(Settings(root=root), "writing")
        assert check.verdict == "failed" and "another --root" in check.advice
        assert str(root) in check.found


def test_a_folder_of_the_workspace_that_takes_no_files_fails(settings: Settings) -> None:
    settings.workspace.figures_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.workspace.figures_dir.write_text("no folder")
    (check,) = checks_of(settings, "writing")
    assert check.verdict == "failed" and "figures" in check.found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_root_on_a_file_system_that_takes_no_files_fails() -> None:
    (check,) = checks_of(Settings(root=Path("/proc/einthoven")), "writing")
    assert check.verdict == "failed" and "/proc/einthoven cannot be made" in check.found


def disk_check(settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int) -> Check:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: DiskUsage(9, 8, free))
    (check,) = checks_of(settings, "disk")
    return check


def test_a_disk_without_room_for_the_run_fails(settings: Settings, monkeypatch) -> None:
    check = disk_check(settings, monkeypatch, 10 << 20)
    assert check.verdict == "failed" and "a run will take about 0." in check.found
    assert disk_check(settings, monkeypatch, 1 << 30).verdict == "passed"


def test_a_disk_without_room_for_the_store_fails(settings: Settings, monkeypatch) -> None:
    settings.workspace.manifest_path.unlink()
    counts = pd.DataFrame({"records": [10**6], "labelled": [10**6]}, index=["mine"])
    monkeypatch.setattr("einthoven.preflight.opened.count_labelled", lambda path: counts)
    check = disk_check(settings, monkeypatch, 1 << 30)
    assert check.verdict == "failed" and "1,000,000 records and a run" in check.found
    assert disk_check(settings, monkeypatch, 10 << 30).verdict == "passed"


def test_fifty_gigabytes_are_a_note_and_no_warning(tmp_path: Path, monkeypatch) -> None:
    settings = Settings(root=tmp_path)
    check = disk_check(settings, monkeypatch, 20 << 30)
    assert check.verdict == "passed" and "50 GB are recommended" in check.found
    assert "recommended" not in disk_check(settings, monkeypatch, 60 << 30).found
    assert disk_check(settings, monkeypatch, 1 << 30).verdict == "warning"


def test_a_port_is_looked_at_only_where_it_is_asked_for(settings: Settings) -> None:
    assert checks_of(settings, "port") == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (check,) = (c for c in run_preflight_checks(settings, port) if c.subject == "port")
        assert check.verdict == "failed" and str(port) in check.found
    (check,) = (c for c in run_preflight_checks(settings, port) if c.subject == "port")
    assert (check.verdict, check.found) == ("passed", f"{port} is free")


# Libraries ---------------------------------------------------------------------------------------


def test_the_table_of_libraries_is_that_of_pyproject() -> None:
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]

    def table(lines: list[str]) -> dict[str, str]:
        pairs = (line.split(">=") for line in lines if ">=" in line)
        return {name.partition("[")[0]: least for name, least in pairs}

    assert project["requires-python"] == f">={libraries.LEAST_PYTHON}"
    assert table(project["dependencies"]) == libraries.LIBRARIES
    extras = {n: table(v) for n, v in project["optional-dependencies"].items()}
    extras = {name: extras[name] for name in libraries.EXTRAS}
    assert extras == libraries.EXTRAS


def with_versions(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None]) -> list[Check]:
    """The checks where some libraries have other versions, or are absent (None)."""

    def version(name: str) -> str:
        if name in changes and changes[name] is None:
            raise metadata.PackageNotFoundError(name)
        return changes.get(name) or "9999"

    monkeypatch.setattr(libraries.metadata, "version", version)
    return list(libraries.check_libraries(None))


def test_libraries_that_are_new_enough_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = with_versions(monkeypatch, {"torch": "2.13.0+cpu"})
    assert check.verdict == "passed" and "torch 2.13.0+cpu" in check.found


@pytest.mark.parametrize(("version", "told"), [("1.9", "older than 2.6"), (None, "not installed")])
def test_a_library_that_is_old_or_absent_fails_with_the_way_out(monkeypatch, version, told) -> None:
    (check,) = with_versions(monkeypatch, {"torch": version})
    assert check.verdict == "failed" and told in check.found
    assert check.advice == 'pip install "torch>=2.6"'


def test_extras_that_are_absent_are_told_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, check = with_versions(monkeypatch, {"ray": None, "optuna": None})
    assert check.verdict == "passed"
    assert 'pip install "einthoven[tuning,cluster]"' in check.found


def test_an_extra_that_is_too_old_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, check = with_versions(monkeypatch, {"onnx": "1.9"})
    assert check.verdict == "warning" and "onnx 1.9 is older than 1.17" in check.found


# What is read of them ----------------------------------------------------------------------------


def test_advice_is_given_once_and_verdicts_are_counted() -> None:
    checks = [Check("classes", "warning", f"{n}", "add archives") for n in range(3)]
    text = format_checks([*checks, Check("disk", "warning", "full", "make room")])
    assert text.count("-> add archives") == 1 and "-> make room" in text
    assert text.splitlines()[-1] == "0 passed, 4 warnings, 0 failed"
    assert format_checks(checks[:1]).splitlines()[-1] == "0 passed, 1 warning, 0 failed"


def test_lines_are_no_wider_than_the_terminal_and_lose_nothing() -> None:
    long = " ".join(f"word{number}" for number in range(60))
    text = format_checks([Check("disk", "failed", f"{long}\n  and more", long)], width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.split().count("word59") == 2 and "and more" in text


def test_the_worst_verdict_counts() -> None:
    lines = [Check("a", verdict, "") for verdict in ("passed", "warning", "failed")]
    assert [worst_verdict(lines[:n]) for n in range(4)] == ["passed", "passed", "warning", "failed"]


def test_the_command_ends_with_one_where_something_failed(settings: Settings) -> None:
    words = ["check", "--root", str(settings.root), "--target-samples", str(N_SAMPLES)]
    sound = CliRunner().invoke(command_line, words)
    assert sound.exit_code == 0, sound.output
    assert sound.output.splitlines()[0].split() == ["verdict", "subject", "found"]
    failing = CliRunner().invoke(command_line, [*words, "--target-fs", "250"])
    assert failing.exit_code == 1
    assert "target_fs: 100 -> 250" in " ".join(failing.output.split())


def test_json_is_all_that_is_printed_and_says_the_same(settings: Settings) -> None:
    words = ["check", "--json", "--root", str(settings.root), "--port", "1"]
    result = CliRunner().invoke(command_line, words)
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["verdict"] == "failed"
    assert set(told) == {"verdict", "counts", "checks"}
    assert set(told["checks"][0]) == {"subject", "verdict", "found", "advice"}
    assert sum(told["counts"].values()) == len(told["checks"])
    assert told["checks"][-1]["subject"] == "port"
    same = checks_as_json([Check(**check) for check in told["checks"]])
    assert same == told
