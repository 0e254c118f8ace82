"""A user's own folder: labels.csv and files of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from wfdb_samples import sample_values, write_record

from einthoven.errors import DataError, RecordError
from einthoven.readers.registry import Archive, index_archive, read_signal
from einthoven.records import LEADS, RecordInfo

SIGNAL = np.random.default_rng(0).normal(size=(12, 250)).astype(np.float32)


def index_own_folder(folder: Path, *rows: str) -> list[RecordInfo]:
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return index_archive(Archive("mine", "own", folder), 100)


def read_only(folder: Path, *rows: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    (info,) = index_own_folder(folder, *rows)
    assert info.problem == ""
    return read_signal("own", folder, info.path)


def test_row_becomes_a_record(tmp_path: Path):
    write_record(tmp_path / "a" / "r1", sample_values(50, 12))
    (info,) = index_own_folder(
        tmp_path,
        "path,labels,patient_id,age,sex,device,site,fold",
        "a/r1.hea,AF; MI ,7.0,93,F,ELI 250,3.0,10",
    )
    assert info == RecordInfo(
        "mine", "a/r1", "a/r1.hea", "7", ("own:AF", "own:MI"), 90.0, "female", "ELI 250", "3", 10
    )


@pytest.mark.parametrize("unknown", ["", "unknown", "N/A", "-"])
def test_device_and_site_that_nobody_knows_are_empty(tmp_path: Path, unknown: str):
    (info,) = index_own_folder(tmp_path, "path,labels,device,site", f"x.npy,AF,{unknown},{unknown}")
    (bare,) = index_own_folder(tmp_path, "path,labels", "x.npy,AF")
    assert (info.device, info.site) == (bare.device, bare.site) == ("", "")


@pytest.mark.parametrize("written", ["r1", "r1.hea", "r1.dat"])
def test_wfdb_record_may_be_named_with_or_without_its_ending(tmp_path: Path, written: str):
    values = sample_values(50, 12)
    write_record(tmp_path / "r1", values)
    signal, fs, _ = read_only(tmp_path, "path,labels", f"{written},")
    np.testing.assert_allclose(signal, values.T / 1000, atol=1e-6)
    assert fs == 500.0


def test_csv_has_a_column_per_lead(tmp_path: Path):
    lines = ["II, I", *(f"{a},{b}" for a, b in SIGNAL[:2, :5].T * 1000)]
    (tmp_path / "x.csv").write_text("\n".join(lines), encoding="utf-8")
    signal, fs, leads = read_only(tmp_path, "path,labels,fs,units", "x.csv,AF,250,uV")
    assert (fs, leads) == (250.0, ("II", "I"))
    np.testing.assert_allclose(signal, SIGNAL[:2, :5], rtol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_numpy_array_may_lie_either_way(tmp_path: Path, turned: bool):
    np.save(tmp_path / "x.npy", SIGNAL.T if turned else SIGNAL)
    signal, fs, leads = read_only(tmp_path, "path,labels,fs", "x.npy,AF,400")
    assert (fs, leads) == (400.0, LEADS)
    np.testing.assert_array_equal(signal, SIGNAL)


def test_leads_of_an_array_may_be_named(tmp_path: Path):
    np.save(tmp_path / "x.npy", SIGNAL[:2])
    _, _, leads = read_only(tmp_path, "path,labels,fs,leads", "x.npy,AF,400,V1;V2")
    assert leads == ("V1", "V2")


def test_matlab_matrix_and_cpsc_struct_are_read(tmp_path: Path):
    savemat(tmp_path / "x.mat", {"val": SIGNAL})
    np.testing.assert_array_equal(read_only(tmp_path, "path,labels,fs", "x.mat,AF,400")[0], SIGNAL)
    savemat(tmp_path / "y.mat", {"ECG": {"sex": "Male", "age": 5, "data": SIGNAL}})
    signal, fs, _ = read_only(tmp_path, "path,labels", "y.mat,AF")
    np.testing.assert_array_equal(signal, SIGNAL)
    assert fs == 500.0


def test_matlab_file_with_a_header_is_a_wfdb_record(tmp_path: Path):
    write_record(tmp_path / "r", sample_values(50, 12), fs=257, suffix=".mat")
    assert read_only(tmp_path, "path,labels", "r.mat,AF")[1] == 257.0


def test_rows_whose_files_cannot_be_used_say_why(tmp_path: Path):
    (tmp_path / "x.dcm").touch()
    infos = index_own_folder(
        tmp_path, "path,labels", "gone,", "gone.csv,AF", "gone.dat,", "x.dcm,", "../x.csv,", ",AF"
    )
    problems = [info.problem for info in infos]
    assert problems[:3] == [
        "gone.hea is not there",
        "gone.csv is not there",
        "the header gone.hea is not there",
    ]
    assert "no reader knows the ending of 'x.dcm'" in problems[3]
    assert "leads out" in problems[4] and problems[5] == "no file is named"


@pytest.mark.parametrize(
    ("columns", "row", "reason"),
    [
        ("path,labels", "x.npy,AF", "no fs is given; labels.csv needs its rate"),
        ("path,labels,fs", "x.npy,AF,fast", "fs is 'fast'"),
        ("path,labels,fs,units", "x.npy,AF,100,mmHg", "'mmHg' is not a voltage"),
        ("path,labels,fs,leads", "x.npy,AF,100,I;II", "2 leads named, shape (12, 250)"),
        ("path,labels,fs", "three.npy,AF,100", "names no leads"),
        ("path,labels,fs", "text.csv,AF,100", "no table of numbers"),
        ("path,labels,fs", "broken.npy,AF,100", "cannot be read"),
        ("path,labels,fs", "broken.mat,AF,100", "no readable MATLAB file"),
    ],
)
def test_signal_that_cannot_be_used_says_why(tmp_path: Path, columns: str, row: str, reason: str):
    np.save(tmp_path / "x.npy", SIGNAL)
    np.save(tmp_path / "three.npy", SIGNAL[:3])
    (tmp_path / "text.csv").write_text("I,II\na,b\n", encoding="utf-8")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.mat").write_bytes(b"MATLAB")
    with pytest.raises(RecordError) as error:
        read_only(tmp_path, columns, row)
    assert reason in str(error.value)


def test_fold_that_is_no_whole_number_is_none(tmp_path: Path):
    rows = ["a.npy,,²", "b.npy,,3.0", "c.npy,,11", "d.npy,,x"]
    infos = index_own_folder(tmp_path, "path,labels,fold", *rows)
    assert [info.fold for info in infos] == [None, 3, None, None]


def test_labels_csv_without_its_columns_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"labels\.csv has no column labels; found: path"):
        index_own_folder(tmp_path, "path,diagnosis", "x,AF")


def test_row_with_a_cell_too_many_is_a_problem_of_its_record_alone(tmp_path: Path):
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", SIGNAL)
    x, y = index_own_folder(tmp_path, "path,labels", "x.npy,AF,MI", "y.npy,AF,")
    assert (x.record_id, x.codes) == ("x", ())
    assert x.problem == "line 2 of labels.csv has 3 cells where its first line has 2"
    assert (y.problem, y.codes) == ("", ("own:AF",))


def test_ages_that_are_no_number_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = ["a.npy,,xx", "b.npy,,unknown", "c.npy,,-3", "d.npy,,", "e.npy,,61"]
    with caplog.at_level("WARNING", logger="einthoven"):
        infos = index_own_folder(tmp_path, "path,labels,age", *rows)
    assert [info.age for info in infos] == [None, None, None, None, 61.0]
    assert caplog.messages == [
        "mine: 2 ages of labels.csv left empty, being no number of years (first: 'xx')"
    ]
