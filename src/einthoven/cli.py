"""The ``einthoven`` command.

Heavy imports live inside commands: ``einthoven --help`` must not wait for torch, and a command's
own help only for its settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from einthoven import __version__
from einthoven.errors import ConfigError, EinthovenError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from einthoven.settings import LoadedSettings

DEMO_ROOT = Path("demo")
DISCLAIMER = "Research software, not a medical device."


# Commands ----------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A command: one line of help, the groups of settings it takes, and what it does."""

    help: str
    groups: tuple[str, ...]
    action: Callable[[LoadedSettings], int]


def show_config(loaded: LoadedSettings) -> int:
    from einthoven.console import format_table

    settings = loaded.settings.model_dump(mode="json")
    rows = [
        [name.upper(), "none" if value is None else str(value), loaded.origins[name]]
        for name, value in settings.items()
    ]
    click.echo(format_table(["setting", "value", "origin"], rows))
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
    from einthoven.training import train_production

    train_production(loaded.settings, loaded.origins)
    return 0


def evaluate(loaded: LoadedSettings) -> int:
    from einthoven.evaluation import evaluate_detailed

    evaluate_detailed(loaded.settings)
    return 0


def report(loaded: LoadedSettings) -> int:
    from einthoven.report.writing import write_report

    path = write_report(loaded.settings)
    click.echo(f"Report: {path}")
    return 0


def run(loaded: LoadedSettings) -> int:
    """Every stage in order; each skips itself when it is up to date."""
    for stage in (label, prepare, train, evaluate, report):
        stage(loaded)
    return 0


def demo(loaded: LoadedSettings) -> int:
    from einthoven.synthetic.archives import write_synthetic_archives

    write_synthetic_archives(loaded.settings.archives_dir, seed=loaded.settings.seed)
    run(loaded)
    click.echo(f"These are scores on synthetic records. {DISCLAIMER}")
    return 0


WORKSPACE = ("workspace", "console")
ALL_GROUPS = (*WORKSPACE, "archives", "labels", "prepare", "train", "evaluate")

STAGES = {
    "demo": Stage("Make small synthetic archives and run the whole line on them", ALL_GROUPS, demo),
    "label": Stage(
        "List the archives and map their codes to labels",
        (*WORKSPACE, "archives", "labels"), label,
    ),
    "prepare": Stage(
        "Turn the archives' records into a store, splits and a duplicate audit",
        (*WORKSPACE, "archives", "labels", "prepare"), prepare,
    ),
    "check": Stage("Say what is missing or wrong before a long run", ALL_GROUPS, check),
    "train": Stage("Train a model", ALL_GROUPS, train),
    "evaluate": Stage("Score the best model on the test split, with intervals", ALL_GROUPS,
                      evaluate),
    "report": Stage("Write one HTML page about a run", ALL_GROUPS, report),
    "run": Stage("label, prepare, train, evaluate and report; skips what is up to date",
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


@click.group(cls=Stages, context_settings={"help_option_names": ["-h", "--help"]})
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
    from einthoven.settings import Settings, load_settings, setting_names

    known = setting_names(stage.groups)

    def callback(config: Path | None, **flags: Any) -> None:
        flags |= unknown_flags(click.get_current_context().args, name, known)
        if name == "demo" and flags["root"] is None:
            flags["root"] = DEMO_ROOT
        loaded = load_settings(flags, config)
        from einthoven.console import setup_logging

        setup_logging(loaded.settings.quiet)
        sys.exit(stage.action(loaded))

    options = [setting_option(field, Settings.model_fields[field]) for field in known]
    toml = click.Option(
        ["--config"], type=click.Path(path_type=Path), metavar="FILE",
        help="TOML file of settings (default: einthoven.toml in the workspace)",
    )  # fmt: skip
    return click.Command(
        name,
        callback=callback,
        params=[*options, toml],
        help=stage.help + ".",
        # `load_settings` reports unknown flags, together with all other problems.
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def setting_option(name: str, info: FieldInfo) -> click.Option:
    """The flag of a setting; its value is checked by `load_settings`, not here."""
    from einthoven.settings import allowed_values

    flag = "--" + name.replace("_", "-")
    shown = "" if info.default in (None, "") else f"; default {info.default}"
    if info.annotation is bool:
        declared = f"{flag}/--no-{flag[2:]}" if name not in ("fresh", "dry_run", "quiet") else flag
        return click.Option([declared], is_flag=True, default=None, help=info.description)
    metavar = "INTEGER" if info.annotation is int else "VALUE"
    metavar = "NUMBER" if info.annotation is float else metavar
    help_text = f"{info.description} [{allowed_values(name)}{shown}]"
    return click.Option([flag], metavar=metavar, help=help_text)


def unknown_flags(words: list[str], command: str, known: list[str]) -> dict[str, str]:
    """What click could not place, as settings for `load_settings` to judge.

    Raises:
        ConfigError: a word that is no flag, or a setting that does not concern the command.
    """
    flags: dict[str, str] = {}
    pending = iter(words)
    from einthoven.settings import Settings

    for word in pending:
        if not word.startswith("--"):
            raise ConfigError(f"`einthoven {command}` takes no argument {word!r}; see --help")
        name, _, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in Settings.model_fields:
            raise ConfigError(f"{word} does not concern `einthoven {command}`; leave it out")
        flags[name] = value or next(pending, "")
    return flags


def main() -> None:
    """Run the command line; errors that a user can mend are one message, without a traceback."""
    try:
        command_line(prog_name="einthoven")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except EinthovenError as error:
        click.echo(f"einthoven: {error}", err=True)
        sys.exit(1)
