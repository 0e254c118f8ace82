"""Several processes that train one model: what they say to each other.

``torchrun`` starts them and says by environment variables which is which; without it there is one
process, and every function here is free. Gloo carries what lies on the host, NCCL what lies on a
CUDA GPU.
"""

from __future__ import annotations

import gc
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from einthoven.errors import (
    CheckpointError,
    ConfigError,
    EinthovenError,
    ProcessLost,
    RunStopped,
)
from einthoven.interruption import ignore_termination

if TYPE_CHECKING:
    from torch.distributed import distributed_c10d

# From the first process of a start to the last: they read the same store before, and a machine
# that reads it for the first time is minutes behind one that has it in memory.
MEETING_LIMIT = timedelta(minutes=10)
# Gloo waits this many times as long as it is told to for another process to call.
GLOO_PATIENCE = 5
# For an answer while they train. One that dies is noticed at once, so this is for a machine that
# vanishes without a word, and must not end what is only slow: a process that validates its share,
# or the first one while it hands the model to a tracker.
ANSWER_LIMIT = timedelta(hours=1)
SECONDS_BETWEEN_ANSWERS = 0.02


@dataclass(frozen=True)
class Processes:
    """The processes of this job, and which of them this is.

    Attributes:
        rank: of this process, from 0.
        count: of all processes.
        local_rank: among those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0


ALONE = Processes()


def processes_here() -> Processes:
    """What ``torchrun`` says of this process; one alone where it says nothing."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [os.environ.get(name, "") for name in names]
    if not given[0] or not given[1]:
        return ALONE
    try:
        rank, count, local_rank = (int(value or "0") for value in given)
    except ValueError:
        said = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        raise ConfigError(
            f"{said}: not whole numbers; start several processes with torchrun"
        ) from None
    return Processes(rank, count, local_rank)


def own_device(device: torch.device, processes: Processes) -> torch.device:
    """This process's own GPU, where several share a machine.

    Raises:
        ConfigError: there are more processes here than GPUs.
    """
    if processes.count == 1 or device.type != "cuda":
        return device
    n_devices = torch.cuda.device_count()
    if device.index is not None or processes.local_rank >= n_devices:
        raise ConfigError(
            f"each process needs a GPU of its own, and process {processes.local_rank} of this "
            f"machine has none (DEVICE is {device}, GPUs: {n_devices}); use DEVICE=cuda, and start "
            "as many processes as there are GPUs"
        )
    return torch.device("cuda", processes.local_rank)


@contextmanager
def joined_processes(processes: Processes, device: torch.device) -> Iterator[None]:
    """Join this job's other processes, and take leave of them at the end.

    Where somebody else, such as Ray, has made them join already, they stay so.

    Raises:
        ProcessLost: one of them has died, or does not come.
    """
    if processes.count == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    is_joined = distributed.is_initialized()
    try:
        if not is_joined:
            meet_processes(processes, device)
        yield
        # One that goes while another still writes can abort both.
        wait_for_processes(processes)
    except EinthovenError as error:
        if isinstance(error, RunStopped):
            wait_for_processes(processes)
        # What one process alone has met, it alone can tell.
        error.is_of_one_process = not isinstance(error, RunStopped | ConfigError | CheckpointError)
        raise
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        # torchrun is about to end this process; it has to say why first.
        ignore_termination()
        raise ProcessLost(
            f"process {processes.rank} of {processes.count} has lost another one of this job, "
            "which has died or cannot be reached; if it said why, that stands above. "
            "The same command goes on from the last save"
        ) from error
    finally:
        if not is_joined:
            leave_processes()


def meet_processes(processes: Processes, device: torch.device) -> None:
    """Let the processes of this start find each other, and none of an earlier start.

    Raises:
        ConfigError: nothing says where.
        ProcessLost: they have not within about `MEETING_LIMIT`.
    """
    # Not at the top: PyTorch can be built without them, and one process alone needs none.
    from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    absent = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent:
        raise ConfigError(
            f"WORLD_SIZE says that {processes.count} processes train, and nothing says where they "
            f"meet ({', '.join(absent)} unset); start them with torchrun, or unset WORLD_SIZE"
        )
    try:
        store, _, _ = next(rendezvous("env://", timeout=MEETING_LIMIT))
        store = PrefixStore("einthoven", store)
        name = name_of_start(store, processes)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore(name, store), rank=processes.rank,
            world_size=processes.count, timeout=MEETING_LIMIT / GLOO_PATIENCE,
        )  # fmt: skip
    except (RuntimeError, TimeoutError) as error:
        # torchrun may be about to end this process; it has to say why first.
        ignore_termination()
        reason, _, _ = str(error).partition("\n")
        raise ProcessLost(
            f"process {processes.rank} of {processes.count} has not met the others of this job "
            f"({reason}). If one of them has died, that stands above; "
            "otherwise see that the machines reach each other (GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME name the network), and give the same command again"
        ) from error
    _set_pg_timeout(ANSWER_LIMIT)


