"""What `einthoven train` does in each mode: what follows training, and the smoke test."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner
from evaluated_workspace import draw_coarsely
from matplotlib.figure import Figure
from stores import N_SAMPLES, write_tiny_store

from einthoven import modes, smoke
from einthoven.cli import command_line
from einthoven.console import log
from einthoven.errors import DataError, RunStopped
from einthoven.files import Workspace, read_json
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.modes import run_mode, settings_of_mode
from einthoven.prediction import predict_sample
from einthoven.settings import Settings
from einthoven.smoke import (
    SMOKE_STAGES,
    SmokeTest,
    run_smoke_test,
    smoke_results_path,
    smoke_summary,
)
from einthoven.training import train_production

BRIEF = (
    "--epochs", "1", "--target-samples", str(N_SAMPLES), "--crop-samples", "100", "--device", "cpu",
    "--bootstrap-resamples", "100", "--batch-size-cpu", "16", "--tracking", "none",
)  # fmt: skip


def tiny_settings(root, **changes):
    usual = {
        "epochs": 1, "batch_size_cpu": 16, "crop_samples": 100, "target_samples": N_SAMPLES,
        "device": "cpu", "bootstrap_resamples": 100, "tracking": "none",
    }  # fmt: skip
    return Settings(root=root, **(usual | changes))


def einthoven(command, root, *words):
    return CliRunner().invoke(command_line, [command, "--root", str(root), *BRIEF, *words])


@pytest.fixture(autouse=True)
def narrow_model_and_coarse_figures(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))
    draw_coarsely(monkeypatch)


@pytest.fixture
def root(tmp_path):
    write_tiny_store(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The steps of a mode in the order in which they are taken; none does anything."""
    taken = []
    names = ("train_on_engine", "evaluate_detailed", "run_inference_examples", "run_smoke_test")
    for name in names:
        result = {"verdict": "passed", "stages": [], "seconds": 0.0}
        monkeypatch.setattr(modes, name, lambda *_, n=name, r=result: taken.append(n) or r)
    monkeypatch.setattr(modes, "evaluation_summary", lambda metrics: "the scores")
    return taken


# What follows training ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "medium"])
def test_after_training_come_scores_and_examples(tmp_path, calls, mode):
    outcome = run_mode(tiny_settings(tmp_path, run_mode=mode))
    assert calls == ["train_on_engine", "evaluate_detailed", "run_inference_examples"]
    assert outcome.summary == "the scores" and outcome.is_passed


@pytest.mark.parametrize("mode", ["full", "medium", "smoke"])
def test_nothing_comes_after_a_dry_run(tmp_path, calls, mode):
    outcome = run_mode(tiny_settings(tmp_path, run_mode=mode, dry_run=True))
    assert calls == ["train_on_engine"] and outcome.summary == "" and outcome.is_passed


