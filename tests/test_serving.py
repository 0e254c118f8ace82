"""The API over real sockets: what it answers, what it refuses, and what cannot stop it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest
from fake_ecgs import fake_ecg
from served_model import (
    LABELS,
    client_of,
    forms,
    json_body,
    narrow_resnet,
    write_model,
    write_record,
)

from einthoven.errors import ConfigError
from einthoven.explain.explanation import explain_sample
from einthoven.files import read_json, write_json
from einthoven.models.registry import MODELS
from einthoven.prediction import load_best_model, predict_sample
from einthoven.records import LEADS
from einthoven.serving import batcher, readers
from einthoven.serving.answers import label_titles, model_metadata
from einthoven.serving.app import create_app
from einthoven.serving.explaining import METHODS
from einthoven.serving.guard import SECURITY_HEADERS, error_answer, missing_facts, without_paths
from einthoven.serving.limits import ServingLimits
from einthoven.serving.server import serve
from einthoven.version import DISCLAIMER

LIMITS = ServingLimits(n_readers=1, max_bytes=2**20, max_requests=16)


@pytest.fixture(scope="module", autouse=True)
def narrow_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
        yield


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def app(model_path):
    return create_app(model_path, limits=LIMITS, device="cpu")


@pytest.fixture(scope="module")
def running_client(app):
    with client_of(app) as client:
        yield client


@pytest.fixture
def service(app):
    """The service, with its limits restored afterwards."""
    before = app.state.service.limits
    yield app.state.service
    app.state.service.limits = app.state.service.readers.limits = before


@pytest.fixture
def client(running_client, service):
    """A client; whatever a test does, nothing is left under way or lying about."""
    yield running_client
    assert service.requests.inside == service.explanations.inside == service.budget.held == 0
    assert list(service.private_dir.iterdir()) == []


def told(response, status):
    """The error of an answer."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    text = response.text
    assert "Traceback" not in text and "/tmp" not in text and "/work" not in text
    return response.json()["error"]


# Answers -----------------------------------------------------------------------------------------


def test_a_file_gets_the_answer_of_predict_sample(client, model_path, record):
    answer = client.post("/predict", files=forms(record)).json()
    trained = load_best_model(model_path, "cpu")
    signal = np.round(fake_ecg(3, 200, 4), 3)
    expected = predict_sample(trained, signal, 200, LEADS).values()
    probabilities = answer.pop("probabilities")
    assert list(probabilities) == list(LABELS)
    for label, probability in expected.pop("probabilities").items():
        assert probabilities[label] == pytest.approx(probability, abs=1e-5)
    assert answer == expected | {
        "threshold_rule": "best_f1",
        "format": "wfdb",
        "remarks": [],
        "model": answer["model"],
    }
    assert answer["disclaimer"] == DISCLAIMER and answer["conformal"]["0.99"] == list(LABELS)


def test_numbers_get_the_same_answer_in_either_unit(client):
    signal = np.round(fake_ecg(1), 3)
    signal[3, 20:40] = np.nan
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in signal]
    body = {"signal": rows, "fs": 200, "leads": list(LEADS)}
    answers = [
        client.post("/predict", json=body | {"units": "mV"}).json(),
        client.post("/predict", json=body | {
            "signal": [[None if v is None else v * 1000 for v in row] for row in rows],
            "units": "uV",
        }).json(),
    ]  # fmt: skip
    assert answers[0]["probabilities"] == pytest.approx(answers[1]["probabilities"], abs=1e-5)
    assert any("interpolated" in warning for warning in answers[0]["warnings"])


def test_the_recording_comes_back_in_standard_order_with_computed_leads(client):
    signal = np.round(fake_ecg(2), 3)
    rows = [LEADS.index(name) for name in ("V2", "II", "I")]
    body = json_body(signal[rows], leads=("V2", "II", "I"), with_signal=True)
    shown = client.post("/predict", json=body).json()["signal"]
    assert shown["leads"] == ["I", "II", "III", "aVR", "aVL", "aVF", "V2"]
    assert shown["computed"] == ["III", "aVR", "aVL", "aVF"] and shown["fs"] == 200
    expected = np.rint(signal[[*range(6), 7]] * 1000)
    np.testing.assert_allclose(shown["microvolts"], expected, atol=1.5)


def test_a_file_that_does_not_state_its_rate_says_so_and_takes_it_from_the_form(client, tmp_path):
    path = tmp_path / "ecg.csv"
    np.savetxt(path, fake_ecg(4).T, "%.3f", ",", header=",".join(LEADS), comments="")
    refused = client.post("/predict", files=forms([path]), data={"units": "mV"})
    assert told(refused, 422) and "fs" in refused.json()["needs"]
    answer = client.post("/predict", files=forms([path]), data={"fs": "200", "units": "mV"})
    assert answer.status_code == 200 and answer.json()["seconds"] == 10


