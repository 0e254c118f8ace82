"""A run's trackers: which there are, and what they are told.

They mirror what the run's folder holds and are never needed: one that fails is switched off with
one warning, training goes on, and the next resume or evaluation adds what is missing. Nothing is
written and no library imported where `TRACKING` is none or neither tracker is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import random
import textwrap
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from einthoven.console import log
from einthoven.errors import ConfigError, DataError, RunStopped
from einthoven.files import Workspace, read_json, write_json
from einthoven.settings import TRACKER_NAMES, Settings, did_you_mean
from einthoven.tracking.event_file import EventFile
from einthoven.tracking.mlflow_run import MLFLOW_ENVIRONMENT, MlflowRun, without_login
from einthoven.tracking.numbers import described_settings, epoch_numbers, score_numbers

# What has to be installed for each; mlflow-skinny has the first of MLflow's and opens no database.
TRACKER_MODULES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy")}
TRACKER_TITLES = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}

_LIBRARY_LOGGERS = ("mlflow", "alembic", "sqlalchemy", "urllib3", "tensorboard")
_LONGEST_REASON = 200

# Which trackers ------------------------------------------------------------------------------


def parse_tracking(text: str) -> tuple[str, ...]:
    """The trackers that `TRACKING` asks for; ``auto`` are those that are installed.

    Raises:
        ConfigError: an unknown name, or a tracker that is not installed.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return ()
    if words == ["auto"]:
        return tuple(name for name in TRACKER_NAMES if is_tracker_installed(name))
    unknown = [word for word in words if word not in TRACKER_NAMES]
    if unknown or not words:
        hint = did_you_mean(unknown[0], (*TRACKER_NAMES, "auto", "none")) if unknown else ""
        allowed = f"auto, none, or {' and '.join(TRACKER_NAMES)} with a comma between them"
        raise ConfigError(f"TRACKING is {text!r}; use {allowed}{hint}")
    missing = [name for name in TRACKER_NAMES if name in words and not is_tracker_installed(name)]
    if missing:
        raise ConfigError(
            f"TRACKING asks for {' and '.join(missing)}, which is not installed; "
            "pip install 'einthoven[tracking]'"
        )
    return tuple(name for name in TRACKER_NAMES if name in words)


def is_tracker_installed(name: str) -> bool:
    """Whether a tracker can be imported; it is not imported."""
    specs = [importlib.util.find_spec(module) for module in TRACKER_MODULES[name]]
    # A folder that happens to have the name has a spec, too, but no origin.
    return all(spec is not None and spec.origin is not None for spec in specs)


# What they are told --------------------------------------------------------------------------


class Tracker(Protocol):
    """One tracker's side of a run. Any call may fail: `Trackers` makes them, and answers that."""

    def has_epoch(self, epoch: int) -> bool: ...

    def log_settings(self, settings: Mapping[str, str]) -> None: ...

    def log_epoch(self, numbers: Mapping[str, float], epoch: int, when: float) -> None: ...

    def log_scores(self, numbers: Mapping[str, float], epoch: int) -> None: ...

    def log_figures(self, paths: Sequence[Path], epoch: int) -> None: ...

    def log_model(self, path: Path, epoch: int) -> None: ...

    def set_status(self, status: str) -> None: ...


class Trackers:
    """The trackers of one run; as a context, they learn how its training ended.

    Without any, as in all processes but the first, every call does nothing.

    Args:
        way_back: what a warning says of how the rest gets into a tracker that is switched off.
    """

    def __init__(self, way_back: str = "") -> None:
        self._way_back = way_back
        self._active: dict[str, Tracker] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are written to; one that has failed is none of them."""
        return tuple(self._active)

    def add(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        """Open one; where that fails, the run goes without it."""
        with self._switched_off_on_failure(name):
            self._active[name] = open_tracker()

    def log_settings(self, settings: Mapping[str, str]) -> None:
        self._tell(lambda tracker: tracker.log_settings(settings))

    def log_epoch(self, row: Mapping[str, Any], when: float | None = None) -> None:
        """Add a row of the history where it is not there yet.

        Call it after the checkpoint, so that no tracker knows an epoch that a resumed run repeats.

        Args:
            when: seconds since 1970; by default now.
        """
        epoch, numbers = int(row["epoch"]), epoch_numbers(row)

        def add(tracker: Tracker) -> None:
            if not tracker.has_epoch(epoch):
                tracker.log_epoch(numbers, epoch, time.time() if when is None else when)

        self._tell(add)

    def log_scores(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """Add what ``test_metrics.json`` holds; ``epoch`` is the model's."""
        numbers = score_numbers(metrics)
        self._tell(lambda tracker: tracker.log_scores(numbers, epoch))

    def log_figures(self, paths: Sequence[Path], epoch: int) -> None:
        """Add PNG files."""
        self._tell(lambda tracker: tracker.log_figures(paths, epoch))

    def log_model(self, path: Path, epoch: int) -> None:
        """Add the best model where it is not there yet."""
        self._tell(lambda tracker: tracker.log_model(path, epoch))

    def set_status(self, status: str) -> None:
        """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._tell(lambda tracker: tracker.set_status(status))

    def __enter__(self) -> Trackers:
        self.set_status("RUNNING")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.set_status("FINISHED")
        else:
            is_stopped = issubclass(kind, RunStopped) or not issubclass(kind, Exception)
            self.set_status("KILLED" if is_stopped else "FAILED")

    def _tell(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._active.items()):
            with self._switched_off_on_failure(name):
                action(tracker)

    @contextlib.contextmanager
    def _switched_off_on_failure(self, name: str) -> Iterator[None]:
        try:
            with _undisturbed():
                yield
        except Exception as error:
            self._active.pop(name, None)
            title, reason = TRACKER_TITLES[name], _reason(error)
            log.warning(
                "%s is switched off and the run goes on: %s%s", title, reason, self._way_back
            )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Print nothing of the trackers' libraries, and leave the process as it was before.

    That is its environment, its warnings and log levels, and Python's random numbers, which
    MLflow uses when it waits for a server.
    """
    numbers = random.getstate()
    levels = {name: logging.getLogger(name).level for name in _LIBRARY_LOGGERS}
    unset = {name: MLFLOW_ENVIRONMENT[name] for name in MLFLOW_ENVIRONMENT.keys() - os.environ}
    os.environ.update(unset)
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in unset:
            os.environ.pop(name, None)
        random.setstate(numbers)


