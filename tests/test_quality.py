import re
from itertools import combinations

import numpy as np
import pytest

from einthoven.errors import RecordError
from einthoven.quality import check_signal, fill_missing, lead_law_residual, quality_flags
from einthoven.records import LIMB_FROM_I_AND_II

ALL = np.ones(12, bool)
LIMB_PAIRS = list(combinations(range(6), 2))


def lawful_signal(n_samples: int = 500, seed: int = 0) -> np.ndarray:
    """Twelve leads of noise that keep Einthoven's and Goldberger's laws, millivolts."""
    signal = np.random.default_rng(seed).normal(size=(12, n_samples)).astype(np.float32)
    signal[:6] = LIMB_FROM_I_AND_II @ signal[:2]
    return signal


def make_ecg(n_samples: int = 5000, seed: int = 0) -> np.ndarray:
    """Twelve leads of beats with noise; the limb leads obey their laws."""
    rng = np.random.default_rng(seed)
    beat = np.exp(-(((np.arange(n_samples) / 400) % 1 - 0.5) ** 2) / 1e-3)
    signal = np.outer(0.3 + rng.random(12), beat) + 0.01 * rng.normal(size=(12, n_samples))
    signal[:6] = LIMB_FROM_I_AND_II @ signal[:2]
    return signal.astype(np.float32)


# Missing values --------------------------------------------------------------------------------


def test_a_complete_signal_is_returned_untouched():
    signal = make_ecg()
    filled, present, fraction = fill_missing(signal, ALL)
    assert filled is signal and present is ALL and fraction == 0


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_short_gaps_are_bridged_with_a_straight_line(hole):
    signal = np.tile(np.arange(100, dtype=np.float32), (12, 1))
    gappy = signal.copy()
    gappy[3, 40:45] = hole
    filled, present, fraction = fill_missing(gappy, ALL)
    assert (filled == signal).all() and present.all()
    assert fraction == pytest.approx(5 / 1200)
    assert not np.isfinite(gappy[3, 40:45]).any()


def test_gaps_at_the_ends_take_the_nearest_value():
    signal = np.tile(np.arange(100, dtype=np.float32), (12, 1))
    signal[0, :3], signal[0, -2:] = np.nan, np.nan
    filled, _, _ = fill_missing(signal, ALL)
    assert filled[0, :4].tolist() == [3, 3, 3, 3] and filled[0, -3:].tolist() == [97, 97, 97]


@pytest.mark.parametrize(("n_missing", "is_kept"), [(10, True), (11, False)])
def test_a_lead_with_over_a_tenth_missing_becomes_absent(n_missing, is_kept):
    signal = np.ones((12, 100), np.float32)
    signal[7, :n_missing] = np.nan
    filled, present, _ = fill_missing(signal, ALL)
    assert present[7] == is_kept and filled[7].all() == is_kept
    assert present.sum() == 11 + is_kept and ALL.all()


def test_absent_leads_do_not_count_as_missing_values():
    signal = np.ones((12, 100), np.float32)
    present = np.arange(12) < 2
    signal[0, :5] = np.nan
    assert fill_missing(signal, present)[2] == pytest.approx(0.025)


def test_a_record_whose_every_lead_is_missing_is_refused():
    with pytest.raises(RecordError, match="100% of the samples are missing"):
        fill_missing(np.full((12, 100), np.nan, np.float32), ALL)


# Refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "fs", "reason"),
    [
        (make_ecg(), 49.9, "sampling rate is 49.9 Hz"),
        (make_ecg(), float("nan"), "sampling rate is nan Hz"),
        (make_ecg()[:, :0], 500.0, "the signal is empty"),
        (make_ecg()[:0], 500.0, "the signal is empty"),
        (make_ecg()[:, :499], 500.0, "lasts 0.998 s"),
        (make_ecg()[:, :300], 500.0, "lasts 0.6 s"),
        (np.full((12, 5000), 0.3, np.float32), 500.0, "every lead is flat"),
        (make_ecg() / 1000, 500.0, "spans 1.3 µV"),
        (make_ecg() * 1000, 500.0, "unit or gain"),
    ],
)
def test_what_cannot_be_an_ecg_is_refused_with_its_reason(signal, fs, reason):
    with pytest.raises(RecordError, match=re.escape(reason)):
        check_signal(signal, fs)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_electrode_offsets_spikes_and_absent_leads_are_no_reason_to_refuse(offset):
    signal = make_ecg() + np.float32(offset)
    signal[:, 100:103] = -400
    signal[6:] = 0
    check_signal(signal, 500.0)


