"""Changed copies of records, and predictions that are averaged over them."""

import numpy as np
import pytest
import torch
from torch import nn

from einthoven.batches import ResidentWindows, list_windows
from einthoven.checkpoint import ModelInput
from einthoven.inference import overlapping_starts, predict_windows
from einthoven.records import LEADS
from einthoven.settings import VIEW_NAMES
from einthoven.views import PLAIN_VIEW, TEST_TIME_VIEWS, RecordView, added_views

CPU = torch.device("cpu")


def counting_windows(n_samples: int = 40) -> torch.Tensor:
    return torch.arange(1, n_samples + 1, dtype=torch.int16).repeat(2, 12, 1)


def test_every_name_of_the_setting_has_views() -> None:
    assert set(TEST_TIME_VIEWS) == set(VIEW_NAMES)
    assert added_views("none") == () and len(added_views("shift,scale,shift")) == 4


def test_the_plain_view_changes_nothing() -> None:
    samples, n_valid = counting_windows(), np.array([40, 30])
    shown, left = PLAIN_VIEW.show(samples, n_valid)
    assert shown is samples and left is n_valid


@pytest.mark.parametrize(("shift", "first"), [(0.1, 5), (-0.1, 1)])
def test_a_shift_cuts_one_end_and_fills_with_zeros(shift: float, first: int) -> None:
    shown, left = RecordView("moved", shift=shift).show(counting_windows(), np.array([40, 20]))
    assert left.tolist() == [36, 16]
    for row, n in enumerate(left):
        assert shown[row, 0, :n].tolist() == list(range(first, first + n))
        assert not shown[row, :, n:].any()


def test_a_recording_too_short_to_be_cut_is_left_alone() -> None:
    samples = counting_windows()
    samples[1, :, 8:] = 0
    shown, left = RecordView("moved", shift=0.1).show(samples, np.array([40, 8]))
    assert left.tolist() == [36, 8] and torch.equal(shown[1], samples[1])


def test_a_dropped_lead_is_zero_and_the_windows_stay_as_they_were() -> None:
    samples = counting_windows()
    shown, _ = RecordView("without_V2", dropped=("V2",)).show(samples, np.array([40, 40]))
    gone = LEADS.index("V2")
    assert not shown[:, gone].any() and samples[:, gone].all()
    assert torch.equal(shown[:, :gone], samples[:, :gone])


def test_denser_crops_hold_the_usual_ones() -> None:
    usual = overlapping_starts(np.array([1000]), 1000, 250)
    dense = overlapping_starts(np.array([1000]), 1000, 250, density=2)
    assert set(usual[0]) <= set(dense[0]) and dense.shape[1] == 2 * usual.shape[1] - 1


@pytest.mark.parametrize(("window", "crop"), [(1000, 100), (2500, 250), (1000, 250)])
def test_a_windows_crops_do_not_depend_on_what_lies_beside_it(window: int, crop: int) -> None:
    lengths = np.arange(crop // 2, window + 1)
    together = overlapping_starts(lengths, window, crop)
    alone = np.concatenate([overlapping_starts(np.array([n]), window, crop) for n in lengths])
    assert (together == alone).all()


class MeanOfLeads(nn.Module):
    """Logits are the signal's mean amplitude, so that a scaled copy has other ones."""

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        size = x_BLS.abs().mean((1, 2))
        return torch.stack([size, -size], dim=1)


def test_a_prediction_is_the_mean_over_its_views(tmp_path) -> None:
    from stores import write_tiny_store

    store = write_tiny_store(tmp_path, n_records=6)
    listed = list_windows(store, np.arange(6))
    source = ResidentWindows(torch.from_numpy(store.load_windows(np.arange(6))), CPU)
    seen = ModelInput(100, 200, 100, None, "dataset", torch.full((12,), 0.25))
    views = (PLAIN_VIEW, *added_views("scale,shift"))
    together = predict_windows(MeanOfLeads(), seen, False, source, listed, views=views)
    alone = [
        predict_windows(MeanOfLeads(), seen, False, source, listed, views=(view,)) for view in views
    ]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)
    assert np.ptp(np.stack(alone)[:, 0, 0]) > 0.01
