import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from einthoven.cli import STAGES, command_line, main
from einthoven.settings import Settings, setting_names


def einthoven(*words, cwd=None):
    """Run the command as a user does, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    return subprocess.run(
        [sys.executable, "-m", "einthoven", *words],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False,
    )  # fmt: skip


def imported_by(*words):
    code = f"import sys; sys.argv[1:] = {list(words)!r}\nfrom einthoven.cli import main\n" + (
        "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stderr.split())


def test_help_lists_every_command():
    result = CliRunner().invoke(command_line, ["--help"])
    assert result.exit_code == 0
    for name in STAGES:
        assert f"  {name} " in result.output


def test_help_waits_for_no_heavy_import():
    assert not imported_by("--help") & {"torch", "numpy", "pandas", "pydantic", "matplotlib"}


def test_a_commands_help_waits_for_its_settings_only():
    assert not imported_by("train", "--help") & {"torch", "numpy", "pandas", "matplotlib"}


@pytest.mark.parametrize("name", STAGES)
def test_command_takes_every_setting_that_concerns_it(name):
    result = CliRunner().invoke(command_line, [name, "--help"])
    for setting in setting_names(STAGES[name].groups):
        assert "--" + setting.replace("_", "-") in result.output


def test_mistyped_command_gets_the_nearest_name(tmp_path):
    done = einthoven("prepair", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean prepare?" in done.stderr


def test_wrong_values_and_mistyped_flags_are_reported_together_and_nothing_is_written(tmp_path):
    done = einthoven("run", "--epoch", "3", "--lr=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "2 settings cannot be used:",
        "  LR is -1 (flag); use a number above 0 and at most 1",
        "  epoch (flag) is not a setting; did you mean epochs?",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_setting_of_another_command_is_refused(tmp_path):
    done = einthoven("label", "--epochs", "3", cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "--epochs does not concern `einthoven label`; leave it out",
    )


def test_everything_that_a_command_cannot_take_is_named_at_once(tmp_path):
    done = einthoven("evaluate", "--no-fresh", "--epochs", "3", "twice", cwd=tmp_path)
    assert done.stderr.splitlines() == [
        "--no-fresh does not concern `einthoven evaluate`; leave it out",
        "--epochs does not concern `einthoven evaluate`; leave it out",
        "`einthoven evaluate` takes no argument 'twice'; see --help",
    ]
    done = einthoven("train", "--epoch", "--lrr", "3", cwd=tmp_path)
    assert "epoch (flag)" in done.stderr and "lrr (flag)" in done.stderr


def test_help_lists_settings_under_their_stage():
    lines = CliRunner().invoke(command_line, ["run", "--help"]).output.splitlines()
    assert lines.index("Train:") < lines.index("Evaluate:") < lines.index("Options:")
    assert any(line.startswith("  --epochs INTEGER") for line in lines[lines.index("Train:") :])


def test_the_demo_goes_where_the_environment_says(tmp_path, monkeypatch):
    roots = []
    stage = STAGES["demo"]._replace(action=lambda loaded: roots.append(loaded.settings.root) or 0)
    monkeypatch.setitem(STAGES, "demo", stage)
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(command_line, ["demo"])
    monkeypatch.setenv("ROOT", str(tmp_path / "mine"))
    CliRunner().invoke(command_line, ["demo"])
    assert roots == [Path("demo"), tmp_path / "mine"]


def test_listing_archives_waits_for_no_torch():
    assert not imported_by("label", "--root", "nowhere") & {"torch", "matplotlib", "scipy"}


def test_config_prints_values_with_their_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHS", "3")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command_line, ["config", "--lr", "0.5", "--no-bandpass"])
    lines = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()}
    assert lines["EPOCHS"] == ["environment", "3"]
    assert lines["LR"] == ["flag", "0.5"]
    assert lines["BANDPASS"] == ["flag", "False"]
    assert lines["SEED"] == ["default", "0"]
    assert lines["DATASET_DIR"] == ["default", str(tmp_path / "Dataset")]
    assert max(map(len, result.output.splitlines())) <= 100 + len(str(tmp_path))


def test_missing_archives_end_in_one_message_without_a_traceback(tmp_path):
    done = einthoven("label", "--root", str(tmp_path))
    assert done.returncode == 1
    assert "Dataset" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_is_the_packages(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["einthoven", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("einthoven, version 0.1.0")


def test_settings_can_be_written_down_and_read_back():
    assert Settings(**json.loads(Settings(lr=0.5).model_dump_json())).lr == 0.5


def test_an_unwritable_root_ends_in_one_message(tmp_path):
    (tmp_path / "Dataset").mkdir()
    (tmp_path / "file").write_text("")
    done = einthoven("demo", "--root", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_ctrl_c_says_how_to_go_on(monkeypatch, tmp_path):
    def interrupted(loaded):
        raise KeyboardInterrupt

    monkeypatch.setitem(STAGES, "label", STAGES["label"]._replace(action=interrupted))
    result = CliRunner().invoke(command_line, ["label", "--root", str(tmp_path)])
    assert result.exit_code == 130
    assert "The same command goes on from here" in result.output
