"""Files made to harm, and damaged ones: a recording or a reason, and nothing else."""

import io
import os
import struct
import time
import zipfile

import h5py
import numpy as np
import pytest
from fake_ecgs import fake_ecg
from format_samples import (
    BUILT,
    build_aecg,
    build_cardiosoft,
    build_dicom,
    build_edf,
    build_hdf5,
    build_mat4,
    build_mat5,
    build_npy,
)
from scipy.io import savemat
from wfdb_samples import sample_values, write_record

from einthoven.errors import RecordError
from einthoven.formats.reading import Recording, read_recording
from einthoven.records import LEADS

ECG = fake_ecg(1, fs=200, seconds=2)
SEED = 5
# Of each sample; the slow test makes many more.
N_DAMAGED = 12


def refused(tmp_path, data, match, name="a.bin", **said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordError, match=match):
        read_recording(tmp_path / name, **said)


# XML -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/hostname">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1/a.dtd">',
    ],
)
def test_xml_entities_are_refused(tmp_path, declared):
    xml = f"<!DOCTYPE CardiologyXML [{declared}]><CardiologyXML>&a;</CardiologyXML>"
    refused(tmp_path, xml.encode(), "entities or external references")


def test_xml_of_too_many_elements_or_too_deep_is_refused(tmp_path, monkeypatch):
    deep = b"<AnnotatedECG>" + b"<a>" * 200 + b"</a>" * 200 + b"</AnnotatedECG>"
    refused(tmp_path, deep, "100 within another")
    monkeypatch.setattr("einthoven.formats.xml_tree.MOST_ELEMENTS", 1000)
    wide = b"<AnnotatedECG>" + b"<a/>" * 2000 + b"</AnnotatedECG>"
    refused(tmp_path, wide, "over 1,000 elements")


def test_a_tag_of_millions_of_attributes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("einthoven.formats.xml_tree.LARGEST_TAG", 1000)
    attributes = " ".join(f'a{number}=">"' for number in range(1000))
    refused(tmp_path, f"<AnnotatedECG {attributes}/>".encode(), "tag or comment of over 1,000")
    for n_blanks in (0, 500, 999):  # what follows the root may be a part of its own
        path = tmp_path / "a.xml"
        path.write_bytes(build_cardiosoft(ECG, 200) + b" " * n_blanks)
        assert read_recording(path).signal.shape == ECG.shape


def test_an_encoding_that_runs_code_or_unpacks_is_not_used(tmp_path):
    for encoding in ("zlib_codec", "idna", "unicode_escape", "x"):
        xml = f'<?xml version="1.0" encoding="{encoding}"?><CardiologyXML/>'
        refused(tmp_path, xml.encode(), "encoding .* is not known")


@pytest.mark.parametrize("factor", ["nan", "inf", "0", "1e30", "", "five"])
def test_a_factor_that_is_none_is_refused(tmp_path, factor):
    data = build_aecg(ECG, 200).replace(b'scale value="5"', f'scale value="{factor}"'.encode(), 1)
    refused(tmp_path, data, "number is needed|for each step")


def test_leads_of_different_lengths_are_refused(tmp_path):
    data = build_cardiosoft(ECG, 200).replace(b"\t\t", b"\t\t1,", 1)
    refused(tmp_path, data, "differ in length: I 401")


# Arrays ----------------------------------------------------------------------------------------


def test_numpy_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    file = io.BytesIO()
    np.save(file, np.array([Bomb()], object), allow_pickle=True)
    refused(tmp_path, file.getvalue(), "not numbers")
    archive = io.BytesIO()
    np.savez(archive, signal=np.array([Bomb()], object))
    refused(tmp_path, archive.getvalue(), "no arrays")
    assert not (tmp_path / "ran").exists()


def test_a_numpy_header_may_not_announce_more_than_the_file_has(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (12, 10**12)}
    )
    refused(tmp_path, file.getvalue() + b"\0" * 100, "cut short")


