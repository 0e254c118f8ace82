"""cloud/google_l4.py against a stand-in `gcloud`: whatever happens, the machine is deleted."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from einthoven.settings import Settings

SCRIPT = Path(__file__).resolve().parents[1] / "cloud" / "google_l4.py"
TRAINED = ["create", "reach", "send", "install", "start", "poll", "pack", "scp"]
ALWAYS = ["--root", ".", "--dataset-dir", "Dataset"]
DELETED = ["describe", "delete"]  # after a look whose it is

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a POSIX script")

# Records what it is asked, and answers as files in its folder tell it: fail_<stage> makes a stage
# fail, with the text in it, and drops_<stage> as often as it says. polls holds the answers to
# polls, one a line: after "offline" Google does not answer either, till a poll is answered.
# "machine" is the machine that is there, its status and labels; "rival" one that comes before ours.
STAND_IN = """#!{python} -IS
import json, os, sys
here, words, data = {folder!r}, sys.argv[1:], sys.stdin.buffer.read()
def there(name): return os.path.exists(os.path.join(here, name))
def take(name, mode="r"):
    with open(os.path.join(here, name), mode) as file: return file.read()
def put(name, content, mode="w"):
    with open(os.path.join(here, name), mode) as file: file.write(content)
stage = words[2] if words[1] == "instances" else words[1]
if stage == "ssh":
    is_tar = any("tar" in word for word in words)
    stage = "send" if is_tar else data.split(b"\\n")[0].decode()[len("# stage: "):]
    put(stage + ".stdin", data, "wb")
put("calls", json.dumps([stage, words]) + "\\n", "a")
if there("home") and words[1] != "instances":
    import subprocess
    home = os.path.join(here, "home")
    if stage == "scp":
        put(words[3], take("home/results.tar.gz", "rb"), "wb")
        sys.exit(0)
    command = "tar -xzf -" if stage == "send" else "bash -s"
    path = os.path.join(home, "bin") + ":" + os.environ["PATH"]
    environment = dict(os.environ, HOME=home, PATH=path)
    sys.exit(subprocess.run(command.split(), input=data, cwd=home, env=environment).returncode)
if there("fail_" + stage):
    sys.exit(take("fail_" + stage))
if there("drops_" + stage) and int(take("drops_" + stage)):
    put("drops_" + stage, str(int(take("drops_" + stage)) - 1))
    sys.exit("Connection reset by peer")
absent = "The resource 'projects/p/zones/z/instances/" + words[3] + "' was not found"
if stage == "create" and there("rival"):
    put("machine", take("rival"))
    sys.exit("The resource '" + words[3] + "' already exists")
if stage == "create":
    (labels,) = [word.partition("=")[2] for word in words if word.startswith("--labels=")]
    labels = dict(label.split("=") for label in labels.split(","))
    put("machine", json.dumps({{"status": "RUNNING", "labels": labels}}))
if stage == "describe":
    if there("offline"):
        sys.exit("network is unreachable")
    if not there("machine"):
        sys.exit(absent)
    print(take("machine"))
if stage == "delete":
    if not there("machine"):
        sys.exit(absent)
    os.remove(os.path.join(here, "machine"))
if stage == "poll":
    answers = take("polls").splitlines()
    if answers[1:]:
        put("polls", "\\n".join(answers[1:]))
    if answers[0] in ("dropped", "offline", "taken"):
        if answers[0] == "taken":
            os.remove(os.path.join(here, "machine"))
        if answers[0] == "offline":
            put("offline", "")
        sys.exit(255)
    if there("offline"):
        os.remove(os.path.join(here, "offline"))
    log = take("log") if there("log") else "epoch 1\\n"
    sys.stdout.buffer.write((answers[0] + "\\n" + log).encode())
if stage == "scp":
    put(words[3], take("results", "rb"), "wb")
