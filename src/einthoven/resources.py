"""Memory: how much a run has taken, and what to say when there is not enough."""

from __future__ import annotations

import ctypes
import sys

import psutil
import torch

MEBIBYTE = 2**20


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Most memory taken so far: ``peak_memory_mb`` of this process, and ``peak_gpu_memory_mb``."""
    peaks = {"peak_memory_mb": _peak_resident_bytes() / MEBIBYTE}
    if device.type == "cuda":
        peaks["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / MEBIBYTE
    return {name: round(value, 1) for name, value in peaks.items()}


def _peak_resident_bytes() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host.

    >>> is_out_of_memory(MemoryError())
    True
    >>> is_out_of_memory(RuntimeError("shape mismatch"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said or "out of memory" in said
    )


def release_memory(device: torch.device) -> None:
    """Give back what a failed step has left behind."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


# glibc's names for them, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let the C library keep what batches free, where it is glibc, and give back what came before.

    By default every large tensor is handed back to the system and its pages are zeroed again at
    the next step, which took a tenth of a step's time on two cores.
    """
    try:
        library = ctypes.CDLL(None)
        trim, mallopt = library.malloc_trim, library.mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
    mallopt(M_MMAP_THRESHOLD, 2**25)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
