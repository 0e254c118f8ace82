import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_ecgs import fake_ecg

import einthoven
from einthoven.augment.batch import (
    AUGMENTED_SHARE,
    CHANGES,
    MIXTURES,
    PRESET_AUGMENTATIONS,
    augment_batch,
    parse_augment,
)
from einthoven.augment.draws import UNIFORMS_PER_AUGMENTATION, Draws
from einthoven.augment.heart import (
    flip_sign,
    rotate_vcg,
    scale_amplitude,
    shift_time,
    values_at,
    warp_time,
)
from einthoven.augment.mixtures import cut_mix, mix_up
from einthoven.augment.recorded import Recorded, find_recorded, lead_geometry
from einthoven.augment.recorder import (
    add_mains,
    add_muscle,
    add_wander,
    drop_leads,
    mask_time,
    noise_bank,
)
from einthoven.batches import standardize_batch
from einthoven.errors import ConfigError
from einthoven.records import LIMB_FROM_I_AND_II
from einthoven.settings import AUGMENT_PRESETS, AUGMENTATION_NAMES

ALL = tuple(AUGMENTED_SHARE)
FS = 200
N_SAMPLES = 500
CPU = torch.device("cpu")


@pytest.fixture
def always(monkeypatch):
    """Every augmentation changes every record."""
    for name in ALL:
        monkeypatch.setitem(AUGMENTED_SHARE, name, 1.0)


def microvolts(n_records=6):
    signals = [fake_ecg(seed, FS, N_SAMPLES / FS) for seed in range(n_records)]
    return torch.from_numpy(np.round(np.stack(signals) * 1000).astype(np.int16))


def full(x_BLS):
    return torch.full((len(x_BLS),), x_BLS.shape[-1])


def one_hot(n_records):
    return torch.eye(5)[torch.arange(n_records) % 5]


def augmented(signal, names, epoch=0, seed=0, records=None, n_valid=None, fs=FS):
    records = np.arange(len(signal)) if records is None else np.asarray(records)
    n_valid = full(signal) if n_valid is None else n_valid
    draws = Draws(seed, epoch, records)
    return augment_batch(signal, one_hot(len(signal)), n_valid, names, draws, fs)


def change(function, x_BLS, *uniforms, fs=FS, n_valid=None):
    """Apply a change to float signals with the same uniform numbers for every record."""
    n_valid = full(x_BLS) if n_valid is None else n_valid
    u_BU = torch.full((len(x_BLS), UNIFORMS_PER_AUGMENTATION - 1), 0.5)
    u_BU[:, : len(uniforms)] = torch.tensor(uniforms)
    return function(x_BLS, u_BU, find_recorded(x_BLS, n_valid, fs))


# Names ------------------------------------------------------------------------------------------


def test_names_and_presets_are_those_of_the_settings():
    assert set(ALL) == set(AUGMENTATION_NAMES) == set(CHANGES) | set(MIXTURES)
    assert tuple(PRESET_AUGMENTATIONS) == AUGMENT_PRESETS
    assert parse_augment("none") == ()
    assert set(parse_augment("light")) < set(parse_augment("strong")) < set(ALL)


def test_a_list_is_put_in_the_order_of_application_and_may_name_presets():
    assert parse_augment("time_mask,mixup, vcg_rotation") == ("vcg_rotation", "mixup", "time_mask")
    assert parse_augment("light,cutmix,cutmix") == parse_augment("cutmix, light")


def test_a_wrong_name_is_answered_with_the_nearest_and_with_all_that_are_allowed():
    with pytest.raises(ConfigError, match="'mixpu' is not known; did you mean mixup") as error:
        parse_augment("light,mixpu")
    assert "none, light, strong" in str(error.value)
    assert ", ".join(AUGMENTATION_NAMES) in str(error.value)


def test_evaluation_cannot_reach_augmentations():
    package = Path(einthoven.__file__).parent
    for room in ("inference", "evaluation", "scoring"):
        assert "einthoven.augment" not in (package / f"{room}.py").read_text(encoding="utf-8")


# Chance -----------------------------------------------------------------------------------------


