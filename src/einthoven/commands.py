"""What each command of ``einthoven`` does, and what it takes.

Heavy imports live inside the commands: ``einthoven --help`` must not wait for torch, and a
command's own help only for its settings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from einthoven.errors import ConfigError

if TYPE_CHECKING:
    from einthoven.configuration import LoadedSettings

DISCLAIMER = "Research software, not a medical device."


# Commands ----------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A command: one line of help, the groups of settings it takes, and what it does.

    ``options`` and ``words`` are what it takes beside settings; the action gets them by name. A
    word that ends in ``...`` takes one or more.
    """

    help: str
    groups: tuple[str, ...]
    action: Callable[..., int]
    options: tuple[OwnOption, ...] = ()
    words: tuple[str, ...] = ()


class OwnOption(NamedTuple):
    """An option of one command that is no setting, because it says what to do and not how."""

    flag: str
    kind: Any
    help: str
    default: Any = None
    dest: str = ""


def show_config(loaded: LoadedSettings) -> int:
    from einthoven.console import format_table

    settings = loaded.settings
    values = settings.model_dump(mode="json") | {"dataset_dir": str(settings.archives_dir)}
    # The value comes last: a path may be longer than a line.
    rows = [
        [name.upper(), loaded.origins[name], "(unset)" if value == "" else str(value)]
        for name, value in values.items()
    ]
    click.echo(format_table(["setting", "origin", "value"], rows))
    return 0


def label(loaded: LoadedSettings) -> int:
    from einthoven.labelling import label_archives

    label_archives(loaded.settings)
    return 0


def prepare(loaded: LoadedSettings) -> int:
    from einthoven.prepare import prepare_archives

    prepare_archives(loaded.settings)
    return 0


def check(loaded: LoadedSettings) -> int:
    from einthoven.preflight import format_checks, run_preflight_checks

    checks = run_preflight_checks(loaded.settings)
    click.echo(format_checks(checks))
    return int(any(check.verdict == "failed" for check in checks))


def train(loaded: LoadedSettings) -> int:
    from einthoven.modes import run_mode

    outcome = run_mode(loaded.settings, loaded.origins)
    if outcome.summary:
        click.echo(outcome.summary)
    return 0 if outcome.is_passed else 1


def evaluate(
    loaded: LoadedSettings,
    split: str,
    fold: int | None,
    archive: str,
    external: Path | None,
    model: Path | None,
) -> int:
    from einthoven.evaluation import evaluate_detailed
    from einthoven.scopes import Scope, metrics_path
    from einthoven.summary import evaluation_summary

    if (split != "test") + bool(fold) + (external is not None) > 1:
        raise ConfigError("--split, --fold and --external each name records; give one of them")
    scope = Scope(split, fold or 0, archive, external, model)
    click.echo(evaluation_summary(evaluate_detailed(loaded.settings, scope)))
    click.echo(f"{metrics_path(loaded.settings.workspace, scope)}  {DISCLAIMER}")
    return 0


def compare(loaded: LoadedSettings, first: str, second: str, output: Path | None) -> int:
    from einthoven.comparison.paired import compare_runs
    from einthoven.comparison.scored_runs import resolve_run
    from einthoven.comparison.telling import comparison_summary
    from einthoven.files import write_json

    settings = loaded.settings
    paths = [resolve_run(settings.root, written) for written in (first, second)]
    result = compare_runs(paths[0], paths[1], settings.bootstrap_resamples, settings.seed)
    if output is not None:
        write_json(output, result)
    click.echo(comparison_summary(result))
    return 0


def crossval(loaded: LoadedSettings) -> int:
    from einthoven.crossval import cross_validate, crossval_summary

    result = cross_validate(loaded.settings, loaded.origins)
    click.echo(crossval_summary(result))
    return int(any(part.get("error") for part in result["parts"]))


