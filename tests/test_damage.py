"""Copies of records damaged in every way we know: none stops a run, none goes missing."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import Any

import numpy as np
import pytest
from damages import (
    REAL_LAYOUTS,
    SYNTHETIC_LAYOUTS,
    Copy,
    Damage,
    Layout,
    Outcome,
    all_of,
    as_lines_of_text,
    cells,
    cut_both,
    garbage,
    half,
    hdf5,
    header,
    header_bytes,
    make_dangling_link,
    make_folder,
    matlab,
    mend_checksums,
    one_bit_flipped,
    one_nan_lead,
    only_at_500_hz,
    prepare_damaged,
    samples,
    signal_bytes,
    twice_in_two_groups,
    with_leads_reversed,
    without_files,
)
from scipy.io import savemat

from einthoven.prepare import prepare_archives
from einthoven.synthetic.archives import write_synthetic_archives

# The names tell what a person, a disk or a download did to the record.
GEORGIA = [
    ("signal cut short", signal_bytes(half), r"cut short: [\d,]+ bytes where .* needs [\d,]+"),
    ("signal empty", signal_bytes(lambda raw: b""), r"cut short: 0 bytes"),
    ("signal missing", lambda c: c.signal_path.unlink(), r"\w+\.mat is not there"),
    ("signal is a folder", lambda c: make_folder(c.signal_path), r"\w+\.mat (is|cannot)"),
    ("signal is a short text", signal_bytes(lambda raw: b"404 not found\n"), r"short: 14 bytes"),
    ("signal is a long text", signal_bytes(as_lines_of_text), r"no MATLAB|not a MATLAB|spans"),
    ("header missing", lambda c: c.path.unlink(), r"header \w+\.hea is not there"),
    ("header empty", header_bytes(lambda raw: b""), r"header \w+\.hea is empty"),
    ("header blank", header_bytes(lambda raw: b" \n\n# nothing\n"), r"\w+\.hea is empty"),
    ("header is a folder", lambda c: make_folder(c.path), r"header \w+\.hea is not there"),
    ("header of random bytes", header_bytes(garbage), r"first line cannot be understood"),
    ("header in UTF-16", header_bytes(lambda raw: raw.decode().encode("utf-16")),
     r"first line cannot be understood"),
    ("header of another program", header(r"\A.*", "Patient: A. Smith"),
     r"first line cannot be understood: 'Patient: A. Smith'"),
    ("header cut after eight leads", header(r"(\A(?:.*\n){9})[\s\S]*", r"\1"),
     r"announces 12 leads and lists 8"),
    ("header without leads", header(r" 12 500", " 0 500"), r"lists no leads"),
    ("header of segments", header(r"\A(\S+) 12", r"\1/3 12"),
     r"announces 3 segments; 'E\d+\.mat', named as one, is not there"),
    ("lead of unknown name", header(r" V2$", " V22"), r"'V22' is not known.* V2"),
    ("leads without names", header(r" \S*V?[IaFLRV1-6]+$", ""), r"lead name '.*' is not known"),
    ("lead listed twice", header(r" V3$", " V2"), r"lead V2 is met twice"),
    ("gain is a word", header("1000/mV", "high/mV"), r"gain 'high/mV' cannot be understood"),
    ("gain tiny", header("1000/mV", "1e-40/mV"), r"spans|gain"),
    ("gain of raw steps", header("1000/mV", "1/mV"), r"spans [\d.]+ mV.*(unit|gain)"),
    ("unit is the volt", header("1000/mV", "1000/V"), r"spans [\d.]+ mV.*(unit|gain)"),
    ("unit unknown", header("1000/mV", "1000/furlong"), r"unit 'furlong' is not a voltage"),
    ("zero is a word", header(r" 16 0 ", " 16 zero "), r"ADC zero 'zero' is not a whole number"),
    ("format unknown", header(r"16\+24", "999+24"), r"format.*999"),
    ("rate zero", header(r" 500 5000", " 0 5000"), r"sampling rate of 0 Hz"),
    ("rate negative", header(r" 500 5000", " -500 5000"), r"sampling rate of -500 Hz"),
    ("rate no number", header(r" 500 5000", " nan 5000"), r"sampling rate of nan Hz"),
    ("rate of a thermometer", header(r" 500 5000", " 1 5000"), r"rate is 1 Hz; at least 50 Hz"),
    ("rate of a radio", header(r" 500 5000", " 1e9 5000"), r"lasts 5e-06 s; at least 1 s"),
    ("samples negative", header(r" 500 5000", " 500 -5000"), r"announces -5000 samples"),
    ("more samples announced than there", header(r" 500 5000", " 500 9000000000"),
     r"cut short: .* needs [\d,]{12,}"),
    ("no sample", cut_both, r"\w+\.mat holds no samples"),
    ("half a second", all_of(header(r" 500 5000", " 500 250"), mend_checksums),
     r"lasts 0\.5 s; at least 1 s"),
    ("format of another file", header(r"16\+24", "212+24"), r"checksum of lead I does not match"),
    ("format of 8 bits", header(r"16\+24", "80+24"), r"checksum of lead I does not match"),
    ("one bit flipped", signal_bytes(one_bit_flipped), r"checksum of lead \w+ does not match"),
    ("fewer samples announced than summed", header(r" 500 5000", " 500 2500"),
     r"checksum of lead I does not match: the signal file is damaged, or its header belongs to"),
    ("no values at all", samples(lambda v: v.fill(-32768)), r"100% of the samples are missing"),
    ("all zero", samples(lambda v: v.fill(0)), r"every lead is flat"),
    ("signal of another folder", header(r"^\w+\.mat", "../g1/E00001.mat"),
     r"outside its own folder: '\.\./g1/E00001\.mat'"),
    ("signal anywhere on the machine", header(r"^\w+\.mat", "/etc/passwd"), r"outside its own"),
]  # fmt: skip
GEORGIA_STORED = [
    ("gain zero", header("1000/mV", "0/mV"), {"times": 5.0}),
    ("gain of 4880", header("1000/mV", "4880/mV"), {"times": 1.0}),
    ("no values in one lead", samples(lambda v: v[:, 8].fill(-32768)),
     {"quality": "missing", "leads_present": "I,II,III,aVR,aVL,aVF,V1,V2,V4,V5,V6"}),
    ("a gap of a second", samples(lambda v: v[900:1250, 8].fill(-32768)), {"quality": "missing"}),
    ("one flat lead", samples(lambda v: v[:, 8].fill(7)),
     {"quality": "flat_lead", "flat_leads": "V3"}),
    ("limb leads swapped", samples(lambda v: np.copyto(v[:, :2], v[:, [1, 0]])),
     {"quality": "lead_law"}),
    ("clipped", samples(lambda v: np.clip(v, -60, 60, out=v)), {"quality": "clipped"}),
    ("one spike", samples(lambda v: v[2000].fill(32767)), {"n_windows": 1}),
    ("leads in reverse", with_leads_reversed, {"times": 1.0}),
    ("fewer samples announced than there",
     all_of(header(r" 500 5000", " 500 2500"), mend_checksums), {"n_samples": 500}),
    ("sums not given", header(r"(^\w+\.mat .* )-?\d+ 0 (\S+)$", r"\g<1>0 0 \2"), {"times": 1.0}),
    ("no number of samples", header(r" 500 5000.*", " 500"), {"times": 1.0}),
    ("odd rate", header(r" 500 5000", " 499.997 5000"), {"fs": 499.997}),
    ("line ends of Windows", header_bytes(lambda raw: raw.replace(b"\n", b"\r\n")), {"times": 1.0}),
    ("signal longer than announced", signal_bytes(lambda raw: raw + raw), {"times": 1.0}),
    ("no codes", header(r"^#Dx.*\n", ""), {"labels": []}),
    ("codes are words", header(r"^#Dx.*", "#Dx: normal, I think"), {"labels": []}),
    ("no comments", header(r"^#.*\n", ""), {"labels": [], "age": np.nan, "sex": ""}),
    ("age of a tree", header(r"^#Age.*", "#Age: 900"), {"age": np.nan}),
    ("age no number", header(r"^#Age.*", "#Age: NaN"), {"age": np.nan}),
    ("age negative", header(r"^#Age.*", "#Age: -7"), {"age": np.nan}),
    ("sex unknown", header(r"^#Sex.*", "#Sex: purple"), {"sex": ""}),
]  # fmt: skip
PTB_XL_ROWS = [
    ("row without files", without_files, r"records100/90000/\d+_lr\.hea is not there"),
    ("row without a path", cells(filename_lr=""), r"no file is named"),
    ("path out of the archive", cells(filename_lr="../../elsewhere"), r"leads out of the archive"),
    ("path of Windows out of the archive", cells(filename_lr="..\\x"), r"leads out of the archive"),
    ("path of the machine", cells(filename_lr="/etc/passwd"), r"leads out of the archive"),
    ("codes no dictionary", cells(scp_codes="NORM"), r"scp_codes cannot be understood: 'NORM'"),
    ("samples cut short", signal_bytes(half), r"cut short"),
    ("samples empty", signal_bytes(lambda raw: b""), r"cut short: 0 bytes"),
]
PTB_XL_STORED = [
    ("age hidden", cells(age="300.0"), {"age": 90.0}),
    ("age missing", cells(age=""), {"age": np.nan}),
    ("age below zero", cells(age="-3"), {"age": np.nan}),
    ("sex neither", cells(sex="7"), {"sex": ""}),
    ("codes none", cells(scp_codes="{}"), {"labels": []}),
    ("codes unknown", cells(scp_codes="{'XYZ': 100.0}"), {"labels": []}),
    ("patient unknown", cells(patient_id=""), {"patient_id": ""}),
    ("fold 17", cells(strat_fold="17"), {}),
    ("fold a word", cells(strat_fold="test"), {}),
    ("only the 500 Hz file", only_at_500_hz, {"fs": 500.0}),
]
C2017 = [
    ("one lead, signal cut short", signal_bytes(half), r"cut short"),
    ("one lead, signal empty", signal_bytes(lambda raw: b""), r"cut short: 0 bytes"),
    ("one lead, header gone", lambda c: c.path.unlink(), r"header A\d+\.hea is not there"),
    ("one lead, only in the reference", without_files, r"named by the reference"),
    ("one lead, all zero", samples(lambda v: v.fill(0)), r"every lead is flat"),
]
C2017_STORED = [
    ("one lead, not in the reference", lambda c: c.row.clear(), {"labels": []}),
    ("one lead, unknown letter", cells(**{"1": "Q"}), {"labels": []}),
]
CPSC = [
    ("struct is text", signal_bytes(as_lines_of_text), r"A\d+\.mat is no readable MATLAB file"),
    ("struct cut short", signal_bytes(half), r"A\d+\.mat is no readable MATLAB file"),
    ("struct empty", signal_bytes(lambda raw: b""), r"A\d+\.mat is no readable MATLAB file"),
    ("struct gone", without_files, r"A\d+\.mat is not there"),
    ("struct of another name", lambda c: savemat(c.path, {"EEG": np.ones(3)}), r"no struct ECG"),
    ("struct without a signal", matlab(data=None), r"has no field data"),
    ("struct of eleven leads", matlab(data=lambda v: v[:11]), r"12 leads .* \(11, \d+\)"),
    (
        "struct without samples",
        matlab(data=lambda v: v[:, :0]),
        r"holds no samples",
    ),
    ("struct of words", matlab(data="normal"), r"12 leads are needed"),
    ("struct of complex numbers", matlab(data=lambda v: v * 1j), r"complex|real numbers"),
    ("struct in microvolts", matlab(data=lambda v: v * 1000), r"spans [\d.]+ mV.*unit"),
    ("struct in volts", matlab(data=lambda v: v / 1000), r"spans [\d.]+ µV"),
    ("struct of huge numbers", matlab(data=lambda v: v * 1e300), r"samples are missing|spans"),
    ("struct of NaN", matlab(data=lambda v: v * np.nan), r"100% of the samples are missing"),
    ("struct of infinities", matlab(data=lambda v: v * 0 + np.inf), r"samples are missing"),
]
CPSC_STORED = [
    ("struct with one lead of NaN", matlab(data=one_nan_lead), {"quality": "missing"}),
    ("struct without age and sex", matlab(age=None, sex=None), {"age": np.nan, "sex": ""}),
    ("struct of age NaN", matlab(age=np.nan), {"age": np.nan}),
    ("struct of sex 3", matlab(sex=3.0), {"sex": ""}),
    ("struct of class 42", cells(First_label="42"), {"labels": []}),
]
SPH = [
    ("HDF5 cut short", lambda c: c.path.write_bytes(half(c.path.read_bytes())), r"readable HDF5"),
    ("HDF5 is text", lambda c: c.path.write_text("moved"), r"no readable HDF5 file"),
    ("HDF5 empty", lambda c: c.path.write_bytes(b""), r"no readable HDF5 file"),
    ("HDF5 is a folder", lambda c: make_folder(c.path), r"SPH\d+\.h5 is not there"),
    ("HDF5 gone", without_files, r"records/SPH\d+\.h5 is not there"),
    ("HDF5 of another name", hdf5(lambda v: v, "eeg"), r"has no dataset 'ecg'"),
    ("HDF5 of words", hdf5(lambda v: ["I am an ECG"] * 12), r"leads are needed|number"),
    ("HDF5 group", hdf5(lambda v: v, "ecg/inner"), r"SPH\d+\.h5 .*dataset"),
    ("HDF5 on its side", hdf5(lambda v: v.T), r"12 leads are needed, found shape \(\d+, 12\)"),
    ("HDF5 of huge numbers", hdf5(lambda v: v.astype(float) * 1e300), r"missing|spans"),
    ("HDF5 in microvolts", hdf5(lambda v: v.astype(float) * 1000), r"spans [\d.]+ mV.*unit"),
]
SPH_STORED = [
    ("HDF5 with one lead of NaN", hdf5(one_nan_lead), {"quality": "missing"}),
    ("HDF5 of unknown code", cells(AHA_Code="99999", SNOMEDCTCode=""), {"labels": []}),
    ("HDF5 of no age and odd sex", cells(Age="", Sex="?"), {"age": np.nan, "sex": ""}),
]
PTBDB = [
    ("Frank's leads gone", lambda c: c.path.with_suffix(".xyz").unlink(), r"\.xyz is not there"),
    ("Frank's leads cut short", lambda c: c.path.with_suffix(".xyz").write_bytes(b"12"),
     r"\.xyz is cut short"),
    ("chest leads cut short", signal_bytes(half), r"\.dat is cut short"),
    ("only in RECORDS", without_files, r"named by RECORDS"),
    ("an unknown lead beside the twelve", header(r" vx$", " ear"), r"'ear' is not known"),
]  # fmt: skip
PTBDB_STORED = [("no clinical comments", header(r"^#.*\n?", ""), {"labels": [], "sex": ""})]

POSIX, NOT_ROOT = os.name == "posix", hasattr(os, "geteuid") and os.geteuid() != 0
HAS_H5PY = importlib.util.find_spec("h5py") is not None
LAYOUTS = {name: layout for name, layout in REAL_LAYOUTS.items() if name != "sph" or HAS_H5PY}


def rejected_as(archive: str, table: list[Any], when: bool = True) -> list[Damage]:
    return [Damage(name, archive, do, reason, when=when) for name, do, reason in table]


def stored_with(archive: str, table: list[Any], when: bool = True) -> list[Damage]:
    return [Damage(name, archive, do, stored=values, when=when) for name, do, values in table]


REAL = [
    *rejected_as("challenge-2021-georgia", GEORGIA),
    *stored_with("challenge-2021-georgia", GEORGIA_STORED),
    Damage("id met in two groups", "challenge-2021-georgia", twice_in_two_groups,
           r"the id E\d+ is met before", record="{}#2"),
    Damage("signal is a link to nowhere", "challenge-2021-georgia",
           lambda c: make_dangling_link(c.signal_path), r"\.mat is not there", when=POSIX),
    Damage("signal may not be read", "challenge-2021-georgia",
           lambda c: c.signal_path.chmod(0), r"ermission|may not", when=POSIX and NOT_ROOT),
    Damage("header may not be read", "challenge-2021-georgia",
           lambda c: c.path.chmod(0), r"ermission|may not", when=POSIX and NOT_ROOT),
    *rejected_as("ptb-xl", PTB_XL_ROWS), *stored_with("ptb-xl", PTB_XL_STORED),
    Damage("id of another record", "ptb-xl", cells(ecg_id="1"), "the id 1 is met", record="1#2"),
    *rejected_as("challenge-2017", C2017), *stored_with("challenge-2017", C2017_STORED),
    *rejected_as("cpsc-2018", CPSC), *stored_with("cpsc-2018", CPSC_STORED),
    *rejected_as("sph", SPH, HAS_H5PY), *stored_with("sph", SPH_STORED, HAS_H5PY),
    Damage("HDF5 of another folder", "sph", cells(ECG_ID="../../x.h5"), "leads out of the archive",
           record="../../x", when=HAS_H5PY),
    Damage("RECORDS leads elsewhere", "ptbdb", all_of(without_files, cells(**{"0": "../../x"})),
           "leads out of the archive", record="x"),
    *rejected_as("ptbdb", PTBDB), *stored_with("ptbdb", PTBDB_STORED),
]  # fmt: skip
ALSO_SYNTHETIC = {
    "signal cut short", "signal empty", "signal missing", "header missing", "header empty",
    "header of random bytes", "header cut after eight leads", "lead of unknown name",
    "lead listed twice", "unit is the volt", "unit unknown", "rate zero",
    "more samples announced than there", "half a second", "no values at all", "all zero",
    "signal of another folder", "no values in one lead", "one flat lead", "limb leads swapped",
    "leads in reverse", "line ends of Windows", "no codes", "age of a tree", "sex unknown",
}  # fmt: skip
SYNTHETIC = [
    *rejected_as("ptb-xl", PTB_XL_ROWS),
    *stored_with("ptb-xl", PTB_XL_STORED),
    *rejected_as("chapman", [row for row in GEORGIA if row[0] in ALSO_SYNTHETIC]),
    *stored_with("chapman", [row for row in GEORGIA_STORED if row[0] in ALSO_SYNTHETIC]),
]

# Where each record ends --------------------------------------------------------------------------

# What only a programmer understands.
CODE_WORDS = re.compile(r"\w+(Error|Exception|Warning)\b|Errno|Traceback|0x[0-9a-f]{6}|<[a-z_.]+ ")


def check_damage(outcome: Outcome, damage: Damage) -> None:
    record_id, source = outcome.ids[damage.name]
    of_archive = outcome.rejected[outcome.rejected["archive"] == damage.archive]
    reasons = of_archive["reason"][of_archive["record_id"] == record_id].tolist()
    if damage.reason:
        assert len(reasons) == 1, "stored, or found nowhere"
        assert re.search(damage.reason, reasons[0]), reasons[0]
        assert not CODE_WORDS.search(reasons[0]), reasons[0]
        assert len(reasons[0]) < 250, reasons[0]
        return
    assert reasons == []
    manifest = outcome.store.manifest.set_index("record")
    row = manifest.loc[f"{damage.archive}/{record_id}"]
    assert 1 <= row["fold"] <= 10
    wanted = dict(damage.stored)
    times = wanted.pop("times", None)
    if times is not None:
        undamaged = outcome.windows(f"{damage.archive}/{source}")
        stored = outcome.windows(f"{damage.archive}/{record_id}")
        assert np.abs(stored - times * undamaged).max() <= 2 * times
    for name, value in wanted.items():
        if name == "quality":
            assert value in row[name].split(";"), row[name]
        elif name == "labels":
            assert list(row[name]) == value
        else:
            assert row[name] == value or (value != value and row[name] != row[name]), row[name]


def as_parameters(damages: list[Damage]) -> list[Any]:
    skipped = pytest.mark.skip(reason="needs h5py, Linux, links, or a user who is not root")
    return [pytest.param(d, id=d.name, marks=[] if d.when else [skipped]) for d in damages]


@pytest.fixture(scope="module")
def damaged(shared_data, tmp_path_factory) -> Outcome:
    return prepare_damaged(tmp_path_factory.mktemp("damaged"), shared_data, LAYOUTS, REAL)


@pytest.fixture(scope="module")
def damaged_synthetic(tmp_path_factory) -> Outcome:
    root = tmp_path_factory.mktemp("damaged_synthetic")
    write_synthetic_archives(root / "whole", n_patients=24)
    return prepare_damaged(root, root / "whole", SYNTHETIC_LAYOUTS, SYNTHETIC)


@pytest.mark.parametrize("damage", as_parameters(REAL))
def test_damaged_real_record_is_rejected_with_a_reason_or_stored_with_a_flag(damaged, damage):
    check_damage(damaged, damage)


@pytest.mark.parametrize("damage", as_parameters(SYNTHETIC))
def test_damaged_synthetic_record_is_rejected_or_stored(damaged_synthetic, damage):
    check_damage(damaged_synthetic, damage)


# What becomes of the rest ------------------------------------------------------------------------


def check_counts(outcome: Outcome, archive: str, layout: Layout, damages: list[Damage]) -> None:
    """Found = stored + rejected, no record counts twice, and no undamaged one is lost."""
    tables = (outcome.mapping, outcome.store.manifest, outcome.rejected)
    found, stored, rejected = (t[t["archive"] == archive]["record_id"].tolist() for t in tables)
    assert sorted(found) == sorted(stored + rejected) and len(set(found)) == len(found)
    mine = [damage for damage in damages if damage.archive == archive and damage.when]
    twice = sum(damage.record == "{}#2" for damage in mine)
    assert len(found) == len(layout.sources) + len(mine) + twice
    assert {layout.source_id(source) for source in layout.sources} <= set(stored)


@pytest.mark.parametrize("archive", LAYOUTS)
def test_found_is_stored_and_rejected_and_undamaged_neighbours_are_stored(damaged, archive):
    check_counts(damaged, archive, LAYOUTS[archive], REAL)


@pytest.mark.parametrize("archive", SYNTHETIC_LAYOUTS)
def test_found_is_stored_and_rejected_in_synthetic_archives(damaged_synthetic, archive):
    check_counts(damaged_synthetic, archive, SYNTHETIC_LAYOUTS[archive], SYNTHETIC)


def test_counts_of_the_whole_run_add_up(damaged):
    done = damaged.done
    assert done.n_found == len(damaged.mapping) == done.n_stored + done.n_rejected
    assert (done.n_stored, done.n_rejected) == (len(damaged.store.manifest), len(damaged.rejected))


def test_second_run_over_damaged_archives_makes_no_shard(damaged):
    again = prepare_archives(damaged.settings)
    assert again.n_chunks_made == 0
    assert (again.n_stored, again.n_rejected) == (damaged.done.n_stored, damaged.done.n_rejected)


def rename_in_latin_1(copy: Copy) -> None:
    """As unpacked from an old zip file: the name's bytes are no UTF-8."""
    for path in (copy.path, copy.signal_path):
        name = os.fsencode(path.parent) + b"/JS\xfc00" + path.suffix.encode()
        os.rename(path, name)  # noqa: PTH104


STOPPERS = [
    Damage("name in Latin-1", "chapman", rename_in_latin_1, "x", when=sys.platform == "linux"),
    Damage("fold in superscript", "ptb-xl", cells(strat_fold="²")),
]


@pytest.mark.parametrize("damage", as_parameters(STOPPERS))
def test_one_odd_record_never_stops_a_run(tmp_path, damage):
    write_synthetic_archives(tmp_path / "whole", n_patients=24)
    layouts = {damage.archive: SYNTHETIC_LAYOUTS[damage.archive]}
    done = prepare_damaged(tmp_path, tmp_path / "whole", layouts, [damage]).done
    assert done.n_found == 4 == done.n_stored + done.n_rejected
