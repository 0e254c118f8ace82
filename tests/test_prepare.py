from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from fake_ecgs import fake_ecg, settings_for, write_own_archive

from einthoven.chunks import signal_settings
from einthoven.errors import DataError
from einthoven.files import Workspace
from einthoven.prepare import prepare_archives
from einthoven.shards import prepare_record
from einthoven.split_records import read_splits
from einthoven.splits import check_splits
from einthoven.store import open_store

LABELS = ["NORM", "MI", "AF", "NORM;", "BBB", ""]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("einthoven.chunks.RECORDS_PER_SHARD", 4)
    monkeypatch.setattr("einthoven.shards.RECORDS_PER_FLUSH", 3)


def make_archives(root: Path, n: int = 12) -> None:
    """Archive ``one``: pairs of records of a patient, of 4 s; archive ``two``: no patients."""
    patients = [f"p{number // 2}" for number in range(n)]
    labels = [LABELS[number % len(LABELS)].strip(";") for number in range(n)]
    signals = [fake_ecg(seed, seconds=4) for seed in range(n)]
    write_own_archive(root / "Dataset" / "one", signals, patient_id=patients, labels=labels)
    others = [fake_ecg(100 + seed, fs=250, seconds=3 + seed) for seed in range(3)]
    write_own_archive(root / "Dataset" / "two", others, fs=250)


def shard_files(root):
    return sorted(Workspace(root).records_dir.iterdir())


def modified(root):
    return {path.name: path.stat().st_mtime_ns for path in shard_files(root)}


def read_rejected(root):
    return pd.read_csv(Workspace(root).rejected_path, dtype=str, keep_default_na=False)


# What is stored --------------------------------------------------------------------------------


def test_every_record_found_is_stored_or_rejected_with_a_reason(tmp_path):
    make_archives(tmp_path)
    folder = tmp_path / "Dataset" / "one"
    (folder / "r001.npy").unlink()
    (folder / "r002.npy").write_bytes(b"damaged")
    np.save(folder / "r003.npy", np.zeros((12, 800), np.float32))
    np.save(folder / "r004.npy", np.zeros((12, 0), np.float32))
    done = prepare_archives(settings_for(tmp_path))
    rejected = read_rejected(tmp_path)
    assert (done.n_found, done.n_stored, done.n_rejected) == (15, 11, 4)
    assert list(rejected.columns) == ["archive", "record_id", "path", "reason"]
    assert len(rejected) == 4 and (rejected["reason"] != "").all()
    assert len(open_store(Workspace(tmp_path)).manifest) == 11


def test_rows_that_a_person_deletes_copies_or_adds_change_no_count(tmp_path):
    make_archives(tmp_path)
    (tmp_path / "Dataset" / "one" / "r001.npy").unlink()
    first = prepare_archives(settings_for(tmp_path))
    path = Workspace(tmp_path).mapping_path
    header, *lines = path.read_text().splitlines()
    changed = [header, *lines[3:], *lines[5:8], "one,r999,,,MI,,,,,,,,own,one,r999.npy,"]
    path.write_text("\n".join(changed))
    second = prepare_archives(settings_for(tmp_path))
    assert second == dataclasses.replace(first, n_chunks_made=0)
    assert second.n_found == 15 == second.n_stored + len(read_rejected(tmp_path))
    assert open_store(Workspace(tmp_path)).manifest["record"].is_unique


def test_stored_windows_are_the_records_in_microvolts(tmp_path):
    signal = fake_ecg(1, fs=100, seconds=5)
    write_own_archive(tmp_path / "Dataset" / "own", [signal], fs=100)
    prepare_archives(settings_for(tmp_path))
    store = open_store(Workspace(tmp_path))
    expected = np.rint(signal * 1000).astype(np.int16)
    # 5 s in windows of 2 s: three, spread evenly from 0 to 3 s.
    starts = [0, 150, 300]
    assert np.array_equal(store.windows(0), [expected[:, at : at + 200] for at in starts])
    assert store.manifest["n_samples"].tolist() == [500]


def test_manifest_tells_of_each_record(tmp_path):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    row = open_store(Workspace(tmp_path)).manifest.set_index("record_id").loc["r001"]
    first = row.iloc[0] if isinstance(row, pd.DataFrame) else row
    assert (first["record"], first["patient_id"], first["fs"]) == ("one/r001", "p0", 200.0)
    assert first["leads_present"] == "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    assert list(first["labels"]) == ["MI"] and first["quality"] == ""


