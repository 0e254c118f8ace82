"""SPH and CPSC-2018, which come in a few packed files: checksums, damage, room, what is there."""

from __future__ import annotations

import os
import shutil
import zipfile

import pytest
from download_server import answers, hurry, publish_sums, serving, write_sph, write_tar

from einthoven.download import packed, unpacking
from einthoven.download.command import download_archives
from einthoven.download.outcome import Wanted
from einthoven.download.telling import download_summary
from einthoven.errors import DownloadError
from einthoven.settings import Settings

TAR = ".download/records.tar.gz"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """SPH as its publisher has it."""
    folder = write_sph(tmp_path / "served")
    publish_sums(monkeypatch, "sph", folder)
    return folder


@pytest.fixture
def server(published):
    with serving(published.parent) as running:
        yield running


@pytest.fixture
def settings(server, tmp_path):
    return Settings(root=tmp_path / "w", mirror=server.address, label_set="superdiagnostic")


def damage(path):
    """Turn one byte of the first record in a tar; nothing in the tar itself tells."""
    content = bytearray(path.read_bytes())
    content[512 + 50] ^= 0xFF
    path.write_bytes(content)
    return path


# Fetched ---------------------------------------------------------------------------------------


def test_a_packed_file_with_a_wrong_checksum_is_fetched_twice_and_no_more(settings, server):
    damage(server.folder / "sph" / "records.tar.gz")
    (outcome,) = download_archives(settings, ["sph"])
    assert list(outcome.failed) == [TAR]
    assert server.asked.count("sph/records.tar.gz") == 2


def test_a_packed_file_that_is_not_there_is_asked_for_once(settings, server):
    server.fail("sph/records.tar.gz", answers(404), answers(404))
    (outcome,) = download_archives(settings, ["sph"])
    assert "status 404" in outcome.failed[TAR]
    assert server.asked.count("sph/records.tar.gz") == 1


def test_the_publishers_own_bytes_that_cannot_be_unpacked_are_not_fetched_again(
    settings, server, published, monkeypatch
):
    (published / "records.tar.gz").write_bytes(b"no tar")
    publish_sums(monkeypatch, "sph", published)
    for _ in range(2):
        (outcome,) = download_archives(settings, ["sph"])
        assert "is no zip or tar file" in outcome.failed[TAR]
    assert server.asked.count("sph/records.tar.gz") == 1


# Room ------------------------------------------------------------------------------------------


def leave_room(monkeypatch, free):
    monkeypatch.setattr(
        unpacking.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free)
    )


def test_a_tar_needs_room_for_itself_and_its_records_and_no_subset_is_offered(
    settings, server, monkeypatch
):
    leave_room(monkeypatch, 3_000_000_000)
    with pytest.raises(DownloadError, match=r"about 4.6 GB and 3.0 GB are free") as refused:
        download_archives(settings, ["sph"])
    assert str(refused.value).endswith("make room or set DATASET_DIR to another disk")
    assert server.asked == []


def test_tables_alone_need_no_room_for_the_records(settings, published, monkeypatch):
    download_archives(settings, ["sph"], zip_path=published / "records.tar.gz")
    leave_room(monkeypatch, 1_000_000)
    (outcome,) = download_archives(settings, ["sph"])
    assert (outcome.failed, outcome.n_fetched) == ({}, 2)


def test_a_tar_that_came_and_has_no_room_to_be_unpacked_is_kept(settings, server, monkeypatch):
    def no_room(*words):
        raise unpacking.NoRoom("no room")

    with monkeypatch.context() as patch:
        patch.setattr(packed, "unpack", no_room)
        (outcome,) = download_archives(settings, ["sph"])
        assert outcome.failed == {TAR: "no room"}
    (outcome,) = download_archives(settings, ["sph"])
    assert outcome.failed == {}
    assert server.asked.count("sph/records.tar.gz") == 1


def test_what_is_unpacked_already_needs_no_room(tmp_path, monkeypatch):
    packed_path = write_tar(tmp_path / "records.tar", 3)
    unpacking.unpack(packed_path, tmp_path / "here")
    leave_room(monkeypatch, 150)
    (tmp_path / "here" / "records" / "A00001.h5").unlink()
    unpacking.unpack(packed_path, tmp_path / "here")
    with pytest.raises(DownloadError, match=r"unpacking records\.tar needs about"):
        unpacking.unpack(packed_path, tmp_path / "elsewhere")


# Damage that keeps its length ------------------------------------------------------------------