def test_draws_are_uniform():
    table = Draws(0, 0, np.arange(2000)).table(ALL).ravel()
    counts, _ = np.histogram(table, bins=64, range=(0, 1))
    expected = len(table) / 64
    # Chi-squared with 63 degrees of freedom: below 103 in 999 of 1000 cases.
    assert ((counts - expected) ** 2 / expected).sum() < 103
    assert 0 <= table.min() and table.max() < 1


@pytest.mark.parametrize("neighbour", ["record", "column", "epoch", "seed"])
def test_draws_of_neighbours_are_not_correlated(neighbour):
    records = np.arange(4000)
    one = Draws(0, 0, records).table(("mixup",))[:, 0]
    other = {
        "record": np.roll(one, 1, axis=0),
        "column": np.roll(one, 1, axis=1),
        "epoch": Draws(0, 1, records).table(("mixup",))[:, 0],
        "seed": Draws(1, 0, records).table(("mixup",))[:, 0],
    }[neighbour]
    # 64,000 pairs: one standard error is 0.004.
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.016


def test_draws_of_a_record_do_not_depend_on_the_others_or_on_other_names():
    many = Draws(3, 4, np.array([9, 2, 7])).table(("mixup", "cutmix"))
    alone = Draws(3, 4, np.array([7])).table(("cutmix",))
    assert np.array_equal(many[2, 1], alone[0, 0])


def test_each_augmentation_changes_its_share_of_records():
    table = Draws(0, 0, np.arange(20_000)).table(ALL)
    changed = (table[:, :, 0] < list(AUGMENTED_SHARE.values())).mean(0)
    assert np.allclose(changed, list(AUGMENTED_SHARE.values()), atol=0.015)


# A contract for all -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_and_the_arguments_stay(name, always):
    signal = microvolts()
    before = signal.clone()
    (x, targets), (again, targets_again) = augmented(signal, (name,)), augmented(signal, (name,))
    assert torch.equal(x, again) and torch.equal(targets, targets_again)
    assert torch.equal(signal, before)
    assert x.dtype == torch.float32 and x.shape == signal.shape
    as_float, _ = augmented(signal.float(), (name,))
    assert torch.equal(x, as_float)


@pytest.mark.parametrize("name", ALL)
def test_epochs_differ(name):
    signal = microvolts()
    if name == "sign_flip":
        signal[:, 1:] = 0
    epochs = {augmented(signal, (name,), epoch)[0].numpy().tobytes() for epoch in range(8)}
    assert len(epochs) > 4


@pytest.mark.parametrize("name", ALL)
def test_padding_and_absent_and_flat_leads_come_back_as_zeros(name, always):
    signal = microvolts()
    n_valid = torch.tensor([500, 300, 500, 300, 1, 0])
    signal[torch.arange(N_SAMPLES) >= n_valid[:, None, None].expand_as(signal)] = 0
    signal[0, 3:] = 0
    signal[1, 4, :300] = 700
    x, _ = augmented(signal, (name,), n_valid=n_valid)
    assert torch.isfinite(x).all()
    assert not x[0, 3:].any() and not x[1, 4].any() and not x[4:].any()
    assert not x[[1, 3], :, 300:].any()
    assert x[0, :3].any() and x[2].any()


@pytest.mark.parametrize("name", ALL)
def test_targets_stay_shares_of_one_and_only_mixtures_change_them(name, always):
    _, targets = augmented(microvolts(), (name,))
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert targets.min() >= 0
    assert torch.equal(targets, one_hot(6)) == (name not in MIXTURES)


@pytest.mark.parametrize("name", CHANGES)
def test_a_record_does_not_depend_on_its_batch(name):
    signal = microvolts()
    records = np.array([11, 4, 30, 2, 8, 5])
    whole, _ = augmented(signal, (name,), records=records)
    order = [3, 1, 4]
    part, _ = augmented(signal[order], (name,), records=records[order])
    torch.testing.assert_close(part, whole[order], rtol=0, atol=0.01)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"lead_dropout"}))
