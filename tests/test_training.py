import json
import signal
from functools import partial

import pytest
import torch
from stores import N_SAMPLES, write_tiny_store

from einthoven import run_folder, run_state, runs, step, training
from einthoven.checkpoint import load_trained_model, read_checkpoint, write_checkpoint
from einthoven.console import log
from einthoven.errors import CheckpointError, ConfigError, DataError, RunStopped, SplitError
from einthoven.files import read_json, stamp_step, write_json
from einthoven.holdout import halve_records
from einthoven.inference import choose_device, predict_records
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.runs import arithmetic
from einthoven.settings import Settings
from einthoven.split_records import rows_of_records
from einthoven.store import open_store
from einthoven.training import train_production

CPU = torch.device("cpu")


def tiny_settings(root, **changes):
    usual = {
        "epochs": 3, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": N_SAMPLES,
        "lr": 0.003, "device": "cpu", "early_stop_patience": 0, "tracking": "none",
        "model_name": "resnet1d_wang",
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def weights(settings, name="best_model.pth"):
    values = read_checkpoint(settings.workspace.checkpoints_dir / name)
    return values["weights"] if "weights" in values else values["state"]["weights"]


@pytest.fixture(autouse=True)
def narrow_model(monkeypatch):
    """The usual architecture with an eighth of its features: nothing here is about its size."""
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))


def kill(*_):
    raise KeyboardInterrupt


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def root(tmp_path):
    write_tiny_store(tmp_path)
    return tmp_path


def stop_at_the_second_look(monkeypatch):
    """Let a signal come while the processes agree on whether one has come."""
    real, looks = training.largest_of_processes, []

    def signalled(value, processes):
        looks.append(1)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(value, processes)

    monkeypatch.setattr(training, "largest_of_processes", signalled)


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

    def killed_in_the_second_epoch(run, state, after_look):
        if state.epoch == 1:
            raise KeyboardInterrupt
        return real_epoch(run, state, after_look)

    monkeypatch.setattr(training, "train_epoch", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train_production(stopped)
    monkeypatch.setattr(training, "train_epoch", real_epoch)
    train_production(stopped)
    assert equal(weights(whole), weights(stopped))
    assert equal(weights(whole, "last_checkpoint.pth"), weights(stopped, "last_checkpoint.pth"))


def test_the_best_model_is_that_of_the_best_epoch_and_not_the_last(root, monkeypatch):
    scores = iter([0.2, 0.9, 0.3, 0.1])  # the last one is of the raw weights of the best epoch
    real = training.validate
    monkeypatch.setattr(
        training, "validate", lambda run, model: real(run, model) | {"val_f1_macro": next(scores)}
    )
    settings = tiny_settings(root)
    train_production(settings)
    assert load_trained_model(settings.workspace.best_model_path, CPU).facts["epoch"] == 2
    assert not equal(weights(settings), weights(settings, "last_checkpoint.pth"))


def test_accumulated_gradient_equals_large_batch_gradient(root, monkeypatch):
    # Batch statistics differ between one large batch and two small ones; a model without them.
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12 * 100, 5))
    monkeypatch.setattr(run_state, "build_model", lambda *_, **__: plain)
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
    with pytest.raises(CheckpointError, match="data has changed"):
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
        training, "validate", lambda run, model: real(run, model) | {"val_f1_macro": 0.5}
    )
    settings = tiny_settings(root, epochs=9, early_stop_patience=2)
    train_production(settings)
    history = read_json(settings.workspace.checkpoints_dir / "training_history.json")
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run(root, monkeypatch):
    monkeypatch.setattr(step, "summed_loss", lambda logits, *_: logits.sum() * float("nan"))
    settings = tiny_settings(root)
    with pytest.raises(DataError, match=r"not finite in 10 steps in a row of epoch 3.*Lower LR"):
        train_production(settings)
    written = read_json(settings.workspace.checkpoints_dir / "not_finite.json")
    # Four steps an epoch, ten in a row.
    assert [step["step"] for step in written["steps"]] == list(range(1, 11))
    names = set(open_store(settings.workspace).manifest["record"])
    assert all(len(step["records"]) == 16 for step in written["steps"])
    assert {record for step in written["steps"] for record in step["records"]} <= names
    assert written["steps"][0]["loss"] == "nan"


