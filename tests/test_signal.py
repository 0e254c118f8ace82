import math

import numpy as np
import pytest

from einthoven.errors import ConfigError
from einthoven.signal import (
    bandpass,
    preprocess,
    resample,
    standardize,
    to_microvolts,
    to_windows,
    window_starts,
)

RATES = [50, 100, 128, 128.7, 250, 257, 300, 360, 400, 500, 977.5, 1000]
RATES_AND_TARGETS = [(fs, target) for target in (100, 250, 500) for fs in RATES]
BANDS = [None, (0.5, 40.0), (0.0, 30.0), (1.0, 1000.0)]


def make_sines(frequencies: np.ndarray, fs: float, seconds: float) -> np.ndarray:
    """One row per frequency, a cosine of 1 mV and 0.7 rad."""
    time = np.arange(round(seconds * fs)) / fs
    return np.cos(2 * np.pi * np.outer(frequencies, time) + 0.7).astype(np.float32)


def fit_sines(signal: np.ndarray, frequencies: np.ndarray, fs: float) -> np.ndarray:
    """Complex amplitude of each row at its frequency, away from the ends."""
    margin = signal.shape[1] // 4
    time = np.arange(signal.shape[1])[margin:-margin] / fs
    fits = []
    for row, frequency in zip(signal[:, margin:-margin], frequencies, strict=True):
        phase = 2 * np.pi * frequency * time
        basis = np.stack([np.cos(phase), -np.sin(phase)], axis=1)
        fits.append(complex(*np.linalg.lstsq(basis, row, rcond=None)[0]))
    return np.array(fits)


def pass_band(fs: float, target: float, band: tuple[float, float] | None) -> np.ndarray:
    low, high = band or (0.0, math.inf)
    return np.geomspace(max(2 * low, 0.5), 0.8 * min(high, target / 2, fs / 2), 15)


def rms_uv(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(signal**2)) * 1000)


