"""A connection to Ray: to a cluster that runs already, or to one that is started for this command.

Nothing is sent to Ray's makers: its statistics are off unless the environment says otherwise.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from einthoven.errors import ConfigError

# Tasks return numbers, or a run's answers of some megabytes, and ECGs go through files, so Ray's
# own memory for objects, a third of the machine unless it is told, has little to hold.
OBJECT_STORE_BYTES = 128 << 20
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it Ray hides the GPUs from tasks that ask for none, and warns that it will not.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Seconds; Ray gives up after 30, which a machine that is busy needs.
    "RAY_raylet_start_wait_time_s": "120",
}
HOW_TO_REACH_RAY = (
    "set RAY_ADDRESS to HOST:PORT as `ray start --head` has printed it, or to auto on a machine of "
    "the cluster; leave it unset to start Ray on this machine alone"
)
SECONDS_TO_ANSWER = 20.0


@contextmanager
def connected_ray(address: str) -> Iterator[Any]:
    """The module ``ray``, connected; a connection that was there before is used and kept.

    Args:
        address: of a running cluster, or ``auto``; empty starts one on this machine, for as long
            as the context lasts.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers there.
    """
    ray = _imported_ray()
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _imported_ray() -> Any:
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f'ENGINE is ray, and Ray cannot be imported ({error}); pip install "einthoven[cluster]"'
            ", or use ENGINE=local"
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS is {address}; a Ray client cannot train. Run einthoven on a machine of "
            "the cluster with RAY_ADDRESS=auto, or send it there with `ray job submit`"
        )
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        _check_answer(address)
        if address not in ("", "local"):
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )  # fmt: skip
    # Nothing there, another version of Ray or Python, a start that took too long: each of its own.
    except Exception as error:
        said = str(error).strip().split("\n")[0]
        if address in ("", "local"):
            raise ConfigError(
                f"Ray could not be started on this machine ({said}); it may be too busy, or short "
                "of memory or of room for temporary files: try again when less else runs, use "
                "ENGINE=local, or name a cluster that runs (RAY_ADDRESS)"
            ) from error
        raise ConfigError(
            f"RAY_ADDRESS is {address}, and Ray cannot be used there ({said}); " + HOW_TO_REACH_RAY
        ) from error


def _check_answer(address: str) -> None:
    """Ray itself would wait for minutes, or for ever, where nothing answers.

    Raises:
        OSError: nothing answers at ``HOST:PORT``.
        ValueError: that is no address.
    """
    if address in ("", "local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("it is no HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
