"""A search by the machines of a Ray cluster: each of its processes works on the one shared study.

Ray finds the machines, starts a process again where one was killed, and gives each its GPU. What to
try next is decided by the study alone, as it is without Ray: Ray Tune's own scheduler would be a
second searcher, with notes of its own that know nothing of a process outside the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einthoven.cluster.connection import connected_ray
from einthoven.cluster.desk import NotedError, described_error, noted_error, open_desk
from einthoven.cluster_training import (
    SECONDS_BETWEEN_WARNINGS,
    WorkerPlan,
    count_room,
    plan_workers,
    resources_in_words,
)
from einthoven.console import log, plural
from einthoven.errors import ConfigError, ProcessLost
from einthoven.settings import Settings
from einthoven.tuning.devices import (
    TrialDevice,
    common_device,
    device_here,
    device_in_words,
)
from einthoven.tuning.ray_calls import (
    SECONDS_BETWEEN_LINES,
    Place,
    Probe,
    WatchedCalls,
    call_in_task,
)
from einthoven.tuning.space import Space
from einthoven.tuning.storage import open_storage, storage_errors, storage_place
from einthoven.tuning.study import Search, join_study
from einthoven.tuning.working import search_facts, work_on

# Times that a process is started again after it was killed; its trial is gone on with.
MAX_WORKER_RESTARTS = 20
# Once one machine has said what it trains on, others may be busy: their processes are asked anyway.
SECONDS_FOR_OTHERS = 30.0


@dataclass(frozen=True)
class Crew:
    """The processes of a Ray cluster that are to work on a search.

    Attributes:
        ray: the module, connected.
        plan: how many processes, and what each is given.
        n_machines: of the cluster.
        device: what all of them train on.
        probe: says in a process what it trains on.
    """

    ray: Any
    plan: WorkerPlan
    n_machines: int
    device: TrialDevice
    probe: Probe = device_here

    def search(self, search: Search, origins: Mapping[str, str]) -> None:
        """Work on the search until it has all its trials.

        Raises:
            ConfigError: a process cannot work with these settings.
            ProcessLost: processes of the cluster died again and again.
            RunStopped: Ctrl-C or SIGTERM came; the trials can be gone on with.
        """
        log.info(
            "Searching with %s at once on a Ray cluster of %s, each on %s",
            plural(self.plan.count, "trial"),
            plural(self.n_machines, "machine"),
            device_in_words(self.device),
        )
        call = (search.settings, dict(search.space), dict(origins))
        self.call(search_in_task, [call] * self.plan.count, lambda: has_all_trials(search))

    def call(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        is_over: Callable[[], bool] | None = None,
    ) -> list[Any]:
        """The results of a function that is called in these processes, each at one call a time.

        Args:
            function: takes settings, plain values, and the device of all trials.
            calls: its arguments, without the last.
            is_over: whether what all calls are for is done; without it each has to be done.

        Returns:
            A `NotedError` in place of the result where a process alone was told to stop.

        Raises:
            EinthovenError: as `WatchedCalls.results`.
        """
        desk = open_desk(self.ray)
        place = Place(str(Path.cwd()), desk, self.device, self.probe)
        worker = self.ray.remote(max_retries=MAX_WORKER_RESTARTS, **resources_of(self.plan))(
            call_in_task
        )

        def start(number: int, node: str) -> Any:
            settings, *others = calls[number]
            there = worker.options(scheduling_strategy=node_strategy(node)) if node else worker
            return there.remote(place, number, function, with_whole_root(settings), *others)

        watched = WatchedCalls(self.ray, desk, start, len(calls), self.plan.count, is_over)
        return watched.results()


def node_strategy(node: str, *, soft: bool = True) -> Any:
    """Has Ray start a task on a node; ``soft``: elsewhere, if that node has died."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=soft)


def with_whole_root(settings: Settings) -> Settings:
    """The settings for a process that may have been started in another folder."""
    return settings.model_copy(update={"root": settings.root.absolute()})


@contextmanager
def gathered_crew(settings: Settings, probe: Probe = device_here) -> Iterator[Crew]:
    """The processes that a cluster can give a search, and what its machines train on.

    The machine of the command need not have what they have: it trains nothing.

    Args:
        probe: called in a process of the cluster.

    Raises:
        ConfigError: Ray cannot be used, no machine fits, or the machines train differently.
        ProcessLost: every machine that was asked has died.
    """
    with connected_ray(settings.ray_address) as ray:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        machines = [node["Resources"] for node in nodes]
        plan = plan_search_workers(settings, machines)
        refuse_without_room(plan, machines)
        if settings.device == "cpu":
            device = probe(settings)
        else:
            device = ask_machines(ray, settings, plan, nodes, probe)
        yield Crew(ray, plan, len(nodes), device, probe)


