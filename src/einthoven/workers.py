"""Worker processes: started without noise, ended with whoever started them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal as os_signals
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from einthoven.errors import DataError

# A worker without work ends after this time; joblib would keep its memory for five minutes.
IDLE_WORKER_S = 10
SECONDS_BETWEEN_LOOKS = 1.0


def in_processes(
    function: Callable[..., int], calls: Sequence[tuple[Any, ...]], n_workers: int
) -> Generator[int, None, None]:
    """Call a function in worker processes; one call, or one worker, needs no process of its own.

    Closing the iterator, or an interrupt, ends the workers.

    Args:
        function: of a module's top level, taking and returning plain values.
        calls: its arguments.
        n_workers: processes; 0 is one per core.

    Yields:
        Results as they come.

    Raises:
        DataError: a worker process was killed, memory ran out, or a file could not be written.
    """
    # A quarter of a second, which a run that finds nothing changed need not wait for.
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    n_jobs = min(n_workers or joblib.cpu_count(), len(calls))
    try:
        with told_failures():
            if n_jobs == 1:
                yield from (function(*call) for call in calls)
                return
            yield from _in_joblib_processes(function, calls, n_jobs)
    except TerminatedWorkerError as error:
        raise DataError(
            "a worker process was killed, most often because memory ran out; use fewer "
            "(PREPARE_WORKERS) and run `einthoven prepare` again: finished chunks are kept"
        ) from error


@contextlib.contextmanager
def told_failures(where: str = "") -> Iterator[None]:
    """Turn what stops a worker, no memory or no disk, into what a person can do about it.

    Args:
        where: what the message begins with.

    Raises:
        DataError: memory ran out, or a file could not be written.
    """
    try:
        yield
    except MemoryError as error:
        raise DataError(
            f"{where}memory ran out; use fewer PREPARE_WORKERS and run `einthoven prepare` again: "
            "finished chunks are kept"
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        what = "the disk is full" if full else f"the store cannot be written ({error})"
        raise DataError(
            f"{where}{what}; make room and run `einthoven prepare` again: finished chunks are kept"
        ) from error


def _in_joblib_processes(
    function: Callable[..., int], calls: Sequence[tuple[Any, ...]], n_jobs: int
) -> Iterator[int]:
    import joblib

    options: dict[str, Any] = {
        "idle_worker_timeout": IDLE_WORKER_S,
        "initializer": prepare_worker,
        "initargs": (os.getpid(),),
    }
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1, **options):
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        with _interrupts_ignored():  # joblib starts its processes here
            results = parallel(joblib.delayed(function)(*call) for call in calls)
        try:
            for result in results:  # noqa: UP028 - `yield from` would close it before the below
                yield result
        finally:
            # joblib warns that tasks are cancelled, which is what closing asks for.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                results.close()


# In a worker -----------------------------------------------------------------------------------


def prepare_worker(parent: int) -> None:
    """Leave interrupts to the process that started this one, and end when that one has ended.

    A terminal sends Ctrl-C to every process; a killed parent tells its workers nothing, and they
    would keep its output open.
    """
    os_signals.signal(os_signals.SIGINT, os_signals.SIG_IGN)
    # Windows gives no sign of a parent that has ended; there the idle time ends a worker.
    if os.name == "posix":
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore interrupts from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = os_signals.signal(os_signals.SIGINT, os_signals.SIG_IGN)
    try:
        yield
    finally:
        os_signals.signal(os_signals.SIGINT, before or os_signals.default_int_handler)
