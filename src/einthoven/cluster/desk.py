"""What the processes of a Ray job and the command that started it tell each other.

One small actor beside the command holds it: lines for the log, why the job cannot go on, and
whether somebody wants it to stop.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einthoven.errors import EinthovenError, RunStopped


@dataclass(frozen=True)
class NotedError:
    """An error that another try would meet again, as plain values.

    Attributes:
        kind: its class, if it is one that a person can mend.
        text: its message, or the whole traceback.
        exit_code: of a run that was stopped.
    """

    kind: type[EinthovenError] | None
    text: str
    exit_code: int = 0


class Desk:
    """Holds what is told until somebody asks for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.error: NotedError | None = None
        self.signal_number = 0
        self.heard_at = time.monotonic()
        self.nodes: dict[int, str] = {}

    def begin(self, number: int, node: str) -> None:
        """Leave word that a call is at work, and on which node."""
        self.nodes[number] = node

    def begun(self) -> dict[int, str]:
        """Each call that has begun, and its node."""
        return self.nodes

    def tell(self, level: int, line: str) -> None:
        """Leave a line of the log."""
        self.lines.append((level, line))

    def take(self) -> list[tuple[int, str]]:
        """The lines since the last call."""
        taken, self.lines = self.lines, []
        return taken

    def note(self, error: NotedError) -> None:
        """Leave the reason why the job ends; the first one counts."""
        self.error = self.error or error

    def noted(self) -> NotedError | None:
        """The reason why the job ends, if there is one."""
        return self.error

    def ask_to_stop(self, signal_number: int) -> None:
        """Leave word that the job should save and end."""
        self.signal_number = signal_number

    def stop_asked(self) -> int:
        """The signal that the command has got, or 0; only processes that work ask for it."""
        self.heard_at = time.monotonic()
        return self.signal_number

    def silent_seconds(self) -> float:
        """Since when no process has asked."""
        return time.monotonic() - self.heard_at


def open_desk(ray: Any) -> Any:
    """A `Desk` on the machine of the command, for processes anywhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Desk).remote()


def described_error(error: Exception) -> NotedError:
    """An error, to be raised again by `noted_error` in another process."""
    if isinstance(error, RunStopped):
        return NotedError(RunStopped, str(error), error.exit_code)
    if isinstance(error, EinthovenError):
        return NotedError(type(error), str(error))
    return NotedError(None, "".join(traceback.format_exception(error)))


def noted_error(noted: NotedError) -> Exception:
    """The error of another process."""
    if noted.kind is None:
        return RuntimeError(f"a process of the cluster failed:\n{noted.text}")
    if issubclass(noted.kind, RunStopped):
        return RunStopped(noted.text, noted.exit_code)
    return noted.kind(noted.text)


class LineHandler(logging.Handler):
    """Hands each line of the log to a function."""

    def __init__(self, tell: Callable[[int, str], Any]) -> None:
        super().__init__()
        self.tell_line = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.tell_line(record.levelno, self.format(record))