def test_device_and_site_of_an_own_archive_arrive_in_the_manifest(tmp_path):
    columns = {"device": ["ELI  250", "", "A, B;C"], "site": ["ward 2", "7", ""]}
    signals = [fake_ecg(seed, seconds=4) for seed in range(3)]
    write_own_archive(tmp_path / "Dataset" / "one", signals, **columns)
    write_own_archive(tmp_path / "Dataset" / "two", [fake_ecg(9, seconds=4)])
    prepare_archives(settings_for(tmp_path))
    manifest = open_store(Workspace(tmp_path)).manifest
    assert manifest["device"].tolist() == ["ELI 250", "", "A, B;C", ""]
    assert manifest["site"].tolist() == ["ward 2", "7", "", ""]


def test_shards_are_plain_npy(tmp_path):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    shards = [path for path in shard_files(tmp_path) if path.suffix == ".npy"]
    for path in shards:
        assert np.load(path, mmap_mode="r").shape[1:] == (12, 200)
    assert sum(len(np.load(path)) for path in shards) == open_store(Workspace(tmp_path)).n_windows


def test_two_workers_write_what_one_writes(tmp_path):
    make_archives(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    prepare_archives(settings_for(tmp_path / "a"))
    prepare_archives(settings_for(tmp_path / "b", prepare_workers=2))
    contents = [
        [path.read_bytes() for path in shard_files(root) if path.suffix == ".npy"]
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert contents[0] == contents[1]


def fails_on_one(reader, folder, path, how):
    if path.startswith("r005"):
        raise ZeroDivisionError("by\nzero")
    return prepare_record(reader, folder, path, how)


def test_defect_met_on_one_record_rejects_only_that_record(tmp_path, monkeypatch):
    make_archives(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("einthoven.shards.prepare_record", fails_on_one)
        prepare_archives(settings_for(tmp_path))
    rejected = read_rejected(tmp_path)
    assert rejected["record_id"].tolist() == ["r005"]
    assert rejected["reason"][0] == "it cannot be prepared (ZeroDivisionError: by zero)"
    # The defect may be mended by then.
    again = prepare_archives(settings_for(tmp_path))
    assert (again.n_chunks_made, again.n_rejected) == (1, 0)


def test_store_whose_shards_are_being_made_again_cannot_be_opened(tmp_path, monkeypatch):
    make_archives(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("einthoven.shards.prepare_record", fails_on_one)
        prepare_archives(settings_for(tmp_path))
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("einthoven.prepare.collect_chunks", Mock(side_effect=KeyboardInterrupt))
        prepare_archives(settings_for(tmp_path))
    # The record that comes in moves those behind it.
    with pytest.raises(DataError, match="run `einthoven prepare` first"):
        open_store(Workspace(tmp_path))
    prepare_archives(settings_for(tmp_path))
    assert len(open_store(Workspace(tmp_path)).manifest) == 15


def test_recording_of_more_than_an_hour_is_rejected_with_its_length(tmp_path):
    make_archives(tmp_path)
    long = np.tile(fake_ecg(0, fs=50), (1, 366)).astype(np.float16)
    write_own_archive(tmp_path / "Dataset" / "holter", [long], fs=50)
    prepare_archives(settings_for(tmp_path))
    reason = read_rejected(tmp_path)["reason"][0]
    assert "lasts 1.0 h" in reason and "cut the recording" in reason


def test_huge_file_is_rejected_unread(tmp_path, monkeypatch):
    make_archives(tmp_path)
    monkeypatch.setattr("einthoven.chunks.LARGEST_FILE_BYTES", 100_000)
    write_own_archive(tmp_path / "Dataset" / "huge", [fake_ecg(0, seconds=30)])
    prepare_archives(settings_for(tmp_path))
    rejected = read_rejected(tmp_path)
    assert rejected["archive"].tolist() == ["huge"]
    assert "files over 1 GiB are not read" in rejected["reason"][0]


def test_nothing_to_store_says_why(tmp_path):
    write_own_archive(tmp_path / "Dataset" / "own", [np.zeros((12, 2000), np.float32)] * 2)
    with pytest.raises(DataError, match=r"none of 2 records can be stored \(first: .*flat"):
        prepare_archives(settings_for(tmp_path))


# Splits and copies -----------------------------------------------------------------------------


def test_no_patient_crosses_splits_of_a_prepared_store(tmp_path):
    make_archives(tmp_path, n=40)
    prepare_archives(settings_for(tmp_path))
    store, splits = open_store(Workspace(tmp_path)), read_splits(Workspace(tmp_path).splits_path)
    check_splits(splits, store.manifest)
    listed = [record for split in ("train", "val", "test") for record in splits[split]]
    assert len(listed) == (store.manifest["labels"].str.len() > 0).sum()
    assert store.manifest.groupby("patient_group")["fold"].nunique().max() == 1


def test_copy_in_another_archive_inherits_fold_and_group_and_is_in_no_split(tmp_path):
    make_archives(tmp_path)
    root = tmp_path / "Dataset"
    long = [fake_ecg(seed) for seed in range(50, 54)]
    write_own_archive(root / "zebra", long, patient_id=["q0", "q0", "q1", "q2"], fold=[2, 2, 3, 9])
    write_own_archive(root / "alpha", [fake_ecg(51, fs=500) * 0.5, fake_ecg(60, fs=500)], fs=500)
    prepare_archives(settings_for(tmp_path))
    manifest = open_store(Workspace(tmp_path)).manifest.set_index("record")
    splits = read_splits(Workspace(tmp_path).splits_path)
    copy = manifest.loc["alpha/r000"]
    assert (copy["duplicate_of"], copy["fold"]) == ("zebra/r001", 2)
    assert copy["patient_group"] == manifest.loc["zebra/r000", "patient_group"]
    assert not any("alpha/r000" in splits[split] for split in ("train", "val", "test"))
    assert splits["audit"]["pairs"] == [["alpha/r000", "zebra/r001"]]


def test_limit_takes_whole_patients_and_counts_the_rest(tmp_path):
    make_archives(tmp_path)
    (tmp_path / "Dataset" / "one" / "r001.npy").write_bytes(b"damaged")
    done = prepare_archives(settings_for(tmp_path, ecg_preprocess_limit=8))
    assert done.n_found == 15 and 6 <= done.n_stored + done.n_rejected <= 8
    assert done.n_not_selected == 15 - done.n_stored - done.n_rejected
    assert len(read_rejected(tmp_path)) == done.n_rejected
    one = open_store(Workspace(tmp_path)).manifest.query("archive == 'one'")
    complete = one.groupby("patient_id").size()
    assert (complete.drop("p0", errors="ignore") == 2).all()


# Redone only when needed -----------------------------------------------------------------------


def test_first_run_says_nothing_of_what_has_not_been_done(tmp_path, caplog):
    make_archives(tmp_path)
    caplog.set_level("INFO", "einthoven")
    prepare_archives(settings_for(tmp_path))
    assert "not done" not in caplog.text and "done before" not in caplog.text
    assert "rejected (" not in caplog.text


def test_rejected_records_are_told_in_one_line_with_the_commonest_reason(tmp_path, caplog):
    make_archives(tmp_path)
    for number in (1, 2, 3):
        (tmp_path / "Dataset" / "one" / f"r00{number}.npy").unlink()
    np.save(tmp_path / "Dataset" / "one" / "r004.npy", np.zeros((12, 800), np.float32))
    caplog.set_level("INFO", "einthoven")
    prepare_archives(settings_for(tmp_path))
    (line,) = [line for line in caplog.text.splitlines() if "4 records rejected" in line]
    reasons = Workspace(tmp_path).rejected_path
    assert line == f"4 records rejected (3 like this: r001.npy is not there); see {reasons}"


def test_classes_are_printed_in_the_label_sets_order(tmp_path, caplog):
    make_archives(tmp_path, n=40)
    caplog.set_level("INFO", "einthoven")
    prepare_archives(settings_for(tmp_path))
    _, _, table = caplog.text.partition("label     train")
    shown = [line.split()[0] for line in table.splitlines()[1:7]]
    assert shown == ["MI", "AF", "BBB", "NORM", "records", "patients"]


def test_second_run_does_nothing_and_says_so(tmp_path, caplog):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    before = modified(tmp_path)
    caplog.set_level("INFO", "einthoven")
    caplog.clear()
    done = prepare_archives(settings_for(tmp_path))
    assert done.n_chunks_made == 0 and modified(tmp_path) == before
    assert caplog.messages == ["prepare: nothing has changed since the store was made; skipped"]


def test_label_set_of_ones_own_is_the_same_however_its_path_is_written(
    tmp_path, caplog, monkeypatch
):
    make_archives(tmp_path)
    (tmp_path / "mine.csv").write_text("code,label\nsnomed:426783006,NORM\nsnomed:164889003,AF\n")
    monkeypatch.chdir(tmp_path)
    settings = settings_for(tmp_path)
    prepare_archives(settings.model_copy(update={"label_set": "mine.csv"}))
    caplog.set_level("INFO", "einthoven")
    caplog.clear()
    prepare_archives(settings.model_copy(update={"label_set": str(tmp_path / "mine.csv")}))
    assert caplog.messages == ["prepare: nothing has changed since the store was made; skipped"]


def test_finding_nothing_changed_waits_for_no_library_that_only_work_needs(tmp_path):
    make_archives(tmp_path, n=4)
    prepare_archives(settings_for(tmp_path))
    code = """
import sys
from pathlib import Path
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
prepare_archives(Settings(root=Path(sys.argv[1]), target_samples=200, prepare_workers=1))
heavy = {"scipy", "joblib", "torch", "matplotlib", "wfdb", "sklearn"}
print(*sorted(heavy & set(sys.modules)), sep=",")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""


def test_changed_split_seed_redoes_only_the_splits(tmp_path, caplog):
    make_archives(tmp_path, n=40)
    prepare_archives(settings_for(tmp_path))
    before = modified(tmp_path)
    first = read_splits(Workspace(tmp_path).splits_path)
    caplog.set_level("INFO", "einthoven")
    done = prepare_archives(settings_for(tmp_path, split_seed=5))
    assert done.n_chunks_made == 0 and modified(tmp_path) == before
    assert "split_seed: 0 -> 5" in caplog.text and "audit: no signal has changed" in caplog.text
    assert read_splits(Workspace(tmp_path).splits_path)["train"] != first["train"]


def test_new_version_of_the_audit_is_run_on_an_old_store(tmp_path, caplog, monkeypatch):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    monkeypatch.setattr("einthoven.prepare.AUDIT_VERSION", 99)
    caplog.set_level("INFO", "einthoven")
    assert prepare_archives(settings_for(tmp_path)).n_chunks_made == 0
    assert "audit version: 3 -> 99" in caplog.text and "audit: 0 pairs" in caplog.text


def test_edited_label_redoes_only_manifest_and_splits(tmp_path, caplog):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    before = modified(tmp_path)
    path = Workspace(tmp_path).mapping_path
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[table["record_id"] == "r000", "labels"] = "AF"
    table.to_csv(path, index=False)
    caplog.set_level("INFO", "einthoven")
    done = prepare_archives(settings_for(tmp_path))
    manifest = open_store(Workspace(tmp_path)).manifest.set_index("record")
    assert list(manifest.loc["one/r000", "labels"]) == ["AF"]
    assert done.n_chunks_made == 0 and modified(tmp_path) == before
    assert "prepare: mapping has changed\n" in caplog.text


def test_changed_file_redoes_only_its_chunk(tmp_path):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    before = modified(tmp_path)
    np.save(tmp_path / "Dataset" / "one" / "r009.npy", fake_ecg(77, seconds=4.5))
    done = prepare_archives(settings_for(tmp_path))
    after = modified(tmp_path)
    kept = before.items() & after.items()
    assert done.n_chunks_made == 1
    assert len(after) == len(before) and len(kept) == len(before) - 2


def test_changed_signal_setting_redoes_everything_and_removes_old_shards(tmp_path, caplog):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    before = modified(tmp_path)
    caplog.set_level("INFO", "einthoven")
    done = prepare_archives(settings_for(tmp_path, target_fs=50, bandpass=True))
    assert (
        "prepare: what the store is made from has changed; target_fs: 100 -> 50; "
        "bandpass: off -> 0.5 to 40.0 Hz"
    ) in caplog.text
    assert done.n_chunks_made == done.n_chunks
    assert not set(before) & set(modified(tmp_path))
    assert open_store(Workspace(tmp_path)).target_fs == 50


@pytest.mark.parametrize("harm", ["delete", "cut"])
def test_harmed_shard_is_made_again(harm, tmp_path, caplog):
    make_archives(tmp_path)
    prepare_archives(settings_for(tmp_path))
    shard = shard_files(tmp_path)[0]
    whole = shard.read_bytes()
    if harm == "delete":
        shard.unlink()
    else:
        os.truncate(shard, 1000)
    caplog.set_level("INFO", "einthoven")
    caplog.clear()
    assert prepare_archives(settings_for(tmp_path)).n_chunks_made == 1
    assert shard.read_bytes() == whole
    what = {"delete": "missing", "cut": "cut short"}[harm]
    assert f"shards of the store cannot be used (first: {shard} is {what})" in caplog.text
    assert "what is wrong is made again" in caplog.text and "run `einthoven" not in caplog.text


def test_full_disk_is_told_and_leaves_no_broken_file(tmp_path, monkeypatch):
    make_archives(tmp_path)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("einthoven.shards.ShardWriter.finish", full)
        with pytest.raises(DataError, match="the disk is full; make room"):
            prepare_archives(settings_for(tmp_path))
    assert shard_files(tmp_path) == []
    prepare_archives(settings_for(tmp_path))
    assert len(open_store(Workspace(tmp_path)).manifest) == 15


# Killed at any moment --------------------------------------------------------------------------

SLOW_RUN = """
import sys, time
import einthoven.chunks as chunks
import einthoven.shards as shards
from pathlib import Path
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings

quick = shards.prepare_record
def slow(*args):
    time.sleep(0.01)
    return quick(*args)
shards.prepare_record = slow
chunks.RECORDS_PER_SHARD = 4
prepare_archives(Settings(root=Path(sys.argv[1]), target_samples=200, prepare_workers=1))
"""


def kill_once_some_chunks_are_done(root: Path, more_than: int, delay: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(root)])
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(Workspace(root).records_dir.glob("*.parquet"))) > more_than:
            time.sleep(delay)
            break
        time.sleep(0.002)
    process.kill()
    process.wait()


def test_run_killed_at_random_moments_ends_with_the_same_bytes_and_redoes_nothing(tmp_path):
    make_archives(tmp_path / "killed", n=60)
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    moments = random.Random(0)
    for _ in range(2):
        folder = Workspace(tmp_path / "killed").records_dir
        n_done = len(list(folder.glob("[!.]*.parquet")))
        kill_once_some_chunks_are_done(tmp_path / "killed", n_done + 1, moments.uniform(0, 0.05))
    finished = {path.stem for path in folder.glob("[!.]*.parquet")}
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.stem in finished}
    done = prepare_archives(settings_for(tmp_path / "killed"))
    prepare_archives(settings_for(tmp_path / "whole"))
    after = modified(tmp_path / "killed")
    assert finished and done.n_chunks_made == done.n_chunks - len(finished)
    assert before.items() <= after.items()
    assert not [name for name in after if name.startswith(".")]
    killed, whole = (
        [p.read_bytes() for p in shard_files(tmp_path / name) if p.suffix == ".npy"]
        for name in ("killed", "whole")
    )
    assert killed == whole
    splits = [read_splits(Workspace(tmp_path / name).splits_path) for name in ("killed", "whole")]
    assert splits[0] == splits[1]


INTERRUPTED_RUN = """
import sys
import einthoven.chunks as chunks
from pathlib import Path
from einthoven.console import setup_logging
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings

setup_logging()
chunks.RECORDS_PER_SHARD = 1
try:
    prepare_archives(Settings(root=Path(sys.argv[1]), target_samples=200, prepare_workers=2))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_interrupted_run_leaves_no_traceback_and_the_next_one_completes_it(tmp_path, monkeypatch):
    make_archives(tmp_path, n=200)
    command = [sys.executable, "-c", INTERRUPTED_RUN, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    folder = Workspace(tmp_path).records_dir
    while not list(folder.glob("[!.]*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert "preparing 203 records in 203 chunks\n" in stderr
    monkeypatch.setattr("einthoven.chunks.RECORDS_PER_SHARD", 1)
    done = prepare_archives(settings_for(tmp_path))
    assert 0 < done.n_chunks_made < done.n_chunks == done.n_stored == 203


def test_signal_settings_are_plain_values(tmp_path):
    how = signal_settings(settings_for(tmp_path, bandpass=True))
    assert (how["target_fs"], how["target_samples"], how["band"]) == (100, 200, (0.5, 40.0))


# Real records ----------------------------------------------------------------------------------


def test_five_hundred_hertz_records_are_prepared_as_their_hundred_hertz_twins(
    shared_data, tmp_path
):
    folder = str(shared_data / "ptb-xl")
    how = signal_settings(settings_for(tmp_path))
    twin, _ = prepare_record("ptb-xl", folder, "records100/00000/00001_lr", how)
    prepared, facts = prepare_record("ptb-xl", folder, "records500/00000/00001_hr", how)
    assert prepared.shape == twin.shape == (12, 1000) and facts["fs"] == 500
    difference = (prepared.astype(int) - twin)[:, 20:-20]
    assert np.sqrt(np.mean(difference**2)) < 20
