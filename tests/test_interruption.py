"""Ctrl-C and SIGTERM: the step is finished, the state saved, and a line says how to go on."""

import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from stores import N_SAMPLES, write_tiny_store

from einthoven.checkpoint import read_checkpoint
from einthoven.files import Workspace, read_json
from einthoven.interruption import held_signals
from einthoven.settings import Settings

TRAIN = [
    sys.executable, "-m", "einthoven", "train", "--target-samples", str(N_SAMPLES),
    "--crop-samples", "100", "--batch-size-cpu", "8", "--device", "cpu", "--tracking", "none",
    "--early-stop-patience", "0",
]  # fmt: skip


def start_training(root, n_epochs):
    environment = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    words = [*TRAIN, "--root", str(root), "--epochs", str(n_epochs)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)


def said_until(process, words):
    """What a process says up to the first line with these words."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            break
    return "".join(lines)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_which_says_how_to_go_on_and_does(tmp_path, number):
    write_tiny_store(tmp_path)
    folder = Workspace(tmp_path).checkpoints_dir
    process = start_training(tmp_path, n_epochs=500)
    said_until(process, "Epoch   1/500")
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert "Stopping as soon as this is saved" in said
    (line,) = [line for line in said.splitlines() if "and saved" in line]
    assert line.endswith("the same command goes on from here") and "Traceback" not in said
    state = read_checkpoint(folder / "last_checkpoint.pth")["state"]
    assert len(read_json(folder / "training_history.json")) == state["epoch"]
    again = start_training(tmp_path, n_epochs=500)
    place = line.partition("stopped ")[2].partition(", and saved")[0]
    assert f"Going on {place}" in said_until(again, "Going on")
    again.kill()
    again.communicate()


def test_a_second_interrupt_does_not_wait():
    with held_signals() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with held_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def look():
        with held_signals() as request:
            seen.append((signal.getsignal(signal.SIGTERM), request.signal_number))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]


def test_a_signal_is_held_where_standard_error_is_no_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with held_signals() as request:
        signal.raise_signal(signal.SIGTERM)
        assert request.signal_number == signal.SIGTERM
