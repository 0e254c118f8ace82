"""The service's side of the processes that read files: started early, timed, killed, replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.console import log
from einthoven.errors import RecordError
from einthoven.serving.limits import RequestRefused, ServingLimits, overloaded
from einthoven.serving.messages import MESSAGE_HEAD, pack_message

# Importing the parsers takes a second or two, on a busy machine more.
SECONDS_TO_START = 60.0
SECONDS_BETWEEN_STARTS = 2.0
LONGEST_READER_HEADER = 2**20

_START_READER = "from einthoven.serving.reader_process import run_reader; run_reader()"


@dataclass(frozen=True)
class ReadRequest:
    """What a reader is asked to read.

    Attributes:
        kind: ``predict`` or ``explain``; decides what a JSON body may hold.
        path: of a file; None for a JSON body.
        json_body: of the request.
        fs, units, leads: what the client says of a file.
    """

    kind: str
    path: Path | None = None
    json_body: bytes = b""
    fs: float | None = None
    units: str | None = None
    leads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ReadSignal:
    """What came of it; as `Recording`, with what else a JSON body held."""

    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]
    format: str
    remarks: tuple[str, ...]
    options: dict[str, Any]


class ReaderPool:
    """Processes that read one file at a time each."""

    def __init__(self, limits: ServingLimits) -> None:
        self.limits = limits
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        self._all: set[asyncio.subprocess.Process] = set()
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes, and wait until the first can read.

        Raises:
            RuntimeError: it cannot.
        """
        first = await self._new_process()
        if first is None:
            raise RuntimeError(
                "a process that reads files could not be started; "
                "`python -c 'import einthoven.serving.reader_process'` shows why"
            )
        self._idle.put_nowait(first)
        for _ in range(1, self.limits.n_readers):
            self._begin_start()

    async def stop(self) -> None:
        """End all processes."""
        starting = list(self._starting)
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in set(self._all)))

    async def read(self, request: ReadRequest) -> ReadSignal:
        """Read one recording.

        Raises:
            RecordError: it cannot be read, with the reason.
            RequestRefused: reading it takes too long, or nobody is free to read it.
        """
        process = await self._next_idle()
        is_fine = False
        try:
            async with asyncio.timeout(self.limits.read_s):
                facts, samples = await self._ask(process, request)
            is_fine = True
        except TimeoutError:
            raise RequestRefused(
                422,
                f"reading this took longer than {self.limits.read_s:g} s and was given up; is the "
                "file damaged, or very long?",
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise RecordError(
                "reading this file made its reader fail; it is damaged or needs too much memory"
            ) from None
        finally:
            # One that is not fine, or whose request was given up, may be busy for good.
            if is_fine:
                self._idle.put_nowait(process)
            else:
                self._kill(process)
                self._begin_start()
        return _signal_of(facts, samples)

    async def _next_idle(self) -> asyncio.subprocess.Process:
        try:
            async with asyncio.timeout(self.limits.predict_s):
                while (process := await self._idle.get()).returncode is not None:
                    # The system has ended it, most often because memory ran out.
                    self._kill(process)
                    self._begin_start()
                return process
        except TimeoutError:
            raise overloaded("all that read files are busy") from None

    async def _ask(
        self, process: asyncio.subprocess.Process, request: ReadRequest
    ) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        values = {
            "kind": request.kind,
            "path": None if request.path is None else str(request.path),
            "fs": request.fs,
            "units": request.units,
            "leads": request.leads,
            "max_values": self.limits.max_values,
            "memory": self.limits.reader_memory,
            "seconds": self.limits.read_s,
        }
        process.stdin.write(pack_message(values, request.json_body))
        await process.stdin.drain()
        return await _receive(process, 4 * self.limits.max_values)

    # Processes ----------------------------------------------------------------------------------

    def _begin_start(self) -> None:
        task = asyncio.create_task(self._start_one())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start_one(self) -> None:
        while (process := await self._new_process()) is None:
            log.warning("a process that reads files could not be started; trying again")
            await asyncio.sleep(SECONDS_BETWEEN_STARTS)
        self._idle.put_nowait(process)

    async def _new_process(self) -> asyncio.subprocess.Process | None:
        """A process that is ready to read; None where it is not within its time."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", _START_READER,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for the service, which then ends its readers.
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._all.add(process)
        try:
            await asyncio.wait_for(_receive(process, 0), SECONDS_TO_START)
        except (TimeoutError, asyncio.IncompleteReadError):
            self._kill(process)
            return None
        return process

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        task = asyncio.create_task(self._end(process))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        self._all.discard(process)


async def _receive(
    process: asyncio.subprocess.Process, longest: int
) -> tuple[dict[str, Any], bytes]:
    """The next message; one that is longer than it may be counts as a failure of the process."""
    assert process.stdout is not None
    n_header, n_body = MESSAGE_HEAD.unpack(await process.stdout.readexactly(MESSAGE_HEAD.size))
    if n_header > LONGEST_READER_HEADER or n_body > longest:
        raise ConnectionError(f"a reader wants to say {n_header + n_body:,} bytes")
    values: dict[str, Any] = json.loads(await process.stdout.readexactly(n_header))
    return values, await process.stdout.readexactly(n_body)


def _signal_of(facts: dict[str, Any], samples: bytes) -> ReadSignal:
    if "error" in facts:
        raise RecordError(facts["error"])
    if "defect" in facts:
        raise RuntimeError(f"a reader failed:\n{facts['defect']}")
    return ReadSignal(
        signal=np.frombuffer(samples, "<f4").reshape(facts["shape"]).copy(),
        fs=facts["fs"],
        leads=tuple(facts["leads"]),
        format=facts["format"],
        remarks=tuple(facts["remarks"]),
        options=facts["options"],
    )