def name_of_start(store: distributed_c10d.Store, processes: Processes) -> str:
    """A name that the processes of this start agree on, and that no other start has.

    When torchrun starts processes again, its store still holds the addresses of the dead ones, and
    who reads these before they are overwritten waits in vain. The number of the restart would not
    do as a name: it can differ between machines, or stay as it was (PyTorch issue 135712). So each
    process asks under a word of its own, and the first one answers; what a dead process has asked
    is answered too, and read by nobody.

    Raises:
        TimeoutError: on the first process, where others do not come.
        RuntimeError: on the others, where the first does not answer.
    """
    word = secrets.token_hex(8)
    if not processes.is_first:
        store.set(f"asked by {processes.rank}", word)
        name = bytes(store.get(f"answer to {word}")).decode()
        store.set(f"{name} is known to {processes.rank}", "")
        return name
    until = time.monotonic() + MEETING_LIMIT.total_seconds()
    waited_for = set(range(1, processes.count))
    while waited_for:
        for rank in waited_for:
            if store.check([f"asked by {rank}"]):
                store.set(f"answer to {bytes(store.get(f'asked by {rank}')).decode()}", word)
        waited_for = {
            rank for rank in waited_for if not store.check([f"{word} is known to {rank}"])
        }
        if waited_for and time.monotonic() > until:
            raise TimeoutError(f"these have not come: {', '.join(map(str, sorted(waited_for)))}")
        time.sleep(SECONDS_BETWEEN_ANSWERS)
    return word


def leave_processes() -> None:
    """Take leave of the other processes, wherever they are; one that waits for this one hears."""
    if distributed.is_initialized():
        # What still holds the group when Python ends would abort the process.
        gc.collect()
        distributed.destroy_process_group()


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone."""
    said = str(error).lower()
    words = ("connection closed", "connection reset", "connection refused", "timed out", "peer")
    return isinstance(error, distributed.DistError) or any(word in said for word in words)


def share_of(records: np.ndarray, processes: Processes) -> np.ndarray:
    """The records of a batch that this process computes.

    >>> share_of(np.arange(5), Processes(rank=1, count=2))
    array([1, 3])
    """
    return records[processes.rank :: processes.count]


def parallel_model(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The model as its processes train it together; itself where there is one process."""
    if processes.count == 1:
        return model
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids)


def sum_over_processes(values: torch.Tensor, processes: Processes) -> torch.Tensor:
    """The sum of a tensor over all processes, on each of them."""
    if processes.count > 1:
        distributed.all_reduce(values)
    return values


def largest_of_processes(value: int, processes: Processes) -> int:
    """The largest of a number over all processes, so that they decide alike."""
    if processes.count == 1:
        return value
    held = torch.tensor([value])
    distributed.all_reduce(held, distributed.ReduceOp.MAX)
    return int(held)


def gather_shares(rows: np.ndarray, n_rows: int, processes: Processes) -> np.ndarray:
    """Put together the rows of which each process has its `share_of`.

    Args:
        rows: ``(share, C)`` of this process.
        n_rows: of all processes together.

    Returns:
        ``(n_rows, C)``, the same on every process.
    """
    if processes.count == 1:
        return rows
    parts: list[np.ndarray | None] = [None] * processes.count
    distributed.all_gather_object(parts, rows)
    whole = np.empty((n_rows, rows.shape[1]), rows.dtype)
    for rank, part in enumerate(parts):
        whole[rank :: processes.count] = part
    return whole


def share_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the first one's batch statistics; each had made its own."""
    if processes.count > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def wait_for_processes(processes: Processes) -> None:
    """Wait until every process has come this far."""
    largest_of_processes(0, processes)