def test_archives_are_unpacked_only_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("einthoven.formats.arrays.MAX_FILE_MB", 1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("signal.npy", build_npy(np.zeros((12, 50_000)), 200))
    assert len(archive.getvalue()) < 50_000
    refused(tmp_path, archive.getvalue(), "unpacks to over 1 MiB")


def test_compressed_matrices_are_unpacked_only_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("einthoven.formats.matlab_file.MAX_FILE_MB", 1)
    file = io.BytesIO()
    savemat(file, {"val": np.zeros((12, 50_000))}, do_compression=True)
    refused(tmp_path, file.getvalue(), "unpacks to over 1 MiB")


def test_matrices_may_not_announce_more_than_they_have(tmp_path):
    data = bytearray(build_mat4(ECG, 200))
    data[8:12] = struct.pack("<i", 10**9)
    refused(tmp_path, bytes(data), "1,000,000,000 is announced")
    file = io.BytesIO()
    cells = np.empty((1, 3), object)
    cells[:] = "x"
    savemat(file, {"val": cells})
    small = file.getvalue()
    dims = small.index(struct.pack("<IIii", 5, 8, 1, 3))
    patched = small[: dims + 8] + struct.pack("<ii", 1 << 15, 1 << 15) + small[dims + 16 :]
    refused(tmp_path, patched, "announces a matrix")


def test_hdf5_may_not_announce_more_than_is_taken(tmp_path):
    file = io.BytesIO()
    with h5py.File(file, "w") as hdf5:
        hdf5.create_dataset("ecg", (12, 10**11), "f4", chunks=(12, 1000), compression="gzip")
    assert len(file.getvalue()) < 10_000
    refused(tmp_path, file.getvalue(), "announces an array", fs=200)


def test_hdf5_does_not_lead_to_other_files(tmp_path):
    (tmp_path / "other.h5").write_bytes(build_hdf5(ECG, 200))
    raw = tmp_path / "raw.bin"
    raw.write_bytes(ECG.tobytes())
    layout = h5py.VirtualLayout(ECG.shape, "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "records/ecg", ECG.shape)
    file = io.BytesIO()
    with h5py.File(file, "w") as hdf5:
        hdf5["ecg"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/records/ecg")
        hdf5.create_dataset("val", ECG.shape, "f4", external=[(str(raw), 0, ECG.nbytes)])
        hdf5.create_virtual_dataset("data", layout)
    refused(tmp_path, file.getvalue(), "no array of numbers", fs=200)


# Others ----------------------------------------------------------------------------------------


def test_deflated_dicom_is_refused(tmp_path):
    data = build_dicom(ECG, 200).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1)
    # The group's length and the element's have grown by two.
    at = data.index(b"1.2.840.10008.1.2.1.99")
    data = data[: at - 2] + struct.pack("<H", 22) + data[at:]
    refused(tmp_path, data, "deflated")


def test_dicom_may_not_announce_more_than_it_has(tmp_path):
    data = build_dicom(ECG, 200)
    count = struct.pack("<HH2sHI", 0x003A, 0x0010, b"UL", 4, 400)
    assert data.count(count) == 2
    refused(tmp_path, data.replace(count, count[:-4] + struct.pack("<I", 5_000_000)), "at most")
    refused(tmp_path, data.replace(count, count[:-4] + struct.pack("<I", 500)), "cut short")


def test_dicom_of_a_flood_of_parts_is_refused(tmp_path):
    data = build_dicom(ECG, 200)
    waveforms = data.index(struct.pack("<HH", 0x5400, 0x0100))
    empty_elements = struct.pack("<HH2sH", 0x0009, 0x1010, b"LO", 0) * 20_000
    refused(tmp_path, data[:waveforms] + empty_elements + data[waveforms:], "over 10000 elements")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 20_000
    flood = struct.pack("<HH2sHI", 0x5400, 0x0100, b"SQ", 0, len(items)) + items
    refused(tmp_path, data[:waveforms] + flood, "10000 items")


def test_edf_headers_that_cannot_be_are_refused(tmp_path):
    data = build_edf(ECG, 200)
    refused(tmp_path, data[:252] + b"9999" + data[256:], "9999 signals")
    refused(tmp_path, data[:244] + b"-1      " + data[252:], "last -1 s")
    refused(tmp_path, data[:236] + b"99999999" + data[244:], "cut short: 2 of")


def test_a_wfdb_header_may_neither_lead_away_nor_announce_too_much(tmp_path):
    write_record(tmp_path / "r", sample_values(500, 2))
    header = tmp_path / "r.hea"
    text = header.read_text()
    for changed, match in (
        (text.replace("r.dat", "../r.dat"), "outside its own folder"),
        (text.replace("r 2 500 500", "r 2 500 900000000"), "at most 1 h"),
        (text.replace(" 16 ", " 16x9999 "), "at a time"),
        ("r/5000 2 500 500\n", "5,000 segments"),
    ):
        header.write_text(changed)
        with pytest.raises(RecordError, match=match):
            read_recording(header)


def test_what_is_no_plain_file_or_too_large_is_refused(tmp_path, monkeypatch):
    refused(tmp_path, b"", "empty")
    with pytest.raises(RecordError, match="is no file"):
        read_recording(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.edf")
        with pytest.raises(RecordError, match="is no file"):
            read_recording(tmp_path / "pipe.edf")
    monkeypatch.setattr("einthoven.formats.reading.MAX_FILE_MB", 0)
    refused(tmp_path, b"x", "larger than 0 MiB")


# Damage ----------------------------------------------------------------------------------------


def damaged(data, rng):
    """A truncation, or up to 20 other bytes, half of the time among the first 2,000."""
    if rng.random() < 0.25:
        return data[: rng.integers(0, len(data))]
    changed = bytearray(data)
    end = len(data) if rng.random() < 0.5 else min(len(data), 2000)
    for _ in range(rng.integers(1, 20)):
        changed[rng.integers(0, end)] = rng.integers(0, 256)
    return bytes(changed)


def check_damaged(path, data, n_times, rng):
    slowest = 0.0
    for _ in range(n_times):
        path.write_bytes(damaged(data, rng))
        start = time.perf_counter()
        try:
            recording = read_recording(path, fs=200)
            assert isinstance(recording, Recording)
            assert recording.signal.shape[0] == len(recording.leads)
        except RecordError as error:
            assert str(error)
        slowest = max(slowest, time.perf_counter() - start)
    return slowest


@pytest.mark.parametrize("name", BUILT)
def test_a_damaged_file_gives_a_recording_or_a_reason(tmp_path, name):
    _, build, leads = BUILT[name]
    rows = ECG[[LEADS.index(lead) for lead in leads]]
    rng = np.random.default_rng(SEED)
    check_damaged(tmp_path / name, build(rows, 200, leads), N_DAMAGED, rng)


@pytest.mark.slow
def test_damaged_real_files_give_a_recording_or_a_reason_within_a_second(tmp_path, shared_data):
    rng = np.random.default_rng(SEED)
    paths = [path for path in (shared_data / "formats").rglob("*") if path.suffix.lower() in
             (".dcm", ".edf", ".xml", ".scp")]  # fmt: skip
    paths += [*(shared_data / "sph/records").glob("*.h5")][:1]
    paths += [*(shared_data / "cpsc2018/TrainingSet1").glob("*.mat")][:1]
    for path in paths:
        slowest = check_damaged(tmp_path / f"a{path.suffix}", path.read_bytes(), 100, rng)
        assert slowest < 1, path.name


def test_a_damaged_matlab_file_that_scipy_trips_over_is_a_reason(tmp_path):
    data = build_mat5(ECG, 200)
    refused(tmp_path, data[:200], "cut short")
