from pathlib import Path
from typing import get_args

import pytest

from einthoven.configuration import load_settings
from einthoven.errors import ConfigError
from einthoven.settings import LABEL_SET_NAMES, Settings, allowed_values


@pytest.mark.parametrize("name", ["default", "Evaluations", "processed"])
def test_a_run_cannot_have_the_name_of_a_folder_of_the_workspace(name):
    with pytest.raises(ConfigError, match=f"RUN_NAME is {name} .*not default, evaluations"):
        load_settings({"run_name": name})


def test_flag_beats_environment_beats_file_beats_default(tmp_path, monkeypatch):
    (tmp_path / "einthoven.toml").write_text("epochs = 2\nlr = 0.5\nseed = 7\n")
    monkeypatch.setenv("LR", "0.25")
    monkeypatch.setenv("SEED", "8")
    loaded = load_settings({"root": tmp_path, "seed": "9"})
    assert (loaded.settings.epochs, loaded.settings.lr, loaded.settings.seed) == (2, 0.25, 9)
    assert [loaded.origins[name] for name in ("epochs", "lr", "seed", "clip_norm")] == [
        "einthoven.toml",
        "environment",
        "flag",
        "default",
    ]


def test_all_problems_are_reported_at_once_with_value_origin_and_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHS", "0")
    (tmp_path / "einthoven.toml").write_text('scheduler_tpye = "cosine"\n')
    with pytest.raises(ConfigError) as problems:
        load_settings({"root": tmp_path, "lr": "fast", "best_metric": "auc"})
    assert str(problems.value).splitlines() == [
        "4 settings cannot be used:",
        "  EPOCHS is 0 (environment); use a whole number from 1 to 10,000",
        "  LR is fast (flag); use a number above 0 and at most 1",
        "  BEST_METRIC is auc (flag); use f1 or auroc; did you mean auroc?",
        "  scheduler_tpye (einthoven.toml) is not a setting; did you mean scheduler_type?",
    ]


def test_a_setting_in_capitals_in_the_file_is_told_its_name(tmp_path):
    (tmp_path / "einthoven.toml").write_text("EPOCHS = 2\n")
    with pytest.raises(ConfigError, match=r"EPOCHS .* is not a setting; did you mean epochs"):
        load_settings({"root": tmp_path})


def test_unknown_label_set_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean superdiagnostic"):
        load_settings({"label_set": "superdiagnostics"})


def test_label_set_may_be_a_file_of_your_own(tmp_path):
    own = tmp_path / "mine.csv"
    own.write_text("code,label\nscp:NORM,healthy\n")
    assert load_settings({"label_set": str(own)}).settings.label_set == str(own)


def test_broken_toml_is_named(tmp_path):
    (tmp_path / "einthoven.toml").write_text("epochs = \n")
    with pytest.raises(ConfigError, match=r"einthoven\.toml is not TOML"):
        load_settings({"root": tmp_path})


def test_a_config_file_that_is_asked_for_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        load_settings({}, tmp_path / "gone.toml")


@pytest.mark.parametrize("name", ["..", ".steps", "a/b", "a b"])
def test_run_name_cannot_leave_its_folder(name):
    with pytest.raises(ConfigError, match="RUN_NAME"):
        load_settings({"run_name": name})


def test_root_is_the_parent_of_a_notebooks_folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_settings().settings.root == tmp_path


def test_modes_are_runs_of_their_name():
    assert Settings(run_mode="smoke").workspace.checkpoints_dir.name == "smoke"
    assert Settings(run_mode="smoke", run_name="a").workspace.checkpoints_dir.name == "a"
    assert Settings().workspace.checkpoints_dir.name == "checkpoints"


def test_every_setting_has_help_a_group_and_says_what_it_takes():
    for name, info in Settings.model_fields.items():
        assert info.description, name
        assert isinstance(info.json_schema_extra, dict) and info.json_schema_extra["group"], name
        assert allowed_values(name) != "a name", name


@pytest.mark.parametrize(
    "name",
    [
        "DATASET_DIR", "TARGET_FS", "TARGET_SAMPLES", "ECG_PREPROCESS_LIMIT", "BATCH_SIZE_CPU",
        "BATCH_SIZE_GPU", "EPOCHS", "LR", "WEIGHT_DECAY", "GRAD_ACCUM_STEPS", "CLIP_NORM",
        "SCHEDULER_TYPE", "EARLY_STOP_PATIENCE", "MIXED_PRECISION", "NUM_WORKERS", "DRY_RUN",
        "SEED", "ROOT", "RUN_NAME", "RUN_MODE", "LABEL_SET", "MODEL_NAME",
    ],
)  # fmt: skip
def test_the_missions_names_are_settings(name):
    assert name.lower() in Settings.model_fields


def test_names_known_without_importing_torch_are_all_there_is():
    from einthoven.labels.sets import LABEL_SETS
    from einthoven.models.registry import MODELS

    assert set(LABEL_SET_NAMES) == set(LABEL_SETS)
    assert set(get_args(Settings.model_fields["model_name"].annotation)) == set(MODELS)


def test_archives_lie_in_dataset_unless_told_otherwise(tmp_path):
    assert Settings(root=tmp_path).archives_dir == tmp_path / "Dataset"
    assert Settings(root=tmp_path, dataset_dir=Path("x")).archives_dir == Path("x")


def test_windows_and_crops_keep_their_seconds_at_any_rate():
    faster = Settings(target_fs=500)
    assert (faster.target_samples, faster.crop_samples) == (5000, 1250)
    assert Settings(target_fs=500, target_samples=2500).target_samples == 2500
    assert (Settings().target_samples, Settings().crop_samples) == (1000, 250)


def test_a_commands_own_defaults_yield_to_everything(tmp_path, monkeypatch):
    own = {"epochs": 8, "root": tmp_path}
    assert load_settings({}, None, own).settings.epochs == 8
    assert load_settings({}, None, own).settings.root == tmp_path
    monkeypatch.setenv("EPOCHS", "3")
    assert load_settings({}, None, own).settings.epochs == 3
    assert load_settings({"epochs": "4"}, None, own).settings.epochs == 4
