"""Checks of where a run takes place: device, memory, disk, a port to serve on."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from einthoven.console import plural
from einthoven.preflight.estimates import (
    BYTES_PER_KNOWN_RECORD,
    BYTES_PER_WORKER,
    TrainingNeed,
    prepared_bytes,
    run_bytes,
)
from einthoven.preflight.opened import Check, Opened
from einthoven.residency import choose_residency, free_host_memory, residency_line
from einthoven.runs import batch_size_name, device_batch_size

BYTES_PER_GIB = 2**30
# Less than this is little, where nothing tells how much will be needed.
LITTLE_FREE_DISK_GIB = 5
# All public archives, unpacked, with the store made of them.
ALL_ARCHIVES_GIB = 50

LOOPBACK = "127.0.0.1"


# Device and memory -------------------------------------------------------------------------------


def check_device(opened: Opened) -> Iterator[Check]:
    """The device can be used, and is the one that is hoped for."""
    device = opened.device
    threads = plural(torch.get_num_threads(), "thread")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        memory = f"{told_gib(free)} of {told_gib(total)} free"
        yield Check("device", "passed", f"{device} {name}, {memory}, {threads}")
        return
    if opened.settings.device == "auto" and shutil.which("nvidia-smi"):
        yield Check(
            "device", "warning",
            f"an NVIDIA driver is here, and torch {torch.__version__} cannot use a GPU",
            "install a CUDA build of torch (https://pytorch.org/get-started), or a newer driver",
        )  # fmt: skip
    yield Check("device", "passed", f"{device}, {threads}")


def check_memory(opened: Opened) -> Iterator[Check]:
    """What training needs, by estimate, against what is free; see `einthoven.preflight.estimates`.

    On a CPU model, windows and tables share the host's memory; on a GPU the host holds the rest.
    """
    device, settings = opened.device, opened.settings
    need, batch_size = opened.need, device_batch_size(settings, device)
    of_batch, on_host = need.of_batch(batch_size), host_bytes(opened)
    needed, (room, place) = of_batch, free_on(device)
    windows, residency = _bytes_of_run_windows(opened), "streamed"
    if windows:
        size = (opened.n_run_windows, opened.store.target_samples)
        residency = choose_residency(*size, device, settings.residency)
        yield Check("memory", "passed", residency_line(*size, device, residency))
    # On a CPU the model's memory is the host's.
    on_cpu = device.type == "cpu"
    needed += (on_host if on_cpu else 0) + (windows if residency == "device" else 0)
    needed += windows if on_cpu and residency == "memory" else 0
    told = f"{settings.model_name}, {plural(batch_size, 'record')} a batch"
    found = f"training needs about {told_gib(needed)} ({told}), {told_gib(room)} free {place}"
    if needed <= room:
        yield Check("memory", "passed", found)
    else:
        advice = _memory_advice(need, room - (needed - of_batch), device)
        yield Check("memory", "warning", found, advice)
    if not on_cpu:
        yield from _beside_gpu(on_host + (windows if residency == "memory" else 0))


def host_bytes(opened: Opened) -> int:
    """What a process that trains takes before it has a model: this one has the same libraries."""
    taken: int = psutil.Process().memory_info().rss
    return taken + opened.n_known_records * BYTES_PER_KNOWN_RECORD


def free_on(device: torch.device) -> tuple[int, str]:
    """Bytes that a run can take on a device, and where they are.

    What this process has taken on the host is counted too: it will be free again.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], f"on {device}"
    room, place = free_host_memory()
    return room + psutil.Process().memory_info().rss, place


def _bytes_of_run_windows(opened: Opened) -> int:
    return opened.n_run_windows * opened.store.window_bytes if opened.has_store else 0


def _beside_gpu(needed: int) -> Iterator[Check]:
    room, place = free_on(torch.device("cpu"))
    found = f"beside the GPU about {told_gib(needed)}, {told_gib(room)} free {place}"
    if needed <= room:
        yield Check("memory", "passed", found)
    else:
        yield Check("memory", "warning", found, "--residency streamed, or more memory")


def _memory_advice(need: TrainingNeed, room: int, device: torch.device) -> str:
    fits = need.batch_that_fits(room)
    if fits < 2:
        return "use a smaller --model-name, a shorter --crop-samples or --residency streamed"
    flag = "--" + batch_size_name(device).lower().replace("_", "-")
    return f"{flag} {fits} should fit, with --grad-accum-steps for the rest; or --auto-batch"


