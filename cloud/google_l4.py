"""Train on a Google Cloud machine with one L4 GPU, and delete the machine afterwards.

    python cloud/google_l4.py --dry-run -- --epochs 50
    python cloud/google_l4.py --zone us-central1-a -- --epochs 50 --label-set superdiagnostic

Creates a machine, sends this project, the archives and what an earlier run left, installs, runs
`einthoven run` with the flags after `--`, fetches results into the workspace, and deletes the
machine: also after a failure at any stage, Ctrl-C or SIGTERM. Only results that cannot be fetched
keep it. Should this computer be lost, Google deletes the machine when --max-hours are over. Only
Python's standard library is needed, and the `gcloud` command, logged in. docs/how-to/cloud-gpu.md
tells more.

Exit codes: 0 trained and deleted; that of `einthoven run` where it failed; 1 a stage failed;
2 nothing was started; 3 the machine is still there, see to it: it could not be deleted, or holds
results that could not be fetched; 75 the machine was taken away, the same command goes on; 130 and
143 Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gzip
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

PROJECT = Path(__file__).resolve().parents[1]
# What an installation needs of the project.
PROJECT_FILES = ("src", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
# What a run leaves and goes on from; the store itself is made again, and is the same to the bit.
RESULTS = ("artifacts", "logs")
STORE = "artifacts/processed/records"

MACHINE_TYPE = "g2-standard-8"  # 8 cores, 32 GB of memory, one L4 with 24 GB
IMAGE_PROJECT = "deeplearning-platform-release"
IMAGE_FAMILY = "common-cu129-ubuntu-2404-nvidia-580"

# Settings of which the machine has its own.
OF_THIS_COMPUTER = ("ROOT", "DATASET_DIR")

TRIES_TO_DELETE = 10
# A connection may drop for a moment; every stage that is tried again can be done twice.
TRIES_OF_A_STAGE = 3
# Tells a machine of this very run from one of the same name.
LABEL = "einthoven-run"
# What Google says of the machine, where it is not one of Google's own words for its status.
ABSENT, UNKNOWN = "ABSENT", ""
GONE = (ABSENT, "TERMINATED", "STOPPING", "STOPPED", "SUSPENDED", "SUSPENDING")

KILLED = "the run ended without an exit code: it was killed, most often because memory ran out"
NOTHING_STARTED, NOT_DELETED, TAKEN_AWAY = 2, 3, 75

COST_NOTE = (
    "Google bills the machine and its disk from its creation to its deletion. What that costs is "
    "Google's to say, and differs by region and with --spot: check "
    "https://cloud.google.com/products/calculator before a long run."
)


class StageFailed(Exception):
    """A stage ended with an error."""


class NotFetched(StageFailed):
    """Results lie on the machine, and could not be fetched."""


class TakenAway(Exception):
    """The machine is no longer there: preempted, or its time is over."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came."""


# What keeps results from being fetched or unpacked: the connection, this computer, a torn archive.
HICCUPS = (StageFailed, OSError, tarfile.TarError, EOFError, zlib.error)


# What is run on the machine ----------------------------------------------------------------------
# Scripts go through standard input: no shell between here and there gets to quote them anew.

REACH = "# stage: reach\nnvidia-smi --list-gpus\n"

INSTALL = """# stage: install
set -e
cd ~/einthoven
python=$(command -v python3.13 || command -v python3.12 || command -v python3.11 || echo python3)
if [ ! -x ~/venv/bin/pip ]; then
    "$python" -m venv ~/venv || {
        # A machine that has just started may be updating itself.
        for _ in $(seq 20); do sudo apt-get update -q && break; sleep 15; done
        sudo apt-get -o DPkg::Lock::Timeout=300 install -y -q python3-venv
        "$python" -m venv --clear ~/venv
    }
fi
~/venv/bin/python -m pip install --quiet --constraint constraints.txt .
~/venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo 'torch sees no GPU on this machine' >&2
    exit 1
}
"""

