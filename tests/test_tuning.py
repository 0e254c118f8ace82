"""The search: trials shared, given up, gone on with; what it leaves; what it never touches."""

from __future__ import annotations

import errno
import sys
import time
import tomllib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import IntegrityError
from stores import write_tiny_store
from tuning_process import (
    CONFIRMATION_KEYS,
    fake_training,
    make_training_fake,
    search_settings,
    write_space,
)

from einthoven import batches, inference, runs
from einthoven.configuration import load_settings
from einthoven.errors import ConfigError, DataError, MemoryShortage, RunGivenUp, RunStopped
from einthoven.files import Workspace, read_json, write_json
from einthoven.labels.sets import load_label_set
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.run_folder import WITHOUT_EFFECT, run_inputs
from einthoven.scoring import Predictions
from einthoven.settings import Settings, setting_names
from einthoven.store import open_store
from einthoven.training import open_data, train_production
from einthoven.tuning import command, confirmation, study, trials
from einthoven.tuning.command import tune
from einthoven.tuning.confirmation import compare_seeds, confirm_best
from einthoven.tuning.devices import device_here
from einthoven.tuning.results import fixed_settings, write_figures
from einthoven.tuning.space import choose_space
from einthoven.tuning.storage import open_storage
from einthoven.tuning.study import Search, hand_on, join_study, lost_trials, next_trial
from einthoven.tuning.trials import remove_bulky_files, run_trial, settings_of_trial
from einthoven.tuning.working import search_facts

CPU = torch.device("cpu")
LR_ALONE = "[lr]\nlow = 0.0005\nhigh = 0.05\nlog = true\n"


@pytest.fixture
def root(tmp_path):
    write_tiny_store(tmp_path)
    return tmp_path


@pytest.fixture
def fake(monkeypatch):
    make_training_fake(monkeypatch)


def search(root: Path, **changes: Any) -> str:
    return tune(search_settings(root, **changes), {}, write_space(root))


def table(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "artifacts/tuning/tune/trials.csv", keep_default_na=False)


def runs_of(root: Path) -> list[str]:
    return sorted(path.name for path in Workspace(root).checkpoints_dir.glob("tune-trial-*"))


# What a search leaves ----------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_a_search_begins_with_the_default_settings_and_finds_better_ones(root):
    said = search(root, lr=0.05, trials=12)
    rows = table(root)
    assert len(rows) == 12
    assert rows["is_default"].tolist() == [True] + [False] * 11
    assert rows["lr"][0] == 0.05
    scores = pd.to_numeric(rows["score"])
    assert scores.max() > scores[0] + 0.02
    assert "(default)" in said and "12 trials" in said


@pytest.mark.usefixtures("fake")
def test_the_best_settings_give_train_the_best_trials_run(root):
    changes = {"class_weights": "none", "seed": 3}
    search(root, **changes)
    best = table(root).sort_values("score").iloc[-1]
    found = {"lr": float(best["lr"]), "batch_size_cpu": int(best["batch_size_cpu"])}
    path = root / "artifacts/tuning/tune/best.toml"
    loaded = load_settings({"root": root, "device": "cpu"}, path).settings
    of_trial = search_settings(root, **changes, **found)
    assert run_inputs(loaded, "", CPU) == run_inputs(of_trial, "", CPU)


@pytest.mark.usefixtures("fake")
def test_the_best_settings_hold_everything_that_decides_the_run(root):
    changes = {"target_fs": 100, "crop_samples": 250, "threshold_rule": "youden"}
    search(root, **changes)
    best = table(root).sort_values("score").iloc[-1]
    found = {"lr": float(best["lr"]), "batch_size_cpu": int(best["batch_size_cpu"])}
    path = root / "artifacts/tuning/tune/best.toml"
    loaded = load_settings({"root": root}, path).settings
    of_trial = search_settings(root, **changes, **found)
    names = setting_names(["labels", "prepare", "train", "decisions"])
    decisive = [name for name in names if name not in WITHOUT_EFFECT or "batch_size" in name]
    assert {n: getattr(loaded, n) for n in decisive} == {n: getattr(of_trial, n) for n in decisive}
    written = set(tomllib.loads(path.read_text(encoding="utf-8")))
    assert written == {*decisive, "seed", "run_mode", "archives", "ecg_preprocess_limit"}


