"""A small machine for the commands of the docs: folders, files and a service as the pages assume.

Paths that begin with a slash lie below the sandbox, so ``/data/ecg`` of a page is a folder of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import format_samples
import numpy as np
import pytest
from click.testing import CliRunner
from doc_blocks import PROJECT, blocks_of, einthoven_words
from evaluated_workspace import draw_coarsely
from fake_ecgs import fake_ecg, write_own_archive
from served_model import running

from einthoven.cli import command_line
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.records import LEADS
from einthoven.serving.app import create_app
from einthoven.synthetic.archives import write_synthetic_archives
from einthoven.synthetic.wfdb_writing import to_digital, write_wfdb_dat

# What makes each command small; a page's own flags come before the environment.
BRIEF = {
    "EPOCHS": "1",
    "BOOTSTRAP_RESAMPLES": "100",
    "PREPARE_WORKERS": "1",
    "TRACKING": "none",
    "DEVICE": "cpu",
}
N_PATIENTS = 40
MODEL = "artifacts/processed/checkpoints/best_model.pth"
# Programs that are started as they are; whatever else a block calls has to be marked.
PROGRAMS = ("curl", "python", "ls")


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Let architectures be narrow and figures coarse."""
    draw_coarsely(patch)
    fewer = partial(write_synthetic_archives, n_patients=N_PATIENTS)
    patch.setattr("einthoven.synthetic.archives.write_synthetic_archives", fewer)
    patch.setitem(MODELS, "resnet1d_views", partial(ResNet1d, width=8))
    patch.setattr("einthoven.crossval.MIN_RECORDS_TO_HOLD_OUT", 10)


def call_einthoven(words: list[str], env: dict[str, str]) -> str:
    """Run a command of ours within this process; gives what it printed.

    Raises:
        AssertionError: it failed; the message has its output.
    """
    result = CliRunner().invoke(command_line, words, env=env)
    said = f"einthoven {' '.join(words)}: {result.output}\n{result.exception!r}"
    assert result.exit_code == 0, said
    return result.output


def make_workspace(folder: Path) -> None:
    """Archives below ``data/ecg``, and a workspace ``work`` that `einthoven run` has finished."""
    write_synthetic_archives(folder / "data" / "ecg", n_patients=N_PATIENTS)
    (folder / "work").mkdir()
    env = {**BRIEF, "DATASET_DIR": str(folder / "data" / "ecg")}
    call_einthoven(["run", "--root", str(folder / "work")], env)


@dataclass
class Sandbox:
    """Where the commands of one page are run, one after the other.

    Attributes:
        base: what ``/`` of a page's paths stands for.
        folder: the current folder of the commands.
        env: variables of the commands.
        patch: undoes its changes after the page.
        address: of a running service, where the page has one; it stands for port 8000.
    """

    base: Path
    folder: Path
    env: dict[str, str]
    patch: pytest.MonkeyPatch
    address: str = ""
    said: list[str] = field(default_factory=list)

    def run(self, words: list[str]) -> None:
        """Run one command.

        Raises:
            AssertionError: it failed, or cannot be run here and is not marked.
        """
        env, words = dict(self.env), [self.placed(word) for word in words]
        if words[0] == "export":
            self.env |= dict([word.split("=", 1) for word in words[1:]])
            return
        while re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        ours = einthoven_words(words)
        if words[0] == "cd":
            self.folder = self.folder / words[1]
        elif words[0] == "rm":
            self.remove(words[1:])
        elif ours is not None:
            with contextlib.chdir(self.folder):
                self.said.append(call_einthoven(ours, env))
        else:
            self.said.append(self.start(words, env))

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """The variables of the commands, for Python that runs in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            yield

    def placed(self, word: str) -> str:
        """A word of the page as it is here."""
        if self.address:
            word = re.sub(r"http://(127\.0\.0\.1|localhost):8000", self.address, word)
        word = re.sub(r"^file:///(?!/)", f"file://{self.base.as_posix()}/", word)
        is_ours = word.startswith(str(self.base))
        word = str(self.base / word[1:]) if word.startswith("/") and not is_ours else word
        return re.sub(r"^([A-Z_]+=)/", rf"\g<1>{self.base.as_posix()}/", word)

    def remove(self, words: list[str]) -> None:
        """Delete folders of the sandbox, and of nothing else."""
        for word in words:
            if not word.startswith("-"):
                path = (self.folder / word).resolve()
                assert path.is_relative_to(self.base.resolve()), path
                shutil.rmtree(path)

    def start(self, words: list[str], env: dict[str, str]) -> str:
        """Run a program of somebody else; gives what it printed."""
        program = Path(words[0]).name
        refused = [word for word in words if word in ("|", ">", ">>", "<", "&") or "$(" in word]
        assert program in PROGRAMS and not refused, (
            f"`{' '.join(words)}` is not run here: write `<!-- not run: the reason -->` above "
            "its block"
        )
        if program == "python":
            words = [sys.executable, *words[1:]]
        if program == "curl":
            words = ["curl", "--fail", "--silent", "--show-error", *words[1:]]
        done = subprocess.run(
            words, cwd=self.folder, env={**os.environ, **env}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


# What pages assume -------------------------------------------------------------------------------


def write_recordings(folder: Path) -> None:
    """Files that a hospital might have: one per format that pages name, and a folder of some."""
    signal = fake_ecg(1, 500)
    makers: dict[str, Callable[..., bytes]] = {
        "ecg.dcm": format_samples.build_dicom, "ecg.csv": format_samples.build_csv,
        "ecg.xml": format_samples.build_aecg,
        "a.xml": format_samples.build_aecg, "b.scp": format_samples.build_scp,
    }  # fmt: skip
    for name, make in makers.items():
        (folder / name).write_bytes(make(signal, 500))
    np.save(folder / "ecg.npy", 1000 * signal)  # microvolts
    body = {"signal": signal[:2].tolist(), "fs": 500, "leads": ["I", "II"]}
    (folder / "recording.json").write_text(json.dumps(body), encoding="utf-8")
    (folder / "recordings" / "older").mkdir(parents=True)
    for name in ("a.xml", "b.scp"):
        shutil.copy(folder / name, folder / "recordings" / "older" / name)
    shutil.copy(folder / "ecg.dcm", folder / "recordings")
    write_wfdb_dat(folder / "100", to_digital(signal), 500, LEADS)


def write_own(sandbox: Sandbox) -> None:
    """A folder of a hospital's own, with a labels.csv, at ``/data/ours``."""
    labels = ["NORM", "MI", "AF", "BBB", "OTHER"]
    write_own_archive(
        sandbox.base / "data" / "ours",
        [fake_ecg(100 + number, 200) for number in range(40)],
        labels=[labels[number % 5] for number in range(40)],
    )


