"""Each archive's reader: its published layout, patients, codes, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from wfdb_samples import TWELVE, sample_values, write_record

from einthoven.errors import DataError, RecordError
from einthoven.readers.registry import READERS, Archive, find_archives, index_archive, read_signal
from einthoven.records import LEADS, RecordInfo

PTBXL_HEAD = "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr"
COMMENTS = ["Age: 59", "Sex: Female", "Dx: 426177001,164934002"]


def only_archive(folder: Path) -> Archive:
    archives, _ = find_archives(folder)
    assert len(archives) == 1
    return archives[0]


def index_only(folder: Path, target_fs: int = 100) -> dict[str, RecordInfo]:
    infos = index_archive(only_archive(folder), target_fs)
    assert len({info.record_id for info in infos}) == len(infos)
    return {info.record_id: info for info in infos}


# Every archive ---------------------------------------------------------------------------------


def test_every_real_record_is_found_and_read(shared_data: Path):
    expected = {
        "challenge-2017": 182, "challenge-2021-chapman-shaoxing": 6, "challenge-2021-cpsc-2018": 6,
        "challenge-2021-cpsc-2018-extra": 18, "challenge-2021-georgia": 18,
        "challenge-2021-ningbo": 18, "challenge-2021-ptb": 4, "challenge-2021-ptb-xl": 10,
        "cpsc-2018": 6, "ptb-xl": 2094, "ptbdb": 1, "sph": 5,
    }  # fmt: skip
    archives, remarks = find_archives(shared_data)
    assert [archive.name for archive in archives] == list(expected)
    assert [remark.split(":")[0] for remark in remarks] == ["formats", "tables"]
    for archive in archives:
        infos = index_archive(archive, 100)
        assert len(infos) == expected[archive.name]
        assert not [info for info in infos if info.problem]
        assert all(info.codes for info in infos)
        for info in infos[:: 10 if archive.name == "ptb-xl" else 1]:
            signal, fs, leads = read_signal(archive.reader, archive.folder, info.path)
            assert signal.dtype == np.float32 and signal.flags.c_contiguous
            assert len(signal) == len(leads) and signal.shape[1] >= 5 * fs
            assert 0.05 < np.abs(signal).max() < 50


@pytest.mark.parametrize("reader", READERS)
def test_path_out_of_the_archive_is_refused(tmp_path: Path, reader: str):
    with pytest.raises(RecordError, match="leads out of the archive's folder"):
        read_signal(reader, tmp_path, "../../x")


@pytest.mark.parametrize("reader", READERS)
def test_signal_that_is_not_there_is_a_record_error(tmp_path: Path, reader: str):
    with pytest.raises(RecordError, match="is not there"):
        read_signal(reader, tmp_path, "x.h5" if reader == "sph" else "x")


# PTB-XL ------------------------------------------------------------------------------------------


def write_ptbxl(folder: Path, rows: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([PTBXL_HEAD, *rows]) + "\n"
    (folder / "ptbxl_database.csv").write_text(text, encoding="utf-8")


def ptbxl_row(number: int, age: str = "56.0", codes: str = "{'NORM': 80.0, 'AFIB': 0.0}") -> str:
    files = f"records100/00000/{number:05}_lr,records500/00000/{number:05}_hr"
    return f'{number},15709.0,{age},1,"{codes}",3,{files}'


def write_ptbxl_files(folder: Path, number: int, *rates: int) -> None:
    for rate in rates:
        suffix = {100: "lr", 500: "hr"}[rate]
        path = folder / f"records{rate}" / "00000" / f"{number:05}_{suffix}"
        write_record(path, sample_values(rate, 12), fs=rate)


def test_ptbxl_row_becomes_a_record(tmp_path: Path):
    write_ptbxl(tmp_path, [ptbxl_row(1, age="300.0")])
    write_ptbxl_files(tmp_path, 1, 100, 500)
    assert index_only(tmp_path)["1"] == RecordInfo(
        "ptb-xl", "1", "records100/00000/00001_lr", "15709", ("scp:NORM=80", "scp:AFIB=0"),
        90.0, "female", fold=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "device", "site"),
    [("CS-12   E,0.0", "CS-12 E", "0"), (" AT-6     6 ,47", "AT-6 6", "47"), (",", "", "")],
)
def test_ptbxl_device_and_site_are_read_without_padding(
    tmp_path: Path, written: str, device: str, site: str
):
    write_ptbxl(tmp_path, [f"{ptbxl_row(1)},{written}"])
    path = tmp_path / "ptbxl_database.csv"
    path.write_text(path.read_text().replace(PTBXL_HEAD, f"{PTBXL_HEAD},device,site"))
    info = index_only(tmp_path)["1"]
    assert (info.device, info.site) == (device, site)


@pytest.mark.parametrize(("target_fs", "rate"), [(50, 100), (100, 100), (250, 500), (500, 500)])
def test_ptbxl_is_read_at_the_rate_nearest_the_target(tmp_path: Path, target_fs: int, rate: int):
    write_ptbxl(tmp_path, [ptbxl_row(1)])
    write_ptbxl_files(tmp_path, 1, 100, 500)
    info = index_only(tmp_path, target_fs)["1"]
    signal, fs, leads = read_signal("ptb-xl", tmp_path, info.path)
    assert (fs, signal.shape, leads) == (rate, (12, rate), TWELVE)


def test_ptbxl_record_without_its_500_hz_file_says_so_and_stays_found(tmp_path: Path):
    write_ptbxl(tmp_path, [ptbxl_row(1), ptbxl_row(2)])
    write_ptbxl_files(tmp_path, 1, 100, 500)
    write_ptbxl_files(tmp_path, 2, 100)
    infos = index_only(tmp_path, 500)
    assert infos["1"].problem == ""
    assert infos["2"].problem == (
        "records500/00000/00002_hr.hea is not there (only the 100 Hz file "
        "records100/00000/00002_lr is; TARGET_FS=100 reads it)"
    )


def test_ptbxl_record_with_only_its_500_hz_file_is_read_from_it(tmp_path: Path):
    write_ptbxl(tmp_path, [ptbxl_row(1), ptbxl_row(2)])
    write_ptbxl_files(tmp_path, 1, 500)
    infos = index_only(tmp_path, 100)
    assert infos["1"].path == "records500/00000/00001_hr"
    assert infos["2"].problem == "records100/00000/00002_lr.hea is not there"


def test_ptbxl_rows_that_cannot_be_used_each_say_why(tmp_path: Path):
    rows = [ptbxl_row(1), ptbxl_row(1), ptbxl_row(2, codes="NORM"), ptbxl_row(3, codes="[1]")]
    write_ptbxl(tmp_path, [*rows, "4,1,x,2,{},11,../../secret,"])
    for number in (1, 2, 3):
        write_ptbxl_files(tmp_path, number, 100)
    infos = index_only(tmp_path)
    problems = {key: info.problem for key, info in infos.items()}
    assert problems["1"] == ""
    assert problems["1#2"] == "the id 1 is met before; only the first counts"
    assert problems["2"] == "its scp_codes cannot be understood: 'NORM'"
    assert problems["3"] == "its scp_codes cannot be understood: '[1]'"
    assert "'../../secret' leads out" in problems["4"]
    assert (infos["4"].age, infos["4"].sex, infos["4"].fold) == (None, "", None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ecg_id,patient_id\n1,2\n", "has no column age, sex, scp_codes"),
        (b"", "cannot be read as a CSV table"),
        (b"\x00\xff\x00" * 50, "has no column|cannot be read"),
    ],
)
def test_ptbxl_table_that_is_none_names_the_file_and_what_it_needs(
    tmp_path: Path, content: bytes, reason: str
):
    (tmp_path / "ptbxl_database.csv").write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        index_only(tmp_path)
    assert "ptbxl_database.csv" in str(error.value) and "scp_codes" in str(error.value)


# Challenge 2017 --------------------------------------------------------------------------------


def write_challenge2017(folder: Path, names: list[str]) -> None:
    for name in names:
        first = f"{name} 1 300 900 2014-05-08 05:05:15 "
        write_record(
            folder / name, sample_values(900, 1), leads=["ECG "], first_line=first, suffix=".mat"
        )


def test_challenge_2017_has_lead_i_and_the_letters_of_version_3(tmp_path: Path):
    write_challenge2017(tmp_path / "training2017", ["A00001", "A00002"])
    reference = tmp_path / "training2017" / "REFERENCE.csv"
    reference.write_text("A00001,N\nA00002,~\n", encoding="utf-8")
    (tmp_path / "REFERENCE-v3.csv").write_text("A00001,A\n", encoding="utf-8")
    infos = index_only(tmp_path)
    assert infos["A00001"].codes == ("cinc2017:A",)
    assert infos["A00002"].codes == ("cinc2017:~",)
    signal, fs, leads = read_signal("challenge-2017", tmp_path, infos["A00001"].path)
    assert (fs, leads, signal.shape) == (300.0, ("I",), (1, 900))


def test_challenge_2017_folder_itself_may_be_the_data_folder(tmp_path: Path):
    write_challenge2017(tmp_path, ["A00001"])
    (tmp_path / "REFERENCE.csv").write_text("A00001,O\n", encoding="utf-8")
    assert only_archive(tmp_path).reader == "challenge-2017"
    assert index_only(tmp_path)["A00001"].codes == ("cinc2017:O",)


def test_challenge_2017_validation_repeats_training_and_says_so(tmp_path: Path):
    write_challenge2017(tmp_path / "training2017", ["A00001"])
    write_challenge2017(tmp_path / "sample2017" / "validation", ["A00001", "A00009"])
    infos = index_only(tmp_path)
    repeated = infos["sample2017/validation/A00001"]
    assert repeated.problem == "the same recording as training2017/A00001.hea, which counts instead"
    assert infos["A00001"].problem == "" and infos["A00009"].problem == ""


def test_challenge_2017_records_without_files_or_headers_are_found_with_a_problem(tmp_path: Path):
    write_challenge2017(tmp_path / "training2017", ["A00001", "A00002", "A00003"])
    (tmp_path / "training2017" / "A00002.hea").unlink()
    (tmp_path / "training2017" / "A00003.mat").unlink()
    reference = tmp_path / "training2017" / "REFERENCE.csv"
    reference.write_text("A00001,N\nA00004,O\n", encoding="utf-8")
    problems = {key: info.problem for key, info in index_only(tmp_path).items()}
    assert problems == {
        "A00001": "",
        "A00002": "the header A00002.hea is not there",
        "A00003": "the signal file A00003.mat is not there",
        "A00004": "named by the reference; its files are not there",
    }


# PTB Diagnostic --------------------------------------------------------------------------------


def test_ptbdb_has_patients_from_folders_and_diagnoses_from_comments(tmp_path: Path):
    comments = [
        " age: 81", " sex: female", " Reason for admission: Myocardial infarction",
        " Additional diagnoses: Diabetes mellitus, Obesity",
    ]  # fmt: skip
    write_record(tmp_path / "patient001" / "s0010_re", sample_values(50, 12), comments=comments)
    comments = [" age: n/a", " sex: n/a", " Reason for admission: n/a"]
    write_record(tmp_path / "patient002" / "s0015lre", sample_values(50, 12), comments=comments)
    records = "patient001/s0010_re\npatient002/s0015lre\npatient003/s0017lre\n"
    (tmp_path / "RECORDS").write_text(records, encoding="utf-8")
    infos = index_only(tmp_path)
    first, second, third = infos.values()
    assert first.codes == ("ptb:myocardial infarction", "ptb:diabetes mellitus", "ptb:obesity")
    assert (first.patient_id, first.age, first.sex) == ("patient001", 81.0, "female")
    assert (second.codes, second.age, second.sex) == ((), None, "")
    assert "patient003/s0017lre.hea is not there" in third.problem


# Challenge 2020 and 2021, Chapman --------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "record", "name"),
    [
        ("challenge-2021/training/georgia/g1", "E00001", "challenge-2021-georgia"),
        ("physionet.org/files/challenge-2020/1.0.2/training/st_petersburg_incart/g1", "I0001",
         "challenge-2020-st-petersburg-incart"),
        ("Training_WFDB", "A0001", "challenge-2021-cpsc-2018"),
        ("PhysioNetChallenge2020_Training_2/Training_2", "Q0001", "challenge-2020-cpsc-2018-extra"),
        ("PhysioNetChallenge2020_Training_E/WFDB", "E00001", "challenge-2020-georgia"),
        ("WFDB_Ningbo", "JS10647", "challenge-2021-ningbo"),
        ("WFDB_ChapmanShaoxing", "JS00001", "challenge-2021-chapman-shaoxing"),
        ("WFDB_PTB", "S0001", "challenge-2021-ptb"),
        ("WFDB_PTBXL", "HR00001", "challenge-2021-ptb-xl"),
        ("WFDBRecords/01/010", "JS00001", "chapman"),
        ("a-large-scale-12-lead/1.0.0/WFDBRecords/46/460", "JS45552", "chapman"),
    ],
)  # fmt: skip
def test_snomed_archive_is_found_by_its_layout(tmp_path: Path, folder: str, record: str, name: str):
    path = tmp_path / folder / record
    write_record(path, sample_values(100, 12), comments=COMMENTS, suffix=".mat")
    archive = only_archive(tmp_path)
    info = index_only(tmp_path)[record]
    assert (archive.name, info.archive) == (name, name)
    assert info.codes == ("snomed:426177001", "snomed:164934002")
    assert (info.age, info.sex, info.problem) == (59.0, "female", "")
    assert read_signal(archive.reader, archive.folder, info.path)[0].shape == (12, 100)


def test_tranche_with_broken_records_lists_them_all(tmp_path: Path):
    folder = tmp_path / "training" / "georgia" / "g1"
    for number in range(1, 6):
        comments = ["Age: NaN", "Sex: Unknown", "Dx: Unknown"]
        path = folder / f"E{number:05}"
        write_record(path, sample_values(100, 12), comments=comments, suffix=".mat")
    (folder / "E00002.hea").unlink()
    (folder / "E00003.mat").unlink()
    (folder / "E00004.hea").write_bytes(b"\xff\xfe\x00")
    infos = index_only(tmp_path)
    problems = {key: info.problem for key, info in infos.items()}
    assert list(problems.values()).count("") == 2
    assert problems["E00002"] == "the header E00002.hea is not there"
    assert problems["E00003"] == "the signal file E00003.mat is not there"
    assert "first line cannot be understood" in problems["E00004"]
    assert (infos["E00001"].age, infos["E00001"].sex, infos["E00001"].codes) == (None, "", ())


def test_incart_neighbours_of_one_age_and_sex_are_one_patient(tmp_path: Path):
    ages = {"I0001": "65", "I0002": "65", "I0003": "70", "I0004": "65", "I0005": "NaN",
            "I0006": "NaN"}  # fmt: skip
    for name, age in ages.items():
        path = tmp_path / "st_petersburg_incart" / "g1" / name
        write_record(path, sample_values(50, 12), comments=[f"Age: {age}", "Sex: Male"])
    patients = {key: info.patient_id for key, info in index_only(tmp_path).items()}
    assert patients == {"I0001": "I0001", "I0002": "I0001", "I0003": "I0003", "I0004": "I0004",
                        "I0005": "I0005", "I0006": "I0006"}  # fmt: skip


def test_same_id_in_two_groups_is_found_twice_and_counts_once(tmp_path: Path):
    for group in ("g1", "g2"):
        path = tmp_path / "georgia" / group / "E00001"
        write_record(path, sample_values(50, 12), comments=COMMENTS)
    infos = index_only(tmp_path)
    assert [info.problem == "" for info in infos.values()] == [True, False]
    assert list(infos) == ["E00001", "E00001#2"]


# CPSC-2018 -------------------------------------------------------------------------------------


def write_cpsc2018(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"ECG": {"sex": "Male", "age": 52, "data": data}})


def test_cpsc2018_struct_is_read_with_its_labels_age_and_sex(tmp_path: Path):
    data = np.random.default_rng(0).normal(size=(12, 300))
    write_cpsc2018(tmp_path / "TrainingSet1" / "A0001.mat", data)
    write_cpsc2018(tmp_path / "TrainingSet3" / "A6877.mat", data[:6])
    (tmp_path / "TrainingSet3" / "A6876.mat").write_bytes(b"MATLAB 5.0, cut short")
    text = "Recording,First_label,Second_label,Third_label\nA0001,5,8,\nA0002,1,,\n"
    (tmp_path / "REFERENCE.csv").write_text(text, encoding="utf-8")
    infos = index_only(tmp_path)
    assert infos["A0001"] == RecordInfo(
        "cpsc-2018", "A0001", "TrainingSet1/A0001.mat", "", ("cpsc2018:5", "cpsc2018:8"),
        52.0, "male",
    )  # fmt: skip
    assert infos["A0002"].problem == "named by REFERENCE.csv; A0002.mat is not there"
    assert "A6876.mat is no readable MATLAB file" in infos["A6876"].problem
    signal, fs, leads = read_signal("cpsc-2018", tmp_path, "TrainingSet1/A0001.mat")
    assert (fs, leads) == (500.0, LEADS)
    np.testing.assert_allclose(signal, data, atol=1e-6)
    with pytest.raises(RecordError, match=r"12 leads are needed, found shape \(6, 300\)"):
        read_signal("cpsc-2018", tmp_path, "TrainingSet3/A6877.mat")


# SPH -------------------------------------------------------------------------------------------


def write_sph(folder: Path) -> np.ndarray:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    (folder / "records").mkdir(parents=True)
    data = np.random.default_rng(0).normal(size=(12, 300)).astype(np.float16)
    for name, key in (("A00001", "ecg"), ("A00002", "other")):
        with h5py.File(folder / "records" / f"{name}.h5", "w") as file:
            file[key] = data
    (folder / "records" / "A00003.h5").write_bytes(b"no HDF5")
    rows = ["ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date", "A00001,22;105+347,S1,55,M,300,2020-03-04"]
    rows += [f"A0000{number},1,S{number},32,F,300,2020-03-04" for number in (2, 3, 4)]
    (folder / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return data


def test_sph_codes_keep_their_modifiers_and_hdf5_is_read(tmp_path: Path):
    data = write_sph(tmp_path)
    infos = index_only(tmp_path)
    assert infos["A00001"] == RecordInfo(
        "sph", "A00001", "records/A00001.h5", "S1", ("aha:22", "aha:105+347"), 55.0, "male"
    )
    assert infos["A00004"].problem == "records/A00004.h5 is not there"
    signal, fs, leads = read_signal("sph", tmp_path, "records/A00001.h5")
    assert (fs, leads, signal.dtype) == (500.0, LEADS, np.float32)
    np.testing.assert_array_equal(signal, data)
    with pytest.raises(RecordError, match="has no dataset 'ecg'"):
        read_signal("sph", tmp_path, "records/A00002.h5")
    with pytest.raises(RecordError, match="no readable HDF5 file"):
        read_signal("sph", tmp_path, "records/A00003.h5")


def test_sph_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(RecordError, match="h5py is not installed: pip install h5py"):
        read_signal("sph", tmp_path, "records/A00001.h5")