def test_the_best_settings_keep_lengths_and_a_label_set_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    usual = Settings()
    given = Settings(target_fs=500, target_samples=1000, crop_samples=250, label_set="mine.csv")
    fixed = fixed_settings(Search(given, {}, None, None))
    assert fixed["label_set"] == str(tmp_path / "mine.csv")
    again = Settings(**fixed)
    assert (again.target_samples, again.crop_samples) == (1000, 250)
    assert fixed["epochs"] == usual.epochs


@pytest.mark.usefixtures("fake")
def test_a_label_set_of_one_s_own_is_found_from_another_folder(root, monkeypatch):
    lines = "code,label\nscp:IMI,MI\nscp:NORM,NORM\n"
    (root / "mine.csv").write_text(lines)
    splits = read_json(Workspace(root).splits_path)
    write_json(Workspace(root).splits_path, splits | {"label_set": "mine.csv"})
    monkeypatch.chdir(root)
    said = search(root, label_set="mine.csv")
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    path = root / "artifacts/tuning/tune/best.toml"
    found = load_settings({"root": root}, path).settings
    open_data(found)
    assert load_label_set(found.label_set).labels == ("MI", "NORM")
    assert f"Train with them: einthoven train --config {path} --run-name tune-best" in said


def settings_named(settings: Settings) -> Settings:
    return settings.model_copy(update={"run_name": "tune"})


@pytest.mark.usefixtures("fake")
def test_the_best_settings_say_how_they_were_found(root):
    search(root, seed=5)
    text = (root / "artifacts/tuning/tune/best.toml").read_text(encoding="utf-8")
    best = table(root).sort_values("score").iloc[-1]
    assert f"{float(best['score']):.3f}" in text
    assert "Best of 4 trials (4 finished) of study 'tune', seed 5" in text
    assert "Macro AUROC on the half" in text and "on the other half" in text
    assert set(tomllib.loads(text)) >= {"lr", "batch_size_cpu", "epochs", "seed"}
    assert "root" not in tomllib.loads(text)


@pytest.mark.usefixtures("fake")
def test_only_the_best_trial_keeps_its_model(root):
    search(root, trials=6)
    best = table(root).sort_values("score").iloc[-1]["run"]
    folder = Workspace(root).checkpoints_dir
    kept = {path.parent.name for path in folder.glob("tune-trial-*/*.pth")}
    assert kept == {best}
    assert len(list(folder.glob("tune-trial-*/training_history.json"))) == 6


def test_a_better_model_of_another_process_is_kept_whenever_it_is_finished(root, storage):
    one = opened(root, storage)
    first, second = (next_trial(one) for _ in range(2))
    models = []
    for trial in (first, second):
        models.append(settings_of_trial(one, trial).workspace.best_model_path)
        models[-1].parent.mkdir(parents=True)
        models[-1].write_text("bulky")
    one.study.tell(first, 0.7)
    real = one.study.get_trials

    def then_another_finishes(**given: Any) -> Any:
        found = real(**given)
        if second.number in [trial.number for trial in found if trial.state.name == "RUNNING"]:
            one.study.tell(second, 0.9)
        return found

    one.study.get_trials = then_another_finishes
    remove_bulky_files(one)
    assert models[1].exists()


@pytest.mark.usefixtures("fake")
def test_one_seed_proposes_the_same_trials_wherever_the_search_was_stopped(tmp_path):
    proposed = []
    for name, stops in (("whole", [5]), ("stopped", [2, 3, 5])):
        write_tiny_store(tmp_path / name)
        for n_trials in stops:
            search(tmp_path / name, trials=n_trials)
        proposed.append(table(tmp_path / name)["lr"].tolist())
    assert proposed[0] == proposed[1]
    assert len(set(proposed[0])) == 5


@pytest.mark.usefixtures("fake")
def test_figures_are_drawn_and_importance_once_enough_is_known(root, monkeypatch):
    monkeypatch.setattr(command, "write_figures", write_figures)
    search(root, trials=2, tune_pruner="none")
    folder = root / "artifacts/tuning/tune"
    assert (folder / "history.png").exists() and not (folder / "importance.png").exists()
    search(root, trials=10, epochs=3, tune_pruner="none")
    assert (folder / "importance.png").exists()