def test_metadata_tells_everything_but_where_the_model_lies(client, model_path):
    values = client.get("/metadata").json()
    assert values["labels"] == list(LABELS) and values["leads"] == list(LEADS)
    assert (values["fs"], values["units"], values["window_seconds"]) == (100, "mV", 4)
    assert values["thresholds"]["MI"] == 0.9 and values["task"] == "multi"
    assert values["calibration"]["reason"] == "the training has not been finished"
    scores = values["scores"]
    assert scores["headline"]["macro AUROC"] == {"value": 0.9, "low": 0.85, "high": 0.93, "n": 232}
    assert scores["auroc"]["HYP"] is None and scores["auroc"]["MI"]["low"] == 0.85
    assert values["titles"]["MI"] == "myocardial infarction"
    assert str(model_path.parent) not in client.get("/metadata").text


def test_scores_of_another_model_are_not_shown(model_path, tmp_path):
    shutil.copytree(model_path.parent, tmp_path, dirs_exist_ok=True)
    metrics = tmp_path / "test_metrics.json"
    trained = load_best_model(model_path, "cpu")

    def scores():
        return model_metadata(trained, tmp_path / "best_model.pth", LIMITS, ())["scores"]

    assert scores()["n"] == 232
    write_json(metrics, read_json(metrics) | {"model": "another"})
    assert scores() is None
    metrics.write_text("no JSON")
    assert scores() is None
    metrics.unlink()
    assert scores() is None


def test_labels_known_by_an_abbreviation_have_titles():
    assert label_titles(["CLBBB", "AF", "mine"]) == {
        "CLBBB": "complete left bundle branch block",
        "AF": "atrial fibrillation or flutter",
    }


def test_a_model_of_one_label_decides_for_the_likeliest(tmp_path):
    app = create_app(write_model(tmp_path, single=True), limits=LIMITS, device="cpu")
    with client_of(app) as client:
        answer = client.post("/predict", json=json_body(fake_ecg(5))).json()
        assert client.get("/metadata").json()["task"] == "single"
        service = app.state.service
        processes = [psutil.Process(process.pid) for process in service.readers._all]
    assert processes and not any(process.is_running() for process in processes)
    assert not service.private_dir.exists()
    assert answer["threshold_rule"] == "likeliest" and answer["thresholds"] == {}
    assert answer["decisions"] == [max(answer["probabilities"], key=answer["probabilities"].get)]


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_is_that_of_explain_sample(client, model_path, record, method):
    pytest.importorskip("captum", reason="captum is not installed")
    told_of_file = client.post(
        "/explain", files=forms(record), data={"label": "HYP", "method": method}
    )
    values = told_of_file.json()
    signal = np.round(fake_ecg(3, 200, 4), 3).astype(np.float32)
    expected = explain_sample(load_best_model(model_path, "cpu"), signal, 200, LEADS, "HYP", method)
    assert (values["label"], values["method"]) == ("HYP", method)
    by_lead = expected.values()["attribution"]["by_lead"]
    for lead, row in values["attribution"]["by_lead"].items():
        np.testing.assert_allclose(row, by_lead[lead], rtol=0.02, atol=0.01)
    body = json_body(signal, label="HYP", method=method)
    assert client.post("/explain", json=body).json()["label"] == "HYP"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"label": "STTX"}, "did you mean STTC?"),
        ({"label": "x" * 10_000}, "is not known: use CD, HYP"),
        ({"method": "gradcam"}, "did you mean grad_cam?"),
        ({"with_signal": True}, "with_signal"),
    ],
)
def test_what_cannot_be_explained_is_refused(client, asked, message):
    assert message in told(client.post("/explain", json=json_body(fake_ecg(0)) | asked), 422)


