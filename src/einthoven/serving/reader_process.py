"""A process that reads files which nobody has vouched for, and can be killed.

A parser that hangs holds its thread for good, and one that crashes takes its process along:
neither may be the service's own. So files, JSON bodies among them, are read in processes that the
service starts, times and kills. They answer with plain numbers on a pipe, never with pickles: a
process that a file has taken over must not take over who listens to it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from einthoven.errors import EinthovenError, RecordError
from einthoven.formats.reading import Recording, read_recording
from einthoven.serving.bodies import body_from_json
from einthoven.serving.messages import MESSAGE_HEAD, pack_message

# A process that nobody could kill, because its service was killed, ends so long after its time.
SECONDS_OF_GRACE = 5


def run_reader() -> None:
    """Answer requests on standard input until it ends; the service starts this in a process."""
    # Parsers print; the pipe is for answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    answers.write(pack_message({"ready": True}))
    answers.flush()
    is_bounded = False
    while (message := _next_message(requests)) is not None:
        request, body = message
        if not is_bounded:
            _bound_process(request["memory"])
            is_bounded = True
        _end_in(request["seconds"] + SECONDS_OF_GRACE)
        answers.write(_answer_request(request, body))
        answers.flush()
        _end_in(0)


def _next_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    head = stream.read(MESSAGE_HEAD.size)
    if len(head) < MESSAGE_HEAD.size:
        return None
    n_header, n_body = MESSAGE_HEAD.unpack(head)
    values: dict[str, Any] = json.loads(stream.read(n_header))
    return values, stream.read(n_body)


def _bound_process(n_bytes: int) -> None:
    """No more memory than this, nothing written to disk; where the system knows such limits."""
    if os.name == "posix":
        import resource

        limits = {
            resource.RLIMIT_AS: n_bytes, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0,
        }  # fmt: skip
        for kind, limit in limits.items():
            try:
                resource.setrlimit(kind, (limit, limit))
            except (OSError, ValueError):
                continue


def _end_in(seconds: float) -> None:
    """Let the system end this process then, whatever it is busy with; 0 takes it back."""
    if os.name == "posix":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer_request(request: dict[str, Any], body: bytes) -> bytes:
    try:
        recording, options = _read_request(request, body)
        if recording.signal.size > request["max_values"]:
            raise RecordError(
                f"the recording has {recording.signal.size:,} samples in all its leads, and the "
                f"service takes {request['max_values']:,}; cut it into shorter ones"
            )
        samples = np.ascontiguousarray(recording.signal, np.dtype("<f4"))
        facts = {
            "fs": float(recording.fs),
            "leads": list(recording.leads),
            "format": recording.format,
            "remarks": [_without_our_name(said, request["path"]) for said in recording.remarks],
            "shape": list(samples.shape),
            "options": options,
        }
        return pack_message(facts, samples.tobytes())
    except EinthovenError as error:
        return pack_message({"error": _without_our_name(str(error), request["path"])})
    except MemoryError:
        return pack_message({"error": "the file needs more memory to be read than it may have"})
    except Exception:
        # A defect of a reader: its service writes this to the log and tells the client nothing.
        return pack_message({"defect": traceback.format_exc()})


def _without_our_name(message: str, path: str | None) -> str:
    """A message about a file, without the name that the service has given it."""
    if path is None:
        return message
    return re.sub(rf"{re.escape(Path(path).stem)}[\w.-]*", "the file", message)


def _read_request(request: dict[str, Any], body: bytes) -> tuple[Recording, dict[str, Any]]:
    if request["path"] is None:
        told = body_from_json(request["kind"], body)
        options = told.model_dump(exclude={"signal", "fs", "leads", "units"})
        return Recording(told.millivolts(), told.fs, tuple(told.leads), "json", ()), options
    recording = read_recording(
        Path(request["path"]), fs=request["fs"], units=request["units"], leads=request["leads"]
    )
    return recording, {}
