"""Explanations: they fall on what defines the class, and are what they say they are."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_ecgs import fake_ecg
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from einthoven.calibration.maps import no_calibration
from einthoven.checkpoint import ModelInput, TrainedModel
from einthoven.errors import ConfigError
from einthoven.explain import methods
from einthoven.explain.beats import beat_bounds, find_beats
from einthoven.explain.crops import predicted_crops, standardised_crop
from einthoven.explain.explanation import (
    draw_explanation,
    explain_prediction,
    explain_recording,
    explain_sample,
    leading_label,
)
from einthoven.explain.methods import (
    CROP_EXPLAINERS,
    SAMPLES_PER_EXPLAINING_PASS,
    LabelLogOdds,
    grad_cam,
    integrated_gradients,
    occlusion,
)
from einthoven.models.registry import MODELS, build_model
from einthoven.models.resnet1d import ResNet1d
from einthoven.models.resnet1d_views import ResNet1dViews
from einthoven.prediction import predict_sample
from einthoven.records import LEADS

FS = 100
V2 = LEADS.index("V2")
WITHOUT_MAP = ("s4d", "patch_transformer")

# Records whose class is one segment of one lead ---------------------------------------------------


def st_record(
    is_raised: bool, rng: np.random.Generator, seconds: float = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Beats in twelve leads, and where V2's ST segments lie; only those differ between classes."""
    time = np.arange(round(seconds * FS)) / FS
    peaks = 0.3 + rng.uniform(0, 0.4) + np.cumsum(rng.normal(0.8, 0.04, 12)) - 0.8
    signal = rng.normal(0, 0.03, (12, len(time)))
    gains = rng.uniform(0.3, 1.2, (2, 12, 1))
    is_st = np.zeros(len(time), bool)
    for peak in peaks:
        after = time - peak
        qrs = np.exp(-0.5 * (after / 0.015) ** 2)
        t_wave = 0.3 * np.exp(-0.5 * ((after - 0.33) / 0.04) ** 2)
        signal += gains[0] * qrs + gains[1] * t_wave
        within = (after > 0.08) & (after < 0.22)
        is_st |= within
        signal[V2] += 0.4 * is_raised * within
    return signal.astype(np.float32), is_st


def trained_with(model: nn.Module, labels=("RAISED", "PLAIN"), single=False, **taken):
    """A model with all that is needed to predict, of 4 s windows and 2 s crops."""
    shape = {"fs": FS, "window": 400, "crop": 200, "bandpass": None, "standardize": "dataset"}
    return TrainedModel(
        model=model.eval(),
        input=ModelInput(**{**shape, "scale": torch.full((12,), 0.25), **taken}),
        labels=labels,
        single=single,
        calibration=no_calibration(labels, "a test"),
        threshold_sets={},
        threshold_rule="best_f1",
        conformal={},
        device=torch.device("cpu"),
        facts={},
    )


