"""Where the windows of a run are kept: on the GPU, in memory, or read from the store as needed.

The nearest place to the model that holds all of them is taken, from their size and from what memory
is free there, for this process: a container or a job may have less than the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil
import torch

from einthoven.console import log
from einthoven.errors import ConfigError
from einthoven.records import LEADS
from einthoven.store import Store

Residency = Literal["device", "memory", "streamed"]
ResidencyWish = Literal["auto", "device", "memory", "streamed"]

# Of what is free, this share may hold windows; the rest is for the model and for other programs.
SHARE_OF_FREE_MEMORY = 0.6
# The same where a user has asked for it by name.
SHARE_IF_WISHED = 0.9
BYTES_PER_SAMPLE = 2

# Free memory ------------------------------------------------------------------------------------

# Controller in /proc/self/cgroup, then under /sys/fs/cgroup: folder, limit, use, and what the
# counts of reclaimable pages in memory.stat begin with. Version 1, version 2.
CGROUP_VERSIONS = (
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ("", "", "memory.max", "memory.current", ""),
)


def free_host_memory(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes that this process can still take, and in whose bounds they are.

    A container, a SLURM job or a systemd unit may have less than the machine: the least room of the
    process's control groups counts. Processes of one ``torchrun`` share what is free.

    Args:
        root: of the file system; tests have their own.
    """
    room, place = psutil.virtual_memory().available, "on this machine"
    for in_group in _free_in_control_groups(root):
        if in_group < room:
            room, place = in_group, "within this container's memory limit"
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if n_processes > 1:
        place = f"{place} for each of {n_processes} processes"
    return room // n_processes, place


def _free_in_control_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller, mount, limit_name, use_name, prefix in CGROUP_VERSIONS:
            if controller not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / mount
            # A limit of any group above holds too. In a container the path may be the host's: then
            # the groups below the mount are not there, and its top is the container's own.
            folder = top / path.strip("/")
            for group in (folder, *folder.parents[: len(folder.parts) - len(top.parts)]):
                limit, use = _read_number(group / limit_name), _read_number(group / use_name)
                if limit is not None and use is not None:
                    yield max(limit - use + _reclaimable(group / "memory.stat", prefix), 0)


def _read_number(path: Path) -> int | None:
    """A control group's number; None where it is absent or ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(path: Path, prefix: str) -> int:
    """Bytes of files in memory, which the system gives up when it needs them."""
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return sum(int(counts.get(f"{prefix}{name}", 0)) for name in ("active_file", "inactive_file"))


# The choice -------------------------------------------------------------------------------------


def choose_residency(
    n_windows: int, n_samples: int, device: torch.device, wish: ResidencyWish = "auto"
) -> Residency:
    """Where windows of this number and length are best kept, from what memory is free.

    Args:
        wish: a place to be taken whether or not it is the best; on a CPU ``device`` is ``memory``.

    Raises:
        ConfigError: the windows do not fit where they are wished.
    """
    needed = _bytes_of_windows(n_windows, n_samples)
    if wish == "streamed":
        return "streamed"
    if wish == "auto":
        if device.type == "cuda" and needed < SHARE_OF_FREE_MEMORY * _free_on(device)[0]:
            return "device"
        return "memory" if needed < SHARE_OF_FREE_MEMORY * free_host_memory()[0] else "streamed"
    residency: Residency = "memory" if device.type == "cpu" else wish
    room, place = _free_at(residency, device)
    if needed >= SHARE_IF_WISHED * room:
        others = "auto, memory or streamed" if residency == "device" else "auto or streamed"
        raise ConfigError(
            f"RESIDENCY is {wish}, and windows of {_told_size(needed)} leave too little of the "
            f"{_told_size(room)} free {place}; use {others}"
        )
    return residency


def settle_residency(
    store: Store, n_windows: int, device: torch.device, wish: ResidencyWish = "auto"
) -> Residency:
    """Choose for all windows of a run, which are kept together, and say so.

    What reads some of a run's windows again (a prediction, a score) asks `choose_residency`.
    """
    residency = choose_residency(n_windows, store.target_samples, device, wish)
    log.info("%s", residency_line(n_windows, store.target_samples, device, residency))
    return residency


def residency_line(
    n_windows: int, n_samples: int, device: torch.device, residency: Residency
) -> str:
    """What a person is told: sizes, free memory, and where the windows are kept."""
    size = _told_size(_bytes_of_windows(n_windows, n_samples))
    room, place = _free_at(residency, device)
    kept = {
        "device": f"kept on {device}",
        "memory": "kept in memory",
        "streamed": "read from the store as they are needed",
    }[residency]
    return f"{size} of windows, {_told_size(room)} free {place}: {kept}"


def _bytes_of_windows(n_windows: int, n_samples: int) -> int:
    return n_windows * len(LEADS) * n_samples * BYTES_PER_SAMPLE


def _free_at(residency: Residency, device: torch.device) -> tuple[int, str]:
    # An Apple GPU shares the host's memory.
    on_gpu = residency == "device" and device.type == "cuda"
    return _free_on(device) if on_gpu else free_host_memory()


def _free_on(device: torch.device) -> tuple[int, str]:
    free, _ = torch.cuda.mem_get_info(device)
    return free, f"on {device}"


def _told_size(n_bytes: int) -> str:
    """Bytes in a unit that says something."""
    return f"{n_bytes / 2**30:,.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.1f} MiB"
