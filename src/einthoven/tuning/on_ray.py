"""A search by the machines of a Ray cluster: each of its processes works on the one shared study.

Ray finds the machines, starts a process again where one was killed, and gives each its GPU. What to
try next is decided by the study alone, as it is without Ray: Ray Tune's own scheduler would be a
second searcher, with notes of its own that know nothing of a process outside the cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven.cluster.connection import connected_ray
from einthoven.cluster.desk import (
    LineHandler,
    NotedError,
    described_error,
    noted_error,
    open_desk,
)
from einthoven.cluster_training import (
    WorkerPlan,
    count_room,
    plan_workers,
    resources_in_words,
)
from einthoven.console import log, plural, setup_logging
from einthoven.errors import ConfigError, ProcessLost, RunStopped
from einthoven.inference import choose_device
from einthoven.interruption import held_signals
from einthoven.settings import Settings
from einthoven.tuning.storage import open_storage, storage_place
from einthoven.tuning.study import Search, join_study
from einthoven.tuning.working import search_facts, work_on

# Times that a process is started again after it was killed; its trial is gone on with.
MAX_WORKER_RESTARTS = 20
SECONDS_BETWEEN_LINES = 0.5


def search_on_ray(search: Search, origins: Mapping[str, str]) -> None:
    """Let processes of a Ray cluster work on the search until it has all its trials.

    Raises:
        ConfigError: Ray cannot be used, or the machines cannot share the study where it lies.
        ProcessLost: processes of the cluster died again and again.
        RunStopped: Ctrl-C or SIGTERM came; the trials can be gone on with.
    """
    settings = search.settings
    with connected_ray(settings.ray_address) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        refuse_sqlite_between_machines(settings, len(machines))
        plan = plan_search_workers(settings, machines)
        refuse_without_room(plan, machines)
        refuse_without_gpu_here(plan, choose_device(settings.device).type)
        log.info(
            "Searching with %d trials at once on a Ray cluster of %s",
            plan.count,
            plural(len(machines), "machine"),
        )
        desk = open_desk(ray)
        task = {
            "settings": settings.model_copy(update={"root": settings.root.absolute()}),
            "space": dict(search.space),
            "origins": dict(origins),
            "here": str(Path.cwd()),
            "desk": desk,
        }
        given = {"num_cpus": plan.cores, "num_gpus": int(plan.on_gpu)}
        worker = ray.remote(max_retries=MAX_WORKER_RESTARTS, **given)(search_in_task)
        watch_workers(ray, desk, [worker.remote(task) for _ in range(plan.count)])


def refuse_sqlite_between_machines(settings: Settings, n_machines: int) -> None:
    """SQLite's locks do not hold between machines.

    Raises:
        ConfigError: says what to share the study through.
    """
    if n_machines > 1 and storage_place(settings).startswith("sqlite"):
        raise ConfigError(
            f"the cluster has {n_machines} machines, and a study in SQLite is for one: set "
            "STUDY_STORAGE to the URL of a PostgreSQL database, or to a .journal file on a disk "
            "that all of them see"
        )


def plan_search_workers(settings: Settings, machines: Sequence[Mapping[str, float]]) -> WorkerPlan:
    """As many trials at once as ``TRAIN_WORKERS`` says: else one for each GPU, or machine.

    >>> plan_search_workers(Settings(device="cpu"), [{"CPU": 8}, {"CPU": 8}])
    WorkerPlan(count=2, on_gpu=False, cores=8)
    """
    plan = plan_workers(settings, machines)
    if plan.on_gpu or settings.train_workers:
        return plan
    each = settings.model_copy(update={"train_workers": len(machines)})
    return plan_workers(each, machines)


def refuse_without_room(plan: WorkerPlan, machines: Sequence[Mapping[str, float]]) -> None:
    """Tasks that no machine can run would wait for ever, and say nothing.

    Raises:
        ConfigError: not one of the processes fits.
    """
    room = count_room(plan, machines)
    if room == 0:
        raise ConfigError(
            f"a trial needs {'a GPU and a core' if plan.on_gpu else plural(plan.cores, 'core')}, "
            f"and no machine that Ray has can give it ({resources_in_words(machines)}); use "
            "DEVICE=cpu, or a cluster whose machines have what is needed (RAY_ADDRESS)"
        )
    if room < plan.count:
        log.warning(
            "Of %d trials at once (TRAIN_WORKERS) %d fit on what Ray has (%s); the others wait",
            plan.count,
            room,
            resources_in_words(machines),
        )


def refuse_without_gpu_here(plan: WorkerPlan, device: str) -> None:
    """What is varied and what a score depends on are settled here, as on a machine of a trial.

    Raises:
        ConfigError: trials would have a GPU, and this machine has none.
    """
    if plan.on_gpu and device != "cuda":
        raise ConfigError(
            "the cluster has GPUs for the trials, and this machine has none, so that a search "
            "begun here would be another one than theirs; give the command on a machine of the "
            "cluster with a GPU (RAY_ADDRESS=auto), or use DEVICE=cpu"
        )


def watch_workers(ray: Any, desk: Any, running: list[Any]) -> None:
    """Show what the processes say until they are done; pass on a signal, and the first error."""
    failed: Exception | None = None
    is_ending = False
    with held_signals() as request:
        while running:
            done, running = ray.wait(running, timeout=SECONDS_BETWEEN_LINES)
            for level, line in ray.get(desk.take.remote()):
                log.log(level, "%s", line)
            failed = failed or next(filter(None, (error_of(ray, task) for task in done)), None)
            if (failed or request.signal_number) and not is_ending:
                # Raises in the task what Ctrl-C would: it saves, and puts its trial back.
                is_ending = True
                for task in running:
                    ray.cancel(task)
    if request.signal_number:
        raise RunStopped(
            "stopped, and all trials saved; the same command goes on from here",
            exit_code=128 + request.signal_number,
        )
    if failed:
        raise failed


def error_of(ray: Any, task: Any) -> Exception | None:
    """What went wrong in a task that has ended, as the error to raise."""
    try:
        noted: NotedError | None = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        said = str(error).strip().split("\n")[0]
        return ProcessLost(
            f"processes of the cluster died again and again ({said}); the same command goes on"
        )
    return None if noted is None or noted.kind is RunStopped else noted_error(noted)


def search_in_task(task: Mapping[str, Any]) -> NotedError | None:
    """Work on the search as one process of the cluster; what a person can mend is returned."""
    settings: Settings = task["settings"]
    if Path(task["here"]).is_dir():
        os.chdir(task["here"])
    setup_logging(settings.quiet)
    log.handlers[:] = [LineHandler(task["desk"].tell.remote)]
    try:
        facts = search_facts(settings, task["space"])
        with open_storage(settings) as storage:
            work_on(join_study(settings, task["space"], facts, storage), task["origins"])
    except Exception as error:
        return described_error(error)
    return None