# Giving up ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_a_trial_below_the_median_is_given_up(root):
    search(root, trials=14, epochs=6)
    rows = table(root)
    ended = rows[rows["state"] == "given up"]
    assert len(ended) > 0
    assert ended["epochs"].between(6 // 2, 5).all()
    finished = pd.to_numeric(rows[rows["state"] == "finished"]["score"])
    assert pd.to_numeric(ended["score"]).max() < finished.max()


@pytest.mark.usefixtures("fake")
def test_without_a_pruner_no_trial_is_given_up(root):
    search(root, trials=12, tune_pruner="none")
    assert set(table(root)["state"]) == {"finished"}


@pytest.fixture
def narrow_model(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))


@pytest.mark.usefixtures("narrow_model")
def test_a_run_given_up_is_saved_and_may_go_on_to_the_same_score(root):
    told: list[tuple[int, float]] = []

    def give_up(epoch: int, score: float) -> None:
        told.append((epoch, score))
        if epoch == 2:
            raise RunGivenUp("enough")

    ended, whole = (search_settings(root, run_name=name) for name in ("ended", "whole"))
    with pytest.raises(RunGivenUp):
        train_production(ended, after_epoch=give_up)
    assert not ended.workspace.step_path("train").exists()
    train_production(ended)
    train_production(whole)
    files = [s.workspace.checkpoints_dir / "training_history.json" for s in (ended, whole)]
    scores = [[row["val_auroc_macro"] for row in read_json(path)] for path in files]
    assert scores[0] == scores[1]
    assert told == list(enumerate(scores[0][:2], 1))


# Going on ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_a_stopped_trial_is_gone_on_with_and_counts_once(root, monkeypatch):
    def stopped(settings: Settings, *others: Any) -> None:
        if settings.run_name == "tune-trial-0001":
            short = settings.model_copy(update={"epochs": 2})
            fake_training(short, *others)
            raise RunStopped("stopped", 130)
        fake_training(settings, *others)

    monkeypatch.setattr(trials, "train_production", stopped)
    with pytest.raises(RunStopped):
        search(root)
    monkeypatch.setattr(trials, "train_production", fake_training)
    search(root)
    rows = table(root)
    assert sorted(rows["run"]) == runs_of(root)
    assert len(rows) == 4 and "tune-trial-0001" in set(rows["run"])
    assert set(rows["state"]) == {"finished"} and set(rows["epochs"]) == {3}


def opened(root: Path, storage: Any, **changes: Any) -> Search:
    settings = settings_named(search_settings(root, **changes))
    space = choose_space(settings, {}, CPU, write_space(root))
    facts = search_facts(settings, space, device_here(settings))
    return join_study(settings, space, facts, storage)


@pytest.fixture
def storage(root):
    with open_storage(settings_named(search_settings(root))) as found:
        yield found


def test_a_trial_is_lost_when_its_signs_of_life_stop(root, storage, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: clock[0])
    one, other = opened(root, storage), opened(root, storage)
    trial = next_trial(one)
    assert lost_trials(other) == []
    clock[0] = study.SECONDS_UNTIL_LOST - 1
    trial.set_user_attr("sign", 1)
    assert lost_trials(other) == []
    clock[0] += study.SECONDS_UNTIL_LOST - 1
    assert lost_trials(other) == []
    clock[0] += 2
    assert [lost.number for lost in lost_trials(other)] == [trial.number]


def test_a_lost_trial_is_put_back_once_though_two_processes_see_it(root, storage):
    one, other = opened(root, storage), opened(root, storage)
    trial = next_trial(one)
    settings_of_trial(one, trial)
    for onlooker in (one, other):
        hand_on(onlooker, trial.number, "its process has died")
    again = next_trial(other)
    assert again.params == trial.params
    assert again.user_attrs["run"] == "tune-trial-0001" and again.user_attrs["is_default"]
    assert len(one.counted()) == 1


