"""What each command of ``einthoven`` takes: its settings, its own options, its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from einthoven.commands import (
    archives,
    check,
    compare,
    crossval,
    demo,
    download,
    evaluate,
    explain,
    export,
    label,
    predict,
    prepare,
    report,
    run,
    serve,
    show_config,
    train,
    tune,
)

# A command and what it takes -------------------------------------------------------------------


class Stage(NamedTuple):
    """A command: one line of help, the groups of settings it takes, and what it does.

    ``options`` and ``words`` are what it takes beside settings; the action gets them by name. A
    word that ends in ``...`` takes one or more, one that ends in ``?`` may be left out.
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


# Every command ----------------------------------------------------------------------------------

WORKSPACE = ("workspace", "console")
DATA = ("archives", "labels", "prepare")
DOWNLOAD = (*WORKSPACE, "archives", "download")
ALL_GROUPS = (*WORKSPACE, *DATA, "cluster", "machine", "train", "evaluate", "decisions")
PATH = click.Path(path_type=Path)
SPLIT_CHOICE = click.Choice(["test", "selection", "calibration", "validation", "train", "all"])

READING_OPTIONS = (
    OwnOption("--fs", float, "Hertz of files that do not state it"),
    OwnOption("--units", str, "Units of files that do not state them, such as uV"),
    OwnOption("--leads", str, "Leads of files that do not name them: I,II,V1"),
)

STAGES = {
    "demo": Stage("Make small synthetic archives and run the whole line on them", ALL_GROUPS, demo),
    "archives": Stage(
        "List the published archives: size, licence, whether they are here, what to cite",
        (*WORKSPACE, "archives"), archives,
        (OwnOption("--json", bool, "Print everything known of them as JSON", dest="as_json"),),
        ("name?",),
    ),
    "download": Stage(
        "Fetch archives, by the NAMES that `einthoven archives` lists: resumed, verified",
        DOWNLOAD, download,
        (
            OwnOption("--subset", click.IntRange(0), "So many records (0: all)", 0, dest="records"),
            OwnOption("--rate", click.IntRange(0), "PTB-XL only: 100 or 500 hertz (0: both)", 0),
            OwnOption("--zip", PATH, "Unpack a zip or tar that you have", dest="zip_path"),
            OwnOption("--verify", bool, "Hash again what was found right before"),
        ),
        ("names...",),
    ),
    "label": Stage(
        "List the archives and map their codes to labels",
        (*WORKSPACE, "archives", "labels"), label,
    ),
    "prepare": Stage(
        "Turn the archives' records into a store, splits and a duplicate audit",
        (*WORKSPACE, *DATA, "cluster"), prepare,
    ),
    "check": Stage(
        "Say what is missing or wrong before a long run", ALL_GROUPS, check,
        (
            OwnOption("--json", bool, "Print JSON for programs", dest="json_form"),
            OwnOption("--port", click.IntRange(1, 65535), "Port to serve on: see that it is free"),
        ),
    ),
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
    "tune": Stage(
        "Search for settings that score better on the validation split, in any number of processes",
        (*ALL_GROUPS, "tune"), tune,
        (
            OwnOption("--space", PATH, "TOML file of the settings to vary, and how far"),
            OwnOption("--show-space", bool, "Print what would be varied, as such a file, and stop"),
            OwnOption("--confirm", click.IntRange(1, 20),
                      "Afterwards train best and default with so many new seeds, and compare"),
        ),
    ),
    "report": Stage("Write one HTML page about a run", WORKSPACE, report),
    "run": Stage("label, prepare, train and report; skips what is up to date",
                 ALL_GROUPS, run),
    "config": Stage("Print every setting, its value and where that came from", ALL_GROUPS,
                    show_config),
}  # fmt: skip
