"""Models as files for other programs: they take raw millivolts and answer as the model does."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_ecgs import fake_ecg
from stores import write_tiny_store
from torch import nn

from einthoven.calibration.maps import Calibration, no_calibration
from einthoven.checkpoint import ModelInput, TrainedModel
from einthoven.errors import CheckpointError, ConfigError, DataError, ExportError
from einthoven.exporting.formats import EXPORT_WRITERS, FACTS_FILE, write_torchscript
from einthoven.exporting.graph import (
    BandPass,
    CalibrationMap,
    OverlappingCrops,
    WholeModel,
    to_whole_microvolts,
)
from einthoven.exporting.onnx_model import load_exported_model, predict_exported_sample
from einthoven.exporting.writing import export_model, pick_check_signals
from einthoven.files import Workspace
from einthoven.inference import overlapping_starts
from einthoven.models.registry import MODELS, build_model
from einthoven.models.resnet1d_views import ResNet1dViews, narrow_member, wide_member
from einthoven.models.s4d import S4d
from einthoven.prediction import predict_sample
from einthoven.records import LEADS
from einthoven.signal import bandpass, to_microvolts, window_starts
from einthoven.split_records import read_splits
from einthoven.store import stored_signal

FS, WINDOW, CROP = 100, 400, 150
LABELS = ("MI", "AF", "NORM")
LENGTHS = (100, 149, 150, 151, 333, 400, 401, 1000, 1777)


class TinyNet(nn.Module):
    """Sees order in time, every lead, and each label apart."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(12, 8, 7, padding=3)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(16, len(LABELS))

    def forward(self, x):
        h = self.norm(self.convolution(x)).relu()
        return self.head(torch.cat([h.mean(-1), h.amax(-1)], dim=1))


def make_trained(network=None, *, single=False, crop=CROP, **taken):
    """A model with random weights, calibrated, with thresholds and conformal limits."""
    torch.manual_seed(0)
    method, bias = ("temperature", [0.3, -0.4, 0.1]) if single else ("platt", [0.2, -0.1, 0.3])
    slope = np.full(3, 1.3) if single else np.array([0.8, 1.2, 1.7])
    calibration = Calibration(method, slope, np.array(bias), 50, 48, np.array([9, 8, 7]))
    values = {"bandpass": None, "standardize": "dataset", **taken}
    scale = torch.linspace(0.1, 0.4, 12)
    return TrainedModel(
        model=(network or TinyNet()).eval(),
        input=ModelInput(fs=FS, window=WINDOW, crop=crop, scale=scale, **values),
        labels=LABELS,
        single=single,
        calibration=calibration,
        threshold_sets={} if single else {"best_f1": {"MI": 0.4, "AF": 0.55, "NORM": 0.45}},
        threshold_rule="best_f1",
        conformal={"0.9": {"MI": 0.3, "AF": 0.45, "NORM": 0.1}},
        device=torch.device("cpu"),
        facts={
            "label_set": "five", "model_name": "tiny", "settings": {"root": "/secret/place"},
            "versions": {"torch": "2"},
        },
    )  # fmt: skip


def signals_of(lengths):
    return [fake_ecg(k, FS, n / FS) for k, n in enumerate(lengths)]


def predicted(trained, signals):
    """Probabilities of `predict_sample`, ``(n, C)``."""
    answers = [predict_sample(trained, signal, FS, LEADS) for signal in signals]
    return np.array([list(answer.probabilities.values()) for answer in answers])


# The graph --------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", ["lead", "record", "dataset"])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("crop", [CROP, WINDOW])
def test_the_graph_answers_as_predict_sample_at_any_length(standardize, single, crop):
    trained = make_trained(single=single, crop=crop, standardize=standardize)
    whole = WholeModel(trained).eval()
    for signal in signals_of(LENGTHS):
        answer = predict_sample(trained, signal, FS, LEADS)
        with torch.no_grad():
            probabilities, decisions, _ = whole(torch.from_numpy(signal)[None])
        expected = list(answer.probabilities.values())
        np.testing.assert_allclose(probabilities[0], expected, atol=1e-6)
        assert [n for n, yes in zip(LABELS, decisions[0], strict=True) if yes] == list(
            answer.decisions
        )


