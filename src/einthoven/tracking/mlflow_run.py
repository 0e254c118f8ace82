"""MLflow's side of a run: in the workspace's own database, or on the server that
``MLFLOW_TRACKING_URI`` names.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven.console import log
from einthoven.errors import DataError
from einthoven.files import Workspace, file_digest

EXPERIMENT_NAME = "einthoven"
# Names a run for good: MLflow's own id is known only once the run has been made.
RUN_TAG = "einthoven.run"
MODEL_TAG = "einthoven.model"

# How MLflow is to behave, where the user's environment does not say so: it calls nobody but the
# server, prints nothing, gives a dead server up within half a minute, and holds no file open.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}

# What a server takes in one request.
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_SECONDS_FOR_A_LOCK = 5.0


class MlflowRun:
    """A `Tracker` that writes one run of MLflow."""

    def __init__(self, workspace: Workspace, identity: str) -> None:
        uri, location = _where_runs_lie(workspace)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        experiment = _experiment_id(self._client, location)
        run = _find_run(self._client, experiment, identity)
        if run is None:
            tags = {RUN_TAG: identity, "mlflow.source.name": "einthoven"}
            title = workspace.run_name or "default"
            run = self._client.create_run(experiment, run_name=title, tags=tags)
        self._id: str = run.info.run_id
        self._params = set(run.data.params)
        self._model = run.data.tags.get(MODEL_TAG)
        # Written last of an epoch's metrics: where it is, the others are.
        history = self._client.get_metric_history(self._id, "epoch")
        self._epochs = {metric.step for metric in history}

    def has_epoch(self, epoch: int) -> bool:
        return epoch in self._epochs

    def log_settings(self, settings: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        # MLflow takes a parameter once; a resumed run may change those that have no effect.
        params = [Param(k, v) for k, v in settings.items() if k not in self._params]
        for some in _batches_of(params, _MAX_PARAMS):
            self._client.log_batch(self._id, params=some)

    def log_epoch(self, numbers: Mapping[str, float], epoch: int, when: float) -> None:
        self._log_numbers({**numbers, "epoch": float(epoch)}, epoch, when)
        self._epochs.add(epoch)

    def log_scores(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._log_numbers(numbers, epoch, time.time())

    def log_figures(self, paths: Sequence[Path], epoch: int) -> None:
        for path in paths:
            self._client.log_artifact(self._id, str(path), "figures")

    def log_model(self, path: Path, epoch: int) -> None:
        digest = file_digest(path)
        if digest != self._model:
            self._client.log_artifact(self._id, str(path), "model")
            self._client.set_tag(self._id, MODEL_TAG, digest)

    def set_status(self, status: str) -> None:
        if self._client.get_run(self._id).info.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(self._id, status=status)
        else:
            self._client.set_terminated(self._id, status)  # which notes the time, too

    def _log_numbers(self, numbers: Mapping[str, float], step: int, when: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, int(when * 1000), step) for name, value in numbers.items()]
        for some in _batches_of(metrics, _MAX_METRICS):
            self._client.log_batch(self._id, metrics=some)


def _batches_of(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# Experiment and run --------------------------------------------------------------------------


def _experiment_id(client: Any, location: str | None) -> str:
    """The experiment that runs belong to; made where it is missing."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT_NAME
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except Exception:
            # Another run that began in this moment may have been quicker.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if location and experiment.artifact_location != location:
        raise DataError(
            f"{WORKSPACE_DATABASE} keeps files in {experiment.artifact_location}, where the "
            "workspace was before; set MLFLOW_EXPERIMENT_NAME to begin another experiment"
        )
    return str(experiment.experiment_id)


def _find_run(client: Any, experiment: str, identity: str) -> Any:
    query = f"tags.`{RUN_TAG}` = '{identity}'"
    found = client.search_runs([experiment], filter_string=query, max_results=1)
    return found[0] if found else None


# The workspace's database --------------------------------------------------------------------

WORKSPACE_DATABASE = "artifacts/mlflow.db"


def _where_runs_lie(workspace: Workspace) -> tuple[str, str | None]:
    """Where runs are written to, and where files are; a server knows the latter itself."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        log.info("MLflow writes to %s (MLFLOW_TRACKING_URI)", without_login(uri))
        return uri, None
    path = (workspace.root / WORKSPACE_DATABASE).resolve()
    if not path.exists():
        _make_database(path)
    _check_database(path)
    return _database_uri(path), (path.parent / "mlflow").as_uri()


def _database_uri(path: Path) -> str:
    return f"sqlite:///{path.as_posix()}"


def _make_database(path: Path) -> None:
    """Make the tables beside, then give them their name: whole or not at all, and only once.

    Runs that start together would otherwise make them twice in one file, which fails.
    """
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".mlflow-{uuid.uuid4().hex}.db")
    try:
        MlflowClient(tracking_uri=_database_uri(beside)).search_experiments(max_results=1)
        if _give_name(beside, path):
            log.info('MLflow: mlflow ui --backend-store-uri "%s"', _database_uri(path))
    finally:
        beside.unlink(missing_ok=True)


def _give_name(beside: Path, path: Path) -> bool:
    """Give a file its name unless another has it; say whether it got it."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        beside.replace(path)
    return True


def _check_database(path: Path) -> None:
    """Raise at once what MLflow would try again for minutes: no database, or a locked one."""
    with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS_FOR_A_LOCK)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def without_login(text: str) -> str:
    """Addresses without the user and password that they may hold.

    >>> without_login("to http://me:secret@mlflow.example:5000/api")
    'to http://mlflow.example:5000/api'
    """
    return re.sub(r"//[^/@\s]+@", "//", text)
