"""WFDB files: the direct path agrees with the library, and says what is wrong with a bad file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from wfdb_samples import TWELVE, sample_values, write_record

from einthoven.errors import RecordError
from einthoven.readers.wfdb_files import load_wfdb, read_wfdb, read_wfdb_with_library
from einthoven.readers.wfdb_header import parse_wfdb_header, read_wfdb_header, read_wfdb_headers

VALUES = sample_values(200, 12)


def edit_header(path: Path, old: str, new: str) -> None:
    header = path.with_suffix(".hea")
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new), encoding="utf-8")


# Both paths agree ------------------------------------------------------------------------------


def check_paths_agree(headers: Iterable[Path]) -> None:
    for path in headers:
        direct, fs, leads = read_wfdb(path)
        library, library_fs, library_leads = read_wfdb_with_library(path, read_wfdb_header(path))
        assert (fs, leads) == (library_fs, library_leads), path
        assert np.array_equal(direct, library, equal_nan=True), path


def test_direct_path_and_library_read_the_same_samples_from_real_records(shared_data: Path):
    headers = sorted(shared_data.rglob("*.hea"))
    for large in ("ptb-xl", "challenge-2017"):
        inside = [path for path in headers if path.is_relative_to(shared_data / large)]
        drawn = np.random.default_rng(0).choice(len(inside), 40, replace=False)
        check_paths_agree(inside[number] for number in drawn)
        headers = [path for path in headers if path not in set(inside)]
    check_paths_agree(headers)


@pytest.mark.slow
def test_direct_path_and_library_read_the_same_samples_from_every_real_record(shared_data: Path):
    headers = sorted(shared_data.rglob("*.hea"))
    assert len(headers) > 2500
    check_paths_agree(headers)


@pytest.mark.parametrize("suffix", [".dat", ".mat"])
@pytest.mark.parametrize(
    "gain", ["1000/mV", "1000.0(0)/mV", "1000/mv", "200(-1024)/mV", "1.5(7)/uV", "4e5/V", "2000"]
)
def test_direct_path_and_library_agree_on_every_way_to_write_a_gain(
    tmp_path: Path, suffix: str, gain: str
):
    write_record(tmp_path / "r", VALUES, gain=gain, suffix=suffix, zero=12)
    direct, fs, leads = read_wfdb(tmp_path / "r.hea")
    library, _, _ = read_wfdb_with_library(tmp_path / "r.hea", read_wfdb_header(tmp_path / "r.hea"))
    np.testing.assert_allclose(direct, library, rtol=1e-6, atol=1e-6)
    assert (fs, leads, direct.dtype, direct.shape) == (500.0, TWELVE, np.float32, (12, 200))


def test_mat_files_of_the_tests_are_what_matlab_reads(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, suffix=".mat")
    assert np.array_equal(loadmat(tmp_path / "r.mat")["val"], VALUES.T)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb writing, with pandas 3
@pytest.mark.parametrize("fmt", ["212", "24", "32", "80"])
def test_formats_other_than_16_go_through_the_library(tmp_path: Path, fmt: str):
    signal = np.round(np.sin(np.arange(400)[:, None] / 20 + np.arange(2)), 2)
    load_wfdb().wrsamp(
        "r", fs=250, units=["mV", "mV"], sig_name=["I", "II"], p_signal=signal,
        fmt=[fmt, fmt], adc_gain=[100.0, 100.0], baseline=[0, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    read, fs, leads = read_wfdb(tmp_path / "r.hea")
    assert (fs, leads) == (250.0, ("I", "II"))
    np.testing.assert_allclose(read, signal.T, atol=1e-6)


def test_segments_of_a_record_are_joined(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 2)):
        write_record(tmp_path / name, sample_values(100, 2, seed))
    (tmp_path / "r.hea").write_text("r/2 2 500 200\na 100\nb 100\n", encoding="utf-8")
    read, _, leads = read_wfdb(tmp_path / "r.hea")
    assert (read.shape, leads) == ((2, 200), ("I", "II"))
    np.testing.assert_allclose(read[:, 100:], read_wfdb(tmp_path / "b.hea")[0], atol=1e-6)


def test_record_in_two_files_has_the_leads_of_both(tmp_path: Path):
    write_record(tmp_path / "r", VALUES[:, :2])
    write_record(tmp_path / "x", VALUES[:, 2:5], suffix=".xyz", leads=("vx", "vy", "vz"))
    lines = (tmp_path / "x.hea").read_text(encoding="utf-8").splitlines()[1:]
    edit_header(tmp_path / "r", "r 2 500 200", "r 5 500 200")
    with (tmp_path / "r.hea").open("a", encoding="utf-8") as header:
        header.write("\n".join(lines))
    read, _, leads = read_wfdb(tmp_path / "r.hea")
    assert leads == ("I", "II", "vx", "vy", "vz")
    np.testing.assert_allclose(read, VALUES[:, :5].T / 1000, atol=1e-6)


# What a header may say ---------------------------------------------------------------------------


def test_gain_of_zero_or_none_is_200_per_millivolt(tmp_path: Path):
    for gain in ("0", "0(0)/mV"):
        write_record(tmp_path / "r", VALUES, gain=gain)
        np.testing.assert_allclose(read_wfdb(tmp_path / "r.hea")[0], VALUES.T / 200, atol=1e-6)
    header = parse_wfdb_header("r 1\nr.dat 16", "r")
    assert (header.signals[0].gain, header.fs, header.signals[0].lead) == (200, 250, "signal 1")


def test_baseline_in_brackets_comes_before_the_adc_zero(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, gain="1000(10)/mV", zero=99)
    np.testing.assert_allclose(read_wfdb(tmp_path / "r.hea")[0], (VALUES.T - 10) / 1000, atol=1e-6)
    write_record(tmp_path / "r", VALUES, gain="1000/mV", zero=99)
    np.testing.assert_allclose(read_wfdb(tmp_path / "r.hea")[0], (VALUES.T - 99) / 1000, atol=1e-6)


def test_lowest_16_bit_value_is_no_value(tmp_path: Path):
    values = VALUES.copy()
    values[5, 3] = -32768
    write_record(tmp_path / "r", values, gain="1000(7)/mV")
    read = read_wfdb(tmp_path / "r.hea")[0]
    assert np.isnan(read[3, 5]) and np.isnan(read).sum() == 1


@pytest.mark.parametrize("first_line", ["r 12 500", "r 12 500 0"])
def test_length_that_the_header_leaves_out_comes_from_the_file(tmp_path: Path, first_line: str):
    write_record(tmp_path / "r", VALUES, first_line=first_line)
    assert read_wfdb(tmp_path / "r.hea")[0].shape == (12, 200)


def test_file_longer_than_its_header_says_is_read_as_far_as_the_header_says(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, first_line="r 12 500 150")
    read = read_wfdb(tmp_path / "r.hea")[0]
    np.testing.assert_allclose(read, VALUES[:150].T / 1000, atol=1e-6)


def test_date_in_an_order_that_wfdb_refuses_is_no_matter(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, first_line="r 12 500 200 2014-05-08 05:05:15 ")
    read = read_wfdb(tmp_path / "r.hea")[0]
    library = read_wfdb_with_library(tmp_path / "r.hea", read_wfdb_header(tmp_path / "r.hea"))[0]
    assert np.array_equal(read, library)


def test_comments_that_are_not_utf8_are_read_as_latin1(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, comments=["Age: 44"])
    with (tmp_path / "r.hea").open("ab") as header:
        header.write("#Name: Müller\n".encode("latin-1"))
    assert read_wfdb_header(tmp_path / "r.hea").comments == ("Age: 44", "Name: Müller")


def test_windows_line_ends_and_blank_lines_are_no_matter(tmp_path: Path):
    write_record(tmp_path / "r", VALUES)
    text = (tmp_path / "r.hea").read_text(encoding="utf-8")
    (tmp_path / "r.hea").write_bytes(("\n" + text).replace("\n", "\r\n").encode())
    assert read_wfdb(tmp_path / "r.hea")[2] == TWELVE


# Gains known to be wrong --------------------------------------------------------------------------


def test_early_georgia_gain_of_4880_is_read_as_1000(tmp_path: Path):
    write_record(tmp_path / "E00015", VALUES, gain="4880/mV", suffix=".mat")
    write_record(tmp_path / "JS00015", VALUES, gain="4880/mV", suffix=".mat")
    georgia, other = read_wfdb(tmp_path / "E00015.hea")[0], read_wfdb(tmp_path / "JS00015.hea")[0]
    np.testing.assert_allclose(georgia, VALUES.T / 1000, atol=1e-6)
    np.testing.assert_allclose(other, VALUES.T / 4880, atol=1e-6)


def test_real_georgia_records_of_the_wrong_gain_have_waves_of_a_human_size(shared_data: Path):
    for name in ("E00015", "E00793"):
        signal, _, _ = read_wfdb(shared_data / "formats" / "wfdb_misc" / f"{name}.hea")
        centred = signal - np.median(signal, axis=1, keepdims=True)
        assert 0.5 < np.abs(centred).max() < 5


# What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("r 12 500 200", "r twelve 500 200", "first line cannot be understood: 'r twelve 500 200'"),
        ("r 12 500 200", "r", "first line cannot be understood"),
        ("r 12 500 200", "r 0 500 200", "lists no leads"),
        ("r 12 500 200", "r 14 500 200", "announces 14 leads and lists 12"),
        ("r 12 500 200", "r 12 0 200", "sampling rate of 0 Hz"),
        ("r 12 500 200", "r 12 nan 200", "sampling rate of nan Hz"),
        ("r 12 500 200", "r 12 500 -5", "-5 samples"),
        ("r 12 500 200", "r 12 500 999", "4,800 bytes where its header needs 23,976"),
        ("r.dat 16 1000(0)/mV", "r.dat 16 1000(0)/mmHg", "unit 'mmHg' is not a voltage"),
        ("r.dat 16 1000(0)/mV", "r.dat 16 much/mV", "gain 'much/mV' cannot be understood"),
        ("r.dat 16 1000", "r.dat sixteen 1000", "format 'sixteen' cannot be understood"),
        ("r.dat 16 1000", "r.dat 9999 1000", "format 9999 is not one of"),
        ("r.dat", "s.dat", "signal file s.dat is not there"),
        ("r.dat", "../r.dat", "outside its own folder: '../r.dat'"),
        ("r.dat", "/etc/passwd", "outside its own folder"),
    ],
)
def test_header_that_cannot_be_used_says_why(tmp_path: Path, old: str, new: str, reason: str):
    write_record(tmp_path / "r", VALUES)
    edit_header(tmp_path / "r", old, new)
    with pytest.raises(RecordError) as error:
        read_wfdb(tmp_path / "r.hea")
    assert reason in str(error.value)


def test_truncated_signal_file_tells_both_sizes(tmp_path: Path):
    write_record(tmp_path / "r", VALUES)
    whole = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(whole[:1000])
    with pytest.raises(RecordError, match=r"r\.dat is cut short: 1,000 bytes .* needs 4,800"):
        read_wfdb(tmp_path / "r.hea")


def test_length_that_no_format_packs_into_the_file_is_refused_before_memory_is_asked_for(
    tmp_path: Path,
):
    write_record(tmp_path / "r", VALUES, first_line="r 12 500 999999999999")
    edit_header(tmp_path / "r", "r.dat 16", "r.dat 212")
    with pytest.raises(RecordError, match=r"4,800 bytes for 999,999,999,999 samples"):
        read_wfdb(tmp_path / "r.hea")


def test_empty_signal_file_and_empty_header_are_refused(tmp_path: Path):
    write_record(tmp_path / "r", VALUES, first_line="r 12 500")
    (tmp_path / "r.dat").write_bytes(b"")
    with pytest.raises(RecordError, match=r"r\.dat holds no samples"):
        read_wfdb(tmp_path / "r.hea")
    (tmp_path / "r.hea").write_bytes(b"")
    with pytest.raises(RecordError, match=r"r\.hea is empty"):
        read_wfdb(tmp_path / "r.hea")
    with pytest.raises(RecordError, match=r"header s\.hea is not there"):
        read_wfdb(tmp_path / "s.hea")


def test_segments_outside_the_folder_are_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    write_record(tmp_path / "a", VALUES)
    (tmp_path / "in" / "r.hea").write_text("r/1 12 500 200\n../a 200\n", encoding="utf-8")
    with pytest.raises(RecordError, match="outside its own folder"):
        read_wfdb(tmp_path / "in" / "r.hea")


def test_header_of_random_bytes_never_raises_anything_else(tmp_path: Path):
    rng = np.random.default_rng(0)
    write_record(tmp_path / "r", VALUES)
    whole = (tmp_path / "r.hea").read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 8):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "d.hea").write_bytes(bytes(damaged))
        try:
            read_wfdb(tmp_path / "d.hea")
        except RecordError as error:
            assert str(error)


def test_many_headers_come_in_order_with_what_is_wrong_with_each(tmp_path: Path):
    for name in "abc":
        write_record(tmp_path / name, VALUES)
    (tmp_path / "b.hea").write_text("b x", encoding="utf-8")
    results = list(read_wfdb_headers(tmp_path, ["c.hea", "b.hea", "a.hea"]))
    assert [path for path, _, _ in results] == ["c.hea", "b.hea", "a.hea"]
    assert [header is None for _, header, _ in results] == [False, True, False]
    assert "cannot be understood" in results[1][2]
