"""`einthoven download`: archives of every layout into folders that readers find and label."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from download_server import (
    answers,
    corrupts,
    drops_after,
    hurry,
    publish_sums,
    serving,
    write_challenge,
    write_ecg,
    write_ptbxl,
    write_sums,
    write_zip,
)

from einthoven.cli import command_line
from einthoven.download import command, fetching, packed, patience, unpacking
from einthoven.download.command import download_archives
from einthoven.download.outcome import Wanted
from einthoven.download.telling import archive_rows, download_summary
from einthoven.errors import ConfigError, DataError, DownloadError
from einthoven.files import read_json
from einthoven.labelling import label_archives
from einthoven.prepare import prepare_archives
from einthoven.readers.registry import find_archives, index_archive
from einthoven.settings import Settings
from einthoven.store import open_store

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_ptbxl(folder)
    write_challenge(folder)
    return folder


@pytest.fixture
def server(served):
    with serving(served) as running:
        yield running


@pytest.fixture
def settings(server, tmp_path):
    return Settings(
        root=tmp_path / "w", mirror=server.address, prepare_workers=1, label_set="superdiagnostic"
    )


def problems(settings, name):
    found, _ = find_archives(settings.archives_dir)
    archive = next(archive for archive in found if archive.name == name)
    return [info.problem for info in index_archive(archive, 100)]


# Whole archives --------------------------------------------------------------------------------


def test_a_downloaded_archive_is_labelled_and_prepared(settings):
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert outcome.failed == {}
    label_archives(settings)
    prepare_archives(settings)
    assert len(open_store(settings.workspace).manifest) == 40
    assert pd.read_csv(settings.workspace.rejected_path).empty


def test_every_file_is_as_it_was_served(settings, server):
    download_archives(settings, ["ptb-xl"])
    for path in (server.folder / "ptb-xl" / "1.0.3").rglob("*"):
        here = settings.archives_dir / "ptb-xl" / path.relative_to(server.folder / "ptb-xl/1.0.3")
        assert path.is_dir() or path.read_bytes() == here.read_bytes()


def test_a_second_run_asks_for_nothing(settings, server):
    download_archives(settings, ["ptb-xl"])
    server.asked.clear()
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert (outcome.n_fetched, server.asked) == (0, [])


def test_no_more_connections_are_open_than_the_setting_allows(settings, server):
    server.chunk_pause = 0.01
    download_archives(settings.model_copy(update={"download_connections": 2}), ["ptb-xl"])
    assert server.most_open == 2


def test_connections_are_kept_for_the_next_file(settings, server):
    download_archives(settings, ["ptb-xl"])
    assert len(server.asked) == 84
    assert server.n_connections <= 1 + settings.download_connections


def test_an_archive_that_cannot_be_had_does_not_stop_the_others(settings, server):
    first, second = download_archives(settings, ["ptbdb", "ptb-xl"])
    assert "ptbdb/1.0.0/SHA256SUMS.txt (status 404)" in first.failed["ptbdb"]
    assert (second.n_fetched, second.failed) == (83, {})
    with pytest.raises(DownloadError, match="status 404"):
        download_archives(settings, ["ptbdb"])


def test_a_tranche_is_fetched_alone_and_named_by_its_reader(settings, server):
    download_archives(settings, ["challenge-2021-georgia"])
    found, _ = find_archives(settings.archives_dir)
    assert [archive.name for archive in found] == ["challenge-2021-georgia"]
    assert problems(settings, "challenge-2021-georgia") == ["", "", ""]
    download_archives(settings, ["challenge-2021"])
    assert sum("E00001.hea" in path for path in server.asked) == 1


def test_files_that_were_put_there_by_hand_are_verified_and_kept(settings, server):
    folder = settings.archives_dir / "ptb-xl"
    shutil.copytree(server.folder / "ptb-xl" / "1.0.3" / "records100", folder / "records100")
    damaged = folder / "records100" / "00000" / "00007_lr.dat"
    damaged.write_bytes(b"damaged" + damaged.read_bytes()[7:])
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert outcome.failed == {}
    signals = [path for path in server.asked if path.endswith((".dat", ".hea"))]
    assert signals == ["ptb-xl/1.0.3/records100/00000/00007_lr.dat"]


def test_a_file_that_was_changed_after_its_download_is_fetched_again(settings, server):
    download_archives(settings, ["ptb-xl"])
    (settings.archives_dir / "ptb-xl" / "scp_statements.csv").write_text("edited")
    server.asked.clear()
    download_archives(settings, ["ptb-xl"])
    assert server.asked == ["ptb-xl/1.0.3/scp_statements.csv"]


def test_verify_finds_bytes_that_changed_under_the_same_size_and_time(settings, server):
    download_archives(settings, ["ptb-xl"])
    path = settings.archives_dir / "ptb-xl" / "records100" / "00000" / "00003_lr.dat"
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    server.asked.clear()
    download_archives(settings, ["ptb-xl"])
    assert server.asked == []
    download_archives(settings, ["ptb-xl"], Wanted(verify=True))
    lost = "ptb-xl/1.0.3/records100/00000/00003_lr.dat"
    assert server.asked == ["ptb-xl/1.0.3/SHA256SUMS.txt", lost]


def test_one_bad_file_stops_no_other_and_is_told_at_the_end(settings, server):
    place = "ptb-xl/1.0.3/records100/00000"
    server.fail(f"{place}/00001_lr.dat", answers(404))
    server.fail(f"{place}/00002_lr.dat", corrupts, corrupts)
    server.fail(f"{place}/00003_lr.dat", drops_after(1000), answers(503), corrupts)
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert sorted(path[-12:] for path in outcome.failed) == ["00001_lr.dat", "00002_lr.dat"]
    said = download_summary([outcome])
    assert "81 of 83 files there" in said
    assert "(status 404)" in said and "twice" in said
    assert problems(settings, "ptb-xl").count("") == 38


def test_what_failed_is_all_that_the_next_run_fetches(settings, server):
    server.fail("ptb-xl/1.0.3/records100/00000/00001_lr.dat", answers(404))
    download_archives(settings, ["ptb-xl"])
    server.asked.clear()
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert (outcome.n_fetched, outcome.failed) == (1, {})
    assert server.asked == ["ptb-xl/1.0.3/records100/00000/00001_lr.dat"]


def test_a_list_of_files_that_leads_out_of_the_folder_is_refused(settings, tmp_path):
    folder = tmp_path / "evil" / "ptb-xl" / "1.0.3"
    folder.mkdir(parents=True)
    (folder / "SHA256SUMS.txt").write_text(f"{'0' * 64} ../../outside.hea\n")
    with serving(tmp_path / "evil") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        with pytest.raises(DataError, match="leads out of the archive's folder"):
            download_archives(elsewhere, ["ptb-xl"])
    assert not (settings.root / "outside.hea").exists()


def test_an_archive_that_lies_elsewhere_is_not_fetched_a_second_time(settings, server):
    shutil.copytree(server.folder / "ptb-xl", settings.archives_dir / "mine")
    with pytest.raises(DataError, match=r"lies in .*mine.*already"):
        download_archives(settings, ["ptb-xl"])


def test_a_disk_without_room_is_told_before_anything_is_fetched(settings, server, monkeypatch):
    monkeypatch.setattr(
        unpacking.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1)
    )
    with pytest.raises(DownloadError, match=r"needs about 1.0 MB and 0.0 MB are free"):
        download_archives(settings, ["ptb-xl"])
    assert server.asked == ["ptb-xl/1.0.3/SHA256SUMS.txt"]


def test_a_disk_that_fills_up_ends_the_download_at_once(settings, server, monkeypatch):
    def full(self, response, part, total):
        raise patience.disk_error(part, OSError(28, "No space left on device"))

    download_archives(settings, ["challenge-2021-georgia"])
    monkeypatch.setattr(fetching.Fetcher, "_write_body", full)
    server.asked.clear()
    with pytest.raises(DownloadError, match="is full"):
        download_archives(settings, ["challenge-2021"])
    assert len(server.asked) <= settings.download_connections + 1


# Subsets ---------------------------------------------------------------------------------------


def test_a_subset_of_ptbxl_has_nothing_to_reject(settings):
    download_archives(settings, ["ptb-xl"], Wanted(records=20))
    label_archives(settings)
    prepare_archives(settings)
    manifest = open_store(settings.workspace).manifest
    assert len(manifest) == 20
    assert pd.read_csv(settings.workspace.rejected_path).empty
    # Two from each of the ten folds, so that training, validation and test all have some.
    assert manifest["fold"].value_counts().to_dict() == {fold: 2 for fold in range(1, 11)}


def test_a_subset_says_what_it_is(settings):
    download_archives(settings, ["ptb-xl"], Wanted(records=10))
    subset = read_json(settings.archives_dir / "ptb-xl" / "subset.json")
    assert (subset["records"], subset["of"]) == (10, 40)
    assert subset["cut_tables"] == ["ptbxl_database.csv"]
    table = pd.read_csv(settings.archives_dir / "ptb-xl" / "ptbxl_database.csv")
    assert [f"{number:05d}" for number in table["ecg_id"]] == subset["record_keys"]
    assert table["report"][0] == f"sinus, '{table['ecg_id'][0]}'"


def test_a_larger_subset_holds_the_smaller_and_all_holds_both(settings, server):
    download_archives(settings, ["ptb-xl"], Wanted(records=10))
    server.asked.clear()
    (larger,) = download_archives(settings, ["ptb-xl"], Wanted(records=15))
    assert larger.n_fetched == 5 * 2
    (whole,) = download_archives(settings, ["ptb-xl"])
    assert len(set(server.asked)) == len(server.asked) == 30 * 2
    assert whole.failed == {}
    assert problems(settings, "ptb-xl") == [""] * 40
    assert not (settings.archives_dir / "ptb-xl" / "subset.json").exists()


def test_a_subset_makes_nothing_less(settings):
    download_archives(settings, ["ptb-xl"], Wanted(records=12))
    download_archives(settings, ["ptb-xl"], Wanted(records=3))
    assert problems(settings, "ptb-xl") == [""] * 12
    download_archives(settings, ["ptb-xl"])
    with pytest.raises(ConfigError, match="leave out --subset"):
        download_archives(settings, ["ptb-xl"], Wanted(records=3))


def test_a_subset_of_a_tranche_needs_no_table(settings):
    download_archives(settings, ["challenge-2021-georgia"], Wanted(records=2))
    assert problems(settings, "challenge-2021-georgia") == ["", ""]


@pytest.mark.parametrize("name", ["ptbdb", "challenge-2017", "chapman"])
def test_a_subset_of_other_layouts_has_nothing_to_reject(settings, tmp_path, name):
    write_other_layout(tmp_path / "other", name)
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, [name], Wanted(records=2))
    assert problems(settings, name) == ["", ""]


def write_other_layout(folder, name):
    if name == "ptbdb":
        folder = folder / "ptbdb" / "1.0.0"
        records = [f"patient00{number}/s000{number}_re" for number in range(1, 5)]
        for number, record in enumerate(records):
            write_ecg(folder / record, number)
        (folder / "RECORDS").write_text("\n".join(records) + "\n")
    elif name == "challenge-2017":
        folder = folder / "challenge-2017" / "1.0.0"
        for number in range(1, 5):
            write_single_lead(folder / "training" / "A00" / f"A0000{number}", number)
        letters = "".join(f"A0000{number},N\n" for number in range(1, 5))
        (folder / "REFERENCE-v3.csv").write_text(letters)
        (folder / "training" / "REFERENCE.csv").write_text(letters)
        (folder / "training2017.zip").write_bytes(b"not needed")
    else:
        folder = folder / "ecg-arrhythmia" / "1.0.0"
        for number in range(1, 5):
            write_ecg(folder / "WFDBRecords" / "01" / "010" / f"JS0000{number}", number)
    write_sums(folder)


def write_single_lead(path, seed):
    from wfdb_samples import sample_values, write_record

    write_record(path, sample_values(3000, 1, seed), fs=300, leads=("ECG",))


def test_one_rate_alone_is_fetched(settings, tmp_path):
    write_ptbxl(tmp_path / "two", 3, rates=(100, 500))
    with serving(tmp_path / "two") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, ["ptb-xl"], Wanted(rate=100))
        assert not any("records500" in path for path in server.asked)
    assert problems(settings, "ptb-xl") == ["", "", ""]


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (["cpsc-2018"], Wanted(records=5), r"published in TrainingSet1.zip and .* fetched whole"),
        (["sph"], Wanted(records=5), "published in records.tar.gz, which has to be fetched whole"),
        (["chapman"], Wanted(rate=100), "has one rate only"),
        (["ptb-xl"], Wanted(rate=250), "has 100, 500"),
        (["ptbxl"], Wanted(), "did you mean ptb-xl"),
        (["mimic-iv-ecg"], Wanted(), "credentialed"),
        (["uk-biobank"], Wanted(), "registered researchers"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_with_the_reason(settings, names, wanted, said):
    with pytest.raises(ConfigError, match=said):
        download_archives(settings, names, wanted)
    assert not settings.archives_dir.exists()


# Zips and tars ---------------------------------------------------------------------------------


def test_a_zip_that_somebody_has_is_unpacked_and_verified(settings, server, tmp_path):
    source = server.folder / "ptb-xl" / "1.0.3"
    zip_path = write_zip(tmp_path / "mine.zip", source, "ptb-xl-a-large-publicly-1.0.3/")
    (outcome,) = download_archives(settings, ["ptb-xl"], zip_path=zip_path)
    assert (outcome.failed, server.asked) == ({}, [])
    assert problems(settings, "ptb-xl") == [""] * 40
    download_archives(settings, ["ptb-xl"])
    assert server.asked == ["ptb-xl/1.0.3/SHA256SUMS.txt"]


def test_what_a_zip_lacks_is_told_and_then_fetched(settings, server, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(server.folder / "ptb-xl" / "1.0.3", copy)
    (copy / "records100" / "00000" / "00005_lr.dat").unlink()
    (outcome,) = download_archives(
        settings, ["ptb-xl"], zip_path=write_zip(tmp_path / "a.zip", copy)
    )
    assert list(outcome.failed) == ["records100/00000/00005_lr.dat"]
    download_archives(settings, ["ptb-xl"])
    assert problems(settings, "ptb-xl") == [""] * 40


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "..\\outside.txt", "C:/x.txt"])
def test_a_zip_that_leads_out_of_the_folder_unpacks_nothing(settings, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as opened:
        opened.writestr("RECORDS", "a")
        opened.writestr(name, "b")
    with pytest.raises(DownloadError, match="nothing is unpacked"):
        download_archives(settings, ["ptb-xl"], zip_path=tmp_path / "evil.zip")
    assert [p for p in tmp_path.rglob("*") if p.name in ("outside.txt", "x.txt", "RECORDS")] == []


def test_a_zip_bomb_is_not_unpacked(settings, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("records100/zeros.dat", bytes(120_000_000))
    with pytest.raises(DownloadError, match="which no ECG archive does"):
        download_archives(settings, ["ptb-xl"], zip_path=tmp_path / "bomb.zip")


def test_links_in_a_tar_are_refused(settings, tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as opened:
        link = tarfile.TarInfo("records/a.h5")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    with pytest.raises(DownloadError, match="which is no file"):
        download_archives(settings, ["sph"], zip_path=tmp_path / "links.tar")


def test_a_damaged_zip_is_told(settings, tmp_path, server):
    zip_path = write_zip(tmp_path / "a.zip", server.folder / "ptb-xl" / "1.0.3")
    content = bytearray(zip_path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    zip_path.write_bytes(content)
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        download_archives(settings, ["ptb-xl"], zip_path=zip_path)
    zip_path.write_bytes(content[:1000])
    with pytest.raises(DownloadError, match="no zip or tar file, or its end is missing"):
        download_archives(settings, ["ptb-xl"], zip_path=zip_path)


def test_unpacking_goes_on_where_it_was_stopped(server, tmp_path, monkeypatch):
    zip_path = write_zip(tmp_path / "a.zip", server.folder / "ptb-xl" / "1.0.3")
    unpacking.unpack(zip_path, tmp_path / "here")
    (tmp_path / "here" / "records100" / "00000" / "00001_lr.dat").unlink()
    again = []
    real = unpacking._unpack_one
    monkeypatch.setattr(
        unpacking, "_unpack_one", lambda m, target: (again.append(m.path), real(m, target))
    )
    unpacking.unpack(zip_path, tmp_path / "here")
    assert again == ["records100/00000/00001_lr.dat"]


def write_cpsc(folder):
    from scipy.io import savemat

    folder = folder / "cpsc-2018"
    folder.mkdir(parents=True)
    rows = ["Recording,First_label,Second_label,Third_label"]
    for number in (1, 2, 3):
        inner = folder / f"unpacked{number}"
        inner.mkdir()
        struct = {"sex": "Male", "age": 60, "data": np.zeros((12, 5000))}
        savemat(inner / f"A000{number}.mat", {"ECG": struct})
        write_zip(folder / f"TrainingSet{number}.zip", inner, f"TrainingSet{number}/")
        rows.append(f"A000{number},1,,")
    (folder / "REFERENCE.csv").write_text("\n".join(rows) + "\n")


def test_an_archive_of_zips_is_unpacked_once(settings, tmp_path):
    write_cpsc(tmp_path / "other")
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, ["cpsc-2018"])
        assert problems(settings, "cpsc-2018") == ["", "", ""]
        server.asked.clear()
        download_archives(elsewhere, ["cpsc-2018"])
        assert server.asked == []


def test_one_zip_of_several_leaves_the_others_to_be_fetched(settings, tmp_path):
    write_cpsc(tmp_path / "other")
    zip_path = tmp_path / "other" / "cpsc-2018" / "TrainingSet2.zip"
    (outcome,) = download_archives(settings, ["cpsc-2018"], zip_path=zip_path)
    assert list(outcome.failed) == ["REFERENCE.csv", "TrainingSet1.zip", "TrainingSet3.zip"]
    with serving(tmp_path / "other") as server:
        download_archives(settings.model_copy(update={"mirror": server.address}), ["cpsc-2018"])
        assert not any("TrainingSet2" in path for path in server.asked)
    assert problems(settings, "cpsc-2018") == ["", "", ""]


def test_a_zip_that_arrives_damaged_is_fetched_once_more(settings, tmp_path):
    write_cpsc(tmp_path / "other")
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        server.fail("cpsc-2018/TrainingSet1.zip", corrupts)
        server.fail("cpsc-2018/TrainingSet2.zip", corrupts, corrupts)
        (outcome,) = download_archives(elsewhere, ["cpsc-2018"])
        assert list(outcome.failed) == [".download/TrainingSet2.zip"]
        assert "cannot be unpacked" in outcome.failed[".download/TrainingSet2.zip"]
        (outcome,) = download_archives(elsewhere, ["cpsc-2018"])
        assert (outcome.n_fetched, outcome.failed) == (1, {})
    assert problems(settings, "cpsc-2018") == ["", "", ""]


def test_a_zip_that_was_fetched_and_not_unpacked_is_not_fetched_again(
    settings, tmp_path, monkeypatch
):
    def stopped(*words):
        raise KeyboardInterrupt

    write_cpsc(tmp_path / "other")
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        with monkeypatch.context() as patch:
            patch.setattr(packed, "unpack", stopped)
            with pytest.raises(KeyboardInterrupt):
                download_archives(elsewhere, ["cpsc-2018"])
        server.asked.clear()
        download_archives(elsewhere, ["cpsc-2018"])
        assert server.asked == []
    assert problems(settings, "cpsc-2018") == ["", "", ""]


@pytest.mark.parametrize("inner", ["records/", ""])
def test_a_tar_of_records_lands_where_its_reader_looks(settings, tmp_path, monkeypatch, inner):
    import h5py

    folder = tmp_path / "other" / "sph"
    folder.mkdir(parents=True)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["ecg"] = np.zeros((12, 5000), np.float32)
    with tarfile.open(folder / "records.tar.gz", "w") as opened:
        member = tarfile.TarInfo(f"{inner}A00001.h5")
        member.size = len(content.getvalue())
        opened.addfile(member, io.BytesIO(content.getvalue()))
    (folder / "metadata.csv").write_text("ECG_ID,AHA_Code,Patient_ID,Age,Sex\nA00001,1,S1,55,M\n")
    (folder / "code.csv").write_text("Code,Description\n")
    publish_sums(monkeypatch, "sph", folder)
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, ["sph"])
        server.asked.clear()
        download_archives(elsewhere, ["sph"])
        assert server.asked == []
    assert problems(settings, "sph") == [""]


# Killed, stopped -------------------------------------------------------------------------------


def test_a_killed_download_goes_on_without_fetching_anything_twice(settings, tmp_path):
    folder = write_ptbxl(tmp_path / "large", 4)
    large = folder / "records100" / "00000" / "00004_lr.dat"
    large.write_bytes(large.read_bytes() + bytes(4_000_000))
    write_sums(folder)
    with serving(tmp_path / "large") as server:
        server.chunk_pause = 0.02
        name = f"ptb-xl/1.0.3/{large.relative_to(folder).as_posix()}"
        words = ["download", "ptb-xl", "--mirror", server.address, "--root", str(settings.root)]
        process = subprocess.Popen([sys.executable, "-m", "einthoven", *words])
        until = time.monotonic() + 60
        while server.given.get(name, 0) < 1_500_000 and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not (settings.archives_dir / "ptb-xl" / "records100/00000/00004_lr.dat").exists()
        elsewhere = settings.model_copy(update={"mirror": server.address})
        (outcome,) = download_archives(elsewhere, ["ptb-xl"])
        assert outcome.failed == {}
        # What was on its way when the process died was given, and is asked for again.
        assert server.given[name] < large.stat().st_size + 1_000_000
        assert max(map(int, server.ranges)) > 500_000
    assert problems(settings, "ptb-xl") == [""] * 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_download_that_the_same_command_goes_on_with(settings, server):
    server.chunk_pause = 0.3
    words = ["download", "ptb-xl", "--mirror", server.address, "--root", str(settings.root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "einthoven", *words], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while len(server.asked) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "The same command goes on from here" in said
    assert "Traceback" not in said


# The command line ------------------------------------------------------------------------------


def invoke(*words):
    return CliRunner().invoke(command_line, [str(word) for word in words])


def test_the_command_ends_with_1_when_a_file_is_missing_and_with_0_when_none_is(settings, server):
    server.fail("ptb-xl/1.0.3/records100/00000/00001_lr.dat", answers(404))
    words = ["download", "ptb-xl", "--mirror", server.address, "--root", settings.root]
    result = invoke(*words)
    assert result.exit_code == 1
    assert "The same command fetches what is missing" in result.output
    result = invoke(*words)
    assert result.exit_code == 0
    assert "83 of 83 files there, 1 of them new" in result.output
    assert "Licence: CC BY 4.0. Cite Wagner et al." in result.output


def test_archives_tells_which_are_here(settings, tmp_path):
    def states():
        return {row["name"]: row["state"] for row in archive_rows(settings)}

    assert set(states().values()) == {"not there"}
    download_archives(settings, ["ptb-xl"], Wanted(records=10))
    assert states()["ptb-xl"] == "partial: 10 records"
    download_archives(settings, ["ptb-xl"])
    assert states()["ptb-xl"] == "there"
    download_archives(settings, ["challenge-2021"])
    assert states()["challenge-2021-georgia"] == "there"
    assert states()["challenge-2020-georgia"] == "not there"


def test_archives_of_a_download_that_was_cut_off_are_partial(settings, monkeypatch):
    def cut_off(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_missing", cut_off)
    with pytest.raises(KeyboardInterrupt):
        download_archives(settings, ["ptb-xl"])
    row = next(row for row in archive_rows(settings) if row["name"] == "ptb-xl")
    assert row["state"] == "partial: not finished"


def test_archives_prints_json_and_what_to_cite(tmp_path):
    result = invoke("archives", "--json", "--root", tmp_path)
    rows = json.loads(result.output)
    assert {row["name"] for row in rows} >= {"ptb-xl", "ptbdb", "chapman", "sph", "cpsc-2018"}
    result = invoke("archives", "ptb-xl", "--root", tmp_path)
    assert "https://doi.org/10.13026/kfzx-aw45" in result.output


# Real records ----------------------------------------------------------------------------------


def test_real_records_arrive_and_are_labelled(settings, shared_data, tmp_path):
    served = tmp_path / "real"
    georgia = "challenge-2021/training/georgia"
    shutil.copytree(shared_data / georgia, served / "challenge-2021/1.0.3/training/georgia")
    shutil.copytree(shared_data / "ptbdb", served / "ptbdb" / "1.0.0")
    shutil.copytree(shared_data / "challenge-2017", served / "challenge-2017" / "1.0.0")
    for folder in served.glob("*/*"):
        write_sums(folder)
    with serving(served) as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, ["challenge-2021-georgia", "ptbdb", "challenge-2017"])
    mapping = label_archives(settings.model_copy(update={"label_set": "five"}))
    counts = mapping["archive"].value_counts().to_dict()
    assert counts == {"challenge-2017": 182, "challenge-2021-georgia": 18, "ptbdb": 1}
    assert (mapping["problem"] == "").all()


# What the files are, is documented ---------------------------------------------------------------


def test_every_key_of_the_files_beside_an_archive_is_named(settings):
    page = (PROJECT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## `subset.json` and `.download/`\n")
    named = set(re.findall(r"`([^`\n]+)`", section.partition("\n## ")[0]))
    download_archives(settings, ["ptb-xl"], Wanted(records=5))
    folder = settings.archives_dir / "ptb-xl"
    keys = {*read_json(folder / "subset.json"), *read_json(folder / ".download" / "ptb-xl.json")}
    assert keys <= named
    assert {path.name for path in (folder / ".download").iterdir()} <= {
        "verified.txt", "whole", "ptb-xl.json", "lock",
    }  # fmt: skip
