"""Requests per second and waiting times of `einthoven serve` on loopback, with and without batches.

    python benchmarks/serving.py --model artifacts/processed/checkpoints/best_model.pth

Clients of this machine's own, each with one connection, send ECGs of ten seconds and twelve leads
at 500 Hz one after the other: as WFDB files, and as JSON. The service and its clients share the
machine. Every case is run with batches of up to 64 windows and with one window to a forward pass;
answers are checked against those of `predict_sample`, and requests without one are counted. The
last case has more clients than the service lets in: there the 503s are counted too, and afterwards
a request has to be answered again. Prints a table; writes ``results/serving.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.console import format_table
from einthoven.files import write_json
from einthoven.prediction import load_best_model, predict_sample
from einthoven.records import LEADS
from einthoven.serving.app import create_app
from einthoven.serving.limits import ServingLimits
from einthoven.serving.server import open_socket, server_of
from einthoven.synthetic.wfdb_writing import to_digital, write_wfdb_dat

RESULT_PATH = Path(__file__).parent / "results" / "serving.json"
FS, SECONDS, N_RECORDINGS = 500, 10, 16
BOUNDARY = "einthoven-benchmark"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sent:
    """A request that is sent again and again, and the probabilities it has to get."""

    body: bytes
    content_type: str
    expected: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    status: int
    seconds: float
    is_right: bool


def fake_signals() -> list[np.ndarray]:
    """Noise with beats in whole microvolts, which a WFDB file and JSON hold alike."""
    rng = np.random.default_rng(0)
    time_s = np.arange(FS * SECONDS) / FS
    beats = np.exp(-((((time_s % 0.8) - 0.4) / 0.02) ** 2))
    return [
        np.round(rng.normal(0, 0.03, (12, len(time_s))) + rng.normal(1, 0.5, (12, 1)) * beats, 3)
        for _ in range(N_RECORDINGS)
    ]


def requests_of(kind: str, model_path: Path, device: str) -> list[Sent]:
    trained = load_best_model(model_path, device)
    sent = []
    for signal in fake_signals():
        answer = predict_sample(trained, signal.astype(np.float32), FS, LEADS)
        body, content_type = json_request(signal) if kind == "json" else form_request(signal)
        sent.append(Sent(body, content_type, answer.probabilities))
    return sent


def json_request(signal: np.ndarray) -> tuple[bytes, str]:
    values = {"signal": signal.tolist(), "fs": FS, "leads": list(LEADS)}
    return json.dumps(values).encode(), "application/json"


def form_request(signal: np.ndarray) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        write_wfdb_dat(Path(folder) / "r", to_digital(signal), FS, LEADS)
        files = [path for path in sorted(Path(folder).iterdir())]
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{path.name}"\r\n\r\n'.encode()
            + path.read_bytes()
            + b"\r\n"
            for path in files
        ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()]), (
        f"multipart/form-data; boundary={BOUNDARY}"
    )


def one_client(port: int, sent: Sequence[Sent], first: int, until: float) -> list[Outcome]:
    connection, outcomes = HTTPConnection("127.0.0.1", port, timeout=60), []
    number = first
    while time.perf_counter() < until:
        one = sent[number % len(sent)]
        started = time.perf_counter()
        try:
            connection.request("POST", "/predict", one.body, {"Content-Type": one.content_type})
            response = connection.getresponse()
            told = json.loads(response.read())
            status = response.status
        except OSError:
            connection.close()
            told, status = {}, 0
        seconds = time.perf_counter() - started
        found = told.get("probabilities", {})
        is_right = all(abs(found.get(k, 9) - p) < TOLERANCE for k, p in one.expected.items())
        outcomes.append(Outcome(status, seconds, is_right))
        number += 1
        if status == 503:
            time.sleep(float(response.headers["Retry-After"]))
    connection.close()
    return outcomes


def load(port: int, sent: Sequence[Sent], n_clients: int, seconds: float) -> list[Outcome]:
    """What all clients together got."""
    outcomes: list[list[Outcome]] = [[] for _ in range(n_clients)]
    until = time.perf_counter() + seconds

    def run(number: int) -> None:
        outcomes[number] = one_client(port, sent, number, until)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for some in outcomes for each in some]


def measure(
    model_path: Path, sent: Sequence[Sent], limits: ServingLimits, n_clients: int, seconds: float,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    """One case: a fresh service, a little to warm up, then the load."""
    app = create_app(model_path, limits=limits, device=device)
    listening = open_socket("127.0.0.1", 0)
    port, server = listening.getsockname()[1], server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    service = app.state.service
    load(port, sent, min(n_clients, limits.max_requests), 1.0)
    passes, answered = service.batcher.passes, service.batcher.answered
    started = time.perf_counter()
    outcomes = load(port, sent, n_clients, seconds)
    took = time.perf_counter() - started
    per_pass = (service.batcher.answered - answered) / max(1, service.batcher.passes - passes)
    recovered = load(port, sent, 1, 0.01)
    server.should_exit = True
    thread.join()
    listening.close()
    return summary(outcomes, took) | {
        "samples_per_pass": round(per_pass, 2),
        "answers_afterwards": recovered[0].status == 200,
    }


def summary(outcomes: Sequence[Outcome], took: float) -> dict[str, Any]:
    answered = [each for each in outcomes if each.status == 200]
    waits = 1000 * np.sort([each.seconds for each in answered])
    return {
        "requests": len(outcomes),
        "answered": len(answered),
        "told_to_come_back": sum(each.status == 503 for each in outcomes),
        "failed": sum(each.status not in (200, 503) for each in outcomes),
        "wrong": sum(not each.is_right for each in answered),
        "requests_per_second": round(len(answered) / took, 1),
        "p50_ms": round(float(np.percentile(waits, 50)), 1),
        "p99_ms": round(float(np.percentile(waits, 99)), 1),
    }


def run_benchmark() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULT_PATH)
    asked = parser.parse_args()
    cases = []
    for kind, n_clients in (("wfdb", 1), ("wfdb", 16), ("json", 16), ("wfdb", 64)):
        sent = requests_of(kind, asked.model, asked.device)
        for batch_windows in (64, 1):
            limits = ServingLimits(
                batch_windows=batch_windows,
                batch_wait_s=ServingLimits.batch_wait_s if batch_windows > 1 else 0.0,
                max_requests=24,
            )
            found = measure(asked.model, sent, limits, n_clients, asked.seconds, asked.device)
            cases.append(
                {"kind": kind, "clients": n_clients, "batch_windows": batch_windows} | found
            )
            print(cases[-1])
    header = list(cases[0])
    print(format_table(header, [[case[name] for name in header] for case in cases]))
    write_json(asked.output, {
        "benchmark": "serving", "seconds": asked.seconds, "device": asked.device,
        "threads": torch.get_num_threads(),
        "model": load_best_model(asked.model, asked.device).facts["model_name"],
        "recording": f"12 leads, {SECONDS} s at {FS} Hz", "requests_let_in": 24, "cases": cases,
        "machine": platform.machine(), "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "fastapi", "uvicorn")},
    })  # fmt: skip
    assert not any(case["failed"] or case["wrong"] for case in cases), "a request was not answered"


if __name__ == "__main__":
    run_benchmark()
