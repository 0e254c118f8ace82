"""The ``einthoven`` command.

Heavy imports live inside commands: ``einthoven --help`` must not wait for torch, and a command's
own help only for its settings.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from einthoven import __version__
from einthoven.errors import ConfigError, EinthovenError, ProcessLost, RunStopped

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from einthoven.configuration import LoadedSettings

# The demo is over within two minutes on two cores.
DEMO_DEFAULTS = {"root": Path("demo"), "epochs": 8}
INTERRUPTED = 130  # what shells expect of a command that Ctrl-C has ended
DISCLAIMER = "Research software, not a medical device."


# Commands ----------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A command: one line of help, the groups of settings it takes, and what it does.

    ``options`` and ``words`` are what it takes beside settings; the action gets them by name.
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
ALL_GROUPS = (*WORKSPACE, *DATA, "machine", "train", "evaluate")
PATH = click.Path(path_type=Path)
SPLIT_CHOICE = click.Choice(["test", "selection", "calibration", "validation", "train", "all"])

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
        (*WORKSPACE, "machine", "evaluate"), evaluate,
        (
            OwnOption("--split", SPLIT_CHOICE, "Records to score", "test"),
            OwnOption("--fold", click.IntRange(1, 10), "Score this fold instead"),
            OwnOption("--archive", str, "Only the records of this archive", ""),
            OwnOption("--external", PATH, "Score a folder of archives that is not in the store"),
            OwnOption("--model", PATH, "Model file (default: this run's best model)"),
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


# The command line --------------------------------------------------------------------------------


class Stages(click.Group):
    """Commands that are built when they are called for, so that listing them costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stage = STAGES.get(cmd_name)
        return make_command(cmd_name, stage) if stage else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in STAGES:
            import difflib

            nearest = difflib.get_close_matches(args[0], STAGES, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, stage.help) for name, stage in STAGES.items()])


class StageCommand(click.Command):
    """A command whose help lists its settings under the stage that they concern."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from einthoven.settings import Settings, setting_group

        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            info = Settings.model_fields.get(parameter.name or "")
            title = setting_group(info).capitalize() if info else "Options"
            line = parameter.get_help_record(ctx)
            if line:
                sections.setdefault(title, []).append(line)
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl(lines)


HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Stages, context_settings=HELP_SETTINGS)
@click.version_option(__version__, prog_name="einthoven")
def command_line() -> None:
    """Raw 12-lead ECG archives in, a trained and honestly evaluated classifier out.

    Start with `einthoven demo`, which needs no data. With archives in Dataset/, `einthoven run`
    does everything. `einthoven COMMAND --help` lists a command's settings; every setting is also
    an environment variable and a line of einthoven.toml.

    Research software, not a medical device.
    """


def make_command(name: str, stage: Stage) -> click.Command:
    """A command that takes every setting of its stage as a flag of the same name."""
    from einthoven.configuration import load_settings
    from einthoven.settings import Settings, setting_names

    known = setting_names(stage.groups)

    def callback(config: Path | None, **flags: Any) -> None:
        refuse_several_processes(name)
        own = {key: flags.pop(key) for key in own_names}
        flags |= unknown_flags(click.get_current_context().args, name)
        loaded = load_settings(flags, config, DEMO_DEFAULTS if name == "demo" else None)
        from einthoven.console import setup_logging

        setup_logging(loaded.settings.quiet)
        try:
            sys.exit(stage.action(loaded, **own))
        except KeyboardInterrupt:
            click.echo("Stopped. The same command goes on from here.", err=True)
            sys.exit(INTERRUPTED)

    options = [setting_option(field, Settings.model_fields[field]) for field in known]
    own_options = [
        click.Option(
            [option.flag], type=option.kind, help=option.help, default=option.default,
            show_default=bool(option.default),
        )
        for option in stage.options
    ]  # fmt: skip
    words = [click.Argument([word]) for word in stage.words]
    own_names = [*stage.words, *(str(option.name) for option in own_options)]
    toml = click.Option(
        ["--config"], type=click.Path(path_type=Path), metavar="FILE",
        help="TOML file of settings (default: einthoven.toml in the workspace)",
    )  # fmt: skip
    return StageCommand(
        name,
        callback=callback,
        params=[*words, *own_options, *options, toml],
        help=stage.help + ".",
        # `load_settings` reports unknown flags, together with all other problems.
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def refuse_several_processes(command: str) -> None:
    """Refuse to do with several processes what one does.

    Raises:
        ConfigError: ``torchrun`` has started more than one.
    """
    if command != "train" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            f"torchrun is for `einthoven train`; run `einthoven {command}` without it, once"
        )


def setting_option(name: str, info: FieldInfo) -> click.Option:
    """The flag of a setting; its value is checked by `load_settings`, not here."""
    from einthoven.settings import allowed_values

    flag = "--" + name.replace("_", "-")
    shown = "" if info.default in (None, "") else f"; default {info.default}"
    if info.annotation is bool:
        default = "on" if info.default else "off"
        return click.Option(
            [f"{flag}/--no-{flag[2:]}"], is_flag=True, default=None,
            help=f"{info.description} [default {default}]",
        )  # fmt: skip
    metavar = "INTEGER" if info.annotation is int else "VALUE"
    metavar = "NUMBER" if info.annotation is float else metavar
    help_text = f"{info.description} [{allowed_values(name)}{shown}]"
    return click.Option([flag], metavar=metavar, help=help_text)


def unknown_flags(words: list[str], command: str) -> dict[str, str]:
    """What click could not place, as settings for `load_settings` to judge.

    Raises:
        ConfigError: words that are no flag, or settings that do not concern the command.
    """
    from einthoven.settings import Settings

    flags: dict[str, str] = {}
    problems: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            problems.append(f"`einthoven {command}` takes no argument {word!r}; see --help")
            continue
        flag, _, value = word.partition("=")
        if not value and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        name = flag[2:].replace("-", "_")
        if name.removeprefix("no_") in Settings.model_fields:
            problems.append(f"{flag} does not concern `einthoven {command}`; leave it out")
        else:
            flags[name] = value
    if problems:
        raise ConfigError("\n".join(problems))
    return flags


def report_error(error: EinthovenError) -> int:
    """Print what a user can mend, once for all processes of a job; returns the exit code."""
    from einthoven.console import is_first_process

    is_told = is_first_process() or error.is_of_one_process
    # Where the first process has died, the second tells of it.
    if isinstance(error, ProcessLost):
        is_told = os.environ.get("RANK", "0") in ("0", "1")
    if is_told:
        click.echo(
            str(error) if isinstance(error, ConfigError) else f"einthoven: {error}", err=True
        )
    if isinstance(error, RunStopped):
        return error.exit_code
    return 2 if isinstance(error, ConfigError) else 1


def main() -> None:
    """Run the command line; errors that a user can mend are one message, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A label or path may hold what a pipe's encoding cannot, on Windows above all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        command_line(prog_name="einthoven")
    except EinthovenError as error:
        sys.exit(report_error(error))
    except OSError as error:
        # A full disk or a folder that may not be written to; without a file it is our defect.
        if error.filename is None:
            raise
        click.echo(f"einthoven: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)