"""


class Cloud:
    """A stand-in and a workspace, and how to run the script with them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "cloud", folder / "work"
        self.process: subprocess.Popen[str] | None = None
        self.folder.mkdir()
        (self.root / "Dataset" / "mine").mkdir(parents=True)
        (self.root / "Dataset" / "mine" / "labels.csv").write_text("path,labels\n")
        program = self.folder / "gcloud"
        program.write_text(STAND_IN.format(python=sys.executable, folder=str(self.folder)))
        program.chmod(0o755)
        self.answer("polls", "running\ndone 0")
        with tarfile.open(self.folder / "results", "w:gz") as archive:
            member = tarfile.TarInfo("artifacts/report.html")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"page"))

    def answer(self, name: str, text: str = "") -> None:
        """Whole at once: the stand-in may be reading it."""
        beside = self.folder / f"{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)

    def begin(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        quick = ["--tries", "3", "--poll-seconds", "0.01", "--seconds-between-tries", "0.01"]
        environment = os.environ | {"PATH": f"{self.folder}:/usr/bin:/bin"} | variables
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--root", str(self.root), *quick, *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self.process

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        process = self.begin(*words, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out + err

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [[json.loads(line)[0], *json.loads(line)[1]] for line in lines]

    @property
    def stages(self) -> list[str]:
        """What was asked for, in order; the same again and again counts once."""
        names = [call[0] for call in self.calls]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]

    def wait_for(self, stage: str) -> None:
        until = time.monotonic() + 30
        while stage not in self.stages:
            assert time.monotonic() < until, self.stages
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    yield cloud
    if cloud.process is not None and cloud.process.poll() is None:
        cloud.process.kill()
        cloud.process.communicate()


def test_a_run_goes_through_all_stages_and_ends_with_the_deletion(cloud: Cloud) -> None:
    code, told = cloud.run()
    assert code == 0, told
    assert cloud.stages == ["describe", *TRAINED, *DELETED]
    assert (cloud.root / "artifacts" / "report.html").read_text() == "page"
    assert "epoch 1" in told and "The machine is deleted" in told


@pytest.mark.parametrize("stage", ["reach", "send", "install", "start"])
def test_a_failure_at_any_stage_deletes_the_machine(cloud: Cloud, stage: str) -> None:
    cloud.answer(f"fail_{stage}", "quota exceeded")
    code, told = cloud.run()
    assert code == 1 and "quota exceeded" in told
    assert cloud.stages[-1] == "delete"


def test_a_failed_training_is_fetched_and_its_exit_code_handed_on(cloud: Cloud) -> None:
    cloud.answer("polls", "running\ndone 7")
    code, _ = cloud.run()
    assert code == 7 and cloud.stages[-4:] == ["pack", "scp", *DELETED]


def test_a_run_that_was_killed_is_fetched_and_said_so(cloud: Cloud) -> None:
    cloud.answer("polls", "lost")
    code, told = cloud.run()
    assert code == 1 and "memory ran out" in told
    assert cloud.stages[-4:] == ["pack", "scp", *DELETED]


def test_a_dropped_connection_does_not_end_the_run(cloud: Cloud) -> None:
    cloud.answer("polls", "dropped\ndropped\ndone 0")
    code, told = cloud.run()
    assert code == 0, told
    assert "no answer" in told and cloud.stages[-1] == "delete"


def test_an_outage_at_home_is_waited_for_however_long(cloud: Cloud) -> None:
    cloud.answer("polls", "running\n" + "offline\n" * 8 + "done 0")
    code, told = cloud.run("--silent-polls", "3")
    assert code == 0, told
    assert "network is unreachable" in told and cloud.stages[-4:] == ["pack", "scp", *DELETED]


def test_a_machine_that_runs_but_never_answers_ends_the_run(cloud: Cloud) -> None:
    cloud.answer("polls", "running\ndropped")
    code, told = cloud.run("--silent-polls", "3")
    assert code == 1 and "runs but does not answer" in told
    assert cloud.stages[-5:] == ["stop", "pack", "scp", *DELETED]


def test_an_outage_is_not_waited_for_beyond_the_machines_time(cloud: Cloud) -> None:
    cloud.answer("polls", "running\noffline")
    code, told = cloud.run("--max-hours", "0")
    assert "its time is over" in told
    assert code == 3 and "MAY STILL COST MONEY" in told  # nobody could see that it is gone


@pytest.mark.parametrize("label", ["", "einthoven-run"])
def test_a_machine_of_that_name_is_not_ours_to_delete(cloud: Cloud, label: str) -> None:
    cloud.answer("machine", json.dumps({"status": "RUNNING", "labels": {label: "other"}}))
    code, told = cloud.run("--name", "mine")
    assert code == 2 and "there already" in told
    assert cloud.stages == ["describe"]


@pytest.mark.parametrize(
    "told",
    [
        "network is unreachable",
        "You do not currently have an active account selected.",
        "The resource 'projects/misspelt' was not found",
    ],
)
def test_nothing_is_started_where_google_does_not_say_that_the_name_is_free(cloud, told) -> None:
    cloud.answer("fail_describe", told)
    code, said = cloud.run("--name", "mine")
    assert code == 2 and told in said and "gcloud auth login" in said
    assert cloud.stages == ["describe"] and "COST MONEY" not in said


def test_a_name_that_somebody_takes_meanwhile_is_left_alone(cloud: Cloud) -> None:
    cloud.answer("rival", json.dumps({"status": "RUNNING"}))
    code, told = cloud.run("--name", "mine")
    assert code == 1 and "already exists" in told and "left alone" in told
    assert cloud.stages == ["describe", "create", "describe"]
    assert (cloud.folder / "machine").exists()


def test_a_machine_made_anew_under_our_name_is_left_alone(cloud: Cloud) -> None:
    cloud.answer("polls", "running")
    process = cloud.begin("--name", "mine")
    cloud.wait_for("poll")
    cloud.answer("machine", json.dumps({"status": "RUNNING", "labels": {"einthoven-run": "x"}}))
    cloud.answer("polls", "done 0")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "not of this run" in out and "delete" not in cloud.stages


def test_a_machine_that_was_never_made_is_no_alarm(cloud: Cloud) -> None:
    cloud.answer("fail_create", "Quota 'NVIDIA_L4_GPUS' exceeded")
    code, told = cloud.run()
    assert code == 1 and "exceeded" in told and "COST MONEY" not in told
    assert cloud.stages == ["describe", "create", "describe"]


@pytest.mark.parametrize("stage", ["send", "install", "start"])
def test_a_connection_that_drops_in_a_stage_is_tried_again(cloud: Cloud, stage: str) -> None:
    cloud.answer(f"drops_{stage}", "2")
    code, told = cloud.run()
    assert code == 0, told
    assert "trying again: Connection reset" in told and "epoch 1" in told


@pytest.mark.parametrize("stage", ["pack", "scp"])
def test_the_last_fetch_waits_for_a_connection_that_drops(cloud: Cloud, stage: str) -> None:
    cloud.answer(f"drops_{stage}", "3")
    code, told = cloud.run()
    assert code == 0, told
    assert (cloud.root / "artifacts" / "report.html").read_text() == "page"
    assert cloud.stages[-1] == "delete"


@pytest.mark.parametrize(("stage", "polls"), [("pack", "lost"), ("scp", "running\ndone 0")])
def test_a_machine_with_results_that_cannot_be_fetched_is_kept(cloud, stage, polls) -> None:
    cloud.answer(f"fail_{stage}", "no route")
    cloud.answer("polls", polls)
    code, told = cloud.run("--patience-minutes", "0.005", "--name", "mine", "--max-hours", "6")
    assert code == 3 and "delete" not in cloud.stages
    assert "HOLDS RESULTS" in told and "6 hours after it was created" in told
    assert f"scp --recurse mine:work/artifacts mine:work/logs {cloud.root} --zone" in told
    assert "gcloud compute instances delete mine --zone=us-central1-a" in told


def test_a_second_ctrl_c_leaves_the_results_and_deletes(cloud: Cloud) -> None:
    cloud.answer("polls", "running")
    cloud.answer("fail_pack", "no route")
    process = cloud.begin("--seconds-between-tries", "5")
    cloud.wait_for("poll")
    process.send_signal(signal.SIGINT)
    cloud.wait_for("pack")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and cloud.stages[-1] == "delete"


def test_a_machine_that_was_taken_away_says_how_to_go_on(cloud: Cloud) -> None:
    cloud.answer("polls", "running\ntaken")
    code, told = cloud.run("--spot")
    assert code == 75 and "the same command goes on" in told
    assert "COULD NOT BE DELETED" not in told


@pytest.mark.parametrize("content", [b"\x1f\x8bnot a tar", None])
def test_a_torn_archive_does_not_end_the_run(cloud: Cloud, content: bytes | None) -> None:
    path = cloud.folder / "results"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30] if content is None else content)
    cloud.answer("polls", "running")
    process = cloud.begin("--fetch-minutes", "0")
    for _ in range(2):  # a fetch, and polls after it
        cloud.wait_for("scp")
        (cloud.folder / "calls").unlink()
        cloud.wait_for("poll")
    path.write_bytes(whole)
    cloud.answer("polls", "done 0")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 and "not fetched, the run goes on" in told
    assert [path.name for path in cloud.root.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_cannot_take_its_place_ends_neither_run_nor_fetch(cloud: Cloud) -> None:
    with tarfile.open(cloud.folder / "results", "w:gz") as archive:
        for name in ("artifacts/report.html", "logs/train.log"):
            archive.addfile(tarfile.TarInfo(name))
    (cloud.root / "artifacts" / "report.html" / "in the way").mkdir(parents=True)
    cloud.answer("polls", "running\nrunning\nrunning\ndone 0")
    code, told = cloud.run("--fetch-minutes", "0", "--patience-minutes", "0")
    assert told.count("not fetched, the run goes on") == 3
    assert (cloud.root / "logs" / "train.log").exists()
    assert code == 3 and "HOLDS RESULTS" in told


def test_a_log_that_the_console_cannot_print_does_not_end_the_run(cloud: Cloud) -> None:
    cloud.answer("polls", "running\nrunning\ndone 0")
    (cloud.folder / "log").write_text("epoch 1 \u2588\u2588 \u2192\n", encoding="utf-8")
    code, told = cloud.run(PYTHONIOENCODING="cp1252")
    assert code == 0 and told.count("epoch 1 ?? ?") == 3


def test_a_defect_of_the_script_still_fetches_and_deletes(cloud: Cloud) -> None:
    cloud.answer("polls", "running\ndone x")  # no number: an answer that the script does not expect
    code, told = cloud.run()
    assert code == 1 and "ValueError" in told
    assert cloud.stages[-5:] == ["stop", "pack", "scp", *DELETED]


def test_results_are_fetched_while_it_trains(cloud: Cloud) -> None:
    cloud.answer("polls", "running\nrunning\nrunning\ntaken")
    code, _ = cloud.run("--spot", "--fetch-minutes", "0")
    assert code == 75
    assert (cloud.root / "artifacts" / "report.html").exists()


def test_what_an_earlier_run_left_goes_along_but_not_the_store(cloud: Cloud) -> None:
    for name in ("checkpoints/last_checkpoint.pth", "records/a.npy", "manifest.parquet"):
        path = cloud.root / "artifacts" / "processed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert cloud.run()[0] == 0
    with tarfile.open(cloud.folder / "send.stdin") as archive:
        names = archive.getnames()
    assert "work/artifacts/processed/checkpoints/last_checkpoint.pth" in names
    assert "work/artifacts/processed/records/a.npy" not in names
    assert {"work/Dataset/mine/labels.csv", "einthoven/pyproject.toml"} <= set(names)
    assert "einthoven/src/einthoven/cli.py" in names
    assert not [name for name in names if "__pycache__" in name]


def test_flags_reach_the_run_as_they_were_written(cloud: Cloud) -> None:
    flags = ["--label-set", "my labels.csv", "--run-name", "a'b$(touch x)", "--epochs", "5"]
    assert cloud.run("--", *flags)[0] == 0
    script = (cloud.folder / "start.stdin").read_text()
    (line,) = [line for line in script.splitlines() if "einthoven run" in line]
    shown = f"f() {{ printf '%s\\n' \"$@\"; }}; f {line.partition('run ')[2].removesuffix(' &')}"
    said = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [*ALWAYS, *flags]


def test_settings_of_the_environment_go_along(cloud: Cloud) -> None:
    here = {"EPOCHS": "5", "LABEL_SET": "a'b $x", "DATASET_DIR": "/data", "ROOT": "/", "SEED": ""}
    code, told = cloud.run(**here, NO_SETTING="1")
    assert code == 0 and "Settings of the environment go along: " in told
    script = (cloud.folder / "start.stdin").read_text()
    (line,) = [line for line in script.splitlines() if "einthoven run" in line]
    shown = line.replace("~/venv/bin/einthoven", "env").partition(" run ")[0]
    command = ["env", "-i", f"PATH={os.environ['PATH']}", "bash", "-c", shown]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"EPOCHS=5", "LABEL_SET=a'b $x"} <= set(said)
    assert not {"DATASET_DIR", "ROOT", "SEED", "NO_SETTING"} & {s.partition("=")[0] for s in said}