def test_long_recordings_and_too_many_explanations_are_refused(client, service, monkeypatch):
    body = json_body(np.round(fake_ecg(0, 200, 60)[:1].astype(float), 3), leads=("I",))
    assert "at most 48 s are explained" in told(client.post("/explain", json=body), 422)
    monkeypatch.setattr(service.explanations, "most", 0)
    assert "explanations" in told(client.post("/explain", json=json_body(fake_ecg(0))), 503)


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "text/plain"),
        ({"content": b""}, 415, "no stated type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "JSON body"),
        ({"json": {}}, 422, "signal: field required"),
        ({"json": {"signal": [[0.0], [0.0]], "fs": 1.0, "leads": ["I"]}}, 422, "2 rows"),
        ({"json": {"signal": [[0.0], [0.0, 1.0]], "fs": 1.0, "leads": ["I", "II"]}}, 422, "differ"),
        ({"json": {"signal": [["1"]], "fs": 1.0, "leads": ["I"]}}, 422, "signal.0.0"),
        ({"json": {"signal": [[0.0]], "fs": 1.0, "leads": ["I"], "path": "x"}}, 422, "path"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"files": [("other", ("a.csv", b"1"))]}, 422, "field file"),
        ({"files": [("file", ("a.csv", b""))]}, 422, "no file"),
        ({"files": [("file", ("a.csv", b"1"))], "data": {"colour": "red"}}, 422, "'colour'"),
        ({"files": [("file", ("a.csv", b"1"))], "data": {"fs": "fast"}}, 422, "hertz above 0"),
        ({"files": [("file", ("a.csv", b"1"))], "data": {"with_signal": "x"}}, 422, "true or"),
        ({"files": [("file", (f"{k}.csv", b"1")) for k in range(9)]}, 400, "Too many files"),
        ({"files": [("file", ("a.dat", b"1")), ("file", ("b.mat", b"1"))]}, 422, "header"),
        ({"files": [("file", ("a.zzz", b"no ECG at all"))]}, 422, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_reason(client, sent, status, message):
    assert message in told(client.post("/predict", **sent), status)


def test_a_signal_that_is_no_ecg_is_refused_with_the_reason(client):
    flat = client.post("/predict", json=json_body(np.full((12, 2000), 1e6)))
    assert told(flat, 422)
    assert "lead" in told(
        client.post("/predict", json=json_body(fake_ecg(0), leads=("Q",) * 12)), 422
    )


@pytest.mark.parametrize("path", ["/nothing", "/predict/", "/docs/x"])
def test_what_is_not_there_is_a_json_error_too(client, path):
    assert "/docs" in told(client.get(path), 404)
    assert told(client.get("/predict"), 405)


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_stated(client, is_stated):
    body = b" " * (3 * 2**20)
    chunks = body if is_stated else (body[k : k + 2**16] for k in range(0, len(body), 2**16))
    headers = {"content-type": "application/json"}
    assert "1 MiB" in told(client.post("/predict", content=chunks, headers=headers), 413)


def test_a_recording_that_is_too_long_is_refused(client, service):
    service.readers.limits = replace(service.limits, max_values=1000)
    assert "24,000 samples" in told(client.post("/predict", json=json_body(fake_ecg(0))), 422)


def test_bodies_together_have_a_limit_too(client, service):
    service.budget.take(service.budget.most)
    refused = client.post("/predict", json=json_body(fake_ecg(0)))
    service.budget.give_back(service.budget.most)
    assert "memory" in told(refused, 503)
    assert client.post("/predict", json=json_body(fake_ecg(0))).status_code == 200


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "other.dat", "~"])
def test_a_header_cannot_name_a_file_that_was_not_sent(client, record, name):
    header, signal = record
    text = header.read_text().replace("100.dat", name)
    files = [("file", ("100.hea", text.encode())), ("file", ("100.dat", signal.read_bytes()))]
    assert "was not sent with it" in told(client.post("/predict", files=files), 422)


def test_uploads_lie_under_names_of_our_own(client, service, record, monkeypatch):
    seen = []
    monkeypatch.setattr(
        service.readers, "read",
        lambda wanted: seen.append(sorted(p.name for p in wanted.path.parent.iterdir())) or 1 / 0,
    )  # fmt: skip
    client.post("/predict", files=forms(record))
    assert len(seen[0]) == 2 and not any("100" == name.split(".")[0] for name in seen[0])
    assert [name.split(".")[1] for name in seen[0]] == ["dat", "hea"]
    assert service.private_dir.stat().st_mode & 0o077 == 0


# Who may ask -------------------------------------------------------------------------------------