def test_limb_lead_laws_are_kept(name, always):
    x, _ = augmented(microvolts(), (name,))
    laws = torch.from_numpy(LIMB_FROM_I_AND_II) @ x[:, :2]
    # int16 rounds each lead to 1 µV.
    torch.testing.assert_close(x[:, :6], laws, rtol=0, atol=2.5)


@pytest.mark.parametrize("n_leads", [1, 3])
def test_other_numbers_of_leads_are_taken(n_leads, always):
    x, _ = augmented(microvolts()[:, :n_leads], ALL)
    assert x.shape == (6, n_leads, N_SAMPLES) and torch.isfinite(x).all()


def test_without_names_nothing_is_copied():
    signal, targets = microvolts(), one_hot(6)
    draws = Draws(0, 0, np.arange(6))
    assert augment_batch(signal, targets, full(signal), (), draws, FS)[0] is signal


# The heart --------------------------------------------------------------------------------------


def heart_vectors(x_BLS):
    return lead_geometry(CPU)["vector from leads"] @ x_BLS


def test_rotation_turns_the_vector_and_keeps_its_length():
    x = microvolts().float()
    turned = change(rotate_vcg, x, 0.9, 0.1, 0.7)
    before, after = heart_vectors(x), heart_vectors(turned)
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1), rtol=1e-3, atol=0.5)
    assert (after - before).norm() > 0.05 * before.norm()


def test_a_vector_to_the_left_is_turned_about_the_back_axis_by_ten_degrees():
    wave = torch.arange(100.0)
    vector = torch.stack([wave, 0 * wave, 0 * wave])
    x = (lead_geometry(CPU)["leads from vector"] @ vector)[None]
    turned = heart_vectors(change(rotate_vcg, x, 0.5, 0.5, 1.0))[0]
    ten = math.radians(10)
    expected = torch.stack([wave * math.cos(ten), wave * math.sin(ten), 0 * wave])
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-2)


def test_no_turn_is_no_change_and_neither_is_a_turn_without_v6():
    x = microvolts().float()
    torch.testing.assert_close(change(rotate_vcg, x, 0.5, 0.5, 0.5), x)
    x[:, 11] = 0
    assert torch.equal(change(rotate_vcg, x, 0.9, 0.9, 0.9), x)


def test_inverse_dower_matrix_is_the_published_one():
    # Edenbrandt and Pahlm 1988: x from I, II, V1–V6.
    published = [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194]
    x_row = lead_geometry(CPU)["vector from leads"][0, [0, 1, 6, 7, 8, 9, 10, 11]]
    torch.testing.assert_close(x_row, torch.tensor(published), rtol=0, atol=6e-4)


def test_amplitude_is_scaled_by_one_factor_within_bounds():
    x = microvolts().float()
    torch.testing.assert_close(change(scale_amplitude, x, 1.0), x * 1.15)
    torch.testing.assert_close(change(scale_amplitude, x, 0.0), x / 1.15)


def test_warped_time_keeps_its_ends_and_never_runs_a_tenth_faster_or_slower():
    ramp = torch.arange(N_SAMPLES).float().expand(1, 12, -1)
    speed = change(warp_time, ramp, 1.0)[0, 0].diff()
    assert speed.sum() == pytest.approx(N_SAMPLES - 1, abs=1e-2)
    assert speed[2] == pytest.approx(1.1, abs=1e-3)
    assert speed[-3] == pytest.approx(0.9, abs=1e-3)
    # The very last sample has no neighbour to interpolate with.
    assert speed[:-2].min() > 0.899 and speed.max() < 1.101
    assert torch.equal(change(warp_time, ramp, 0.5), ramp)


def test_values_between_samples_follow_a_sine():
    hertz, fs = 10, 100
    times = torch.arange(100) / fs
    x = torch.sin(2 * math.pi * hertz * times).expand(1, 1, -1)
    positions = torch.arange(10, 90)[None] + 0.5
    found = values_at(x, positions, torch.tensor([[99]]))
    exact = torch.sin(2 * math.pi * hertz * positions / fs)
    assert (found[0] - exact).abs().max() < 0.015