def test_the_names_of_settings_are_all_of_them_without_importing_einthoven(cloud: Cloud) -> None:
    names = {name.upper() for name in Settings.model_fields} - {"ROOT", "DATASET_DIR"}
    assert cloud.run(**dict.fromkeys(names, "1"))[0] == 0
    script = (cloud.folder / "start.stdin").read_text()
    (line,) = [line for line in script.splitlines() if "einthoven run" in line]
    assert {word.partition("=")[0] for word in line.partition(" ~/")[0].split()} == names


def test_the_archives_are_those_that_were_sent_whatever_the_file_here_says(tmp_path: Path) -> None:
    (tmp_path / "einthoven.toml").write_text('dataset_dir = "/data/ecg"\n')
    command = [sys.executable, "-m", "einthoven", "config", *ALWAYS]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "/data/ecg" not in said and "Dataset" in said


def test_no_command_holds_what_a_windows_shell_would_change(cloud: Cloud) -> None:
    assert cloud.run("--", "--label-set", 'my "labels" & more.csv')[0] == 0
    for call in cloud.calls:
        assert not set("".join(call)) & set("\"&|<>^%$'()\n"), call


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_trains_saves_fetches_and_deletes(cloud, number, code) -> None:
    cloud.answer("polls", "running")
    process = cloud.begin()
    cloud.wait_for("poll")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert cloud.stages[-5:] == ["stop", "pack", "scp", *DELETED]