def test_security_headers_are_on_every_answer(client):
    for response in (
        client.get("/"),
        client.get("/health"),
        client.get("/x"),
        client.post("/predict"),
    ):
        assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "access-control-allow-origin" not in response.headers
        assert "server" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"}, {"host": "evil.example:80"}, {"host": "192.168.1.7"},
        {"host": "[x"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_without_a_token_other_names_and_other_sites_are_refused(client, headers):
    assert told(client.post("/predict", json=json_body(fake_ecg(0)), headers=headers), 403)
    assert client.get("/health", headers={"host": "localhost:9"}).status_code == 200
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_with_a_token_everything_but_the_page_needs_it(model_path):
    app = create_app(model_path, token="schlüssel", limits=LIMITS, device="cpu")
    body = json_body(fake_ecg(0))
    with client_of(app) as client:
        for path in ("/", "/page.js", "/page.css", "/health", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for shown in (None, "Bearer x", "Basic schlüssel", "Bearer", "schlüssel"):
            headers = {} if shown is None else {"authorization": shown.encode()}
            assert "token" in told(client.post("/predict", json=body, headers=headers), 401)
            assert told(client.get("/metadata", headers=headers), 401)
        right = {"authorization": "Bearer schlüssel".encode(), "host": "ecg.example"}
        assert client.post("/predict", json=body, headers=right).status_code == 200
        schema = client.get("/openapi.json").json()
        assert schema["paths"]["/predict"]["post"]["security"] == [{"token": []}]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "ecg.example"])
