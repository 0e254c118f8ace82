"""Lead names, lead order and the limb-lead laws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from einthoven.errors import RecordError
from einthoven.records import (
    LEADS,
    complete_limb_leads,
    lead_name,
    standard_leads,
)

ALL = np.ones(12, bool)
PAIRS = list(combinations(range(6), 2))


def lawful_signal(n_samples: int = 500, seed: int = 0) -> np.ndarray:
    """Twelve leads that keep Einthoven's and Goldberger's laws, millivolts."""
    rng = np.random.default_rng(seed)
    lead_i, lead_ii = rng.normal(size=(2, n_samples))
    limb = [lead_i, lead_ii, lead_ii - lead_i,
            -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2]  # fmt: skip
    return np.vstack([limb, rng.normal(size=(6, n_samples))]).astype(np.float32)


# Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name"),
    [("AVR", "aVR"), ("avl", "aVL"), ("aVF", "aVF"), ("v1", "V1"), ("ii", "II"), (" I ", "I"),
     ("Lead III", "III"), ("lead_v6", "V6"), ("MLII", "II"), ("vx", None), ("V7", None)],
)  # fmt: skip
def test_lead_is_known_however_it_is_written(written: str, name: str | None):
    assert lead_name(written) == name


def test_unknown_lead_is_refused_by_name_with_the_nearest_known():
    with pytest.raises(RecordError, match=r"lead name 'aVRR' is not known; .* is aVR"):
        lead_name("aVRR")
    with pytest.raises(RecordError, match="lead name 'PPG' is not known"):
        standard_leads(np.zeros((1, 5), np.float32), ["PPG"])


# Order -----------------------------------------------------------------------------------------


def test_leads_are_ordered_by_name_and_never_by_position():
    signal = lawful_signal()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(12)
        ordered, present = standard_leads(signal[order], [LEADS[row] for row in order])
        assert np.array_equal(ordered, signal) and present.all()


def test_leads_beside_the_twelve_are_left_out():
    signal = np.vstack([lawful_signal(), np.full((3, 500), 9)]).astype(np.float32)
    ordered, present = standard_leads(signal, [*(name.upper() for name in LEADS), "vx", "vy", "vz"])
    assert np.array_equal(ordered, signal[:12]) and present.all()


def test_missing_chest_leads_are_zero_and_marked_absent():
    ordered, present = standard_leads(lawful_signal()[6:8], ["V1", "V2"])
    assert list(np.flatnonzero(present)) == [6, 7]
    assert not ordered[~present].any() and ordered[present].any()
    assert ordered.dtype == np.float32


def test_lead_met_twice_is_refused_even_when_written_differently():
    with pytest.raises(RecordError, match="lead aVR is met twice"):
        standard_leads(np.zeros((2, 5), np.float32), ["aVR", "AVR"])


def test_two_leads_beside_the_twelve_are_no_duplicate():
    standard_leads(np.zeros((3, 5), np.float32), ["I", "vx", "vy"])


def test_signal_without_any_of_the_twelve_leads_is_refused():
    with pytest.raises(RecordError, match="none of the twelve leads is there, only vx, vy"):
        standard_leads(np.zeros((2, 5), np.float32), ["vx", "vy"])


def test_names_and_rows_must_be_as_many():
    with pytest.raises(RecordError, match="1 lead names for 2 rows"):
        standard_leads(np.zeros((2, 5), np.float32), ["I"])


# Laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_any_two_limb_leads_give_the_other_four(pair: tuple[int, int]):
    signal = lawful_signal()
    completed, present = standard_leads(signal[list(pair)], [LEADS[row] for row in pair])
    np.testing.assert_allclose(completed[:6], signal[:6], atol=1e-5)
    assert present.tolist() == [True] * 6 + [False] * 6


def test_one_limb_lead_gives_no_other():
    signal = np.zeros((12, 5), np.float32)
    present = np.arange(12) == 1
    completed, now_present = complete_limb_leads(signal, present)
    assert completed is signal and now_present is present


def test_limb_leads_that_are_there_are_never_changed():
    signal = lawful_signal()[:3] + np.float32(0.01)  # I + III - II is 0.01 mV, not 0
    completed, _ = standard_leads(signal, ["I", "II", "III"])
    assert np.array_equal(completed[:3], signal)