@pytest.mark.parametrize("state", ["killed", "slow"])
def test_a_trial_is_put_back_once_though_its_process_is_killed_or_slow_there(
    root, storage, monkeypatch, state
):
    one, other = opened(root, storage), opened(root, storage)
    trial = next_trial(one)
    settings_of_trial(one, trial)

    def meanwhile(*given: Any, **others: Any) -> None:
        taken.append(next_trial(other))
        if state == "killed":
            raise KeyboardInterrupt
        real(*given, **others)

    taken, real = [], one.study.enqueue_trial
    monkeypatch.setattr(one.study, "enqueue_trial", meanwhile)
    with suppress(KeyboardInterrupt):
        hand_on(one, trial.number, "its process has died", is_blamed=True)
    again = taken[0]
    assert again.params == trial.params and again.user_attrs["tries"] == 1
    assert again.user_attrs["run"] == "tune-trial-0001" and again.user_attrs["is_default"]
    later = [next_trial(other) for _ in range(3)]
    assert not any("run" in new.user_attrs or new.params == trial.params for new in later)
    assert len(other.counted()) == 4 and next_trial(other) is None


def test_a_trial_that_steps_back_is_not_put_back(root, storage, monkeypatch):
    one = opened(root, storage, trials=1)
    assert next_trial(one) is not None
    real, before = Search.counted, iter([[]])
    monkeypatch.setattr(Search, "counted", lambda self: next(before, real(self)))
    assert next_trial(one) is None and next_trial(one) is None
    assert [trial.state.name for trial in one.trials()] == ["RUNNING", "FAIL"]


@pytest.mark.usefixtures("fake")
def test_a_process_leaves_a_trial_that_another_has_taken_over(root, storage, monkeypatch, caplog):
    slow, other = opened(root, storage), opened(root, storage)
    trial = next_trial(slow)

    def taken_over(settings: Settings, *others: Any) -> None:
        hand_on(other, trial.number, "its process has died")
        fake_training(settings, *others)

    monkeypatch.setattr(trials, "train_production", taken_over)
    run_trial(slow, trial, {})
    assert "another process has taken it over" in caplog.text
    assert [t.state.name for t in other.study.trials] == ["FAIL", "WAITING"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("narrow_model")
def test_a_process_that_wakes_late_leaves_the_run_that_another_has_finished(
    root, storage, monkeypatch, caplog
):
    slow, other = opened(root, storage, trials=1), opened(root, storage, trials=1)
    trial, real, finished = next_trial(slow), trials.after_epoch, {}
    folder = settings_of_trial(slow, trial).workspace.checkpoints_dir

    def asleep(epoch: int, score: float) -> None:
        monkeypatch.setattr(trials, "after_epoch", real)
        hand_on(other, trial.number, "its process has died")
        run_trial(other, next_trial(other), {})
        finished.update(contents(folder))

    monkeypatch.setattr(trials, "after_epoch", lambda *given: asleep)
    run_trial(slow, trial, {})
    assert other.trials("COMPLETE") and str(folder / "best_model.pth") in finished
    assert contents(folder) == finished
    assert "another process has taken it over" in caplog.text


def test_another_machine_at_a_study_in_sqlite_is_warned_of(root, storage, monkeypatch, caplog):
    next_trial(opened(root, storage))
    opened(root, storage)
    assert "SQLite" not in caplog.text
    monkeypatch.setattr(study.platform, "node", lambda: "elsewhere")
    opened(root, storage)
    assert "has trials of this study in hand, which lies in SQLite" in caplog.text


def test_two_processes_that_begin_the_last_trial_at_once_leave_one(root, storage, monkeypatch):
    one = opened(root, storage, trials=2)
    assert next_trial(one) is not None and next_trial(one) is not None
    # The first look is one from before: as another process had it.
    real, before = Search.counted, iter([[]])
    monkeypatch.setattr(Search, "counted", lambda self: next(before, real(self)))
    assert next_trial(one) is None
    assert len(real(one)) == 2


@pytest.mark.usefixtures("fake")
def test_a_process_begins_no_trial_when_its_time_is_over(root):
    search(root, trials=500, tune_minutes=0.005)
    n_begun = len(table(root))
    assert 1 <= n_begun < 100
    assert "not finished" in search(root, trials=500, tune_minutes=1e-9)
    search(root, trials=n_begun + 1)
    assert len(table(root)) == n_begun + 1


@pytest.mark.usefixtures("fake")
def test_more_trials_may_be_asked_for_later(root):
    search(root, trials=2)
    search(root, trials=5)
    assert table(root)["trial"].tolist() == [1, 2, 3, 4, 5]


# Failing -----------------------------------------------------------------------------------------


def failing(lowest_lr: float) -> Any:
    def train(settings: Settings, *others: Any) -> None:
        if settings.lr > lowest_lr:
            raise MemoryShortage("a batch does not fit")
        fake_training(settings, *others)

    return train


@pytest.mark.usefixtures("fake")
def test_a_trial_that_fails_counts_and_the_others_go_on(root, monkeypatch):
    monkeypatch.setattr(trials, "train_production", failing(0.006))
    search(root, trials=10)
    rows = table(root)
    failed = rows[rows["state"] == "failed"]
    assert len(rows) == 10 and 0 < len(failed) < 10
    assert set(failed["why"]) == {"a batch does not fit"}
    assert (pd.to_numeric(failed["lr"]) > 0.006).all()


@pytest.mark.usefixtures("fake")
def test_a_search_of_which_nothing_succeeds_stops(root, monkeypatch):
    monkeypatch.setattr(trials, "train_production", failing(0.0))
    with pytest.raises(MemoryShortage, match="does not fit"):
        search(root, trials=10)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("error", [ValueError("a defect"), ConfigError("not together")])
def test_a_trial_that_raises_anything_counts_as_failed(root, monkeypatch, error):
    def broken(settings: Settings, *others: Any) -> None:
        if settings.lr > 0.006:
            raise error
        fake_training(settings, *others)

    monkeypatch.setattr(trials, "train_production", broken)
    search(root, trials=8)
    rows = table(root)
    assert len(rows) == 8 and set(rows["state"]) == {"finished", "failed"}
    assert all(str(error) in why for why in rows[rows["state"] == "failed"]["why"])


@pytest.mark.usefixtures("fake")
def test_a_full_disk_is_no_trials_fault(root, monkeypatch):
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trials, "train_production", full)
    for _ in range(4):
        with pytest.raises(OSError, match="No space left"):
            search(root, trials=2)
    monkeypatch.setattr(trials, "train_production", fake_training)
    search(root, trials=2)
    assert table(root)["state"].tolist() == ["finished"] * 2


