"""Archives are found wherever they lie, and what is none is said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wfdb_samples import sample_values, write_record

from einthoven.errors import DataError
from einthoven.readers.fields import FolderNames, files_below, parse_age, parse_sex, path_problem
from einthoven.readers.registry import Archive, find_archives, index_archive

COMMENTS = ["Age: 59", "Sex: Female", "Dx: 426177001"]


def make_tranche(folder: Path, record: str = "E00001") -> None:
    write_record(folder / "g1" / record, sample_values(20, 12), comments=COMMENTS, suffix=".mat")


def make_ptbxl(folder: Path) -> None:
    folder.mkdir(parents=True)
    head = "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr\n"
    (folder / "ptbxl_database.csv").write_text(head, encoding="utf-8")


def names_of(folder: Path) -> list[str]:
    return [archive.name for archive in find_archives(folder)[0]]


def test_archives_are_found_as_deep_as_downloads_put_them(tmp_path: Path):
    make_ptbxl(tmp_path / "physionet.org" / "files" / "ptb-xl" / "1.0.3")
    make_tranche(tmp_path / "physionet.org/files/challenge-2021/1.0.3/training/georgia")
    make_tranche(tmp_path / "Challenge/training/ningbo", "JS20000")
    assert names_of(tmp_path) == ["challenge-2021-georgia", "challenge-2021-ningbo", "ptb-xl"]


def test_data_folder_may_be_an_archive_itself(tmp_path: Path):
    make_ptbxl(tmp_path / "x")
    assert find_archives(tmp_path / "x") == ([Archive("ptb-xl", "ptb-xl", tmp_path / "x")], [])


def test_two_copies_of_an_archive_get_two_names(tmp_path: Path):
    make_ptbxl(tmp_path / "1.0.1")
    make_ptbxl(tmp_path / "1.0.3")
    assert find_archives(tmp_path)[0] == [
        Archive("ptb-xl", "ptb-xl", tmp_path / "1.0.1"),
        Archive("ptb-xl-2", "ptb-xl", tmp_path / "1.0.3"),
    ]


def test_name_of_a_second_copy_that_another_folder_has_is_not_given_twice(tmp_path: Path):
    for inner in ("a", "b"):
        make_ptbxl(tmp_path / inner)
    (tmp_path / "c" / "ptb-xl-2").mkdir(parents=True)
    (tmp_path / "c" / "ptb-xl-2" / "labels.csv").write_text("path,labels\n", encoding="utf-8")
    assert names_of(tmp_path) == ["ptb-xl", "ptb-xl-2", "ptb-xl-2-2"]


def test_ids_are_unique_even_where_one_looks_like_a_second_one(tmp_path: Path):
    rows = "".join(f"{name},NORM\n" for name in ("a.npy", "a.csv", "a#2.npy", "a.h5"))
    (tmp_path / "labels.csv").write_text("path,labels\n" + rows, encoding="utf-8")
    infos = index_archive(find_archives(tmp_path)[0][0], 100)
    assert [info.record_id for info in infos] == ["a", "a#2", "a#2#2", "a#3"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no UTF-8")
def test_names_that_are_no_utf8_are_problems_and_stop_nothing(tmp_path: Path):
    make_tranche(tmp_path / "georgia")
    make_tranche(tmp_path / "georgia", "E00002")
    header = tmp_path / "georgia" / "g1" / "E00001.hea"
    header.rename(header.with_name(os.fsdecode(b"E0000\xff.hea")))
    (tmp_path / os.fsdecode(b"new\xff")).mkdir()
    (archive,), remarks = find_archives(tmp_path)
    infos = {info.record_id: info.problem for info in index_archive(archive, 100)}
    assert "not UTF-8; rename the file" in infos["E0000\\udcff"]
    assert "header E00001.hea is not there" in infos["E00001"]
    assert remarks == ["new\\udcff: its name is not UTF-8, passed by; rename it"]


def test_archive_found_is_not_searched_for_others(tmp_path: Path):
    make_ptbxl(tmp_path / "ptb-xl")
    make_tranche(tmp_path / "ptb-xl" / "georgia")
    assert names_of(tmp_path) == ["ptb-xl"]


def test_folders_without_an_archive_are_named_and_hidden_ones_are_not(tmp_path: Path):
    (tmp_path / "notes" / "old").mkdir(parents=True)
    make_ptbxl(tmp_path / ".trash" / "ptb-xl")
    assert find_archives(tmp_path) == ([], ["notes: no archive that a reader knows; passed by"])


def test_few_challenge_headers_in_some_other_folder_are_no_archive(tmp_path: Path):
    write_record(tmp_path / "formats" / "odd" / "E00015", sample_values(20, 12), comments=COMMENTS)
    assert names_of(tmp_path) == []


def test_stray_header_does_not_hide_an_archive(tmp_path: Path):
    for number in range(5):
        make_tranche(tmp_path / "challenge-2021" / "georgia", f"E0000{number}")
        write_record(tmp_path / "training2017" / f"A0000{number}", sample_values(9, 1))
    group = tmp_path / "challenge-2021" / "georgia" / "g1"
    (tmp_path / "training2017" / "REFERENCE.csv").write_text("A00001,N\n", encoding="utf-8")
    for folder in (group, tmp_path / "training2017"):
        for name in ("0.hea", "x.hea", ".hidden.hea"):
            (folder / name).write_text("", encoding="utf-8")
    assert names_of(tmp_path / "training2017") == ["challenge-2017"]
    assert names_of(tmp_path / "challenge-2021") == ["challenge-2021-georgia"]


def test_zip_file_is_named_with_what_to_do(tmp_path: Path):
    (tmp_path / "training2017.zip").write_bytes(b"PK")
    (tmp_path / "sph").mkdir()
    (tmp_path / "sph" / "records.tar.gz").write_bytes(b"")
    assert find_archives(tmp_path)[1] == [
        "training2017.zip: an archive file, passed by; unzip it, only folders are read",
        "sph/records.tar.gz: an archive file, passed by; unzip it, only folders are read",
    ]


def test_missing_data_folder_says_what_to_set(tmp_path: Path):
    with pytest.raises(DataError, match="DATASET_DIR"):
        find_archives(tmp_path / "Dataset")


def test_labels_csv_makes_any_folder_an_archive_of_its_name(tmp_path: Path):
    make_tranche(tmp_path / "clinic")
    (tmp_path / "clinic" / "labels.csv").write_text("path,labels\ng1/E00001,AF\n", encoding="utf-8")
    archive = find_archives(tmp_path)[0][0]
    assert (archive.name, archive.reader) == ("clinic", "own")
    assert index_archive(archive, 100)[0].codes == ("own:AF",)


# Fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "years"),
    [("0", 0.0), ("89", 89.0), ("89.5", 90.0), ("93", 90.0), ("300", 90.0), ("200", None),
     ("-1", None), ("NaN", None), ("n/a", None), ("", None), ("inf", None), (" 45 ", 45.0)],
)  # fmt: skip
def test_age_is_years_up_to_89_then_90_and_nothing_where_not_credible(
    written: str, years: float | None
):
    assert parse_age(written) == years


@pytest.mark.parametrize(
    ("written", "sex"),
    [("Male", "male"), ("F", "female"), ("female ", "female"), ("Unknown", ""), ("", "")],
)
def test_sex_is_a_word_or_empty(written: str, sex: str):
    assert parse_sex(written) == sex


@pytest.mark.parametrize(
    "written", ["../x", "a/../../x", "/etc/passwd", "C:/x", "..\\x", "", " ", "a\0b", "a\nb"]
)
def test_path_out_of_a_folder_is_a_problem(written: str):
    assert path_problem(written)


def test_listing_knows_files_and_no_absent_folders(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.hea").touch()
    (tmp_path / "a" / ".y.hea").touch()
    names = FolderNames(tmp_path)
    assert names.has("a/x.hea") and not names.has("a/z.hea") and not names.has("b/x.hea")
    assert files_below(tmp_path, (".hea",)) == ["a/x.hea"]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let a folder be one that may not be opened, for root as well."""
    scandir, refused = os.scandir, set()

    def guarded(path: str | Path = ".") -> Any:
        if Path(path) in refused:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return refused.add


