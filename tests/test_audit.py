from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_ecgs import fake_ecg
from scipy.signal import butter, sosfiltfilt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from einthoven.audit.sketches import (
    CANDIDATES_PER_RECORD,
    SKETCH_LEADS,
    Sketches,
    find_candidates,
    sketch_signals,
)
from einthoven.audit.verification import compare_recordings, find_duplicates
from einthoven.files import Workspace
from einthoven.prepare import prepare_archives
from einthoven.settings import Settings
from einthoven.signal import preprocess, to_microvolts, to_windows
from einthoven.store import Store

FS = 100


def as_stored(signal, fs=200):
    return to_microvolts(preprocess(np.ascontiguousarray(signal, np.float32), fs, FS))


def sketch_all(signals):
    parts = []
    for number, signal in enumerate(signals):
        which, sketch, time_s = sketch_signals(signal[None, list(SKETCH_LEADS)], FS)
        parts.append((which + number, sketch, time_s))
    return Sketches(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def store_of(tmp_path, signals, n_window=500):
    """A store in one shard."""
    records_dir = Workspace(tmp_path).records_dir
    records_dir.mkdir(parents=True)
    windows = [to_windows(signal, n_window) for signal in signals]
    np.save(records_dir / "s.npy", np.concatenate(windows))
    counts = np.array([len(part) for part in windows])
    manifest = pd.DataFrame(
        {
            "record": [f"a/{number}" for number in range(len(signals))],
            "shard": "s",
            "row": np.cumsum(counts) - counts,
            "n_windows": counts,
            "n_samples": [signal.shape[1] for signal in signals],
        }
    )
    return Store(manifest, records_dir, FS, n_window)


def found_pairs(tmp_path, signals):
    pairs = find_duplicates(store_of(tmp_path, signals), sketch_all(signals))
    lags = pairs["lag_s"].to_numpy(float)
    assert not np.signbit(lags[lags == 0]).any()
    return list(zip(pairs["record"], pairs["copy"], strict=True))


def zero_phase_filtered(signal):
    sos = butter(2, [0.5, 40], "bandpass", fs=200, output="sos")
    return sosfiltfilt(sos, signal, axis=1)


COPIES = {
    "at another rate": lambda seed: as_stored(fake_ecg(seed, fs=500), 500),
    "at a rate that divides nothing": lambda seed: as_stored(fake_ecg(seed, fs=257), 257),
    "in other units": lambda seed: as_stored(fake_ecg(seed) * 0.4),
    "with other offsets": lambda seed: as_stored(fake_ecg(seed) + np.linspace(-2, 2, 12)[:, None]),
    "with trimmed ends": lambda seed: as_stored(fake_ecg(seed)[:, 173:1801]),
    "longer": lambda seed: as_stored(fake_ecg(seed, seconds=33)),
    "filtered": lambda seed: as_stored(zero_phase_filtered(fake_ecg(seed))),
    "with noise": lambda seed: as_stored(
        fake_ecg(seed) + np.random.default_rng(1).normal(0, 0.01, (12, 2000))
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copy_is_found_from_its_signal(kind, tmp_path):
    originals = [as_stored(fake_ecg(seed)) for seed in range(6)]
    copies = [COPIES[kind](seed) for seed in range(6)]
    expected = [(f"a/{seed}", f"a/{seed + 6}") for seed in range(6)]
    assert found_pairs(tmp_path, originals + copies) == expected


@pytest.mark.parametrize("trimmed", [0, 1.3])
@pytest.mark.parametrize("seconds", [10, 30])
def test_copy_of_a_perfectly_regular_rhythm_is_found(seconds, trimmed, tmp_path):
    beat = fake_ecg(2)[:, 100:240]
    signal = np.tile(beat, (1, seconds * 200 // 140))
    recorded = noisy(signal, 1, 0.15)
    signals = [as_stored(recorded), as_stored(recorded[:, round(trimmed * 200) :])]
    signals.append(as_stored(noisy(signal, 2, 0.15)))
    assert found_pairs(tmp_path, signals) == [("a/0", "a/1")]


def test_single_lead_copies_are_found(tmp_path):
    signals = [as_stored(fake_ecg(seed)) for seed in (0, 1)]
    signals.append(as_stored(fake_ecg(1)[:, 90:]))
    for signal in signals:
        signal[1:] = 0
    assert found_pairs(tmp_path, signals) == [("a/1", "a/2")]


def test_different_recordings_are_no_pair(tmp_path):
    assert found_pairs(tmp_path, [as_stored(fake_ecg(seed)) for seed in range(40)]) == []


def test_other_heartbeats_of_one_patient_are_no_pair(tmp_path):
    long = fake_ecg(3, seconds=40)
    parts = [as_stored(long[:, start : start + 2000]) for start in (0, 2000, 4000, 6000)]
    assert found_pairs(tmp_path, parts) == []


def test_recordings_that_share_four_seconds_are_no_pair(tmp_path):
    long = fake_ecg(3, seconds=40)
    parts = [as_stored(long[:, :2000]), as_stored(long[:, 1200:3200])]
    assert found_pairs(tmp_path, parts) == []


def noisy(signal, seed, size):
    """Muscle noise that passes the audit's slope, so that recordings correlate by 0.97 to 0.99."""
    noise = np.random.default_rng(seed).normal(0, size, signal.shape)
    return signal + sosfiltfilt(butter(2, [4, 14], "bandpass", fs=200, output="sos"), noise, axis=1)


def correlation_of(one, two):
    return compare_recordings(as_stored(one), as_stored(two), FS, 0.0)[0]


@pytest.mark.parametrize("seed", range(3))
def test_recordings_with_the_same_beats_and_rhythm_but_other_noise_are_no_pair(seed, monkeypatch):
    signal = fake_ecg(seed)
    one, two = noisy(signal, 1, 0.15), noisy(signal, 2, 0.15)
    assert correlation_of(one, two) == 0
    monkeypatch.setattr("einthoven.audit.verification.CERTAIN_CORRELATION", 0.0)
    assert 0.97 < correlation_of(one, two) < 0.99


@pytest.mark.parametrize("seed", range(3))
def test_copy_that_differs_as_much_is_still_found_by_its_single_beats(seed):
    recorded = noisy(fake_ecg(seed), 1, 0.3)
    assert 0.97 < correlation_of(recorded, noisy(recorded, 2, 0.2)) < 0.99


def test_lag_and_overlap_are_those_of_the_copy():
    signal = fake_ecg(4)
    first, second = as_stored(signal[:, 300:]), as_stored(signal)
    correlation, lag, overlap = compare_recordings(first, second, FS, 1.52)
    assert correlation > 0.999
    assert lag == pytest.approx(1.5, abs=0.002)
    assert overlap == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("n_samples", [1, 5, 40, 300])
def test_recording_without_heartbeats_has_no_sketch(n_samples):
    flat = np.zeros((3, len(SKETCH_LEADS), n_samples), np.int16)
    assert len(sketch_signals(flat, FS)[0]) == 0
    assert len(sketch_signals(flat + np.int16(700), FS)[0]) == 0


def test_identical_recordings_cost_linear_time_and_are_all_joined():
    sketches = sketch_all([as_stored(fake_ecg(0))] * 300)
    candidates = find_candidates(sketches)
    assert len(candidates) <= 300 * CANDIDATES_PER_RECORD
    edges = coo_array((np.ones(len(candidates)), (candidates["first"], candidates["second"])))
    edges.resize((300, 300))
    assert connected_components(edges, directed=False)[0] == 1


def test_candidates_are_the_same_in_any_number_of_parts(monkeypatch):
    signals = [as_stored(fake_ecg(seed % 20)) for seed in range(40)]
    whole = find_candidates(sketch_all(signals))
    monkeypatch.setattr("einthoven.audit.sketches.SKETCHES_PER_PART", 50)
    parts = find_candidates(sketch_all(signals))
    pd.testing.assert_frame_equal(whole, parts)


# Real records ----------------------------------------------------------------------------------


def test_real_copies_are_found_and_no_pair_of_different_ptb_xl_records(shared_data, tmp_path):
    prepare_archives(Settings(root=tmp_path, dataset_dir=shared_data, prepare_workers=2))
    pairs = pd.read_csv(Workspace(tmp_path).processed_dir / "duplicates.csv", dtype=str)
    found = {tuple(sorted(pair)) for pair in pairs[["record", "copy"]].to_numpy()}
    expected = {
        tuple(sorted((f"challenge-2021-ptb-xl/HR{n:05d}", f"ptb-xl/{n}"))) for n in range(1, 11)
    }
    expected.add(("challenge-2021-ptb/S0001", "ptbdb/s0010_re"))
    assert {tuple(sorted(pair)) for pair in expected} == found