def test_a_trial_whose_process_dies_three_times_has_failed(root, storage):
    one = opened(root, storage)
    for _ in range(3):
        hand_on(one, next_trial(one).number, "its process has died", is_blamed=True)
    ended = one.counted()[0]
    assert ended.state.name == "PRUNED" and "3 times" in ended.user_attrs["why"]
    assert one.trials("WAITING") == []


def test_a_trial_that_gets_on_between_deaths_is_gone_on_with(root, storage):
    one = opened(root, storage)
    for epoch in range(1, 6):
        trial = next_trial(one)
        trial.report(0.5, epoch)
        hand_on(one, trial.number, "its process has died", is_blamed=True)
    assert len(one.trials("WAITING")) == 1


# Refusing ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 4}, "epochs: 3 -> 4"),
        ({"best_metric": "f1"}, "best_metric: auroc -> f1"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"hold_out": "3"}, "data has changed"),
    ],
)
def test_a_study_of_other_settings_is_refused_with_the_difference(root, changes, words):
    search(root, trials=1)
    with pytest.raises(ConfigError, match="is another search") as caught:
        search(root, trials=2, **changes)
    assert words in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_a_study_over_other_data_is_refused(root):
    search(root, trials=1)
    path = Workspace(root).splits_path
    splits = read_json(path)
    write_json(path, splits | {"train": splits["train"][1:]})
    with pytest.raises(ConfigError, match="data has changed"):
        search(root, trials=2)


@pytest.mark.usefixtures("fake")
def test_a_study_of_another_space_is_refused(root):
    search(root, trials=1)
    with pytest.raises(ConfigError, match="space of batch_size_cpu: left out"):
        tune(search_settings(root, trials=2), {}, write_space(root, LR_ALONE))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fresh": True}, "another --run-name"),
        ({"dry_run": True}, "a dry run has no score"),
        ({"run_mode": "smoke"}, "a smoke test has no score"),
        ({"run_name": "x" * 60}, "use 40 letters"),
    ],
)
def test_what_makes_no_sense_of_a_search_is_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        search(tmp_path, **changes)