def test_a_signal_at_any_moment_stops_only_what_is_saved(root, monkeypatch):
    settings = tiny_settings(root)
    stop_at_the_second_look(monkeypatch)
    with pytest.raises(RunStopped, match="and saved; the same command goes on") as stop:
        train_production(settings)
    assert stop.value.exit_code == 128 + signal.SIGTERM
    state = read_checkpoint(settings.workspace.checkpoints_dir / "last_checkpoint.pth")["state"]
    assert state["step"] == 3


def test_a_fresh_run_that_is_stopped_goes_on_without_fresh(root, monkeypatch):
    stop_at_the_second_look(monkeypatch)
    with pytest.raises(RunStopped, match="the same command without --fresh goes on from here"):
        train_production(tiny_settings(root, fresh=True))


# Stopped, damaged, finished ----------------------------------------------------------------------


def test_a_run_killed_while_it_is_finished_finishes_when_run_again(root, monkeypatch):
    whole, killed = (tiny_settings(root, run_name=name, task="multi") for name in "ab")
    train_production(whole)

    for name in ("write_checkpoint", "stamp_step"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training, name, kill)
            train_production(killed)
        assert not killed.workspace.step_path("train").exists()
    train_production(killed)
    assert killed.workspace.step_path("train").exists()
    one, other = (load_trained_model(s.workspace.best_model_path, CPU) for s in (whole, killed))
    assert one.thresholds == other.thresholds and equal(weights(whole), weights(killed))


def test_a_run_that_stopped_early_trains_no_further_when_run_again(root, monkeypatch):
    real = training.validate
    monkeypatch.setattr(
        training, "validate", lambda run, model: real(run, model) | {"val_f1_macro": 0.5}
    )
    settings = tiny_settings(root, epochs=9, early_stop_patience=2)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(training, "finish_run", lambda *_: 1 / 0)
        train_production(settings)
    monkeypatch.setattr(training, "train_epoch", None)
    train_production(settings)
    assert settings.workspace.step_path("train").exists()


@pytest.mark.parametrize("damage", ["gone", "damaged", "of another epoch"])
def test_a_best_model_that_is_not_the_states_is_made_again(root, monkeypatch, damage):
    settings = tiny_settings(root, epochs=2)
    train_production(settings)
    path = settings.workspace.best_model_path
    best, values = weights(settings), read_checkpoint(path)
    path.unlink()
    if damage == "damaged":
        path.write_bytes(b"half a file")
    if damage == "of another epoch":
        write_checkpoint(path, values | {"epoch": 7})
    settings.workspace.step_path("train").unlink()
    monkeypatch.setattr(training, "train_epoch", None)
    train_production(settings)
    assert equal(best, weights(settings))
    assert read_checkpoint(path)["epoch"] == values["epoch"]


def test_a_run_that_starts_over_is_not_finished_until_its_end(root, monkeypatch):
    settings = tiny_settings(root, epochs=1)
    train_production(settings)
    for path in settings.workspace.checkpoints_dir.glob("*.pth"):
        path.unlink()
    monkeypatch.setattr(training, "finish_run", lambda *_: None)
    train_production(settings)
    assert settings.workspace.best_model_path.exists()
    assert not settings.workspace.step_path("train").exists()