def test_folder_that_may_not_be_opened_is_remarked(tmp_path: Path, refuse: Callable[[Path], None]):
    make_ptbxl(tmp_path / "ptb-xl")
    (tmp_path / "secret").mkdir()
    refuse(tmp_path / "secret")
    archives, remarks = find_archives(tmp_path)
    assert [archive.name for archive in archives] == ["ptb-xl"]
    assert remarks == ["secret: it cannot be opened, passed by; allow reading it"]


def test_group_that_may_not_be_opened_is_told_and_the_others_are_listed(
    tmp_path: Path, refuse: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    make_tranche(tmp_path / "georgia")
    group = tmp_path / "georgia" / "g1"
    group.rename(group.with_name("g2"))
    group.mkdir()
    refuse(group)
    (archive,), _ = find_archives(tmp_path)
    with caplog.at_level("WARNING", logger="einthoven"):
        assert [info.record_id for info in index_archive(archive, 100)] == ["E00001"]
    (message,) = caplog.messages
    assert message.startswith(f"{group} cannot be opened (Permission denied)")


def test_records_that_a_table_puts_into_a_closed_folder_stay_found(
    tmp_path: Path, refuse: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    columns = "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr"
    row = "1,1,50,0,{},1,records100/00000/00001_lr,records500/00000/00001_hr"
    (tmp_path / "ptbxl_database.csv").write_text(f"{columns}\n{row}\n")
    folder = tmp_path / "records100" / "00000"
    folder.mkdir(parents=True)
    refuse(folder)
    with caplog.at_level("WARNING", logger="einthoven"):
        (info,) = index_archive(Archive("ptb-xl", "ptb-xl", tmp_path), 100)
    assert info.problem == "the folder records100/00000 cannot be opened: Permission denied"
    assert caplog.messages == []
