import json

import pytest
import torch
from stores import N_SAMPLES, write_tiny_store

from einthoven import runs, training
from einthoven.checkpoint import load_trained_model, read_checkpoint
from einthoven.console import log
from einthoven.errors import CheckpointError, DataError, SplitError
from einthoven.files import read_json, write_json
from einthoven.inference import predict_records
from einthoven.settings import Settings
from einthoven.store import open_store
from einthoven.training import train_production

CPU = torch.device("cpu")


def tiny_settings(root, **changes):
    usual = {
        "epochs": 3, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": N_SAMPLES,
        "lr": 0.003, "device": "cpu", "early_stop_patience": 0,
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def weights(settings, name="best_model.pth"):
    values = read_checkpoint(settings.workspace.checkpoints_dir / name)
    return values["weights"] if "weights" in values else values["state"]["weights"]


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def root(tmp_path):
    write_tiny_store(tmp_path)
    return tmp_path


def test_two_runs_with_one_seed_give_identical_weights(root):
    first, second = tiny_settings(root, run_name="a"), tiny_settings(root, run_name="b")
    train_production(first)
    train_production(second)
    assert equal(weights(first), weights(second))
    assert equal(weights(first, "last_checkpoint.pth"), weights(second, "last_checkpoint.pth"))
    other = tiny_settings(root, run_name="c", seed=1)
    train_production(other)
    assert not equal(weights(first), weights(other))


def test_the_model_learns_what_tells_the_classes_apart(root):
    settings = tiny_settings(root, epochs=6)
    train_production(settings)
    history = read_json(settings.workspace.checkpoints_dir / "training_history.json")
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert max(row["val_auroc_macro"] for row in history) == 1.0


def test_a_run_stopped_between_epochs_ends_with_the_same_bits(root, monkeypatch):
    whole, stopped = tiny_settings(root, run_name="a"), tiny_settings(root, run_name="b")
    train_production(whole)
    real_epoch = training.train_epoch

    def killed_in_the_second_epoch(run, state):
        if state.epoch == 1:
            raise KeyboardInterrupt
        return real_epoch(run, state)

    monkeypatch.setattr(training, "train_epoch", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train_production(stopped)
    monkeypatch.setattr(training, "train_epoch", real_epoch)
    train_production(stopped)
    assert equal(weights(whole), weights(stopped))
    assert equal(weights(whole, "last_checkpoint.pth"), weights(stopped, "last_checkpoint.pth"))


def test_the_best_model_is_that_of_the_best_epoch_and_not_the_last(root, monkeypatch):
    scores = iter([0.2, 0.9, 0.3])
    real = training.validate
    monkeypatch.setattr(
        training, "validate", lambda run, state: real(run, state) | {"val_f1_macro": next(scores)}
    )
    settings = tiny_settings(root)
    train_production(settings)
    assert load_trained_model(settings.workspace.best_model_path, CPU).facts["epoch"] == 2
    assert not equal(weights(settings), weights(settings, "last_checkpoint.pth"))


def test_accumulated_gradient_equals_large_batch_gradient(root, monkeypatch):
    # Batch statistics differ between one large batch and two small ones; a model without them.
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12 * 100, 5))
    monkeypatch.setattr(training, "build_model", lambda *_, **__: plain)
    start = {key: value.clone() for key, value in plain.state_dict().items()}
    found = []
    for name, changes in (("a", {"batch_size_cpu": 32}), ("b", {"grad_accum_steps": 2})):
        plain.load_state_dict(start)
        settings = tiny_settings(root, run_name=name, epochs=1, clip_norm=0, **changes)
        monkeypatch.setattr(training, "finish_run", lambda *_: None)
        train_production(settings)
        found.append(weights(settings, "last_checkpoint.pth"))
    for key in start:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=1e-5, atol=1e-6)


def test_a_finished_run_is_left_alone(root):
    settings = tiny_settings(root)
    train_production(settings)
    before = settings.workspace.best_model_path.stat().st_mtime_ns
    train_production(settings)
    assert settings.workspace.best_model_path.stat().st_mtime_ns == before


def test_a_finished_run_is_not_replaced_silently(root):
    train_production(tiny_settings(root))
    with pytest.raises(CheckpointError, match=r"lr: 0\.003 -> 0\.01") as refusal:
        train_production(tiny_settings(root, lr=0.01))
    assert "--run-name" in str(refusal.value) and "--fresh" in str(refusal.value)
    train_production(tiny_settings(root, lr=0.01, fresh=True))
    assert load_trained_model(
        tiny_settings(root).workspace.best_model_path, CPU
    ).facts["settings"]["lr"] == 0.01  # fmt: skip


def test_what_cannot_change_a_result_does_not_make_it_another_run(root):
    train_production(tiny_settings(root))
    train_production(tiny_settings(root, num_workers=2, quiet=True, prepare_workers=1))