def test_a_missing_optuna_is_told(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'einthoven\[tuning\]'"):
        search(root)


def test_a_search_without_a_store_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="einthoven prepare"):
        search(tmp_path)


# The test split ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("narrow_model")
def test_records_of_the_test_split_change_nothing_and_are_not_opened(tmp_path, monkeypatch):
    scores, listed = [], spied_rows(monkeypatch)
    for name in ("plain", "poisoned"):
        root = tmp_path / name
        write_tiny_store(root)
        if name == "poisoned":
            path = Workspace(root).records_dir / "only.npy"
            windows = np.load(path)
            windows[rows_of_test(root)] = 32767
            np.save(path, windows)
        search(root, trials=2)
        scores.append(table(root)[["score", "other_half", "lr"]].to_numpy(float))
    assert scores[0].tolist() == scores[1].tolist()
    assert len(listed) == 72 and not listed & set(rows_of_test(root).tolist())


def spied_rows(patch: pytest.MonkeyPatch) -> set[int]:
    """The rows of every record whose windows are listed to be read from now on."""
    listed: set[int] = set()
    real = batches.list_windows

    def remember(store: Any, rows: np.ndarray) -> Any:
        listed.update(rows.tolist())
        return real(store, rows)

    for module in (runs, inference):
        patch.setattr(module, "list_windows", remember)
    return listed


def rows_of_test(root: Path) -> np.ndarray:
    manifest = open_store(Workspace(root)).manifest
    return np.flatnonzero(manifest["record"].isin(read_json(Workspace(root).splits_path)["test"]))


# Passwords ---------------------------------------------------------------------------------------

SECRET = "s3cr3t"
URL = f"postgresql://ecg:{SECRET}@localhost:1/none"


def test_a_password_is_shown_nowhere(root):
    settings = search_settings(root, study_storage=URL)
    assert settings.study_storage == URL
    shown = [repr(settings), str(settings.model_dump()), settings.model_dump_json()]
    assert not any(SECRET in text for text in shown)
    assert "postgresql://ecg:***@localhost:1/none" in shown[1]


def test_a_storage_that_cannot_be_reached_is_told_without_the_password(root, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match="cannot be reached") as caught:
        search(root, study_storage=URL)
    assert SECRET not in str(caught.value) and "ecg:***@localhost" in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql+nonsense://u:s3cr3t@h/x"])
def test_a_url_of_no_database_is_refused(root, url):
    with pytest.raises(ConfigError, match="no database's URL: use a URL such as") as caught:
        search(root, study_storage=url)
    assert SECRET not in str(caught.value)


def test_a_driver_that_is_missing_is_named_and_the_password_is_not(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"driver is not installed") as caught:
        search(root, study_storage=URL)
    assert "(None)" not in str(caught.value) and SECRET not in str(caught.value)


def test_any_error_of_the_database_is_told(root):
    with pytest.raises(DataError, match=r"cannot be reached or used: .*damaged"):
        with open_storage(settings_named(search_settings(root))):
            raise IntegrityError("damaged", None, Exception("damaged"))


def test_an_error_of_the_storage_without_text_is_told_by_its_name(root):
    with pytest.raises(DataError, match="cannot be reached or used: StorageInternalError;"):
        with open_storage(settings_named(search_settings(root))):
            raise StorageInternalError


@pytest.mark.parametrize(("scheme", "kind"), [("", "journal"), ("sqlite:///", "db")])
def test_a_folder_that_cannot_be_made_is_told(root, scheme, kind):
    (root / "file").write_text("")
    with pytest.raises(DataError, match=r"file/deeper/s.* cannot be reached or used: .*director"):
        search(root, study_storage=f"{scheme}{root}/file/deeper/s.{kind}")


@pytest.mark.parametrize("given", ["foo", "postgres:/x", "postgresql:ecg@h/x", "x/y.jurnal"])
def test_a_misspelt_storage_is_refused_and_makes_no_file(root, monkeypatch, given):
    monkeypatch.chdir(root)
    with pytest.raises(ConfigError, match=r"allowed is a URL .* or the path of a \.journal file"):
        search(root, study_storage=given)
    assert {path.name for path in root.iterdir()} == {"artifacts", "space.toml"}


