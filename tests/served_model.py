"""A small model file with everything that a service shows of it, and a service that runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import torch
from fake_ecgs import fake_ecg

from einthoven.checkpoint import ModelInput, model_values, write_checkpoint
from einthoven.files import file_digest, write_json
from einthoven.models.resnet1d import ResNet1d
from einthoven.records import LEADS
from einthoven.serving.server import open_socket, server_of
from einthoven.synthetic.wfdb_writing import to_digital, write_wfdb_dat

LABELS = ("CD", "HYP", "MI", "NORM", "STTC")
narrow_resnet = partial(ResNet1d, width=8)


def write_model(folder: Path, *, single: bool = False) -> Path:
    """Random weights, thresholds, conformal limits, and scores beside them.

    `MODELS["resnet1d_wang"]` has to be `narrow_resnet` when it is written and read.
    """
    torch.manual_seed(0)
    model = narrow_resnet(n_leads=12, n_classes=len(LABELS))
    facts = {
        "thresholds": {} if single else {"best_f1": dict.fromkeys(LABELS, 0.4) | {"MI": 0.9}},
        "conformal": {"0.9": dict.fromkeys(LABELS, 0.3), "0.99": dict.fromkeys(LABELS, 0.0)},
        "label_set": "superdiagnostic",
    }
    taken = ModelInput(100, 400, 100, None, "dataset", torch.full((12,), 0.2))
    path = folder / "best_model.pth"
    write_checkpoint(path, model_values("resnet1d_wang", model, taken, LABELS, single, facts))
    write_json(folder / "test_metrics.json", test_metrics(file_digest(path)))
    return path


def test_metrics(model: str) -> dict:
    """Scores as `einthoven evaluate` writes them; HYP has none."""
    figure = {"value": 0.9, "low": 0.85, "high": 0.93, "n": 232}
    none = {"value": None, "low": None, "high": None, "n": 232}
    return {
        "model": model,
        "n": 232,
        "n_patient_groups": 224,
        "interval": "95 %, bootstrap",
        "support": dict.fromkeys(LABELS, 40),
        "headline": {"how": "one archive, ptb-xl", "auroc": {"macro": figure},
                     "f1": {"macro": figure}},
        "auroc": {"per_class": dict.fromkeys(LABELS, figure) | {"HYP": none}},
    }  # fmt: skip


test_metrics.__test__ = False


def write_record(folder: Path, name: str = "100", fs: int = 200, seconds: float = 4) -> list[Path]:
    """A WFDB record of one fake ECG: header and signal file."""
    units = to_digital(fake_ecg(3, fs, seconds))
    write_wfdb_dat(folder / name, units, fs, LEADS)
    return [folder / f"{name}.hea", folder / f"{name}.dat"]


def forms(paths: list[Path]) -> list:
    """Files as httpx sends them."""
    return [("file", (path.name, path.read_bytes())) for path in paths]


def json_body(signal: np.ndarray, fs: float = 200, leads: tuple[str, ...] = LEADS, **more) -> dict:
    """A recording as the API takes it."""
    return {"signal": signal.tolist(), "fs": fs, "leads": list(leads), **more}


@contextlib.contextmanager
def running(app) -> Iterator[str]:
    """The application on a free port of this machine; gives its address."""
    listening = open_socket("127.0.0.1", 0)
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        assert server.started, "the service has not started"
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@contextlib.contextmanager
def client_of(app) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with running(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client