def check_prepare_memory(opened: Opened) -> Iterator[Check]:
    """What the workers of `einthoven prepare` need, where it has still to run."""
    if opened.has_store:
        return
    room, place = free_host_memory()
    tables = opened.n_known_records * BYTES_PER_KNOWN_RECORD
    n_workers = opened.settings.prepare_workers or os.cpu_count() or 1
    needed = tables + n_workers * BYTES_PER_WORKER
    workers = plural(n_workers, "worker")
    found = f"`einthoven prepare` needs about {told_gib(needed)} ({workers}), {told_gib(room)} free"
    if needed <= room:
        yield Check("memory", "passed", f"{found} {place}")
    else:
        fits = max(1, (room - tables) // BYTES_PER_WORKER)
        yield Check("memory", "warning", f"{found} {place}", f"--prepare-workers {fits}")


def told_gib(n_bytes: float) -> str:
    """Bytes as a person reads them.

    >>> told_gib(3 * 2**30), told_gib(2**30 / 4)
    ('3.0 GiB', '0.25 GiB')
    """
    gib = n_bytes / BYTES_PER_GIB
    return f"{gib:,.1f} GiB" if gib >= 1 else f"{gib:.2f} GiB"


# Disk --------------------------------------------------------------------------------------------


def check_writing(opened: Opened) -> Iterator[Check]:
    """Every folder that a run writes to takes files; nothing stays behind."""
    workspace = opened.workspace
    folders = (
        opened.settings.root, workspace.mapping_path.parent, workspace.records_dir,
        workspace.checkpoints_dir, workspace.figures_dir,
    )  # fmt: skip
    for folder in folders:
        if why := _refusal(folder):
            yield Check(
                "writing", "failed", f"{folder} cannot be made or written to: {why}",
                "use another --root, or allow writing there",
            )  # fmt: skip
            return
    yield Check("writing", "passed", f"{opened.settings.root.resolve()} takes files")


def _refusal(folder: Path) -> str:
    try:
        # Making something is the one sure test: an administrator may write to any folder, but for
        # file systems that take no files.
        here = nearest_folder(folder)
        Path(tempfile.mkdtemp(prefix=".einthoven-check-", dir=here)).rmdir()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_disk(opened: Opened) -> Iterator[Check]:
    """Room for what `einthoven prepare` and the run have still to write."""
    free = shutil.disk_usage(nearest_folder(opened.settings.root)).free
    told, advice = f"{told_gib(free)} free", "make room, or use another --root"
    needed = run_bytes(opened.need)
    if opened.has_store or opened.n_known_records:
        n_new = 0 if opened.has_store else opened.n_known_records
        needed += prepared_bytes(n_new, opened.settings.target_samples)
        what = "a run" if opened.has_store else f"{plural(n_new, 'record')} and a run"
        found = f"{told}; {what} will take about {told_gib(needed)}"
        enough = free >= needed
        yield Check("disk", "passed" if enough else "failed", found, "" if enough else advice)
    elif free < LITTLE_FREE_DISK_GIB * BYTES_PER_GIB:
        per_record = prepared_bytes(1, opened.settings.target_samples) / 1000
        yield Check("disk", "warning", f"{told}; a record will take {per_record:.0f} kB", advice)
    else:
        # What has not been listed yet may be all there is; the demo needs next to nothing.
        little = free < ALL_ARCHIVES_GIB * BYTES_PER_GIB
        note = f"; {ALL_ARCHIVES_GIB} GB are recommended for all public archives" if little else ""
        yield Check("disk", "passed", told + note)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or where it is not there the lowest of those above it that is."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


# Port --------------------------------------------------------------------------------------------


def check_port(opened: Opened) -> Iterator[Check]:
    """The port is free, where somebody asks for one."""
    if opened.port is None:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        # As `einthoven serve` does: a port that was in use a moment ago may be had.
        if os.name == "posix":
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((LOOPBACK, opened.port))
        except OSError as error:
            why = error.strerror or str(error)
            yield Check(
                "port", "failed", f"{opened.port} cannot be used: {why}",
                "end what uses it, or choose another --port",
            )  # fmt: skip
            return
    yield Check("port", "passed", f"{opened.port} is free")