def predict(
    loaded: LoadedSettings,
    paths: tuple[Path, ...],
    model: Path | None,
    json_path: Path | None,
    csv_path: Path | None,
    plot_dir: Path | None,
    fs: float | None,
    units: str | None,
    leads: str | None,
) -> int:
    from einthoven.file_prediction import (
        CSV_SUFFIXES,
        open_predictor,
        predict_files,
        prediction_summary,
    )
    from einthoven.formats.hints import reading_hints
    from einthoven.outputs import check_outputs

    path = model or loaded.settings.workspace.best_model_path
    hints = reading_hints(fs, units, leads)
    check_outputs({"--json": (json_path, (".json",)), "--csv": (csv_path, CSV_SUFFIXES)}, [path])
    predictor = open_predictor(path, loaded.settings.device, asked_rule(loaded))
    done = predict_files(
        paths, predictor, hints, json_path=json_path, csv_path=csv_path, plot_dir=plot_dir
    )
    click.echo(prediction_summary(done, is_written=bool(json_path or csv_path)))
    return int(done.n_errors > 0)


def explain(
    loaded: LoadedSettings,
    path: str,
    label: str | None,
    method: str,
    model: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    fs: float | None,
    units: str | None,
    leads: str | None,
) -> int:
    from einthoven.explain.command import explain_file
    from einthoven.formats.hints import reading_hints

    said = explain_file(
        model or loaded.settings.workspace.best_model_path, Path(path),
        reading_hints(fs, units, leads), device=loaded.settings.device, rule=asked_rule(loaded),
        label=label, method=method, json_path=json_path, plot_path=plot_path,
    )  # fmt: skip
    click.echo(f"{said}\n{DISCLAIMER}")
    return 0


def export(
    loaded: LoadedSettings, format: str, model: Path | None, output: Path | None, int8: bool
) -> int:
    from einthoven.exporting.command import export_summary, export_trained

    rule = asked_rule(loaded)
    click.echo(export_summary(export_trained(loaded.settings, format, model, output, int8, rule)))
    return 0


def asked_rule(loaded: LoadedSettings) -> str | None:
    """The threshold rule that somebody asked for; None leaves it to the model's file."""
    asked = loaded.origins["threshold_rule"] != "default"
    return loaded.settings.threshold_rule if asked else None


def serve(loaded: LoadedSettings, model: Path | None, host: str, port: int, token: str) -> int:
    from einthoven.serving import server

    path = model or loaded.settings.workspace.best_model_path
    server.serve(path, host=host, port=port, token=token, device=loaded.settings.device)
    return 0


def report(loaded: LoadedSettings) -> int:
    from einthoven.report.writing import write_report

    path = write_report(loaded.settings)
    click.echo(f"Report: {path}")
    return 0


def run(loaded: LoadedSettings) -> int:
    """Every stage in order; each skips itself when it is up to date."""
    from einthoven.modes import settings_of_mode
    from einthoven.run_folder import refuse_other_run

    # Before `prepare` replaces the store that the run in this folder was made from.
    refuse_other_run(settings_of_mode(loaded.settings))
    stages = [label, prepare, train]
    # A dry run leaves nothing to report, and a smoke test has its report.
    if not loaded.settings.dry_run and loaded.settings.run_mode != "smoke":
        stages.append(report)
    return next((code for stage in stages if (code := stage(loaded))), 0)


def demo(loaded: LoadedSettings) -> int:
    from einthoven.synthetic.archives import write_synthetic_archives

    write_synthetic_archives(loaded.settings.archives_dir, seed=loaded.settings.seed)
    code = run(loaded)
    if code == 0:
        click.echo(f"These are scores on synthetic records. {DISCLAIMER}")
    return code


WORKSPACE = ("workspace", "console")
DATA = ("archives", "labels", "prepare")
ALL_GROUPS = (*WORKSPACE, *DATA, "machine", "train", "evaluate", "decisions")
PATH = click.Path(path_type=Path)
SPLIT_CHOICE = click.Choice(["test", "selection", "calibration", "validation", "train", "all"])

READING_OPTIONS = (
    OwnOption("--fs", float, "Hertz of files that do not state it"),
    OwnOption("--units", str, "Units of files that do not state them, such as uV"),
    OwnOption("--leads", str, "Leads of files that do not name them: I,II,V1"),
)