# Doubtful --------------------------------------------------------------------------------------


def test_a_clean_record_raises_no_flag():
    flags = quality_flags(make_ecg(), ALL)
    assert flags.pop("lead_law_residual_mv") < 0.001
    assert flags == {
        "flat_leads": "",
        "clipped_fraction": 0.0,
        "missing_fraction": 0.0,
        "quality": "",
    }


def test_flat_leads_are_named_in_order():
    signal = make_ecg()
    signal[10] = 1.5
    signal[6] = 0.002 * np.sin(np.arange(5000))
    signal[8, :3000] = signal[8, 3000]
    assert quality_flags(signal, ALL)["flat_leads"] == "V1,V3,V5"
    assert quality_flags(signal, ALL)["quality"] == "flat_lead"


def test_a_lead_that_is_constant_for_less_than_half_of_the_time_is_not_flat():
    signal = make_ecg()
    signal[8, :2000] = signal[8, 3000]
    assert quality_flags(signal, ALL)["flat_leads"] == ""


def test_absent_leads_are_not_flat():
    signal = make_ecg()
    signal[6:] = 0
    assert quality_flags(signal, np.arange(12) < 6)["quality"] == ""


def test_clipped_waves_are_measured_in_the_lead_that_has_most():
    signal = make_ecg()
    signal[9] = np.minimum(signal[9], 0.5 * signal[9].max())
    expected = np.mean(signal[9] == signal[9].max())
    flags = quality_flags(signal, ALL)
    assert flags["clipped_fraction"] == pytest.approx(expected, abs=0.002)
    assert flags["quality"] == "clipped"


@pytest.mark.parametrize(("length", "fraction"), [(4, 0.0), (5, 0.001), (6, 0.0012)])
@pytest.mark.parametrize("start", range(5))
def test_only_runs_of_five_samples_at_a_rail_are_clipping(start, length, fraction):
    signal = make_ecg()
    signal[2, start : start + length] = -9.0
    assert quality_flags(signal, ALL)["clipped_fraction"] == pytest.approx(fraction)


def test_a_run_does_not_go_over_from_one_lead_to_the_next():
    signal = make_ecg()
    signal[7, -3:], signal[8, :3] = 9.0, 9.0
    assert quality_flags(signal, ALL)["clipped_fraction"] == 0


def test_swapped_lead_columns_break_the_limb_lead_law():
    signal = make_ecg()[[1, 0, *range(2, 12)]]
    flags = quality_flags(signal, ALL)
    assert flags["quality"] == "lead_law"
    assert flags["lead_law_residual_mv"] > 0.05


def test_lawful_signal_leaves_no_residual_whatever_its_offsets():
    offsets = np.random.default_rng(1).normal(size=(12, 1)).astype(np.float32)
    assert lead_law_residual(lawful_signal() + offsets, ALL) < 1e-5


@pytest.mark.parametrize("pair", LIMB_PAIRS, ids=str)
def test_swapped_limb_lead_columns_leave_a_residual_of_the_size_of_the_waves(
    pair: tuple[int, int],
):
    swapped = lawful_signal()
    swapped[list(pair)] = swapped[list(pair[::-1])]
    assert lead_law_residual(swapped, ALL) > 0.1


def test_residual_counts_a_law_only_where_its_leads_are_there():
    signal = lawful_signal()
    signal[2] = 0
    assert lead_law_residual(signal, np.arange(12) != 2) < 1e-5
    assert lead_law_residual(signal, ALL) > 0.5


def test_residual_is_in_millivolts():
    signal = lawful_signal(1000)
    signal[1] += 0.5 * np.sin(np.arange(1000)).astype(np.float32)
    # Nineteen in twenty samples of a sine lie below sin(0.95 * pi / 2) of its amplitude.
    assert lead_law_residual(signal, ALL) == pytest.approx(0.4985, abs=0.002)


def test_missing_values_are_flagged():
    flags = quality_flags(make_ecg(), ALL, 0.01)
    assert (flags["missing_fraction"], flags["quality"]) == (0.01, "missing")


def test_no_real_record_is_refused(shared_data):
    paths = sorted(shared_data.glob("ptb-xl/records500/*/*.dat"))[::5]
    for path in paths:
        signal = np.fromfile(path, "<i2").reshape(-1, 12).T.astype(np.float32) / 1000
        check_signal(signal, 500.0)
        assert quality_flags(signal, ALL)["quality"] == ""