def test_other_labels_make_it_another_run(root):
    settings = tiny_settings(root)
    train_production(settings)
    splits = read_json(settings.workspace.splits_path)
    splits["train"] = splits["train"][1:]
    write_json(settings.workspace.splits_path, splits)
    with pytest.raises(CheckpointError, match="data: "):
        train_production(settings)


def test_training_refuses_a_patient_in_two_splits_and_names_the_record(root):
    settings = tiny_settings(root)
    splits = read_json(settings.workspace.splits_path)
    splits["test"].append(splits["train"][0])
    write_json(settings.workspace.splits_path, splits)
    with pytest.raises(SplitError, match=splits["train"][0]):
        train_production(settings)


def test_a_split_without_records_is_named(root):
    settings = tiny_settings(root)
    splits = read_json(settings.workspace.splits_path)
    write_json(settings.workspace.splits_path, splits | {"val": []})
    with pytest.raises(DataError, match="the val split has no labelled record"):
        train_production(settings)


def test_scale_is_fitted_on_the_training_split_alone(root):
    settings = tiny_settings(root, epochs=1)
    train_production(settings)
    store = open_store(settings.workspace)
    chosen = set(read_json(settings.workspace.splits_path)["train"])
    rows = [row for row, name in enumerate(store.manifest["record"]) if name in chosen]
    windows = torch.from_numpy(store.load_windows(rows)).double() / 1000
    expected = (windows - windows.mean(-1, keepdim=True)).square().mean((0, 2)).sqrt()
    trained = load_trained_model(settings.workspace.best_model_path, CPU)
    torch.testing.assert_close(trained.input.scale.double(), expected, rtol=1e-5, atol=0)


def test_class_weights_come_from_the_whole_training_split(root):
    settings = tiny_settings(root, epochs=1)
    train_production(settings)
    described = read_json(settings.workspace.checkpoints_dir / "run.json")
    store = open_store(settings.workspace)
    chosen = read_json(settings.workspace.splits_path)["train"]
    train = store.manifest.set_index("record").loc[chosen]
    n_mi = sum("MI" in labels for labels in train["labels"])
    weight_of = dict(zip(described["labels"], described["class_weights"], strict=True))
    assert weight_of["MI"] == pytest.approx(len(train) / (2 * n_mi))
    assert weight_of["NORM"] == pytest.approx(len(train) / (2 * (len(train) - n_mi)))


def test_early_stopping_ends_a_run_that_gains_nothing(root, monkeypatch):
    real = training.validate
    monkeypatch.setattr(
        training, "validate", lambda run, state: real(run, state) | {"val_f1_macro": 0.5}
    )
    settings = tiny_settings(root, epochs=9, early_stop_patience=2)
    train_production(settings)
    history = read_json(settings.workspace.checkpoints_dir / "training_history.json")
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run(root, monkeypatch):
    monkeypatch.setattr(training, "summed_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(DataError, match="not finite; lower LR"):
        train_production(tiny_settings(root))


def test_a_dry_run_writes_nothing(root, caplog):
    log.addHandler(caplog.handler)
    settings = tiny_settings(root, dry_run=True)
    train_production(settings)
    assert not settings.workspace.checkpoints_dir.exists()


def test_smoke_is_one_epoch_on_a_seeded_subset(root, monkeypatch):
    monkeypatch.setitem(runs.MODE_RECORDS, "smoke", 50)
    settings = tiny_settings(root, run_mode="smoke")
    train_production(settings)
    described = json.loads((settings.workspace.checkpoints_dir / "run.json").read_text())
    assert described["n_train"] + described["n_val"] <= 50
    history = read_json(settings.workspace.checkpoints_dir / "training_history.json")
    assert len(history) == 1


@pytest.mark.parametrize("task", ["single", "multi"])
def test_predictions_do_not_depend_on_who_else_is_predicted(root, task):
    settings = tiny_settings(root, epochs=1, task=task)
    train_production(settings)
    trained = load_trained_model(settings.workspace.best_model_path, CPU)
    store = open_store(settings.workspace)
    together = predict_records(trained, store, torch.arange(20).numpy())
    alone = predict_records(trained, store, torch.arange(7, 8).numpy())
    assert together.shape == (20, 5)
    assert abs(together[7] - alone[0]).max() < 1e-5
    if task == "single":
        assert abs(together.sum(1) - 1).max() < 1e-5
        assert trained.thresholds == {}
    else:
        assert set(trained.thresholds) == {"MI", "AF", "BBB", "NORM", "OTHER"}


def test_bfloat16_trains_on_a_cpu_when_asked(root):
    settings = tiny_settings(root, mixed_precision="bf16", epochs=1)
    train_production(settings)
    described = read_json(settings.workspace.checkpoints_dir / "run.json")
    assert described["settings"]["mixed_precision"] == "bf16"
