"""``einthoven serve``: the application on a port, by default of this machine alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from einthoven.console import log
from einthoven.errors import ConfigError
from einthoven.serving.app import create_app
from einthoven.serving.guard import is_loopback
from einthoven.serving.limits import USUAL_LIMITS, ServingLimits
from einthoven.version import DISCLAIMER

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

# Where a token is looked for when none is given: the list of processes shows flags to everybody.
TOKEN_VARIABLE = "EINTHOVEN_TOKEN"

# Connections beyond these are turned away before anything of them is read.
MOST_CONNECTIONS = 512
SECONDS_TO_FINISH = 10


def serve(
    model_path: Path,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    token: str = "",
    limits: ServingLimits = USUAL_LIMITS,
    device: str = "auto",
) -> None:
    """Serve a model until Ctrl-C.

    Args:
        model_path: of a trained model.
        host: address to listen on; another than this machine's own needs a token.
        port: 0 takes any that is free.
        token: what clients have to show; empty is the environment's ``EINTHOVEN_TOKEN``, if any.
        limits: bounds of size, time and number.
        device: as the setting ``DEVICE``.

    Raises:
        ConfigError: the host needs a token, the port is taken, or a library is missing.
        CheckpointError: the model's file cannot be used.
    """
    token = token or os.environ.get(TOKEN_VARIABLE, "")
    check_exposure(host, token)
    app = create_app(model_path, token=token, limits=limits, device=device)
    server = server_of(app)
    with open_socket(host, port) as listening:
        place = f"[{host}]" if ":" in host else host
        log.info("%s", DISCLAIMER)
        log.info("http://%s:%d  (Ctrl-C stops)", place, listening.getsockname()[1])
        server.run(sockets=[listening])
    if not server.started:
        raise ConfigError("the service could not be started; the lines above say why")


def server_of(app: FastAPI) -> uvicorn.Server:
    """What runs the application; it listens on the sockets that it is given.

    Raises:
        ConfigError: uvicorn is missing.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            "serving needs uvicorn; install it with `pip install 'einthoven[serving]'`"
        ) from error
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="on",
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
    )  # fmt: skip


def check_exposure(host: str, token: str) -> None:
    """Refuse to be open to a network without a token.

    Raises:
        ConfigError: so it would be.
    """
    if not token and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines: give a token ({TOKEN_VARIABLE} or "
            f"--token), or serve on {DEFAULT_HOST}"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
        ConfigError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once; without, they wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port} cannot be used ({error.strerror or error}); choose another --port"
        ) from error
    return listening
