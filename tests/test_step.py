"""One optimizer step: what it leaves out, what it averages, and what it does without memory."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from stores import N_SAMPLES, write_tiny_store

from einthoven import shortage, step, training
from einthoven.averaging import average_decay, averaged_copy, update_average
from einthoven.checkpoint import read_checkpoint
from einthoven.console import log
from einthoven.distributed import Processes
from einthoven.errors import ConfigError, MemoryShortage
from einthoven.files import read_json
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.settings import Settings
from einthoven.tally import EpochTally
from einthoven.training import train_production


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=8))
    write_tiny_store(tmp_path)
    return tmp_path


def settings_of(root, **changes):
    usual = {
        "epochs": 2, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": N_SAMPLES,
        "lr": 0.003, "device": "cpu", "early_stop_patience": 0, "tracking": "none",
        "model_name": "resnet1d_wang",
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def history(settings):
    return read_json(settings.workspace.checkpoints_dir / "training_history.json")


def last_state(settings):
    return read_checkpoint(settings.workspace.checkpoints_dir / "last_checkpoint.pth")["state"]


def watch_states(monkeypatch):
    """The weights, batch statistics and optimizer state before each step, as they come."""
    seen = []
    real = training.train_step

    def watched(run, state, *given):
        weights = {name: value.clone() for name, value in state.model.state_dict().items()}
        moments = {
            f"{number} {name}": value.clone()
            for number, values in state.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        seen.append(weights | moments)
        return real(run, state, *given)

    monkeypatch.setattr(training, "train_step", watched)
    return seen


def spoil_losses(monkeypatch, at_calls):
    """Let the loss be no number at some calls, counted from 1."""
    calls = iter(range(1, 1000))
    real = step.summed_loss

    def spoilt(*given):
        return real(*given) * (float("nan") if next(calls) in at_calls else 1.0)

    monkeypatch.setattr(step, "summed_loss", spoilt)


# Not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["off", "fp16", "bf16"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(root, monkeypatch, arithmetic):
    seen = watch_states(monkeypatch)
    spoil_losses(monkeypatch, {2})
    settings = settings_of(root, mixed_precision=arithmetic)
    train_production(settings)
    before, after, later = seen[1:4]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(after[name], later[name]) for name in after)
    skipped, none = (row["skipped_steps"] for row in history(settings))
    # With float16 the first steps also look for the largest scale that does not overflow.
    assert none == 0 and (skipped >= 1 if arithmetic == "fp16" else skipped == 1)


def test_a_step_that_is_not_finite_does_not_enter_the_figures(root, monkeypatch):
    spoil_losses(monkeypatch, {2})
    settings = settings_of(root)
    train_production(settings)
    first = history(settings)[0]
    assert 0 < first["train_loss"] < 10 and 0 <= first["train_accuracy"] <= 1
    assert first["gradient_norm"] > 0


def test_nine_steps_in_a_row_are_borne_and_the_tenth_is_not():
    tally = EpochTally()
    for _ in range(9):
        tally.add([float("nan"), 0.0, float("nan"), 1.0], 16)
    tally = tally.next_epoch()
    tally.add([float("nan"), 0.0, float("nan"), 1.0], 16)
    assert tally.n_skipped_in_a_row == 10 and tally.n_skipped == 1
    tally.add([16.0, 8.0, 2.0, 0.0], 16)
    assert tally.n_skipped_in_a_row == 0
    assert (tally.mean_loss, tally.row()["train_accuracy"]) == (1.0, 0.5)


# Out of memory -----------------------------------------------------------------------------------


class Hungry(torch.nn.Module):
    """Runs out of memory at more than ``n_fit`` records."""

    def __init__(self, n_leads, n_classes, n_fit):
        super().__init__()
        self.net, self.n_fit = ResNet1d(n_leads, n_classes, width=8), n_fit

    def forward(self, x):
        if self.training and len(x) > self.n_fit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.net(x)


def test_out_of_memory_names_three_settings_with_values_that_fit(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    with pytest.raises(MemoryShortage) as shortage_error:
        train_production(settings_of(root))
    said = str(shortage_error.value)
    assert "at a batch of 16 records" in said and "a batch of 4 was tried here, and fits" in said
    assert "BATCH_SIZE_CPU=4 with GRAD_ACCUM_STEPS=4" in said
    assert "MIXED_PRECISION=bf16" in said and "AUTO_BATCH" in said and "MODEL_NAME" in said
    # A quarter of a crop of a second would hold no heartbeat, and nothing lies on a GPU.
    assert "CROP_SAMPLES" not in said and "RESIDENCY" not in said


def test_what_is_advised_works(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    settings = settings_of(root, batch_size_cpu=4, grad_accum_steps=4)
    train_production(settings)
    assert len(history(settings)) == 2


def test_auto_batch_halves_the_batch_and_keeps_the_step(root, monkeypatch, caplog):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    log.addHandler(caplog.handler)
    settings = settings_of(root, auto_batch=True)
    train_production(settings)
    log.removeHandler(caplog.handler)
    rows = history(settings)
    assert [(row["batch_size"], row["grad_accum_steps"]) for row in rows] == [(4, 4), (4, 4)]
    state = last_state(settings)
    assert state["batch_size"] == 4 and state["step"] == 8  # 64 records, 16 a step, two epochs
    said = {message for message in caplog.messages if "Memory ran out" in message}
    assert len(said) == 2 and all("not the same to the bit" in message for message in said)


def test_auto_batch_gives_up_where_two_records_do_not_fit(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=1))
    with pytest.raises(MemoryShortage, match="even with 2 records at a time"):
        train_production(settings_of(root, auto_batch=True))


def test_a_batch_cut_by_a_shortage_stays_cut_when_the_run_goes_on(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    settings = settings_of(root, auto_batch=True)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(training, "epoch_line", lambda *_: 1 / 0)
        train_production(settings)
    monkeypatch.setattr(training, "make_room", lambda *_: pytest.fail("it was cut before"))
    train_production(settings)
    assert [row["batch_size"] for row in history(settings)] == [4, 4]


@pytest.mark.parametrize("arithmetic", ["off", "fp16"])
def test_memory_that_runs_out_while_weights_change_leaves_the_same_step(
    root, monkeypatch, arithmetic
):
    changes = {"mixed_precision": arithmetic, "epochs": 1, "auto_batch": True}
    whole = settings_of(root, run_name="a", grad_accum_steps=2, **changes | {"batch_size_cpu": 8})
    train_production(whole)
    real, calls = step.update_weights, []

    def once_out_of_memory(run, state):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(run, state)

    monkeypatch.setattr(step, "update_weights", once_out_of_memory)
    cut = settings_of(root, run_name="b", **changes)
    train_production(cut)
    one, other = last_state(whole)["weights"], last_state(cut)["weights"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_dry_run_that_runs_out_of_memory_says_what_fits(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    with pytest.raises(MemoryShortage, match="a batch of 4 was tried here"):
        train_production(settings_of(root, dry_run=True))


def test_several_processes_are_advised_a_batch_that_they_can_share(root, monkeypatch):
    advice = []
    real = shortage.shortage_advice

    def as_one_of_two(run, state):
        two = replace(run, processes=Processes(0, 2))
        advice.append(real(two, state))
        return advice[0]

    monkeypatch.setattr(shortage, "shortage_advice", as_one_of_two)
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=8))
    with pytest.raises(MemoryShortage):
        train_production(settings_of(root, batch_size_cpu=64))
    assert "BATCH_SIZE_CPU=16 with" in advice[0] and "AUTO_BATCH" not in advice[0]


def test_trying_what_fits_leaves_no_trace(root, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(Hungry, n_fit=5))
    traces = []
    real = shortage.largest_batch_that_fits

    def traced(run, state):
        before = [value.clone() for value in state.batch_statistics()]
        fits = real(run, state)
        traces.append(all(map(torch.equal, before, state.batch_statistics())))
        assert all(parameter.grad is None for parameter in state.model.parameters())
        return fits

    monkeypatch.setattr(shortage, "largest_batch_that_fits", traced)
    with pytest.raises(MemoryShortage):
        train_production(settings_of(root))
    assert traces == [True]


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(root, monkeypatch):
    def broken(*given):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(step, "update_weights", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train_production(settings_of(root))


# Averaged weights --------------------------------------------------------------------------------


def test_the_average_moves_by_its_decay():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    average = averaged_copy(model)
    with torch.no_grad():
        start = model[0].weight.item()
        model[0].weight += 1.0
        model[1].running_mean += 2.0
        model[1].num_batches_tracked += 3
    update_average(average, model, decay=0.75)
    assert average[0].weight.item() == pytest.approx(start + 0.25)
    assert average[1].running_mean.item() == pytest.approx(0.5)
    assert average[1].num_batches_tracked.item() == 3
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_a_young_average_forgets_its_start_faster():
    assert average_decay(0.999, 0) == pytest.approx(0.1)
    assert average_decay(0.999, 10**6) == 0.999


def test_averaged_weights_are_scored_and_kept_beside_the_raw_ones(root):
    settings = settings_of(root, ema_decay=0.9)
    train_production(settings)
    values = read_checkpoint(settings.workspace.best_model_path)
    weights, raw = values["weights"], values["raw_weights"]
    assert weights.keys() == raw.keys()
    assert any(not torch.equal(weights[name], raw[name]) for name in raw)
    assert values["validation"]["val_loss"] != values["raw_validation"]["val_loss"]


# The rest ----------------------------------------------------------------------------------------


def test_the_clipped_gradient_is_logged_as_it_was_before(root):
    settings = settings_of(root, clip_norm=1e-6, epochs=1)
    train_production(settings)
    assert history(settings)[0]["gradient_norm"] > 1e-3


def test_a_loss_that_does_not_suit_the_task_is_refused(root):
    with pytest.raises(ConfigError, match="use focal or entropy"):
        train_production(settings_of(root, loss="asymmetric"))


def test_a_row_of_the_history_is_plain_json_for_pandas(root):
    import pandas as pd

    settings = settings_of(root)
    train_production(settings)
    path = settings.workspace.checkpoints_dir / "training_history.json"
    table = pd.read_json(path)
    assert len(table) == 2 and {"train_loss", "val_f1_macro", "peak_memory_mb"} <= set(table)
    assert "NaN" not in json.dumps(json.loads(path.read_text()))