STAGES = {
    "demo": Stage("Make small synthetic archives and run the whole line on them", ALL_GROUPS, demo),
    "label": Stage(
        "List the archives and map their codes to labels",
        (*WORKSPACE, "archives", "labels"), label,
    ),
    "prepare": Stage(
        "Turn the archives' records into a store, splits and a duplicate audit",
        (*WORKSPACE, *DATA), prepare,
    ),
    "check": Stage("Say what is missing or wrong before a long run", ALL_GROUPS, check),
    "train": Stage("Train a model, score it on the test split, show examples", ALL_GROUPS, train),
    "evaluate": Stage(
        "Score a model with intervals: on the test split, or any split, fold, archive or folder",
        (*WORKSPACE, "machine", "evaluate", "decisions"), evaluate,
        (
            OwnOption("--split", SPLIT_CHOICE, "Records to score", "test"),
            OwnOption("--fold", click.IntRange(1, 10), "Score this fold instead"),
            OwnOption("--archive", str, "Only the records of this archive", ""),
            OwnOption("--external", PATH, "Score a folder of archives that is not in the store"),
            OwnOption("--model", PATH, "Model file (default: this run's best model)"),
        ),
    ),
    "predict": Stage(
        "Answer ECG files of any supported format, or folders of them",
        (*WORKSPACE, "machine", "decisions"), predict,
        (
            OwnOption("--model", PATH, "Model file, or an exported .onnx (default: this run's)"),
            OwnOption("--json", PATH, "Write all answers here, as JSON", dest="json_path"),
            OwnOption("--csv", PATH, "Write a table of all answers here", dest="csv_path"),
            OwnOption("--plot", PATH, "Draw each recording with its answer into this folder",
                      dest="plot_dir"),
            *READING_OPTIONS,
        ),
        ("paths...",),
    ),
    "explain": Stage(
        "Show which leads and beats of an ECG file carried the model's decision",
        (*WORKSPACE, "machine", "decisions"), explain,
        (
            OwnOption("--label", str, "Label to explain (default: the likeliest that is decided)"),
            OwnOption("--method", click.Choice(["integrated_gradients", "grad_cam", "occlusion"]),
                      "How", "integrated_gradients"),
            OwnOption("--model", PATH, "Model file (default: this run's best model)"),
            OwnOption("--json", PATH, "Write the explanation here, as JSON", dest="json_path"),
            OwnOption("--plot", PATH, "Draw it here (default: <name>_explained.png)",
                      dest="plot_path"),
            *READING_OPTIONS,
        ),
        ("path",),
    ),
    "export": Stage(
        "Write a model as one file for other programs, and check that it answers the same",
        (*WORKSPACE, "machine", "decisions"), export,
        (
            OwnOption("--format", click.Choice(["onnx", "torchscript", "torch-export"]),
                      "Form of the file", "onnx"),
            OwnOption("--model", PATH, "Model file (default: this run's best model)"),
            OwnOption("--output", PATH, "File to write (default: beside the model)"),
            OwnOption("--int8", bool, "8-bit integers: smaller and faster, a little less exact"),
        ),
    ),
    "serve": Stage(
        "Serve a model to programs and to a browser, on this machine alone unless told otherwise",
        (*WORKSPACE, "machine"), serve,
        (
            OwnOption("--model", PATH, "Model file (default: this run's best model)"),
            OwnOption("--host", str, "Address to listen on", "127.0.0.1"),
            OwnOption("--port", click.IntRange(0, 65535), "Port; 0 takes any", 8000),
            OwnOption("--token", str, "Token that clients must show (or EINTHOVEN_TOKEN)", ""),
        ),
    ),
    "compare": Stage(
        "Compare the scores of two runs on the records that both have scored",
        (*WORKSPACE, "evaluate"), compare,
        (OwnOption("--output", PATH, "Write the comparison here, as JSON"),),
        ("first", "second"),
    ),
    "crossval": Stage(
        "Train and score on one part of the patients after the other, or on one archive",
        (*ALL_GROUPS, "crossval"), crossval,
    ),
    "report": Stage("Write one HTML page about a run", WORKSPACE, report),
    "run": Stage("label, prepare, train and report; skips what is up to date",
                 ALL_GROUPS, run),
    "config": Stage("Print every setting, its value and where that came from", ALL_GROUPS,
                    show_config),
}  # fmt: skip