@pytest.fixture(scope="module")
def st_model() -> TrainedModel:
    """Trained for seconds to tell raised ST segments of V2 from plain ones."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    trained = trained_with(ResNet1d(12, 2, width=12, dropout=0.0))
    is_raised = np.arange(96) % 2 == 0
    signals = [st_record(bool(raised), rng)[0] for raised in is_raised]
    microvolts = torch.from_numpy(np.stack(signals) * 1000)
    target = torch.from_numpy(np.stack([is_raised, ~is_raised], 1).astype(np.float32))
    optimizer = torch.optim.AdamW(trained.model.parameters(), lr=0.005)
    trained.model.train()
    for _ in range(150):
        picked = torch.from_numpy(rng.choice(96, 24, replace=False))
        start = int(rng.integers(200))
        crops = microvolts[picked, :, start : start + 200]
        logits = trained.model(trained.input.prepare(crops, torch.full((24,), 200)))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained.model.eval()
    assert loss.item() < 0.1
    return trained


def share_of_st(attribution: np.ndarray, is_st: np.ndarray) -> float:
    """The share of V2's ST segments in the attribution's size."""
    size = np.abs(attribution)
    return float(size[V2, is_st].sum() / size.sum())


def test_integrated_gradients_fall_on_the_segment_that_defines_the_class(st_model):
    signal, is_st = st_record(True, np.random.default_rng(99))
    explanation = explain_sample(st_model, signal, FS, LEADS, "RAISED")
    chance = is_st.mean() / 12
    assert chance < 0.02
    assert share_of_st(explanation.attribution, is_st) > 15 * chance
    assert explanation.segments[0].lead == "V2"
    assert max(explanation.leads, key=lambda lead: explanation.leads[lead].share) == "V2"
    assert explanation.attribution[V2, is_st].sum() > 0


def test_occlusion_falls_on_the_segment_that_defines_the_class(st_model):
    signal, is_st = st_record(True, np.random.default_rng(99))
    explanation = explain_sample(st_model, signal, FS, LEADS, "RAISED", "occlusion")
    assert share_of_st(explanation.attribution, is_st) > 10 * is_st.mean() / 12
    assert explanation.leads["V2"].share > 0.5
    assert {segment.lead for segment in explanation.segments[:3]} == {"V2"}


def test_grad_cam_falls_on_the_moments_that_define_the_class(st_model):
    signal, is_st = st_record(True, np.random.default_rng(99))
    explanation = explain_sample(st_model, signal, FS, LEADS, "RAISED", "grad_cam")
    size = np.abs(explanation.attribution).sum(axis=0)
    assert size[is_st].sum() / size.sum() > 2.5 * is_st.mean()
    assert explanation.leads == {}
    assert explanation.segments[0].lead is None


@pytest.mark.parametrize("method", CROP_EXPLAINERS)
def test_attribution_leaves_the_segment_when_weights_are_randomised(st_model, method):
    # Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018, arXiv:1810.03292).
    signal, is_st = st_record(True, np.random.default_rng(99))
    learnt = explain_sample(st_model, signal, FS, LEADS, "RAISED", method).attribution
    torch.manual_seed(1)
    random = trained_with(ResNet1d(12, 2, width=12, dropout=0.0))
    drawn = explain_sample(random, signal, FS, LEADS, "RAISED", method).attribution
    assert abs(np.corrcoef(learnt.ravel(), drawn.ravel())[0, 1]) < 0.3
    if method != "grad_cam":
        assert share_of_st(drawn, is_st) < share_of_st(learnt, is_st) / 5


@pytest.mark.parametrize("method", CROP_EXPLAINERS)
def test_an_absent_lead_gets_nothing(st_model, method):
    signal, _ = st_record(True, np.random.default_rng(99))
    names = [lead for lead in LEADS if lead != "V5"]
    rows = signal[[LEADS.index(lead) for lead in names]]
    explanation = explain_sample(st_model, rows, FS, names, "RAISED", method)
    size = np.abs(explanation.attribution)
    assert size[LEADS.index("V5")].sum() < 1e-4 * size.sum()


# What is explained --------------------------------------------------------------------------------


def test_integrated_gradients_sum_to_the_difference_of_the_log_odds(st_model):
    signal, _ = st_record(True, np.random.default_rng(7))
    check = explain_sample(st_model, signal, FS, LEADS, "RAISED").sum_check
    assert check.n_steps >= 50
    assert abs(check.found - check.difference) < 0.02 * abs(check.difference) + 0.05
    assert check.is_met


def test_more_steps_are_taken_until_the_sum_is_met():
    # The spread by which this view divides changes most where the way begins.
    torch.manual_seed(0)
    model = build_model("resnet1d_views", n_leads=12, n_classes=2).eval()
    x_BLS = 5 * torch.from_numpy(st_record(True, np.random.default_rng(0), 2)[0])[None]
    explained = LabelLogOdds(model, 0, single=False)
    found = integrated_gradients(explained, x_BLS, FS)
    with torch.no_grad():
        expected = float(explained(x_BLS) - explained(torch.zeros_like(x_BLS)))
    assert found.difference == pytest.approx(expected, abs=1e-4)
    assert float(found.values.sum()) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("single", [False, True])
def test_explained_log_odds_are_those_of_the_prediction(single):
    torch.manual_seed(0)
    trained = trained_with(ResNet1d(12, 3, width=8), ("A", "B", "C"), single)
    prediction = predict_sample(trained, fake_ecg(0, FS, 4), FS, LEADS)
    starts = predicted_crops(400, trained.input)
    crops = [
        standardised_crop(prediction.sample.microvolts, start, trained.input, trained.device)[0]
        for start in starts
    ]
    with torch.no_grad():
        log_odds = LabelLogOdds(trained.model, 1, single)(torch.cat(crops))
    assert len(starts) == 3
    assert float(log_odds.sigmoid().mean()) == pytest.approx(prediction.probabilities["B"], 1e-5)


class WeightedSum(nn.Module):
    """A model whose attributions are known: one weight for each lead and sample."""

    def __init__(self, n_samples: int) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.weight = nn.Parameter(torch.from_numpy(rng.normal(size=(12, n_samples))).float())

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        return (x_BLS * self.weight).sum((1, 2))[:, None].repeat(1, 2)


def test_integrated_gradients_of_a_weighted_sum_are_its_terms():
    model = WeightedSum(50)
    x_BLS = torch.from_numpy(fake_ecg(0, FS, 0.5))[None]
    found = integrated_gradients(LabelLogOdds(model, 0, False), x_BLS, FS).values
    assert torch.allclose(found, x_BLS[0] * model.weight, atol=1e-5)


def test_occlusion_of_a_weighted_sum_is_the_mean_of_its_terms_over_each_piece():
    model = WeightedSum(50)
    x_BLS = torch.from_numpy(fake_ecg(0, FS, 0.5))[None]
    found = occlusion(LabelLogOdds(model, 0, False), x_BLS, FS).values
    terms = x_BLS[0] * model.weight
    pieces = [terms[:, :20], terms[:, 20:40], terms[:, 40:]]
    expected = torch.cat([part.mean(1, keepdim=True).expand_as(part) for part in pieces], dim=1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_grad_cam_of_an_ensemble_is_the_mean_of_its_members():
    torch.manual_seed(0)
    model = ResNet1dViews(12, 2).eval()
    x_BLS = torch.from_numpy(fake_ecg(0, FS, 2))[None]
    of_all = grad_cam(LabelLogOdds(model, 0, False), x_BLS, FS).values
    of_each = [grad_cam(LabelLogOdds(part, 0, False), x_BLS, FS).values for part in model.members]
    assert torch.allclose(of_all, torch.stack(of_each).mean(0), rtol=1e-3, atol=1e-7)


def test_grad_cam_sums_to_the_logit_where_the_head_is_a_mean_of_the_map():
    torch.manual_seed(0)
    kernels = [nn.Conv1d(12, 6, 7, 2, 3), nn.ReLU(), nn.Conv1d(6, 6, 5, 2, 2), nn.ReLU()]
    model = nn.Sequential(
        nn.Sequential(*kernels), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 2, bias=False)
    )
    x_BLS = torch.from_numpy(fake_ecg(0, FS, 8))[None]
    found = grad_cam(LabelLogOdds(model, 0, False), x_BLS, FS).values
    assert float(found.sum()) == pytest.approx(float(model(x_BLS)[0, 0].detach()), rel=0.05)


# Every architecture -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_explained(name, monkeypatch):
    monkeypatch.setattr(methods, "MOST_STEPS", methods.FIRST_STEPS)
    torch.manual_seed(0)
    model = build_model(name, n_leads=12, n_classes=2)
    trained = trained_with(model, window=120, crop=120, standardize="lead")
    signal = fake_ecg(1, FS, 1.2)[[0, 1, 6, 7, 8]]
    prediction = predict_sample(trained, signal, FS, ("I", "II", "V1", "V2", "V3"))
    for method in CROP_EXPLAINERS:
        if method == "grad_cam" and name in WITHOUT_MAP:
            with pytest.raises(ConfigError, match="use integrated_gradients or occlusion"):
                explain_prediction(trained, prediction, method=method)
            continue
        attribution = explain_prediction(trained, prediction, method=method).attribution
        assert attribution.shape == (12, 120)
        assert np.isfinite(attribution).all()
        assert attribution.any()


def test_no_pass_is_larger_than_its_bound():
    largest = 0

    class Watched(WeightedSum):
        def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
            nonlocal largest
            largest = max(largest, x_BLS.shape[0] * x_BLS.shape[2])
            return super().forward(x_BLS)

    explained = LabelLogOdds(Watched(1000), 0, False)
    x_BLS = torch.from_numpy(fake_ecg(0, FS, 10))[None]
    integrated_gradients(explained, x_BLS, FS)
    occlusion(explained, x_BLS, FS)
    # captum's occlusion adds the untouched crop, and a rounded step, to a pass.
    assert 1000 < largest <= SAMPLES_PER_EXPLAINING_PASS + 1000


@pytest.mark.parametrize("method", CROP_EXPLAINERS)
def test_an_explanation_can_be_had_again_and_leaves_the_model_alone(st_model, method):
    signal, _ = st_record(False, np.random.default_rng(3))
    first = explain_sample(st_model, signal, FS, LEADS, method=method)
    second = explain_sample(st_model, signal, FS, LEADS, method=method)
    assert np.array_equal(first.attribution, second.attribution)
    assert all(not module._forward_hooks for module in st_model.model.modules())
    assert all(parameter.requires_grad for parameter in st_model.model.parameters())
    assert not st_model.model.training


# Labels, lengths, errors --------------------------------------------------------------------------


def test_the_leading_label_is_the_likeliest_of_the_decided(st_model):
    prediction = predict_sample(st_model, fake_ecg(0, FS, 4), FS, LEADS)
    odds = {"RAISED": 0.9, "PLAIN": 0.7}
    decided = replace(prediction, probabilities=odds, decisions=("PLAIN",))
    assert leading_label(decided) == "PLAIN"
    assert leading_label(replace(decided, decisions=())) == "RAISED"


def test_a_label_that_was_not_decided_is_explained_with_a_remark(st_model):
    signal, is_st = st_record(True, np.random.default_rng(5))
    explanation = explain_sample(st_model, signal, FS, LEADS, "PLAIN")
    assert any("PLAIN was not decided" in remark for remark in explanation.remarks)
    assert explanation.attribution[V2, is_st].sum() < 0


@pytest.mark.parametrize(("seconds", "n_crops"), [(1.2, 1), (4, 3), (9.1, 9)])
def test_attribution_covers_the_whole_recording(st_model, seconds, n_crops):
    signal = fake_ecg(0, 250, seconds)
    explanation = explain_sample(st_model, signal, 250, LEADS, method="occlusion")
    assert explanation.attribution.shape == (12, round(seconds * FS))
    assert explanation.n_crops == n_crops
    assert (np.abs(explanation.attribution).sum(axis=0) > 0).mean() > 0.99


@pytest.mark.parametrize(
    ("label", "method", "said"),
    [
        ("RAISD", "occlusion", "did you mean RAISED"),
        ("RAISED", "oclusion", "did you mean occlusion"),
    ],
)
def test_a_choice_that_is_not_known_is_refused(st_model, label, method, said):
    with pytest.raises(ConfigError, match=said):
        explain_sample(st_model, fake_ecg(0, FS, 4), FS, LEADS, label, method)


def test_missing_captum_is_said_with_its_extra(st_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"einthoven\[explain\]"):
        explain_sample(st_model, fake_ecg(0, FS, 4), FS, LEADS)


# Shares and values --------------------------------------------------------------------------------


def test_shares_of_leads_add_up_to_one_and_those_of_beats_nearly(st_model):
    signal, _ = st_record(True, np.random.default_rng(5))
    explanation = explain_sample(st_model, signal, FS, LEADS)
    assert sum(carried.share for carried in explanation.leads.values()) == pytest.approx(1)
    assert 0.85 < sum(beat.carried.share for beat in explanation.beats) <= 1
    assert len(explanation.beats) == 5
    taken = [(part.lead, part.start_s) for part in explanation.segments]
    assert len(set(taken)) == len(taken) == 8


def test_values_are_json_and_small(st_model):
    explanation = explain_sample(st_model, fake_ecg(0, FS, 60), FS, LEADS, method="occlusion")
    text = json.dumps(explanation.values(max_points=1000), allow_nan=False)
    assert len(text) < 200_000
    told = json.loads(text)["attribution"]
    assert set(told["by_lead"]) == set(LEADS)
    assert len(told["by_lead"]["I"]) == 1000
    whole = sum(told["by_lead"]["V2"]) * told["step_s"]
    assert whole == pytest.approx(explanation.attribution[V2].sum(), rel=0.02, abs=0.01)


# Beats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs", [100, 500])
def test_beats_are_found_where_they_are(fs):
    rng = np.random.default_rng(0)
    peaks = 0.5 + np.cumsum(rng.uniform(0.4, 1.4, 9))
    time = np.arange(round(11 * fs)) / fs
    waves = sum(np.exp(-0.5 * ((time - peak) / 0.015) ** 2) for peak in peaks)
    t_waves = sum(0.4 * np.exp(-0.5 * ((time - peak - 0.3) / 0.05) ** 2) for peak in peaks)
    signal = np.linspace(-1, 1.5, 12)[:, None] * (waves + t_waves)
    signal += rng.normal(0, 0.02, signal.shape)
    # Two leads that tell nothing, and an electrode that is knocked.
    signal[3] = rng.normal(0, 1, len(time))
    signal[4, 4 * fs :] += 20
    found = find_beats(signal, fs) / fs
    assert found == pytest.approx(peaks[peaks < 11], abs=0.05)


def test_no_beats_are_found_where_nothing_varies():
    assert len(find_beats(np.zeros((12, 1000)), FS)) == 0


def test_a_piece_of_a_beat_that_is_cut_off_belongs_to_none():
    assert beat_bounds(np.array([80, 160, 250]), 600).tolist() == [46, 128, 214, 301]
    assert beat_bounds(np.array([20, 100]), 140).tolist() == [0, 68, 140]
    assert beat_bounds(np.array([70]), 140).tolist() == [0, 140]


# Figure -------------------------------------------------------------------------------------------


def written(figure) -> str:
    FigureCanvasAgg(figure).draw()
    texts = [text.get_text() for text in figure.texts]
    return "\n".join(texts + [text.get_text() for axes in figure.axes for text in axes.texts])


@pytest.mark.parametrize("layout", ["3x4", "12x1"])
def test_figure_shades_every_lead_and_names_what_carried(st_model, layout):
    signal, _ = st_record(True, np.random.default_rng(5))
    values, figure = explain_recording(
        st_model, signal, FS, LEADS, "RAISED", title="a.dcm", layout=layout
    )
    text = written(figure)
    assert "What carried RAISED" in text and "a.dcm" in text and "V2" in values["summary"][0]
    assert "not a medical device" in text
    assert len(figure.axes[0].images) == {"3x4": 12 + 1 - 6, "12x1": 12}[layout]
    share = values["beats"][1]["share"]
    assert f"{100 * share:.0f}%" in text


def test_figure_of_a_long_recording_shows_the_part_that_carried(st_model):
    explanation = explain_sample(st_model, fake_ecg(0, FS, 30), FS, LEADS, method="grad_cam")
    later = np.zeros_like(explanation.attribution)
    later[:, 1700:1750] = 1
    text = written(draw_explanation(replace(explanation, attribution=later)))
    assert "of 30" in text
    start = int(text.split("seconds ")[1].split(" to ")[0])
    assert start <= 17 and start + 10 >= 17.5


def test_figure_of_one_lead_names_the_beats_of_every_row(st_model):
    signal = fake_ecg(0, FS, 25)[1:2]
    explanation = explain_sample(st_model, signal, FS, ("II",), method="occlusion")
    figure = draw_explanation(explanation)
    percents = [text for text in figure.axes[0].texts if text.get_text().endswith("%")]
    assert len(percents) == len(explanation.beats) > 20