def test_shifted_time_keeps_every_sample():
    x = microvolts().float()
    shifted = change(shift_time, x, 1.0)
    assert torch.equal(shifted, x.roll(FS // 2, dims=2))
    short = x * (torch.arange(N_SAMPLES) < 300)
    back = change(shift_time, short, 0.0, n_valid=torch.full((6,), 300))
    assert torch.equal(back[:, :, :300], short[:, :, :300].roll(-FS // 2, dims=2))


def test_only_single_lead_records_are_turned_upside_down():
    x = microvolts(2).float()
    x[0, 1:] = 0
    flipped = change(flip_sign, x)
    assert torch.equal(flipped[0], -x[0]) and torch.equal(flipped[1], x[1])


# Mixtures ---------------------------------------------------------------------------------------


def mixed(function, x, other, *uniforms):
    n_uniforms = UNIFORMS_PER_AUGMENTATION - 1
    u_BU = torch.tensor([*uniforms, *[0.5] * (n_uniforms - len(uniforms))]).expand(len(x), -1)
    here, there = (find_recorded(signal, full(signal), FS) for signal in (x, other))
    return function(x, other, u_BU, here, there)


def test_mixup_weighs_the_other_record_by_its_share():
    x = microvolts().float()
    half, share = mixed(mix_up, x, x.flip(0), 0.5)
    assert share == pytest.approx(0.5)
    torch.testing.assert_close(half, (x + x.flip(0)) / 2, rtol=0, atol=1e-3)
    little, share = mixed(mix_up, x, x.flip(0), 0.1)
    assert share == pytest.approx(math.sin(0.05 * math.pi) ** 2)
    expected = x + share[:, None, None] * (x.flip(0) - x)
    torch.testing.assert_close(little, expected, rtol=0, atol=1e-3)


def test_mixup_keeps_most_of_the_record_itself():
    x = microvolts(2).float()
    shares = [float(mixed(mix_up, x, x.flip(0), u)[1][0]) for u in np.linspace(0, 1, 21).tolist()]
    assert max(shares) <= 0.5 + 1e-6 and min(shares) == 0


def test_cutmix_share_is_the_length_that_was_pasted():
    x = torch.zeros(3, 12, N_SAMPLES)
    x[:, :, ::2] = 1
    other = torch.zeros(3, 12, N_SAMPLES)
    other[:, :, ::4] = 100
    pasted, share = mixed(cut_mix, x, other, 0.6, 0.3)
    changed = (pasted != x).all(1)
    assert share == pytest.approx(0.3)
    assert changed.sum(1).tolist() == [150, 150, 150]
    first = int(changed[0].nonzero()[0])
    assert first == int(0.3 * (N_SAMPLES - 150 + 1))
    # Lifted from the other's level of 25 to the record's of one half.
    stretch = slice(first, first + 150)
    torch.testing.assert_close(pasted[..., stretch], other[..., stretch] - 24.5)


@pytest.mark.parametrize("name", MIXTURES)
def test_records_with_other_leads_or_shorter_ones_are_not_mixed_in(name, always):
    signal = microvolts(3)
    signal[1, 6:] = 0
    signal[2, :, 300:] = 0
    x, targets = augmented(signal, (name,), n_valid=torch.tensor([500, 500, 300]))
    torch.testing.assert_close(x[:2], signal[:2].float())
    assert torch.equal(targets[:2], one_hot(3)[:2])
    # The last one's partner is the first, which has all its leads and is longer.
    assert not torch.equal(x[2], signal[2].float()) and targets[2, 0] > 0


def test_the_partner_is_the_next_record_of_the_batch_and_the_last_ones_the_first(always):
    _, targets = augmented(microvolts(5), ("mixup",))
    assert ((targets > 0) == (torch.eye(5) + torch.eye(5).roll(1, dims=1) > 0)).all()


# The recorder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, low, high", [("wander", 0.05, 0.5), ("muscle", 20, 150)])
@pytest.mark.parametrize("fs", [100, 500])
def test_noise_has_spread_one_and_stays_in_its_band(kind, low, high, fs):
    bank = noise_bank(kind, fs, 600 * fs, CPU).numpy()
    power = np.abs(np.fft.rfft(bank)) ** 2
    hertz = np.fft.rfftfreq(len(bank), 1 / fs)
    inside = (hertz >= low) & (hertz <= high)
    assert bank.std() == pytest.approx(1, abs=1e-4)
    assert power[inside].sum() / power.sum() > 0.9999


@pytest.mark.parametrize("function, rms", [(add_wander, (20, 150)), (add_muscle, (3, 20))])
def test_noise_has_the_strength_that_was_drawn(function, rms):
    x = torch.arange(60_000).remainder(2).expand(1, 12, -1).float()
    for uniform, expected in zip((0.0, 1.0), rms, strict=True):
        noise = change(function, x, uniform, *np.linspace(0, 0.9, 8)) - x
        independent = noise[0, [0, 1, 6, 7, 8, 9, 10, 11]]
        assert independent.std(-1).mean() == pytest.approx(expected, rel=0.1)


def test_leads_have_noise_of_their_own():
    x = microvolts(1).float()
    noise = (change(add_muscle, x, 0.5, *np.linspace(0.1, 0.9, 8)) - x)[0, 6:]
    correlation = np.corrcoef(noise.numpy()) - np.eye(6)
    assert np.abs(correlation).max() < 0.3


@pytest.mark.parametrize("which, hertz", [(0.1, 50), (0.9, 60)])
def test_mains_are_one_sine_of_fifty_or_sixty_hertz(which, hertz):
    x = torch.arange(500.0).expand(1, 12, -1)
    mains = (change(add_mains, x, which, 1.0, *np.linspace(0, 0.9, 8), fs=500) - x)[0, 6:]
    amplitude = np.abs(np.fft.rfft(mains.numpy())) / 250
    assert (amplitude.argmax(1) == hertz).all()
    assert amplitude[:, hertz] == pytest.approx(15 * math.sqrt(2), rel=1e-2)
    assert np.delete(amplitude, hertz, axis=1).max() < 0.05


def test_mains_above_what_the_sampling_rate_can_show_are_left_out():
    x = torch.arange(500.0).expand(1, 12, -1)
    assert torch.equal(change(add_mains, x, 0.9, 1.0, fs=100), x)
    at_120 = change(add_mains, x, 0.9, 1.0, fs=120) - x
    spectrum = np.abs(np.fft.rfft(at_120[0, 6].numpy() * np.hanning(500)))
    assert spectrum.argmax() * 120 / 500 == pytest.approx(50, abs=0.25)


# What is missing --------------------------------------------------------------------------------


def test_leads_whose_number_is_below_the_share_are_dropped():
    x = microvolts(1).float()
    dropped = change(drop_leads, x, 0.19, 0.21, 0.0, *[0.9] * 9)
    assert [not lead.any() for lead in dropped[0]] == [True, False, True, *[False] * 9]


def test_the_last_lead_is_never_dropped():
    x = microvolts(1).float()
    assert torch.equal(change(drop_leads, x, *[0.0] * 12), x)
    x[:, 1:] = 0
    assert torch.equal(change(drop_leads, x, 0.1, *[0.9] * 11), x)


@pytest.mark.parametrize("mode", ["dataset", "record", "lead"])
def test_a_masked_stretch_lies_within_the_record_and_is_zero_when_standardised(mode):
    x = microvolts().float() + 300
    x[:, :, 300:] = 0
    n_valid = torch.full((6,), 300)
    masked = change(mask_time, x, 1.0, 0.999, n_valid=n_valid)
    seen = standardize_batch(masked, n_valid, mode, torch.ones(12))
    stretch = slice(240, 300)
    assert seen[..., stretch].abs().max() < 1e-4
    assert seen[..., :240].abs().mean() > 0.01
    assert torch.equal(masked[..., :240], x[..., :240]) and not masked[..., 300:].any()


def test_recorded_leads_are_those_that_vary():
    x = torch.zeros(1, 3, 10)
    x[0, 1] = 5
    x[0, 2, 4] = 1
    recorded = find_recorded(x, torch.tensor([10]), FS)
    assert isinstance(recorded, Recorded)
    assert recorded.present_BL.tolist() == [[False, False, True]]