def _reason(error: Exception) -> str:
    """The first line of what went wrong, fit for a log that others read."""
    lines = without_login(str(error)).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(lines[0], _LONGEST_REASON, placeholder=" …")


# A run's folder and its trackers -------------------------------------------------------------


def open_trackers(settings: Settings, history: Sequence[Mapping[str, Any]]) -> Trackers:
    """Begin this run in the trackers that `TRACKING` names, or go on with it there.

    Args:
        history: rows of the epochs that are finished; those that a tracker lacks are added.

    Raises:
        ConfigError: as `parse_tracking`.
    """
    names = parse_tracking(settings.tracking)
    if not names:
        return Trackers()
    known = _read_identity(settings.workspace)
    # On disk before a tracker hears of it: a run that is killed meanwhile is found by its name.
    identity = {"id": known.get("id") or uuid.uuid4().hex, "trackers": list(names)}
    if identity != known:
        write_json(tracking_path(settings.workspace), identity)
    trackers = Trackers("; `einthoven evaluate` adds what is missing")
    _open_named(trackers, settings, identity, history)
    return trackers


def track_evaluation(
    settings: Settings, metrics: Mapping[str, Any], figures: Sequence[Path], epoch: int
) -> None:
    """Add an evaluation, and what is missing of the training, to the trackers of the training.

    Args:
        metrics: what ``test_metrics.json`` holds.
        figures: PNG files of this evaluation.
        epoch: of the model.
    """
    workspace = settings.workspace
    identity = _read_identity(workspace)
    trained_with = [name for name in TRACKER_NAMES if name in identity.get("trackers", ())]
    names = [name for name in trained_with if is_tracker_installed(name)]
    if not names or settings.tracking.strip() == "none":
        return
    trackers = Trackers()
    _open_named(trackers, settings, identity | {"trackers": names}, _saved_history(workspace))
    if workspace.step_path("train").exists():
        trackers.set_status("FINISHED")
    trackers.log_model(workspace.best_model_path, epoch)
    trackers.log_scores(metrics, epoch)
    trackers.log_figures(figures, epoch)


def tracking_path(workspace: Workspace) -> Path:
    """Where the name that trackers know the run by is kept, and which trackers know it."""
    return workspace.checkpoints_dir / "tracking.json"


def tensorboard_dir(workspace: Workspace) -> Path:
    """Where TensorBoard's runs lie."""
    return workspace.root / "artifacts" / "tensorboard"


def _read_identity(workspace: Workspace) -> dict[str, Any]:
    with contextlib.suppress(OSError, DataError):
        found = read_json(tracking_path(workspace))
        if isinstance(found, dict):
            return found
    return {}


def _open_named(
    trackers: Trackers,
    settings: Settings,
    identity: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Open the trackers of ``identity`` and add what they lack."""
    workspace = settings.workspace
    if "tensorboard" in identity["trackers"]:
        trackers.add("tensorboard", lambda: _open_event_file(workspace))
    if "mlflow" in identity["trackers"]:
        trackers.add("mlflow", lambda: MlflowRun(workspace, str(identity["id"])))
    trackers.log_settings(described_settings(settings))
    for row in history:
        trackers.log_epoch(row, _end_of_epoch(workspace, int(row["epoch"])))


def _saved_history(workspace: Workspace) -> list[Mapping[str, Any]]:
    """Rows of the epochs, in order; a file that cannot be read is no reason to stop here."""
    rows: list[Mapping[str, Any]] = []
    for path in workspace.checkpoints_dir.glob("metrics_epoch_*.json"):
        with contextlib.suppress(OSError, DataError):
            rows.append(read_json(path))
    return sorted(rows, key=lambda row: int(row["epoch"]))


def _open_event_file(workspace: Workspace) -> EventFile:
    folder = tensorboard_dir(workspace)
    if not folder.exists():
        log.info('TensorBoard: tensorboard --logdir "%s"', folder)
    return EventFile(folder / (workspace.run_name or "default"))


def _end_of_epoch(workspace: Workspace, epoch: int) -> float | None:
    """When an epoch was saved: one that is added later is shown at its own time."""
    path = workspace.checkpoints_dir / f"metrics_epoch_{epoch:03d}.json"
    return path.stat().st_mtime if path.exists() else None
