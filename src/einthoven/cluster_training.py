"""Training by processes of a Ray cluster, through Ray Train.

Each process does what a process under ``torchrun`` does. Where one is killed, Ray starts all of
them again, and they go on from the run's own last save, so the run ends as if nothing had happened.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from einthoven.cluster.connection import connected_ray
from einthoven.cluster.desk import LineHandler, described_error, noted_error, open_desk
from einthoven.console import log, plural, setup_logging
from einthoven.distributed import leave_processes, processes_here
from einthoven.errors import ConfigError, ProcessLost, RunStopped
from einthoven.interruption import ask_to_stop, held_signals
from einthoven.run_folder import CHECKPOINT_FILES, is_finished, run_inputs
from einthoven.runs import data_fingerprint
from einthoven.settings import Settings
from einthoven.training import open_data, train_production

# How often lost processes are started again. A machine that is taken away with notice, as spot
# machines are, does not count.
MAX_RESTARTS = 20
SECONDS_BETWEEN_MESSAGES = 0.5
# Processes ask twice a second whether they should stop; where none does, none is there.
SECONDS_TO_HEED = 10.0
SECONDS_BETWEEN_WARNINGS = 30.0
# Ray's own notes about the job, within the run's folder; removed at its end.
RAY_DIR = ".ray"
RAY_TRAIN_ENVIRONMENT = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def train_on_engine(settings: Settings, origins: Mapping[str, str] | None = None) -> None:
    """Train where ``ENGINE`` says: in this process, or in processes of a Ray cluster.

    Raises:
        EinthovenError: as `train_production`, whoever met it.
        ConfigError: Ray cannot be used.
        ProcessLost: processes of the cluster died again and again.
    """
    if settings.engine == "local":
        train_production(settings, origins)
        return
    if processes_here().count > 1:
        raise ConfigError("torchrun and ENGINE=ray both start processes; use one of them")
    # Before any process starts.
    store, chosen = open_data(settings)
    if settings.device == "cpu" and settings.workspace.step_path("train").exists():
        inputs = run_inputs(settings, data_fingerprint(store, chosen), torch.device("cpu"))
        if not settings.dry_run and is_finished(settings, inputs):
            return
    try:
        with connected_ray(settings.ray_address) as ray:
            _train_on_ray(ray, settings, origins or {})
    except RunStopped as error:
        if not settings.fresh or "without --fresh" in str(error):
            raise
        said = str(error).replace("the same command", "the same command without --fresh")
        raise RunStopped(said, error.exit_code) from None


# In the command that was given --------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerPlan:
    """How many processes train, and what each is given.

    Attributes:
        count: processes.
        on_gpu: whether each has a GPU.
        cores: of each.
    """

    count: int
    on_gpu: bool
    cores: int


def plan_workers(settings: Settings, machines: Sequence[Mapping[str, float]]) -> WorkerPlan:
    """The processes that train, given what each machine has of ``GPU`` and ``CPU``.

    >>> plan_workers(Settings(), [{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}])
    WorkerPlan(count=8, on_gpu=True, cores=1)
    >>> plan_workers(Settings(train_workers=3), [{"CPU": 8}, {"CPU": 6}])
    WorkerPlan(count=3, on_gpu=False, cores=4)
    """
    n_gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and n_gpus > 0)
    count = settings.train_workers or (n_gpus if on_gpu else 0) or 1
    if on_gpu:
        return WorkerPlan(count, True, 1)
    n_cores = [int(machine.get("CPU", 0)) for machine in machines]
    fitting = (
        cores for cores in range(max(n_cores, default=1), 1, -1)
        if sum(n // cores for n in n_cores) >= count
    )  # fmt: skip
    return WorkerPlan(count, False, next(fitting, 1))


def check_cluster_room(
    address: str, plan: WorkerPlan, machines: Sequence[Mapping[str, float]]
) -> None:
    """Refuse what this machine alone can never have; a cluster may grow, so there only warn.

    Args:
        address: of a running cluster; empty where Ray was started for this command.

    Raises:
        ConfigError: says what is asked for, what is there, and what to do.
    """
    if count_room(plan, machines) >= plan.count:
        return
    there = (
        f"{plan_in_words(plan)} cannot run at once on what Ray has ({resources_in_words(machines)})"
    )
    advice = "use fewer TRAIN_WORKERS" + (", or DEVICE=cpu" if plan.on_gpu else "")
    if address in ("", "local"):
        raise ConfigError(f"{there}; {advice}, or let more machines join (RAY_ADDRESS)")
    log.warning("%s: waiting for the cluster to grow, or stop this and %s", there, advice)


def count_room(plan: WorkerPlan, machines: Sequence[Mapping[str, float]]) -> int:
    """How many of the planned processes the machines can hold at once.

    >>> count_room(WorkerPlan(4, True, 1), [{"CPU": 16, "GPU": 2}, {"CPU": 1, "GPU": 2}])
    3
    """
    rooms = [int(machine.get("CPU", 0)) // plan.cores for machine in machines]
    if plan.on_gpu:
        gpus = (int(machine.get("GPU", 0)) for machine in machines)
        rooms = [min(pair) for pair in zip(rooms, gpus, strict=True)]
    return sum(rooms)


def plan_in_words(plan: WorkerPlan) -> str:
    """What the processes need.

    >>> plan_in_words(WorkerPlan(5, False, 2))
    '5 processes with 2 cores each'
    """
    processes = "1 process" if plan.count == 1 else f"{plan.count:,} processes"
    share = "a GPU and a core" if plan.on_gpu else plural(plan.cores, "core")
    return f"{processes} with {share}" + (" each" if plan.count > 1 else "")


def resources_in_words(machines: Sequence[Mapping[str, float]]) -> str:
    """Cores and GPUs of all machines together.

    >>> resources_in_words([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}])
    '16 cores, 1 GPU'
    """
    cores, gpus = (int(sum(one.get(kind, 0) for one in machines)) for kind in ("CPU", "GPU"))
    return f"{plural(cores, 'core')}, {plural(gpus, 'GPU')}"


def old_files(settings: Settings) -> dict[str, int]:
    """What ``--fresh`` is to delete: the files of the run that is there, and their times."""
    if not settings.fresh:
        return {}
    folder = settings.workspace.checkpoints_dir
    paths = (path for name in CHECKPOINT_FILES for path in folder.glob(name))
    return {str(path.absolute()): path.stat().st_mtime_ns for path in paths}


def is_old_there(old: Mapping[str, int]) -> bool:
    """Whether an old run still has to be deleted; processes that start again must not do it twice.

    A process may have been killed while it deleted, so one file that is left is enough.
    """
    return any(Path(path).exists() and Path(path).stat().st_mtime_ns == old[path] for path in old)


def _train_on_ray(ray: Any, settings: Settings, origins: Mapping[str, str]) -> None:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    plan = plan_workers(settings, machines)
    check_cluster_room(settings.ray_address, plan, machines)
    log.info(
        "Training by %s of a Ray cluster (%s), each with %s",
        plural(plan.count, "process").replace("processs", "processes"),
        plural(len(machines), "machine"),
        "a GPU" if plan.on_gpu else plural(plan.cores, "core"),
    )
    desk = open_desk(ray)
    root = settings.root.absolute()
    task = {
        "settings": settings.model_copy(update={"root": root}),
        "old": old_files(settings),
        "origins": dict(origins),
        "here": str(Path.cwd()),
        "desk": desk,
    }
    ray_dir = root / settings.workspace.checkpoints_dir.relative_to(settings.root) / RAY_DIR
    failed = _fit(ray, desk, task, plan, ray_dir)
    noted = ray.get(desk.noted.remote())
    if noted:
        raise noted_error(noted)
    if failed:
        said = str(failed).strip().split("\n")
        raise ProcessLost(
            f"the cluster lost processes that train, or could not start them ({said[0]} "
            f"{said[-1]}); Ray's own logs say more. The same command goes on from the last save"
        ) from failed


def _fit(
    ray: Any, desk: Any, task: Mapping[str, Any], plan: WorkerPlan, ray_dir: Path
) -> Exception | None:
    """Run the job to its end, showing what it says; returns Ray's error, if it has one."""
    failures: list[Exception] = []
    watch = _Watch(ray, desk, plan)

    def fit() -> None:
        try:
            _make_trainer(task, plan, ray_dir).fit()
        # Whatever Ray has to say is told where the command was given.
        except Exception as error:
            failures.append(error)

    shutil.rmtree(ray_dir, ignore_errors=True)
    # Beside the main thread, which Ray would take the signals of.
    job = threading.Thread(target=fit, daemon=True)
    try:
        with held_signals() as request:
            job.start()
            while job.is_alive():
                job.join(SECONDS_BETWEEN_MESSAGES)
                _show_lines(ray, desk)
                watch.look(request.signal_number)
            _show_lines(ray, desk)
    finally:
        shutil.rmtree(ray_dir, ignore_errors=True)
    return failures[0] if failures else None