def make_wandering_record(fs: float, seconds: float, seed: int = 0) -> np.ndarray:
    """Twelve leads of spiky waves on a baseline that wanders by millivolts, with noise and hum."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * fs)) / fs
    beats = np.exp(-(((time * 1.2 + rng.random((12, 1))) % 1 - 0.5) ** 2) / 2e-4)
    wander = 2 * np.sin(2 * np.pi * 0.15 * time + 6 * rng.random((12, 1)))
    hum = 0.1 * np.sin(2 * np.pi * 50 * time)
    return (beats + wander + hum + 0.03 * rng.normal(size=beats.shape)).astype(np.float32)


# Response --------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("fs", "target"), RATES_AND_TARGETS)
def test_sines_in_the_pass_band_keep_amplitude_and_phase(fs, target, band):
    frequencies = pass_band(fs, target, band)
    fits = fit_sines(
        preprocess(make_sines(frequencies, fs, 16), fs, target, band), frequencies, target
    )
    shift = (np.angle(fits) - 0.7) / (2 * np.pi * frequencies) * target
    assert np.abs(np.abs(fits) - 1).max() < 0.01
    assert np.abs(shift).max() < 0.05  # output samples; half of one is promised


@pytest.mark.parametrize(
    ("fs", "target"), [(f, t) for f, t in RATES_AND_TARGETS if f / 2 > 1.2 * t / 2]
)
def test_nothing_above_the_targets_nyquist_rate_survives_or_comes_back_as_an_alias(fs, target):
    frequencies = np.linspace(1.2 * target / 2, 0.999 * fs / 2, 23)
    out = preprocess(make_sines(frequencies, fs, 12), fs, target)
    margin = out.shape[1] // 4
    assert np.abs(out[:, margin:-margin]).max() < 0.01


@pytest.mark.parametrize(("fs", "target"), [(500, 100), (257, 100), (250, 250), (128, 500)])
def test_low_pass_is_40_db_down_from_a_fifth_above_its_edge(fs, target):
    frequencies = np.linspace(1.2 * 30, 0.999 * fs / 2, 23)
    out = preprocess(make_sines(frequencies, fs, 12), fs, target, (0, 30))
    margin = out.shape[1] // 4
    assert np.abs(out[:, margin:-margin]).max() < 0.01


@pytest.mark.parametrize("edge", [0.05, 0.5, 0.67, 1.0])
@pytest.mark.parametrize(("fs", "target"), [(500, 100), (257, 100), (100, 100), (300, 500)])
def test_high_pass_is_40_db_down_at_a_tenth_of_its_edge(fs, target, edge):
    frequencies = np.array([0.01, 0.05, 0.1]) * edge
    out = preprocess(make_sines(frequencies, fs, 60 / edge), fs, target, (edge, 40))
    margin = out.shape[1] // 10
    assert np.abs(out[:, margin:-margin]).max() < 0.01


def test_high_pass_removes_an_offset_entirely():
    offset = np.full((2, 5000), 5.0, np.float32)
    assert np.abs(preprocess(offset, 500, 100, (0.5, 40))).max() < 1e-4


def test_half_of_the_amplitude_is_left_at_the_edges():
    sines = make_sines(np.array([1.05, 40.0]), 500, 30)
    fits = fit_sines(preprocess(sines, 500, 250, (1.0, 40.0)), np.array([1.05, 40.0]), 250)
    assert np.abs(fits) == pytest.approx([0.5, 0.5], abs=0.01)


# Ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("fs", "target"), [(500, 100), (360, 100), (257, 100), (100, 500)])
def test_a_cut_out_span_equals_the_same_span_of_the_long_result(fs, target, band):
    record = make_wandering_record(fs, 40)
    start, stop = (10 * fs, 22 * fs)
    whole = preprocess(record, fs, target, band)[:, 10 * target : 22 * target]
    cut = preprocess(record[:, start:stop], fs, target, band)
    edge = math.ceil((1 / band[0] if band and band[0] else 0.1) * target)
    assert rms_uv((cut - whole)[:, edge:-edge]) < 10


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("fs", "target"), [(500, 100), (257, 100), (100, 500), (250, 250)])
def test_an_offset_at_one_end_never_shows_at_the_other(fs, target, band):
    record = make_wandering_record(fs, 10)
    lifted = record.copy()
    lifted[:, -round(0.5 * fs) :] += 20
    change = preprocess(lifted, fs, target, band) - preprocess(record, fs, target, band)
    assert np.abs(change[:, : 5 * target]).max() < 0.005


@pytest.mark.parametrize("fs", [257, 500])
def test_a_straight_line_stays_straight_to_its_ends_when_resampled(fs):
    line = np.linspace(-1, 3, fs * 4, dtype=np.float32)[None]
    expected = np.interp(np.arange(400) / 100, np.arange(fs * 4) / fs, line[0])
    inside = np.arange(400) / 100 <= (fs * 4 - 1) / fs
    assert np.abs(resample(line, fs, 100)[0] - expected)[inside].max() < 0.005


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("n_samples", [2, 7, 64, 128, 250])
def test_short_records_come_out_finite_and_of_their_own_size(n_samples, band):
    record = make_wandering_record(257, 2)[:, :n_samples]
    out = preprocess(record, 257, 100, band)
    assert out.shape == (12, round(n_samples * 100 / 257))
    assert np.abs(out).max(initial=0) < 2 * np.abs(record).max()


# Contract --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fs", "target"), RATES_AND_TARGETS)
@pytest.mark.parametrize("n_samples", [999, 5000])
def test_duration_is_kept(n_samples, fs, target):
    out = resample(np.zeros((2, n_samples), np.float32), fs, target)
    assert out.shape == (2, round(n_samples * target / fs))
    assert out.dtype == np.float32


@pytest.mark.parametrize("fs", [499.97, 99.9937, 361.0123])
def test_measured_rates_that_are_no_simple_ratio_keep_time_to_the_end(fs):
    frequencies = np.array([10.0])
    out = resample(make_sines(frequencies, fs, 60), fs, 100)
    late = out[:, -1000:-100]
    time = (np.arange(out.shape[1])[-1000:-100]) / 100
    assert np.abs(late - np.cos(2 * np.pi * 10 * time + 0.7)).max() < 0.02


def test_nothing_to_do_returns_the_signal_itself():
    signal = make_wandering_record(100, 10)
    assert preprocess(signal, 100, 100, None) is signal
    assert preprocess(signal, 100, 100.0, (0, 50)) is signal


def test_input_is_never_written_to():
    signal = make_wandering_record(500, 10)
    signal.setflags(write=False)
    preprocess(signal, 500, 100, (0.5, 40))
    standardize(signal)
    to_microvolts(signal)


def test_one_pass_equals_band_pass_then_resampling_inside_the_record():
    record = make_wandering_record(500, 20)
    two_passes = resample(bandpass(record, 500, 0.5, 30), 500, 100)
    one_pass = preprocess(record, 500, 100, (0.5, 30))
    assert rms_uv((two_passes - one_pass)[:, 200:-200]) < 10


def test_leads_do_not_touch_each_other():
    record = make_wandering_record(500, 10)
    alone = preprocess(record[3:4], 500, 100, (0.5, 40))
    assert np.abs(preprocess(record, 500, 100, (0.5, 40))[3:4] - alone).max() < 1e-5


@pytest.mark.parametrize("band", [(20.0, 40.0), (-1.0, 40.0), (0.0, 0.0), (30.0, 1000.0)])
def test_a_band_that_passes_nothing_is_refused(band):
    with pytest.raises(ConfigError, match="passes nothing"):
        preprocess(np.zeros((12, 5000), np.float32), 500, 100, band)


# Windows, store and model ----------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1000, 1001, 1999, 2000, 2500, 11520])
def test_windows_cover_the_record_evenly_without_padding(n_samples):
    starts = window_starts(n_samples, 1000)
    assert len(starts) == math.ceil(n_samples / 1000)
    assert (starts[0], starts[-1]) == (0, n_samples - 1000)
    assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else True
    assert (np.diff(starts) <= 1000).all()


def test_windows_hold_the_records_samples():
    signal = np.arange(24 * 2500, dtype=np.float32).reshape(24, 2500)
    windows = to_windows(signal, 1000)
    assert windows.shape == (3, 24, 1000)
    assert (windows[1] == signal[:, 750:1750]).all()


def test_a_short_record_is_one_window_padded_with_zeros_at_its_end():
    windows = to_windows(np.ones((12, 600), np.float32), 1000)
    assert windows.shape == (1, 12, 1000)
    assert windows[..., :600].all() and not windows[..., 600:].any()


def test_microvolts_are_rounded_and_clipped():
    signal = np.array([[0.0004, 0.0006, -1.2346, 33.0, -33.0]], np.float32)
    assert to_microvolts(signal).tolist() == [[0, 1, -1235, 32767, -32767]]
    assert to_microvolts(signal).dtype == np.int16


def test_standardized_leads_have_zero_mean_and_unit_spread():
    out = standardize(make_wandering_record(100, 10) + 3)
    assert out.dtype == np.float32
    assert np.abs(out.mean(axis=1)).max() < 1e-4
    assert out.std(axis=1) == pytest.approx(np.ones(12), abs=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, 0.1, -7.3])
def test_flat_lead_stays_zero(level):
    signal = make_wandering_record(100, 10)
    signal[4] = level
    assert not standardize(signal)[4].any()
