"""Worker processes end with whoever started them, and leave interrupts to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from einthoven.errors import DataError
from einthoven.workers import in_processes

POSIX_ONLY = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")

SLOW_CALLS = """
import sys, time
from einthoven.workers import in_processes

def slow(number):
    time.sleep(0.1)
    return number

try:
    for number in in_processes(slow, [(number,) for number in range(600)], 2):
        print(number, flush=True)
except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
    sys.exit(130)
"""


def start_slow_calls() -> subprocess.Popen[str]:
    """A process group whose two workers are busy for half a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_CALLS], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit(), "a worker has answered"
    return process


def test_results_of_every_call_are_yielded() -> None:
    assert sorted(in_processes(abs, [(-number,) for number in range(9)], 2)) == list(range(9))
    assert list(in_processes(abs, [(-1,), (-2,)], 1)) == [1, 2]


def test_killed_worker_is_told_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"worker process was killed.*PREPARE_WORKERS"):
        list(in_processes(os._exit, [(1,), (1,)], 2))


@POSIX_ONLY
def test_interrupt_of_all_processes_is_answered_by_the_first_alone() -> None:
    process = start_slow_calls()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "stopped\n")


@POSIX_ONLY
def test_workers_end_when_their_parent_is_killed() -> None:
    process = start_slow_calls()
    process.kill()
    # Comes back once nobody holds its output open any more.
    process.communicate(timeout=15)
