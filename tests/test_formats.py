"""Files of every format give the signal that is in them, or say what to pass."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_ecgs import fake_ecg
from format_samples import (
    BUILT,
    EIGHT,
    build_aecg,
    build_csv,
    build_dicom,
    build_edf,
    build_ishne,
    build_muse,
    build_npy,
    build_scp,
    build_sierra,
)

from einthoven.errors import RecordError
from einthoven.formats.content import factor_of_unit
from einthoven.formats.detection import FILE_FORMATS
from einthoven.formats.reading import calibration_start, read_recording
from einthoven.formats.sierra import decode_lzw
from einthoven.records import LEADS, lead_name, standard_leads

PROJECT = Path(__file__).resolve().parents[1]
ECG = fake_ecg(0, fs=500, seconds=4)
HALF_STEP_MV = 0.0026


def written(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def rows_of(leads):
    return ECG[[LEADS.index(lead) for lead in leads]]


# Every format ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
def test_a_built_file_gives_its_signal_rate_and_leads(tmp_path, name):
    file_format, build, leads = BUILT[name]
    path = written(tmp_path, name, build(rows_of(leads), 500, leads))
    recording = read_recording(path)
    assert recording.format == file_format and recording.fs == 500
    assert [lead_name(lead) for lead in recording.leads] == list(leads)
    assert recording.signal.dtype == np.float32
    np.testing.assert_allclose(recording.signal, rows_of(leads), atol=HALF_STEP_MV)


@pytest.mark.parametrize("name", BUILT)
def test_a_wrong_suffix_does_not_matter(tmp_path, name):
    file_format, build, leads = BUILT[name]
    path = written(tmp_path, "upload.bin", build(rows_of(leads), 500, leads))
    assert read_recording(path).format == file_format


def test_every_format_has_a_sample():
    with_sample = {file_format for file_format, _, _ in BUILT.values()}
    assert with_sample == FILE_FORMATS.keys() - {"wfdb", "npy"}


def test_eight_leads_of_muse_become_twelve(tmp_path):
    path = written(tmp_path, "muse.xml", build_muse(rows_of(EIGHT), 500))
    recording = read_recording(path)
    twelve, present = standard_leads(recording.signal, recording.leads)
    assert present.all()
    np.testing.assert_allclose(twelve, ECG, atol=2 * HALF_STEP_MV)


def test_the_rhythm_is_taken_and_not_the_median_beat(tmp_path):
    for name, build, leads in (("a.xml", build_muse, EIGHT), ("a.dcm", build_dicom, LEADS)):
        recording = read_recording(written(tmp_path, name, build(rows_of(leads), 500, leads)))
        assert recording.signal.shape[1] == 2000
        assert "median beat" in recording.remarks[0]


# Single formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["uV", "mV", "V"])
@pytest.mark.parametrize("scheme", ["MDC", "SCPECG"])
def test_dicom_scales_by_unit_and_baseline(tmp_path, unit, scheme):
    data = build_dicom(ECG, 500, unit=unit, baseline=0.4, scheme=scheme)
    recording = read_recording(written(tmp_path, "a.dcm", data))
    np.testing.assert_allclose(recording.signal, ECG, atol=HALF_STEP_MV)
    assert recording.leads == LEADS


@pytest.mark.parametrize(("differences", "huffman"), [(0, True), (1, True), (2, True), (2, False)])
def test_scp_undoes_differences_and_huffman_codes(tmp_path, differences, huffman):
    data = build_scp(ECG, 500, differences=differences, huffman=huffman)
    recording = read_recording(written(tmp_path, "a.scp", data))
    np.testing.assert_allclose(recording.signal, ECG, atol=HALF_STEP_MV)


def test_scp_refuses_lossy_compression_by_name(tmp_path):
    for data in (build_scp(ECG, 500, bimodal=1), build_scp(ECG, 500, flags=1)):
        with pytest.raises(RecordError, match="lossy compression"):
            read_recording(written(tmp_path, "a.scp", data))


def test_scp_refuses_a_damaged_section(tmp_path):
    data = bytearray(build_scp(ECG, 500))
    data[-100] ^= 1
    with pytest.raises(RecordError, match="checksum of section 6"):
        read_recording(written(tmp_path, "a.scp", bytes(data)))


def test_ishne_refuses_a_damaged_header_and_a_holter_of_a_day(tmp_path):
    data = bytearray(build_ishne(ECG, 500))
    data[40] ^= 1
    with pytest.raises(RecordError, match="checksum"):
        read_recording(written(tmp_path, "a.ecg", bytes(data)))
    day = build_ishne(np.zeros((1, 61 * 3600), np.float32), 60, ("I",))
    with pytest.raises(RecordError, match="at most 1 h"):
        read_recording(written(tmp_path, "b.ecg", day))


def test_edf_leaves_the_end_out_that_was_not_recorded(tmp_path):
    gone = ECG.copy()
    gone[:, 1700:] = -32768 * 0.005
    recording = read_recording(written(tmp_path, "a.edf", build_edf(gone, 500)))
    assert recording.signal.shape == (12, 1700)
    assert "last 300 samples" in recording.remarks[0]


def test_lzw_spells_a_code_that_is_only_just_being_made():
    # "aaaa": a, then the code of "aa" before it is in the table, then a; 97, 256, 97 in ten bits.
    bits = f"{97:010b}{256:010b}{97:010b}00"
    assert decode_lzw(int(bits, 2).to_bytes(4, "big"), 4) == b"aaaa"


@pytest.mark.parametrize(
    ("unit", "millivolts"), [("uV", 1e-3), ("MICROVOLTS", 1e-3), ("UV", 1e-3), ("Millivolt", 1)]
)
def test_units_are_known_by_all_their_names(unit, millivolts):
    assert factor_of_unit(unit, "the lead") == millivolts


def test_a_unit_that_is_no_voltage_is_refused():
    with pytest.raises(RecordError, match="no voltage"):
        factor_of_unit("mmHg", "the lead")


# What files do not say -------------------------------------------------------------------------


def test_an_array_without_a_rate_asks_for_it(tmp_path):
    path = written(tmp_path, "a.npy", build_npy(ECG, 500))
    with pytest.raises(RecordError, match="pass fs"):
        read_recording(path)
    recording = read_recording(path, fs=500)
    assert recording.leads == LEADS and "states no unit" in recording.remarks[-1]


def test_an_array_that_cannot_be_millivolts_asks_for_its_unit(tmp_path):
    path = written(tmp_path, "a.npy", build_npy(ECG * 1000, 500))
    with pytest.raises(RecordError, match="pass units"):
        read_recording(path, fs=500)
    recording = read_recording(path, fs=500, units="uV")
    np.testing.assert_allclose(recording.signal, ECG, rtol=1e-5)


def test_an_array_of_another_number_of_leads_asks_for_their_names(tmp_path):
    path = written(tmp_path, "a.npy", build_npy(ECG[:2].T, 500))
    with pytest.raises(RecordError, match="pass leads"):
        read_recording(path, fs=500)
    recording = read_recording(path, fs=500, leads=["I", "II"])
    np.testing.assert_array_equal(recording.signal, ECG[:2])


def test_what_a_file_states_counts_more_than_what_is_passed(tmp_path):
    path = written(tmp_path, "a.scp", build_scp(ECG, 500))
    recording = read_recording(path, fs=250, units="uV", leads=LEADS[::-1])
    assert recording.fs == 500 and recording.leads == LEADS
    np.testing.assert_allclose(recording.signal, ECG, atol=HALF_STEP_MV)
    assert len(recording.remarks) == 3


def test_leads_that_are_none_are_left_out_with_a_remark(tmp_path):
    table = build_csv(ECG[:3], 500, ("II", "V1", "Resp"))
    recording = read_recording(written(tmp_path, "a.csv", table))
    assert recording.leads == ("II", "V1") and "Resp" in recording.remarks[-1]
    np.testing.assert_allclose(recording.signal, ECG[:2], atol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "I;II\n" + "0,5;1,25\n" * 600,
        "I\tII\n" + "0.5\t1.25\n" * 600,
        "# a note\nI [uV],II (uV)\n" + "500,1250\n" * 600,
        "II I\n" + "1.25  0.5\n" * 600,
    ],
)
def test_tables_are_read_in_the_ways_people_write_them(tmp_path, text):
    path = written(tmp_path, "a.csv", (text + text.splitlines()[-1]).encode())
    recording = read_recording(path, fs=100, units="mV")
    rows = dict(zip(recording.leads, recording.signal, strict=True))
    np.testing.assert_allclose(rows["I"], 0.5)
    np.testing.assert_allclose(rows["II"], 1.25)


def test_an_unknown_file_says_what_it_is_and_what_is_known(tmp_path):
    with pytest.raises(RecordError, match="a PDF, which is not read; known are: WFDB"):
        read_recording(written(tmp_path, "a.pdf", b"%PDF-1.7"))
    with pytest.raises(RecordError, match="root element is 'html'"):
        read_recording(written(tmp_path, "a.xml", b"<?xml version='1.0'?><html/>"))
    with pytest.raises(RecordError, match="is not there"):
        read_recording(tmp_path / "none.edf")


# The calibration pulse -------------------------------------------------------------------------


def pulse(n_leads=12):
    return np.tile(np.repeat([0.0, 1.0, 0.0], [50, 100, 50]).astype(np.float32), (n_leads, 1))


def test_a_calibration_pulse_at_the_end_is_cut_off(tmp_path):
    recorded = np.concatenate([ECG, pulse()], axis=1)
    recording = read_recording(written(tmp_path, "a.xml", build_sierra(recorded, 500)))
    assert recording.signal.shape == (12, 2000)
    assert "0.40 s are the recorder's calibration pulse" in recording.remarks[-1]


def test_a_heart_is_never_taken_for_a_calibration_pulse():
    assert calibration_start(ECG) == 2000
    flat_end = np.concatenate([ECG, 0 * pulse()], axis=1)
    assert calibration_start(flat_end) == 2200
    one_lead = np.concatenate([ECG[:1], pulse(1)], axis=1)
    assert calibration_start(one_lead) == 2200


# Real files ------------------------------------------------------------------------------------


def test_ours_agrees_with_edflib(tmp_path):
    pyedflib = pytest.importorskip("pyedflib")
    path = written(tmp_path, "a.edf", build_edf(ECG, 500))
    with pyedflib.EdfReader(str(path)) as file:
        theirs = np.stack([file.readSignal(lead) for lead in range(12)])
    np.testing.assert_allclose(read_recording(path).signal, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "atol"),
    [
        ("scp/Example.scp", "hl7_aecg/Example_aECG.xml", 1e-6),
        # Philips' own converter changes values by up to 20 µV, lead I's too, which is stored plain.
        (
            "philips_sierra/1_04/ad4d3d80-d165_1-04_orig.xml",
            "philips_sierra/1_04/ad4d3d80-d165_1-04_converted.xml",
            0.0201,
        ),
    ],
)
def test_one_ecg_in_two_formats_is_one_signal(shared_data, one, other, atol):
    first, second = (read_recording(shared_data / "formats" / name) for name in (one, other))
    np.testing.assert_allclose(first.signal, second.signal, atol=atol)
    assert list(map(lead_name, first.leads)) == list(map(lead_name, second.leads))


def test_a_record_in_edf_equals_the_record_in_wfdb(shared_data):
    edf = read_recording(shared_data / "formats/edf/cardio_sample.edf", leads=["I"])
    wfdb = read_recording(shared_data / "challenge-2017/training2017/A00001.hea", leads=["I"])
    np.testing.assert_allclose(edf.signal, wfdb.signal, atol=1e-4)


def test_the_page_of_formats_is_fresh(shared_data):
    pytest.importorskip("ecgdatakit")
    pytest.importorskip("pyedflib")
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools/formats_table.py"), str(shared_data), "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_aecg_without_increment_asks_for_the_rate(tmp_path):
    data = build_aecg(ECG, 500).replace(b"<increment", b"<nothing")
    with pytest.raises(RecordError, match="pass fs"):
        read_recording(written(tmp_path, "a.xml", data))
