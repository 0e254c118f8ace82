import numpy as np
import pytest
import torch

from einthoven.checkpoint import (
    ModelInput,
    load_trained_model,
    model_values,
    read_checkpoint,
    write_checkpoint,
)
from einthoven.errors import CheckpointError, ConfigError
from einthoven.models.registry import build_model

CPU = torch.device("cpu")


def tiny_model_values():
    torch.manual_seed(0)
    model = build_model("resnet1d_wang", n_leads=12, n_classes=2)
    seen = ModelInput(100, 200, 50, (0.5, 40.0), "dataset", torch.full((12,), 0.25))
    facts = {"settings": {"lr": 0.1}, "data": "77d0e1"}
    return model, model_values("resnet1d_wang", model, seen, ("MI", "NORM"), False, facts)


def test_the_model_file_alone_is_enough_to_predict(tmp_path):
    model, values = tiny_model_values()
    values["thresholds"] = {
        "best_f1": {"MI": 0.3, "NORM": 0.6}, "youden": {"MI": 0.1, "NORM": 0.2},
    }  # fmt: skip
    write_checkpoint(tmp_path / "m.pth", values)
    trained = load_trained_model(tmp_path / "m.pth", CPU)
    x = torch.randn(2, 12, 50)
    assert torch.equal(trained.model(x), model.eval()(x))
    assert (trained.labels, trained.single, trained.thresholds) == (
        ("MI", "NORM"), False, {"MI": 0.3, "NORM": 0.6},
    )  # fmt: skip
    assert (trained.fs, trained.window, trained.input.crop) == (100, 200, 50)
    assert trained.input.bandpass == (0.5, 40.0)
    assert trained.facts["leads"][:4] == ["I", "II", "III", "aVR"]
    assert {"einthoven", "torch", "numpy", "python"} == set(trained.facts["versions"])


def test_a_model_decides_by_the_rule_that_is_asked_for(tmp_path):
    values = tiny_model_values()[1]
    values["thresholds"] = {"best_f1": {"MI": 0.3}, "youden": {"MI": 0.1, "NORM": 0.2}}
    write_checkpoint(tmp_path / "m.pth", values)
    trained = load_trained_model(tmp_path / "m.pth", CPU)
    assert trained.with_rule("youden").thresholds == {"MI": 0.1, "NORM": 0.2}
    assert trained.thresholds == {"MI": 0.3, "NORM": 0.5}
    with pytest.raises(ConfigError, match="has thresholds for best_f1, youden; the Challenge"):
        trained.with_rule("challenge_score")


def test_a_model_that_was_never_finished_says_that_it_is_not_calibrated(tmp_path):
    write_checkpoint(tmp_path / "m.pth", tiny_model_values()[1])
    trained = load_trained_model(tmp_path / "m.pth", CPU)
    assert trained.calibration.method == "none"
    assert trained.calibration.reason == "the training has not been finished"
    assert trained.thresholds == {"MI": 0.5, "NORM": 0.5}


def test_the_calibration_survives_the_file(tmp_path):
    values = tiny_model_values()[1]
    values["calibration"] |= {"method": "platt", "slope": [0.5, 2.0], "bias": [-1.0, 0.25]}
    write_checkpoint(tmp_path / "m.pth", values)
    trained = load_trained_model(tmp_path / "m.pth", CPU)
    calibrated = trained.calibration.apply(np.array([[0.5, 0.5]]))
    assert calibrated == pytest.approx(1 / (1 + np.exp([[1.0, -0.25]])))


def test_checkpoints_hold_no_pickled_classes(tmp_path):
    write_checkpoint(tmp_path / "m.pth", tiny_model_values()[1])
    torch.load(tmp_path / "m.pth", weights_only=True)


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_damaged_checkpoint_is_named(tmp_path, kept):
    path = tmp_path / "m.pth"
    write_checkpoint(path, tiny_model_values()[1])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"m\.pth is damaged"):
        read_checkpoint(path)


def test_missing_checkpoint_says_what_writes_it(tmp_path):
    with pytest.raises(CheckpointError, match="einthoven train"):
        read_checkpoint(tmp_path / "m.pth")


def test_a_model_file_that_lacks_something_says_what(tmp_path):
    values = tiny_model_values()[1]
    del values["scale"], values["conformal"]
    write_checkpoint(tmp_path / "m.pth", values)
    with pytest.raises(CheckpointError, match="no whole model file: it lacks scale, conformal"):
        load_trained_model(tmp_path / "m.pth", CPU)


def test_model_of_another_format_is_refused(tmp_path):
    values = tiny_model_values()[1] | {"format": 99}
    write_checkpoint(tmp_path / "m.pth", values)
    with pytest.raises(CheckpointError, match="format 99"):
        load_trained_model(tmp_path / "m.pth", CPU)