@pytest.mark.parametrize("band", [(0.5, 40.0), (0.0, 30.0), (1.0, 200.0), (0.0, 200.0)])
@pytest.mark.parametrize("n_samples", [2, 30, 137, 1000])
def test_the_graphs_filter_is_the_one_that_prepare_uses(band, n_samples):
    signal = fake_ecg(3, FS, 12)[:, :n_samples] + 0.7
    filtered = BandPass(band, FS)(torch.from_numpy(signal)[None])[0].numpy()
    np.testing.assert_allclose(filtered, bandpass(signal, FS, *band), atol=5e-6)


def test_a_filtering_model_answers_as_predict_sample():
    trained = make_trained(bandpass=(0.5, 40.0))
    signals = signals_of(LENGTHS)
    with torch.no_grad():
        given = [WholeModel(trained).eval()(torch.from_numpy(s)[None])[0][0] for s in signals]
    np.testing.assert_allclose(np.stack(given), predicted(trained, signals), atol=5e-5)
    unfiltered = predicted(replace(trained, input=make_trained().input), signals)
    assert np.abs(np.stack(given) - unfiltered).max() > 1e-3


def test_the_graph_rounds_to_microvolts_as_the_store_does():
    ties = np.arange(-2000, 2000, dtype=np.float32) / 2000
    signal = np.concatenate([ties, np.array([40, -40, 32.767, 0.0014], np.float32)])
    np.testing.assert_array_equal(
        to_whole_microvolts(torch.from_numpy(signal)).numpy(), to_microvolts(signal)
    )


@pytest.mark.parametrize(("window", "crop"), [(400, 150), (1000, 250), (333, 100), (200, 200)])
def test_the_graph_cuts_where_inference_cuts(window, crop):
    for n_samples in (2, 99, crop, crop + 1, window - 1, window, window + 1, 3 * window + 17):
        ramp = torch.arange(1, n_samples + 1).float().expand(1, 12, n_samples)
        crops, n_valid = OverlappingCrops(window, crop)(ramp)
        recorded = min(n_samples, window)
        inner = overlapping_starts(np.array([recorded]), window, crop)[0]
        starts = window_starts(n_samples, window)[:, None] + inner
        np.testing.assert_array_equal(crops[:, 5, 0].numpy(), starts.ravel() + 1)
        expected = np.tile(np.clip(recorded - inner, 0, crop), len(starts))
        np.testing.assert_array_equal(n_valid.numpy(), expected)