def test_a_model_file_in_the_place_of_a_stopped_run_is_named(root):
    settings = tiny_settings(root, epochs=1)
    train_production(settings)
    settings.workspace.step_path("train").unlink()
    best, last = (
        settings.workspace.checkpoints_dir / f"{n}.pth" for n in ("best_model", "last_checkpoint")
    )
    last.write_bytes(best.read_bytes())
    with pytest.raises(CheckpointError, match="holds no stopped run; start over with --fresh"):
        train_production(settings)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"label_set": "superdiagnostic"}, "label_set: five -> superdiagnostic"),
        ({"target_samples": 500}, "target_samples: 200 -> 500"),
        ({"bandpass": True}, "bandpass: None -> "),
        ({"archives": "ptb-xl"}, "archives: tiny -> ptb-xl"),
        ({"ecg_preprocess_limit": 40}, "ecg_preprocess_limit: 80 -> 40"),
    ],
)
def test_a_store_of_other_settings_is_refused(root, changes, difference):
    with pytest.raises(DataError, match=difference):
        train_production(tiny_settings(root, **changes))


def test_labels_edited_since_the_store_was_made_are_warned_of(root, caplog):
    log.addHandler(caplog.handler)
    settings = tiny_settings(root, dry_run=True)
    stamp_step(settings.workspace.step_path("prepare"), {"mapping": "another"})
    train_production(settings)
    log.removeHandler(caplog.handler)
    assert "The labels have changed since the store was made" in caplog.text


def test_a_class_added_to_ones_own_label_set_makes_it_another_run(root, tmp_path):
    own = tmp_path / "mine.csv"
    splits = read_json(tiny_settings(root).workspace.splits_path)
    write_json(tiny_settings(root).workspace.splits_path, splits | {"label_set": str(own)})
    own.write_text("code,label\nscp:IMI,MI\nscp:NORM,NORM\n")
    settings = tiny_settings(root, label_set=str(own), task="single", epochs=1)
    train_production(settings)
    own.write_text("code,label\nscp:IMI,MI\nscp:NORM,NORM\nscp:PVC,PVC\n")
    with pytest.raises(CheckpointError, match="classes: MI, NORM -> MI, NORM, PVC"):
        train_production(settings)


def test_fresh_clears_figures_report_and_predictions_of_this_run_alone(root):
    other, settings = tiny_settings(root, run_name="other"), tiny_settings(root, epochs=1)
    train_production(settings)
    places = [settings.workspace, other.workspace]
    written = [
        path
        for place in places
        for path in (
            place.checkpoints_dir / "predictions.parquet",
            place.checkpoints_dir / "metrics_epoch_007.json",
            place.figures_dir / "roc_curves_20260101-000000.png",
            place.report_path,
            place.figures_dir / "mine.png",
        )
    ]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    train_production(tiny_settings(root, epochs=1, fresh=True))
    assert [path.exists() for path in written] == [False] * 4 + [True] * 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="DEVICE is cuda:1, and 0 cuda devices can be used here"):
        choose_device("cuda:1")
    assert choose_device("auto") == choose_device("cpu") == CPU


def test_batches_of_an_epoch_are_counted_once(root, monkeypatch):
    calls = []
    real = runs.step_bounds
    monkeypatch.setattr(runs, "step_bounds", lambda *given: calls.append(1) or real(*given))
    train_production(tiny_settings(root, epochs=2, batch_size_cpu=4))
    assert len(calls) == 1


def test_a_rule_that_the_labels_do_not_fit_is_refused_before_training(root):
    settings = tiny_settings(root, threshold_rule="challenge_score", task="multi")
    with pytest.raises(ConfigError, match="THRESHOLD_RULE is challenge_score"):
        train_production(settings)
    assert not settings.workspace.checkpoints_dir.exists()


