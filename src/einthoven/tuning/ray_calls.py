"""Calls in processes of a Ray cluster, so many at a time, watched until the last one is over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einthoven.cluster.desk import LineHandler, NotedError, described_error, noted_error
from einthoven.cluster_training import SECONDS_BETWEEN_WARNINGS, resources_in_words
from einthoven.console import log, plural, setup_logging
from einthoven.errors import ConfigError, ProcessLost, RunStopped
from einthoven.interruption import held_signals
from einthoven.settings import Settings
from einthoven.tuning.devices import TrialDevice, refuse_other_device

SECONDS_BETWEEN_LINES = 0.5
SECONDS_UNTIL_NEXT_LOOK = 5.0
# Once nothing is left to do, for a process to write its last files; then it is no more waited for.
SECONDS_TO_LEAVE = 60.0

Probe = Callable[[Settings], TrialDevice]
Start = Callable[[int, str], Any]


@dataclass(frozen=True)
class Place:
    """What a process of the cluster has to know of the command, and of the others.

    Attributes:
        folder: in which the command was given.
        desk: of `open_desk`.
        device: what all of them train on.
        probe: says what this one trains on.
    """

    folder: str
    desk: Any
    device: TrialDevice
    probe: Probe


@dataclass(frozen=True)
class StoodAside:
    """In place of a result: the machine cannot train as the others do, and why."""

    why: str


# In the command that was given --------------------------------------------------------------------


class WatchedCalls:
    """Calls that run as tasks of a cluster, so many at a time.

    A machine that stands aside is one place fewer, and its call is another's.

    Args:
        desk: of `open_desk`.
        start: starts the call of a number, on the node of an id if one is given.
        is_over: whether what all calls are for is done, which any of them may do; without it each
            has to be done.
    """

    def __init__(
        self,
        ray: Any,
        desk: Any,
        start: Start,
        n_calls: int,
        n_at_once: int,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        self.ray, self.desk, self.start = ray, desk, start
        self.n_calls, self.n_at_once, self.is_over = n_calls, n_at_once, is_over
        self.waiting = list(range(n_calls))
        self.running: dict[Any, int] = {}
        self.found: dict[int, Any] = {}
        self.put_back: set[int] = set()
        self.cancelled: set[Any] = set()
        self.failed: Exception | None = None
        self.looked_at = self.told_at = time.monotonic()
        self.over_at: float | None = None
        self.patience_s = SECONDS_BETWEEN_WARNINGS

    def results(self) -> list[Any]:
        """What the calls return, in their order; None for one that was not needed.

        Raises:
            EinthovenError: the first that a call has met.
            ConfigError: all machines have stood aside.
            ProcessLost: processes of the cluster died again and again.
            RunStopped: Ctrl-C or SIGTERM came.
        """
        with held_signals() as request:
            self._start_more()
            while self.running:
                done, _ = self.ray.wait(list(self.running), timeout=SECONDS_BETWEEN_LINES)
                for level, line in self.ray.get(self.desk.take.remote()):
                    log.log(level, "%s", line)
                for task in done:
                    self._note_end(self.running.pop(task), outcome_of(self.ray, task))
                if self.failed or request.signal_number:
                    # Raises in a task what Ctrl-C would: it saves, and puts its trial back.
                    self._cancel(list(self.running))
                else:
                    self._start_more()
                    self._look_at_those_that_wait()
        if request.signal_number:
            raise RunStopped(
                "stopped, and all runs saved; the same command goes on from here",
                exit_code=128 + request.signal_number,
            )
        if self.failed:
            raise self.failed
        return [self.found.get(number) for number in range(self.n_calls)]

    def _start_more(self) -> None:
        while self.waiting and len(self.running) < self.n_at_once:
            number, node = self.waiting.pop(0), ""
            if number in self.put_back:
                # Ray would as soon give it to the machine that has stood aside.
                node = next(iter(self._begun().values()), "")
            self.running[self.start(number, node)] = number

    def _note_end(self, number: int, outcome: Any) -> None:
        if isinstance(outcome, StoodAside):
            self._give_to_another(number, outcome)
        elif isinstance(outcome, Exception):
            self.failed = self.failed or outcome
        else:
            self.found[number] = outcome

    def _give_to_another(self, number: int, aside: StoodAside) -> None:
        self.n_at_once -= 1
        if self.n_at_once == 0:
            self.failed = self.failed or ConfigError(aside.why)
            return
        log.warning("A machine is left out: %s", aside.why)
        if self.is_over is None:
            self.waiting.append(number)
            self.put_back.add(number)

    def _look_at_those_that_wait(self) -> None:
        now = time.monotonic()
        if not self.running or now - self.looked_at < SECONDS_UNTIL_NEXT_LOOK:
            return
        self.looked_at, begun = now, self._begun()
        pending = [task for task, number in self.running.items() if number not in begun]
        if self.is_over and self.found and self.is_over():
            self.over_at = self.over_at or now
            is_late = now - self.over_at >= SECONDS_TO_LEAVE
            self._cancel(list(self.running) if is_late else pending)
        elif pending and now - self.told_at > self.patience_s:
            # Where there is little room, most of a search may pass so.
            self.told_at, self.patience_s = now, self.patience_s * 2
            free = resources_in_words([self.ray.available_resources()])
            log.warning(
                "Of %s %d wait for room on the cluster; free now: %s",
                plural(len(self.running), "trial") + " at once", len(pending), free,
            )  # fmt: skip

    def _begun(self) -> dict[int, str]:
        begun: dict[int, str] = self.ray.get(self.desk.begun.remote())
        return begun

    def _cancel(self, tasks: list[Any]) -> None:
        """Once each: a second time would cut off the save that the first has asked for."""
        for task in set(tasks) - self.cancelled:
            self.cancelled.add(task)
            self.ray.cancel(task)


def outcome_of(ray: Any, task: Any) -> Any:
    """What a task that has ended returns; an exception where it was an error that ended it."""
    try:
        result = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        said = str(error).strip().split("\n")[0]
        return ProcessLost(
            f"processes of the cluster died again and again ({said}); the same command goes on"
        )
    if not isinstance(result, NotedError) or result.kind is RunStopped:
        return result
    return noted_error(result)


# In each process of the cluster -------------------------------------------------------------------


def call_in_task(
    place: Place, number: int, function: Callable[..., Any], settings: Settings, *others: Any
) -> Any | NotedError | StoodAside:
    """Call a function as one process of the cluster; an error is returned, as plain values."""
    import ray

    if Path(place.folder).is_dir():
        os.chdir(place.folder)
    setup_logging(settings.quiet)
    log.handlers[:] = [LineHandler(place.desk.tell.remote)]
    try:
        why = why_not_here(place, settings)
        if why:
            return StoodAside(why)
        node = ray.get_runtime_context().get_node_id()
        ray.get(place.desk.begin.remote(number, node))
        return function(settings, *others, place.device)
    except Exception as error:
        return described_error(error)
    finally:
        # What was told last has arrived once this is answered.
        ray.get(place.desk.silent_seconds.remote())


def why_not_here(place: Place, settings: Settings) -> str:
    """Why this machine cannot train as the others do; empty where it can."""
    try:
        refuse_other_device(place.device, place.probe(settings))
    except ConfigError as error:
        return str(error)
    return ""