def test_a_window_that_is_closed_loses_neither_results_nor_the_deletion(cloud: Cloud) -> None:
    cloud.answer("polls", "running")
    process = cloud.begin()
    cloud.wait_for("poll")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    (cloud.folder / "calls").unlink()
    cloud.wait_for("poll")  # the log went nowhere, and the run goes on
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 143
    assert cloud.stages[-5:] == ["stop", "pack", "scp", *DELETED]


def test_ctrl_c_before_training_deletes_at_once(cloud: Cloud) -> None:
    cloud.answer("fail_reach", "not yet")
    process = cloud.begin("--seconds-between-tries", "5")
    cloud.wait_for("reach")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and cloud.stages[-3:] == ["reach", *DELETED]


def test_a_failed_deletion_is_tried_again_and_said_loudly_with_the_command(cloud: Cloud) -> None:
    cloud.answer("fail_delete", "no network")
    code, told = cloud.run("--name", "mine", "--project", "p1")
    assert code == 3
    assert [call[0] for call in cloud.calls].count("delete") == 10
    assert "MAY STILL COST MONEY" in told
    assert "gcloud compute instances delete mine --zone=us-central1-a --project=p1" in told


def test_a_kept_machine_is_not_deleted_and_its_end_is_told(cloud: Cloud) -> None:
    code, told = cloud.run("--keep", "--name", "mine")
    assert code == 0 and "delete" not in cloud.stages
    assert "instances delete mine" in told