class _Watch:
    """Sees that processes which do not run, for lack of room, are neither silent nor for ever."""

    def __init__(self, ray: Any, desk: Any, plan: WorkerPlan) -> None:
        self.ray, self.desk, self.plan = ray, desk, plan
        self.asked_at = 0.0
        self.told_at = time.monotonic()

    def look(self, signal_number: int) -> None:
        """Pass a signal on to the processes; say what they wait for.

        Raises:
            RunStopped: a signal came, and there is no process that could heed it.
        """
        now = time.monotonic()
        if signal_number and not self.asked_at:
            self.ray.get(self.desk.ask_to_stop.remote(signal_number))
            self.asked_at = now
        silent_s = self.ray.get(self.desk.silent_seconds.remote())
        if self.asked_at and min(now - self.asked_at, silent_s) > SECONDS_TO_HEED:
            raise RunStopped(
                "stopped while no process was training; what was saved before is kept, and the "
                "same command goes on from there",
                128 + signal_number,
            )
        if not self.asked_at and min(now - self.told_at, silent_s) > SECONDS_BETWEEN_WARNINGS:
            self.told_at = now
            log.warning(
                "No process has answered for %.0f s. Needed: %s; free now: %s",
                silent_s,
                plan_in_words(self.plan),
                resources_in_words([self.ray.available_resources()]),
            )