# The run goes on when the connection drops; a second start finds it running.
START = """# stage: start
set -e
mkdir -p ~/work/logs
cd ~/work
if [ -f pid ] && [ ! -f exit_code ] && kill -0 "$(cat pid)" 2>/dev/null; then exit 0; fi
rm -f exit_code pid
cat > run.sh <<'END_OF_RUN'
{command} &
echo $! > pid
wait $!
echo $? > exit_code.new
mv exit_code.new exit_code
END_OF_RUN
setsid nohup bash run.sh > logs/cloud_run.log 2>&1 < /dev/null &
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -f pid ] && exit 0; sleep 1; done
exit 1
"""

# First line: running, done and the exit code, or lost; then what the log has beyond an offset.
POLL = """# stage: poll
cd ~/work
if [ -f exit_code ]; then echo "done $(cat exit_code)"
elif kill -0 "$(cat pid)" 2>/dev/null; then echo running
elif sleep 2; [ -f exit_code ]; then echo "done $(cat exit_code)"
else echo lost
fi
tail -c +{offset} logs/cloud_run.log 2>/dev/null
exit 0
"""

# Einthoven saves on SIGTERM.
STOP = """# stage: stop
cd ~/work
kill -TERM "$(cat pid)" 2>/dev/null
for _ in $(seq 60); do kill -0 "$(cat pid)" 2>/dev/null || exit 0; sleep 1; done
exit 0
"""

# A file that changes meanwhile (1) is whole all the same: each takes its place in one go, from a
# file beside it of a name such as .best_model-x1y2.pth.
PACK = """# stage: pack
cd ~/work
set -- $(ls -d {results} 2>/dev/null)
[ $# -gt 0 ] || set -- --files-from=/dev/null
tar -czf ~/results.tar.gz --no-wildcards-match-slash {exclude} --exclude='.[a-z]*-*' "$@"
[ $? -le 1 ]
"""

BUCKET = """# stage: bucket
set -e
mkdir -p ~/work/Dataset
gcloud storage rsync --recursive {bucket} ~/work/Dataset
"""


# gcloud ------------------------------------------------------------------------------------------


