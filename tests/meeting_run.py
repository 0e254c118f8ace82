"""Meet the other process of this job and die, start after start; for tests.

torchrun --nproc-per-node 2 --max-restarts N tests/meeting_run.py

In every start but the last, one process dies: after both have met, or (in the second of each three
starts) when they know of each other but not yet their addresses. Prints how many have met.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any, NoReturn

import torch

from einthoven import distributed

SECONDS_LATE = 0.3


def die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    raise AssertionError("still alive")


def main() -> None:
    distributed.MEETING_LIMIT = timedelta(seconds=20)
    start, n_restarts = (
        int(os.environ[f"TORCHELASTIC_{name}"]) for name in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    processes = distributed.processes_here()
    is_to_die = start < n_restarts and processes.rank == start % 2
    if processes.rank == start // 2 % 2:
        # Time enough for the other to read what dead processes have left.
        time.sleep(SECONDS_LATE)
    if is_to_die and start % 3 == 1:
        torch.distributed.init_process_group = die
    with distributed.joined_processes(processes, torch.device("cpu")):
        n_met = int(distributed.sum_over_processes(torch.ones(1), processes))
        print(f"start {start}: {n_met} have met", flush=True)
        distributed.wait_for_processes(processes)
        if is_to_die:
            die()


if __name__ == "__main__":
    main()
