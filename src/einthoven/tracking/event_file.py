"""TensorBoard's side of a run: one event file, made anew whenever the run is gone on with.

It is written without torch's `SummaryWriter`, whose thread prints a traceback of its own when the
disk is full. An epoch is one record of the file, so that it is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven.files import file_digest

# Bytes 16 to 24 of a PNG file are its width and height.
_PNG_SIZE = struct.Struct(">16x2I")
_RGBA = 4


class EventFile:
    """A `Tracker` that writes ``events.out.tfevents.*`` into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # Their content comes again from the run's folder. Windows keeps a file that TensorBoard
        # has open; the start that is written below hides what it holds.
        for before in folder.glob("events.out.tfevents.*"):
            with contextlib.suppress(OSError):
                before.unlink()
        # TensorBoard reads the files of a folder in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns():020d}.einthoven"
        self._epochs: set[int] = set()
        self._write(file_version="brain.Event:2")
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))

    def has_epoch(self, epoch: int) -> bool:
        return epoch in self._epochs

    def log_settings(self, settings: Mapping[str, str]) -> None:
        rows = [f"| {name} | {_in_table(value)} |" for name, value in settings.items()]
        self._write_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), 0)

    def log_epoch(self, numbers: Mapping[str, float], epoch: int, when: float) -> None:
        self._write_numbers(numbers, epoch, when)
        self._epochs.add(epoch)

    def log_scores(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._write_numbers(numbers, epoch, time.time())

    def log_figures(self, paths: Sequence[Path], epoch: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for path in paths:
            content = path.read_bytes()
            width, height = _PNG_SIZE.unpack_from(content)
            image = Summary.Image(
                width=width, height=height, colorspace=_RGBA, encoded_image_string=content
            )
            # Without the time of the evaluation, so that one takes the place of the last.
            tag = f"figures/{path.stem.rpartition('_')[0] or path.stem}"
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            self._write(step=epoch, summary=summary)

    def log_model(self, path: Path, epoch: int) -> None:
        # TensorBoard keeps no files; this says which one the run ended with.
        text = f"{path.name}, epoch {epoch}, {file_digest(path)}"
        self._write_text("model", text, epoch)

    def set_status(self, status: str) -> None:
        """TensorBoard knows no state of a run."""

    def _write_numbers(self, numbers: Mapping[str, float], epoch: int, when: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._write(step=epoch, wall_time=when, summary=Summary(value=values))

    def _write_text(self, tag: str, text: str, epoch: int) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(step=epoch, summary=text_pb(tag, text))

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = Event(**{"wall_time": time.time(), **event}).SerializeToString()
        with self._path.open("ab") as file:
            RecordWriter(file).write(record)


def _in_table(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