@pytest.mark.parametrize("mode", ["full", "smoke"])
def test_only_the_first_of_several_processes_goes_on_after_training(
    tmp_path, calls, monkeypatch, mode
):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert run_mode(tiny_settings(tmp_path, run_mode=mode)).summary == ""
    assert calls == ["train_on_engine"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace after `einthoven train`, and what that printed; tests leave it as it is."""
    root = tmp_path_factory.mktemp("trained")
    write_tiny_store(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))
        draw_coarsely(patch)
        done = einthoven("train", root)
    assert done.exit_code == 0, done.output
    return root, done


def test_train_leaves_a_scored_model_with_figures_and_examples(trained):
    root, done = trained
    assert done.stdout.startswith("test split") and done.stdout.count("macro AUROC") == 1
    folder = tiny_settings(root).workspace.checkpoints_dir
    written = {path.name for path in folder.iterdir()}
    assert written >= {
        "best_model.pth", "training_history.json", "test_metrics.json", "predictions.parquet",
        "inference_examples.json",
    }  # fmt: skip
    figures = {path.name for path in (root / "artifacts" / "figures").iterdir()}
    shown = read_json(folder / "inference_examples.json")["examples"]
    assert {example["figure"] for example in shown} < figures
    assert not smoke_results_path(tiny_settings(root).workspace).exists()


def test_a_second_train_writes_nothing_and_says_the_scores_again(trained):
    root, first = trained
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert einthoven("train", root).stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


# The smoke test ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A workspace after a smoke test, and what that printed; tests leave it as it is."""
    root = tmp_path_factory.mktemp("tested")
    write_tiny_store(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", partial(ResNet1d, width=16))
        draw_coarsely(patch)
        done = einthoven("train", root, "--run-mode", "smoke")
    assert done.exit_code == 0, done.output
    return root, done


def test_a_smoke_test_goes_through_every_stage_and_writes_what_it_found(tested):
    root, done = tested
    results = read_json(root / "logs" / "smoke_test_results.json")
    assert results["verdict"] == "passed" and results["n_records"] == 80
    assert [stage["stage"] for stage in results["stages"]] == [
        "store", "splits", "batches", "training", "evaluation", "examples", "figures", "prediction",
        "report",
    ]  # fmt: skip
    for stage in results["stages"]:
        assert stage.keys() == {"stage", "verdict", "seconds", "found"}, stage
        assert stage["verdict"] == "passed" and stage["seconds"] >= 0 and stage["found"]
    assert results["seconds"] == pytest.approx(sum(s["seconds"] for s in results["stages"]))
    assert results["versions"]["torch"] and results["hardware"]["device"] == "cpu"
    assert f"Smoke test passed in {results['seconds']:.0f} s" in done.stdout
    assert (root / "artifacts" / "smoke" / "report.html").exists()
    assert (root / "artifacts" / "processed" / "checkpoints" / "smoke" / "best_model.pth").exists()


@pytest.fixture
def finished(tested):
    return SmokeTest(tiny_settings(tested[0], run_mode="smoke"), {})


def test_a_prediction_that_is_not_as_evaluated_fails_its_stage(finished, monkeypatch):
    assert "from the store" in smoke.smoke_prediction(finished)

    def shifted(trained, *sample):
        answer = predict_sample(trained, *sample)
        near = {label: p + 0.006 for label, p in answer.probabilities.items()}
        return replace(answer, probabilities=near)

    monkeypatch.setattr(smoke, "predict_sample", shifted)
    with pytest.raises(DataError, match=r"differ by 0\.006 from those of its evaluation"):
        smoke.smoke_prediction(finished)


def test_figures_that_are_empty_or_not_there_fail_their_stage(finished, tmp_path, monkeypatch):
    folder = finished.settings.workspace.figures_dir
    copied = shutil.copytree(folder, tmp_path / "figures")
    monkeypatch.setattr(Workspace, "figures_dir", copied)
    assert "whole and not empty" in smoke.smoke_figures(finished)
    Figure().savefig(next(copied.glob("roc_curves_*.png")))
    with pytest.raises(DataError, match="figures are empty: roc_curves_"):
        smoke.smoke_figures(finished)
    next(copied.glob("roc_curves_*.png")).unlink()
    with pytest.raises(DataError, match="figures are not there: roc_curves;"):
        smoke.smoke_figures(finished)


@pytest.fixture
def only_quick_stages(monkeypatch):
    """Every stage passes at once, but those that a test replaces."""
    for name in SMOKE_STAGES:
        monkeypatch.setitem(SMOKE_STAGES, name, lambda test: "all well")


@pytest.fixture
def only_training(only_quick_stages, monkeypatch):
    monkeypatch.setitem(SMOKE_STAGES, "training", smoke.smoke_training)


@pytest.mark.usefixtures("only_training")
def test_a_smoke_test_trains_anew_each_time(root):
    settings = tiny_settings(root, run_mode="smoke")
    paths = [settings.workspace.best_model_path, smoke_results_path(settings.workspace)]
    times = []
    for _ in range(2):
        assert run_mode(settings).is_passed
        times.append([path.stat().st_mtime_ns for path in paths])
    assert all(second > first for first, second in zip(*times, strict=True))
    assert run_mode(tiny_settings(root, run_mode="smoke", lr=0.5)).is_passed


@pytest.mark.usefixtures("only_training")
def test_a_smoke_test_replaces_no_run_of_another_mode(root):
    full = tiny_settings(root, run_name="mine")
    train_production(full)
    before = full.workspace.best_model_path.read_bytes()
    test = tiny_settings(root, run_name="mine", run_mode="smoke")
    assert not settings_of_mode(test).fresh
    outcome = run_mode(test)
    assert (
        not outcome.is_passed
        and "run_mode: full -> smoke"
        in read_json(smoke_results_path(test.workspace))["stages"][3]["error"]
    )
    assert full.workspace.best_model_path.read_bytes() == before


def fail(error):
    def stage(test):
        raise error

    return stage


@pytest.mark.usefixtures("only_quick_stages")
@pytest.mark.parametrize("failing", ["store", "evaluation", "report"])
def test_stages_after_one_that_fails_are_not_run(tmp_path, monkeypatch, failing):
    error = DataError("nothing is right;\nmend it")
    monkeypatch.setitem(SMOKE_STAGES, failing, fail(error))
    done = einthoven("train", tmp_path, "--run-mode", "smoke")
    assert done.exit_code == 1
    assert "nothing is right;\nmend it" in done.stderr and "Traceback" not in done.stderr
    results = read_json(tmp_path / "logs" / "smoke_test_results.json")
    at = list(SMOKE_STAGES).index(failing)
    assert results["verdict"] == "failed"
    assert results["stages"][at]["error"] == "nothing is right;\nmend it"
    assert [stage["verdict"] for stage in results["stages"]] == [
        *["passed"] * at, "failed", *["not run"] * (len(SMOKE_STAGES) - at - 1),
    ]  # fmt: skip
    assert all("found" not in stage for stage in results["stages"][at:])


@pytest.mark.usefixtures("only_quick_stages")
def test_a_defect_fails_its_stage_and_keeps_its_traceback(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(SMOKE_STAGES, "batches", fail(ZeroDivisionError("by nothing")))
    log.addHandler(caplog.handler)
    results = run_smoke_test(tiny_settings(tmp_path, run_mode="smoke"))
    log.removeHandler(caplog.handler)
    assert results["stages"][2]["error"] == "ZeroDivisionError: by nothing"
    assert "Traceback" in caplog.text
    assert "batches     failed" in smoke_summary(results, tmp_path)


@pytest.mark.usefixtures("only_quick_stages")
@pytest.mark.parametrize("stopped", [RunStopped("SIGTERM came", 143), KeyboardInterrupt()])
def test_a_smoke_test_that_is_stopped_has_not_passed(tmp_path, monkeypatch, stopped):
    monkeypatch.setitem(SMOKE_STAGES, "training", fail(stopped))
    settings = tiny_settings(tmp_path, run_mode="smoke")
    with pytest.raises(type(stopped)):
        run_smoke_test(settings)
    results = read_json(smoke_results_path(settings.workspace))
    assert results["verdict"] == "failed"
    assert results["stages"][3]["error"] == "stopped before its end"
    assert results["stages"][4]["verdict"] == "not run"


def test_without_a_store_a_smoke_test_says_how_to_make_one(tmp_path):
    done = einthoven("train", tmp_path, "--run-mode", "smoke")
    assert done.exit_code == 1
    assert "run `einthoven prepare`" in done.stderr and "`einthoven demo`" in done.stderr
    results = read_json(tmp_path / "logs" / "smoke_test_results.json")
    assert results["n_records"] == 0 and results["stages"][0]["verdict"] == "failed"
    json.dumps(results, allow_nan=False)


def test_a_device_that_is_not_there_fails_a_stage(root):
    results = run_smoke_test(tiny_settings(root, run_mode="smoke", device="cuda:7"))
    failed = [stage for stage in results["stages"] if stage["verdict"] == "failed"]
    assert [stage["stage"] for stage in failed] == ["batches"] and results["n_records"] == 80
    assert "DEVICE is cuda:7" in failed[0]["error"]


def test_a_store_of_other_settings_fails_the_first_stage(root):
    results = run_smoke_test(tiny_settings(root, run_mode="smoke", target_samples=500))
    assert "target_samples: 200 -> 500" in results["stages"][0]["error"]


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "reports"), [("full", 1), ("smoke", 0)])
def test_run_does_nothing_twice(tmp_path, monkeypatch, calls, mode, reports):
    done = []
    monkeypatch.setattr("einthoven.labelling.label_archives", lambda *_: done.append("label"))
    monkeypatch.setattr("einthoven.prepare.prepare_archives", lambda *_: done.append("prepare"))
    monkeypatch.setattr(
        "einthoven.report.writing.write_report", lambda *_: done.append("report") or tmp_path
    )
    assert einthoven("run", tmp_path, "--run-mode", mode).exit_code == 0
    assert done == ["label", "prepare", *["report"] * reports]
    assert len(calls) == len(set(calls))


@pytest.mark.usefixtures("only_quick_stages")
@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_failed_smoke_test_is_the_exit_code_of_the_whole_line(tmp_path, monkeypatch, command):
    monkeypatch.setattr("einthoven.labelling.label_archives", lambda *_: None)
    monkeypatch.setattr("einthoven.prepare.prepare_archives", lambda *_: None)
    monkeypatch.setattr(
        "einthoven.synthetic.archives.write_synthetic_archives", lambda *_, **__: None
    )
    monkeypatch.setitem(SMOKE_STAGES, "figures", fail(DataError("no ink")))
    done = einthoven(command, tmp_path, "--run-mode", "smoke")
    assert done.exit_code == 1 and "synthetic records" not in done.stdout
