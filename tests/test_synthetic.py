"""What each class of synthetic ECG must show, measured on signals without noise."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from einthoven.errors import ConfigError, DataError, RecordError
from einthoven.readers.registry import find_archives, index_archive, read_signal
from einthoven.records import LEADS
from einthoven.synthetic.archives import _write_challenge_2017, write_synthetic_archives
from einthoven.synthetic.classes import ARCHIVE_CLASSES, deal_classes
from einthoven.synthetic.ecg import parse_kind, recording_noise, synthesize
from einthoven.synthetic.morphology import DOWER_MATRIX, MORPHOLOGIES, diseased_heart
from einthoven.synthetic.patients import draw_patient
from einthoven.synthetic.rhythm import RHYTHMS, Beats, fibrillatory_waves, flutter_waves
from einthoven.synthetic.wfdb_writing import to_digital, write_wfdb_dat, write_wfdb_mat

FS = 500
PEOPLE = range(12)
KINDS = sorted({each.kind for each in ARCHIVE_CLASSES} | set(RHYTHMS) | set(MORPHOLOGIES))


def person(seed: int):
    return draw_patient(np.random.default_rng(seed))


def record(kind: str, seed: int, noise: float = 0.0, seconds: float = 10.0) -> np.ndarray:
    return synthesize(kind, person(seed), FS, seconds, np.random.default_rng(seed), noise)


def beats_of(kind: str, seed: int, seconds: float = 10.0) -> Beats:
    """The beats of `record`: the first thing that it draws."""
    rhythm, _ = parse_kind(kind)
    return RHYTHMS[rhythm](person(seed), seconds, np.random.default_rng(seed))


def mean_beat(kind: str, seed: int, before: float = 0.35, after: float = 0.5) -> np.ndarray:
    """``(12, sample)``: the sinus beats of a record averaged, above the level before P."""
    signal = record(kind, seed)
    whole = beats_of(kind, seed).r
    centres = np.round(whole[(whole > before) & (whole < 10 - after)] * FS).astype(int)
    window = np.arange(-int(before * FS), int(after * FS))
    beat = np.mean([signal[:, centre + window] for centre in centres], axis=0)
    return beat - beat[:, :10].mean(axis=1, keepdims=True)


def at(beat: np.ndarray, lead: str, ms_after_r: float) -> float:
    return float(beat[LEADS.index(lead), round((0.35 + ms_after_r / 1e3) * FS)])


def qrs(beat: np.ndarray, lead: str, start_ms: float = -80, stop_ms: float = 120) -> np.ndarray:
    first, last = (round((0.35 + ms / 1e3) * FS) for ms in (start_ms, stop_ms))
    return beat[LEADS.index(lead), first:last]


def st_level(kind: str, seed: int, lead: str) -> float:
    """Millivolts, 60 ms after the J point."""
    j = diseased_heart(person(seed), parse_kind(kind)[1]).j
    return at(mean_beat(kind, seed), lead, 1e3 * j + 60)


def qrs_width_ms(kind: str, seed: int) -> float:
    """From the first to the last steep sample of any lead around R."""
    beat = mean_beat(kind, seed)
    slope = np.abs(np.diff(beat, axis=1)).max(axis=0) * FS
    near = slope[round(0.23 * FS) : round(0.50 * FS)]
    steep = np.flatnonzero(near > 0.10 * near.max())
    return float(np.ptp(steep) + 1) * 1e3 / FS


def t_peak(beat: np.ndarray, lead: str) -> float:
    """The tallest deflection after QRS, with its sign."""
    wave = qrs(beat, lead, 180, 420)
    return float(wave[np.abs(wave).argmax()])


# Every kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_limb_lead_laws_hold_exactly(kind):
    signal = record(kind, 0, noise=1.0)
    assert signal.shape == (12, 5000) and signal.dtype == np.float32
    assert np.isfinite(signal).all()
    i, ii, iii, avr, avl, avf = signal[:6]
    for residual in (i + iii - ii, avr + avl + avf, avr + (i + ii) / 2, avl - (i - iii) / 2):
        assert np.abs(residual).max() < 1e-6 * max(1.0, np.abs(signal).max())


@pytest.mark.parametrize("kind", KINDS)
def test_voltages_are_those_of_a_human_heart(kind):
    heights = [np.ptp(record(kind, seed), axis=1) for seed in PEOPLE]
    assert 0.5 < np.median([height.max() for height in heights]) < 6
    assert max(height.max() for height in heights) < 8


def test_same_seed_gives_same_signal_and_other_seed_another():
    first = record("sinus", 3, noise=1.0)
    assert np.array_equal(first, record("sinus", 3, noise=1.0))
    other = synthesize("sinus", person(3), FS, 10, np.random.default_rng(4))
    assert not np.array_equal(first, other)


def test_records_of_one_patient_are_more_alike_than_those_of_two():
    def lead_vector(person_seed: int, record_seed: int) -> np.ndarray:
        rng = np.random.default_rng(record_seed)
        signal = synthesize("sinus", person(person_seed), FS, 10, rng, 0)
        return np.percentile(signal, [1, 50, 97, 99.5], axis=1).ravel()

    same = [np.linalg.norm(lead_vector(p, 1) - lead_vector(p, 2)) for p in PEOPLE]
    different = [np.linalg.norm(lead_vector(p, 1) - lead_vector(p + 1, 2)) for p in PEOPLE]
    assert np.mean(different) > 3 * np.mean(same)


def test_same_record_at_two_rates_shows_the_same_beats():
    coarse = synthesize("rbbb", person(1), 250, 10, np.random.default_rng(1), 0)
    assert np.abs(record("rbbb", 1)[:, ::2] - coarse).max() < 1e-3


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(ConfigError, match="afib"):
        parse_kind("fibrillation")
    with pytest.raises(ConfigError, match="at most one rhythm"):
        parse_kind("afib+sinus")


def test_patients_differ_in_heart_and_person():
    people = [person(seed) for seed in range(300)]
    assert {each.sex for each in people} == {"female", "male"}
    assert min(each.age for each in people) >= 18 and max(each.age for each in people) <= 95
    assert np.std([each.axis for each in people]) > 8
    assert np.std([each.rate for each in people]) > 4


# The normal heart --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PEOPLE)
def test_normal_qrs_is_narrow(seed):
    assert 65 <= qrs_width_ms("sinus", seed) <= 112


def test_normal_r_wave_grows_across_the_chest():
    for seed in PEOPLE:
        beat = mean_beat("sinus", seed)
        v1, v2, v3, v4 = (qrs(beat, lead).max() for lead in ("V1", "V2", "V3", "V4"))
        assert v1 < v2 < v4 and v1 < v3 < v4
        assert qrs(beat, "V1").max() < -qrs(beat, "V1").min()
        assert qrs(beat, "V6").max() > 2 * -qrs(beat, "V6").min()


def test_normal_avr_is_negative_and_t_upright_where_it_must_be():
    for seed in PEOPLE:
        beat = mean_beat("sinus", seed)
        assert -qrs(beat, "aVR").min() > 1.5 * max(qrs(beat, "aVR").max(), 0.01)
        assert t_peak(beat, "aVR") < 0
        for lead in ("I", "II", "V3", "V4", "V5", "V6"):
            assert t_peak(beat, lead) > 0.04, (seed, lead)


def test_normal_p_wave_precedes_qrs_by_a_normal_pr():
    for seed in PEOPLE:
        heart = diseased_heart(person(seed), ())
        assert 0.12 <= heart.pr <= 0.20
        onset_ms = -1e3 * (heart.onset + heart.pr)
        p_wave = qrs(mean_beat("sinus", seed), "II", onset_ms, onset_ms + 105)
        assert 0.05 < p_wave.max() < 0.28


def test_normal_st_segment_is_level():
    for seed in PEOPLE:
        for lead in ("I", "II", "III", "aVL", "aVF", "V1", "V5", "V6"):
            assert abs(st_level("sinus", seed, lead)) < 0.1, (seed, lead)


def test_normal_voltages_are_those_of_real_normal_records(shared_data):
    def heights(signals: list[np.ndarray]) -> np.ndarray:
        levels = [np.percentile(signal, [0.7, 50, 99.3], axis=1) for signal in signals]
        return np.median([[high - middle, low - middle] for low, middle, high in levels], axis=0)

    real = []
    with (shared_data / "ptb-xl" / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["scp_codes"] == "{'NORM': 100.0, 'SR': 0.0}" and len(real) < 150:
                path = shared_data / "ptb-xl" / f"{row['filename_lr']}.dat"
                real.append(np.fromfile(path, "<i2").reshape(-1, 12).T / 1000)
    rng = np.random.default_rng(0)
    made = [synthesize("sinus", draw_patient(rng), 100, 10, rng) for _ in real]
    assert len(real) == 150
    assert np.abs(heights(made) - heights(real)).max() < 0.25


# Rhythms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PEOPLE)
def test_fibrillation_is_irregular_and_has_no_p(seed):
    beats = beats_of("afib", seed, seconds=120)
    intervals = np.diff(beats.r)
    assert intervals.std() / intervals.mean() > 0.15
    assert intervals.min() > 0.3
    assert set(beats.kind) == {"no_p"}
    sinus = np.diff(beats_of("sinus", seed, seconds=120).r)
    assert sinus.std() / sinus.mean() < 0.10


@pytest.mark.parametrize("seed", PEOPLE)
def test_fibrillation_has_f_waves_of_4_to_9_hz_in_v1(seed):
    rng = np.random.default_rng(seed)
    waves = fibrillatory_waves(np.arange(5000) / FS, person(seed), rng)[2]
    spectrum = np.abs(np.fft.rfft(waves)) ** 2
    peak = np.fft.rfftfreq(5000, 1 / FS)[spectrum.argmax()]
    assert 4 < peak < 9
    assert 0.05 < np.ptp(waves) < 0.6


@pytest.mark.parametrize("seed", PEOPLE)
def test_flutter_runs_near_300_per_minute_with_whole_ratios(seed):
    beats = beats_of("flutter", seed)
    assert 250 < 60 / beats.cycle < 340
    ratios = np.diff(beats.r) / beats.cycle
    assert np.abs(ratios - np.round(ratios)).max() < 0.06
    assert set(np.round(ratios)) <= {2.0, 3.0, 4.0}


def test_flutter_waves_are_largest_in_the_inferior_leads_and_opposite_in_v1():
    waves = flutter_waves(np.arange(5000) / FS, beats_of("flutter", 1), person(1))
    leads = DOWER_MATRIX @ waves
    assert np.ptp(leads[1]) > 3 * np.ptp(leads[0])
    assert np.corrcoef(leads[1], leads[2])[0, 1] < -0.9


@pytest.mark.parametrize(
    ("kind", "slowest", "fastest"),
    [("bradycardia", 35, 60), ("sinus", 55, 100), ("tachycardia", 100, 150)],
)
def test_sinus_rates_are_what_their_names_say(kind, slowest, fastest):
    for seed in PEOPLE:
        rate = 60 / np.diff(beats_of(kind, seed).r).mean()
        assert slowest < rate < fastest


def test_ventricular_premature_beats_are_early_broad_and_followed_by_a_full_pause():
    for seed in PEOPLE:
        beats = beats_of("pvc", seed)
        early = np.flatnonzero(beats.kind == "ventricular")
        early = early[early < len(beats.r) - 1]
        mean = np.median(np.diff(beats.r))
        assert len(early) >= 1
        assert ((beats.r > 0) & (beats.r < 10) & (beats.kind == "ventricular")).any()
        before, after = np.diff(beats.r)[early - 1], np.diff(beats.r)[early]
        assert (before < 0.75 * mean).all()
        assert np.abs(before + after - 2 * mean).max() < 0.25 * mean


def test_atrial_premature_beats_are_early_and_reset_the_sinus_node():
    for seed in PEOPLE:
        beats = beats_of("pac", seed)
        early = np.flatnonzero(beats.kind == "atrial")
        early = early[early < len(beats.r) - 1]
        mean = np.median(np.diff(beats.r))
        before, after = np.diff(beats.r)[early - 1], np.diff(beats.r)[early]
        assert (before < 0.75 * mean).all()
        assert (before + after < 1.85 * mean).all()


# Conduction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PEOPLE)
@pytest.mark.parametrize(
    ("kind", "narrowest", "widest"),
    [("lbbb", 120, 190), ("rbbb", 120, 170), ("irbbb", 85, 122)],
)
def test_bundle_branch_blocks_have_their_qrs_width(kind, narrowest, widest, seed):
    assert narrowest <= qrs_width_ms(kind, seed) <= widest


def test_left_bundle_branch_block_is_deep_in_v1_and_upright_and_discordant_laterally():
    for seed in PEOPLE:
        beat = mean_beat("lbbb", seed)
        v1, v6, i = (qrs(beat, lead, -90, 60) for lead in ("V1", "V6", "I"))
        assert -v1.min() > 3 * max(v1.max(), 0.05)
        assert v6.max() > 0.5 and v6.min() > -0.15 and i.min() > -0.15
        assert t_peak(beat, "V6") < 0 < t_peak(beat, "V1")


def test_right_bundle_branch_block_has_rsr_in_v1_and_a_broad_s_in_i_and_v6():
    for seed in PEOPLE:
        beat = mean_beat("rbbb", seed)
        first, last = qrs(beat, "V1", -50, 0), qrs(beat, "V1", 30, 120)
        assert first.max() > 0.05
        assert last.max() > first.max() and last.max() > 0.3
        for lead in ("I", "V6"):
            assert (qrs(beat, lead, 20, 120) < -0.08).sum() * 1e3 / FS >= 40
        assert t_peak(beat, "V1") < 0


def test_first_degree_block_prolongs_pr():
    for seed in PEOPLE:
        assert diseased_heart(person(seed), ("av_block_1",)).pr > 0.20


# Hypertrophy, ischaemia, infarction --------------------------------------------------------------


def test_hypertrophy_meets_sokolow_and_lyon_and_shows_strain():
    for seed in PEOPLE:
        beat = mean_beat("lvh", seed)
        s_v1 = -qrs(beat, "V1").min()
        r_lateral = max(qrs(beat, "V5").max(), qrs(beat, "V6").max())
        assert s_v1 + r_lateral > 3.5
        assert st_level("lvh", seed, "V6") < -0.04
        assert t_peak(beat, "V5") < 0 and t_peak(beat, "V6") < 0


def test_normal_voltage_stays_below_sokolow_and_lyon_in_most():
    sums = []
    for seed in PEOPLE:
        beat = mean_beat("sinus", seed)
        sums.append(-qrs(beat, "V1").min() + max(qrs(beat, "V5").max(), qrs(beat, "V6").max()))
    assert np.median(sums) < 3.0


def test_st_depression_is_lateral_and_inferior_with_elevation_in_avr():
    for seed in PEOPLE:
        for lead in ("II", "V4", "V5"):
            assert st_level("st_depression", seed, lead) < -0.08, (seed, lead)
        assert st_level("st_depression", seed, "aVR") > 0.05


def test_inverted_t_is_inverted_where_t_is_upright():
    for seed in PEOPLE:
        beat = mean_beat("t_inversion", seed)
        assert all(t_peak(beat, lead) < -0.1 for lead in ("V3", "V4", "V5"))


TERRITORIES = {
    "mi_inferior": (("II", "III", "aVF"), "aVL"),
    "mi_anterior": (("V1", "V2", "V3"), "III"),
    "mi_lateral": (("I", "aVL", "V5", "V6"), "III"),
}


@pytest.mark.parametrize("place", TERRITORIES)
def test_acute_infarction_lifts_st_in_its_leads_and_lowers_it_opposite(place):
    leads, opposite = TERRITORIES[place]
    for seed in PEOPLE:
        for lead in leads:
            assert st_level(f"{place}_acute", seed, lead) >= 0.1, (seed, lead)
        assert st_level(f"{place}_acute", seed, opposite) < -0.03, seed


@pytest.mark.parametrize("place", TERRITORIES)
def test_old_infarction_leaves_q_waves_and_inverted_t_in_its_leads(place):
    for seed in PEOPLE:
        beat = mean_beat(f"{place}_old", seed)
        for lead in TERRITORIES[place][0]:
            start = qrs(beat, lead, -60, 0)
            assert (start < -0.06).sum() * 1e3 / FS >= 20, (seed, lead)
            assert t_peak(beat, lead) < 0, (seed, lead)


# The recorder ------------------------------------------------------------------------------------


def test_mains_is_at_50_or_60_hz_and_absent_where_the_rate_cannot_hold_it():
    times_10s = 10 * FS
    noise = recording_noise(times_10s, FS, np.random.default_rng(0), 1.0)
    spectrum = np.abs(np.fft.rfft(noise)).max(axis=0)
    frequencies = np.fft.rfftfreq(times_10s, 1 / FS)
    above = frequencies > 20
    peak = frequencies[above][spectrum[above].argmax()]
    assert min(abs(peak - 50), abs(peak - 60)) < 0.5


def test_noise_grows_with_its_setting():
    quiet, loud = (record("sinus", 2, noise) for noise in (0.5, 5.0))
    clean = record("sinus", 2)
    assert np.std(loud - clean) > 4 * np.std(quiet - clean)


# Files -------------------------------------------------------------------------------------------


def test_dat_and_mat_files_read_back_with_wfdb(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    signal = record("sinus", 0, noise=1.0)[:, :1000]
    write_wfdb_dat(tmp_path / "a", to_digital(signal), FS, LEADS)
    write_wfdb_mat(tmp_path / "b", to_digital(signal), FS, LEADS, "23-Mar-2021 20:20:47")
    for name in ("a", "b"):
        read = wfdb.rdrecord(str(tmp_path / name))
        assert np.abs(read.p_signal.T - signal).max() <= 0.0006
        assert read.fs == FS and tuple(read.sig_name) == LEADS
    assert np.array_equal(loadmat(tmp_path / "b.mat")["val"], to_digital(signal))


def test_no_value_is_written_as_wfdb_writes_it():
    assert to_digital(np.array([[np.nan, 0.5]]))[0].tolist() == [-32768, 500]


def test_small_archives_keep_the_shares_of_classes():
    dealt = Counter(each.kind for each in deal_classes(120, np.random.default_rng(0)))
    total = sum(each.share for each in ARCHIVE_CLASSES)
    for each in ARCHIVE_CLASSES:
        assert abs(dealt[each.kind] - 120 * each.share / total) < 1


N_PATIENTS = 60


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "Dataset"
    assert write_synthetic_archives(folder, N_PATIENTS, seed=5)
    return folder


def test_archives_are_found_and_read_by_the_readers(dataset_dir):
    archives, _ = find_archives(dataset_dir)
    assert [archive.name for archive in archives] == ["challenge-2017", "chapman", "ptb-xl"]
    for archive in archives:
        infos = index_archive(archive, 100)
        assert all(info.codes for info in infos if not info.problem)
        problems = 0
        for info in infos:
            try:
                signal, _, _ = read_signal(archive.reader, archive.folder, info.path)
                assert np.nanmax(np.abs(signal), initial=0) < 25
            except RecordError:
                problems += 1
        assert 1 <= problems <= 3


def test_ptb_xl_patients_have_several_records_and_never_two_folds(dataset_dir):
    folds = defaultdict(list)
    with (dataset_dir / "ptb-xl" / "ptbxl_database.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            folds[row["patient_id"]].append(row["strat_fold"])
    assert len(folds) == N_PATIENTS
    assert max(map(len, folds.values())) > 1
    assert all(len(set(each)) == 1 for each in folds.values())
    assert {fold for each in folds.values() for fold in each} == {str(n) for n in range(1, 11)}


def test_ptb_xl_tables_have_the_columns_of_the_published_ones(dataset_dir, shared_data):
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        written, published = (
            (folder / "ptb-xl" / name).read_text("utf-8").splitlines()[0]
            for folder in (dataset_dir, shared_data)
        )
        assert written == published


def test_challenge_2017_letters_say_what_was_synthesized(dataset_dir, monkeypatch):
    kinds = {each.letter for each in ARCHIVE_CLASSES if each.kind.startswith("mi_")}
    assert kinds == {""}
    made = []

    def watch(kind, *arguments):
        made.append(kind)
        return synthesize(kind, *arguments)

    monkeypatch.setattr("einthoven.synthetic.archives.synthesize", watch)
    folder = dataset_dir.parent / "watched"
    folder.mkdir()
    _write_challenge_2017(folder / "c", 40, seed=0)
    letters = (folder / "c" / "training2017" / "REFERENCE.csv").read_text().split()
    of_kind = {each.kind: each.letter for each in ARCHIVE_CLASSES}
    for kind, line in zip(made, letters, strict=True):
        assert line[-1] in ("~", of_kind[kind])
        assert of_kind[kind]


def test_a_few_recordings_lie_in_two_archives(dataset_dir):
    archives = {archive.name: archive for archive in find_archives(dataset_dir)[0]}
    chapman, ptb_xl = archives["chapman"], archives["ptb-xl"]
    fine = read_signal(chapman.reader, chapman.folder, "WFDBRecords/01/010/JS00001")[0]
    best = 0.0
    for info in index_archive(ptb_xl, 100)[:-10]:
        coarse = read_signal(ptb_xl.reader, ptb_xl.folder, info.path)[0]
        best = max(best, float(np.corrcoef(coarse[1], fine[1, ::5])[0, 1]))
    assert best > 0.98


def test_undamaged_records_keep_the_limb_lead_laws_on_disk(dataset_dir):
    archive = next(a for a in find_archives(dataset_dir)[0] if a.name == "ptb-xl")
    for info in index_archive(archive, 100)[:20]:
        signal = read_signal(archive.reader, archive.folder, info.path)[0]
        assert np.abs(signal[0] + signal[2] - signal[1]).max() < 0.0016
        assert np.abs(signal[3:6].sum(axis=0)).max() < 0.0016


def test_same_seed_writes_the_same_bytes(dataset_dir, tmp_path):
    write_synthetic_archives(tmp_path / "again", N_PATIENTS, seed=5)
    files = sorted(path.relative_to(dataset_dir) for path in dataset_dir.rglob("*.*"))
    assert len(files) > 2 * N_PATIENTS
    for path in files:
        assert (dataset_dir / path).read_bytes() == (tmp_path / "again" / path).read_bytes()


def test_finished_archives_are_left_alone_and_others_replaced(tmp_path):
    folder = tmp_path / "Dataset"
    assert write_synthetic_archives(folder, 24, seed=1)
    assert not write_synthetic_archives(folder, 24, seed=1)
    before = (folder / "ptb-xl" / "ptbxl_database.csv").read_bytes()
    assert write_synthetic_archives(folder, 24, seed=2, high_rate=True)
    assert (folder / "ptb-xl" / "ptbxl_database.csv").read_bytes() != before
    assert list(folder.glob("ptb-xl/records500/00000/00001_hr.dat"))
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset"]


def test_a_users_own_archives_are_never_replaced(tmp_path):
    (tmp_path / "my-ecgs").mkdir()
    with pytest.raises(DataError, match="my-ecgs"):
        write_synthetic_archives(tmp_path, 24)
    assert (tmp_path / "my-ecgs").is_dir()


def test_too_few_patients_for_all_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="n_patients is 3"):
        write_synthetic_archives(tmp_path / "Dataset", 3)