class Machine:
    """One machine on Google Cloud, and the commands about it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.name = options, options.name
        self.label = secrets.token_hex(8)
        self.holds_results = False  # that could not be fetched
        self.is_over_at = float("inf")
        # On Windows it is gcloud.cmd, which must be named in full.
        self.program = shutil.which("gcloud") or "gcloud"

    def command(self, *words: str) -> list[str]:
        """A `gcloud compute` command about this machine."""
        project = [f"--project={self.options.project}"] if self.options.project else []
        place = [f"--zone={self.options.zone}", *project, "--quiet"]
        return [self.program, "compute", *words, *place]

    def ssh(self, remote: str = "bash -s") -> list[str]:
        tunnel = ["--tunnel-through-iap"] if self.options.iap else []
        return self.command("ssh", self.name, f"--command={remote}", *tunnel)

    def create(self) -> list[str]:
        options = self.options
        return self.command(
            "instances", "create", self.name,
            f"--machine-type={options.machine_type}", "--maintenance-policy=TERMINATE",
            f"--image-family={options.image_family}", f"--image-project={IMAGE_PROJECT}",
            f"--boot-disk-size={options.disk_gb}GB", "--boot-disk-type=pd-balanced",
            f"--labels=purpose=einthoven-training,{LABEL}={self.label}",
            f"--max-run-duration={options.max_hours}h", "--instance-termination-action=DELETE",
            "--no-restart-on-failure",
            *(["--provisioning-model=SPOT"] if options.spot else []),
            # The machine has no rights in the project, but for reading a bucket where it must.
            *(["--scopes=storage-ro"] if is_bucket(options.data)
              else ["--no-service-account", "--no-scopes"]),
        )  # fmt: skip

    def delete(self) -> list[str]:
        return self.command("instances", "delete", self.name)

    def describe(self) -> list[str]:
        return self.command("instances", "describe", self.name, "--format=json")

    def fetch(self, path: Path) -> list[str]:
        tunnel = ["--tunnel-through-iap"] if self.options.iap else []
        return self.command("scp", f"{self.name}:results.tar.gz", str(path), *tunnel)

    def fetch_by_hand(self) -> list[str]:
        """All that lies on the machine, for somebody who types it."""
        tunnel = ["--tunnel-through-iap"] if self.options.iap else []
        there = [f"{self.name}:work/{name}" for name in RESULTS]
        return self.command("scp", "--recurse", *there, str(self.options.root), *tunnel)


class Runner:
    """Runs commands, or prints them in a dry run."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run

    def run(
        self, command: Sequence[str], script: str = "", *, alone: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, with a script on its standard input.

        Args:
            alone: out of Ctrl-C's reach, which a terminal sends to every program in it.
        """
        if self.dry_run:
            self.show(command, script)
            return subprocess.CompletedProcess(list(command), 0, b"", b"")
        where = apart() if alone else {}
        return subprocess.run(
            list(command), input=script.encode(), capture_output=True, check=False, **where
        )

    def must(self, stage: str, command: Sequence[str], script: str = "") -> None:
        """Run a command that has to succeed.

        Raises:
            StageFailed: it did not; with what it said.
        """
        done = self.run(command, script)
        if done.returncode:
            raise StageFailed(f"{stage} failed ({done.returncode}):\n{said_by(done)}")

    def send(self, command: Sequence[str], files: Iterator[tuple[Path, str]]) -> None:
        """Stream files into a command that unpacks them; nothing is written here meanwhile."""
        if self.dry_run:
            self.show(command)
            for path, name in files:
                print(f"    {path} -> {name}")
            return
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stderr=errors)
            assert process.stdin is not None
            try:
                with process.stdin as pipe:
                    pack(pipe, files)
            except BrokenPipeError:
                pass  # the other end has stopped reading, and its exit code says why
            except BaseException:
                process.kill()
                process.wait()
                raise
            if process.wait():
                errors.seek(0)
                told = errors.read().decode(errors="replace")
                raise StageFailed(f"sending files failed ({process.returncode}):\n{told}")

    def show(self, command: Sequence[str], script: str = "") -> None:
        """Print a command as one would type it, and the script that it gets."""
        print(as_typed(command))
        for line in script.splitlines():
            print(f"    {line}")


def apart() -> dict[str, Any]:
    """Keeps a program out of this terminal's Ctrl-C."""
    if os.name == "posix":
        return {"start_new_session": True}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Tell the user; a window that has been closed must not end what is to be done."""
    stream = sys.stderr if stream is None else stream
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def as_typed(command: Sequence[str]) -> str:
    """A `gcloud` command for a person to type."""
    return shlex.join(["gcloud", *command[1:]])


def last_line(text: object) -> str:
    """The end of what a command said: the rest is told where it counts."""
    return (str(text).strip().splitlines() or [""])[-1]


def said_by(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a command printed, errors last."""
    return (done.stdout + done.stderr).decode(errors="replace").strip()


def pack(pipe: IO[bytes], files: Iterator[tuple[Path, str]]) -> None:
    """Write files and folders into a compressed archive; links are followed."""
    with (
        gzip.GzipFile(fileobj=pipe, mode="wb", compresslevel=1) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", dereference=True) as archive,
    ):
        for path, name in files:
            archive.add(path, name, filter=without_clutter)


def without_clutter(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what nobody needs there: caches, and the store, which is made again."""
    name = f"{member.name}/"
    if "/__pycache__/" in name or f"/{STORE}/" in f"/{name}":
        return None
    # Whose files they are here means nothing there.
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def is_bucket(data: str) -> bool:
    """Whether the archives lie in a bucket of Google Cloud Storage."""
    return data.startswith("gs://")


@dataclass(frozen=True)
class Seen:
    """What Google says of a machine of this name."""

    status: str
    is_ours: bool
    told: str


def look(runner: Runner, machine: Machine) -> Seen:
    """Ask Google about the machine.

    Only the words that no machine of this name is there count as that: a missing project, a
    dropped connection and an account that is not logged in are errors too, and say nothing.
    """
    done = runner.run(machine.describe(), alone=True)
    told = said_by(done)
    if done.returncode:
        return Seen(ABSENT if says_absent(machine, told) else UNKNOWN, False, told)
    try:
        found = json.loads(done.stdout)
        is_ours = found.get("labels", {}).get(LABEL) == machine.label
        return Seen(str(found["status"]), is_ours, told)
    except (ValueError, KeyError, AttributeError):
        return Seen(UNKNOWN, False, told)


def says_absent(machine: Machine, told: str) -> bool:
    """Whether Google says that there is no machine of this name."""
    return f"/instances/{machine.name}' was not found" in told


# Stages ------------------------------------------------------------------------------------------


def again(machine: Machine, stage: Callable[[], None]) -> None:
    """Do something that can be done twice; try again where it fails."""
    for _ in range(TRIES_OF_A_STAGE - 1):
        try:
            return stage()
        except StageFailed as error:
            say(f"  trying again: {last_line(error)}")
        time.sleep(machine.options.seconds_between_tries)
    return stage()


def create(runner: Runner, machine: Machine) -> None:
    """Create the machine."""
    runner.must("creating the machine", machine.create())
    machine.is_over_at = time.time() + 3600 * machine.options.max_hours


def reach(runner: Runner, machine: Machine) -> None:
    """Wait until the machine answers and its GPU's driver works."""
    for attempt in range(1, machine.options.tries + 1):
        done = runner.run(machine.ssh(), REACH)
        if done.returncode == 0:
            return
        if attempt < machine.options.tries:
            time.sleep(machine.options.seconds_between_tries)
    raise StageFailed(f"the machine does not answer, or has no GPU:\n{said_by(done)}")


def send(runner: Runner, machine: Machine) -> None:
    """Send the project, the archives, and what an earlier run left here."""
    ssh = machine.ssh("tar -xzf -")
    again(machine, lambda: runner.send(ssh, files_to_send(machine.options)))
    if is_bucket(machine.options.data):
        script = BUCKET.replace("{bucket}", shlex.quote(machine.options.data))
        again(machine, lambda: runner.must("copying the bucket", machine.ssh(), script))


def files_to_send(options: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """What is sent, and where it comes to lie in the home folder there."""
    for name in PROJECT_FILES:
        yield PROJECT / name, f"einthoven/{name}"
    for name in (*RESULTS, "einthoven.toml"):
        if (options.root / name).exists():
            yield options.root / name, f"work/{name}"
    for path in options.also:
        yield path, f"work/{path.name}"
    if not is_bucket(options.data):
        yield Path(options.data), "work/Dataset"


def install(runner: Runner, machine: Machine) -> None:
    """Install the project with the versions that it was tested with."""
    again(machine, lambda: runner.must("installing", machine.ssh(), INSTALL))


def train(runner: Runner, machine: Machine) -> int:
    """Start the run, follow it to its end, and return its exit code.

    Results are fetched every now and then, so that a machine that is taken away takes little along.
    """
    start = START.replace("{command}", run_command(machine))
    again(machine, lambda: runner.must("starting the run", machine.ssh(), start))
    if runner.dry_run:
        runner.run(machine.ssh(), POLL.replace("{offset}", "1"))
        return 0
    offset, silent, fetched_at = 1, 0, time.monotonic()
    while True:
        done = runner.run(machine.ssh(), POLL.replace("{offset}", str(offset)))
        state, _, log = done.stdout.partition(b"\n")
        if done.returncode == 0 and state.startswith((b"running", b"done ", b"lost")):
            silent = 0
            offset += len(log)
            say(log.decode(errors="replace"), sys.stdout, end="")
            if state.startswith(b"done "):
                return int(state.split()[1])
            if state == b"lost":
                raise StageFailed(KILLED)
        else:
            silent += look_whether_gone(runner, machine)
            if silent >= machine.options.silent_polls:
                raise StageFailed(f"the machine runs but does not answer:\n{said_by(done)}")
            say("  no answer; the run goes on there, asking again")
        if time.monotonic() - fetched_at > 60 * machine.options.fetch_minutes:
            try:
                fetch(runner, machine)
            except HICCUPS as error:
                say(f"  not fetched, the run goes on: {last_line(error)}")
            fetched_at = time.monotonic()
        time.sleep(machine.options.poll_seconds)


def run_command(machine: Machine) -> str:
    """`einthoven run` as the machine's shell takes it, whatever is in its flags.

    The archives lie in one place there, wherever einthoven.toml has them here; a flag still wins.
    """
    settings = [f"{name}={shlex.quote(value)}" for name, value in settings_here().items()]
    run = "~/venv/bin/einthoven run --root . --dataset-dir Dataset"
    return " ".join([*settings, run, shlex.join(machine.options.flags)]).strip()


def settings_here() -> dict[str, str]:
    """Settings that the environment holds, which count there as they would here."""
    tree = ast.parse((PROJECT / "src" / "einthoven" / "settings.py").read_text(encoding="utf-8"))
    (settings,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    fields = (line.target for line in settings.body if isinstance(line, ast.AnnAssign))
    names = [field.id.upper() for field in fields if isinstance(field, ast.Name)]
    set_here = {name: os.environ.get(name, "") for name in names if name not in OF_THIS_COMPUTER}
    return {name: value for name, value in set_here.items() if value}


def look_whether_gone(runner: Runner, machine: Machine) -> bool:
    """A dropped connection is waited for; a machine that is gone is not.

    Returns:
        Whether Google says that the machine runs. Where Google does not answer either it is this
        computer that has no connection, and the run may be as well as ever.

    Raises:
        TakenAway: the machine has been stopped or deleted, or must have been by now.
    """
    seen = look(runner, machine)
    if seen.status in GONE or (seen.status and not seen.is_ours):
        raise TakenAway(f"the machine is {seen.status.lower() if seen.is_ours else 'gone'}")
    if time.time() > machine.is_over_at:
        raise TakenAway("the machine does not answer, and its time is over")
    if not seen.status:
        say(f"  Google does not answer either: {last_line(seen.told)}")
    return seen.status == "RUNNING"


def fetch(runner: Runner, machine: Machine, alone: bool = False) -> None:
    """Bring what the run has written so far into the workspace here."""
    options = machine.options
    script = PACK.replace("{results}", " ".join(RESULTS))
    script = script.replace("{exclude}", "" if options.with_store else f"--exclude={STORE}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.tar.gz"
        for command, text in ((machine.ssh(), script), (machine.fetch(path), "")):
            done = runner.run(command, text, alone=alone)
            if done.returncode:
                raise StageFailed(f"fetching results failed:\n{said_by(done)}")
        if not runner.dry_run:
            options.root.mkdir(parents=True, exist_ok=True)
            unpack(path, options.root)


def unpack(path: Path, root: Path) -> None:
    """Unpack beside, then move: a torn archive changes nothing here.

    Raises:
        OSError: a file could not take its place; all others have.
    """
    problem: OSError | None = None
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=root) as folder:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        for file in sorted(Path(folder).rglob("*")):
            place = root / file.relative_to(folder)
            try:
                if file.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    file.replace(place)
            except OSError as error:
                problem = problem or error
    if problem is not None:
        raise problem


def fetch_surely(runner: Runner, machine: Machine, alone: bool = False) -> None:
    """Fetch what is nowhere else; wait for a connection that drops.

    Raises:
        NotFetched: it could not be done in --patience-minutes.
        TakenAway: the machine is gone.
    """
    until = time.monotonic() + 60 * machine.options.patience_minutes
    while True:
        try:
            return fetch(runner, machine, alone)
        except HICCUPS as error:
            if time.monotonic() >= until:
                raise NotFetched(str(error)) from error
            say(f"  not fetched, trying again: {last_line(error)}")
        look_whether_gone(runner, machine)
        time.sleep(machine.options.seconds_between_tries)


def stop_and_fetch(runner: Runner, machine: Machine) -> None:
    """After Ctrl-C: let the run save, and bring home what there is; a second Ctrl-C ends that."""
    say("Stopping the run and fetching what there is; Ctrl-C again leaves it")
    try:
        runner.run(machine.ssh(), STOP, alone=True)
        fetch_surely(runner, machine, alone=True)
    except (TakenAway, KeyboardInterrupt) as error:
        say(f"results were not fetched: {error or 'Ctrl-C'}")
    except Exception as error:
        machine.holds_results = True
        say(f"results were not fetched: {error}")


def delete(runner: Runner, machine: Machine) -> bool:
    """Delete the machine, whatever comes; say loudly where that fails."""
    if runner.dry_run:
        runner.run(machine.describe())
        runner.run(machine.delete())
        return True
    with signals_ignored():
        for attempt in range(TRIES_TO_DELETE):
            outcome, told = try_to_delete(runner, machine)
            if outcome:
                say(outcome, sys.stdout)
                return True
            if attempt + 1 < TRIES_TO_DELETE:
                time.sleep(machine.options.seconds_between_tries)
    say_loudly(
        f"THE MACHINE {machine.name} COULD NOT BE DELETED AND MAY STILL COST MONEY.\n"
        f"{told}\nSee whether it is yours, delete it, and see that it is gone:\n"
        f"  {as_typed(machine.describe())}\n  {as_typed(machine.delete())}\n"
        f"Otherwise Google deletes it {machine.options.max_hours} hours after it was created."
    )
    return False


def try_to_delete(runner: Runner, machine: Machine) -> tuple[str, str]:
    """Delete the machine where it is that of this run; how it went, and what was told if badly."""
    seen = look(runner, machine)
    if seen.status == ABSENT:
        return "No machine is left.", ""
    if seen.status == UNKNOWN:
        return "", seen.told
    if not seen.is_ours:
        return f"The machine {machine.name} that is there is not of this run: it is left alone.", ""
    done = runner.run(machine.delete(), alone=True)
    if done.returncode == 0 or says_absent(machine, said_by(done)):
        return "The machine is deleted.", ""
    return "", said_by(done)


def leave(machine: Machine) -> None:
    """Say that the machine stays for its results, and what to do."""
    say_loudly(
        f"THE MACHINE {machine.name} HOLDS RESULTS THAT COULD NOT BE FETCHED. IT IS KEPT, AND "
        f"COSTS MONEY.\nFetch them, then delete it:\n"
        f"  {as_typed(machine.fetch_by_hand())}\n  {as_typed(machine.delete())}\n"
        f"Google deletes it, results and all, {machine.options.max_hours} hours after it was "
        "created."
    )


def say_loudly(text: str) -> None:
    """Print what must not be overlooked."""
    bar = "!" * 80
    say(f"{bar}\n{text}\n{bar}")


# From one end to the other -----------------------------------------------------------------------


def main(words: Sequence[str] | None = None) -> int:
    """Do it all; returns the exit code."""
    options = parse(sys.argv[1:] if words is None else words)
    # A run's log may hold what this console has no letters for.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    runner, machine = Runner(options.dry_run), Machine(options)
    if problem := what_is_missing(runner, machine):
        say(problem)
        return NOTHING_STARTED
    say(COST_NOTE)
    if names := ", ".join(settings_here()):
        say(f"Settings of the environment go along: {names}")
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _terminate)
    code = 1
    try:
        code = from_creation_to_results(runner, machine)
    finally:
        if machine.holds_results:
            leave(machine)
            code = NOT_DELETED
        elif options.keep:
            say(f"Kept, and billed until you run:\n  {as_typed(machine.delete())}", sys.stdout)
        elif not delete(runner, machine):
            code = NOT_DELETED
        # Ctrl-C has its say in `from_creation_to_results`; what else is raised is our defect.
    return code


def from_creation_to_results(runner: Runner, machine: Machine) -> int:
    """Every stage but the last; returns the exit code that it deserves."""
    is_started = False
    try:
        for stage in (create, reach, send, install):
            say(f"{(stage.__doc__ or '').partition('.')[0]} ...")
            stage(runner, machine)
        is_started = True
        say("Training ...")
        code = train(runner, machine)
        fetch_surely(runner, machine)
        say(f"Results lie in {machine.options.root}")
        return code
    except KeyboardInterrupt as error:
        code = 143 if isinstance(error, Terminated) else 130
    except TakenAway as error:
        say(f"{error}; what was fetched last is here, and the same command goes on from there")
        return TAKEN_AWAY
    except NotFetched as error:
        say(f"google_l4: {error}")
        machine.holds_results = True
        return NOT_DELETED
    except (StageFailed, OSError) as error:
        say(f"google_l4: {error}")
        code = 1
    except Exception:  # a defect of ours; what was trained is fetched all the same
        say(traceback.format_exc())
        code = 1
    if is_started:
        stop_and_fetch(runner, machine)
    return code


def what_is_missing(runner: Runner, machine: Machine) -> str:
    """Why nothing can be started; empty where all is there."""
    options = machine.options
    if runner.dry_run:
        runner.run(machine.describe())
        return ""
    if not is_bucket(options.data) and not Path(options.data).is_dir():
        return f"{options.data} is not there; name the archives' folder or bucket with --data"
    for path in options.also:
        if not path.exists():
            return f"{path} is not there; leave out --also, or name another file"
    if shutil.which("gcloud") is None:
        return "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
    # Deleting a machine that somebody else has made would be a fine surprise.
    seen = look(runner, machine)
    if seen.status == UNKNOWN:
        return (
            f"Google does not say whether a machine called {machine.name} is there already, so "
            "nothing was started. See to the network, --project and --zone, and that gcloud is "
            f"logged in (gcloud auth login):\n{seen.told}"
        )
    if seen.status != ABSENT:
        return f"a machine called {machine.name} is there already; choose another --name"
    return ""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this script, and the flags of `einthoven run` after `--`."""
    words = list(words)
    at = words.index("--") if "--" in words else len(words)
    mine, flags = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(
        description="Train on a Google Cloud machine with an L4 GPU, then delete it.",
        epilog="Flags of `einthoven run` come after --. " + COST_NOTE,
    )
    add = parser.add_argument
    add("--root", type=Path, default=Path(), help="workspace here: results come to it (default: .)")
    add("--data", default="", help="archives: a folder, or gs://bucket/folder (default: Dataset)")
    add(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="send this too, say a label set of your own; flags name it by its file name",
    )
    add("--project", default="", help="Google Cloud project (default: gcloud's)")
    add("--zone", default="us-central1-a", help="zone that has L4 GPUs (default: %(default)s)")
    add("--name", default=f"einthoven-{secrets.token_hex(4)}", help="of the machine")
    add("--machine-type", default=MACHINE_TYPE, help="(default: %(default)s)")
    add("--image-family", default=IMAGE_FAMILY, help="of Deep Learning VM (default: %(default)s)")
    add("--disk-gb", type=int, default=200, help="boot disk (default: %(default)s)")
    add("--spot", action="store_true", help="cheaper, and may be taken away: the same command then "
        "goes on")  # fmt: skip
    add("--max-hours", type=int, default=24, help="Google deletes the machine after these "
        "(default: %(default)s)")  # fmt: skip
    add("--fetch-minutes", type=float, default=15, help="between fetches while it trains "
        "(default: %(default)s)")  # fmt: skip
    add("--patience-minutes", type=float, default=30, help="that the last fetch is tried "
        "for before the machine is kept for its results (default: %(default)s)")  # fmt: skip
    add("--with-store", action="store_true", help="fetch the prepared records too")
    add("--iap", action="store_true", help="reach the machine through Identity-Aware Proxy")
    add("--keep", action="store_true", help="do not delete the machine at the end")
    add("--dry-run", action="store_true", help="print every command, and run none")
    add("--tries", type=int, default=40, help=argparse.SUPPRESS)
    add("--silent-polls", type=int, default=40, help=argparse.SUPPRESS)
    add("--poll-seconds", type=float, default=30, help=argparse.SUPPRESS)
    add("--seconds-between-tries", type=float, default=15, help=argparse.SUPPRESS)
    options = parser.parse_args(mine)
    options.flags = flags
    options.data = options.data or str(options.root / "Dataset")
    return options


def _terminate(number: int, frame: object) -> None:
    raise Terminated


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Let nothing end this program while it deletes the machine."""
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
