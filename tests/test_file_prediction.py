"""`einthoven predict`: files of any format in, one row for each out, bad ones among them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from evaluated_workspace import draw_coarsely
from fake_ecgs import fake_ecg

from einthoven import file_prediction
from einthoven.checkpoint import ModelInput, load_trained_model, model_values, write_checkpoint
from einthoven.cli import command_line
from einthoven.errors import ConfigError, DataError
from einthoven.file_prediction import Predictor, answer_files, open_predictor, predict_files
from einthoven.formats.hints import ReadingHints
from einthoven.models.registry import build_model
from einthoven.prediction import predict_prepared, predict_sample
from einthoven.records import LEADS

LABELS = ("MI", "NORM", "STTC")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_model("crnn", n_leads=12, n_classes=3)
    seen = ModelInput(100, 200, 100, None, "dataset", torch.full((12,), 0.25))
    path = tmp_path_factory.mktemp("model") / "m.pth"
    write_checkpoint(path, model_values("crnn", model, seen, LABELS, False, {"settings": {}}))
    return path


@pytest.fixture
def predictor(model_path: Path) -> Predictor:
    trained = load_trained_model(model_path, CPU)
    return Predictor(trained.input, LABELS, lambda samples: predict_prepared(trained, samples))


def write_csv_ecg(path: Path, seed: int, seconds: float = 10) -> Path:
    """A CSV that states leads and time."""
    signal = fake_ecg(seed, fs=200, seconds=seconds)
    rows = np.column_stack([np.arange(signal.shape[1]) / 200, signal.T])
    header = ",".join(["time", *LEADS])
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.5f")
    return path


def test_every_file_gets_a_row_and_a_bad_one_its_reason(
    tmp_path: Path, predictor: Predictor
) -> None:
    for k in (0, 2):
        write_csv_ecg(tmp_path / f"e{k}.csv", k)
    np.save(tmp_path / "e1.npy", fake_ecg(1))
    (tmp_path / "e1.npy").write_bytes((tmp_path / "e1.npy").read_bytes()[:500])
    out = tmp_path / "out.json"
    done = predict_files([tmp_path], predictor, json_path=out)
    assert (done.n_files, done.n_errors) == (3, 1)
    rows = json.loads(out.read_text())
    assert [Path(row["path"]).name for row in rows] == ["e0.csv", "e1.npy", "e2.csv"]
    assert "error" in rows[1] and "probabilities" not in rows[1]
    assert set(rows[0]["probabilities"]) == set(LABELS)
    assert rows[0]["disclaimer"] == "Research software, not a medical device."


def test_a_file_is_answered_as_its_signal_is(
    tmp_path: Path, predictor: Predictor, model_path: Path
) -> None:
    paths = [write_csv_ecg(tmp_path / f"e{k}.csv", k, seconds=4 + 3 * k) for k in range(3)]
    answers = answer_files(paths, predictor, ReadingHints())
    trained = load_trained_model(model_path, CPU)
    for k, answer in enumerate(answers):
        alone = predict_sample(trained, fake_ecg(k, 200, 4 + 3 * k), 200, LEADS)
        assert answer.prediction is not None and answer.file_format
        for label, value in alone.probabilities.items():
            assert answer.prediction.probabilities[label] == pytest.approx(value, abs=1e-4)


def test_ten_thousand_files_are_held_a_group_at_a_time(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv_ecg(tmp_path / "e.csv", 0, seconds=3)
    read: list[int] = []
    recording = ReadingHints().read(path)
    monkeypatch.setattr(ReadingHints, "read", lambda hints, path: read.append(1) or recording)
    monkeypatch.setattr(file_prediction, "FILES_PER_GROUP", 4)
    answers = answer_files((path for _ in range(10_000)), predictor, ReadingHints())
    assert next(answers).prediction is not None
    assert len(read) == 4


def test_the_table_has_a_probability_for_each_label(tmp_path: Path, predictor: Predictor) -> None:
    write_csv_ecg(tmp_path / "e.csv", 0)
    out = tmp_path / "answers.tsv"
    predict_files([tmp_path / "e.csv"], predictor, csv_path=out)
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert [name for name in row if name.startswith("probability_")] == [
        f"probability_{label}" for label in LABELS
    ]
    assert 0 < float(row["probability_MI"]) < 1 and row["error"] == ""


def test_drawings_of_equal_names_do_not_overwrite_each_other(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_coarsely(monkeypatch)
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write_csv_ecg(tmp_path / "in" / folder / "e.csv", 0)
    predict_files([tmp_path / "in"], predictor, plot_dir=tmp_path / "plots")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["e.png", "e_2.png"]


def test_what_is_not_there_is_named_before_anything_is_read(
    tmp_path: Path, predictor: Predictor
) -> None:
    with pytest.raises(DataError, match=r"gone\.csv is not there"):
        predict_files([tmp_path / "gone.csv"], predictor, json_path=tmp_path / "o.json")
    with pytest.raises(DataError, match="no recording in"):
        predict_files([tmp_path], predictor, json_path=tmp_path / "o.json")
    assert not (tmp_path / "o.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_name_that_is_no_text_costs_nobody_their_answers(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_coarsely(monkeypatch)
    odd = tmp_path / os.fsdecode(b"M\xfcller.csv")
    odd.write_bytes(write_csv_ecg(tmp_path / "e.csv", 0).read_bytes())
    done = predict_files(
        [odd], predictor, json_path=tmp_path / "o.json", csv_path=tmp_path / "o.csv",
        plot_dir=tmp_path / "plots",
    )  # fmt: skip
    assert (done.n_files, done.n_errors) == (1, 0)
    (row,) = json.loads((tmp_path / "o.json").read_text())
    assert row["path"].endswith("M\ufffdller.csv")


def test_long_recordings_are_answered_in_smaller_groups(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_prediction, "SAMPLES_PER_GROUP", 1500)
    sizes: list[int] = []
    counting = replace(
        predictor, answer=lambda samples: sizes.append(len(samples)) or predictor.answer(samples)
    )
    paths = [write_csv_ecg(tmp_path / f"e{k}.csv", k) for k in range(4)]
    assert len(list(answer_files(paths, counting, ReadingHints()))) == 4
    assert sizes == [2, 2]


def test_an_exported_model_refuses_another_rule(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = SimpleNamespace(
        facts={"threshold_rule": "best_f1"}, single=False, input=predictor.input, labels=LABELS
    )
    monkeypatch.setattr(file_prediction, "load_exported_model", lambda path: exported)
    for rule in (None, "best_f1"):
        assert open_predictor(tmp_path / "m.onnx", "cpu", rule).labels == LABELS
    with pytest.raises(ConfigError, match="export the model again with --threshold-rule youden"):
        open_predictor(tmp_path / "m.onnx", "cpu", "youden")


# The command -------------------------------------------------------------------------------------


def einthoven_predict(words: Sequence[str]) -> Result:
    return CliRunner().invoke(command_line, ["predict", *words])


def test_the_command_says_what_was_decided(tmp_path: Path, model_path: Path) -> None:
    path = write_csv_ecg(tmp_path / "e.csv", 0)
    result = einthoven_predict([str(path), "--model", str(model_path)])
    assert result.exit_code == 0, result.output
    assert (
        "e.csv" in result.output
        and "1 recording" in result.output
        and "not a medical device" in result.output
    )


def test_the_exit_code_tells_of_bad_files(tmp_path: Path, model_path: Path) -> None:
    write_csv_ecg(tmp_path / "e.csv", 0)
    (tmp_path / "bad.csv").write_text("I,II\nx,y\n")
    result = einthoven_predict(
        [str(tmp_path), str(tmp_path / "bad.csv"), "--model", str(model_path)]
    )
    assert result.exit_code == 1
    assert "not read:" in result.output and "1 could not be read" in result.output


def test_warnings_reach_the_terminal(tmp_path: Path, model_path: Path) -> None:
    signal = fake_ecg(0)
    signal[7] = 0
    np.save(tmp_path / "e.npy", signal)
    words = [str(tmp_path / "e.npy"), "--model", str(model_path), "--fs", "200"]
    result = einthoven_predict([*words, "--leads", ",".join(LEADS), "--units", "mV"])
    assert "flat: V2" in result.output and "1 with warnings" in result.output


def test_an_output_never_goes_over_a_recording_or_the_model(
    tmp_path: Path, model_path: Path
) -> None:
    path = write_csv_ecg(tmp_path / "e.csv", 0)
    before = path.read_bytes(), model_path.read_bytes()
    for flag, out in (("--csv", path), ("--json", path), ("--json", model_path)):
        result = einthoven_predict([str(path), "--model", str(model_path), flag, str(out)])
        assert result.exit_code and isinstance(result.exception, ConfigError)
    assert (path.read_bytes(), model_path.read_bytes()) == before


@pytest.mark.parametrize("hint", [("--fs", "0"), ("--units", "parsec"), ("--leads", "I,FOO")])
def test_a_hint_that_cannot_be_meant_is_refused_once(
    tmp_path: Path, model_path: Path, hint: tuple[str, str]
) -> None:
    path = write_csv_ecg(tmp_path / "e.csv", 0)
    result = einthoven_predict([str(path), "--model", str(model_path), *hint])
    assert isinstance(result.exception, ConfigError) and hint[0] in str(result.exception)


def test_a_mistyped_flag_is_not_taken_for_a_file(tmp_path: Path) -> None:
    result = einthoven_predict([str(tmp_path), "--modl", "x"])
    assert result.exit_code == 2 and "--model" in result.output


def test_hints_serve_files_that_state_less(tmp_path: Path, model_path: Path) -> None:
    np.save(tmp_path / "e.npy", 1000 * fake_ecg(0, fs=250))
    model = ["--model", str(model_path), "--json", str(tmp_path / "o.json")]
    path = str(tmp_path / "e.npy")
    assert einthoven_predict([path, *model]).exit_code == 1
    hints = ["--fs", "250", "--units", "uV", "--leads", ",".join(LEADS)]
    assert einthoven_predict([path, *model, *hints]).exit_code == 0
    (row,) = json.loads((tmp_path / "o.json").read_text())
    assert row["fs"] == 250 and row["seconds"] == 10