def resources_of(plan: WorkerPlan) -> dict[str, int]:
    """What a process of the plan asks of Ray."""
    return {"num_cpus": plan.cores, "num_gpus": int(plan.on_gpu)}


# What the machines train on ----------------------------------------------------------------------


def ask_machines(
    ray: Any,
    settings: Settings,
    plan: WorkerPlan,
    nodes: Sequence[Mapping[str, Any]],
    probe: Probe,
) -> TrialDevice:
    """What trials train on, as each machine says that can have one, in a task like a trial's.

    Only a task that has a GPU sees it, so a machine whose GPUs are all taken answers later.

    Raises:
        ConfigError: the machines differ, or cannot use what Ray promises.
        ProcessLost: none answers, for all have died.
    """
    asked = {}
    for node in nodes:
        if count_room(plan, [node["Resources"]]):
            there = node_strategy(node["NodeID"], soft=False)
            ask = ray.remote(**resources_of(plan), scheduling_strategy=there)(probe_in_task)
            asked[ask.remote(settings, probe)] = node["NodeManagerHostname"]
    found = []
    for task, answer in collect_answers(ray, list(asked)).items():
        if isinstance(answer, NotedError):
            raise noted_error(answer)
        refuse_gpu_without_use(plan, asked[task], answer)
        found.append(answer)
    return common_device(found)


def collect_answers(ray: Any, asked: list[Any]) -> dict[Any, TrialDevice | NotedError]:
    """The answers of tasks: at least one, and the others' that come soon after it."""
    answers: dict[Any, TrialDevice | NotedError] = {}
    waiting, died = asked, ""
    told_at = answered_at = time.monotonic()
    try:
        while waiting and (not answers or time.monotonic() - answered_at < SECONDS_FOR_OTHERS):
            done, waiting = ray.wait(waiting, timeout=SECONDS_BETWEEN_LINES)
            for task in done:
                try:
                    answers[task] = ray.get(task)
                except ray.exceptions.RayError as error:
                    died = str(error).strip().split("\n")[0]
            if not answers:
                answered_at = time.monotonic()
            if not answers and answered_at - told_at > SECONDS_BETWEEN_WARNINGS:
                told_at = answered_at
                free = resources_in_words([ray.available_resources()])
                log.warning("No machine is free to say what it trains on; free now: %s", free)
    finally:
        for task in waiting:
            ray.cancel(task)
    if not answers:
        raise ProcessLost(f"no machine of the cluster could say what it trains on ({died})")
    return answers


def probe_in_task(settings: Settings, probe: Probe) -> TrialDevice | NotedError:
    """What a process of the cluster trains on; what a person can mend is returned."""
    try:
        return probe(settings)
    except Exception as error:
        return described_error(error)


def refuse_gpu_without_use(plan: WorkerPlan, host: str, device: TrialDevice) -> None:
    """Ray counts GPUs by itself, or as it is told; torch has to be able to use them.

    Raises:
        ConfigError: a trial would be given a GPU, and train on the CPU.
    """
    if plan.on_gpu and device.kind != "cuda":
        raise ConfigError(
            f"Ray gives a trial on machine {host} a GPU, and torch there can use none; install "
            "a CUDA build of torch and a driver that fits, or use DEVICE=cpu"
        )


def has_all_trials(search: Search) -> bool:
    """Whether nothing is left to do; not known where the storage does not answer just now."""
    try:
        is_at_work = bool(search.trials("WAITING", "RUNNING"))
        return not is_at_work and len(search.counted()) >= search.settings.trials
    except storage_errors():
        return False


# How many processes ------------------------------------------------------------------------------


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
    # The machine of the command is often told to keep its cores for itself.
    n_at_work = sum(machine.get("CPU", 0) >= 1 for machine in machines)
    each = settings.model_copy(update={"train_workers": n_at_work})
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


# In each process of the cluster -------------------------------------------------------------------


def search_in_task(
    settings: Settings, space: Space, origins: Mapping[str, str], device: TrialDevice
) -> None:
    """Work on a search that was begun where the command was given."""
    facts = search_facts(settings, space, device)
    with open_storage(settings, may_begin=False) as storage:
        work_on(join_study(settings, space, facts, storage, may_begin=False), origins)