def test_the_half_that_calibrates_does_not_pick_the_epoch(root, monkeypatch):
    settings = tiny_settings(root, run_name="a", task="multi")
    train_production(settings)
    history = read_json(settings.workspace.checkpoints_dir / "training_history.json")
    manifest = open_store(settings.workspace).manifest
    splits = read_json(settings.workspace.splits_path)
    halves = halve_records(manifest, rows_of_records(manifest["record"], splits["val"]), 0)
    others = list(halves[1])
    moved = manifest["labels"].copy()
    for row in others:
        moved[row] = ["AF"]
    other = tiny_settings(root, run_name="b", task="multi")
    with monkeypatch.context() as patch:
        real = runs.label_flags
        patch.setattr(
            runs, "label_flags",
            lambda table, labels: real(table.assign(labels=moved.loc[table.index]), labels),
        )  # fmt: skip
        train_production(other)
    again = read_json(other.workspace.checkpoints_dir / "training_history.json")
    assert [row["val_f1_macro"] for row in history] == [row["val_f1_macro"] for row in again]
    assert equal(weights(settings), weights(other))
    one, two = (load_trained_model(s.workspace.best_model_path, CPU) for s in (settings, other))
    assert one.calibration.values() != two.calibration.values()


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
    assert described["n_train"] + described["n_selection"] + described["n_calibration"] <= 50
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


def test_float16_scales_gradients_and_a_stopped_run_keeps_the_scale(root, monkeypatch):
    whole, stopped = (tiny_settings(root, run_name=n, mixed_precision="fp16") for n in "ab")
    train_production(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        real = training.train_epoch
        patch.setattr(
            training,
            "train_epoch",
            lambda run, state, then: real(run, state, then) if state.epoch < 2 else kill(),
        )
        train_production(stopped)
    last = stopped.workspace.checkpoints_dir / "last_checkpoint.pth"
    values = read_checkpoint(last)
    assert values["state"]["scaler"]["scale"] > 1
    train_production(stopped)
    assert equal(weights(whole, last.name), weights(stopped, last.name))
    scalers = [
        read_checkpoint(s.workspace.checkpoints_dir / last.name)["state"]["scaler"]
        for s in (whole, stopped)
    ]
    assert scalers[0] == scalers[1]


@pytest.mark.parametrize("has_bf16", [True, False])
def test_arithmetic_is_picked_by_the_device(monkeypatch, has_bf16):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    gpu, settings = torch.device("cuda"), Settings()
    assert arithmetic(settings, gpu) == (torch.bfloat16 if has_bf16 else torch.float16)
    assert arithmetic(settings, CPU) == torch.float32
    assert arithmetic(Settings(mixed_precision="off"), gpu) == torch.float32


def test_bfloat16_trains_on_a_cpu_when_asked(root):
    settings = tiny_settings(root, mixed_precision="bf16", epochs=1)
    train_production(settings)
    described = read_json(settings.workspace.checkpoints_dir / "run.json")
    assert described["settings"]["mixed_precision"] == "bf16"


def test_one_record_is_too_few_to_train_on(root):
    settings = tiny_settings(root)
    splits = read_json(settings.workspace.splits_path)
    write_json(settings.workspace.splits_path, splits | {"train": splits["train"][:1]})
    with pytest.raises(DataError, match="two or more are needed for each process"):
        train_production(settings)


def test_a_run_with_other_settings_is_refused_before_its_store_is_replaced(root):
    train_production(tiny_settings(root))
    run_folder.refuse_other_run(tiny_settings(root, num_workers=1, dataset_dir=root / "moved"))
    run_folder.refuse_other_run(tiny_settings(root, seed=1, fresh=True))
    for change in ({"seed": 1}, {"split_seed": 1}, {"bandpass": True}, {"archives": "ptb-xl"}):
        with pytest.raises(CheckpointError, match=next(iter(change))):
            run_folder.refuse_other_run(tiny_settings(root, **change))


class HungryInEvaluation(ResNet1d):
    """Runs out of memory at more than fifty crops at a time, once it is evaluated."""

    def forward(self, x):
        if not self.training and len(x) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_validation_that_does_not_fit_into_memory_is_done_in_parts(root, monkeypatch):
    whole, parts = tiny_settings(root, run_name="a"), tiny_settings(root, run_name="b")
    train_production(whole)
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(HungryInEvaluation, width=16))
    train_production(parts)
    one, other = (
        read_json(s.workspace.checkpoints_dir / "training_history.json") for s in (whole, parts)
    )
    assert [row["val_loss"] for row in one] == pytest.approx([row["val_loss"] for row in other])
