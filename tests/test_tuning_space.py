"""The space of a search: valid whatever is proposed, narrowed by what is set, written as TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from einthoven.distributed import ALONE
from einthoven.errors import ConfigError
from einthoven.runs import check_settings_together, has_one_label
from einthoven.settings import Settings
from einthoven.tuning.space import (
    Among,
    Between,
    choose_space,
    default_space,
    distributions_of,
    read_space,
    space_as_toml,
    start_of,
)

CPU = torch.device("cpu")


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_space(space_file(folder, text), Settings(**settings), CPU)
    return str(caught.value)


@pytest.mark.parametrize("label_set", ["five", "superdiagnostic"])
@pytest.mark.parametrize("fs", [100, 500])
def test_whatever_is_proposed_is_a_valid_setting(label_set, fs):
    usual = {"label_set": label_set, "target_fs": fs}
    space = default_space(Settings(**usual), CPU)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        proposed = study.ask(distributions_of(space)).params
        settings = Settings.model_validate(usual | proposed)
        check_settings_together(settings, has_one_label(settings), CPU, ALONE)
        assert all(getattr(settings, name) == value for name, value in proposed.items())


def test_the_defaults_lie_within_the_space():
    settings = Settings()
    space = default_space(settings, CPU)
    assert start_of(space, settings) == {name: getattr(settings, name) for name in space}


def test_a_gpu_searches_the_batch_size_that_it_heeds():
    assert "batch_size_gpu" in default_space(Settings(), torch.device("cuda"))
    assert "batch_size_cpu" in default_space(Settings(), CPU)


def test_crops_keep_their_seconds_at_any_rate():
    space = default_space(Settings(target_fs=500), CPU)
    assert space["crop_samples"] == Among((1250, 2500, 0))


def test_a_space_comes_back_from_its_file(tmp_path):
    space = default_space(Settings(label_set="superdiagnostic"), CPU)
    path = space_file(tmp_path, space_as_toml(space))
    assert read_space(path, Settings(label_set="superdiagnostic"), CPU) == space


def test_what_somebody_has_set_is_not_searched():
    origins = dict.fromkeys(Settings.model_fields, "default") | {"lr": "flag", "loss": "x.toml"}
    space = choose_space(Settings(), origins, CPU, None)
    assert {"lr", "loss"} & set(space) == set()
    assert "weight_decay" in space


def test_a_setting_both_set_and_searched_is_refused(tmp_path):
    path = space_file(tmp_path, "[lr]\nlow = 0.001\nhigh = 0.01\n")
    with pytest.raises(ConfigError, match=r"LR \(flag\) is set and searched by .*space.toml too"):
        choose_space(Settings(), {"lr": "flag"}, CPU, path)


def test_a_search_of_nothing_is_refused():
    given = dict.fromkeys(Settings.model_fields, "flag")
    with pytest.raises(ConfigError, match="every setting that could be searched is set"):
        choose_space(Settings(), given, CPU, None)


def test_a_file_is_the_whole_space(tmp_path):
    path = space_file(tmp_path, "[epochs]\nlow = 10\nhigh = 40\n")
    space = choose_space(Settings(tune_pruner="none"), {}, CPU, path)
    assert space == {"epochs": Between(10, 40)}
    proposed = optuna.create_study().ask(distributions_of(space)).params["epochs"]
    assert type(proposed) is int


def test_every_problem_of_a_file_is_told_at_once(tmp_path):
    told = refusal(
        tmp_path,
        "[weigth_decay]\nlow = 0\nhigh = 1\n[lr]\nlow = 0.1\nhigh = 0.01\n[batch_size_cpu]\n"
        "choices = [32, 0]\n[scheduler_type]\nlow = 1\nhigh = 2\n[augment]\nchoices = ['strnog']\n"
        "[ema_decay]\nlow = 0.9\n",
    )
    assert "weigth_decay cannot be searched; did you mean weight_decay?" in told
    assert "[lr] goes from 0.1 to 0.01; use low < high" in told
    assert "BATCH_SIZE_CPU is 0 (space.toml); use a whole number from 1" in told
    assert "[scheduler_type] is no number; give choices" in told
    assert "did you mean strong?" in told
    assert "[ema_decay] needs choices = [...], or low and high" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it names no setting; `einthoven tune --show-space` prints one"),
        ("[lr", "is not TOML"),
        ("[lr]\nlow = 0\nhigh = 0.1\nlog = true", "use 0 < low < high"),
        ("[lr]\nchoices = []", "needs choices"),
        ("lr = 0.1", "needs choices"),
        ("[hold_out]\nchoices = ['1', '2']", "hold_out cannot be searched"),
        ("[batch_size_gpu]\nchoices = [32]", "did you mean batch_size_cpu?"),
        ("[loss]\nchoices = ['asymmetric']", "here each has one"),
        ("[lr]\nlow = 0.01\nhigh = 0.1\nlog = 'no'", "log = 'no'; use true or false"),
        ("[batch_size_cpu]\nchoices = [32, 32.0, '64']", "has 32 more than once"),
        ("[crop_samples]\nchoices = [250, 1001]", "goes to 1001, and a window has 1000 samples"),
        ("[epochs]\nlow = 10\nhigh = 40", "use --tune-pruner none"),
    ],
)
def test_a_file_that_is_no_space_is_refused(tmp_path, text, words):
    assert words in refusal(tmp_path, text)


def test_values_are_taken_as_the_setting_takes_them(tmp_path):
    path = space_file(
        tmp_path, "[lr]\nchoices = ['0.001', 1]\n[batch_size_cpu]\nchoices = [32.0, '64']\n"
    )  # fmt: skip
    space = read_space(path, Settings(), CPU)
    assert space == {"lr": Among((0.001, 1.0)), "batch_size_cpu": Among((32, 64))}
    assert [type(value) for value in space["batch_size_cpu"].choices] == [int, int]


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_space(tmp_path / "none.toml", Settings(), CPU)