def test_a_dry_run_shows_every_command_and_runs_none(cloud: Cloud) -> None:
    code, told = cloud.run("--dry-run", "--spot", "--", "--epochs", "5")
    assert code == 0 and cloud.calls == []
    for part in ("instances create", "--provisioning-model=SPOT", "instances delete", "--epochs 5"):
        assert part in told
    assert not (cloud.root / "artifacts").exists()


def test_google_deletes_a_machine_that_everybody_has_forgotten(cloud: Cloud) -> None:
    cloud.run("--max-hours", "6", "--spot")
    (create,) = [call for call in cloud.calls if call[0] == "create"]
    wanted = {
        "--max-run-duration=6h", "--instance-termination-action=DELETE", "--zone=us-central1-a",
        "--provisioning-model=SPOT", "--machine-type=g2-standard-8", "--no-scopes",
    }  # fmt: skip
    assert wanted <= set(create)


def test_archives_in_a_bucket_are_copied_by_the_machine(cloud: Cloud) -> None:
    assert cloud.run("--data", "gs://bucket/ecg archives")[0] == 0
    assert cloud.stages[3:6] == ["send", "bucket", "install"]
    script = (cloud.folder / "bucket.stdin").read_text()
    assert "rsync --recursive 'gs://bucket/ecg archives' ~/work/Dataset" in script
    (create,) = [call for call in cloud.calls if call[0] == "create"]
    assert "--scopes=storage-ro" in create


def test_nothing_is_started_without_data(cloud: Cloud) -> None:
    code, told = cloud.run("--data", str(cloud.root / "nowhere"))
    assert code == 2 and "nowhere is not there" in told and cloud.calls == []