def test_an_open_host_needs_a_token(host, monkeypatch, tmp_path):
    monkeypatch.delenv("EINTHOVEN_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="give a token"):
        serve(tmp_path / "best_model.pth", host=host)


@pytest.mark.parametrize("library", ["fastapi", "python_multipart"])
def test_a_library_that_is_missing_is_named(model_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs {library}; .*einthoven\[serving\]"):
        create_app(model_path, limits=LIMITS, device="cpu")


def test_a_port_that_is_taken_is_told(client, model_path):
    port = client.base_url.port
    with pytest.raises(ConfigError, match=f":{port} cannot be used"):
        serve(model_path, port=port, device="cpu")


# Errors ------------------------------------------------------------------------------------------


def test_an_unknown_error_is_told_by_an_id_that_the_log_has(client, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("at /home/someone/secret.edf")

    monkeypatch.setattr("einthoven.serving.service.prepare_sample", fail)
    monkeypatch.setattr(logging.getLogger("einthoven"), "propagate", True)
    refused = client.post("/predict", json=json_body(fake_ecg(0)))
    assert "secret" not in told(refused, 500) and "ZeroDivision" not in refused.text
    assert refused.json()["id"] in caplog.text and "secret.edf" in caplog.text


@pytest.mark.parametrize(
    ("message", "without"),
    [
        ("/tmp/einthoven-x/ab/cd.edf is damaged", "the file is damaged"),
        (r"cannot open 'C:\Users\me\ecg one.xml'", "cannot open 'the file one.xml'"),
        ("25 mm/s, lead I/II, 1/2", "25 mm/s, lead I/II, 1/2"),
    ],
)
def test_errors_hold_no_path(message, without):
    assert without_paths(message) == without


def test_what_is_missing_is_told_in_a_list():
    assert missing_facts("the rate is not known: pass fs, in hertz") == ["fs"]
    assert missing_facts("pass leads or pass units (V)") == ["units", "leads"]
    assert missing_facts("lead V1 is met twice") == []
    assert error_answer(ZeroDivisionError()).status == 500


# What hangs, breaks and floods -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misread", "message"),
    [
        ("time.sleep(60)", "longer than 0.5 s"),
        ("[0 for _ in iter(int, 1)]", "longer than 0.5 s"),
        ("os.abort()", "made its reader fail"),
        ("bytearray(2**40)", "more memory"),
    ],
)
def test_a_parser_that_hangs_or_crashes_stops_nothing(
    client, service, monkeypatch, misread, message
):
    let_readers_misread(service, monkeypatch, misread)
    service.readers.limits = replace(service.limits, read_s=0.5)
    assert message in told(client.post("/predict", json=json_body(fake_ecg(0))), 422)
    service.readers.limits = service.limits
    assert client.post("/predict", json=json_body(fake_ecg(0))).status_code == 200


@pytest.mark.skipif(os.name != "posix", reason="the system has no such limit")
def test_a_parser_can_write_nothing_to_disk(client, service, monkeypatch, tmp_path):
    path = tmp_path / "filled"
    let_readers_misread(service, monkeypatch, f"open({str(path)!r}, 'wb').write(bytes(10**5))")
    service.readers.limits = replace(service.limits, read_s=0.5)
    told(client.post("/predict", json=json_body(fake_ecg(0))), 500)
    assert path.stat().st_size == 0


def let_readers_misread(service, monkeypatch, misread):
    """Replace all readers by some that do this with whatever has to be read in half a second."""
    run = (
        "import os, time, einthoven.serving.reader_process as r; real = r._read_request\n"
        f"def read(request, body): request['seconds'] < 1 and {misread}; "
        "return real(request, body)\n"
        "r._read_request = read; r.run_reader()"
    )
    monkeypatch.setattr(readers, "_START_READER", run)
    # As the system ends a process when memory runs out.
    for process in list(service.readers._all):
        psutil.Process(process.pid).kill()
        while process.returncode is None:
            time.sleep(0.01)


class HeldModel:
    """A model that answers only when it is let go."""

    def __init__(self, monkeypatch):
        self.begun, self.let_go, self.sizes = threading.Event(), threading.Event(), []
        real = batcher.predict_prepared

        def held(trained, samples):
            self.sizes.append(len(samples))
            self.begun.set()
            assert self.let_go.wait(20)
            return real(trained, samples)

        monkeypatch.setattr(batcher, "predict_prepared", held)


def test_requests_that_come_together_share_a_pass_and_get_their_own_answers(
    client, service, monkeypatch, model_path
):
    model, passes = HeldModel(monkeypatch), service.batcher.passes
    signals = [fake_ecg(seed, 200, 4 + seed % 3) for seed in range(9)]

    def ask(signal):
        return client.post("/predict", json=json_body(signal)).json()["probabilities"]

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, signals[0])
        assert model.begun.wait(20)
        others = [pool.submit(ask, signal) for signal in signals[1:]]
        while service.batcher._queue.qsize() < 8:
            pass
        model.let_go.set()
        answers = [each.result() for each in (first, *others)]
    assert model.sizes == [1, 8] and service.batcher.passes - passes == 2
    trained = load_best_model(model_path, "cpu")
    for signal, answer in zip(signals, answers, strict=True):
        alone = predict_sample(trained, np.array(signal.tolist()), 200, LEADS)
        assert answer == pytest.approx(alone.probabilities, abs=1e-5)


def test_one_sample_that_fails_does_not_fail_those_beside_it(client, service, monkeypatch):
    real, begun, let_go = batcher.predict_prepared, threading.Event(), threading.Event()

    def fail_for_short_ones(trained, samples):
        begun.set()
        assert let_go.wait(20)
        if any(sample.seconds < 4 for sample in samples):
            raise ZeroDivisionError
        return real(trained, samples)

    monkeypatch.setattr(batcher, "predict_prepared", fail_for_short_ones)
    with ThreadPoolExecutor(4) as pool:

        def ask(seconds):
            return pool.submit(client.post, "/predict", json=json_body(fake_ecg(0, 200, seconds)))

        first = ask(5)
        assert begun.wait(20)
        together = [ask(seconds) for seconds in (5, 3, 6)]
        while service.batcher._queue.qsize() < 3:
            pass
        let_go.set()
        statuses = [each.result().status_code for each in (first, *together)]
    assert statuses == [200, 200, 500, 200]


def test_too_many_requests_are_told_to_come_back_and_then_get_in(client, service, monkeypatch):
    model, body = HeldModel(monkeypatch), json_body(fake_ecg(0))
    monkeypatch.setattr(service.requests, "most", 3)
    with ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(client.post, "/predict", json=body) for _ in range(3)]
        while service.requests.inside < 3:
            pass
        refused = [client.post("/predict", json=body) for _ in range(5)]
        model.let_go.set()
        answered = [each.result().status_code for each in taken]
    assert answered == [200] * 3
    assert all("3 requests are under way" in told(response, 503) for response in refused)
    assert {response.headers["retry-after"] for response in refused} == {"1"}
    assert client.post("/predict", json=body).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(client, service, monkeypatch):
    service.limits = replace(service.limits, predict_s=0.2)
    model = HeldModel(monkeypatch)
    assert "longer than 0.2 s" in told(client.post("/predict", json=json_body(fake_ecg(0))), 504)
    model.let_go.set()
    service.limits = replace(service.limits, predict_s=20)
    assert client.post("/predict", json=json_body(fake_ecg(0))).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up(client, service):
    service.limits = replace(service.limits, receive_s=0.3)
    stop = threading.Event()

    def trickle():
        yield b"{"
        stop.wait(1.5)
        yield b"}"

    headers = {"content-type": "application/json"}
    refused = client.post("/predict", content=trickle(), headers=headers)
    assert "longer than 0.3 s" in told(refused, 408)


# The description ---------------------------------------------------------------------------------


def test_the_api_page_describes_every_operation_and_asks_for_nothing(client):
    page = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "http://" not in page.replace("http://127.0.0.1:8000", "") and "https://" not in page
    for field in ("with_signal", "method", "conformal", "needs Authorization"):
        assert field in page or field.startswith("needs")