def name_runs(sandbox: Sandbox, *names: str) -> None:
    """Further runs of the workspace, with the scores of the one that is there."""
    checkpoints = sandbox.folder / "artifacts" / "processed" / "checkpoints"
    files = [path for path in checkpoints.iterdir() if path.is_file()]
    for name in names:
        (checkpoints / name).mkdir()
        for path in files:
            shutil.copy(path, checkpoints / name)


def older_workspace(sandbox: Sandbox) -> None:
    shutil.copytree(sandbox.folder / "artifacts", sandbox.base / "home" / "old" / "artifacts")


def work_folder(sandbox: Sandbox) -> None:
    """A prepared workspace named ``work`` in the current folder."""
    shutil.copytree(sandbox.base / "work", sandbox.folder / "work")


def empty_folder(sandbox: Sandbox) -> None:
    """Nothing but archives in ``Dataset``: the page makes the workspace itself."""
    shutil.rmtree(sandbox.folder)
    shutil.copytree(sandbox.base / "data" / "ecg", sandbox.folder / "Dataset")
    sandbox.env.pop("DATASET_DIR")


def dataset_folder(sandbox: Sandbox) -> None:
    """The archives, in ``Dataset`` of the current folder."""
    shutil.copytree(sandbox.base / "data" / "ecg", sandbox.folder / "Dataset")


def no_pictures(sandbox: Sandbox) -> None:
    """Pages that train many times draw nothing: figures take most of the time."""
    sandbox.patch.setattr("einthoven.evaluation.save_score_figures", lambda *arguments: [])
    sandbox.patch.setattr("einthoven.modes.run_inference_examples", lambda settings: {})


def trackers(sandbox: Sandbox) -> None:
    """Trackers are on, and the run is another one than that of the workspace."""
    del sandbox.env["TRACKING"]
    sandbox.env["RUN_NAME"] = "followed"


def exported(sandbox: Sandbox) -> None:
    words = ["export", "--output", str(sandbox.folder / "model.onnx")]
    call_einthoven([*words, "--root", str(sandbox.folder)], sandbox.env)


def model_copy(sandbox: Sandbox) -> None:
    for name in ("best_model.pth", "other.pth"):
        shutil.copy(sandbox.folder / MODEL, sandbox.folder / name)


def cloud_script(sandbox: Sandbox) -> None:
    """What `cloud/` needs of a checkout, where the page is read: the names of settings too."""
    project, settings = Path(__file__).resolve().parents[1], Path("src", "einthoven", "settings.py")
    shutil.copytree(project / "cloud", sandbox.folder / "cloud")
    (sandbox.folder / settings).parent.mkdir(parents=True)
    shutil.copy(project / settings, sandbox.folder / settings)


@contextlib.contextmanager
def service(sandbox: Sandbox) -> Iterator[None]:
    """The model served, at an address that stands for that of the page."""
    with running(create_app(sandbox.folder / MODEL)) as address:
        sandbox.address = address
        yield


def page_tables(sandbox: Sandbox) -> None:
    """The tables that the page on one's own data shows, as files of the names that it gives."""
    page = PROJECT / "docs" / "how-to" / "own-data.md"
    tables = [block.text for block in blocks_of(page) if block.language == "csv"]
    for name, text in zip(("diagnoses.csv", "classes.csv"), tables, strict=True):
        (sandbox.folder / name).write_text(text + "\n", encoding="utf-8")


def default_archives(sandbox: Sandbox) -> None:
    """No DATASET_DIR: the demo would write its archives there."""
    del sandbox.env["DATASET_DIR"]


def lonely_signal() -> dict[str, object]:
    """Names that examples in Python use for a recording of yours."""
    return {"signal": fake_ecg(5, 500), "fs": 500.0, "leads": LEADS, "np": np}