def test_a_journal_that_is_none_is_told(root):
    (root / "folder.journal").mkdir()
    (root / "text.journal").write_text("no journal\n" * 2)
    for name, words in (("folder", "Is a directory"), ("text", "Expecting value")):
        with pytest.raises(DataError, match=rf"{name}.journal cannot be .*: .*{words}"):
            search(root, study_storage=str(root / f"{name}.journal"))


@pytest.mark.usefixtures("fake")
def test_a_journal_that_is_lost_midway_is_no_trial_s_fault(root, monkeypatch):
    path = root / "away" / "search.journal"

    def lose_the_disk(settings: Settings, *given: Any) -> None:
        path.parent.rename(root / "elsewhere")
        raise_from = given[1]
        raise_from(1, 0.5)

    monkeypatch.setattr(trials, "train_production", lose_the_disk)
    with pytest.raises(DataError, match=r"search.journal cannot be reached or used: .*No such"):
        search(root, study_storage=str(path))
    (root / "elsewhere").rename(path.parent)
    monkeypatch.setattr(trials, "train_production", fake_training)
    monkeypatch.setattr(study, "SECONDS_BETWEEN_SIGNS", 0.2)
    monkeypatch.setattr(study, "SECONDS_UNTIL_LOST", 0.5)
    search(root, study_storage=str(path))
    assert list(table(root)["state"]) == ["finished"] * 4


# Confirming --------------------------------------------------------------------------------------


def answers(probabilities: list[float]) -> Predictions:
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 1]] * 3, np.uint8)
    p = np.array([[value, 1 - value] for value in probabilities] * 3, np.float32)
    names = np.array([f"r{n}" for n in range(len(p))], object)
    return Predictions(
        records=names, groups=names, archives=np.full(len(p), "a", object), targets=targets, raw=p,
        probabilities=p, decisions=(p > 0.5).astype(np.uint8), labels=("MI", "NORM"), single=False,
    )  # fmt: skip


def test_a_confirmation_compares_each_seed_and_the_means_over_seeds(tmp_path):
    right, one_wrong = answers([0.9, 0.1, 0.8, 0.2]), answers([0.9, 0.1, 0.3, 0.4])
    result = compare_seeds([(one_wrong, right), (right, right)], search_settings(tmp_path))
    assert set(result) | {"seeds"} == set(CONFIRMATION_KEYS)
    # Of the four pairs of a positive and a negative one is in the wrong order: 3 in 4.
    gains = [part["auroc"]["macro"]["difference"]["value"] for part in result["by_seed"]]
    assert gains == pytest.approx([0.25, 0])
    assert result["mean"]["auroc"]["macro"]["first"]["value"] == pytest.approx(0.875)
    assert result["mean"]["auroc"]["macro"]["difference"]["value"] == pytest.approx(0.125)
    assert result["difference_sd_over_seeds"] == pytest.approx(0.25 / 2**0.5)


@pytest.mark.usefixtures("fake")
def test_a_confirmation_trains_best_and_default_with_seeds_that_were_not_used(root, monkeypatch):
    ran: dict[str, Settings] = {}

    def remember(settings: Settings, origins: Any) -> Predictions:
        ran[settings.run_name] = settings
        return answers([0.9, 0.1, 0.8, 0.2])

    search(root, lr=0.05, trials=6)
    best = table(root).sort_values("score").iloc[-1]
    monkeypatch.setattr(confirmation, "answers_of", remember)
    said = confirm_best(search_settings(root, lr=0.05, trials=6), {}, 2)
    assert {(run.seed, round(run.lr, 9)) for run in ran.values()} == {
        (seed, round(lr, 9)) for seed in (1, 2) for lr in (0.05, float(best["lr"]))
    }
    assert f"tune-best-trial{best['trial']}-seed1" in ran and "tune-default-seed2" in ran
    assert "no interval can be given" in said
    assert (root / "artifacts/tuning/tune/confirmation.json").exists()


@pytest.mark.usefixtures("fake")
def test_default_settings_that_are_best_need_no_confirmation(root):
    assert "No trial scored better" in search(root, lr=0.005)
    said = confirm_best(search_settings(root, lr=0.005), {}, 1)
    assert "nothing to confirm" in said


def test_a_search_without_a_finished_trial_cannot_be_confirmed(root):
    with pytest.raises(DataError, match="no finished trial to confirm"):
        confirm_best(search_settings(root), {}, 1)
