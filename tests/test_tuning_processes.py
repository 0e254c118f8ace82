"""Searches of several processes, over SQLite, a journal and a real PostgreSQL; a killed one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from stores import write_tiny_store
from tuning_process import make_training_fake, search_settings, write_space

from einthoven.errors import DataError
from einthoven.files import Workspace, read_json
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.tuning import study
from einthoven.tuning.command import tune

HELPER = Path(__file__).with_name("tuning_process.py")
PASSWORD = "s3cr3t"
POSTGRES_PLACES = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin")


def start_search(root: Path, storage: str, n_trials: int, *others: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HELPER), str(root), storage, str(n_trials), *others],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def table(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "artifacts/tuning/tune/trials.csv", keep_default_na=False)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "SECONDS_BETWEEN_SIGNS", 0.2)
    monkeypatch.setattr(study, "SECONDS_UNTIL_LOST", 1.5)
    write_tiny_store(tmp_path)
    return tmp_path


# Killed ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_search_goes_on_with_its_trial_and_ends_as_if_undisturbed(root, monkeypatch):
    # After the second of three epochs of the second trial.
    killed = start_search(root, "", 2, "real", "5")
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    trained = Workspace(root, "tune-trial-0002").checkpoints_dir
    assert len(read_json(trained / "training_history.json")) == 2
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))
    whole = root / "whole"
    write_tiny_store(whole)
    for workspace in (root, whole):
        tune(search_settings(workspace, trials=2), {}, write_space(workspace))
    columns = ["score", "low", "high", "other_half", "lr", "batch_size_cpu", "epochs", "run"]
    assert table(root)[columns].to_numpy().tolist() == table(whole)[columns].to_numpy().tolist()
    assert len(read_json(trained / "training_history.json")) == 3


# Shared ------------------------------------------------------------------------------------------


def share_a_search(root: Path, storage: str, patch: pytest.MonkeyPatch, n_trials: int = 20) -> str:
    """Search in a process of its own and in this one at once; returns what the other one said."""
    make_training_fake(patch)
    other = start_search(root, storage, n_trials, "fake")
    try:
        # Not before the other one has begun, or this one would have done all alone.
        until = time.monotonic() + 60
        while not list(Workspace(root).checkpoints_dir.glob("tune-trial-*")):
            assert time.monotonic() < until and other.poll() is None
            time.sleep(0.05)
        settings = search_settings(root, study_storage=storage, trials=n_trials)
        tune(settings, {}, write_space(root))
        said, _ = other.communicate(timeout=60)
    finally:
        other.kill()
    assert other.returncode == 0, said
    # The one that finished last has written the table.
    tune(settings, {}, write_space(root))
    return said


def assert_shared(root: Path, n_trials: int = 20) -> None:
    rows = table(root)
    assert len(rows) == n_trials
    assert set(rows["state"]) <= {"finished", "given up"}
    assert rows["lr"].nunique() == n_trials, "no trial is proposed twice"
    assert sorted(rows["run"]) == sorted(
        path.name for path in Workspace(root).checkpoints_dir.glob("tune-trial-*")
    )


@pytest.mark.parametrize("storage", ["", "shared.journal"])
def test_two_processes_share_the_trials_of_one_search(root, storage, monkeypatch):
    said = share_a_search(root, storage and str(root / storage), monkeypatch)
    assert_shared(root)
    assert "20 trials" in said


# PostgreSQL --------------------------------------------------------------------------------------


def postgres_programs() -> Path:
    """The folder of a PostgreSQL server's programs."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += [path for place in POSTGRES_PLACES for path in Path("/").glob(place.lstrip("/"))]
    if not places:
        pytest.skip("no PostgreSQL server is installed")
    return places[-1]


def as_postgres(*words: object) -> list[str]:
    """A command, by a user whom the server accepts: it refuses to be root's."""
    command = [str(word) for word in words]
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return command
    return ["runuser", "-u", "postgres", "--", *command]


def server_folder() -> Path:
    # Short, for the name of a socket; and where the server's user may write.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        if not shutil.which("runuser"):
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A server of its own that asks for a password, stopped at the end."""
    programs, folder, port = postgres_programs(), server_folder(), free_port()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = folder / "data"
    start = ["-D", data, "-l", folder / "log", "-w", "-o", f"-p {port} -k {folder} -h 127.0.0.1"]
    run = {"check": True, "stdout": subprocess.DEVNULL, "timeout": 60, "cwd": folder}
    subprocess.run(
        as_postgres(programs / "initdb", "-D", data, "-U", "ecg", "-A", "scram-sha-256",
                    "--pwfile", secret, "--no-sync"), **run,
    )  # fmt: skip
    subprocess.run(as_postgres(programs / "pg_ctl", *start, "start"), **run)
    try:
        yield f"postgresql://ecg:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(as_postgres(programs / "pg_ctl", "-D", data, "-m", "fast", "stop"), **run)
        shutil.rmtree(folder)


def test_two_processes_share_a_search_in_postgresql(root, postgres_url, monkeypatch, caplog):
    said = share_a_search(root, postgres_url, monkeypatch)
    assert_shared(root)
    assert PASSWORD not in said + caplog.text
    assert not (root / "artifacts/tuning/tune/study.db").exists()
    written = [path for path in root.rglob("*") if path.suffix in (".json", ".toml", ".csv")]
    assert not any(PASSWORD in path.read_text(encoding="utf-8") for path in written)


def test_a_wrong_password_is_told_without_it(root, postgres_url, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    wrong = postgres_url.replace(PASSWORD, "gu3ss")
    with pytest.raises(DataError, match="password authentication failed") as caught:
        tune(search_settings(root, study_storage=wrong), {}, write_space(root))
    assert "gu3ss" not in str(caught.value)