def test_a_damaged_record_is_replaced_from_a_tar_that_has_it_right(tmp_path):
    packed_path = write_tar(tmp_path / "records.tar", 3)
    unpacking.unpack(packed_path, tmp_path)
    first, second = (tmp_path / "records" / f"A0000{number}.h5" for number in (1, 2))
    first.write_bytes(bytes([9]) * 100)
    before = second.stat().st_mtime_ns
    unpacking.unpack(packed_path, tmp_path)
    assert first.read_bytes() == bytes([1]) * 100
    assert second.stat().st_mtime_ns == before


def test_a_given_tar_with_another_checksum_is_refused_before_anything_is_unpacked(
    settings, published
):
    given = damage(published / "records.tar.gz")
    with pytest.raises(
        DownloadError, match=r"not records\.tar\.gz as it was published: its md5 is"
    ):
        download_archives(settings, ["sph"], zip_path=given)
    assert not list(settings.archives_dir.rglob("*.h5"))
    assert not list(settings.archives_dir.rglob("*.json"))


def test_a_given_tar_is_known_by_its_checksum_whatever_its_name(settings, server, tmp_path):
    given = tmp_path / "32630684"
    shutil.copyfile(server.folder / "sph" / "records.tar.gz", given)
    download_archives(settings, ["sph"], zip_path=given)
    (outcome,) = download_archives(settings, ["sph"])
    assert sorted(server.asked) == ["sph/code.csv", "sph/metadata.csv"]
    assert outcome.state.is_whole


def test_records_of_a_tar_that_nobody_knows_are_not_verified_until_the_known_one_has_come(
    settings, server, tmp_path
):
    given = damage(shutil.copyfile(server.folder / "sph/records.tar.gz", tmp_path / "mine.tar"))
    download_archives(settings, ["sph"])
    server.asked.clear()
    (outcome,) = download_archives(settings, ["sph"], zip_path=given)
    assert "Nothing of it is verified; `einthoven download sph`" in download_summary([outcome])
    record = outcome.folder / "records" / "A00000.h5"
    assert record.read_bytes() != bytes(100)
    (outcome,) = download_archives(settings, ["sph"])
    assert server.asked == ["sph/records.tar.gz"]
    assert record.read_bytes() == bytes(100)
    assert outcome.state.is_whole


def test_a_refused_zip_leaves_what_is_there_verified(settings, server, tmp_path):
    download_archives(settings, ["sph"])
    server.asked.clear()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as opened:
        opened.writestr("RECORDS", "x")
    with pytest.raises(DownloadError, match="is no sph"):
        download_archives(settings, ["sph"], zip_path=tmp_path / "other.zip")
    (outcome,) = download_archives(settings, ["sph"])
    assert (server.asked, outcome.state.is_whole) == ([], True)


# --verify --------------------------------------------------------------------------------------


def rot(path):
    """Other bytes under the same length and time, as a bad disk has them."""
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b"\x01", b"\x02").replace(b"55", b"56"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("rotten", "asked"),
    [("records/A00001.h5", "records.tar.gz"), ("metadata.csv", "metadata.csv")],
)
def test_verify_finds_and_replaces_what_has_rotted_in_an_unpacked_archive(
    settings, server, rotten, asked
):
    (outcome,) = download_archives(settings, ["sph"])
    right = (outcome.folder / rotten).read_bytes()
    rot(outcome.folder / rotten)
    server.asked.clear()
    download_archives(settings, ["sph"])
    assert server.asked == []
    download_archives(settings, ["sph"], Wanted(verify=True))
    assert server.asked == [f"sph/{asked}"]
    assert (outcome.folder / rotten).read_bytes() == right


def test_verify_asks_for_nothing_where_all_is_right(settings, server):
    download_archives(settings, ["sph"])
    server.asked.clear()
    (outcome,) = download_archives(settings, ["sph"], Wanted(verify=True))
    assert (server.asked, outcome.failed) == ([], {})


def test_damage_that_verify_found_is_not_forgotten_when_the_fetch_fails(settings, server):
    (outcome,) = download_archives(settings, ["sph"])
    rot(outcome.folder / "records" / "A00001.h5")
    server.fail("sph/records.tar.gz", answers(404))
    (outcome,) = download_archives(settings, ["sph"], Wanted(verify=True))
    assert list(outcome.failed) == [TAR]
    (outcome,) = download_archives(settings, ["sph"])
    assert (outcome.failed, outcome.n_fetched) == ({}, 1)


def test_tables_that_were_put_there_by_hand_are_hashed_and_kept(settings, server, published):
    folder = settings.archives_dir / "sph"
    folder.mkdir(parents=True)
    for name in ("metadata.csv", "code.csv"):
        shutil.copyfile(published / name, folder / name)
    (outcome,) = download_archives(settings, ["sph"])
    assert server.asked == ["sph/records.tar.gz"]
    assert outcome.failed == {}
