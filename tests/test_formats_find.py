"""Folders are searched for recordings: each once, nothing outside, nothing that is plainly none."""

import shutil
import sys

import numpy as np
import pytest
from fake_ecgs import fake_ecg
from format_samples import BUILT, build_csv, build_edf, build_npy
from wfdb_samples import matlab4_head, sample_values, write_record

from einthoven.errors import RecordError
from einthoven.formats.reading import find_recordings, read_recording
from einthoven.records import LEADS

ECG = fake_ecg(2, fs=200, seconds=2)


def found(folder):
    return [path.relative_to(folder).as_posix() for path in find_recordings([folder])]


def test_a_wfdb_record_is_found_once_by_its_header(tmp_path):
    write_record(tmp_path / "b" / "r1", sample_values(500, 2))
    write_record(tmp_path / "b" / "r2", sample_values(500, 2), suffix=".mat")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.edf").write_bytes(build_edf(ECG, 200))
    assert found(tmp_path) == ["a/x.edf", "b/r1.hea", "b/r2.hea"]


def test_segments_of_a_longer_record_are_not_found_by_themselves(tmp_path):
    for name in ("long_1", "long_2"):
        write_record(tmp_path / name, sample_values(500, 2))
    (tmp_path / "long.hea").write_text("long/2 2 500 1000\nlong_1 500\nlong_2 500\n")
    assert found(tmp_path) == ["long.hea"]
    assert read_recording(tmp_path / "long.hea").signal.shape == (2, 1000)


def test_what_is_plainly_no_recording_is_passed_by(tmp_path):
    for name, text in {
        "README.md": "# ECG", "notes.txt": "some words\nand more\n", "LICENSE": "MIT",
        "labels.csv": "path,labels\na.npy,NORM\n", "people.csv": "id,age\n1,50\n2,60\n",
        ".hidden.csv": "I,II\n1,2\n1,2\n", "photo.png": "\x89PNG",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text, encoding="latin-1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.npy").write_bytes(build_npy(ECG, 200))
    (tmp_path / "signal.csv").write_bytes(build_csv(ECG, 200))
    assert found(tmp_path) == ["signal.csv"]


def test_a_recording_without_a_suffix_is_found_by_its_content(tmp_path):
    _, build, leads = BUILT["ecg.dcm"]
    (tmp_path / "IM00001").write_bytes(build(ECG, 200, leads))
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert found(tmp_path) == ["IM00001"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_not_followed_out_of_the_folder(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.edf").write_bytes(build_edf(ECG, 200))
    (inside / "a.edf").write_bytes(build_edf(ECG, 200))
    (inside / "b.edf").symlink_to(inside / "a.edf")
    (inside / "c.edf").symlink_to(outside / "secret.edf")
    (inside / "folder").symlink_to(outside)
    (inside / "round").symlink_to(inside)
    assert found(inside) == ["a.edf", "b.edf"]


def test_files_are_yielded_as_given_and_folders_one_after_the_other(tmp_path):
    (tmp_path / "labels.csv").write_text("path,labels\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.npy").write_bytes(build_npy(ECG, 200))
    given = [tmp_path / "labels.csv", tmp_path / "a"]
    assert list(find_recordings(given)) == [given[0], tmp_path / "a" / "x.npy"]


def test_folders_are_searched_while_their_recordings_are_used(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "x.npy").write_bytes(build_npy(ECG, 200))
    stream = find_recordings([tmp_path])
    assert next(stream).parent.name == "0"
    shutil.rmtree(tmp_path / "1")
    assert next(stream).parent.name == "2"


# WFDB records as files -------------------------------------------------------------------------


def test_a_record_is_read_by_its_header_its_signal_file_or_its_name(tmp_path):
    write_record(tmp_path / "r", sample_values(500, 2))
    signals = [read_recording(tmp_path / name).signal for name in ("r.hea", "r.dat", "r")]
    for signal in signals[1:]:
        np.testing.assert_array_equal(signal, signals[0])


def test_a_matlab_file_beside_a_header_has_the_headers_gain(tmp_path):
    write_record(tmp_path / "r", sample_values(500, 2), suffix=".mat")
    recording = read_recording(tmp_path / "r.mat")
    assert recording.format == "wfdb" and recording.fs == 500
    assert np.abs(recording.signal).max() <= 3


def test_a_challenge_matrix_without_its_header_asks_for_what_it_does_not_say(tmp_path):
    values = sample_values(1000, 12)
    (tmp_path / "r.mat").write_bytes(matlab4_head(12, 1000) + values.astype("<i2").tobytes())
    with pytest.raises(RecordError, match="pass fs"):
        read_recording(tmp_path / "r.mat")
    with pytest.raises(RecordError, match="pass units"):
        read_recording(tmp_path / "r.mat", fs=500)
    recording = read_recording(tmp_path / "r.mat", fs=500, units="uV")
    assert recording.leads == LEADS
    np.testing.assert_allclose(recording.signal, values.T / 1000, rtol=1e-5)


def test_a_signal_file_without_its_header_says_so(tmp_path):
    write_record(tmp_path / "r", sample_values(500, 2))
    (tmp_path / "r.hea").unlink()
    with pytest.raises(RecordError, match=r"header r\.hea"):
        read_recording(tmp_path / "r.dat")