@pytest.mark.parametrize("method", ["platt", "temperature", "none"])
def test_the_graph_calibrates_as_the_calibration_does(method):
    raw = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    raw[:2] = [[0, 1, 0.5], [1e-9, 1 - 1e-7, 1]]
    fitted = replace(make_trained().calibration, method=method)
    calibration = no_calibration(LABELS, "untrained") if method == "none" else fitted
    given = CalibrationMap(calibration)(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(given, calibration.apply(raw), atol=1e-7)


def test_flat_and_absent_leads_do_no_harm():
    signal = fake_ecg(0, FS, 4)
    signal[[2, 7]] = 0
    signal[4] = 1.5
    trained = make_trained(standardize="lead")
    with torch.no_grad():
        given = WholeModel(trained).eval()(torch.from_numpy(signal)[None])[0]
    np.testing.assert_allclose(given, predicted(trained, [signal]), atol=1e-6)


# Files ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A band-passing model and what exporting it to ONNX gave."""
    pytest.importorskip("onnxruntime")
    trained = make_trained(bandpass=(0.5, 40.0))
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    report = export_model(trained, path, "onnx", signals_of([WINDOW] * 3), model_digest="d1935")
    return trained, path, report


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory):
    """An ONNX file of the model that does not filter."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    export_model(make_trained(), path, "onnx", signals_of([WINDOW]))
    return path


def test_exported_onnx_agrees_with_pytorch(exported):
    trained, path, report = exported
    signals = signals_of(LENGTHS * 2)
    answer = load_exported_model(path, n_threads=1).answer(signals)
    expected = predicted(trained, signals)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 0.01, "a model that says the same of all shows nothing"
    limits = np.array([trained.thresholds[label] for label in LABELS])
    np.testing.assert_array_equal(answer.decisions, answer.probabilities >= limits)
    assert report["check"]["largest_difference"] < report["check"]["limit"] == 1e-4
    assert len(report["check"]["n_samples"]) == 5


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
@pytest.mark.parametrize("single", [False, True])
def test_exported_programs_of_torch_agree_with_predict_sample(tmp_path, format, single):
    path = tmp_path / "model.bin"
    report = export_model(make_trained(single=single), path, format, signals_of([WINDOW] * 2))
    assert report["check"]["largest_difference"] < 1e-6
    assert report["check"]["equal_decisions"] == report["check"]["n_decisions"] == 6 * 3


def test_a_single_label_model_decides_for_one_label_in_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    trained = make_trained(single=True)
    export_model(trained, tmp_path / "m.onnx", "onnx", signals_of([WINDOW]))
    model = load_exported_model(tmp_path / "m.onnx")
    answer = model.answer(signals_of(LENGTHS))
    np.testing.assert_array_equal(answer.decisions.sum(axis=1), 1)
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, atol=1e-6)
    assert model.single and model.thresholds == {} and model.threshold_rule == "likeliest"


def test_the_file_alone_tells_how_to_use_it(exported):
    trained, path, _ = exported
    model = load_exported_model(path)
    facts = model.facts
    assert (model.labels, model.leads, model.fs, model.window) == (LABELS, LEADS, FS, WINDOW)
    assert model.thresholds == trained.thresholds and model.threshold_rule == "best_f1"
    assert model.conformal == trained.conformal
    assert facts["units"] == "mV" and facts["bandpass"] == [0.5, 40.0] and facts["crop"] == CROP
    assert facts["calibration"]["n"] == 50 and facts["model_digest"] == "d1935"
    assert "not a medical device" in facts["disclaimer"]
    shapes = {each.name: each.shape for each in model.session.get_inputs()}
    assert shapes == {"signal": ["batch", 12, "samples"]}


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_the_other_formats_carry_the_same_facts(tmp_path, format):
    path = tmp_path / "model.bin"
    export_model(make_trained(), path, format, signals_of([WINDOW]))
    files = {FACTS_FILE: ""}
    if format == "torchscript":
        with pytest.warns(DeprecationWarning):
            torch.jit.load(path, _extra_files=files)
    else:
        with path.open("rb") as file:
            torch.export.load(file, extra_files=files)
    facts = json.loads(files[FACTS_FILE])
    assert facts["labels"] == list(LABELS) and facts["fs"] == FS and facts["units"] == "mV"


@pytest.mark.parametrize("format", EXPORT_WRITERS)
def test_no_file_tells_of_this_machine_or_of_a_patient(tmp_path, format, exported):
    signals = signals_of([WINDOW])
    path = tmp_path / "model.bin"
    export_model(make_trained(), path, format, signals)
    held = [path.read_bytes()]
    if format != "onnx":
        with zipfile.ZipFile(path) as archive:
            held += [archive.read(name) for name in archive.namelist()]
    source = str(importlib.import_module("einthoven.exporting.graph").__file__).encode()
    for found in held:
        assert source not in found and b"site-packages" not in found and b"/secret" not in found
        assert signals[0].tobytes()[:256] not in found


def test_a_file_that_answers_otherwise_is_refused_and_not_left(tmp_path, monkeypatch):
    def write_wrong(whole, path, facts):
        whole.calibrate.bias += 0.01
        write_torchscript(whole, path, facts)

    monkeypatch.setitem(EXPORT_WRITERS, "torchscript", write_wrong)
    with pytest.raises(ExportError, match=r"differs from PyTorch's by 0\.00"):
        export_model(make_trained(), tmp_path / "m.ts", "torchscript", signals_of([WINDOW]))
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_outlives_an_export_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "m.ts"
    path.write_bytes(b"older")
    monkeypatch.setitem(EXPORT_WRITERS, "torchscript", lambda whole, path, facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(make_trained(), path, "torchscript", signals_of([WINDOW]))
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1


def test_an_export_leaves_the_model_as_it_was(tmp_path):
    trained = make_trained()
    trained.model.train()
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    export_model(trained, tmp_path / "m.ts", "torchscript", signals_of([WINDOW]))
    assert trained.model.training
    assert all(parameter.requires_grad for parameter in trained.model.parameters())
    assert all(torch.equal(v, before[n]) for n, v in trained.model.state_dict().items())


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ({"format": "tflite"}, ConfigError, "use onnx, torchscript, torch-export"),
        ({"format": "torchscript", "int8": True}, ConfigError, "int8 is for onnx"),
        ({"format": "torchscript", "check_signals": []}, DataError, "there is none"),
        (
            {"format": "torchscript", "check_signals": [np.zeros((3, 400), np.float32)]},
            DataError,
            r"\(12, sample\)",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, choice, error, words):
    arguments = {"check_signals": signals_of([WINDOW]), **choice}
    with pytest.raises(error, match=words):
        export_model(make_trained(), tmp_path / "m", **arguments)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_an_absent_library_is_named_with_its_extra(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=r"pip install 'einthoven\[export\]'"):
        export_model(make_trained(), tmp_path / "m", "onnx", signals_of([WINDOW]))


# An ONNX file in place of a model ---------------------------------------------------------------


def test_an_exported_model_answers_a_recording_of_any_rate_and_leads(plain_path):
    trained, model = make_trained(), load_exported_model(plain_path)
    eight = [LEADS.index(name) for name in ("V6", "V5", "V4", "V3", "V2", "V1", "II", "I")]
    recordings = [
        (fake_ecg(1, 500, 7.3), 500.0, LEADS),
        (fake_ecg(2, 257, 2.5)[eight], 257.0, tuple(LEADS[lead] for lead in eight)),
        (fake_ecg(3, 100, 9), 100.0, LEADS),
    ]
    for recording in recordings:
        ours = predict_sample(trained, *recording)
        theirs = predict_exported_sample(model, *recording)
        assert theirs.values().keys() == ours.values().keys()
        for name, value in theirs.values().items():
            if name == "probabilities":
                assert value == pytest.approx(ours.probabilities, abs=1e-6)
            else:
                assert value == ours.values()[name], name


def test_a_filtering_file_filters_once_and_tells_it(exported):
    trained, path, _ = exported
    model = load_exported_model(path)
    signal = fake_ecg(4, FS, 6)
    ours = predict_sample(trained, signal, FS, LEADS)
    theirs = predict_exported_sample(model, signal, FS, LEADS)
    assert theirs.sample.steps == ("cut into 2 windows of 4 s; their probabilities are averaged",
                                   "band-pass from 0.5 to 40 Hz")  # fmt: skip
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-3)


def test_resampling_before_the_files_filter_changes_little(exported):
    trained, path, _ = exported
    model = load_exported_model(path)
    for seed in range(5):
        recording = (fake_ecg(seed, 500, 5), 500.0, LEADS)
        ours, theirs = (
            predict_sample(trained, *recording),
            predict_exported_sample(model, *recording),
        )
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=5e-3)


def test_signals_are_answered_in_their_order(plain_path):
    model = load_exported_model(plain_path, n_threads=1)
    signals = signals_of([400, 999, 400, 150, 999, 400])
    together = model.predict(signals)
    alone = np.concatenate([model.predict([signal]) for signal in signals])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert model.predict([]).shape == (0, 3)


@pytest.mark.parametrize(
    "signal", [np.zeros((3, 400)), np.zeros((12, 1)), np.full((12, 9), np.nan)]
)
def test_what_the_graph_does_not_take_is_refused(plain_path, signal):
    with pytest.raises(DataError):
        load_exported_model(plain_path).predict([signal])


def test_an_absent_onnx_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist; `einthoven export`"):
        load_exported_model(tmp_path / "none.onnx")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_onnx_file_is_refused(tmp_path, plain_path, kept):
    whole = plain_path.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match=r"cut\.onnx"):
        load_exported_model(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"einthoven_export_format": None}, "no model that `einthoven export` wrote"),
        ({"einthoven_export_format": "99"}, "has export format 99"),
        ({"labels": None}, "KeyError: 'labels'"),
        ({"labels": "[1, 2]"}, "labels are"),
        ({"labels": "{"}, "JSONDecodeError"),
        ({"units": '"V"'}, "leads are"),
        ({"crop": "0"}, "crop 0"),
        ({"task": '"many"'}, "task is many"),
        ({"thresholds": "{}"}, "KeyError"),
        ({"conformal": "[1]"}, "AttributeError"),
        ({"scale": '"x"'}, "damaged"),
    ],
)
def test_a_foreign_onnx_file_is_refused(tmp_path, plain_path, change, words):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(plain_path))
    held = {entry.key: entry.value for entry in model.metadata_props} | change
    del model.metadata_props[:]
    for name, text in held.items():
        if text is not None:
            model.metadata_props.add(key=name, value=text)
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(CheckpointError, match=words):
        load_exported_model(tmp_path / "foreign.onnx")


def test_an_onnx_file_with_another_graph_is_refused(tmp_path, plain_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(plain_path))
    model.graph.output.pop()
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(CheckpointError, match="gives probabilities, decisions; export"):
        load_exported_model(tmp_path / "other.onnx")


def test_int8_makes_the_file_smaller_and_reports_what_it_costs(tmp_path):
    pytest.importorskip("onnxruntime")
    trained = make_trained(nn.Sequential(nn.Conv1d(12, 256, 15), nn.ReLU(), TinyOn(256)))
    reports = [
        export_model(trained, tmp_path / f"{int8}.onnx", "onnx", signals_of([WINDOW] * 4), int8)
        for int8 in (False, True)
    ]
    whole, small = (report["megabytes"] for report in reports)
    assert small < 0.6 * whole
    check = reports[1]["check"]
    assert check["limit"] is None and 1e-6 < check["largest_difference"] < 0.1
    assert load_exported_model(tmp_path / "True.onnx").facts["precision"] == "int8"


class TinyOn(nn.Module):
    """A linear head on the mean over time."""

    def __init__(self, n_features):
        super().__init__()
        self.head = nn.Linear(n_features, len(LABELS))

    def forward(self, x):
        return self.head(x.mean(-1))


# What it is checked on --------------------------------------------------------------------------


def test_without_a_store_an_export_is_checked_on_synthetic_ecgs(tmp_path):
    trained = make_trained()
    first = pick_check_signals(trained, Workspace(tmp_path))
    second = pick_check_signals(trained)
    assert len(first) == 16 and {signal.shape for signal in first} == {(12, WINDOW)}
    np.testing.assert_array_equal(np.stack(first), np.stack(second))


def test_with_a_store_an_export_is_checked_on_records_of_its_test_split(tmp_path):
    store = write_tiny_store(tmp_path, n_records=80)
    test = set(read_splits(Workspace(tmp_path).splits_path)["test"])
    stored = {
        stored_signal(store, row).tobytes()
        for row, name in enumerate(store.manifest["record"]) if name in test
    }  # fmt: skip
    signals = pick_check_signals(make_trained(), Workspace(tmp_path))
    assert len(signals) == len(test) == 8
    assert {to_microvolts(signal).tobytes() for signal in signals} == stored


def test_a_store_of_another_rate_is_none_to_check_on(tmp_path):
    write_tiny_store(tmp_path)
    trained = make_trained()
    trained = replace(trained, input=replace(trained.input, fs=500))
    assert len(pick_check_signals(trained, Workspace(tmp_path))) == 16


# Every architecture -----------------------------------------------------------------------------


def shake(network):
    """Weights of which none is zero: branches that start at zero would hide what they compute."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet1dViews(12, 3, members=(narrow_member("shapes"), wide_member("slopes"))),
        lambda: S4d(12, 3, width=16, depth=1),
    ],
    ids=["resnet1d_views", "s4d"],
)
def test_small_versions_of_two_architectures_export_to_onnx(tmp_path, build):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    trained = make_trained(shake(build()))
    report = export_model(trained, tmp_path / "m.onnx", "onnx", signals_of([WINDOW] * 2))
    assert report["check"]["largest_difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("format", EXPORT_WRITERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_exports_to_every_format(tmp_path, name, format):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    trained = make_trained(shake(build_model(name, n_leads=12, n_classes=3)))
    signals = signals_of([WINDOW] * 3)
    report = export_model(trained, tmp_path / "m", format, signals)
    assert report["check"]["largest_difference"] < 1e-5
    assert np.ptp(predicted(trained, signals), axis=0).max() > 1e-3
