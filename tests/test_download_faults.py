"""What goes wrong around a download: full disks, wrong zips, dead hosts, second processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from download_server import (
    answers,
    hurry,
    publish_sums,
    serving,
    write_challenge,
    write_ptbxl,
    write_sums,
    write_tar,
    write_zip,
)

from einthoven.download import command, fetching, ledger, parallel, patience
from einthoven.download.command import bytes_needed, download_archives
from einthoven.download.ledger import Ledger
from einthoven.download.locking import only_download
from einthoven.download.outcome import Wanted
from einthoven.download.telling import archive_rows, download_summary
from einthoven.download.unpacking import unpack
from einthoven.errors import DataError, DownloadError
from einthoven.files import read_json
from einthoven.labelling import label_archives
from einthoven.readers.registry import find_archives, index_archive
from einthoven.settings import Settings
from einthoven.sources import SOURCES


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_ptbxl(folder, 12)
    write_challenge(folder)
    return folder


@pytest.fixture
def server(served):
    with serving(served) as running:
        yield running


@pytest.fixture
def settings(server, tmp_path):
    return Settings(root=tmp_path / "w", mirror=server.address, label_set="superdiagnostic")


@pytest.fixture
def ptbxl(settings):
    return settings.archives_dir / "ptb-xl"


def problems(settings, name):
    archive = next(a for a in find_archives(settings.archives_dir)[0] if a.name == name)
    return [info.problem for info in index_archive(archive, 100)]


def state_of(settings, name):
    return next(row["state"] for row in archive_rows(settings) if row["name"] == name)


# Full disks ------------------------------------------------------------------------------------


def no_room(*words, **named):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ledger, "write_json"), (fetching, "write_text"), (fetching, "sync_file"),
        (ledger.Ledger, "add"), (parallel.Fetcher, "fetch"),
    ],
)  # fmt: skip
def test_a_full_disk_is_one_message_wherever_it_shows(settings, monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, no_room)
    monkeypatch.setattr(ledger, "write_text", no_room)
    with pytest.raises(patience.DiskFull, match="is full; make room, and the same command goes on"):
        download_archives(settings, ["ptb-xl"])


def test_a_persons_share_of_a_disk_that_is_used_up_is_a_full_disk(tmp_path):
    with pytest.raises(patience.DiskFull), patience.disk_explained(tmp_path):
        raise OSError(patience.errno.EDQUOT, "Disk quota exceeded")


# Tars and zips ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "said"), [(2 * 1024 + 150, "damaged"), (None, "cut off")])
def test_a_tar_with_a_damaged_name_or_no_end_is_refused(tmp_path, at, said):
    content = bytearray(write_tar(tmp_path / "records.tar").read_bytes())
    if at is None:
        del content[2 * 1024 :]
    else:
        content[at] ^= 1
    (tmp_path / "records.tar").write_bytes(content)
    with pytest.raises(DownloadError, match=said):
        unpack(tmp_path / "records.tar", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_records_that_the_archives_table_lists_and_its_tar_lacks_are_told(
    settings, tmp_path, monkeypatch
):
    folder = tmp_path / "other" / "sph"
    folder.mkdir(parents=True)
    write_tar(folder / "records.tar.gz", 3)
    rows = "".join(f"A0000{number},1,S1,55,M\n" for number in range(5))
    (folder / "metadata.csv").write_text("ECG_ID,AHA_Code,Patient_ID,Age,Sex\n" + rows)
    (folder / "code.csv").write_text("Code,Description\n")
    publish_sums(monkeypatch, "sph", folder)
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        (outcome,) = download_archives(elsewhere, ["sph"])
        assert "2 records of the 5 that metadata.csv lists" in outcome.failed["metadata.csv"]
        assert state_of(settings, "sph") == "partial: 1 file missing"
        write_tar(folder / "records.tar.gz", 5)
        (outcome,) = download_archives(elsewhere, ["sph"])
        assert "its md5 is" in outcome.failed[".download/records.tar.gz"]
        publish_sums(monkeypatch, "sph", folder)
        (outcome,) = download_archives(elsewhere, ["sph"])
        assert outcome.failed == {}


@pytest.mark.parametrize("name", ["records.tar", "records.tar.gz"])
def test_a_tar_that_somebody_has_is_not_fetched_again(settings, tmp_path, monkeypatch, name):
    folder = tmp_path / "other" / "sph"
    folder.mkdir(parents=True)
    write_tar(folder / "records.tar.gz", 1)
    (folder / "metadata.csv").write_text("ECG_ID,AHA_Code,Patient_ID,Age,Sex\nA00000,1,S1,55,M\n")
    (folder / "code.csv").write_text("Code,Description\n")
    publish_sums(monkeypatch, "sph", folder)
    shutil.copyfile(folder / "records.tar.gz", tmp_path / name)
    (outcome,) = download_archives(settings, ["sph"], zip_path=tmp_path / name)
    assert list(outcome.failed) == ["metadata.csv", "code.csv"]
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        (outcome,) = download_archives(elsewhere, ["sph"])
        assert sorted(server.asked) == ["sph/code.csv", "sph/metadata.csv"]
    assert outcome.failed == {}


@pytest.mark.parametrize("name", ["ptbdb", "chapman", "cpsc-2018", "sph", "challenge-2021"])
def test_a_zip_of_another_archive_is_refused_before_anything_is_unpacked(
    settings, server, tmp_path, name
):
    zip_path = write_zip(tmp_path / "a.zip", server.folder / "ptb-xl" / "1.0.3")
    with pytest.raises(DownloadError, match=f"is no {name}: .* nothing is unpacked"):
        download_archives(settings, [name], zip_path=zip_path)
    assert state_of(settings, name) == "not there"
    assert not list(settings.archives_dir.rglob("*.csv"))


def test_a_zip_without_a_list_is_not_taken_for_verified(settings, server, tmp_path):
    shutil.copytree(server.folder / "ptb-xl" / "1.0.3", tmp_path / "copy")
    (tmp_path / "copy" / "SHA256SUMS.txt").unlink()
    zip_path = write_zip(tmp_path / "a.zip", tmp_path / "copy")
    (outcome,) = download_archives(settings, ["ptb-xl"], zip_path=zip_path)
    assert "Nothing of it is verified; `einthoven download ptb-xl`" in download_summary([outcome])
    assert state_of(settings, "ptb-xl") == "partial: not verified"
    download_archives(settings, ["ptb-xl"])
    assert server.asked == ["ptb-xl/1.0.3/SHA256SUMS.txt"]
    assert state_of(settings, "ptb-xl") == "there"


def test_a_zip_completes_a_subset(settings, server, tmp_path):
    download_archives(settings, ["ptb-xl"], Wanted(records=3))
    zip_path = write_zip(tmp_path / "a.zip", server.folder / "ptb-xl" / "1.0.3")
    (outcome,) = download_archives(settings, ["ptb-xl"], zip_path=zip_path)
    assert outcome.failed == {}
    assert problems(settings, "ptb-xl") == [""] * 12
    assert state_of(settings, "ptb-xl") == "there"


def test_what_a_zip_lacks_is_not_looked_for_in_the_same_zip(settings, server, tmp_path):
    shutil.copytree(server.folder / "ptb-xl" / "1.0.3", tmp_path / "copy")
    (tmp_path / "copy" / "scp_statements.csv").unlink()
    zip_path = write_zip(tmp_path / "a.zip", tmp_path / "copy")
    (outcome,) = download_archives(settings, ["ptb-xl"], zip_path=zip_path)
    assert "`einthoven download ptb-xl` fetches what is missing" in download_summary([outcome])


def test_hidden_files_of_a_zip_stay_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name in (".download/verified.txt", ".git/hooks/x", "a/.b/c", "./a/d", "RECORDS"):
            opened.writestr(name, "x")
    members = unpack(tmp_path / "a.zip", tmp_path / "here")
    assert [member.path for member in members] == ["a/d", "RECORDS"]


def test_a_name_that_is_a_file_and_a_folder_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name in ("a/b", "a/b/c/d", "e"):
            opened.writestr(name, "x")
    with pytest.raises(DownloadError, match="has a/b as a file and as a folder; nothing"):
        unpack(tmp_path / "a.zip", tmp_path / "here")
    assert not (tmp_path / "here").exists()


# Lists of files --------------------------------------------------------------------------------


def test_a_page_that_is_no_list_is_not_kept(settings, server, ptbxl):
    def login_page(handler, content, start):
        handler.begin(6)
        handler.give(b"<html>")
        return True

    server.fail("ptb-xl/1.0.3/SHA256SUMS.txt", login_page)
    with pytest.raises(DataError, match=r"gives no list of files .* no checksum: '<html>'"):
        download_archives(settings, ["ptb-xl"])
    assert not (ptbxl / "SHA256SUMS.txt").exists()
    (outcome,) = download_archives(settings, ["ptb-xl"])
    assert outcome.failed == {}


def test_a_bad_line_of_another_tranche_is_passed_by(settings, tmp_path):
    folder = write_challenge(tmp_path / "other")
    with (folder / "SHA256SUMS.txt").open("a") as sums:
        sums.write(f"{'0' * 64} training/ptb/.hidden/x.hea\n")
    with serving(tmp_path / "other") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        (outcome,) = download_archives(elsewhere, ["challenge-2021-georgia"])
        assert outcome.failed == {}
        with pytest.raises(DataError, match="hidden file"):
            download_archives(elsewhere, ["challenge-2021-ptb"])


# Hosts -----------------------------------------------------------------------------------------


def gives_nothing(server, fault):
    for path in (server.folder / "ptb-xl" / "1.0.3").rglob("*.*"):
        if path.name != "SHA256SUMS.txt":
            server.fail(path.relative_to(server.folder).as_posix(), *[fault] * 9)


@pytest.mark.parametrize("status", [403, 503])
def test_a_host_that_gives_nothing_any_more_is_not_asked_for_every_file(settings, server, status):
    gives_nothing(server, answers(status))
    with pytest.raises(patience.HostLost, match=f"status {status}.* in a row; no more is asked"):
        download_archives(settings, ["ptb-xl"])
    assert len(server.asked) <= 20 + settings.download_connections
    assert state_of(settings, "ptb-xl") == "partial: not finished"


def test_a_server_that_says_nothing_does_not_hold_up_the_end(settings, server, monkeypatch):
    def says_nothing(handler, content, start):
        time.sleep(4)
        return True

    def stopped(done, *words):
        time.sleep(0.3)
        raise KeyboardInterrupt
        yield

    server.fail("challenge-2021/1.0.3/training/ptb/g1/S0001.dat", says_nothing)
    download_archives(settings, ["challenge-2021-georgia"])
    monkeypatch.setattr(parallel, "_shown", stopped)
    monkeypatch.setattr(parallel, "SECONDS_TO_STOP", 0.1)
    with pytest.raises(KeyboardInterrupt):
        download_archives(settings, ["challenge-2021-ptb"])
    assert any(thread.name.startswith("download-") for thread in threading.enumerate())


# States ----------------------------------------------------------------------------------------


def test_a_subset_that_is_killed_while_it_grows_to_all_stays_what_it_was(
    settings, server, ptbxl, monkeypatch, caplog
):
    def killed(files, *words):
        raise KeyboardInterrupt

    download_archives(settings, ["ptb-xl"], Wanted(records=3))
    monkeypatch.setattr(command, "fetch_as_set", killed)
    with pytest.raises(KeyboardInterrupt):
        download_archives(settings, ["ptb-xl"])
    assert problems(settings, "ptb-xl") == [""] * 3
    with caplog.at_level("WARNING", logger="einthoven"):
        label_archives(settings)
    assert (
        "ptb-xl: its download is not finished; `einthoven download ptb-xl` goes on" in caplog.text
    )


def test_labelling_says_what_a_tranche_lacks_and_nothing_of_one_that_is_whole(
    settings, server, caplog
):
    server.fail("challenge-2021/1.0.3/training/ptb/g1/S0001.dat", answers(404))
    download_archives(settings, ["challenge-2021-ptb"], Wanted(records=3))
    download_archives(settings, ["challenge-2021-georgia"])
    with caplog.at_level("WARNING", logger="einthoven"):
        label_archives(settings)
    assert "challenge-2021-ptb: its download lacks 1 file; `" in caplog.text
    assert "challenge-2021-georgia: its download" not in caplog.text


def test_a_download_that_never_began_bars_no_subset(settings, server):
    server.fail("ptb-xl/1.0.3/SHA256SUMS.txt", answers(404))
    with pytest.raises(DownloadError, match="404"):
        download_archives(settings, ["ptb-xl"])
    assert state_of(settings, "ptb-xl") == "not there"
    gives_nothing(server, answers(403))
    with pytest.raises(patience.HostLost):
        download_archives(settings, ["ptb-xl"])
    server.faults.clear()
    download_archives(settings, ["ptb-xl"], Wanted(records=2))
    assert problems(settings, "ptb-xl") == ["", ""]


def test_a_lesser_wish_leaves_the_state_as_it_is(settings):
    download_archives(settings, ["ptb-xl"])
    download_archives(settings, ["ptb-xl"], Wanted(rate=100))
    assert state_of(settings, "ptb-xl") == "there"


def test_one_rate_after_the_other_is_both(settings, tmp_path):
    write_ptbxl(tmp_path / "two", 3, rates=(100, 500))
    with serving(tmp_path / "two") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        download_archives(elsewhere, ["ptb-xl"], Wanted(rate=100))
        assert state_of(settings, "ptb-xl") == "partial: 100 Hz"
        download_archives(elsewhere, ["ptb-xl"], Wanted(rate=500))
    assert state_of(settings, "ptb-xl") == "there"


def test_a_subset_of_all_records_is_the_whole(settings, ptbxl):
    download_archives(settings, ["ptb-xl"], Wanted(records=500))
    assert state_of(settings, "ptb-xl") == "there"
    assert not (ptbxl / "subset.json").exists()


def test_each_tranche_says_which_subset_it_is(settings):
    download_archives(settings, ["challenge-2021-ptb"], Wanted(records=2))
    download_archives(settings, ["challenge-2021-georgia"], Wanted(records=1))
    folder = settings.archives_dir / "challenge-2021"
    counts = {path.parent.name: read_json(path)["records"] for path in folder.rglob("subset.json")}
    assert counts == {"ptb": 2, "georgia": 1}
    download_archives(settings, ["challenge-2021"])
    assert list(folder.rglob("subset.json")) == []


# Second copies, second processes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("ptb-xl", "ptb-xl/1.0.3"),
        ("challenge-2021", "physionet.org/files/challenge-2021/1.0.3"),
        ("challenge-2021-georgia", "challenge-2021/1.0.3"),
    ],
)
def test_a_copy_as_wget_leaves_it_is_told_and_not_fetched_again(settings, server, name, place):
    project = name.removesuffix("-georgia")
    (served,) = (server.folder / project).iterdir()
    shutil.copytree(served, settings.archives_dir / place)
    with pytest.raises(DataError, match=r"lies in .*1\.0\.3.* already"):
        download_archives(settings, [name])
    assert server.asked == []


def test_one_download_at_a_time_is_at_work_in_a_folder(settings, ptbxl):
    holding = (
        "import sys, pathlib\nfrom einthoven.download.locking import only_download\n"
        f"with only_download(pathlib.Path({str(ptbxl)!r})):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    with pytest.raises(DownloadError, match="another download is at work in"):
        download_archives(settings, ["ptb-xl"])
    process.kill()
    process.communicate()
    with only_download(ptbxl):
        pass


def test_only_parts_of_ones_own_files_are_forgotten(tmp_path):
    own = Ledger(tmp_path)
    for path in ("a.dat", "b.dat"):
        own.part_path(path).parent.mkdir(parents=True, exist_ok=True)
        own.part_path(path).write_bytes(b"x")
        own.part_path(path).with_name(own.part_path(path).name + ".etag").write_text("1")
    own.forget_parts(["a.dat"])
    assert {path.name[-10:] for path in (tmp_path / ".download/parts").iterdir()} == {
        "b.dat.part", ".part.etag",
    }  # fmt: skip


# Room ------------------------------------------------------------------------------------------


def test_the_files_of_100_hertz_need_a_sixth_of_the_room():
    source = SOURCES["ptb-xl"]
    low = [
        f"records100/00000/{n:05d}_lr.{s}" for n in range(source.records) for s in ("hea", "dat")
    ]
    assert bytes_needed(source, low) == pytest.approx(3.2e9 / 6)
    high = [path.replace("100/", "500/") for path in low]
    assert bytes_needed(source, [*low, *high, "RECORDS"]) == pytest.approx(3.2e9)


def test_sums_of_hidden_folders_are_refused(settings, tmp_path):
    folder = write_ptbxl(tmp_path / "evil", 1)
    write_sums(folder)
    with (folder / "SHA256SUMS.txt").open("a") as sums:
        sums.write(f"{'0' * 64} x/.download/y\n")
    with serving(tmp_path / "evil") as server:
        elsewhere = settings.model_copy(update={"mirror": server.address})
        with pytest.raises(DataError, match=r"'x/.download/y' is a hidden file"):
            download_archives(elsewhere, ["ptb-xl"])