# Stands for `einthoven run`: saves and ends on SIGTERM.
FAKE_RUN = """#!/bin/bash
trap 'echo saved > artifacts/saved; exit 143' TERM
mkdir -p artifacts/processed/records artifacts/processed/.steps
echo "$@" > artifacts/flags
touch artifacts/processed/records/a.npy artifacts/processed/.steps/label.json
touch artifacts/.best_model-x1.pth
echo "epoch 1"
for _ in $(seq {tenths}); do sleep 0.1; done
exit 5
"""


@pytest.fixture
def machine(cloud: Cloud) -> Cloud:
    """A stand-in whose scripts are carried out, in a home folder of their own."""
    programs = {
        "venv/bin/einthoven": FAKE_RUN.replace("{tenths}", "3"),
        "venv/bin/pip": "#!/bin/sh", "venv/bin/python": "#!/bin/sh", "bin/nvidia-smi": "#!/bin/sh",
    }  # fmt: skip
    for name, text in programs.items():
        path = cloud.folder / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return cloud


needs_setsid = pytest.mark.skipif(shutil.which("setsid") is None, reason="needs Linux's setsid")


@needs_setsid
def test_the_scripts_do_on_a_machine_what_is_asked(machine: Cloud) -> None:
    code, told = machine.run("--poll-seconds", "0.1", "--", "--label-set", "my labels.csv")
    assert code == 5, told  # what the run ended with
    assert told.count("epoch 1") == 1
    artifacts = machine.root / "artifacts"
    flags = " ".join(["run", *ALWAYS, "--label-set", "my labels.csv"])
    assert (artifacts / "flags").read_text() == f"{flags}\n"
    assert (machine.root / "logs" / "cloud_run.log").read_text() == "epoch 1\n"
    assert (artifacts / "processed" / ".steps" / "label.json").exists()
    assert not (artifacts / "processed" / "records").exists()
    assert not (artifacts / ".best_model-x1.pth").exists()
    assert (machine.folder / "home" / "work" / "Dataset" / "mine" / "labels.csv").exists()


@needs_setsid
def test_sigterm_lets_the_run_on_the_machine_save(machine: Cloud) -> None:
    path = machine.folder / "home" / "venv" / "bin" / "einthoven"
    path.write_text(FAKE_RUN.replace("{tenths}", "600"))
    process = machine.begin()
    machine.wait_for("poll")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert (machine.root / "artifacts" / "saved").read_text() == "saved\n"
    assert machine.stages[-1] == "delete"


@needs_setsid
def test_the_store_is_fetched_where_it_is_asked_for(machine: Cloud) -> None:
    machine.run("--with-store")
    assert (machine.root / "artifacts" / "processed" / "records" / "a.npy").exists()


@needs_setsid
def test_a_run_that_has_left_nothing_is_fetched_as_nothing(machine: Cloud) -> None:
    setsid = machine.folder / "home" / "bin" / "setsid"
    setsid.write_text("#!/bin/sh\nrm -r logs\n")  # the run does not even begin
    setsid.chmod(0o755)
    machine.answer("home/bin/sleep", "#!/bin/sh\n")
    (machine.folder / "home" / "bin" / "sleep").chmod(0o755)
    code, told = machine.run()
    assert code == 1 and "starting the run failed" in told
    assert machine.stages[-4:] == ["pack", "scp", *DELETED], told


def test_a_machine_without_venv_waits_for_its_own_updates_to_install_it(machine: Cloud) -> None:
    home = machine.folder / "home"
    (home / "venv" / "bin" / "pip").unlink()
    for name, text in {
        "python3.13": '#!/bin/sh\ncase "$*" in *--clear*) exit 0;; *) exit 1;; esac\n',
        "sudo": '#!/bin/sh\necho "$@" >> ~/sudo\n[ "$(wc -l < ~/sudo)" -gt 1 ]\n',  # locked once
        "sleep": "#!/bin/sh\n",
    }.items():
        (home / "bin" / name).write_text(text)
        (home / "bin" / name).chmod(0o755)
    machine.run("--poll-seconds", "0.1")
    update, again, install = (home / "sudo").read_text().splitlines()[:3]
    assert update == again == "apt-get update -q"
    assert install == "apt-get -o DPkg::Lock::Timeout=300 install -y -q python3-venv"