def _make_trainer(task: Mapping[str, Any], plan: WorkerPlan, ray_dir: Path) -> Any:
    for name, value in RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        train_in_worker,
        train_loop_config=dict(task),
        # Figures that decide together lie on the host, weights on the GPU.
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if plan.on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=plan.count, use_gpu=plan.on_gpu,
            resources_per_worker={"CPU": plan.cores} | ({"GPU": 1} if plan.on_gpu else {}),
        ),
        run_config=RunConfig(
            name="job", storage_path=str(ray_dir),
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )  # fmt: skip


def _show_lines(ray: Any, desk: Any) -> None:
    for level, line in ray.get(desk.take.remote()):
        log.log(level, "%s", line)


# In each process that trains ----------------------------------------------------------------------


def train_in_worker(task: Mapping[str, Any]) -> None:
    """Train as one of the job's processes; what another try would meet again is noted, not raised.

    Raises:
        ProcessLost: another process has died; Ray starts all of them again.
    """
    import ray

    settings, desk = task["settings"], task["desk"]
    if Path(task["here"]).is_dir():
        os.chdir(task["here"])
    setup_logging(settings.quiet)
    log.handlers[:] = [LineHandler(desk.tell.remote)]
    try:
        # All ask before the first of them can delete anything: training begins with a barrier.
        anew = settings.model_copy(update={"fresh": is_old_there(task["old"])})
        with _listening(ray, desk):
            train_production(anew, task["origins"])
    except ProcessLost:
        # One that has met an error of its own has noted it before it left.
        if ray.get(desk.noted.remote()) is None:
            raise
    except Exception as error:
        ray.get(desk.note.remote(described_error(error)))
    finally:
        # The others, who may be waiting for this one, learn of it now. And what was told last has
        # arrived once this is answered.
        leave_processes()
        ray.get(desk.stop_asked.remote())


@contextmanager
def _listening(ray: Any, desk: Any) -> Iterator[None]:
    """Within, word that the job should stop reaches the training loop."""
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.wait(SECONDS_BETWEEN_MESSAGES):
            signal_number = ray.get(desk.stop_asked.remote())
            if signal_number:
                ask_to_stop(signal_number)
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        is_over.set()
        listener.join()
